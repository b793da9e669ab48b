//! Streams: each user's mail, each channel and a tenant's broadcasts are numbered by their owner, densely and in order; a
//! number stays with its notification through mailboxes and repetitions.
use crate::client::ClientId;
use crate::mail::{accepted, heard};
use crate::seeds::for_each_seed;
use crate::world::World;
use protocol::stream::{Places, StreamSeq};
use shards::config::{AckRules, QueueRules};
use std::collections::{BTreeMap, BTreeSet};

/// To whom; the first of the pair is what its streams are called.
const TARGETS: [(&[&str], &str, &str); 6] = [
    (&["ana"], "send", r#""target_user_id":"ana""#),
    (&["bo"], "send", r#""target_user_id":"bo""#),
    (&["ana", "bo", "cy"], "send-to-users", r#""target_user_ids":["ana","bo","cy"]"#),
    (&["#a"], "channel", r#""channel":"a""#),
    (&["#a", "#b"], "channels", r#""channels":["a","b"]"#),
    (&["*"], "broadcast", r#""x":0"#),
];

const USERS: [&str; 3] = ["ana", "bo", "cy"];

fn numbered(seed: u64) {
    let class = seed % 3;
    let mut world = World::with_config(seed, 1 + seed as usize % 4, |config| {
        config.connections_per_user_max = 0;
        config.queue = (class > 0).then_some(QueueRules { ttl_ms: 3_600_000 });
        config.ack = (class > 1).then_some(AckRules { timeout_ms: 2_000, is_recorded: false });
    });
    world.watches = true;
    let mut clients: Vec<(usize, ClientId)> = Vec::new();
    let mut backends: Vec<(usize, ClientId)> = Vec::new();
    for round in 0..30 {
        let at = world.rng.usize(0..TARGETS.len());
        let backend = world.dial();
        let (_, path, target) = TARGETS[at];
        let body = format!(r#"{{{target},"event_type":"e","payload":{round}}}"#);
        world.post(backend, &format!("/api/v1/notifications/{path}"), &body);
        backends.push((at, backend));
        match world.rng.u8(0..6) {
            0 | 1 => {
                let user = world.rng.usize(0..USERS.len());
                clients.push((user, world.sse(USERS[user], "a,b")));
            }
            2 if !clients.is_empty() => {
                let (_, client) = clients[world.rng.usize(0..clients.len())];
                world.clients[client].reset = true;
            }
            3 if !clients.is_empty() => {
                let (_, client) = clients[world.rng.usize(0..clients.len())];
                world.clients[client].reads ^= true;
            }
            _ => {}
        }
        let rounds = world.rng.usize(0..5);
        world.run(rounds);
    }
    world.clients.iter_mut().for_each(|client| client.reads = true);
    for (user, name) in USERS.iter().enumerate() {
        clients.push((user, world.sse(name, "a,b")));
    }
    world.pass_ms(5_000);
    // What each publish was called, by its answer.
    let mut targets = BTreeMap::new();
    for (at, backend) in backends {
        assert_eq!(accepted(&world, backend).len(), 1, "seed {seed}: answered once");
        let text = world.clients[backend].text();
        let id = text.split(r#""notification_id":""#).nth(1).map(|rest| rest[..36].to_owned());
        targets.insert(id.expect("an id"), at);
    }
    let mut streams: BTreeMap<&str, BTreeMap<StreamSeq, String>> = BTreeMap::new();
    let mut note = |stream: &'static str, place: StreamSeq, id: &str| {
        assert!(place.epoch > 0 && place.seq > 0, "seed {seed}: {id} is not numbered in {stream}");
        let held = streams.entry(stream).or_default().entry(place).or_insert_with(|| id.to_owned());
        assert_eq!(held, id, "seed {seed}: the same place in {stream}: {place:?}");
    };
    for (user, client) in &clients {
        // What had begun to go out to somebody who then left comes behind what was put back before it, and says so.
        let again: BTreeSet<String> =
            heard(&world, *client).into_iter().filter(|heard| heard.attempt > 1).map(|heard| heard.id).collect();
        let mut last: BTreeMap<&str, StreamSeq> = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for (id, places) in world.seen.get(client).into_iter().flatten() {
            let first = ids.entry(*id).or_insert_with(|| places.clone());
            assert_eq!(first, places, "seed {seed}: a repetition has another number");
            let id = id.to_string();
            let names = TARGETS[targets[&id]].0;
            let places: Vec<(&'static str, StreamSeq)> = match places {
                Places::Each(places) => names.iter().copied().zip(places.iter().copied()).collect(),
                Places::One(place) if names.len() > 1 => vec![(USERS[*user], *place)],
                Places::One(place) => vec![(names[0], *place)],
            };
            for (stream, place) in places {
                note(stream, place, &id);
                if !again.contains(&id) {
                    let before = last.insert(stream, place);
                    assert!(before < Some(place), "seed {seed}: {stream}: {place:?} after {before:?}");
                }
            }
        }
    }
    for (mailbox, mail) in world.stores.iter().flat_map(|store| store.kept.borrow().kept_ever.clone()) {
        let user = USERS.into_iter().find(|user| **user == *mailbox.user).expect("a user");
        note(user, mail.stream, &mail.id.to_string());
    }
    for (stream, places) in &streams {
        let epochs: BTreeSet<u64> = places.keys().map(|place| place.epoch).collect();
        assert_eq!(epochs.len(), 1, "seed {seed}: {stream} was not forgotten");
        let last = places.keys().last().map_or(0, |place| place.seq);
        let sent = targets.values().filter(|at| TARGETS[**at].0.contains(stream)).count() as u64;
        assert!(last <= sent, "seed {seed}: {stream} was counted further than {sent}: {last}");
        // With a mailbox nothing of a user is missing; what was live only may have met nobody.
        if class > 0 && USERS.contains(stream) {
            assert_eq!(places.len() as u64, sent, "seed {seed}: {stream} has holes");
        }
    }
}

#[test]
fn every_stream_is_dense_and_a_number_stays_with_its_notification() {
    for_each_seed(150, numbered);
}

#[test]
fn a_listener_who_is_always_there_sees_no_hole() {
    for_each_seed(20, |seed| {
        let mut world = World::new(seed, 1 + seed as usize % 4);
        world.watches = true;
        let ana = world.sse("ana", "a,b");
        world.settle();
        let backend = world.dial();
        for n in 0..60 {
            let (_, path, target) = TARGETS[[0, 2, 3, 4, 5][n % 5]];
            let body = format!(r#"{{{target},"event_type":"e","payload":{n}}}"#);
            world.post(backend, &format!("/api/v1/notifications/{path}"), &body);
        }
        world.settle();
        let seen = &world.seen[&ana];
        assert_eq!(seen.len(), 60, "seed {seed}");
        let mut counts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (_, places) in seen {
            let places = match places {
                Places::One(place) => std::slice::from_ref(place),
                Places::Each(places) => places,
            };
            places.iter().for_each(|place| counts.entry(place.epoch).or_default().push(place.seq));
        }
        // Ana's mail, the broadcasts, `a` and `b`; `a` gets two of five.
        let mut lens: Vec<usize> = counts.values().map(Vec::len).collect();
        lens.sort_unstable();
        assert_eq!(lens, [12, 12, 24, 24], "seed {seed}");
        assert!(counts.values().all(|seqs| seqs.iter().copied().eq(1..=seqs.len() as u64)), "seed {seed}: {counts:?}");
    });
}
