//! Client frames (RFC 6455 §5), decoded where they lie in the read buffer.
//!
//! Strict on purpose: a peer that breaks the framing has lost its place in the stream, so every violation ends the
//! connection. What the header alone betrays is refused before the payload arrives; a 64-bit length costs its sender
//! ten bytes and us none.
use super::close::{self, CloseCode};
use super::encoder::Opcode;
use super::header::{CONTINUES_NOTHING, Header, MASK_BYTES, Stop};
use super::message::{Message, unmask, utf8};
use std::fmt;

/// What of a client's stream must be remembered between frames: nothing, or the message that is under way.
///
/// Eight bytes between messages; a small allocation while a text frame is not whole, and one of at most the message's
/// bound while a message comes in fragments. After an error the stream means nothing any more: what follows is thrown
/// away, not decoded.
#[derive(Debug, Default)]
pub struct Decoder {
    open: Option<Box<Message>>,
}

/// What [`Decoder::decode`] found at the front of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The frame is not whole. Call again with the same bytes and more.
    NeedMore {
        /// Bytes the input must hold: the whole frame when its length is known, else the header as far as it is.
        /// Always more than the input had; bounded by the message's bound and a header of 14 bytes.
        frame_bytes: usize,
    },
    /// A whole frame.
    Frame {
        /// Bytes of it, at the front of the input: the next frame begins behind them.
        consumed: usize,
        /// What it says.
        event: WsEvent<'a>,
    },
}

/// What a frame says, once unmasked and checked.
#[derive(Debug, PartialEq, Eq)]
pub enum WsEvent<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// To be answered by a pong with the same bytes, at most [`crate::limits::WS_CONTROL_BYTES_MAX`].
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong(&'a [u8]),
    /// The close handshake, begun or answered. No frame may follow.
    Close {
        /// The client's code, one of [`close::is_receivable`].
        code: Option<u16>,
        /// The client's words, often empty.
        reason: &'a str,
    },
    /// A part of a message whose end has not come.
    Fragment,
}

/// Why a stream cannot be read any further. Always the client's doing; the connection closes with
/// [`DecodeError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The framing is broken, in the named way.
    Protocol(&'static str),
    /// A text message or a close reason is not UTF-8.
    InvalidUtf8,
    /// A message, all its fragments together, is longer than the bound.
    TooBig {
        /// The bound that was given, in bytes, inclusive.
        bytes_max: usize,
    },
}

impl DecodeError {
    /// 1002, 1007 or 1009.
    pub fn close_code(&self) -> CloseCode {
        match self {
            DecodeError::Protocol(_) => CloseCode::PROTOCOL_ERROR,
            DecodeError::InvalidUtf8 => CloseCode::INVALID_DATA,
            DecodeError::TooBig { .. } => CloseCode::TOO_BIG,
        }
    }

    /// Words for the Close frame.
    pub fn reason(&self) -> &'static str {
        match self {
            DecodeError::Protocol(reason) => reason,
            DecodeError::InvalidUtf8 => "text is not UTF-8",
            DecodeError::TooBig { .. } => "message is too big",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::TooBig { bytes_max } => write!(f, "message is longer than {bytes_max} bytes"),
            _ => f.write_str(self.reason()),
        }
    }
}

impl std::error::Error for DecodeError {}

impl Decoder {
    /// The state at the start of a stream.
    pub const fn new() -> Decoder {
        Decoder { open: None }
    }

    /// Decodes the first frame of `input`, unmasking its payload in place.
    ///
    /// [`Decoded::NeedMore`] changed and consumed nothing, so the caller may move the bytes and must bring them again;
    /// only the header is looked at twice. Of a text, what has come is checked already: it is refused at the first byte
    /// that cannot be UTF-8, not at the end of its frame (RFC 6455 §8.1 lets us wait; a sender would only send on).
    /// `bytes_max` bounds a whole message, inclusive; control frames have their own bound.
    ///
    /// A message that came in fragments is lent from the decoder and given back to the allocator by the next call:
    /// call until [`Decoded::NeedMore`], be it with an empty input, before the connection goes idle.
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8], bytes_max: usize) -> Result<Decoded<'a>, DecodeError> {
        if self.open.as_ref().is_some_and(|message| message.is_whole) {
            self.open = None;
        }
        let open = self.open.as_ref().filter(|message| message.is_open);
        let held_bytes = open.map_or(0, |message| message.bytes.len());
        let header = match Header::read(input, open.is_some(), bytes_max.saturating_sub(held_bytes)) {
            Ok(header) => header,
            Err(Stop::NeedMore { frame_bytes }) => return Ok(Decoded::NeedMore { frame_bytes }),
            Err(Stop::Protocol(reason)) => return Err(DecodeError::Protocol(reason)),
            Err(Stop::TooBig) => return Err(DecodeError::TooBig { bytes_max }),
        };
        let consumed = header.header_bytes.saturating_add(header.payload_bytes);
        if input.len() < consumed {
            self.look(&header, input)?;
            return Ok(Decoded::NeedMore { frame_bytes: consumed });
        }
        let (head, payload) = input[..consumed].split_at_mut(header.header_bytes);
        unmask(payload, key_of(head));
        let payload: &'a [u8] = payload;

        let event = match header.opcode {
            Opcode::Text if header.is_final => {
                self.open = None;
                WsEvent::Text(utf8(payload)?)
            }
            Opcode::Binary if header.is_final => WsEvent::Binary(payload),
            Opcode::Text | Opcode::Binary => {
                let mut message = Box::new(Message::new(header.opcode == Opcode::Text));
                message.append(payload, bytes_max)?;
                self.open = Some(message);
                WsEvent::Fragment
            }
            Opcode::Continuation => {
                let message = self.open.as_mut().ok_or(DecodeError::Protocol(CONTINUES_NOTHING))?;
                message.append(payload, bytes_max)?;
                if header.is_final { message.finish()? } else { WsEvent::Fragment }
            }
            Opcode::Ping => WsEvent::Ping(payload),
            Opcode::Pong => WsEvent::Pong(payload),
            Opcode::Close => close_event(payload)?,
        };
        Ok(Decoded::Frame { consumed, event })
    }

    /// Looks at what has come of a frame that is not whole.
    fn look(&mut self, header: &Header, input: &[u8]) -> Result<(), DecodeError> {
        let Some((head, masked)) = input.split_at_checked(header.header_bytes) else { return Ok(()) };
        let message = match (header.opcode, &mut self.open) {
            (_, _) if masked.is_empty() => return Ok(()),
            (Opcode::Text, open) => open.get_or_insert_with(|| Box::new(Message::new(true))),
            (Opcode::Continuation, Some(message)) => message,
            _ => return Ok(()),
        };
        message.look(masked, key_of(head))
    }
}

/// The masking key: the last bytes of a client's header.
fn key_of(head: &[u8]) -> [u8; MASK_BYTES] {
    head.last_chunk().copied().unwrap_or_default()
}

/// RFC 6455 §5.5.1: nothing, or a code and perhaps words.
fn close_event(payload: &[u8]) -> Result<WsEvent<'_>, DecodeError> {
    match payload {
        [] => Ok(WsEvent::Close { code: None, reason: "" }),
        [_] => Err(DecodeError::Protocol("close payload of one byte")),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            if !close::is_receivable(code) {
                return Err(DecodeError::Protocol("close code that must not be sent"));
            }
            Ok(WsEvent::Close { code: Some(code), reason: utf8(reason)? })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const FIN: u8 = 0x80;

    /// A client's frame with the shortest length there is.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&KEY);
        out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    /// Says the frames one after the other and tells what was heard, up to the first refusal.
    fn converse(frames: &[Vec<u8>], bytes_max: usize) -> Vec<String> {
        let mut decoder = Decoder::new();
        let mut heard = Vec::new();
        for frame in frames {
            let mut input = frame.clone();
            match decoder.decode(&mut input, bytes_max) {
                Ok(Decoded::Frame { consumed, event }) => {
                    assert_eq!(consumed, frame.len());
                    heard.push(format!("{event:?}"));
                }
                Ok(Decoded::NeedMore { frame_bytes }) => heard.push(format!("needs {frame_bytes}")),
                Err(error) => {
                    heard.push(format!("{} {}", error.close_code().0, error.reason()));
                    break;
                }
            }
        }
        heard
    }

    #[test]
    fn the_example_of_the_rfc_says_hello() {
        let mut input = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let mut decoder = Decoder::new();
        let decoded = decoder.decode(&mut input, 5);
        assert_eq!(decoded, Ok(Decoded::Frame { consumed: 11, event: WsEvent::Text("Hello") }));
    }

    #[test]
    fn a_decoder_is_small_and_an_idle_one_holds_nothing() {
        assert!(size_of::<Decoder>() <= 8);
        let mut decoder = Decoder::new();
        decoder.decode(&mut frame(1, b"a"), 10).unwrap();
        assert!(decoder.open.is_some());
        let mut last = frame(FIN, b"b");
        assert_eq!(decoder.decode(&mut last, 10), Ok(Decoded::Frame { consumed: 7, event: WsEvent::Text("ab") }));
        assert_eq!(decoder.decode(&mut [], 10), Ok(Decoded::NeedMore { frame_bytes: 2 }));
        assert!(decoder.open.is_none());
    }

    #[test]
    fn every_length_is_unmasked_to_its_last_byte() {
        for len in (0..=130).chain([65_535, 65_536, 70_001]) {
            let payload: Vec<u8> = (0..len).map(|at: usize| at as u8).collect();
            let mut input = frame(FIN | 2, &payload);
            let consumed = input.len();
            let mut decoder = Decoder::new();
            let decoded = decoder.decode(&mut input, 70_001);
            assert_eq!(decoded, Ok(Decoded::Frame { consumed, event: WsEvent::Binary(&payload) }), "{len}");
        }
    }

    #[test]
    fn a_frame_in_parts_changes_nothing_until_it_is_whole() {
        let whole = frame(FIN | 1, &[b'x'; 300]);
        let mut decoder = Decoder::new();
        for end in 0..whole.len() {
            let mut input = whole[..end].to_vec();
            let frame_bytes = match end {
                0 | 1 => 2,
                2 | 3 => 8,
                _ => 308,
            };
            assert_eq!(decoder.decode(&mut input, 300), Ok(Decoded::NeedMore { frame_bytes }), "{end}");
            assert_eq!(input, whole[..end]);
        }
    }

    #[test]
    fn only_the_first_frame_is_decoded() {
        let mut input = [frame(FIN | 9, b"one"), frame(FIN | 10, b"two")].concat();
        let mut decoder = Decoder::new();
        assert_eq!(decoder.decode(&mut input, 0), Ok(Decoded::Frame { consumed: 9, event: WsEvent::Ping(b"one") }));
        assert_eq!(
            decoder.decode(&mut input[9..], 0),
            Ok(Decoded::Frame { consumed: 9, event: WsEvent::Pong(b"two") })
        );
    }

    #[test]
    fn fragments_become_one_message_with_control_frames_between_them() {
        let said =
            [frame(1, "訊".as_bytes()), frame(FIN | 9, b"?"), frame(0, b""), frame(FIN, b"!"), frame(FIN | 2, b"b")];
        assert_eq!(converse(&said, 4), ["Fragment", "Ping([63])", "Fragment", "Text(\"訊!\")", "Binary([98])"]);
    }

    #[test]
    fn a_message_is_bounded_over_all_its_fragments() {
        let text = |first, len| frame(first, &vec![b'x'; len]);
        assert_eq!(converse(&[text(FIN | 1, 65_536)], 65_536).len(), 1);
        assert_eq!(converse(&[text(FIN | 1, 65_537)], 65_536), ["1009 message is too big"]);
        assert_eq!(converse(&[text(1, 60), text(FIN, 40)], 100).len(), 2);
        assert_eq!(converse(&[text(1, 60), text(FIN, 41)], 100), ["Fragment", "1009 message is too big"]);
        assert_eq!(converse(&[text(2, 0), text(0, 101)], 100), ["Fragment", "1009 message is too big"]);
    }

    #[test]
    fn small_fragments_never_hold_more_than_the_bound() {
        let mut decoder = Decoder::new();
        decoder.decode(&mut frame(2, b"x"), 1_000).unwrap();
        for _ in 1..1_000 {
            decoder.decode(&mut frame(0, b"x"), 1_000).unwrap();
        }
        assert_eq!(decoder.open.as_ref().map(|message| message.bytes.capacity()), Some(1_000));
    }

    #[test]
    fn text_is_checked_as_early_as_it_can_be() {
        let face = "😀".as_bytes();
        let not_utf8 = "1007 text is not UTF-8";
        let rows: [(&[Vec<u8>], &[&str]); 7] = [
            (&[frame(FIN | 1, &[0xff])], &[not_utf8]),
            (&[frame(FIN | 1, &face[..3])], &[not_utf8]),
            (&[frame(1, &[b'a', 0xc0])], &[not_utf8]),
            (&[frame(1, &face[..2]), frame(0, b"a")], &["Fragment", not_utf8]),
            (
                &[frame(1, &face[..1]), frame(0, &face[1..3]), frame(FIN, &face[3..])],
                &["Fragment", "Fragment", "Text(\"😀\")"],
            ),
            (&[frame(1, &face[..1]), frame(0, b""), frame(FIN, b"")], &["Fragment", "Fragment", not_utf8]),
            (&[frame(2, &[0xff]), frame(FIN, &[0xfe])], &["Fragment", "Binary([255, 254])"]),
        ];
        for (said, heard) in rows {
            assert_eq!(converse(said, 100), heard);
        }
    }

    #[test]
    fn a_text_is_refused_at_the_first_byte_that_cannot_be() {
        // Unfragmented, and with a character that the fragment before it began.
        let texts: [(&[u8], &[u8]); 6] = [
            (b"", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xf4\x90\x80\x80edited"),
            (b"", b"\xed\xa0\x80"),
            (b"", &[[b'x'; 700].as_slice(), b"\xe8\xa8\x8a\xc1", &[b'y'; 20]].concat()),
            (b"\xf4", b"\x8f\xbf\xbf\xe8\xa8z and on"),
            (b"ab\xf0\x90", b"\x80a and on"),
            (b"\xe8\xa8", &"訊息😀".as_bytes()[2..]),
        ];
        for (begun, payload) in texts {
            let text = [begun, payload].concat();
            let is_wrong =
                |end: usize| std::str::from_utf8(&text[..end]).is_err_and(|error| error.error_len().is_some());
            let refused_at = (0..=text.len()).find(|end| is_wrong(*end)).map(|end| end - begun.len());
            let first = if begun.is_empty() { 1 } else { 0 };
            let whole = frame(first, payload);
            let header_bytes = whole.len() - payload.len();
            for step in [1, 2, 3, 255, 256, 1_000] {
                let mut decoder = Decoder::new();
                if !begun.is_empty() {
                    decoder.decode(&mut frame(1, begun), 2_000).unwrap();
                }
                let mut ends: Vec<usize> = (header_bytes..whole.len()).step_by(step).collect();
                ends.extend(refused_at.map(|at| header_bytes + at));
                ends.sort_unstable();
                for end in ends {
                    let mut input = whole[..end].to_vec();
                    let decoded = decoder.decode(&mut input, 2_000);
                    if refused_at.is_some_and(|at| end >= header_bytes + at) {
                        assert_eq!(decoded, Err(DecodeError::InvalidUtf8), "{end} of {text:x?}");
                        break;
                    }
                    assert_eq!(decoded, Ok(Decoded::NeedMore { frame_bytes: whole.len() }), "{end} of {text:x?}");
                    assert_eq!(input, whole[..end], "an incomplete frame was changed");
                }
            }
        }
    }

    #[test]
    fn a_text_in_pieces_leaves_nothing_behind() {
        let whole = frame(FIN | 1, "訊息".as_bytes());
        let mut decoder = Decoder::new();
        for end in 0..whole.len() {
            assert!(matches!(decoder.decode(&mut whole[..end].to_vec(), 10), Ok(Decoded::NeedMore { .. })));
        }
        let event = WsEvent::Text("訊息");
        assert_eq!(decoder.decode(&mut whole.clone(), 10), Ok(Decoded::Frame { consumed: 12, event }));
        assert!(decoder.open.is_none());
        assert_eq!(
            converse(&[whole, frame(0, b"a")], 10).last().unwrap(),
            "1002 continuation frame without a message to continue"
        );
    }

    #[test]
    fn a_close_says_a_code_that_may_travel_or_nothing() {
        let long = [&[0x03, 0xe8], [b'x'; 123].as_slice()].concat();
        let rows: [(&[u8], &str); 8] = [
            (&[], "Close { code: None, reason: \"\" }"),
            (&[0x03, 0xe8], "Close { code: Some(1000), reason: \"\" }"),
            (&[0x0f, 0xa1, b'o', b'k'], "Close { code: Some(4001), reason: \"ok\" }"),
            (&long, &format!("Close {{ code: Some(1000), reason: {:?} }}", "x".repeat(123))),
            (&[0x03], "1002 close payload of one byte"),
            (&[0x03, 0xed], "1002 close code that must not be sent"),
            (&[0x00, 0x00], "1002 close code that must not be sent"),
            (&[0x03, 0xe8, 0xff], "1007 text is not UTF-8"),
        ];
        for (payload, heard) in rows {
            assert_eq!(converse(&[frame(FIN | 8, payload)], 0), [heard]);
        }
    }

    #[test]
    fn fragments_that_do_not_belong_together_are_refused() {
        let rows: [(&[Vec<u8>], &str); 4] = [
            (&[frame(0, b"a")], "1002 continuation frame without a message to continue"),
            (&[frame(FIN | 1, b"a"), frame(FIN, b"b")], "1002 continuation frame without a message to continue"),
            (&[frame(1, b"a"), frame(FIN | 1, b"b")], "1002 new message inside a fragmented one"),
            (&[frame(2, b"a"), frame(1, b"b")], "1002 new message inside a fragmented one"),
        ];
        for (said, last) in rows {
            assert_eq!(converse(said, 100).last().map(String::as_str), Some(last));
        }
    }

    #[test]
    fn the_error_names_its_bound() {
        assert_eq!(DecodeError::TooBig { bytes_max: 65_536 }.to_string(), "message is longer than 65536 bytes");
        assert_eq!(DecodeError::InvalidUtf8.to_string(), "text is not UTF-8");
    }
}
