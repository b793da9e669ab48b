//! User mail: offline, flapping, slow and several devices; a store that is late and fails. What was accepted arrives; in
//! order; what comes twice says so.
use crate::client::ClientId;
use crate::seeds::for_each_seed;
use crate::world::World;
use protocol::limits;
use shards::config::{AckRules, QueueRules};
use std::collections::BTreeSet;

fn world(seed: u64, shards: usize, with_ack: bool) -> World {
    World::with_config(seed, shards, |config| {
        config.connections_per_user_max = 0;
        config.queue = Some(QueueRules { ttl_ms: 3_600_000 });
        config.ack = with_ack.then_some(AckRules { timeout_ms: 30_000, is_recorded: false });
    })
}

pub(crate) fn send(world: &mut World, backend: ClientId, user: &str, n: usize) {
    send_as(world, backend, user, n, "Normal");
}

pub(crate) fn send_as(world: &mut World, backend: ClientId, user: &str, n: usize, priority: &str) {
    let body = format!(r#"{{"target_user_id":"{user}","event_type":"e","payload":{n},"priority":"{priority}"}}"#);
    world.post(backend, "/api/v1/notifications/send", &body);
}

/// A notification as a client heard it.
pub(crate) struct Heard {
    pub(crate) id: String,
    pub(crate) n: usize,
    pub(crate) attempt: u32,
    pub(crate) is_urgent: bool,
}

pub(crate) fn heard(world: &World, client: ClientId) -> Vec<Heard> {
    let text = world.clients[client].text();
    let after = |part: &str, mark: &str| part.split_once(mark).map(|(_, rest)| rest.to_owned());
    let number = |text: String| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    text.split(r#"{"type":"notification","id":""#)
        .skip(1)
        .filter(|part| part.contains("}}"))
        .map(|part| Heard {
            id: part[..36].to_owned(),
            n: after(part, r#""payload":"#).and_then(number).expect("a numbered payload"),
            attempt: after(part, r#""attempt":"#).and_then(number).unwrap_or(1) as u32,
            is_urgent: part.contains(r#""priority":"High""#) || part.contains(r#""priority":"Critical""#),
        })
        .collect()
}

pub(crate) fn numbers(world: &World, client: ClientId) -> Vec<usize> {
    heard(world, client).into_iter().map(|heard| heard.n).collect()
}

/// Which of the sends on a kept connection were answered with success, in order.
pub(crate) fn accepted(world: &World, backend: ClientId) -> Vec<bool> {
    let text = world.clients[backend].text();
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer.contains(r#""success":true"#)).collect()
}

#[test]
fn a_backlog_comes_first_and_whole_while_more_is_published() {
    for (seed, with_ack) in (0..40).map(|seed| (seed, seed % 2 == 0)) {
        let mut world = world(seed, 1 + seed as usize % 3, with_ack);
        let backend = world.dial();
        for n in 0..200 {
            send(&mut world, backend, "ana", n);
        }
        world.settle();
        let ana = if seed % 3 == 0 { world.sse("ana", "") } else { world.websocket("ana") };
        for n in 200..300 {
            send(&mut world, backend, "ana", n);
        }
        world.settle();
        assert_eq!(numbers(&world, ana), (0..300).collect::<Vec<_>>(), "seed {seed}");
        assert!(heard(&world, ana).iter().all(|heard| heard.attempt == 1), "seed {seed}: each for the first time");
        send(&mut world, backend, "ana", 300);
        world.settle();
        assert_eq!(numbers(&world, ana).last(), Some(&300), "seed {seed}: the connection stays usable");
        let kept: usize = world.stores.iter().map(|store| store.len()).sum();
        assert_eq!(kept, if with_ack { 301 } else { 0 }, "seed {seed}: trimmed by delivery, or by acknowledgement");
    }
}

#[test]
fn an_answer_says_what_was_delivered_and_what_was_kept() {
    let mut world = world(1, 2, false);
    let backend = world.dial();
    send(&mut world, backend, "ana", 1);
    world.settle();
    assert!(world.clients[backend].text().contains(r#""success":true"#));
    assert!(world.clients[backend].text().contains(r#""delivered_to":0,"failed":0,"queued":1"#));
    for store in &mut world.stores {
        store.failures_percent = 100;
    }
    send(&mut world, backend, "bo", 2);
    world.settle();
    let text = world.clients[backend].text();
    assert!(text.contains("HTTP/1.1 503") && text.contains("QUEUE_ERROR"), "{text}");
}

/// Everybody connects, disconnects, resets and stops reading at random; the store is late and fails.
fn flapping(seed: u64, with_ack: bool, failures_percent: u8) {
    let mut world = world(seed, 1 + seed as usize % 3, with_ack);
    for store in &mut world.stores {
        store.failures_percent = failures_percent;
    }
    let users = ["ana", "bo"];
    let backends: Vec<ClientId> = users.iter().map(|_| world.dial()).collect();
    let mut clients: Vec<(usize, ClientId)> = Vec::new();
    let mut acked: BTreeSet<(ClientId, String)> = BTreeSet::new();
    let rounds = 40;
    for n in 0..rounds {
        for (user, backend) in backends.iter().enumerate() {
            let priority = ["Low", "Normal", "Normal", "High", "Critical"][world.rng.usize(0..5)];
            send_as(&mut world, *backend, users[user], n, priority);
        }
        match world.rng.u8(0..6) {
            0 | 1 => {
                let user = world.rng.usize(0..users.len());
                let open = clients.iter().filter(|(of, id)| *of == user && world.clients[*id].place.is_some()).count();
                if open < 4 {
                    let id = if world.rng.bool() && !with_ack {
                        world.sse(users[user], "")
                    } else {
                        world.websocket(users[user])
                    };
                    clients.push((user, id));
                }
            }
            2 if !clients.is_empty() => {
                let at = world.rng.usize(0..clients.len());
                let (_, id) = clients.swap_remove(at);
                match world.rng.u8(0..3) {
                    0 => world.clients[id].reset = true,
                    1 => world.clients[id].hang_up = true,
                    _ => world.clients[id].send_frame(0x88, &1000u16.to_be_bytes()),
                }
                clients.push((usize::MAX, id));
            }
            _ => {}
        }
        for _ in 0..world.rng.u8(0..6) {
            world.step();
        }
        if with_ack {
            acknowledge(&mut world, &clients, &mut acked, false);
        }
    }
    // The weather clears: the store works, everybody comes back and stays until nothing is left.
    for store in &mut world.stores {
        store.failures_percent = 0;
    }
    world.settle();
    for (user, name) in users.iter().enumerate() {
        let id = world.websocket(name);
        clients.push((user, id));
    }
    for _ in 0..8 {
        world.pass_ms(5_000);
        if with_ack {
            acknowledge(&mut world, &clients, &mut acked, true);
            world.settle();
        }
    }
    for (user, backend) in backends.iter().enumerate() {
        let accepted = accepted(&world, *backend);
        assert_eq!(accepted.len(), rounds, "seed {seed}: every send is answered once");
        let of_user: Vec<ClientId> = world.user_clients(users[user]);
        let mut all = BTreeSet::new();
        for id in of_user {
            // Order is kept in each class.
            let mut lasts = [None; 2];
            let mut seen = BTreeSet::new();
            for heard in heard(&world, id) {
                if !seen.insert(heard.id.clone()) {
                    assert!(
                        heard.attempt > 1,
                        "seed {seed}: {} came twice on one connection and did not say so",
                        heard.n
                    );
                } else if heard.attempt == 1 {
                    let last = &mut lasts[usize::from(heard.is_urgent)];
                    assert!(*last < Some(heard.n), "seed {seed}: {} after {last:?}", heard.n);
                    *last = Some(heard.n);
                }
                all.insert(heard.n);
            }
        }
        for (n, accepted) in accepted.iter().enumerate() {
            assert!(!accepted || all.contains(&n), "seed {seed}: {} of {} was accepted and never came", n, users[user]);
        }
        if with_ack {
            let done = acknowledged(&world, users[user], &acked);
            for (n, accepted) in accepted.iter().enumerate() {
                assert!(!accepted || done.contains(&n), "seed {seed}: {n} of {} was never acknowledged", users[user]);
            }
        }
    }
    let kept: usize = world.stores.iter().map(|store| store.len()).sum();
    assert_eq!(kept, 0, "seed {seed}: everything was delivered or acknowledged");
}

/// The numbers that a user has acknowledged, on any device: it was told so, or it said so and left before it could be told.
fn acknowledged(world: &World, user: &str, said: &BTreeSet<(ClientId, String)>) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    for id in world.user_clients(user) {
        let (client, text) = (&world.clients[id], world.clients[id].text());
        for heard in heard(world, id) {
            let told = format!(r#"{{"type":"acked","notification_id":"{}"}}"#, heard.id);
            if text.contains(&told) || client.place.is_none() && said.contains(&(id, heard.id.clone())) {
                numbers.insert(heard.n);
            }
        }
    }
    numbers
}

/// Clients acknowledge what they heard: some of it, or all.
fn acknowledge(world: &mut World, clients: &[(usize, ClientId)], acked: &mut BTreeSet<(ClientId, String)>, all: bool) {
    for (_, id) in clients {
        if world.clients[*id].place.is_none() || world.clients[*id].hang_up {
            continue;
        }
        for heard in heard(world, *id) {
            if (all || world.rng.bool()) && acked.insert((*id, heard.id.clone())) {
                let text = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{}"}}}}"#, heard.id);
                world.clients[*id].say(&text);
            }
        }
    }
}

#[test]
fn what_was_accepted_arrives_though_everybody_flaps() {
    for_each_seed(300, |seed| flapping(seed, false, 0));
}

#[test]
fn what_was_accepted_is_acknowledged_in_the_end() {
    for_each_seed(300, |seed| flapping(seed, true, 0));
}

#[test]
fn a_store_that_fails_refuses_and_loses_nothing_it_accepted() {
    for_each_seed(200, |seed| flapping(seed, true, 20));
}

#[test]
fn a_slow_reader_falls_behind_and_catches_up_without_loss() {
    for seed in 0..10 {
        let mut world = world(seed, 1, seed % 2 == 0);
        let ana = world.websocket("ana");
        let backend = world.dial();
        world.settle();
        world.clients[ana].reads = false;
        let pad = "x".repeat(60_000);
        let count = 2 * limits::OUTBOX_BYTES_MAX / pad.len();
        for n in 0..count {
            let body = format!(r#"{{"target_user_id":"ana","event_type":"e{pad}","payload":{n}}}"#);
            world.post(backend, "/api/v1/notifications/send", &body);
            world.settle();
        }
        world.clients[ana].reads = true;
        world.settle();
        assert_eq!(numbers(&world, ana), (0..count).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(accepted(&world, backend), vec![true; count], "seed {seed}");
    }
}

#[test]
fn what_is_not_acknowledged_in_time_comes_again_and_says_so() {
    let mut world = world(5, 2, true);
    let (phone, laptop) = (world.websocket("ana"), world.websocket("ana"));
    let backend = world.dial();
    world.settle();
    send(&mut world, backend, "ana", 7);
    world.settle();
    assert_eq!((numbers(&world, phone), numbers(&world, laptop)), (vec![7], vec![7]));
    world.pass_ms(31_000);
    let all: Vec<Heard> = heard(&world, phone).into_iter().chain(heard(&world, laptop)).collect();
    assert!(all.len() > 2 && all.iter().filter(|heard| heard.attempt > 1).count() == all.len() - 2);
    let id = all[0].id.clone();
    let ack = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
    for client in [phone, laptop, laptop] {
        world.clients[client].say(&ack);
        world.settle();
    }
    let answers = |client: ClientId| {
        world.clients[client]
            .messages()
            .into_iter()
            .filter(|text| text.contains("acked") || text.contains("INVALID_ACK"))
    };
    assert_eq!(answers(phone).collect::<Vec<_>>(), [format!(r#"{{"type":"acked","notification_id":"{id}"}}"#)]);
    let on_laptop: Vec<String> = answers(laptop).collect();
    assert!(on_laptop[0].contains("acked") && on_laptop[1].contains("INVALID_ACK"), "{on_laptop:?}");
    let before = heard(&world, phone).len();
    world.pass_ms(65_000);
    assert_eq!(heard(&world, phone).len(), before, "acknowledged once is acknowledged for all");
}

#[test]
fn tracked_but_not_kept_is_acknowledged_in_time_or_not_at_all() {
    let mut world =
        World::with_config(5, 2, |config| config.ack = Some(AckRules { timeout_ms: 1_000, is_recorded: false }));
    let (ana, bo) = (world.websocket("ana"), world.websocket("bo"));
    let backend = world.dial();
    world.settle();
    world.post(backend, "/api/v1/notifications/broadcast", r#"{"event_type":"e","payload":1}"#);
    world.settle();
    let id = heard(&world, ana)[0].id.clone();
    let ack = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
    world.clients[ana].say(&ack);
    world.settle();
    assert!(world.clients[ana].text().contains("acked"), "each recipient of a broadcast can acknowledge");
    world.pass_ms(35_000);
    world.clients[bo].say(&ack);
    world.settle();
    assert!(world.clients[bo].text().contains("INVALID_ACK"), "too late");
    let figures = |of: fn(&shards::metrics::ShardMetrics) -> u64| world.metrics.sum(of);
    assert_eq!((figures(|m| m.ack_tracked.get()), figures(|m| m.ack_received.get())), (2, 1));
    assert_eq!((figures(|m| m.ack_expired.get()), figures(|m| m.ack_pending.get())), (1, 0));
}

#[test]
fn a_store_that_stands_still_holds_publishers_back_and_loses_nothing() {
    let mut world = world(3, 1, true);
    world.stores[0].is_paused = true;
    let backends: Vec<ClientId> = (0..20).map(|_| world.dial()).collect();
    let mut count = 0;
    while !world.shards[0].congested() {
        for _ in 0..1_000 {
            world.submit("ana", count);
            count += 1;
        }
        assert!(count < 100_000, "{count} are on their way and nobody is held back");
    }
    send(&mut world, backends[0], "ana", 0);
    world.settle();
    assert!(world.clients[backends[0]].text().contains("HTTP/1.1 503"), "{}", world.clients[backends[0]].text());
    world.stores[0].is_paused = false;
    world.settle();
    assert!(!world.shards[0].congested());
    let ana = world.websocket("ana");
    world.settle();
    assert_eq!(numbers(&world, ana), (0..count).collect::<Vec<_>>());
}

#[test]
fn what_a_full_mailbox_let_go_is_awaited_no_longer() {
    let mut world = world(6, 1, true);
    world.stores[0].entries_max = 3;
    let ana = world.websocket("ana");
    let backend = world.dial();
    world.settle();
    for n in 0..5 {
        send(&mut world, backend, "ana", n);
    }
    world.settle();
    world.pass_ms(45_000);
    let again: Vec<(usize, u32)> =
        heard(&world, ana).iter().filter(|heard| heard.attempt > 1).map(|heard| (heard.n, heard.attempt)).collect();
    assert_eq!(again, [(2, 2), (3, 2), (4, 2)], "once each, those that are still kept");
    let figures = |of: fn(&shards::metrics::ShardMetrics) -> u64| world.metrics.sum(of);
    assert_eq!((figures(|m| m.ack_pending.get()), figures(|m| m.ack_expired.get())), (3, 2));
    let attempts: Vec<u32> = world.stores[0]
        .kept
        .borrow()
        .mailboxes
        .values()
        .flat_map(|kept| kept.values().map(|entry| entry.mail.attempts))
        .collect();
    assert_eq!(attempts, [2, 2, 2], "the mailbox was read once more, not at every tick");
}
