//! The finder that is always there: knows where Redis is, asks again when told so, and comes back for ever.
//!
//! It has two lines. Over [`ASKING`] it asks one server after the other ([`Search`]), each within a short time of its
//! own. Over [`WATCHING`] it is subscribed at a sentinel, which tells of a fail-over at once; a cluster has no such
//! thing, its servers say MOVED.
//!
//! ```text
//! resting --time, invalidate, refresh, +switch-master--> asking a, asking b, … --an answer holds--> resting (refresh)
//!    ^                                                         +--nobody's holds--> resting (back-off)
//! ```
//! The finder belongs to one thread. A turn never blocks; the only helper is the name lookup's thread.
use crate::backoff::{Backoff, BackoffConfig};
use crate::link::resolver::Wake;
use crate::link::tls::{Tls, TlsError, Trust};
use crate::link::unreached::Unreached;
use crate::link::wants::Wants;
use crate::redis::topology::inquiry::{Inquiry, Question};
use crate::redis::topology::line::{Line, Lost, Ready, after, until};
use crate::redis::topology::lookout::{Around, Lookout};
use crate::redis::topology::node::Node;
use crate::redis::topology::search::{Miss, Search, Step, Where};
use crate::redis::topology::slots::Redirect;
use crate::redis::topology::url::{Login, RedisAddress};
use crate::redis::url::RedisUrl;
use fastrand::Rng;
use protocol::clock::Now;
use protocol::limits;
use rustix::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Lines of a finder, each with a socket of its own.
pub const LINES: usize = 2;
/// The line for questions.
pub const ASKING: usize = 0;
/// The line that is subscribed at a sentinel.
pub const WATCHING: usize = 1;

/// What a finder needs to know.
#[derive(Clone, Debug)]
pub struct FinderConfig {
    /// `REDIS_URL`.
    pub address: RedisAddress,
    /// Between rounds in vain.
    pub backoff: BackoffConfig,
    /// Authorities for an encrypted connection; absent means those of the machine.
    pub roots: Option<PathBuf>,
    /// No setting; tests change it.
    pub timing: FinderTiming,
}

impl FinderConfig {
    /// The defaults for an address.
    pub fn new(address: RedisAddress) -> FinderConfig {
        let backoff = BackoffConfig { initial_ms: 100, max_ms: limits::REDIS_TOPOLOGY_BACKOFF_MS_MAX };
        let roots = address.ca_file().map(Path::to_path_buf);
        FinderConfig { address, backoff, roots, timing: FinderTiming::default() }
    }
}

/// The clocks of a finder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinderTiming {
    /// For one server: from the lookup to its answer.
    pub node_deadline_ms: u64,
    /// From an answer that held to the next question.
    pub refresh_ms: u64,
    /// From a round to the next one, however often it is asked for.
    pub round_gap_ms: u64,
    /// Silence of the watched sentinel after which a PING is sent; once more, and it is given up.
    pub ping_interval_ms: u64,
}

impl Default for FinderTiming {
    /// [`limits::REDIS_TOPOLOGY_NODE_DEADLINE_MS`], [`limits::REDIS_TOPOLOGY_REFRESH_MS`],
    /// [`limits::REDIS_TOPOLOGY_ROUND_GAP_MS`] and [`limits::REDIS_PING_INTERVAL_MS`].
    fn default() -> Self {
        FinderTiming {
            node_deadline_ms: limits::REDIS_TOPOLOGY_NODE_DEADLINE_MS,
            refresh_ms: limits::REDIS_TOPOLOGY_REFRESH_MS,
            round_gap_ms: limits::REDIS_TOPOLOGY_ROUND_GAP_MS,
            ping_interval_ms: limits::REDIS_PING_INTERVAL_MS,
        }
    }
}

/// See the module.
pub struct Finder {
    config: FinderConfig,
    tls: Option<Tls>,
    rng: Rng,
    search: Search,
    current: Option<Where>,
    changes: u64,
    last_miss: Option<Miss>,
    line: Line,
    asking: Asking,
    backoff: Backoff,
    /// No round begins before.
    gap_until_us: u64,
    /// The round that is under way may have heard what is old by now: another follows it.
    again: bool,
    lookout: Lookout,
    stopped: bool,
}

enum Asking {
    Resting { until_us: u64 },
    Node { inquiry: Box<Inquiry>, deadline_us: u64 },
}

impl Finder {
    /// A finder that begins at its first turn. `wake` is called on a name lookup's thread and must make the owner turn
    /// the finder soon. Reads the authorities from their file if connections are to be encrypted.
    ///
    /// # Errors
    /// [`TlsError`]: the settings allow no encrypted connection. A server that is not there is no error.
    pub fn new(config: FinderConfig, seed: u64, wake: Wake) -> Result<Finder, TlsError> {
        let tls = match &config.address {
            RedisAddress::Single(_) => None,
            address if !address.tls() => None,
            // The name is that of each server; this one is replaced.
            _ => Some(Tls::new("redis", Trust::AuthorityAndName, config.roots.as_deref())?),
        };
        let mut search = Search::new(&config.address);
        let mut rng = Rng::with_seed(seed);
        search.shuffle(&mut rng);
        // One server is where it is: nobody has to be asked.
        let current = match &config.address {
            RedisAddress::Single(url) => Some(Where::Master(Node { host: url.host.clone(), port: url.port })),
            RedisAddress::Sentinel(_) | RedisAddress::Cluster(_) => None,
        };
        Ok(Finder {
            tls,
            rng,
            search,
            changes: u64::from(current.is_some()),
            current,
            last_miss: None,
            line: Line::new(wake.clone()),
            asking: Asking::Resting { until_us: 0 },
            backoff: Backoff::new(config.backoff),
            gap_until_us: 0,
            again: false,
            lookout: Lookout::new(config.backoff, wake),
            stopped: false,
            config,
        })
    }

    /// Where Redis is, if that is known and not doubted.
    pub fn current(&self) -> Option<&Where> {
        self.current.as_ref()
    }

    /// How to connect to the master of everything; `None` while it is not known, and for a cluster.
    pub fn master_url(&self) -> Option<RedisUrl> {
        match self.current()? {
            Where::Master(node) => Some(self.config.address.url_of(node)),
            Where::Slots(_) => None,
        }
    }

    /// How to connect to a master of the cluster.
    pub fn url_of(&self, node: &Node) -> RedisUrl {
        self.config.address.url_of(node)
    }

    /// Grows whenever [`Finder::current`] becomes another: compare it to see whether to connect elsewhere.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Why the last round found nothing; `None` if it did.
    pub fn last_miss(&self) -> Option<&Miss> {
        self.last_miss.as_ref()
    }

    /// Whom it can ask, the one that answered last first: sentinels, or masters of the cluster.
    pub fn servers(&self) -> &[Node] {
        self.search.known()
    }

    /// The master was lost: nobody connects to it again before it was asked for anew. A back-off goes on.
    pub fn invalidate(&mut self) {
        if !self.is_single() {
            self.forget();
            self.refresh();
        }
    }

    /// Asks anew and keeps the answer meanwhile: for a cluster, of which one master was lost.
    pub fn refresh(&mut self) {
        match &mut self.asking {
            Asking::Resting { until_us } if self.last_miss.is_none() => *until_us = (*until_us).min(self.gap_until_us),
            // After a round in vain the next one comes soon enough.
            Asking::Resting { .. } => {}
            Asking::Node { .. } => self.again = true,
        }
    }

    /// A server redirected us. MOVED changes the table at once and has it asked for anew; ASK changes nothing.
    pub fn redirected(&mut self, redirect: &Redirect) {
        let (Redirect::Moved { slot, node }, Some(Where::Slots(table))) = (redirect, &mut self.current) else { return };
        if table.owner(*slot) != Some(node) {
            table.moved(*slot, node);
            self.changes += 1;
        }
        self.refresh();
    }

    /// Does what can be done now: at most one read of each line. Turn it when a socket is ready, when the time of one of
    /// the [`Wants`] has come, when the wake callback rang, and once after [`Finder::invalidate`], [`Finder::refresh`]
    /// or [`Finder::redirected`].
    pub fn turn(&mut self, now: Now, ready: [Ready; LINES]) -> [Wants; LINES] {
        if self.stopped || self.is_single() {
            return [Wants::default(); LINES];
        }
        let now_us = now.mono_us;
        self.watch(now_us, ready[WATCHING]);
        self.ask(now_us, ready[ASKING]);
        // What was just found says whom to watch.
        self.watch(now_us, Ready::default());
        [self.asking_wants(), self.watching_wants()]
    }

    /// The socket of a line's [`Wants::socket`].
    pub fn socket(&self, line: usize) -> Option<BorrowedFd<'_>> {
        match line {
            ASKING => self.line.socket(),
            WATCHING => self.lookout.socket(),
            _ => None,
        }
    }

    /// Closes the lines for good; later turns want nothing.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.line.close();
        self.lookout.stop();
        self.asking = Asking::Resting { until_us: u64::MAX };
    }

    fn is_single(&self) -> bool {
        matches!(self.config.address, RedisAddress::Single(_))
    }

    fn forget(&mut self) {
        if self.current.take().is_some() {
            self.changes += 1;
        }
    }

    /// Whatever a round has heard so far is old.
    fn ask_at_once(&mut self) {
        self.line.close();
        self.backoff.reset();
        self.asking = Asking::Resting { until_us: 0 };
    }

    fn ask(&mut self, now_us: u64, mut ready: Ready) {
        // Each round but the last ends a server's turn, and a round of questions has a bounded number of them.
        loop {
            let step = match &mut self.asking {
                Asking::Resting { until_us } if now_us < *until_us => return,
                Asking::Resting { .. } => self.search.begin(),
                Asking::Node { inquiry, deadline_us } => {
                    let due = now_us >= *deadline_us;
                    // Nobody is given up before what may have come was read: the owner itself may have been late.
                    ready.readable |= due;
                    let turned = self.line.turn(now_us, ready, inquiry.talk(), self.tls.as_ref());
                    match (inquiry.answer(), turned) {
                        (Ok(Some(answer)), _) => self.search.heard(answer),
                        (Err(error), _) => self.search.missed(Miss::Broken(format!("{}: {error}", inquiry.asked()))),
                        (Ok(None), Err(lost)) => self.search.missed(unreached(inquiry.asked(), &lost)),
                        (Ok(None), Ok(())) if due => {
                            let late = match self.line.is_open() {
                                true => "did not answer in time",
                                false => "was not reached in time",
                            };
                            self.search.missed(Miss::Unreached(format!("{} {late}", inquiry.asked())))
                        }
                        (Ok(None), Ok(())) => return,
                    }
                }
            };
            self.line.close();
            ready = Ready::default();
            self.take(now_us, step);
        }
    }

    /// Does what the search says, until something is under way or the round is over.
    fn take(&mut self, now_us: u64, mut step: Step) {
        loop {
            step = match step {
                Step::Ask { node, question } => {
                    let deadline_us = after(now_us, self.config.timing.node_deadline_ms);
                    match self.line.dial(now_us, deadline_us, node.clone()) {
                        Ok(()) => {
                            let login = self.login_for(&question);
                            let inquiry = Box::new(Inquiry::new(question, node, login));
                            self.asking = Asking::Node { inquiry, deadline_us };
                            return;
                        }
                        Err(lost) => self.search.missed(unreached(&node, &lost)),
                    }
                }
                Step::Found(found) => return self.found(now_us, found),
                Step::Missed(miss) => return self.missed(now_us, miss),
            };
        }
    }

    fn login_for(&self, question: &Question) -> &Login {
        const NONE: &Login = &Login { user: None, password: None };
        match (&self.config.address, question) {
            (RedisAddress::Sentinel(url), Question::Role) => &url.login,
            (RedisAddress::Sentinel(url), Question::Master { .. } | Question::Slots) => &url.sentinel_login,
            (RedisAddress::Cluster(url), _) => &url.login,
            (RedisAddress::Single(_), _) => NONE,
        }
    }

    fn found(&mut self, now_us: u64, found: Where) {
        self.backoff.reset();
        self.last_miss = None;
        let again_ms = if self.again { self.config.timing.round_gap_ms } else { self.config.timing.refresh_ms };
        self.rest_until(now_us, after(now_us, again_ms));
        if self.current.as_ref() == Some(&found) {
            return;
        }
        match &found {
            Where::Master(node) => tracing::info!(master = %node, "the Redis master is known"),
            Where::Slots(table) => tracing::info!(
                masters = table.masters().len(),
                slots = table.covered(),
                "the masters of the Redis Cluster are known"
            ),
        }
        self.current = Some(found);
        self.changes += 1;
    }

    /// Nothing was found: what was known and is not doubted still stands.
    fn missed(&mut self, now_us: u64, miss: Miss) {
        let delay_us = self.backoff.next_delay_us(&mut self.rng);
        if self.last_miss.as_ref() != Some(&miss) {
            tracing::warn!(cause = %miss, "Redis was not found; it is asked for again");
        }
        self.last_miss = Some(miss);
        self.rest_until(now_us, now_us.saturating_add(delay_us));
    }

    fn rest_until(&mut self, now_us: u64, until_us: u64) {
        self.again = false;
        self.gap_until_us = after(now_us, self.config.timing.round_gap_ms);
        self.asking = Asking::Resting { until_us };
    }

    fn watch(&mut self, now_us: u64, ready: Ready) {
        let RedisAddress::Sentinel(url) = &self.config.address else { return };
        // Before one has answered there is no telling which is worth it.
        if self.changes == 0 {
            return;
        }
        let (known, tls, timing) = (self.search.known(), self.tls.as_ref(), &self.config.timing);
        let told = self.lookout.turn(now_us, ready, &mut Around { url, known, tls, timing, rng: &mut self.rng });
        if told.begun {
            self.refresh();
        }
        if told.switched {
            tracing::info!("a sentinel tells of another Redis master");
            self.forget();
            self.ask_at_once();
        }
    }

    fn asking_wants(&self) -> Wants {
        match &self.asking {
            Asking::Resting { until_us } => Wants { wake_at_us: Some(*until_us), ..Wants::default() },
            Asking::Node { inquiry, deadline_us } => until(self.line.wants(inquiry.peek()), *deadline_us),
        }
    }

    fn watching_wants(&self) -> Wants {
        match &self.config.address {
            // It begins with the first answer, in the turn that brings it.
            RedisAddress::Sentinel(_) if self.changes > 0 => self.lookout.wants(&self.config.timing),
            _ => Wants::default(),
        }
    }
}

fn unreached(node: &Node, lost: &Lost) -> Miss {
    match lost {
        // It is no fault of the network's: the settings do not fit the server.
        Lost::Tls(_) => Miss::Broken(format!("{node}: {lost}")),
        // The address is in the text.
        Lost::Unreached(Unreached::Connect { .. } | Unreached::ConnectDeadline { .. }) => {
            Miss::Unreached(lost.to_string())
        }
        Lost::Unreached(_) | Lost::Lookups => Miss::Unreached(format!("{node}: {lost}")),
    }
}
