//! The store in PostgreSQL: mail, acknowledgements and templates as rows, over a pool of links.
//!
//! ```text
//! submit --tables there?--> over the link of its order --> rows, done | failed | unknown --> take_replies
//!             no: waits, in its own time                      a page on a server that takes no changes: read plainly
//! ```
//! | part | what it is |
//! |---|---|
//! | `statements` | every word to the server |
//! | `requests` | requests as commands |
//! | `mail`, `event`, `templates` | rows to and from what the shards know |
//! | `job` | what is under way, and what its end means |
//! | `chores` | the tables, sweeps, figures, and whether the server writes again |
//!
//! **Order.** All requests about one mailbox go over one link, the same for ever; the pool sees to the ends of links.
//! A page that has to be read again because the server takes no changes is read behind what was asked meanwhile.
//!
//! **Nodes** may share the tables: what is done to one mailbox is one order for all of them; see `statements`.
//!
//! **Chores have the last link** to themselves when there are two or more: counting a large table holds nobody up.
//!
//! **Needs** a session of its own on the server, for prepared statements: a pooler must be in session mode.
mod chores;
mod event;
mod job;
mod mail;
mod requests;
mod statements;
mod templates;

use crate::backend::{Backend, Chores};
use crate::breaker::BreakerState;
use crate::figures::{StoreFigures, StoreResult};
use crate::link::state::LinkState;
use crate::link::wants::Wants;
use crate::postgres::command::Command;
use crate::postgres::error::{ServerError, SqlState};
use crate::postgres::link::LinkConfig;
use crate::postgres::pool::Pool;
use crate::postgres::reply::{Reply, Ticket};
use crate::postgres::store::chores::{Rota, Tables};
use crate::postgres::store::job::{Job, What};
use crate::postgres::store::requests::Plan;
use crate::postgres::store::statements::{DISCARD, GUARD};
use protocol::clock::Now;
use protocol::limits;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use rustix::fd::BorrowedFd;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What a store needs to know.
#[derive(Clone, Debug)]
pub struct PostgresStoreConfig {
    /// Where the server is. [`LinkConfig::fences`] should be on.
    pub link: Arc<LinkConfig>,
    /// `DATABASE_POOL_SIZE`, this shard's share: 1..=[`crate::postgres::pool::POOL_LINKS_MAX`].
    pub links: usize,
    /// From asking to the answer. Later: not done, or nobody knows.
    pub command_timeout_ms: u32,
    /// It keeps templates.
    pub templates: bool,
    /// It keeps mail.
    pub queue: Option<PostgresQueue>,
    /// It keeps acknowledgements.
    pub acks: Option<PostgresAcks>,
    /// This shard sweeps and counts for all.
    pub chores: Option<Chores>,
}

/// How mail is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresQueue {
    /// `QUEUE_MAX_SIZE_PER_USER`; 0 still keeps one (contract §8.5).
    pub entries_max: u32,
}

/// How acknowledgements are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostgresAcks {
    /// `ACK_TIMEOUT_SECONDS`.
    pub timeout_seconds: u32,
}

/// The store of one shard.
pub struct PostgresStore {
    pool: Pool,
    desk: Desk,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl PostgresStore {
    /// A store that begins to connect, and then to make its tables, at its first turns. A server that is away is no
    /// error. `wake` may be called on any thread and must make the owner turn all links soon.
    pub fn new(
        config: PostgresStoreConfig,
        figures: Arc<StoreFigures>,
        seed: u64,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> PostgresStore {
        // The statements are written for this lock, whoever made the rest of the configuration.
        let link = LinkConfig { guard: Some(&GUARD), ..LinkConfig::clone(&config.link) };
        let pool = Pool::new(Arc::new(link), config.links, seed, Arc::clone(&wake));
        let desk = Desk {
            rota: Rota::new(&config),
            links: pool.size(),
            config,
            figures,
            jobs: HashMap::new(),
            next_number: 0,
            waiting: VecDeque::new(),
            asks: VecDeque::new(),
            replies: Vec::new(),
            unanswered: 0,
        };
        PostgresStore { pool, desk, wake }
    }

    /// The socket of a link's [`Wants::socket`].
    pub fn socket(&self, link: usize) -> Option<BorrowedFd<'_>> {
        self.pool.socket(link)
    }

    /// Gives the links what is to be asked. Returns whether another link than `turned` got something.
    fn hand_out(&mut self, now: Now, turned: usize) -> (bool, bool) {
        let (mut mine, mut others) = (false, false);
        while let Some(Ask { order, command, job }) = self.desk.asks.pop_front() {
            let number = self.desk.next_number;
            self.desk.next_number += 1;
            let ticket = Ticket { number, order: Some(order) };
            self.desk.jobs.insert(number, job);
            match self.pool.submit(ticket, command) {
                Ok(link) if link == turned => mine = true,
                Ok(_) => others = true,
                Err(_full) => self.desk.ended(now, number, End::NotDone(None)),
            }
        }
        (mine, others)
    }

    fn note_links(&self) {
        let links = self.pool.statuses().iter().map(|status| status.snapshot());
        let worth = |link: LinkState| match link {
            LinkState::Healthy => 2,
            LinkState::Reconnecting => 1,
            LinkState::CircuitOpen => 0,
        };
        let mut connections = 0;
        let mut worst = (LinkState::Healthy, BreakerState::Closed);
        for (index, link) in links.enumerate() {
            connections += link.connections;
            // Each mailbox has its link: while one is down, so is the store for some. The last has only chores.
            let has_mailboxes = (index as u64) < self.desk.order_links();
            if has_mailboxes && (index == 0 || worth(link.link) < worth(worst.0)) {
                worst = (link.link, link.breaker);
            }
        }
        self.desk.figures.set_link(worst.0, worst.1);
        self.desk.figures.connections.set(connections);
        self.desk.figures.outstanding.set(self.desk.unanswered);
    }
}

impl Backend for PostgresStore {
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest) {
        self.desk.unanswered += 1;
        match requests::plan(&self.desk.config, now, request) {
            Plan::Answer(reply) => self.desk.answer(ticket, reply),
            Plan::Ask { order, command, what } => {
                let job = Job { ticket: Some(ticket), begun_us: now.mono_us, what };
                let order = self.desk.order(order);
                self.desk.ask(now, Ask { order, command, job });
            }
        }
        self.hand_out(now, 0);
        self.desk.figures.outstanding.set(self.desk.unanswered);
    }

    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.append(&mut self.desk.replies);
    }

    fn links(&self) -> usize {
        self.pool.size()
    }

    fn turn(&mut self, link: usize, now: Now, readable: bool, writable: bool) -> Wants {
        let woke_at_us = self.desk.wake_at_us();
        self.desk.look_at_the_clock(now);
        let (_, mut others) = self.hand_out(now, link);
        let desk = &mut self.desk;
        let mut wants = self.pool.turn(link, now, readable, writable, &mut |ticket, reply| match reply {
            Reply::Row(row) => {
                if let Some(job) = desk.jobs.get_mut(&ticket.number) {
                    job.what.heard_row(&row);
                }
            }
            Reply::Again => {
                if let Some(job) = desk.jobs.get_mut(&ticket.number) {
                    job.what.again();
                }
            }
            Reply::Done { rows } => desk.ended(now, ticket.number, End::Done { rows }),
            Reply::Failed(error) => desk.ended(now, ticket.number, End::NotDone(Some(error))),
            Reply::NotSent(_) => desk.ended(now, ticket.number, End::NotDone(None)),
            Reply::Unknown(_) => desk.ended(now, ticket.number, End::Unknown),
        });
        let (mine, more) = self.hand_out(now, link);
        wants.again |= mine;
        others |= more;
        let wake_at_us = self.desk.wake_at_us();
        if link == 0 {
            wants.wake_at_us = [wants.wake_at_us, wake_at_us].into_iter().flatten().min();
        } else {
            // The first link keeps the store's clock.
            others |= wake_at_us != woke_at_us;
        }
        if others {
            (self.wake)();
        }
        self.note_links();
        wants
    }

    fn owes(&self) -> bool {
        self.desk.unanswered > 0
    }
}

/// Something to be asked.
struct Ask {
    order: u64,
    command: Command,
    job: Job,
}

/// How a command ended.
enum End {
    Done { rows: u64 },
    NotDone(Option<ServerError>),
    Unknown,
}

/// Everything but the links: what waits, what is under way, what was answered.
struct Desk {
    config: PostgresStoreConfig,
    figures: Arc<StoreFigures>,
    links: usize,
    rota: Rota,
    jobs: HashMap<u64, Job>,
    next_number: u64,
    /// Until the tables are there; each in its own time.
    waiting: VecDeque<Ask>,
    /// To be given to the links.
    asks: VecDeque<Ask>,
    replies: Vec<(StoreTicket, StoreReply)>,
    unanswered: u64,
}

impl Desk {
    /// The link of an order: any but the last, which is for chores.
    fn order(&self, order: u64) -> u64 {
        order % self.order_links()
    }

    /// So many links have mailboxes.
    fn order_links(&self) -> u64 {
        (self.links as u64 - 1).max(1)
    }

    fn ask(&mut self, now: Now, ask: Ask) {
        match self.rota.tables {
            Tables::There => self.asks.push_back(ask),
            _ if self.waiting.len() < limits::POSTGRES_WAITING_MAX => self.waiting.push_back(ask),
            _ => self.finish(now, ask.job, End::NotDone(None)),
        }
    }

    fn look_at_the_clock(&mut self, now: Now) {
        let last = self.links as u64 - 1;
        for (command, what) in self.rota.due(now) {
            let job = Job { ticket: None, begun_us: now.mono_us, what };
            self.asks.push_back(Ask { order: last, command, job });
        }
        // All have the same time, so the oldest is the first whose time is over.
        while self.waiting.front().is_some_and(|ask| self.waits_until_us(ask) <= now.mono_us) {
            if let Some(ask) = self.waiting.pop_front() {
                self.finish(now, ask.job, End::NotDone(None));
            }
        }
    }

    fn waits_until_us(&self, ask: &Ask) -> u64 {
        ask.job.begun_us.saturating_add(u64::from(self.config.command_timeout_ms) * 1_000)
    }

    fn wake_at_us(&self) -> Option<u64> {
        let waiting = self.waiting.front().map(|ask| self.waits_until_us(ask));
        [waiting, self.rota.wake_at_us()].into_iter().flatten().min()
    }

    fn ended(&mut self, now: Now, number: u64, end: End) {
        if let Some(job) = self.jobs.remove(&number) {
            self.finish(now, job, end);
        }
    }

    fn finish(&mut self, now: Now, mut job: Job, end: End) {
        if let End::NotDone(Some(error)) = &end {
            self.heard_error(now, &job.what, error);
            if let What::Read { request, changes: changes @ true, page } = &mut job.what
                && is_refusal(error)
            {
                // Mail can be read all the same.
                (*changes, *page) = (false, mail::Page::default());
                let command = request.command(false, self.left_ms(now, job.begun_us));
                let order = requests::order(&request.mailbox);
                let order = self.order(order);
                return self.asks.push_back(Ask { order, command, job });
            }
        }
        let result = match end {
            End::Done { .. } => StoreResult::Ok,
            End::NotDone(_) => StoreResult::Failed,
            End::Unknown => StoreResult::Unknown,
        };
        if let Some(operation) = job.what.operation() {
            self.figures.ended(operation, result, now.mono_us.saturating_sub(job.begun_us));
        }
        let is_done = result == StoreResult::Ok;
        if is_done && job.what.changes() {
            self.set_refused(false);
        }
        self.rota.ended(now.mono_us, &job.what, is_done);
        let reply = match end {
            End::Done { rows } => {
                self.done(now, &mut job, rows);
                job.what.reply(rows)
            }
            End::NotDone(_) => StoreReply::Failed,
            End::Unknown => StoreReply::Unknown,
        };
        if let Some(ticket) = job.ticket {
            self.answer(ticket, reply);
        }
    }

    /// What follows from something that was done, besides its answer.
    fn done(&mut self, now: Now, job: &mut Job, rows: u64) {
        match &mut job.what {
            What::Schema(changes) => {
                changes.hear(&Reply::Done { rows });
                self.rota.is_news(None);
                for mut ask in std::mem::take(&mut self.waiting) {
                    ask.command.set_timeout_ms(self.left_ms(now, ask.job.begun_us));
                    self.asks.push_back(ask);
                }
            }
            What::Read { request, page, changes: true } if !page.unreadable.is_empty() => {
                let rows = page.unreadable.len();
                tracing::warn!(rows, "notification_queue has rows that are no notifications; they are deleted");
                let mailbox = Arc::clone(&request.mailbox);
                let timeout_ms = self.config.command_timeout_ms;
                let command = mail::ids(mail::about(&DISCARD, &mailbox, timeout_ms), &page.unreadable);
                let order = self.order(requests::order(&mailbox));
                let job = Job { ticket: None, begun_us: now.mono_us, what: What::Discard };
                self.asks.push_back(Ask { order, command, job });
            }
            What::MailFigures(figures) => job::note_mail(&self.figures, *figures),
            What::AckFigures(figures) => job::note_acks(&self.figures, *figures),
            _ => {}
        }
    }

    fn heard_error(&mut self, now: Now, what: &What, error: &ServerError) {
        match what {
            What::Schema(_) if self.rota.is_news(Some(error.code)) => tracing::error!(
                %error,
                "the tables in PostgreSQL are not there and could not be made; the role of DATABASE_URL needs the right to \
                 create them, or somebody who has it starts the service once"
            ),
            What::Schema(_) => {}
            _ => tracing::debug!(%error, "PostgreSQL refused a command"),
        }
        if is_schema_missing(error.code) {
            self.rota.tables_are_gone(now.mono_us);
        }
        if is_refusal(error) || is_schema_missing(error.code) || matches!(what, What::Schema(_)) {
            self.set_refused(true);
        }
    }

    fn set_refused(&mut self, is_refused: bool) {
        if std::mem::replace(&mut self.rota.is_refused, is_refused) != is_refused {
            match is_refused {
                true => tracing::warn!("PostgreSQL is there and does not take changes"),
                false => tracing::info!("PostgreSQL takes changes again"),
            }
        }
        self.figures.set_refused(is_refused);
    }

    fn answer(&mut self, ticket: StoreTicket, reply: StoreReply) {
        self.unanswered -= 1;
        self.replies.push((ticket, reply));
    }

    /// What is left of a request's time.
    fn left_ms(&self, now: Now, begun_us: u64) -> u32 {
        let gone_ms = now.mono_us.saturating_sub(begun_us) / 1_000;
        // At most the time itself, which is a `u32`.
        u64::from(self.config.command_timeout_ms).saturating_sub(gone_ms) as u32
    }
}

/// The server is there and does not do what is asked, for a reason of its own: it takes no changes, it has no room, it does
/// not let us. A standby does not support (0A000) tables that are not logged.
fn is_refusal(error: &ServerError) -> bool {
    error.code.class() == b"53"
        || matches!(&error.code.0, b"0A000" | b"25006" | b"42501" | b"57P03" | b"55000" | b"58030")
}

/// A table, a column or what stands in their place is not ours.
fn is_schema_missing(code: SqlState) -> bool {
    matches!(&code.0, b"42P01" | b"42703" | b"42P10")
}
