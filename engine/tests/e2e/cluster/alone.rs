//! A node that is alone sends what it takes in bundles, for one that begins in that moment: whose first client misses nothing, and
//! hears nothing twice. Nor do its own clients miss what another node says before or after it is known to be there.
use super::partitions::metric;
use super::{node, node_at};
use crate::support::cable::{Cable, Direction};
use crate::support::http::{self, Connection};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::redis_cluster::RedisCluster;
use crate::support::server::Server;
use crate::support::ws::Ws;
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Numbers for ana (the even ones) and for a channel (the odd ones), until told to end; how many there were.
fn publish(a: &Server, next: &AtomicU64, is_over: &AtomicBool) -> u64 {
    while !is_over.load(SeqCst) {
        let n = next.fetch_add(1, SeqCst);
        match n % 2 {
            0 => _ = a.send("ana", &n.to_string()),
            _ => _ = a.publish("channel", &json!({"channel": "orders", "event_type": "e", "payload": n}).to_string()),
        }
    }
    next.load(SeqCst)
}

/// Hears numbers until one behind this, and adds them.
fn hear(ws: &mut Ws, until: u64, heard: &mut Vec<u64>) {
    while heard.last().is_none_or(|last| *last <= until) {
        heard.push(ws.payload().as_u64().expect("a number"));
    }
}

/// What is published at the first node while the second begins, over and over.
fn begin_beside(a: &Server, begin: &dyn Fn() -> Server) {
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let end = EndAnyway(&is_over);
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish(a, &next, &is_over));
        for round in 0..3 {
            let bundles = metric(a, "ara_cluster_bundles_sent_total");
            await_that("the node to be alone", || {
                (metric(a, "ara_cluster_bundles_sent_total") > bundles + 2).then_some(())
            });
            let mut b = begin();
            let mut there = [("ana", 0), ("ben", 1)].map(|(user, kind)| {
                let mut ws = b.ws(user);
                if kind == 1 {
                    ws.subscribe(&["orders"]);
                }
                // What was begun to be published before this may come, and need not.
                (ws, next.load(SeqCst), Vec::new())
            });
            await_that("the first node to know of the second", || {
                (metric(a, "ara_cluster_members") == 2).then_some(())
            });
            let bundles = metric(a, "ara_cluster_bundles_sent_total");
            let until = next.load(SeqCst) + 100;
            for (ws, first, heard) in &mut there {
                hear(ws, until, heard);
                assert!(heard[0] <= *first + 1, "round {round}: {heard:?} does not begin with {first}");
                let expected: Vec<u64> = (0..heard.len() as u64).map(|n| heard[0] + 2 * n).collect();
                assert_eq!(*heard, expected, "round {round}");
            }
            assert_eq!(metric(a, "ara_cluster_bundles_sent_total"), bundles, "it is not alone any more");
            println!("round {round}: {} and {} heard", there[0].2.len(), there[1].2.len());
            drop(there);
            b.terminate();
            assert!(b.await_exit().success());
        }
        drop(end);
        println!("{} published", publishing.join().expect("the publisher ends"));
    });
}

/// Lets publishers end when a check fails, too.
pub(super) struct EndAnyway<'a>(pub(super) &'a AtomicBool);

impl Drop for EndAnyway<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn who_connects_to_a_node_that_begins_misses_nothing() {
    let redis = Redis::start();
    begin_beside(&node(&redis, "a"), &|| node(&redis, "b"));
}

#[test]
fn in_a_redis_cluster_neither() {
    let redis = RedisCluster::start();
    let url = redis.url();
    begin_beside(&node_at(&url, "a", &[]), &|| node_at(&url, "b", &[]));
}

/// Requests of as many publishers, each with a number for ana, ready to be sent over a connection that each of them has open.
fn publishers(server: &Server) -> Vec<(Connection, Vec<u8>)> {
    let publisher = |n: u64| {
        let mut connection = server.connect();
        connection.send(http::request("GET", "/health", &[], None));
        connection.read().ok();
        let body = format!(r#"{{"target_user_id":"ana","event_type":"e","payload":{n}}}"#);
        (connection, http::request("POST", "/api/v1/notifications/send", &[], Some(body.as_bytes())))
    };
    (0..8).map(publisher).collect()
}

/// Waits until a node that has company no more sends bundles.
fn await_bundles(server: &Server) {
    let before = metric(server, "ara_cluster_bundles_sent_total");
    await_that("the node to be alone", || {
        server.send("nobody", "0");
        (metric(server, "ara_cluster_bundles_sent_total") > before).then_some(())
    });
}

/// Waits until a node waits no more for one that stands still: for receipts it would, for two seconds.
fn await_no_waiting(server: &Server) {
    await_that("the other node to be gone", || (metric(server, "ara_cluster_members") == 1).then_some(()));
    await_that("the node to be alone", || {
        let asked_at = Instant::now();
        server.publish("send-to-users", r#"{"target_user_ids":["nobody"],"event_type":"e","payload":0}"#);
        (asked_at.elapsed() < Duration::from_secs(1)).then_some(())
    });
}

/// All of them were answered and heard, in whatever order.
fn all_are_heard(publishers: Vec<(Connection, Vec<u8>)>, ana: &mut Ws) {
    let answered = |(mut connection, _): (Connection, Vec<u8>)| connection.read().ok()["delivered_to"] == 1;
    let told: Vec<bool> = publishers.into_iter().map(answered).collect();
    let heard: BTreeSet<u64> = told.iter().map(|_| ana.payload().as_u64().expect("a number")).collect();
    assert_eq!((heard.len(), told.iter().all(|told| *told)), (told.len(), true), "{told:?}");
}

#[test]
fn what_a_node_takes_behind_its_bye_is_heard() {
    let redis = Redis::start();
    let a = node(&redis, "a");
    await_bundles(&a);
    let mut b = node(&redis, "b");
    let mut ana = a.ws("ana");
    let mut publishers = publishers(&b);
    for (connection, request) in &mut publishers {
        // What is read with the request before it has begun when that is answered.
        let before = http::request("GET", "/health", &[], None);
        connection.send([&before[..], &request[..request.len() - 1]].concat());
        connection.read().ok();
    }
    b.terminate();
    await_bundles(&a);
    for (connection, request) in &mut publishers {
        connection.send(&request[request.len() - 1..]);
    }
    all_are_heard(publishers, &mut ana);
    assert!(b.await_exit().success());
}

#[test]
fn what_a_node_takes_before_it_says_again_that_it_is_there_is_heard() {
    let redis = Redis::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    let mut ana = a.ws("ana");
    let mut publishers = publishers(&b);
    b.process.signal(Signal::STOP);
    await_no_waiting(&a);
    for (connection, request) in &mut publishers {
        connection.send(&request[..]);
    }
    b.process.signal(Signal::CONT);
    all_are_heard(publishers, &mut ana);
}

/// Clients come back in the moment in which a node begins, before it has got through to Redis.
#[test]
fn who_connects_before_a_node_has_got_through_misses_nothing_either() {
    let redis = Redis::start();
    let a = node(&redis, "a");
    let cable = Cable::to(redis.port);
    cable.cut(&[Direction::ToRedis, Direction::ToNode]);
    let b = Server::with(&[("REDIS_URL", &cable.url()), ("CLUSTER_ENABLED", "true"), ("CLUSTER_SERVER_ID", "b")]);
    let mut ana = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| b.ws("ana"));
        await_that("the node to know of her", || {
            (b.get("/stats").ok()["connections"]["total_connections"] == 1).then_some(())
        });
        cable.mend();
        connecting.join().expect("she is let in")
    });
    a.send("ana", "1");
    assert_eq!(ana.payload(), 1);
}
