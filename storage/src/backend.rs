//! What a store behind links looks like, whichever server keeps it.
use crate::link::wants::Wants;
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};

/// A server that keeps mail, acknowledgements and templates, as one shard asks it: over links of the shard's own, which
/// the shard turns.
///
/// **Promise.** Each request is answered once, whatever becomes of the links. Requests about one mailbox are done in the
/// order they were asked. [`StoreReply::Failed`] means that nothing was and will be changed; a request that may have been
/// done is [`StoreReply::Unknown`], and it is over by the time a later request about the same mailbox is done.
pub trait Backend {
    /// Takes a request. Makes no system call; the links want a turn afterwards. What cannot be taken is answered
    /// [`StoreReply::Failed`].
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest);
    /// Answers that have come since the last call.
    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>);
    /// How many links there are, always; they are counted from 0.
    fn links(&self) -> usize;
    /// Turns one link: writes what was asked, reads what has come, reconnects. Never blocks.
    fn turn(&mut self, link: usize, now: Now, readable: bool, writable: bool) -> Wants;
    /// Whether requests are unanswered.
    fn owes(&self) -> bool;
}

/// What one shard of a node does for all: sweeps what has expired and asks for the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chores {
    /// `QUEUE_CLEANUP_INTERVAL_SECONDS`, in milliseconds.
    pub queue_interval_ms: u64,
    /// `ACK_CLEANUP_INTERVAL_SECONDS`, in milliseconds.
    pub ack_interval_ms: u64,
    /// How often the figures are asked for.
    pub figures_interval_ms: u64,
}
