//! What the stand-in reads and writes on its sockets.
use super::SECRET;
use serde_json::Value;
use std::io::BufRead;

/// A notification as it is delivered; its id is made of its numbers.
pub(super) fn notification(payload: &Value, source: &str) -> String {
    let numbers = [&payload["stream"], &payload["seq"]].map(|number| u128::from(number.as_u64().unwrap()));
    let id = uuid::Uuid::from_u128(numbers[0] << 64 | numbers[1]);
    let payload = ordered(payload);
    format!(
        r#"{{"type":"notification","id":"{id}","occurred_at":"2026-01-02T03:04:05.123456789Z","event_type":"load.test","payload":{payload},"metadata":{{"source":"{source}","priority":"Normal"}}}}"#
    )
}

/// The payload with its keys as they were published, which `Value` does not keep.
fn ordered(payload: &Value) -> String {
    let field = |key: &str| payload[key].to_string();
    format!(
        r#"{{"run":{},"stream":{},"seq":{},"sent_us":{},"pad":{}}}"#,
        field("run"),
        field("stream"),
        field("seq"),
        field("sent_us"),
        field("pad")
    )
}

/// Whose token a request line carries; `None` when it is not signed as it should be.
pub(super) fn user_of(uri: &str) -> Option<String> {
    let token = uri.split_once("token=")?.1;
    let key = jsonwebtoken::DecodingKey::from_secret(SECRET.as_bytes());
    let rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    let claims: Value = jsonwebtoken::decode(token, &key, &rules).ok()?.claims;
    Some(claims["sub"].as_str()?.to_owned())
}

/// Head and body; `None` at the end of the connection.
pub(super) fn read_request(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length =
        head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// The words of one RESP command; `None` at the end of the connection.
pub(super) fn read_command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().get(1..)?.parse::<usize>().ok()
    };
    let words = number(reader)?;
    let mut command = Vec::new();
    for _ in 0..words {
        let mut word = vec![0; number(reader)? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        command.push(String::from_utf8(word).unwrap());
    }
    Some(command)
}
