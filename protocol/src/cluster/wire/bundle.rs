//! Publications that are sent as one parcel.
use super::{Parcel, ParcelKind, Published, expires_at_unix_ms, write};
use crate::clock::Now;
use crate::json;
use crate::limits;
use crate::notification::{Audience, Publication, Target};

/// What stands behind the publications.
const TAIL: &[u8] = b"]}}";

/// What stands around a message: the parcel, `ara`, the publications, and the one that it is of.
const DEPTH_OUTSIDE: usize = 4;

/// One of a [`ParcelKind::Bundle`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// For whom.
    pub target: Target,
    /// Narrows a broadcast.
    pub audience: Option<Audience>,
    /// What. It has no place in a stream, and nobody waits for receipts.
    pub published: Published,
}

impl From<Bundled> for ParcelKind {
    fn from(Bundled { target, audience, published }: Bundled) -> ParcelKind {
        ParcelKind::Publication { target, audience, published }
    }
}

/// A [`ParcelKind::Bundle`] that grows: its bytes, so that nothing is built of what perhaps nobody will hear.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What every bundle of the sender begins with, and no other parcel.
    head: Box<[u8]>,
    /// The head and publications, without the tail.
    bytes: Vec<u8>,
    publications: usize,
}

impl Bundle {
    /// An empty one of this sender, a server id.
    pub fn new(from_server: &str) -> Bundle {
        let mut head = Vec::new();
        let kind = ParcelKind::Bundle(Vec::new());
        write::parcel(&mut head, &Parcel { from_server: from_server.into(), to_server: None, kind });
        head.truncate(head.len() - TAIL.len());
        Bundle { bytes: head.clone(), head: head.into(), publications: 0 }
    }

    /// Whether these are the bytes of a bundle of the same sender.
    pub fn is_own(&self, payload: &[u8]) -> bool {
        payload.starts_with(&self.head)
    }

    /// How many it has.
    pub fn publications(&self) -> usize {
        self.publications
    }

    /// Puts one in. Whether there was room: [`limits::CLUSTER_BUNDLE_BYTES_MAX`],
    /// [`limits::CLUSTER_BUNDLE_PUBLICATIONS_MAX`]; and whether the receiver would read it here, nested deeper than by itself
    /// ([`limits::JSON_DEPTH_MAX`]): it would pass over all of them.
    pub fn push(&mut self, now: Now, publication: &Publication) -> bool {
        let (bytes_before, json) = (self.bytes.len(), publication.frame.json());
        if self.publications >= limits::CLUSTER_BUNDLE_PUBLICATIONS_MAX
            || json.len() > limits::CLUSTER_BUNDLE_BYTES_MAX
            || json::is_deeper(json, limits::JSON_DEPTH_MAX - DEPTH_OUTSIDE)
        {
            return false;
        }
        if self.publications > 0 {
            self.bytes.push(b',');
        }
        let Publication { tenant, target, audience, priority, .. } = publication;
        let audience = audience.as_ref().filter(|_| matches!(target, Target::Broadcast));
        let expires_at_unix_ms = expires_at_unix_ms(publication, now);
        write::bundled(&mut self.bytes, tenant, target, audience, *priority, expires_at_unix_ms, json);
        if self.bytes.len() > self.head.len() + limits::CLUSTER_BUNDLE_BYTES_MAX {
            self.bytes.truncate(bytes_before);
            return false;
        }
        self.publications += 1;
        true
    }

    /// Gives its bytes to somebody, and is empty.
    pub fn send<T>(&mut self, send: impl FnOnce(&[u8]) -> T) -> T {
        self.bytes.extend_from_slice(TAIL);
        let sent = send(&self.bytes);
        self.bytes.truncate(self.head.len());
        self.publications = 0;
        sent
    }
}
