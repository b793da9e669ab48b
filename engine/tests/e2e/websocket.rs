//! `/ws`: the handshake, what clients may say, and how connections end (contract §2, §3, C-7, C-13, C-14; RFC 6455).
use crate::support::http::Connection;
use crate::support::process::await_that;
use crate::support::server::Server;
use crate::support::ws::{HEARTBEAT, RawWs, Ws, frame, handshake, op};
use crate::support::{is_uuid_v7, token};
use jsonwebtoken::Algorithm;
use serde_json::json;
use tungstenite::Message;

const PING: &str = r#"{"type":"Ping"}"#;
const PONG: &str = r#"{"type":"pong"}"#;

/// Asserts that the connection is alive: it answers a Ping.
#[track_caller]
fn answers(ws: &mut Ws) {
    ws.ask(PING, PONG);
}

#[test]
fn the_handshake_is_that_of_the_rfc() {
    let server = Server::start();
    let mut connection = server.connect();
    let extra = [
        ("Origin", "https://anywhere.example"),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ];
    connection.send(handshake(&format!("/ws?token={}", token::of("ana")), &extra));
    let response = connection.read_head();
    assert_eq!((response.status, response.version.as_str()), (101, "HTTP/1.1"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(response.header("sec-websocket-protocol"), None);
    assert_eq!(response.header("sec-websocket-extensions"), None);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert!(response.header("date").is_some());

    // Nothing is said on connect: the first words are the answer to ours.
    let mut raw = RawWs(connection);
    raw.send(frame(op::FIN | op::TEXT, PING.as_bytes()));
    assert_eq!(raw.read(), (op::FIN | op::TEXT, PONG.as_bytes().to_vec()));
}

#[test]
fn a_message_may_follow_the_handshake_in_the_same_packet() {
    let server = Server::start();
    let mut bytes = handshake(&format!("/ws?token={}", token::of("ana")), &[]).into_bytes();
    bytes.extend(frame(op::FIN | op::TEXT, PING.as_bytes()));
    let mut connection = server.connect();
    connection.send(bytes);
    assert_eq!(connection.read_head().status, 101);
    assert_eq!(RawWs(connection).read(), (op::FIN | op::TEXT, PONG.as_bytes().to_vec()));
}

#[test]
fn what_is_no_handshake_is_refused() {
    let server = Server::start();
    let path = format!("/ws?token={}", token::of("ana"));
    let good = handshake(&path, &[]);
    for (what, request) in [
        ("a plain GET", format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")),
        ("a plain GET without token", "GET /ws HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("no Upgrade", good.replace("Upgrade: websocket\r\n", "")),
        ("another Upgrade", good.replace("websocket", "h2c")),
        ("no Connection", good.replace("Connection: Upgrade\r\n", "")),
        ("no key", good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "")),
        ("a short key", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl")),
    ] {
        let mut connection = server.connect();
        connection.send(request);
        let response = connection.read();
        assert_eq!(response.status, 400, "{what}");
        response.refusal(400, "BAD_REQUEST");
    }
    let mut connection = server.connect();
    connection.send(good.replace("Version: 13", "Version: 8"));
    let response = connection.read();
    // RFC 6455 §4.4 asks for 426 with the version we speak; the original says 400.
    assert!(matches!(response.status, 400 | 426), "{response:?}");
    response.refused(response.status);
}

#[test]
fn tokens_come_by_query_or_by_header() {
    let server = Server::start();
    let ana = token::of("ana");
    let bearer = format!("Bearer {ana}");
    answers(&mut Ws::connect(server.port, &ana));
    answers(&mut Ws::open(server.port, "/ws", &[("authorization", &bearer)]).unwrap_or_else(|e| panic!("{e:?}")));

    let lower = format!("bearer {ana}");
    for (what, path, headers) in [
        ("none", "/ws".to_owned(), vec![]),
        ("empty query over a good header", "/ws?token=".to_owned(), vec![("authorization", bearer.as_str())]),
        ("bad query over a good header", "/ws?token=x".to_owned(), vec![("authorization", bearer.as_str())]),
        ("small b", "/ws".to_owned(), vec![("authorization", lower.as_str())]),
        ("an API key", "/ws".to_owned(), vec![("x-api-key", ana.as_str())]),
    ] {
        let (status, body) = Ws::open(server.port, &path, &headers).err().unwrap_or_else(|| panic!("{what}: accepted"));
        assert_eq!(status, 401, "{what}: {body}");
        assert!(body.starts_with(r#"{"error":{"code":"UNAUTHORIZED","message":"#), "{body}");
    }
    let twice = Ws::open(server.port, &format!("/ws?token={ana}&token={ana}"), &[]);
    assert_eq!(twice.err().map(|(status, _)| status), Some(400));
}

#[test]
fn only_good_tokens_open_the_door() {
    let server = Server::start();
    let now = token::now();
    let accepted = |token: &str| match Ws::open(server.port, &format!("/ws?token={token}"), &[]) {
        Ok(mut ws) => {
            answers(&mut ws);
            true
        }
        Err((status, _)) => {
            assert_eq!(status, 401);
            false
        }
    };
    for (what, claims) in [
        ("no iat", json!({"sub": "ana", "exp": now + 60})),
        ("expired within the leeway", json!({"sub": "ana", "exp": now - 20})),
        ("nbf within the leeway", json!({"sub": "ana", "exp": now + 60, "nbf": now + 20})),
        ("iss and aud that nobody configured", json!({"sub": "ana", "exp": now + 60, "iss": "x", "aud": ["y"]})),
        ("other claims", json!({"sub": "ana", "exp": now + 60, "scope": {"a": [1]}, "roles": [], "tenant_id": null})),
    ] {
        assert!(accepted(&token::sign(&claims)), "{what}");
    }
    for (what, claims) in [
        ("expired", json!({"sub": "ana", "exp": now - 120})),
        ("not yet", json!({"sub": "ana", "exp": now + 600, "nbf": now + 300})),
        ("no exp", json!({"sub": "ana"})),
        ("exp with a fraction", json!({"sub": "ana", "exp": 99_999_999_999.5_f64})),
        ("exp as text", json!({"sub": "ana", "exp": "99999999999"})),
        ("no sub", json!({"exp": now + 60})),
        ("sub as number", json!({"sub": 7, "exp": now + 60})),
        ("sub beyond 255 characters", json!({"sub": "x".repeat(256), "exp": now + 60})),
        ("roles as text", json!({"sub": "ana", "exp": now + 60, "roles": "admin"})),
        ("tenant as number", json!({"sub": "ana", "exp": now + 60, "tenant_id": 7})),
        ("tenant with a colon", json!({"sub": "ana", "exp": now + 60, "tenant_id": "a:b"})),
    ] {
        assert!(!accepted(&token::sign(&claims)), "{what}");
    }
    let claims = json!({"sub": "ana", "exp": now + 60});
    assert!(!accepted(&token::sign_with(&claims, Algorithm::HS256, "another-secret-of-more-than-32-bytes")), "foreign");
    assert!(!accepted(&token::sign_with(&claims, Algorithm::HS384, token::SECRET)), "HS384");
    let good = token::sign(&claims);
    let (head, signature) = good.rsplit_once('.').expect("tokens have three parts");
    assert!(!accepted(head), "no signature");
    assert!(!accepted(&format!("{head}.")), "an empty signature");
    // {"alg":"none","typ":"JWT"}
    let (_, body) = head.split_once('.').expect("tokens have three parts");
    assert!(!accepted(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")), "alg none");
    assert!(!accepted(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.{signature}")), "alg none, signed");
}

#[test]
fn issuer_and_audience_are_required_when_configured() {
    let server = Server::with(&[("JWT_ISSUER", "https://id.example"), ("JWT_AUDIENCE", "ara")]);
    let opens = |extra: serde_json::Value| {
        let mut claims = json!({"sub": "ana", "exp": token::now() + 60});
        claims.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        Ws::open(server.port, &format!("/ws?token={}", token::sign(&claims)), &[]).is_ok()
    };
    assert!(opens(json!({"iss": "https://id.example", "aud": "ara"})));
    assert!(opens(json!({"iss": "https://id.example", "aud": ["other", "ara"]})));
    assert!(!opens(json!({"iss": "https://id.example"})));
    assert!(!opens(json!({"aud": "ara"})));
    assert!(!opens(json!({"iss": "https://else.example", "aud": "ara"})));
    assert!(!opens(json!({"iss": "https://id.example", "aud": "other"})));
}

#[test]
fn a_connection_ends_with_its_token() {
    let server = Server::start();
    // Past by all but two seconds of the leeway.
    let mut ws = Ws::connect(server.port, &token::sign(&json!({"sub": "ana", "exp": token::now() - 58})));
    assert_eq!(ws.await_close(), Some(4001));
}

#[test]
fn clients_subscribe_and_unsubscribe() {
    let server = Server::start();
    let mut ws = server.ws("ana");
    ws.ask(
        r#"{"type":"Subscribe","payload":{"channels":["orders","v1.events","订单","a_b-c","orders"]}}"#,
        r#"{"type":"subscribed","payload":["orders","v1.events","订单","a_b-c","orders"]}"#,
    );
    ws.ask(
        r#" { "payload" : { "extra" : 1, "channels" : [ "more" ] } , "extra" : [], "type" : "Subscribe" } "#,
        r#"{"type":"subscribed","payload":["more"]}"#,
    );
    ws.ask(
        r#"{"type":"Unsubscribe","payload":{"channels":["orders","never","not a name"]}}"#,
        r#"{"type":"unsubscribed","payload":["orders","never","not a name"]}"#,
    );
    // Empty lists are answered by nothing: the pong is the next thing heard.
    ws.say(r#"{"type":"Subscribe","payload":{"channels":[]}}"#);
    ws.say(r#"{"type":"Unsubscribe","payload":{"channels":[]}}"#);
    answers(&mut ws);

    let receipt = server.publish("channels", r#"{"channels":["orders","never"],"event_type":"e","payload":1}"#);
    assert_eq!(receipt["delivered_to"], 0);
    let receipt = server.publish("channel", r#"{"channel":"订单","event_type":"e","payload":2}"#);
    assert_eq!(receipt["delivered_to"], 1);
    assert_eq!(ws.payload(), 2);
}

#[test]
fn names_that_are_none_are_refused_beside_the_good_ones() {
    let server = Server::start();
    let mut ws = server.ws("ana");
    let long = "x".repeat(65);
    ws.say(&format!(r#"{{"type":"Subscribe","payload":{{"channels":["good","a b","","{long}","also-good","a:b"]}}}}"#));
    assert_eq!(ws.hear(), r#"{"type":"subscribed","payload":["good","also-good"]}"#);
    let message = ws.error("SUBSCRIPTION_ERROR");
    assert_eq!(
        message,
        format!(
            "Invalid channel name: a b; Invalid channel name: ; Invalid channel name: {long}; Invalid channel name: a:b"
        )
    );
    answers(&mut ws);
}

#[test]
fn a_connection_holds_so_many_subscriptions() {
    let server = Server::with(&[("WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION", "3")]);
    let mut ws = server.ws("ana");
    ws.say(r#"{"type":"Subscribe","payload":{"channels":["a","b","c","d","e"]}}"#);
    assert_eq!(ws.hear(), r#"{"type":"subscribed","payload":["a","b","c"]}"#);
    assert_eq!(ws.error("SUBSCRIPTION_ERROR"), "Subscription limit exceeded (3/3); Subscription limit exceeded (3/3)");
    ws.ask(r#"{"type":"Unsubscribe","payload":{"channels":["b"]}}"#, r#"{"type":"unsubscribed","payload":["b"]}"#);
    ws.subscribe(&["d"]);
    assert_eq!(server.get("/api/v1/users/ana/subscriptions").ok()["subscriptions"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_user_has_so_many_connections_over_both_transports() {
    let server = Server::start();
    let mut first: Vec<_> = (0..4).map(|_| server.ws("ana")).collect();
    let _stream = server.sse("ana");
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    let text = r#"{"type":"error","code":"CONNECTION_LIMIT","message":"User ana connection limit exceeded (5/5)"}"#;
    assert_eq!(raw.read(), (op::FIN | op::TEXT, text.as_bytes().to_vec()));
    raw.expect_close(1008);
    let refused =
        crate::support::http::call(server.port, "GET", &format!("/sse?token={}", token::of("ana")), &[], None);
    assert_eq!(refused.status, 429);
    refused.refused(429);

    // Others are not concerned, those who are in stay, and who leaves makes room.
    server.still_delivers();
    assert_eq!(server.send("ana", "1")["delivered_to"], 5);
    assert_eq!(first.remove(0).close(1000), Some(1000));
    await_that("the connection that left to be forgotten", || {
        (server.get("/api/v1/users/ana/subscriptions").ok()["connection_count"] == 4).then_some(())
    });
    answers(&mut server.ws("ana"));
}

#[test]
fn a_node_has_so_many_connections() {
    let server = Server::with(&[("WEBSOCKET_MAX_CONNECTIONS", "2"), ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "0")]);
    let _in: Vec<_> = (0..2).map(|_| server.ws("ana")).collect();
    let mut raw = RawWs::connect(server.port, &token::of("ben"));
    let text = r#"{"type":"error","code":"CONNECTION_LIMIT","message":"Total connection limit exceeded (2/2)"}"#;
    assert_eq!(raw.read(), (op::FIN | op::TEXT, text.as_bytes().to_vec()));
    raw.expect_close(1008);
    assert_eq!(server.get("/health").ok()["connections"]["total"], 2);
}

#[test]
fn what_cannot_be_understood_is_told_and_harms_nothing() {
    let server = Server::start();
    let mut ws = server.ws("ana");
    for text in [
        "",
        "nonsense",
        "[]",
        "null",
        "{}",
        r#"{"type":"ping"}"#,
        r#"{"type":"Shout"}"#,
        r#"{"type":7}"#,
        r#"{"type":"Subscribe"}"#,
        r#"{"type":"Subscribe","payload":{"channels":"orders"}}"#,
        r#"{"type":"Subscribe","payload":{"channels":[7]}}"#,
        r#"{"type":"Ack","payload":{}}"#,
        r#"{"type":"Ack","payload":{"notification_id":"not-a-uuid"}}"#,
        r#"{"type":"Ping"} trailing"#,
    ] {
        ws.say(text);
        ws.error("INVALID_MESSAGE");
    }
    ws.0.send(Message::binary(PING.as_bytes())).expect("the server reads");
    assert_eq!(ws.error("UNSUPPORTED_FORMAT"), "Binary messages are not supported");
    ws.ask(r#"{"type":"Ping","payload":null}"#, PONG);
    // An acknowledgement while tracking is off is answered by nothing.
    ws.say(r#"{"type":"Ack","payload":{"notification_id":"550e8400-e29b-41d4-a716-446655440000"}}"#);
    answers(&mut ws);
}

#[test]
fn a_message_may_come_in_fragments_with_a_ping_between() {
    let server = Server::start();
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    let text = r#"{"type":"Subscribe","payload":{"channels":["订单"]}}"#.as_bytes();
    let inside_a_character = text.iter().position(|byte| !byte.is_ascii()).expect("a character of three bytes") + 1;
    raw.send(frame(op::TEXT, &text[..inside_a_character]));
    raw.send(frame(op::FIN | op::PING, b"between"));
    assert_eq!(raw.read(), (op::FIN | op::PONG, b"between".to_vec()));
    for byte in &text[inside_a_character..text.len() - 1] {
        raw.send(frame(op::CONTINUATION, &[*byte]));
    }
    raw.send(frame(op::CONTINUATION, &[]));
    raw.send(frame(op::FIN | op::CONTINUATION, &text[text.len() - 1..]));
    let answer = r#"{"type":"subscribed","payload":["订单"]}"#;
    assert_eq!(raw.read(), (op::FIN | op::TEXT, answer.as_bytes().to_vec()));
}

#[test]
fn a_frame_may_come_byte_by_byte_and_many_at_once() {
    let server = Server::start();
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    for byte in frame(op::FIN | op::TEXT, PING.as_bytes()) {
        raw.send([byte]);
    }
    assert_eq!(raw.read().1, PONG.as_bytes());
    raw.send(frame(op::FIN | op::TEXT, PING.as_bytes()).repeat(500));
    for _ in 0..500 {
        assert_eq!(raw.read(), (op::FIN | op::TEXT, PONG.as_bytes().to_vec()));
    }
}

#[test]
fn pings_are_answered_with_their_own_bytes() {
    let server = Server::start();
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    for payload in [&b""[..], b"hello", &[0, 255, 128], &[7; 125]] {
        raw.send(frame(op::FIN | op::PING, payload));
        assert_eq!(raw.read(), (op::FIN | op::PONG, payload.to_vec()));
    }
    raw.send(frame(op::FIN | op::PONG, b"nobody asked"));
    raw.send(frame(op::FIN | op::PING, b"still there?"));
    assert_eq!(raw.read().1, b"still there?");
}

#[test]
fn a_close_is_echoed() {
    let server = Server::start();
    for code in [1000, 1001, 1008, 3000, 4999] {
        let mut raw = RawWs::connect(server.port, &token::of("ana"));
        let mut payload = u16::to_be_bytes(code).to_vec();
        payload.extend_from_slice("tschüß".as_bytes());
        raw.send(frame(op::FIN | op::CLOSE, &payload));
        let (first, echoed) = raw.read();
        assert_eq!((first, &echoed[..2]), (op::FIN | op::CLOSE, &payload[..2]));
        raw.0.expect_end();
    }
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    raw.send(frame(op::FIN | op::CLOSE, b""));
    let (first, echoed) = raw.read();
    assert_eq!(first, op::FIN | op::CLOSE);
    assert!(echoed.is_empty() || echoed.starts_with(&1000_u16.to_be_bytes()), "{echoed:?}");
    raw.0.expect_end();
}

#[test]
fn a_message_may_be_64_kib_and_not_a_byte_more() {
    let server = Server::start();
    let message_of = |len: usize| {
        let mut text = PING.to_owned();
        text.push_str(&" ".repeat(len - PING.len()));
        text.into_bytes()
    };
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    raw.send(frame(op::FIN | op::TEXT, &message_of(65_536)));
    assert_eq!(raw.read().1, PONG.as_bytes());
    for piece in message_of(65_536).chunks(30_000).enumerate() {
        let (index, bytes) = piece;
        let first = if index == 0 { op::TEXT } else { op::CONTINUATION };
        let last = if index == 2 { op::FIN } else { 0 };
        raw.send(frame(first | last, bytes));
    }
    assert_eq!(raw.read().1, PONG.as_bytes());
    raw.send(frame(op::FIN | op::TEXT, &message_of(65_537)));
    raw.expect_close(1009);

    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    raw.send(frame(op::TEXT, &message_of(40_000)));
    raw.send(frame(op::FIN | op::CONTINUATION, &message_of(40_000)));
    raw.expect_close(1009);

    // The announced length is enough to know.
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    raw.send([op::FIN | op::TEXT, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
    raw.expect_close(1009);
}

#[test]
fn text_must_be_utf_8() {
    let server = Server::start();
    for bad in [&b"\xff"[..], b"ok \xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"] {
        let mut raw = RawWs::connect(server.port, &token::of("ana"));
        raw.send(frame(op::FIN | op::TEXT, bad));
        raw.expect_close(1007);
    }
    let mut raw = RawWs::connect(server.port, &token::of("ana"));
    raw.send(frame(op::FIN | op::CLOSE, b"\x03\xe8\xff\xfe"));
    raw.expect_close(1007);
}

#[test]
fn broken_framing_ends_the_connection() {
    let server = Server::start();
    let unmasked = |first: u8, payload: &[u8]| {
        let mut bytes = vec![first, payload.len() as u8];
        bytes.extend_from_slice(payload);
        bytes
    };
    for (what, bytes) in [
        ("an unmasked text", unmasked(op::FIN | op::TEXT, PING.as_bytes())),
        ("an unmasked ping", unmasked(op::FIN | op::PING, b"")),
        ("RSV1", frame(op::FIN | 0x40 | op::TEXT, PING.as_bytes())),
        ("RSV3", frame(op::FIN | 0x10 | op::TEXT, PING.as_bytes())),
        ("opcode 3", frame(op::FIN | 3, b"")),
        ("opcode 11", frame(op::FIN | 11, b"")),
        ("a ping of 126 bytes", frame(op::FIN | op::PING, &[0; 126])),
        ("a ping in fragments", frame(op::PING, b"")),
        ("a continuation of nothing", frame(op::FIN | op::CONTINUATION, b"")),
        ("a text inside a text", [frame(op::TEXT, b"{"), frame(op::FIN | op::TEXT, PING.as_bytes())].concat()),
        ("a close of one byte", frame(op::FIN | op::CLOSE, b"\x03")),
        ("a close code of nobody", frame(op::FIN | op::CLOSE, &999_u16.to_be_bytes())),
        ("a close code never sent", frame(op::FIN | op::CLOSE, &1005_u16.to_be_bytes())),
        ("a binary in fragments, then a text", [frame(op::BINARY, b"x"), frame(op::TEXT, b"y")].concat()),
    ] {
        let mut raw = RawWs::connect(server.port, &token::of("ana"));
        raw.send(bytes);
        let (first, payload) = raw.read();
        assert_eq!(first, op::FIN | op::CLOSE, "{what}");
        assert_eq!(payload.get(..2), Some(&1002_u16.to_be_bytes()[..]), "{what}");
        raw.0.expect_end();
    }
    server.still_delivers();
}

#[test]
fn heartbeats_come_and_listeners_are_kept() {
    let server = Server::with(&[
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "1"),
        ("WEBSOCKET_CONNECTION_TIMEOUT", "2"),
        ("WEBSOCKET_CLEANUP_INTERVAL", "1"),
    ]);
    // tungstenite answers pings while it reads: a client that only listens. Five heartbeats are more than twice the
    // timeout.
    let mut listener = server.ws("listener");
    let listening = std::thread::spawn(move || {
        let mut heard = 0;
        while heard < 5 {
            match listener.0.read().expect("the listener is kept") {
                Message::Text(text) if text.as_str() == HEARTBEAT => heard += 1,
                Message::Ping(_) => {}
                other => panic!("{other:?} after {heard} heartbeats"),
            }
        }
        listener
    });
    // A client that reads but answers nothing.
    let mut dead = RawWs::connect(server.port, &token::of("dead"));
    let mut heartbeats = 0;
    let mut pings = 0;
    let close = loop {
        match dead.read() {
            (first, text) if first == op::FIN | op::TEXT => {
                assert_eq!(text, HEARTBEAT.as_bytes());
                heartbeats += 1;
            }
            (first, _) if first == op::FIN | op::PING => pings += 1,
            (first, payload) => {
                assert_eq!(first, op::FIN | op::CLOSE);
                break payload;
            }
        }
    };
    assert_eq!(close.get(..2), Some(&1001_u16.to_be_bytes()[..]));
    assert!(heartbeats > 0 && pings > 0, "{heartbeats} heartbeats and {pings} pings before the end");
    assert_eq!(server.send("dead", "1")["delivered_to"], 0, "the dead connection is gone");

    let mut listener = listening.join().expect("the listener hears its heartbeats");
    server.nothing_waits("listener", &mut listener);
}

#[test]
fn a_connection_cut_without_a_word_is_forgotten() {
    let server = Server::start();
    let ws = server.ws("ana");
    assert_eq!(server.get("/health").ok()["connections"]["total"], 1);
    drop(ws);
    await_that("the connection to be forgotten", || {
        (server.get("/health").ok()["connections"]["total"] == 0).then_some(())
    });
    assert_eq!(server.send("ana", "1")["delivered_to"], 0);
}

#[test]
fn the_log_names_no_token() {
    let server = Server::with(&[("RUST_LOG", "debug")]);
    let token = token::of("ana");
    answers(&mut Ws::connect(server.port, &token));
    let mut connection = Connection::open(server.port);
    connection.send(handshake("/ws?token=a-bad-token-that-must-not-be-logged", &[]));
    connection.read().refusal(401, "UNAUTHORIZED");
    let log = server.process.output();
    assert!(!log.contains(&token) && !log.contains("a-bad-token"), "{log}");
    assert!(!log.contains(token::SECRET), "{log}");
}

#[test]
fn notification_ids_grow_with_time() {
    let server = Server::start();
    let mut ws = server.ws("ana");
    let ids: Vec<String> = (0..50)
        .map(|index| {
            server.send("ana", &index.to_string());
            ws.notification()["id"].as_str().expect("ids are text").to_owned()
        })
        .collect();
    assert!(ids.iter().all(|id| is_uuid_v7(id)), "{ids:?}");
    let times: Vec<_> = ids.iter().map(|id| &id[..13]).collect();
    assert!(times.is_sorted(), "{times:?}");
}
