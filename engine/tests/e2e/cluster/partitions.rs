//! Topics in the partitions of a Redis Cluster (decision 9): the masters share the traffic of users and channels, everybody
//! gets everything once and in the order of each channel and user, and a master that is lost stops its own partitions alone.
use super::{await_ready, delivered, node_at};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::redis_cluster::{MASTERS, RedisCluster};
use crate::support::server::Server;
use crate::support::ws::Ws;
use serde_json::{Value, json};

const CHANNELS: [&str; 8] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
/// Users, and what their connections are subscribed to; each has one on each node.
const HEARERS: [(&str, &[usize]); 4] =
    [("h0", &[0, 1, 2, 3, 4, 5, 6, 7]), ("h1", &[0, 1]), ("h2", &[2]), ("h3", &[3, 5, 7])];
const ITEMS_PER_BATCH: usize = 100;
const BATCHES: usize = 6;

/// Whom one item is for: channels or hearers, by their places.
#[derive(Clone, Debug)]
enum Item {
    Channels(Vec<usize>),
    Users(Vec<usize>),
}

impl Item {
    fn reaches(&self, hearer: usize) -> bool {
        match self {
            Item::Channels(channels) => channels.iter().any(|channel| HEARERS[hearer].1.contains(channel)),
            Item::Users(users) => users.contains(&hearer),
        }
    }

    fn target(&self) -> Value {
        let several = |kind: &str, names: Vec<&str>| match &names[..] {
            [one] => json!({"type": kind, "value": one}),
            _ => json!({"type": format!("{kind}s"), "value": names}),
        };
        match self {
            Item::Channels(channels) => several("channel", channels.iter().map(|nth| CHANNELS[*nth]).collect()),
            Item::Users(users) => several("user", users.iter().map(|nth| HEARERS[*nth].0).collect()),
        }
    }
}

/// What a publisher says: half of it to one channel or user, half to several.
fn items(publisher: u64) -> Vec<Item> {
    let mut rng = fastrand::Rng::with_seed(publisher);
    let mut some = |of: usize| {
        let count = if rng.bool() { 1 } else { rng.usize(2..=of.min(5)) };
        let mut all: Vec<usize> = (0..of).collect();
        rng.shuffle(&mut all);
        all.truncate(count);
        all
    };
    (0..BATCHES * ITEMS_PER_BATCH)
        .map(|n| match n % 3 {
            0 => Item::Users(some(HEARERS.len())),
            _ => Item::Channels(some(CHANNELS.len())),
        })
        .collect()
}

/// Publishes all of it in batches; every row tells how many got it.
fn publish_all(server: &Server, publisher: u64, items: &[Item]) {
    for (batch, page) in items.chunks(ITEMS_PER_BATCH).enumerate() {
        let item = |(at, item): (usize, &Item)| {
            let number = batch * ITEMS_PER_BATCH + at;
            json!({"target": item.target(), "event_type": "e", "payload": {"by": publisher, "n": number}})
        };
        let body = json!({"notifications": page.iter().enumerate().map(item).collect::<Vec<_>>()});
        let answer = server.publish("batch", &body.to_string());
        for (row, item) in answer["results"].as_array().expect("rows").iter().zip(page) {
            let on_a_node = (0..HEARERS.len()).filter(|hearer| item.reaches(*hearer)).count() as u64;
            assert_eq!(delivered(row), (2 * on_a_node, on_a_node), "{item:?}: {row}");
        }
    }
}

/// Hears as much as there is for a hearer, and checks it.
fn hear_all(mut ws: Ws, hearer: usize, all: &[Vec<Item>]) -> Ws {
    let for_it = |publisher: usize| -> Vec<usize> {
        (0..all[publisher].len()).filter(|n| all[publisher][*n].reaches(hearer)).collect()
    };
    let mut heard: Vec<Vec<usize>> = vec![Vec::new(); all.len()];
    for _ in 0..(0..all.len()).map(|publisher| for_it(publisher).len()).sum() {
        let payload = ws.payload();
        let number = |key: &str| payload[key].as_u64().expect("a number") as usize;
        heard[number("by")].push(number("n"));
    }
    for (publisher, heard) in heard.iter().enumerate() {
        let items = &all[publisher];
        let mut once = heard.clone();
        once.sort_unstable();
        assert_eq!(once, for_it(publisher), "{} hears publisher {publisher} once", HEARERS[hearer].0);
        let in_order = |what: &str, is_of: &dyn Fn(&Item) -> bool| {
            let of_it: Vec<usize> = heard.iter().copied().filter(|n| is_of(&items[*n])).collect();
            assert!(of_it.is_sorted(), "{} hears publisher {publisher} on {what}: {of_it:?}", HEARERS[hearer].0);
        };
        in_order("its own", &|item| matches!(item, Item::Users(_)));
        for channel in HEARERS[hearer].1 {
            let is_of = |item: &Item| matches!(item, Item::Channels(channels) if channels.contains(channel));
            in_order(CHANNELS[*channel], &is_of);
        }
    }
    ws
}

/// Topics that are listened to at a node of the cluster, by CHANNELS or SHARDCHANNELS.
fn topics(redis: &Redis, kind: &str) -> Vec<String> {
    redis.cli(&["PUBSUB", kind, "ara:cluster:route:{*"]).split_whitespace().map(str::to_owned).collect()
}

fn shard_channels(redis: &Redis) -> Vec<String> {
    topics(redis, "SHARDCHANNELS")
}

/// How many of the channels are listened to at each master.
fn shares(redis: &RedisCluster, kind: &str) -> Vec<usize> {
    let of = |node| topics(node, kind).iter().filter(|name| name.contains(":channel:")).count();
    redis.nodes[..MASTERS].iter().map(of).collect()
}

/// With topics of this kind and none of the other.
fn every_publish_comes_once_and_in_order(redis: &RedisCluster, [kind, other]: [&str; 2]) {
    let nodes = [node_at(&redis.url(), "a", &[]), node_at(&redis.url(), "b", &[])];
    let mut all_ws = Vec::new();
    for node in &nodes {
        for (hearer, (user, channels)) in HEARERS.iter().enumerate() {
            let mut ws = node.ws(user);
            ws.subscribe(&channels.iter().map(|channel| CHANNELS[*channel]).collect::<Vec<_>>());
            all_ws.push((node, hearer, ws));
        }
    }
    let counts = shares(redis, kind);
    assert_eq!(counts.iter().sum::<usize>(), CHANNELS.len(), "each is listened to at one master: {counts:?}");
    assert!(counts.iter().filter(|count| **count > 0).count() >= 2, "the masters share them: {counts:?}");
    assert_eq!(shares(redis, other), [0; MASTERS]);
    let all = [items(0), items(1)];
    std::thread::scope(|scope| {
        let hearing: Vec<_> = all_ws
            .into_iter()
            .map(|(node, hearer, ws)| (node, hearer, scope.spawn(move || hear_all(ws, hearer, &[items(0), items(1)]))))
            .collect();
        for (publisher, node) in (0..).zip(&nodes) {
            let items = &all[publisher as usize];
            scope.spawn(move || publish_all(node, publisher, items));
        }
        let mut heard: Vec<_> = hearing
            .into_iter()
            .map(|(node, hearer, thread)| (node, hearer, thread.join().unwrap_or_else(|_| panic!("hearer {hearer}"))))
            .collect();
        // Nothing came twice, not even late.
        for (nth, (user, _)) in HEARERS.iter().enumerate() {
            let receipt = nodes[0].send(user, "0");
            for (_, _, ws) in heard.iter_mut().filter(|(_, hearer, _)| *hearer == nth) {
                assert_eq!(ws.notification()["id"], receipt["notification_id"]);
            }
        }
    });
}

#[test]
fn channels_are_spread_over_the_masters_and_every_publish_comes_once_and_in_order() {
    every_publish_comes_once_and_in_order(&RedisCluster::start(), ["SHARDCHANNELS", "CHANNELS"]);
}

/// Servers that know no sharded Pub/Sub, as before Redis 7.
#[test]
fn without_sharded_pub_sub_it_is_the_same() {
    let redis = RedisCluster::with(&["--rename-command", "SSUBSCRIBE", "", "--rename-command", "SPUBLISH", ""]);
    every_publish_comes_once_and_in_order(&redis, ["CHANNELS", "SHARDCHANNELS"]);
}

/// The value of a metric without labels.
pub(super) fn metric(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics");
    let page = page.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

#[test]
fn a_master_that_is_killed_stops_its_own_partitions_until_its_replica_is_listened_to() {
    const LOST: usize = 0;
    let mut redis = RedisCluster::start();
    for node in &redis.nodes {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
        // Its replica follows when the test says so.
        node.cli(&["CONFIG", "SET", "cluster-replica-no-failover", "yes"]);
    }
    let (a, b) = (node_at(&redis.url(), "a", &[]), node_at(&redis.url(), "b", &[]));
    let names: Vec<String> = (0..24).map(|n| format!("c{n}")).collect();
    let mut there = b.ws("ana");
    there.subscribe(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    let lost_topics = shard_channels(&redis.nodes[LOST]);
    let is_lost = |name: &String| lost_topics.iter().any(|topic| topic.ends_with(&format!(":channel:default:{name}")));
    assert!(names.iter().any(is_lost) && !names.iter().all(is_lost), "{lost_topics:?}");
    let publish = |name: &str, n: u64| {
        delivered(&a.publish("channel", &json!({"channel": name, "event_type": "e", "payload": n}).to_string()))
    };
    redis.await_in_step(LOST);
    redis.nodes[LOST].kill();
    for server in [&a, &b] {
        await_that("the loss to be told", || (server.get("/health/ready").status == 503).then_some(()));
        // A third of the partitions; the place where nodes meet is at another master.
        assert!((5..=6).contains(&metric(server, "ara_cluster_stalled")));
    }
    for name in &names {
        let expected = if is_lost(name) { (0, 0) } else { (1, 0) };
        assert_eq!(publish(name, 1), expected, "{name}");
        if !is_lost(name) {
            assert_eq!(there.payload(), 1);
        }
    }
    // What goes to all of them comes by a partition that is there, without waiting for the others.
    let receipt = a.publish("channels", &json!({"channels": names, "event_type": "e", "payload": 2}).to_string());
    assert_eq!((delivered(&receipt), there.payload()), ((1, 0), json!(2)));

    redis.nodes[LOST + MASTERS].cli(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    redis.await_promoted(LOST);
    for server in [&a, &b] {
        await_ready(server);
        assert_eq!(metric(server, "ara_cluster_stalled"), 0);
    }
    await_that("the topics to be listened to at the replica", || {
        let now = shard_channels(&redis.nodes[LOST + MASTERS]);
        lost_topics.iter().all(|topic| now.contains(topic)).then_some(())
    });
    for name in &names {
        assert_eq!((publish(name, 3), there.payload()), ((1, 0), json!(3)), "{name}");
    }
}
