//! One connection of a link, from its connect to its end: the transport, the session over it, and their clocks.
//!
//! A connection only tells why it ended; what follows is the link's to decide.
use crate::backoff::Backoff;
use crate::breaker::{Admission, Breaker, BreakerState};
use crate::link::attempt::Attempt;
use crate::link::socket::{self, Transfer};
use crate::link::transport::Transport;
use crate::link::unreached::Unreached;
use crate::postgres::command::{Command, Company};
use crate::postgres::error::ServerError;
use crate::postgres::fence::{Backend, Introduced, Introduction};
use crate::postgres::link::{LinkConfig, LinkTiming};
use crate::postgres::queue::{Entry, Queue, Soonest};
use crate::postgres::reply::{Cause, Reply, Ticket};
use crate::postgres::session::{Event, Session, SessionError, Unsayable};
use crate::postgres::status::{CommandEnd, LinkStatus};
use crate::postgres::trouble::Trouble;
use protocol::limits;
use std::collections::{BTreeSet, VecDeque};

/// A socket and what goes over it.
pub(super) struct Connection {
    pub(super) transport: Transport,
    pub(super) stage: Stage,
    pub(super) session: Session,
    /// Commands that the session was given and that are not answered, the oldest first.
    pub(super) in_flight: VecDeque<InFlight>,
    batch: Batch,
    soonest: Soonest,
    introduction: Option<Introduction>,
    encrypted: bool,
    /// The socket took less than it was given; wait until it is writable.
    write_blocked: bool,
    /// The last read filled the buffer.
    pub(super) more: bool,
}

pub(super) struct InFlight {
    pub(super) ticket: Ticket,
    /// The place of its first byte among all that the session says.
    pub(super) begins_at: u64,
    deadline_us: u64,
    /// To be done once more, if it must; only what is in the batch.
    again: Option<Entry>,
}

/// A transaction of several commands, or of one that the guard stands before. It is alone in flight, so that what is
/// taken back is done once more before anything that came later.
#[derive(Default)]
struct Batch {
    /// Of the guard and the commands, those that are not answered.
    parts: usize,
    /// Whether the first of them is the guard.
    is_guarded: bool,
}

pub(super) enum Stage {
    /// The connect is under way.
    Connecting(Attempt),
    /// Encryption, proof and settings are being agreed on, and what a lost connection left is ended.
    Greeting(Attempt),
    Live {
        heard_us: u64,
        pinged_us: Option<u64>,
    },
}

/// What the caller said about the socket.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Connection {
    /// A connection whose connect is under way.
    pub(super) fn new(transport: Transport, attempt: Attempt, session: Session) -> Connection {
        Connection {
            transport,
            stage: Stage::Connecting(attempt),
            session,
            in_flight: VecDeque::new(),
            batch: Batch::default(),
            soonest: Soonest::default(),
            introduction: None,
            encrypted: false,
            write_blocked: false,
            more: false,
        }
    }

    /// Who does its commands on the server, if that was asked.
    pub(super) fn backend(&self) -> Option<Backend> {
        self.introduction.as_ref()?.backend()
    }

    /// Whether commands may be given to the session.
    fn takes_commands(&self) -> bool {
        matches!(self.stage, Stage::Live { .. }) && self.session.takes_commands() && self.batch.parts == 0
    }

    /// Looks how the connect went, when it is over. Returns whether it succeeded just now.
    pub(super) fn finish_connect(&mut self, now_us: u64, ready: Ready) -> Result<bool, Trouble> {
        let Stage::Connecting(attempt) = &self.stage else { return Ok(false) };
        let address = attempt.address;
        if ready.writable {
            socket::connected(self.transport.socket()).map_err(|errno| Unreached::Connect { address, errno })?;
            // `replace` needs a value for the moment in between; the clocks of a live connection begin at zero.
            let connecting = std::mem::replace(&mut self.stage, Stage::Live { heard_us: 0, pinged_us: None });
            if let Stage::Connecting(attempt) = connecting {
                self.stage = Stage::Greeting(attempt);
            }
            return Ok(true);
        }
        match now_us >= attempt.address_deadline_us {
            true => Err(Unreached::ConnectDeadline { address }.into()),
            false => Ok(false),
        }
    }

    /// Whether to wait until the socket is writable.
    pub(super) fn wants_write(&self) -> bool {
        !self.session.output().is_empty() || self.transport.wants_write()
    }

    /// When something must be done if nothing comes: give up, or ask for a sign of life.
    pub(super) fn deadline_us(&self, timing: &LinkTiming) -> u64 {
        let interval_us = timing.ping_interval_ms.saturating_mul(1_000);
        match &self.stage {
            Stage::Connecting(attempt) | Stage::Greeting(attempt) => attempt.address_deadline_us,
            Stage::Live { heard_us, pinged_us } => {
                let silence_us = match pinged_us {
                    None => heard_us.saturating_add(interval_us),
                    // Counted from the question, too: a process that stood still for a while asks before it judges.
                    Some(pinged_us) => pinged_us.saturating_add(interval_us),
                };
                // While commands are under way their deadlines count: one that takes long is no silence.
                self.soonest.at_us().unwrap_or(silence_us)
            }
        }
    }
}

/// What a connection needs of its link during a turn.
pub(super) struct ConnectionTurn<'a> {
    pub(super) breaker: &'a mut Breaker,
    pub(super) backoff: &'a mut Backoff,
    pub(super) config: &'a LinkConfig,
    pub(super) status: &'a LinkStatus,
    pub(super) queue: &'a mut Queue,
    pub(super) predecessor: &'a mut Option<Backend>,
    pub(super) now_us: u64,
}

impl ConnectionTurn<'_> {
    pub(super) fn run(
        &mut self,
        connection: &mut Connection,
        ready: Ready,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) -> Result<(), Trouble> {
        connection.write_blocked &= !ready.writable;
        let written = self.say(connection, on_reply);
        let due = self.now_us >= connection.deadline_us(&self.config.timing);
        // Nobody is given up before what may have come was read: the owner itself may have been late. And a server
        // that closed may have said why before.
        if ready.readable || connection.more || due || written.is_err() {
            self.read(connection, on_reply)?;
        }
        if connection.more {
            // What was answered before the end is an answer.
            return Ok(());
        }
        written?;
        self.keep_deadlines(connection)?;
        // Answers made room for more.
        self.say(connection, on_reply)
    }

    /// Gives the session what waits, as far as it takes it, and writes, as far as the socket takes it.
    fn say(&mut self, connection: &mut Connection, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) -> Result<(), Trouble> {
        loop {
            self.fill(connection, on_reply);
            while !connection.write_blocked && !connection.session.output().is_empty() {
                match connection.transport.send(connection.session.output())? {
                    Transfer::Bytes(bytes) => connection.session.sent(bytes),
                    Transfer::Blocked | Transfer::Closed => connection.write_blocked = true,
                }
            }
            if !connection.write_blocked {
                connection.write_blocked = !connection.transport.flush()?;
            }
            // Bounded by the commands in flight.
            if connection.write_blocked || !self.may_fill(connection) {
                return Ok(());
            }
        }
    }

    /// Whether the next command that waits may be said.
    fn may_fill(&self, connection: &Connection) -> bool {
        match self.queue.next_company() {
            Some(Company::None) => connection.takes_commands(),
            Some(_) => connection.takes_commands() && connection.in_flight.is_empty(),
            None => false,
        }
    }

    fn fill(&mut self, connection: &mut Connection, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) {
        while self.may_fill(connection) {
            match self.queue.next_company() {
                Some(Company::None) => {
                    let Some(entry) = self.queue.pop() else { return };
                    let said = connection.session.command(&entry.command);
                    self.said(connection, entry, said, false, on_reply);
                }
                _ => self.fill_batch(connection, on_reply),
            }
        }
    }

    /// Says what waits and may be one transaction.
    fn fill_batch(&mut self, connection: &mut Connection, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) {
        let entries = self.queue.pop_batch();
        let said_before = connection.session.in_flight();
        if let Some(guard) = self.config.guard {
            let keys: BTreeSet<i64> = entries.iter().filter_map(|entry| entry.command.company.key()).collect();
            // In one order everywhere, so that nobody waits for whoever waits for him.
            let guard = Command::new(guard, 0).int8_array(keys.into_iter());
            connection.batch.is_guarded = connection.session.begin(&guard).is_ok();
        }
        for entry in entries {
            let said = connection.session.begin(&entry.command);
            self.said(connection, entry, said, true, on_reply);
        }
        connection.session.finish();
        connection.batch.parts = connection.session.in_flight() - said_before;
    }

    fn said(
        &mut self,
        connection: &mut Connection,
        entry: Entry,
        said: Result<u64, Unsayable>,
        is_kept: bool,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) {
        let (ticket, deadline_us) = (entry.ticket, entry.deadline_us);
        match said {
            Ok(begins_at) => {
                let again = is_kept.then_some(entry);
                connection.in_flight.push_back(InFlight { ticket, begins_at, deadline_us, again });
                connection.soonest.add(deadline_us);
            }
            Err(Unsayable) => {
                self.status.answered(CommandEnd::NotSent);
                on_reply(ticket, Reply::NotSent(Cause::Unsayable));
            }
        }
    }

    fn read(
        &mut self,
        connection: &mut Connection,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) -> Result<(), Trouble> {
        let room = connection.session.room();
        let room_bytes = room.len();
        let transfer = connection.transport.receive(room)?;
        connection.more = transfer == Transfer::Bytes(room_bytes);
        match transfer {
            Transfer::Blocked => return Ok(()),
            Transfer::Closed => return Err(Unreached::Closed.into()),
            Transfer::Bytes(bytes) => connection.session.filled(bytes),
        }
        if let Stage::Live { heard_us, pinged_us } = &mut connection.stage {
            *heard_us = self.now_us;
            *pinged_us = None;
        }
        self.hear(connection, on_reply)
    }

    /// Takes every event there is.
    fn hear(
        &mut self,
        connection: &mut Connection,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) -> Result<(), Trouble> {
        let Connection { session, transport, stage, in_flight, batch, soonest, introduction, encrypted, .. } =
            connection;
        let mut prove = false;
        while let Some(event) = session.next_event().map_err(Trouble::Session)? {
            if let (Stage::Greeting(attempt), Some(introduction)) = (&*stage, introduction.as_mut()) {
                let failed = match event {
                    Event::Row { row, .. } => {
                        introduction.heard_row(row);
                        continue;
                    }
                    Event::Done { .. } => None,
                    Event::Failed(error) => Some(error),
                    Event::Refused(error) | Event::Gone(error) => return Err(Trouble::Server(error)),
                    _ => continue,
                };
                let left_ms = attempt.address_deadline_us.saturating_sub(self.now_us) / 1_000;
                // Half of what is left: the answer needs a while, too.
                match introduction.heard_end(failed, self.predecessor, session, (left_ms / 2).max(1)) {
                    Ok(Introduced::Asked) => {}
                    Ok(Introduced::Done) => prove |= self.live(session, stage, *encrypted),
                    Ok(Introduced::Stays) => return Err(Trouble::Predecessor),
                    Err(_unsayable) => return Err(Trouble::Session(SessionError::Unexpected("a question"))),
                }
                continue;
            }
            let (end, reply) = match event {
                Event::Row { place, row } => {
                    let command =
                        place.checked_sub(usize::from(batch.is_guarded)).and_then(|place| in_flight.get(place));
                    if let Some(command) = command {
                        on_reply(command.ticket, Reply::Row(row));
                    }
                    continue;
                }
                Event::Done { rows } => {
                    batch.parts = batch.parts.saturating_sub(1);
                    if std::mem::take(&mut batch.is_guarded) {
                        continue;
                    }
                    (CommandEnd::Done, Reply::Done { rows })
                }
                Event::Failed(error) if batch.parts == 0 => (CommandEnd::Failed, Reply::Failed(error)),
                Event::Failed(error) | Event::RolledBack { culprit: None, error } => {
                    self.taken_back(in_flight, std::mem::take(batch), None, error, on_reply);
                    *soonest = Soonest::default();
                    continue;
                }
                Event::RolledBack { culprit: Some(culprit), error } => {
                    self.taken_back(in_flight, std::mem::take(batch), Some(culprit), error, on_reply);
                    *soonest = Soonest::default();
                    continue;
                }
                Event::Encrypt => {
                    if let Some(tls) = &self.config.tls {
                        transport.encrypt(tls)?;
                        *encrypted = true;
                    }
                    session.encrypted();
                    continue;
                }
                Event::Ready => {
                    match self.config.fences.then(|| Introduction::begin(session)) {
                        Some(Ok(begun)) => *introduction = Some(begun),
                        // Never: the question has no values.
                        Some(Err(_)) | None => prove |= self.live(session, stage, *encrypted),
                    }
                    continue;
                }
                Event::Pong => {
                    prove |= self.breaker.state() == BreakerState::HalfOpen && self.proved();
                    continue;
                }
                Event::Notice(notice) => {
                    tracing::debug!(server = %self.config.url, %notice, "PostgreSQL says");
                    continue;
                }
                Event::Refused(error) | Event::Gone(error) => return Err(Trouble::Server(error)),
            };
            if let Some(oldest) = in_flight.pop_front() {
                self.status.answered(end);
                on_reply(oldest.ticket, reply);
            }
            if in_flight.is_empty() {
                *soonest = Soonest::default();
            }
            prove |= self.breaker.state() == BreakerState::HalfOpen && self.proved();
        }
        if prove {
            ping(session, stage, self.now_us);
        }
        Ok(())
    }

    /// The server took a transaction back. A command that was alone in it has failed. Several are done once more: the one
    /// that failed by itself, those before it together, and those behind it in two parts, for where one fails others may.
    fn taken_back(
        &mut self,
        in_flight: &mut VecDeque<InFlight>,
        batch: Batch,
        culprit: Option<usize>,
        error: ServerError,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) {
        let commands = in_flight.len();
        let culprit = culprit.and_then(|place| place.checked_sub(usize::from(batch.is_guarded)));
        for (place, command) in std::mem::take(in_flight).into_iter().enumerate().rev() {
            let Some(mut entry) = command.again else { continue };
            if commands == 1 {
                if error.code.class() != b"40" || entry.conflicts >= limits::POSTGRES_CONFLICTS_MAX {
                    self.status.answered(CommandEnd::Failed);
                    return on_reply(command.ticket, Reply::Failed(error));
                }
                entry.conflicts += 1;
            }
            let behind = culprit.map_or(0, |culprit| culprit + 1);
            let is_cut = place + 1 == behind || place + 2 == behind || place + 1 == behind + (commands - behind) / 2;
            entry.is_last = is_cut || place + 1 == commands;
            self.queue.push_front(entry);
            on_reply(command.ticket, Reply::Again);
        }
    }

    /// Commands are taken from here on. Returns whether the breaker wants more proof.
    fn live(&mut self, session: &Session, stage: &mut Stage, encrypted: bool) -> bool {
        *stage = Stage::Live { heard_us: self.now_us, pinged_us: None };
        self.backoff.reset();
        self.status.connected(encrypted);
        let version = session.settings().version.as_str();
        tracing::info!(server = %self.config.url, version, encrypted, "PostgreSQL link is up");
        self.proved()
    }

    /// Tells the breaker that the server is there. Returns whether it wants more proof, which a sign of life brings.
    fn proved(&mut self) -> bool {
        self.breaker.succeed();
        self.status.set_breaker(self.breaker);
        self.breaker.state() == BreakerState::HalfOpen && self.breaker.admit(self.now_us) == Admission::Granted
    }

    fn keep_deadlines(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        if connection.soonest.may_be_over(self.now_us) {
            connection.soonest.set(connection.in_flight.iter().map(|command| command.deadline_us));
        }
        // What fills the buffer is an answer on its way: whoever gets it is not kept waiting by the server.
        if connection.more || self.now_us < connection.deadline_us(&self.config.timing) {
            return Ok(());
        }
        let Connection { session, stage, in_flight, .. } = connection;
        match stage {
            Stage::Connecting(attempt) => Err(Unreached::ConnectDeadline { address: attempt.address }.into()),
            Stage::Greeting(attempt) => {
                Err(Trouble::GreetingDeadline { address: attempt.address, step: session.step() })
            }
            Stage::Live { .. } if !in_flight.is_empty() => Err(Trouble::Late { in_flight: in_flight.len() }),
            Stage::Live { pinged_us: Some(_), heard_us } => {
                Err(Trouble::Silent { ms: self.now_us.saturating_sub(*heard_us) / 1_000 })
            }
            Stage::Live { pinged_us: None, .. } => {
                ping(session, stage, self.now_us);
                Ok(())
            }
        }
    }
}

fn ping(session: &mut Session, stage: &mut Stage, now_us: u64) {
    session.ping();
    if let Stage::Live { pinged_us, .. } = stage {
        *pinged_us = Some(now_us);
    }
}
