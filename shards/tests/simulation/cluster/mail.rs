//! Mail that is kept where every node finds it: users who move between nodes, hints that are lost and late, a store that fails.
use super::Cluster;
use crate::client::ClientId;
use crate::mail::{accepted, heard, send};
use crate::seeds::for_each_seed;
use protocol::cluster::ClusterEvent;
use shards::config::{AckRules, QueueRules, ShardConfig};
use std::collections::BTreeSet;

const USERS: [&str; 2] = ["ana", "bo"];

pub(super) fn rules(with_ack: bool) -> impl Fn(&mut ShardConfig) {
    move |config| {
        config.queue = Some(QueueRules { ttl_ms: 3_600_000 });
        config.ack = with_ack.then_some(AckRules { timeout_ms: 30_000, is_recorded: true });
    }
}

/// A client: whose, on which node.
struct Seat {
    user: usize,
    node: usize,
    client: ClientId,
    acked: BTreeSet<String>,
}

/// Clients acknowledge what they heard: some of it, or all.
fn acknowledge(cluster: &mut Cluster, seats: &mut [Seat], all: bool) {
    for seat in seats {
        let rolls = cluster.rng.u8(..);
        let world = &mut cluster.nodes[seat.node].world;
        if world.clients[seat.client].place.is_none() || world.clients[seat.client].hang_up {
            continue;
        }
        for heard in heard(world, seat.client) {
            if (all || (rolls ^ heard.n as u8) & 1 == 0) && seat.acked.insert(heard.id.clone()) {
                let text = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{}"}}}}"#, heard.id);
                world.clients[seat.client].say(&text);
            }
        }
    }
}

fn sit(cluster: &mut Cluster, user: usize) -> Seat {
    let node = cluster.any();
    let client = cluster.nodes[node].world.websocket(USERS[user]);
    Seat { user, node, client, acked: BTreeSet::new() }
}

/// Users come, go and move; links break and come back; everything is late.
fn moving(seed: u64, with_ack: bool, failures_percent: u8) {
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, rules(with_ack));
    let nodes = cluster.nodes.len();
    for store in cluster.nodes.iter_mut().flat_map(|node| &mut node.world.stores) {
        store.failures_percent = failures_percent;
    }
    let backends: Vec<Vec<ClientId>> =
        (0..nodes).map(|node| USERS.iter().map(|_| cluster.nodes[node].world.dial()).collect()).collect();
    let mut sent: Vec<Vec<Vec<usize>>> = vec![vec![Vec::new(); USERS.len()]; nodes];
    let mut seats: Vec<Seat> = Vec::new();
    for n in 0..40 {
        for user in 0..USERS.len() {
            let node = cluster.any();
            sent[node][user].push(n);
            send(&mut cluster.nodes[node].world, backends[node][user], USERS[user], n);
        }
        match cluster.rng.u8(0..10) {
            0..3 => {
                let user = cluster.rng.usize(0..USERS.len());
                let seat = sit(&mut cluster, user);
                seats.push(seat);
            }
            3 if !seats.is_empty() => {
                let seat = &seats[cluster.rng.usize(0..seats.len())];
                let client = &mut cluster.nodes[seat.node].world.clients[seat.client];
                match n % 2 {
                    0 => client.reset = true,
                    _ => client.hang_up = true,
                }
            }
            4 => {
                let node = cluster.any();
                cluster.cut(node);
            }
            5 | 6 => {
                let node = cluster.any();
                cluster.heal(node);
            }
            7 => cluster.slowness_percent = cluster.rng.u8(0..90),
            _ => {}
        }
        for _ in 0..cluster.rng.u8(0..8) {
            cluster.step();
        }
        if with_ack {
            acknowledge(&mut cluster, &mut seats, false);
        }
    }
    cluster.clear_weather();
    cluster.settle();
    cluster.pass_ms(3_000);
    // Whoever is there has everything that anybody heard of since it came, and in order.
    for user in 0..USERS.len() {
        let seat = sit(&mut cluster, user);
        seats.push(seat);
    }
    cluster.settle();
    if with_ack {
        for _ in 0..8 {
            acknowledge(&mut cluster, &mut seats, true);
            cluster.pass_ms(5_000);
        }
    }
    for (user, name) in USERS.iter().enumerate() {
        let mut all = BTreeSet::new();
        for seat in seats.iter().filter(|seat| seat.user == user) {
            let mut seen = BTreeSet::new();
            for heard in heard(&cluster.nodes[seat.node].world, seat.client) {
                let is_new = seen.insert(heard.id.clone());
                assert!(is_new || heard.attempt > 1, "seed {seed}: {} came twice to {name}, unsaid", heard.n);
                all.insert(heard.n);
            }
        }
        for (node, backends) in backends.iter().enumerate() {
            let answers = accepted(&cluster.nodes[node].world, backends[user]);
            assert_eq!(answers.len(), sent[node][user].len(), "seed {seed}: every send is answered once");
            for (n, is_accepted) in sent[node][user].iter().zip(answers) {
                assert!(!is_accepted || all.contains(n), "seed {seed}: {n} of {name} was accepted and never came");
            }
        }
        if with_ack {
            continue;
        }
        // In the second class whoever is there at the end heard the end of it, or it was written to somebody before.
        let world = &cluster.nodes[0].world;
        assert_eq!(world.stores[0].len(), 0, "seed {seed}: everything was written");
    }
    if with_ack {
        let kept = cluster.nodes[0].world.stores[0].len();
        assert_eq!(kept, 0, "seed {seed}: everything was acknowledged");
    }
}

#[test]
fn who_moves_between_nodes_gets_what_was_accepted() {
    for_each_seed(80, |seed| moving(seed, false, 0));
}

#[test]
fn what_was_accepted_anywhere_is_acknowledged_in_the_end() {
    for_each_seed(40, |seed| moving(seed, true, 0));
}

#[test]
fn a_shared_store_that_fails_loses_nothing_it_accepted() {
    for_each_seed(40, |seed| moving(seed, seed % 2 == 0, 20));
}

/// Connections that stay, on every node, hear every notification once and in the order of the mailbox, whatever becomes of the
/// hints.
fn who_stays_hears_all(seed: u64) {
    let with_ack = seed.is_multiple_of(2);
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, rules(with_ack));
    let nodes = cluster.nodes.len();
    let seat = |cluster: &mut Cluster, node: usize| {
        let client = cluster.nodes[node].world.websocket("ana");
        Seat { user: 0, node, client, acked: BTreeSet::new() }
    };
    let mut seats: Vec<Seat> = (0..2 * nodes).map(|at| seat(&mut cluster, at % nodes)).collect();
    let backends: Vec<ClientId> = (0..nodes).map(|node| cluster.nodes[node].world.dial()).collect();
    cluster.settle();
    for n in 0..60 {
        let node = cluster.any();
        send(&mut cluster.nodes[node].world, backends[node], "ana", n);
        cluster.change_weather();
        for _ in 0..cluster.rng.u8(0..6) {
            cluster.step();
        }
        // Some of them: what one acknowledges is gone for the others, too.
        if with_ack {
            acknowledge(&mut cluster, &mut seats, false);
        }
    }
    cluster.clear_weather();
    cluster.settle();
    // A receipt that was lost is waited for, and the next publish of that backend behind it.
    for _ in 0..400 {
        let answered: usize = (0..nodes).map(|node| accepted(&cluster.nodes[node].world, backends[node]).len()).sum();
        if answered == 60 {
            break;
        }
        cluster.pass_ms(500);
    }
    let of_seat = |seat: &Seat| {
        let all = heard(&cluster.nodes[seat.node].world, seat.client);
        // What was not acknowledged in time comes again and says so.
        let mut seen = BTreeSet::new();
        all.into_iter().filter(|heard| seen.insert(heard.n) || heard.attempt == 1).map(|heard| heard.n).collect()
    };
    let orders: Vec<Vec<usize>> = seats.iter().map(of_seat).collect();
    for order in &orders {
        let once: BTreeSet<usize> = order.iter().copied().collect();
        assert_eq!((once.len(), order.len()), (60, 60), "seed {seed}: all of it, once: {orders:?}");
        assert_eq!(order, &orders[0], "seed {seed}: in the order of the mailbox");
    }
}

#[test]
fn who_stays_hears_every_notification_in_the_order_of_the_mailbox() {
    for_each_seed(60, who_stays_hears_all);
}

/// Somebody comes while mail is kept elsewhere, and after that nothing else is published.
fn who_comes_misses_nothing(seed: u64) {
    let mut cluster = Cluster::new(seed, 2, rules(true));
    let backend = cluster.nodes[0].world.dial();
    let mut n = 0;
    for _ in 0..4 {
        let clients: Vec<ClientId> = (0..2).map(|_| cluster.nodes[1].world.websocket("ana")).collect();
        for _ in 0..cluster.rng.usize(0..12) {
            cluster.step();
        }
        for _ in 0..cluster.rng.u8(1..4) {
            send(&mut cluster.nodes[0].world, backend, "ana", n);
            n += 1;
            for _ in 0..cluster.rng.usize(0..6) {
                cluster.step();
            }
        }
        cluster.settle();
        for client in clients {
            let numbers: Vec<usize> = heard(&cluster.nodes[1].world, client).iter().map(|heard| heard.n).collect();
            assert_eq!(numbers, (0..n).collect::<Vec<_>>(), "seed {seed}");
            cluster.nodes[1].world.clients[client].hang_up = true;
        }
        cluster.settle();
    }
}

#[test]
fn who_comes_while_mail_is_kept_elsewhere_misses_nothing() {
    for_each_seed(300, who_comes_misses_nothing);
}

/// Somebody stays and takes everything at once, and others come and go on all nodes. Whoever was answered hears all that is
/// published from then on, though it may be gone before its mailbox is read, and once.
fn who_comes_beside_another_misses_nothing(seed: u64) {
    let with_ack = seed.is_multiple_of(2);
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, rules(with_ack));
    let nodes = cluster.nodes.len();
    let backends: Vec<ClientId> = (0..nodes).map(|node| cluster.nodes[node].world.dial()).collect();
    let mut seats = vec![sit(&mut cluster, 0)];
    cluster.settle();
    // What each of them heard of first, at the latest.
    let mut heard_from: Vec<Option<usize>> = vec![Some(0)];
    for n in 0..60 {
        let node = cluster.any();
        for (seat, from) in seats.iter().zip(&mut heard_from) {
            if from.is_none() && cluster.has_heard(seat.node, seat.client, "101") {
                *from = Some(n);
            }
        }
        send(&mut cluster.nodes[node].world, backends[node], "ana", n);
        if cluster.rng.u8(0..6) == 0 {
            let seat = sit(&mut cluster, 0);
            seats.push(seat);
            heard_from.push(None);
        }
        if cluster.rng.u8(0..8) == 0 {
            cluster.slowness_percent = cluster.rng.u8(0..90);
        }
        for _ in 0..cluster.rng.u8(0..20) {
            cluster.step();
        }
        if cluster.rng.u8(0..4) == 0 {
            let ms = cluster.rng.u64(0..40);
            cluster.nodes.iter_mut().for_each(|node| node.world.pass_ms_unsettled(ms));
        }
        if with_ack {
            acknowledge(&mut cluster, &mut seats, true);
        }
    }
    cluster.clear_weather();
    cluster.settle();
    cluster.pass_ms(2_500);
    for (seat, from) in seats.iter().zip(heard_from) {
        let all = heard(&cluster.nodes[seat.node].world, seat.client);
        let mut seen = BTreeSet::new();
        for heard in &all {
            assert!(seen.insert(heard.n) || heard.attempt > 1, "seed {seed}: {} came twice, unsaid", heard.n);
        }
        let missing: Vec<usize> = (from.unwrap_or(60)..60).filter(|n| !seen.contains(n)).collect();
        assert_eq!(missing, [0; 0], "seed {seed}: from {from:?} on, at node {}", seat.node);
    }
}

#[test]
fn who_comes_beside_another_hears_all_that_is_published_from_then_on() {
    for_each_seed(100, who_comes_beside_another_misses_nothing);
}

/// A user has one connection at a time, on one node or another, and acknowledges nothing. What is gone from the mailbox does not come
/// to the next one; what comes for a second time says so.
fn who_moves_is_told_what_comes_again(seed: u64) {
    let mut cluster = Cluster::new(seed, 2, rules(seed.is_multiple_of(2)));
    let backends: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.dial()).collect();
    let mut seen = BTreeSet::new();
    let mut n = 0;
    for _ in 0..12 {
        let seat = sit(&mut cluster, 0);
        for _ in 0..cluster.rng.u8(1..6) {
            let node = cluster.any();
            send(&mut cluster.nodes[node].world, backends[node], "ana", n);
            n += 1;
            for _ in 0..cluster.rng.u8(0..30) {
                cluster.step();
            }
            let ms = cluster.rng.u64(0..4);
            cluster.nodes.iter_mut().for_each(|node| node.world.pass_ms_unsettled(ms));
        }
        cluster.nodes[seat.node].world.clients[seat.client].hang_up = true;
        cluster.settle();
        for heard in heard(&cluster.nodes[seat.node].world, seat.client) {
            assert!(seen.insert(heard.n) || heard.attempt > 1, "seed {seed}: {} came twice, unsaid", heard.n);
        }
    }
    let seat = sit(&mut cluster, 0);
    cluster.settle();
    seen.extend(heard(&cluster.nodes[seat.node].world, seat.client).iter().map(|heard| heard.n));
    assert_eq!(seen.len(), n, "seed {seed}: all of it");
}

#[test]
fn who_moves_is_told_of_what_comes_for_a_second_time() {
    for_each_seed(100, who_moves_is_told_what_comes_again);
}

/// Users have several connections on a node, and what is not acknowledged comes again while more is published. Whoever stays hears
/// all of it, though another acknowledges it meanwhile.
fn who_is_overdue_misses_nothing(seed: u64) {
    let mut cluster = Cluster::new(seed, 1 + seed as usize % 2, |config| {
        rules(true)(config);
        config.ack = Some(AckRules { timeout_ms: 1_000, is_recorded: true });
    });
    let nodes = cluster.nodes.len();
    let backends: Vec<ClientId> = (0..nodes).map(|node| cluster.nodes[node].world.dial()).collect();
    let mut seats: Vec<Seat> = (0..4).map(|_| sit(&mut cluster, 0)).collect();
    cluster.settle();
    for n in 0..40 {
        let node = cluster.any();
        send(&mut cluster.nodes[node].world, backends[node], "ana", n);
        for _ in 0..cluster.rng.u8(0..12) {
            cluster.step();
        }
        let ms = cluster.rng.u64(0..400);
        cluster.nodes.iter_mut().for_each(|node| node.world.pass_ms_unsettled(ms));
        let quick = cluster.rng.usize(0..seats.len());
        acknowledge(&mut cluster, &mut seats[quick..=quick], false);
    }
    cluster.settle();
    for seat in &seats {
        let seen: BTreeSet<usize> =
            heard(&cluster.nodes[seat.node].world, seat.client).iter().map(|heard| heard.n).collect();
        let missing: Vec<usize> = (0..40).filter(|n| !seen.contains(n)).collect();
        assert_eq!(missing, [0; 0], "seed {seed}: at node {}", seat.node);
    }
}

#[test]
fn who_reads_again_what_nobody_acknowledged_hears_what_comes_meanwhile() {
    for_each_seed(100, who_is_overdue_misses_nothing);
}

/// One of two nodes goes while both have kept mail for a user with a connection at each: who is at the other hears all of it.
fn who_stays_alone_hears_all(seed: u64) {
    let mut cluster = Cluster::new(seed, 2, rules(seed.is_multiple_of(2)));
    let backends: Vec<ClientId> = (0..2).map(|node| cluster.nodes[node].world.dial()).collect();
    let mut seats: Vec<Seat> = (0..2)
        .map(|node| {
            let client = cluster.nodes[node].world.websocket("ana");
            Seat { user: 0, node, client, acked: BTreeSet::new() }
        })
        .collect();
    cluster.settle();
    let count = cluster.rng.usize(2..12);
    for n in 0..count {
        let node = cluster.any();
        send(&mut cluster.nodes[node].world, backends[node], "ana", n);
        for _ in 0..cluster.rng.u8(0..6) {
            cluster.step();
        }
        acknowledge(&mut cluster, &mut seats, true);
    }
    // Who goes says so; that may be heard before the hints of what it has kept.
    cluster.slowness_percent = 60;
    while cluster.nodes[0].world.stores[0].kept.borrow().kept_ever.len() < count {
        cluster.step();
        acknowledge(&mut cluster, &mut seats, true);
    }
    let bridge = cluster.nodes[0].world.bridge.expect("a node of a cluster");
    cluster.nodes[0].world.call(bridge, |shard, now, effects| shard.cluster(now, ClusterEvent::Alone(true), effects));
    acknowledge(&mut cluster, &mut seats, true);
    cluster.clear_weather();
    cluster.settle();
    let seen: BTreeSet<usize> = heard(&cluster.nodes[0].world, seats[0].client).iter().map(|heard| heard.n).collect();
    assert_eq!(seen, (0..count).collect(), "seed {seed}");
}

#[test]
fn who_is_at_a_node_that_is_left_alone_hears_what_the_other_has_kept() {
    for_each_seed(200, who_stays_alone_hears_all);
}

#[test]
fn a_hint_is_delivered_where_nothing_is_missing() {
    let mut cluster = Cluster::new(7, 2, rules(true));
    let ana = cluster.nodes[1].world.websocket("ana");
    let backend = cluster.nodes[0].world.dial();
    cluster.settle();
    let reads: usize = cluster.nodes[1].world.stores.iter().map(|store| store.asked.reads).sum();
    for n in 0..5 {
        send(&mut cluster.nodes[0].world, backend, "ana", n);
    }
    cluster.settle();
    let world = &cluster.nodes[1].world;
    assert_eq!(heard(world, ana).iter().map(|heard| heard.n).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(world.stores.iter().map(|store| store.asked.reads).sum::<usize>(), reads, "nothing was read for it");
    assert_eq!(world.metrics.sum(|shard| shard.hints_taken.get()), 5);
    let text = cluster.nodes[0].world.clients[backend].text();
    let answer = r#""delivered_to":1,"failed":0,"queued":1,"delivered_local":0,"#;
    assert_eq!(text.matches(answer).count(), 5, "{text}");
    // It is acknowledged where it was delivered, and gone for all.
    let ids: Vec<String> = heard(&cluster.nodes[1].world, ana).into_iter().map(|heard| heard.id).collect();
    for id in ids {
        let text = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
        cluster.nodes[1].world.clients[ana].say(&text);
    }
    cluster.settle();
    assert_eq!(cluster.nodes[0].world.stores[0].len(), 0);
}

/// What comes by Redis comes to every node, and is kept once, whoever dies and whatever is not heard.
fn ingest_is_kept_once(seed: u64) {
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, rules(true));
    let nodes = cluster.nodes.len();
    if cluster.rng.u8(0..4) > 0 {
        cluster.meet();
    }
    let clients: Vec<(usize, ClientId)> =
        (0..nodes).map(|node| (node, cluster.nodes[node].world.websocket("ana"))).collect();
    cluster.settle();
    // One of them may be dead to Redis: its ingest is silent, too.
    let deaf = (cluster.rng.u8(0..3) == 0).then(|| cluster.any());
    for store in cluster.nodes.iter_mut().flat_map(|node| &mut node.world.stores) {
        store.failures_percent = if seed.is_multiple_of(3) { 20 } else { 0 };
    }
    for n in 0..30 {
        for node in (0..nodes).filter(|node| Some(*node) != deaf) {
            cluster.nodes[node].world.submit("ana", n);
            for _ in 0..cluster.rng.u8(0..4) {
                cluster.step();
            }
        }
        cluster.change_weather();
    }
    cluster.clear_weather();
    cluster.pass_ms(8_000);
    let store = cluster.nodes[0].world.stores[0].kept.borrow();
    assert_eq!(store.kept_ever.len(), 30, "seed {seed}: each was kept once");
    for (node, client) in &clients {
        let heard = heard(&cluster.nodes[*node].world, *client);
        let once: BTreeSet<usize> = heard.iter().filter(|heard| heard.attempt == 1).map(|heard| heard.n).collect();
        let all: BTreeSet<usize> = heard.iter().map(|heard| heard.n).collect();
        assert_eq!((all.len(), heard.len()), (30, 30), "seed {seed}: node {node} heard each once, {once:?}");
    }
    let waiting: u64 = cluster.nodes.iter().map(|node| node.world.metrics.sum(|m| m.claims_waiting.get())).sum();
    assert_eq!(waiting, 0, "seed {seed}: nobody waits for ever");
}

#[test]
fn what_comes_by_redis_is_kept_once_and_heard_by_all() {
    for_each_seed(100, ingest_is_kept_once);
}

/// Nodes die and begin anew while mail is published on all of them. What a publisher was told is kept comes; what was on its
/// way to a node that died is in the mailbox.
fn nodes_die(seed: u64) {
    let mut cluster = Cluster::new(seed, 3, rules(true));
    let (mut sent, mut accepted_ever) = (0, BTreeSet::new());
    for _ in 0..6 {
        let nodes = cluster.nodes.len();
        let backends: Vec<ClientId> = (0..nodes).map(|node| cluster.nodes[node].world.dial()).collect();
        let clients: Vec<ClientId> = (0..nodes).map(|node| cluster.nodes[node].world.websocket("ana")).collect();
        let mut of_node: Vec<Vec<usize>> = vec![Vec::new(); nodes];
        for _ in 0..6 {
            let node = cluster.any();
            send(&mut cluster.nodes[node].world, backends[node], "ana", sent);
            of_node[node].push(sent);
            sent += 1;
            for _ in 0..cluster.rng.u8(0..12) {
                cluster.step();
            }
        }
        let dies = cluster.any();
        for node in 0..nodes {
            let answers = accepted(&cluster.nodes[node].world, backends[node]);
            accepted_ever.extend(of_node[node].iter().zip(answers).filter(|(_, is_kept)| *is_kept).map(|(n, _)| *n));
            cluster.nodes[node].world.clients[clients[node]].hang_up = true;
        }
        cluster.replace(dies, rules(true));
        cluster.settle();
        cluster.pass_ms(2_500);
    }
    let node = cluster.any();
    let ana = cluster.nodes[node].world.websocket("ana");
    cluster.settle();
    let heard: BTreeSet<usize> = heard(&cluster.nodes[node].world, ana).iter().map(|heard| heard.n).collect();
    let lost: Vec<&usize> = accepted_ever.difference(&heard).collect();
    assert!(lost.is_empty(), "seed {seed}: {lost:?} were accepted and nobody has acknowledged them");
}

#[test]
fn what_was_accepted_outlives_the_node_that_took_it() {
    for_each_seed(60, nodes_die);
}
