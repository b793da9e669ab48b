//! WebSocket clients: tungstenite for well-behaved conversations, bare frames for the rest.
use super::http::Connection;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tungstenite::{Message, WebSocket};

pub(crate) const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;

/// A client that reads by tungstenite, with a deadline on every read.
pub(crate) struct Ws<S = TcpStream>(pub(crate) WebSocket<S>);

impl Ws {
    /// `/ws?token=…`, which must be accepted.
    #[track_caller]
    pub(crate) fn connect(port: u16, token: &str) -> Ws {
        Ws::open(port, &format!("/ws?token={token}"), &[])
            .unwrap_or_else(|(status, body)| panic!("handshake refused: {status} {body}"))
    }

    /// The opening handshake with these extra headers, or the refusal's status and body.
    #[track_caller]
    pub(crate) fn open(port: u16, path: &str, headers: &[(&'static str, &str)]) -> Result<Ws, (u16, String)> {
        Ws::open_over(Connection::open(port), path, headers)
    }

    /// The same over a connection that has said nothing yet.
    #[track_caller]
    pub(crate) fn open_over(
        connection: Connection,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Ws, (u16, String)> {
        let to = connection.stream.peer_addr().expect("it is connected");
        Ws::open_on(connection.stream, &to.to_string(), path, headers)
    }
}

impl<S: Read + Write> Ws<S> {
    /// The opening handshake over any stream, with the host that the server is told.
    #[track_caller]
    pub(crate) fn open_on(
        stream: S,
        host: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Ws<S>, (u16, String)> {
        let mut request = format!("ws://{host}{path}").into_client_request().expect("a good URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a good header"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Ws(socket)),
            Err(HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let status = response.status().as_u16();
                Err((status, String::from_utf8(response.into_body().unwrap_or_default()).expect("bodies are UTF-8")))
            }
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }

    #[track_caller]
    pub(crate) fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("the server reads");
    }

    /// The next text, heartbeats aside.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> String {
        loop {
            match self.0.read().unwrap_or_else(|error| panic!("waited for a text: {error}")) {
                Message::Text(text) if text.as_str() == HEARTBEAT => {}
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("waited for a text, got {other:?}"),
            }
        }
    }

    /// Says something and hears exactly this.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str, answer: &str) {
        self.say(text);
        assert_eq!(self.hear(), answer, "to {text}");
    }

    /// Subscribes and hears that it is.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, channels: &[&str]) {
        let names = serde_json::to_string(channels).expect("names are JSON");
        self.ask(
            &format!(r#"{{"type":"Subscribe","payload":{{"channels":{names}}}}}"#),
            &format!(r#"{{"type":"subscribed","payload":{names}}}"#),
        );
    }

    /// The next text, which must be a notification, parsed.
    #[track_caller]
    pub(crate) fn notification(&mut self) -> Value {
        let text = self.hear();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        assert_eq!(value["type"], "notification", "{text}");
        value
    }

    /// The payload of the next notification.
    #[track_caller]
    pub(crate) fn payload(&mut self) -> Value {
        self.notification()["payload"].take()
    }

    /// The next text, which must be an error with this code; returns its message.
    #[track_caller]
    pub(crate) fn error(&mut self, code: &str) -> String {
        let text = self.hear();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
        let message = value["message"].as_str().unwrap_or_else(|| panic!("no message in {text}")).to_owned();
        let quoted = serde_json::to_string(&message).expect("text is JSON");
        assert_eq!(text, format!(r#"{{"type":"error","code":"{code}","message":{quoted}}}"#));
        message
    }

    /// Reads until the server's Close frame and returns its code, then the end of the connection.
    #[track_caller]
    pub(crate) fn await_close(&mut self) -> Option<u16> {
        let code = loop {
            match self.0.read().unwrap_or_else(|error| panic!("waited for a close: {error}")) {
                Message::Close(frame) => break frame.map(|frame| u16::from(frame.code)),
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("waited for a close, got {other:?}"),
            }
        };
        match self.0.read() {
            Err(tungstenite::Error::ConnectionClosed) => {}
            other => panic!("expected the end of the connection, got {other:?}"),
        }
        code
    }

    /// Begins the close and returns the code the server echoes.
    #[track_caller]
    pub(crate) fn close(&mut self, code: u16) -> Option<u16> {
        let frame = CloseFrame { code: CloseCode::from(code), reason: "bye".into() };
        self.0.close(Some(frame)).expect("the server reads");
        self.await_close()
    }
}

/// Opcodes of RFC 6455 §11.8.
pub(crate) mod op {
    pub(crate) const CONTINUATION: u8 = 0;
    pub(crate) const TEXT: u8 = 1;
    pub(crate) const BINARY: u8 = 2;
    pub(crate) const CLOSE: u8 = 8;
    pub(crate) const PING: u8 = 9;
    pub(crate) const PONG: u8 = 10;
    pub(crate) const FIN: u8 = 0x80;
}

/// A client frame, masked. `first` is the first byte: FIN, RSV bits and opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// A client that sends and sees bare frames.
#[derive(Debug)]
pub(crate) struct RawWs(pub(crate) Connection);

impl RawWs {
    #[track_caller]
    pub(crate) fn connect(port: u16, token: &str) -> RawWs {
        let mut connection = Connection::open(port);
        connection.send(handshake(&format!("/ws?token={token}"), &[]));
        let response = connection.read_head();
        assert_eq!(response.status, 101, "{response:?}");
        RawWs(connection)
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes);
    }

    /// The next frame: its first byte and its payload. Server frames are never masked.
    #[track_caller]
    pub(crate) fn read(&mut self) -> (u8, Vec<u8>) {
        let head = self.0.read_exact(2);
        let len = match head[1] {
            126 => usize::from(u16::from_be_bytes(self.0.read_exact(2).try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.0.read_exact(8).try_into().expect("eight bytes")) as usize,
            len => {
                assert!(len < 126, "a masked server frame");
                usize::from(len)
            }
        };
        (head[0], self.0.read_exact(len))
    }

    /// Asserts a Close frame with this code, answers it, and asserts the end of the connection.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) {
        let (first, payload) = self.read();
        assert_eq!(first, op::FIN | op::CLOSE, "{payload:?}");
        assert!(payload.len() >= 2, "a Close frame without a code");
        assert_eq!(u16::from_be_bytes([payload[0], payload[1]]), code, "{:?}", String::from_utf8_lossy(&payload[2..]));
        assert!(std::str::from_utf8(&payload[2..]).is_ok(), "a reason is UTF-8");
        // The server may have gone already; then there is nobody to answer.
        let _ = std::io::Write::write_all(&mut self.0.stream, &frame(op::FIN | op::CLOSE, &code.to_be_bytes()));
        self.0.expect_end();
    }
}

/// The sample handshake of RFC 6455 §1.3; the answer's `sec-websocket-accept` is known.
pub(crate) fn handshake(path: &str, headers: &[(&str, &str)]) -> String {
    let mut out = format!(
        "GET {path} HTTP/1.1\r\nHost: ara.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    );
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out
}
