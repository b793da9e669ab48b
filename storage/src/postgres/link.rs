//! One link: a connection that is always there, or on its way back, and the commands that go over it.
//!
//! ```text
//! waiting --breaker grants--> resolving --> connecting --> greeting --let in--> live
//!    ^                           |              |  ^ next address |               |
//!    +------- the attempt failed: back-off -----+--+--------------+-- closed, silent, late
//! ```
//! The link belongs to one thread, which calls [`Link::turn`] when the socket is ready, when [`Wants::wake_at_us`] has
//! come, after [`Link::submit`], or when the wake callback rang. A turn never blocks. The only helper is the name
//! lookup's thread.
//!
//! **Order.** Commands are sent, done and answered in the order they were submitted in. Only those that are given up
//! while they wait are answered before those in front of them.
//!
//! **Together.** Of commands that may ([`Command::shared`]), those that wait go in one transaction, which costs the server
//! one commit: one that comes alone goes at once, and those that come meanwhile wait for its end and go together. A
//! transaction that fails is taken back whole; its commands are done once more, in order and in smaller parts, until the
//! one that fails does so alone. So a failure is nobody's but its own.
//!
//! **Ends.** When the link ends, every command is answered: those of which a byte was sent are [`Reply::Unknown`], the
//! others [`Reply::NotSent`]. Those submitted while the link is down wait for the next attempt, or, while the breaker is
//! open, are answered at once.
//!
//! **Late.** A command that is not answered in its time ends the link: what would still come could not be matched any
//! more. The server may go on with it. That counts as trouble of the connection, because a server that stands still
//! looks the same; a login that succeeds shows the breaker otherwise. What follows is done behind it all the same: see
//! [`LinkConfig::fences`].
use crate::backoff::{Backoff, BackoffConfig};
use crate::breaker::{Admission, Breaker, BreakerConfig, BreakerState};
use crate::link::attempt::Attempt;
use crate::link::resolver::{Lookup, Resolver, Wake};
use crate::link::state::LinkState;
use crate::link::tls::{Tls, TlsError, Trust};
use crate::link::transport::Transport;
use crate::link::unreached::Unreached;
use crate::link::wants::Wants;
use crate::postgres::command::{Command, Statement};
use crate::postgres::connection::{Connection, ConnectionTurn, Ready, Stage};
use crate::postgres::fence::Backend;
use crate::postgres::queue::Queue;
use crate::postgres::reply::{Cause, Full, Reply, Ticket};
use crate::postgres::session::Session;
use crate::postgres::status::{CommandEnd, LinkErrorKind, LinkStatus};
use crate::postgres::trouble::Trouble;
use crate::postgres::url::{PostgresUrl, SslMode, SslRootCert};
use fastrand::Rng;
use protocol::clock::Now;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::net::SocketAddr;
use std::sync::Arc;

/// Connecting and being let in together, where the URL has no `connect_timeout`.
pub const CONNECT_DEADLINE_MS: u64 = 5_000;
/// Silence on a link without commands after which it is asked for a sign of life; as long again without one drops it.
pub const PING_INTERVAL_MS: u64 = 10_000;

/// What a link needs to know; links to the same server share one.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// `DATABASE_URL`.
    pub url: PostgresUrl,
    /// When it stops trying for a while.
    pub breaker: BreakerConfig,
    /// How long it waits between attempts.
    pub backoff: BackoffConfig,
    /// Its deadlines.
    pub timing: LinkTiming,
    /// A new connection has the server end what a lost one was doing, before it takes a command. It needs one question
    /// more at each connect, and a view that proxies may not have; without it a command that nobody knows of may be done
    /// behind those of the next connection.
    pub fences: bool,
    /// Locks the keys of the commands of a transaction before the first of them: its only value is an `int8[]` of them,
    /// sorted. Without one nobody locks anything.
    pub guard: Option<&'static Statement>,
    /// Unless `sslmode=disable`.
    pub(super) tls: Option<Tls>,
}

/// The deadlines of a link; those of commands are their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTiming {
    /// From the start of an attempt until we are let in.
    pub connect_deadline_ms: u64,
    /// See [`PING_INTERVAL_MS`].
    pub ping_interval_ms: u64,
}

impl LinkConfig {
    /// With the deadlines of the URL, or the usual ones. Reads the certificates that the URL names.
    ///
    /// # Errors
    /// [`TlsError`] if the encryption that the URL asks for cannot be. A server that is not there is no error.
    pub fn new(url: PostgresUrl, breaker: BreakerConfig, backoff: BackoffConfig) -> Result<LinkConfig, TlsError> {
        let roots = match &url.ssl_root_cert {
            SslRootCert::System => None,
            SslRootCert::File(file) => Some(file.as_path()),
        };
        let trust = match url.ssl_mode {
            SslMode::Disable => None,
            SslMode::Prefer | SslMode::Require if roots.is_none() => Some(Trust::Anyone),
            SslMode::Prefer | SslMode::Require | SslMode::VerifyCa => Some(Trust::Authority),
            SslMode::VerifyFull => Some(Trust::AuthorityAndName),
        };
        let tls = trust.map(|trust| Tls::new(&url.host, trust, roots)).transpose()?;
        let timing = LinkTiming {
            connect_deadline_ms: url.connect_timeout_ms.unwrap_or(CONNECT_DEADLINE_MS),
            ping_interval_ms: PING_INTERVAL_MS,
        };
        Ok(LinkConfig { url, breaker, backoff, timing, fences: true, guard: None, tls })
    }
}

/// One link.
pub struct Link {
    config: Arc<LinkConfig>,
    status: Arc<LinkStatus>,
    rng: Rng,
    breaker: Breaker,
    backoff: Backoff,
    resolver: Resolver,
    phase: Phase,
    queue: Queue,
    /// Did commands of which nobody knows what became of them.
    predecessor: Option<Backend>,
    /// Number of the newest socket.
    generation: u32,
}

enum Phase {
    Waiting { until_us: u64, since: Option<LinkErrorKind> },
    Resolving { deadline_us: u64 },
    Linked(Box<Connection>),
    Stopped,
}

/// How one step of a turn ended.
enum Flow {
    /// Nothing more to do before something happens.
    Rest,
    /// The phase changed; look at it at once.
    Go,
}

impl Link {
    /// A link that begins to connect at its first turn. `wake` is called on the name lookup's thread and must make the
    /// owner turn the link soon.
    pub fn new(config: Arc<LinkConfig>, status: Arc<LinkStatus>, seed: u64, wake: Wake) -> Link {
        Link {
            rng: Rng::with_seed(seed),
            breaker: Breaker::new(config.breaker),
            backoff: Backoff::new(config.backoff),
            resolver: Resolver::new(wake),
            phase: Phase::Waiting { until_us: 0, since: None },
            queue: Queue::default(),
            predecessor: None,
            generation: 0,
            status,
            config,
        }
    }

    /// Takes a command; turn the link soon. Its time begins with that turn.
    ///
    /// # Errors
    /// [`Full`]: [`crate::postgres::queue::QUEUE_COMMANDS_MAX`] commands wait, or
    /// [`crate::postgres::queue::QUEUE_BYTES_MAX`] bytes of them; this one is forgotten.
    pub fn submit(&mut self, ticket: Ticket, command: Command) -> Result<(), Full> {
        self.queue.push(ticket, command)?;
        self.status.submitted();
        Ok(())
    }

    /// Does what can be done now: reads at most [`protocol::limits::READ_BYTES_MAX`], sends what waits as far as it
    /// goes, and answers commands.
    pub fn turn(
        &mut self,
        now: Now,
        readable: bool,
        writable: bool,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) -> Wants {
        let now_us = now.mono_us;
        self.queue.stamp(now_us);
        let mut ready = Ready { readable, writable };
        // Each round but the last ends a phase or an address, and an attempt has a bounded number of them.
        while let Flow::Go = self.step(now_us, ready, on_reply) {
            ready = Ready { readable: false, writable: false };
        }
        let status = &self.status;
        self.queue.expire(now_us, &mut |ticket| {
            status.answered(CommandEnd::NotSent);
            on_reply(ticket, Reply::NotSent(Cause::Late));
        });
        self.wants()
    }

    /// The socket of [`Wants::socket`].
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Linked(connection) => Some(connection.transport.socket()),
            _ => None,
        }
    }

    /// Whether commands that are submitted now would be sent now.
    pub fn is_live(&self) -> bool {
        matches!(&self.phase, Phase::Linked(connection) if matches!(connection.stage, Stage::Live { .. }))
    }

    /// Commands that are not answered.
    pub fn outstanding(&self) -> usize {
        let in_flight = match &self.phase {
            Phase::Linked(connection) => connection.in_flight.len(),
            _ => 0,
        };
        self.queue.len() + in_flight
    }

    /// Closes the link for good, answers what is not answered; later turns want nothing.
    pub fn stop(&mut self, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) {
        if let Phase::Linked(connection) = &mut self.phase
            && connection.session.output().is_empty()
        {
            connection.session.terminate();
            // The socket is closed next, whatever comes of it: the word only spares the server a line in its log.
            let _ = connection.transport.send(connection.session.output());
            connection.transport.close();
        }
        self.give_up(Phase::Stopped, Cause::Stopped, on_reply);
        self.resolver.stop();
        self.status.set_link(LinkState::Reconnecting);
    }

    fn step(&mut self, now_us: u64, ready: Ready, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) -> Flow {
        let outcome = match &mut self.phase {
            Phase::Stopped => {
                self.refuse_queue(Cause::Stopped, on_reply);
                return Flow::Rest;
            }
            Phase::Waiting { until_us, since } if now_us < *until_us => {
                // Whoever waits for a breaker waits too long.
                if let (BreakerState::Open, Some(kind)) = (self.breaker.state(), *since) {
                    self.refuse_queue(Cause::Link(kind), on_reply);
                }
                return Flow::Rest;
            }
            Phase::Waiting { .. } => return self.attempt(now_us, on_reply),
            Phase::Resolving { deadline_us } => {
                let deadline_us = *deadline_us;
                return match self.resolver.poll() {
                    Lookup::Pending if now_us >= deadline_us => {
                        let ms = self.config.timing.connect_deadline_ms;
                        self.end(now_us, Unreached::LookupDeadline { ms }.into(), on_reply)
                    }
                    Lookup::Pending => Flow::Rest,
                    Lookup::Done(answer) => self.resolved(now_us, deadline_us, answer, on_reply),
                };
            }
            Phase::Linked(connection) => match &connection.stage {
                Stage::Connecting(_) => match connection.finish_connect(now_us, ready) {
                    Ok(true) => return Flow::Go,
                    Ok(false) => Ok(()),
                    Err(trouble) => Err(trouble),
                },
                Stage::Greeting(_) | Stage::Live { .. } => {
                    let mut turn = ConnectionTurn {
                        breaker: &mut self.breaker,
                        backoff: &mut self.backoff,
                        config: &self.config,
                        status: &self.status,
                        queue: &mut self.queue,
                        predecessor: &mut self.predecessor,
                        now_us,
                    };
                    turn.run(connection, ready, on_reply)
                }
            },
        };
        match outcome {
            Ok(()) => Flow::Rest,
            Err(trouble) => self.address_failed(now_us, trouble, on_reply),
        }
    }

    /// Begins an attempt if the breaker grants one.
    fn attempt(&mut self, now_us: u64, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) -> Flow {
        if let Admission::OpenUntil { us } = self.breaker.admit(now_us) {
            let since = self.status.snapshot().last_error;
            self.phase = Phase::Waiting { until_us: us, since };
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
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) -> Flow {
        let attempt = answer
            .map_err(|error| Unreached::Resolve(error.to_string()))
            .and_then(|addresses| Attempt::begin(now_us, deadline_us, addresses));
        self.connecting(now_us, attempt.map_err(Trouble::Unreached), on_reply)
    }

    /// The next address is tried, or there is none left.
    fn connecting(
        &mut self,
        now_us: u64,
        attempt: Result<(OwnedFd, Attempt), Trouble>,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) -> Flow {
        match attempt {
            Ok((socket, attempt)) => {
                let session = Session::new(&self.config.url);
                self.generation = self.generation.wrapping_add(1);
                self.phase = Phase::Linked(Box::new(Connection::new(Transport::new(socket), attempt, session)));
                Flow::Rest
            }
            Err(trouble) => self.end(now_us, trouble, on_reply),
        }
    }

    /// The connection is of no use any more: the next address, or the end of the attempt.
    fn address_failed(&mut self, now_us: u64, trouble: Trouble, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) -> Flow {
        let is_attempt = match &self.phase {
            Phase::Linked(connection) => !matches!(connection.stage, Stage::Live { .. }),
            _ => false,
        };
        // What the server refused at one address it refuses at all; only what did not get through is tried elsewhere.
        if !is_attempt || !trouble.is_of_connection() {
            return self.end(now_us, trouble, on_reply);
        }
        match std::mem::replace(&mut self.phase, Phase::Waiting { until_us: now_us, since: None }) {
            Phase::Linked(connection) => match connection.stage {
                Stage::Connecting(attempt) | Stage::Greeting(attempt) => {
                    self.connecting(now_us, attempt.next(now_us, trouble), on_reply)
                }
                Stage::Live { .. } => self.end(now_us, trouble, on_reply),
            },
            _ => self.end(now_us, trouble, on_reply),
        }
    }

    /// The attempt, or the link, is over: answers its commands, says so, and when the next attempt is.
    fn end(&mut self, now_us: u64, trouble: Trouble, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) -> Flow {
        match trouble.is_of_connection() {
            true => self.breaker.fail(now_us),
            false => self.breaker.abandon(),
        }
        let delay_us = self.backoff.next_delay_us(&mut self.rng);
        let until_us = now_us.saturating_add(delay_us).max(self.breaker.open_until_us().unwrap_or(0));
        let kind = trouble.kind();
        self.status.ended(kind);
        self.status.set_breaker(&self.breaker);
        let open = self.breaker.state() == BreakerState::Open;
        self.status.set_link(if open { LinkState::CircuitOpen } else { LinkState::Reconnecting });
        tracing::warn!(
            server = %self.config.url,
            cause = %trouble,
            kind = kind.as_str(),
            commands = self.outstanding(),
            retry_in_ms = (until_us - now_us) / 1_000,
            circuit = self.breaker.state().as_str(),
            "PostgreSQL link is down"
        );
        self.give_up(Phase::Waiting { until_us, since: Some(kind) }, Cause::Link(kind), on_reply);
        Flow::Rest
    }

    /// Answers every command: nothing is heard of those in flight any more, and those that wait are not sent.
    fn give_up(&mut self, next: Phase, cause: Cause, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) {
        if let Phase::Linked(connection) = std::mem::replace(&mut self.phase, next) {
            let sent_total = connection.session.sent_total();
            for command in &connection.in_flight {
                let (end, reply) = match command.begins_at < sent_total {
                    true => {
                        self.predecessor = connection.backend();
                        (CommandEnd::Unknown, Reply::Unknown(cause))
                    }
                    false => (CommandEnd::NotSent, Reply::NotSent(cause)),
                };
                self.status.answered(end);
                on_reply(command.ticket, reply);
            }
        }
        self.refuse_queue(cause, on_reply);
    }

    fn refuse_queue(&mut self, cause: Cause, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) {
        while let Some(entry) = self.queue.pop() {
            self.status.answered(CommandEnd::NotSent);
            on_reply(entry.ticket, Reply::NotSent(cause));
        }
    }

    fn wants(&self) -> Wants {
        let sooner = |at_us: u64| Some(self.queue.wake_at_us().map_or(at_us, |queue_us| queue_us.min(at_us)));
        let connection = match &self.phase {
            Phase::Stopped => return Wants::default(),
            Phase::Waiting { until_us: at_us, .. } | Phase::Resolving { deadline_us: at_us } => {
                return Wants { wake_at_us: sooner(*at_us), ..Wants::default() };
            }
            Phase::Linked(connection) => connection,
        };
        let socket = Some((connection.transport.socket().as_raw_fd(), self.generation));
        let wake_at_us = sooner(connection.deadline_us(&self.config.timing));
        match &connection.stage {
            Stage::Connecting(_) => Wants { socket, read: false, write: true, wake_at_us, again: false },
            _ => Wants { socket, read: true, write: connection.wants_write(), wake_at_us, again: connection.more },
        }
    }
}
