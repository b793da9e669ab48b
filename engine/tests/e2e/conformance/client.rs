//! A socket that says bytes and reads frames as strictly as RFC 6455 §5 lets a client.
use super::{BINARY, CLOSE, FIN, Heard, PONG, TEXT, frame};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Turns a hang into a failure.
const DEADLINE: Duration = Duration::from_secs(20);
const READ_BYTES: usize = 256 * 1024;

pub(super) struct Client {
    stream: TcpStream,
    ahead: Vec<u8>,
    /// Where what was not used yet begins.
    at: usize,
}

impl Client {
    /// After the handshake of RFC 6455 §1.3.
    pub(super) fn open(port: u16, path: &str) -> Result<Client, String> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
        for set in [stream.set_nodelay(true), stream.set_read_timeout(Some(DEADLINE))] {
            set.map_err(|error| error.to_string())?;
        }
        stream.set_write_timeout(Some(DEADLINE)).map_err(|error| error.to_string())?;
        let mut client = Client { stream, ahead: Vec::new(), at: 0 };
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: conformance.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        client.say(head.as_bytes(), usize::MAX)?;
        let head = loop {
            if let Some(end) = client.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                client.at = end + 4;
                break String::from_utf8_lossy(&client.ahead[..end]).into_owned();
            }
            client.read_more()?;
        };
        let is_accepted = head.starts_with("HTTP/1.1 101 ");
        match is_accepted && head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=") {
            true => Ok(client),
            false => Err(format!("the handshake was answered by {head}")),
        }
    }

    pub(super) fn say(&mut self, bytes: &[u8], piece_bytes_max: usize) -> Result<(), String> {
        for piece in bytes.chunks(piece_bytes_max.min(bytes.len()).max(1)) {
            self.stream.write_all(piece).map_err(|error| format!("cannot write: {error}"))?;
        }
        Ok(())
    }

    /// The next frame must be this; a text that is expected to end in `…` need only begin so.
    pub(super) fn expect(&mut self, expected: &Heard) -> Result<(), String> {
        let (first, payload) = self.read_frame()?;
        let heard = match first {
            first if first == FIN | TEXT => {
                std::str::from_utf8(&payload).map_err(|error| format!("a text that is none: {error}"))?;
                Heard::Text(payload)
            }
            first if first == FIN | BINARY => Heard::Binary(payload),
            first if first == FIN | PONG => Heard::Pong(payload),
            first => return Err(format!("waited for {}, heard {first:#x} {}", told(expected), begin(&payload))),
        };
        let is_begun = match (&heard, expected) {
            (Heard::Text(heard), Heard::Text(expected)) => {
                expected.strip_suffix("…".as_bytes()).is_some_and(|begin| heard.starts_with(begin))
            }
            _ => false,
        };
        if heard == *expected || is_begun {
            return Ok(());
        }
        Err(format!("waited for {}, heard {}", told(expected), told(&heard)))
    }

    /// The next frame must be a Close with this code, and then the connection ends, in order. `answer` it, when it is not
    /// the answer to ours.
    pub(super) fn expect_close(mut self, code: Option<u16>, answer: bool) -> Result<(), String> {
        let (first, payload) = self.read_frame()?;
        if first != FIN | CLOSE {
            return Err(format!("waited for a Close of {code:?}, heard {first:#x} {}", begin(&payload)));
        }
        let (heard, reason) = match payload.split_first_chunk() {
            Some((code, reason)) => (Some(u16::from_be_bytes(*code)), reason),
            None => (None, payload.as_slice()),
        };
        if heard != code || payload.len() == 1 || std::str::from_utf8(reason).is_err() {
            return Err(format!("waited for a Close of {code:?}, heard one of {heard:?} {}", begin(&payload)));
        }
        if answer {
            // They may have gone already: then there is nobody to answer.
            let _ = self.stream.write_all(&frame(FIN | CLOSE, &payload));
        }
        if self.at < self.ahead.len() {
            return Err(format!("more after the Close: {}", begin(&self.ahead[self.at..])));
        }
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("more after the Close".to_owned()),
            Err(error) => Err(format!("no orderly end after the Close: {error}")),
        }
    }

    fn read_frame(&mut self) -> Result<(u8, Vec<u8>), String> {
        let head = self.take(2)?;
        if head[0] & 0x70 != 0 || head[1] & 0x80 != 0 {
            return Err(format!("reserved bits or a mask in a server's frame: {head:x?}"));
        }
        let (len, least) = match head[1] {
            126 => (usize::from(u16::from_be_bytes([self.take(1)?[0], self.take(1)?[0]])), 126),
            127 => {
                let bytes = self.take(8)?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), 65_536)
            }
            len => (usize::from(len), 0),
        };
        if len < least {
            return Err(format!("{len} bytes are not in their shortest form"));
        }
        Ok((head[0], self.take(len)?))
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, String> {
        while self.ahead.len() - self.at < len {
            self.read_more()?;
        }
        let taken = self.ahead[self.at..self.at + len].to_vec();
        self.at += len;
        if self.at == self.ahead.len() {
            self.ahead.clear();
            self.at = 0;
        }
        Ok(taken)
    }

    fn read_more(&mut self) -> Result<(), String> {
        let end = self.ahead.len();
        self.ahead.resize(end + READ_BYTES, 0);
        let read = self.stream.read(&mut self.ahead[end..]);
        self.ahead.truncate(end + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err("the connection ended".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(format!("nothing came: {error}")),
        }
    }
}

fn told(heard: &Heard) -> String {
    match heard {
        Heard::Text(bytes) => format!("a text of {} bytes, {}", bytes.len(), begin(bytes)),
        Heard::Binary(bytes) => format!("{} bytes, {}", bytes.len(), begin(bytes)),
        Heard::Pong(bytes) => format!("a pong of {} bytes, {}", bytes.len(), begin(bytes)),
    }
}

/// The beginning, readable.
fn begin(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(80)].escape_ascii().to_string()
}
