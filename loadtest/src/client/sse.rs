//! Reads a server's event stream: HTTP chunks (RFC 9112 §7.1), and the events in them.
use super::Listener;
use memchr::{memchr, memmem};

/// Longest event or chunk we take from a server.
const EVENT_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// Longest line with the size of a chunk.
const CHUNK_LINE_BYTES_MAX: usize = 1_024;

/// The state between reads.
#[derive(Default)]
pub struct SseReader {
    /// Whether the body comes in chunks.
    pub chunked: bool,
    /// An event of which not all has come.
    partial: Vec<u8>,
}

impl SseReader {
    /// Takes what is complete of `bytes` and answers how many bytes that was. The sentence says why it is over.
    pub fn read(&mut self, bytes: &[u8], listener: &mut Listener) -> Result<usize, String> {
        if !self.chunked {
            self.events(bytes, listener)?;
            return Ok(bytes.len());
        }
        let mut used = 0;
        while let Some((data, length)) = chunk(&bytes[used..])? {
            if data.is_empty() {
                return Err("the stream ended".to_owned());
            }
            self.events(data, listener)?;
            used += length;
        }
        Ok(used)
    }

    fn events(&mut self, data: &[u8], listener: &mut Listener) -> Result<(), String> {
        if self.partial.is_empty() {
            let used = take_events(data, listener)?;
            self.partial.extend_from_slice(&data[used..]);
        } else {
            self.partial.extend_from_slice(data);
            let partial = std::mem::take(&mut self.partial);
            let used = take_events(&partial, listener)?;
            self.partial.extend_from_slice(&partial[used..]);
        }
        if self.partial.len() > EVENT_BYTES_MAX {
            return Err(format!("an event of more than {EVENT_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

/// The data of the chunk at the start of `bytes`, and the length of it all; `None` when it is not complete.
fn chunk(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, String> {
    let Some(line) = memchr(b'\n', bytes) else {
        return if bytes.len() > CHUNK_LINE_BYTES_MAX { Err("an endless chunk size".to_owned()) } else { Ok(None) };
    };
    let digits = bytes[..line].split(|byte| *byte == b';' || *byte == b'\r').next().unwrap_or_default();
    let size = std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
    let size = size.filter(|size| *size <= EVENT_BYTES_MAX);
    let size = size.ok_or_else(|| format!("chunk size {:?}", String::from_utf8_lossy(digits)))?;
    let start = line + 1;
    let Some(framed) = bytes.get(start..start + size + 2) else { return Ok(None) };
    let (data, end) = framed.split_at(size);
    if end != b"\r\n" {
        return Err("a chunk without its end".to_owned());
    }
    Ok(Some((data, start + size + 2)))
}

/// Takes the complete events of `data`; answers how many bytes they were.
fn take_events(data: &[u8], listener: &mut Listener) -> Result<usize, String> {
    let mut used = 0;
    while let Some(end) = memmem::find(&data[used..], b"\n\n") {
        take_event(&data[used..used + end], listener)?;
        used += end + 2;
    }
    Ok(used)
}

fn take_event(event: &[u8], listener: &mut Listener) -> Result<(), String> {
    let mut data: Option<&[u8]> = None;
    let mut name: &[u8] = b"message";
    let mut id: Option<&[u8]> = None;
    for line in event.split(|byte| *byte == b'\n') {
        if let Some(text) = line.strip_prefix(b"data: ") {
            if data.replace(text).is_some() {
                return Err("an event with two data lines".to_owned());
            }
        } else if let Some(text) = line.strip_prefix(b"event: ") {
            name = text;
        } else if let Some(text) = line.strip_prefix(b"id: ") {
            id = Some(text);
        } else if line.first() == Some(&b':') {
            listener.ears.tally.heartbeats += 1;
        }
    }
    let Some(data) = data else { return Ok(()) };
    let is_notification = data.starts_with(br#"{"type":"notification""#);
    let mislabelled = is_notification != (name == b"notification");
    let misnumbered = is_notification && id.is_some_and(|id| memmem::find(&data[..data.len().min(128)], id).is_none());
    if mislabelled || misnumbered {
        listener.ears.tally.malformed += 1;
        let text = String::from_utf8_lossy(event).into_owned();
        listener.ears.tally.trouble(|| format!("event name or id do not fit the data: {text}"));
    }
    listener.hear_event(data);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_read_in_place() {
        let bytes = b"5;x=y\r\nhello\r\n0\r\n\r\n";
        assert_eq!(chunk(bytes), Ok(Some((&b"hello"[..], 14))));
        for end in 0..14 {
            assert_eq!(chunk(&bytes[..end]), Ok(None));
        }
        assert_eq!(chunk(&bytes[14..]), Ok(Some((&b""[..], 5))));
        assert!(chunk(b"zz\r\n").is_err());
        assert!(chunk(b"2\r\nhello").is_err());
        assert!(chunk(b"ffffffffffffffff\r\n").is_err());
    }
}
