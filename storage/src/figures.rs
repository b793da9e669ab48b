//! What a store's operator wants to know: written by the thread that turns the links, read from any.
use crate::breaker::BreakerState;
use crate::link::state::LinkState;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// Upper bounds of the latency histogram, in microseconds; longer ones are counted above the last.
pub const LATENCY_BOUNDS_US: [u64; 9] = [250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000];

/// What is asked of a store: the label `operation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreOperation {
    /// Mail is put into a mailbox.
    Append,
    /// A page of a mailbox is read.
    Read,
    /// A delivery is noted of what was not read.
    Begin,
    /// Mail is taken out.
    Remove,
    /// An acknowledgement becomes due.
    Track,
    /// Somebody acknowledges.
    Acknowledge,
    /// A template is kept, forgotten, or all of them are read.
    Template,
    /// What has expired is looked for and taken out.
    Sweep,
    /// The figures are asked for.
    Stats,
}

impl StoreOperation {
    /// All, in the order of their discriminants.
    pub const ALL: [StoreOperation; 9] = [
        Self::Append,
        Self::Read,
        Self::Begin,
        Self::Remove,
        Self::Track,
        Self::Acknowledge,
        Self::Template,
        Self::Sweep,
        Self::Stats,
    ];

    /// The label text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Read => "read",
            Self::Begin => "begin",
            Self::Remove => "remove",
            Self::Track => "track",
            Self::Acknowledge => "acknowledge",
            Self::Template => "template",
            Self::Sweep => "sweep",
            Self::Stats => "stats",
        }
    }
}

/// How an operation ended: the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreResult {
    /// Done.
    Ok,
    /// Not done.
    Failed,
    /// Done or not, nobody knows.
    Unknown,
}

impl StoreResult {
    /// All, in the order of their discriminants.
    pub const ALL: [StoreResult; 3] = [Self::Ok, Self::Failed, Self::Unknown];

    /// The label text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// A figure with one writer: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Adds, on the writing thread only.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Sets it, on the writing thread only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now, from any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Figures of all mailboxes, as the backend keeps them: they survive a restart of the node.
#[derive(Debug, Default)]
pub struct MailFigures {
    /// Mailboxes that hold something now.
    pub users: Figure,
    /// Entries kept now.
    pub depth: Figure,
    /// Ever taken in.
    pub enqueued: Figure,
    /// Ever let go for younger ones.
    pub dropped: Figure,
    /// Ever expired.
    pub expired: Figure,
    /// Ever taken out after delivery or acknowledgement.
    pub delivered: Figure,
    /// Ever skipped because nobody can read them.
    pub undecodable: Figure,
}

/// Figures of the acknowledgements, as the backend keeps them (contract §9.2).
#[derive(Debug, Default)]
pub struct AckFigures {
    /// Due now.
    pub pending: Figure,
    /// Ever due.
    pub tracked: Figure,
    /// Ever acknowledged.
    pub acked: Figure,
    /// Ever given up.
    pub expired: Figure,
    /// From sending to acknowledging, all of them together.
    pub latency_ms: Figure,
}

/// One operation's counts and times.
#[derive(Debug, Default)]
pub struct OperationFigures {
    /// By [`StoreResult`].
    pub results: [Figure; 3],
    /// By [`LATENCY_BOUNDS_US`], and one more for what is above; from asking to the answer, of those that were done.
    pub latency: [Figure; LATENCY_BOUNDS_US.len() + 1],
    /// Their sum.
    pub latency_sum_us: Figure,
}

/// The figures of one shard's store. Totals of [`MailFigures`] and [`AckFigures`] are asked for by one shard of a node
/// only and stay 0 on the others, so that the sum over the shards is right.
#[derive(Debug)]
pub struct StoreFigures {
    /// `redis` or `postgres`: the label `backend`.
    pub backend: &'static str,
    /// By [`StoreOperation`].
    pub operations: [OperationFigures; StoreOperation::ALL.len()],
    /// Of all mailboxes.
    pub mail: MailFigures,
    /// Of all acknowledgements.
    pub acks: AckFigures,
    /// Requests that are not answered now.
    pub outstanding: Figure,
    /// Times a link became healthy.
    pub connections: Figure,
    link: AtomicU8,
    breaker: AtomicU8,
    /// The server does what is asked: the last request it answered was not refused for the server's own state (read-only,
    /// out of memory, no permission).
    refused: AtomicU8,
}

impl StoreFigures {
    /// Nothing happened, not connected.
    pub fn new(backend: &'static str) -> StoreFigures {
        StoreFigures {
            backend,
            operations: Default::default(),
            mail: MailFigures::default(),
            acks: AckFigures::default(),
            outstanding: Figure::default(),
            connections: Figure::default(),
            link: AtomicU8::new(LinkState::Reconnecting as u8),
            breaker: AtomicU8::new(0),
            refused: AtomicU8::new(0),
        }
    }

    /// Counts one operation that has come to its end.
    pub fn ended(&self, operation: StoreOperation, result: StoreResult, latency_us: u64) {
        let figures = &self.operations[operation as usize];
        figures.results[result as usize].add(1);
        if result == StoreResult::Ok {
            let bucket = LATENCY_BOUNDS_US.iter().position(|bound| latency_us <= *bound);
            figures.latency[bucket.unwrap_or(LATENCY_BOUNDS_US.len())].add(1);
            figures.latency_sum_us.add(latency_us);
        }
    }

    /// Notes how the links are: the best of them.
    pub fn set_link(&self, link: LinkState, breaker: BreakerState) {
        self.link.store(link as u8, Relaxed);
        self.breaker.store(breaker as u8, Relaxed);
    }

    /// Notes whether the server refuses to work though it is there.
    pub fn set_refused(&self, refused: bool) {
        self.refused.store(u8::from(refused), Relaxed);
    }

    /// How the links are, from any thread.
    pub fn link(&self) -> LinkState {
        LinkState::from_number(self.link.load(Relaxed))
    }

    /// How the breaker is, from any thread.
    pub fn breaker(&self) -> BreakerState {
        match self.breaker.load(Relaxed) {
            1 => BreakerState::Open,
            2 => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// Whether promises can be kept: connected, and the server does what is asked.
    pub fn is_well(&self) -> bool {
        self.link() == LinkState::Healthy && self.refused.load(Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_counted_by_operation_result_and_time() {
        let figures = StoreFigures::new("redis");
        for (operation, number) in StoreOperation::ALL.into_iter().zip(0..) {
            assert_eq!(operation as usize, number);
        }
        figures.ended(StoreOperation::Read, StoreResult::Ok, 251);
        figures.ended(StoreOperation::Read, StoreResult::Ok, 2_000_000);
        figures.ended(StoreOperation::Read, StoreResult::Unknown, 5);
        let read = &figures.operations[StoreOperation::Read as usize];
        assert_eq!([&read.results[0], &read.results[1], &read.results[2]].map(Figure::get), [2, 0, 1]);
        assert_eq!((read.latency[1].get(), read.latency[9].get(), read.latency_sum_us.get()), (1, 1, 2_000_251));
    }

    #[test]
    fn a_server_that_refuses_is_not_well() {
        let figures = StoreFigures::new("postgres");
        assert!(!figures.is_well());
        figures.set_link(LinkState::Healthy, BreakerState::Closed);
        assert!(figures.is_well());
        figures.set_refused(true);
        assert!(!figures.is_well());
    }
}
