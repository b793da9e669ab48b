//! A loop that turns a store's links, as a shard's reactor would.
use super::PATIENCE;
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;
use storage::backend::Backend;
use storage::figures::StoreFigures;
use storage::link::state::LinkState;
use storage::link::wants::Wants;

/// Turns one store.
pub(crate) struct StoreDriver<B> {
    pub(crate) store: B,
    pub(crate) figures: Arc<StoreFigures>,
    /// Replies that were not asked for by [`StoreDriver::ask`] yet, in the order they came.
    pub(crate) replies: Vec<(u64, StoreReply)>,
    wants: Vec<Wants>,
    bell: UnixStream,
    started: Instant,
    skipped_us: u64,
    last_ticket: u64,
}

impl<B: Backend> StoreDriver<B> {
    /// `make` is given where to count, and how to wake the driver.
    pub(crate) fn new(
        backend: &'static str,
        make: impl FnOnce(Arc<StoreFigures>, Arc<dyn Fn() + Send + Sync>) -> B,
    ) -> StoreDriver<B> {
        let (bell, ringer) = UnixStream::pair().expect("a pair of sockets");
        bell.set_nonblocking(true).expect("non-blocking");
        ringer.set_nonblocking(true).expect("non-blocking");
        let wake = Arc::new(move || {
            // A driver that is gone needs no waking, and a bell that is full has rung.
            let _ = (&ringer).write(b"!");
        });
        let figures = Arc::new(StoreFigures::new(backend));
        let store = make(Arc::clone(&figures), wake);
        let wants = (0..store.links()).map(|_| Wants { again: true, ..Wants::default() }).collect();
        let started = Instant::now();
        StoreDriver { store, figures, replies: Vec::new(), wants, bell, started, skipped_us: 0, last_ticket: 0 }
    }

    /// Both clocks; what was skipped passed on both.
    pub(crate) fn now(&self) -> Now {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
        let mono_us = self.started.elapsed().as_micros() as u64 + self.skipped_us;
        Now { mono_us, unix_ns: since.as_nanos() as u64 + self.skipped_us * 1_000 }
    }

    /// Lets time pass for the store alone, and turns it.
    pub(crate) fn skip_ms(&mut self, ms: u64) {
        self.skipped_us += ms * 1_000;
        self.turn(&[]);
    }

    /// Submits a request and gives its ticket.
    pub(crate) fn submit(&mut self, request: StoreRequest) -> u64 {
        self.last_ticket += 1;
        self.store.submit(self.now(), StoreTicket(self.last_ticket), request);
        self.last_ticket
    }

    /// Submits a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: StoreRequest) -> StoreReply {
        let ticket = self.submit(request);
        self.turn(&[]);
        self.reply(ticket)
    }

    /// Waits for the answer to a request.
    pub(crate) fn reply(&mut self, ticket: u64) -> StoreReply {
        self.until("it is answered", |d| d.replies.iter().any(|(answered, _)| *answered == ticket));
        let at = self.replies.iter().position(|(answered, _)| *answered == ticket).expect("it is there");
        self.replies.remove(at).1
    }

    /// Turns every link; `ready` names those that are readable and writable.
    pub(crate) fn turn(&mut self, ready: &[(usize, bool, bool)]) {
        let now = self.now();
        for link in 0..self.store.links() {
            let (_, readable, writable) =
                ready.iter().copied().find(|(ready, ..)| *ready == link).unwrap_or((link, false, false));
            self.wants[link] = self.store.turn(link, now, readable, writable);
        }
        let mut replies = Vec::new();
        self.store.take_replies(&mut replies);
        self.replies.extend(replies.into_iter().map(|(ticket, reply)| (ticket.0, reply)));
    }

    /// Waits for what the links want, at most a little while, and turns them.
    pub(crate) fn step(&mut self) {
        const LITTLE_WHILE_US: u64 = 20_000;
        let now_us = self.now().mono_us;
        let wakes = self.wants.iter().filter_map(|wants| wants.wake_at_us);
        let again = self.wants.iter().any(|wants| wants.again);
        let wake_us = wakes.map(|at| at.saturating_sub(now_us)).min().unwrap_or(LITTLE_WHILE_US).min(LITTLE_WHILE_US);
        let timeout = Timespec { tv_sec: 0, tv_nsec: if again { 0 } else { (wake_us * 1_000) as i64 } };
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        let mut links = Vec::new();
        for (link, wants) in self.wants.iter().enumerate() {
            let Some((descriptor, _)) = wants.socket else { continue };
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, wants.read);
            flags.set(PollFlags::OUT, wants.write);
            // SAFETY: the store keeps the socket open at least until its next turn, which comes after this look.
            #[expect(unsafe_code, reason = "the store tells its sockets by their numbers")]
            let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
            fds.push(PollFd::from_borrowed_fd(socket, flags));
            links.push(link);
        }
        poll(&mut fds, Some(&timeout)).expect("poll");
        let ready: Vec<(usize, bool, bool)> = links
            .into_iter()
            .zip(&fds[1..])
            .map(|(link, fd)| {
                let events = fd.revents();
                let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
                (link, broken || events.contains(PollFlags::IN), broken || events.contains(PollFlags::OUT))
            })
            .collect();
        drop(fds);
        let _ = (&self.bell).read(&mut [0; 16]);
        self.turn(&ready);
    }

    /// Turns the links until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&StoreDriver<B>) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {:?}, {:?}", self.figures, self.wants);
            self.step();
        }
    }

    /// Turns the links until they are up.
    pub(crate) fn until_healthy(&mut self) {
        self.until("the store is healthy", |d| d.figures.link() == LinkState::Healthy);
    }
}
