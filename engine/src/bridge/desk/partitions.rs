//! The desk in a Redis Cluster: users and channels have their topics in sixteen partitions, each with two links of its own
//! (decision 9). Everything else is said where nodes meet, as on one server.
use super::outgoing::parcel_answered;
use super::{Asked, Bridge, Hint, as_guest};
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind, Published};
use protocol::cluster::{GatherTicket, Topic};
use protocol::limits;
use protocol::notification::Target;
use shards::guest::{Guest, Port, Ready, Wants};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use storage::redis::partitions::{PARTITIONS, partition_of, prefix_of};
use storage::redis::router::{PartitionedRouter, RouterEvent};

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
    /// The partition of a topic; `None` is where nodes meet.
    pub(super) fn partition(&self, topic: &Topic) -> Option<usize> {
        self.partitions.as_ref()?;
        match topic {
            Topic::User(tenant, name) | Topic::Channel(tenant, name) => Some(partition_of(tenant, name)),
            Topic::Everybody | Topic::Node(_) => None,
        }
    }

    /// Whether Redis takes what is said there.
    pub(super) fn is_there_in(&self, partition: Option<usize>) -> bool {
        match (&self.partitions, partition) {
            (Some(partitions), Some(nth)) => partitions.router.is_there(nth),
            _ => self.is_there(),
        }
    }

    /// Appends what a topic is called.
    pub(super) fn write_name(&self, partition: Option<usize>, topic: &Topic, out: &mut Vec<u8>) {
        let route = match (&self.partitions, partition) {
            (Some(partitions), Some(nth)) => &*partitions.routes[nth],
            _ => &*self.route,
        };
        topic.write(out, route);
    }

    /// For a publication to several users or channels: their partitions, each once. `None`: it is something else.
    pub(super) fn several(&self, parcel: &Parcel) -> Option<Vec<usize>> {
        self.partitions.as_ref()?;
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

    /// What is due in a partition: hints that waited until it took them, and its canary. When the next one is.
    fn tick_in(&mut self, now: Now, nth: usize) -> u64 {
        let is_there = self.is_there_in(Some(nth)) && !self.is_stopping;
        let Some(Partitions { router, states, .. }) = &mut self.partitions else { return u64::MAX };
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
        if is_new {
            self.send_hints_again(now, Some(nth));
        }
        if is_there && (is_due || is_new) {
            self.canaries += 1;
            let own = self.server_id.clone();
            let kind = ParcelKind::Canary(self.canaries);
            let parcel = Parcel { from_server: own.clone(), to_server: Some(own.clone()), kind };
            self.publish_in(now, Some(nth), &Topic::Node(own), &parcel, None, None);
        }
        due_us
    }

    /// Sends the hints that could not be sent there. Their receipts interest nobody any more.
    pub(super) fn send_hints_again(&mut self, now: Now, partition: Option<usize>) {
        let topics: Vec<Topic> =
            self.unsent.keys().filter(|topic| self.partition(topic) == partition).cloned().collect();
        let hints: Vec<Hint> = topics.iter().filter_map(|topic| self.unsent.remove_entry(topic)).collect();
        for (topic, parcel) in hints {
            self.publish_in(now, partition, &topic, &parcel, None, Some((topic.clone(), parcel.clone())));
        }
    }

    fn turn_partition_router(&mut self, now: Now, nth: usize, ready: Ready, paused: bool) -> Wants {
        let Bridge { partitions, inbox, bundles, .. } = self;
        let Some(partitions) = partitions else { return Wants::default() };
        inbox.tick(now);
        let wants =
            partitions.router.turn_router(nth, now, ready.read, ready.write, paused, &mut |event| match event {
                RouterEvent::Up => inbox.up(Some(nth)),
                RouterEvent::Message { payload, .. } if bundles.is_own(payload) => {}
                RouterEvent::Message { payload, .. } => inbox.heard(now, Some(nth), payload),
                RouterEvent::Watching(name) => inbox.watching(name),
                RouterEvent::Resumed => inbox.resumed(now, Some(nth)),
                RouterEvent::Down => inbox.down(Some(nth)),
            });
        self.listened(now, as_guest(wants), paused)
    }

    fn turn_partition_commands(&mut self, now: Now, nth: usize, ready: Ready) -> Wants {
        let due_us = self.tick_in(now, nth);
        self.send_due_bundle(now, Some(nth));
        let Bridge { partitions, asked, inbox, figures, unsent, unkept, .. } = self;
        let Some(partitions) = partitions else { return Wants::default() };
        let wants = partitions.router.turn_commands(nth, now, ready.read, ready.write, &mut |ticket, outcome| {
            if let Some(Asked::Parcel { ticket, hint }) = asked.remove(&ticket.0) {
                parcel_answered(inbox, figures, unsent, unkept, ticket, hint, outcome);
            }
        });
        let wants = as_guest(wants);
        let wake_at_us = [wants.wake_at_us, Some(due_us), self.bundles.due_us(Some(nth))].into_iter().flatten().min();
        let is_new = self.is_there_in(Some(nth))
            && !self.is_stopping
            && self.partitions.as_ref().is_some_and(|Partitions { router, states, .. }| {
                states[nth].connections_seen != router.connections(nth)
            });
        match self.is_stopping && self.unanswered_in(nth) == 0 {
            true => Wants::default(),
            false => Wants { wake_at_us, again: wants.again || is_new, ..wants },
        }
    }

    fn unanswered_in(&self, nth: usize) -> usize {
        self.partitions.as_ref().map_or(0, |partitions| partitions.router.unanswered(nth))
    }

    /// After the turn of a subscription.
    pub(super) fn listened(&mut self, now: Now, wants: Wants, paused: bool) -> Wants {
        for revocation in self.inbox.revoked.drain(..) {
            self.ledger.add(&revocation, true);
        }
        let partitioned = self.partitions.as_ref().map_or(0, |partitions| partitions.router.topics());
        self.figures.topics.store((self.router.topics() + partitioned) as u64, Relaxed);
        // While it is paused nothing tells it when the node has caught up, so it looks again soon.
        let look_again_us = paused.then(|| now.mono_us + 5_000);
        let wake_at_us = [wants.wake_at_us, look_again_us, self.inbox.due_us()].into_iter().flatten().min();
        match self.is_stopping {
            // It listens on, but keeps nobody from going.
            true => Wants { write: false, again: false, wake_at_us, ..wants },
            false => Wants { wake_at_us, ..wants },
        }
    }
}

/// The links of all partitions, as guests of their shard.
pub(super) fn guests(bridge: &Rc<RefCell<Bridge>>) -> Vec<Box<dyn Guest>> {
    let count = bridge.borrow().partitions.as_ref().map_or(0, |partitions| partitions.routes.len());
    let guests = |nth| -> [Box<dyn Guest>; 2] {
        [Box::new(RouterGuest(Rc::clone(bridge), nth)), Box::new(CommandGuest(Rc::clone(bridge), nth))]
    };
    (0..count).flat_map(guests).collect()
}

struct RouterGuest(Rc<RefCell<Bridge>>, usize);

impl Guest for RouterGuest {
    fn turn(&mut self, now: Now, ready: Ready, port: &mut dyn Port) -> Wants {
        self.0.borrow_mut().turn_partition_router(now, self.1, ready, port.congested())
    }

    fn stop(&mut self) {}
}

struct CommandGuest(Rc<RefCell<Bridge>>, usize);

impl Guest for CommandGuest {
    fn turn(&mut self, now: Now, ready: Ready, _port: &mut dyn Port) -> Wants {
        self.0.borrow_mut().turn_partition_commands(now, self.1, ready)
    }

    // The desk stops with the link of the place where nodes meet.
    fn stop(&mut self) {}

    fn owes(&self) -> bool {
        self.0.borrow().unanswered_in(self.1) > 0
    }
}
