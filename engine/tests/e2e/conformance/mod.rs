//! What conformance suites ask of a WebSocket server, case by case: the 301 cases of sections 1 to 7, 9 and 10 of the
//! Autobahn TestSuite, by its numbers, written anew from what its public list describes. Sections 12 and 13 are about
//! compression, which is not offered.
//!
//! A case is what is said, what must be heard, and who closes with which code; where a suite waits a second to see
//! whether anything happens, a case waits for what must happen. Where a suite takes several outcomes, only the strict
//! one counts here.
mod client;
mod closing;
mod framing;
mod sizes;
mod text;

use client::Client;

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// One case.
pub(crate) struct Case {
    /// Its number in the suite.
    pub(crate) number: String,
    steps: Vec<Step>,
    end: End,
    /// The longest message in it.
    pub(crate) message_bytes: usize,
}

enum Step {
    /// These bytes, in writes of at most so many.
    Say(Vec<u8>, usize),
    /// The next thing heard.
    Hear(Heard),
}

/// What a server says beside Close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
}

#[derive(Clone, Copy)]
enum End {
    /// We close with 1000 when all was heard, and are answered by the same.
    Ours,
    /// One of the steps was our Close; it is answered by this code, or by none.
    Answered(Option<u16>),
    /// They close, with this code.
    Theirs(u16),
}

/// What the server answers to what it hears: an echo the same, a service something of its own.
pub(crate) type AnswerOf = fn(Heard) -> Heard;

/// The sections and how many cases each has.
pub(crate) const SECTIONS: [(u8, usize); 9] =
    [(1, 16), (2, 11), (3, 7), (4, 10), (5, 20), (6, 145), (7, 37), (9, 54), (10, 1)];

/// The cases of a section.
pub(crate) fn section(number: u8) -> Vec<Case> {
    match number {
        1 => framing::lengths(),
        2 => framing::pings(),
        3 => framing::reserved_bits(),
        4 => framing::reserved_opcodes(),
        5 => framing::fragments(),
        6 => text::all(),
        7 => closing::all(),
        9 => sizes::all(),
        10 => sizes::fragmented_by_the_sender(),
        _ => Vec::new(),
    }
}

/// Goes through a case against the server that listens there, at this path.
#[track_caller]
pub(crate) fn run(case: &Case, port: u16, path: &str, answer_of: AnswerOf) {
    let told = |reason: String| -> ! { panic!("case {}: {reason}", case.number) };
    let mut client = Client::open(port, path).unwrap_or_else(|error| told(error));
    for step in &case.steps {
        let done = match step {
            Step::Say(bytes, piece_bytes_max) => client.say(bytes, *piece_bytes_max),
            Step::Hear(said) => client.expect(&answer_of(said.clone())),
        };
        done.unwrap_or_else(|error| told(error));
    }
    let ended = match case.end {
        End::Ours => client.say(&close(1000, b""), usize::MAX).and_then(|()| client.expect_close(Some(1000), false)),
        End::Answered(code) => client.expect_close(code, false),
        End::Theirs(code) => client.expect_close(Some(code), true),
    };
    ended.unwrap_or_else(|error| told(error));
}

impl Case {
    fn new(number: impl Into<String>) -> Case {
        Case { number: number.into(), steps: Vec::new(), end: End::Ours, message_bytes: 0 }
    }

    /// In one write.
    fn say(self, bytes: Vec<u8>) -> Case {
        self.say_in_pieces(bytes, usize::MAX)
    }

    fn say_in_pieces(mut self, bytes: Vec<u8>, piece_bytes_max: usize) -> Case {
        self.steps.push(Step::Say(bytes, piece_bytes_max));
        self
    }

    /// Each in a write of its own.
    fn say_each(mut self, frames: Vec<Vec<u8>>) -> Case {
        self.steps.extend(frames.into_iter().map(|frame| Step::Say(frame, usize::MAX)));
        self
    }

    fn hear(mut self, heard: Heard) -> Case {
        if let Heard::Text(bytes) | Heard::Binary(bytes) = &heard {
            self.message_bytes = self.message_bytes.max(bytes.len());
        }
        self.steps.push(Step::Hear(heard));
        self
    }

    fn hear_text(self, text: impl Into<Vec<u8>>) -> Case {
        self.hear(Heard::Text(text.into()))
    }

    fn hear_binary(self, bytes: impl Into<Vec<u8>>) -> Case {
        self.hear(Heard::Binary(bytes.into()))
    }

    fn hear_pong(self, payload: impl Into<Vec<u8>>) -> Case {
        self.hear(Heard::Pong(payload.into()))
    }

    /// One of the steps was a Close.
    fn answered(self, code: Option<u16>) -> Case {
        Case { end: End::Answered(code), ..self }
    }

    /// The server fails the connection.
    fn failed(self, code: u16) -> Case {
        Case { end: End::Theirs(code), ..self }
    }
}

/// A client's frame; `first` has FIN, the reserved bits and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    // Another key for each length, as good as random to a reader of frames.
    let key = (payload.len() as u32).wrapping_add(1).wrapping_mul(0x9e37_79b9).to_be_bytes();
    let mut out = Vec::with_capacity(payload.len() + 14);
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0xfe);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xff);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    let (words, tail) = payload.as_chunks::<4>();
    let key_word = u32::from_ne_bytes(key);
    for word in words {
        out.extend_from_slice(&(u32::from_ne_bytes(*word) ^ key_word).to_ne_bytes());
    }
    out.extend(tail.iter().zip(key).map(|(byte, key)| byte ^ key));
    out
}

/// A whole message.
fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | TEXT, payload.as_ref())
}

/// A whole message.
fn binary(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | BINARY, payload.as_ref())
}

fn ping(payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(FIN | PING, payload.as_ref())
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A message in fragments of at most so many bytes, a frame each.
fn fragments(opcode: u8, payload: &[u8], bytes_max: usize) -> Vec<Vec<u8>> {
    let pieces = payload.chunks(bytes_max);
    let last = pieces.len().saturating_sub(1);
    let first_byte = |at: usize| if at == 0 { opcode } else { CONTINUATION } | if at == last { FIN } else { 0 };
    pieces.enumerate().map(|(at, piece)| frame(first_byte(at), piece)).collect()
}
