//! What is done again and again: canaries and hellos, the keys of sessions before they expire, and what one node does for
//! all. And what is done once a link is back.
use super::Bridge;
use super::answers::{Asked, Hint};
use crate::bridge::members::reads_first;
use protocol::clock::Now;
use protocol::cluster::wire::{Hello, Parcel, ParcelKind};
use protocol::cluster::{ClusterEvent, Topic};
use protocol::limits;
use std::sync::atomic::Ordering::Relaxed;

/// From one look at what waits for room to the next: answers make room.
const LOOK_AGAIN_US: u64 = 5_000;

/// When duties are due.
#[derive(Default)]
pub(super) struct Duties {
    hello_due_us: u64,
    canary_due_us: u64,
    /// How many there were, in all places.
    canaries: u64,
    /// How often the link for commands came up, as far as it was noticed.
    connections_seen: u64,
    /// Since when this node reads, as the shards were told.
    reads_since_us: Option<u64>,
}

impl Bridge {
    /// Does what is due.
    pub(super) fn tick(&mut self, now: Now) {
        let is_there = self.is_there() && !self.is_stopping;
        if now.mono_us >= self.duties.canary_due_us {
            self.duties.canary_due_us = now.mono_us + limits::CANARY_INTERVAL_MS * 1_000;
            if is_there {
                self.say_canary(now, None);
            }
        }
        let is_time = now.mono_us >= self.duties.hello_due_us;
        if is_time {
            self.duties.hello_due_us = now.mono_us + limits::CLUSTER_HELLO_INTERVAL_MS * 1_000;
            if is_there {
                self.say_hello(now);
                self.send_hints_again(now, None);
            }
        }
        self.inbox.has_other_members |= self.inbox.members.expire(now);
        let reads_since_us = self.reading.since_us();
        let is_other = std::mem::replace(&mut self.duties.reads_since_us, reads_since_us) != reads_since_us;
        if std::mem::take(&mut self.inbox.has_other_members) || is_time || is_other {
            let own = self.hello(now);
            let all = self.inbox.members.with(now, own.clone());
            let is_first = reads_first(&all, &own, |claim| self.reading.has_read(claim));
            self.figures.members.store(all.len() as u64, Relaxed);
            let connections = all.iter().map(|hello| hello.connections).fold(0, u64::saturating_add);
            self.figures.connections.store(connections, Relaxed);
            self.inbox.events.push(ClusterEvent::Members { all, reads_since_us, is_first });
        }
        let is_alone = self.hears_nobody(now);
        if std::mem::replace(&mut self.is_alone, is_alone) != is_alone {
            self.inbox.events.push(ClusterEvent::Alone(is_alone));
        }
        if is_there && self.keys.register.begins(now) {
            // Whatever was missed though no link broke.
            self.keys.ledger.forget(now.unix_seconds());
            self.keys.ledger.owe_untold();
            self.keys.ledger.missed();
            self.inbox.events.push(ClusterEvent::RefreshSessions);
        }
        if is_there {
            self.walk(now);
            self.tend_revocations(now);
        }
    }

    /// When to look at them again.
    pub(super) fn due_us(&self, now: Now) -> u64 {
        let waits_for_room = self.keys.register.walk.is_some() || (self.is_there() && self.keys.ledger.has_work());
        let keys_due_us = match waits_for_room {
            true => now.mono_us + LOOK_AGAIN_US,
            false => self.keys.register.due_us().max(now.mono_us + 1_000),
        };
        self.duties.hello_due_us.min(self.duties.canary_due_us).min(keys_due_us)
    }

    /// Whether no other node can be there: one that begins says hello before it lets a client in, and is heard, as Redis
    /// carries what this node says to itself; those that were there before would have said hello long since.
    fn hears_nobody(&self, now: Now) -> bool {
        let silence_us = limits::CLUSTER_MEMBER_SILENCE_MS * 1_000;
        self.inbox.members.is_alone()
            && self.listening_us.is_some_and(|since_us| now.mono_us >= since_us + silence_us)
            && self.figures.flows(now)
    }

    /// Twice a second, in each place: whether messages flow.
    pub(super) fn say_canary(&mut self, now: Now, partition: Option<usize>) {
        self.duties.canaries += 1;
        let own = self.server_id.clone();
        let kind = ParcelKind::Canary(self.duties.canaries);
        let parcel = Parcel { from_server: own.clone(), to_server: Some(own.clone()), kind };
        self.publish_in(now, partition, &Topic::Node(own), &parcel, None, None);
    }

    /// Once a second: this node is there, and what one node does for all.
    fn say_hello(&mut self, now: Now) {
        self.keys.ledger.retry();
        let hello = self.hello(now);
        let connections = hello.connections;
        self.say(now, ParcelKind::Hello(hello));
        let users = self.answers.wait_for(Asked::Users);
        let sweep = self.inbox.members.is_first(&self.server_id).then(|| self.answers.wait_for(Asked::Sweep));
        // What is not taken is asked again in a second.
        self.keys.sessions.count(connections, |command| self.links.tell(now, command));
        if !self.keys.sessions.users(|command| self.links.ask(now, users, command)) {
            self.answers.forget(users);
        }
        let cursor = self.answers.sweep_cursor;
        if let Some(sweep) = sweep
            && !self.keys.sessions.sweep(cursor, |command| self.links.ask(now, sweep, command))
        {
            self.answers.forget(sweep);
        }
    }

    fn hello(&self, now: Now) -> Hello {
        let reading_ms = |since_us: u64| now.mono_us.saturating_sub(since_us) / 1_000;
        Hello {
            server_id: self.server_id.clone(),
            connections: self.metrics.sum(|shard| shard.connections_ws.get() + shard.connections_sse.get()),
            users: self.metrics.sum(|shard| shard.users.get()),
            started_unix_ms: self.inbox.started_unix_ms,
            reading_ms: self.reading.since_us().map(reading_ms),
            first_read: self.reading.first(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Whether the link for commands is up again: Redis may have lost everything.
    pub(super) fn notices_connection(&mut self, now: Now) -> bool {
        let connections = self.figures.commands.connections();
        let is_new = std::mem::replace(&mut self.duties.connections_seen, connections) != connections;
        if is_new {
            (self.duties.hello_due_us, self.duties.canary_due_us) = (now.mono_us, now.mono_us);
            self.keys.ledger.up(now.unix_seconds());
            self.keys.gate.up();
            self.leave_owed(now);
            self.send_hints_again(now, None);
        }
        is_new
    }

    /// Sends the hints that could not be sent in a place, for the link was away or Redis refused them: when it is back, before
    /// anything newer, and each second. Their receipts interest nobody any more.
    pub(super) fn send_hints_again(&mut self, now: Now, partition: Option<usize>) {
        let hints: Vec<Hint> = self.answers.take_unsent(|topic| self.links.partition(topic) == partition);
        for (topic, parcel) in hints {
            self.publish_in(now, partition, &topic, &parcel, None, Some((topic.clone(), parcel.clone())));
        }
    }
}
