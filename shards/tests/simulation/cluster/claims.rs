//! Mail by Redis that waits: behind a store that fails, for the word of a node that dies, and in the order of Redis all the while.
use super::Cluster;
use super::mail::rules;
use crate::client::ClientId;
use crate::mail::numbers;
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
    cluster.tell(at, ClusterEvent::Members { all, reads_since_us });
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
    for tick in 0..cluster.rng.usize(100..400) {
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
    for _ in 0..8 {
        for _ in 0..40 {
            cluster.nodes.iter_mut().for_each(|node| node.world.pass_ms_unsettled(25));
            cluster.settle();
        }
        cluster.meet();
    }
    assert_eq!(waiting(&cluster), 0, "seed {seed}");
    for (node, client) in clients.into_iter().enumerate() {
        assert_eq!(numbers(&cluster.nodes[node].world, client), published, "seed {seed}: node {node}");
    }
}

#[test]
fn who_begins_to_read_keeps_nothing_before_what_it_has_missed() {
    for_each_seed(100, nodes_read_and_do_not);
}
