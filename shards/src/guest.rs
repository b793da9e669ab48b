//! A guest: a link to another server (Redis, PostgreSQL) that lives on a shard's reactor.
//!
//! A guest owns its socket and speaks to it without blocking; the reactor tells it when the socket is ready or its
//! deadline has passed, in the shard's own turn and under the turn's budgets. It never gets a task of its own, so a busy
//! shard cannot starve it and it cannot starve the shard.
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use protocol::ids::TenantId;
use protocol::notification::{Content, Source, Target};
use std::os::fd::RawFd;

/// What happened to the guest's socket since its last turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Readable, or ended.
    pub read: bool,
    /// Writable, or the connect has come to an end.
    pub write: bool,
}

/// What a guest waits for until its next turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Its socket, with a number that differs for every socket it ever had (descriptors are reused).
    pub socket: Option<(RawFd, u32)>,
    /// Wake when readable.
    pub read: bool,
    /// Wake when writable.
    pub write: bool,
    /// Wake at this time, on [`Now::mono_us`].
    pub wake_at_us: Option<u64>,
    /// It has more to do at once: give it the next turn without sleeping.
    pub again: bool,
}

/// A publish that came in over a link.
#[derive(Debug)]
pub struct Submission {
    /// Whose it is.
    pub tenant: TenantId,
    /// For whom.
    pub target: Target,
    /// What.
    pub content: Content,
    /// Where it came in.
    pub source: Source,
    /// What every node that reads the same message claims of it; `None` where nobody else does.
    pub claim: Option<Claim>,
}

/// What a guest may ask of its shard during a turn.
pub trait Port {
    /// Publishes. Taken at once; a guest that sees [`Port::congested`] stops reading instead.
    fn publish(&mut self, submission: Submission);
    /// Whether the node has more work in flight than it wants: read no more until it is over.
    fn congested(&self) -> bool;
}

/// A link that lives on a shard.
pub trait Guest {
    /// Called at start, when the socket is ready, when `wake_at_us` has passed, when the bell rang, and after
    /// `again`. Reads at most one buffer per turn.
    fn turn(&mut self, now: Now, ready: Ready, port: &mut dyn Port) -> Wants;
    /// The node is stopping: read no more, flush what is owed. A link of the store goes on serving until the shard ends.
    fn stop(&mut self);
    /// Whether the shard should not end yet because of it, beyond what its last [`Wants`] say: somebody's request is
    /// under way.
    fn owes(&self) -> bool {
        false
    }
}
