//! Streams: each user's mail, each channel and each tenant's broadcasts are numbered by whoever orders them.
use std::sync::Arc;

/// A place in a stream, assigned by the stream's owner when it accepts a notification.
///
/// `seq` is dense within an `epoch` and begins at 1, so a hole is something that was accepted for numbering and then
/// refused or lost, and a repetition is a duplicate. An owner that does not remember a stream begins a new epoch; epochs
/// of one stream differ, later ones are greater as long as the clock is right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamSeq {
    /// Which count this is. 0: not numbered, as what another writer put into a store.
    pub epoch: u64,
    /// Which of the count.
    pub seq: u64,
}

/// The places that one notification has in the streams it belongs to. Carried beside it; nothing of it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// In one stream: a user's mail, a channel, a tenant's broadcasts.
    One(StreamSeq),
    /// In several channels, in the order of the publish's list.
    Each(Arc<[StreamSeq]>),
}

impl Places {
    /// The place in a user's mail; not numbered if there are several.
    pub fn one(&self) -> StreamSeq {
        match self {
            Places::One(place) => *place,
            Places::Each(_) => StreamSeq::default(),
        }
    }
}
