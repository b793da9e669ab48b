//! Events of contract §5 as they come out of a store that others may write to, too.
use protocol::ids::NotificationId;
use protocol::json::{self, Json};
use std::borrow::Cow;
use uuid::Uuid;

/// Reads an event. One that is not in our form, as whoever writes only `message` has it after `jsonb` reordered it, is
/// put into it: keys in the order of the contract, unknown ones left out.
pub(crate) fn read(text: &[u8]) -> Option<(NotificationId, Cow<'_, [u8]>)> {
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
}
