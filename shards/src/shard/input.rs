//! What a peer sends: fed to whatever is spoken on its connection, and kept while that may not go on.
use super::Shard;
use crate::conn::Phase;
use crate::conn::http::HttpStage;
use crate::effect::{Effect, Effects};
use crate::key::ConnKey;
use protocol::clock::Now;
use protocol::limits;

/// How a peer's output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// FIN: it sends no more, but may still read.
    Eof,
    /// Reset or any socket error: nothing can be sent either.
    Reset,
}

/// What a step of a connection did with its input.
pub(crate) enum Step {
    /// Used this many bytes; go on with the rest.
    Used(usize),
    /// Needs more, or may not go on now: keep the rest.
    Wait,
    /// The connection is no longer here: the rest went with it.
    Gone,
}

/// Room for waiting input that is not worth giving back.
const TAIL_ROOM_BYTES: usize = 1_024;

impl Shard {
    /// Bytes from the peer; the shard may scribble on them (WebSocket payloads are unmasked in place).
    pub fn received(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.tail.is_empty() {
            let used = self.consume(now, key, bytes, effects);
            if used < bytes.len()
                && let Some(connection) = self.connections.get_mut(key)
            {
                connection.tail.extend_from_slice(&bytes[used..]);
            }
        } else {
            let mut tail = std::mem::take(&mut connection.tail);
            // A head that is not whole is looked at again only when a line has ended.
            let is_head = matches!(&connection.phase, Phase::Http(http) if matches!(http.stage, HttpStage::Head));
            let may_end = !is_head || bytes.contains(&b'\n') || tail.len() + bytes.len() > limits::HTTP_HEAD_BYTES_MAX;
            tail.extend_from_slice(bytes);
            if may_end {
                self.consume_tail(now, key, tail, effects);
            } else {
                connection.tail = tail;
            }
        }
        self.settle_reading(key, effects);
    }

    /// The peer's output ended.
    pub fn ended(&mut self, now: Now, key: ConnKey, how: Ended, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.eof = true;
        match &connection.phase {
            _ if how == Ended::Reset => self.drop_connection(now, key, effects),
            // Who only listens and sends its FIN is gone.
            Phase::Live(_) => self.drop_connection(now, key, effects),
            Phase::Closing(_) if connection.is_flushed() => self.drop_connection(now, key, effects),
            Phase::Closing(_) => {}
            Phase::Http(_) => self.end_if_silent(now, key, effects),
        }
    }

    /// A client that has sent its FIN and has all its answers: nothing more can come of it.
    fn end_if_silent(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.eof && matches!(connection.phase, Phase::Http(_)) && connection.wants_input() {
            self.finish(now, key, effects);
        }
    }

    /// Feeds input to whatever is spoken on the connection; how much of it was used.
    fn consume(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let Some(connection) = self.connections.get_mut(key) else { return bytes.len() };
            connection.busy = true;
            let step = match &connection.phase {
                Phase::Http(_) => self.http_step(now, key, &mut bytes[at..], effects),
                Phase::Live(live) if live.transport.is_sse() => Step::Used(bytes.len() - at),
                Phase::Live(_) => self.websocket_step(now, key, &mut bytes[at..], effects),
                Phase::Closing(_) => self.closing_step(now, key, &mut bytes[at..], effects),
            };
            match step {
                Step::Used(used) => at += used,
                Step::Wait => break,
                Step::Gone => return bytes.len(),
            }
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.busy = false;
        }
        at
    }

    fn consume_tail(&mut self, now: Now, key: ConnKey, mut tail: Vec<u8>, effects: &mut Effects) {
        let used = self.consume(now, key, &mut tail, effects);
        if used < tail.len()
            && let Some(connection) = self.connections.get_mut(key)
        {
            tail.drain(..used);
            // A burst that ended in the middle of something leaves that, not its room.
            if tail.capacity() > (4 * tail.len()).max(TAIL_ROOM_BYTES) {
                tail.shrink_to(2 * tail.len());
            }
            connection.tail = tail;
        }
    }

    /// Goes on with input that had to wait.
    pub(crate) fn resume(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.busy {
            return;
        }
        if !connection.tail.is_empty() && connection.wants_input() {
            let tail = std::mem::take(&mut connection.tail);
            self.consume_tail(now, key, tail, effects);
        }
        self.end_if_silent(now, key, effects);
        self.settle_reading(key, effects);
    }

    /// Tells the rim to read, or not to: a peer that does not take its answers, or waits for one, is not read.
    pub(crate) fn settle_reading(&mut self, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let on = connection.wants_input();
        if on == connection.deaf {
            connection.deaf = !on;
            effects.push(Effect::Read { key, on });
        }
    }
}
