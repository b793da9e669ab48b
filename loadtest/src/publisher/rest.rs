//! Publishes over HTTP (contract §1.7, §1.8).
use super::{Answer, Reply};
use crate::payload::{EVENT_TYPE, Stationery, write_number};
use crate::scenario::{Aim, Audience, Plan};
use memchr::memmem;
use serde::Deserialize;

/// `metadata.source` of what comes by HTTP.
const SOURCE: &str = "http-api";
/// Longest answer we take.
const ANSWER_BYTES_MAX: usize = 1_024 * 1_024;

/// Writes requests.
pub struct RestDoor {
    /// For each stream that is this publisher's: path and headers up to the length, and the body up to the payload.
    forms: Vec<Option<Form>>,
    batch: Option<Batch>,
    /// Whether each receipt must say that the notification is kept, and was delivered to nobody.
    kept: bool,
    body: Vec<u8>,
}

/// How batches are written: their notifications gather in the body.
struct Batch {
    /// Path and headers up to the length.
    head: Vec<u8>,
    size: usize,
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
        let head = |path: &str| {
            format!("POST /api/v1/notifications/{path} HTTP/1.1\r\n{headers}Content-Length: ").into_bytes()
        };
        let form = |aim: Aim| {
            let (path, target) = match aim {
                Aim::User(client) if plan.batch_size.is_some() => {
                    ("batch", format!(r#""target":{{"type":"user","value":"{}"}},"#, audience.user(client)))
                }
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
            Form { head: head(path), body: format!(r#"{{{target}"event_type":"{EVENT_TYPE}","payload":"#).into_bytes() }
        };
        let forms = plan.streams.iter().map(|stream| (stream.publisher == publisher).then(|| form(stream.aim)));
        let batch = plan.batch_size.map(|size| Batch { head: head("batch"), size: size as usize });
        RestDoor { forms: forms.collect(), batch, kept: plan.backlog.is_some(), body: Vec::new() }
    }

    /// Notifications of one request.
    pub fn batch_size(&self) -> usize {
        self.batch.as_ref().map_or(1, |batch| batch.size)
    }

    /// Appends one request, or puts one more notification into the batch.
    pub fn write(&mut self, out: &mut Vec<u8>, stationery: &Stationery, stream: u32, seq: u64, sent_us: u64) {
        // The deck deals a publisher its own streams only, and each of those has a form.
        let Some(form) = self.forms.get(stream as usize).and_then(Option::as_ref) else { return };
        if self.batch.is_some() {
            self.body.extend_from_slice(if self.body.is_empty() { br#"{"notifications":["# } else { b"," });
        }
        self.body.extend_from_slice(&form.body);
        stationery.write(&mut self.body, SOURCE.len(), stream, seq, sent_us);
        self.body.push(b'}');
        if self.batch.is_none() {
            write_request(out, &form.head, &self.body);
            self.body.clear();
        }
    }

    /// Appends the request of a batch whose notifications are all there.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(batch) = &self.batch
            && !self.body.is_empty()
        {
            self.body.extend_from_slice(b"]}");
            write_request(out, &batch.head, &self.body);
            self.body.clear();
        }
    }

    /// Reads the answer at the start of `bytes`.
    pub fn read(&self, bytes: &[u8]) -> Reply {
        let of_body = match (&self.batch, self.kept) {
            (Some(_), _) => batch_receipts,
            (None, true) => receipt_of_kept,
            (None, false) => receipt,
        };
        read(bytes, of_body)
    }
}

fn write_request(out: &mut Vec<u8>, head: &[u8], body: &[u8]) {
    out.extend_from_slice(head);
    write_number(out, body.len() as u64);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

fn read(bytes: &[u8], of_body: fn(&[u8]) -> Result<Answer, String>) -> Reply {
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
    let excerpt = || String::from_utf8_lossy(&body[..length.min(200)]);
    let answer = match status {
        200 => of_body(body).unwrap_or_else(|reason| Answer::Refused(format!("{reason}: {}", excerpt()))),
        _ => Answer::Refused(format!("status {status}: {}", excerpt())),
    };
    Ok(Some((answer, head + length)))
}

fn receipt(body: &[u8]) -> Result<Answer, String> {
    count(body, b"\"delivered_to\":").map(Answer::Accepted).ok_or_else(|| "a receipt without delivered_to".to_owned())
}

/// The receipt of a notification to one user who is away: in one mailbox, and nowhere else (contract C-4).
fn receipt_of_kept(body: &[u8]) -> Result<Answer, String> {
    match (count(body, b"\"queued\":"), count(body, b"\"delivered_to\":")) {
        (Some(1), Some(0)) => Ok(Answer::Accepted(1)),
        (None, _) => Err("a receipt without queued".to_owned()),
        _ => Err("a receipt that does not say queued 1 and delivered_to 0".to_owned()),
    }
}

/// The receipts of a batch, which must say the same one by one and in sum (contract §1.8).
fn batch_receipts(body: &[u8]) -> Result<Answer, String> {
    #[derive(Deserialize)]
    struct Receipt {
        index: usize,
        delivered_to: u64,
        success: bool,
        #[serde(default)]
        skipped: bool,
        error: Option<String>,
    }
    #[derive(Deserialize)]
    struct Summary {
        total: usize,
        succeeded: usize,
        failed: usize,
        skipped: usize,
        total_delivered: u64,
    }
    #[derive(Deserialize)]
    struct Receipts {
        results: Vec<Receipt>,
        summary: Summary,
    }
    let Receipts { results, summary } =
        serde_json::from_slice(body).map_err(|error| format!("not the receipts of a batch ({error})"))?;
    let in_order = results.iter().enumerate().all(|(place, receipt)| receipt.index == place);
    let honest = results.iter().all(|receipt| receipt.success == (receipt.delivered_to > 0 || receipt.skipped));
    let succeeded = results.iter().filter(|receipt| receipt.success && !receipt.skipped).count();
    let skipped = results.iter().filter(|receipt| receipt.skipped).count();
    let sums = [summary.total, summary.succeeded, summary.skipped, summary.failed];
    let adds_up = sums == [results.len(), succeeded, skipped, results.len() - succeeded - skipped]
        && summary.total_delivered == results.iter().map(|receipt| receipt.delivered_to).sum::<u64>();
    if !(in_order && honest && adds_up) {
        return Err("receipts that do not add up".to_owned());
    }
    let verdict = |receipt: Receipt| match receipt.error {
        Some(error) => Err(error),
        None if receipt.skipped => Err("skipped".to_owned()),
        None => Ok(receipt.delivered_to),
    };
    Ok(Answer::Batch(results.into_iter().map(verdict).collect()))
}

/// The number behind a key.
fn count(body: &[u8], key: &[u8]) -> Option<u64> {
    let start = memmem::find(body, key)? + key.len();
    let digits = body[start..].iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&body[start..start + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receipts_of_a_batch_must_add_up() {
        let good = r#"{"batch_id":"b","results":[{"index":0,"notification_id":"n","delivered_to":1,"failed":0,"success":true},{"index":1,"notification_id":"n","delivered_to":0,"failed":0,"success":false},{"index":2,"notification_id":"n","delivered_to":0,"failed":0,"success":false,"error":"no"}],"summary":{"total":3,"succeeded":1,"failed":2,"skipped":0,"total_delivered":1},"timestamp":"t"}"#;
        assert_eq!(batch_receipts(good.as_bytes()), Ok(Answer::Batch(vec![Ok(1), Ok(0), Err("no".to_owned())])));
        for (from, to) in [
            (r#""index":1"#, r#""index":2"#),
            (r#""delivered_to":1"#, r#""delivered_to":2"#),
            (r#""success":true"#, r#""success":false"#),
            (r#""total":3"#, r#""total":4"#),
            (r#""succeeded":1"#, r#""succeeded":2"#),
            (r#""failed":2"#, r#""failed":1"#),
            (r#""skipped":0"#, r#""skipped":1"#),
            (r#""total_delivered":1"#, r#""total_delivered":0"#),
            (r#""results""#, r#""receipts""#),
        ] {
            assert!(batch_receipts(good.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn what_is_kept_must_be_kept_once_and_for_nobody_else() {
        let receipt = |delivered: u32, queued: u32| {
            let body = format!(r#"{{"success":true,"delivered_to":{delivered},"failed":0,"queued":{queued}}}"#);
            receipt_of_kept(body.as_bytes())
        };
        assert_eq!(receipt(0, 1), Ok(Answer::Accepted(1)));
        for (delivered, queued) in [(0, 0), (1, 0), (1, 1), (0, 2)] {
            assert!(receipt(delivered, queued).is_err(), "{delivered} {queued}");
        }
        assert!(receipt_of_kept(br#"{"success":true,"delivered_to":0,"failed":0}"#).is_err());
    }

    #[test]
    fn answers_are_read_one_by_one() {
        let read = |bytes: &[u8]| read(bytes, receipt);
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
