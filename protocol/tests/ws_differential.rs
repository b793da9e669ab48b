//! Our decoder and tungstenite hear the same byte streams: thousands of generated ones, right and wrong, whole and
//! torn apart. Both must hear the same messages and come to the same end.
//!
//! How they may differ stands in `fuzz/properties/hearing.rs`, so that a fuzzer with feedback asks the same.
#[path = "../fuzz/properties/hearing.rs"]
mod hearing;

use fastrand::Rng;
use hearing::{Difference, End, ours};

const STREAMS: u64 = 20_000;

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
    let ours = ours(pieces, bytes_max);
    seen.messages += ours.heard.len();
    match ours.end {
        End::Waiting => seen.waiting += 1,
        End::Closed => seen.closed += 1,
        End::Refused => seen.refused += 1,
    }
    match hearing::compare(stream, pieces, &ours, bytes_max) {
        None => {}
        Some(Difference::Sooner) => seen.sooner += 1,
        Some(Difference::LongerLength) => seen.longer_length += 1,
        Some(Difference::Close1014) => seen.close_1014 += 1,
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
