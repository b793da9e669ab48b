//! What a bridge counts: written on its shard, read by any thread.
use super::canary::Flow;
use protocol::clock::Now;
use protocol::cluster::wire::ParcelError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use storage::breaker::BreakerState;
use storage::link::state::LinkState;
use storage::redis::commands::status::CommandStatus;
use storage::redis::status::FeedStatus;

/// Why a parcel was not sent, or not taken: labels of `ara_cluster_parcels_refused_total`.
pub const REFUSALS: [&str; 8] = [
    "too_long",
    "not_json",
    "too_deep",
    "bad_shape",
    "too_many",
    "unknown_kind",
    "bad_message",
    // Redis is away, or as much as may be waits for its answers.
    "not_sent",
];

/// The figures of the bridge.
#[derive(Debug)]
pub struct BridgeFigures {
    /// The subscription to topics.
    pub(crate) router: Arc<FeedStatus>,
    /// The link for commands.
    pub(crate) commands: Arc<CommandStatus>,
    /// Canaries over the node's own topic.
    pub(crate) flow: Flow,
    /// Parcels with a notification that Redis was given.
    pub(crate) routed: AtomicU64,
    /// Parcels of any kind that Redis was given.
    pub(crate) sent: AtomicU64,
    /// Parcels of other nodes with a notification.
    pub(crate) received_notifications: AtomicU64,
    /// Parcels of other nodes, of any kind.
    pub(crate) received: AtomicU64,
    /// By [`REFUSALS`].
    pub(crate) refused: [AtomicU64; REFUSALS.len()],
    /// Sessions whose keys were written again.
    pub(crate) refreshed: AtomicU64,
    /// Nodes that are alive, this one included.
    pub(crate) members: AtomicU64,
    /// Connections of all of them.
    pub(crate) connections: AtomicU64,
    /// Users of all of them, each once.
    pub(crate) users: AtomicU64,
    /// Topics that are listened to.
    pub(crate) topics: AtomicU64,
}

impl BridgeFigures {
    /// Nothing has happened; the node is alone.
    pub(crate) fn new() -> BridgeFigures {
        BridgeFigures {
            router: Arc::new(FeedStatus::new()),
            commands: Arc::new(CommandStatus::new()),
            flow: Flow::default(),
            routed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received_notifications: AtomicU64::new(0),
            received: AtomicU64::new(0),
            refused: Default::default(),
            refreshed: AtomicU64::new(0),
            members: AtomicU64::new(1),
            connections: AtomicU64::new(0),
            users: AtomicU64::new(0),
            topics: AtomicU64::new(0),
        }
    }

    /// A parcel nobody can read, or nobody would.
    pub(crate) fn refuse(&self, error: &ParcelError) {
        self.count_refusal(error.label());
    }

    /// A parcel that Redis was not given.
    pub(crate) fn not_sent(&self) {
        self.count_refusal("not_sent");
    }

    fn count_refusal(&self, label: &str) {
        if let Some(at) = REFUSALS.iter().position(|known| *known == label) {
            add(&self.refused[at], 1);
        }
    }

    /// How the links are: the worse of the two.
    pub fn link(&self) -> LinkState {
        match (self.router.snapshot().link, self.commands.link()) {
            (LinkState::Healthy, state) => state,
            (LinkState::CircuitOpen, _) | (_, LinkState::CircuitOpen) => LinkState::CircuitOpen,
            (LinkState::Reconnecting, _) => LinkState::Reconnecting,
        }
    }

    /// The breaker that lets less pass.
    pub fn breaker(&self) -> BreakerState {
        match (self.router.snapshot().breaker, self.commands.snapshot().breaker) {
            (BreakerState::Open, _) | (_, BreakerState::Open) => BreakerState::Open,
            (BreakerState::HalfOpen, _) | (_, BreakerState::HalfOpen) => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        }
    }

    /// Whether parcels flow.
    pub fn flows(&self, now: Now) -> bool {
        self.flow.flows(now) == Some(true)
    }
}

/// One thread writes, so no read-modify-write is needed.
pub(super) fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_a_parcel_has_its_label() {
        let figures = BridgeFigures::new();
        let errors = [
            ParcelError::TooLong { bytes: 1 },
            ParcelError::NotJson,
            ParcelError::TooDeep,
            ParcelError::BadShape("x"),
            ParcelError::TooMany("x"),
            ParcelError::UnknownKind,
            ParcelError::BadMessage,
        ];
        errors.iter().for_each(|error| figures.refuse(error));
        figures.not_sent();
        assert!(figures.refused.iter().all(|count| count.load(Relaxed) == 1));
    }
}
