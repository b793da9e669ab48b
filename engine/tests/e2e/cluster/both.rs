//! One user with a connection at each of two nodes, and publishes for that user at both nodes and by Redis at once: both connections
//! hear everything, once, whichever of them was first.
use super::mail::{Class, await_hellos, mail_node, publish_number};
use crate::support::http::{Connection, request};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::ws::Ws;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Numbers of each of the publishers.
const EACH: u64 = 500;
const PUBLISHERS: u64 = 3;
const TOTAL: usize = (PUBLISHERS * EACH) as usize;

fn publish_all(node: &Server, nth: u64) {
    let mut connection = Connection::open(node.port);
    for n in 0..EACH {
        let body = json!({"target_user_id": "ana", "event_type": "e", "payload": PUBLISHERS * n + nth}).to_string();
        connection.send(request("POST", "/api/v1/notifications/send", &[], Some(body.as_bytes())));
        connection.read().ok();
    }
}

/// Everything that a connection hears until it has heard all, in order.
fn hear_all(mut ws: Ws, class: Class) -> Vec<u64> {
    let (mut heard, mut seen) = (Vec::new(), BTreeSet::new());
    while seen.len() < TOTAL {
        let text = ws.hear();
        let value: Value = serde_json::from_str(&text).expect("JSON");
        if value["type"] != "notification" {
            continue;
        }
        if class == Class::Acknowledged {
            ws.say(&json!({"type": "Ack", "payload": {"notification_id": value["id"]}}).to_string());
        }
        let n = value["payload"].as_u64().unwrap_or_else(|| panic!("no number in {text}"));
        assert!(seen.insert(n), "{n} came twice: {text}");
        heard.push(n);
    }
    heard
}

fn both_hear_all(class: Class, more: &[(&str, &str)]) {
    let redis = Redis::start();
    let nodes = ["a", "b"].map(|name| mail_node(&redis, name, class, more));
    // What they read at first waits and then comes all at once.
    await_hellos(&redis, 2, 4);
    let [at_a, at_b] = std::thread::scope(|scope| {
        let (redis, [a, b]) = (&redis, &nodes);
        let hearers = [a, b].map(|node| {
            let ws = node.ws("ana");
            scope.spawn(move || hear_all(ws, class))
        });
        scope.spawn(move || publish_all(a, 0));
        scope.spawn(move || publish_all(b, 1));
        scope.spawn(move || {
            let mut client = redis.client();
            (0..EACH).for_each(|n| publish_number(&mut client, "ana", PUBLISHERS * n + 2));
        });
        hearers.map(|hearer| hearer.join().expect("it heard everything"))
    });
    for (heard, nth) in [&at_a, &at_b].into_iter().flat_map(|heard| (0..PUBLISHERS).map(move |nth| (heard, nth))) {
        let of_publisher: Vec<u64> = heard.iter().copied().filter(|n| n % PUBLISHERS == nth).collect();
        assert!(of_publisher.is_sorted(), "publisher {nth}: {of_publisher:?}");
    }
    if class != Class::Off {
        assert_eq!(at_a, at_b, "in the order of the mailbox");
    }
}

#[test]
fn who_is_at_two_nodes_hears_everything_off() {
    both_hear_all(Class::Off, &[]);
}

#[test]
fn who_is_at_two_nodes_hears_everything_written() {
    both_hear_all(Class::Written, &[]);
}

#[test]
fn who_is_at_two_nodes_hears_everything_acknowledged() {
    both_hear_all(Class::Acknowledged, &[]);
}

/// Mail is kept in PostgreSQL, and the nodes meet in Redis.
fn both_hear_all_from_postgres(class: Class) {
    let postgres = Postgres::start();
    let url = postgres.url("postgres");
    let backends = [("DATABASE_URL", &*url), ("QUEUE_BACKEND", "postgres"), ("ACK_BACKEND", "postgres")];
    both_hear_all(class, &backends);
}

#[test]
fn who_is_at_two_nodes_hears_everything_that_postgres_keeps_written() {
    both_hear_all_from_postgres(Class::Written);
}

#[test]
fn who_is_at_two_nodes_hears_everything_that_postgres_keeps_acknowledged() {
    both_hear_all_from_postgres(Class::Acknowledged);
}
