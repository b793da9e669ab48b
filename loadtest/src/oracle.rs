//! The full read: a connection's bytes once more, through tungstenite and simd-json, compared with the cheap scan.
use crate::payload::{EVENT_TYPE, Stationery};
use crate::scan::Mark;
use serde::Deserialize;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};

/// A second opinion on one connection.
pub struct Oracle {
    /// `None` for SSE, whose events are handed over as texts.
    websocket: Option<(WebSocketContext, Feed)>,
    /// What the cheap scan saw since the last comparison, in order.
    scanned: VecDeque<Mark>,
    stationery: Stationery,
    /// Messages compared.
    pub verified: u64,
}

#[derive(Deserialize)]
struct Notification<'a> {
    r#type: &'a str,
    id: &'a str,
    occurred_at: &'a str,
    event_type: &'a str,
    payload: Numbers,
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
struct Numbers {
    stream: u32,
    seq: u64,
    sent_us: u64,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    source: &'a str,
    priority: &'a str,
}

impl Oracle {
    /// For a WebSocket, from its first frame on.
    pub fn websocket(stationery: Stationery) -> Oracle {
        let config = WebSocketConfig::default().read_buffer_size(16 * 1_024);
        let context = WebSocketContext::new(Role::Client, Some(config));
        Oracle { websocket: Some((context, Feed::default())), scanned: VecDeque::new(), stationery, verified: 0 }
    }

    /// For an SSE stream.
    pub fn sse(stationery: Stationery) -> Oracle {
        Oracle { websocket: None, scanned: VecDeque::new(), stationery, verified: 0 }
    }

    /// Notes what the cheap scan saw.
    pub fn scanned(&mut self, mark: Mark) {
        self.scanned.push_back(mark);
    }

    /// Reads the bytes the cheap scan has just read, and compares. The sentence says what differs.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some((context, feed)) = &mut self.websocket else { return Ok(()) };
        feed.0.extend(bytes);
        let mut texts = Vec::new();
        loop {
            match context.read(feed) {
                Ok(Message::Text(text)) => texts.push(text.as_bytes().to_vec()),
                Ok(Message::Binary(_)) => return Err("a binary frame".to_owned()),
                Ok(_) => {}
                Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(tungstenite::Error::ConnectionClosed) => break,
                Err(error) => return Err(format!("tungstenite: {error}")),
            }
        }
        texts.into_iter().try_for_each(|text| self.text(text))?;
        if self.scanned.is_empty() { Ok(()) } else { Err("the scan saw more messages than tungstenite".to_owned()) }
    }

    /// Reads one message text in full and compares it with the oldest scan.
    pub fn text(&mut self, mut text: Vec<u8>) -> Result<(), String> {
        if !text.starts_with(br#"{"type":"notification""#) {
            return Ok(());
        }
        let original = text.clone();
        let notification: Notification =
            simd_json::serde::from_slice(&mut text).map_err(|error| format!("not the JSON of a message: {error}"))?;
        let mark = Mark {
            stream: notification.payload.stream,
            seq: notification.payload.seq,
            sent_us: notification.payload.sent_us,
        };
        let scanned = self.scanned.pop_front();
        if scanned != Some(mark) {
            return Err(format!("scanned {scanned:?}, parsed {mark:?}"));
        }
        self.envelope(&notification, &original)?;
        self.verified += 1;
        Ok(())
    }

    fn envelope(&self, notification: &Notification, text: &[u8]) -> Result<(), String> {
        let wrong = |what: &str, value: &str| Err(format!("{what} {value:?}"));
        let id = notification.id;
        if notification.r#type != "notification" {
            return wrong("type", notification.r#type);
        }
        if uuid::Uuid::try_parse(id).is_err() || id.len() != 36 || id.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return wrong("id", id);
        }
        let time = notification.occurred_at.as_bytes();
        let punctuated = time.get(4) == Some(&b'-') && time.get(10) == Some(&b'T') && time.last() == Some(&b'Z');
        if !punctuated || !(20..=30).contains(&time.len()) {
            return wrong("occurred_at", notification.occurred_at);
        }
        if notification.event_type != EVENT_TYPE {
            return wrong("event_type", notification.event_type);
        }
        let source = notification.metadata.source;
        if source != "http-api" && !source.starts_with("redis:") {
            return wrong("metadata.source", source);
        }
        if notification.metadata.priority != "Normal" {
            return wrong("metadata.priority", notification.metadata.priority);
        }
        // The payload must be the publisher's, byte for byte (contract C-2).
        let mut sent = Vec::new();
        let numbers = &notification.payload;
        self.stationery.write(&mut sent, source.len(), numbers.stream, numbers.seq, numbers.sent_us);
        if memchr::memmem::find(text, &sent).is_none() {
            return wrong("a payload that is not what was published:", &String::from_utf8_lossy(text));
        }
        Ok(())
    }
}

/// Bytes in memory as the stream tungstenite reads from; what it wants to write is dropped, because the client itself
/// answers pings and closes.
#[derive(Default)]
struct Feed(VecDeque<u8>);

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64, source: &str) -> Vec<u8> {
        let mut text = format!(
            r#"{{"type":"notification","id":"{}","occurred_at":"2026-01-02T03:04:05.123456789Z","event_type":"load.test","payload":"#,
            uuid::Uuid::nil()
        )
        .into_bytes();
        Stationery::new("r", 400).write(&mut text, source.len(), 1, seq, 5);
        text.extend_from_slice(format!(r#","metadata":{{"source":"{source}","priority":"Normal"}}}}"#).as_bytes());
        text
    }

    fn frame(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x81, 126];
        bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
        bytes.extend_from_slice(text);
        bytes
    }

    #[test]
    fn both_readers_agree_or_it_is_said() {
        let mut oracle = Oracle::websocket(Stationery::new("r", 400));
        let bytes = frame(&message(0, "http-api"));
        assert_eq!(oracle.read(&bytes[..50]), Ok(()));
        oracle.scanned(Mark { stream: 1, seq: 0, sent_us: 5 });
        assert_eq!(oracle.read(&bytes[50..]), Ok(()));
        assert_eq!(oracle.verified, 1);
        oracle.scanned(Mark { stream: 1, seq: 2, sent_us: 5 });
        assert!(oracle.read(&frame(&message(1, "http-api"))).unwrap_err().contains("scanned"));
    }

    #[test]
    fn a_changed_message_is_found() {
        for (from, to) in [("xx", "xy"), ("Normal", "normal"), ("http-api", "httpsapi"), ("05.1", "0501"), ("Z", "z")] {
            let mut oracle = Oracle::sse(Stationery::new("r", 400));
            oracle.scanned(Mark { stream: 1, seq: 0, sent_us: 5 });
            let text = String::from_utf8(message(0, "http-api")).unwrap().replacen(from, to, 1);
            assert_eq!(oracle.text(text.into_bytes()).is_err(), from != "05.1", "{from} -> {to}");
        }
    }
}
