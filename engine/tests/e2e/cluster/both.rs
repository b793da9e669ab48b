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
use std::sync::Mutex;

/// Numbers of each of the publishers.
const EACH: u64 = 500;
const PUBLISHERS: u64 = 3;
const TOTAL: usize = (PUBLISHERS * EACH) as usize;

/// Publishes in turn. What a busy store did not take in time may be kept all the same: it is noted, and published again.
fn publish_all(node: &Server, nth: u64, refused: &Mutex<BTreeSet<u64>>) {
    let mut connection = Connection::open(node.port);
    for n in (0..EACH).map(|n| PUBLISHERS * n + nth) {
        let body = json!({"target_user_id": "ana", "event_type": "e", "payload": n}).to_string();
        loop {
            connection.send(request("POST", "/api/v1/notifications/send", &[], Some(body.as_bytes())));
            let answer = connection.read();
            if answer.status != 503 {
                answer.ok();
                break;
            }
            refused.lock().expect("nobody panics with it").insert(n);
        }
    }
}

/// The numbers that a connection has heard; when it waits for the others in vain it says which.
#[derive(Default)]
struct Seen(BTreeSet<u64>);

impl Drop for Seen {
    fn drop(&mut self) {
        let missing: Vec<u64> = (0..TOTAL as u64).filter(|n| !self.0.contains(n)).collect();
        if std::thread::panicking() {
            eprintln!("not heard: {missing:?}");
        }
    }
}

/// Everything that a connection hears until it has heard all, in order.
fn hear_all(mut ws: Ws, class: Class, refused: &Mutex<BTreeSet<u64>>) -> Vec<u64> {
    let (mut heard, mut seen) = (Vec::new(), Seen::default());
    while seen.0.len() < TOTAL {
        let text = ws.hear();
        let value: Value = serde_json::from_str(&text).expect("JSON");
        if value["type"] != "notification" {
            continue;
        }
        if class == Class::Acknowledged {
            ws.say(&json!({"type": "Ack", "payload": {"notification_id": value["id"]}}).to_string());
        }
        let n = value["payload"].as_u64().unwrap_or_else(|| panic!("no number in {text}"));
        let is_new = seen.0.insert(n);
        assert!(is_new || refused.lock().expect("nobody panics with it").contains(&n), "{n} came twice: {text}");
        heard.extend(is_new.then_some(n));
    }
    heard
}

fn both_hear_all(class: Class, more: &[(&str, &str)]) {
    let redis = Redis::start();
    let nodes = ["a", "b"].map(|name| mail_node(&redis, name, class, more));
    // What they read at first waits and then comes all at once.
    await_hellos(&redis, 2, 4);
    let refused = Mutex::default();
    let [at_a, at_b] = std::thread::scope(|scope| {
        let (redis, [a, b], refused) = (&redis, &nodes, &refused);
        let hearers = [a, b].map(|node| {
            let ws = node.ws("ana");
            scope.spawn(move || hear_all(ws, class, refused))
        });
        scope.spawn(move || publish_all(a, 0, refused));
        scope.spawn(move || publish_all(b, 1, refused));
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
