//! What becomes of a command.
use crate::postgres::command::Row;
use crate::postgres::error::ServerError;
use crate::postgres::status::LinkErrorKind;
use std::fmt;

/// Names a command until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The caller's; handed back as it is.
    pub number: u64,
    /// Commands of a pool with the same number here (a user's, say) always go over the same link, so they are done in the
    /// order they were submitted in. One link alone does not look at it.
    pub order: Option<u64>,
}

/// No more commands are taken now: the server does not keep up, or is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("too many commands wait for PostgreSQL")
    }
}

impl std::error::Error for Full {}

/// What comes for a command: any number of rows and [`Reply::Again`], then exactly one of the others.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A row. It counts only when [`Reply::Done`] follows: until then the command may still fail.
    Row(Row<'a>),
    /// What it shared a transaction with failed, so nothing of it was done; it is done once more. The rows so far do not
    /// count.
    Again,
    /// Done and committed.
    Done {
        /// Rows it changed, or handed out; of a script, those of its last statement.
        rows: u64,
    },
    /// The server said no; nothing was changed.
    Failed(ServerError),
    /// It was sent, and the answer will never come: it may or may not have happened.
    Unknown(Cause),
    /// It was given up before a byte of it was sent, or after the server had taken it back: it has not happened.
    NotSent(Cause),
}

impl Reply<'_> {
    /// Whether nothing else comes for this command.
    pub fn is_last(&self) -> bool {
        !matches!(self, Reply::Row(_) | Reply::Again)
    }
}

/// Why a command was not answered by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The link ended, or was not there.
    Link(LinkErrorKind),
    /// Its time was over while it waited.
    Late,
    /// It cannot be said in the protocol: a zero byte in its text, more values than fit, or more than 2 GiB.
    Unsayable,
    /// The link was stopped.
    Stopped,
}
