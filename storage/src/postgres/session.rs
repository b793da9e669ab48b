//! One connection to PostgreSQL as a conversation without a socket: what to say, and what was said (protocol 3.0).
//!
//! ```text
//! we      SSLRequest if wanted;  who and where;  proof                       Parse Bind Execute Sync | Bind …
//! server                      S                 what proof?  in, settings, ready              rows, done, ready | …
//! ```
//! Commands are sent without waiting for one another. [`Session::command`] ends with a Sync of its own, so it is a
//! transaction of its own and its failure is not its neighbour's. [`Session::begin`] leaves the Sync to
//! [`Session::finish`]: what is said until then is one transaction, with one commit, done wholly or not at all. A
//! command is done when the server is ready again, not when it says how many rows there were: the commit lies in between.
//!
//! A statement is prepared by the first command that needs it; those behind it rely on that. If it could not be
//! prepared, they fail with the same error, and the next one tries again.
//!
//! The caller reads into [`Session::room`], tells [`Session::filled`], and takes events until there is none. A row is
//! handed out as it lies in that buffer. What a message claims to hold is never allocated; the buffer only follows the
//! bytes that came.
use crate::postgres::command::{Command, Row};
use crate::postgres::error::ServerError;
pub use crate::postgres::login::LoginError;
use crate::postgres::talk::Talk;
use crate::postgres::url::PostgresUrl;
use crate::postgres::wire::{self, LOGIN_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, WireError};
use protocol::limits;
use std::fmt;

/// Commands that are sent and not answered. More wait until one is.
pub const IN_FLIGHT_MAX: usize = 1_024;
/// Characters of a setting of the server that are kept.
pub const SETTING_CHARS_MAX: usize = 64;

/// Something that was said to us. Borrows the session's buffer; take what you need and go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The server takes TLS: begin it, then call [`Session::encrypted`].
    Encrypt,
    /// We are in: commands are taken.
    Ready,
    /// A row for a command that is not answered.
    Row {
        /// How many are older than this command and not answered: others of its transaction.
        place: usize,
        /// The row.
        row: Row<'a>,
    },
    /// The oldest command is done and committed.
    Done {
        /// Rows it changed, or handed out; of a script, those of its last statement.
        rows: u64,
    },
    /// The oldest command failed and changed nothing.
    Failed(ServerError),
    /// The transaction of the oldest command, of several commands, failed: none of them is done, and none is heard of
    /// again.
    RolledBack {
        /// Which of them failed, counted from 0; `None`: the end of the transaction.
        culprit: Option<usize>,
        /// Why.
        error: ServerError,
    },
    /// The answer to [`Session::ping`].
    Pong,
    /// The server does not let us in; nothing else is heard.
    Refused(ServerError),
    /// The server ends the connection; nothing else is heard. What is not answered may or may not have happened.
    Gone(ServerError),
    /// Words that change nothing.
    Notice(ServerError),
}

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Whether the server takes TLS is not answered.
    Encryption,
    /// TLS is being agreed on.
    Handshake,
    /// We are not let in yet.
    Login,
    /// Commands are taken.
    Live,
}

/// The conversation cannot go on; the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// The server takes no TLS, and `sslmode` insists.
    NoTls,
    /// We cannot come in.
    Login(LoginError),
    /// A message of more than [`MESSAGE_BYTES_MAX`] bytes, or [`LOGIN_MESSAGE_BYTES_MAX`] before we are in.
    TooLarge {
        /// So many are claimed.
        bytes: usize,
    },
    /// Bytes that are no message of PostgreSQL's protocol.
    Malformed(&'static str),
    /// A message that is not due.
    Unexpected(&'static str),
    /// A command left its transaction open, so the next one would be part of it.
    OpenTransaction,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls => f.write_str("the server takes no TLS, and sslmode in DATABASE_URL asks for it"),
            Self::Login(error) => error.fmt(f),
            Self::TooLarge { bytes } => {
                write!(
                    f,
                    "a message of {bytes} bytes; at most {MESSAGE_BYTES_MAX} are taken, {LOGIN_MESSAGE_BYTES_MAX} before the login"
                )
            }
            Self::Malformed(what) => write!(f, "the other side does not speak PostgreSQL's protocol: {what}"),
            Self::Unexpected(what) => write!(f, "the server answered out of turn: {what}"),
            Self::OpenTransaction => f.write_str("a command left its transaction open"),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<WireError> for SessionError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Malformed(what) => SessionError::Malformed(what),
            WireError::TooLarge { bytes } => SessionError::TooLarge { bytes },
        }
    }
}

/// A command that cannot be put into the protocol's words: a zero byte in its text, or more values than fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsayable;

/// What the server says about itself, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// `server_version`, at most [`SETTING_CHARS_MAX`] characters.
    pub version: String,
    /// `in_hot_standby`: it replays another server's changes and takes none itself.
    pub in_hot_standby: bool,
    /// `default_transaction_read_only`.
    pub read_only: bool,
}

/// One connection's conversation.
pub struct Session {
    /// Bytes from the server; `start..end` are not taken yet.
    input: Vec<u8>,
    start: usize,
    end: usize,
    talk: Talk,
}

impl Session {
    /// A session whose first words are ready to be sent.
    pub fn new(url: &PostgresUrl) -> Session {
        Session { input: Vec::new(), start: 0, end: 0, talk: Talk::new(url) }
    }

    /// How far the conversation is.
    pub fn step(&self) -> Step {
        self.talk.step
    }

    /// The server's settings; empty before [`Event::Ready`].
    pub fn settings(&self) -> &ServerSettings {
        &self.talk.settings
    }

    /// The link is, or is about to be, encrypted: whatever is said from now on goes through TLS.
    pub fn encrypted(&mut self) {
        debug_assert_eq!(self.talk.step, Step::Handshake, "the server was asked for TLS and agreed");
        self.talk.start_up();
    }

    /// Whether [`Session::command`] may be called: we are in, there is room among the commands in flight, and what was
    /// said before is mostly sent.
    pub fn takes_commands(&self) -> bool {
        self.talk.takes_commands()
    }

    /// Says a command. Returns the place of its first byte among all that is said, to be held against
    /// [`Session::sent_total`].
    ///
    /// # Errors
    /// [`Unsayable`]: nothing was said.
    pub fn command(&mut self, command: &Command) -> Result<u64, Unsayable> {
        self.talk.command(command)
    }

    /// Says a command that is one transaction with those that follow, until [`Session::finish`]; nothing but this may
    /// be said before. Returns as [`Session::command`] does. Not for a script.
    ///
    /// # Errors
    /// [`Unsayable`]: nothing was said, and what was said before stands.
    pub fn begin(&mut self, command: &Command) -> Result<u64, Unsayable> {
        self.talk.begin(command)
    }

    /// Ends the transaction of [`Session::begin`]; without one it says nothing.
    pub fn finish(&mut self) {
        self.talk.finish();
    }

    /// Asks for a sign of life: an empty transaction.
    pub fn ping(&mut self) {
        self.talk.ping();
    }

    /// Says good-bye.
    pub fn terminate(&mut self) {
        self.talk.terminate();
    }

    /// Commands and pings that are not answered.
    pub fn in_flight(&self) -> usize {
        self.talk.in_flight()
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        &self.talk.output
    }

    /// The first `bytes` of [`Session::output`] are on their way.
    pub fn sent(&mut self, bytes: usize) {
        self.talk.sent(bytes);
    }

    /// Bytes that left [`Session::output`] in all.
    pub fn sent_total(&self) -> u64 {
        self.talk.sent_total
    }

    /// Where to read to: at most [`limits::READ_BYTES_MAX`]. Take all events first, so that only a partial message is
    /// left, which is bounded. While TLS is being asked for it is one byte: what follows the answer is not for us, and
    /// must not be taken for something that came encrypted.
    pub fn room(&mut self) -> &mut [u8] {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == 0 && self.input.len() > limits::READ_BYTES_MAX {
            self.input = Vec::new();
        }
        let room = self.input.len() - self.end;
        if room < limits::READ_BYTES_MAX / 2 {
            // Twice what came, so that a long message is moved a few times only.
            let bytes_max = MESSAGE_BYTES_MAX + limits::READ_BYTES_MAX;
            self.input.resize((self.end * 2).clamp(limits::READ_BYTES_MAX, bytes_max), 0);
        }
        let bytes_max = if self.talk.step == Step::Encryption { 1 } else { limits::READ_BYTES_MAX };
        let stop = self.input.len().min(self.end + bytes_max);
        &mut self.input[self.end..stop]
    }

    /// The first `bytes` of [`Session::room`] have come.
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.input.len());
    }

    /// The next thing that was said, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`SessionError`]: the connection must end. Asked again, it answers the same, or hears nothing.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, SessionError> {
        loop {
            if let Some(done) = self.talk.next_committed() {
                return Ok(Some(done));
            }
            if self.talk.over {
                self.start = self.end;
                return Ok(None);
            }
            let input = &self.input[self.start..self.end];
            if self.talk.step == Step::Encryption {
                let Some(answer) = input.first() else { return Ok(None) };
                if self.talk.heard_of_tls(*answer)? {
                    self.start += 1;
                    return Ok(Some(Event::Encrypt));
                }
                self.start += 1;
                continue;
            }
            let bytes_max = if self.talk.step == Step::Live { MESSAGE_BYTES_MAX } else { LOGIN_MESSAGE_BYTES_MAX };
            let Some((frame, bytes)) = wire::decode(input, bytes_max)? else { return Ok(None) };
            let event = match self.talk.step {
                Step::Live => self.talk.live(frame)?,
                _ => self.talk.log_in(frame)?,
            };
            self.start += bytes;
            if event.is_some() {
                return Ok(event);
            }
        }
    }
}
