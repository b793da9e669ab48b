//! What a peer heard, read as strictly as a client could: whole answers, whole frames, whole events, and nothing else.
use serde_json::Value;

/// What a peer heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// HTTP answers before a stream began.
    pub answers: usize,
    /// Whether it became a WebSocket.
    pub is_websocket: bool,
    /// Whether it became an event stream.
    pub is_sse: bool,
    /// Text messages, or events.
    pub messages: usize,
    /// The code of the Close frame; 0 for one without a code.
    pub close_code: Option<u16>,
}

/// Reads everything; `whole` tells that nothing may be cut at its end.
#[track_caller]
pub fn read(bytes: &[u8], whole: bool) -> Heard {
    let mut heard = Heard::default();
    let left = match answers(bytes, &mut heard) {
        Some(left) => left,
        None if whole => panic!("cut at its end: {}", tail(bytes)),
        None => return heard,
    };
    assert!(left.is_empty(), "more than what was said: {}", tail(left));
    heard
}

/// The last bytes, readable.
fn tail(bytes: &[u8]) -> String {
    bytes[bytes.len().saturating_sub(600)..].escape_ascii().to_string()
}

/// What is left behind the last thing that could be said, or none where something is cut.
fn answers<'a>(mut bytes: &'a [u8], heard: &mut Heard) -> Option<&'a [u8]> {
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let (head, rest) = bytes.split_at(end);
        let head = std::str::from_utf8(head).expect("a head of UTF-8");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let field = |name: &str| {
            let mut values = lines.clone().filter_map(|line| line.split_once(": ")).filter(|(key, _)| *key == name);
            let value = values.next().map(|(_, value)| value);
            assert!(values.next().is_none(), "{name} twice in {head}");
            value
        };
        assert!(head.starts_with("HTTP/1.1 ") || head.starts_with("HTTP/1.0 "), "{head:?}");
        assert!(lines.clone().all(|line| line.contains(": ")), "{head:?}");
        bytes = rest;
        match (status, field("content-type")) {
            ("100", _) => continue,
            ("101", _) => {
                heard.is_websocket = true;
                return frames(rest, heard);
            }
            (_, Some("text/event-stream")) => {
                heard.is_sse = true;
                return match field("transfer-encoding") {
                    Some(_) => chunks(rest, heard),
                    None => blocks(rest, heard),
                };
            }
            ("204", _) => assert_eq!(field("content-length"), None),
            (_, media_type) => {
                let length: usize = field("content-length").expect("a length").parse().expect("a number");
                // The answer to a HEAD has a length and no body; no body begins like an answer.
                if !rest.is_empty() && !rest.starts_with(b"HTTP/1.") {
                    let body;
                    (body, bytes) = rest.split_at_checked(length)?;
                    if media_type == Some("application/json") {
                        serde_json::from_slice::<Value>(body).expect("a body of JSON");
                    }
                }
            }
        }
        heard.answers += 1;
        if field("connection") == Some("close") {
            return Some(bytes);
        }
    }
    Some(bytes)
}

fn frames<'a>(mut bytes: &'a [u8], heard: &mut Heard) -> Option<&'a [u8]> {
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at_checked(2)?;
        let (length, rest) = match header[1] {
            126 => rest.split_first_chunk().map(|(length, rest)| (u64::from(u16::from_be_bytes(*length)), rest))?,
            127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
            length => (u64::from(length), rest),
        };
        let shortest = match length {
            0..126 => length as u8,
            126..65_536 => 126,
            _ => 127,
        };
        assert_eq!(header[1], shortest, "masked, or a length of {length} in another than its shortest form");
        let (payload, rest) = rest.split_at_checked(usize::try_from(length).expect("a length that fits"))?;
        match header[0] {
            0x81 => {
                let message: Value = serde_json::from_slice(payload).expect("a message of JSON");
                assert!(message["type"].is_string(), "{message}");
                heard.messages += 1;
            }
            0x89 | 0x8a => assert!(payload.len() <= 125),
            0x88 => {
                heard.close_code = Some(payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code)));
                assert!(payload.len() <= 125 && payload.len() != 1);
                std::str::from_utf8(payload.get(2..).unwrap_or_default()).expect("words of UTF-8");
                return Some(rest);
            }
            first => panic!("a frame that begins with {first:#04x}"),
        }
        bytes = rest;
    }
    Some(bytes)
}

fn chunks<'a>(mut bytes: &'a [u8], heard: &mut Heard) -> Option<&'a [u8]> {
    while !bytes.is_empty() {
        let digits = bytes.windows(2).position(|two| two == b"\r\n")?;
        let (size, rest) = (&bytes[..digits], &bytes[digits + 2..]);
        let size = std::str::from_utf8(size).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let (chunk, rest) = rest.split_at_checked(size.expect("a chunk size"))?;
        let (end, rest) = rest.split_at_checked(2)?;
        assert_eq!(end, b"\r\n", "the end of a chunk");
        if chunk.is_empty() {
            return Some(rest);
        }
        let left = blocks(chunk, heard).expect("whole blocks in a chunk");
        assert!(left.is_empty());
        bytes = rest;
    }
    Some(bytes)
}

fn blocks<'a>(mut bytes: &'a [u8], heard: &mut Heard) -> Option<&'a [u8]> {
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|two| two == b"\n\n")?;
        let (block, rest) = bytes.split_at(end + 2);
        for line in std::str::from_utf8(block).expect("blocks of UTF-8").trim_end().split('\n') {
            let (name, value) = line.split_once(": ").expect("a field with a value");
            match name {
                "data" => {
                    serde_json::from_str::<Value>(value).expect("data of JSON");
                    heard.messages += 1;
                }
                "id" | "event" | "retry" | "" => {}
                _ => panic!("a field {name:?}"),
            }
        }
        bytes = rest;
    }
    Some(bytes)
}
