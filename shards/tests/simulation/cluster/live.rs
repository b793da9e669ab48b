//! Live delivery between nodes: everybody who is connected anywhere, once, in order.
use super::Cluster;
use crate::client::ClientId;
use crate::seeds::for_each_seed;
use protocol::cluster::ClusterEvent;
use std::collections::HashMap;

const SUBSCRIBE: &str = r#"{"type":"Subscribe","payload":{"channels":["a","b"]}}"#;

/// Publishers on several nodes, clients on others, whatever moves meanwhile.
fn everybody_hears_everything(seed: u64) {
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, |_| {});
    let mut clients: Vec<(usize, ClientId, String)> = Vec::new();
    for n in 0..12 {
        let (node, user) = (cluster.any(), format!("u{}", n % 5));
        let world = &mut cluster.nodes[node].world;
        let client = if n % 3 == 0 { world.sse(&user, "a,b") } else { world.websocket(&user) };
        if n % 3 != 0 {
            world.clients[client].say(SUBSCRIBE);
        }
        clients.push((node, client, user));
    }
    cluster.settle();
    let backends: Vec<(usize, ClientId)> = (0..8)
        .map(|_| {
            let node = cluster.any();
            (node, cluster.nodes[node].world.dial())
        })
        .collect();
    let mut sent: HashMap<String, Vec<String>> = HashMap::new();
    for n in 0..56 {
        // One backend a stream: its order is the order it was accepted in.
        let (path, target, streams) = match n % 8 {
            0 => ("channel", r#""channel":"a""#.to_owned(), vec!["a".to_owned()]),
            1 => ("channels", r#""channels":["a","b"]"#.to_owned(), vec!["ab".to_owned()]),
            2 => ("broadcast", r#""x":1"#.to_owned(), vec!["all".to_owned()]),
            3 => ("send-to-users", r#""target_user_ids":["u0","u1","u4"]"#.to_owned(), vec!["some".to_owned()]),
            m => ("send", format!(r#""target_user_id":"u{}""#, m - 4), vec![format!("u{}", m - 4)]),
        };
        let payload = format!(r#""{}-{n}""#, streams[0]);
        sent.entry(streams[0].clone()).or_default().push(payload.clone());
        let body = format!(r#"{{{target},"event_type":"e","payload":{payload}}}"#);
        let (node, backend) = backends[n % 8];
        cluster.nodes[node].world.post(backend, &format!("/api/v1/notifications/{path}"), &body);
        for _ in 0..cluster.rng.u8(0..3) {
            cluster.step();
        }
    }
    cluster.settle();
    for (node, client, user) in &clients {
        let heard = cluster.nodes[*node].world.clients[*client].payloads();
        for (stream, expected) in &sent {
            let is_for = match stream.as_str() {
                "some" => ["u0", "u1", "u4"].contains(&user.as_str()),
                stream if stream.starts_with('u') => stream == user,
                _ => true,
            };
            let prefix = format!(r#""{stream}-"#);
            let got: Vec<_> = heard.iter().filter(|payload| payload.starts_with(&prefix)).cloned().collect();
            let expected = if is_for { expected.clone() } else { Vec::new() };
            assert_eq!(got, expected, "seed {seed}: {user} at {node} on {stream}");
        }
    }
    let answers = |(node, backend): (usize, ClientId)| cluster.nodes[node].world.clients[backend].text();
    let expected =
        [12, 12, 12, clients.iter().filter(|(.., user)| ["u0", "u1", "u4"].contains(&user.as_str())).count()];
    for (backend, expected) in backends.iter().zip(expected) {
        let (text, expected) = (answers(*backend), format!(r#""delivered_to":{expected},"#));
        assert_eq!(text.matches(&expected).count(), 7, "seed {seed}: {expected} {text}");
    }
}

#[test]
fn everybody_hears_everything_once_and_in_order() {
    for_each_seed(150, everybody_hears_everything);
}

/// A client that was answered is reached from everywhere by whatever is published from then on.
fn who_was_answered_is_reached(seed: u64) {
    let mut cluster = Cluster::new(seed, 2, |_| {});
    let backends = [0, 1].map(|node| cluster.nodes[node].world.dial());
    cluster.slowness_percent = cluster.rng.u8(0..90);
    for n in 0..6 {
        let here = cluster.any();
        let user = format!("u{}", n % 2);
        let is_sse = cluster.rng.bool();
        let world = &mut cluster.nodes[here].world;
        let client = if is_sse { world.sse(&user, "a") } else { world.websocket(&user) };
        let answered = if is_sse { "event: connected" } else { "HTTP/1.1 101" };
        cluster.run_until("answered", |cluster| cluster.has_heard(here, client, answered));
        let there = cluster.any();
        let publish = |cluster: &mut Cluster, path: &str, target: &str, payload: &str| {
            let body = format!(r#"{{{target},"event_type":"e","payload":"{payload}"}}"#);
            cluster.nodes[there].world.post(backends[there], &format!("/api/v1/notifications/{path}"), &body);
        };
        publish(&mut cluster, "send", &format!(r#""target_user_id":"{user}""#), &format!("mail-{n}"));
        if !is_sse {
            cluster.nodes[here].world.clients[client].say(r#"{"type":"Subscribe","payload":{"channels":["a"]}}"#);
            cluster.run_until("subscribed", |cluster| cluster.has_heard(here, client, r#""type":"subscribed""#));
        }
        publish(&mut cluster, "channel", r#""channel":"a""#, &format!("channel-{n}"));
        for _ in 0..cluster.rng.u8(0..20) {
            cluster.step();
        }
        cluster.run_until("heard", |cluster| {
            [format!("mail-{n}"), format!("channel-{n}")].iter().all(|words| cluster.has_heard(here, client, words))
        });
        // It leaves, and the next one of the same user may be quick.
        cluster.nodes[here].world.clients[client].hang_up = true;
        for _ in 0..cluster.rng.u8(0..8) {
            cluster.step();
        }
    }
    cluster.slowness_percent = 0;
    cluster.settle();
    for node in &cluster.nodes {
        assert!(node.watched.is_empty(), "seed {seed}: nobody is there, and {:?} are listened to", node.watched);
        let late = node.world.metrics.sum(|shard| shard.watches_late.get());
        assert_eq!(late, 0, "seed {seed}: nobody was let in unheard");
    }
}

#[test]
fn who_was_answered_is_reached_from_everywhere() {
    for_each_seed(150, who_was_answered_is_reached);
}

#[test]
fn the_answer_tells_what_the_cluster_delivered_and_what_this_node_did() {
    let mut cluster = Cluster::new(3, 3, |_| {});
    for node in [0, 0, 1, 2] {
        cluster.nodes[node].world.websocket("ana");
    }
    let backend = cluster.nodes[0].world.dial();
    cluster.settle();
    let world = &mut cluster.nodes[0].world;
    world.post(backend, "/api/v1/notifications/send", r#"{"target_user_id":"ana","event_type":"e","payload":1}"#);
    cluster.settle();
    let text = cluster.nodes[0].world.clients[backend].text();
    assert!(text.contains(r#""delivered_to":4,"failed":0,"queued":0,"delivered_local":2,"#), "{text}");
}

/// A node that nobody hears, and a Redis that says nothing: clients of the node are served all the same.
#[test]
fn a_node_without_its_links_serves_its_own() {
    let mut cluster = Cluster::new(5, 2, |_| {});
    cluster.cut(0);
    let ana = cluster.nodes[0].world.websocket("ana");
    let elsewhere = cluster.nodes[1].world.websocket("ana");
    let backend = cluster.nodes[0].world.dial();
    cluster.settle();
    let world = &mut cluster.nodes[0].world;
    world.post(backend, "/api/v1/notifications/send", r#"{"target_user_id":"ana","event_type":"e","payload":1}"#);
    cluster.settle();
    assert_eq!(cluster.nodes[0].world.clients[ana].payloads(), ["1"]);
    assert_eq!(cluster.nodes[1].world.clients[elsewhere].payloads(), [""; 0]);
    let text = cluster.nodes[0].world.clients[backend].text();
    assert!(text.contains(r#""delivered_to":1,"failed":0,"queued":0,"delivered_local":1,"#), "{text}");
    // The bridge is silent, too.
    let bo = cluster.nodes[0].world.websocket("bo");
    let world = &mut cluster.nodes[0].world;
    world.settle();
    assert!(world.clients[bo].from_server.is_empty(), "not before the other nodes have heard of it");
    world.pass_ms(1_100);
    assert!(world.clients[bo].has_heard(b"HTTP/1.1 101"), "and not for ever");
    assert_eq!(world.metrics.sum(|shard| shard.watches_late.get()), 1);
    // The links are back.
    cluster.heal(0);
    cluster.pass_ms(100);
    let world = &mut cluster.nodes[0].world;
    world.post(backend, "/api/v1/notifications/broadcast", r#"{"event_type":"e","payload":2}"#);
    cluster.settle();
    assert_eq!(cluster.nodes[0].world.clients[bo].payloads(), ["2"]);
    assert_eq!(cluster.nodes[1].world.clients[elsewhere].payloads(), ["2"]);
}

/// A client that is not answered yet when the node stops hears both.
#[test]
fn who_waits_for_other_nodes_while_the_node_stops_is_told_so() {
    let mut cluster = Cluster::new(6, 1, |_| {});
    let world = &mut cluster.nodes[0].world;
    let (ana, bo) = (world.websocket("ana"), world.sse("bo", "a"));
    world.settle();
    world.stop();
    world.settle();
    let text = world.clients[ana].text();
    assert!(text.starts_with("HTTP/1.1 101") && text.contains("shutdown"), "{text}");
    assert_eq!(world.clients[ana].close_code(), Some(1001));
    let text = world.clients[bo].text();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("shutdown"), "{text}");
}

/// Who is alone answers without Redis's word, and tells the others all the same; with others there it waits.
#[test]
fn a_node_that_is_alone_waits_for_nobody_and_publishes_all_the_same() {
    for keeps_mail in [false, true] {
        for is_alone in [true, false] {
            let mut cluster = match keeps_mail {
                true => Cluster::new(5, 2, super::mail::rules(true)),
                false => Cluster::new(5, 2, |_| {}),
            };
            let (ana, backend) = (cluster.nodes[0].world.websocket("ana"), cluster.nodes[0].world.dial());
            let ana_there = cluster.nodes[1].world.websocket("ana");
            cluster.settle();
            cluster.tell(0, ClusterEvent::Alone(is_alone));
            let world = &mut cluster.nodes[0].world;
            let body = r#"{"target_user_id":"ana","event_type":"e","payload":"hello"}"#;
            world.post(backend, "/api/v1/notifications/send", body);
            // Nothing comes from Redis.
            while world.step() {}
            assert_eq!(world.clients[backend].has_heard(b"\"delivered_to\":1,"), is_alone, "keeps mail: {keeps_mail}");
            assert!(world.clients[ana].has_heard(b"hello"));
            cluster.settle();
            let delivered = if is_alone { "\"delivered_to\":1," } else { "\"delivered_to\":2," };
            assert!(cluster.has_heard(0, backend, delivered));
            assert!(cluster.has_heard(1, ana_there, "hello"), "the parcel went out");
        }
    }
}
