//! What our decoder and tungstenite hear of a client's stream of frames, and how they may differ.
//!
//! They differ on purpose in three ways, which [`compare`] allows and checks one by one:
//!
//! 1. **Sooner.** We refuse a frame by its header, tungstenite when its payload is there. On a stream that ends inside
//!    such a frame tungstenite still waits; once the rest of the frame has come it must refuse, too, unheard.
//! 2. **Longer lengths.** RFC 6455 §5.2 demands the shortest form of a length; tungstenite takes any.
//! 3. **Close 1014**, registered after the RFC: we take it, tungstenite does not.
use protocol::ws::decoder::{DecodeError, Decoded, Decoder, WsEvent};
use std::io::{self, Read, Write};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

/// The one registered after RFC 6455 that we take and tungstenite does not.
const BAD_GATEWAY: u16 = 1014;

/// A frame's worth of anything for tungstenite to wait for: no byte of it makes a length that was begun small, and as
/// its own masking key it turns to zeros.
const REST: u8 = 0xff;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Waiting,
    Closed,
    Refused,
}

/// What tungstenite comes to.
#[derive(Debug, PartialEq, Eq)]
struct Theirs {
    heard: Vec<Heard>,
    end: End,
}

/// What our decoder comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ours {
    pub(crate) heard: Vec<Heard>,
    pub(crate) end: End,
    /// Why it refused.
    pub(crate) refusal: Option<DecodeError>,
    /// Where the frame begins that came last, or is awaited.
    frame_start: usize,
}

/// In which of the three ways they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    Sooner,
    LongerLength,
    Close1014,
}

/// Our side: a growing buffer, as a connection would keep it.
pub(crate) fn ours(pieces: &[&[u8]], bytes_max: usize) -> Ours {
    let (mut decoder, mut buffer) = (Decoder::new(), Vec::new());
    let mut ours = Ours { heard: Vec::new(), end: End::Waiting, refusal: None, frame_start: 0 };
    let mut promised_bytes = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.clone();
            let consumed = match decoder.decode(&mut buffer, bytes_max) {
                Err(error) => return Ours { end: End::Refused, refusal: Some(error), ..ours },
                Ok(Decoded::NeedMore { frame_bytes }) => {
                    assert!(frame_bytes > before.len(), "asked for {frame_bytes} of {} bytes", before.len());
                    assert!(frame_bytes <= bytes_max.max(125) + 14);
                    assert!(frame_bytes >= promised_bytes, "a frame shrank");
                    promised_bytes = frame_bytes;
                    assert_eq!(buffer, before, "an incomplete frame was changed");
                    break;
                }
                Ok(Decoded::Frame { consumed, event }) => {
                    match event {
                        WsEvent::Text(text) => ours.heard.push(Heard::Text(text.to_owned())),
                        WsEvent::Binary(bytes) => ours.heard.push(Heard::Binary(bytes.to_vec())),
                        WsEvent::Ping(bytes) => ours.heard.push(Heard::Ping(bytes.to_vec())),
                        WsEvent::Pong(bytes) => ours.heard.push(Heard::Pong(bytes.to_vec())),
                        WsEvent::Fragment => {}
                        WsEvent::Close { code, reason } => {
                            ours.heard.push(Heard::Close(code.map(|code| (code, reason.to_owned()))));
                            return Ours { end: End::Closed, ..ours };
                        }
                    }
                    consumed
                }
            };
            assert!(promised_bytes <= consumed && consumed <= before.len());
            assert_eq!(buffer[consumed..], before[consumed..], "bytes behind the frame were changed");
            promised_bytes = 0;
            ours.frame_start += consumed;
            buffer.drain(..consumed);
        }
    }
    ours
}

/// A socket that gives one piece per read and then nothing, and takes every answer.
struct Wire<'a> {
    pieces: std::slice::Iter<'a, &'a [u8]>,
    piece: &'a [u8],
}

impl Read for Wire<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            self.piece = self.pieces.next().ok_or(io::ErrorKind::WouldBlock)?;
        }
        self.piece.read(out)
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

fn theirs(pieces: &[&[u8]], bytes_max: usize) -> Theirs {
    let config = WebSocketConfig::default()
        .read_buffer_size(4_096)
        .max_message_size(Some(bytes_max))
        .max_frame_size(Some(bytes_max.max(125)));
    let wire = Wire { pieces: pieces.iter(), piece: &[] };
    let mut socket = WebSocket::from_raw_socket(wire, Role::Server, Some(config));
    let mut heard = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => heard.push(Heard::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => heard.push(Heard::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => heard.push(Heard::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => heard.push(Heard::Pong(bytes.to_vec())),
            // How it tells of a code that must not be sent.
            Ok(Message::Close(Some(frame)))
                if frame.code == CloseCode::Protocol && frame.reason.as_str() == "Protocol violation" =>
            {
                break End::Refused;
            }
            Ok(Message::Close(frame)) => {
                heard.push(Heard::Close(frame.map(|frame| (frame.code.into(), frame.reason.to_string()))));
                break End::Closed;
            }
            Ok(Message::Frame(frame)) => panic!("a bare frame was read: {frame}"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break End::Waiting,
            Err(Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_)) => break End::Refused,
            Err(error) => panic!("not an answer to bytes: {error}"),
        }
    };
    Theirs { heard, end }
}

/// Lets tungstenite hear the pieces of a stream, too, and panics when it differs from `ours` in a way that is not allowed.
pub(crate) fn compare(stream: &[u8], pieces: &[&[u8]], ours: &Ours, bytes_max: usize) -> Option<Difference> {
    let theirs = theirs(pieces, bytes_max);
    let told = || format!("ours: {ours:?}\ntungstenite: {theirs:?}");
    if ours.end == theirs.end && ours.heard == theirs.heard {
        return None;
    }
    Some(match (ours.end, theirs.end, ours.heard.split_last()) {
        (End::Refused, ..) if has_longer_length(&stream[ours.frame_start..]) => {
            assert!(theirs.heard.starts_with(&ours.heard), "{}", told());
            Difference::LongerLength
        }
        (End::Closed, End::Refused, Some((Heard::Close(Some((BAD_GATEWAY, _))), before))) => {
            assert_eq!(before, theirs.heard, "{}", told());
            Difference::Close1014
        }
        (End::Refused, End::Waiting, _) => {
            assert_eq!(ours.heard, theirs.heard, "{}", told());
            // All the frame could still need.
            let finished = self::theirs(&[stream, &vec![REST; bytes_max + 1_024]], bytes_max);
            assert_eq!(finished.end, End::Refused, "tungstenite takes what we refuse: {finished:?}\n{}", told());
            assert_eq!(finished.heard, ours.heard, "{}", told());
            Difference::Sooner
        }
        _ => panic!("{}", told()),
    })
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
