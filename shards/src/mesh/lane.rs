//! One direction between two shards: a bounded ring, and behind it the producer's own ordered overflow.
use protocol::limits::{LANE_MESSAGES, LANE_OVERFLOW_CONGESTED, LANE_OVERFLOW_RELIEVED};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Messages all lanes into one shard hold together. A ring takes its memory at once, 72 bytes a message, and there are
/// `N * N` of them: at the full width of a lane 64 shards would take a gigabyte, so lanes become narrower as shards
/// become more. A narrow lane spills sooner, which costs a copy and loses nothing.
const INLET_MESSAGES: usize = 65_536;
/// The narrowest lane: a burst of this many messages from one turn still fits.
const LANE_MESSAGES_MIN: usize = 64;

/// Messages in the ring of one lane of a node with so many shards: 4096 up to 16 shards, 1024 with 64, 512 with 128.
pub(super) fn lane_messages(shards: usize) -> usize {
    (INLET_MESSAGES / shards.max(1)).clamp(LANE_MESSAGES_MIN, LANE_MESSAGES)
}

/// A new lane: the end its producer keeps and the end its consumer keeps.
pub(super) fn lane<T>(messages: usize) -> (Outlet<T>, Inlet<T>) {
    let (producer, consumer) = RingBuffer::new(messages);
    let spilled = Arc::new(AtomicBool::new(false));
    let outlet = Outlet { ring: producer, overflow: VecDeque::new(), spilled: spilled.clone(), congested: false };
    (outlet, Inlet { ring: consumer, spilled })
}

/// The producer's end, on the producing shard only.
///
/// Nothing is ever refused here: what must get through (hand-overs, answers, leave messages) shares the lane with what
/// may be refused at its origin, and stays in order with it. A lane above [`LANE_OVERFLOW_CONGESTED`] makes the node
/// refuse new publishes, so what is in flight bounds the overflow.
pub(super) struct Outlet<T> {
    ring: Producer<T>,
    overflow: VecDeque<T>,
    /// Whether `overflow` holds anything, told to the consumer, who then rings when it has made room.
    spilled: Arc<AtomicBool>,
    congested: bool,
}

impl<T> Outlet<T> {
    /// Puts a message behind all earlier ones. Never blocks.
    pub(super) fn push(&mut self, message: T) {
        if self.overflow.is_empty() {
            match self.ring.push(message) {
                Ok(()) => return,
                Err(PushError::Full(message)) => self.spill(message),
            }
            self.spilled.store(true, Ordering::Relaxed);
        } else {
            self.spill(message);
            self.flush();
        }
    }

    fn spill(&mut self, message: T) {
        // The consumer has gone (its shard has ended): nobody will ever make room.
        if !self.ring.is_abandoned() {
            self.overflow.push_back(message);
        }
    }

    /// Moves the overflow into the ring as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(message) = self.overflow.pop_front() {
            if let Err(PushError::Full(message)) = self.ring.push(message) {
                self.overflow.push_front(message);
                return;
            }
        }
        self.spilled.store(false, Ordering::Relaxed);
        if self.overflow.capacity() > LANE_OVERFLOW_RELIEVED {
            self.overflow = VecDeque::new();
        }
    }

    /// Messages in the overflow.
    pub(super) fn waiting(&self) -> usize {
        self.overflow.len()
    }

    /// Whether a flush would move anything.
    pub(super) fn can_flush(&self) -> bool {
        !self.overflow.is_empty() && self.ring.slots() > 0
    }

    /// `Some` when the lane has become congested (`true`) or has been relieved (`false`) since the last look.
    pub(super) fn congestion_change(&mut self) -> Option<bool> {
        let congested = match self.congested {
            false => self.overflow.len() > LANE_OVERFLOW_CONGESTED,
            true => self.overflow.len() >= LANE_OVERFLOW_RELIEVED,
        };
        (congested != std::mem::replace(&mut self.congested, congested)).then_some(congested)
    }
}

/// The consumer's end, on the consuming shard only.
pub(super) struct Inlet<T> {
    ring: Consumer<T>,
    spilled: Arc<AtomicBool>,
}

impl<T> Inlet<T> {
    /// The next message of this lane.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Whether the producer waits for room. To be asked after a sequentially consistent fence that follows the pops.
    pub(super) fn producer_waits(&self) -> bool {
        self.spilled.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_become_narrower_as_shards_become_more() {
        for (shards, messages) in [(0, 4096), (1, 4096), (16, 4096), (17, 3855), (64, 1024), (128, 512), (5000, 64)] {
            assert_eq!(lane_messages(shards), messages, "{shards} shards");
        }
    }

    #[test]
    fn what_does_not_fit_waits_in_order() {
        let (mut outlet, mut inlet) = lane::<usize>(4);
        for n in 0..10 {
            outlet.push(n);
        }
        assert_eq!(outlet.waiting(), 6);
        assert!(inlet.producer_waits() && !outlet.can_flush());
        let mut heard = vec![inlet.pop().unwrap(), inlet.pop().unwrap()];
        assert!(outlet.can_flush());
        outlet.push(10);
        assert_eq!(outlet.waiting(), 5, "a later send moves the overflow first");
        while heard.len() < 11 {
            outlet.flush();
            heard.extend(std::iter::from_fn(|| inlet.pop()));
        }
        assert_eq!(heard, (0..=10).collect::<Vec<_>>());
        assert!(!inlet.producer_waits() && inlet.is_empty());
    }

    #[test]
    fn congestion_has_two_thresholds() {
        let (mut outlet, mut inlet) = lane::<usize>(4);
        for n in 0..4 + LANE_OVERFLOW_CONGESTED {
            outlet.push(n);
        }
        assert_eq!(outlet.congestion_change(), None);
        outlet.push(0);
        assert_eq!(outlet.congestion_change(), Some(true));
        assert_eq!(outlet.congestion_change(), None, "told once");
        while outlet.waiting() > LANE_OVERFLOW_RELIEVED {
            inlet.pop().unwrap();
            outlet.flush();
        }
        assert_eq!(outlet.congestion_change(), None);
        inlet.pop().unwrap();
        outlet.flush();
        assert_eq!(outlet.congestion_change(), Some(false));
    }

    #[test]
    fn a_lane_to_nobody_does_not_grow() {
        let (mut outlet, inlet) = lane::<usize>(4);
        drop(inlet);
        for n in 0..100 {
            outlet.push(n);
        }
        assert_eq!(outlet.waiting(), 0);
    }
}
