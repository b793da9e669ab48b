//! How a command link does: written by the thread that turns it, read by any.
use crate::breaker::{Breaker, BreakerState};
use crate::redis::status::{FeedErrorKind, LinkState};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// What commands are counted under: the label `operation` of `ara_redis_operations_total` and
/// `ara_backend_operation_latency_seconds` (contract §14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// Mail goes into a mailbox.
    QueueEnqueue,
    /// A page of a mailbox is read.
    QueueRead,
    /// A delivery is noted of entries that were not read.
    QueueBegin,
    /// Entries leave a mailbox.
    QueueRemove,
    /// Which mailboxes are due for a sweep.
    QueueDue,
    /// Expired entries leave a mailbox.
    QueueSweep,
    /// The figures of all mailboxes.
    QueueStats,
    /// A notification waits for its acknowledgement.
    AckTrack,
    /// It is acknowledged.
    AckAcknowledge,
    /// Those nobody acknowledged in time are given up.
    AckExpire,
    /// The figures of the acknowledgements.
    AckStats,
    /// A parcel goes to other nodes.
    ClusterPublish,
    /// The keys of sessions.
    ClusterSession,
    /// Anything else.
    Other,
}

impl Operation {
    /// How many there are.
    pub const COUNT: usize = 14;
    /// All of them, in the order of their discriminants.
    pub const ALL: [Operation; Operation::COUNT] = [
        Operation::QueueEnqueue,
        Operation::QueueRead,
        Operation::QueueBegin,
        Operation::QueueRemove,
        Operation::QueueDue,
        Operation::QueueSweep,
        Operation::QueueStats,
        Operation::AckTrack,
        Operation::AckAcknowledge,
        Operation::AckExpire,
        Operation::AckStats,
        Operation::ClusterPublish,
        Operation::ClusterSession,
        Operation::Other,
    ];

    /// The text of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::QueueEnqueue => "queue_enqueue",
            Operation::QueueRead => "queue_read",
            Operation::QueueBegin => "queue_begin",
            Operation::QueueRemove => "queue_remove",
            Operation::QueueDue => "queue_due",
            Operation::QueueSweep => "queue_sweep",
            Operation::QueueStats => "queue_stats",
            Operation::AckTrack => "ack_track",
            Operation::AckAcknowledge => "ack_acknowledge",
            Operation::AckExpire => "ack_expire",
            Operation::AckStats => "ack_stats",
            Operation::ClusterPublish => "cluster_publish",
            Operation::ClusterSession => "cluster_session",
            Operation::Other => "other",
        }
    }
}

/// What became of commands: the label `result` of `ara_redis_operations_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OperationResult {
    /// Executed.
    Done,
    /// The server would not now.
    Refused,
    /// The command was wrong.
    Failed,
    /// Sent, and no answer.
    Unknown,
    /// Taken, and not sent.
    NotSent,
    /// Not taken, because the breaker is open.
    Unavailable,
    /// Not taken, because too much waits, or it is too large.
    Full,
}

impl OperationResult {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All of them, in the order of their discriminants.
    pub const ALL: [OperationResult; OperationResult::COUNT] = [
        OperationResult::Done,
        OperationResult::Refused,
        OperationResult::Failed,
        OperationResult::Unknown,
        OperationResult::NotSent,
        OperationResult::Unavailable,
        OperationResult::Full,
    ];

    /// The text of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            OperationResult::Done => "ok",
            OperationResult::Refused => "refused",
            OperationResult::Failed => "failed",
            OperationResult::Unknown => "unknown",
            OperationResult::NotSent => "not_sent",
            OperationResult::Unavailable => "unavailable",
            OperationResult::Full => "full",
        }
    }
}

/// Upper bounds of the latency buckets in microseconds (contract §14); the last bucket, without a bound, is not listed.
pub const LATENCY_BOUNDS_US: [u64; 9] = [1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000];

/// From taking commands of one operation to their answers, the server's refusals included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many took at most the bound of their place and more than the one before; the last one has no bound. Not
    /// cumulative.
    pub buckets: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Microseconds of all of them together.
    pub sum_us: u64,
}

impl Latency {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[derive(Debug, Default)]
struct LatencyCells {
    buckets: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// The figures of one command link. One thread writes; a reader may see one figure newer than another.
#[derive(Debug, Default)]
pub struct CommandStatus {
    link: AtomicU8,
    breaker: AtomicU8,
    failures: AtomicU32,
    attempts: AtomicU64,
    reconnections: AtomicU64,
    ends: AtomicU64,
    unanswered: AtomicU64,
    last_error: AtomicU8,
    operations: [[AtomicU64; OperationResult::COUNT]; Operation::COUNT],
    latencies: [LatencyCells; Operation::COUNT],
}

/// A reading of [`CommandStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandSnapshot {
    /// The state of the link.
    pub link: LinkState,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// Attempts since the link was last healthy; 0 while it is.
    pub attempts: u64,
    /// How often the link became healthy, the first time included.
    pub reconnections: u64,
    /// How often a link, or the attempt to make one, came to an end.
    pub ends: u64,
    /// Commands taken and not answered.
    pub unanswered: u64,
    /// What went wrong last; kept when it is well again. `Silent` is a command that was not answered in time.
    pub last_error: Option<FeedErrorKind>,
    /// By [`Operation`] and [`OperationResult`].
    pub operations: [[u64; OperationResult::COUNT]; Operation::COUNT],
    /// By [`Operation`].
    pub latencies: [Latency; Operation::COUNT],
}

impl CommandSnapshot {
    /// How many commands of this operation ended so.
    pub fn count(&self, operation: Operation, result: OperationResult) -> u64 {
        self.operations[operation as usize][result as usize]
    }
}

impl CommandStatus {
    /// Not connected, nothing tried, the breaker closed.
    pub fn new() -> CommandStatus {
        CommandStatus::default()
    }

    /// The figures now, from any thread.
    pub fn snapshot(&self) -> CommandSnapshot {
        let last_error = self.last_error.load(Relaxed);
        CommandSnapshot {
            link: self.link(),
            breaker: self.breaker(),
            failures: self.failures.load(Relaxed),
            attempts: self.attempts.load(Relaxed),
            reconnections: self.reconnections.load(Relaxed),
            ends: self.ends.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
            last_error: FeedErrorKind::ALL.into_iter().find(|kind| *kind as u8 == last_error),
            operations: self.operations.each_ref().map(|results| results.each_ref().map(|cell| cell.load(Relaxed))),
            latencies: self.latencies.each_ref().map(|cells| Latency {
                buckets: cells.buckets.each_ref().map(|cell| cell.load(Relaxed)),
                sum_us: cells.sum_us.load(Relaxed),
            }),
        }
    }

    /// The state of the link.
    pub fn link(&self) -> LinkState {
        LinkState::from_number(self.link.load(Relaxed))
    }

    /// The state of its breaker.
    pub(crate) fn breaker(&self) -> BreakerState {
        match self.breaker.load(Relaxed) {
            1 => BreakerState::Open,
            2 => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// How often the link became healthy.
    pub fn connections(&self) -> u64 {
        self.reconnections.load(Relaxed)
    }

    pub(crate) fn set_link(&self, link: LinkState) {
        self.link.store(link as u8, Relaxed);
    }

    pub(crate) fn set_breaker(&self, breaker: &Breaker) {
        self.breaker.store(breaker.state() as u8, Relaxed);
        self.failures.store(breaker.failures(), Relaxed);
    }

    pub(crate) fn set_unanswered(&self, commands: usize) {
        self.unanswered.store(commands as u64, Relaxed);
    }

    pub(crate) fn attempted(&self) {
        add(&self.attempts, 1);
    }

    pub(crate) fn connected(&self) {
        self.attempts.store(0, Relaxed);
        add(&self.reconnections, 1);
        self.set_link(LinkState::Healthy);
    }

    pub(crate) fn ended(&self, kind: FeedErrorKind) {
        self.last_error.store(kind as u8, Relaxed);
        add(&self.ends, 1);
    }

    pub(crate) fn counted(&self, operation: Operation, result: OperationResult) {
        add(&self.operations[operation as usize][result as usize], 1);
    }

    pub(crate) fn answered(&self, operation: Operation, took_us: u64) {
        let cells = &self.latencies[operation as usize];
        let bucket = LATENCY_BOUNDS_US.iter().position(|bound_us| took_us <= *bound_us);
        add(&cells.buckets[bucket.unwrap_or(LATENCY_BOUNDS_US.len())], 1);
        add(&cells.sum_us, took_us);
    }
}

/// One thread writes, so no read-modify-write is needed.
fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_distinct_and_in_the_order_of_the_figures() {
        for (at, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, at, "{operation:?}");
            assert_eq!(Operation::ALL.iter().filter(|other| other.as_str() == operation.as_str()).count(), 1);
        }
        for (at, result) in OperationResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, at, "{result:?}");
            assert_eq!(OperationResult::ALL.iter().filter(|other| other.as_str() == result.as_str()).count(), 1);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let status = CommandStatus::new();
        assert_eq!((status.snapshot().link, status.snapshot().last_error), (LinkState::Reconnecting, None));
        status.counted(Operation::QueueRead, OperationResult::Unknown);
        status.counted(Operation::QueueRead, OperationResult::Unknown);
        let snapshot = status.snapshot();
        assert_eq!(snapshot.count(Operation::QueueRead, OperationResult::Unknown), 2);
        assert_eq!(snapshot.count(Operation::QueueRead, OperationResult::Done), 0);
        for kind in FeedErrorKind::ALL {
            status.ended(kind);
            assert_eq!(status.snapshot().last_error, Some(kind));
        }
        for link in [LinkState::Healthy, LinkState::CircuitOpen, LinkState::Reconnecting] {
            status.set_link(link);
            assert_eq!(status.snapshot().link, link);
        }
    }

    #[test]
    fn a_latency_falls_into_the_first_bucket_that_holds_it() {
        let status = CommandStatus::new();
        let rows = [(0, 0), (1_000, 0), (1_001, 1), (10_000, 2), (999_999, 8), (1_000_000, 8), (1_000_001, 9)];
        for (took_us, bucket) in rows {
            let before = status.snapshot().latencies[Operation::Other as usize].buckets[bucket];
            status.answered(Operation::Other, took_us);
            let after = status.snapshot().latencies[Operation::Other as usize];
            assert_eq!(after.buckets[bucket], before + 1, "{took_us}");
        }
        let latency = status.snapshot().latencies[Operation::Other as usize];
        assert_eq!((latency.count(), latency.sum_us), (7, rows.iter().map(|(us, _)| us).sum()));
    }
}
