//! Publishes to users or channels of several partitions of a Redis Cluster: the order of each of them is kept, and everybody
//! gets them once. No socket, no clock.
//!
//! Each partition has its own link, so what a node said in one may come before what it said earlier in another. The
//! sender of such a publish puts a **fence** into each of the partitions, and the publication behind it into the first. A
//! receiver holds what the same sender says to users and channels behind a fence, partition by partition, until the fence has
//! come in all of them and the publication, too; then it hands on the publication, once, and what was held. A sender
//! puts its fences into all partitions in the same order, so they never wait for each other in a circle.
//!
//! **Bounds.** A fence waits [`limits::CLUSTER_FENCE_WAIT_MS`], and for a partition whose subscription is down not at
//! all: what it says is lost. Held are [`limits::CLUSTER_FENCED_MAX`] parcels; one more ends all waiting.
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind};
use protocol::ids::NotificationId;
use protocol::limits;
use protocol::notification::Target;
use std::collections::{HashMap, VecDeque};

const PARTITIONS: usize = limits::CLUSTER_PARTITIONS_MAX;
/// Partitions, a bit each.
type Set = u16;
const _: () = assert!(PARTITIONS <= Set::BITS as usize);

/// What is held, by sender.
#[derive(Debug, Default)]
pub(super) struct Fences {
    senders: HashMap<Box<str>, Sender>,
    /// Partitions that are listened to.
    up: Set,
    /// Items in all lanes, and the bytes of their messages.
    held: usize,
    held_bytes: usize,
    /// Fences that were given up, the oldest first.
    given_up: VecDeque<NotificationId>,
}

/// One with open fences; there are no others.
#[derive(Debug, Default)]
struct Sender {
    /// In the order in which they were heard of, which is the order of the sender.
    open: VecDeque<Fence>,
    /// What came behind the first open fence of each partition, that fence first.
    lanes: [VecDeque<Item>; PARTITIONS],
}

#[derive(Debug)]
struct Fence {
    id: NotificationId,
    /// Where its publication comes.
    carrier: usize,
    /// Where it has to come before it is passed; those that came are still among them.
    awaited: Set,
    /// Where it came, awaited or not: it stands in these lanes.
    came: Set,
    publication: Option<Parcel>,
    /// None will come.
    is_lost: bool,
    due_us: u64,
}

#[derive(Debug)]
enum Item {
    Fence(NotificationId),
    Parcel(Parcel),
}

impl Fences {
    /// A parcel of another node came in a partition: `out` gets what is to be handed on now.
    pub(super) fn heard(&mut self, now: Now, partition: usize, parcel: Parcel, out: &mut Vec<Parcel>) {
        match &parcel.kind {
            ParcelKind::Fence { id, partitions } => {
                let (id, partitions) = (*id, partitions.clone());
                self.fence(now, partition, &parcel.from_server, id, &partitions, out);
            }
            ParcelKind::Publication { target, .. } if *target != Target::Broadcast => {
                self.publication(partition, parcel, out);
            }
            _ => out.push(parcel),
        }
        if self.held >= limits::CLUSTER_FENCED_MAX || self.held_bytes >= limits::CLUSTER_FENCED_BYTES_MAX {
            self.give_up(u64::MAX, out);
        }
    }

    /// Gives up what has waited too long.
    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Parcel>) {
        if self.due_us().is_some_and(|due_us| due_us <= now.mono_us) {
            self.give_up(now.mono_us, out);
        }
    }

    /// When [`Fences::tick`] has something to do.
    pub(super) fn due_us(&self) -> Option<u64> {
        self.senders.values().filter_map(|sender| sender.open.front()).map(|fence| fence.due_us).min()
    }

    /// A partition is listened to.
    pub(super) fn up(&mut self, partition: usize) {
        self.up |= bit(partition);
    }

    /// A partition is not listened to any more: nobody waits for what was on its way there.
    pub(super) fn down(&mut self, partition: usize, out: &mut Vec<Parcel>) {
        self.up &= !bit(partition);
        let names: Vec<Box<str>> = self.senders.keys().cloned().collect();
        for name in names {
            let Some(sender) = self.senders.get_mut(&name) else { continue };
            for fence in &mut sender.open {
                if fence.awaited & !fence.came & bit(partition) != 0 {
                    fence.awaited &= !bit(partition);
                    remember(&mut self.given_up, fence.id);
                }
                fence.is_lost |= fence.carrier == partition;
            }
            self.pass(&name, out);
        }
    }

    fn fence(
        &mut self,
        now: Now,
        partition: usize,
        from: &str,
        id: NotificationId,
        partitions: &[u8],
        out: &mut Vec<Parcel>,
    ) {
        let all = partitions.iter().fold(0, |set, nth| set | bit(usize::from(*nth)));
        let carrier = usize::from(partitions.first().copied().unwrap_or_default());
        if all & bit(partition) == 0 {
            return;
        }
        let at = self.senders.get(from).and_then(|sender| sender.open.iter().position(|fence| fence.id == id));
        if at.is_none() {
            if self.given_up.contains(&id) {
                // It comes late.
                return;
            }
            // What it says where it comes is heard, whether or not that was told before.
            let up = self.up | bit(partition);
            let awaited = all & up;
            if awaited != all {
                remember(&mut self.given_up, id);
            }
            if awaited == bit(partition) {
                return;
            }
            let due_us = now.mono_us + limits::CLUSTER_FENCE_WAIT_MS * 1_000;
            let is_lost = up & bit(carrier) == 0;
            let fence = Fence { id, carrier, awaited, came: 0, publication: None, is_lost, due_us };
            self.senders.entry(from.into()).or_default().open.push_back(fence);
        }
        let Some(Sender { open, lanes }) = self.senders.get_mut(from) else { return };
        let at = at.unwrap_or(open.len().saturating_sub(1));
        if let Some(fence) = open.get_mut(at).filter(|fence| fence.came & bit(partition) == 0) {
            fence.came |= bit(partition);
            lanes[partition].push_back(Item::Fence(id));
            self.held += 1;
        }
        self.pass(from, out);
    }

    fn publication(&mut self, partition: usize, parcel: Parcel, out: &mut Vec<Parcel>) {
        let Some(sender) = self.senders.get_mut(&parcel.from_server) else { return out.push(parcel) };
        let id = id_of(&parcel);
        let fence = sender.open.iter_mut().find(|fence| Some(fence.id) == id && fence.carrier == partition);
        if let Some(fence) = fence.filter(|fence| fence.publication.is_none()) {
            self.held_bytes += bytes_of(&parcel);
            let from = parcel.from_server.clone();
            fence.publication = Some(parcel);
            return self.pass(&from, out);
        }
        if sender.lanes[partition].is_empty() {
            return out.push(parcel);
        }
        self.held += 1;
        self.held_bytes += bytes_of(&parcel);
        sender.lanes[partition].push_back(Item::Parcel(parcel));
    }

    /// Passes every fence of a sender that has come wherever it is awaited, and what is behind it.
    fn pass(&mut self, from: &str, out: &mut Vec<Parcel>) {
        while let Some(sender) = self.senders.get(from) {
            let is_passed = |fence: &Fence| {
                let is_at_head = |nth: usize| sender.lanes[nth].front().is_some_and(|item| item.is_fence(fence.id));
                fence.awaited & !fence.came == 0
                    && (fence.publication.is_some() || fence.is_lost)
                    && (0..PARTITIONS).all(|nth| fence.awaited & bit(nth) == 0 || is_at_head(nth))
            };
            let Some(at) = sender.open.iter().position(is_passed) else { return };
            self.open(from, at, out);
        }
    }

    /// Takes a fence away, wherever it stands, and hands on what it held.
    fn open(&mut self, from: &str, at: usize, out: &mut Vec<Parcel>) {
        let Some(sender) = self.senders.get_mut(from) else { return };
        let Some(fence) = sender.open.remove(at) else { return };
        if let Some(publication) = fence.publication {
            self.held_bytes = self.held_bytes.saturating_sub(bytes_of(&publication));
            out.push(publication);
        }
        for (_, lane) in sender.lanes.iter_mut().enumerate().filter(|(nth, _)| fence.came & bit(*nth) != 0) {
            self.held -= 1;
            match lane.front().is_some_and(|item| item.is_fence(fence.id)) {
                true => _ = lane.pop_front(),
                // It is given up, or was not awaited there.
                false => lane.retain(|item| !item.is_fence(fence.id)),
            }
            while let Some(Item::Parcel(_)) = lane.front() {
                if let Some(Item::Parcel(parcel)) = lane.pop_front() {
                    self.held -= 1;
                    self.held_bytes = self.held_bytes.saturating_sub(bytes_of(&parcel));
                    out.push(parcel);
                }
            }
        }
        if sender.open.is_empty() {
            self.senders.remove(from);
        }
    }

    /// Takes away every fence whose time is over.
    fn give_up(&mut self, due_us: u64, out: &mut Vec<Parcel>) {
        let names: Vec<Box<str>> = self.senders.keys().cloned().collect();
        for name in names {
            while let Some(fence) = self.senders.get(&name).and_then(|sender| sender.open.front())
                && fence.due_us <= due_us
            {
                remember(&mut self.given_up, fence.id);
                self.open(&name, 0, out);
            }
            self.pass(&name, out);
        }
    }
}

impl Item {
    fn is_fence(&self, id: NotificationId) -> bool {
        matches!(self, Item::Fence(fence) if *fence == id)
    }
}

fn remember(given_up: &mut VecDeque<NotificationId>, id: NotificationId) {
    if given_up.len() >= limits::CLUSTER_FENCES_REMEMBERED_MAX {
        given_up.pop_front();
    }
    given_up.push_back(id);
}

fn bit(partition: usize) -> Set {
    1 << (partition % PARTITIONS)
}

fn id_of(parcel: &Parcel) -> Option<NotificationId> {
    match &parcel.kind {
        ParcelKind::Publication { published, .. } => Some(published.id),
        _ => None,
    }
}

fn bytes_of(parcel: &Parcel) -> usize {
    match &parcel.kind {
        ParcelKind::Publication { published, .. } => published.message.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
