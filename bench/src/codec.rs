//! What the pure functions of `protocol` cost. The list is [`rows`].
use crate::sampler::{self, Row};
use crate::table::Table;
use protocol::frame::{EventName, Frame};
use protocol::ids::{NotificationId, uuid_v7};
use protocol::notification::{Content, Priority, Source};
use protocol::ws::encoder::{Opcode, write_header};
use protocol::{clock, json};
use std::hint::black_box;
use std::sync::Arc;

/// 2026-01-02T03:04:05.123456789Z.
const UNIX_NS: u64 = 1_767_323_045_123_456_789;
/// A payload as publishers send it, with white space, which makes a notification of about 300 bytes.
const PAYLOAD: &str =
    r#"{"order_id": "ORD-001", "amount": 99.90, "currency": "TWD", "items": [1, 2, 3], "paid": true}"#;

/// Flags of `codec`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Milliseconds for each row.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub row_ms: u64,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    pub only: String,
}

/// Measures the rows that were asked for.
pub fn run(args: &Args) -> Table {
    let mut rows = rows();
    rows.retain(|row| row.name.contains(&args.only));
    sampler::measure("codec: one call", rows, args.row_ms * 1_000_000)
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
    Row::new("json: compact, payload of 95 bytes", || {
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

/// A notification's parts; `None` only if the constant above were not JSON of legal depth.
fn content() -> Option<Content> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_runs_and_the_frame_is_of_the_size_that_is_said() {
        rows().into_iter().for_each(|mut row| (row.call)());
        let bytes = notification(&content()).unwrap().json().len();
        assert!((280..=320).contains(&bytes), "{bytes}");
        let names: std::collections::BTreeSet<_> = rows().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows().len(), "names are unique");
    }
}
