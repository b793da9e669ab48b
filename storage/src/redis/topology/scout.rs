//! A finder for many links on many threads: one thread turns it, and everybody may ask where to connect to.
//!
//! A node has one scout for its `REDIS_URL`, and none for a plain `redis://`. Links ask when they are about to connect,
//! look at `Whereabouts::changes` at each turn, and say when they lost their server. The wake callback of each link is
//! called whenever the answer becomes another.
use crate::link::tls::TlsError;
use crate::link::wants::Wants;
use crate::redis::topology::finder::{Finder, FinderConfig, LINES};
use crate::redis::topology::line::Ready;
use crate::redis::topology::node::Node;
use crate::redis::topology::search::Where;
use crate::redis::topology::slots::Redirect;
use crate::redis::topology::url::RedisAddress;
use crate::redis::url::RedisUrl;
use protocol::clock::Now;
use protocol::limits;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// After a loss, from one look at who has the slots to the next.
const LOOK_INTERVAL_US: u64 = 500_000;

/// What a link is to be woken by when the answer becomes another.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Where a link connects to: asked by any thread, never waits. Its clones are the same.
#[derive(Clone)]
pub struct Whereabouts(Arc<Shared>);

struct Shared {
    config: FinderConfig,
    state: Mutex<State>,
    changes: AtomicU64,
    /// The scout's thread sleeps on it.
    bell: OwnedFd,
}

#[derive(Default)]
struct State {
    current: Option<Where>,
    wakes: Vec<Wake>,
    /// Somebody lost its server.
    is_lost: bool,
    /// What servers said of slots that are elsewhere, at most [`limits::REDIS_REDIRECTS_MAX`] that were not looked at.
    redirects: Vec<Redirect>,
    is_over: bool,
}

/// Where a link connects to next, if that is not always the same.
#[derive(Clone, Debug)]
pub struct Located {
    whereabouts: Whereabouts,
    wanted: Wanted,
    /// The changes that the link has seen.
    seen: u64,
    /// The link waits to be told.
    is_looking: bool,
}

/// Which master of a cluster is wanted. Of one server there is no choice.
#[derive(Clone, Debug)]
enum Wanted {
    /// The one who has this key.
    Owner(Vec<u8>),
    /// Any: the one who has this key, or that many after it in the order of the table.
    Any(Vec<u8>, usize),
}

/// What a link is to do about its server.
pub(crate) enum Next {
    /// Connect to where it was.
    Same,
    /// Connect there.
    Other(Box<RedisUrl>),
    /// Wait: nobody knows.
    Unknown,
}

impl Located {
    /// A link that wants the master, or in a cluster the one who has the slot of `key`.
    pub fn new(whereabouts: &Whereabouts, key: &[u8]) -> Located {
        Located { whereabouts: whereabouts.clone(), wanted: Wanted::Owner(key.to_vec()), seen: 0, is_looking: false }
    }

    /// A link that wants the master, or in a cluster any: at first the one who has the slot of `key`, so that all whom
    /// the same is said to meet, and the next when that one is lost.
    pub fn anywhere(whereabouts: &Whereabouts, key: &[u8]) -> Located {
        Located { wanted: Wanted::Any(key.to_vec(), 0), ..Located::new(whereabouts, key) }
    }

    /// The same for another key.
    pub(crate) fn at(&self, key: &[u8]) -> Located {
        Located::new(&self.whereabouts, key)
    }

    /// Whether it is a cluster, whose slots move from one server to another.
    pub(crate) fn is_of_slots(&self) -> bool {
        matches!(self.whereabouts.0.config.address, RedisAddress::Cluster(_))
    }

    /// The link is to be woken by this.
    pub(crate) fn wake(&self, wake: Wake) {
        self.whereabouts.wake(wake);
    }

    /// The link is about to connect.
    pub(crate) fn next(&mut self, url: &RedisUrl) -> Next {
        self.seen = self.whereabouts.changes();
        let found = self.whereabouts.url(&self.wanted);
        self.is_looking = found.is_none();
        match found {
            Some(found) if found == *url => Next::Same,
            Some(found) => Next::Other(Box::new(found)),
            None => {
                if self.is_of_slots() {
                    // A slot that nobody has: somebody will.
                    self.whereabouts.lost();
                }
                Next::Unknown
            }
        }
    }

    /// Whether the link, which waits, is to look at once: it knew no place, or its place is another by now.
    pub(crate) fn is_told(&self, url: &RedisUrl) -> bool {
        self.whereabouts.changes() != self.seen && (self.is_looking || self.is_elsewhere(url))
    }

    /// Whether the link's server is known not to be the one any more.
    pub(crate) fn is_elsewhere(&self, url: &RedisUrl) -> bool {
        self.whereabouts.is_elsewhere(&self.wanted, url)
    }

    /// The same, answered once for each change.
    pub(crate) fn has_moved(&mut self, url: &RedisUrl) -> bool {
        let changes = self.whereabouts.changes();
        std::mem::replace(&mut self.seen, changes) != changes && self.is_elsewhere(url)
    }

    /// The link lost its server.
    pub(crate) fn lost(&mut self) {
        if let Wanted::Any(_, nth) = &mut self.wanted {
            *nth = nth.wrapping_add(1);
        }
        self.whereabouts.lost();
    }

    /// The link's server says that it does not have the slot, and perhaps who does.
    pub(crate) fn refused(&self, url: &RedisUrl, text: &str) {
        let asked = Node { host: url.host.clone(), port: url.port };
        match Redirect::parse(text.as_bytes(), &asked) {
            Some(redirect @ Redirect::Moved { .. }) => self.whereabouts.redirected(redirect),
            _ => self.whereabouts.lost(),
        }
    }
}

/// Lives on its thread until [`Whereabouts::stop`].
struct Scout {
    finder: Finder,
    shared: Arc<Shared>,
    started: Instant,
    /// A server of a cluster was lost: until then it is looked again and again who follows it. In microseconds.
    look_until_us: u64,
    look_again_us: u64,
}

impl fmt::Debug for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Whereabouts({})", self.0.config.address)
    }
}

impl Whereabouts {
    /// Begins to look.
    ///
    /// # Errors
    /// The settings allow no encrypted connection, or the system has no thread or descriptor left.
    pub fn look(config: FinderConfig, seed: u64) -> Result<Whereabouts, ScoutError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| ScoutError::System(error.into()))?;
        let (state, changes) = (Mutex::default(), AtomicU64::new(0));
        let shared = Arc::new(Shared { config, state, changes, bell });
        // It must not keep alive what it rings for.
        let ring = Arc::downgrade(&shared);
        let wake: Wake = Arc::new(move || ring.upgrade().iter().for_each(|shared| shared.ring()));
        let finder = Finder::new(shared.config.clone(), seed, wake).map_err(ScoutError::Tls)?;
        let shared_too = Arc::clone(&shared);
        let scout = Scout { finder, shared: shared_too, started: Instant::now(), look_until_us: 0, look_again_us: 0 };
        let thread = std::thread::Builder::new().name("ara-finder".to_owned());
        let _detached = thread.spawn(move || scout.run()).map_err(ScoutError::System)?;
        Ok(Whereabouts(shared))
    }

    /// How to connect to the master, or to that master of a cluster who is wanted; `None` while it is not known.
    fn url(&self, wanted: &Wanted) -> Option<RedisUrl> {
        let state = self.0.lock();
        let node = match (state.current.as_ref()?, wanted) {
            (Where::Master(node), _) => node,
            (Where::Slots(table), Wanted::Owner(key)) => table.owner_of_key(key)?,
            (Where::Slots(table), Wanted::Any(key, nth)) => {
                let masters = table.masters();
                let owner = table.owner_of_key(key);
                let first = owner.and_then(|owner| masters.iter().position(|master| master == owner)).unwrap_or(0);
                masters.get(first.wrapping_add(*nth).checked_rem(masters.len())?)?
            }
        };
        Some(self.0.config.address.url_of(node))
    }

    /// Whether this is known not to be a place that is wanted.
    fn is_elsewhere(&self, wanted: &Wanted, url: &RedisUrl) -> bool {
        if let Wanted::Any(..) = wanted
            && let Some(Where::Slots(table)) = &self.0.lock().current
        {
            return !table.masters().iter().any(|master| self.0.config.address.url_of(master) == *url);
        }
        self.url(wanted).is_some_and(|found| found != *url)
    }

    /// Grows whenever the answer becomes another.
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Relaxed)
    }

    /// Calls this whenever the answer becomes another.
    pub(crate) fn wake(&self, wake: Wake) {
        self.0.lock().wakes.push(wake);
    }

    /// A server was lost, or is none that we want: it is asked anew.
    pub(crate) fn lost(&self) {
        self.0.lock().is_lost = true;
        self.0.ring();
    }

    /// A server says that a slot is elsewhere.
    fn redirected(&self, redirect: Redirect) {
        {
            let state = &mut *self.0.lock();
            match state.redirects.len() < limits::REDIS_REDIRECTS_MAX {
                true => state.redirects.push(redirect),
                // The whole table tells as much.
                false => state.is_lost = true,
            }
        }
        self.0.ring();
    }

    /// Ends the thread; nothing is found any more.
    pub fn stop(&self) {
        self.0.lock().is_over = true;
        self.0.ring();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // A bell that is full rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Scout {
    fn run(mut self) {
        let mut ready = [Ready::default(); LINES];
        let mut seen = 0;
        loop {
            let (is_over, is_lost, redirects) = {
                let state = &mut *self.shared.lock();
                (state.is_over, std::mem::take(&mut state.is_lost), std::mem::take(&mut state.redirects))
            };
            let now_us = self.now().mono_us;
            if is_over {
                self.finder.stop();
                return;
            }
            redirects.iter().for_each(|redirect| self.finder.redirected(redirect));
            if is_lost {
                match self.finder.current() {
                    // The other masters are still good. Until one of them has followed the answer is the same.
                    Some(Where::Slots(_)) => {
                        self.look_until_us = now_us + limits::REDIS_TOPOLOGY_LOOK_MS * 1_000;
                        self.look_again_us = now_us;
                    }
                    _ => self.finder.invalidate(),
                }
            }
            if now_us < self.look_until_us && now_us >= self.look_again_us {
                self.look_again_us = now_us + LOOK_INTERVAL_US;
                self.finder.refresh();
            }
            let wants = self.finder.turn(self.now(), ready);
            if self.finder.changes() != seen {
                seen = self.finder.changes();
                self.tell();
            }
            ready = self.sleep(&wants);
        }
    }

    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { mono_us: self.started.elapsed().as_micros() as u64, unix_ns: unix.as_nanos() as u64 }
    }

    fn tell(&self) {
        let wakes = {
            let state = &mut *self.shared.lock();
            state.current = self.finder.current().cloned();
            self.shared.changes.fetch_add(1, SeqCst);
            state.wakes.clone()
        };
        wakes.iter().for_each(|wake| wake());
    }

    /// Sleeps until a line is ready, its time has come, or the bell rings.
    fn sleep(&self, wants: &[Wants; LINES]) -> [Ready; LINES] {
        let now_us = self.now().mono_us;
        let look_us = (now_us < self.look_until_us).then_some(self.look_again_us);
        let wake_at_us = wants.iter().filter_map(|wants| wants.wake_at_us).chain(look_us).min();
        let wait_us = match wants.iter().any(|wants| wants.again) {
            true => 0,
            false => wake_at_us.map_or(1_000_000, |at_us| at_us.saturating_sub(now_us)),
        };
        let timeout = Timespec { tv_sec: (wait_us / 1_000_000) as i64, tv_nsec: (wait_us % 1_000_000 * 1_000) as i64 };
        let socket = |line: usize| self.finder.socket(line).filter(|_| wants[line].socket.is_some());
        let sockets: [Option<BorrowedFd<'_>>; LINES] = std::array::from_fn(socket);
        let interest = |wants: &Wants| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, wants.read);
            flags.set(PollFlags::OUT, wants.write);
            flags
        };
        let mut fds = vec![PollFd::from_borrowed_fd(self.shared.bell.as_fd(), PollFlags::IN)];
        for (socket, wants) in sockets.iter().zip(wants) {
            fds.extend(socket.map(|socket| PollFd::from_borrowed_fd(socket, interest(wants))));
        }
        // Interrupted or out of memory: it looks again.
        let _ = poll(&mut fds, Some(&timeout));
        let mut told = fds[1..].iter().map(PollFd::revents);
        let ready = sockets.map(|socket| {
            let events = socket.and_then(|_| told.next()).unwrap_or(PollFlags::empty());
            let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
            Ready {
                readable: broken || events.contains(PollFlags::IN),
                writable: broken || events.contains(PollFlags::OUT),
            }
        });
        // Empty already, if it was not the bell.
        let _ = rustix::io::read(&self.shared.bell, &mut [0_u8; 8]);
        ready
    }
}

/// Why nobody can look.
#[derive(Debug)]
pub enum ScoutError {
    /// The encryption cannot be.
    Tls(TlsError),
    /// What the system said.
    System(std::io::Error),
}

impl fmt::Display for ScoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScoutError::Tls(error) => error.fmt(f),
            ScoutError::System(error) => write!(f, "no thread to look for Redis: {error}"),
        }
    }
}

impl std::error::Error for ScoutError {}
