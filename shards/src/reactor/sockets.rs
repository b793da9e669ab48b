//! The sockets of a shard's connections, by the slots of the shard's slab.
//!
//! An idle connection costs twelve bytes here. What the epoll set watches for is changed lazily: who stops reading, or
//! is no longer blocked, is taken out only when an event comes that nobody wants, so a connection that answers at once
//! never pays a system call for it.
use super::poller::{Poller, Token};
use crate::key::ConnKey;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::io;
use std::os::fd::OwnedFd;

/// The shard wants to read.
const READS: u8 = 1;
/// A write did not go through wholly; the shard waits to hear that the socket takes bytes again.
const BLOCKED: u8 = 1 << 1;
/// The peer's FIN was read and told: there is nothing more to read.
const ENDED: u8 = 1 << 2;
/// The socket is broken, that was told, and it has left the epoll set. It stays here until the shard closes it.
const BROKEN: u8 = 1 << 3;
/// The epoll set watches for input.
const WATCHED_IN: u8 = 1 << 4;
/// The epoll set watches for room.
const WATCHED_OUT: u8 = 1 << 5;

struct Entry {
    socket: Option<OwnedFd>,
    generation: u32,
    flags: u8,
}

const _: () = assert!(size_of::<Entry>() == 12);

/// What an event asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Readiness {
    /// Read once.
    pub(super) read: bool,
    /// A blocked socket takes bytes again.
    pub(super) write: bool,
    /// It is broken. With `read` set, what it had received comes first: it is over when a read finds nothing.
    pub(super) broken: bool,
}

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer has ended its output.
    Ended,
    /// The connection is lost.
    Broken,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// So many bytes went out; fewer than given means that the socket is full and the epoll set watches for room.
    Bytes(usize),
    /// The connection is lost.
    Broken,
}

/// The table. All acts on a key whose socket has gone do nothing: an event or an effect may come late.
#[derive(Default)]
pub(super) struct Sockets {
    entries: Vec<Entry>,
    open: usize,
}

impl Sockets {
    /// Sockets in the table.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Puts a non-blocking socket under a key and watches it for input.
    ///
    /// # Errors
    /// When the kernel has no memory or the user no watches left; the socket is closed then.
    pub(super) fn insert(&mut self, poller: &Poller, key: ConnKey, socket: OwnedFd) -> io::Result<()> {
        // A FIN counts as input, so EPOLLRDHUP would tell nothing new; and while nobody reads, a peer that only
        // stopped sending is nobody's business.
        poller.add(&socket, Token::Socket(key), EventFlags::IN)?;
        let slot = key.slot as usize;
        if slot >= self.entries.len() {
            self.entries.resize_with(slot + 1, || Entry { socket: None, generation: 0, flags: 0 });
        }
        let entry = &mut self.entries[slot];
        debug_assert!(entry.socket.is_none(), "slot {slot} was given out before its socket was closed");
        self.open += usize::from(entry.socket.is_none());
        *entry = Entry { socket: Some(socket), generation: key.generation, flags: READS | WATCHED_IN };
        Ok(())
    }

    /// Takes a socket out of the table and of the epoll set, open.
    pub(super) fn take(&mut self, poller: &Poller, key: ConnKey) -> Option<OwnedFd> {
        let entry = self.entry(key)?;
        let socket = entry.socket.take()?;
        if entry.flags & BROKEN == 0 {
            // It is in the set, so this cannot fail.
            let _ = poller.remove(&socket);
        }
        self.open -= 1;
        Some(socket)
    }

    /// Closes a socket; it leaves the epoll set by that.
    pub(super) fn close(&mut self, key: ConnKey) {
        if let Some(entry) = self.entry(key) {
            entry.socket = None;
            self.open -= 1;
        }
    }

    /// Sends FIN; input is still read.
    pub(super) fn shutdown(&mut self, key: ConnKey) {
        if let Some((socket, _)) = self.live(key) {
            // Fails when the peer has reset the connection, which the epoll set tells as well.
            let _ = shutdown(socket, Shutdown::Write);
        }
    }

    /// Whether the shard wants to read from this socket.
    pub(super) fn set_reads(&mut self, poller: &Poller, key: ConnKey, reads: bool) {
        let Some((socket, flags)) = self.live(key) else { return };
        if !reads {
            *flags &= !READS;
        } else if *flags & (READS | ENDED) == 0 {
            *flags |= READS;
            watch(poller, key, socket, flags, WATCHED_IN, true);
        }
    }

    /// What an event of the epoll set asks for; takes back what nobody wants.
    pub(super) fn readiness(&mut self, poller: &Poller, key: ConnKey, event: EventFlags) -> Readiness {
        let mut readiness = Readiness::default();
        let Some((socket, flags)) = self.live(key) else { return readiness };
        let broken = event.intersects(EventFlags::ERR | EventFlags::HUP);
        readiness.broken = broken;
        if *flags & READS != 0 {
            // What a broken connection had received can still be read, and the last read tells how it ended.
            readiness.read = broken || event.contains(EventFlags::IN);
        } else if broken {
            return readiness;
        } else if event.contains(EventFlags::IN) {
            watch(poller, key, socket, flags, WATCHED_IN, false);
        }
        if event.contains(EventFlags::OUT) {
            if *flags & BLOCKED != 0 {
                *flags &= !BLOCKED;
                readiness.write = true;
            } else {
                watch(poller, key, socket, flags, WATCHED_OUT, false);
            }
        }
        readiness
    }

    /// One read into `buffer`. `None` when there is no such socket, or nobody reads it any more.
    pub(super) fn read(&mut self, poller: &Poller, key: ConnKey, buffer: &mut [u8]) -> Option<Read> {
        let (socket, flags) = self.live(key)?;
        if *flags & READS == 0 {
            return None;
        }
        let read = match recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.end_reads(poller, key);
                Read::Ended
            }
            Ok((len, _)) => Read::Bytes(len),
            Err(Errno::AGAIN | Errno::INTR) => Read::Nothing,
            Err(_) => Read::Broken,
        };
        Some(read)
    }

    /// One write. `None` when there is no such socket, or it is broken.
    pub(super) fn write(&mut self, poller: &Poller, key: ConnKey, bytes: &[u8]) -> Option<Written> {
        let (socket, flags) = self.live(key)?;
        let written = match send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(len) => len,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => 0,
            Err(_) => return Some(Written::Broken),
        };
        if written < bytes.len() {
            *flags |= BLOCKED;
            watch(poller, key, socket, flags, WATCHED_OUT, true);
        }
        Some(Written::Bytes(written))
    }

    /// Marks a socket as broken: it is neither read nor written nor watched until the shard closes it. False when that
    /// has been told before.
    pub(super) fn break_off(&mut self, poller: &Poller, key: ConnKey) -> bool {
        let Some((socket, flags)) = self.live(key) else { return false };
        // It would be told again and again. It is in the set, so this cannot fail.
        let _ = poller.remove(socket);
        *flags = BROKEN;
        true
    }

    /// As if a write had not gone through: the epoll set tells when the socket takes bytes.
    pub(super) fn await_room(&mut self, poller: &Poller, key: ConnKey) {
        let Some((socket, flags)) = self.live(key) else { return };
        *flags |= BLOCKED;
        watch(poller, key, socket, flags, WATCHED_OUT, true);
    }

    /// Nothing more is read: the peer has said otherwise than by FIN that it has ended its output.
    pub(super) fn end_reads(&mut self, poller: &Poller, key: ConnKey) {
        let Some((socket, flags)) = self.live(key) else { return };
        *flags = *flags & !READS | ENDED;
        watch(poller, key, socket, flags, WATCHED_IN, false);
    }

    /// The entry of an open socket.
    fn entry(&mut self, key: ConnKey) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(key.slot as usize)?;
        (entry.generation == key.generation && entry.socket.is_some()).then_some(entry)
    }

    /// An open socket that is not broken, and its flags.
    fn live(&mut self, key: ConnKey) -> Option<(&OwnedFd, &mut u8)> {
        let Entry { socket, flags, .. } = self.entry(key)?;
        (*flags & BROKEN == 0).then_some((socket.as_ref()?, flags))
    }
}

/// Watches for input or room, or no longer.
fn watch(poller: &Poller, key: ConnKey, socket: &OwnedFd, flags: &mut u8, what: u8, on: bool) {
    let wanted = if on { *flags | what } else { *flags & !what };
    if wanted == *flags {
        return;
    }
    *flags = wanted;
    let mut interest = EventFlags::empty();
    interest.set(EventFlags::IN, wanted & WATCHED_IN != 0);
    interest.set(EventFlags::OUT, wanted & WATCHED_OUT != 0);
    // It is in the set, and a change needs no memory.
    let changed = poller.modify(socket, Token::Socket(key), interest);
    debug_assert!(changed.is_ok(), "{key:?}: {changed:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::poller::read_event;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    const ANA: ConnKey = ConnKey { slot: 2, generation: 7 };

    struct Scene {
        poller: Poller,
        sockets: Sockets,
        peer: Option<UnixStream>,
    }

    impl Scene {
        fn new() -> Scene {
            let (poller, mut sockets) = (Poller::new().unwrap(), Sockets::default());
            let (socket, peer) = UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            sockets.insert(&poller, ANA, socket.into()).unwrap();
            Scene { poller, sockets, peer: Some(peer) }
        }

        fn says(&mut self, bytes: &[u8]) {
            self.peer.as_mut().unwrap().write_all(bytes).unwrap();
        }

        /// What the epoll set says about Ana, if anything.
        fn event(&mut self) -> Option<Readiness> {
            let mut events = Vec::new();
            self.poller.poll(&mut events);
            let (token, flags) = read_event(events.first()?);
            assert_eq!((token, events.len()), (Token::Socket(ANA), 1));
            Some(self.sockets.readiness(&self.poller, ANA, flags))
        }

        fn read(&mut self) -> Option<Read> {
            self.sockets.read(&self.poller, ANA, &mut [0; 8])
        }

        fn write(&mut self, bytes: &[u8]) -> Option<Written> {
            self.sockets.write(&self.poller, ANA, bytes)
        }
    }

    const READ: Option<Readiness> = Some(Readiness { read: true, write: false, broken: false });
    const WRITE: Option<Readiness> = Some(Readiness { read: false, write: true, broken: false });
    const BREAK: Option<Readiness> = Some(Readiness { read: false, write: false, broken: true });
    const NOTHING: Option<Readiness> = Some(Readiness { read: false, write: false, broken: false });

    #[test]
    fn input_is_told_until_it_is_read() {
        let mut scene = Scene::new();
        assert_eq!(scene.event(), None);
        scene.says(b"0123456789");
        assert_eq!(scene.event(), READ);
        assert_eq!(scene.read(), Some(Read::Bytes(8)));
        assert_eq!(scene.event(), READ);
        assert_eq!(scene.read(), Some(Read::Bytes(2)));
        assert_eq!(scene.read(), Some(Read::Nothing));
        assert_eq!(scene.event(), None);
    }

    #[test]
    fn who_does_not_read_is_disturbed_once() {
        let mut scene = Scene::new();
        scene.sockets.set_reads(&scene.poller, ANA, false);
        scene.says(b"x");
        assert_eq!(scene.read(), None);
        assert_eq!(scene.event(), NOTHING, "the event nobody wants takes the interest back");
        assert_eq!(scene.event(), None);
        scene.sockets.set_reads(&scene.poller, ANA, true);
        assert_eq!(scene.event(), READ);
        assert_eq!(scene.read(), Some(Read::Bytes(1)));
    }

    #[test]
    fn the_end_of_input_is_read_once() {
        let mut scene = Scene::new();
        scene.peer.as_ref().unwrap().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(scene.event(), READ);
        assert_eq!(scene.read(), Some(Read::Ended));
        assert_eq!(scene.event(), None);
        scene.sockets.set_reads(&scene.poller, ANA, true);
        assert_eq!(scene.event(), None, "there is nothing more to read");
        assert_eq!(scene.write(b"answer"), Some(Written::Bytes(6)));
        scene.sockets.shutdown(ANA);
        assert_eq!(scene.event(), BREAK, "both directions have ended");
        let mut answer = String::new();
        scene.peer.as_mut().unwrap().read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn a_full_socket_is_told_when_it_takes_bytes_again() {
        let mut scene = Scene::new();
        let flood = vec![0; 4 * 1024 * 1024];
        let Some(Written::Bytes(taken)) = scene.write(&flood) else { panic!("broken") };
        assert!(taken < flood.len());
        assert_eq!(scene.write(b"x"), Some(Written::Bytes(0)));
        assert_eq!(scene.event(), None);
        scene.peer.as_mut().unwrap().read_exact(&mut vec![0; taken]).unwrap();
        assert_eq!(scene.event(), WRITE);
        assert_eq!(scene.write(b"x"), Some(Written::Bytes(1)));
        assert_eq!(scene.event(), NOTHING, "not blocked any more: the interest goes back");
        assert_eq!(scene.event(), None);
    }

    #[test]
    fn a_broken_connection_is_told_once() {
        let mut scene = Scene::new();
        scene.sockets.set_reads(&scene.poller, ANA, false);
        scene.peer = None;
        assert_eq!(scene.event(), BREAK);
        assert_eq!(scene.write(b"x"), Some(Written::Broken));
        assert!(scene.sockets.break_off(&scene.poller, ANA));
        assert!(!scene.sockets.break_off(&scene.poller, ANA));
        assert_eq!((scene.event(), scene.read(), scene.write(b"x")), (None, None, None));
        assert_eq!(scene.sockets.open(), 1);
        scene.sockets.close(ANA);
        assert_eq!(scene.sockets.open(), 0);
    }

    #[test]
    fn a_socket_can_be_taken_away_and_its_slot_used_again() {
        let mut scene = Scene::new();
        scene.says(b"x");
        let socket = scene.sockets.take(&scene.poller, ANA).unwrap();
        assert_eq!((scene.event(), scene.sockets.open()), (None, 0));
        assert!(scene.sockets.take(&scene.poller, ANA).is_none());
        let next = ConnKey { generation: 8, ..ANA };
        scene.sockets.insert(&scene.poller, next, socket).unwrap();
        scene.sockets.close(ANA);
        assert_eq!(scene.read(), None, "late acts on the old key reach nobody");
        assert_eq!(scene.sockets.read(&scene.poller, next, &mut [0; 8]), Some(Read::Bytes(1)));
    }
}
