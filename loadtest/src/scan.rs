//! The cheap read: the three numbers of a message, without parsing it.
use memchr::memmem::Finder;

/// The numbers of one message of this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which stream.
    pub stream: u32,
    /// Its place in the stream, from 0.
    pub seq: u64,
    /// When it was (to be) published, on the monotonic clock.
    pub sent_us: u64,
}

/// What a text is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A message of this run.
    Mark(Mark),
    /// A notification somebody else published, or one whose numbers are damaged.
    Foreign,
    /// Not a notification.
    Other,
}

/// Finds the numbers. Servers keep the layout of their messages, so the place where the last ones were found is tried
/// first; any order of the payload's keys is understood, because not every server keeps it.
pub struct Scanner {
    run: Vec<u8>,
    hint: usize,
    find_run: Finder<'static>,
    find_stream: Finder<'static>,
    find_seq: Finder<'static>,
    find_sent: Finder<'static>,
}

const STREAM: &[u8] = b"\"stream\":";
const SEQ: &[u8] = b"\"seq\":";
const SENT: &[u8] = b"\"sent_us\":";

impl Scanner {
    /// A scanner for one run's messages.
    pub fn new(run: &str) -> Scanner {
        let run = format!("\"run\":\"{run}\"").into_bytes();
        Scanner {
            find_run: Finder::new(&run).into_owned(),
            find_stream: Finder::new(STREAM),
            find_seq: Finder::new(SEQ),
            find_sent: Finder::new(SENT),
            run,
            hint: 0,
        }
    }

    /// Reads one text.
    #[inline]
    pub fn scan(&mut self, text: &[u8]) -> Scan {
        if let Some(mark) = self.at(text, self.hint) {
            return Scan::Mark(mark);
        }
        self.search(text)
    }

    /// Our own layout, at a known place.
    #[inline]
    fn at(&self, text: &[u8], start: usize) -> Option<Mark> {
        let text = text.get(start..)?.strip_prefix(&self.run[..])?;
        let (stream, text) = number(text.strip_prefix(b",")?.strip_prefix(STREAM)?)?;
        let (seq, text) = number(text.strip_prefix(b",")?.strip_prefix(SEQ)?)?;
        let (sent_us, _) = number(text.strip_prefix(b",")?.strip_prefix(SENT)?)?;
        Some(Mark { stream: u32::try_from(stream).ok()?, seq, sent_us })
    }

    #[cold]
    fn search(&mut self, text: &[u8]) -> Scan {
        let other = if text.starts_with(br#"{"type":"notification""#) { Scan::Foreign } else { Scan::Other };
        let Some(start) = self.find_run.find(text) else { return other };
        if let Some(mark) = self.at(text, start) {
            self.hint = start;
            return Scan::Mark(mark);
        }
        let field = |finder: &Finder, key: &[u8]| {
            let start = finder.find(text)? + key.len();
            number(text.get(start..)?).map(|(value, _)| value)
        };
        let mark = || {
            Some(Mark {
                stream: u32::try_from(field(&self.find_stream, STREAM)?).ok()?,
                seq: field(&self.find_seq, SEQ)?,
                sent_us: field(&self.find_sent, SENT)?,
            })
        };
        mark().map_or(Scan::Foreign, Scan::Mark)
    }
}

/// The id of a notification: what an acknowledgement names.
pub fn notification_id(text: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b"\"id\":\"";
    const UUID_CHARS: usize = 36;
    let start = memchr::memmem::find(text, KEY)? + KEY.len();
    text.get(start..start + UUID_CHARS).filter(|_| text.get(start + UUID_CHARS) == Some(&b'"'))
}

/// The decimal number at the start of `text`, and what is behind it.
#[inline]
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut digits = 0;
    while let Some(digit) = text.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
        digits += 1;
    }
    (digits > 0).then(|| (value, &text[digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_whole_or_not_at_all() {
        let id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
        let text = format!(r#"{{"type":"notification","id":"{id}","payload":{{}}}}"#);
        assert_eq!(notification_id(text.as_bytes()), Some(id.as_bytes()));
        assert_eq!(notification_id(text.replace("c8\"", "c\"").as_bytes()), None);
        assert_eq!(notification_id(br#"{"type":"pong"}"#), None);
    }

    #[test]
    fn numbers_are_found_wherever_they_stand() {
        let mark = Scan::Mark(Mark { stream: 3, seq: 18, sent_us: 77 });
        let rows: [(&str, Scan); 7] = [
            (r#"{"type":"notification","payload":{"run":"r","stream":3,"seq":18,"sent_us":77,"pad":""}}"#, mark),
            (r#"{"type":"notification","id":"x","payload":{"run":"r","stream":3,"seq":18,"sent_us":77}}"#, mark),
            (r#"{"type":"notification","payload":{"pad":"x","run":"r","sent_us":77,"seq":18,"stream":3}}"#, mark),
            (r#"{"type":"notification","payload":{"run":"q","stream":3,"seq":18,"sent_us":77}}"#, Scan::Foreign),
            (r#"{"type":"notification","payload":{"run":"r","stream":3,"seq":,"sent_us":77}}"#, Scan::Foreign),
            (r#"{"type":"heartbeat"}"#, Scan::Other),
            ("", Scan::Other),
        ];
        let mut scanner = Scanner::new("r");
        for (text, expected) in rows.iter().chain(&rows) {
            assert_eq!(scanner.scan(text.as_bytes()), *expected, "{text}");
        }
    }
}
