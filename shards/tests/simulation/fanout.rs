//! Everything published arrives once and in order, whatever moves meanwhile.
use crate::world::World;
use std::collections::HashMap;

/// Publishers on several connections, subscribers that come and go, partial writes; every client that stays hears every
/// stream it belongs to without a hole, a repetition or a swap.
#[test]
fn streams_are_whole_and_in_order() {
    for seed in 0..300 {
        let shards = 1 + seed as usize % 4;
        let mut world = World::new(seed, shards);
        let mut stays = Vec::new();
        for n in 0..12 {
            let user = format!("u{}", n % 6);
            let client = if n % 3 == 0 { world.sse(&user, "a,b") } else { world.websocket(&user) };
            if n % 3 != 0 {
                world.clients[client].say(r#"{"type":"Subscribe","payload":{"channels":["a","b"]}}"#);
            }
            stays.push((client, user));
        }
        world.settle();
        let backends: Vec<_> = (0..3).map(|_| world.dial()).collect();
        let mut sent: HashMap<String, Vec<String>> = HashMap::new();
        let mut passing = Vec::new();
        for n in 0..60 {
            // One backend a stream: its order is the order it was accepted in.
            let (stream, path, target) = match n % 4 {
                0 => ("a", "channel", r#""channel":"a""#.to_owned()),
                1 => ("b", "channel", r#""channel":"b""#.to_owned()),
                2 => ("all", "broadcast", r#""x":1"#.to_owned()),
                _ => {
                    let user = format!("u{}", n % 6);
                    ("user", "send", format!(r#""target_user_id":"{user}""#))
                }
            };
            let payload = format!(r#""{stream}-{n}""#);
            let key = if stream == "user" { format!("u{}", n % 6) } else { stream.to_owned() };
            sent.entry(key).or_default().push(payload.clone());
            let body = format!(r#"{{{target},"event_type":"e","payload":{payload}}}"#);
            let backend = backends[n % 4 % 3];
            world.post(backend, &format!("/api/v1/notifications/{path}"), &body);
            if n % 7 == 0 {
                let client = world.websocket(&format!("passing{n}"));
                world.clients[client].say(r#"{"type":"Subscribe","payload":{"channels":["a","b"]}}"#);
                passing.push(client);
            }
            if n % 11 == 10
                && let Some(client) = passing.pop()
            {
                world.clients[client].hang_up = true;
            }
        }
        world.settle();
        for (client, user) in &stays {
            let heard = world.clients[*client].payloads();
            for (stream, expected) in &sent {
                if stream.starts_with('u') && stream != user {
                    continue;
                }
                let prefix = if stream == user { r#""user-"#.to_owned() } else { format!(r#""{stream}-"#) };
                let got: Vec<_> = heard.iter().filter(|payload| payload.starts_with(&prefix)).cloned().collect();
                assert_eq!(&got, expected, "seed {seed}: {user} on {stream}");
            }
        }
        world.check_at_rest();
    }
}

#[test]
fn an_audience_only_ever_narrows() {
    let mut world = World::new(9, 3);
    let admin = world.token("root", &["admin"], None);
    let (root, ana) = (world.websocket_as(&admin), world.websocket("ana"));
    world.clients[ana].say(r#"{"type":"Subscribe","payload":{"channels":["orders"]}}"#);
    world.settle();
    let backend = world.dial();
    let audiences = [
        (r#"{"type":"Roles","value":["admin"]}"#, 1),
        (r#"{"type":"Users","value":["ana"]}"#, 2),
        (r#"{"type":"Channels","value":["orders"]}"#, 3),
        (r#"{"type":"All"}"#, 4),
    ];
    for (audience, n) in audiences {
        let body = format!(r#"{{"event_type":"e","payload":{n},"audience":{audience}}}"#);
        world.post(backend, "/api/v1/notifications/broadcast", &body);
    }
    world.settle();
    assert_eq!(world.clients[root].payloads(), ["1", "4"]);
    assert_eq!(world.clients[ana].payloads(), ["2", "3", "4"]);
}

#[test]
fn tenants_do_not_hear_each_other() {
    let mut world = World::with_config(4, 3, |config| config.tenancy = true);
    let acme = world.token("ana", &[], Some("acme"));
    let bolt = world.token("ana", &[], Some("bolt"));
    let (acme, bolt) = (world.websocket_as(&acme), world.websocket_as(&bolt));
    for client in [acme, bolt] {
        world.clients[client].say(r#"{"type":"Subscribe","payload":{"channels":["orders"]}}"#);
    }
    world.settle();
    let backend = world.dial();
    for (path, target) in
        [("send", r#""target_user_id":"ana""#), ("channel", r#""channel":"orders""#), ("broadcast", r#""x":0"#)]
    {
        let body = format!(r#"{{{target},"event_type":"e","payload":"{path}"}}"#);
        let len = body.len();
        world.clients[backend].send(format!(
            "POST /api/v1/notifications/{path} HTTP/1.1\r\nhost: world\r\nx-tenant-id: acme\r\n\
             content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        ));
    }
    world.settle();
    assert_eq!(world.clients[acme].payloads(), [r#""send""#, r#""channel""#, r#""broadcast""#]);
    assert!(world.clients[bolt].payloads().is_empty());
}

#[test]
fn a_slow_reader_is_closed_and_nobody_waits_for_it() {
    let mut world = World::new(8, 2);
    let (slow, quick) = (world.websocket("slow"), world.websocket("quick"));
    world.settle();
    world.clients[slow].reads = false;
    let backend = world.dial();
    let pad = "x".repeat(60_000);
    for n in 0..100 {
        world.post(
            backend,
            "/api/v1/notifications/broadcast",
            &format!(r#"{{"event_type":"e","payload":"{n} {pad}"}}"#),
        );
    }
    world.settle();
    assert_eq!(world.clients[quick].payloads().len(), 100);
    assert_eq!(world.metrics.sum(|shard| shard.slow_closed.get()), 1);
    let (delivered, failed) = (world.metrics.sum(|m| m.delivered.get()), world.metrics.sum(|m| m.failed.get()));
    assert!(delivered >= 100 && failed > 0, "{delivered} delivered, {failed} failed");
    world.pass_ms(20_000);
    assert!(world.clients[slow].place.is_none(), "it did not answer the Close either");
    world.check_at_rest();
}

/// A fan-out that had to wait for its turn finds its channel gone and another one in its place.
#[test]
fn a_fan_out_that_waits_reaches_its_channel_and_no_other() {
    let mut world = World::with_config(1, 1, |config| config.tenancy = true);
    let tokens = ["acme", "bolt"].map(|tenant| world.token("ana", &[], Some(tenant)));
    let [crowd, acme, bolt] = [&tokens[0], &tokens[0], &tokens[1]].map(|token| world.websocket_as(token));
    world.clients[crowd].say(r#"{"type":"Subscribe","payload":{"channels":["crowd"]}}"#);
    world.clients[acme].say(r#"{"type":"Subscribe","payload":{"channels":["crowd","secret"]}}"#);
    world.settle();
    world.shards[0].slice_deliveries(1);
    for channel in ["crowd", "secret"] {
        let backend = world.dial();
        let body = format!(r#"{{"channel":"{channel}","event_type":"e","payload":"{channel}"}}"#);
        let len = body.len();
        world.clients[backend].send(format!(
            "POST /api/v1/notifications/channel HTTP/1.1\r\nhost: world\r\nx-tenant-id: acme\r\n\
             content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
        ));
        world.feed(backend);
    }
    world.clients[acme].say(r#"{"type":"Unsubscribe","payload":{"channels":["secret"]}}"#);
    world.feed(acme);
    world.clients[bolt].say(r#"{"type":"Subscribe","payload":{"channels":["open"]}}"#);
    world.feed(bolt);
    world.settle();
    assert_eq!(world.clients[bolt].payloads(), [""; 0], "another tenant's secret");
    assert_eq!(world.clients[crowd].payloads(), [r#""crowd""#]);
}
