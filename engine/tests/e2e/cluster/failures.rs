//! A node dies, leaves or stands still, and Redis comes back with nothing: what is known of nodes and users follows, users
//! go on elsewhere, and their mail is complete.
use super::mail::{Class, Ear, Hearer, mail_node, publish_number};
use super::{await_ready, delivered, node_with};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use rustix::process::Signal;
use serde_json::json;

/// As short as settings allow: the time to live must be above the heartbeat.
const SHORT: [(&str, &str); 3] =
    [("WEBSOCKET_HEARTBEAT_INTERVAL", "1"), ("CLUSTER_SESSION_TTL_SECONDS", "2"), ("ACK_TIMEOUT_SECONDS", "3")];

/// The members of a set of the cluster's keys, in order.
fn members(redis: &Redis, key: &str) -> Vec<String> {
    let printed = redis.cli(&["SMEMBERS", &format!("ara:cluster:sessions:{key}")]);
    let mut members: Vec<String> = printed.split_whitespace().map(str::to_owned).collect();
    members.sort();
    members
}

/// Where this node thinks that the user is, in order.
fn homes(server: &Server, user: &str) -> Vec<String> {
    let page = server.get(&format!("/api/v1/cluster/users/{user}")).ok();
    let sessions = page["sessions"].as_array().unwrap_or_else(|| panic!("no sessions in {page}"));
    assert_eq!(page["found"], !sessions.is_empty(), "{page}");
    let mut homes: Vec<String> =
        sessions.iter().map(|session| session["server_id"].as_str().expect("an id").to_owned()).collect();
    homes.sort();
    homes
}

/// Waits until this is where Redis and the pages of this node place ana and the channel that she listens to.
fn await_homes(redis: &Redis, asked: &Server, expected: &[&str]) {
    await_that(&format!("ana to be at {expected:?}"), || {
        (members(redis, "user:ana") == expected && homes(asked, "ana") == expected).then_some(())
    });
}

/// Waits until this node counts so many connections in the cluster.
fn await_connections(asked: &Server, count: u64) {
    await_that("the connections to be counted", || {
        (asked.get("/api/v1/cluster/status").ok()["cluster_connections"] == count).then_some(())
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Stopped,
    Held,
}

/// Ana listens at `a`, which then has this fault while mail for her is published by Redis and at `b`.
fn a_node_has_a_fault(fault: Fault, class: Class) {
    const MAIL: u64 = 300;
    let redis = Redis::start();
    let (mut a, b) = (mail_node(&redis, "a", class, &SHORT), mail_node(&redis, "b", class, &SHORT));
    let mut ear = Ear::default();
    let mut here = Hearer::connect(&a, "ana", class);
    let _ben = b.ws("ben");
    await_homes(&redis, &b, &["a"]);
    await_connections(&b, 2);
    assert_eq!(redis.cli(&["EXISTS", "ara:cluster:sessions:server:a"]).trim(), "1");

    let mut client = redis.client();
    for n in 0..MAIL / 3 {
        publish_number(&mut client, "ana", n);
    }
    here.hear_until(MAIL / 3 - 1, &mut ear);
    match fault {
        Fault::Killed => a.process.kill(),
        Fault::Stopped => a.terminate(),
        Fault::Held => a.process.signal(Signal::STOP),
    }
    // Nobody has noticed yet.
    for n in MAIL / 3..MAIL * 2 / 3 {
        publish_number(&mut client, "ana", n);
    }
    if fault == Fault::Stopped {
        assert_eq!(a.await_exit().code(), Some(0), "an orderly end");
        if class == Class::Written {
            // What came before the signal took effect was written to this connection, and is in no mailbox.
            here.hear_to_the_end(&mut ear);
        }
    }
    await_homes(&redis, &b, &[]);
    await_connections(&b, 1);
    assert_eq!(redis.cli(&["EXISTS", "ara:cluster:sessions:server:a"]).trim(), "0");
    // Who writes the keys again takes out whom nobody has.
    await_that("only ben to be known", || (members(&redis, "users") == ["ben"]).then_some(()));
    // Now nobody is there; a publisher is told that it was kept.
    for n in MAIL * 2 / 3..MAIL {
        let receipt = b.send("ana", &n.to_string());
        // A node that stands still is still subscribed: who is there cannot be told from its silence.
        assert_eq!((delivered(&receipt), &receipt["queued"]), ((0, 0), &json!(1)), "{receipt}");
        if fault == Fault::Held && n > MAIL * 2 / 3 + 2 {
            // Each waits for the receipt of the node that is held; the rest comes by Redis.
            for n in n + 1..MAIL {
                publish_number(&mut client, "ana", n);
            }
            break;
        }
    }
    // What the connection had under way belongs to it; a node that was killed said nothing more.
    let mut there = Hearer::connect(&b, "ana", class);
    while ear.heard.len() < MAIL as usize {
        there.hear(&mut ear);
    }
    assert!(ear.heard.iter().copied().eq(0..MAIL), "everything was heard");
    if fault == Fault::Held {
        a.process.signal(Signal::CONT);
        // Its client never left: both are known again, and both are reached.
        await_homes(&redis, &b, &["a", "b"]);
        await_ready(&a);
        await_connections(&b, 3);
        await_that("both connections to be reached", || {
            let receipt = b.send("ana", &(MAIL + ear.heard.len() as u64).to_string());
            there.hear_until(MAIL + ear.heard.len() as u64, &mut ear);
            (delivered(&receipt) == (2, 1)).then_some(())
        });
    } else {
        await_homes(&redis, &b, &["b"]);
    }
}

/// With the queue off: what is published while nobody is there does not come, what is published to who came back does.
#[test]
fn a_node_is_killed_and_nothing_is_kept() {
    let redis = Redis::start();
    let (mut a, b) = (node_with(&redis, "a", &SHORT), node_with(&redis, "b", &SHORT));
    let mut here = a.ws("ana");
    let mut ben = b.ws("ben");
    await_homes(&redis, &b, &["a"]);
    assert_eq!(delivered(&b.send("ana", "0")), (1, 0));
    assert_eq!(here.payload(), 0);
    a.process.kill();
    let mut client = redis.client();
    publish_number(&mut client, "ana", 1);
    await_homes(&redis, &b, &[]);
    let receipt = b.send("ana", "2");
    assert_eq!((delivered(&receipt), &receipt["success"]), ((0, 0), &json!(false)), "{receipt}");
    // Who is at another node misses nothing.
    publish_number(&mut client, "ben", 3);
    assert_eq!(ben.payload(), 3);
    let mut there = b.ws("ana");
    publish_number(&mut client, "ana", 4);
    assert_eq!(there.payload(), 4);
}

/// Redis is killed and comes back with nothing.
#[test]
fn redis_comes_back_empty_and_the_cluster_writes_its_keys_again() {
    let mut redis = Redis::start();
    let (a, b) = (mail_node(&redis, "a", Class::Written, &SHORT), mail_node(&redis, "b", Class::Written, &SHORT));
    let (mut here, mut there) = (a.ws("ana"), b.ws("ana"));
    there.subscribe(&["orders"]);
    await_homes(&redis, &a, &["a", "b"]);
    assert_eq!(a.send("away", "1")["queued"], 1);
    redis.kill();
    for server in [&a, &b] {
        await_that("the loss to be noticed", || (server.get("/health/ready").status == 503).then_some(()));
        assert_eq!(server.get("/health").ok()["status"], "degraded");
        assert_eq!(server.get("/health/live").status, 200);
        assert_eq!(homes(server, "ana"), [""; 0], "nobody knows, and nobody says a part");
    }
    // Channels and broadcasts reach who is at the node that was asked, and nobody else.
    assert_eq!(delivered(&a.publish("broadcast", r#"{"event_type":"e","payload":"alone"}"#)), (1, 1));
    assert_eq!(here.payload(), "alone");
    redis.restart();
    for server in [&a, &b] {
        await_ready(server);
        await_homes(&redis, server, &["a", "b"]);
        await_connections(server, 2);
    }
    await_that("the channel to be known", || (members(&redis, "channel:orders") == ["b"]).then_some(()));
    await_that("the store to be back", || (a.get("/health").ok()["status"] == "healthy").then_some(()));
    let receipt = a.publish("channel", r#"{"channel":"orders","event_type":"e","payload":"again"}"#);
    assert_eq!(delivered(&receipt), (1, 0), "{receipt}");
    assert_eq!(there.payload(), "again");
    assert_eq!(delivered(&a.send("ana", "2")), (2, 1));
    assert_eq!((here.payload(), there.payload()), (json!(2), json!(2)));
    publish_number(&mut redis.client(), "ana", 3);
    assert_eq!((here.payload(), there.payload()), (json!(3), json!(3)));
    // What this Redis had kept went with it; what is kept now is there.
    assert_eq!(a.send("away", "2")["queued"], 1);
    let mut away = b.ws("away");
    assert_eq!(away.payload(), 2);
}

/// One test per fault and class.
macro_rules! faults {
    ($($name:ident: $fault:expr, $class:expr;)*) => {$(
        #[test]
        fn $name() {
            a_node_has_a_fault($fault, $class);
        }
    )*};
}

faults! {
    a_node_is_killed_written: Fault::Killed, Class::Written;
    a_node_is_killed_acknowledged: Fault::Killed, Class::Acknowledged;
    a_node_is_stopped_written: Fault::Stopped, Class::Written;
    a_node_is_stopped_acknowledged: Fault::Stopped, Class::Acknowledged;
    a_node_is_held_written: Fault::Held, Class::Written;
    a_node_is_held_acknowledged: Fault::Held, Class::Acknowledged;
}
