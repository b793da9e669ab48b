//! Commands that wait behind the output.
use crate::redis::commands::event::Ask;
use std::collections::VecDeque;

/// Bytes of those that were taken out, above which their room is given back.
const GONE_BYTES_MAX: usize = 64 * 1024;

/// Encoded commands that are not in the output.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) asks: VecDeque<Ask>,
    bytes: Vec<u8>,
    /// Bytes of those that were taken out in front.
    gone: usize,
}

impl Queue {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    /// Takes a command. `asked` is given its bytes, which only the writing tells.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>), asked: impl FnOnce(usize) -> Ask) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.asks.push_back(asked(self.bytes.len() - before));
    }

    /// Takes a command that is encoded.
    pub(super) fn push_encoded(&mut self, ask: Ask, bytes: &[u8]) {
        self.asks.push_back(ask);
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the commands of another behind its own.
    pub(super) fn append(&mut self, other: Queue) {
        self.bytes.extend_from_slice(other.bytes());
        self.asks.extend(other.asks);
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len() - self.gone
    }

    pub(super) fn pop_front(&mut self) -> Option<Ask> {
        let ask = self.asks.pop_front()?;
        self.gone += ask.bytes;
        if self.asks.is_empty() {
            *self = Queue::default();
        } else if self.gone > GONE_BYTES_MAX && self.gone > self.bytes.len() / 2 {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        Some(ask)
    }

    /// Takes one out that is not the first, perhaps; rare.
    pub(super) fn remove(&mut self, at: usize) -> Option<Ask> {
        let from = self.gone + self.asks.iter().take(at).map(|ask| ask.bytes).sum::<usize>();
        let ask = self.asks.remove(at)?;
        self.bytes.drain(from..from + ask.bytes);
        Some(ask)
    }
}
