//! What the pure functions of `protocol` cost. The list is [`rows`].
use crate::sampler::{self, Args, Row};
use crate::table::Table;
use protocol::auth::token::{MintClaims, Verifier, mint_hs256};
use protocol::frame::{EventName, Frame};
use protocol::http::head;
use protocol::ids::{NotificationId, uuid_v7};
use protocol::notification::{Content, Priority, Source};
use protocol::publish::redis::parse_redis;
use protocol::publish::request::parse_send;
use protocol::ws::decoder::{Decoded, Decoder, WsEvent};
use protocol::ws::encoder::{Opcode, write_header};
use protocol::{clock, json, limits};
use std::hint::black_box;
use std::sync::Arc;

/// 2026-01-02T03:04:05.123456789Z.
const UNIX_NS: u64 = 1_767_323_045_123_456_789;
/// A payload as publishers send it, with white space, which makes a notification of about 300 bytes.
const PAYLOAD: &str =
    r#"{"order_id": "ORD-001", "amount": 99.90, "currency": "TWD", "items": [1, 2, 3], "paid": true}"#;

/// Measures the rows that were asked for.
pub fn run(args: &Args) -> Table {
    sampler::measure("codec: one call", rows(), args)
}

/// Every row.
pub fn rows() -> Vec<Row> {
    vec![
        clock_rfc3339(),
        clock_http_date(),
        json_compact(),
        ws_header(),
        frame_plain(),
        frame_notification(),
        frame_sse(),
        token_verify(),
        head_parse(),
        send_parse(),
        redis_parse(),
        ws_decode(),
    ]
}

fn clock_rfc3339() -> Row {
    let mut out = Vec::with_capacity(64);
    Row::new("clock: write_rfc3339", move || {
        out.clear();
        clock::write_rfc3339(&mut out, black_box(UNIX_NS));
        black_box(&out);
    })
}

fn clock_http_date() -> Row {
    let mut out = Vec::with_capacity(64);
    Row::new("clock: write_http_date", move || {
        out.clear();
        clock::write_http_date(&mut out, black_box(UNIX_NS / 1_000_000_000));
        black_box(&out);
    })
}

fn json_compact() -> Row {
    Row::new("json: compact, payload of 93 bytes", || {
        let _ = black_box(json::compact(black_box(PAYLOAD), 1));
    })
}

fn ws_header() -> Row {
    let mut out = Vec::with_capacity(64);
    Row::new("ws: write_header, 300 bytes", move || {
        out.clear();
        write_header(&mut out, Opcode::Text, black_box(300));
        black_box(&out);
    })
}

fn frame_plain() -> Row {
    Row::new("frame: new, heartbeat", || {
        black_box(Frame::new(EventName::Heartbeat, None, black_box(br#"{"type":"heartbeat"}"#)));
    })
}

/// Parts of a notification; `None` only if the constant above were not JSON of legal depth.
pub(crate) fn content() -> Option<Content> {
    Some(Content {
        event_type: "order.created".into(),
        payload: json::compact(PAYLOAD, 1).ok()?,
        priority: Priority::Normal,
        ttl: Some(3_600),
        audience: None,
        correlation_id: None,
    })
}

fn notification(content: &Option<Content>) -> Option<Frame> {
    let id = NotificationId(uuid_v7(UNIX_NS / 1_000_000, [7; 10]));
    let content = content.as_ref()?;
    Some(Frame::notification(id, black_box(UNIX_NS), &Source::Http, content))
}

fn frame_notification() -> Row {
    let content = content();
    Row::new("frame: notification, shared", move || {
        black_box(notification(black_box(&content)).map(Arc::new));
    })
}

fn frame_sse() -> Row {
    let content = content();
    Row::new("frame: notification and its SSE chunk", move || {
        let frame = notification(black_box(&content));
        black_box(frame.as_ref().map(Frame::sse_chunk));
    })
}

/// Signs and checks the tokens of these measurements.
const SECRET: &[u8] = b"a secret of the measurements, 32+";

/// A token of a user of ours, valid around [`UNIX_NS`].
pub(crate) fn token(user: &str) -> String {
    let now = UNIX_NS / 1_000_000_000;
    mint_hs256(SECRET, &MintClaims { sub: user.into(), exp: now + 3_600, iat: now, ..MintClaims::default() })
}

/// What takes the tokens of [`token`]; `None` only if the secret above were empty.
pub(crate) fn verifier() -> Option<Verifier> {
    Verifier::hs256(SECRET).ok()
}

fn token_verify() -> Row {
    let (verifier, token) = (verifier(), token("user-000001"));
    Row::new("auth: verify, HS256", move || {
        let verifier = black_box(verifier.as_ref());
        black_box(verifier.map(|verifier| verifier.verify(black_box(&token), UNIX_NS / 1_000_000_000).is_ok()));
    })
}

/// A body of a send as backends write it.
fn send_body() -> String {
    format!(
        r#"{{"target_user_id": "user-000001", "event_type": "order.created", "payload": {PAYLOAD}, "priority": "High", "ttl": 3600}}"#
    )
}

/// The head before [`send_body`], from a backend behind nginx.
fn send_head() -> String {
    format!(
        "POST /api/v1/notifications/send HTTP/1.1\r\nHost: notification.example.com\r\nX-Real-IP: 203.0.113.7\r\n\
         X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nContent-Length: {}\r\n\
         User-Agent: GuzzleHttp/7\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         X-API-Key: 0123456789abcdef0123456789abcdef\r\n\r\n",
        send_body().len()
    )
}

fn head_parse() -> Row {
    let head = send_head().into_bytes();
    Row::new("http: parse, head of a send, 9 fields", move || {
        black_box(head::parse(black_box(&head)).is_ok());
    })
}

fn send_parse() -> Row {
    let body = send_body().into_bytes();
    Row::new("publish: parse_send, payload of 93 bytes", move || {
        let _ = black_box(parse_send(black_box(&body)));
    })
}

/// A Redis message as the deployment guide's publishers write it.
fn redis_payload() -> String {
    format!(
        r#"{{"type":"user","target":"user-000001","event":{{"event_type":"order.created","payload":{PAYLOAD},"priority":"High"}}}}"#
    )
}

fn redis_parse() -> Row {
    let payload = redis_payload().into_bytes();
    Row::new("publish: parse_redis, payload of 93 bytes", move || {
        let _ = black_box(parse_redis(black_box(&payload)));
    })
}

/// A masked text frame of 300 bytes of JSON.
fn client_frame() -> Vec<u8> {
    let text = format!(r#"{{"type":"Subscribe","payload":{{"channels":["{}"]}}}}"#, "a".repeat(300 - 48));
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    frame.extend_from_slice(&mask);
    frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Whether the frame is decoded to a text. Decoding unmasks in place, so each call needs the bytes anew.
fn decodes(frame: &[u8], buffer: &mut Vec<u8>, decoder: &mut Decoder) -> bool {
    buffer.clear();
    buffer.extend_from_slice(frame);
    let decoded = decoder.decode(black_box(buffer), limits::WS_MESSAGE_BYTES_MAX);
    matches!(decoded, Ok(Decoded::Frame { event: WsEvent::Text(_), .. }))
}

fn ws_decode() -> Row {
    let (frame, mut buffer, mut decoder) = (client_frame(), Vec::with_capacity(512), Decoder::new());
    Row::new("ws: decode, masked text of 300 bytes, copied first", move || {
        black_box(decodes(black_box(&frame), &mut buffer, &mut decoder));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_runs_and_the_frame_is_of_the_size_that_is_said() {
        rows().into_iter().for_each(|mut row| (row.call)());
        let bytes = notification(&content()).unwrap().json().len();
        assert!((280..=320).contains(&bytes), "{bytes}");
        assert_eq!(PAYLOAD.len(), 93);
        let names: std::collections::BTreeSet<_> = rows().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows().len(), "names are unique");
    }

    #[test]
    fn what_is_measured_is_the_way_of_good_input() {
        let claims = verifier().unwrap().verify(&token("ana"), UNIX_NS / 1_000_000_000).unwrap();
        assert_eq!(&*claims.user, "ana");
        let head = send_head();
        let Ok(head::HeadStatus::Complete { len, .. }) = head::parse(head.as_bytes()) else { panic!("a whole head") };
        assert_eq!((len, head.lines().count()), (head.len(), 11));
        parse_send(send_body().as_bytes()).unwrap();
        parse_redis(redis_payload().as_bytes()).unwrap();
        let frame = client_frame();
        assert_eq!(frame.len(), 300 + 8);
        assert!(decodes(&frame, &mut Vec::new(), &mut Decoder::new()));
    }
}
