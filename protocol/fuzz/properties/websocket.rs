//! Frames of clients: our decoder and tungstenite hear the same.
use super::{rng_of, torn};
use protocol::ws::decoder::{Decoded, Decoder, WsEvent};
use std::io::{self, Read, Write};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// The one registered after RFC 6455 that we take and tungstenite does not.
const BAD_GATEWAY: u16 = 1014;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Waiting,
    Closed,
    Refused,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    heard: Vec<Heard>,
    end: End,
    /// Where the frame begins that came last, or is awaited.
    frame_start: usize,
}

/// A stream of frames comes to the same messages and the same end whole, torn, and read by tungstenite.
///
/// tungstenite may differ in three ways, as `tests/ws_differential.rs` explains: it refuses later, it takes lengths
/// that are longer than they need be, and it refuses code 1014.
pub fn decoder(stream: &[u8]) {
    let mut rng = rng_of(stream);
    for bytes_max in [40, 65_536] {
        let whole = ours(&[stream], bytes_max);
        assert_eq!(ours(&torn(stream, &mut rng), bytes_max), whole, "torn and whole, at most {bytes_max} bytes");
        let theirs = theirs(stream, bytes_max);
        compare(stream, &whole, theirs, bytes_max);
    }
}

fn compare(stream: &[u8], ours: &Outcome, (heard, end): (Vec<Heard>, End), bytes_max: usize) {
    let told = || format!("ours: {ours:?}\ntungstenite: {heard:?}, {end:?}");
    if ours.end == end && ours.heard == heard {
        return;
    }
    match (ours.end, end, ours.heard.split_last()) {
        (End::Refused, ..) if has_longer_length(&stream[ours.frame_start..]) => {
            assert!(heard.starts_with(&ours.heard), "{}", told());
        }
        (End::Closed, End::Refused, Some((Heard::Close(Some((BAD_GATEWAY, _))), before))) => {
            assert_eq!(before, heard, "{}", told());
        }
        (End::Refused, End::Waiting, _) => {
            assert_eq!(ours.heard, heard, "{}", told());
            // All the frame could still need; as a key of its own it turns to zeros.
            let finished = [stream, &vec![0xff; bytes_max + 1_024]].concat();
            assert_eq!(theirs(&finished, bytes_max), (heard.clone(), End::Refused), "{}", told());
        }
        _ => panic!("{}", told()),
    }
}

fn ours(pieces: &[&[u8]], bytes_max: usize) -> Outcome {
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
    let mut outcome = Outcome { heard: Vec::new(), end: End::Waiting, frame_start: 0 };
    let mut promised_bytes = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.clone();
            let consumed = match decoder.decode(&mut buffer, bytes_max) {
                Err(error) => {
                    assert!(matches!(error.close_code().0, 1002 | 1007 | 1009));
                    super::assert_telling(error.reason(), 123);
                    super::assert_telling(&error.to_string(), 123);
                    outcome.end = End::Refused;
                    return outcome;
                }
                Ok(Decoded::NeedMore { frame_bytes }) => {
                    assert!(before.len() < frame_bytes && frame_bytes <= bytes_max.max(125) + 14);
                    assert!(promised_bytes <= frame_bytes, "a frame shrank");
                    promised_bytes = frame_bytes;
                    assert_eq!(buffer, before, "an incomplete frame was changed");
                    break;
                }
                Ok(Decoded::Frame { consumed, event }) => {
                    match event {
                        WsEvent::Text(text) => outcome.heard.push(Heard::Text(text.to_owned())),
                        WsEvent::Binary(bytes) => outcome.heard.push(Heard::Binary(bytes.to_vec())),
                        WsEvent::Ping(bytes) => outcome.heard.push(Heard::Ping(bytes.to_vec())),
                        WsEvent::Pong(bytes) => outcome.heard.push(Heard::Pong(bytes.to_vec())),
                        WsEvent::Fragment => {}
                        WsEvent::Close { code, reason } => {
                            outcome.heard.push(Heard::Close(code.map(|code| (code, reason.to_owned()))));
                            outcome.end = End::Closed;
                            return outcome;
                        }
                    }
                    consumed
                }
            };
            assert!(promised_bytes <= consumed && consumed <= before.len());
            assert_eq!(buffer[consumed..], before[consumed..], "bytes behind the frame were changed");
            promised_bytes = 0;
            outcome.frame_start += consumed;
            buffer.drain(..consumed);
        }
    }
    outcome
}

/// A socket that gives what it holds and then nothing, and takes every answer.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(out) }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(stream: &[u8], bytes_max: usize) -> (Vec<Heard>, End) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4_096)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max.max(125)));
    let mut socket = WebSocket::from_raw_socket(Wire(stream), Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        heard.push(match socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Heard::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Heard::Pong(bytes.to_vec()),
            // How it tells of a code that must not be sent.
            Ok(Message::Close(Some(frame)))
                if frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation" =>
            {
                return (heard, End::Refused);
            }
            Ok(Message::Close(frame)) => {
                heard.push(Heard::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string()))));
                return (heard, End::Closed);
            }
            Ok(Message::Frame(frame)) => panic!("a bare frame was read: {frame}"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (heard, End::Waiting),
            Err(Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_)) => return (heard, End::Refused),
            Err(error) => panic!("not an answer to bytes: {error}"),
        });
    }
}

/// Whether a frame's length would fit a shorter form.
fn has_longer_length(frame: &[u8]) -> bool {
    let Some((second, length)) = frame.get(1..).and_then(<[u8]>::split_first) else { return false };
    match second & 0x7f {
        126 => length.first_chunk().is_some_and(|length| u16::from_be_bytes(*length) < 126),
        127 => length.first_chunk().is_some_and(|length| u64::from_be_bytes(*length) < 65_536),
        _ => false,
    }
}
