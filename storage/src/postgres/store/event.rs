//! Events of contract §5 in a table: what goes in beside the exact text, and what may come out.
use protocol::ids::NotificationId;
use protocol::json::{self, Json};
use std::sync::Arc;
use uuid::Uuid;

/// Bytes of a number that PostgreSQL's `numeric` takes for sure, and so `jsonb`.
const NUMBER_BYTES_MAX: usize = 1_000;
/// Digits of an exponent that it takes for sure.
const EXPONENT_DIGITS_MAX: usize = 3;

/// Reads an event. One that is not in our form, as whoever writes only `message` has it after `jsonb` reordered it, is
/// put into it: keys in the order of the contract, unknown ones left out.
pub(super) fn read(text: &[u8]) -> Option<(NotificationId, Arc<[u8]>)> {
    let event = Json::parse(text).ok()?;
    let [id, occurred_at, event_type, payload, metadata] =
        event.fields(&["id", "occurred_at", "event_type", "payload", "metadata"]).ok()?;
    let (occurred_at, event_type, payload, metadata) = (occurred_at?, event_type?, payload?, metadata?);
    let notification = NotificationId(Uuid::try_parse(&id?.string()?).ok()?);
    (occurred_at.string().is_some() && event_type.string().is_some()).then_some(())?;
    let [source, priority, ttl, audience, correlation_id] =
        metadata.fields(&["source", "priority", "ttl", "audience", "correlation_id"]).ok()?;
    source?.string()?;
    priority?.string()?;
    // `Frame::replay` counts on an object that begins with the id, ends with that of its metadata, and is one line.
    if text.starts_with(br#"{"id":"#) && ends_with_metadata(text, metadata) && is_compact(event) {
        return Some((notification, text.into()));
    }
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(br#"{"id":""#);
    notification.write(&mut out);
    out.push(b'"');
    for (name, value) in [("occurred_at", occurred_at), ("event_type", event_type), ("payload", payload)] {
        write_field(&mut out, name, value);
    }
    out.extend_from_slice(br#","metadata":{"#);
    let rest = [("ttl", ttl), ("audience", audience), ("correlation_id", correlation_id)];
    write_value(&mut out, "source", source?);
    write_field(&mut out, "priority", priority?);
    for (name, value) in rest {
        if let Some(value) = value {
            write_field(&mut out, name, value);
        }
    }
    out.extend_from_slice(b"}}");
    Some((notification, out.into()))
}

fn ends_with_metadata(text: &[u8], metadata: Json<'_>) -> bool {
    text.strip_suffix(b"}").is_some_and(|rest| rest.ends_with(metadata.as_str().as_bytes()))
}

fn is_compact(event: Json<'_>) -> bool {
    event.payload().as_str().len() == event.as_str().len()
}

fn write_field(out: &mut Vec<u8>, name: &str, value: Json<'_>) {
    out.push(b',');
    write_value(out, name, value);
}

fn write_value(out: &mut Vec<u8>, name: &str, value: Json<'_>) {
    json::write_string(out, name);
    out.push(b':');
    out.extend_from_slice(value.payload().as_str().as_bytes());
}

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

    const ID: &str = "018f0000-0000-7000-8000-000000000007";

    fn ours(payload: &str) -> String {
        format!(
            r#"{{"id":"{ID}","occurred_at":"t","event_type":"e","payload":{payload},"metadata":{{"source":"s","priority":"Low","ttl":5}}}}"#
        )
    }

    fn read_text(text: &str) -> Option<String> {
        let (id, event) = read(text.as_bytes())?;
        assert_eq!(id.to_string(), ID);
        Some(String::from_utf8(event.to_vec()).unwrap())
    }

    #[test]
    fn ours_come_back_byte_for_byte() {
        for payload in ["1.50", r#"{"b":1,"a":2,"a":-0.0}"#, r#""\u0000 é""#, "1e999999"] {
            assert_eq!(read_text(&ours(payload)), Some(ours(payload)));
        }
    }

    #[test]
    fn those_of_others_are_put_into_our_form() {
        let others = format!(
            r#"{{"id": "{ID}", "payload": {{"a": [1, 2]}}, "metadata": {{"ttl": 5, "x": 1, "source": "s", "priority": "Low"}}, "event_type": "e", "occurred_at": "t"}}"#
        );
        assert_eq!(read_text(&others), Some(ours(r#"{"a":[1,2]}"#)));
        let spaced = ours("1").replace(",\"payload", ",\n\"payload");
        assert_eq!(read_text(&spaced), Some(ours("1")));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let whole = ours("1");
        let mut rows = vec!["{}".to_owned(), "[]".to_owned(), String::new(), "{\"id\":".to_owned()];
        for (part, with) in [
            (ID, "7"),
            ("occurred_at", "occurred"),
            ("\"event_type\":\"e\"", "\"event_type\":1"),
            ("payload", "load"),
            ("\"source\":\"s\",", ""),
            ("\"Low\"", "1"),
            ("metadata", "meta"),
        ] {
            rows.push(whole.replace(part, with));
        }
        for row in rows {
            assert_eq!(read_text(&row), None, "{row}");
        }
    }

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
