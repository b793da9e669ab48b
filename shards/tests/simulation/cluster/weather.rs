//! The way between a node and Redis that carries in one direction only, and a Redis that is replaced by one that has not got all of it.
use super::Cluster;
use super::mail::rules;
use crate::client::ClientId;
use crate::mail::{accepted, numbers, send};
use crate::seeds::for_each_seed;
use std::collections::BTreeSet;

/// A node is deaf, or not heard, for a while. Whoever stays hears all that was accepted, once and in the order of the mailbox.
fn one_way(seed: u64) {
    let mut cluster = Cluster::new(seed, 2, rules(true));
    cluster.meet();
    let clients: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.websocket("ana")).collect();
    let backends: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.dial()).collect();
    cluster.settle();
    let mut n = 0;
    for _ in 0..4 {
        let (node, is_deaf) = (cluster.any(), cluster.rng.bool());
        match is_deaf {
            true => cluster.nodes[node].is_deaf = true,
            false => cluster.nodes[node].is_mute = true,
        }
        for _ in 0..cluster.rng.usize(1..8) {
            let at = cluster.any();
            send(&mut cluster.nodes[at].world, backends[at], "ana", n);
            n += 1;
            for _ in 0..cluster.rng.u8(0..8) {
                cluster.step();
            }
        }
        cluster.settle();
        // Both directions are back; the bridge made its links anew, as it heard nothing, or nothing came of what it said.
        (cluster.nodes[node].is_deaf, cluster.nodes[node].is_mute) = (false, false);
        cluster.nodes[node].is_cut = true;
        cluster.heal(node);
        cluster.settle();
        // Receipts that were lost are waited for.
        cluster.pass_ms(2_500);
    }
    for _ in 0..40 {
        if (0..2).map(|node| accepted(&cluster.nodes[node].world, backends[node]).len()).sum::<usize>() == n {
            break;
        }
        cluster.pass_ms(2_500);
    }
    let orders: Vec<Vec<usize>> = (0..2).map(|node| numbers(&cluster.nodes[node].world, clients[node])).collect();
    let once: BTreeSet<usize> = orders[0].iter().copied().collect();
    assert_eq!((once.len(), orders[0].len()), (n, n), "seed {seed}: all of it, once: {orders:?}");
    assert_eq!(orders[0], orders[1], "seed {seed}: in one order");
}

#[test]
fn a_way_that_carries_in_one_direction_only_loses_no_mail() {
    for_each_seed(100, one_way);
}

/// Redis is replaced by one that has not got the last that was kept. Who is there has heard it; what is kept from then on is
/// heard by all, once and in order.
fn last_writes_are_lost(seed: u64) {
    let mut cluster = Cluster::new(seed, 2, rules(true));
    cluster.meet();
    let clients: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.websocket("ana")).collect();
    cluster.settle();
    let mut n = 0;
    for _ in 0..3 {
        for _ in 0..cluster.rng.usize(1..6) {
            (0..2).for_each(|node| cluster.nodes[node].world.submit("ana", n));
            n += 1;
        }
        cluster.settle();
        let lost = cluster.rng.usize(0..4);
        let stores = &cluster.nodes[0].world.stores;
        stores[0].kept.borrow_mut().lose_last(lost);
        (0..2).for_each(|node| cluster.cut(node));
        (0..2).for_each(|node| cluster.heal(node));
        if cluster.rng.bool() {
            cluster.settle();
        }
    }
    (0..2).for_each(|node| cluster.nodes[node].world.submit("ana", n));
    cluster.settle();
    cluster.pass_ms(5_000);
    for (node, client) in clients.iter().enumerate() {
        let heard = numbers(&cluster.nodes[node].world, *client);
        assert_eq!(heard, (0..=n).collect::<Vec<_>>(), "seed {seed}: node {node}");
    }
}

#[test]
fn who_is_there_hears_what_a_replaced_redis_never_got_and_what_comes_after() {
    for_each_seed(100, last_writes_are_lost);
}

/// What a feed gives again when its link is made anew: the same notification, once more, on one node or on all.
fn feeds_repeat(seed: u64) {
    let mut cluster = Cluster::new(seed, 3, rules(true));
    cluster.meet();
    let ana = cluster.nodes[0].world.websocket("ana");
    cluster.settle();
    for n in 0..20 {
        for node in 0..3 {
            for _ in 0..cluster.rng.u8(0..3) {
                cluster.nodes[node].world.submit("ana", n);
                for _ in 0..cluster.rng.u8(0..4) {
                    cluster.step();
                }
            }
        }
        // One of them has it.
        let node = cluster.any();
        cluster.nodes[node].world.submit("ana", n);
    }
    cluster.settle();
    cluster.pass_ms(6_000);
    let heard: BTreeSet<usize> = numbers(&cluster.nodes[0].world, ana).into_iter().collect();
    assert_eq!(heard, (0..20).collect(), "seed {seed}");
    assert_eq!(numbers(&cluster.nodes[0].world, ana).len(), 20, "seed {seed}: once each");
    assert_eq!(cluster.nodes[0].world.stores[0].kept.borrow().kept_ever.len(), 20, "seed {seed}: kept once each");
}

#[test]
fn what_a_feed_gives_again_is_kept_once() {
    for_each_seed(60, feeds_repeat);
}
