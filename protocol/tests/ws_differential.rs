//! Our decoder and tungstenite hear the same byte streams: thousands of generated ones, right and wrong, whole and
//! torn apart. Both must hear the same messages and come to the same end.
//!
//! They differ on purpose in three ways, which [`compare`] allows and checks one by one:
//!
//! 1. **Sooner.** We refuse a frame by its header, tungstenite when its payload is there. On a stream that ends inside
//!    such a frame tungstenite still waits; once the rest of the frame has come it must refuse, too, unheard.
//! 2. **Longer lengths.** RFC 6455 §5.2 demands the shortest form of a length; tungstenite takes any.
//! 3. **Close 1014**, registered after the RFC: we take it, tungstenite does not.
use fastrand::Rng;
use protocol::ws::decoder::{Decoded, Decoder, WsEvent};
use std::io::{self, Read, Write};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const STREAMS: u64 = 20_000;

/// A frame's worth of anything for tungstenite to wait for: no byte of it makes a length that was begun small, and as
/// its own masking key it turns to zeros.
const REST: u8 = 0xff;

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

#[derive(Debug)]
struct Outcome {
    heard: Vec<Heard>,
    end: End,
}

/// Our side: a growing buffer, as a connection would keep it. Also tells where the last frame begins.
fn ours(pieces: &[&[u8]], bytes_max: usize) -> (Outcome, usize) {
    let mut decoder = Decoder::new();
    let mut buffer = Vec::new();
    let mut heard = Vec::new();
    let mut frame_start = 0;
    let mut promised_bytes = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.clone();
            let consumed = match decoder.decode(&mut buffer, bytes_max) {
                Err(_) => return (Outcome { heard, end: End::Refused }, frame_start),
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
                        WsEvent::Text(text) => heard.push(Heard::Text(text.to_owned())),
                        WsEvent::Binary(bytes) => heard.push(Heard::Binary(bytes.to_vec())),
                        WsEvent::Ping(bytes) => heard.push(Heard::Ping(bytes.to_vec())),
                        WsEvent::Pong(bytes) => heard.push(Heard::Pong(bytes.to_vec())),
                        WsEvent::Fragment => {}
                        WsEvent::Close { code, reason } => {
                            heard.push(Heard::Close(code.map(|code| (code, reason.to_owned()))));
                            return (Outcome { heard, end: End::Closed }, frame_start);
                        }
                    }
                    consumed
                }
            };
            assert!(promised_bytes <= consumed && consumed <= before.len());
            assert_eq!(buffer[consumed..], before[consumed..], "bytes behind the frame were changed");
            promised_bytes = 0;
            frame_start += consumed;
            buffer.drain(..consumed);
        }
    }
    (Outcome { heard, end: End::Waiting }, frame_start)
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

fn theirs(pieces: &[&[u8]], bytes_max: usize) -> Outcome {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
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
            // How it tells of a code that must not be sent. No stream here says these words itself.
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
    Outcome { heard, end }
}

/// How often each outcome came up, so that a generator gone dull fails the test.
#[derive(Debug, Default)]
struct Seen {
    waiting: u32,
    closed: u32,
    refused: u32,
    messages: usize,
    sooner: u32,
    longer_length: u32,
    close_1014: u32,
}

fn compare(stream: &[u8], pieces: &[&[u8]], bytes_max: usize, seen: &mut Seen) {
    let (ours, frame_start) = ours(pieces, bytes_max);
    let theirs = theirs(pieces, bytes_max);
    seen.messages += ours.heard.len();
    match ours.end {
        End::Waiting => seen.waiting += 1,
        End::Closed => seen.closed += 1,
        End::Refused => seen.refused += 1,
    }
    if ours.end == theirs.end && ours.heard == theirs.heard {
        return;
    }
    if ours.end == End::Refused && has_longer_length(&stream[frame_start..]) {
        assert!(theirs.heard.starts_with(&ours.heard), "{ours:?} {theirs:?}");
        seen.longer_length += 1;
        return;
    }
    if let (Some(Heard::Close(Some((1014, _)))), End::Refused) = (ours.heard.last(), theirs.end) {
        assert_eq!(ours.heard[..ours.heard.len() - 1], theirs.heard);
        seen.close_1014 += 1;
        return;
    }
    if (ours.end, theirs.end) == (End::Refused, End::Waiting) {
        assert_eq!(ours.heard, theirs.heard);
        let rest = vec![REST; bytes_max + 1024];
        let finished = self::theirs(&[stream, &rest], bytes_max);
        assert_eq!(finished.end, End::Refused, "tungstenite takes what we refuse: {ours:?} {finished:?}");
        assert_eq!(finished.heard, ours.heard);
        seen.sooner += 1;
        return;
    }
    panic!("ours: {ours:?}\ntungstenite: {theirs:?}");
}

/// Whether a frame's length would fit a shorter form.
fn has_longer_length(frame: &[u8]) -> bool {
    let Some((_, rest)) = frame.split_first() else { return false };
    match rest {
        [second, length @ ..] if second & 0x7f == 126 => {
            length.first_chunk().is_some_and(|length| u16::from_be_bytes(*length) < 126)
        }
        [second, length @ ..] if second & 0x7f == 127 => {
            length.first_chunk().is_some_and(|length| u64::from_be_bytes(*length) < 65_536)
        }
        _ => false,
    }
}

/// One client's stream of frames, mostly right.
struct Talker {
    rng: Rng,
    bytes_max: usize,
    stream: Vec<u8>,
    /// Where each frame begins.
    starts: Vec<usize>,
}

impl Talker {
    fn talk(&mut self) {
        for _ in 0..self.rng.usize(1..8) {
            match self.rng.u8(0..40) {
                0..=15 => self.message(1),
                16..=21 => self.message(2),
                22..=25 => self.frame(0x80 | 9),
                26..=29 => self.frame(0x80 | 10),
                30..=32 => self.close(),
                33 => self.wrong(),
                _ => self.fragments(),
            }
        }
    }

    fn message(&mut self, opcode: u8) {
        let payload = self.payload(opcode == 1);
        self.write(0x80 | opcode, &payload);
    }

    /// A message in fragments, torn between any two bytes, control frames in between; sometimes without its end.
    fn fragments(&mut self) {
        let is_text = self.rng.bool();
        let payload = self.payload(is_text);
        let mut first = if is_text { 1 } else { 2 };
        let mut at = 0;
        for _ in 0..self.rng.usize(0..5) {
            let end = self.rng.usize(at..=payload.len());
            self.write(first, &payload[at..end]);
            (at, first) = (end, 0);
            if self.rng.u8(0..4) == 0 {
                let opcode = self.rng.u8(9..=10);
                self.frame(0x80 | opcode);
            }
        }
        if self.rng.u8(0..16) != 0 {
            self.write(0x80 | first, &payload[at..]);
        }
    }

    fn close(&mut self) {
        let code = match self.rng.u8(0..5) {
            0 | 1 => 1000,
            2 => self.rng.u16(995..1020),
            3 => self.rng.u16(2990..5010),
            _ => self.rng.u16(..),
        };
        let mut payload = code.to_be_bytes().to_vec();
        match self.rng.u8(0..6) {
            0 => payload.clear(),
            1 => payload.truncate(1),
            2 => payload.extend_from_slice("再見".as_bytes()),
            3 => payload.extend_from_slice(&"再見".as_bytes()[..4]),
            4 => payload.resize(125, b'x'),
            _ => {}
        }
        self.write(0x88, &payload);
    }

    /// A first byte nobody should say.
    fn wrong(&mut self) {
        let first = self.rng.u8(..);
        self.frame(first);
    }

    /// A frame of anything, short as control frames are, sometimes a little too long for one.
    fn frame(&mut self, first: u8) {
        let len = if self.rng.u8(0..16) == 0 { self.rng.usize(120..130) } else { self.rng.usize(0..12) };
        let payload: Vec<u8> = (0..len).map(|_| self.rng.u8(..)).collect();
        self.write(first, &payload);
    }

    fn payload(&mut self, is_text: bool) -> Vec<u8> {
        let len = match self.rng.u8(0..32) {
            0 => self.rng.usize(124..129),
            1 => self.bytes_max - 1 + self.rng.usize(0..3),
            2 if self.bytes_max > 65_536 => 65_534 + self.rng.usize(0..4),
            3 => self.rng.usize(0..=self.bytes_max),
            _ => self.rng.usize(0..40),
        };
        if !is_text {
            return (0..len).map(|_| self.rng.u8(..)).collect();
        }
        let mut text = String::new();
        while text.len() < len {
            let character = ['a', ' ', 'é', '訊', '😀', '\u{7ff}', '\u{ffff}', '\u{10ffff}'][self.rng.usize(0..8)];
            if text.len() + character.len_utf8() <= len { text.push(character) } else { text.push('z') }
        }
        let mut bytes = text.into_bytes();
        if self.rng.u8(0..24) == 0 && !bytes.is_empty() {
            let at = self.rng.usize(0..bytes.len());
            bytes[at] = self.rng.u8(..);
        }
        bytes
    }

    /// Writes a frame; now and then unmasked or with a longer length than needed.
    fn write(&mut self, first: u8, payload: &[u8]) {
        self.starts.push(self.stream.len());
        let is_masked = self.rng.u8(0..128) != 0;
        let form = match payload.len() {
            0..=125 => 0,
            126..=65_535 => 1,
            _ => 2,
        };
        let form = if self.rng.u8(0..96) == 0 { self.rng.u8(form..=2) } else { form };
        let mask_bit = if is_masked { 0x80 } else { 0 };
        self.stream.push(first);
        match form {
            0 => self.stream.push(mask_bit | payload.len() as u8),
            1 => {
                self.stream.push(mask_bit | 126);
                self.stream.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            }
            _ => {
                self.stream.push(mask_bit | 127);
                self.stream.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        let key = if is_masked { self.rng.u32(..).to_ne_bytes() } else { [0; 4] };
        if is_masked {
            self.stream.extend_from_slice(&key);
        }
        self.stream.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }

    /// Damages the stream: most often a header, where a bit means something.
    fn mutate(&mut self) {
        if self.stream.is_empty() {
            return;
        }
        let anywhere = self.rng.usize(0..self.stream.len());
        let start = self.starts[self.rng.usize(0..self.starts.len())];
        let in_header = (start + self.rng.usize(0..4)).min(self.stream.len() - 1);
        match self.rng.u8(0..7) {
            0 | 1 => self.stream[in_header] ^= 1 << self.rng.u8(0..8),
            2 => self.stream[in_header] = self.rng.u8(..),
            3 => self.stream[anywhere] = self.rng.u8(..),
            4 => self.stream.truncate(anywhere),
            5 => drop(self.stream.remove(anywhere)),
            _ => self.stream.insert(anywhere, self.rng.u8(..)),
        }
    }

    /// Tears the stream as a network would.
    fn pieces(&mut self) -> (Vec<u8>, Vec<std::ops::Range<usize>>) {
        let stream = std::mem::take(&mut self.stream);
        let piece_max = match self.rng.u8(0..4) {
            // One byte at a time, where that stays cheap.
            0 if stream.len() < 1_000 => 1,
            1 => 7 + stream.len() / 50,
            2 => 100 + stream.len() / 20,
            _ => stream.len().max(1),
        };
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < stream.len() {
            let end = (at + self.rng.usize(1..=piece_max)).min(stream.len());
            ranges.push(at..end);
            at = end;
        }
        (stream, ranges)
    }
}

#[test]
fn both_hear_the_same_and_come_to_the_same_end() {
    let mut seen = Seen::default();
    for seed in 0..STREAMS {
        let mut rng = Rng::with_seed(seed);
        let bytes_max = match rng.u8(0..40) {
            0 => 65_536 + 1_000,
            1..=10 => 40,
            _ => 300,
        };
        let mut talker = Talker { rng, bytes_max, stream: Vec::new(), starts: Vec::new() };
        talker.talk();
        if talker.rng.bool() {
            for _ in 0..talker.rng.usize(1..4) {
                talker.mutate();
            }
        }
        let (stream, ranges) = talker.pieces();
        let pieces: Vec<&[u8]> = ranges.into_iter().map(|range| &stream[range]).collect();
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            compare(&stream, &pieces, bytes_max, &mut seen);
        }));
        assert!(verdict.is_ok(), "seed {seed}, at most {bytes_max} bytes: {}", hex(&stream));
    }
    let enough = STREAMS as u32 / 10;
    assert!(seen.waiting > enough && seen.closed > enough / 2 && seen.refused > enough, "{seen:?}");
    assert!(seen.messages > STREAMS as usize, "{seen:?}");
    assert!(seen.sooner > 100 && seen.longer_length > 100 && seen.close_1014 > 5, "{seen:?}");
}

fn hex(stream: &[u8]) -> String {
    stream.iter().take(200).map(|byte| format!("{byte:02x}")).collect()
}
