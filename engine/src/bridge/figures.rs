//! What a bridge counts: written on its shard, read by any thread.
use super::canary::Flow;
use protocol::clock::Now;
use protocol::cluster::wire::ParcelError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use storage::breaker::BreakerState;
use storage::link::state::LinkState;
use storage::redis::commands::status::CommandStatus;
use storage::redis::router::PartitionFigures;
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
    /// The links of each partition of a Redis Cluster; none elsewhere.
    pub(crate) partitions: Vec<Arc<PartitionFigures>>,
    /// Canaries over each of them.
    pub(crate) partition_flows: Vec<Flow>,
    /// Parcels with a notification that Redis was given.
    pub(crate) routed: AtomicU64,
    /// Parcels of any kind that Redis was given.
    pub(crate) sent: AtomicU64,
    /// Of them, bundles.
    pub(crate) bundles: AtomicU64,
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
    /// Nothing has happened; the node is alone. In a Redis Cluster it has so many partitions, elsewhere none.
    pub(crate) fn new(partitions: usize) -> BridgeFigures {
        BridgeFigures {
            partitions: (0..partitions).map(|_| Arc::default()).collect(),
            partition_flows: (0..partitions).map(|_| Flow::default()).collect(),
            router: Arc::new(FeedStatus::new()),
            commands: Arc::new(CommandStatus::new()),
            flow: Flow::default(),
            routed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            bundles: AtomicU64::new(0),
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

    /// A parcel that Redis was given.
    pub(crate) fn sent(&self) {
        add(&self.sent, 1);
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

    /// The subscription and the link for commands, of every place where nodes meet.
    fn links(&self) -> impl Iterator<Item = (&FeedStatus, &CommandStatus)> {
        let partitions = self.partitions.iter().map(|partition| (&*partition.router, &*partition.commands));
        std::iter::once((&*self.router, &*self.commands)).chain(partitions)
    }

    /// Whether the first attempt to listen is under way, in a partition or where nodes meet: a node that begins is not without
    /// Redis yet.
    pub(super) fn begins(&self, partition: Option<usize>) -> bool {
        let router = match partition {
            Some(nth) => self.partitions.get(nth).map(|partition| &partition.router),
            None => Some(&self.router),
        };
        router.map(|router| router.snapshot()).is_some_and(|link| (link.ends, link.reconnections) == (0, 0))
    }

    /// How the links are: the worst of them.
    pub fn link(&self) -> LinkState {
        let states = self.links().flat_map(|(router, commands)| [router.snapshot().link, commands.link()]);
        states.fold(LinkState::Healthy, |worst, state| match (worst, state) {
            (LinkState::Healthy, state) => state,
            (LinkState::CircuitOpen, _) | (_, LinkState::CircuitOpen) => LinkState::CircuitOpen,
            (LinkState::Reconnecting, _) => LinkState::Reconnecting,
        })
    }

    /// The breaker that lets least pass.
    pub fn breaker(&self) -> BreakerState {
        let states =
            self.links().flat_map(|(router, commands)| [router.snapshot().breaker, commands.snapshot().breaker]);
        states.fold(BreakerState::Closed, |worst, state| match (worst, state) {
            (BreakerState::Open, _) | (_, BreakerState::Open) => BreakerState::Open,
            (BreakerState::HalfOpen, _) | (_, BreakerState::HalfOpen) => BreakerState::HalfOpen,
            _ => BreakerState::Closed,
        })
    }

    fn all_flows(&self) -> impl Iterator<Item = &Flow> {
        std::iter::once(&self.flow).chain(&self.partition_flows)
    }

    /// Whether parcels flow, in every partition where there are some.
    pub fn flows(&self, now: Now) -> bool {
        self.all_flows().all(|flow| flow.flows(now) == Some(true))
    }

    /// Since the last canary came back, in milliseconds, where that is longest ago; `None` before the first.
    pub fn canary_age_ms(&self, now: Now) -> Option<u64> {
        self.all_flows().filter_map(|flow| flow.age_ms(now)).max()
    }

    /// Partitions of a Redis Cluster, or else the one place where nodes meet, in which parcels do not flow.
    pub fn stalled(&self, now: Now) -> usize {
        self.all_flows().filter(|flow| flow.flows(now) != Some(true)).count()
    }

    /// A canary came back: in a partition, or where nodes meet.
    pub(crate) fn came_back(&self, now: Now, partition: Option<usize>) {
        if let Some(flow) = partition.map_or(Some(&self.flow), |nth| self.partition_flows.get(nth)) {
            flow.came_back(now);
        }
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
    fn one_partition_that_stalls_is_told() {
        let figures = BridgeFigures::new(3);
        let now = Now { mono_us: 5_000_000, unix_ns: 0 };
        assert_eq!((figures.flows(now), figures.stalled(now), figures.canary_age_ms(now)), (false, 4, None));
        for place in [None, Some(0), Some(2)] {
            figures.came_back(now, place);
        }
        assert_eq!((figures.flows(now), figures.stalled(now)), (false, 1));
        figures.came_back(Now { mono_us: 4_000_000, unix_ns: 0 }, Some(1));
        assert_eq!((figures.flows(now), figures.stalled(now), figures.canary_age_ms(now)), (true, 0, Some(1_000)));
    }

    #[test]
    fn every_refusal_of_a_parcel_has_its_label() {
        let figures = BridgeFigures::new(0);
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
