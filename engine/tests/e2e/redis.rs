//! Redis Pub/Sub as input (contract §6, §13, §14): what arrives, what is skipped, and what an outage leaves untouched.
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::ws::Ws;
use crate::support::{is_rfc3339_utc, is_uuid_v7, token};
use serde_json::{Value, json};

/// A server that listens to `redis`, subscribed.
fn server_of(redis: &Redis, settings: &[(&str, &str)]) -> Server {
    let url = redis.url();
    let mut all = vec![("REDIS_URL", url.as_str())];
    all.extend_from_slice(settings);
    let server = Server::with(&all);
    redis.await_default_subscriptions();
    server
}

/// The text of a notification with its id and time checked and cut out.
#[track_caller]
fn without_id_and_time(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let id = value["id"].as_str().unwrap_or_else(|| panic!("no id in {text}"));
    let at = value["occurred_at"].as_str().unwrap_or_else(|| panic!("no occurred_at in {text}"));
    assert!(is_uuid_v7(id) && is_rfc3339_utc(at), "{text}");
    let head = format!(r#"{{"type":"notification","id":"{id}","occurred_at":"{at}","#);
    text.strip_prefix(&head).unwrap_or_else(|| panic!("{text} does not begin with {head}")).to_owned()
}

/// A user event of the seed's form.
fn user_event(user: &str, payload: &str) -> String {
    format!(r#"{{"type":"user","target":"{user}","event":{{"event_type":"e","payload":{payload}}}}}"#)
}

#[test]
fn the_seeds_messages_arrive_byte_for_byte() {
    let redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut ws = server.ws("user123");
    ws.subscribe(&["orders"]);
    let mut sse = Sse::connect(server.port, &format!("/sse?channels=orders&token={}", token::of("user123")));
    // The three PHP arrays of the deployment guide as PHP's json_encode writes them.
    for (channel, message, arrives) in [
        (
            "notification:user:user123",
            r#"{"type":"user","target":"user123","event":{"event_type":"order.created","payload":{"order_id":"ORD-001","amount":99.99},"priority":"High"}}"#,
            r#""event_type":"order.created","payload":{"order_id":"ORD-001","amount":99.99},"metadata":{"source":"redis:notification:user:user123","priority":"High"}}"#,
        ),
        (
            "notification:channel:orders",
            r#"{"type":"channel","target":"orders","event":{"event_type":"order.status_changed","payload":{"order_id":"ORD-001","status":"shipped"}}}"#,
            r#""event_type":"order.status_changed","payload":{"order_id":"ORD-001","status":"shipped"},"metadata":{"source":"redis:notification:channel:orders","priority":"Normal"}}"#,
        ),
        (
            "notification:broadcast",
            r#"{"type":"broadcast","event":{"event_type":"system.maintenance","payload":{"message":"\u7cfb\u7d71\u5c07\u65bc 10 \u5206\u9418\u5f8c\u9032\u884c\u7dad\u8b77"}}}"#,
            r#""event_type":"system.maintenance","payload":{"message":"\u7cfb\u7d71\u5c07\u65bc 10 \u5206\u9418\u5f8c\u9032\u884c\u7dad\u8b77"},"metadata":{"source":"redis:notification:broadcast","priority":"Normal"}}"#,
        ),
    ] {
        assert_eq!(redis.cli(&["PUBLISH", channel, message]).trim(), "1", "one subscription covers {channel}");
        let heard = ws.hear();
        assert_eq!(without_id_and_time(&heard), arrives);
        assert_eq!(sse.notification_text(), heard, "both transports tell the same");
    }
}

#[test]
fn five_kinds_of_message_find_their_targets() {
    let redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut publisher = redis.client();
    let mut ana = server.ws("ana");
    ana.subscribe(&["orders", "alerts"]);
    let mut ben = server.ws("ben");
    ben.subscribe(&["alerts"]);

    let event = |n: u32| format!(r#""event":{{"event_type":"e","payload":{n}}}"#);
    for (index, (target, to_ana, to_ben)) in [
        (r#""type":"user","target":"ana""#, true, false),
        (r#""type":"users","target":["ana","ben","ana"]"#, true, true),
        (r#""type":"users","target":"ben""#, false, true),
        (r#""type":"broadcast""#, true, true),
        (r#""type":"broadcast","target":["ignored"]"#, true, true),
        (r#""type":"channel","target":"orders""#, true, false),
        (r#""type":"channels","target":["orders","alerts"]"#, true, true),
        (r#""type":"channels","target":"alerts""#, true, true),
    ]
    .into_iter()
    .enumerate()
    {
        let n = index as u32;
        // The channel it comes on names the source and decides nothing.
        publisher.publish("notification:user:whoever", format!("{{{target},{}}}", event(n)).as_bytes());
        for (client, reached) in [(&mut ana, to_ana), (&mut ben, to_ben)] {
            if reached {
                let heard = client.notification();
                assert_eq!(
                    (&heard["payload"], &heard["metadata"]["source"]),
                    (&json!(n), &json!("redis:notification:user:whoever")),
                    "{target}"
                );
            }
        }
    }
    for (user, client) in [("ana", &mut ana), ("ben", &mut ben)] {
        server.nothing_waits(user, client);
    }
}

#[test]
fn the_event_carries_its_metadata() {
    let redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut ana = server.ws("ana");
    redis.publish(
        "notification:user:ana",
        r#"{"id":"ignored","source":"ignored","metadata":{"a":1},"audience":{"type":"All"},"tenant_id":null,
            "event":{"correlation_id":"c-1","ttl":60,"priority":"Critical","payload":{ "b" : 1.50, "a" : [ ] },"event_type":"e","id":7},
            "target":"ana","type":"user"}"#,
    );
    assert_eq!(
        without_id_and_time(&ana.hear()),
        r#""event_type":"e","payload":{"b":1.50,"a":[]},"metadata":{"source":"redis:notification:user:ana","priority":"Critical","ttl":60,"correlation_id":"c-1"}}"#
    );
}

#[test]
fn what_cannot_be_read_is_skipped_and_the_next_arrives() {
    let redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut ana = server.ws("ana");
    let mut publisher = redis.client();
    let too_long = user_event("ana", &format!("\"{}\"", "x".repeat(1_100_000)));
    let too_deep = user_event("ana", &format!("{}{}", "[".repeat(200), "]".repeat(200)));
    for (index, bad) in [
        &b""[..],
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"{}",
        br#"{"type":"user","target":"ana"}"#,
        br#"{"type":"user","target":"ana","event":{"payload":1}}"#,
        br#"{"type":"user","target":"ana","event":{"event_type":"e"}}"#,
        br#"{"type":"user","event":{"event_type":"e","payload":1}}"#,
        br#"{"type":"user","target":["ana"],"event":{"event_type":"e","payload":1}}"#,
        br#"{"type":"User","target":"ana","event":{"event_type":"e","payload":1}}"#,
        br#"{"type":"shout","target":"ana","event":{"event_type":"e","payload":1}}"#,
        br#"{"type":"user","target":"ana","event":{"event_type":"e","payload":1,"priority":"high"}}"#,
        br#"{"type":"user","target":"ana","event":{"event_type":"e","payload":1,"ttl":-1}}"#,
        br#"{"type":"user","target":"ana","event":{"event_type":"e","payload":1}} trailing"#,
        too_long.as_bytes(),
        too_deep.as_bytes(),
    ]
    .into_iter()
    .enumerate()
    {
        publisher.publish("notification:user:ana", bad);
        publisher.publish("notification:user:ana", user_event("ana", &index.to_string()).as_bytes());
        assert_eq!(ana.payload(), index, "after {:?}", String::from_utf8_lossy(&bad[..bad.len().min(100)]));
    }
    assert!(!server.process.output().contains("shout"), "a payload in the log");
}

#[test]
fn large_messages_arrive_whole() {
    let redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut ana = server.ws("ana");
    let mut sse = server.sse("ana");
    for len in [100, 126, 65_536, 300_000, 1_000_000] {
        let payload = format!("\"{}\"", "é".repeat(len / 2));
        redis.publish("notification:user:ana", &user_event("ana", &payload));
        let heard = ana.hear();
        assert!(heard.contains(&payload), "{len} bytes");
        assert_eq!(sse.notification_text(), heard);
    }
}

#[test]
fn redis_channels_can_be_chosen() {
    let redis = Redis::start();
    let url = redis.url();
    let server = Server::with(&[("REDIS_URL", &url), ("REDIS_CHANNELS", " exact ,app:*,,n?t , [xy]z ")]);
    redis.await_subscriptions(3, &["exact"]);
    let mut ana = server.ws("ana");
    let mut publisher = redis.client();
    for channel in ["exact", "app:1:2", "net", "xz"] {
        publisher.publish(channel, user_event("ana", "1").as_bytes());
        assert_eq!(ana.notification()["metadata"]["source"], format!("redis:{channel}"));
    }
    for channel in ["notification:broadcast", "notification:user:ana", "exactly"] {
        assert_eq!(publisher.call(&[b"PUBLISH", channel.as_bytes(), b"{}"]), "0", "{channel}");
    }
}

#[test]
fn an_outage_of_redis_touches_no_connection() {
    let mut redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut ws = server.ws("ana");
    let mut sse = server.sse("ana");
    for round in 0..2 {
        redis.publish("notification:user:ana", &user_event("ana", "\"before\""));
        assert_eq!(ws.payload(), "before");
        assert_eq!(sse.notification()["payload"], "before");

        redis.kill();
        // Everything that does not come from Redis goes on meanwhile.
        server.send("ana", "\"meanwhile\"");
        assert_eq!(ws.payload(), "meanwhile");
        assert_eq!(sse.notification()["payload"], "meanwhile");
        ws.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
        assert_eq!(server.get("/health").ok()["status"], "healthy", "Redis as input alone never degrades the node");

        redis.restart();
        redis.await_default_subscriptions();
        redis.publish("notification:user:ana", &user_event("ana", &round.to_string()));
        assert_eq!(ws.payload(), round);
        assert_eq!(sse.notification()["payload"], round);
    }
    let stats = server.get("/stats").ok();
    assert_eq!(stats["redis"]["connected"], true, "{stats}");
    assert!(stats["redis"]["total_reconnections"].as_u64() >= Some(2), "{stats}");
}

#[test]
fn a_subscription_that_redis_cuts_is_made_again() {
    let redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut ana = server.ws("ana");
    for round in 0..3 {
        assert_ne!(redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).trim(), "0");
        redis.await_default_subscriptions();
        redis.publish("notification:user:ana", &user_event("ana", &round.to_string()));
        assert_eq!(ana.payload(), round);
    }
}

#[test]
fn redis_may_come_later_than_the_server() {
    let mut redis = Redis::absent();
    let url = redis.url();
    let server = Server::with(&[
        ("REDIS_URL", &url),
        ("REDIS_BACKOFF_INITIAL_DELAY_MS", "20"),
        ("REDIS_BACKOFF_MAX_DELAY_MS", "200"),
        ("REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS", "1"),
    ]);
    let mut ana = server.ws("ana");
    server.nothing_waits("ana", &mut ana);
    // Long enough away for the breaker to open.
    crate::support::process::await_that("the breaker to open", || {
        (server.get("/stats").ok()["redis"]["circuit_breaker_state"] != "closed").then_some(())
    });
    let log = server.process.output();
    assert_eq!(log.matches("without Redis REST, WebSocket and SSE serve as before").count(), 1, "{log}");
    redis.restart();
    redis.await_default_subscriptions();
    redis.publish("notification:user:ana", &user_event("ana", "1"));
    assert_eq!(ana.payload(), 1);
    let metrics = server.get("/metrics");
    assert!(metrics.text().lines().any(|line| line == "ara_redis_connection_status 1"), "{}", metrics.text());
}

#[test]
fn the_url_may_name_user_password_and_database() {
    let password = "p@ss:w/rd%20 ü";
    let redis = Redis::with(
        &["--requirepass", "of-the-tests", "--user", "ara", "on", &format!(">{password}"), "&*", "+@all"],
        Some("of-the-tests"),
    );
    let url = format!("redis://ara:p%40ss%3Aw%2Frd%2520%20%C3%BC@127.0.0.1:{}/3", redis.port);
    let server = Server::with(&[("REDIS_URL", &url), ("RUST_LOG", "debug")]);
    redis.await_default_subscriptions();
    let clients = redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    assert!(clients.contains(" user=ara ") && clients.contains(" db=3 "), "{clients}");
    let mut ana = server.ws("ana");
    redis.publish("notification:user:ana", &user_event("ana", "1"));
    assert_eq!(ana.payload(), 1);
    let log = server.process.output();
    assert!(!log.contains(password) && !log.contains("p%40ss"), "the password is in the log:\n{log}");
}

#[test]
fn the_url_may_name_a_password_alone() {
    let redis = Redis::with(&["--requirepass", "of-the-tests"], Some("of-the-tests"));
    let url = format!("redis://:of-the-tests@127.0.0.1:{}", redis.port);
    let server = Server::with(&[("REDIS_URL", &url)]);
    redis.await_default_subscriptions();
    let mut ana = server.ws("ana");
    redis.publish("notification:user:ana", &user_event("ana", "1"));
    assert_eq!(ana.payload(), 1);
}

#[test]
fn a_wrong_password_is_told_and_the_node_goes_on() {
    let redis = Redis::with(&["--requirepass", "of-the-tests"], Some("of-the-tests"));
    let url = format!("redis://:not-this-one@127.0.0.1:{}", redis.port);
    let server = Server::with(&[("REDIS_URL", &url)]);
    crate::support::process::await_that("a warning in the log", || {
        let log = server.process.output().to_lowercase();
        (log.contains("warn") && log.contains("redis")).then_some(())
    });
    assert!(!server.process.output().contains("not-this-one"));
    assert_eq!(server.get("/stats").ok()["redis"]["connected"], false);
    server.still_delivers();
}

#[test]
fn a_flood_on_redis_arrives_in_order() {
    let redis = Redis::start();
    let server = server_of(&redis, &[]);
    let mut users: Vec<(String, Ws)> =
        (0..10).map(|n| format!("u{n}")).map(|user| (user.clone(), server.ws(&user))).collect();
    let mut publisher = redis.client();
    // Pipelined: Redis hands them to the server as fast as it can read.
    for n in 0..200 {
        for (user, _) in &users {
            publisher.send(&[b"PUBLISH", b"notification:user:x", user_event(user, &n.to_string()).as_bytes()]);
        }
    }
    for (user, ws) in &mut users {
        for n in 0..200 {
            assert_eq!(ws.payload(), n, "{user}");
        }
    }
    for _ in 0..2_000 {
        assert_eq!(publisher.reply(), "1");
    }
}
