//! One message of the server, found in a buffer.
//!
//! What comes with every command is read here, where it lies: no copy, no allocation. Everything else is read by
//! postgres-protocol, whose parser takes a buffer of its own and reserves what a message claims; it is given whole
//! messages within [`MESSAGE_BYTES_MAX`] only.
use crate::postgres::command::Row;
use crate::postgres::error::ServerError;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{self, Header, Message};
use protocol::limits;

/// Bytes of one message: a row with its columns, mostly. Longer: the link is dropped.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one message before we are let in: whoever it is, it cannot make us hold more.
pub const LOGIN_MESSAGE_BYTES_MAX: usize = 64 * 1024;

// A read must fit the buffer beside the longest partial message, and a rendered message must come back as a row.
const _: () = assert!(limits::READ_BYTES_MAX <= MESSAGE_BYTES_MAX);
const _: () = assert!(limits::RENDERED_BYTES_MAX * 2 < MESSAGE_BYTES_MAX);

/// A message of the server.
pub(super) enum Frame<'a> {
    /// A statement is prepared.
    Prepared,
    /// Values are bound.
    Bound,
    /// A row.
    Row(Row<'a>),
    /// A statement is done; so many rows were changed, or handed out.
    Complete { rows: u64 },
    /// The transaction is over.
    Ready { idle: bool },
    /// It failed, or something worse.
    Error(ServerError),
    /// Words that change nothing.
    Notice(ServerError),
    /// Nothing to do: a description, an empty statement, the key of a cancel request.
    Skip,
    /// The rest: who may come in, and settings.
    Rare(Message),
}

/// Why the bytes cannot be a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireError {
    Malformed(&'static str),
    TooLarge { bytes: usize },
}

/// The first message and how many bytes it takes, or `None` while it is not whole.
pub(super) fn decode(input: &[u8], bytes_max: usize) -> Result<Option<(Frame<'_>, usize)>, WireError> {
    let Some(header) = Header::parse(input).map_err(|_| WireError::Malformed("a length below four"))? else {
        return Ok(None);
    };
    // Never negative: the parser refuses what is below four.
    let total = 1 + usize::try_from(header.len()).unwrap_or(0);
    if total > bytes_max {
        // What is no message at all is seldom told apart by its length only.
        return match is_known(header.tag()) {
            true => Err(WireError::TooLarge { bytes: total }),
            false => Err(WireError::Malformed("an unknown kind of message")),
        };
    }
    let Some(message) = input.get(..total) else { return Ok(None) };
    let body = &message[5..];
    let frame = match header.tag() {
        backend::PARSE_COMPLETE_TAG => Frame::Prepared,
        backend::BIND_COMPLETE_TAG => Frame::Bound,
        backend::DATA_ROW_TAG => {
            let row = body.split_first_chunk().and_then(|(count, rest)| Row::new(u16::from_be_bytes(*count), rest));
            Frame::Row(row.ok_or(WireError::Malformed("a row that is not whole"))?)
        }
        backend::COMMAND_COMPLETE_TAG => Frame::Complete { rows: rows_of(body) },
        backend::READY_FOR_QUERY_TAG => match body {
            [status @ (b'I' | b'T' | b'E')] => Frame::Ready { idle: *status == b'I' },
            _ => return Err(WireError::Malformed("an unknown state of a transaction")),
        },
        backend::ROW_DESCRIPTION_TAG
        | backend::PARAMETER_DESCRIPTION_TAG
        | backend::NO_DATA_TAG
        | backend::EMPTY_QUERY_RESPONSE_TAG
        | backend::BACKEND_KEY_DATA_TAG
        | backend::NOTIFICATION_RESPONSE_TAG => Frame::Skip,
        _ => rare(message)?,
    };
    Ok(Some((frame, total)))
}

/// A message of which a connection sees few.
fn rare(message: &[u8]) -> Result<Frame<'static>, WireError> {
    let parsed = Message::parse(&mut BytesMut::from(message));
    match parsed.map_err(|_| WireError::Malformed("a broken or unknown message"))? {
        Some(Message::ErrorResponse(body)) => Ok(Frame::Error(server_error(body.fields(), false)?)),
        Some(Message::NoticeResponse(body)) => Ok(Frame::Notice(server_error(body.fields(), true)?)),
        Some(message) => Ok(Frame::Rare(message)),
        None => Err(WireError::Malformed("a message that is not whole")),
    }
}

fn server_error(mut fields: backend::ErrorFields<'_>, is_notice: bool) -> Result<ServerError, WireError> {
    let mut kept = Vec::new();
    while let Some(field) = fields.next().map_err(|_| WireError::Malformed("an error that is not whole"))? {
        // The crate's accessor for text panics on what is not UTF-8; the bytes do not.
        kept.push((field.type_(), field.value_bytes().to_vec()));
    }
    Ok(ServerError::from_fields(kept.iter().map(|(letter, value)| (*letter, value.as_slice())), is_notice))
}

/// The number at the end of a tag such as `INSERT 0 5` or `UPDATE 3`.
fn rows_of(tag: &[u8]) -> u64 {
    let tag = tag.strip_suffix(&[0]).unwrap_or(tag);
    let word = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(word).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Kinds of message that commands of ours can bring; copies are not among them.
fn is_known(tag: u8) -> bool {
    b"12ACDEIKNRSTZnt".contains(&tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    #[test]
    fn messages_are_found_when_they_are_whole() {
        let bytes = message(b'C', b"INSERT 0 5\0");
        for cut in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..cut], 1_000), Ok(None)), "cut at {cut}");
        }
        let longer = [&bytes[..], b"Z"].concat();
        assert!(matches!(decode(&longer, 1_000), Ok(Some((Frame::Complete { rows: 5 }, n))) if n == bytes.len()));
    }

    #[test]
    fn a_tag_tells_the_rows() {
        let rows: [(&[u8], u64); 6] = [
            (b"INSERT 0 5\0", 5),
            (b"DELETE 12\0", 12),
            (b"SELECT 0\0", 0),
            (b"CREATE TABLE\0", 0),
            (b"\0", 0),
            (b"UPDATE 99999999999999999999\0", 0),
        ];
        for (tag, count) in rows {
            assert_eq!(rows_of(tag), count, "{tag:?}");
        }
    }

    #[test]
    fn what_no_server_says_is_refused() {
        let malformed: [Vec<u8>; 8] = [
            b"HTTP/1.1 400 Bad Request".to_vec(),
            b"Z\0\0\0\x03".to_vec(),
            b"Z\xff\xff\xff\xff".to_vec(),
            message(b'Z', b"X"),
            message(b'D', b"\0\x01\0\0\0\x05ab"),
            message(b'E', b"Mno end"),
            message(b'R', b"\0\0\0\x63"),
            message(b'!', b""),
        ];
        for bytes in malformed {
            assert!(matches!(decode(&bytes, 1_000), Err(WireError::Malformed(_))), "{}", bytes.escape_ascii());
        }
        let claim = b"D\x7f\xff\xff\xff";
        assert!(matches!(decode(claim, 1_000), Err(WireError::TooLarge { bytes: 0x8000_0000 })));
        assert!(matches!(decode(&message(b'D', &[0; 995]), 1_000), Err(WireError::Malformed(_))));
        assert!(matches!(decode(b"D\0\0\x03\xe8", 1_000), Err(WireError::TooLarge { bytes: 1_001 })));
    }
}
