//! The epoll set of one thread, level-triggered.
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// Events taken by one wait.
const EVENTS_MAX: usize = 1_024;
/// The timer's own token; no socket may have it.
const TIMER: u64 = u64::MAX;
const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What a socket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Nothing; that it failed or was reset is still told.
    Nothing,
    /// Bytes to read.
    Read,
    /// Bytes to read, room to write.
    ReadWrite,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Nothing => EventFlags::empty(),
            Interest::Read => EventFlags::IN,
            Interest::ReadWrite => EventFlags::IN | EventFlags::OUT,
        }
    }
}

/// One socket that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// What it was registered with.
    pub token: u64,
    /// There is something to read, or it ended.
    pub readable: bool,
    /// There is room to write, or it failed.
    pub writable: bool,
}

/// An epoll descriptor and the events of its last wait.
///
/// A wait ends by a timer in the set: epoll's own timeout counts whole milliseconds, and a publish that is written a
/// millisecond late for it would be counted as the server's latency.
pub struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    /// An empty set.
    pub fn new() -> Result<Poller, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Poller { epoll, timer, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Adds a socket.
    pub fn add(&self, socket: impl AsFd, token: u64, interest: Interest) -> Result<(), Errno> {
        epoll::add(&self.epoll, socket, EventData::new_u64(token), interest.flags())
    }

    /// Changes what a socket waits for.
    pub fn set(&self, socket: impl AsFd, token: u64, interest: Interest) -> Result<(), Errno> {
        epoll::modify(&self.epoll, socket, EventData::new_u64(token), interest.flags())
    }

    /// Takes a socket out.
    pub fn remove(&self, socket: impl AsFd) {
        // It fails only for a socket that is not in the set, which is what was wanted.
        let _ = epoll::delete(&self.epoll, socket);
    }

    /// Waits up to `wait_us`; answers how many sockets are ready.
    pub fn wait(&mut self, wait_us: u64) -> Result<usize, Errno> {
        let timeout = if wait_us == 0 { Some(&ZERO) } else { None };
        if timeout.is_none() {
            let it_value =
                Timespec { tv_sec: (wait_us / 1_000_000) as i64, tv_nsec: (wait_us % 1_000_000 * 1_000) as i64 };
            // Setting it anew also takes back an expiry that nobody read.
            let once = Itimerspec { it_interval: ZERO, it_value };
            rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(Errno::INTR) => {
                self.events.retain(|event| event.data.u64() != TIMER);
                Ok(self.events.len())
            }
            Err(error) => Err(error),
        }
    }

    /// The socket at `index` of the last wait.
    pub fn ready(&self, index: usize) -> Option<Ready> {
        let event = self.events.get(index)?;
        let ended = EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP;
        let flags = event.flags;
        Some(Ready {
            token: event.data.u64(),
            readable: flags.intersects(EventFlags::IN | ended),
            writable: flags.intersects(EventFlags::OUT | ended),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_wait_ends_by_its_timer_or_by_a_socket_and_shows_only_sockets() {
        let mut poller = Poller::new().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        poller.add(&far, 7, Interest::Read).unwrap();
        for wait_us in [1, 0, 999, 1] {
            assert_eq!(poller.wait(wait_us), Ok(0), "{wait_us}");
        }
        near.write_all(b"x").unwrap();
        // The timer that has just expired, and one that will not for an hour.
        for wait_us in [0, 1, 3_600_000_000] {
            assert_eq!(poller.wait(wait_us), Ok(1), "{wait_us}");
            assert_eq!(poller.ready(0).unwrap().token, 7);
        }
    }
}
