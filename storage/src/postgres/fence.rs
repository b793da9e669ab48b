//! No command of a lost connection is done behind a command of the next one: what it left on the server is ended first.
//!
//! A link asks each new connection who it is. When a connection ends with commands of which nobody knows what became of
//! them, the next one has the server end that backend, and waits until it is gone, before it takes a command. A backend
//! is named by its process id and the time it began: a process id alone is given again.
use crate::postgres::command::{Command, Row, Statement};
use crate::postgres::error::ServerError;
use crate::postgres::session::{Session, Unsayable};

const WHO: Statement =
    Statement { name: "ara_who", sql: "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()" };
/// False when it is still there after so many milliseconds (PostgreSQL 14).
const END: Statement = Statement {
    name: "ara_end",
    sql: "SELECT pg_terminate_backend(pid, $3::int8) FROM pg_stat_activity
          WHERE pid = $1::int4 AND backend_start = $2::timestamptz AND pid <> pg_backend_pid()",
};

/// A process of the server that does a connection's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pid: i32,
    started_unix_ns: u64,
}

/// What a connection asks before it takes commands.
#[derive(Debug, Default)]
pub(super) struct Introduction {
    backend: Option<Backend>,
    is_ending: bool,
    /// The server tried to end the one before, and it is still there.
    stays: bool,
}

/// What follows from an answer to an introduction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Introduced {
    /// Another question is under way.
    Asked,
    /// Commands may be taken.
    Done,
    /// What the connection before was doing cannot be ended yet.
    Stays,
}

impl Introduction {
    /// Asks who does our commands.
    pub(super) fn begin(session: &mut Session) -> Result<Introduction, Unsayable> {
        session.command(&Command::new(&WHO, 0))?;
        Ok(Introduction::default())
    }

    /// Who does our commands, once it is known.
    pub(super) fn backend(&self) -> Option<Backend> {
        self.backend
    }

    pub(super) fn heard_row(&mut self, row: Row<'_>) {
        if self.is_ending {
            self.stays = row.boolean(0) == Some(false);
        } else if let (Some(pid), Some(started_unix_ns)) = (row.int4(0), row.timestamp(1)) {
            self.backend = Some(Backend { pid, started_unix_ns });
        }
    }

    /// A question was answered, or failed. Not to be allowed to end the one before is no reason not to work.
    pub(super) fn heard_end(
        &mut self,
        failed: Option<ServerError>,
        predecessor: &mut Option<Backend>,
        session: &mut Session,
        wait_ms: u64,
    ) -> Result<Introduced, Unsayable> {
        if let Some(error) = &failed {
            tracing::warn!(%error, "PostgreSQL does not say who does our commands, or does not end what did; \
                a command of a connection that was lost may be done late");
        }
        if let (false, Some(backend)) = (self.is_ending, *predecessor) {
            self.is_ending = true;
            let wait_ms = i64::try_from(wait_ms).unwrap_or(i64::MAX);
            let end = Command::new(&END, 0).int4(backend.pid).timestamp(backend.started_unix_ns).int8(wait_ms);
            session.command(&end)?;
            return Ok(Introduced::Asked);
        }
        if self.stays && failed.is_none() {
            return Ok(Introduced::Stays);
        }
        *predecessor = None;
        Ok(Introduced::Done)
    }
}
