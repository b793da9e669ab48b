//! One reply to a command, of any shape a command may have, found in a buffer without copying it.
//!
//! A reply lies flat: a list of nodes in the order they were read, each array followed by its items. Decoding goes on
//! where it stopped when more bytes come, so a large reply is looked at once, however it is cut. What a reply claims
//! to hold is never allocated: nodes follow the bytes that came. redis-protocol reads the scalars; arrays are read
//! here, because its decoder follows them by recursion to any depth.
use crate::redis::reply::LINE_BYTES_MAX;
use protocol::limits;
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use std::fmt;

/// Bytes of `*`, `:` or `$`, a number and CRLF; twice what the longest `i64` takes.
const NUMBER_LINE_BYTES_MAX: usize = 48;

/// Why the bytes cannot be a reply, or are none that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// They break the rules of RESP2.
    Malformed(&'static str),
    /// The reply has, or one of its texts claims, more than [`limits::REDIS_REPLY_BYTES_MAX`] bytes.
    TooLarge {
        /// So many bytes are here, or claimed.
        bytes: usize,
    },
    /// Arrays in arrays, deeper than [`limits::REDIS_REPLY_DEPTH_MAX`].
    TooDeep,
    /// More than [`limits::REDIS_REPLY_ITEMS_MAX`] values, those inside of arrays and the arrays counted.
    TooMany {
        /// So many are here, or claimed.
        items: u64,
    },
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes_max = limits::REDIS_REPLY_BYTES_MAX;
        match self {
            Self::Malformed(what) => write!(f, "the other side does not speak Redis' protocol: {what}"),
            Self::TooLarge { bytes } => write!(f, "a reply of {bytes} bytes or more; at most {bytes_max} are taken"),
            Self::TooDeep => write!(f, "a reply with arrays nested deeper than {}", limits::REDIS_REPLY_DEPTH_MAX),
            Self::TooMany { items } => {
                write!(f, "a reply of {items} values; at most {} are taken", limits::REDIS_REPLY_ITEMS_MAX)
            }
        }
    }
}

impl std::error::Error for ReplyError {}

/// One value of a reply; offsets count from the first byte of the reply. They fit, for a reply is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Status { from: u32, to: u32 },
    Error { from: u32, to: u32 },
    Integer(i64),
    Bytes { from: u32, to: u32 },
    Null,
    Array { items: u32 },
}

/// An array whose items are being read.
#[derive(Clone, Copy, Debug)]
struct Open {
    left: u32,
}

/// Reads one reply after the other.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    nodes: Vec<Node>,
    open: Vec<Open>,
    /// Bytes of the reply that are read.
    at: usize,
    /// Values that are read or that an array promises.
    promised: u64,
}

impl Decoder {
    /// Forgets what was read: the next byte is the first of a reply.
    pub(crate) fn reset(&mut self) {
        *self = Decoder {
            nodes: std::mem::take(&mut self.nodes),
            open: std::mem::take(&mut self.open),
            at: 0,
            promised: 0,
        };
        self.nodes.clear();
        self.open.clear();
        if self.nodes.capacity() > NODES_KEPT {
            self.nodes = Vec::new();
        }
    }

    /// Goes on with a reply that starts at the first byte of `input`, the same as before and perhaps more. How many
    /// bytes it takes, or `None` while it is not whole; [`Decoder::reply`] then shows it, until [`Decoder::reset`].
    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<Option<usize>, ReplyError> {
        loop {
            let Some((node, bytes)) = one(&input[self.at..], self.at)? else {
                return match input.len() > limits::REDIS_REPLY_BYTES_MAX {
                    true => Err(ReplyError::TooLarge { bytes: input.len() }),
                    false => Ok(None),
                };
            };
            self.at += bytes;
            if self.at > limits::REDIS_REPLY_BYTES_MAX {
                return Err(ReplyError::TooLarge { bytes: self.at });
            }
            self.nodes.push(node);
            if let Some(open) = self.open.last_mut() {
                open.left -= 1;
            }
            if let Node::Array { items } = node {
                self.promised += u64::from(items);
                if self.promised >= limits::REDIS_REPLY_ITEMS_MAX as u64 {
                    return Err(ReplyError::TooMany { items: self.promised + 1 });
                }
                if self.open.len() == limits::REDIS_REPLY_DEPTH_MAX {
                    return Err(ReplyError::TooDeep);
                }
                self.open.push(Open { left: items });
            }
            while self.open.last().is_some_and(|open| open.left == 0) {
                self.open.pop();
            }
            if self.open.is_empty() {
                return Ok(Some(self.at));
            }
        }
    }

    /// The reply that [`Decoder::decode`] found at the start of `input`.
    pub(crate) fn reply<'a>(&'a self, input: &'a [u8]) -> Reply<'a> {
        debug_assert!(!self.nodes.is_empty() && self.open.is_empty(), "no whole reply is here");
        Reply { input, nodes: &self.nodes }
    }
}

/// Nodes whose room is kept for the next reply.
const NODES_KEPT: usize = 1_024;

/// The value at the start of `rest`, which is `at` bytes into its reply.
fn one(rest: &[u8], at: usize) -> Result<Option<(Node, usize)>, ReplyError> {
    let line_bytes_max = match rest.first() {
        None => return Ok(None),
        Some(b'*' | b':' | b'$') => NUMBER_LINE_BYTES_MAX,
        Some(b'+' | b'-') => LINE_BYTES_MAX,
        Some(_) => return Err(ReplyError::Malformed("a value of no known kind")),
    };
    let line = &rest[..rest.len().min(line_bytes_max)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match rest.len() >= line_bytes_max {
            true => Err(ReplyError::Malformed("a line is too long")),
            false => Ok(None),
        };
    };
    let claimed = || std::str::from_utf8(&line[1..end]).ok().and_then(|digits| digits.parse::<i64>().ok());
    match rest[0] {
        b'*' => {
            return match claimed() {
                Some(-1) => Ok(Some((Node::Null, end + 2))),
                Some(items @ 0..) => match u32::try_from(items) {
                    Ok(few) => Ok(Some((Node::Array { items: few }, end + 2))),
                    Err(_) => Err(ReplyError::TooMany { items: items.unsigned_abs() }),
                },
                _ => Err(ReplyError::Malformed("an array without a length")),
            };
        }
        b'$' => {
            let bytes = claimed().map_or(0, |bytes| usize::try_from(bytes).unwrap_or(0));
            if bytes > limits::REDIS_REPLY_BYTES_MAX {
                return Err(ReplyError::TooLarge { bytes });
            }
        }
        _ => {}
    }
    let Some((frame, bytes)) = decode_range(rest).map_err(|_| ReplyError::Malformed("not RESP2"))? else {
        return Ok(None);
    };
    let span = |from: usize, to: usize| ((from + at) as u32, (to + at) as u32);
    let node = match frame {
        RangeFrame::SimpleString((from, to)) => {
            let (from, to) = span(from, to);
            Node::Status { from, to }
        }
        RangeFrame::Error((from, to)) => {
            let (from, to) = span(from, to);
            Node::Error { from, to }
        }
        RangeFrame::Integer(number) => Node::Integer(number),
        RangeFrame::BulkString((from, to)) => {
            // The decoder skips the two bytes after the text without looking at them.
            if rest[..bytes].last_chunk::<2>() != Some(b"\r\n") {
                return Err(ReplyError::Malformed("a text is not followed by CRLF"));
            }
            let (from, to) = span(from, to);
            Node::Bytes { from, to }
        }
        RangeFrame::Null => Node::Null,
        RangeFrame::Array(_) => return Err(ReplyError::Malformed("an array where none is")),
    };
    Ok(Some((node, bytes)))
}

/// One whole value of a reply, and the values inside of it. Borrows the session's buffer: take what you need and go on.
#[derive(Clone, Copy)]
pub struct Reply<'a> {
    input: &'a [u8],
    /// The first is this value; those inside of it follow.
    nodes: &'a [Node],
}

impl<'a> Reply<'a> {
    /// A number.
    pub fn integer(self) -> Option<i64> {
        match self.nodes[0] {
            Node::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub fn unsigned(self) -> Option<u64> {
        self.integer().and_then(|number| u64::try_from(number).ok())
    }

    /// A text, binary or not, or a status such as `OK`.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self.nodes[0] {
            Node::Bytes { from, to } | Node::Status { from, to } => Some(&self.input[from as usize..to as usize]),
            _ => None,
        }
    }

    /// A text in UTF-8.
    pub fn text(self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// An error, as a reply of its own or in an array.
    pub fn error(self) -> Option<&'a [u8]> {
        match self.nodes[0] {
            Node::Error { from, to } => Some(&self.input[from as usize..to as usize]),
            _ => None,
        }
    }

    /// Whether there is nothing.
    pub fn is_null(self) -> bool {
        self.nodes[0] == Node::Null
    }

    /// The values of an array.
    pub fn items(self) -> Option<Items<'a>> {
        match self.nodes[0] {
            Node::Array { items } => Some(Items { input: self.input, nodes: &self.nodes[1..], left: items }),
            _ => None,
        }
    }
}

/// As redis-cli would show it, on one line.
impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(items) = self.items() {
            return f.debug_list().entries(items).finish();
        }
        match (self.nodes[0], self.bytes().or(self.error())) {
            (Node::Integer(number), _) => write!(f, "{number}"),
            (Node::Error { .. }, Some(text)) => write!(f, "(error) {}", text.escape_ascii()),
            (Node::Status { .. }, Some(text)) => write!(f, "{}", text.escape_ascii()),
            (_, Some(text)) => write!(f, "\"{}\"", text.escape_ascii()),
            (_, None) => f.write_str("(nil)"),
        }
    }
}

/// The values of an array, in order.
#[derive(Clone)]
pub struct Items<'a> {
    input: &'a [u8],
    nodes: &'a [Node],
    left: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let mut bytes = 0;
        // One value, and for each array on the way as many more as it has.
        let mut values = 1_u64;
        while values > 0 {
            if let Node::Array { items } = self.nodes[bytes] {
                values += u64::from(items);
            }
            values -= 1;
            bytes += 1;
        }
        let (value, rest) = self.nodes.split_at(bytes);
        self.nodes = rest;
        Some(Reply { input: self.input, nodes: value })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Items<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of a reply fed in pieces of so many bytes.
    fn shown(text: &[u8], piece: usize) -> Result<Option<(String, usize)>, ReplyError> {
        let mut decoder = Decoder::default();
        let mut end = 0;
        while end < text.len() {
            end = (end + piece).min(text.len());
            if let Some(bytes) = decoder.decode(&text[..end])? {
                return Ok(Some((format!("{:?}", decoder.reply(text)), bytes)));
            }
        }
        Ok(None)
    }

    #[test]
    fn replies_of_every_shape_are_read_the_same_however_they_are_cut() {
        let rows: [(&str, &str); 11] = [
            ("+OK\r\n", "OK"),
            ("-ERR no\r\n", "(error) ERR no"),
            (":-7\r\n", "-7"),
            ("$0\r\n\r\n", "\"\""),
            ("$4\r\na\r\nb\r\n", "\"a\\r\\nb\""),
            ("$-1\r\n", "(nil)"),
            ("*-1\r\n", "(nil)"),
            ("*0\r\n", "[]"),
            ("*3\r\n:1\r\n*2\r\n*0\r\n$1\r\nx\r\n-OOM\r\n", "[1, [[], \"x\"], (error) OOM]"),
            ("*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "[[[[1]]]]"),
            ("*2\r\n*2\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n*0\r\n", "[[\"a\", [\"b\"]], []]"),
        ];
        for (text, expected) in rows {
            for piece in 1..=text.len() {
                let with_rest = format!("{text}+next\r\n");
                let whole = Ok(Some((expected.to_owned(), text.len())));
                assert_eq!(shown(with_rest.as_bytes(), piece), whole, "{text:?} in pieces of {piece}");
            }
            for end in 0..text.len() {
                assert_eq!(shown(&text.as_bytes()[..end], usize::MAX / 2), Ok(None), "{text:?} cut at {end}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let long_line = format!("+{}", "x".repeat(LINE_BYTES_MAX));
        let zeros = format!("${}1\r\na\r\n", "0".repeat(NUMBER_LINE_BYTES_MAX));
        let rows = [
            "HTTP/1.1 400 Bad Request\r\n",
            "*x\r\n",
            "*-2\r\n",
            "$x\r\n",
            "$-2\r\n",
            ":1x\r\n",
            ":99999999999999999999\r\n",
            "$2\r\nabcd\r\n",
            "*1\r\n%1\r\n",
            &long_line,
            &zeros,
        ];
        for text in rows {
            for piece in [1, text.len()] {
                assert!(matches!(shown(text.as_bytes(), piece), Err(ReplyError::Malformed(_))), "{text:?}");
            }
        }
    }

    #[test]
    fn depth_items_and_bytes_are_bounded_before_they_come() {
        let deep = "*1\r\n".repeat(limits::REDIS_REPLY_DEPTH_MAX + 1);
        assert_eq!(shown(deep.as_bytes(), 1), Err(ReplyError::TooDeep));
        assert_eq!(shown("*1\r\n".repeat(1_000_000).as_bytes(), 64), Err(ReplyError::TooDeep));
        let many = format!("*{}\r\n", limits::REDIS_REPLY_ITEMS_MAX);
        assert_eq!(
            shown(many.as_bytes(), 1),
            Err(ReplyError::TooMany { items: limits::REDIS_REPLY_ITEMS_MAX as u64 + 1 })
        );
        let halves = format!(
            "*2\r\n*{0}\r\n{1}*{0}\r\n",
            limits::REDIS_REPLY_ITEMS_MAX / 2,
            ":1\r\n".repeat(limits::REDIS_REPLY_ITEMS_MAX / 2)
        );
        assert!(matches!(shown(halves.as_bytes(), 7), Err(ReplyError::TooMany { .. })));
        assert!(matches!(shown(b"*9223372036854775807\r\n", 1), Err(ReplyError::TooMany { .. })));
        let claim = format!("*1\r\n${}\r\n", limits::REDIS_REPLY_BYTES_MAX + 1);
        let bytes = limits::REDIS_REPLY_BYTES_MAX + 1;
        assert_eq!(shown(claim.as_bytes(), 1), Err(ReplyError::TooLarge { bytes }));
        // Many texts, each within the bound.
        let half = format!(
            "${0}\r\n{1}\r\n",
            limits::REDIS_REPLY_BYTES_MAX / 2,
            "x".repeat(limits::REDIS_REPLY_BYTES_MAX / 2)
        );
        let both = format!("*2\r\n{half}{half}");
        assert!(matches!(shown(both.as_bytes(), 65_536), Err(ReplyError::TooLarge { .. })));
    }

    #[test]
    fn values_are_taken_as_what_they_are() {
        let text = b"*5\r\n:-1\r\n:7\r\n$2\r\n\xff\xfe\r\n+OK\r\n$-1\r\n";
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(text), Ok(Some(text.len())));
        let items: Vec<Reply<'_>> = decoder.reply(text).items().unwrap().collect();
        assert_eq!((items[0].integer(), items[0].unsigned(), items[0].bytes()), (Some(-1), None, None));
        assert_eq!(items[1].unsigned(), Some(7));
        assert_eq!((items[2].bytes(), items[2].text()), (Some(&b"\xff\xfe"[..]), None));
        assert_eq!((items[3].text(), items[3].items().is_none()), (Some("OK"), true));
        assert!(items[4].is_null());
    }
}
