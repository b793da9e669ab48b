//! The link for commands that is always there: connects, sends, answers, and comes back for ever.
//!
//! ```text
//! waiting --breaker grants--> resolving --> connecting --> greeting --PONG--> live
//!    ^                           |              |  ^ next address |              |
//!    +------- the attempt failed: back-off -----+--+--------------+--- closed, or an answer is late
//! ```
//! The link belongs to one thread, which calls [`CommandLink::turn`] when the socket is ready, when
//! [`CommandWants::wake_at_us`] has come, when the wake callback rang, and once after it submitted. A turn never
//! blocks, and [`CommandLink::submit`] makes no system call at all. The only helper is the name lookup's thread.
//!
//! **Late.** An answer that does not come within the command's time ends the link: answers are matched by their order
//! alone, so one that is given up takes the others with it. All that was on its way is answered
//! [`Outcome::Unknown`]; what had not left is answered [`Outcome::NotSent`].
//!
//! **Reconnecting.** Commands wait for the next attempt, within their time and the link's bounds; when the attempt
//! fails they are answered [`Outcome::NotSent`]. While the breaker is open none are taken.
//!
//! **Slots.** A server of a cluster that answers MOVED, ASK or TRYAGAIN has not executed the command. The
//! link lets it answer what is on its way and is made anew, to whom the table of slots names, at once if that is another,
//! else after the back-off. What was refused so goes first there, within its time; a link is to speak of one slot only, so
//! its order stands. ASK is not followed to the server that takes a slot over: while a slot is being moved, what is
//! refused waits, too. CLUSTERDOWN is a refusal like others, at which the table is asked for again.
//!
//! **Failover.** A server that answers READONLY is not the master any more. The link lets it answer what is on its
//! way and is made anew, its name looked up again.
mod connection;

use crate::backoff::{Backoff, BackoffConfig};
use crate::breaker::{Admission, Breaker, BreakerConfig, BreakerState};
use crate::link::attempt::Attempt;
use crate::link::resolver::{Lookup, Resolver};
use crate::link::tls::{Tls, TlsError};
use crate::link::transport::Transport;
use crate::link::unreached::Unreached;
use crate::link::wants::Wants;
use crate::redis::commands::answer::Outcome;
use crate::redis::commands::ended::Ended;
use crate::redis::commands::event::{Bounds, Fate, NotTaken};
use crate::redis::commands::script::Script;
use crate::redis::commands::session::CommandSession;
use crate::redis::commands::status::{CommandStatus, OperationResult};
use crate::redis::commands::{Command, Ticket};
use crate::redis::feed::RELOOK_US;
use crate::redis::status::LinkState;
use crate::redis::topology::scout::{Located, Next};
use crate::redis::trouble::Trouble;
use crate::redis::url::RedisUrl;
use connection::{Connection, Stage};
use fastrand::Rng;
use protocol::clock::Now;
use protocol::limits;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a link needs to know.
#[derive(Clone, Debug)]
pub struct CommandConfig {
    /// `REDIS_URL`.
    pub url: RedisUrl,
    /// `REDIS_CIRCUIT_BREAKER_*`.
    pub breaker: BreakerConfig,
    /// `REDIS_BACKOFF_*`.
    pub backoff: BackoffConfig,
    /// Loaded with each greeting; others are loaded when they are first missed.
    pub scripts: Vec<&'static Script>,
    /// No setting; tests shorten it.
    pub timing: CommandTiming,
    /// No setting; tests tighten it.
    pub bounds: Bounds,
    /// Who tells where to connect, if that is not always [`CommandConfig::url`], whose login goes everywhere.
    pub located: Option<Located>,
    tls: Option<Tls>,
}

impl CommandConfig {
    /// The defaults for a server. Reads the certificates of those who vouch for it, where `rediss://` asks for it.
    ///
    /// # Errors
    /// [`TlsError`]. A server that is not there is no error.
    pub fn new(url: RedisUrl, scripts: &[&'static Script]) -> Result<CommandConfig, TlsError> {
        Ok(CommandConfig {
            tls: url.encryption()?,
            located: None,
            url,
            breaker: BreakerConfig::default(),
            backoff: BackoffConfig::default(),
            scripts: scripts.to_vec(),
            timing: CommandTiming::default(),
            bounds: Bounds { commands_max: limits::REDIS_COMMANDS_MAX, bytes_max: limits::REDIS_COMMANDS_BYTES_MAX },
        })
    }
}

/// The deadlines of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandTiming {
    /// From the start of an attempt until the greeting is answered.
    pub connect_deadline_ms: u64,
    /// From taking a command to its answer.
    pub command_timeout_ms: u64,
    /// Silence after which a PING is sent. It has the time of a command.
    pub ping_interval_ms: u64,
}

impl Default for CommandTiming {
    /// [`limits::REDIS_CONNECT_DEADLINE_MS`], [`limits::REDIS_COMMAND_TIMEOUT_MS`] and [`limits::REDIS_PING_INTERVAL_MS`].
    fn default() -> Self {
        CommandTiming {
            connect_deadline_ms: limits::REDIS_CONNECT_DEADLINE_MS,
            command_timeout_ms: limits::REDIS_COMMAND_TIMEOUT_MS,
            ping_interval_ms: limits::REDIS_PING_INTERVAL_MS,
        }
    }
}

/// When to turn the link again.
pub type CommandWants = Wants;

/// One pipelined command link.
pub struct CommandLink {
    config: CommandConfig,
    status: Arc<CommandStatus>,
    rng: Rng,
    breaker: Breaker,
    backoff: Backoff,
    resolver: Resolver,
    session: CommandSession,
    phase: Phase,
    /// Number of the newest socket.
    generation: u32,
    /// The last link ended because its server was no master; until one is, the back-off goes on.
    seeks_master: bool,
    /// Servers in a row that did not have the slot.
    hops: u32,
}

enum Phase {
    Waiting { until_us: u64 },
    Resolving { deadline_us: u64 },
    Connected(Connection),
    Stopped,
}

/// How one step of a turn ended.
enum Flow {
    /// Nothing more to do before something happens.
    Rest,
    /// The phase changed; look at it at once.
    Go,
}

/// What the caller said about the socket.
#[derive(Clone, Copy)]
struct Ready {
    readable: bool,
    writable: bool,
}

/// Whom answers are told.
pub type OnReply<'a> = dyn FnMut(Ticket, Outcome<'_>) + 'a;

impl CommandLink {
    /// A link that begins to connect at its first turn. `wake` is called on the name lookup's thread and must make
    /// the owner turn the link soon.
    pub fn new(
        config: CommandConfig,
        status: Arc<CommandStatus>,
        seed: u64,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> CommandLink {
        if let Some(located) = &config.located {
            located.wake(Arc::clone(&wake));
        }
        let mut session = CommandSession::new(config.url.clone(), &config.scripts, config.bounds);
        if config.located.as_ref().is_some_and(Located::is_of_slots) {
            session.follow_slots();
        }
        CommandLink {
            rng: Rng::with_seed(seed),
            breaker: Breaker::new(config.breaker),
            backoff: Backoff::new(config.backoff),
            resolver: Resolver::new(wake),
            session,
            phase: Phase::Waiting { until_us: 0 },
            generation: 0,
            seeks_master: false,
            hops: 0,
            status,
            config,
        }
    }

    /// Takes a command; it leaves with the next turn, and is answered by that or a later one, once.
    ///
    /// # Errors
    /// [`NotTaken`]: it was not taken and will not be answered.
    pub fn submit(&mut self, now: Now, ticket: Ticket, command: Command<'_>) -> Result<(), NotTaken> {
        let stopped = matches!(self.phase, Phase::Stopped);
        let taken = match stopped || self.breaker.state() == BreakerState::Open {
            true => Err(NotTaken::Unavailable),
            false => {
                let deadline_us = self.command_deadline_us(now.mono_us);
                self.session.push(now.mono_us, deadline_us, ticket, command)
            }
        };
        match taken {
            Ok(()) => self.status.set_unanswered(self.session.commands()),
            Err(NotTaken::Unavailable) => self.status.counted(command.operation, OperationResult::Unavailable),
            Err(NotTaken::Full { .. } | NotTaken::TooLarge { .. }) => {
                self.status.counted(command.operation, OperationResult::Full);
            }
        }
        taken
    }

    /// Does what can be done now: writes what was submitted, reads at most [`limits::READ_BYTES_MAX`], and tells what
    /// became of commands.
    pub fn turn(&mut self, now: Now, readable: bool, writable: bool, on_reply: &mut OnReply<'_>) -> CommandWants {
        let now_us = now.mono_us;
        let mut ready = Ready { readable, writable };
        if matches!(self.phase, Phase::Connected(_))
            && self.config.located.as_mut().is_some_and(|located| located.has_moved(&self.config.url))
        {
            self.move_on(now_us, on_reply);
        }
        // Each round but the last ends a phase or an address, and an attempt has a bounded number of them.
        while let Flow::Go = self.step(now_us, ready, on_reply) {
            ready = Ready { readable: false, writable: false };
        }
        while let Some(ask) = self.session.expire(now_us) {
            self.status.counted(ask.operation, OperationResult::NotSent);
            on_reply(ask.ticket, Outcome::NotSent);
        }
        self.status.set_unanswered(self.session.commands());
        self.wants()
    }

    /// The socket of [`CommandWants::socket`].
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Connected(connection) => Some(connection.transport.socket()),
            _ => None,
        }
    }

    /// Commands that were taken and are not answered.
    pub fn unanswered(&self) -> usize {
        self.session.commands()
    }

    /// Closes the link for good; later turns want nothing. What is not answered is answered now.
    pub fn stop(&mut self, on_reply: &mut OnReply<'_>) {
        self.phase = Phase::Stopped;
        self.resolver.stop();
        self.give_up(on_reply);
        self.status.set_link(LinkState::Reconnecting);
    }

    fn command_deadline_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(self.config.timing.command_timeout_ms.saturating_mul(1_000))
    }

    fn step(&mut self, now_us: u64, ready: Ready, on_reply: &mut OnReply<'_>) -> Flow {
        let is_told = matches!(self.phase, Phase::Waiting { .. }) && self.is_told();
        match &mut self.phase {
            Phase::Stopped => Flow::Rest,
            Phase::Waiting { until_us } if now_us < *until_us && !is_told => Flow::Rest,
            Phase::Waiting { .. } => self.attempt(now_us, on_reply),
            Phase::Resolving { deadline_us } => {
                let deadline_us = *deadline_us;
                match self.resolver.poll() {
                    Lookup::Pending if now_us >= deadline_us => {
                        let ms = self.config.timing.connect_deadline_ms;
                        self.end(now_us, Unreached::LookupDeadline { ms }.into(), on_reply)
                    }
                    Lookup::Pending => Flow::Rest,
                    Lookup::Done(answer) => self.resolved(now_us, deadline_us, answer, on_reply),
                }
            }
            Phase::Connected(_) => match self.converse(now_us, ready, on_reply) {
                Ok(flow) => flow,
                Err(ended) => self.connection_ended(now_us, ended, on_reply),
            },
        }
    }

    /// Whether somebody knows of another place. Servers that send each other's clients back and forth are not believed.
    fn is_told(&self) -> bool {
        self.hops <= 1 && self.config.located.as_ref().is_some_and(|located| located.is_told(&self.config.url))
    }

    /// The server is another now. One of a cluster still answers what is on its way: a slot that moves fails nobody.
    fn move_on(&mut self, now_us: u64, on_reply: &mut OnReply<'_>) {
        if !self.config.located.as_ref().is_some_and(Located::is_of_slots) {
            self.end(now_us, Ended::Link(Trouble::Moved), on_reply);
            return;
        }
        let elsewhere = || Ended::Elsewhere { text: "another server has its slot now".to_owned() };
        match &mut self.phase {
            Phase::Connected(connection) if !self.session.is_idle() => {
                connection.leaving.get_or_insert_with(elsewhere);
                self.session.close();
            }
            _ => _ = self.end(now_us, elsewhere(), on_reply),
        }
    }

    /// Begins an attempt if the breaker grants one.
    fn attempt(&mut self, now_us: u64, on_reply: &mut OnReply<'_>) -> Flow {
        let is_told = self.is_told();
        match self.config.located.as_mut().map_or(Next::Same, |located| located.next(&self.config.url)) {
            Next::Same => {}
            Next::Other(url) => {
                // A host that no certificate could have is found out by the handshake.
                let tls = self.config.tls.take();
                self.config.tls = tls.map(|tls| tls.at(&url.host).unwrap_or(tls));
                self.config.url = *url;
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
            Lookup::Done(answer) => self.resolved(now_us, deadline_us, answer, on_reply),
        }
    }

    fn resolved(
        &mut self,
        now_us: u64,
        deadline_us: u64,
        answer: std::io::Result<Vec<SocketAddr>>,
        on_reply: &mut OnReply<'_>,
    ) -> Flow {
        let attempt = answer
            .map_err(|error| Unreached::Resolve(error.to_string()))
            .and_then(|addresses| Attempt::begin(now_us, deadline_us, addresses));
        self.connecting(now_us, attempt.map_err(Ended::from), on_reply)
    }

    /// The next address is tried, or there is none left.
    fn connecting(
        &mut self,
        now_us: u64,
        attempt: Result<(OwnedFd, Attempt), Ended>,
        on_reply: &mut OnReply<'_>,
    ) -> Flow {
        match attempt {
            Ok((socket, attempt)) => {
                self.generation = self.generation.wrapping_add(1);
                self.session.begin();
                self.phase = Phase::Connected(Connection {
                    transport: Transport::new(socket),
                    stage: Stage::Connecting(attempt),
                    write_blocked: false,
                    more: false,
                    leaving: None,
                });
                Flow::Rest
            }
            Err(ended) => self.end(now_us, ended, on_reply),
        }
    }

    /// The connection is of no use any more: the next address, or the end of the attempt.
    fn connection_ended(&mut self, now_us: u64, ended: Ended, on_reply: &mut OnReply<'_>) -> Flow {
        // What the server refused at one address it refuses at all; only what did not get through is tried elsewhere.
        let goes_on = ended.is_of_connection();
        match std::mem::replace(&mut self.phase, Phase::Waiting { until_us: now_us }) {
            Phase::Connected(Connection { stage: Stage::Connecting(attempt) | Stage::Greeting(attempt), .. })
                if goes_on =>
            {
                self.connecting(now_us, attempt.next(now_us, ended), on_reply)
            }
            _ => self.end(now_us, ended, on_reply),
        }
    }

    /// The attempt, or the link, is over: says so, to those who wait for answers as well, and when the next one is.
    fn end(&mut self, now_us: u64, ended: Ended, on_reply: &mut OnReply<'_>) -> Flow {
        let is_elsewhere = matches!(ended, Ended::Elsewhere { .. });
        let is_moved = is_elsewhere || matches!(ended, Ended::Link(Trouble::Moved));
        if let Some(located) = self.config.located.as_mut().filter(|_| !is_moved) {
            located.lost();
        }
        match ended.is_of_connection() {
            true => self.breaker.fail(now_us),
            false => self.breaker.abandon(),
        }
        let is_known = self.config.located.as_ref().is_some_and(|located| located.is_elsewhere(&self.config.url));
        self.hops = if is_elsewhere { self.hops.saturating_add(1) } else { 0 };
        let delay_us = match is_elsewhere {
            true if is_known && self.hops == 1 => 0,
            // It is for the cluster to sort out, which takes seconds at most.
            true => self.backoff.next_delay_us(&mut self.rng).min(limits::REDIS_TOPOLOGY_BACKOFF_MS_MAX * 1_000),
            false => self.backoff.next_delay_us(&mut self.rng),
        };
        let until_us = now_us.saturating_add(delay_us).max(self.breaker.open_until_us().unwrap_or(0));
        self.phase = Phase::Waiting { until_us };
        self.seeks_master = matches!(ended, Ended::ReadOnly { .. } | Ended::Elsewhere { .. });
        self.status.ended(ended.kind());
        self.status.set_breaker(&self.breaker);
        let open = self.breaker.state() == BreakerState::Open;
        self.status.set_link(if open { LinkState::CircuitOpen } else { LinkState::Reconnecting });
        tracing::warn!(
            server = %self.config.url,
            cause = %ended,
            kind = ended.kind().as_str(),
            commands = self.session.commands(),
            retry_in_ms = (until_us - now_us) / 1_000,
            circuit = self.breaker.state().as_str(),
            "Redis commands are down"
        );
        match is_elsewhere && self.session.is_idle() {
            true => self.session.pause(),
            false => self.give_up(on_reply),
        }
        Flow::Rest
    }

    /// Answers everything that is not answered.
    fn give_up(&mut self, on_reply: &mut OnReply<'_>) {
        let status = &self.status;
        self.session.end(|ask, fate| {
            let (result, outcome) = match fate {
                Fate::Unknown => (OperationResult::Unknown, Outcome::Unknown),
                Fate::NotSent => (OperationResult::NotSent, Outcome::NotSent),
            };
            status.counted(ask.operation, result);
            on_reply(ask.ticket, outcome);
        });
        self.status.set_unanswered(0);
    }

    fn wants(&self) -> CommandWants {
        let waiting_us = self.session.waiting_deadline_us();
        let sooner = |us: u64| Some(waiting_us.map_or(us, |waiting_us| waiting_us.min(us)));
        let connection = match &self.phase {
            Phase::Stopped => return CommandWants::default(),
            Phase::Waiting { until_us: us } | Phase::Resolving { deadline_us: us } => {
                return CommandWants { wake_at_us: sooner(*us), ..CommandWants::default() };
            }
            Phase::Connected(connection) => connection,
        };
        let connecting = matches!(connection.stage, Stage::Connecting(_));
        CommandWants {
            socket: Some((connection.transport.socket().as_raw_fd(), self.generation)),
            read: !connecting,
            write: connecting || !self.session.output().is_empty() || connection.transport.wants_write(),
            wake_at_us: sooner(self.deadline_us(connection)),
            again: connection.more,
        }
    }
}
