//! One connection to PostgreSQL as a conversation without a socket: what to say, and what was said (protocol 3.0).
//!
//! ```text
//! we      SSLRequest if wanted;  who and where;  proof                       Parse Bind Execute Sync | Bind …
//! server                      S                 what proof?  in, settings, ready              rows, done, ready | …
//! ```
//! Commands are sent without waiting for one another. Each ends with a Sync of its own, so it is a transaction of its
//! own and its failure is not its neighbour's. A command is done when the server is ready again, not when it says how
//! many rows there were: the commit lies in between.
//!
//! A statement is prepared by the first command that needs it; those behind it rely on that. If it could not be
//! prepared, they fail with the same error, and the next one tries again.
//!
//! The caller reads into [`Session::room`], tells [`Session::filled`], and takes events until there is none. A row is
//! handed out as it lies in that buffer. What a message claims to hold is never allocated; the buffer only follows the
//! bytes that came.
use crate::postgres::command::{Command, Row, Statement, What};
use crate::postgres::error::{ServerError, SqlState};
use crate::postgres::login::{Login, LoginError};
use crate::postgres::url::{PostgresUrl, SslMode};
use crate::postgres::wire::{self, Frame, LOGIN_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX, WireError};
use bytes::{Buf, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use protocol::limits;
use std::collections::VecDeque;
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
    /// A row for the oldest command that is not answered.
    Row(Row<'a>),
    /// The oldest command is done and committed.
    Done {
        /// Rows it changed, or handed out; of a script, those of its last statement.
        rows: u64,
    },
    /// The oldest command failed and changed nothing.
    Failed(ServerError),
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

/// Everything but the bytes that came, so that a row can be borrowed from them.
struct Talk {
    output: BytesMut,
    /// Bytes that ever were in `output`.
    said_total: u64,
    /// Bytes that left it.
    sent_total: u64,
    step: Step,
    tls_required: bool,
    /// Our first words once it is clear whether the link is encrypted.
    startup: BytesMut,
    login: Login,
    settings: ServerSettings,
    prepared: Vec<Prepared>,
    /// Sent and not answered, the oldest first.
    pending: VecDeque<Pending>,
    /// The server refused us or said good-bye: what else it says is of no use.
    over: bool,
}

/// What this connection knows of a statement.
struct Prepared {
    name: &'static str,
    state: Preparation,
    /// Why the last attempt failed.
    failure: Option<ServerError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preparation {
    Unknown,
    Asked,
    Known,
}

enum Pending {
    Ping,
    Command {
        /// Index in `prepared`; `None` for a script.
        statement: Option<usize>,
        /// It came with a Parse.
        prepares: bool,
        outcome: Option<Result<u64, ServerError>>,
    },
}

impl Session {
    /// A session whose first words are ready to be sent.
    pub fn new(url: &PostgresUrl) -> Session {
        let mut startup = BytesMut::new();
        let parameters = [
            ("user", url.user.as_str()),
            ("database", &url.database),
            ("application_name", &url.application_name),
            ("client_encoding", "UTF8"),
        ];
        // Fails on a zero byte or on more than 2 GiB; the URL's parser lets neither through.
        let _ = frontend::startup_message(parameters, &mut startup);
        let mut talk = Talk {
            output: BytesMut::new(),
            said_total: 0,
            sent_total: 0,
            step: Step::Login,
            tls_required: !matches!(url.ssl_mode, SslMode::Disable | SslMode::Prefer),
            startup,
            login: Login::new(url),
            settings: ServerSettings::default(),
            prepared: Vec::new(),
            pending: VecDeque::new(),
            over: false,
        };
        match url.ssl_mode {
            SslMode::Disable => talk.start_up(),
            _ => {
                talk.step = Step::Encryption;
                talk.say(frontend::ssl_request);
            }
        }
        Session { input: Vec::new(), start: 0, end: 0, talk }
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
        let talk = &self.talk;
        talk.step == Step::Live
            && !talk.over
            && talk.pending.len() < IN_FLIGHT_MAX
            && talk.output.len() < limits::WRITE_BYTES_MAX
    }

    /// Says a command. Returns the place of its first byte among all that is said, to be held against
    /// [`Session::sent_total`].
    ///
    /// # Errors
    /// [`Unsayable`]: nothing was said.
    pub fn command(&mut self, command: &Command) -> Result<u64, Unsayable> {
        self.talk.command(command)
    }

    /// Asks for a sign of life: an empty transaction.
    pub fn ping(&mut self) {
        self.talk.say(frontend::sync);
        self.talk.pending.push_back(Pending::Ping);
    }

    /// Says good-bye.
    pub fn terminate(&mut self) {
        self.talk.say(frontend::terminate);
    }

    /// Commands and pings that are not answered.
    pub fn in_flight(&self) -> usize {
        self.talk.pending.len()
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        &self.talk.output
    }

    /// The first `bytes` of [`Session::output`] are on their way.
    pub fn sent(&mut self, bytes: usize) {
        let talk = &mut self.talk;
        let bytes = bytes.min(talk.output.len());
        talk.output.advance(bytes);
        talk.sent_total += bytes as u64;
        if talk.output.is_empty() {
            // Gives the room of a long burst back.
            talk.output = BytesMut::new();
        }
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

impl Talk {
    fn say(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.output.len();
        write(&mut self.output);
        self.said_total += (self.output.len() - before) as u64;
    }

    fn start_up(&mut self) {
        self.step = Step::Login;
        let startup = std::mem::take(&mut self.startup);
        self.say(|output| output.extend_from_slice(&startup));
    }

    /// Whether the server takes TLS.
    fn heard_of_tls(&mut self, answer: u8) -> Result<bool, SessionError> {
        match answer {
            b'S' => {
                self.step = Step::Handshake;
                Ok(true)
            }
            b'N' if self.tls_required => Err(SessionError::NoTls),
            b'N' => {
                self.start_up();
                Ok(false)
            }
            // What such an error says did not come encrypted and may be anybody's.
            b'E' => Err(SessionError::Unexpected("an error where TLS was asked for")),
            _ => Err(SessionError::Malformed("no answer to the request for TLS")),
        }
    }

    fn log_in<'a>(&mut self, frame: Frame<'a>) -> Result<Option<Event<'a>>, SessionError> {
        match frame {
            Frame::Error(error) => {
                self.over = true;
                Ok(Some(Event::Refused(error)))
            }
            Frame::Notice(notice) => Ok(Some(Event::Notice(notice))),
            Frame::Ready { idle: true } => {
                self.step = Step::Live;
                Ok(Some(Event::Ready))
            }
            Frame::Skip => Ok(None),
            Frame::Rare(message) => {
                let before = self.output.len();
                let answered = self.login.answer(&message, &mut self.output);
                self.said_total += (self.output.len() - before) as u64;
                match answered {
                    Some(answered) => answered.map_err(SessionError::Login)?,
                    None => self.heard_setting(&message)?,
                }
                Ok(None)
            }
            _ => Err(SessionError::Unexpected("an answer before the login")),
        }
    }

    fn live<'a>(&mut self, frame: Frame<'a>) -> Result<Option<Event<'a>>, SessionError> {
        match frame {
            Frame::Notice(notice) => return Ok(Some(Event::Notice(notice))),
            Frame::Error(error) if error.ends_connection() => {
                self.over = true;
                return Ok(Some(Event::Gone(error)));
            }
            Frame::Skip => return Ok(None),
            Frame::Rare(message) => {
                self.heard_setting(&message)?;
                return Ok(None);
            }
            Frame::Ready { idle } => return self.heard_ready(idle).map(Some),
            _ => {}
        }
        let Some(Pending::Command { statement, prepares, outcome }) = self.pending.front_mut() else {
            return Err(SessionError::Unexpected("an answer that nobody waits for"));
        };
        let prepared = statement.and_then(|index| self.prepared.get_mut(index));
        match frame {
            Frame::Row(row) if outcome.is_none() || statement.is_none() => return Ok(Some(Event::Row(row))),
            Frame::Row(_) => return Err(SessionError::Unexpected("a row behind the last one")),
            Frame::Complete { rows } if !matches!(outcome, Some(Err(_))) => *outcome = Some(Ok(rows)),
            Frame::Complete { .. } => return Err(SessionError::Unexpected("an end behind an error")),
            Frame::Error(error) => *outcome = Some(Err(blame(error, prepared, *prepares))),
            Frame::Prepared => match prepared {
                Some(prepared) if *prepares => {
                    prepared.state = Preparation::Known;
                    prepared.failure = None;
                }
                _ => return Err(SessionError::Unexpected("a preparation")),
            },
            _ => {}
        }
        Ok(None)
    }

    fn heard_ready(&mut self, idle: bool) -> Result<Event<'static>, SessionError> {
        if !idle {
            return Err(SessionError::OpenTransaction);
        }
        match self.pending.pop_front() {
            Some(Pending::Ping) => Ok(Event::Pong),
            Some(Pending::Command { outcome: Some(Ok(rows)), .. }) => Ok(Event::Done { rows }),
            Some(Pending::Command { outcome: Some(Err(error)), .. }) => Ok(Event::Failed(error)),
            Some(Pending::Command { outcome: None, .. }) => Err(SessionError::Unexpected("ready without an answer")),
            None => Err(SessionError::Unexpected("ready, and nobody asked")),
        }
    }

    fn heard_setting(&mut self, message: &Message) -> Result<(), SessionError> {
        let Message::ParameterStatus(setting) = message else {
            return Err(SessionError::Unexpected("a message that no command of ours brings"));
        };
        let (Ok(name), Ok(value)) = (setting.name(), setting.value()) else {
            return Err(SessionError::Malformed("a setting that is not UTF-8"));
        };
        match name {
            "server_version" => {
                let printable = value.chars().filter(|c| !c.is_control());
                self.settings.version = printable.take(SETTING_CHARS_MAX).collect();
            }
            "in_hot_standby" => self.settings.in_hot_standby = value == "on",
            "default_transaction_read_only" => self.settings.read_only = value == "on",
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<u64, Unsayable> {
        let before = self.output.len();
        let written = match command.what {
            What::Script(sql) => frontend::query(sql, &mut self.output).map_err(|_| Unsayable).map(|()| {
                self.pending.push_back(Pending::Command { statement: None, prepares: false, outcome: None });
            }),
            What::Statement(statement) => self.statement(statement, command),
        };
        if let Err(unsayable) = written {
            self.output.truncate(before);
            return Err(unsayable);
        }
        let begins_at = self.said_total;
        self.said_total += (self.output.len() - before) as u64;
        Ok(begins_at)
    }

    fn statement(&mut self, statement: &'static Statement, command: &Command) -> Result<(), Unsayable> {
        let found = self.prepared.iter().position(|prepared| prepared.name == statement.name);
        let index = found.unwrap_or(self.prepared.len());
        let prepares = found.is_none_or(|index| self.prepared[index].state == Preparation::Unknown);
        if prepares {
            frontend::parse(statement.name, statement.sql, [], &mut self.output).map_err(|_| Unsayable)?;
        }
        let write = |value: Option<&[u8]>, output: &mut BytesMut| match value {
            Some(bytes) => {
                output.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        };
        frontend::bind("", statement.name, command.formats(), command.values(), write, [1], &mut self.output)
            .map_err(|_| Unsayable)?;
        frontend::execute("", 0, &mut self.output).map_err(|_| Unsayable)?;
        frontend::sync(&mut self.output);
        match self.prepared.get_mut(index) {
            Some(prepared) if prepares => prepared.state = Preparation::Asked,
            Some(_) => {}
            None => {
                self.prepared.push(Prepared { name: statement.name, state: Preparation::Asked, failure: None });
            }
        }
        self.pending.push_back(Pending::Command { statement: Some(index), prepares, outcome: None });
        Ok(())
    }
}

/// The error of a command, which may be that of another one: whoever relied on a preparation that failed is told why.
fn blame(error: ServerError, prepared: Option<&mut Prepared>, prepares: bool) -> ServerError {
    let Some(prepared) = prepared else { return error };
    if prepares && prepared.state == Preparation::Asked {
        prepared.state = Preparation::Unknown;
        prepared.failure = Some(error.clone());
    } else if error.code == SqlState::INVALID_STATEMENT_NAME {
        match &prepared.failure {
            Some(failure) => return failure.clone(),
            // Somebody made the server forget it; the next command prepares it again.
            None if prepared.state == Preparation::Known => prepared.state = Preparation::Unknown,
            None => {}
        }
    }
    error
}
