//! What a session takes, what it says about it, and why it might not.
use crate::redis::commands::Ticket;
use crate::redis::commands::answer::{Failure, Refusal};
use crate::redis::commands::reply::{Reply, ReplyError};
use crate::redis::commands::script::Script;
use crate::redis::commands::status::Operation;
use protocol::limits;
use std::fmt;

/// Bounds of what a session takes before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Commands that are not answered, on their way or waiting.
    pub commands_max: usize,
    /// Their bytes.
    pub bytes_max: usize,
}

/// A command as the session remembers it.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The caller's name for it.
    pub ticket: Ticket,
    /// What it is counted under.
    pub operation: Operation,
    /// When it was taken, in microseconds.
    pub asked_us: u64,
    /// When its answer is late, in microseconds.
    pub deadline_us: u64,
    pub(super) script: Option<&'static Script>,
    /// What it is about, where the session follows slots.
    pub(super) subject: u64,
    /// How often the server had lost its script.
    pub(super) reloads: u8,
    pub(super) bytes: usize,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// As much as is allowed waits for answers; try again later, or let others do without.
    Full {
        /// Commands that are not answered.
        commands: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// It is longer than [`limits::REDIS_COMMAND_BYTES_MAX`].
    TooLarge {
        /// So long, at most.
        bytes: usize,
    },
    /// The breaker is open, or the link was stopped: no server is to be expected soon.
    Unavailable,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { commands, bytes } => {
                write!(f, "{commands} commands of {bytes} bytes wait for Redis' answers already")
            }
            Self::TooLarge { bytes } => {
                let bytes_max = limits::REDIS_COMMAND_BYTES_MAX;
                write!(f, "a command of {bytes} bytes; at most {bytes_max} are sent to Redis")
            }
            Self::Unavailable => f.write_str("Redis is not there"),
        }
    }
}

impl std::error::Error for NotTaken {}

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// AUTH is not answered.
    Auth,
    /// SELECT is not answered.
    Select,
    /// The scripts or the first PING are not answered.
    Hello,
    /// Commands flow.
    Talk,
}

/// Something that was said to us. Borrows the session's buffers; take what you need and go on.
#[derive(Debug)]
pub enum Event<'a> {
    /// The greeting is over: commands flow.
    Ready,
    /// An answer to [`ping`](crate::redis::commands::session::CommandSession::ping).
    Pong,
    /// A command was answered.
    Answered {
        /// Which.
        ask: Ask,
        /// How.
        answer: Answer<'a>,
    },
    /// The server did not take a script; commands that need it will be refused.
    NotLoaded {
        /// Which.
        script: &'static Script,
        /// Its words, printable.
        text: String,
    },
    /// The server does not tell who we are, or does not end the connection before this one, whose last commands it may
    /// still execute.
    NotFenced {
        /// Its words, printable.
        text: String,
    },
    /// The server does not have the slot of a command, which is kept for the next connection.
    Elsewhere {
        /// Its words: who has it, perhaps.
        text: String,
    },
    /// A command was refused because of its slot, and then one about the same was executed: it will not be executed.
    Overtaken {
        /// Which.
        ask: Ask,
    },
    /// The greeting was refused; the session is of no use until it is begun again.
    GreetingRefused {
        /// What was refused.
        step: Step,
        /// Its words, printable, our password masked.
        text: String,
    },
}

/// A server's answer to a command.
#[derive(Debug)]
pub enum Answer<'a> {
    /// It was executed.
    Done(Reply<'a>),
    /// Not now.
    Refused(Refusal),
    /// The command is at fault.
    Failed(Failure),
}

/// What became of a command whose session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its last byte was on its way.
    Unknown,
    /// A server never saw the whole of it.
    NotSent,
}

/// The server says what no Redis says; the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// Its bytes are no reply, or one that is too large.
    Reply(ReplyError),
    /// An answer that nobody asked for.
    Unexpected(&'static str),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(error) => error.fmt(f),
            Self::Unexpected(what) => write!(f, "the server answered out of turn: {what}"),
        }
    }
}

impl std::error::Error for SessionError {}
