//! The counts of the streams that this shard owns: its users' mail, and the channels and broadcasts of its lines.
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use protocol::clock::Now;
use protocol::ids::TenantId;
use protocol::limits;
use protocol::stream::StreamSeq;
use std::hash::BuildHasher;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// All mail of one user.
    User,
    /// Everything published to one channel.
    Channel,
    /// Everything broadcast to a tenant; it has no name.
    Broadcast,
}

#[derive(Debug)]
struct Stream {
    kind: StreamKind,
    tenant: TenantId,
    name: Box<str>,
    last: StreamSeq,
    /// Since the hand last came by.
    is_used: bool,
}

/// The table. Above [`limits::STREAMS_MAX`] a stream that was not used lately is forgotten for a new one; if it is used
/// again it begins a new epoch.
#[derive(Default)]
pub struct Streams {
    list: Vec<Stream>,
    index: HashTable<u32>,
    hasher: RandomState,
    hand: usize,
    last_epoch: u64,
}

/// Streams that are looked at for one that was not used lately; when all of them were, the last of them goes.
const LOOKS_MAX: usize = 64;

impl Streams {
    /// The next place in a stream. One lookup.
    pub fn next(&mut self, now: Now, kind: StreamKind, tenant: &TenantId, name: &str) -> StreamSeq {
        let hash = self.hasher.hash_one((kind, tenant.as_str(), name));
        let Streams { list, index, .. } = self;
        let is_it = |at: &u32| {
            let held = &list[*at as usize];
            held.kind == kind && *held.name == *name && held.tenant == *tenant
        };
        if let Some(at) = index.find(hash, is_it).copied() {
            let stream = &mut self.list[at as usize];
            stream.is_used = true;
            stream.last.seq += 1;
            return stream.last;
        }
        // By the clock, so that it is greater than that of an owner before us, and never twice the same.
        self.last_epoch = (now.unix_ns / 1_000).max(self.last_epoch + 1);
        let last = StreamSeq { epoch: self.last_epoch, seq: 1 };
        self.insert(hash, Stream { kind, tenant: tenant.clone(), name: name.into(), last, is_used: false });
        last
    }

    fn insert(&mut self, hash: u64, stream: Stream) {
        let at = if self.list.len() < limits::STREAMS_MAX {
            self.list.push(stream);
            self.list.len() - 1
        } else {
            let at = self.forget_one();
            self.list[at] = stream;
            at
        };
        let Streams { list, index, hasher, .. } = self;
        index.insert_unique(hash, at as u32, |at| hash_of(hasher, &list[*at as usize]));
    }

    /// Takes one out of the index; its place in the list is free.
    fn forget_one(&mut self) -> usize {
        let mut looks = 0;
        let at = loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.list.len();
            looks += 1;
            if !std::mem::take(&mut self.list[at].is_used) || looks == LOOKS_MAX {
                break at;
            }
        };
        let hash = hash_of(&self.hasher, &self.list[at]);
        if let Ok(entry) = self.index.find_entry(hash, |candidate| *candidate == at as u32) {
            entry.remove();
        }
        at
    }
}

fn hash_of(hasher: &RandomState, stream: &Stream) -> u64 {
    hasher.hash_one((stream.kind, stream.tenant.as_str(), &*stream.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix_us: u64) -> Now {
        Now { mono_us: 0, unix_ns: unix_us * 1_000 }
    }

    fn next(streams: &mut Streams, unix_us: u64, kind: StreamKind, name: &str) -> (u64, u64) {
        let place = streams.next(at(unix_us), kind, &TenantId::default_tenant(), name);
        (place.epoch, place.seq)
    }

    #[test]
    fn each_stream_is_dense_and_has_an_epoch_of_its_own() {
        let mut streams = Streams::default();
        assert_eq!(next(&mut streams, 100, StreamKind::User, "a"), (100, 1));
        assert_eq!(next(&mut streams, 100, StreamKind::Channel, "a"), (101, 1), "the same moment, another epoch");
        assert_eq!(next(&mut streams, 200, StreamKind::User, "a"), (100, 2));
        let other = TenantId::parse("other").unwrap();
        assert_eq!(streams.next(at(90), StreamKind::User, &other, "a").epoch, 102, "though the clock went back");
        assert_eq!(next(&mut streams, 300, StreamKind::Channel, "a"), (101, 2));
    }

    #[test]
    fn what_was_forgotten_begins_a_new_epoch_and_what_is_used_is_not_forgotten() {
        let mut streams = Streams::default();
        let first = next(&mut streams, 1, StreamKind::User, "idle");
        let busy = next(&mut streams, 1, StreamKind::User, "busy");
        for n in 0..2 * limits::STREAMS_MAX {
            next(&mut streams, 1, StreamKind::User, &format!("user-{n}"));
            next(&mut streams, 1, StreamKind::User, "busy");
        }
        assert_eq!(streams.list.len(), limits::STREAMS_MAX);
        assert_eq!(streams.index.len(), limits::STREAMS_MAX);
        let again = next(&mut streams, 1, StreamKind::User, "idle");
        assert!(again.0 > first.0 && again.1 == 1);
        assert_eq!(next(&mut streams, 1, StreamKind::User, "busy"), (busy.0, 2 + 2 * limits::STREAMS_MAX as u64));
    }
}
