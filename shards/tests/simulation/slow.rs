//! Clients that read slowly or not at all, and tenants that publish too much: what they cost themselves, and nobody else.
use crate::client::ClientId;
use crate::mail::{Heard, heard, send, send_as};
use crate::seeds::for_each_seed;
use crate::world::World;
use protocol::limits;
use protocol::notification::Target;
use shards::config::{AckRules, QueueRules};
use std::collections::BTreeSet;

/// The delivery classes: live, kept until written, kept until acknowledged.
fn world(seed: u64, class: usize, outbox_bytes_max: usize) -> World {
    World::with_config(seed, 1, |config| {
        config.outbox_bytes_max = outbox_bytes_max;
        config.queue = (class > 0).then_some(QueueRules { ttl_ms: 3_600_000 });
        config.ack = (class > 1).then_some(AckRules { timeout_ms: 600_000, is_recorded: false });
    })
}

fn send_large(world: &mut World, backend: ClientId, user: &str, n: usize) {
    let pad = "x".repeat(60_000);
    let body = format!(r#"{{"target_user_id":"{user}","event_type":"e{pad}","payload":{n}}}"#);
    world.post(backend, "/api/v1/notifications/send", &body);
}

fn of_class(heard: &[Heard], is_urgent: bool) -> Vec<usize> {
    heard.iter().filter(|heard| heard.is_urgent == is_urgent).map(|heard| heard.n).collect()
}

// --- Priority --------------------------------------------------------------------------------------------------------

#[test]
fn urgent_mail_overtakes_a_backlog_and_each_class_keeps_its_order() {
    for_each_seed(120, |seed| {
        let mut world = world(seed, seed as usize % 3, usize::MAX);
        let (ana, backend) = (world.websocket("ana"), world.dial());
        world.settle();
        world.clients[ana].credit = Some(world.rng.usize(0..2_000));
        let urgent: BTreeSet<usize> = (0..60).filter(|_| world.rng.u8(0..4) == 0).collect();
        for n in 0..60 {
            send_as(&mut world, backend, "ana", n, if urgent.contains(&n) { "High" } else { "Normal" });
            // Now and then its socket takes a little more.
            if world.rng.u8(0..6) == 0 {
                world.clients[ana].credit = world.clients[ana].credit.map(|credit| credit + 700);
            }
            world.run(seed as usize % 5);
        }
        world.settle();
        world.clients[ana].credit = None;
        world.settle();
        let heard = heard(&world, ana);
        assert!(heard.iter().all(|heard| heard.attempt == 1 && heard.is_urgent == urgent.contains(&heard.n)));
        assert_eq!(of_class(&heard, true), urgent.iter().copied().collect::<Vec<_>>(), "seed {seed}");
        let ordinary: Vec<usize> = (0..60).filter(|n| !urgent.contains(n)).collect();
        assert_eq!(of_class(&heard, false), ordinary, "seed {seed}");
        if world.clients[ana].text().len() > 20_000 && urgent.contains(&59) {
            assert_ne!(heard.last().map(|heard| heard.n), Some(59), "seed {seed}: it waited behind the whole backlog");
        }
    });
}

#[test]
fn who_reads_hears_everything_in_the_order_it_was_accepted() {
    let mut world = World::new(3, 1);
    let (ana, backend) = (world.websocket("ana"), world.dial());
    world.settle();
    for (n, priority) in ["Low", "Critical", "Normal", "High", "Low", "High"].iter().cycle().take(60).enumerate() {
        send_as(&mut world, backend, "ana", n, priority);
    }
    world.feed(backend);
    // All of it in one write, whatever its class: nothing was left behind.
    world.flush_all(0);
    let numbers: Vec<usize> = heard(&world, ana).iter().map(|heard| heard.n).collect();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}

/// What was overtaken and then put back stands in the mailbox in the order it was accepted, in front of what comes later.
#[test]
fn mail_that_was_overtaken_goes_back_into_its_mailbox_in_order() {
    for_each_seed(60, |seed| {
        let mut world = world(seed, 1, usize::MAX);
        let (ana, backend) = (world.websocket("ana"), world.dial());
        world.settle();
        world.clients[ana].credit = Some(world.rng.usize(0..400));
        for n in 0..30 {
            send_as(&mut world, backend, "ana", n, if n % 3 == 2 { "Critical" } else { "Low" });
            world.settle();
        }
        world.clients[ana].reset = true;
        world.settle();
        // Who takes all that it is given has no backlog, and hears the mailbox as it is.
        world.cuts = false;
        let late = world.websocket("ana");
        world.settle();
        let numbers: Vec<usize> = heard(&world, late).iter().map(|heard| heard.n).collect();
        assert!(numbers.len() > 20 && numbers.is_sorted(), "seed {seed}: {numbers:?}");
    });
}

// --- Bounds of one outbox --------------------------------------------------------------------------------------------

#[test]
fn who_takes_nothing_for_too_long_is_closed_in_every_class_and_mail_is_kept() {
    for (class, encrypts) in (0..3).flat_map(|class| [(class, false), (class, true)]) {
        let mut world = world(7, class, usize::MAX);
        world.encrypts = encrypts;
        let (ana, quick, backend) = (world.websocket("ana"), world.websocket("quick"), world.dial());
        world.settle();
        world.clients[ana].reads = false;
        for user in ["ana", "quick"] {
            send(&mut world, backend, user, 1);
        }
        world.settle();
        world.pass_ms(limits::OUTBOX_STALL_MS - 1_000);
        assert_eq!(world.metrics.sum(|shard| shard.slow_closed.get()), 0, "class {class}");
        world.pass_ms(2_000);
        assert_eq!(world.metrics.sum(|shard| shard.slow_closed.get()), 1, "class {class}");
        world.clients[ana].reads = true;
        world.settle();
        assert_eq!(world.clients[ana].close_code(), Some(4008), "class {class}: and no frame was cut");
        assert_eq!(heard(&world, quick).len(), 1);
        let again = world.websocket("ana");
        world.settle();
        // What is encrypted goes out before the Close, as what has begun does.
        let heard = [ana, again].map(|client| heard(&world, client).len());
        let expected = match (class, encrypts) {
            (0, false) => [0, 0],
            (_, false) => [0, 1],
            (2, true) => [1, 1],
            (_, true) => [1, 0],
        };
        assert_eq!(heard, expected, "class {class}, encrypted: {encrypts}");
    }
}

/// A byte now and then is no progress: without a mailbox it ends, with one it goes on from there.
#[test]
fn who_takes_a_byte_now_and_then_is_closed_or_put_back_to_its_mailbox() {
    for class in [0, 1] {
        let mut world = world(9, class, usize::MAX);
        let (ana, backend) = (world.websocket("ana"), world.dial());
        world.settle();
        world.clients[ana].credit = Some(0);
        for n in 0..20 {
            send(&mut world, backend, "ana", n);
        }
        world.settle();
        assert!(world.metrics.sum(|shard| shard.outbox_bytes.get()) > 4_000);
        for _ in 0..20 {
            world.clients[ana].credit = Some(1);
            world.pass_ms(5_000);
        }
        assert_eq!(world.metrics.sum(|shard| shard.slow_closed.get()), u64::from(class == 0));
        if class == 0 {
            continue;
        }
        let waiting = world.metrics.sum(|shard| shard.outbox_bytes.get());
        world.clients[ana].credit = None;
        world.settle();
        let numbers: Vec<usize> = heard(&world, ana).iter().map(|heard| heard.n).collect();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{waiting} bytes waited");
    }
}

// --- All outboxes together -------------------------------------------------------------------------------------------

const MIB: usize = 1024 * 1024;

#[test]
fn above_the_bound_of_a_shard_the_largest_outboxes_are_shed_and_nobody_else() {
    for_each_seed(6, |seed| {
        let mut world = world(seed, 0, 2 * MIB);
        let backend = world.dial();
        let slow: Vec<ClientId> = (0..5).map(|n| world.websocket(&format!("slow{n}"))).collect();
        let (small, quick) = (world.websocket("small"), world.websocket("quick"));
        world.settle();
        for id in slow.iter().chain([&small]) {
            world.clients[*id].reads = false;
        }
        send(&mut world, backend, "small", 0);
        for n in 0..60 {
            send_large(&mut world, backend, &format!("slow{}", n % 5), n);
            send_large(&mut world, backend, "quick", n);
            world.settle();
            let room_bytes = world.metrics.sum(|shard| shard.outbox_room_bytes.get()) as usize;
            assert!(room_bytes <= 2 * MIB + 200_000, "seed {seed}: {room_bytes} bytes");
            world.pass_ms(limits::OUTBOX_SHED_PAUSE_MS);
        }
        let shed = world.metrics.sum(|shard| shard.outbox_shed.get());
        assert!((1..=5).contains(&shed), "seed {seed}: {shed}");
        assert_eq!(world.metrics.sum(|shard| shard.slow_closed.get()), shed);
        assert_eq!(heard(&world, quick).len(), 60);
        for id in slow.iter().chain([&small]) {
            world.clients[*id].reads = true;
        }
        world.settle();
        assert_eq!(heard(&world, small).len(), 1, "it held next to nothing");
        let closed = slow.iter().filter(|id| world.clients[**id].close_code() == Some(4008)).count();
        assert_eq!(closed as u64, shed);
        world.check_at_rest();
    });
}

#[test]
fn what_is_shed_of_mail_comes_when_it_is_read_again() {
    for_each_seed(6, |seed| {
        let class = 1 + seed as usize % 2;
        let mut world = world(seed, class, 2 * MIB);
        let backend = world.dial();
        let slow: Vec<ClientId> = (0..4).map(|n| world.websocket(&format!("slow{n}"))).collect();
        world.settle();
        for id in &slow {
            world.clients[*id].reads = false;
        }
        for n in 0..80 {
            send_large(&mut world, backend, &format!("slow{}", n % 4), n);
            world.settle();
            world.pass_ms(limits::OUTBOX_SHED_PAUSE_MS);
            let room_bytes = world.metrics.sum(|shard| shard.outbox_room_bytes.get()) as usize;
            assert!(room_bytes <= 2 * MIB + 200_000, "seed {seed}: {room_bytes} bytes");
        }
        assert!(world.metrics.sum(|shard| shard.outbox_shed.get()) > 0);
        let is_closed = |world: &World, id: ClientId| world.clients[id].close_code() == Some(4008);
        for id in &slow {
            assert!(!is_closed(&world, *id) || class == 2, "seed {seed}: mail that stands in no mailbox is put back");
            world.clients[*id].reads = true;
        }
        world.settle();
        for (at, id) in slow.iter().enumerate() {
            // Whose connection was closed comes back: there, or when all read their mailboxes at once, more than there is room for.
            let closed = is_closed(&world, *id);
            let mut ids = vec![*id];
            if closed {
                ids.push(world.websocket(&format!("slow{at}")));
                world.settle();
            }
            let of_all = ids.iter().flat_map(|id| heard(&world, *id));
            let numbers: Vec<usize> = of_all.map(|heard| heard.n).collect();
            let expected: Vec<usize> = (0..80).filter(|n| n % 4 == at).collect();
            let is_whole = numbers == expected || closed && class == 2 && numbers.ends_with(&expected);
            assert!(is_whole, "seed {seed}: {numbers:?}");
        }
    });
}

// --- Tenants ---------------------------------------------------------------------------------------------------------

/// Two tenants; the first has `members` connections, the second one.
fn tenants(seed: u64, members: usize) -> (World, Vec<ClientId>, ClientId) {
    let mut world = World::with_config(seed, 1, |config| {
        config.tenancy = true;
        config.connections_per_user_max = 0;
    });
    let (acme, bolt) = (world.token("ana", &[], Some("acme")), world.token("bo", &[], Some("bolt")));
    let crowd: Vec<ClientId> = (0..members).map(|_| world.websocket_as(&acme)).collect();
    let bolt = world.websocket_as(&bolt);
    world.settle();
    (world, crowd, bolt)
}

#[test]
fn a_flood_of_one_tenant_makes_another_wait_for_a_turn_and_no_more() {
    for_each_seed(3, |seed| {
        let (mut world, crowd, bolt) = tenants(seed, 40);
        // As if the shard delivered a twenty-fifth of what is published in one turn.
        world.shards[0].slice_deliveries(16_000);
        let flood = 10_000;
        for n in 0..flood {
            world.submit_to("acme", Target::Broadcast, n);
        }
        let waiting = world.shards[0].fanouts_waiting();
        assert!(waiting > flood - 500, "{waiting} wait");
        // Three publishes of the other tenant: at once, and in the turns that follow.
        for n in 0..3 {
            world.submit_to("bolt", Target::Broadcast, n);
            world.flush_all(0);
            world.turn(0);
            assert_eq!(world.clients[bolt].payloads().len(), n + 1, "seed {seed}: in the turn it was published");
        }
        assert!(world.shards[0].fanouts_waiting() > flood / 2, "the flood goes on");
        world.settle();
        let expected: Vec<String> = (0..flood).map(|n| n.to_string()).collect();
        for id in [crowd[0], crowd[39]] {
            assert_eq!(world.clients[id].payloads(), expected, "seed {seed}: each tenant's order is kept");
        }
    });
}

/// Two floods share a turn's budget, however long one of them is.
#[test]
fn tenants_that_flood_share_the_budget() {
    let (mut world, crowd, bolt) = tenants(5, 40);
    world.shards[0].slice_deliveries(3_200);
    for n in 0..1_000 {
        world.submit_to("acme", Target::Broadcast, n);
    }
    for n in 0..1_000 {
        world.submit_to("bolt", Target::Broadcast, n);
    }
    let before = world.clients[bolt].payloads().len();
    for _ in 0..4 {
        world.turn(0);
        world.flush_all(0);
    }
    let heard = world.clients[bolt].payloads().len();
    assert_eq!(heard, 1_000, "{before} before: half of the deliveries are this tenant's, and it has one member");
    assert!(world.clients[crowd[0]].payloads().len() < 500);
    world.settle();
}

#[test]
fn a_tenant_that_publishes_more_than_is_delivered_is_refused_alone() {
    let (mut world, _, bolt) = tenants(6, 20);
    world.shards[0].slice_deliveries(20);
    let backends = [world.dial(), world.dial()];
    for n in 0..limits::FANOUTS_PER_TENANT_MAX + 20 {
        world.submit_to("acme", Target::Broadcast, n);
    }
    assert!(world.shards[0].holds_guests_back(), "what brought them reads no more");
    assert!(!world.shards[0].congested() && !world.shards[0].saturated());
    for (tenant, backend) in ["acme", "bolt"].into_iter().zip(backends) {
        world.post_as(backend, tenant, "/api/v1/notifications/broadcast", r#"{"event_type":"e","payload":"rest"}"#);
        world.feed(backend);
    }
    world.turn(0);
    world.flush_all(0);
    let answers = backends.map(|backend| world.clients[backend].text());
    assert!(answers[0].contains("HTTP/1.1 503") && answers[0].contains("OVERLOADED"), "{}", answers[0]);
    assert!(answers[0].contains("retry-after: 1") && answers[0].contains("of this tenant"), "{}", answers[0]);
    assert!(answers[1].contains("HTTP/1.1 200"), "{}", answers[1]);
    assert_eq!(world.clients[bolt].payloads(), [r#""rest""#]);
    world.settle();
    assert!(!world.shards[0].holds_guests_back(), "half of them are through: it goes on");
    world.post_as(backends[0], "acme", "/api/v1/notifications/broadcast", r#"{"event_type":"e","payload":"rest"}"#);
    world.settle();
    assert!(world.clients[backends[0]].text().contains("HTTP/1.1 200"));
    assert!(world.metrics.held_back.is_empty());
}
