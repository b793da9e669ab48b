//! Damage to inputs that are right: what libFuzzer does, from a seed and without its feedback.
use fastrand::Rng;
use std::path::{Path, PathBuf};

/// Inputs do not grow beyond this.
const BYTES_MAX: usize = 8 * 1024;

/// What means something to one of the parsers, in the middle of something else.
const PIECES: [&[u8]; 44] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\x7f",
    b"\xff",
    b"\xe8\xa8",
    b"\xf0\x9f\x98\x80",
    b"{{",
    b"}}",
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e999",
    b"4294967296",
    b"18446744073709551616",
    b"\\u0000",
    b"\\ud83d",
    b"\\ude00",
    b"\\u007b",
    b"\"\":",
    b"%",
    b"%00",
    b"%2F",
    b"?",
    b"&",
    b"=",
    b"+",
    b".",
    b"/",
    b";",
    b"chunked",
    b"HTTP/1.1",
];

/// A source of damaged inputs.
pub struct Mutator {
    /// Decides everything.
    pub rng: Rng,
}

impl Mutator {
    /// The same seed damages in the same way.
    pub fn with_seed(seed: u64) -> Mutator {
        Mutator { rng: Rng::with_seed(seed) }
    }

    /// One of the inputs, damaged a few times; now and then as it is.
    pub fn mutated(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.rng.choice(inputs).cloned().unwrap_or_default();
        for _ in 0..self.rng.usize(0..6) {
            self.damage(&mut bytes, inputs);
            bytes.truncate(BYTES_MAX);
        }
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        let at = self.rng.usize(0..=bytes.len());
        let end = self.rng.usize(at..=bytes.len().min(at + 1 + bytes.len() / 4));
        match self.rng.u8(0..12) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << self.rng.u8(0..8),
            2 if at < bytes.len() => bytes[at] = self.rng.u8(..),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let (copy, times) = (bytes[at..end].to_vec(), self.rng.usize(1..4));
                bytes.splice(at..at, copy.repeat(times));
            }
            6 => {
                // Nesting and long runs: one byte, often.
                let byte = bytes.get(at).copied().unwrap_or(b'[');
                let times = [1, 2, 120, 130, 1_000][self.rng.usize(0..5)];
                bytes.splice(at..at, std::iter::repeat_n(byte, times));
            }
            7 => {
                let other = self.rng.choice(inputs).map_or(&[][..], |input| input);
                let from = self.rng.usize(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            8 => {
                let piece: Vec<u8> = bytes.drain(at..end).collect();
                let to = self.rng.usize(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            9 => {
                let piece = self.rng.choice(PIECES).unwrap_or_default();
                bytes.splice(at..end.min(at + piece.len()), piece.iter().copied());
            }
            _ => {
                let piece = self.rng.choice(PIECES).unwrap_or_default();
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
}

/// The seeds of a fuzz target that are kept with the sources of the crate under test, in the order of their names; not what
/// a fuzzer has left beside them.
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"seed-")));
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("the file can be read")).collect()
}

/// Runs `check` and, if it panics, panics with the seed, the reason and the input.
#[track_caller]
pub fn assert_holds(name: &str, seed: u64, input: &[u8], check: impl FnOnce()) {
    let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)) else { return };
    let reason = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    panic!(
        "{name}, seed {seed}: {}\nof {} bytes: {}",
        reason.unwrap_or("no reason given"),
        input.len(),
        input[..input.len().min(4_000)].escape_ascii()
    );
}
