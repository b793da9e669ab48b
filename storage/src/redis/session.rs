//! A RESP2 subscription as a conversation without a socket: what to say, and what was said.
//!
//! ```text
//! we      AUTH, SELECT, SUBSCRIBE and PSUBSCRIBE at once, in this order; later PING
//! server  +OK, +OK, one confirmation per name; from then on messages, and a pong per PING
//! ```
//! Everything is sent without waiting in between: one round trip, and the first refusal ends the session anyway.
//!
//! Once all of these names are confirmed, others may come and go ([`Session::change`]). Each is confirmed in the order it
//! was said; a refusal of one such command ends nothing.
//!
//! The same by SSUBSCRIBE, where topics belong to a slot of a cluster ([`PubSub::Sharded`]): the server may then take them
//! away by itself ([`Event::SlotLost`]).
//!
//! The caller reads into [`Session::room`], tells [`Session::filled`], and takes events until there is none. A message
//! is handed out as it lies in that buffer: no copy, no allocation. What a reply claims to hold is never allocated;
//! the buffer only follows the bytes that came.
use crate::redis::reply::{self, Item, Reply, ReplyError};
use crate::redis::url::RedisUrl;
use protocol::limits;
use redis_protocol::resp2::encode::encode_borrowed;
use redis_protocol::resp2::types::BorrowedFrame;
use std::collections::VecDeque;
use std::fmt;

/// Names in one SUBSCRIBE or PSUBSCRIBE: thousands go in pieces, so that neither side builds one huge command.
pub const COMMAND_NAMES_MAX: usize = 256;
/// Characters of a server's error text that are kept.
pub const ERROR_TEXT_CHARS_MAX: usize = 200;

// A read must fit the buffer beside the longest partial reply.
const _: () = assert!(limits::READ_BYTES_MAX <= limits::REDIS_REPLY_BYTES_MAX);

/// How topics are listened to and published to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PubSub {
    /// By SUBSCRIBE and PUBLISH. In a cluster every node hears of every message.
    Ordinary,
    /// By SSUBSCRIBE and SPUBLISH, of Redis 7 and later, in a cluster: only the master of the topic's slot, and its
    /// replicas, hear of a message. No patterns.
    Sharded,
}

impl PubSub {
    /// The command that publishes.
    pub fn publish(self) -> &'static [u8] {
        match self {
            PubSub::Ordinary => b"PUBLISH",
            PubSub::Sharded => b"SPUBLISH",
        }
    }

    fn change(self, subscribe: bool) -> &'static [u8] {
        match (self, subscribe) {
            (PubSub::Ordinary, true) => b"SUBSCRIBE",
            (PubSub::Ordinary, false) => b"UNSUBSCRIBE",
            (PubSub::Sharded, true) => b"SSUBSCRIBE",
            (PubSub::Sharded, false) => b"SUNSUBSCRIBE",
        }
    }
}

/// Something that was said to us. Borrows the session's buffer; take what you need and go on.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Somebody published.
    Message {
        /// Where; of a pattern, the channel that matched.
        channel: &'a [u8],
        /// What, byte for byte.
        payload: &'a [u8],
    },
    /// One more name is confirmed.
    Subscribed {
        /// Confirmed so far.
        count: usize,
    },
    /// All names are confirmed: from here on nothing that is published is missed.
    Ready,
    /// An answer to [`Session::ping`].
    Pong,
    /// A name of [`Session::change`] is confirmed.
    Changed {
        /// Whether it is listened to from here on.
        subscribed: bool,
        /// Which.
        name: &'a [u8],
    },
    /// The server refused one command of [`Session::change`].
    ChangeRefused {
        /// So many names stood in it.
        names: usize,
        /// Its words, as in [`Event::ServerError`].
        text: String,
    },
    /// A slot is another server's now: names that were listened to are not any more, and nobody asked for that. The session
    /// is of no use any more.
    SlotLost,
    /// The server refused something; the session is of no use any more and hears nothing else.
    ServerError {
        /// What it refused.
        step: Step,
        /// Its words: at most [`ERROR_TEXT_CHARS_MAX`] characters, printable, our password masked.
        text: String,
    },
}

/// How far the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// AUTH is not answered.
    Auth,
    /// SELECT is not answered.
    Select,
    /// Not every name is confirmed.
    Subscribe,
    /// All is confirmed.
    Listen,
}

/// The server says what no Redis says to a subscriber; the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// A reply of more than [`limits::REDIS_REPLY_BYTES_MAX`] bytes.
    TooLarge {
        /// So many bytes are here, or claimed.
        bytes: usize,
    },
    /// Bytes that are no reply of a subscription.
    Malformed(&'static str),
    /// A reply that nobody asked for.
    Unexpected(&'static str),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes_max = limits::REDIS_REPLY_BYTES_MAX;
        match self {
            Self::TooLarge { bytes } => write!(f, "a message of {bytes} bytes or more; at most {bytes_max} are taken"),
            Self::Malformed(what) => write!(f, "the other side does not speak Redis' protocol: {what}"),
            Self::Unexpected(what) => write!(f, "the server answered out of turn: {what}"),
        }
    }
}

impl std::error::Error for SessionError {}

impl From<ReplyError> for SessionError {
    fn from(error: ReplyError) -> Self {
        match error {
            ReplyError::Malformed(what) => SessionError::Malformed(what),
            ReplyError::TooLarge { bytes } => SessionError::TooLarge { bytes },
        }
    }
}

/// One subscription on one connection.
pub struct Session {
    /// Bytes from the server; `start..end` are not taken yet.
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes for the server; those before `sent` are on their way.
    output: Vec<u8>,
    sent: usize,
    expected: Expected,
    pubsub: PubSub,
    /// What must not appear in an error text.
    password: Option<Vec<u8>>,
}

/// Answers that are due.
struct Expected {
    auth: bool,
    select: bool,
    names: usize,
    confirmed: usize,
    ready_told: bool,
    /// Of each command of [`Session::change`] that is not confirmed: whether it begins to listen, and how many names are
    /// left.
    changes: VecDeque<(bool, usize)>,
    /// The server refused something: what else it says is of no use.
    refused: bool,
}

impl Expected {
    fn step(&self) -> Step {
        match self {
            Expected { auth: true, .. } => Step::Auth,
            Expected { select: true, .. } => Step::Select,
            Expected { names, confirmed, .. } if confirmed < names => Step::Subscribe,
            _ => Step::Listen,
        }
    }

    /// Whether an `+OK` was due, which it no longer is.
    fn take_ok(&mut self) -> bool {
        match self.step() {
            Step::Auth => self.auth = false,
            Step::Select => self.select = false,
            Step::Subscribe | Step::Listen => return false,
        }
        true
    }
}

impl Session {
    /// A session whose first words are ready to be sent. A name with `*`, `?` or `[` is a pattern (contract §6).
    pub fn new(url: &RedisUrl, channels: &[String]) -> Session {
        Session::with(url, channels, PubSub::Ordinary)
    }

    /// The same in one of the two ways to listen.
    pub fn with(url: &RedisUrl, channels: &[String], pubsub: PubSub) -> Session {
        let mut output = Vec::new();
        let auth = url.user.is_some() || url.password.is_some();
        if auth {
            // A user without a password has the empty one: what an ACL user with `nopass` accepts.
            let password = url.password.as_deref().unwrap_or_default();
            match &url.user {
                Some(user) => push_command(&mut output, &[b"AUTH", user, password]),
                None => push_command(&mut output, &[b"AUTH", password]),
            }
        }
        let select = url.database != 0;
        if select {
            push_command(&mut output, &[b"SELECT", url.database.to_string().as_bytes()]);
        }
        let (patterns, plain): (Vec<&[u8]>, Vec<&[u8]>) = channels
            .iter()
            .map(|name| name.as_bytes())
            .partition(|name| pubsub == PubSub::Ordinary && is_pattern(name));
        for (command, names) in [(pubsub.change(true), plain), (b"PSUBSCRIBE", patterns)] {
            for piece in names.chunks(COMMAND_NAMES_MAX) {
                let mut words = vec![command];
                words.extend_from_slice(piece);
                push_command(&mut output, &words);
            }
        }
        let expected = Expected {
            auth,
            select,
            names: channels.len(),
            confirmed: 0,
            ready_told: false,
            changes: VecDeque::new(),
            refused: false,
        };
        let password = url.password.clone();
        Session { input: Vec::new(), start: 0, end: 0, output, sent: 0, expected, pubsub, password }
    }

    /// How it listens.
    pub fn pubsub(&self) -> PubSub {
        self.pubsub
    }

    /// How far the conversation is.
    pub fn step(&self) -> Step {
        self.expected.step()
    }

    /// Begins or ends to listen to names, none of them a pattern. Only once [`Event::Ready`] was told.
    pub fn change(&mut self, subscribe: bool, names: &[&[u8]]) {
        let command = self.pubsub.change(subscribe);
        for piece in names.chunks(COMMAND_NAMES_MAX) {
            let mut words = vec![command];
            words.extend_from_slice(piece);
            push_command(&mut self.output, &words);
            self.expected.changes.push_back((subscribe, piece.len()));
        }
    }

    /// Asks for a sign of life.
    pub fn ping(&mut self) {
        push_command(&mut self.output, &[b"PING"]);
    }

    /// What is to be sent; empty most of the time.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// The first `bytes` of [`Session::output`] are on their way.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = (self.sent + bytes).min(self.output.len());
        if self.sent == self.output.len() {
            // Gives the room of a long subscription back; a PING takes a few bytes.
            self.output = Vec::new();
            self.sent = 0;
        }
    }

    /// Where to read to: at least half of, and at most, [`limits::READ_BYTES_MAX`]. Take all events first, so that
    /// only a partial reply is left, which is bounded.
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
            let bytes_max = limits::REDIS_REPLY_BYTES_MAX + limits::READ_BYTES_MAX;
            self.input.resize((self.end * 2).clamp(limits::READ_BYTES_MAX, bytes_max), 0);
        }
        let stop = self.input.len().min(self.end + limits::READ_BYTES_MAX);
        &mut self.input[self.end..stop]
    }

    /// The first `bytes` of [`Session::room`] have come.
    pub fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.input.len());
    }

    /// The next thing that was said, or `None` until more bytes come.
    ///
    /// # Errors
    /// [`SessionError`]: the connection must end. Asked again, it answers the same.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, SessionError> {
        loop {
            if self.expected.step() == Step::Listen && !self.expected.ready_told {
                self.expected.ready_told = true;
                return Ok(Some(Event::Ready));
            }
            if self.expected.refused {
                // A refused AUTH may be followed by confirmations for the default user, who is not whom we asked for.
                self.start = self.end;
                return Ok(None);
            }
            let input = &self.input[self.start..self.end];
            let Some((reply, bytes)) = reply::decode(input)? else {
                return match input.len() > limits::REDIS_REPLY_BYTES_MAX {
                    true => Err(SessionError::TooLarge { bytes: input.len() }),
                    false => Ok(None),
                };
            };
            if let Reply::Status(range) = &reply
                && &input[range.clone()] == b"OK"
                && self.expected.take_ok()
            {
                // Tells the caller nothing; two of them at most are due.
                self.start += bytes;
                continue;
            }
            let event = understand(&mut self.expected, self.password.as_deref(), input, reply)?;
            self.start += bytes;
            return Ok(Some(event));
        }
    }
}

/// What a reply means now.
fn understand<'a>(
    expected: &mut Expected,
    password: Option<&[u8]>,
    input: &'a [u8],
    reply: Reply,
) -> Result<Event<'a>, SessionError> {
    let (items, len) = match reply {
        Reply::Array { items, len } => (items, len),
        Reply::Error(range) => {
            let text = printable_error(&input[range], password);
            let step = expected.step();
            if step == Step::Listen
                && let Some((_, names)) = expected.changes.pop_front()
            {
                return Ok(Event::ChangeRefused { names, text });
            }
            expected.refused = true;
            return Ok(Event::ServerError { step, text });
        }
        Reply::Status(range) if &input[range.clone()] == b"PONG" => return Ok(Event::Pong),
        Reply::Status(_) => return Err(SessionError::Unexpected("a status")),
    };
    let bytes = |item: &Item| match item {
        Item::Bytes(range) => Some(&input[range.clone()]),
        _ => None,
    };
    match (bytes(&items[0]), &items[1..len]) {
        (Some(b"message" | b"smessage"), [channel, payload]) | (Some(b"pmessage"), [_, channel, payload]) => {
            match (bytes(channel), bytes(payload)) {
                (Some(channel), Some(payload)) => Ok(Event::Message { channel, payload }),
                _ => Err(SessionError::Malformed("a message without a channel or a payload")),
            }
        }
        (Some(b"subscribe" | b"psubscribe" | b"ssubscribe"), [Item::Bytes(_), Item::Integer(_)])
            if expected.step() == Step::Subscribe =>
        {
            expected.confirmed += 1;
            Ok(Event::Subscribed { count: expected.confirmed })
        }
        // Without a name: there was nothing to leave, which is no order to leave, either.
        (Some(b"sunsubscribe"), [Item::Bytes(_), Item::Integer(_)])
            if !matches!(expected.changes.front(), Some((false, _))) =>
        {
            expected.refused = true;
            Ok(Event::SlotLost)
        }
        (Some(kind @ (b"subscribe" | b"unsubscribe" | b"ssubscribe" | b"sunsubscribe")), [name, Item::Integer(_)]) => {
            match (bytes(name), expected.changes.front_mut()) {
                (Some(name), Some((_, names))) => {
                    *names -= 1;
                    if *names == 0 {
                        expected.changes.pop_front();
                    }
                    Ok(Event::Changed { subscribed: matches!(kind, b"subscribe" | b"ssubscribe"), name })
                }
                _ => Err(SessionError::Unexpected("a confirmation")),
            }
        }
        (Some(b"psubscribe" | b"punsubscribe"), _) => Err(SessionError::Unexpected("a confirmation")),
        (Some(b"pong"), [Item::Bytes(_)]) => Ok(Event::Pong),
        _ => Err(SessionError::Unexpected("an unknown kind of message")),
    }
}

/// Whether PSUBSCRIBE takes the name (contract §6).
pub fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Appends one command as an array of texts, the only form a server takes.
fn push_command(output: &mut Vec<u8>, words: &[&[u8]]) {
    let items: Vec<BorrowedFrame<'_>> = words.iter().map(|word| BorrowedFrame::BulkString(word)).collect();
    let command = BorrowedFrame::Array(&items);
    let at = output.len();
    output.resize(at + command.encode_len(false), 0);
    let written = encode_borrowed(&mut output[at..], &command, false);
    debug_assert!(written.is_ok(), "the room is as long as the encoder asked for: {written:?}");
}

/// A server's words for a log: short, printable, without our password.
pub(crate) fn printable_error(text: &[u8], password: Option<&[u8]>) -> String {
    let mut masked = Vec::new();
    let mut rest = &text[..text.len().min(reply::LINE_BYTES_MAX)];
    while let Some((first, after)) = rest.split_first() {
        match password.filter(|password| !password.is_empty()).and_then(|password| rest.strip_prefix(password)) {
            Some(after) => {
                masked.extend_from_slice(b"***");
                rest = after;
            }
            None => {
                masked.push(*first);
                rest = after;
            }
        }
    }
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(&masked).chars().map(printable).take(ERROR_TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
