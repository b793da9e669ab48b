//! Request bodies (RFC 9112 §6.2, §7.1): counted or chunked bytes in, the body out.
//!
//! Chunks are read by the letter of the grammar. A lenient reader behind a strict proxy, or the other way round, is
//! how one request becomes two; no honest client sends anything but the plain form.
use crate::limits::{CHUNK_LINE_BYTES_MAX, HTTP_HEAD_BYTES_MAX};

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// This many bytes follow the head.
    Length(u64),
    /// Chunks follow the head, the last one empty.
    Chunked,
}

/// What one call of [`BodyDecoder::decode`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyProgress {
    /// Bytes of the input that belonged to this body: all of it until the body is done, and never one byte of the
    /// request behind it.
    pub consumed: usize,
    /// Whether the body is complete. Once true, it stays true and nothing is consumed any more.
    pub done: bool,
}

/// Why a body is refused; the client's doing. After it the end of the body is unknown: the connection must close and
/// the decoder must not be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The body is longer than the route takes: 413. Found at the announcement, before the bytes themselves.
    TooLarge {
        /// The bound, in bytes.
        bytes_max: usize,
    },
    /// The chunks are out of grammar or a bound of theirs was passed: 400. Says which.
    Malformed(&'static str),
}

/// Reads one body, in pieces of any size.
///
/// Holds no bytes itself. What it appends to the caller's `body` is at most what arrived: an announced length reserves
/// nothing, so a thousand liars cost a thousand small numbers. The caller may empty `body` between calls.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes the body may still grow by.
    bytes_left: usize,
    bytes_max: usize,
    /// Bytes of extensions and trailers so far. Without a bound on the sum a client could have us read a kilobyte for
    /// each byte of body.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes of a counted body are missing.
    Counted(u64),
    /// In the digits of a chunk size.
    Size { size: u64, digits: u8 },
    /// Blanks between the size and the `;` that must follow them (RFC 9112 §7.1.1).
    SizeBlank { size: u64, len: usize },
    /// Behind the `;`; the content is ignored.
    Extension { size: u64, len: usize },
    /// The CR of a chunk-size line came.
    SizeLf { size: u64 },
    /// This many bytes of a chunk are missing.
    Data { left: u64 },
    /// A chunk's bytes are complete, its CRLF is missing.
    DataCr,
    /// Its LF is missing.
    DataLf,
    /// At the start of a trailer line or of the last line.
    TrailerStart,
    /// In a trailer's name.
    TrailerName { len: usize },
    /// Behind a trailer's colon.
    TrailerValue { len: usize },
    /// The CR of a trailer line came.
    TrailerLf,
    /// The CR of the last line came.
    EndLf,
    /// Complete.
    Done,
}

/// Digits of a chunk size: what fits 64 bits without overflow.
const SIZE_DIGITS_MAX: u8 = 16;
/// Extensions and trailers of one body together, in bytes: as much as a head may have.
const OVERHEAD_BYTES_MAX: usize = HTTP_HEAD_BYTES_MAX;

impl BodyDecoder {
    /// A decoder for a body of at most `bytes_max` bytes. `TooLarge` at once when the announced length is over it.
    pub fn new(framing: BodyFraming, bytes_max: usize) -> Result<BodyDecoder, BodyError> {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(len) if len > bytes_max as u64 => return Err(BodyError::TooLarge { bytes_max }),
            BodyFraming::Length(len) => State::Counted(len),
            BodyFraming::Chunked => State::Size { size: 0, digits: 0 },
        };
        Ok(BodyDecoder { state, bytes_left: bytes_max, bytes_max, overhead: 0 })
    }

    /// Takes what of `input` belongs to the body and appends its content to `body`.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<BodyProgress, BodyError> {
        let mut at = 0;
        while self.state != State::Done {
            let rest = &input[at..];
            let Some(&byte) = rest.first() else { break };
            at += match self.state {
                State::Counted(left) => {
                    let (taken, left) = take(rest, left, body);
                    self.state = if left == 0 { State::Done } else { State::Counted(left) };
                    taken
                }
                State::Data { left } => {
                    let (taken, left) = take(rest, left, body);
                    self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                    taken
                }
                state => {
                    self.state = self.step(state, byte)?;
                    1
                }
            };
        }
        Ok(BodyProgress { consumed: at, done: self.state == State::Done })
    }

    /// One byte of chunk framing.
    fn step(&mut self, state: State, byte: u8) -> Result<State, BodyError> {
        let malformed = |what| Err(BodyError::Malformed(what));
        match (state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS_MAX {
                    return malformed("a chunk size has too many digits");
                }
                // Sixteen digits of four bits each fit, so nothing is shifted out.
                Ok(State::Size { size: size << 4 | hex_value(byte), digits: digits + 1 })
            }
            (State::Size { digits: 0, .. }, _) => malformed("a chunk size is missing"),
            (State::Size { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { size, .. }, b';') => Ok(State::Extension { size, len: 0 }),
            (State::Size { size, .. }, b' ' | b'\t') => Ok(State::SizeBlank { size, len: self.overhead(0)? }),
            (State::Size { .. }, _) => malformed("a chunk size is not hexadecimal"),

            (State::SizeBlank { size, len }, b' ' | b'\t') => Ok(State::SizeBlank { size, len: self.overhead(len)? }),
            (State::SizeBlank { size, len }, b';') => Ok(State::Extension { size, len }),
            (State::SizeBlank { .. }, _) => malformed("a chunk size is followed by a blank"),

            (State::Extension { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { size, len }, _) if is_text(byte) => {
                Ok(State::Extension { size, len: self.overhead(len)? })
            }
            (State::Extension { .. }, _) => malformed("a chunk extension contains a control character"),

            (State::SizeLf { size: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf { size }, b'\n') => {
                let bytes = usize::try_from(size).ok().filter(|bytes| *bytes <= self.bytes_left);
                let Some(bytes) = bytes else { return Err(BodyError::TooLarge { bytes_max: self.bytes_max }) };
                self.bytes_left -= bytes;
                Ok(State::Data { left: size })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::DataCr | State::DataLf, _) => malformed("a chunk is longer than its size"),

            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart, _) if is_token(byte) => Ok(State::TrailerName { len: self.overhead(0)? }),
            (State::TrailerName { len }, b':') => Ok(State::TrailerValue { len: self.overhead(len)? }),
            (State::TrailerName { len }, _) if is_token(byte) => Ok(State::TrailerName { len: self.overhead(len)? }),
            (State::TrailerStart | State::TrailerName { .. }, _) => malformed("a trailer name is malformed"),
            (State::TrailerValue { .. }, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue { len }, _) if is_text(byte) => Ok(State::TrailerValue { len: self.overhead(len)? }),
            (State::TrailerValue { .. }, _) => malformed("a trailer contains a control character"),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::SizeLf { .. } | State::TrailerLf | State::EndLf, _) => malformed("a CR stands without its LF"),

            // `decode` handles these itself.
            (State::Counted(_) | State::Data { .. } | State::Done, _) => Ok(state),
        }
    }

    /// Counts one more byte of a line that is ignored, against the line's bound and the body's.
    fn overhead(&mut self, len: usize) -> Result<usize, BodyError> {
        self.overhead += 1;
        if len >= CHUNK_LINE_BYTES_MAX || self.overhead > OVERHEAD_BYTES_MAX {
            return Err(BodyError::Malformed("chunk extensions or trailers are too long"));
        }
        Ok(len + 1)
    }
}

/// Appends what is there of the `left` bytes that are missing.
fn take(rest: &[u8], left: u64, body: &mut Vec<u8>) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
    body.extend_from_slice(&rest[..taken]);
    (taken, left - taken as u64)
}

/// The value of an ASCII hexadecimal digit.
fn hex_value(digit: u8) -> u64 {
    u64::from(match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    })
}

/// What a field value or an extension may contain (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
