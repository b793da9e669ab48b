//! Server frames: never masked, never fragmented (RFC 6455 §5.2).
use super::close::CloseCode;
use crate::limits;

/// RFC 6455 §11.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a fragmented message.
    Continuation = 0,
    /// UTF-8 text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// Begins or answers the close handshake.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

/// Appends the header of a final frame with `len` bytes of payload: 2, 4 or 10 bytes.
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, len: usize) {
    out.push(0x80 | opcode as u8);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Appends a whole frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a Close frame. `reason` is cut at a character boundary so that it fits a control frame: 123 bytes beside
/// the code (RFC 6455 §5.5). A client's Close without a code is answered by an empty [`write_frame`] instead.
pub fn write_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    let code = code.0.to_be_bytes();
    let mut end = reason.len().min(limits::WS_CONTROL_BYTES_MAX - code.len());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write_header(out, Opcode::Close, code.len() + end);
    out.extend_from_slice(&code);
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_the_shortest_of_its_three_forms() {
        let rows: [(usize, &[u8]); 6] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (1 << 32, &[0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (len, header) in rows {
            let mut out = Vec::new();
            write_header(&mut out, Opcode::Text, len);
            assert_eq!(out, header, "{len}");
        }
    }

    #[test]
    fn a_close_reason_is_cut_to_fit_between_characters() {
        let rows = [
            ("", 0),
            ("bye", 3),
            (&"x".repeat(123), 123),
            (&"x".repeat(124), 123),
            (&"訊".repeat(41), 123),
            (&("x".to_owned() + &"訊".repeat(41)), 121),
            (&("xx".to_owned() + &"訊".repeat(41)), 122),
        ];
        for (reason, kept) in rows {
            let mut out = Vec::new();
            write_close(&mut out, CloseCode::SLOW_CONSUMER, reason);
            assert_eq!(out[..4], [0x88, 2 + kept as u8, 0x0f, 0xa8]);
            assert_eq!(std::str::from_utf8(&out[4..]), Ok(&reason[..kept]));
        }
    }
}
