//! The desk in a Redis Cluster: users and channels have their topics in sixteen partitions, each with two links of its own
//! (decision 9). Everything else is said where nodes meet, as on one server.
use super::Bridge;
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind, Published};
use protocol::cluster::{GatherTicket, Topic};
use protocol::limits;
use protocol::notification::Target;
use storage::redis::partitions::{PARTITIONS, partition_of, prefix_of};
use storage::redis::router::PartitionedRouter;

/// The partitions and what topics there are called.
pub(crate) struct Partitions {
    pub(super) router: PartitionedRouter,
    /// What stands in place of `CLUSTER_ROUTING_CHANNEL`.
    pub(super) routes: Vec<String>,
    states: [State; PARTITIONS],
}

/// What the desk knows of a partition.
#[derive(Clone, Copy, Default)]
struct State {
    /// How often its link for commands had come up when it was looked at last, and took what was said.
    connections_seen: u64,
    canary_due_us: u64,
}

impl Partitions {
    pub(crate) fn new(router: PartitionedRouter, route: &str) -> Partitions {
        Partitions {
            router,
            routes: (0..PARTITIONS).map(|nth| prefix_of(route, nth)).collect(),
            states: Default::default(),
        }
    }
}

impl Bridge {
    /// For a publication to several users or channels: their partitions, each once. `None`: it is something else.
    pub(super) fn several(&self, parcel: &Parcel) -> Option<Vec<usize>> {
        self.links.partitions.as_ref()?;
        let ParcelKind::Publication { target: Target::Users(names) | Target::Channels(names), published, .. } =
            &parcel.kind
        else {
            return None;
        };
        let mut partitions: Vec<usize> = Vec::with_capacity(PARTITIONS);
        for name in names {
            let nth = partition_of(&published.tenant, name);
            if !partitions.contains(&nth) {
                partitions.push(nth);
            }
        }
        // Nobody at all is told where everybody is.
        (!partitions.is_empty()).then_some(partitions)
    }

    /// Says something to several users or channels. Nodes listen to each partition as a whole, too: a fence goes there in
    /// every one of them, and the publication to the first. A partition that is away had nothing that could be overtaken.
    pub(super) fn publish_to_several(
        &mut self,
        now: Now,
        mut partitions: Vec<usize>,
        parcel: &Parcel,
        ticket: Option<GatherTicket>,
    ) -> bool {
        partitions.retain(|nth| self.is_there_in(Some(*nth)));
        let (Some(carrier), ParcelKind::Publication { published: Published { id, .. }, .. }) =
            (partitions.first().copied(), &parcel.kind)
        else {
            self.figures.not_sent();
            return false;
        };
        // What cannot be said must not be announced.
        let Some(payload) = self.encode(parcel) else { return false };
        if partitions.len() > 1 {
            let kind = ParcelKind::Fence { id: *id, partitions: partitions.iter().map(|nth| *nth as u8).collect() };
            let fence = Parcel { from_server: self.server_id.clone(), to_server: None, kind };
            for nth in &partitions {
                self.publish_in(now, Some(*nth), &Topic::Everybody, &fence, None, None);
            }
        }
        let is_sent = self.put(now, Some(carrier), &Topic::Everybody, &payload, ticket, None);
        self.give_back(payload);
        is_sent
    }

    /// What is due in a partition: hints that it did not take before, and its canary. When the next one is.
    pub(super) fn tick_in(&mut self, now: Now, nth: usize) -> u64 {
        let is_there = self.is_there_in(Some(nth)) && !self.is_stopping;
        let Some(Partitions { router, states, .. }) = &mut self.links.partitions else { return u64::MAX };
        let (state, connections) = (&mut states[nth], router.connections(nth));
        let is_new = is_there && state.connections_seen != connections;
        if is_new {
            state.connections_seen = connections;
        }
        let is_due = now.mono_us >= state.canary_due_us;
        if is_due || is_new {
            state.canary_due_us = now.mono_us + limits::CANARY_INTERVAL_MS * 1_000;
        }
        let due_us = state.canary_due_us;
        if is_there && (is_due || is_new) {
            self.send_hints_again(now, Some(nth));
            self.say_canary(now, Some(nth));
        }
        due_us
    }

    /// Whether Redis takes what is said in a partition, and has not been looked at since it does.
    pub(super) fn is_new_in(&self, nth: usize) -> bool {
        self.is_there_in(Some(nth))
            && !self.is_stopping
            && self.links.partitions.as_ref().is_some_and(|Partitions { router, states, .. }| {
                states[nth].connections_seen != router.connections(nth)
            })
    }
}
