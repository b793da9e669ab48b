//! What a session says and makes of what it hears, without the bytes that came: so that a row can be borrowed from
//! those while this changes.
use crate::postgres::command::{Command, Statement, What};
use crate::postgres::error::{ServerError, SqlState};
use crate::postgres::login::Login;
use crate::postgres::session::{
    Event, IN_FLIGHT_MAX, SETTING_CHARS_MAX, ServerSettings, SessionError, Step, Unsayable,
};
use crate::postgres::url::{PostgresUrl, SslMode};
use crate::postgres::wire::Frame;
use bytes::{Buf, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use protocol::limits;
use std::collections::VecDeque;

/// One side of the conversation: ours.
pub(super) struct Talk {
    pub(super) output: BytesMut,
    /// Bytes that ever were in `output`.
    said_total: u64,
    /// Bytes that left it.
    pub(super) sent_total: u64,
    pub(super) step: Step,
    tls_required: bool,
    /// Our first words once it is clear whether the link is encrypted.
    startup: BytesMut,
    login: Login,
    pub(super) settings: ServerSettings,
    prepared: Vec<Prepared>,
    /// Sent and not answered, the oldest first.
    pending: VecDeque<Pending>,
    /// Which of `pending` is being answered: the others before it are of the same transaction.
    at: usize,
    /// So many of `pending` are committed, and that is to be told.
    committed: usize,
    /// The oldest transaction failed when all its commands had been done.
    commit_failed: Option<ServerError>,
    /// The server refused us or said good-bye: what else it says is of no use.
    pub(super) over: bool,
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
        /// A Sync followed it.
        ends: bool,
        outcome: Option<Result<u64, ServerError>>,
    },
}

impl Talk {
    /// Its first words are ready to be sent.
    pub(super) fn new(url: &PostgresUrl) -> Talk {
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
            at: 0,
            committed: 0,
            commit_failed: None,
            over: false,
        };
        match url.ssl_mode {
            SslMode::Disable => talk.start_up(),
            _ => {
                talk.step = Step::Encryption;
                talk.say(frontend::ssl_request);
            }
        }
        talk
    }

    /// Whether a command may be said.
    pub(super) fn takes_commands(&self) -> bool {
        self.step == Step::Live
            && !self.over
            && self.pending.len() < IN_FLIGHT_MAX
            && self.output.len() < limits::WRITE_BYTES_MAX
    }

    /// An empty transaction.
    pub(super) fn ping(&mut self) {
        self.say(frontend::sync);
        self.pending.push_back(Pending::Ping);
    }

    pub(super) fn terminate(&mut self) {
        self.say(frontend::terminate);
    }

    /// Commands and pings that are not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The first `bytes` of the output are on their way.
    pub(super) fn sent(&mut self, bytes: usize) {
        let bytes = bytes.min(self.output.len());
        self.output.advance(bytes);
        self.sent_total += bytes as u64;
        if self.output.is_empty() {
            // Gives the room of a long burst back.
            self.output = BytesMut::new();
        }
    }

    fn say(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.output.len();
        write(&mut self.output);
        self.said_total += (self.output.len() - before) as u64;
    }

    pub(super) fn start_up(&mut self) {
        self.step = Step::Login;
        let startup = std::mem::take(&mut self.startup);
        self.say(|output| output.extend_from_slice(&startup));
    }

    /// Whether the server takes TLS.
    pub(super) fn heard_of_tls(&mut self, answer: u8) -> Result<bool, SessionError> {
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

    pub(super) fn log_in<'a>(&mut self, frame: Frame<'a>) -> Result<Option<Event<'a>>, SessionError> {
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

    pub(super) fn live<'a>(&mut self, frame: Frame<'a>) -> Result<Option<Event<'a>>, SessionError> {
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
        if let Some(Pending::Command { ends: false, outcome: Some(Ok(_)), .. }) = self.pending.get(self.at) {
            self.at += 1;
        }
        let place = self.at;
        let Some(Pending::Command { statement, prepares, ends: _, outcome }) = self.pending.get_mut(place) else {
            return Err(SessionError::Unexpected("an answer that nobody waits for"));
        };
        let prepared = statement.and_then(|index| self.prepared.get_mut(index));
        match frame {
            Frame::Row(row) if outcome.is_none() || statement.is_none() => {
                return Ok(Some(Event::Row { place, row }));
            }
            Frame::Row(_) => return Err(SessionError::Unexpected("a row behind the last one")),
            Frame::Complete { rows } if !matches!(outcome, Some(Err(_))) => *outcome = Some(Ok(rows)),
            Frame::Complete { .. } => return Err(SessionError::Unexpected("an end behind an error")),
            // Behind the last end it is the commit that failed, whoever is to blame.
            Frame::Error(error) if place > 0 && matches!(outcome, Some(Ok(_))) => self.commit_failed = Some(error),
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
        let at = std::mem::take(&mut self.at);
        let failed = match (self.pending.get_mut(at), self.commit_failed.take()) {
            (None, _) => return Err(SessionError::Unexpected("ready, and nobody asked")),
            (Some(Pending::Ping), _) => {
                self.pending.pop_front();
                return Ok(Event::Pong);
            }
            (Some(_), Some(error)) => (None, error),
            (Some(Pending::Command { ends: true, outcome: Some(Ok(_)), .. }), None) => {
                self.committed = at + 1;
                // There is one at least.
                return self.next_committed().ok_or(SessionError::Unexpected("ready without an answer"));
            }
            (Some(Pending::Command { outcome, .. }), None) => match outcome.take() {
                Some(Err(error)) => (Some(at), error),
                _ => return Err(SessionError::Unexpected("ready without an answer")),
            },
        };
        Ok(self.rolled_back(failed))
    }

    /// The end of the oldest transaction, which failed.
    fn rolled_back(&mut self, (culprit, error): (Option<usize>, ServerError)) -> Event<'static> {
        let mut commands = 0;
        while let Some(Pending::Command { statement, prepares, ends, .. }) = self.pending.pop_front() {
            commands += 1;
            // What the server skipped it did not prepare either.
            if let Some(prepared) = statement.filter(|_| prepares).and_then(|index| self.prepared.get_mut(index))
                && prepared.state == Preparation::Asked
            {
                prepared.state = Preparation::Unknown;
            }
            if ends {
                break;
            }
        }
        match commands {
            1 => Event::Failed(error),
            _ => Event::RolledBack { culprit, error },
        }
    }

    /// The next command that is committed and was not told of.
    pub(super) fn next_committed(&mut self) -> Option<Event<'static>> {
        self.committed = self.committed.checked_sub(1)?;
        match self.pending.pop_front() {
            Some(Pending::Command { outcome: Some(Ok(rows)), .. }) => Some(Event::Done { rows }),
            _ => None,
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

    pub(super) fn command(&mut self, command: &Command) -> Result<u64, Unsayable> {
        let begins_at = self.begin(command)?;
        self.finish();
        Ok(begins_at)
    }

    /// Ends what was begun.
    pub(super) fn finish(&mut self) {
        if let Some(Pending::Command { statement, ends: ends @ false, .. }) = self.pending.back_mut() {
            *ends = true;
            if statement.is_some() {
                self.say(frontend::sync);
            }
        }
    }

    pub(super) fn begin(&mut self, command: &Command) -> Result<u64, Unsayable> {
        let before = self.output.len();
        let written = match command.what {
            What::Script(sql) => frontend::query(sql, &mut self.output).map_err(|_| Unsayable).map(|()| {
                let script = Pending::Command { statement: None, prepares: false, ends: false, outcome: None };
                self.pending.push_back(script);
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
        match self.prepared.get_mut(index) {
            Some(prepared) if prepares => prepared.state = Preparation::Asked,
            Some(_) => {}
            None => {
                self.prepared.push(Prepared { name: statement.name, state: Preparation::Asked, failure: None });
            }
        }
        self.pending.push_back(Pending::Command { statement: Some(index), prepares, ends: false, outcome: None });
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
