//! Commands that wait behind the output.
use crate::redis::commands::event::Ask;
use std::collections::VecDeque;

/// Bytes of those that were taken out, above which their room is given back.
const GONE_BYTES_MAX: usize = 64 * 1024;

/// Encoded commands that are not in the output.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) asks: VecDeque<Ask>,
    pub(super) bytes: Vec<u8>,
    /// Bytes of those that were taken out in front.
    pub(super) gone: usize,
}

impl Queue {
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
