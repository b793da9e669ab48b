//! One connection of a command link, from its connect to its end, and what a turn does with it.
//!
//! It only tells why it ended; what follows is the link's to decide.
use crate::breaker::{Admission, BreakerState};
use crate::link::attempt::Attempt;
use crate::link::socket::{self, Transfer};
use crate::link::transport::Transport;
use crate::link::unreached::Unreached;
use crate::redis::commands::answer::{Outcome, RefusalCode};
use crate::redis::commands::ended::Ended;
use crate::redis::commands::event::{Answer, Event, Step};
use crate::redis::commands::link::{CommandLink, Flow, OnReply, Phase, Ready};
use crate::redis::commands::status::OperationResult;
use crate::redis::session as subscription;
use crate::redis::trouble::Trouble;

/// One connection, from its connect to its end. The session over it is the link's.
pub(super) struct Connection {
    pub(super) transport: Transport,
    pub(super) stage: Stage,
    /// The socket took less than it was given; wait until it is writable.
    pub(super) write_blocked: bool,
    /// The last read filled the buffer.
    pub(super) more: bool,
    /// It is to be made anew as soon as everything on its way is answered.
    pub(super) leaving: Option<Ended>,
}

pub(super) enum Stage {
    Connecting(Attempt),
    Greeting(Attempt),
    Live { heard_us: u64 },
}

impl CommandLink {
    /// When something must be done if nothing comes: give up, or send a PING.
    pub(super) fn deadline_us(&self, connection: &Connection) -> u64 {
        match &connection.stage {
            Stage::Connecting(attempt) | Stage::Greeting(attempt) => attempt.address_deadline_us,
            Stage::Live { heard_us } => self
                .session
                .answer_deadline_us()
                .unwrap_or_else(|| heard_us.saturating_add(self.config.timing.ping_interval_ms.saturating_mul(1_000))),
        }
    }

    /// One turn of a connection.
    pub(super) fn converse(&mut self, now_us: u64, ready: Ready, on_reply: &mut OnReply<'_>) -> Result<Flow, Ended> {
        let Phase::Connected(connection) = &mut self.phase else { return Ok(Flow::Rest) };
        if let Stage::Connecting(Attempt { address, address_deadline_us, .. }) = connection.stage {
            if !ready.writable {
                return match now_us >= address_deadline_us {
                    true => Err(Unreached::ConnectDeadline { address }.into()),
                    false => Ok(Flow::Rest),
                };
            }
            let socket = connection.transport.socket();
            socket::connected(socket).map_err(|errno| Unreached::Connect { address, errno })?;
            if let Some(tls) = &self.config.tls {
                connection.transport.encrypt(tls)?;
            }
            // `replace` needs a value for the moment in between.
            let connecting = std::mem::replace(&mut connection.stage, Stage::Live { heard_us: now_us });
            if let Stage::Connecting(attempt) = connecting {
                connection.stage = Stage::Greeting(attempt);
            }
            return Ok(Flow::Go);
        }
        connection.write_blocked &= !ready.writable;
        let written = self.write();
        if written.is_err() {
            // A server that closed may have said why, and answered some, before.
            self.read(now_us, on_reply)?;
        }
        written?;
        let Phase::Connected(connection) = &self.phase else { return Ok(Flow::Rest) };
        let due = now_us >= self.deadline_us(connection);
        // Nobody is given up before what may have come was read: the owner itself may have been late.
        if ready.readable || connection.more || due {
            self.read(now_us, on_reply)?;
        }
        self.keep_deadlines(now_us)?;
        self.write()?;
        Ok(Flow::Rest)
    }

    fn write(&mut self) -> Result<(), Ended> {
        let Phase::Connected(connection) = &mut self.phase else { return Ok(()) };
        while !connection.write_blocked && !self.session.output().is_empty() {
            match connection.transport.send(self.session.output())? {
                Transfer::Bytes(bytes) => self.session.sent(bytes),
                Transfer::Blocked | Transfer::Closed => connection.write_blocked = true,
            }
        }
        if !connection.write_blocked {
            connection.write_blocked = !connection.transport.flush()?;
        }
        Ok(())
    }

    fn read(&mut self, now_us: u64, on_reply: &mut OnReply<'_>) -> Result<(), Ended> {
        let Phase::Connected(connection) = &mut self.phase else { return Ok(()) };
        let room = self.session.room();
        let room_bytes = room.len();
        let transfer = connection.transport.receive(room)?;
        connection.more = transfer == Transfer::Bytes(room_bytes);
        match transfer {
            Transfer::Blocked => return Ok(()),
            // Whoever has said that it is no master and then goes has gone because of that.
            Transfer::Closed => return Err(connection.leaving.take().unwrap_or(Unreached::Closed.into())),
            Transfer::Bytes(bytes) => self.session.filled(bytes),
        }
        if let Stage::Live { heard_us } = &mut connection.stage {
            *heard_us = now_us;
        }
        self.hear(now_us, on_reply)
    }

    /// Takes every event there is.
    fn hear(&mut self, now_us: u64, on_reply: &mut OnReply<'_>) -> Result<(), Ended> {
        let Phase::Connected(connection) = &mut self.phase else { return Ok(()) };
        let mut proved = false;
        while let Some(event) = self.session.next_event().map_err(Ended::Session)? {
            match event {
                Event::Ready => {
                    connection.stage = Stage::Live { heard_us: now_us };
                    proved = true;
                    if !self.seeks_master {
                        self.backoff.reset();
                    }
                    self.status.connected();
                    tracing::info!(server = %self.config.url, "Redis commands are up");
                }
                Event::Pong => proved |= self.breaker.state() == BreakerState::HalfOpen,
                Event::NotLoaded { script, text } => {
                    tracing::warn!(
                        server = %self.config.url,
                        script = script.name(),
                        cause = text,
                        "Redis did not take a script"
                    );
                }
                Event::NotFenced { text } => {
                    tracing::warn!(
                        server = %self.config.url,
                        cause = text,
                        "Redis does not let this user use CLIENT INFO and CLIENT KILL; after an interruption, what was \
                         sent before it may be executed late"
                    );
                }
                Event::Elsewhere { text } => {
                    if let Some(located) = self.config.located.as_ref().filter(|_| connection.leaving.is_none()) {
                        located.refused(&self.config.url, &text);
                    }
                    connection.leaving.get_or_insert(Ended::Elsewhere { text });
                }
                Event::Overtaken { ask } => {
                    self.status.counted(ask.operation, OperationResult::NotSent);
                    on_reply(ask.ticket, Outcome::NotSent);
                }
                Event::GreetingRefused { step, text } => {
                    return Err(match step {
                        Step::Auth => Trouble::Server { step: subscription::Step::Auth, text }.into(),
                        Step::Select => Trouble::Server { step: subscription::Step::Select, text }.into(),
                        Step::Hello | Step::Talk => Ended::Hello { text },
                    });
                }
                Event::Answered { ask, answer } => {
                    self.status.answered(ask.operation, now_us.saturating_sub(ask.asked_us));
                    let (result, outcome) = match answer {
                        Answer::Done(reply) => {
                            self.hops = 0;
                            if self.seeks_master {
                                self.seeks_master = false;
                                self.backoff.reset();
                            }
                            (OperationResult::Done, Outcome::Done(reply))
                        }
                        Answer::Refused(refusal) => {
                            if refusal.code == RefusalCode::ClusterDown
                                && let Some(located) = &self.config.located
                            {
                                located.refused(&self.config.url, &refusal.text);
                            }
                            if refusal.code == RefusalCode::ReadOnly && connection.leaving.is_none() {
                                connection.leaving = Some(Ended::ReadOnly { text: refusal.text.clone() });
                            }
                            (OperationResult::Refused, Outcome::Refused(refusal))
                        }
                        Answer::Failed(failure) => (OperationResult::Failed, Outcome::Failed(failure)),
                    };
                    self.status.counted(ask.operation, result);
                    on_reply(ask.ticket, outcome);
                }
            }
        }
        if connection.leaving.is_some() {
            self.session.close();
            if self.session.is_quiet()
                && let Some(ended) = connection.leaving.take()
            {
                return Err(ended);
            }
        }
        if proved {
            self.prove(now_us);
        }
        Ok(())
    }

    /// Tells the breaker that the server is there; if it wants more proof, a PING brings it.
    fn prove(&mut self, now_us: u64) {
        self.breaker.succeed();
        self.status.set_breaker(&self.breaker);
        if self.breaker.state() == BreakerState::HalfOpen && self.breaker.admit(now_us) == Admission::Granted {
            self.session.ping(self.command_deadline_us(now_us));
        }
    }

    fn keep_deadlines(&mut self, now_us: u64) -> Result<(), Ended> {
        let Phase::Connected(connection) = &self.phase else { return Ok(()) };
        // What is still to be read may hold the answer.
        if now_us < self.deadline_us(connection) || connection.more {
            return Ok(());
        }
        match &connection.stage {
            Stage::Connecting(attempt) => Err(Unreached::ConnectDeadline { address: attempt.address }.into()),
            Stage::Greeting(attempt) => Err(Ended::GreetingLate { address: attempt.address }),
            Stage::Live { .. } if self.session.is_quiet() => {
                self.session.ping(self.command_deadline_us(now_us));
                Ok(())
            }
            Stage::Live { .. } => Err(Ended::Late { ms: self.config.timing.command_timeout_ms }),
        }
    }
}
