//! The epoll set of one thread, level-triggered.
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::Timespec;

/// Events taken by one wait.
const EVENTS_MAX: usize = 1_024;

/// What a socket waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read.
    Read,
    /// Bytes to read, room to write.
    ReadWrite,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
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
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    /// An empty set.
    pub fn new() -> Result<Poller, Errno> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS_MAX) })
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
        let timeout = Timespec { tv_sec: (wait_us / 1_000_000) as i64, tv_nsec: (wait_us % 1_000_000 * 1_000) as i64 };
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
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
