//! A conversation of commands without a socket: what to say, and what became of it.
//!
//! ```text
//! we      AUTH, SELECT, CLIENT INFO, SCRIPT LOAD for each script, PING     at once; nothing else before their answers
//! server  +OK, +OK, who we are, one SHA-1 per script, +PONG                now commands flow, as many as there are
//! ```
//! **Fence.** When a connection ended and nobody knows what became of its last commands, the next one's greeting also has
//! CLIENT KILL, with the id and the address that the server gave the old one: the server may still hold commands of that
//! one unread, and must not execute them behind ours. The address keeps us from ending somebody else's connection where
//! another server, or the same one started anew, counts its ids from the beginning.
//!
//! **Order.** Answers come in the order of the commands, which is all that ties them together. A server that has lost
//! a script answers NOSCRIPT to each command that names it. Then nothing new is sent until everything on its way is
//! answered; what was refused so is sent again behind the scripts, in its old order, and only then what came later.
//! So one command never overtakes another that was taken before, except that a command without a script, or with a
//! script the server still had, is executed where it stood.
//!
//! **Slots.** A server of a cluster that does not have a command's slot does not execute it. Such a command keeps its place
//! before those that were taken after it, and waits for a connection to the server that has it, within its time. While the
//! keys of a slot move one by one, a server may execute a later command whose keys are all there: what it overtook, of
//! those with the same first key, is not executed any more, and told as not sent before it. Commands about the same that name the same
//! keys are refused alike, so that this does not happen to them.
//!
//! Commands are encoded once, when they are taken, and kept in the output until they are answered: sending one again
//! costs a copy. Time is an argument; the session keeps deadlines and does nothing about them.
mod output;
mod queue;

use crate::redis::commands::answer::{Failure, Refusal, RefusalCode};
use crate::redis::commands::event::{Answer, Ask, Bounds, Event, Fate, NotTaken, SessionError, Step};
use crate::redis::commands::reply::Decoder;
use crate::redis::commands::script::Script;
use crate::redis::commands::{Command, Ticket, encode};
use crate::redis::session::printable_error;
use crate::redis::url::RedisUrl;
use output::{Due, Expected, Output};
use protocol::limits;
use queue::Queue;

/// One conversation; begun anew for each connection, while what waits may stay.
pub struct CommandSession {
    credentials: RedisUrl,
    bounds: Bounds,
    /// Scripts that are loaded with each greeting; those that commands brought join them.
    scripts: Vec<&'static Script>,
    /// Bytes from the server; `start..end` are not taken yet.
    input: Vec<u8>,
    start: usize,
    end: usize,
    decoder: Decoder,
    /// Bytes of the reply that was handed out, still at `start`.
    handed_out: usize,
    gate: Gate,
    /// What was said and is not answered.
    output: Output,
    /// Refused for the want of their scripts; to be sent again before what waits.
    again: Queue,
    /// Not to be sent yet.
    waiting: Queue,
    commands: usize,
    /// What the server calls this connection.
    peer: Option<Peer>,
    /// A connection before this one, whose last commands may still be executed.
    fence: Option<Peer>,
    /// A server that does not have the slot is left: see [`CommandSession::follow_slots`].
    follows_slots: bool,
}

/// A connection as its server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    id: String,
    address: String,
}

impl Peer {
    /// Reads the answer to CLIENT INFO: `id=7 addr=127.0.0.1:4242 laddr=…`
    fn read(info: &str) -> Option<Peer> {
        let field = |name| info.split_ascii_whitespace().find_map(|pair| pair.strip_prefix(name)).map(str::to_owned);
        Some(Peer { id: field("id=")?, address: field("addr=")? })
    }
}

/// Whether commands go to the output at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// There is no connection.
    Off,
    /// The greeting is not over.
    Greeting,
    /// They do.
    Open,
    /// A script was lost: when everything is answered, the scripts go first.
    Reloading,
    /// Nothing is sent any more, what is on its way is still answered.
    Closing,
}

impl CommandSession {
    /// A session without a connection. `scripts` are loaded in each greeting.
    pub fn new(credentials: RedisUrl, scripts: &[&'static Script], bounds: Bounds) -> CommandSession {
        CommandSession {
            credentials,
            bounds,
            scripts: scripts.to_vec(),
            input: Vec::new(),
            start: 0,
            end: 0,
            decoder: Decoder::default(),
            handed_out: 0,
            gate: Gate::Off,
            output: Output::default(),
            again: Queue::default(),
            waiting: Queue::default(),
            commands: 0,
            peer: None,
            fence: None,
            follows_slots: false,
        }
    }

    /// The server is one of a cluster: commands that it does not execute because it does not have their slot are kept
    /// for the connection that follows ([`Event::Elsewhere`], [`CommandSession::pause`]).
    pub fn follow_slots(&mut self) {
        self.follows_slots = true;
    }

    /// There is a connection: the first words are ready to be sent. What the one before left behind is forgotten, but
    /// not the commands that wait; end that one first ([`CommandSession::end`]) unless its greeting failed.
    pub fn begin(&mut self) {
        debug_assert!(self.is_idle());
        self.forget_connection();
        self.gate = Gate::Greeting;
        let RedisUrl { user, password, database, .. } = &self.credentials;
        let output = &mut self.output;
        let mut say = |due, words: &[&[u8]]| output.say(due, u64::MAX, |out| encode(out, &[words]));
        if user.is_some() || password.is_some() {
            // A user without a password has the empty one: what an ACL user with `nopass` accepts.
            let password = password.as_deref().unwrap_or_default();
            match user {
                Some(user) => say(Due::Auth, &[b"AUTH", user, password]),
                None => say(Due::Auth, &[b"AUTH", password]),
            }
        }
        if *database != 0 {
            say(Due::Select, &[b"SELECT", database.to_string().as_bytes()]);
        }
        say(Due::Who, &[b"CLIENT", b"INFO"]);
        if let Some(Peer { id, address }) = &self.fence {
            say(Due::Fence, &[b"CLIENT", b"KILL", b"ID", id.as_bytes(), b"ADDR", address.as_bytes()]);
        }
        for script in &self.scripts {
            say(Due::Load(script), &[b"SCRIPT", b"LOAD", script.body().as_bytes()]);
        }
        // Asks nothing of the user's rights but to be one, and is refused by a server that loads its data.
        say(Due::Hello, &[b"PING"]);
    }

    /// Takes a command. It is sent when the greeting is over.
    ///
    /// # Errors
    /// [`NotTaken::Full`] and [`NotTaken::TooLarge`]; nothing is remembered of it then.
    pub fn push(
        &mut self,
        now_us: u64,
        deadline_us: u64,
        ticket: Ticket,
        command: Command<'_>,
    ) -> Result<(), NotTaken> {
        let Command { operation, words } = command;
        let bytes_max = words.bytes_max();
        if bytes_max > limits::REDIS_COMMAND_BYTES_MAX {
            return Err(NotTaken::TooLarge { bytes: bytes_max });
        }
        let bytes = self.bytes();
        if self.commands >= self.bounds.commands_max || bytes + bytes_max > self.bounds.bytes_max {
            return Err(NotTaken::Full { commands: self.commands, bytes });
        }
        let script = words.script();
        if let Some(script) = script
            && !self.scripts.contains(&script)
        {
            self.scripts.push(script);
        }
        let subject = if self.follows_slots { words.subject() } else { 0 };
        let write = |out: &mut Vec<u8>| words.encode(out);
        let asked =
            |bytes| Ask { ticket, operation, asked_us: now_us, deadline_us, script, subject, reloads: 0, bytes };
        match self.gate {
            Gate::Open => self.output.say_command(write, asked),
            _ => self.waiting.push(write, asked),
        }
        self.commands += 1;
        Ok(())
    }

    /// Asks for a sign of life, if the greeting is over.
    pub fn ping(&mut self, deadline_us: u64) {
        if matches!(self.gate, Gate::Open | Gate::Reloading) {
            self.output.say(Due::Ping, deadline_us, |out| encode(out, &[&[b"PING"]]));
        }
    }

    /// From now on nothing new is sent; what is on its way is still answered.
    pub fn close(&mut self) {
        self.gate = Gate::Closing;
    }

    /// Whether nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.output.is_quiet()
    }

    /// Whether no command is on its way.
    pub fn is_idle(&self) -> bool {
        self.output.is_idle()
    }

    /// How far the conversation is.
    pub fn step(&self) -> Step {
        match (self.gate, self.output.first().map(|expected| &expected.due)) {
            (Gate::Open | Gate::Reloading | Gate::Closing, _) => Step::Talk,
            (_, Some(Due::Auth)) => Step::Auth,
            (_, Some(Due::Select)) => Step::Select,
            _ => Step::Hello,
        }
    }

    /// Commands that are not answered, on their way or waiting.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Bytes of what is not answered.
    pub fn bytes(&self) -> usize {
        self.output.len_bytes() + self.again.len_bytes() + self.waiting.len_bytes()
    }

    /// When the next answer is late, in microseconds.
    pub fn answer_deadline_us(&self) -> Option<u64> {
        self.output.first().map(|expected| expected.deadline_us)
    }

    /// When the first of those that wait to be sent is late, in microseconds.
    pub fn waiting_deadline_us(&self) -> Option<u64> {
        self.waiting.asks.front().map(|ask| ask.deadline_us)
    }

    /// Takes out the first of those that wait to be sent, if it is late. It was not sent.
    pub fn expire(&mut self, now_us: u64) -> Option<Ask> {
        if self.waiting_deadline_us()? > now_us {
            return None;
        }
        self.commands -= 1;
        self.waiting.pop_front()
    }

    /// What is to be sent; empty most of the time.
    pub fn output(&self) -> &[u8] {
        self.output.unsent()
    }

    /// The first `bytes` of [`CommandSession::output`] are on their way.
    pub fn sent(&mut self, bytes: usize) {
        self.output.sent(bytes);
    }

    /// Where to read to: at least half of, and at most, [`limits::READ_BYTES_MAX`]. Take all events first, so that
    /// only a partial reply is left, which is bounded.
    pub fn room(&mut self) -> &mut [u8] {
        self.take_back();
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == 0 && self.input.len() > limits::READ_BYTES_MAX {
            self.input = Vec::new();
        }
        if self.input.len() - self.end < limits::READ_BYTES_MAX / 2 {
            // Twice what came, so that a long reply is moved a few times only.
            let bytes_max = limits::REDIS_REPLY_BYTES_MAX + limits::READ_BYTES_MAX;
            self.input.resize((self.end * 2).clamp(limits::READ_BYTES_MAX, bytes_max), 0);
        }
        let stop = self.input.len().min(self.end + limits::READ_BYTES_MAX);
        &mut self.input[self.end..stop]
    }

    /// The first `bytes` of [`CommandSession::room`] have come.
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.input.len());
    }

    /// The next thing that was said, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`SessionError`]: the connection must end. What was asked is answered by [`CommandSession::end`].
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, SessionError> {
        loop {
            self.take_back();
            if self.gate == Gate::Off {
                // What comes after a refused greeting is meant for somebody we did not want to be.
                self.start = self.end;
                return Ok(None);
            }
            let decoded = self.decoder.decode(&self.input[self.start..self.end]).map_err(SessionError::Reply)?;
            let Some(reply_bytes) = decoded else { return Ok(None) };
            let step = self.step();
            if let Some(ask) = self.overtaken_by_next() {
                return Ok(Some(Event::Overtaken { ask }));
            }
            if self.output.is_quiet() {
                return Err(SessionError::Unexpected("nothing was asked"));
            }
            if !self.output.is_first_sent() {
                return Err(SessionError::Unexpected("the command is not sent yet"));
            }
            self.handed_out = reply_bytes;
            // There is one: it was looked at just now.
            let Some(Expected { due, bytes, .. }) = self.output.pop() else { return Ok(None) };
            let heard = self.understand(step, due, bytes)?;
            self.advance(bytes);
            if matches!(heard, Heard::Nothing) {
                continue;
            }
            let reply = self.decoder.reply(&self.input[self.start..self.end]);
            return Ok(match heard {
                Heard::Nothing => None,
                Heard::Ready => Some(Event::Ready),
                Heard::Pong => Some(Event::Pong),
                Heard::NotLoaded { script, text } => Some(Event::NotLoaded { script, text }),
                Heard::NotFenced { text } => Some(Event::NotFenced { text }),
                Heard::GreetingRefused { text } => Some(Event::GreetingRefused { step, text }),
                Heard::Done { ask } => Some(Event::Answered { ask, answer: Answer::Done(reply) }),
                Heard::Elsewhere { text } => Some(Event::Elsewhere { text }),
                Heard::Refused { ask, refusal } => Some(Event::Answered { ask, answer: Answer::Refused(refusal) }),
                Heard::Failed { ask, failure } => Some(Event::Answered { ask, answer: Answer::Failed(failure) }),
            });
        }
    }

    /// The connection is over: everything that was taken ends with it, those that wait included.
    pub fn end(&mut self, mut on_end: impl FnMut(Ask, Fate)) {
        let mut unknown = false;
        for (ask, is_sent) in std::mem::take(&mut self.output).into_commands() {
            unknown |= is_sent;
            on_end(ask, if is_sent { Fate::Unknown } else { Fate::NotSent });
        }
        // While a greeting is not over nothing is on its way, and the fence before it still stands.
        if unknown {
            self.fence = self.peer.take();
        }
        // These were refused, and not sent again since.
        for queue in [std::mem::take(&mut self.again), std::mem::take(&mut self.waiting)] {
            queue.asks.into_iter().for_each(|ask| on_end(ask, Fate::NotSent));
        }
        self.commands = 0;
        self.forget_connection();
    }

    /// The connection is over, and no command is on its way: what was kept, and what waits behind it, stays for the next.
    pub fn pause(&mut self) {
        debug_assert!(self.is_idle(), "what is on its way must be answered");
        let mut kept = std::mem::take(&mut self.again);
        kept.append(std::mem::take(&mut self.waiting));
        self.waiting = kept;
        self.forget_connection();
    }

    /// What the reply at hand means to whoever it is due to.
    fn understand(&mut self, step: Step, due: Due, bytes: usize) -> Result<Heard, SessionError> {
        let reply = self.decoder.reply(&self.input[self.start..self.end]);
        let error = reply.error();
        let code = error.and_then(RefusalCode::of);
        let text = error.map(|error| printable_error(error, self.credentials.password.as_deref()));
        let heard = match (due, text) {
            (Due::Auth | Due::Select | Due::Hello, Some(text)) => {
                debug_assert_ne!(step, Step::Talk, "the greeting is over");
                self.gate = Gate::Off;
                self.output.expect_nothing();
                Heard::GreetingRefused { text }
            }
            (Due::Auth | Due::Select, None) if reply.bytes() == Some(b"OK") => Heard::Nothing,
            (Due::Auth | Due::Select, None) => return Err(SessionError::Unexpected("no OK")),
            // Not every user may, and not every proxy can; our order then rests on the server's.
            (Due::Who | Due::Fence, Some(text)) if matches!(code, None | Some(RefusalCode::NoPerm)) => {
                Heard::NotFenced { text }
            }
            // The PING will be refused, too.
            (Due::Who | Due::Fence, Some(_)) => Heard::Nothing,
            (Due::Who, None) => {
                self.peer = reply.text().and_then(Peer::read);
                Heard::Nothing
            }
            (Due::Fence, None) => Heard::Nothing,
            (Due::Hello, None) => {
                self.fence = None;
                self.open();
                Heard::Ready
            }
            (Due::Load(script), Some(text)) => {
                self.give_up_on(script);
                Heard::NotLoaded { script, text }
            }
            (Due::Load(script), None) if reply.bytes() == Some(script.sha1().as_bytes()) => Heard::Nothing,
            (Due::Load(_), None) => return Err(SessionError::Unexpected("not the SHA-1 of the script")),
            // A server that refuses a PING is there all the same.
            (Due::Ping, _) => Heard::Pong,
            (Due::Command(ask), None) => Heard::Done { ask },
            (Due::Command(ask), Some(text)) => match code {
                Some(RefusalCode::NoScript) if ask.script.is_some() && ask.reloads < limits::REDIS_RELOADS_MAX => {
                    self.send_again(ask, bytes);
                    Heard::Nothing
                }
                Some(_) if self.follows_slots && error.is_some_and(Refusal::is_of_slot) => {
                    self.keep_for_later(ask, bytes);
                    Heard::Elsewhere { text }
                }
                Some(code) => Heard::Refused { ask, refusal: Refusal { code, text } },
                None => Heard::Failed { ask, failure: Failure::of(text) },
            },
        };
        if matches!(heard, Heard::Done { .. } | Heard::Refused { .. } | Heard::Failed { .. }) {
            self.commands -= 1;
        }
        Ok(heard)
    }

    /// The command in front of the output is answered.
    fn advance(&mut self, bytes: usize) {
        self.output.answered(bytes);
        if self.gate == Gate::Reloading && self.output.is_quiet() {
            self.reload();
        }
    }

    /// Keeps a command whose script was lost, until everything else is answered.
    fn send_again(&mut self, mut ask: Ask, bytes: usize) {
        ask.reloads += 1;
        self.keep_for_later(ask, bytes);
        if self.gate == Gate::Open {
            self.gate = Gate::Reloading;
        }
    }

    /// The reply at hand answers a command for good: one before it that was refused and is about the same must not be
    /// executed any more, and is answered before it.
    fn overtaken_by_next(&mut self) -> Option<Ask> {
        if self.again.asks.is_empty() || !self.follows_slots {
            return None;
        }
        let Due::Command(next) = &self.output.first()?.due else { return None };
        let error = self.decoder.reply(&self.input[self.start..self.end]).error();
        let is_kept =
            |error: &[u8]| Refusal::is_of_slot(error) || RefusalCode::of(error) == Some(RefusalCode::NoScript);
        if error.is_some_and(is_kept) {
            return None;
        }
        let at = self.again.asks.iter().position(|ask| ask.subject == next.subject)?;
        // The reply is looked at again.
        self.decoder.reset();
        self.commands -= 1;
        self.again.remove(at)
    }

    /// Keeps the command in front of the output.
    fn keep_for_later(&mut self, ask: Ask, bytes: usize) {
        self.again.push_encoded(ask, self.output.first_bytes(bytes));
    }

    /// The server does not take a script: what needs it is not sent a third time.
    fn give_up_on(&mut self, script: &'static Script) {
        for ask in self.output.commands_mut().filter(|ask| ask.script == Some(script)) {
            ask.reloads = limits::REDIS_RELOADS_MAX;
        }
    }

    /// Sends the scripts, then what was refused for the want of them, then what waits.
    fn reload(&mut self) {
        let deadline_us = self.again.asks.front().map_or(u64::MAX, |ask| ask.deadline_us);
        for script in &self.scripts {
            let words: [&[u8]; 3] = [b"SCRIPT", b"LOAD", script.body().as_bytes()];
            self.output.say(Due::Load(script), deadline_us, |out| encode(out, &[&words]));
        }
        self.output.append(std::mem::take(&mut self.again));
        self.open();
    }

    /// Commands flow from now on.
    fn open(&mut self) {
        self.gate = Gate::Open;
        self.output.append(std::mem::take(&mut self.waiting));
    }

    /// The reply that was handed out is of no use any more.
    fn take_back(&mut self) {
        if self.handed_out > 0 {
            self.start += std::mem::take(&mut self.handed_out);
            self.decoder.reset();
        }
    }

    fn forget_connection(&mut self) {
        self.gate = Gate::Off;
        self.peer = None;
        (self.input, self.start, self.end, self.handed_out) = (Vec::new(), 0, 0, 0);
        self.decoder.reset();
        self.output = Output::default();
    }
}

/// What a reply means, without the reply.
enum Heard {
    Nothing,
    Ready,
    Pong,
    NotLoaded { script: &'static Script, text: String },
    NotFenced { text: String },
    GreetingRefused { text: String },
    Done { ask: Ask },
    Elsewhere { text: String },
    Refused { ask: Ask, refusal: Refusal },
    Failed { ask: Ask, failure: Failure },
}

#[cfg(test)]
mod tests;
