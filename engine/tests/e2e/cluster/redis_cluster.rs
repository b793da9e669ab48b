//! Two nodes on a Redis Cluster of three masters and their replicas (decision 9): everything that one Redis does, and a
//! master that is lost.
use super::mail::{Class, Ear, Hearer, mail_node_at};
use super::{await_ready, delivered, node_at, reach_each_other};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::redis_cluster::{MASTERS, RedisCluster};
use crate::support::server::Server;
use serde_json::json;
use std::collections::BTreeMap;

/// The master at which nodes meet: the tag of the ninth partition.
const MEETING: usize = 1;
/// A circuit that opens is not to close by itself while a test runs: another master is another circuit.
const NO_SECOND_CHANCE: [(&str, &str); 2] =
    [("REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "3"), ("REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS", "86400")];

/// Publishes at one node of the cluster, whoever is subscribed there.
fn publish_at(redis: &Redis, kind: &str, target: &str, payload: u64) {
    let message = json!({"type": kind, "target": target, "event": {"event_type": "e", "payload": payload}}).to_string();
    redis.client().call(&[b"PUBLISH", format!("notification:{kind}:{target}").as_bytes(), message.as_bytes()]);
}

#[test]
fn every_kind_of_publish_reaches_everybody() {
    let redis = RedisCluster::start();
    let (a, b) = (node_at(&redis.url(), "a", &[]), node_at(&redis.url(), "b", &[]));
    reach_each_other(&a, &b);
    // What is published to Redis, at any of its nodes, reaches the clients of every node once.
    let (mut here, mut there) = (a.ws("cleo"), b.sse("cleo"));
    here.subscribe(&["orders"]);
    for (n, node) in (0..).zip(&redis.nodes) {
        publish_at(node, "user", "cleo", n);
        assert_eq!(here.payload(), n);
        assert_eq!(there.notification()["payload"], n);
    }
    publish_at(&redis.nodes[0], "channel", "orders", 9);
    assert_eq!(here.payload(), 9);
    b.nothing_waits("cleo", &mut here);
}

#[test]
fn the_keys_of_sessions_are_together_and_come_and_go() {
    let redis = RedisCluster::start();
    let (a, b) = (node_at(&redis.url(), "a", &[]), node_at(&redis.url(), "b", &[]));
    let (here, _there) = (a.ws("ana"), b.ws("ana"));
    let members = |key: &str| {
        let printed = redis.nodes[MEETING].cli(&["SMEMBERS", &format!("ara:cluster:sessions:{{12}}:{key}")]);
        let mut members: Vec<String> = printed.split_whitespace().map(str::to_owned).collect();
        members.sort();
        members
    };
    await_that("both nodes to have told of the user", || (members("user:ana") == ["a", "b"]).then_some(()));
    assert_eq!(members("users"), ["ana"]);
    assert!(redis.keys("ara:cluster:sessions*").iter().all(|key| key.contains("{12}")), "one slot");
    await_that("the cluster to be counted", || {
        let status = a.get("/api/v1/cluster/status").ok();
        (status["cluster_connections"] == 2 && status["cluster_users"] == 1).then_some(())
    });
    drop(here);
    await_that("the node to leave", || (members("user:ana") == ["b"]).then_some(()));
}

#[test]
fn templates_are_shared() {
    let redis = RedisCluster::start();
    let [a, b] = ["a", "b"].map(|name| mail_node_at(&redis.url(), name, Class::Written, &[]));
    let template = json!({"id": "t", "name": "T", "event_type": "e", "payload_template": {"text": "{{x}}"}});
    assert_eq!(a.post("/api/v1/templates", &template.to_string()).status, 201);
    await_that("the other node to know it", || (b.get("/api/v1/templates/t").status == 200).then_some(()));
    let mut ws = a.ws("ana");
    b.publish("send", &json!({"target_user_id": "ana", "template_id": "t", "variables": {"x": "y"}}).to_string());
    assert_eq!(ws.notification()["payload"]["text"], "y");
}

fn queued(server: &Server) -> u64 {
    server.get("/health").ok()["queue"]["total_messages"].as_u64().expect("a number")
}

/// Mail for users who are away, by Redis and by REST, is kept once, spread over the masters, and heard in order.
fn mail_is_kept_once(class: Class) {
    const USERS: u64 = 40;
    const MAIL: u64 = 5;
    let redis = RedisCluster::start();
    let [a, b] = ["a", "b"].map(|name| mail_node_at(&redis.url(), name, class, &[]));
    for n in 0..MAIL {
        for user in 0..USERS {
            let node = &redis.nodes[(user % MASTERS as u64) as usize];
            publish_at(node, "user", &format!("u{user}"), n);
        }
    }
    await_that("the mail to be kept", || (queued(&a) == USERS * MAIL).then_some(()));
    for user in 0..USERS {
        let server = if user % 2 == 0 { &a } else { &b };
        let receipt = server.send(&format!("u{user}"), &MAIL.to_string());
        assert_eq!((delivered(&receipt), &receipt["queued"]), ((0, 0), &json!(1)), "{receipt}");
    }
    for node in &redis.nodes[..MASTERS] {
        let keys = node.cli(&["KEYS", "ara:queue:{*}:default:u*"]);
        assert!(keys.split_whitespace().count() >= USERS as usize / 6, "every master has its share: {keys}");
    }
    await_that("both to count the same", || {
        (queued(&a) == USERS * (MAIL + 1) && queued(&b) == queued(&a)).then_some(())
    });
    let mut hearers = Vec::new();
    for user in 0..USERS {
        let server = if user % 3 == 0 { &a } else { &b };
        let mut hearer = Hearer::connect(server, &format!("u{user}"), class);
        let mut ear = Ear::default();
        for n in 0..=MAIL {
            assert_eq!(hearer.hear(&mut ear), n, "u{user}");
        }
        hearers.push(hearer);
    }
    await_that("all mailboxes to be empty", || (queued(&a) == 0).then_some(()));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    Killed,
    Held,
}

/// The master at which nodes meet, and which keeps a third of the mail, is lost, and its replica follows.
fn a_master_is_lost(loss: Loss, class: Class) {
    const USERS: u64 = 30;
    let mut redis = RedisCluster::start();
    let [a, b] = ["a", "b"].map(|name| mail_node_at(&redis.url(), name, class, &NO_SECOND_CHANCE));
    let (mut ana, mut ben) = (a.ws("ana"), b.ws("ben"));
    ana.subscribe(&["orders"]);
    // What each user is to hear, as publishers were told.
    let mut accepted: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut publish = |n: u64| {
        for user in 0..USERS {
            let body = json!({"target_user_id": format!("u{user}"), "event_type": "e", "payload": n}).to_string();
            let answer = a.post("/api/v1/notifications/send", &body);
            if answer.status == 200 && answer.ok()["queued"] == 1 {
                accepted.entry(user).or_default().push(n);
            }
        }
    };
    (0..5).for_each(&mut publish);
    redis.await_in_step(MEETING);
    match loss {
        Loss::Killed => redis.nodes[MEETING].kill(),
        Loss::Held => redis.nodes[MEETING].hold(),
    }
    // Two thirds are kept as ever; the others are told that theirs is not.
    publish(5);
    redis.await_promoted(MEETING);
    for server in [&a, &b] {
        await_ready(server);
        await_that("the stores to be back", || (server.get("/health").ok()["status"] == "healthy").then_some(()));
    }
    (6..9).for_each(&mut publish);
    if loss == Loss::Held {
        redis.nodes[MEETING].release();
    }
    assert!(accepted.values().all(|all| all[..5] == [0, 1, 2, 3, 4] && all.ends_with(&[6, 7, 8])), "{accepted:?}");
    assert!(accepted.values().any(|all| all.contains(&5)), "the other masters kept theirs");

    // Topics are listened to again: nodes reach each other's clients, and what is published to Redis comes in.
    await_that("the nodes to meet again", || {
        let receipt = b.publish("channel", r#"{"channel":"orders","event_type":"e","payload":"again"}"#);
        (delivered(&receipt) == (1, 0)).then_some(())
    });
    while ana.payload() != "again" {}
    await_that("mail to go from node to node again", || (delivered(&a.send("ben", "1")) == (1, 0)).then_some(()));
    assert_eq!(ben.payload(), 1);
    publish_at(&redis.nodes[0], "user", "ben", 2);
    while ben.payload() != 2 {}

    for (user, accepted) in accepted {
        let mut hearer = Hearer::connect(&b, &format!("u{user}"), class);
        let mut ear = Ear::default();
        hearer.hear_until(8, &mut ear);
        let missing: Vec<u64> = accepted.into_iter().filter(|n| !ear.heard.contains(n)).collect();
        assert_eq!(missing, [0; 0], "lost of u{user}");
    }
}

#[test]
fn mail_is_kept_once_on_every_master_written() {
    mail_is_kept_once(Class::Written);
}

#[test]
fn mail_is_kept_once_on_every_master_acknowledged() {
    mail_is_kept_once(Class::Acknowledged);
}

#[test]
fn a_master_is_killed_and_its_replica_follows_written() {
    a_master_is_lost(Loss::Killed, Class::Written);
}

#[test]
fn a_master_is_killed_and_its_replica_follows_acknowledged() {
    a_master_is_lost(Loss::Killed, Class::Acknowledged);
}

#[test]
fn a_master_stands_still_and_its_replica_follows() {
    a_master_is_lost(Loss::Held, Class::Written);
}
