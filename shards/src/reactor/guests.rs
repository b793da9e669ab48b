//! Where the guests of a shard sit: their sockets' places in the epoll set, their wake-ups.
use super::descriptor::lend;
use super::poller::{Poller, Token};
use crate::guest::{Guest, Port, Ready, Wants};
use protocol::clock::Now;
use rustix::event::epoll::EventFlags;
use std::os::fd::RawFd;

/// Guests of one shard: a byte of the token names them.
pub(super) const GUESTS_MAX: usize = 256;

/// One guest and what the reactor knows about it.
pub(super) struct GuestSeat {
    guest: Box<dyn Guest>,
    /// Which of the shard's guests.
    index: u8,
    wants: Wants,
    /// What stands in the epoll set.
    watched: Option<Watched>,
    ready: Ready,
    /// Has a turn coming, whatever its socket does.
    due: bool,
    /// A link of the store.
    is_store: bool,
}

#[derive(Clone, Copy)]
struct Watched {
    descriptor: RawFd,
    number: u32,
    interest: EventFlags,
}

impl GuestSeat {
    /// A guest that has its first turn coming.
    pub(super) fn new(index: u8, guest: Box<dyn Guest>, is_store: bool) -> GuestSeat {
        let (wants, ready) = (Wants::default(), Ready::default());
        GuestSeat { guest, index, wants, watched: None, ready, due: true, is_store }
    }

    /// Its socket is ready; ignored when the event is for an earlier one.
    pub(super) fn note_ready(&mut self, number: u32, flags: EventFlags) {
        if self.watched.is_some_and(|watched| watched.number == number) {
            // An error or a hang-up shows at the next read as well as at the next write.
            let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            self.ready.read |= broken || flags.contains(EventFlags::IN);
            self.ready.write |= broken || flags.contains(EventFlags::OUT);
        }
    }

    /// The bell rang: it may be for this guest.
    pub(super) fn note_bell(&mut self) {
        self.due = true;
    }

    /// The store was asked: it may be for this guest.
    pub(super) fn note_asked(&mut self) {
        self.due |= self.is_store;
    }

    /// Whether this is a link of the store.
    pub(super) fn is_store(&self) -> bool {
        self.is_store
    }

    /// When it wants to be woken, on `Now::mono_us`.
    pub(super) fn wake_at_us(&self) -> Option<u64> {
        self.wants.wake_at_us
    }

    /// Whether it has bytes to write or more to do.
    pub(super) fn owes(&self) -> bool {
        self.wants.write || self.wants.again || self.guest.owes()
    }

    /// The node stops.
    pub(super) fn stop(&mut self) {
        self.guest.stop();
        self.due = true;
    }

    /// Gives it a turn if it has one coming, and says whether it had; then [`GuestSeat::watch`] must follow, before any
    /// descriptor enters the epoll set.
    pub(super) fn turn(&mut self, now: Now, port: &mut dyn Port) -> bool {
        let woken = self.wants.wake_at_us.is_some_and(|wake_at_us| wake_at_us <= now.mono_us);
        let ready = std::mem::take(&mut self.ready);
        let has_turn = self.due || woken || self.wants.again || ready.read || ready.write;
        if has_turn {
            self.due = false;
            self.wants = self.guest.turn(now, ready, port);
        }
        has_turn
    }

    /// Brings the epoll set in line with what the guest wants.
    pub(super) fn watch(&mut self, poller: &Poller) {
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, self.wants.read);
        interest.set(EventFlags::OUT, self.wants.write);
        // A socket nobody waits for leaves the set: hang-ups are told to whoever is in it, and would keep us awake.
        let wanted = self.wants.socket.filter(|_| !interest.is_empty());
        let same = |watched: &Watched| wanted == Some((watched.descriptor, watched.number));
        match (self.watched, wanted) {
            (Some(watched), Some((descriptor, _))) if same(&watched) => {
                if watched.interest != interest {
                    let token = self.token(watched.number);
                    let done = lend(descriptor, |socket| poller.modify(socket, token, interest));
                    self.watched = Some(Watched { interest, ..watched });
                    self.check(done);
                }
            }
            (before, _) => {
                if let Some(before) = before {
                    // Fails when the guest has closed it, which took it out as well.
                    let _ = lend(before.descriptor, |socket| poller.remove(socket));
                }
                self.watched = None;
                if let Some((descriptor, number)) = wanted {
                    let token = self.token(number);
                    let done = lend(descriptor, |socket| poller.add(socket, token, interest));
                    self.watched = Some(Watched { descriptor, number, interest });
                    self.check(done);
                }
            }
        }
    }

    fn token(&self, number: u32) -> Token {
        Token::Guest { index: self.index, number }
    }

    /// A socket that cannot be watched is as good as broken: the guest finds out when it reads or writes, and has its
    /// deadlines.
    fn check(&mut self, done: Option<std::io::Result<()>>) {
        if let Some(Err(error)) = done {
            tracing::warn!(guest = self.index, %error, "a link's socket cannot be watched");
            self.watched = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Submission;
    use crate::reactor::poller::read_event;
    use std::cell::RefCell;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    struct NoPort;

    impl Port for NoPort {
        fn publish(&mut self, _submission: Submission) {}
        fn congested(&self) -> bool {
            false
        }
    }

    /// Does as told and remembers what it was given.
    #[derive(Clone, Default)]
    struct Puppet(Rc<RefCell<(Wants, Vec<Ready>)>>);

    impl Guest for Puppet {
        fn turn(&mut self, _now: Now, ready: Ready, _port: &mut dyn Port) -> Wants {
            self.0.borrow_mut().1.push(ready);
            self.0.borrow().0
        }
        fn stop(&mut self) {}
    }

    struct Scene {
        puppet: Puppet,
        seat: GuestSeat,
        poller: Poller,
    }

    impl Scene {
        fn new() -> Scene {
            let puppet = Puppet::default();
            let seat = GuestSeat::new(3, Box::new(puppet.clone()), false);
            Scene { puppet, seat, poller: Poller::new().unwrap() }
        }

        /// What the guest will want from its next turn on.
        fn wants(&mut self, socket: Option<(RawFd, u32)>, read: bool, write: bool) {
            self.puppet.0.borrow_mut().0 = Wants { socket, read, write, ..Wants::default() };
            self.seat.note_bell();
            assert!(self.turn(0));
        }

        /// One turn of the reactor, as far as guests go.
        fn turn(&mut self, mono_us: u64) -> bool {
            let mut events = Vec::new();
            self.poller.poll(&mut events);
            for event in &events {
                if let (Token::Guest { index: 3, number }, flags) = read_event(event) {
                    self.seat.note_ready(number, flags);
                }
            }
            let had_turn = self.seat.turn(Now { mono_us, unix_ns: 0 }, &mut NoPort);
            self.seat.watch(&self.poller);
            had_turn
        }

        fn last_ready(&self) -> Ready {
            *self.puppet.0.borrow().1.last().unwrap()
        }
    }

    #[test]
    fn a_guest_has_a_turn_when_its_socket_is_ready() {
        let mut scene = Scene::new();
        let (mine, mut theirs) = UnixStream::pair().unwrap();
        assert!(scene.turn(0), "the first turn comes by itself");
        assert!(!scene.turn(0), "the next does not");
        scene.wants(Some((mine.as_raw_fd(), 1)), true, false);
        assert!(!scene.turn(0));
        theirs.write_all(b"x").unwrap();
        assert!(scene.turn(0));
        assert_eq!(scene.last_ready(), Ready { read: true, write: false });
        scene.wants(Some((mine.as_raw_fd(), 1)), false, true);
        assert!(scene.turn(0));
        assert_eq!(scene.last_ready(), Ready { read: false, write: true });
        scene.wants(Some((mine.as_raw_fd(), 1)), false, false);
        drop(theirs);
        assert!(!scene.turn(0), "nobody waits, not even for the hang-up");
    }

    #[test]
    fn a_new_socket_under_an_old_descriptor_is_watched_anew() {
        let mut scene = Scene::new();
        let (first, mut first_peer) = UnixStream::pair().unwrap();
        let number = first.as_raw_fd();
        scene.wants(Some((number, 1)), true, false);
        first_peer.write_all(b"x").unwrap();
        let (second, mut second_peer) = UnixStream::pair().unwrap();
        // The guest lets its first socket go within its turn and opens another, also while the first is still open.
        scene.wants(Some((second.as_raw_fd(), 2)), true, false);
        scene.seat.note_ready(1, EventFlags::IN);
        assert!(!scene.turn(0), "an event of the first socket is nobody's");
        drop(first);
        assert!(!scene.turn(0));
        second_peer.write_all(b"x").unwrap();
        assert!(scene.turn(0));
        drop(second);
        scene.wants(None, true, true);
        assert!(!scene.turn(0));
    }

    #[test]
    fn a_guest_has_a_turn_at_its_time_and_again_when_it_says_so() {
        let mut scene = Scene::new();
        scene.puppet.0.borrow_mut().0 = Wants { wake_at_us: Some(500), ..Wants::default() };
        assert!(scene.turn(0));
        assert!(!scene.turn(499));
        scene.puppet.0.borrow_mut().0 = Wants { again: true, ..Wants::default() };
        assert!(scene.turn(500));
        assert!(scene.seat.owes());
        scene.puppet.0.borrow_mut().0 = Wants::default();
        assert!(scene.turn(501));
        assert!(!scene.turn(502));
    }
}
