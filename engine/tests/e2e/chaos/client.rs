//! One WebSocket of one user, without blocking: bytes out, frames in.
use crate::support::token;
use crate::support::ws::{frame, handshake, op};
use rustix::fd::{AsFd, BorrowedFd};
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a client heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The handshake was accepted.
    Open,
    /// Or refused.
    Refused,
    Notification {
        id: String,
        n: usize,
        attempt: u64,
    },
    Acked(String),
    /// The server knows nothing (more) of this one.
    InvalidAck(String),
}

/// A connection and what is half read and half written.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    is_open: bool,
    says_nothing: bool,
}

impl Client {
    /// Dials and asks; `None` when nobody accepts.
    pub(crate) fn dial(port: u16, user: usize) -> Option<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_nonblocking(true).ok()?;
        let unsent = handshake(&format!("/ws?token={}", token::of(&format!("u{user}"))), &[]).into_bytes();
        let mut client = Client { stream, unread: Vec::new(), unsent, is_open: false, says_nothing: false };
        client.write();
        Some(client)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    pub(crate) fn wants_to_write(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(crate) fn acknowledge(&mut self, id: &str) {
        let text = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
        self.say(op::FIN | op::TEXT, text.as_bytes());
    }

    /// Begins an orderly end; from now on it only listens.
    pub(crate) fn close(&mut self) {
        self.say(op::FIN | op::CLOSE, &1000_u16.to_be_bytes());
        self.says_nothing = true;
    }

    /// What the client reads from now on is read for the books only: it is silent.
    pub(crate) fn fall_silent(&mut self) {
        self.says_nothing = true;
    }

    fn say(&mut self, first: u8, payload: &[u8]) {
        if !self.says_nothing {
            self.unsent.extend_from_slice(&frame(first, payload));
            self.write();
        }
    }

    /// Sends what the socket takes. An error shows when it is read next.
    pub(crate) fn write(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.unsent.clear(),
            }
        }
    }

    /// Everything the kernel has, as it was heard, and whether the stream has ended.
    pub(crate) fn read(&mut self, heard: &mut Vec<Heard>) -> bool {
        let mut chunk = [0; 64 * 1024];
        loop {
            let ended = match self.stream.read(&mut chunk) {
                Ok(0) => true,
                Ok(read) => {
                    self.unread.extend_from_slice(&chunk[..read]);
                    false
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.parse(heard);
                    return false;
                }
                Err(_) => true,
            };
            if ended {
                self.parse(heard);
                return true;
            }
        }
    }

    fn parse(&mut self, heard: &mut Vec<Heard>) {
        let mut at = 0;
        if !self.is_open {
            let Some(end) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") else { return };
            let head = String::from_utf8_lossy(&self.unread[..end]);
            self.is_open = head.starts_with("HTTP/1.1 101 ");
            if !self.is_open {
                heard.push(Heard::Refused);
                self.unread.clear();
                return;
            }
            heard.push(Heard::Open);
            at = end + 4;
        }
        while let Some((first, from, to)) = next_frame(&self.unread[at..]) {
            let payload = self.unread[at + from..at + to].to_vec();
            at += to;
            match first {
                TEXT => heard.extend(understand(&payload)),
                PING => self.say(op::FIN | op::PONG, &payload),
                CLOSE => {
                    self.say(CLOSE, &payload);
                    self.says_nothing = true;
                }
                PONG => {}
                other => panic!("a frame that nobody asked for: {other:#x}"),
            }
        }
        self.unread.drain(..at);
    }

    /// The next drop cuts the connection: what is unread on either side is gone.
    pub(crate) fn will_reset(&self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("an open socket");
    }
}

const TEXT: u8 = op::FIN | op::TEXT;
const PING: u8 = op::FIN | op::PING;
const PONG: u8 = op::FIN | op::PONG;
const CLOSE: u8 = op::FIN | op::CLOSE;

/// The first byte of a whole frame, and where its payload begins and ends.
fn next_frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (from, len) = match second {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    (bytes.len() >= from + len).then_some((first, from, from + len))
}

fn understand(text: &[u8]) -> Option<Heard> {
    let value: Value = serde_json::from_slice(text).unwrap_or_else(|error| panic!("{error} in a text"));
    let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"));
    match text("type") {
        "notification" => Some(Heard::Notification {
            id: text("id").to_owned(),
            n: value["payload"].as_u64().unwrap_or_else(|| panic!("no number in {value}")) as usize,
            attempt: value["metadata"].get("attempt").map_or(1, |attempt| attempt.as_u64().expect("a number")),
        }),
        "acked" => Some(Heard::Acked(text("notification_id").to_owned())),
        "error" if text("code") == "INVALID_ACK" => {
            let id = text("message").rsplit(' ').next().expect("a message has words");
            Some(Heard::InvalidAck(id.to_owned()))
        }
        "heartbeat" | "shutdown" => None,
        _ => panic!("unexpected: {value}"),
    }
}
