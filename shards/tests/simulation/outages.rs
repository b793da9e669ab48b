//! Stops, and stores that are down, restart, or have forgotten: what was accepted is not lost, and nothing spins meanwhile.
use crate::client::ClientId;
use crate::mail::{accepted, heard, numbers, send};
use crate::seeds::for_each_seed;
use crate::world::World;
use protocol::limits;
use shards::config::{AckRules, QueueRules, ShardConfig};
use std::collections::BTreeSet;

fn rules(with_ack: bool, change: impl Fn(&mut ShardConfig)) -> impl Fn(&mut ShardConfig) {
    move |config| {
        config.connections_per_user_max = 0;
        config.queue = Some(QueueRules { ttl_ms: 3_600_000 });
        config.ack = with_ack.then_some(AckRules { timeout_ms: 30_000, is_recorded: false });
        change(config);
    }
}

const USERS: [&str; 3] = ["ana", "bo", "cy"];

/// Users come and go, sends go on; whose sends go by which connection.
fn rage(world: &mut World, rounds: usize) -> Vec<ClientId> {
    let backends: Vec<ClientId> = USERS.iter().map(|_| world.dial()).collect();
    let mut clients: Vec<ClientId> = Vec::new();
    for n in 0..rounds {
        for (user, backend) in USERS.iter().zip(&backends) {
            send(world, *backend, user, n);
        }
        match world.rng.u8(0..5) {
            0 | 1 if clients.len() < 6 => {
                let user = USERS[world.rng.usize(0..USERS.len())];
                clients.push(if world.rng.bool() { world.sse(user, "") } else { world.websocket(user) });
            }
            2 if !clients.is_empty() => {
                let client = clients[world.rng.usize(0..clients.len())];
                world.clients[client].reads ^= true;
            }
            3 if !clients.is_empty() => {
                let client = clients.swap_remove(world.rng.usize(0..clients.len()));
                match world.rng.bool() {
                    true => world.clients[client].reset = true,
                    false => world.clients[client].send_frame(0x88, &1000u16.to_be_bytes()),
                }
            }
            _ => {}
        }
        let rounds = world.rng.usize(0..6);
        world.run(rounds);
    }
    backends
}

/// Which numbers a user's clients heard.
fn all_heard(world: &World, user: &str) -> BTreeSet<usize> {
    world.user_clients(user).into_iter().flat_map(|client| numbers(world, client)).collect()
}

fn stops_under_load(seed: u64, with_ack: bool, failures_percent: u8) {
    let change = rules(with_ack, |_| {});
    let mut world = World::with_config(seed, 1 + seed as usize % 3, &change);
    for store in &mut world.stores {
        (store.failures_percent, store.slowness_percent) = (failures_percent, (seed % 4) as u8 * 30);
    }
    let backends = rage(&mut world, 20);
    world.stop();
    for _ in 0..2_000 {
        if world.has_stopped() {
            break;
        }
        let says_bye = world.rng.usize(0..world.clients.len());
        if world.rng.u8(0..8) == 0 && world.clients[says_bye].reads {
            // A client that closes while its mail still waits.
            world.clients[says_bye].send_frame(0x88, &1001u16.to_be_bytes());
            world.clients[says_bye].hang_up = true;
        }
        let rounds = world.rng.usize(1..4);
        world.run(rounds);
        world.pass_ms_unsettled(25);
    }
    assert!(world.has_stopped(), "seed {seed}: the node does not stop");
    let accepted: Vec<Vec<bool>> = backends.iter().map(|backend| accepted(&world, *backend)).collect();
    let before: Vec<BTreeSet<usize>> = USERS.iter().map(|user| all_heard(&world, user)).collect();
    let mut world = world.after(&change);
    let clients: Vec<ClientId> = USERS.iter().map(|user| world.websocket(user)).collect();
    world.stores.iter_mut().for_each(|store| store.failures_percent = 0);
    world.settle();
    for (user, client) in clients.into_iter().enumerate() {
        let after: BTreeSet<usize> = numbers(&world, client).into_iter().collect();
        for (n, _) in accepted[user].iter().enumerate().filter(|(_, accepted)| **accepted) {
            let is_there = after.contains(&n) || !with_ack && before[user].contains(&n);
            assert!(is_there, "seed {seed}: {n} of {} was accepted and is lost", USERS[user]);
        }
    }
}

#[test]
fn a_stop_loses_no_mail_that_no_socket_took() {
    for_each_seed(150, |seed| stops_under_load(seed, false, 0));
}

#[test]
fn a_stop_loses_no_mail_that_is_not_acknowledged() {
    for_each_seed(100, |seed| stops_under_load(seed, true, 0));
}

#[test]
fn a_stop_while_the_store_fails_waits_for_it() {
    for_each_seed(100, |seed| stops_under_load(seed, seed % 2 == 0, 20));
}

/// The store's server restarts, stands still and fails for long while users come and go.
fn restarts(seed: u64, with_ack: bool) {
    let change = rules(with_ack, |_| {});
    let mut world = World::with_config(seed, 1 + seed as usize % 3, &change);
    let backends: Vec<ClientId> = USERS.iter().map(|_| world.dial()).collect();
    let mut clients: Vec<ClientId> = Vec::new();
    let rounds = 24;
    for n in 0..rounds {
        for (user, backend) in USERS.iter().zip(&backends) {
            send(&mut world, *backend, user, n);
        }
        let store = world.rng.usize(0..world.stores.len());
        match world.rng.u8(0..8) {
            0 => world.restart_store(store, false),
            1 => world.stores[store].failures_percent = 100,
            2 => world.stores[store].failures_percent = 0,
            3 => world.stores[store].slowness_percent = world.rng.u8(0..95),
            4 => {
                let ms = world.rng.u64(1..3_000);
                world.pass_ms_unsettled(ms);
            }
            5 if clients.len() < 5 => {
                let user = USERS[world.rng.usize(0..USERS.len())];
                clients.push(world.websocket(user));
            }
            6 if !clients.is_empty() => {
                let client = clients.swap_remove(world.rng.usize(0..clients.len()));
                world.clients[client].reset = true;
            }
            _ => {}
        }
        let rounds = world.rng.usize(0..6);
        world.run(rounds);
    }
    for store in &mut world.stores {
        (store.failures_percent, store.slowness_percent) = (0, 0);
    }
    for user in USERS {
        world.websocket(user);
    }
    world.pass_ms(3_000);
    for (user, backend) in USERS.iter().zip(&backends) {
        let accepted = accepted(&world, *backend);
        assert_eq!(accepted.len(), rounds, "seed {seed}: every send is answered once");
        let all = all_heard(&world, user);
        for (n, _) in accepted.iter().enumerate().filter(|(_, accepted)| **accepted) {
            assert!(all.contains(&n), "seed {seed}: {n} of {user} was accepted and never came");
        }
        for client in world.user_clients(user) {
            let mut seen = BTreeSet::new();
            for heard in heard(&world, client) {
                assert!(
                    seen.insert(heard.id) || heard.attempt > 1,
                    "seed {seed}: {} came twice and did not say so",
                    heard.n
                );
            }
        }
    }
}

#[test]
fn a_store_that_restarts_and_fails_for_long_loses_nothing_that_was_accepted() {
    for_each_seed(200, |seed| restarts(seed, seed % 2 == 0));
}

#[test]
fn a_store_that_forgets_takes_what_it_kept_and_nothing_else() {
    for_each_seed(60, |seed| {
        let with_ack = seed % 2 == 0;
        let mut world = World::with_config(seed, 1 + seed as usize % 3, rules(with_ack, |_| {}));
        let backends = rage(&mut world, 12);
        for at in 0..world.stores.len() {
            world.restart_store(at, true);
        }
        world.clients.iter_mut().for_each(|client| client.reads = true);
        let clients: Vec<ClientId> = USERS.iter().map(|user| world.websocket(user)).collect();
        world.pass_ms(3_000);
        for (user, backend) in USERS.iter().zip(&backends) {
            send(&mut world, *backend, user, 100);
        }
        world.pass_ms(1_000);
        for (client, backend) in clients.into_iter().zip(backends) {
            assert_eq!(numbers(&world, client).last(), Some(&100), "seed {seed}: mail goes on");
            assert_eq!(accepted(&world, backend).last(), Some(&true), "seed {seed}");
        }
    });
}

#[test]
fn an_outage_of_ten_seconds_costs_little_and_keeps_the_order() {
    let mut world = World::with_config(7, 1, rules(true, |_| {}));
    world.stores[0].failures_percent = 100;
    for n in 0..5_000 {
        world.submit(USERS[n % 3], n);
        if n < 3 {
            world.settle();
        }
        if n % 50 == 49 {
            world.pass_ms(100);
        }
    }
    let appends = world.stores[0].asked.appends;
    assert!(appends < 100, "{appends} requests while nothing could be kept");
    assert_eq!(world.metrics.sum(|shard| shard.queue_refused.get()), 0);
    world.stores[0].failures_percent = 0;
    world.pass_ms(2_000);
    assert!(world.stores[0].asked.appends < appends + 200, "{} requests to keep it all", world.stores[0].asked.appends);
    for (user, name) in USERS.iter().enumerate() {
        let client = world.websocket(name);
        world.settle();
        let first_times: Vec<usize> =
            heard(&world, client).iter().filter(|heard| heard.attempt == 1).map(|heard| heard.n).collect();
        assert!(first_times.is_sorted(), "{name}: {first_times:?}");
        let all: BTreeSet<usize> = numbers(&world, client).into_iter().collect();
        assert!(all.into_iter().eq((0..5_000).filter(|n| n % 3 == user)), "{name} has all of it");
    }
}

#[test]
fn what_waits_for_the_store_is_bounded_and_what_is_refused_is_counted() {
    let mut world = World::with_config(7, 1, rules(false, |_| {}));
    world.stores[0].failures_percent = 100;
    let more = 500;
    for n in 0..limits::STORE_RETRIES_MAX + more {
        world.submit("ana", n);
        if n % 500 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert_eq!(world.metrics.sum(|shard| shard.queue_refused.get()), more as u64);
}

#[test]
fn everybody_who_is_behind_waits_in_line_while_the_store_is_down() {
    let mut world = World::with_config(9, 1, rules(true, |config| config.heartbeat_interval_ms = 3_600_000));
    let backend = world.dial();
    let names: Vec<String> = (0..200).map(|n| format!("user-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        send(&mut world, backend, name, n);
    }
    world.settle();
    world.stores[0].failures_percent = 100;
    let clients: Vec<ClientId> = names.iter().map(|name| world.websocket(name)).collect();
    for _ in 0..30 {
        world.pass_ms(1_000);
    }
    let reads = world.stores[0].asked.reads;
    assert!(reads < 300, "{reads} readings in thirty seconds of outage");
    // Some lose patience; they leave nothing behind.
    for client in &clients[..100] {
        world.clients[*client].reset = true;
    }
    world.settle();
    world.stores[0].failures_percent = 0;
    world.pass_ms(1_500);
    for (n, client) in clients.iter().enumerate().skip(100) {
        assert_eq!(numbers(&world, *client), [n]);
    }
}

#[test]
fn a_publisher_is_not_told_that_nothing_happened_when_nobody_knows() {
    let mut world = World::with_config(5, 2, rules(false, |_| {}));
    world.stores.iter_mut().for_each(|store| store.is_paused = true);
    let backend = world.dial();
    send(&mut world, backend, "ana", 1);
    world.pass_ms(3_000);
    let text = world.clients[backend].text();
    assert!(text.contains("HTTP/1.1 503") && text.contains("QUEUE_ERROR") && text.contains("in time"), "{text}");
    world.stores.iter_mut().for_each(|store| store.is_paused = false);
    let ana = world.websocket("ana");
    world.settle();
    assert_eq!(numbers(&world, ana), [1], "and it came all the same");
}

// --- Templates of a store that outlives the process ------------------------------------------------------------------

const TEMPLATE: &str = r#"{"id":"t","name":"n","event_type":"e","payload_template":{"hello":"{{name}}"}}"#;
const BY_TEMPLATE: &str = r#"{"target_user_id":"ana","template_id":"t","variables":{"name":"Ana"}}"#;

fn kept(config: &mut ShardConfig) {
    config.templates_kept = true;
}

/// The statuses that a backend was answered with, in order.
fn statuses(world: &World, client: ClientId) -> Vec<u16> {
    let text = world.clients[client].text();
    text.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

#[test]
fn templates_that_were_kept_are_there_after_a_restart_and_nobody_is_told_otherwise_before() {
    for_each_seed(40, |seed| {
        let mut world = World::with_config(seed, 1 + seed as usize % 4, kept);
        world.pass_ms(100);
        let backend = world.dial();
        world.post(backend, "/api/v1/templates", TEMPLATE);
        world.settle();
        assert_eq!(statuses(&world, backend), [201], "seed {seed}");
        let mut world = world.after(kept);
        world.stores.iter_mut().for_each(|store| store.failures_percent = 100);
        let ana = world.websocket("ana");
        world.settle();
        let backend = world.dial();
        world.get(backend, "/api/v1/templates/t");
        world.get(backend, "/api/v1/templates");
        world.post(backend, "/api/v1/templates", TEMPLATE);
        world.post(backend, "/api/v1/notifications/send", BY_TEMPLATE);
        world.post(backend, "/api/v1/notifications/send", r#"{"target_user_id":"ana","event_type":"e","payload":1}"#);
        world.pass_ms(3_000);
        assert_eq!(statuses(&world, backend), [503, 503, 503, 503, 200], "seed {seed}");
        assert!(world.clients[backend].text().contains("The templates are still being loaded"), "seed {seed}");
        assert!(world.stores.iter().all(|store| store.asked.loads < 10), "seed {seed}: asked again and again");
        world.stores.iter_mut().for_each(|store| store.failures_percent = 0);
        world.pass_ms(1_000);
        world.get(backend, "/api/v1/templates/t");
        world.post(backend, "/api/v1/templates", TEMPLATE);
        world.post(backend, "/api/v1/notifications/send", BY_TEMPLATE);
        world.settle();
        assert_eq!(statuses(&world, backend)[5..], [200, 409, 200], "seed {seed}");
        assert_eq!(world.clients[ana].payloads(), ["1", r#"{"hello":"Ana"}"#], "seed {seed}");
    });
}

#[test]
fn what_changes_while_a_shard_still_loads_is_newer() {
    for_each_seed(60, |seed| {
        let mut world = World::with_config(seed, 4, kept);
        world.pass_ms(100);
        let backend = world.dial();
        world.post(backend, "/api/v1/templates", TEMPLATE);
        world.post(backend, "/api/v1/templates", &TEMPLATE.replace(r#""t""#, r#""u""#));
        world.settle();
        let mut world = world.after(kept);
        let owner = shards::tables::placement::line("default", 4).index();
        // The owner has its answer; another shard's is on its way, and was made before what comes now.
        let late = (owner + 1) % 4;
        world.stores[late].slowness_percent = 100;
        world.pass_ms_unsettled(25);
        while world.stores.iter().enumerate().any(|(at, store)| at != late && !store.is_idle()) {
            world.run(1);
        }
        let unix_ns = world.now().unix_ns;
        world.stores[late].reads_ahead(unix_ns);
        let backend = world.dial_to(owner);
        world.clients[backend].send("DELETE /api/v1/templates/t HTTP/1.1\r\nhost: world\r\n\r\n");
        world.clients[backend]
            .send("PUT /api/v1/templates/u HTTP/1.1\r\nhost: world\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{\"name\":\"new\"}");
        while statuses(&world, backend).len() < 2 {
            world.run(1);
        }
        assert_eq!(statuses(&world, backend), [204, 200], "seed {seed}");
        world.stores[late].slowness_percent = 0;
        world.pass_ms(1_000);
        let there = world.dial_to(late);
        world.get(there, "/api/v1/templates/t");
        world.get(there, "/api/v1/templates/u");
        world.settle();
        assert_eq!(statuses(&world, there), [404, 200], "seed {seed}");
        assert!(world.clients[there].text().contains(r#""name":"new""#), "seed {seed}");
    });
}

#[test]
fn templates_and_mail_are_answered_apart() {
    let mut world = World::with_config(4, 1, rules(false, |_| {}));
    let backends: Vec<ClientId> = (0..40).map(|_| world.dial()).collect();
    // All of them are on their way at the same time: none may take another's answer.
    world.stores[0].is_paused = true;
    for (n, backend) in backends.iter().enumerate() {
        let template = TEMPLATE.replace(r#""t""#, &format!(r#""t{n}""#));
        match n < 20 {
            true => world.post(*backend, "/api/v1/templates", &template),
            false => send(&mut world, *backend, "ana", n),
        }
        world.settle();
    }
    world.stores[0].is_paused = false;
    world.settle();
    for (n, backend) in backends.iter().enumerate() {
        assert_eq!(statuses(&world, *backend), [if n < 20 { 201 } else { 200 }], "{n}");
    }
    let ana = world.websocket("ana");
    world.settle();
    assert_eq!(numbers(&world, ana), (20..40).collect::<Vec<_>>());
}

// --- Acknowledgements recorded elsewhere -----------------------------------------------------------------------------

fn ack(world: &mut World, client: ClientId, id: &str) -> String {
    let before = world.clients[client].messages().len();
    world.clients[client].say(&format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#));
    world.settle();
    world.clients[client].messages()[before..].concat()
}

#[test]
fn an_acknowledgement_of_another_process_is_decided_by_the_store() {
    let recorded = |config: &mut ShardConfig| config.ack = Some(AckRules { timeout_ms: 30_000, is_recorded: true });
    let mut world = World::with_config(3, 2, recorded);
    let (ana, bo) = (world.websocket("ana"), world.websocket("bo"));
    let backend = world.dial();
    world.settle();
    for n in 0..3 {
        let body = format!(r#"{{"event_type":"e","payload":{n}}}"#);
        world.post(backend, "/api/v1/notifications/broadcast", &body);
    }
    world.settle();
    assert_eq!(world.stores.iter().map(|store| store.asked.notes).sum::<usize>(), 6);
    let ids: Vec<String> = heard(&world, ana).into_iter().map(|heard| heard.id).collect();
    assert!(ack(&mut world, ana, &ids[0]).contains("acked"));
    assert_eq!(world.stores.iter().map(|store| store.asked.acknowledgements).sum::<usize>(), 1, "recorded there, too");
    assert!(ack(&mut world, ana, &ids[0]).contains("INVALID_ACK"), "its second");
    assert_eq!(world.stores.iter().map(|store| store.asked.acknowledgements).sum::<usize>(), 1, "known here");
    assert_eq!(heard(&world, bo).len(), 3);

    let mut world = world.after(recorded);
    let (ana, laptop) = (world.websocket("ana"), world.websocket("ana"));
    world.settle();
    assert!(ack(&mut world, ana, &ids[1]).contains("acked"));
    assert!(ack(&mut world, ana, &ids[1]).contains("INVALID_ACK"), "its second");
    assert!(ack(&mut world, laptop, &ids[1]).contains("acked"), "another device's first");
    assert!(ack(&mut world, ana, &ids[0]).contains("INVALID_ACK"), "acknowledged before the restart");
    world.stores.iter_mut().for_each(|store| store.failures_percent = 100);
    let answer = ack(&mut world, ana, &ids[2]);
    assert!(answer.contains("INVALID_ACK") && answer.contains("please repeat it"), "{answer}");
    assert_eq!(world.metrics.sum(|shard| shard.ack_unrecorded.get()), 1);
}

#[test]
fn notes_that_the_store_does_not_take_are_counted_and_hold_nobody_back() {
    let recorded = |config: &mut ShardConfig| config.ack = Some(AckRules { timeout_ms: 3_600_000, is_recorded: true });
    let mut world = World::with_config(3, 1, recorded);
    let ana = world.websocket("ana");
    world.settle();
    world.stores[0].is_paused = true;
    let count = limits::STORE_NOTES_UNDER_WAY_MAX + limits::STORE_NOTES_MAX + 10;
    for n in 0..count {
        world.submit("ana", n);
        if n % 500 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert_eq!(numbers(&world, ana).len(), count);
    assert_eq!(world.metrics.sum(|shard| shard.ack_unrecorded.get()), 10);
    assert!(!world.shards[0].congested());
    assert_eq!(world.stores[0].asked.notes, limits::STORE_NOTES_UNDER_WAY_MAX);
    world.stores[0].is_paused = false;
    world.settle();
    assert_eq!(world.stores[0].asked.notes, count - 10, "what waited is noted when the store is back");
}

#[test]
fn acknowledged_mail_is_forgotten_in_the_end_however_often_the_store_fails() {
    for_each_seed(20, |seed| {
        let kept = |config: &mut ShardConfig| {
            config.queue = Some(QueueRules { ttl_ms: 3_600_000 });
            config.ack = Some(AckRules { timeout_ms: 3_600_000, is_recorded: false });
        };
        let mut world = World::with_config(seed, 1, kept);
        for n in 0..200 {
            world.submit("ana", n);
        }
        world.settle();
        let ana = world.websocket("ana");
        world.settle();
        let ids: Vec<String> = heard(&world, ana).into_iter().map(|heard| heard.id).collect();
        assert_eq!(ids.len(), 200, "seed {seed}");
        world.stores[0].failures_percent = 70;
        for id in &ids {
            world.clients[ana].say(&format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#));
        }
        world.settle();
        world.stores[0].failures_percent = 0;
        world.pass_ms(limits::STORE_RETRY_MS);
        world.settle();
        assert_eq!(world.stores[0].len(), 0, "seed {seed}");
        let laptop = world.websocket("ana");
        world.settle();
        assert_eq!(heard(&world, laptop).len(), 0, "seed {seed}");
    });
}
