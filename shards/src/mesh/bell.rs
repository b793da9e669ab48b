//! The bell of a shard: how others wake it.
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Wakes one shard, from any thread; an eventfd that stands in the shard's epoll set.
///
/// Ringing never blocks and never fails in a way that matters: rings add up until the shard looks, and a shard that
/// has gone needs no waking. A helper thread puts its result where the shard will look, then rings.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Shared>);

/// Alone on its cache line: producers look at `sleeping` every turn, and another shard's flag must not disturb them.
#[derive(Debug)]
#[repr(align(64))]
struct Shared {
    descriptor: OwnedFd,
    sleeping: AtomicBool,
}

impl Bell {
    /// A silent bell of a shard that is awake.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Bell> {
        let descriptor = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Bell(Arc::new(Shared { descriptor, sleeping: AtomicBool::new(false) })))
    }

    /// Wakes the shard, or keeps it from falling asleep. One system call.
    pub fn ring(&self) {
        // Fails only when the counter is full, and then the bell is ringing already.
        let _ = rustix::io::write(&self.0.descriptor, &1u64.to_ne_bytes());
    }

    /// Rings when the shard sleeps; the first to see it does so, the others save the call. The caller has published
    /// its work and then passed a sequentially consistent fence; see [`Bell::fall_asleep`].
    pub(super) fn ring_sleeper(&self) {
        let sleeping = &self.0.sleeping;
        if sleeping.load(Ordering::Relaxed) && sleeping.swap(false, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// First half of the owner's way to sleep: whoever publishes from here on must ring. The owner looks at its lanes
    /// once more afterwards. Of the two fences, here and at the producer between its publishing and its look at the
    /// flag, one comes first in the single order of such fences: if ours, the producer sees the flag; if the
    /// producer's, our second look sees its work. Neither can miss the other.
    pub(super) fn fall_asleep(&self) {
        self.0.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake: nobody needs to ring.
    pub(super) fn wake(&self) {
        self.0.sleeping.store(false, Ordering::Relaxed);
    }

    /// Takes back all rings so far, so that the descriptor is no longer readable. The owner looks at whatever the
    /// ringers may have left after this, never before.
    pub fn hush(&self) {
        let mut count = [0u8; 8];
        // Fails only when it was not ringing.
        let _ = rustix::io::read(&self.0.descriptor, &mut count);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_ringing(bell: &Bell) -> bool {
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn rings_add_up_and_one_hush_takes_them_all_back() {
        let bell = Bell::new().unwrap();
        assert!(!is_ringing(&bell));
        bell.ring();
        bell.clone().ring();
        assert!(is_ringing(&bell));
        bell.hush();
        assert!(!is_ringing(&bell));
        bell.hush();
    }

    #[test]
    fn only_a_sleeper_is_rung_and_only_once() {
        let bell = Bell::new().unwrap();
        bell.ring_sleeper();
        assert!(!is_ringing(&bell), "awake");
        bell.fall_asleep();
        bell.ring_sleeper();
        assert!(is_ringing(&bell), "asleep");
        bell.hush();
        bell.ring_sleeper();
        assert!(!is_ringing(&bell), "somebody has rung already");
        bell.fall_asleep();
        bell.wake();
        bell.ring_sleeper();
        assert!(!is_ringing(&bell), "awake again");
    }
}
