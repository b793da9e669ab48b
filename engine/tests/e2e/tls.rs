//! TLS for clients: the same wire behind it, its certificates, its ends, and what it does to those who are slow.
use crate::support::http::request;
use crate::support::process::await_that;
use crate::support::tls::{P256, TlsServer, TlsStream, make_certificate};
use crate::support::token;
use crate::support::ws::Ws;
use rustix::process::Signal;
use rustls::HandshakeKind;
use serde_json::{Value, json};
use std::io::{Read, Write};

#[test]
fn everything_works_behind_tls_on_every_shard() {
    let server = TlsServer::with(&[("API_KEY", "a-key-of-the-tests")]);
    let key = [("X-API-Key", "a-key-of-the-tests")];
    // Users of both shards; each socket is accepted by either.
    let users: Vec<String> = (0..12).map(|n| format!("u{n}")).collect();
    let mut sockets: Vec<Ws<TlsStream>> = users.iter().map(|user| server.ws(user)).collect();
    let mut streams: Vec<_> = users.iter().map(|user| server.sse(user, "feed")).collect();
    for socket in &mut sockets {
        socket.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
        socket.subscribe(&["feed"]);
        assert_eq!(socket.0.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    // Several requests on one connection, one answer each.
    let mut backend = server.connect();
    let mut sent = Vec::new();
    for n in 0..20 {
        let text = format!("{n}-{}", "x".repeat(n * 1_000));
        let body = json!({"channel": "feed", "event_type": "e", "payload": text}).to_string();
        backend.send(request("POST", "/api/v1/notifications/channel", &key, Some(body.as_bytes())));
        assert_eq!(backend.read().ok()["delivered_to"], 24);
        let body = json!({"target_user_id": users[n % 12], "event_type": "e", "payload": n}).to_string();
        backend.send(request("POST", "/api/v1/notifications/send", &key, Some(body.as_bytes())));
        assert_eq!(backend.read().ok()["delivered_to"], 2);
        sent.push(Value::from(text));
    }
    for (at, (socket, stream)) in sockets.iter_mut().zip(&mut streams).enumerate() {
        let expected: Vec<Value> =
            (0..20).flat_map(|n| [Some(sent[n].clone()), (n % 12 == at).then(|| Value::from(n))]).flatten().collect();
        // The order within a stream is promised; mail and channel are two.
        let split = |heard: Vec<Value>| -> (Vec<Value>, Vec<Value>) { heard.into_iter().partition(Value::is_string) };
        let by_socket: Vec<Value> = expected.iter().map(|_| socket.payload()).collect();
        let by_stream: Vec<Value> = expected.iter().map(|_| stream.notification()["payload"].take()).collect();
        let expected = split(expected);
        assert_eq!((split(by_socket), split(by_stream)), (expected.clone(), expected));
    }
    backend.send(request("GET", "/health", &[], None));
    assert_eq!(backend.read().status, 200);
    backend.send(request("GET", "/nothing", &[("Connection", "close")], None));
    assert_eq!(backend.read().status, 404);
    // The end is said in TLS, else this would be an error.
    backend.expect_end();
    assert_eq!(sockets[0].close(1000), Some(1000));
    assert!(server.metric("ara_tls_handshakes_total") >= 25);
}

#[test]
fn a_stop_is_told_to_everybody_behind_tls() {
    let mut server = TlsServer::with(&[]);
    let (mut socket, mut stream) = (server.ws("ana"), server.sse("ben", "feed"));
    server.publish("broadcast", r#"{"event_type":"e","payload":"last"}"#);
    server.process.signal(Signal::TERM);
    assert_eq!((socket.payload(), stream.notification()["payload"].take()), ("last".into(), "last".into()));
    assert!(socket.hear().contains(r#""type":"shutdown""#));
    assert_eq!(socket.await_close(), Some(1001));
    assert!(stream.hear().is_some_and(|event| event.text.contains("shutdown")));
    assert_eq!(stream.hear(), None, "an orderly end");
    assert_eq!(server.process.await_exit().code(), Some(0));
}

#[test]
fn the_commands_speak_to_a_service_that_speaks_tls() {
    let server = TlsServer::with(&[]);
    let (code, printed) = server.run(&["healthcheck"]);
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains(r#""status""#), "{printed}");
    let mut ana = server.ws("ana");
    let (code, printed) = server.run(&["publish", "--user", "ana", "--event-type", "e", "--payload", "7"]);
    assert_eq!(code, Some(0), "{printed}");
    assert_eq!(ana.payload(), 7);
    // By a URL it is a stranger whose certificate nobody vouches for.
    let url = format!("https://localhost:{}/health", server.port);
    let (code, printed) = server.run(&["healthcheck", "--url", &url]);
    assert_eq!(code, Some(1), "{printed}");
    let (code, printed) = server.run(&["check-config"]);
    assert_eq!(code, Some(0), "{printed}");
}

#[test]
fn files_of_no_use_stop_the_start_and_are_named() {
    let server = TlsServer::with(&[]);
    make_certificate(server.home.path(), "other", "rsa:2048");
    let command = |settings: &[(&str, &str)]| {
        let mut command = crate::support::server::binary();
        command.current_dir(server.home.path()).env("JWT_SECRET", token::SECRET).envs(settings.iter().copied());
        let (status, printed) = crate::support::process::run(&mut command);
        assert_eq!(status.code(), Some(1), "{printed}");
        assert!(printed.contains("Configuration validation failed"), "{printed}");
        printed
    };
    let printed = command(&[("TLS_CERT", "ara.pem")]);
    assert!(printed.contains("TLS_KEY: is required with TLS_CERT"), "{printed}");
    let printed = command(&[("TLS_KEY", "ara.key")]);
    assert!(printed.contains("TLS_CERT: is required with TLS_KEY"), "{printed}");
    let printed = command(&[("TLS_CERT", "none.pem"), ("TLS_KEY", "ara.key"), ("SERVER_PORT", "0")]);
    assert!(printed.contains("none.pem") && printed.contains("SERVER_PORT"), "every problem at once: {printed}");
    let printed = command(&[("TLS_CERT", "ara.pem"), ("TLS_KEY", "other.key")]);
    assert!(printed.contains("must be the key of the first certificate"), "{printed}");
}

#[test]
fn a_new_certificate_is_for_newcomers_and_a_bad_one_for_nobody() {
    let server = TlsServer::with(&[]);
    let old_trust = server.trust();
    let mut old = server.ws("ana");
    old.subscribe(&["feed"]);
    let body = |n: usize| format!(r#"{{"channel":"feed","event_type":"e","payload":{n}}}"#);
    let folder = server.home.path();
    let move_in = |name: &str| {
        for kind in ["pem", "key"] {
            std::fs::rename(folder.join(format!("{name}.{kind}")), folder.join(format!("ara.{kind}"))).expect("ours");
        }
    };

    // Without change it goes on; twice is as good as once.
    for _ in 0..2 {
        server.process.signal(Signal::HUP);
    }
    server.process.await_output("the certificate was read again");
    make_certificate(folder, "new", P256);
    move_in("new");
    server.process.signal(Signal::HUP);
    // Who trusts only the new one is refused until it is there.
    let trust = server.trust();
    await_that("the new certificate", || {
        let mut stream = server.stream_by(&trust);
        stream.flush().is_ok().then_some(())
    });
    let mut stream = server.stream_by(&old_trust);
    assert!(stream.flush().is_err(), "the old certificate is not shown to newcomers, nor taken up by a ticket");
    assert_eq!(server.publish("channel", &body(1))["delivered_to"], 1);
    assert_eq!(old.payload(), 1);

    server.home.write("ara.pem", "no certificate");
    server.process.signal(Signal::HUP);
    server.process.await_output("the one before goes on");
    let mut stream = server.stream_by(&trust);
    stream.flush().expect("the one before goes on");
    old.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
}

#[test]
fn sighup_without_tls_changes_nothing() {
    let server = crate::support::server::Server::start();
    let mut ana = server.ws("ana");
    server.process.signal(Signal::HUP);
    server.process.await_output("there is nothing to read again");
    ana.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
}

#[test]
fn who_comes_back_takes_up_the_session_at_any_shard() {
    let server = TlsServer::with(&[]);
    let trust = server.trust();
    for n in 0..8 {
        let stream = server.stream_by(&trust);
        let mut ws = Ws::open_on(stream, "localhost", &format!("/ws?token={}", token::of("ana")), &[]).expect("let in");
        ws.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
        let kind = if n == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
        assert_eq!(ws.0.get_ref().conn.handshake_kind(), Some(kind), "connect {n}");
        ws.close(1000);
    }
    assert_eq!(server.metric("ara_tls_resumed_total"), 7);
}

#[test]
fn plain_http_and_noise_end_at_once_and_disturb_nobody() {
    let server = TlsServer::with(&[]);
    let mut ana = server.ws("ana");
    let mut plain = server.tcp();
    plain.write_all(&request("GET", "/health", &[], None)).expect("the server reads");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).expect("a clean close");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    for noise in [&[0x80; 100][..], &[22, 3, 1, 0xff, 0xff, 1], b"\r\n\r\n"] {
        let mut stream = server.tcp();
        stream.write_all(noise).expect("the server reads");
        let mut answer = Vec::new();
        // An alert at most; the close may cut off what we said and the server did not read.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    ana.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
    assert!(server.metric("ara_tls_failed_total") >= 3);
}

#[test]
fn a_handshake_may_come_byte_by_byte_and_must_come_to_an_end() {
    let server = TlsServer::with(&[]);
    let (mut silent, mut half) = (server.tcp(), server.tcp());
    half.write_all(&[22, 3, 1, 2, 0, 1]).expect("the server reads");
    let mut dribbled = server.stream();
    let mut heard = Vec::new();
    dribbled.conn.writer().write_all(&request("GET", "/health", &[("Connection", "close")], None)).expect("it waits");
    while heard.is_empty() {
        let mut out = Vec::new();
        while dribbled.conn.wants_write() {
            dribbled.conn.write_tls(&mut out).expect("into memory");
        }
        for byte in out {
            dribbled.sock.write_all(&[byte]).expect("the server reads");
        }
        dribbled.conn.read_tls(&mut dribbled.sock).expect("the server answers");
        dribbled.conn.process_new_packets().expect("a good server");
        // Nothing yet is an error of its own kind.
        let _ = dribbled.conn.reader().read_to_end(&mut heard);
    }
    assert!(heard.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&heard));
    // Both end within the deadline of the handshake; the tests' own is not much longer.
    for stream in [&mut silent, &mut half] {
        assert_eq!(stream.read(&mut [0; 64]).expect("an orderly end"), 0);
    }
}

#[test]
fn a_slow_reader_behind_tls_is_let_go_and_others_hear_everything_in_order() {
    let server = TlsServer::with(&[]);
    let mut slow = server.ws("slow");
    slow.subscribe(&["feed"]);
    let mut readers: Vec<_> = (0..4).map(|n| server.ws(&format!("r{n}"))).collect();
    readers.iter_mut().for_each(|reader| reader.subscribe(&["feed"]));
    let count = 300;
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            std::thread::spawn(move || {
                for n in 0..count {
                    let text = reader.payload();
                    assert_eq!(text.as_str().and_then(|text| text.split('-').next()), Some(&*n.to_string()));
                }
            })
        })
        .collect();
    let mut backend = server.connect();
    for n in 0..count {
        // Those who read must not fall behind for the tests' own slowness: one at a time.
        let body = json!({"channel": "feed", "event_type": "e", "payload": format!("{n}-{}", "x".repeat(60_000))});
        backend.send(request("POST", "/api/v1/notifications/channel", &[], Some(body.to_string().as_bytes())));
        assert_eq!(backend.read().status, 200);
    }
    for reader in readers {
        reader.join().expect("everything in order");
    }
    await_that("the slow reader to be let go", || {
        (server.metric("ara_slow_consumers_closed_total") == 1).then_some(())
    });
    // What it had been sent is whole frames in order, then the reason.
    let mut next = 0;
    let code = loop {
        match slow.0.read().expect("an orderly end") {
            tungstenite::Message::Text(text) if text.contains("notification") => {
                let value: Value = serde_json::from_str(&text).expect("whole frames");
                let text = value["payload"].as_str().expect("a text");
                assert_eq!(text.split('-').next(), Some(&*next.to_string()));
                next += 1;
            }
            tungstenite::Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
            _ => {}
        }
    };
    assert_eq!(code, Some(4008));
    assert!(next > 0);
}
