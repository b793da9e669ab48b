//! Rate limits over several shards: the sum is exact, every answer tells what is left, and no order is lost for it.
use crate::client::ClientId;
use crate::world::World;
use protocol::http::client_address::TrustedProxies;
use protocol::rate_limit::Rate;
use shards::config::{AckRules, RateLimitRules, ShardConfig};
use shards::metrics::LimitedKind;

const KEY: &str = "the-right-key";

fn rules() -> RateLimitRules {
    RateLimitRules {
        requests: Rate::per_second(10, 20),
        connects: Rate::per_minute(3),
        messages: Some(Rate::per_second(5, 5)),
        sweep_interval_ms: 60_000,
        is_shared: false,
    }
}

/// A node that limits; loopback, where all clients are, may name others.
fn limited(seed: u64, shards: usize, change: impl FnOnce(&mut ShardConfig)) -> World {
    World::with_config(seed, shards, |config| {
        config.rate_limits = Some(rules());
        config.trusted_proxies = TrustedProxies::new(&["127.0.0.1/32".parse().expect("a network")]);
        config.api_key = Some(KEY.as_bytes().into());
        change(config);
    })
}

/// Sends a request on a connection of its own.
fn ask(world: &mut World, request: &str) -> ClientId {
    let client = world.dial();
    world.clients[client].send(request);
    client
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: world\r\n{headers}\r\n")
}

/// The answers of a connection, in order: status and everything behind it.
fn answers(world: &World, client: ClientId) -> Vec<(u16, String)> {
    let text = world.clients[client].text();
    let parts = text.split("HTTP/1.1 ").skip(1);
    parts.map(|part| (part[..3].parse().expect("a status"), part[4..].to_owned())).collect()
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// How many of all answers of these clients have this status.
fn count(world: &World, clients: &[ClientId], status: u16) -> usize {
    clients.iter().flat_map(|client| answers(world, *client)).filter(|(found, _)| *found == status).count()
}

#[test]
fn what_passes_on_all_shards_together_is_burst_and_rate_exactly() {
    for seed in 0..60 {
        let mut world = limited(seed, 1 + seed as usize % 5, |_| {});
        world.checks = seed % 10 == 0;
        let clients: Vec<_> = (0..12).map(|_| world.dial()).collect();
        let mut asked = 0;
        let began_us = world.now_us;
        for _ in 0..6 {
            for _ in 0..60 {
                let client = clients[world.rng.usize(0..clients.len())];
                world.clients[client].send(get("/stats", ""));
                asked += 1;
            }
            let ms = world.rng.u64(0..900);
            world.run(50);
            world.pass_ms_unsettled(ms);
        }
        world.settle();
        let (passed, refused) = (count(&world, &clients, 200), count(&world, &clients, 429));
        assert_eq!(passed + refused, asked, "seed {seed}: everybody is answered");
        let may = 20 + (world.now_us - began_us) as usize * 10 / 1_000_000;
        assert!((20..=may).contains(&passed), "seed {seed}: {passed} passed where {may} may");
        let counted = |passed| world.metrics.sum(|shard| shard.limited(LimitedKind::Http, passed).get()) as usize;
        assert_eq!((counted(true), counted(false)), (passed, refused), "seed {seed}");
        // No token was lost on the way either: with all asking at all times, each that came was taken.
        world.pass_ms(3_000);
        for client in &clients {
            (0..5).for_each(|_| world.clients[*client].send(get("/stats", "")));
        }
        let before_us = world.now_us;
        world.settle();
        let more = count(&world, &clients, 200) - passed;
        let may = 20 + (world.now_us - before_us) as usize * 10 / 1_000_000 + 1;
        assert!((20..=may).contains(&more), "seed {seed}: {more} of a burst of 20");
    }
}

#[test]
fn a_steady_client_at_the_rate_is_never_refused_whatever_shard_it_asks() {
    for seed in 0..5 {
        let mut world = limited(seed, 4, |_| {});
        let clients: Vec<_> = (0..8).map(|_| world.dial()).collect();
        for n in 0..200 {
            world.clients[clients[n % 8]].send(get("/stats", ""));
            world.pass_ms(100);
        }
        assert_eq!((count(&world, &clients, 200), count(&world, &clients, 429)), (200, 0), "seed {seed}");
    }
}

#[test]
fn every_answer_of_a_limited_route_tells_what_is_left() {
    let key = format!("x-api-key: {KEY}\r\n");
    let post = |headers: &str, body: &str| {
        let len = body.len();
        format!(
            "POST /api/v1/notifications/send HTTP/1.1\r\nhost: world\r\n{headers}content-length: {len}\r\n\r\n{body}"
        )
    };
    let json = format!("{key}content-type: application/json\r\n");
    let limited_routes = [
        (get("/stats", ""), 200),
        (get("/api/v1/channels", &key), 200),
        (get("/api/v1/channels", ""), 401),
        (get("/api/v1/channels", "x-api-key: wrong\r\n"), 401),
        (get("/api/v1/channels/none", &key), 404),
        (format!("DELETE /stats HTTP/1.1\r\nhost: world\r\n{key}\r\n"), 405),
        (post(&key, "{}"), 415),
        (post(&json, "{"), 400),
        (post(&json, "{}"), 422),
        (post(&json, r#"{"target_user_id":"ana","event_type":"e","payload":1}"#), 200),
        (
            format!(
                "POST /api/v1/notifications/send HTTP/1.1\r\nhost: world\r\n{json}content-length: 70000\r\n\
                 expect: 100-continue\r\n\r\n"
            ),
            413,
        ),
        (
            format!(
                "POST /api/v1/notifications/send HTTP/1.1\r\nhost: world\r\n{json}transfer-encoding: chunked\r\n\r\nzz\r\n"
            ),
            400,
        ),
        (get("/ws", ""), 400),
        (get("/sse", ""), 401),
    ];
    let free_routes = [
        (get("/health", ""), 200),
        (get("/metrics", ""), 200),
        (get("/nothing", ""), 404),
        (get("/api/v1/nothing", &key), 404),
        ("OPTIONS /stats HTTP/1.1\r\nhost: world\r\n\r\n".to_owned(), 200),
        ("NONSENSE\r\n\r\n".to_owned(), 400),
    ];
    for seed in 0..20 {
        for (request, status) in &limited_routes {
            let mut world = limited(seed, 3, |_| {});
            let client = ask(&mut world, request);
            world.settle();
            let answers = answers(&world, client);
            let [(found, answer)] = &answers[..] else { panic!("seed {seed}: one answer to {request}: {answers:?}") };
            assert_eq!(found, status, "{request}{answer}");
            let (limit, left, period_ms) = if request.contains(" /ws") || request.contains(" /sse") {
                ("3", "2", 60_000)
            } else {
                ("10", "19", 1_000)
            };
            assert_eq!(header(answer, "x-ratelimit-limit"), Some(limit), "{request}{answer}");
            assert_eq!(header(answer, "x-ratelimit-remaining"), Some(left), "{request}{answer}");
            let reset: u64 = header(answer, "x-ratelimit-reset").expect("it is there").parse().expect("a number");
            let now_ms = world.now().unix_ms();
            assert!((now_ms + period_ms - 1_000..=now_ms + period_ms).contains(&reset), "{reset} at {now_ms}");
            assert_eq!(header(answer, "retry-after"), None);
        }
        for (request, status) in &free_routes {
            let mut world = limited(seed, 3, |_| {});
            let client = ask(&mut world, request);
            world.settle();
            let answers = answers(&world, client);
            assert_eq!((answers.len(), answers[0].0), (1, *status), "{request}: {answers:?}");
            assert!(!answers[0].1.contains("ratelimit"), "{answers:?}");
        }
    }
}

#[test]
fn a_request_whose_body_never_comes_is_told_as_well() {
    let mut world = limited(1, 2, |_| {});
    let json = format!("x-api-key: {KEY}\r\ncontent-type: application/json\r\ncontent-length: 10\r\n");
    let late = ask(&mut world, &format!("POST /api/v1/notifications/send HTTP/1.1\r\nhost: world\r\n{json}\r\n{{"));
    // The next head on a connection that was limited before is nobody's request yet.
    let next = ask(&mut world, &get("/stats", ""));
    world.settle();
    world.clients[next].send("GET /st");
    world.pass_ms(40_000);
    let late = answers(&world, late);
    assert_eq!((late.len(), late[0].0), (1, 408));
    assert_eq!(header(&late[0].1, "x-ratelimit-remaining"), Some("19"));
    let next = answers(&world, next);
    assert_eq!((next.len(), next[1].0), (2, 408));
    assert_eq!(header(&next[1].1, "x-ratelimit-remaining"), None);
}

#[test]
fn guessing_keys_is_limited_and_does_not_cost_who_has_the_right_one() {
    for seed in 0..20 {
        let mut world = limited(seed, 3, |_| {});
        let guessers: Vec<_> =
            (0..100).map(|n| ask(&mut world, &get("/api/v1/channels", &format!("x-api-key: guess-{n}\r\n")))).collect();
        world.settle();
        let refused = count(&world, &guessers, 401);
        assert!((20..=21).contains(&refused), "seed {seed}: {refused}");
        assert_eq!(refused + count(&world, &guessers, 429), 100);
        let backend = ask(&mut world, &get("/api/v1/channels", &format!("x-api-key: {KEY}\r\n")));
        world.settle();
        assert_eq!(answers(&world, backend)[0].0, 200, "seed {seed}");
        let over = guessers.iter().flat_map(|client| answers(&world, *client)).find(|(status, _)| *status == 429);
        let (_, answer) = over.expect("one was refused");
        assert_eq!(header(&answer, "retry-after"), Some("1"));
        assert_eq!(header(&answer, "x-ratelimit-remaining"), Some("0"));
        let body = r#"{"error":{"code":"RATE_LIMITED","message":"Too many requests, please retry after 1 seconds"}}"#;
        assert!(answer.ends_with(body), "{answer}");
    }
}

#[test]
fn clients_behind_a_trusted_proxy_are_told_apart_and_others_cannot_pretend() {
    let named = |n: u32| get("/stats", &format!("x-real-ip: 198.51.100.{n}\r\n"));
    let mut world = limited(1, 3, |_| {});
    let clients: Vec<_> = (0..100).map(|n| ask(&mut world, &named(n))).collect();
    world.settle();
    assert_eq!(count(&world, &clients, 200), 100);
    let mut world = limited(1, 3, |config| config.trusted_proxies = TrustedProxies::default());
    let clients: Vec<_> = (0..100).map(|n| ask(&mut world, &named(n))).collect();
    world.settle();
    assert!((20..=21).contains(&count(&world, &clients, 200)));
    let six = |n: u32| get("/stats", &format!("x-forwarded-for: 1.1.1.1, 2001:db8::{n:x}, 127.0.0.1\r\n"));
    let mut world = limited(1, 3, |_| {});
    let clients: Vec<_> = (1..100).map(|n| ask(&mut world, &six(n))).collect();
    world.settle();
    assert!((20..=21).contains(&count(&world, &clients, 200)), "a /64 is one client");
}

#[test]
fn pipelined_requests_keep_their_order_while_they_are_counted() {
    for seed in 0..100 {
        let mut world = limited(seed, 4, |config| config.api_key = None);
        let ana = world.websocket("ana");
        world.settle();
        let backend = world.dial();
        for n in 0..15 {
            let body = format!(r#"{{"target_user_id":"ana","event_type":"e","payload":{n}}}"#);
            world.post(backend, "/api/v1/notifications/send", &body);
            world.get(backend, &format!("/api/v1/channels/none{n}"));
            world.get(backend, "/health");
        }
        world.settle();
        let answers = answers(&world, backend);
        assert_eq!(answers.len(), 45, "seed {seed}");
        let mut passed = 0;
        for (n, three) in answers.chunks(3).enumerate() {
            let [(sent, _), (asked, text), (health, _)] = three else { panic!("three") };
            passed += usize::from(*sent == 200) + usize::from(*asked == 404);
            assert!(matches!(sent, 200 | 429) && *health == 200, "seed {seed}: {three:?}");
            assert!(*asked == 429 || text.contains(&format!("none{n}'")), "seed {seed}: {text}");
        }
        assert!((20..=21).contains(&passed), "seed {seed}: {passed}");
        let heard: Vec<usize> =
            world.clients[ana].payloads().iter().map(|payload| payload.parse().expect("a number")).collect();
        assert!(heard.is_sorted() && heard.len() >= 10, "seed {seed}: {heard:?}");
        world.clients[backend].hang_up = true;
        world.settle();
        world.pass_ms(10_000);
        assert!(world.clients[backend].place.is_none(), "seed {seed}: it left");
    }
}

#[test]
fn who_leaves_while_it_is_counted_leaves_nothing_behind() {
    for seed in 0..30 {
        let mut world = limited(seed, 4, |config| {
            config.rate_limits = Some(RateLimitRules { is_shared: seed % 2 == 0, ..rules() });
        });
        world.checks = true;
        let clients: Vec<_> = (0..8).map(|_| ask(&mut world, &get("/stats", ""))).collect();
        let rounds = world.rng.usize(1..4);
        world.run(rounds);
        for client in clients {
            match world.rng.u8(0..3) {
                0 => world.clients[client].reset = true,
                1 => world.clients[client].hang_up = true,
                _ => world.clients[client].send(get("/stats", "connection: close\r\n")),
            }
        }
        world.settle();
        world.pass_ms(80_000);
        world.check_at_rest();
    }
}

#[test]
fn connects_are_limited_by_address_before_anything_else_is_looked_at() {
    for seed in 0..30 {
        let mut world = limited(seed, 3, |_| {});
        // One that fails consumes, too.
        let failed = ask(&mut world, &get("/ws?token=none", ""));
        world.settle();
        assert_eq!(answers(&world, failed)[0].0, 400);
        let (ws, sse) = (world.websocket("ana"), world.sse("ben", ""));
        world.settle();
        assert!(world.clients[ws].text().starts_with("HTTP/1.1 101") && world.clients[sse].has_heard(b"connected"));
        for client in [ws, sse] {
            assert!(!world.clients[client].text().contains("ratelimit"), "a stream that begins carries no headers");
        }
        let (more, plain) = (world.websocket("cem"), ask(&mut world, &get("/sse", "")));
        world.settle();
        for client in [more, plain] {
            let answers = answers(&world, client);
            let (status, answer) = &answers[0];
            assert_eq!((answers.len(), *status, header(answer, "retry-after")), (1, 429, Some("60")), "seed {seed}");
            assert_eq!(header(answer, "x-ratelimit-limit"), Some("3"));
            assert!(answer.contains("please retry after 60 seconds"), "{answer}");
            assert!(world.clients[client].ended, "seed {seed}: it does not stay");
        }
        world.pass_ms(21_000);
        let again = world.websocket("cem");
        world.settle();
        assert!(world.clients[again].text().starts_with("HTTP/1.1 101"), "seed {seed}: one in twenty seconds");
    }
}

#[test]
fn who_says_too_much_is_told_once_and_heard_again_later() {
    let mut world = limited(3, 2, |_| {});
    let ws = world.websocket("ana");
    world.settle();
    for _ in 0..40 {
        world.clients[ws].say(r#"{"type":"Ping"}"#);
    }
    world.settle();
    let told = r#"{"type":"error","code":"RATE_LIMITED","message":"Too many messages, at most 5 per second"}"#;
    let heard = world.clients[ws].messages();
    assert_eq!(heard.iter().filter(|text| *text == r#"{"type":"pong"}"#).count(), 5);
    assert_eq!(heard.iter().filter(|text| *text == told).count(), 1);
    assert_eq!(heard.len(), 6);
    // Binary messages and protocol pings are counted with them, pongs are not.
    world.pass_ms(1_000);
    for _ in 0..20 {
        world.clients[ws].send_frame(0x8a, b"");
    }
    for n in 0..20 {
        world.clients[ws].send_frame(if n % 2 == 0 { 0x82 } else { 0x89 }, b"x");
    }
    world.settle();
    let text = world.clients[ws].text();
    assert_eq!(text.matches("UNSUPPORTED_FORMAT").count(), 3);
    assert_eq!(text.matches("RATE_LIMITED").count(), 2);
    assert_eq!(world.clients[ws].frames().iter().filter(|(first, _)| *first == 0x8a).count(), 2);
    // The others are heard as ever, and its Close is.
    world.clients[ws].send_frame(0x88, &1000_u16.to_be_bytes());
    world.settle();
    assert_eq!(world.clients[ws].close_code(), Some(1000));
}

#[test]
fn acknowledgements_that_are_awaited_pass_and_invented_ones_are_counted() {
    let mut world = limited(5, 2, |config| {
        config.api_key = None;
        config.ack = Some(AckRules { timeout_ms: 30_000, is_recorded: false });
    });
    let ws = world.websocket("ana");
    world.settle();
    let backend = world.dial();
    for n in 0..20 {
        let body = format!(r#"{{"target_user_id":"ana","event_type":"e","payload":{n}}}"#);
        world.post(backend, "/api/v1/notifications/send", &body);
    }
    world.settle();
    let said = world.clients[ws].messages();
    let ids: Vec<&str> = said.iter().filter_map(|text| text.split(r#""id":""#).nth(1)?.get(..36)).collect();
    assert_eq!(ids.len(), 20, "{said:?}");
    let ack = |id: &str| format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
    ids.iter().for_each(|id| world.clients[ws].say(&ack(id)));
    ids.iter().for_each(|id| world.clients[ws].say(&ack(id)));
    world.settle();
    let text = world.clients[ws].text();
    assert_eq!(text.matches(r#""type":"acked""#).count(), 20);
    assert_eq!(text.matches("INVALID_ACK").count(), 5, "the second time nobody awaits them");
    assert_eq!(text.matches("RATE_LIMITED").count(), 1);
}

// --- Counted together with other nodes -----------------------------------------------------------------------------------

#[test]
fn what_nodes_count_together_is_a_window() {
    for seed in 0..30 {
        let shared = |config: &mut ShardConfig| {
            config.rate_limits = Some(RateLimitRules { is_shared: true, ..rules() });
        };
        let mut nodes = [limited(seed, 2, shared), limited(seed + 1, 3, shared)];
        let counts = nodes[0].stores[0].counts.clone();
        nodes[1].stores.iter_mut().for_each(|store| store.counts = counts.clone());
        let mut passed = 0;
        for world in &mut nodes {
            let clients: Vec<_> = (0..30).map(|_| ask(world, &get("/stats", ""))).collect();
            world.settle();
            let all: Vec<_> = clients.iter().flat_map(|client| answers(world, *client)).collect();
            assert_eq!(all.len(), 30);
            let end = (world.now().unix_ms() / 1_000 + 1) * 1_000;
            for (status, answer) in &all {
                passed += usize::from(*status == 200);
                let reset: u64 = header(answer, "x-ratelimit-reset").expect("a header").parse().expect("a number");
                assert!(reset == end || reset == end - 1_000, "{reset}, {end}");
            }
            assert_eq!(world.metrics.sum(|shard| shard.limit_fallbacks.get()), 0);
        }
        // Ten a window, without a burst; the two nodes' clocks are in one window, or in two.
        let windows: std::collections::BTreeSet<u64> = counts.borrow().keys().map(|(_, _, window)| *window).collect();
        assert_eq!(passed, 10 * windows.len(), "seed {seed}");
    }
}

#[test]
fn a_refusal_is_not_asked_for_again_while_its_window_lasts() {
    let mut world = limited(1, 2, |config| {
        config.rate_limits = Some(RateLimitRules { is_shared: true, ..rules() });
    });
    let client = world.dial_to(0);
    (0..500).for_each(|_| world.clients[client].send(get("/stats", "")));
    world.settle();
    assert_eq!(answers(&world, client).len(), 500);
    let windows = world.stores[0].counts.borrow().clone();
    assert!(windows.values().all(|count| *count <= 11), "{windows:?}");
}

#[test]
fn while_the_common_count_does_not_answer_the_node_counts_alone() {
    for seed in 0..30 {
        let mut world = limited(seed, 3, |config| {
            config.rate_limits = Some(RateLimitRules { is_shared: true, ..rules() });
        });
        world.checks = true;
        world.stores.iter_mut().for_each(|store| store.failures_percent = 100);
        let clients: Vec<_> = (0..60).map(|_| ask(&mut world, &get("/stats", ""))).collect();
        world.settle();
        let passed = count(&world, &clients, 200);
        assert!((20..=22).contains(&passed), "seed {seed}: {passed}, the burst of one node");
        assert_eq!(passed + count(&world, &clients, 429), 60);
        assert!(world.metrics.sum(|shard| shard.limit_fallbacks.get()) >= 20);
        world.stores.iter_mut().for_each(|store| store.failures_percent = 0);
        world.pass_ms(2_000);
        let clients: Vec<_> = (0..60).map(|_| ask(&mut world, &get("/stats", ""))).collect();
        world.settle();
        let passed = count(&world, &clients, 200);
        assert!(passed == 10 || passed == 20, "seed {seed}: {passed}, one window or two");
    }
}
