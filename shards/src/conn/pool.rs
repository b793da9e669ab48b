//! Empty outboxes, kept so that a busy turn allocates nothing.
use super::outbox::Outbox;

/// What the outboxes of one pool may occupy, with the room they keep: some ten thousand of the usual small ones, so
/// that a channel of that size is served again and again from here, and never more after a burst of large ones.
const POOL_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The pool of one shard.
#[derive(Debug, Default)]
pub struct OutboxPool {
    #[expect(clippy::vec_box, reason = "boxes move between the pool and the connections")]
    outboxes: Vec<Box<Outbox>>,
    bytes: usize,
}

impl OutboxPool {
    /// An empty outbox in which output waits from now on.
    pub fn take(&mut self, now_us: u64) -> Box<Outbox> {
        let mut outbox = match self.outboxes.pop() {
            Some(outbox) => {
                self.bytes -= outbox.room_bytes();
                outbox
            }
            None => Box::default(),
        };
        outbox.waiting_since_us = now_us;
        outbox
    }

    /// Takes one back; keeps it if it is small and there is room.
    pub fn give(&mut self, outbox: Box<Outbox>) {
        debug_assert!(outbox.is_empty(), "something waits in it: {outbox:?}");
        let bytes = self.bytes + outbox.room_bytes();
        if outbox.is_small() && bytes <= POOL_BYTES_MAX {
            self.bytes = bytes;
            self.outboxes.push(outbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_room(bytes: usize) -> Box<Outbox> {
        let mut outbox = Box::<Outbox>::default();
        outbox.control().reserve_exact(bytes);
        outbox
    }

    #[test]
    fn a_pool_keeps_many_small_ones_and_few_large_ones() {
        let mut pool = OutboxPool::default();
        for (room, kept) in [(64, 10_000..20_000), (4_000, 400..600), (5_000, 0..1)] {
            (0..30_000).for_each(|_| pool.give(with_room(room)));
            assert!(kept.contains(&pool.outboxes.len()), "{room}: {}", pool.outboxes.len());
            while !pool.outboxes.is_empty() {
                assert_eq!(pool.take(7).waiting_since_us, 7);
            }
            assert_eq!(pool.bytes, 0);
        }
    }
}
