//! Rate limits (contract §10, decision 10): who is counted, what answers tell, and what nodes count together.
use crate::seed::nginx;
use crate::support::http::{Connection, Response, call, request};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::token;
use crate::support::ws::{Ws, handshake};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Instant;

const KEY: &str = "a-key-of-the-tests";

/// One request a second and five at once.
const SLOW: [(&str, &str); 4] = [
    ("RATELIMIT_ENABLED", "true"),
    ("RATELIMIT_HTTP_REQUESTS_PER_SECOND", "1"),
    ("RATELIMIT_HTTP_BURST_SIZE", "5"),
    ("API_KEY", KEY),
];

fn limited(more: &[(&str, &str)]) -> Server {
    Server::with(&[&SLOW[..], more].concat())
}

/// The three headers: limit, what is left, and when it is reset.
#[track_caller]
fn quota(response: &Response) -> (u64, u64, u64) {
    let [limit, remaining, reset] = ["limit", "remaining", "reset"].map(|name| {
        let value = response.header(&format!("x-ratelimit-{name}")).unwrap_or_else(|| panic!("none in {response:?}"));
        value.parse().expect("a number")
    });
    (limit, remaining, reset)
}

/// Asserts a 429 as in contract §10.1.
#[track_caller]
fn assert_refused(response: &Response, after_seconds: &str) {
    let message = response.refusal(429, "RATE_LIMITED");
    assert_eq!(message, format!("Too many requests, please retry after {after_seconds} seconds"));
    assert_eq!(response.header("retry-after"), Some(after_seconds));
    assert_eq!(quota(response).1, 0);
}

/// How many of so many requests one after the other pass, each over a connection of its own.
fn passed(port: u16, path: &str, headers: &[(&str, &str)], count: usize) -> usize {
    (0..count).filter(|_| call(port, "GET", path, headers, None).status != 429).count()
}

#[track_caller]
fn assert_burst(passed: usize, since: Instant) {
    let may = 5 + since.elapsed().as_secs() as usize + 1;
    assert!((5..=may).contains(&passed), "{passed} passed where {may} may");
}

#[test]
fn a_kept_connection_and_fresh_ones_share_what_the_key_may() {
    let server = limited(&[("SHARDS", "3")]);
    let (since, mut passed) = (Instant::now(), 0);
    let mut kept = server.connect();
    for _ in 0..4 {
        kept.send(request("GET", "/api/v1/channels", &[("X-API-Key", KEY)], None));
        kept.send(request("GET", "/api/v1/channels/none", &[("X-API-Key", KEY)], None));
    }
    let answers: Vec<Response> = (0..8).map(|_| kept.read()).collect();
    for (n, answer) in answers.iter().enumerate() {
        let (limit, _, reset) = quota(answer);
        assert!(limit == 1 && reset > 1_700_000_000_000, "milliseconds: {reset}");
        match answer.status {
            429 => assert_refused(answer, "1"),
            status => {
                assert_eq!(status, if n % 2 == 0 { 200 } else { 404 }, "answers keep their order");
                passed += 1;
            }
        }
    }
    assert_eq!(quota(&answers[0]).1, 4);
    for _ in 0..20 {
        let answer = server.get("/stats");
        passed += usize::from(answer.status == 200);
    }
    assert_burst(passed, since);
    // What has no limit goes on, and tells of none.
    for path in ["/health", "/metrics", "/nothing"] {
        let answer = server.get(path);
        assert!(answer.status != 429 && answer.header("x-ratelimit-limit").is_none(), "{answer:?}");
    }
    assert_eq!(server.call("OPTIONS", "/stats", None).status, 200);
    let metrics = server.get("/metrics");
    let figure = |labels: &str| {
        let name = format!("ara_ratelimit_requests_total{{{labels}}} ");
        let line = metrics.text().lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name}")).parse::<usize>().expect("a count")
    };
    assert_eq!(figure(r#"type="http",result="allowed""#), passed);
    assert_eq!(figure(r#"type="http",result="denied""#), 28 - passed);
}

#[test]
fn guessed_keys_are_counted_against_the_address_and_leave_the_right_one_alone() {
    let server = limited(&[]);
    let since = Instant::now();
    let mut refused = 0;
    for n in 0..30 {
        let answer = call(server.port, "GET", "/api/v1/channels", &[("X-API-Key", &format!("guess-{n}"))], None);
        match answer.status {
            401 => assert_eq!(quota(&answer).0, 1),
            _ => {
                assert_refused(&answer, "1");
                refused += 1;
            }
        }
    }
    assert_burst(30 - refused, since);
    assert_eq!(server.get("/api/v1/channels").status, 200);
    // Another address is another client; loopback has many.
    let mut other = Connection::open_from(Ipv4Addr::new(127, 9, 9, 9), server.port);
    other.send(request("GET", "/api/v1/channels", &[], None));
    assert_eq!(other.read().status, 401);
}

#[test]
fn a_body_that_is_too_long_is_told_what_is_left() {
    let server = limited(&[]);
    let long = vec![b'x'; 70_000];
    let headers = [("X-API-Key", KEY)];
    let answer = call(server.port, "POST", "/api/v1/notifications/send", &headers, Some(&long));
    answer.refusal(413, "PAYLOAD_TOO_LARGE");
    assert_eq!((quota(&answer).0, quota(&answer).1), (1, 4));
}

#[test]
fn connects_of_an_address_are_limited_before_the_upgrade() {
    let server = limited(&[("RATELIMIT_WS_CONNECTIONS_PER_MINUTE", "3")]);
    let good = format!("/ws?token={}", token::of("ana"));
    // A handshake that fails consumes, too.
    assert_eq!(Ws::open(server.port, "/ws?token=none", &[]).err().map(|(status, _)| status), Some(401));
    let (mut ana, mut ben) = (server.ws("ana"), server.sse("ben"));
    let mut refused = server.connect();
    refused.send(handshake(&good, &[]));
    let answer = refused.read();
    assert_refused(&answer, "60");
    assert_eq!(quota(&answer).0, 3);
    refused.expect_end();
    let answer = call(server.port, "GET", "/sse", &[], None);
    assert_refused(&answer, "60");
    // From elsewhere it goes on, and who is connected stays.
    let elsewhere = Connection::open_from(Ipv4Addr::new(127, 1, 2, 3), server.port);
    assert!(Ws::open_over(elsewhere, &good, &[]).is_ok());
    server.send("ana", "1");
    server.send("ben", "2");
    assert_eq!(ana.payload(), 1);
    assert!(ben.notification_text().contains(r#""payload":2"#));
}

#[test]
fn a_client_that_says_too_much_is_told_once() {
    let server = limited(&[("RATELIMIT_WS_MESSAGES_PER_SECOND", "1")]);
    let mut ws = server.ws("ana");
    ws.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
    for _ in 0..1_000 {
        ws.say(r#"{"type":"Ping"}"#);
    }
    assert_eq!(ws.error("RATE_LIMITED"), "Too many messages, at most 1 per second");
    server.send("ana", "1");
    // Whatever it heard in between, it was no flood; and mail goes on.
    let mut heard = 0;
    while !ws.hear().contains(r#""type":"notification""#) {
        heard += 1;
    }
    assert!(heard < 50, "{heard}");
    assert!(server.get("/metrics").text().contains(r#"ara_ratelimit_denied_total{type="message"}"#));
}

#[test]
fn behind_the_guide_s_nginx_clients_are_told_apart() {
    let server = limited(&[("RATELIMIT_WS_CONNECTIONS_PER_MINUTE", "2")]);
    let (_nginx, front, _folder) = nginx(&server, &server);
    let ask = |address: [u8; 4]| {
        let mut connection = Connection::open_from(address.into(), front.number);
        // Who is not the proxy cannot say who he is: nginx says it.
        connection.send(request("GET", "/api/v1/channels", &[("X-Real-IP", "203.0.113.1")], None));
        connection.read()
    };
    let since = Instant::now();
    let refused = (0..20).filter(|_| ask([127, 0, 0, 7]).status == 429).count();
    assert_burst(20 - refused, since);
    assert_eq!(quota(&ask([127, 0, 0, 8])).1, 4, "a neighbour has all of his");
    let connect = |address: [u8; 4]| {
        let connection = Connection::open_from(address.into(), front.number);
        Ws::open_over(connection, &format!("/ws?token={}", token::of("ana")), &[]).map_err(|(status, _)| status)
    };
    let _held = [connect([127, 0, 0, 7]), connect([127, 0, 0, 7])].map(|ws| ws.expect("two may"));
    assert_eq!(connect([127, 0, 0, 7]).err(), Some(429));
    assert!(connect([127, 0, 0, 8]).is_ok());
    // Whoever is not trusted is believed nothing.
    let strict = limited(&[("SERVER_TRUSTED_PROXIES", "none")]);
    let since = Instant::now();
    let passed = (0..20).filter(|n| {
        let address = format!("203.0.113.{n}");
        call(strict.port, "GET", "/stats", &[("X-Real-IP", &address)], None).status == 200
    });
    assert_burst(passed.count(), since);
}

// --- Redis ---------------------------------------------------------------------------------------------------------------

fn sharing(redis: &Redis, per_second: &str) -> Server {
    let url = redis.url();
    let server = limited(&[
        ("REDIS_URL", &url),
        ("RATELIMIT_BACKEND", "redis"),
        ("RATELIMIT_HTTP_REQUESTS_PER_SECOND", per_second),
        ("REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1000"),
        ("REDIS_BACKOFF_INITIAL_DELAY_MS", "10"),
        ("REDIS_BACKOFF_MAX_DELAY_MS", "50"),
    ]);
    await_counted(&server);
    server
}

fn fallbacks(server: &Server) -> u64 {
    let metrics = server.get("/metrics");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix("ara_ratelimit_fallbacks_total "));
    line.expect("it is there").parse().expect("a count")
}

/// Asks until both shards count in Redis: many times in a row no request was counted by the node alone.
#[track_caller]
fn await_counted(server: &Server) {
    await_that("requests to be counted in Redis", || {
        let before = fallbacks(server);
        (0..40).for_each(|_| drop(server.get("/stats")));
        (fallbacks(server) == before).then_some(())
    });
}

/// Asks this often, and sorts the answers by their window: how many passed, how many did not.
fn windows(servers: &[&Server], count: usize) -> BTreeMap<u64, (u64, u64)> {
    let mut windows = BTreeMap::<u64, (u64, u64)>::new();
    for n in 0..count {
        let answer = servers[n % servers.len()].get("/stats");
        let (_, _, reset) = quota(&answer);
        let window = windows.entry(reset).or_default();
        match answer.status {
            200 => window.0 += 1,
            _ => {
                assert_refused(&answer, "1");
                window.1 += 1;
            }
        }
    }
    windows
}

#[test]
fn two_nodes_share_a_window_of_redis() {
    let redis = Redis::start();
    let (a, b) = (sharing(&redis, "7"), sharing(&redis, "7"));
    // A window that the nodes have not begun yet when they are asked.
    let first = quota(&a.get("/stats")).2;
    await_that("a new window", || (quota(&a.get("/stats")).2 > first).then_some(()));
    let windows = windows(&[&a, &b], 300);
    assert!(windows.keys().all(|reset| reset % 1_000 == 0), "{windows:?}");
    for (n, (passed, refused)) in windows.values().enumerate() {
        // Of the first window one may have been asked before.
        let all = if n == 0 { 6..=7 } else { 7..=7 };
        assert!(passed <= all.end(), "{windows:?}");
        assert!(*refused == 0 || all.contains(passed), "{windows:?}");
    }
    assert!(windows.values().any(|(_, refused)| *refused > 0), "{windows:?}");
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.contains("ara:ratelimit:http:key:") && !keys.contains(KEY), "{keys}");
}

#[test]
fn without_redis_each_node_counts_alone_and_says_so_once() {
    let mut redis = Redis::start();
    // What is left tells who counts: of a window of Redis a million, of the node's own bucket its burst of five.
    let server = sharing(&redis, "1000000");
    let alone = "this node applies its rate limits alone";
    let together = "requests are counted in Redis, together with other nodes";
    let said = |text: &str| server.process.output().matches(text).count();
    let (before, back) = (said(alone), said(together));
    redis.kill();
    await_that("a count without Redis", || {
        let before = fallbacks(&server);
        assert!(matches!(server.get("/stats").status, 200 | 429));
        (fallbacks(&server) > before).then_some(())
    });
    for _ in 0..200 {
        let answer = server.get("/stats");
        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
        assert!(quota(&answer).1 < 5, "the burst of the node: {answer:?}");
    }
    assert_eq!(said(alone), before + 1, "{}", server.process.output());
    redis.restart();
    await_counted(&server);
    server.process.await_output(together);
    await_that("it to be said that Redis counts again", || (said(together) > back).then_some(()));
    assert!(quota(&server.get("/stats")).1 > 5);
    assert_eq!(said(alone), before + 1, "{}", server.process.output());
}

#[test]
fn a_redis_that_stands_still_keeps_nobody_waiting_for_long() {
    let redis = Redis::start();
    let server = sharing(&redis, "1000000");
    redis.hold();
    let (mut waiting, mut health) = (server.connect(), server.connect());
    waiting.send(request("GET", "/stats", &[("X-API-Key", KEY)], None));
    // The shard serves others meanwhile.
    health.send(request("GET", "/health", &[], None));
    assert_eq!(health.read().status, 200);
    let answer = waiting.read();
    assert!(answer.status == 200 && quota(&answer).1 < 5, "{answer:?}");
    assert!(fallbacks(&server) > 0);
    redis.release();
    await_counted(&server);
}

#[test]
fn a_limit_of_one_address_holds_over_every_shard() {
    let server = limited(&[("SHARDS", "4"), ("RATELIMIT_HTTP_BURST_SIZE", "50")]);
    let since = Instant::now();
    let passed = passed(server.port, "/stats", &[], 300);
    let may = 50 + since.elapsed().as_secs() as usize + 1;
    assert!((50..=may).contains(&passed), "{passed} of {may}");
}
