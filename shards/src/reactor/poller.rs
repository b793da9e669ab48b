//! The shard's own level-triggered epoll set.
//!
//! Every descriptor stands in it under a 64-bit token. A connection's token is its [`ConnKey`]; the highest slots, which
//! no slab ever reaches, name the shard's own descriptors.
use crate::key::ConnKey;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Events of one turn; more wait in the kernel for the next, which begins where this one ended.
pub(super) const TURN_EVENTS_MAX: usize = 1_024;
/// Slots from here on are not connections: with four billion of them the machine's memory is long gone.
const RESERVED_SLOTS: u32 = 0xFFFF_FE00;
const BELL: u32 = RESERVED_SLOTS;
const TIMER: u32 = RESERVED_SLOTS + 1;
const LISTENER: u32 = RESERVED_SLOTS + 2;
const GUESTS: u32 = RESERVED_SLOTS + 0x100;

/// Whose descriptor became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A connection's socket.
    Socket(ConnKey),
    /// The shard's bell.
    Bell,
    /// The shard's timer.
    Timer,
    /// The shard's listener.
    Listener,
    /// The socket of a guest.
    Guest {
        /// Which guest of the shard.
        index: u8,
        /// Which of its sockets: an event for an earlier one may still stand in the batch.
        number: u32,
    },
}

impl Token {
    fn to_u64(self) -> u64 {
        let (slot, generation) = match self {
            Token::Socket(key) => {
                debug_assert!(key.slot < RESERVED_SLOTS, "slot {} is reserved", key.slot);
                return key.to_u64();
            }
            Token::Bell => (BELL, 0),
            Token::Timer => (TIMER, 0),
            Token::Listener => (LISTENER, 0),
            Token::Guest { index, number } => (GUESTS + u32::from(index), number),
        };
        ConnKey { slot, generation }.to_u64()
    }

    fn from_u64(bits: u64) -> Token {
        let key = ConnKey::from_u64(bits);
        match key.slot {
            BELL => Token::Bell,
            TIMER => Token::Timer,
            LISTENER => Token::Listener,
            // 256 guests at most: the difference fits a byte.
            GUESTS.. => Token::Guest { index: (key.slot - GUESTS) as u8, number: key.generation },
            _ => Token::Socket(key),
        }
    }
}

/// An epoll set.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// A second handle of the same set, to wait on: readable while anything in the set is ready.
    pub(super) fn handle(&self) -> io::Result<OwnedFd> {
        self.epoll.try_clone()
    }

    /// Adds a descriptor.
    ///
    /// # Errors
    /// When the kernel has no memory or the user no watches left.
    pub(super) fn add(&self, descriptor: impl AsFd, token: Token, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, descriptor, EventData::new_u64(token.to_u64()), interest)?)
    }

    /// Changes what a descriptor is watched for; errors and hang-ups are always told.
    ///
    /// # Errors
    /// When it is not in the set.
    pub(super) fn modify(&self, descriptor: impl AsFd, token: Token, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, descriptor, EventData::new_u64(token.to_u64()), interest)?)
    }

    /// Takes a descriptor out. Not needed for one that is closed right after: it leaves by itself.
    ///
    /// # Errors
    /// When it is not in the set.
    pub(super) fn remove(&self, descriptor: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, descriptor)?)
    }

    /// Replaces what stands in `events` by what is ready now, [`TURN_EVENTS_MAX`] at most. Does not wait.
    pub(super) fn poll(&self, events: &mut Vec<Event>) {
        events.clear();
        events.reserve(TURN_EVENTS_MAX);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Only a wrong descriptor or address is left: our mistake, and the shard would spin on it for ever.
            Err(error) => panic!("epoll_wait on the shard's own set failed: {error}"),
        }
    }
}

/// Whose event this is, and what happened.
pub(super) fn read_event(event: &Event) -> (Token, EventFlags) {
    // The struct is packed on x86-64: copies, no references.
    let Event { flags, data, .. } = *event;
    (Token::from_u64(data.u64()), flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Bell;

    #[test]
    fn tokens_survive_the_kernel() {
        let guest = Token::Guest { index: 255, number: u32::MAX };
        let socket = Token::Socket(ConnKey { slot: RESERVED_SLOTS - 1, generation: u32::MAX });
        for token in [Token::Bell, Token::Timer, Token::Listener, guest, socket] {
            assert_eq!(Token::from_u64(token.to_u64()), token);
        }
    }

    #[test]
    fn a_descriptor_is_told_as_long_as_it_is_ready() {
        let (poller, bell, mut events) = (Poller::new().unwrap(), Bell::new().unwrap(), Vec::new());
        poller.add(&bell, Token::Bell, EventFlags::IN).unwrap();
        poller.poll(&mut events);
        assert!(events.is_empty());
        bell.ring();
        for _ in 0..2 {
            poller.poll(&mut events);
            assert_eq!(events.iter().map(read_event).collect::<Vec<_>>(), [(Token::Bell, EventFlags::IN)]);
        }
        bell.hush();
        poller.poll(&mut events);
        assert!(events.is_empty());
        bell.ring();
        poller.remove(&bell).unwrap();
        poller.poll(&mut events);
        assert!(events.is_empty());
    }
}
