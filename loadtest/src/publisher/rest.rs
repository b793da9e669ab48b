//! Publishes over HTTP (contract §1.7, §1.8).
use super::{Answer, Reply};
use crate::payload::{EVENT_TYPE, Stationery, write_number};
use crate::scenario::{Aim, Audience, Plan};
use memchr::memmem;

/// `metadata.source` of what comes by HTTP.
const SOURCE: &str = "http-api";
/// Longest answer we take.
const ANSWER_BYTES_MAX: usize = 1_024 * 1_024;

/// Writes requests.
pub struct RestDoor {
    /// For each stream that is this publisher's: path and headers up to the length, and the body up to the payload.
    forms: Vec<Option<Form>>,
    body: Vec<u8>,
}

struct Form {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl RestDoor {
    /// Prepares the requests of one publisher.
    pub fn new(
        plan: &Plan,
        audience: &Audience,
        publisher: u32,
        host: &str,
        api_key: Option<&str>,
        tenant: Option<&str>,
    ) -> RestDoor {
        let mut headers = format!("Host: {host}\r\nContent-Type: application/json\r\n");
        for (name, value) in [("X-API-Key", api_key), ("X-Tenant-ID", tenant)] {
            if let Some(value) = value {
                headers.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let form = |aim: Aim| {
            let (path, target) = match aim {
                Aim::User(client) => ("send", format!(r#""target_user_id":"{}","#, audience.user(client))),
                Aim::Users(group) => {
                    let users: Vec<String> =
                        plan.clients_of_group(group, audience).map(|client| audience.user(client)).collect();
                    ("send-to-users", format!(r#""target_user_ids":{},"#, serde_json::json!(users)))
                }
                Aim::Channel(channel) => ("channel", format!(r#""channel":"{}","#, audience.channel(channel))),
                Aim::Channels(set) => {
                    let channels: Vec<String> =
                        plan.channels_of_set(set, audience).map(|channel| audience.channel(channel)).collect();
                    ("channels", format!(r#""channels":{},"#, serde_json::json!(channels)))
                }
                Aim::Broadcast => ("broadcast", String::new()),
            };
            Form {
                head: format!("POST /api/v1/notifications/{path} HTTP/1.1\r\n{headers}Content-Length: ").into_bytes(),
                body: format!(r#"{{{target}"event_type":"{EVENT_TYPE}","payload":"#).into_bytes(),
            }
        };
        let forms = plan.streams.iter().map(|stream| (stream.publisher == publisher).then(|| form(stream.aim)));
        RestDoor { forms: forms.collect(), body: Vec::new() }
    }

    /// Appends one request.
    pub fn write(&mut self, out: &mut Vec<u8>, stationery: &Stationery, stream: u32, seq: u64, sent_us: u64) {
        // The deck deals a publisher its own streams only, and each of those has a form.
        let Some(form) = self.forms.get(stream as usize).and_then(Option::as_ref) else { return };
        self.body.clear();
        self.body.extend_from_slice(&form.body);
        stationery.write(&mut self.body, SOURCE.len(), stream, seq, sent_us);
        self.body.push(b'}');
        out.extend_from_slice(&form.head);
        write_number(out, self.body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&self.body);
    }
}

/// Reads the answer at the start of `bytes`.
pub fn read(bytes: &[u8]) -> Reply {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes).map_err(|error| format!("answer head: {error}"))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial if bytes.len() <= ANSWER_BYTES_MAX => return Ok(None),
        httparse::Status::Partial => return Err("answer head: too long".to_owned()),
    };
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|field| std::str::from_utf8(field.value).ok()?.trim().parse::<usize>().ok());
    let length = length.filter(|length| *length <= ANSWER_BYTES_MAX).ok_or("an answer without a usable length")?;
    let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
    let status = response.code.unwrap_or(0);
    let answer = match delivered_to(body) {
        Some(count) if status == 200 => Answer::Accepted(count),
        _ => Answer::Refused(format!("status {status}: {}", String::from_utf8_lossy(&body[..length.min(200)]))),
    };
    Ok(Some((answer, head + length)))
}

fn delivered_to(body: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"delivered_to\":";
    let start = memmem::find(body, KEY)? + KEY.len();
    let digits = body[start..].iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&body[start..start + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_by_one() {
        let answer =
            |status: &str, body: &str| format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let good = answer("200 OK", r#"{"success":true,"delivered_to":12,"failed":0}"#);
        let both = good.clone() + &answer("503 Busy", "{}");
        assert_eq!(read(both.as_bytes()), Ok(Some((Answer::Accepted(12), good.len()))));
        assert!(matches!(read(&both.as_bytes()[good.len()..]), Ok(Some((Answer::Refused(_), _)))));
        for end in 0..good.len() {
            assert_eq!(read(&good.as_bytes()[..end]), Ok(None));
        }
        assert!(read(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(read(b"nonsense\r\n").is_err());
    }
}
