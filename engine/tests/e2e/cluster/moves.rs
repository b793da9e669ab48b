//! The queue is off: what is lost when a user moves, when a node is stopped, and when it stands still. Who is told that it was
//! delivered is told the truth.
use super::mail::{Class, Ear, Hearer, mail_node, publish_number};
use super::{await_ready, delivered};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

/// As short as settings allow.
const SHORT: [(&str, &str); 2] = [("WEBSOCKET_HEARTBEAT_INTERVAL", "1"), ("CLUSTER_SESSION_TTL_SECONDS", "2")];

/// Numbers for ana, each at the node that it names, until told to end. Those that somebody is said to have got, and those that
/// nobody is.
fn publish(nodes: &[&Server], next: &AtomicU64, is_over: &AtomicBool) -> [BTreeSet<u64>; 2] {
    let mut told = [BTreeSet::new(), BTreeSet::new()];
    while !is_over.load(SeqCst) {
        let n = next.load(SeqCst);
        let receipt = nodes[n as usize % nodes.len()].send("ana", &n.to_string());
        told[usize::from(delivered(&receipt).0 == 0)].insert(n);
        next.store(n + 1, SeqCst);
    }
    told
}

fn print(what: &str, told: &[BTreeSet<u64>; 2], ear: &Ear) {
    let lost = told[0].difference(&ear.heard).count();
    println!(
        "{what}: {} delivered as told, {} to nobody as told, {} heard, {} repeated, {lost} lost",
        told[0].len(),
        told[1].len(),
        ear.heard.len(),
        ear.repeated
    );
}

/// With the next connection reached before the last one closes nothing is lost; else what comes in between, and publishers know, but
/// for what is on its way to a connection while its client closes it.
#[test]
fn a_user_moves_and_nothing_is_kept() {
    let redis = Redis::start();
    let nodes = ["a", "b"].map(|name| mail_node(&redis, name, Class::Off, &[]));
    for overlaps in [true, false] {
        let (next, is_over, mut ear) = (AtomicU64::new(0), AtomicBool::new(false), Ear::default());
        let first = Hearer::connect(&nodes[0], "ana", Class::Off);
        let mut closed_during = BTreeSet::new();
        let (told, mut here) = std::thread::scope(|scope| {
            let publishing = scope.spawn(|| publish(&[&nodes[0], &nodes[1]], &next, &is_over));
            let mut here = first;
            for turn in 1..=12 {
                let until = next.load(SeqCst) + 20;
                while here.hear(&mut ear) < until {}
                here = if overlaps {
                    let mut there = Hearer::connect(&nodes[turn % 2], "ana", Class::Off);
                    let until = next.load(SeqCst) + 1;
                    while there.hear(&mut ear) < until {}
                    here.leave(&mut ear);
                    there
                } else {
                    let begun = next.load(SeqCst);
                    here.leave(&mut ear);
                    let gone = next.load(SeqCst);
                    closed_during.extend(begun..=gone);
                    await_that("something to be published to nobody", || (next.load(SeqCst) > gone + 2).then_some(()));
                    Hearer::connect(&nodes[turn % 2], "ana", Class::Off)
                };
            }
            is_over.store(true, SeqCst);
            (publishing.join().expect("every publish is answered"), here)
        });
        let last = next.load(SeqCst);
        assert_eq!(delivered(&nodes[0].send("ana", &last.to_string())).0, 1);
        here.hear_until(last, &mut ear);
        here.leave(&mut ear);
        print(if overlaps { "moves, connects first" } else { "moves, leaves first" }, &told, &ear);
        let lost: BTreeSet<u64> = told[0].difference(&ear.heard).copied().collect();
        assert!(lost.is_subset(&closed_during), "what was delivered was heard: {lost:?}");
        match overlaps {
            true => assert!(told[1].is_empty(), "somebody was there all the time"),
            false => assert!(told[1].len() >= 12 && told[1].is_disjoint(&ear.heard), "nobody was there for a moment"),
        }
    }
}

/// Ana's node is stopped; she goes to the other when she is told.
#[test]
fn a_node_is_stopped_and_nothing_is_kept() {
    let redis = Redis::start();
    let (mut a, b) = (mail_node(&redis, "a", Class::Off, &SHORT), mail_node(&redis, "b", Class::Off, &SHORT));
    let (next, is_over, mut ear) = (AtomicU64::new(0), AtomicBool::new(false), Ear::default());
    let mut here = Hearer::connect(&a, "ana", Class::Off);
    let told = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish(&[&b], &next, &is_over));
        here.hear_until(50, &mut ear);
        a.terminate();
        here.hear_to_the_end(&mut ear);
        let mut there = Hearer::connect(&b, "ana", Class::Off);
        let first = there.hear(&mut ear);
        there.hear_until(first + 50, &mut ear);
        is_over.store(true, SeqCst);
        let told = publishing.join().expect("every publish is answered");
        there.hear_until(next.load(SeqCst) - 1, &mut ear);
        told
    });
    assert_eq!(a.await_exit().code(), Some(0), "an orderly end");
    print("stopped", &told, &ear);
    assert!(told[0].is_subset(&ear.heard), "what was delivered was heard");
    assert!(told[1].is_disjoint(&ear.heard), "what was not was not");
}

/// Ana's node stands still for longer than its sessions live; ben is elsewhere.
#[test]
fn a_node_is_held_and_nothing_is_kept() {
    let redis = Redis::start();
    let (a, b) = (mail_node(&redis, "a", Class::Off, &SHORT), mail_node(&redis, "b", Class::Off, &SHORT));
    let mut ear = Ear::default();
    let (mut here, mut ben) = (Hearer::connect(&a, "ana", Class::Off), b.ws("ben"));
    assert_eq!(delivered(&b.send("ana", "0")), (1, 0));
    here.hear_until(0, &mut ear);
    a.process.signal(Signal::STOP);
    let mut client = redis.client();
    let mut told = [BTreeSet::new(), BTreeSet::new()];
    let mut n = 1;
    await_that("the node to be forgotten", || {
        told[usize::from(delivered(&b.send("ana", &n.to_string())).0 == 0)].insert(n);
        publish_number(&mut client, "ben", n);
        assert_eq!(ben.payload(), n, "who is elsewhere misses nothing");
        n += 1;
        (b.get("/api/v1/cluster/status").ok()["cluster_connections"] == 1).then_some(())
    });
    assert!(told[0].is_empty(), "a node that stands still answers nobody");
    a.process.signal(Signal::CONT);
    await_ready(&a);
    await_that("ana to be reached", || {
        let is_reached = delivered(&b.send("ana", &n.to_string())).0 == 1;
        told[usize::from(!is_reached)].insert(n);
        n += 1;
        is_reached.then_some(())
    });
    here.hear_until(n - 1, &mut ear);
    print("held", &told, &ear);
    assert!(told[0].is_subset(&ear.heard), "what was delivered was heard");
}
