//! One reply of a RESP2 subscription, found in a buffer without copying it.
//!
//! redis-protocol reads the scalars. The array around them is read here, because its decoder follows nested arrays
//! by recursion to any depth and makes a list per array: a hostile server could end the process with a megabyte of
//! `*1`, and every message would cost an allocation. A subscription needs neither: its replies are flat, with at most
//! [`ITEMS_MAX`] items.
use protocol::limits;
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use std::ops::Range;

/// Items of the longest reply, `pmessage`.
pub(crate) const ITEMS_MAX: usize = 4;
/// Bytes of a line: a status, an error, a number, a length. Redis cuts what it quotes in an error at 128 bytes.
pub(crate) const LINE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of `$`, a length and CRLF; twice what the longest `i64` takes.
const LENGTH_LINE_BYTES_MAX: usize = 48;

/// One whole reply; ranges are of the buffer it was found in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+…`
    Status(Range<usize>),
    /// `-…`
    Error(Range<usize>),
    /// `*…`
    Array {
        /// The first `len` are meant.
        items: [Item; ITEMS_MAX],
        /// 1..=[`ITEMS_MAX`].
        len: usize,
    },
}

/// One item of an array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Item {
    /// `$…`
    Bytes(Range<usize>),
    /// `:…`
    Integer(i64),
    /// `$-1`
    #[default]
    Null,
}

/// Why the bytes cannot be a reply of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyError {
    /// They break the rules of RESP2, or are of a shape no subscription has.
    Malformed(&'static str),
    /// An item claims more than [`limits::REDIS_REPLY_BYTES_MAX`].
    TooLarge {
        /// What it claims.
        bytes: usize,
    },
}

/// The first reply and how many bytes it takes, or `None` while it is not whole. Allocates nothing.
pub(crate) fn decode(input: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
    match input.first() {
        None => Ok(None),
        Some(b'*') => decode_array(input),
        Some(b'+' | b'-') => Ok(match scalar(input, 0)? {
            Some((RangeFrame::SimpleString((from, to)), end)) => Some((Reply::Status(from..to), end)),
            Some((RangeFrame::Error((from, to)), end)) => Some((Reply::Error(from..to), end)),
            Some(_) => return Err(ReplyError::Malformed("neither a status nor an error")),
            None => None,
        }),
        Some(_) => Err(ReplyError::Malformed("not a status, an error or an array")),
    }
}

fn decode_array(input: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
    // `*`, one digit, CRLF: the longest array of a subscription has four items.
    let Some(head) = input.first_chunk::<4>() else { return Ok(None) };
    let len = match head {
        [b'*', digit @ b'1'..=b'4', b'\r', b'\n'] => usize::from(digit - b'0'),
        _ => return Err(ReplyError::Malformed("not an array of one to four items")),
    };
    let mut items: [Item; ITEMS_MAX] = Default::default();
    let mut at = head.len();
    for item in &mut items[..len] {
        let Some((frame, bytes)) = scalar(&input[at..], at)? else { return Ok(None) };
        *item = match frame {
            RangeFrame::BulkString((from, to)) => {
                // The decoder skips the two bytes after the text without looking at them.
                if input[at..at + bytes].last_chunk::<2>() != Some(b"\r\n") {
                    return Err(ReplyError::Malformed("a text is not followed by CRLF"));
                }
                Item::Bytes(from + at..to + at)
            }
            RangeFrame::Integer(number) => Item::Integer(number),
            RangeFrame::Null => Item::Null,
            _ => return Err(ReplyError::Malformed("an array holds something other than texts and numbers")),
        };
        at += bytes;
    }
    Ok(Some((Reply::Array { items, len }, at)))
}

/// One scalar at the start of `rest`, with ranges of `rest`. `at` is its place in the reply: 0 is the reply itself.
fn scalar(rest: &[u8], at: usize) -> Result<Option<(RangeFrame, usize)>, ReplyError> {
    let line_bytes_max = match rest.first() {
        None => return Ok(None),
        Some(b'$') => LENGTH_LINE_BYTES_MAX,
        Some(b':') => LENGTH_LINE_BYTES_MAX,
        Some(b'+' | b'-') if at == 0 => LINE_BYTES_MAX,
        Some(_) => return Err(ReplyError::Malformed("an array holds something other than texts and numbers")),
    };
    match decode_range(rest) {
        Ok(Some((frame, bytes))) => {
            let line_bytes = match &frame {
                RangeFrame::BulkString((from, _)) => *from,
                _ => bytes,
            };
            match line_bytes > line_bytes_max {
                // The same whether it came in one piece or not.
                true => Err(ReplyError::Malformed("a line is too long")),
                false => Ok(Some((frame, bytes))),
            }
        }
        Err(_) => Err(ReplyError::Malformed("not RESP2")),
        Ok(None) => {
            let line = &rest[..rest.len().min(line_bytes_max)];
            match line.windows(2).position(|pair| pair == b"\r\n") {
                Some(end) if rest[0] == b'$' => match claimed_bytes(&line[1..end]) {
                    Some(bytes) if bytes > limits::REDIS_REPLY_BYTES_MAX => Err(ReplyError::TooLarge { bytes }),
                    _ => Ok(None),
                },
                None if rest.len() >= line_bytes_max => Err(ReplyError::Malformed("a line is too long")),
                _ => Ok(None),
            }
        }
    }
}

fn claimed_bytes(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(range: Range<usize>) -> Item {
        Item::Bytes(range)
    }

    #[test]
    fn replies_are_found_where_they_lie() {
        let array = |items: [Item; ITEMS_MAX], len| Reply::Array { items, len };
        let null = || Item::Null;
        let rows = [
            ("+OK\r\n+", Reply::Status(1..3), 5),
            ("-ERR no\r\n", Reply::Error(1..7), 9),
            ("*2\r\n$4\r\npong\r\n$0\r\n\r\n", array([bytes(8..12), bytes(18..18), null(), null()], 2), 20),
            (
                "*3\r\n$1\r\na\r\n$1\r\nb\r\n:7\r\n*",
                array([bytes(8..9), bytes(15..16), Item::Integer(7), null()], 3),
                22,
            ),
            ("*1\r\n$-1\r\n", array([null(), null(), null(), null()], 1), 9),
        ];
        for (text, reply, end) in rows {
            assert_eq!(decode(text.as_bytes()), Ok(Some((reply, end))), "{text:?}");
            for cut in 0..end {
                assert_eq!(decode(&text.as_bytes()[..cut]), Ok(None), "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_no_subscription_says_is_refused() {
        let long_line = format!("+{}", "x".repeat(LINE_BYTES_MAX));
        let long_number = format!("*1\r\n:{}", "1".repeat(LENGTH_LINE_BYTES_MAX));
        let long_length = format!("*1\r\n${}", "1".repeat(LENGTH_LINE_BYTES_MAX));
        let whole_line = format!("{long_line}\r\n");
        let zeros = format!("*1\r\n${}1\r\na\r\n", "0".repeat(LENGTH_LINE_BYTES_MAX));
        let rows = [
            "HTTP/1.1 400 Bad Request\r\n",
            ":1\r\n",
            "$2\r\nab\r\n",
            "*0\r\n",
            "*-1\r\n",
            "*5\r\n",
            "*99999999\r\n",
            "*1\r\n*1\r\n",
            "*1\r\n+OK\r\n",
            "*1\r\n-ERR\r\n",
            "*1\r\n$x\r\n",
            "*1\r\n$-2\r\n",
            "*1\r\n:x\r\n",
            "*1\r\n$2\r\nabcd\r\n",
            &long_line,
            &long_number,
            &long_length,
            &whole_line,
            &zeros,
        ];
        for text in rows {
            assert!(matches!(decode(text.as_bytes()), Err(ReplyError::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn a_claim_over_the_bound_is_refused_before_its_bytes_come() {
        for claim in ["4194305", "9223372036854775807"] {
            let text = format!("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n${claim}\r\n");
            assert_eq!(decode(text.as_bytes()), Err(ReplyError::TooLarge { bytes: claim.parse().unwrap() }));
        }
        let text = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4194304\r\n";
        assert_eq!(decode(text), Ok(None), "the bound itself is allowed");
    }
}
