//! What a server says when something is wrong: how grave, which SQLSTATE, in which words, and what follows from it.
use std::fmt;

/// Characters of a server's error text that are kept.
pub const ERROR_TEXT_CHARS_MAX: usize = 200;

/// How grave it is, in the protocol's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// WARNING, NOTICE, INFO, LOG or DEBUG: nothing failed.
    Notice,
    /// The command failed; the connection goes on.
    Error,
    /// FATAL: the server ends this connection.
    Fatal,
    /// PANIC: the server ends all of them.
    Panic,
}

/// Five letters and digits (PostgreSQL, appendix A); the first two are the class.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// A statement's name that the server does not know.
    pub const INVALID_STATEMENT_NAME: SqlState = SqlState(*b"26000");
    /// What stands where the server gave none.
    pub const NONE: SqlState = SqlState(*b"XX000");

    /// As text.
    pub fn as_str(&self) -> &str {
        // Only letters and digits get in here by `parse`, and what is not UTF-8 is shown as unknown.
        std::str::from_utf8(&self.0).unwrap_or("?????")
    }

    /// The first two.
    pub fn class(&self) -> &[u8] {
        &self.0[..2]
    }

    fn parse(bytes: &[u8]) -> Option<SqlState> {
        let code: [u8; 5] = bytes.try_into().ok()?;
        code.iter().all(u8::is_ascii_alphanumeric).then_some(SqlState(code))
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose doing an error is, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The connection is over: the server stops, crashed, or threw us out. Reconnect; counts for the breaker.
    Connection,
    /// The server is there and will not, or not now: who we are, its limits, a conflict with others. The same command
    /// may succeed later. Never counts for the breaker.
    Refusal,
    /// The command itself cannot be done: a missing table, a read-only server, a broken value. Trying again as it is
    /// leads nowhere. Never counts for the breaker.
    Logical,
}

/// An error, or a notice. Bounded, printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// How grave.
    pub severity: Severity,
    /// Which.
    pub code: SqlState,
    /// In the server's words: at most [`ERROR_TEXT_CHARS_MAX`] characters, none of them a control character. May hold
    /// a name of a table or a column, and a piece of a value that does not fit its type.
    pub message: Box<str>,
}

impl ServerError {
    /// From the fields of an ErrorResponse or a NoticeResponse: pairs of a letter and a value, in any order.
    pub(crate) fn from_fields<'a>(fields: impl Iterator<Item = (u8, &'a [u8])>, is_notice: bool) -> ServerError {
        let unknown = if is_notice { Severity::Notice } else { Severity::Error };
        let mut error = ServerError { severity: unknown, code: SqlState::NONE, message: Box::from("") };
        let mut is_plain = false;
        for (letter, value) in fields {
            match letter {
                // `V` is never translated, `S` is: it counts only where there is no `V`.
                b'V' | b'S' if !is_notice && (letter == b'V' || !is_plain) => {
                    is_plain |= letter == b'V';
                    error.severity = match value {
                        b"FATAL" => Severity::Fatal,
                        b"PANIC" => Severity::Panic,
                        _ => Severity::Error,
                    };
                }
                b'C' => error.code = SqlState::parse(value).unwrap_or(SqlState::NONE),
                b'M' => error.message = printable(value),
                _ => {}
            }
        }
        error
    }

    /// Whether the server ends the connection with it.
    pub fn ends_connection(&self) -> bool {
        matches!(self.severity, Severity::Fatal | Severity::Panic)
    }

    /// What follows from it.
    pub fn class(&self) -> ErrorClass {
        match (self.code.class(), &self.code.0) {
            // 57P01 admin shutdown, 57P02 crash shutdown, 57P04 database dropped, 57P05 idle for too long.
            (b"08", _) | (_, b"57P01" | b"57P02" | b"57P04" | b"57P05") => ErrorClass::Connection,
            // Authorisation, no such database, resources, rollbacks by conflict; 55P03 lock not available, 57014
            // cancelled, 57P03 starting up or stopping.
            (b"28" | b"3D" | b"53" | b"40", _) | (_, b"55P03" | b"57014" | b"57P03") => ErrorClass::Refusal,
            _ if self.severity == Severity::Panic => ErrorClass::Connection,
            _ => ErrorClass::Logical,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code.as_str())
    }
}

impl std::error::Error for ServerError {}

fn printable(text: &[u8]) -> Box<str> {
    // No character is longer than four bytes: what is kept lies before this.
    let text = &text[..text.len().min(ERROR_TEXT_CHARS_MAX * 4)];
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(text).chars().map(printable).take(ERROR_TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(fields: &[(u8, &[u8])]) -> ServerError {
        ServerError::from_fields(fields.iter().copied(), false)
    }

    #[test]
    fn fields_are_understood_in_any_order_and_bounded() {
        let found =
            error(&[(b'M', b"kein Tisch\n"), (b'S', b"FEHLER"), (b'V', b"ERROR"), (b'C', b"42P01"), (b'?', b"x")]);
        assert_eq!((found.severity, found.code.as_str(), &*found.message), (Severity::Error, "42P01", "kein Tisch "));
        assert_eq!(found.to_string(), "kein Tisch  (SQLSTATE 42P01)");
        assert_eq!(error(&[(b'V', b"FATAL"), (b'S', b"ERREUR")]).severity, Severity::Fatal);
        assert_eq!(error(&[(b'S', b"FATAL")]).severity, Severity::Fatal, "servers before 9.6 have no V");
        let long = "é".repeat(10_000);
        assert_eq!(error(&[(b'M', long.as_bytes())]).message.chars().count(), ERROR_TEXT_CHARS_MAX);
        assert_eq!(error(&[(b'C', b"42\xff01")]).code, SqlState::NONE);
        assert_eq!(error(&[(b'C', b"4")]).code, SqlState::NONE);
        assert_eq!(error(&[(b'M', b"\xff\xfe")]).message.chars().count(), 2);
        let notice = ServerError::from_fields([(b'V', &b"WARNING"[..])].into_iter(), true);
        assert_eq!(notice.severity, Severity::Notice);
    }

    #[test]
    fn classes_follow_the_code() {
        use ErrorClass::*;
        let rows = [
            ("08006", Connection),
            ("57P01", Connection),
            ("57P02", Connection),
            ("57P03", Refusal),
            ("28P01", Refusal),
            ("28000", Refusal),
            ("3D000", Refusal),
            ("53300", Refusal),
            ("53100", Refusal),
            ("40001", Refusal),
            ("40P01", Refusal),
            ("55P03", Refusal),
            ("57014", Refusal),
            ("25006", Logical),
            ("42P01", Logical),
            ("42501", Logical),
            ("22P02", Logical),
            ("23505", Logical),
        ];
        for (code, class) in rows {
            assert_eq!(error(&[(b'V', b"ERROR"), (b'C', code.as_bytes())]).class(), class, "{code}");
        }
        assert_eq!(error(&[(b'V', b"PANIC"), (b'C', b"XX000")]).class(), Connection);
    }
}
