//! Text and binary messages come back, pings are answered, a Close is echoed; what breaks RFC 6455 is refused as the
//! service refuses it. Head, handshake, frames, close codes and deadlines are the service's own; only the bounds of
//! [`BYTES_MAX`] and what is done with a message are not.
use protocol::clock;
use protocol::http::cors::Cors;
use protocol::http::error::ApiError;
use protocol::http::head::{self, HeadStatus, RequestHead};
use protocol::http::response::Responder;
use protocol::http::{Method, Version};
use protocol::limits;
use protocol::ws::close::CloseCode;
use protocol::ws::decoder::{Decoded, Decoder, WsEvent};
use protocol::ws::encoder::{Opcode, write_close, write_frame};
use protocol::ws::handshake::{self, Offer};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// A message, and so a frame: 16 MiB, inclusive. Longer: close 1009.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Clients at the same time, each a thread. One more is hung up on.
const CLIENTS_MAX: usize = 256;
/// Room that is kept between messages.
const ROOM_BYTES: usize = 1024 * 1024;

/// Serves every client that comes, as long as the listener lives.
pub(crate) fn listen(listener: &TcpListener) {
    let clients = Arc::new(());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if Arc::strong_count(&clients) > CLIENTS_MAX {
            continue;
        }
        let client = Arc::clone(&clients);
        thread::spawn(move || {
            // A client that is gone, or too slow, is nobody's error.
            let _ = serve(stream);
            drop(client);
        });
    }
}

/// One client, from its first byte to the end.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_millis(limits::HTTP_IDLE_DEADLINE_MS)))?;
    stream.set_write_timeout(Some(Duration::from_millis(limits::HTTP_WRITE_DEADLINE_MS)))?;
    let (mut echo, mut input, mut output) = (Echo::default(), Vec::new(), Vec::new());
    let mut readable = vec![0; limits::READ_BYTES_MAX];
    while !echo.is_over {
        let len = match stream.read(&mut readable) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        input.extend_from_slice(&readable[..len]);
        let used = echo.take(&mut input, &mut output);
        // At most one read is behind a frame that was used: the rest is short.
        input.drain(..used);
        stream.write_all(&output)?;
        output.clear();
        input.shrink_to(ROOM_BYTES);
        output.shrink_to(ROOM_BYTES);
    }
    // The peer may still be sending: closing now would reset the connection and take the Close frame with it.
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + Duration::from_millis(limits::CLOSE_LINGER_MS);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        if stream.read(&mut readable)? == 0 {
            return Ok(());
        }
    }
}

/// What is remembered of a client between its bytes.
#[derive(Default)]
struct Echo {
    is_open: bool,
    is_over: bool,
    decoder: Decoder,
}

impl Echo {
    /// Uses what is whole at the front of `input` and appends the answers; how many bytes were used.
    fn take(&mut self, input: &mut [u8], output: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while !self.is_over {
            let used =
                if self.is_open { self.frame(&mut input[at..], output) } else { self.head(&input[at..], output) };
            match used {
                Some(used) => at += used,
                None => break,
            }
        }
        at
    }

    fn head(&mut self, input: &[u8], output: &mut Vec<u8>) -> Option<usize> {
        let (accept, len) = match head::parse(input) {
            Ok(HeadStatus::Partial) => return None,
            Ok(HeadStatus::Complete { head, len }) => (accept(&head), len),
            Err(error) => (Err((error.into(), false)), input.len()),
        };
        let mut date = Vec::new();
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        clock::write_http_date(&mut date, unix.as_secs());
        let cors = Cors::any();
        let responder = Responder {
            version: Version::Http11,
            keep_alive: false,
            head_only: false,
            date: &date,
            cors: &cors,
            origin: None,
            quota: None,
        };
        (self.is_open, self.is_over) = (accept.is_ok(), accept.is_err());
        match accept {
            Ok(accept) => responder.write_switching(output, &accept),
            Err((error, true)) => {
                let extra = [("upgrade", "websocket"), ("sec-websocket-version", "13")];
                responder.write_error_with(output, &error, false, &extra);
            }
            Err((error, false)) => responder.write_error(output, &error, false),
        }
        Some(len)
    }

    fn frame(&mut self, input: &mut [u8], output: &mut Vec<u8>) -> Option<usize> {
        match self.decoder.decode(input, BYTES_MAX) {
            Ok(Decoded::NeedMore { .. }) => None,
            Ok(Decoded::Frame { consumed, event }) => {
                match event {
                    WsEvent::Text(text) => write_frame(output, Opcode::Text, text.as_bytes()),
                    WsEvent::Binary(bytes) => write_frame(output, Opcode::Binary, bytes),
                    WsEvent::Ping(payload) => write_frame(output, Opcode::Pong, payload),
                    WsEvent::Pong(_) | WsEvent::Fragment => {}
                    WsEvent::Close { code, .. } => {
                        self.is_over = true;
                        match code {
                            Some(code) => write_close(output, CloseCode(code), ""),
                            None => write_frame(output, Opcode::Close, &[]),
                        }
                    }
                }
                Some(consumed)
            }
            Err(error) => {
                self.is_over = true;
                write_close(output, error.close_code(), error.reason());
                Some(input.len())
            }
        }
    }
}

/// The answer to the client's key, or the refusal, and whether it names our version.
fn accept(head: &RequestHead<'_>) -> Result<String, (ApiError, bool)> {
    let offer = Offer {
        is_get_http11: head.method == Method::Get && head.version == Version::Http11,
        connection_upgrade: head.upgrade.connection_upgrade,
        upgrade_websocket: head.upgrade.upgrade_websocket,
        version: head.upgrade.version,
        key: head.upgrade.key,
    };
    handshake::accept(&offer).map_err(|error| {
        let mut refusal = ApiError::bad_request(error.message());
        refusal.status = error.status();
        (refusal, error.wants_version_header())
    })
}
