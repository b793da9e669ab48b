//! Events of contract §5 in a table: what goes in beside the exact text.
use protocol::ids::NotificationId;

/// Bytes of a number that PostgreSQL's `numeric` takes for sure, and so `jsonb`.
const NUMBER_BYTES_MAX: usize = 1_000;
/// Digits of an exponent that it takes for sure.
const EXPONENT_DIGITS_MAX: usize = 3;

/// What `message` holds: the event, or, where `jsonb` cannot hold it, an object with its id alone.
pub(super) fn message(id: NotificationId, event: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if fits_jsonb(event) {
        return event.into();
    }
    let mut out = br#"{"id":""#.to_vec();
    id.write(&mut out);
    out.extend_from_slice(br#""}"#);
    out.into()
}

/// Whether `jsonb` takes a JSON text: it knows no character 0, and no number that is none of `numeric`. May say no where
/// it would.
fn fits_jsonb(text: &[u8]) -> bool {
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => {
                let end = string_end(text, at);
                if text[at..end].windows(6).any(|escape| escape == br"\u0000") {
                    return false;
                }
                at = end;
            }
            b'-' | b'0'..=b'9' => {
                let rest = &text[at..];
                let bytes = rest.iter().position(|byte| !b"+-.eE0123456789".contains(byte)).unwrap_or(rest.len());
                let exponent = rest[..bytes].iter().position(|byte| matches!(byte, b'e' | b'E'));
                let digits = exponent.map_or(0, |e| bytes - e - 1);
                // One more for a sign.
                if bytes > NUMBER_BYTES_MAX || digits > EXPONENT_DIGITS_MAX + 1 {
                    return false;
                }
                at += bytes;
            }
            _ => at += 1,
        }
    }
    true
}

/// One past the closing quote of the string that starts at `start`.
fn string_end(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < text.len() {
        match text[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ID: &str = "018f0000-0000-7000-8000-000000000007";

    #[test]
    fn what_jsonb_cannot_hold_has_only_its_id_there() {
        let id = NotificationId(Uuid::try_parse(ID).unwrap());
        let rows = [
            (r#"{"a":"\\u0001\u0001","b":-1.5e+300}"#.to_owned(), true),
            (r#"{"a":"\u0000"}"#.to_owned(), false),
            ("1e1000".to_owned() + "0", false),
            ("-1E-99999".to_owned(), false),
            ("1".repeat(NUMBER_BYTES_MAX + 1), false),
            (r#"{"a":"1e99999 \" 1e99999"}"#.to_owned(), true),
        ];
        for (event, fits) in rows {
            let kept = message(id, event.as_bytes());
            let expected = if fits { event.clone() } else { format!(r#"{{"id":"{ID}"}}"#) };
            assert_eq!(String::from_utf8(kept.to_vec()).unwrap(), expected);
        }
    }
}
