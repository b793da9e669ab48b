//! Sleeping until something in the epoll set is ready or the next deadline has come.
//!
//! The timer is a descriptor in the set like any other, so a shard waits for exactly one thing: that its set is
//! readable. A wait consumes nothing, so one that is dropped loses nothing, and one that ends too early costs an empty
//! turn.
use super::poller::{Poller, Token};
use monoio::net::TcpStream;
use rustix::event::epoll::EventFlags;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;

/// Where a shard sleeps: on the runtime's driver.
pub(super) struct Bed {
    /// The epoll set. monoio waits for readiness of TCP streams only, and asks nothing of them that an epoll
    /// descriptor could not answer.
    set: TcpStream,
}

impl Bed {
    /// To be made inside the runtime.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new(poller: &Poller) -> io::Result<Bed> {
        Ok(Bed { set: TcpStream::from_std(poller.handle()?.into())? })
    }

    /// Waits until something in the set is ready. Cancel-safe: it only looks.
    pub(super) async fn sleep(&self) {
        // `false`: asks the kernel instead of trusting remembered readiness, which for a set is often out of date. A
        // failure ends the wait early, which is allowed.
        let _ = self.set.readable(false).await;
    }
}

/// The shard's alarm clock: a timerfd in the epoll set.
#[derive(Debug)]
pub(super) struct Timer {
    descriptor: OwnedFd,
    /// When it goes off, on `Now::mono_us`.
    armed_us: Option<u64>,
}

impl Timer {
    /// A silent timer, already in the set.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new(poller: &Poller) -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        poller.add(&descriptor, Token::Timer, EventFlags::IN)?;
        Ok(Timer { descriptor, armed_us: None })
    }

    /// Makes sure that the set is readable at the deadline at the latest. False when the deadline has passed: do not
    /// sleep. An alarm that stands earlier is left: it costs an empty turn, a later one costs a system call now.
    pub(super) fn arm(&mut self, deadline_us: Option<u64>, now_us: u64) -> bool {
        let Some(deadline_us) = deadline_us else { return true };
        if deadline_us <= now_us {
            return false;
        }
        if self.armed_us.is_some_and(|armed_us| armed_us <= deadline_us) {
            return true;
        }
        let wait_us = deadline_us - now_us;
        // Both fit: the whole part of a `u64` of microseconds is below 2^44, the rest below a second.
        let it_value =
            Timespec { tv_sec: (wait_us / 1_000_000) as i64, tv_nsec: ((wait_us % 1_000_000) * 1_000) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        match timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &once) {
            Ok(_) => {
                self.armed_us = Some(deadline_us);
                true
            }
            // Cannot be, with a good descriptor and good numbers; awake is the safe side.
            Err(_) => false,
        }
    }

    /// It went off: makes it silent.
    pub(super) fn hush(&mut self) {
        let mut count = [0u8; 8];
        // Fails only when it was re-armed meanwhile.
        let _ = rustix::io::read(&self.descriptor, &mut count);
        self.armed_us = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::poller::read_event;
    use crate::reactor::{clock, driver};

    #[test]
    fn a_deadline_ends_the_sleep_on_both_drivers() {
        for uring in [true, false] {
            let (mut runtime, _) = driver::build(uring).unwrap();
            runtime.block_on(async {
                let poller = Poller::new().unwrap();
                let mut timer = Timer::new(&poller).unwrap();
                let bed = Bed::new(&poller).unwrap();
                let mut events = Vec::new();
                for _ in 0..3 {
                    let now_us = clock::now().mono_us;
                    assert!(timer.arm(Some(now_us + 500), now_us));
                    bed.sleep().await;
                    poller.poll(&mut events);
                    assert_eq!(events.iter().map(|event| read_event(event).0).collect::<Vec<_>>(), [Token::Timer]);
                    assert!(clock::now().mono_us >= now_us + 500);
                    timer.hush();
                    poller.poll(&mut events);
                    assert!(events.is_empty());
                }
            });
        }
    }

    #[test]
    fn the_alarm_is_set_only_when_it_must_be_earlier() {
        let poller = Poller::new().unwrap();
        let mut timer = Timer::new(&poller).unwrap();
        assert!(timer.arm(None, 1_000));
        assert_eq!(timer.armed_us, None);
        assert!(!timer.arm(Some(1_000), 1_000), "due");
        for (deadline_us, armed_us) in [(90_000_000, 90_000_000), (95_000_000, 90_000_000), (60_000_000, 60_000_000)] {
            assert!(timer.arm(Some(deadline_us), 1_000));
            assert_eq!(timer.armed_us, Some(armed_us));
        }
    }
}
