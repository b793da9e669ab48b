use super::*;
use protocol::cluster::wire::Published;
use protocol::ids::{TenantId, uuid_v7};
use protocol::notification::Priority;
use protocol::stream::StreamSeq;
use std::collections::BTreeMap;

fn id(n: u64) -> NotificationId {
    NotificationId(uuid_v7(n, [0; 10]))
}

fn at(ms: u64) -> Now {
    Now { mono_us: ms * 1_000, unix_ns: 0 }
}

/// A publish to channels that are called like their partitions.
fn publication(from: &str, n: u64, channels: &[usize]) -> Parcel {
    let target = match channels {
        [one] => Target::Channel(one.to_string().into()),
        several => Target::Channels(several.iter().map(|one| one.to_string().into()).collect()),
    };
    let published = Published {
        id: id(n),
        tenant: TenantId::default_tenant(),
        priority: Priority::Normal,
        expires_at_unix_ms: None,
        stream: StreamSeq::default(),
        ticket: None,
        message: n.to_string().into(),
    };
    let kind = ParcelKind::Publication { target, audience: None, published };
    Parcel { from_server: from.into(), to_server: None, kind }
}

fn fence(from: &str, n: u64, partitions: &[usize]) -> Parcel {
    let kind = ParcelKind::Fence { id: id(n), partitions: partitions.iter().map(|nth| *nth as u8).collect() };
    Parcel { from_server: from.into(), to_server: None, kind }
}

/// What a sender puts into the partitions for one publish.
fn send(from: &str, n: u64, channels: &[usize], mut put: impl FnMut(usize, Parcel)) {
    if channels.len() > 1 {
        channels.iter().for_each(|nth| put(*nth, fence(from, n, channels)));
    }
    put(channels[0], publication(from, n, channels));
}

fn numbers(out: &mut Vec<Parcel>) -> Vec<u64> {
    std::mem::take(out).iter().map(number).collect()
}

fn number(parcel: &Parcel) -> u64 {
    match &parcel.kind {
        ParcelKind::Publication { published, .. } => published.message.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn all_up() -> Fences {
    let mut fences = Fences::default();
    (0..PARTITIONS).for_each(|nth| fences.up(nth));
    fences
}

#[test]
fn what_comes_behind_a_fence_waits_for_it_and_what_comes_before_does_not() {
    let (mut fences, mut out) = (all_up(), Vec::new());
    fences.heard(at(0), 3, publication("n2", 1, &[3]), &mut out);
    fences.heard(at(0), 3, fence("n2", 5, &[3, 7]), &mut out);
    fences.heard(at(0), 3, publication("n2", 5, &[3, 7]), &mut out);
    fences.heard(at(0), 3, publication("n2", 6, &[3]), &mut out);
    // The other partition is slow; other senders and partitions are not held by it.
    fences.heard(at(0), 3, publication("n3", 2, &[3]), &mut out);
    fences.heard(at(0), 4, publication("n2", 3, &[4]), &mut out);
    fences.heard(at(0), 7, publication("n2", 4, &[7]), &mut out);
    assert_eq!(numbers(&mut out), [1, 2, 3, 4]);
    fences.heard(at(0), 7, fence("n2", 5, &[3, 7]), &mut out);
    assert_eq!(numbers(&mut out), [5, 6]);
    assert!(fences.senders.is_empty() && (fences.held, fences.held_bytes) == (0, 0) && fences.due_us().is_none());
}

#[test]
fn a_fence_that_stays_away_is_given_up_and_holds_nothing_when_it_comes() {
    let (mut fences, mut out) = (all_up(), Vec::new());
    send("n2", 1, &[3, 7], |nth, parcel| {
        if nth == 3 {
            fences.heard(at(0), nth, parcel, &mut out);
        }
    });
    fences.heard(at(10), 3, publication("n2", 2, &[3]), &mut out);
    fences.tick(at(999), &mut out);
    assert!(out.is_empty());
    assert_eq!(fences.due_us(), Some(1_000_000));
    fences.tick(at(1_000), &mut out);
    assert_eq!(numbers(&mut out), [1, 2]);
    fences.heard(at(1_001), 7, fence("n2", 1, &[3, 7]), &mut out);
    fences.heard(at(1_001), 7, publication("n2", 3, &[7]), &mut out);
    assert_eq!(numbers(&mut out), [3]);
    assert!(fences.senders.is_empty());
}

#[test]
fn nobody_waits_for_a_partition_that_is_down() {
    let (mut fences, mut out) = (all_up(), Vec::new());
    // It goes down while it is waited for.
    send("n2", 1, &[3, 7], |nth, parcel| {
        if nth == 3 {
            fences.heard(at(0), nth, parcel, &mut out);
        }
    });
    assert!(out.is_empty());
    fences.down(7, &mut out);
    assert_eq!(numbers(&mut out), [1]);
    // It is down; with a third one that is not.
    send("n2", 2, &[3, 7, 9], |nth, parcel| {
        if nth != 7 {
            fences.heard(at(0), nth, parcel, &mut out);
        }
    });
    assert_eq!(numbers(&mut out), [2]);
    send("n2", 3, &[3, 7], |nth, parcel| {
        if nth == 3 {
            fences.heard(at(0), nth, parcel, &mut out);
        }
    });
    assert_eq!(numbers(&mut out), [3]);
    // The publication itself is lost with it: what is behind the fence goes on.
    send("n2", 4, &[7, 3], |nth, parcel| {
        if nth == 3 {
            fences.heard(at(0), nth, parcel, &mut out);
        }
    });
    fences.heard(at(0), 3, publication("n2", 5, &[3]), &mut out);
    assert_eq!(numbers(&mut out), [5]);
    // It is back, and late marks hold nothing.
    fences.up(7);
    for n in [1, 2, 3, 4] {
        fences.heard(at(0), 7, fence("n2", n, &[3, 7]), &mut out);
    }
    fences.heard(at(0), 7, publication("n2", 6, &[7]), &mut out);
    assert_eq!(numbers(&mut out), [6]);
    assert!(fences.senders.is_empty() && fences.held == 0);
}

#[test]
fn at_the_bound_all_goes_on() {
    let (mut fences, mut out) = (all_up(), Vec::new());
    fences.heard(at(0), 3, fence("n2", 0, &[3, 7]), &mut out);
    let held = limits::CLUSTER_FENCED_MAX as u64;
    for n in 1..held {
        assert!(out.is_empty());
        fences.heard(at(0), 3, publication("n2", n, &[3]), &mut out);
    }
    assert_eq!(numbers(&mut out), (1..held).collect::<Vec<_>>());
    assert!(fences.senders.is_empty() && (fences.held, fences.held_bytes) == (0, 0));
    // Many fences, and none complete.
    for n in 0..held * 2 {
        fences.heard(at(0), 3, fence("n2", held + n, &[3, 7]), &mut out);
        assert!(fences.held <= limits::CLUSTER_FENCED_MAX);
    }
    assert!(out.is_empty() && fences.given_up.len() == limits::CLUSTER_FENCES_REMEMBERED_MAX);
}

/// Senders publish to any set of channels; links are fast and slow in any way. Everything comes once, and on each channel in
/// the order of its sender.
#[test]
fn any_interleaving_of_links_keeps_the_order_of_every_channel_and_everything_comes_once() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut fences, mut out) = (all_up(), Vec::new());
        let senders = ["n2", "n3", "n4"];
        // What is on its way, by partition and sender: each keeps its order.
        let mut links: BTreeMap<(usize, &str), VecDeque<Parcel>> = BTreeMap::new();
        let (mut sent, mut heard) = (Vec::new(), Vec::new());
        let partitions = rng.usize(2..6);
        for n in 0..rng.u64(1..120) {
            let from = senders[rng.usize(..senders.len())];
            let mut channels: Vec<usize> = (0..partitions).filter(|_| rng.u8(..3) == 0).collect();
            if channels.is_empty() {
                channels.push(rng.usize(..partitions));
            }
            rng.shuffle(&mut channels);
            send(from, n, &channels, |nth, parcel| links.entry((nth, from)).or_default().push_back(parcel));
            sent.push((from, n, channels));
            // Some of it arrives meanwhile.
            for _ in 0..rng.usize(..4) {
                arrive(&mut rng, &mut links, &mut fences, &mut out);
                heard.extend(numbers(&mut out));
            }
        }
        while !links.is_empty() {
            arrive(&mut rng, &mut links, &mut fences, &mut out);
            heard.extend(numbers(&mut out));
        }
        assert!(fences.senders.is_empty() && (fences.held, fences.held_bytes) == (0, 0), "seed {seed}");
        let mut once = heard.clone();
        once.sort_unstable();
        assert_eq!(once, (0..sent.len() as u64).collect::<Vec<_>>(), "seed {seed}");
        for from in senders {
            for channel in 0..partitions {
                let is_on = |n: &u64| sent[*n as usize].0 == from && sent[*n as usize].2.contains(&channel);
                let on: Vec<u64> = heard.iter().copied().filter(is_on).collect();
                assert!(on.is_sorted(), "seed {seed}: {from} on {channel}: {on:?}");
            }
        }
    }
}

fn arrive(
    rng: &mut fastrand::Rng,
    links: &mut BTreeMap<(usize, &str), VecDeque<Parcel>>,
    fences: &mut Fences,
    out: &mut Vec<Parcel>,
) {
    let keys: Vec<_> = links.keys().copied().collect();
    let Some(key) = rng.choice(keys) else { return };
    let Some(link) = links.get_mut(&key) else { return };
    if let Some(parcel) = link.pop_front() {
        fences.heard(at(0), key.0, parcel, out);
    }
    if link.is_empty() {
        links.remove(&key);
    }
}
