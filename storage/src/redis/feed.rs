//! The subscription that is always there: connects, proves, hands out messages, and comes back for ever.
//!
//! ```text
//! waiting --breaker grants--> resolving --> connecting --> greeting --all names confirmed--> live
//!    ^                           |              |  ^ next address |                            |
//!    +------- the attempt failed: back-off -----+--+--------------+------ closed or silent ----+
//! ```
//! The feed belongs to one thread, which calls [`Feed::turn`] when the socket is ready, when [`FeedWants::wake_at_us`]
//! has come, or when the wake callback rang. A turn never blocks. The only helper is the name lookup's thread.
//!
//! **Pause.** While the node is congested the caller turns the feed with `paused`: it reads nothing, and TCP carries
//! the back-pressure to the server. Time the feed did not listen is not counted as silence.
use crate::backoff::{Backoff, BackoffConfig};
use crate::breaker::{Admission, Breaker, BreakerConfig, BreakerState};
use crate::link::attempt::Attempt;
use crate::link::resolver::{Lookup, Resolver};
use crate::link::tls::{Tls, TlsError};
use crate::link::transport::Transport;
use crate::link::unreached::Unreached;
use crate::link::wants::Wants;
use crate::redis::link::{Flow, Link, LinkTurn, Ready, Stage};
use crate::redis::session::{PubSub, Session, Step};
use crate::redis::status::{FeedStatus, LinkState};
use crate::redis::topology::scout::{Located, Next};
use crate::redis::trouble::{self, Trouble};
use crate::redis::url::RedisUrl;
use fastrand::Rng;
use protocol::clock::Now;
use protocol::limits;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a feed needs to know.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// `REDIS_URL`.
    pub url: RedisUrl,
    /// What it is for, for the log.
    pub purpose: &'static str,
    /// `REDIS_CHANNELS`: names and patterns, 1..=[`limits::REDIS_CHANNELS_MAX`].
    pub channels: Vec<String>,
    /// `REDIS_CIRCUIT_BREAKER_*`.
    pub breaker: BreakerConfig,
    /// `REDIS_BACKOFF_*`.
    pub backoff: BackoffConfig,
    /// No setting; tests shorten it.
    pub timing: FeedTiming,
    /// Who tells where to connect, if that is not always [`FeedConfig::url`], whose login goes everywhere.
    pub located: Option<Located>,
    /// Whether names, none of them a pattern, are of one slot, and listened to by SSUBSCRIBE where the server knows that.
    pub sharded: bool,
}

/// The deadlines of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedTiming {
    /// From the start of an attempt until every name is confirmed.
    pub connect_deadline_ms: u64,
    /// Silence after which a PING is sent; after twice it the link is given up.
    pub ping_interval_ms: u64,
}

impl Default for FeedTiming {
    /// [`limits::REDIS_CONNECT_DEADLINE_MS`] and [`limits::REDIS_PING_INTERVAL_MS`].
    fn default() -> Self {
        FeedTiming {
            connect_deadline_ms: limits::REDIS_CONNECT_DEADLINE_MS,
            ping_interval_ms: limits::REDIS_PING_INTERVAL_MS,
        }
    }
}

/// Why there can be no such feed; a matter of the settings, to be said at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedError {
    /// The URL asks for encryption, which cannot be.
    Tls(TlsError),
    /// There is nothing to subscribe to.
    NoChannels,
    /// There are more than [`limits::REDIS_CHANNELS_MAX`].
    TooManyChannels {
        /// So many.
        count: usize,
    },
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => write!(f, "REDIS_URL asks for encryption (rediss://): {error}"),
            Self::NoChannels => f.write_str("REDIS_CHANNELS names no channel"),
            Self::TooManyChannels { count } => {
                let count_max = limits::REDIS_CHANNELS_MAX;
                write!(
                    f,
                    "REDIS_CHANNELS names {count} channels; at most {count_max} are taken, a pattern may join them"
                )
            }
        }
    }
}

impl std::error::Error for FeedError {}

/// What a feed hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Somebody published.
    Message {
        /// Where; of a pattern, the channel that matched.
        channel: &'a [u8],
        /// What, byte for byte.
        payload: &'a [u8],
    },
    /// A name of [`Feed::change`] is confirmed.
    Changed {
        /// Whether it is listened to from here on.
        subscribed: bool,
        /// Which.
        name: &'a [u8],
    },
    /// The server refused names of [`Feed::change`]: the next ones that are not confirmed.
    Refused {
        /// So many.
        names: usize,
        /// Its words, printable, without our password.
        text: &'a str,
    },
}

/// While nobody knows where the server is, how often it is looked whether somebody does, beside being told.
pub(crate) const RELOOK_US: u64 = 1_000_000;

/// When to turn the feed again.
pub type FeedWants = Wants;

/// One subscription link.
pub struct Feed {
    config: FeedConfig,
    tls: Option<Tls>,
    status: Arc<FeedStatus>,
    rng: Rng,
    breaker: Breaker,
    backoff: Backoff,
    resolver: Resolver,
    phase: Phase,
    /// Number of the newest socket.
    generation: u32,
    /// Since when nothing was read because the caller said so.
    paused_since_us: Option<u64>,
    /// How it will listen to the server it connects to next.
    pubsub: PubSub,
}

enum Phase {
    Waiting { until_us: u64 },
    Resolving { deadline_us: u64 },
    Linked(Box<Link>),
    Stopped,
}

impl Feed {
    /// A feed that begins to connect at its first turn. `wake` is called on the name lookup's thread and must make
    /// the owner turn the feed soon.
    ///
    /// # Errors
    /// [`FeedError`] if the settings cannot work. A server that is not there is no error.
    pub fn new(
        config: FeedConfig,
        status: Arc<FeedStatus>,
        seed: u64,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Feed, FeedError> {
        let tls = config.url.encryption().map_err(FeedError::Tls)?;
        match config.channels.len() {
            0 => return Err(FeedError::NoChannels),
            count if count > limits::REDIS_CHANNELS_MAX => return Err(FeedError::TooManyChannels { count }),
            _ => {}
        }
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::from(wake);
        if let Some(located) = &config.located {
            located.wake(Arc::clone(&wake));
        }
        Ok(Feed {
            rng: Rng::with_seed(seed),
            breaker: Breaker::new(config.breaker),
            backoff: Backoff::new(config.backoff),
            resolver: Resolver::new(wake),
            phase: Phase::Waiting { until_us: 0 },
            generation: 0,
            paused_since_us: None,
            pubsub: if config.sharded { PubSub::Sharded } else { PubSub::Ordinary },
            tls,
            status,
            config,
        })
    }

    /// Whether all names of the configuration are listened to now.
    pub fn is_up(&self) -> bool {
        matches!(&self.phase, Phase::Linked(link) if matches!(link.stage, Stage::Live { .. }))
    }

    /// How it listens, while [`Feed::is_up`]: what is published there has to be published in the same way.
    pub fn pubsub(&self) -> PubSub {
        self.pubsub
    }

    /// Gives the link up as if the server had taken its names away: it confirmed what nobody asked for.
    pub(crate) fn lose(&mut self, now: Now) {
        if self.is_up() {
            self.end(now.mono_us, Trouble::SlotLost);
        }
    }

    /// Begins or ends to listen to names beside those of the configuration, for as long as the link lasts. Said with the
    /// next turn, and confirmed in order by [`Heard::Changed`]. Without a link nothing happens: see [`Feed::is_up`].
    pub fn change(&mut self, subscribe: bool, names: &[&[u8]]) {
        if let Phase::Linked(link) = &mut self.phase
            && matches!(link.stage, Stage::Live { .. })
        {
            link.session.change(subscribe, names);
        }
    }

    /// Does what can be done now. Reads at most [`limits::READ_BYTES_MAX`] and hands out everything that is whole among
    /// what was read, in order.
    pub fn turn(
        &mut self,
        now: Now,
        readable: bool,
        writable: bool,
        paused: bool,
        on_heard: &mut dyn FnMut(Heard<'_>),
    ) -> FeedWants {
        let now_us = now.mono_us;
        self.keep_pause(now_us, paused);
        if matches!(self.phase, Phase::Linked(_))
            && self.config.located.as_mut().is_some_and(|located| located.has_moved(&self.config.url))
        {
            self.end(now_us, Trouble::Moved);
        }
        let mut ready = Ready { readable, writable, paused };
        // Each round but the last ends a phase or an address, and an attempt has a bounded number of them.
        while let Flow::Go = self.step(now_us, ready, on_heard) {
            ready = Ready { readable: false, writable: false, paused };
        }
        self.wants(paused)
    }

    /// The socket of [`FeedWants::socket`].
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Linked(link) => Some(link.transport.socket()),
            _ => None,
        }
    }

    /// Closes the link for good; later turns want nothing.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.resolver.stop();
        self.status.set_link(LinkState::Reconnecting);
    }

    fn step(&mut self, now_us: u64, ready: Ready, on_heard: &mut dyn FnMut(Heard<'_>)) -> Flow {
        let outcome = match &mut self.phase {
            Phase::Stopped => return Flow::Rest,
            Phase::Waiting { until_us }
                if now_us < *until_us
                    && !self.config.located.as_ref().is_some_and(|located| located.is_told(&self.config.url)) =>
            {
                return Flow::Rest;
            }
            Phase::Waiting { .. } => return self.attempt(now_us),
            Phase::Resolving { deadline_us } => {
                let deadline_us = *deadline_us;
                return match self.resolver.poll() {
                    Lookup::Pending if now_us >= deadline_us => {
                        let ms = self.config.timing.connect_deadline_ms;
                        self.end(now_us, Unreached::LookupDeadline { ms }.into())
                    }
                    Lookup::Pending => Flow::Rest,
                    Lookup::Done(answer) => self.resolved(now_us, deadline_us, answer),
                };
            }
            Phase::Linked(link) => match &link.stage {
                Stage::Connecting(attempt) => {
                    link.finish_connect(attempt.address_deadline_us, now_us, ready, self.tls.as_ref())
                }
                Stage::Greeting(_) | Stage::Live { .. } => {
                    let mut turn = LinkTurn {
                        breaker: &mut self.breaker,
                        backoff: &mut self.backoff,
                        config: &self.config,
                        status: &self.status,
                        now_us,
                    };
                    turn.run(link, ready, on_heard)
                }
            },
        };
        match outcome {
            Ok(flow) => {
                // Greeting or living begins now, also for the pause that may be on.
                if matches!(flow, Flow::Go) && self.paused_since_us.is_some() {
                    self.paused_since_us = Some(now_us);
                }
                flow
            }
            Err(trouble) => self.address_failed(now_us, trouble),
        }
    }

    /// Time during a pause is no silence and eats no deadline of what must be read.
    fn keep_pause(&mut self, now_us: u64, paused: bool) {
        match (paused, self.paused_since_us) {
            (true, None) => self.paused_since_us = Some(now_us),
            (false, Some(since_us)) => {
                self.paused_since_us = None;
                if let Phase::Linked(link) = &mut self.phase {
                    link.stage.shift(now_us.saturating_sub(since_us));
                }
            }
            _ => {}
        }
    }

    /// Begins an attempt if the breaker grants one.
    fn attempt(&mut self, now_us: u64) -> Flow {
        let is_told = self.config.located.as_ref().is_some_and(|located| located.is_told(&self.config.url));
        match self.config.located.as_mut().map_or(Next::Same, |located| located.next(&self.config.url)) {
            Next::Same => {}
            Next::Other(url) => {
                // A host that no certificate could have is found out by the handshake.
                self.tls = self.tls.take().map(|tls| tls.at(&url.host).unwrap_or(tls));
                self.config.url = *url;
                if self.config.sharded {
                    self.pubsub = PubSub::Sharded;
                }
                if is_told {
                    // What was held against the server before it is not this one's fault.
                    self.breaker = Breaker::new(self.config.breaker);
                }
            }
            Next::Unknown => {
                // Whoever is told is woken.
                self.phase = Phase::Waiting { until_us: now_us.saturating_add(RELOOK_US) };
                return Flow::Rest;
            }
        }
        if let Admission::OpenUntil { us } = self.breaker.admit(now_us) {
            self.phase = Phase::Waiting { until_us: us };
            return Flow::Rest;
        }
        self.status.attempted();
        self.status.set_link(LinkState::Reconnecting);
        self.status.set_breaker(&self.breaker);
        let deadline_us = now_us.saturating_add(self.config.timing.connect_deadline_ms.saturating_mul(1_000));
        match self.resolver.start(&self.config.url.host, self.config.url.port) {
            Lookup::Pending => {
                self.phase = Phase::Resolving { deadline_us };
                Flow::Rest
            }
            Lookup::Done(answer) => self.resolved(now_us, deadline_us, answer),
        }
    }

    fn resolved(&mut self, now_us: u64, deadline_us: u64, answer: std::io::Result<Vec<SocketAddr>>) -> Flow {
        let attempt = answer
            .map_err(|error| Unreached::Resolve(error.to_string()))
            .and_then(|addresses| Attempt::begin(now_us, deadline_us, addresses));
        self.connecting(now_us, attempt.map_err(Trouble::Unreached))
    }

    /// The next address is tried, or there is none left.
    fn connecting(&mut self, now_us: u64, attempt: Result<(OwnedFd, Attempt), Trouble>) -> Flow {
        match attempt {
            Ok((socket, attempt)) => {
                let session = Session::with(&self.config.url, &self.config.channels, self.pubsub);
                self.generation = self.generation.wrapping_add(1);
                let link = Link::new(Transport::new(socket), Stage::Connecting(attempt), session);
                self.phase = Phase::Linked(Box::new(link));
                Flow::Rest
            }
            Err(trouble) => self.end(now_us, trouble),
        }
    }

    /// The link is of no use any more: the next address, or the end of the attempt.
    fn address_failed(&mut self, now_us: u64, trouble: Trouble) -> Flow {
        // What the server refused at one address it refuses at all; only what did not get through is tried elsewhere.
        let goes_on = trouble.is_of_connection();
        let stage = match std::mem::replace(&mut self.phase, Phase::Waiting { until_us: now_us }) {
            Phase::Linked(link) => Some(link.stage),
            _ => None,
        };
        match stage {
            Some(Stage::Connecting(attempt) | Stage::Greeting(attempt)) if goes_on => {
                self.connecting(now_us, attempt.next(now_us, trouble))
            }
            _ => self.end(now_us, trouble),
        }
    }

    /// The attempt, or the link, is over: says so, and when the next attempt is.
    fn end(&mut self, now_us: u64, trouble: Trouble) -> Flow {
        if let Trouble::Server { step: Step::Subscribe, text } = &trouble
            && self.pubsub == PubSub::Sharded
            && text.starts_with("ERR unknown command")
        {
            // A server older than Redis 7. It was reached, and is asked at once in the other words; the next refusal is one.
            self.pubsub = PubSub::Ordinary;
            self.breaker.abandon();
            self.phase = Phase::Waiting { until_us: now_us };
            self.status.ended(trouble.kind());
            tracing::info!(server = %self.config.url, purpose = self.config.purpose, "Redis knows no sharded Pub/Sub");
            return Flow::Go;
        }
        if let Trouble::Server { text, .. } = &trouble
            && trouble::is_of_slot(text)
            && let Some(located) = &self.config.located
        {
            located.refused(&self.config.url, text);
        }
        if let Some(located) = self.config.located.as_mut().filter(|_| !matches!(trouble, Trouble::Moved)) {
            located.lost();
        }
        match trouble.is_of_connection() {
            true => self.breaker.fail(now_us),
            false => self.breaker.abandon(),
        }
        let delay_us = self.backoff.next_delay_us(&mut self.rng);
        let until_us = now_us.saturating_add(delay_us).max(self.breaker.open_until_us().unwrap_or(0));
        self.phase = Phase::Waiting { until_us };
        self.status.ended(trouble.kind());
        self.status.set_breaker(&self.breaker);
        let open = self.breaker.state() == BreakerState::Open;
        self.status.set_link(if open { LinkState::CircuitOpen } else { LinkState::Reconnecting });
        tracing::warn!(
            server = %self.config.url,
            purpose = self.config.purpose,
            cause = %trouble,
            kind = trouble.kind().as_str(),
            retry_in_ms = (until_us - now_us) / 1_000,
            circuit = self.breaker.state().as_str(),
            "Redis subscription is down"
        );
        Flow::Rest
    }

    fn wants(&self, paused: bool) -> FeedWants {
        let link = match &self.phase {
            Phase::Stopped => return FeedWants::default(),
            Phase::Waiting { until_us: wake_at_us } | Phase::Resolving { deadline_us: wake_at_us } => {
                return FeedWants { wake_at_us: Some(*wake_at_us), ..FeedWants::default() };
            }
            Phase::Linked(link) => link,
        };
        let socket = Some((link.transport.socket().as_raw_fd(), self.generation));
        let wake_at_us = Some(link.stage.deadline_us(&self.config.timing));
        match &link.stage {
            Stage::Connecting(_) => FeedWants { socket, read: false, write: true, wake_at_us, again: false },
            // A pause stops the clocks of what must be read.
            _ => FeedWants {
                socket,
                read: !paused,
                write: !link.session.output().is_empty() || link.transport.wants_write(),
                wake_at_us: wake_at_us.filter(|_| !paused),
                again: link.more && !paused,
            },
        }
    }
}
