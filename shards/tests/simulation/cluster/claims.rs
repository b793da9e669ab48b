//! Mail by Redis that waits: behind a store that fails, for the word of a node that dies, and in the order of Redis all the while.
use super::Cluster;
use super::mail::rules;
use crate::client::ClientId;
use crate::mail::{heard, numbers};
use crate::seeds::for_each_seed;
use protocol::cluster::ClusterEvent;
use protocol::cluster::wire::Hello;
use std::sync::Arc;

/// The store's server stands still.
fn hold(cluster: &mut Cluster) {
    cluster.nodes.iter_mut().flat_map(|node| &mut node.world.stores).for_each(|store| store.is_paused = true);
}

/// It ends and begins anew: of what each link had asked it has done the beginning, and nobody knows how much.
fn restart(cluster: &mut Cluster) {
    let Cluster { rng, nodes, .. } = cluster;
    for store in nodes.iter_mut().flat_map(|node| &mut node.world.stores) {
        store.restart(rng, 0, false);
        store.is_paused = false;
    }
}

fn waiting(cluster: &Cluster) -> i64 {
    cluster.nodes.iter().map(|node| node.world.metrics.sum(|shard| shard.claims_waiting.get()) as i64).sum()
}

/// The store goes away with what it was asked; what comes when it is back waits behind that.
fn waits_behind_what_failed(seed: u64) {
    let mut cluster = Cluster::new(seed, 1 + seed as usize % 3, rules(true));
    let nodes = cluster.nodes.len();
    cluster.meet();
    let ana = cluster.nodes[0].world.websocket("ana");
    cluster.settle();
    let mut n = 0;
    for outage in [false, true, false, true, false] {
        if outage {
            hold(&mut cluster);
        }
        for _ in 0..cluster.rng.usize(1..5) {
            (0..nodes).for_each(|node| cluster.nodes[node].world.submit("ana", n));
            n += 1;
            for _ in 0..cluster.rng.usize(0..30) {
                cluster.step();
            }
        }
        if outage {
            // A link tells what became of everything it was given before it is up again.
            cluster.settle();
            restart(&mut cluster);
            cluster.settle();
        }
        if cluster.rng.bool() {
            cluster.pass_ms(500);
        }
    }
    cluster.pass_ms(10_000);
    assert_eq!(waiting(&cluster), 0, "seed {seed}");
    assert_eq!(numbers(&cluster.nodes[0].world, ana), (0..n).collect::<Vec<_>>(), "seed {seed}");
}

#[test]
fn what_the_store_failed_is_kept_before_what_is_newer() {
    for_each_seed(100, waits_behind_what_failed);
}

/// Whether none of these began to read before this node.
pub(super) fn is_first(cluster: &Cluster, at: usize, of: &[usize]) -> bool {
    let began = |n: usize| cluster.nodes[n].world.reads_since_us.map(|since_us| (since_us, n));
    began(at).is_some_and(|ours| of.iter().filter_map(|n| began(*n)).all(|other| ours <= other))
}

/// Those whom a node knows.
fn tell_members(cluster: &mut Cluster, at: usize, of: &[usize]) {
    let hello = |n: &usize| Hello {
        server_id: format!("n{n}").into(),
        connections: 0,
        users: 0,
        started_unix_ms: 0,
        reading_ms: cluster.nodes[*n].world.reading_ms(),
        first_read: None,
        version: "1".into(),
    };
    let all: Arc<[Hello]> = of.iter().map(hello).collect();
    let reads_since_us = cluster.nodes[at].world.reads_since_us;
    let is_first = is_first(cluster, at, of);
    cluster.tell(at, ClusterEvent::Members { all, reads_since_us, is_first });
}

/// Of two nodes the one that would keep a user's mail dies with it; the other waits for its word, hears that it is gone, and keeps
/// the mail at once, in order, before what comes then.
#[test]
fn what_waits_for_a_node_that_is_gone_is_kept_at_once() {
    let mut named_away = 0;
    for (n, user) in ["ana", "bo", "cy", "di", "ed", "flo", "gus", "hal"].into_iter().enumerate() {
        let mut cluster = Cluster::new(n as u64, 2, rules(true));
        cluster.pass_ms(5_000);
        cluster.meet();
        let client: ClientId = cluster.nodes[1].world.websocket(user);
        cluster.settle();
        // The first node reads nothing any more.
        (0..3).for_each(|n| cluster.nodes[1].world.submit(user, n));
        cluster.settle();
        let heard = numbers(&cluster.nodes[1].world, client);
        match waiting(&cluster) {
            0 => assert_eq!(heard, [0, 1, 2], "its own to keep"),
            waiting => {
                assert_eq!((waiting, heard.len()), (3, 0), "it waits for the other's word");
                named_away += 1;
            }
        }
        // No time passes.
        tell_members(&mut cluster, 1, &[1]);
        assert_eq!(waiting(&cluster), 0);
        cluster.nodes[1].world.submit(user, 3);
        cluster.settle();
        assert_eq!(numbers(&cluster.nodes[1].world, client), [0, 1, 2, 3], "{user}");
        let kept = cluster.nodes[1].world.stores[0].kept.borrow().kept_ever.len();
        assert_eq!(kept, 4, "once each");
    }
    assert!((1..8).contains(&named_away), "both nodes have mailboxes: {named_away}");
}

/// Nodes stop reading what is published to Redis and begin again, each in its time, and all say each second for how long they have
/// read. What at least one has read comes, once and in the order of Redis.
fn nodes_read_and_do_not(seed: u64) {
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, rules(true));
    cluster.pass_ms(5_000);
    cluster.meet();
    let clients: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.websocket("ana")).collect();
    cluster.settle();
    let (mut published, mut n) = (Vec::new(), 0);
    for tick in 0..cluster.rng.usize(100..300) {
        for at in 0..cluster.nodes.len() {
            let now_us = cluster.nodes[at].world.now_us;
            let reads = cluster.nodes[at].world.reads_since_us.is_some();
            match cluster.rng.u8(0..100) {
                0 if reads => cluster.nodes[at].world.reads_since_us = None,
                0..10 if !reads => cluster.nodes[at].world.reads_since_us = Some(now_us),
                _ => {}
            }
        }
        if cluster.rng.u8(0..4) == 0 {
            let nodes = &mut cluster.nodes;
            let readers = nodes.iter_mut().filter(|node| node.world.reads_since_us.is_some());
            if readers.map(|node| node.world.submit("ana", n)).count() > 0 {
                published.push(n);
            }
            n += 1;
        }
        cluster.nodes.iter_mut().for_each(|node| node.world.pass_ms_unsettled(25));
        cluster.settle();
        if tick % 40 == 0 {
            cluster.meet();
        }
    }
    pass(&mut cluster, 200, |_, _| {});
    assert_eq!(waiting(&cluster), 0, "seed {seed}");
    for (node, client) in clients.into_iter().enumerate() {
        assert_eq!(numbers(&cluster.nodes[node].world, client), published, "seed {seed}: node {node}");
    }
}

#[test]
fn who_begins_to_read_keeps_nothing_before_what_it_has_missed() {
    for_each_seed(100, nodes_read_and_do_not);
}

/// Redis is gone, with what it was asked and with all links; the nodes come back to it each in its time, and perhaps it is empty.
fn redis_goes_and_comes(seed: u64) {
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, rules(true));
    let nodes = cluster.nodes.len();
    cluster.pass_ms(5_000);
    cluster.meet();
    let clients: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.websocket("ana")).collect();
    cluster.settle();
    let (mut read, mut n, mut kept_since) = (Vec::new(), 0, 0);
    let publish = |cluster: &mut Cluster, read: &mut Vec<usize>, n: &mut usize| {
        let nodes = &mut cluster.nodes;
        let readers = nodes.iter_mut().filter(|node| node.world.reads_since_us.is_some());
        if readers.map(|node| node.world.submit("ana", *n)).count() > 0 {
            read.push(*n);
        }
        *n += 1;
    };
    for _ in 0..3 {
        for _ in 0..cluster.rng.usize(1..12) {
            publish(&mut cluster, &mut read, &mut n);
            for _ in 0..cluster.rng.usize(0..12) {
                cluster.step();
            }
        }
        // It ends in the middle of that. Who stays has heard what was kept.
        // Of three nodes one may have had the word of what an empty Redis lost, and another not (decision 8).
        let is_empty = nodes == 2 && cluster.rng.bool();
        for at in 0..nodes {
            cluster.cut(at);
            let Cluster { rng, nodes, .. } = &mut cluster;
            nodes[at].world.reads_since_us = None;
            for store in &mut nodes[at].world.stores {
                store.restart(rng, 0, false);
                store.is_away = true;
            }
        }
        if is_empty {
            cluster.nodes[0].world.stores[0].kept.borrow_mut().lose_all();
            kept_since = n;
        }
        // Some notice it soon.
        let ticks = cluster.rng.usize(1..100);
        pass(&mut cluster, ticks, |_, _| {});
        // It is back: links in any order, within a second and a half.
        let mut back: Vec<(usize, usize, u8)> =
            (0..nodes).flat_map(|at| (0..3).map(move |link| (0, at, link))).collect();
        back.iter_mut().for_each(|(tick, ..)| *tick = cluster.rng.usize(0..60));
        pass(&mut cluster, 240, |cluster, tick| {
            for (_, at, link) in back.iter().filter(|(due, ..)| *due == tick) {
                match link {
                    0 => cluster.heal(*at),
                    1 => cluster.nodes[*at].world.reads_since_us = Some(cluster.nodes[*at].world.now_us),
                    _ => cluster.nodes[*at].world.stores.iter_mut().for_each(|store| store.is_away = false),
                }
            }
            if cluster.rng.u8(0..4) == 0 {
                publish(cluster, &mut read, &mut n);
            }
        });
    }
    pass(&mut cluster, 240, |_, _| {});
    assert_eq!(waiting(&cluster), 0, "seed {seed}");
    for (node, client) in clients.into_iter().enumerate() {
        let mut first = Vec::new();
        for heard in heard(&cluster.nodes[node].world, client) {
            match first.contains(&heard.n) {
                true => assert!(heard.attempt > 1, "seed {seed}: node {node}: {} again", heard.n),
                false => first.push(heard.n),
            }
        }
        assert!(first.is_sorted(), "seed {seed}: node {node}: {first:?}");
        let missing: Vec<&usize> = read.iter().filter(|n| **n >= kept_since && !first.contains(n)).collect();
        assert!(missing.is_empty(), "seed {seed}: node {node} has not heard {missing:?}");
    }
}

/// Lets time pass in steps that are shorter than whatever is waited for; everybody says hello each second.
fn pass(cluster: &mut Cluster, ticks: usize, mut each: impl FnMut(&mut Cluster, usize)) {
    for tick in 0..ticks {
        each(cluster, tick);
        cluster.nodes.iter_mut().for_each(|node| node.world.pass_ms_unsettled(25));
        cluster.settle();
        if tick % 40 == 0 {
            cluster.meet();
        }
    }
}

#[test]
fn what_redis_lost_comes_again_in_its_order_and_says_so() {
    for_each_seed(60, redis_goes_and_comes);
}

/// Each of two nodes takes itself for the only one and asks for everything: one keeps it, now this one, now that, and the clients of
/// both hear it in its order.
fn both_ask(seed: u64) {
    let mut cluster = Cluster::new(seed, 2, rules(true));
    cluster.pass_ms(5_000);
    (0..2).for_each(|node| tell_members(&mut cluster, node, &[node]));
    let clients: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.websocket("ana")).collect();
    cluster.settle();
    for n in 0..20 {
        let first = cluster.any();
        for node in [first, 1 - first] {
            cluster.nodes[node].world.submit("ana", n);
            for _ in 0..cluster.rng.usize(0..20) {
                cluster.step();
            }
        }
    }
    cluster.settle();
    cluster.pass_ms(3_000);
    for (node, client) in clients.into_iter().enumerate() {
        let heard = numbers(&cluster.nodes[node].world, client);
        assert_eq!(heard, (0..20).collect::<Vec<_>>(), "seed {seed}: node {node}");
    }
}

#[test]
fn who_asks_beside_another_hears_what_that_one_has_kept() {
    for_each_seed(100, both_ask);
}
