//! Reads a server's WebSocket frames in place (RFC 6455 §5), and writes the few frames a listener sends.
use super::Listener;

/// Text frame.
pub const OPCODE_TEXT: u8 = 1;
const OPCODE_CONTINUATION: u8 = 0;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PING: u8 = 9;
const OPCODE_PONG: u8 = 10;
/// Longest message we take from a server.
const MESSAGE_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// One frame, in place.
#[derive(Debug, PartialEq, Eq)]
struct Frame<'a> {
    fin: bool,
    opcode: u8,
    payload: &'a [u8],
    /// Header and payload.
    bytes: usize,
}

/// The frame at the start of `bytes`; `None` when it is not complete.
#[inline]
fn parse(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 || second & 0x80 != 0 {
        return Err(format!("a server frame may not begin with {first:02x} {second:02x}"));
    }
    let (head, length) = match second {
        126 => match rest {
            [a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        length => (2, usize::from(*length)),
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(format!("a frame of {length} bytes; at most {MESSAGE_BYTES_MAX} are taken"));
    }
    let Some(payload) = bytes.get(head..head + length) else { return Ok(None) };
    Ok(Some(Frame { fin: first & 0x80 != 0, opcode: first & 0x0f, payload, bytes: head + length }))
}

/// The state between frames.
#[derive(Default)]
pub struct WsReader {
    /// What came of a fragmented message.
    fragments: Option<Vec<u8>>,
}

impl WsReader {
    /// Takes all complete frames of `bytes` and answers how many bytes they were; replies go to `out`. The sentence
    /// says why the connection is over.
    #[inline]
    pub fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>, listener: &mut Listener) -> Result<usize, String> {
        let mut used = 0;
        while let Some(frame) = parse(&bytes[used..])? {
            used += frame.bytes;
            if frame.opcode == OPCODE_TEXT && frame.fin && self.fragments.is_none() {
                listener.hear(frame.payload);
            } else {
                self.read_rare(&frame, out, listener)?;
            }
        }
        Ok(used)
    }

    #[cold]
    fn read_rare(&mut self, frame: &Frame, out: &mut Vec<u8>, listener: &mut Listener) -> Result<(), String> {
        match (frame.opcode, &mut self.fragments) {
            (OPCODE_TEXT, None) => self.fragments = Some(frame.payload.to_vec()),
            (OPCODE_CONTINUATION, Some(fragments)) => {
                fragments.extend_from_slice(frame.payload);
                if fragments.len() > MESSAGE_BYTES_MAX {
                    return Err(format!("a message of more than {MESSAGE_BYTES_MAX} bytes"));
                }
                if frame.fin {
                    let text = self.fragments.take().unwrap_or_default();
                    listener.hear(&text);
                }
            }
            (OPCODE_PING, _) => {
                listener.ears.tally.heartbeats += 1;
                write_client_frame(out, OPCODE_PONG, frame.payload);
            }
            (OPCODE_PONG, _) => {}
            (OPCODE_CLOSE, _) => {
                let (code, reason) = frame.payload.split_first_chunk::<2>().unwrap_or((&[3, 237], b""));
                let code = u16::from_be_bytes(*code);
                *listener.close_code = Some(code);
                return Err(format!("closed {code}: {}", String::from_utf8_lossy(reason)));
            }
            (opcode, _) => return Err(format!("opcode {opcode} where it may not stand")),
        }
        Ok(())
    }
}

/// Appends a masked frame (RFC 6455 §5.3). The mask is zero: it hides nothing, which only matters to proxies, and
/// the bytes stay readable in a capture. Payloads are short enough for two length bytes.
pub fn write_client_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    let payload = &payload[..payload.len().min(usize::from(u16::MAX))];
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_in_place() {
        let long = [&[0x81, 126, 1, 0][..], &[b'a'; 256]].concat();
        let frame = parse(&long).unwrap().unwrap();
        assert_eq!((frame.payload.len(), frame.bytes), (256, 260));
        for end in 0..long.len() {
            assert_eq!(parse(&long[..end]), Ok(None));
        }
        assert_eq!(parse(b"\x81\x02hi!").unwrap().unwrap().payload, b"hi");
        assert!(parse(b"\x81\x82aaaahi").is_err(), "masked");
        assert!(parse(b"\xc1\x00").is_err(), "compressed");
        assert!(parse(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]).is_err(), "endless");
    }
}
