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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::session::Event;
    use crate::postgres::url::PostgresUrl;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    /// Prepared, bound, perhaps a row, done, ready.
    fn answer(row: Option<&[u8]>) -> Vec<u8> {
        let row = row.map(|row| message(b'D', row)).unwrap_or_default();
        [message(b'1', b""), message(b'2', b""), row, message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()
    }

    fn refusal() -> Vec<u8> {
        let error = message(b'E', b"VERROR\0C42501\0Mno\0\0");
        [message(b'1', b""), message(b'2', b""), error, message(b'Z', b"I")].concat()
    }

    /// Process 7, which began a microsecond after the year 2000 did.
    const WHO_ROW: &[u8] = b"\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x08\0\0\0\0\0\0\0\x01";
    const BEFORE: Backend = Backend { pid: 5, started_unix_ns: 946_684_800_000_002_000 };

    fn let_in() -> Session {
        let mut session = Session::new(&PostgresUrl::parse("postgres://ara@h/d?sslmode=disable").unwrap());
        hear(&mut session, &[message(b'R', &[0; 4]), message(b'Z', b"I")].concat(), &mut |event| {
            assert!(matches!(event, Event::Ready));
        });
        said(&mut session);
        session
    }

    fn hear(session: &mut Session, bytes: &[u8], on_event: &mut dyn FnMut(Event<'_>)) {
        session.room()[..bytes.len()].copy_from_slice(bytes);
        session.filled(bytes.len());
        while let Some(event) = session.next_event().unwrap() {
            on_event(event);
        }
    }

    fn said(session: &mut Session) -> Vec<u8> {
        let said = session.output().to_vec();
        session.sent(said.len());
        said
    }

    /// Answers one question.
    fn play(
        introduction: &mut Introduction,
        session: &mut Session,
        predecessor: &mut Option<Backend>,
        bytes: &[u8],
    ) -> Introduced {
        let mut failed = None;
        hear(session, bytes, &mut |event| match event {
            Event::Row { row, .. } => introduction.heard_row(row),
            Event::Failed(error) => failed = Some(error),
            _ => {}
        });
        introduction.heard_end(failed, predecessor, session, 1_000).unwrap()
    }

    #[test]
    fn a_first_connection_asks_who_it_is_and_no_more() {
        let (mut session, mut predecessor) = (let_in(), None);
        let mut introduction = Introduction::begin(&mut session).unwrap();
        let parse = [b"ara_who\0", WHO.sql.as_bytes(), b"\0\0\0"].concat();
        let expected = [
            message(b'P', &parse),
            message(b'B', b"\0ara_who\0\0\0\0\0\0\x01\0\x01"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'S', b""),
        ];
        assert_eq!(said(&mut session), expected.concat());
        let introduced = play(&mut introduction, &mut session, &mut predecessor, &answer(Some(WHO_ROW)));
        assert_eq!(introduced, Introduced::Done);
        assert_eq!(introduction.backend(), Some(Backend { pid: 7, started_unix_ns: 946_684_800_000_001_000 }));
        assert_eq!(said(&mut session), b"");
    }

    #[test]
    fn the_one_before_is_ended_by_its_number_and_its_time_and_not_passed_while_it_stays() {
        let rows: [(Vec<u8>, Introduced, Option<Backend>); 4] = [
            (answer(Some(b"\0\x01\0\0\0\x01\x01")), Introduced::Done, None),
            (answer(None), Introduced::Done, None),
            (answer(Some(b"\0\x01\0\0\0\x01\0")), Introduced::Stays, Some(BEFORE)),
            // Not to be allowed to is no reason not to work.
            (refusal(), Introduced::Done, None),
        ];
        for (bytes, introduced, left) in rows {
            let (mut session, mut predecessor) = (let_in(), Some(BEFORE));
            let mut introduction = Introduction::begin(&mut session).unwrap();
            said(&mut session);
            let asked = play(&mut introduction, &mut session, &mut predecessor, &answer(Some(WHO_ROW)));
            assert_eq!(asked, Introduced::Asked);
            let values = b"\0\0\0\x04\0\0\0\x05\0\0\0\x08\0\0\0\0\0\0\0\x02\0\0\0\x08\0\0\0\0\0\0\x03\xe8";
            let bind = [&b"\0ara_end\0\0\x03\0\x01\0\x01\0\x01\0\x03"[..], values, b"\0\x01\0\x01"].concat();
            let expected = [
                message(b'P', &[b"ara_end\0", END.sql.as_bytes(), b"\0\0\0"].concat()),
                message(b'B', &bind),
                message(b'E', b"\0\0\0\0\0"),
                message(b'S', b""),
            ];
            assert_eq!(said(&mut session), expected.concat());
            assert_eq!(play(&mut introduction, &mut session, &mut predecessor, &bytes), introduced);
            assert_eq!(predecessor, left);
        }
    }
}
