//! Output that waits too long, and what all outboxes of a shard may occupy together (design: slow consumers).
//!
//! One outbox is bounded by itself, in bytes, frames and age; ten thousand of them are not a node's memory yet. Above the
//! shard's bound those that hold the most are shed: mail goes back into its mailbox, and who still holds much is closed
//! with 4008. Nobody whose socket takes what it is given is touched.
use crate::conn::Phase;
use crate::conn::live::Intake;
use crate::conn::outbox::Outbox;
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::Shard;
use protocol::clock::Now;
use protocol::limits;
use std::sync::atomic::Ordering::Relaxed;

/// What is known of a shard's shedding.
#[derive(Debug, Default)]
pub(crate) struct Shedding {
    /// While the outboxes are above their bound, or were a moment ago: what was shed of them meanwhile.
    episode: Option<Episode>,
    /// An episode has begun or ended, and nobody was told.
    notice: Option<Notice>,
    /// Nothing more could be shed; not before this time is it tried again.
    again_ms: u64,
    /// The node was told that this shard takes no more.
    is_congested: bool,
}

#[derive(Clone, Copy, Debug)]
struct Episode {
    shed: u64,
    /// The last time that something was shed or too much.
    last_ms: u64,
}

/// Something to be said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The outboxes are above their bound.
    Began {
        /// What they occupy, in bytes.
        room_bytes: usize,
        /// Their bound.
        room_bytes_max: usize,
    },
    /// They were not for a while.
    Ended {
        /// Connections that were taken from, or closed, meanwhile.
        shed: u64,
    },
}

/// Calm after which an episode has ended.
const EPISODE_CALM_MS: u64 = 5_000;

impl Shard {
    // --- Age ---------------------------------------------------------------------------------------------------------

    /// Whether something waits for this connection, and stands in no mailbox, for longer than it may.
    pub(crate) fn is_aged(&self, now: Now, key: ConnKey) -> bool {
        let outbox = self.connections.get(key).and_then(|connection| connection.outbox.as_deref());
        let oldest_us = outbox.and_then(|outbox| outbox.oldest_unkept_us());
        oldest_us.is_some_and(|oldest_us| now.mono_ms() >= oldest_us / 1_000 + limits::OUTBOX_AGE_MS)
    }

    /// Its socket takes a little now and then, and that is not enough: mail waits in its mailbox from here on; who waits
    /// for anything else is closed.
    pub(crate) fn output_aged(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        self.put_mail_back(now, key, effects);
        if self.is_aged(now, key) {
            self.close_slow(now, key, effects);
        } else {
            self.schedule_live(now, key);
        }
    }

    /// Takes mail out of an outbox that can stand in its mailbox.
    fn put_mail_back(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get(key) else { return };
        let is_current = connection.live().is_some_and(|live| live.intake == Intake::UpToDate);
        let has_unkept = connection.outbox.as_deref().is_some_and(Outbox::has_unkept_mail);
        if self.config.queue.is_some() && is_current && has_unkept {
            self.fall_behind(now, key, effects);
            self.read_on(now, key, effects);
        }
    }

    // --- All outboxes together ---------------------------------------------------------------------------------------

    /// Sheds the worst while all outboxes together are above their bound.
    pub(crate) fn shed_output(&mut self, now: Now, effects: &mut Effects) {
        let room_bytes_max = self.config.outbox_bytes_max;
        self.metrics().outbox_room_bytes.set(self.outbox_room_bytes as i64);
        if self.outbox_room_bytes <= room_bytes_max {
            if self.shedding.episode.is_some() {
                self.calm(now);
            }
            return;
        }
        if self.shedding.episode.is_none() {
            self.shedding.notice = Some(Notice::Began { room_bytes: self.outbox_room_bytes, room_bytes_max });
        }
        let episode = self.shedding.episode.get_or_insert(Episode { shed: 0, last_ms: 0 });
        episode.last_ms = now.mono_ms();
        if now.mono_ms() < self.shedding.again_ms {
            return;
        }
        let shed = self.shed_worst(now, room_bytes_max - room_bytes_max / 8, effects);
        self.metrics().outbox_shed.add(shed);
        self.shedding.episode.iter_mut().for_each(|episode| episode.shed += shed);
        self.shedding.again_ms = now.mono_ms() + limits::OUTBOX_SHED_PAUSE_MS;
        // What is left is about to be written, or somebody's who was shed already: it passes.
        self.note_output_congestion(self.outbox_room_bytes > room_bytes_max);
    }

    fn calm(&mut self, now: Now) {
        self.note_output_congestion(false);
        if let Some(episode) = self.shedding.episode
            && now.mono_ms() >= episode.last_ms + EPISODE_CALM_MS
        {
            self.shedding.episode = None;
            self.shedding.notice = Some(Notice::Ended { shed: episode.shed });
        }
    }

    /// As a lane that is full: publishers of the whole node are held back.
    fn note_output_congestion(&mut self, is_congested: bool) {
        if std::mem::replace(&mut self.shedding.is_congested, is_congested) != is_congested {
            match is_congested {
                true => self.node.congested_lanes.fetch_add(1, Relaxed),
                false => self.node.congested_lanes.fetch_sub(1, Relaxed),
            };
        }
    }

    /// Sheds those who hold the most and, among equals, have waited the longest, until no more than `room_bytes` is
    /// occupied; how many.
    fn shed_worst(&mut self, now: Now, room_bytes: usize, effects: &mut Effects) -> u64 {
        let mut blocked: Vec<(usize, u64, ConnKey)> = Vec::new();
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key).filter(|connection| connection.blocked) else { continue };
            let Some(outbox) = connection.outbox.as_deref() else { continue };
            blocked.push((outbox.frame_bytes() + outbox.control_bytes(), outbox.waiting_since_us, key));
        }
        blocked.sort_unstable_by_key(|(bytes, since_us, key)| (std::cmp::Reverse(*bytes), *since_us, key.slot));
        let mut shed = 0;
        for (bytes, _, key) in blocked {
            if self.outbox_room_bytes <= room_bytes {
                break;
            }
            shed += 1;
            self.shed(now, key, bytes, effects);
        }
        shed
    }

    fn shed(&mut self, now: Now, key: ConnKey, bytes: usize, effects: &mut Effects) {
        let Some(connection) = self.connections.get(key) else { return };
        if !matches!(connection.phase, Phase::Live(_)) {
            // Answers that nobody reads, or a client that ends: what is left to be said reaches nobody.
            return self.drop_connection(now, key, effects);
        }
        self.put_mail_back(now, key, effects);
        let outbox = self.connections.get(key).and_then(|connection| connection.outbox.as_deref());
        if outbox.is_some_and(|outbox| outbox.frame_bytes() + outbox.control_bytes() > bytes / 2) {
            self.close_slow(now, key, effects);
        }
    }

    /// What is to be said about it, once.
    pub(crate) fn take_notice(&mut self) -> Option<Notice> {
        self.shedding.notice.take()
    }
}

#[cfg(test)]
mod tests;
