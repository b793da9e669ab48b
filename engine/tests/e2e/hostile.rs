//! What strangers do to an open port. After each, a client that had nothing to do with it is still served.
use crate::support::http::{Connection, request};
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::ws::{RawWs, Ws, frame, handshake, op};
use crate::support::{raise_file_limit, token};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A server and a client that looks on.
fn server_and_bystander() -> (Server, Ws) {
    let server = Server::start();
    let bystander = server.ws("bystander");
    (server, bystander)
}

#[track_caller]
fn unharmed(server: &Server, bystander: &mut Ws) {
    server.nothing_waits("bystander", bystander);
    server.still_delivers();
}

/// Writes `chunk` again and again until the peer stops taking it, hangs up, or `bytes_max` are gone. Returns the bytes.
fn pour(stream: &mut TcpStream, chunk: &[u8], bytes_max: usize) -> usize {
    // A second without a byte taken, on loopback, is a peer that does not read.
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("an open socket takes options");
    let mut sent = 0;
    while sent < bytes_max {
        // A chunk that was taken in part goes on where it broke off.
        match stream.write(&chunk[sent % chunk.len()..]) {
            Ok(taken) => sent += taken,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn a_ping_flood_that_reads_nothing_costs_its_sender() {
    let (server, mut bystander) = server_and_bystander();
    let before = server.rss_kib();
    let mut flooders: Vec<_> =
        (0..4).map(|n| RawWs::connect(server.port, &token::of(&format!("flooder{n}")))).collect();
    let pings = frame(op::FIN | op::PING, &[b'x'; 125]).repeat(500);
    for flooder in &mut flooders {
        let sent = pour(&mut flooder.0.stream, &pings, 64 << 20);
        assert!(sent < 64 << 20, "the server took 64 MiB of pings whose pongs nobody reads");
    }
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB for four clients that do not read");
    unharmed(&server, &mut bystander);
}

#[test]
fn ten_thousand_connects_and_drops_leave_nothing_behind() {
    let (server, mut bystander) = server_and_bystander();
    let good = handshake(&format!("/ws?token={}", token::of("fleeting")), &[]);
    let sse = format!("GET /sse?token={} HTTP/1.1\r\nHost: a\r\n\r\n", token::of("fleeting"));
    for index in 0..10_000 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server accepts");
        let said = match index % 5 {
            0 => "",
            1 => "GET /hea",
            2 => "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
            3 => &good,
            _ => &sse,
        };
        // The server may have hung up on an earlier one already; this one is dropped anyhow.
        let _ = stream.write_all(said.as_bytes());
    }
    crate::support::process::await_that("the dropped ones to be forgotten", || {
        (server.get("/health").ok()["connections"]["total"] == 1).then_some(())
    });
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.process.pid())).expect("it runs").count();
    assert!(open < 200, "{open} descriptors are still open");
    unharmed(&server, &mut bystander);
}

#[test]
fn json_a_hundred_thousand_deep_is_refused_everywhere() {
    let redis = Redis::start();
    let server = Server::with(&[("REDIS_URL", &redis.url())]);
    redis.await_default_subscriptions();
    let mut bystander = server.ws("bystander");
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));

    for payload in [deep(30_000), objects(10_000), "[".repeat(60_000)] {
        let body = format!(r#"{{"target_user_id":"bystander","event_type":"e","payload":{payload}}}"#);
        server.post("/api/v1/notifications/send", &body).refusal(400, "BAD_REQUEST");
    }
    for payload in [deep(100_000), objects(100_000)] {
        let item =
            format!(r#"{{"target":{{"type":"user","value":"bystander"}},"event_type":"e","payload":{payload}}}"#);
        server
            .post("/api/v1/notifications/batch", &format!(r#"{{"notifications":[{item}]}}"#))
            .refusal(400, "BAD_REQUEST");
        let body = format!(r#"{{"id":"t","name":"n","event_type":"e","payload_template":{payload}}}"#);
        server.post("/api/v1/templates", &body).refusal(400, "BAD_REQUEST");
        let event =
            format!(r#"{{"type":"user","target":"bystander","event":{{"event_type":"e","payload":{payload}}}}}"#);
        redis.publish("notification:user:bystander", &event);
    }
    let mut ws = server.ws("deep");
    for text in [deep(30_000), format!(r#"{{"type":"Ping","payload":{}}}"#, deep(30_000)), objects(10_000)] {
        ws.say(&text);
        ws.error("INVALID_MESSAGE");
    }
    redis.publish(
        "notification:user:bystander",
        r#"{"type":"user","target":"bystander","event":{"event_type":"e","payload":"after"}}"#,
    );
    assert_eq!(bystander.payload(), "after");
    unharmed(&server, &mut bystander);
}

#[test]
fn bodies_of_ten_mib_are_refused_without_keeping_them() {
    let (server, mut bystander) = server_and_bystander();
    let before = server.rss_kib();
    for (path, coding) in [
        ("/api/v1/notifications/send", "Content-Length: 10485760"),
        ("/api/v1/notifications/batch", "Content-Length: 10485760"),
        ("/api/v1/templates", "Content-Length: 10485760"),
        ("/api/v1/notifications/send", "Transfer-Encoding: chunked"),
    ] {
        let mut connection = server.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{coding}\r\n\r\n");
        connection.send(head);
        let mut body = connection.stream.try_clone().expect("a socket can be cloned");
        let chunked = coding.starts_with("Transfer");
        let writer = std::thread::spawn(move || {
            let mut chunk = vec![b'1'; 64 * 1024];
            if chunked {
                chunk.splice(0..0, *b"10000\r\n");
                chunk.extend_from_slice(b"\r\n");
            }
            pour(&mut body, &chunk, 10 << 20)
        });
        connection.read().refusal(413, "PAYLOAD_TOO_LARGE");
        drop(connection);
        writer.join().expect("the writer does not panic");
    }
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB after bodies that were refused");
    unharmed(&server, &mut bystander);
}

#[test]
fn half_closed_sockets_get_their_answer() {
    let (server, mut bystander) = server_and_bystander();
    let mut connection = server.connect();
    connection.send(request("GET", "/health", &[], None));
    connection.finish();
    assert_eq!(connection.read().ok()["status"], "healthy");
    connection.expect_end();

    // Half a request, then nothing more: there is nobody to wait for.
    let mut connection = server.connect();
    connection.send("POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{");
    connection.finish();
    connection.read_to_end();

    let mut raw = RawWs::connect(server.port, &token::of("half"));
    raw.0.finish();
    raw.0.read_to_end();
    crate::support::process::await_that("the half-closed to be forgotten", || {
        (server.get("/health").ok()["connections"]["total"] == 1).then_some(())
    });
    unharmed(&server, &mut bystander);
}

#[test]
fn silent_sockets_keep_nobody_out() {
    raise_file_limit();
    let (server, mut bystander) = server_and_bystander();
    let silent: Vec<_> = (0..800)
        .map(|index| {
            let mut connection = server.connect();
            connection.send(
                ["", "G", "GET /ws HTTP/1.1\r\nHost: a\r\n", "POST /api/v1/notifications/send HTTP/1.1\r\n"][index % 4],
            );
            connection
        })
        .collect();
    unharmed(&server, &mut bystander);
    drop(silent);
    unharmed(&server, &mut bystander);
}

#[test]
fn random_bytes_are_nobody_s_business() {
    let (server, mut bystander) = server_and_bystander();
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let mut noise = |len: usize| (0..len).map(|_| random.u8(..)).collect::<Vec<u8>>();
    for round in 0..300 {
        let mut connection = server.connect();
        let bytes = noise(1 + round * 13 % 4_096);
        // Refused early, the rest may meet a closed door.
        let _ = connection.stream.write_all(&bytes);
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        let _ = connection.stream.read_to_end(&mut Vec::new());
    }
    for round in 0..300 {
        let mut raw = RawWs::connect(server.port, &token::of(&format!("noisy{round}")));
        let bytes = noise(1 + round * 7 % 2_048);
        let whole = if round % 2 == 0 { bytes } else { frame(op::FIN | op::TEXT, &bytes) };
        let _ = raw.0.stream.write_all(&whole);
        let _ = raw.0.stream.shutdown(std::net::Shutdown::Write);
        let _ = raw.0.stream.read_to_end(&mut Vec::new());
    }
    unharmed(&server, &mut bystander);
}

#[test]
fn a_slow_reader_delays_nobody_else() {
    let (server, mut bystander) = server_and_bystander();
    let mut slow = RawWs::connect(server.port, &token::of("slow"));
    slow.send(frame(op::FIN | op::TEXT, br#"{"type":"Subscribe","payload":{"channels":["feed"]}}"#));
    assert_eq!(slow.read().1, br#"{"type":"subscribed","payload":["feed"]}"#);
    let mut quick = server.ws("quick");
    quick.subscribe(&["feed"]);

    // 60 MB: beyond what both socket buffers and the outbox hold, so the slow one must fall behind and be let go.
    let mut publisher = Connection::open(server.port);
    let filler = "x".repeat(60_000);
    for n in 0..1_000 {
        let body = format!(r#"{{"channel":"feed","event_type":"{n}","payload":"{filler}"}}"#);
        publisher.send(request("POST", "/api/v1/notifications/channel", &[], Some(body.as_bytes())));
        assert!(publisher.read().ok()["delivered_to"].as_u64() >= Some(1), "the quick one is always reached");
        assert_eq!(quick.notification()["event_type"], n.to_string());
    }
    crate::support::process::await_that("the slow reader to be let go", || {
        (server.get("/api/v1/channels/feed").ok()["subscriber_count"] == 1).then_some(())
    });
    unharmed(&server, &mut bystander);
}

#[test]
fn a_slow_stream_reader_is_let_go_too() {
    let (server, mut bystander) = server_and_bystander();
    let mut slow = Connection::open(server.port);
    slow.send(format!("GET /sse?channels=feed&token={} HTTP/1.1\r\nHost: a\r\n\r\n", token::of("slow")));
    assert_eq!(slow.read_head().status, 200);
    crate::support::process::await_that("the subscription", || {
        (server.get("/api/v1/channels/feed").status == 200).then_some(())
    });
    let mut publisher = Connection::open(server.port);
    let body = format!(r#"{{"channel":"feed","event_type":"e","payload":"{}"}}"#, "x".repeat(60_000));
    crate::support::process::await_that("the slow reader to be let go", || {
        publisher.send(request("POST", "/api/v1/notifications/channel", &[], Some(body.as_bytes())));
        (publisher.read().ok()["delivered_to"] == 0).then_some(())
    });
    unharmed(&server, &mut bystander);
}
