//! Strangers who take their time, and strangers who take everything: each ends when the service says, and costs what the
//! service grants.
use crate::support::http::Connection;
use crate::support::server::Server;
use crate::support::token;
use crate::support::ws::{RawWs, Ws, frame, op};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longer than the longest deadline of a stranger: the 75 seconds of a silent socket. Turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(110);
/// Between two bytes of a client that dribbles.
const PAUSE: Duration = Duration::from_millis(400);

/// Says `begin`, then `dribble` again and again, and hears until the server ends it.
fn heard_of(mut stream: TcpStream, begin: &[u8], dribble: &[u8]) -> Vec<u8> {
    let (started, mut heard, mut piece) = (Instant::now(), Vec::new(), [0; 4_096]);
    stream.set_read_timeout(Some(PAUSE)).expect("an open socket takes options");
    stream.write_all(begin).expect("the server reads");
    loop {
        assert!(started.elapsed() < PATIENCE, "still open; it heard {}", heard.escape_ascii());
        match stream.read(&mut piece) {
            Ok(0) => return heard,
            Ok(len) => heard.extend_from_slice(&piece[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // The reading is the pause; what cannot be said any more is told by the next read.
                let _ = stream.write_all(dribble);
            }
            // It ended between a byte of ours and its FIN.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return heard,
            Err(error) => panic!("{error}; it heard {}", heard.escape_ascii()),
        }
    }
}

#[test]
fn whoever_takes_too_long_is_told_and_hung_up_on() {
    let server = Server::with(&[("WEBSOCKET_HEARTBEAT_INTERVAL", "5"), ("WEBSOCKET_CONNECTION_TIMEOUT", "11")]);
    let mut bystander = server.ws("bystander");
    let post = "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let (by_length, by_chunks) =
        (format!("{post}Content-Length: 60000\r\n\r\n"), format!("{post}Transfer-Encoding: chunked\r\n\r\n"));
    let rows: [(&str, &[u8], &[u8], &str); 8] = [
        ("silent", b"", b"", ""),
        ("empty lines", b"", b"\r\n", ""),
        ("a head that stops", b"GET /health HTTP/1.1\r\nHost: a\r\n", b"", "HTTP/1.1 408 "),
        ("a head that dribbles", b"GET /health HTTP/1.1\r\nHost: a\r\nX: ", b"x", "HTTP/1.1 408 "),
        ("a body that stops", by_length.as_bytes(), b"", "HTTP/1.1 408 "),
        ("a body that dribbles", by_length.as_bytes(), b" ", "HTTP/1.1 408 "),
        ("chunks that dribble", by_chunks.as_bytes(), b"1\r\n \r\n", "HTTP/1.1 408 "),
        ("trailers that dribble", &[by_chunks.as_bytes(), b"0\r\n"].concat(), b"x: y\r\n", "HTTP/1.1 408 "),
    ];
    std::thread::scope(|scope| {
        for (what, begin, dribble, answer) in rows {
            let stream = server.connect().stream;
            scope.spawn(move || {
                let heard = String::from_utf8(heard_of(stream, begin, dribble)).expect("text");
                assert!(heard.starts_with(answer) && heard.is_empty() == answer.is_empty(), "{what}: {heard}");
            });
        }
        // Frames that never end are no sign of life, whatever they would have said.
        for head in [[op::FIN | op::TEXT, 0xfe, 0xff, 0xff, 0, 0, 0, 0], [op::BINARY, 0xfe, 0xff, 0xff, 0, 0, 0, 0]] {
            let raw = RawWs::connect(server.port, &token::of("dribbler"));
            scope.spawn(move || {
                let heard = heard_of(raw.0.stream, &head, b" ");
                assert!(heard.ends_with(&[op::FIN | op::CLOSE, 2, 0x03, 0xe9]), "{}", heard.escape_ascii());
            });
        }
    });
    // It only listened, and answered pings, as a browser does; and nobody was in its way.
    listen_on(&server, &mut bystander);
}

/// The bystander's heartbeats came while nobody read them here; behind them is what is sent now. It was never heard in the
/// meantime, so it may have been let go for that: then it comes again.
fn listen_on(server: &Server, bystander: &mut Ws) {
    *bystander = server.ws("bystander");
    server.nothing_waits("bystander", bystander);
    server.still_delivers();
}

/// Resident memory once the server has gone through everything that was said to it before.
fn rss_kib_at_rest(server: &Server) -> u64 {
    server.still_delivers();
    server.rss_kib()
}

#[test]
fn a_quarter_of_a_gibibyte_of_pings_that_nobody_reads_the_answers_of_moves_no_memory() {
    let server = Server::start();
    let pings = frame(op::FIN | op::PING, &[b'x'; 125]).repeat(4_000);
    let flood = |user: &str| {
        let mut raw = RawWs::connect(server.port, &token::of(user));
        raw.0.stream.set_write_timeout(Some(Duration::from_secs(1))).expect("an open socket takes options");
        let mut sent = 0;
        while sent < 250 << 20 {
            // A chunk that was taken in part goes on where it broke off.
            match raw.0.stream.write(&pings[sent % pings.len()..]) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        (raw, sent)
    };
    let before = rss_kib_at_rest(&server);
    let (flooder, sent) = flood("flooder");
    let after = rss_kib_at_rest(&server);
    assert!(sent < 64 << 20, "the server took {sent} bytes of pings whose pongs nobody reads");
    assert!(after <= before + 1_024, "{before} KiB before, {after} KiB with one client that does not read");
    drop(flooder);
}

#[test]
fn a_quarter_of_a_gibibyte_of_pings_that_are_answered_moves_no_memory() {
    let server = Server::start();
    let ping = frame(op::FIN | op::PING, &[b'x'; 125]);
    let pings = ping.repeat(4_000);
    let before = rss_kib_at_rest(&server);
    let raw = RawWs::connect(server.port, &token::of("flooder"));
    let mut reader = raw.0.stream.try_clone().expect("a socket can be cloned");
    let all_said = AtomicBool::new(false);
    let rounds = (250 << 20) / pings.len();
    let pong_bytes = 2 + 125;
    let peak = std::thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let (mut room, mut heard) = (vec![0; 1 << 18], 0);
            while heard < rounds * 4_000 * pong_bytes {
                match reader.read(&mut room) {
                    Ok(0) => break,
                    Ok(len) => heard += len,
                    Err(error) => panic!("{error} after {heard} bytes"),
                }
            }
            heard
        });
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !all_said.load(Ordering::Relaxed) {
                peak = peak.max(server.rss_kib());
                std::thread::park_timeout(Duration::from_millis(20));
            }
            peak
        });
        for _ in 0..rounds {
            (&raw.0.stream).write_all(&pings).expect("the server reads");
        }
        // A heartbeat may be among them.
        assert!(answers.join().expect("the reader does not panic") >= rounds * 4_000 * pong_bytes);
        all_said.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher does not panic")
    });
    assert!(peak <= before + 1_024, "{before} KiB before, {peak} KiB meanwhile");
    server.still_delivers();
}

#[test]
fn headers_of_frames_that_promise_much_cost_nothing() {
    let server = Server::start();
    let before = rss_kib_at_rest(&server);
    // Each announces the longest message there may be, and brings one byte of it.
    let head = [op::FIN | op::TEXT, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, b' '];
    let users: Vec<String> = (0..400).map(|n| token::of(&format!("promiser{n}"))).collect();
    let promisers: Vec<RawWs> = users
        .iter()
        .map(|token| {
            let mut raw = RawWs::connect(server.port, token);
            raw.send(head);
            raw
        })
        .collect();
    let after = rss_kib_at_rest(&server);
    assert!(after <= before + 4_096, "{before} KiB before, {after} KiB for 400 headers that promise 25 MiB");
    // Empty frames by the ten thousand are read over; the connection lives.
    let mut raw = RawWs::connect(server.port, &token::of("flooder"));
    raw.send(frame(op::TEXT, b""));
    for _ in 0..50 {
        raw.send(frame(op::CONTINUATION, b"").repeat(1_000));
        raw.send(frame(op::FIN | op::PONG, b"").repeat(1_000));
    }
    raw.send(frame(op::FIN | op::CONTINUATION, br#"{"type":"Ping"}"#));
    assert_eq!(raw.read(), (op::FIN | op::TEXT, br#"{"type":"pong"}"#.to_vec()));
    drop(promisers);
    server.still_delivers();
}

#[test]
fn subscriptions_by_the_hundred_thousand_cost_what_is_granted() {
    let server = Server::start();
    let mut bystander = server.ws("bystander");
    let mut greedy = server.ws("greedy");
    let mut granted = 0;
    for round in 0..40 {
        // As many names as a message holds.
        let names: Vec<String> = (0..2_500).map(|n| format!("channel-{round}-{n}")).collect();
        let list = serde_json::to_string(&names).expect("names are JSON");
        greedy.say(&format!(r#"{{"type":"Subscribe","payload":{{"channels":{list}}}}}"#));
        let answer = greedy.hear();
        if round == 0 {
            granted += answer.matches("channel-").count();
            greedy.error("SUBSCRIPTION_ERROR");
        } else {
            assert!(answer.starts_with(r#"{"type":"error","code":"SUBSCRIPTION_ERROR""#), "{answer:.200}");
        }
    }
    assert_eq!(granted, 50, "WEBSOCKET_MAX_SUBSCRIPTIONS_PER_CONNECTION");
    assert_eq!(server.get("/api/v1/channels").ok()["total_channels"], 50);
    // They go and come for as long as one likes, and nothing is left of them.
    for round in 0..200 {
        let names: Vec<String> = (0..50).map(|n| format!("fleeting-{round}-{n}")).collect();
        let list = serde_json::to_string(&names).expect("names are JSON");
        bystander.say(&format!(r#"{{"type":"Subscribe","payload":{{"channels":{list}}}}}"#));
        bystander.hear();
        bystander.say(&format!(r#"{{"type":"Unsubscribe","payload":{{"channels":{list}}}}}"#));
        bystander.hear();
    }
    assert_eq!(server.get("/api/v1/channels").ok()["total_channels"], 50);
    drop(greedy);
    crate::support::process::await_that("the channels to be forgotten", || {
        (server.get("/api/v1/channels").ok()["total_channels"] == 0).then_some(())
    });
    server.nothing_waits("bystander", &mut bystander);
    server.still_delivers();
}

#[test]
fn a_client_whose_time_is_over_is_forgotten_though_it_does_not_read() {
    let server = Server::start();
    // Megabytes wait for it, its socket takes a few kilobytes, and its token ends.
    let mut slow =
        RawWs::connect(server.port, &token::sign(&serde_json::json!({"sub": "slow", "exp": token::now() - 54})));
    rustix::net::sockopt::set_socket_recv_buffer_size(&slow.0.stream, 2_048).expect("an open socket takes options");
    let filler = format!("\"{}\"", "x".repeat(60_000));
    let mut publisher = Connection::open(server.port);
    for _ in 0..60 {
        let body = format!(r#"{{"target_user_id":"slow","event_type":"e","payload":{filler}}}"#);
        publisher.send(crate::support::http::request("POST", "/api/v1/notifications/send", &[], Some(body.as_bytes())));
        publisher.read().ok();
    }
    crate::support::process::await_that("its token to end", || {
        (server.send("slow", "1")["delivered_to"] == 0).then_some(())
    });
    // It is out of every table while it still reads, and no place of a user is taken by it.
    assert_eq!(server.get("/health").ok()["connections"]["total"], 0);
    let first = slow.read();
    assert_eq!(first.0, op::FIN | op::TEXT);
    server.still_delivers();
}
