//! The header of a client's frame (RFC 6455 §5.2), judged as soon as the bytes that say something are there.
use super::encoder::Opcode;
use crate::limits;

/// Bytes of a masking key: the last of a client's header.
pub(super) const MASK_BYTES: usize = 4;

pub(super) const CONTINUES_NOTHING: &str = "continuation frame without a message to continue";
const NOT_SHORTEST: &str = "length is not in its shortest form";

/// A frame's header, checked; its masking key may not have arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    /// 6, 8 or 14.
    pub(super) header_bytes: usize,
    pub(super) payload_bytes: usize,
}

/// Why there is no header (yet).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Fewer bytes than these cannot tell.
    NeedMore { frame_bytes: usize },
    /// The framing is broken.
    Protocol(&'static str),
    /// A data frame longer than what its message may still grow by.
    TooBig,
}

impl Header {
    /// `within_message`: a fragmented message is open. `data_bytes_max`: what a message may still grow by, inclusive.
    pub(super) fn read(input: &[u8], within_message: bool, data_bytes_max: usize) -> Result<Header, Stop> {
        let &[first, second, ..] = input else { return Err(Stop::NeedMore { frame_bytes: 2 }) };
        if first & 0x70 != 0 {
            return Err(Stop::Protocol("reserved bits are set but no extension was agreed"));
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(Stop::Protocol("reserved opcode")),
        };
        if second & 0x80 == 0 {
            return Err(Stop::Protocol("client frame is not masked"));
        }
        let is_final = first & 0x80 != 0;
        let short_length = second & 0x7f;
        let is_control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
        if is_control {
            if !is_final {
                return Err(Stop::Protocol("control frame is fragmented"));
            }
            if usize::from(short_length) > limits::WS_CONTROL_BYTES_MAX {
                return Err(Stop::Protocol("control frame is longer than 125 bytes"));
            }
        } else if opcode == Opcode::Continuation && !within_message {
            return Err(Stop::Protocol(CONTINUES_NOTHING));
        } else if opcode != Opcode::Continuation && within_message {
            return Err(Stop::Protocol("new message inside a fragmented one"));
        }

        let (header_bytes, length) = match short_length {
            126 => {
                let &[_, _, a, b, ..] = input else { return Err(Stop::NeedMore { frame_bytes: 8 }) };
                let length = u16::from_be_bytes([a, b]);
                if length < 126 {
                    return Err(Stop::Protocol(NOT_SHORTEST));
                }
                (8, u64::from(length))
            }
            127 => {
                let Some(length) = input[2..].first_chunk() else { return Err(Stop::NeedMore { frame_bytes: 14 }) };
                let length = u64::from_be_bytes(*length);
                if length >> 63 != 0 {
                    return Err(Stop::Protocol("length has its top bit set"));
                }
                if length <= u64::from(u16::MAX) {
                    return Err(Stop::Protocol(NOT_SHORTEST));
                }
                (14, length)
            }
            short => (6, u64::from(short)),
        };
        let payload_bytes = usize::try_from(length).map_err(|_| Stop::TooBig)?;
        if !is_control && payload_bytes > data_bytes_max {
            return Err(Stop::TooBig);
        }
        Ok(Header { opcode, is_final, header_bytes, payload_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: &[u8]) -> &'static str {
        match Header::read(input, false, 70_000) {
            Err(Stop::Protocol(reason)) => reason,
            other => panic!("{input:x?}: {other:?}"),
        }
    }

    #[test]
    fn the_first_two_bytes_suffice_to_refuse() {
        for reserved_bit in [0x10, 0x20, 0x40] {
            assert_eq!(refused(&[0x81 | reserved_bit, 0x80]), "reserved bits are set but no extension was agreed");
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            assert_eq!(refused(&[0x80 | opcode, 0x80]), "reserved opcode");
        }
        assert_eq!(refused(&[0x81, 0x05]), "client frame is not masked");
        for control in [8, 9, 10] {
            assert_eq!(refused(&[control, 0x80]), "control frame is fragmented");
            assert_eq!(refused(&[0x80 | control, 0x80 | 126]), "control frame is longer than 125 bytes");
            assert_eq!(refused(&[0x80 | control, 0x80 | 127]), "control frame is longer than 125 bytes");
        }
        assert_eq!(refused(&[0x80, 0x80]), CONTINUES_NOTHING);
    }

    #[test]
    fn a_length_has_one_form() {
        let rows: [(&[u8], &str); 5] = [
            (&[0x82, 0xfe, 0, 0], NOT_SHORTEST),
            (&[0x82, 0xfe, 0, 125], NOT_SHORTEST),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 1], NOT_SHORTEST),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], NOT_SHORTEST),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], "length has its top bit set"),
        ];
        for (input, reason) in rows {
            assert_eq!(refused(input), reason);
        }
        let rows: [(&[u8], usize, usize); 4] = [
            (&[0x82, 0xfd], 6, 125),
            (&[0x82, 0xfe, 0, 126], 8, 126),
            (&[0x82, 0xfe, 0xff, 0xff], 8, 65_535),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], 14, 65_536),
        ];
        for (input, header_bytes, payload_bytes) in rows {
            let header = Header { opcode: Opcode::Binary, is_final: true, header_bytes, payload_bytes };
            assert_eq!(Header::read(input, false, 70_000), Ok(header));
        }
    }

    #[test]
    fn too_much_is_refused_before_it_arrives() {
        assert_eq!(Header::read(&[0x81, 0xfe, 0, 200], false, 199), Err(Stop::TooBig));
        assert_eq!(Header::read(&[0x80, 0x82], true, 1), Err(Stop::TooBig));
        assert_eq!(
            Header::read(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false, 1),
            Err(Stop::TooBig)
        );
        assert!(Header::read(&[0x89, 0x80 | 125], true, 0).is_ok(), "control frames have their own bound");
    }
}
