//! What is published: the numbers that are checked, and padding to the wanted size.

/// `event_type` of every publish.
pub const EVENT_TYPE: &str = "load.test";

/// Writes payloads of one run.
#[derive(Clone, Debug)]
pub struct Stationery {
    run: String,
    size: usize,
    padding: Vec<u8>,
}

impl Stationery {
    /// For the run of this name and messages of `size` bytes.
    pub fn new(run: &str, size: usize) -> Stationery {
        Stationery { run: run.to_owned(), size, padding: vec![b'x'; size] }
    }

    /// Appends the payload of one publish.
    ///
    /// `source_bytes` is the length of `metadata.source` in the delivered message: together with the fixed envelope of
    /// contract §5 it tells how much padding makes the message `size` bytes long. A message that is longer without
    /// padding gets none.
    pub fn write(&self, out: &mut Vec<u8>, source_bytes: usize, stream: u32, seq: u64, sent_us: u64) {
        let start = out.len();
        out.extend_from_slice(b"{\"run\":\"");
        out.extend_from_slice(self.run.as_bytes());
        out.extend_from_slice(b"\",\"stream\":");
        write_number(out, u64::from(stream));
        out.extend_from_slice(b",\"seq\":");
        write_number(out, seq);
        out.extend_from_slice(b",\"sent_us\":");
        write_number(out, sent_us);
        out.extend_from_slice(b",\"pad\":\"");
        let without = out.len() - start + b"\"}".len() + envelope_bytes(source_bytes);
        out.extend_from_slice(&self.padding[..self.size.saturating_sub(without)]);
        out.extend_from_slice(b"\"}");
    }
}

/// Bytes of a delivered message (contract §5, nine fractional digits) around its payload.
fn envelope_bytes(source_bytes: usize) -> usize {
    const UUID: usize = 36;
    const TIME: usize = 30;
    const FIXED: &str = concat!(
        r#"{"type":"notification","id":"","occurred_at":"","event_type":"","payload":"#,
        r#","metadata":{"source":"","priority":"Normal"}}"#
    );
    FIXED.len() + UUID + TIME + EVENT_TYPE.len() + source_bytes
}

/// Appends a number in decimal.
pub fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(size: usize, source: &str, seq: u64) -> String {
        let mut payload = Vec::new();
        Stationery::new("r1", size).write(&mut payload, source.len(), 7, seq, 123_456_789);
        let payload = String::from_utf8(payload).unwrap();
        let (id, time) = ("0".repeat(36), "2026-01-02T03:04:05.123456789Z");
        format!(
            r#"{{"type":"notification","id":"{id}","occurred_at":"{time}","event_type":"load.test","payload":{payload},"metadata":{{"source":"{source}","priority":"Normal"}}}}"#
        )
    }

    #[test]
    fn a_delivered_message_has_the_wanted_size() {
        for (size, source, seq) in [(300, "http-api", 0), (300, "http-api", u64::MAX), (4_096, "redis:a:b", 12)] {
            let text = delivered(size, source, seq);
            assert_eq!(text.len(), size);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["payload"]["seq"], seq);
            assert_eq!(value["payload"]["sent_us"], 123_456_789);
        }
        assert!(delivered(1, "http-api", 3).len() > 200, "the numbers are never left out");
    }
}
