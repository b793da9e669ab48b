//! WebSocket and SSE clients: connecting, subscribing, being told, leaving.
use crate::world::World;
use shards::shard::Ended;
use shards::tables::placement;

fn frames(world: &World, client: usize) -> Vec<String> {
    world.clients[client].messages()
}

#[test]
fn a_client_subscribes_and_hears_what_is_published_afterwards() {
    for seed in 0..200 {
        let mut world = World::new(seed, 3);
        let ana = world.websocket("ana");
        world.clients[ana].say(r#"{"type":"Subscribe","payload":{"channels":["orders","a b","orders"]}}"#);
        world.clients[ana].say(r#"{"type":"Ping"}"#);
        world.settle();
        let backend = world.dial();
        world.post(backend, "/api/v1/notifications/channel", r#"{"channel":"orders","event_type":"e","payload":1}"#);
        world.settle();
        let heard = frames(&world, ana);
        assert_eq!(heard[0], r#"{"type":"subscribed","payload":["orders","orders"]}"#, "seed {seed}");
        assert!(heard[1].contains("Invalid channel name: a b"), "seed {seed}: {heard:?}");
        assert_eq!(heard[2], r#"{"type":"pong"}"#, "seed {seed}");
        assert_eq!(world.clients[ana].payloads(), ["1"], "seed {seed}");
        assert!(world.clients[backend].text().contains(r#""delivered_to":1,"#), "seed {seed}");
        world.check_at_rest();
    }
}

#[test]
fn an_sse_stream_opens_with_connected_when_its_channels_are_in_force() {
    for seed in 0..200 {
        let mut world = World::new(seed, 4);
        let ana = world.sse("ana", "orders,alerts");
        world.settle();
        let backend = world.dial();
        world.post(
            backend,
            "/api/v1/notifications/channels",
            r#"{"channels":["orders","alerts","none"],"event_type":"e","payload":{"n":1}}"#,
        );
        world.settle();
        let text = world.clients[ana].text();
        let events: Vec<&str> = text.lines().filter(|line| line.starts_with("event: ")).collect();
        assert_eq!(events, ["event: connected", "event: notification"], "seed {seed}: one copy, after connected");
        assert!(world.clients[backend].text().contains(r#""delivered_to":1,"#), "seed {seed}");
    }
}

#[test]
fn everybody_who_leaves_is_forgotten() {
    for seed in 0..100 {
        let mut world = World::new(seed, 3);
        let mut clients = Vec::new();
        for n in 0..20 {
            let client = match n % 2 {
                0 => world.websocket(&format!("user{}", n % 7)),
                _ => world.sse(&format!("user{}", n % 7), "a,b"),
            };
            clients.push(client);
        }
        for client in &clients {
            if client % 2 == 0 {
                world.clients[*client].say(r#"{"type":"Subscribe","payload":{"channels":["a","b","c"]}}"#);
            }
        }
        world.settle();
        world.rng.shuffle(&mut clients);
        for client in clients.drain(..10) {
            world.clients[client].hang_up = true;
        }
        world.settle();
        world.check_at_rest();
        for client in clients {
            world.clients[client].send_frame(0x88, &1000u16.to_be_bytes());
            world.clients[client].hang_up = true;
        }
        world.settle();
        world.pass_ms(10_000);
        world.check_at_rest();
        let left = |of: fn(&shards::metrics::ShardMetrics) -> u64| world.metrics.sum(of);
        assert_eq!((left(|m| m.users.get()), left(|m| m.channels.get()), left(|m| m.subscriptions.get())), (0, 0, 0));
        assert_eq!(left(|m| m.sockets.get()), 0);
    }
}

#[test]
fn the_sixth_connection_of_a_user_is_refused_in_words() {
    let mut world = World::new(5, 2);
    let clients: Vec<_> = (0..6).map(|_| world.websocket("lim")).collect();
    world.settle();
    let refused: Vec<_> = clients.iter().filter(|client| !world.clients[**client].messages().is_empty()).collect();
    assert_eq!(refused.len(), 1);
    let frames = world.clients[*refused[0]].frames();
    let words = r#"{"type":"error","code":"CONNECTION_LIMIT","message":"User lim connection limit exceeded (5/5)"}"#;
    assert_eq!(frames[0].1, words);
    assert_eq!(frames.len(), 2, "then Close");
    assert_eq!(world.clients[*refused[0]].close_code(), Some(1008));
}

#[test]
fn a_listener_that_pongs_lives_and_one_that_does_not_is_closed() {
    let mut world = World::new(3, 2);
    let (alive, dead) = (world.websocket("alive"), world.websocket("dead"));
    world.settle();
    for _ in 0..10 {
        world.pass_ms(30_000);
        world.clients[alive].send_frame(0x8a, b"");
        world.settle();
    }
    assert!(world.clients[alive].place.is_some());
    assert!(world.clients[alive].messages().iter().filter(|text| text.contains("heartbeat")).count() >= 9);
    assert!(world.clients[dead].place.is_none());
    assert_eq!(world.clients[dead].close_code(), Some(1001));
    world.check_at_rest();
}

#[test]
fn a_token_ends_its_connection() {
    let mut world = World::with_config(3, 2, |config| config.connection_timeout_ms = 40_000_000);
    let client = world.websocket("ana");
    world.settle();
    world.pass_ms(3_590_000);
    assert!(world.clients[client].place.is_some());
    world.pass_ms(20_000);
    assert_eq!(world.clients[client].close_code(), Some(4001));
}

#[test]
fn a_stop_tells_everybody_and_writes_what_waits() {
    for seed in 0..50 {
        let mut world = World::new(seed, 2);
        let (ana, bo) = (world.websocket("ana"), world.sse("bo", ""));
        let backend = world.dial();
        world.settle();
        world.clients[ana].reads = false;
        world.post(backend, "/api/v1/notifications/broadcast", r#"{"event_type":"e","payload":"last"}"#);
        world.settle();
        for shard in 0..2 {
            world.call(shard, |shard, now, effects| shard.stop(now, effects));
        }
        world.clients[ana].reads = true;
        world.settle();
        let frames = world.clients[ana].frames();
        assert!(frames.iter().any(|(_, text)| text.contains(r#""type":"shutdown""#)), "seed {seed}");
        assert_eq!(world.clients[ana].payloads(), [r#""last""#], "seed {seed}: written before the Close");
        assert_eq!(world.clients[ana].close_code(), Some(1001), "seed {seed}");
        assert!(world.clients[bo].text().contains("event: message"), "seed {seed}");
        assert!(world.clients[bo].text().ends_with("0\r\n\r\n"), "seed {seed}: the body ends");
        assert!(world.clients[bo].ended && world.clients[backend].ended, "seed {seed}");
        world.clients[ana].send_frame(0x88, &1001u16.to_be_bytes());
        for client in [ana, bo, backend] {
            world.clients[client].hang_up = true;
        }
        world.settle();
        world.pass_ms(10_000);
        assert!(world.shards.iter().all(|shard| shard.stopped()), "seed {seed}");
    }
}

#[test]
fn a_client_that_reads_slowly_is_told_everything_before_it_is_told_to_go() {
    let mut world = World::new(3, 1);
    let ana = world.websocket("ana");
    world.settle();
    world.clients[ana].credit = Some(0);
    let backend = world.dial();
    for n in 0..20 {
        world.post(backend, "/api/v1/notifications/broadcast", &format!(r#"{{"event_type":"e","payload":{n}}}"#));
    }
    world.settle();
    world.call(0, |shard, now, effects| shard.stop(now, effects));
    for _ in 0..20 {
        world.pass_ms(2_000);
        world.clients[ana].credit = Some(400);
        world.settle();
    }
    assert_eq!(world.clients[ana].payloads().len(), 20);
    assert_eq!(world.clients[ana].close_code(), Some(1001));
}

#[test]
fn who_comes_home_during_a_stop_is_sent_away() {
    for seed in 0..40 {
        let mut world = World::new(seed, 4);
        let clients: Vec<_> = (0..12)
            .map(|n| if n % 2 == 0 { world.websocket(&format!("u{n}")) } else { world.sse(&format!("u{n}"), "a") })
            .collect();
        world.run(seed as usize % 6);
        for shard in 0..4 {
            world.call(shard, |shard, now, effects| shard.stop(now, effects));
        }
        world.settle();
        for client in clients {
            let text = world.clients[client].text();
            let told = text.contains(r#""type":"shutdown""#) || text.starts_with("HTTP/1.1 503") || text.is_empty();
            assert!(
                told && world.clients[client].ended || world.clients[client].close_code() == Some(1001),
                "seed {seed}: {text}"
            );
            world.clients[client].hang_up = true;
        }
        world.settle();
        assert!(world.shards.iter().all(|shard| shard.stopped()), "seed {seed}");
        world.check_at_rest();
    }
}

#[test]
fn the_limit_of_the_node_is_told_before_the_limit_of_the_user() {
    let mut world = World::with_config(5, 1, |config| {
        (config.connections_max, config.connections_per_user_max) = (1, 1);
    });
    let clients = [world.websocket("lim"), world.websocket("lim")];
    world.settle();
    let words = clients.map(|client| world.clients[client].text()).concat();
    assert!(words.contains("Total connection limit exceeded (1/1)"), "{words}");
}

#[test]
fn a_message_in_crumbs_or_fragments_leaves_nothing_behind() {
    let mut world = World::new(6, 1);
    world.checks = true;
    let ana = world.websocket("ana");
    world.settle();
    let text = format!(r#"{{"type":"Subscribe","payload":{{"channels":["{}"]}}}}"#, "x".repeat(6_000));
    world.clients[ana].say(&text);
    let crumbs = std::mem::take(&mut world.clients[ana].to_server);
    for byte in crumbs {
        world.clients[ana].send([byte]);
        world.feed(ana);
    }
    let (begin, end) = text.split_at(3_000);
    world.clients[ana].send_frame(0x01, begin.as_bytes());
    world.clients[ana].send_frame(0x80, end.as_bytes());
    world.feed(ana);
    world.settle();
    assert_eq!(world.clients[ana].text().matches("Invalid channel name").count(), 2);
    // A great deal of input that ends in the beginning of a frame.
    for _ in 0..400 {
        world.clients[ana].say(&format!(r#"{{"type":"Ping"}}{}"#, " ".repeat(100)));
    }
    world.clients[ana].send([0x81]);
    let bytes = std::mem::take(&mut world.clients[ana].to_server);
    for part in bytes.chunks(30_001) {
        world.clients[ana].send(part);
        world.feed(ana);
    }
    world.settle();
}

/// The channel's last subscriber here goes and a new one comes while the first one's join is on its way.
#[test]
fn a_confirmation_of_an_earlier_life_of_a_channel_confirms_nothing() {
    let mut world = World::new(1, 2);
    let owner = placement::line("default", 2).index();
    let other = 1 - owner;
    let mut users = (0..).map(|n| format!("u{n}")).filter(|user| placement::home("default", user, 2).index() == other);
    let (ana, bo) = (users.next().unwrap(), users.next().unwrap());
    let (ana, bo) = (world.websocket(&ana), world.websocket(&bo));
    world.settle();
    let subscribe = r#"{"type":"Subscribe","payload":{"channels":["orders"]}}"#;
    world.clients[ana].say(subscribe);
    world.feed(ana);
    let (_, key) = world.clients[ana].place.unwrap();
    world.call(other, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
    world.clients[bo].say(subscribe);
    world.feed(bo);
    world.carry(other, owner);
    world.carry(owner, other);
    assert!(!world.has_output(other), "the owner still has to hear of a leave");
    world.carry(other, owner);
    world.carry(other, owner);
    world.carry(owner, other);
    let backend = world.dial_to(owner);
    world.post(backend, "/api/v1/notifications/channel", r#"{"channel":"orders","event_type":"e","payload":1}"#);
    world.feed(backend);
    world.settle();
    assert_eq!(world.clients[bo].messages()[0], r#"{"type":"subscribed","payload":["orders"]}"#);
    assert_eq!(world.clients[bo].payloads(), ["1"]);
}
