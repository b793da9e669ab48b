//! One subscriber: from its connect to its last byte.
pub mod sse;
pub mod ws;

use crate::machine;
use crate::oracle::Oracle;
use crate::scan::{self, Scan, Scanner};
use crate::socket::{Moved, Outgoing};
use crate::verify::{Arrived, Inbox, Tally};
use rustix::fd::OwnedFd;
use sse::SseReader;
use std::fmt::Write as _;
use ws::WsReader;

/// Longest response head a server may send.
const HEAD_BYTES_MAX: usize = 16 * 1_024;
/// Header fields of a response head.
const HEADERS_MAX: usize = 64;

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for the connection.
    Connecting,
    /// Request sent, waiting for the response head.
    Shaking,
    /// Waiting for the server's word that it will be heard: `subscribed` or `pong` on a WebSocket, `connected` on SSE.
    /// Only then may a publish count on this client.
    Entering,
    /// Receives.
    Open,
    /// Over.
    Closed,
}

/// What reads its messages.
enum Reader {
    Ws(WsReader),
    Sse(SseReader),
}

/// How a client introduces itself.
pub struct Introduction {
    /// `host:port` for the `Host` header.
    pub host: String,
    /// Its token.
    pub token: String,
    /// The channels it subscribes to.
    pub channels: Vec<String>,
}

/// One subscriber.
pub struct Client {
    /// Its number.
    pub number: u32,
    /// How far it has come.
    pub state: State,
    /// Its connection.
    pub socket: OwnedFd,
    /// What it has to say.
    pub outgoing: Outgoing,
    /// Whether the poller was told about waiting output.
    pub wants_write: bool,
    /// Bytes received whose message is not complete.
    pub tail: Vec<u8>,
    /// What it must receive.
    pub inbox: Inbox,
    /// It stops reading once it is open.
    pub is_slow: bool,
    /// The code of the server's Close frame.
    pub close_code: Option<u16>,
    started_us: u64,
    reader: Reader,
    oracle: Option<Box<Oracle>>,
    accept_key: String,
    channels: Vec<String>,
}

/// What a client needs of its thread to account for what it hears.
pub struct Ears<'a> {
    /// The cheap scan.
    pub scanner: &'a mut Scanner,
    /// The counts.
    pub tally: &'a mut Tally,
    /// When the bytes were read.
    pub now_us: u64,
    /// The measured phase.
    pub measured: std::ops::Range<u64>,
    /// Where acknowledgements of what is heard are gathered; `None`: nothing is acknowledged.
    pub acks: Option<&'a mut Vec<u8>>,
}

impl Client {
    /// A WebSocket client whose connect has begun.
    pub fn websocket(number: u32, socket: OwnedFd, introduction: Introduction, inbox: Inbox) -> Client {
        let key = tungstenite::handshake::client::generate_key();
        let accept_key = tungstenite::handshake::derive_accept_key(key.as_bytes());
        let request = format!(
            "GET /ws?token={} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n",
            introduction.token, introduction.host
        );
        Client::new(number, socket, request, Reader::Ws(WsReader::default()), accept_key, introduction.channels, inbox)
    }

    /// An SSE client whose connect has begun.
    pub fn sse(number: u32, socket: OwnedFd, introduction: Introduction, inbox: Inbox) -> Client {
        let mut request = format!("GET /sse?token={}", introduction.token);
        if !introduction.channels.is_empty() {
            let _ = write!(request, "&channels={}", introduction.channels.join(","));
        }
        let _ = write!(request, " HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", introduction.host);
        Client::new(number, socket, request, Reader::Sse(SseReader::default()), String::new(), Vec::new(), inbox)
    }

    fn new(
        number: u32,
        socket: OwnedFd,
        request: String,
        reader: Reader,
        accept_key: String,
        channels: Vec<String>,
        inbox: Inbox,
    ) -> Client {
        let mut outgoing = Outgoing::default();
        outgoing.buffer().extend_from_slice(request.as_bytes());
        Client {
            number,
            state: State::Connecting,
            socket,
            outgoing,
            wants_write: true,
            tail: Vec::new(),
            inbox,
            is_slow: false,
            close_code: None,
            started_us: machine::now_us(),
            reader,
            oracle: None,
            accept_key,
            channels,
        }
    }

    /// Has this client's bytes read a second time.
    pub fn verify(&mut self, oracle: Oracle) {
        self.oracle = Some(Box::new(oracle));
    }

    /// Whether it is a WebSocket client.
    pub fn is_websocket(&self) -> bool {
        matches!(self.reader, Reader::Ws(_))
    }

    /// The socket is writable: finishes the connect, sends what waits. The sentence says why the client is over.
    pub fn write_ready(&mut self) -> Result<(), String> {
        if self.state == State::Connecting {
            crate::socket::connected(&self.socket).map_err(|error| format!("connect: {error}"))?;
            self.state = State::Shaking;
        }
        match self.outgoing.flush(&self.socket) {
            Moved::Bytes(_) | Moved::Later => Ok(()),
            Moved::Ended => Err("write: ended".to_owned()),
            Moved::Failed(error) => Err(format!("write: {error}")),
        }
    }

    /// Takes `bytes`: its tail and what was just received, of which the first `seen` were there before. Answers how
    /// many are used up; the rest is its next tail. The sentence says why the client is over.
    pub fn read(&mut self, bytes: &[u8], seen: usize, ears: &mut Ears) -> Result<usize, String> {
        let mut used = 0;
        let mut oracle_from = seen;
        if let Some(acks) = &mut ears.acks {
            // A client that was over in the middle of its bytes may have left some.
            acks.clear();
        }
        let verified_before = self.oracle.as_ref().map_or(0, |oracle| oracle.verified);
        if self.state == State::Shaking {
            used = self.read_head(bytes)?;
            if used == 0 {
                return Ok(0);
            }
            oracle_from = used;
        }
        let mut listener = Listener {
            inbox: &mut self.inbox,
            is_slow: self.is_slow,
            close_code: &mut self.close_code,
            oracle: self.oracle.as_deref_mut(),
            state: &mut self.state,
            started_us: self.started_us,
            ears,
        };
        used += match &mut self.reader {
            Reader::Ws(reader) => reader.read(&bytes[used..], self.outgoing.buffer(), &mut listener)?,
            Reader::Sse(reader) => reader.read(&bytes[used..], &mut listener)?,
        };
        if let Some(acks) = &ears.acks {
            self.outgoing.buffer().extend_from_slice(acks);
        }
        if let Some(oracle) = &mut self.oracle {
            let verdict = oracle.read(&bytes[oracle_from..]);
            ears.tally.verified += oracle.verified - verified_before;
            if let Err(text) = verdict {
                ears.tally.malformed += 1;
                ears.tally.trouble(|| format!("client {}: {text}", self.number));
                // Once the two readers are apart, everything that follows would differ.
                self.oracle = None;
            }
        }
        Ok(used)
    }

    /// Reads the response head; 0 when it is not complete.
    fn read_head(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes).map_err(|error| format!("response head: {error}"))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if bytes.len() < HEAD_BYTES_MAX => return Ok(0),
            httparse::Status::Partial => return Err("response head: too long".to_owned()),
        };
        let status = response.code.unwrap_or(0);
        let header = |name: &str| {
            let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok()
        };
        let wanted = if self.is_websocket() { 101 } else { 200 };
        if status != wanted {
            let body = String::from_utf8_lossy(&bytes[length..]).into_owned();
            return Err(format!("status {status} where {wanted} was expected: {body}"));
        }
        match &mut self.reader {
            Reader::Ws(_) => {
                if header("sec-websocket-accept") != Some(&self.accept_key) {
                    return Err("the handshake's accept key is wrong".to_owned());
                }
                let greeting = if self.channels.is_empty() {
                    // The answer proves that the server has this connection in its tables.
                    r#"{"type":"Ping"}"#.to_owned()
                } else {
                    serde_json::json!({"type": "Subscribe", "payload": {"channels": self.channels}}).to_string()
                };
                ws::write_client_frame(self.outgoing.buffer(), ws::OPCODE_TEXT, greeting.as_bytes());
                self.channels = Vec::new();
            }
            Reader::Sse(reader) => {
                if header("content-type").is_none_or(|value| !value.starts_with("text/event-stream")) {
                    return Err("the content type is not text/event-stream".to_owned());
                }
                reader.chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
            }
        }
        self.accept_key = String::new();
        self.state = State::Entering;
        Ok(length)
    }
}

/// Takes the messages a reader finds.
pub struct Listener<'a, 'b> {
    inbox: &'a mut Inbox,
    is_slow: bool,
    close_code: &'a mut Option<u16>,
    oracle: Option<&'a mut Oracle>,
    state: &'a mut State,
    started_us: u64,
    ears: &'a mut Ears<'b>,
}

impl Listener<'_, '_> {
    /// One message text of the server.
    #[inline]
    fn hear(&mut self, text: &[u8]) {
        if self.is_slow && *self.state == State::Open {
            return;
        }
        let tally = &mut *self.ears.tally;
        let mark = match self.ears.scanner.scan(text) {
            Scan::Mark(mark) => mark,
            Scan::Foreign => {
                tally.foreign += 1;
                tally.trouble(|| format!("foreign: {}", excerpt(text)));
                return;
            }
            Scan::Other => return self.hear_other(text),
        };
        if let Some(oracle) = &mut self.oracle {
            oracle.scanned(mark);
        }
        let arrived = self.inbox.take(mark);
        let now_us = self.ears.now_us;
        match arrived {
            Arrived::Fresh | Arrived::Late => {
                tally.received += 1;
                tally.late += u64::from(arrived == Arrived::Late);
                tally.received_measured += u64::from(self.ears.measured.contains(&now_us));
                if self.ears.measured.contains(&mark.sent_us) {
                    tally.latency_us.saturating_record(now_us.saturating_sub(mark.sent_us));
                }
                if self.inbox.received == self.inbox.awaited {
                    tally.backlog_us.saturating_record(now_us.saturating_sub(self.started_us));
                    tally.backlog_done_us = now_us;
                }
                if let Some(acks) = &mut self.ears.acks
                    && let Some(id) = scan::notification_id(text)
                {
                    tally.acks += 1;
                    write_ack(acks, id);
                }
            }
            Arrived::Duplicate => tally.duplicates += 1,
            Arrived::Stray => tally.strays += 1,
        }
        if arrived != Arrived::Fresh {
            tally.trouble(|| format!("{arrived:?}: stream {} seq {}", mark.stream, mark.seq));
        }
    }

    /// One message text that a second reader is to see, too; for SSE, whose framing the oracle does not read.
    fn hear_event(&mut self, text: &[u8]) {
        self.hear(text);
        if let Some(oracle) = &mut self.oracle
            && let Err(reason) = oracle.text(text.to_vec())
        {
            self.ears.tally.malformed += 1;
            self.ears.tally.trouble(|| format!("event: {reason}"));
        }
    }

    /// Everything that is not a notification: few, so they are parsed.
    #[cold]
    fn hear_other(&mut self, text: &[u8]) {
        let value: serde_json::Value = serde_json::from_slice(text).unwrap_or_default();
        match value["type"].as_str() {
            Some("subscribed" | "pong" | "connected") => self.entered(),
            Some("heartbeat") => self.ears.tally.heartbeats += 1,
            Some("error") => {
                self.ears.tally.errors += 1;
                self.ears.tally.trouble(|| format!("error message: {}", excerpt(text)));
            }
            Some("acked") => {
                self.ears.tally.acked += 1;
                self.ears.tally.acked_us = self.ears.now_us;
            }
            Some("unsubscribed" | "shutdown") => {}
            _ => {
                self.ears.tally.malformed += 1;
                self.ears.tally.trouble(|| format!("not a message of the contract: {}", excerpt(text)));
            }
        }
    }

    fn entered(&mut self) {
        if *self.state == State::Entering {
            *self.state = State::Open;
            self.ears.tally.connect_us.saturating_record(self.ears.now_us.saturating_sub(self.started_us));
        }
    }
}

/// Appends the acknowledgement of a notification (contract §3.9).
fn write_ack(out: &mut Vec<u8>, id: &[u8]) {
    let command = [br#"{"type":"Ack","payload":{"notification_id":""#, id, br#""}}"#].concat();
    ws::write_client_frame(out, ws::OPCODE_TEXT, &command);
}

/// The beginning of a text, for a sentence.
fn excerpt(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(160)]).into_owned()
}
