//! What is written to a connection, and what becomes of it when the socket has taken it.
use super::Shard;
use crate::effect::Effects;
use crate::flow::deliver::writes_of;
use crate::key::ConnKey;
use protocol::clock::Now;
use protocol::limits;

impl Shard {
    /// Moves the connections that have something to write into `out`; each stands there once.
    pub fn take_dirty(&mut self, out: &mut Vec<ConnKey>) {
        self.dirty.pop_all(out);
    }

    /// The next connection that has something to write; tenants take turns.
    pub fn next_dirty(&mut self) -> Option<ConnKey> {
        self.dirty.pop().map(|(_, key)| key)
    }

    /// How many connections have something to write.
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// What to write to this connection now: at most [`limits::WRITE_BYTES_MAX`] assembled bytes, or one larger piece.
    pub fn output(&mut self, now: Now, key: ConnKey) -> &[u8] {
        let me = self.me.index();
        let Some(connection) = self.connections.get_mut(key) else { return &[] };
        connection.dirty = false;
        let (transport, held) = connection.reads();
        let Some(outbox) = connection.outbox.as_deref_mut() else { return &[] };
        let before = outbox.frame_bytes();
        let expired = outbox.drop_expired(now.mono_us, transport);
        if expired > 0 {
            self.outbox_room_bytes -= outbox.take_freed();
            self.node.shards[me].expired.add(expired as u64);
            self.node.shards[me].outbox_bytes.add(outbox.frame_bytes() as i64 - before as i64);
        }
        outbox.assemble(transport, held, &mut self.assembly)
    }

    /// `len` bytes of the last [`Shard::output`] went out. A connection that has more is dirty again, unless `blocked`:
    /// then the rim waits until the socket is writable and calls [`Shard::writable`].
    pub fn written(&mut self, now: Now, key: ConnKey, len: usize, blocked: bool, effects: &mut Effects) {
        let me = self.me.index();
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (transport, held) = connection.reads();
        if let Some(outbox) = connection.outbox.as_deref_mut() {
            let before = outbox.frames_len();
            let oldest_us = outbox.first_accepted_us();
            outbox.advance(len, transport, &mut self.mail_out);
            self.outbox_room_bytes -= outbox.take_freed();
            self.node.shards[me].outbox_bytes.add(-(len as i64));
            let frames = before - outbox.frames_len();
            if frames > 0
                && let Some(oldest_us) = oldest_us
            {
                let seconds = now.mono_us.saturating_sub(oldest_us) as f64 / 1e6;
                self.node.shards[me].delivery_latency_seconds.observe_many(seconds, frames as u64);
            }
            if len > 0 {
                outbox.waiting_since_us = now.mono_us;
            }
        }
        let newly_blocked = blocked && !connection.blocked;
        connection.blocked = blocked;
        if connection.is_flushed() {
            if let Some(outbox) = connection.outbox.take() {
                self.outboxes.give(outbox);
            }
            self.flushed(now, key, effects);
        } else if !blocked && held {
            if connection.control_bytes() > 0 {
                self.mark_dirty(key);
            }
        } else {
            // More than the socket, or one write, takes.
            if let Some(outbox) = &mut connection.outbox {
                outbox.note_backlog();
            }
            if !blocked {
                self.mark_dirty(key);
            } else if newly_blocked {
                self.schedule(key, now.mono_ms() + limits::OUTBOX_STALL_MS);
            }
        }
        if self.config.queue.is_some() {
            let mail = std::mem::take(&mut self.mail_out);
            self.mail_taken(now, key, mail, effects);
        }
        self.resume_if_relieved(now, key, effects);
    }

    /// A blocked socket takes bytes again.
    pub fn writable(&mut self, _now: Now, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.blocked = false;
            self.mark_dirty(key);
        }
    }

    /// End of the flush: lets go of shared frames.
    pub fn flushed_all(&mut self) {
        self.assembly.forget_run();
    }

    pub(crate) fn mark_dirty(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
            && !connection.blocked
        {
            connection.dirty = true;
            self.dirty.push(connection.live().map_or(0, |live| writes_of(live.tenant)), key);
        }
    }

    /// Appends to a connection's control lane.
    pub(crate) fn write_control(&mut self, now: Now, key: ConnKey, write: impl FnOnce(&mut Vec<u8>)) {
        let Shard { connections, outboxes, .. } = self;
        let Some(connection) = connections.get_mut(key) else { return };
        let outbox = connection.outbox.get_or_insert_with(|| outboxes.take(now.mono_us));
        let before = outbox.control_bytes();
        write(outbox.control());
        let written = outbox.control_bytes() - before;
        self.outbox_room_bytes += written;
        self.metrics().outbox_bytes.add(written as i64);
        self.mark_dirty(key);
    }
}
