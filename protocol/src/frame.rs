//! One server message, encoded once and shared by reference count, as WebSocket frame and as SSE block.
use crate::clock;
use crate::ids::NotificationId;
use crate::json;
use crate::notification::{Content, Source};
use std::sync::OnceLock;

/// The `event:` name of an SSE block (contract §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventName {
    /// First event of a stream.
    Connected,
    /// Live and replayed notifications.
    Notification,
    /// Every heartbeat interval.
    Heartbeat,
    /// The shutdown notice.
    Message,
    /// A problem told to the client.
    Error,
}

impl EventName {
    fn as_str(self) -> &'static str {
        match self {
            EventName::Connected => "connected",
            EventName::Notification => "notification",
            EventName::Heartbeat => "heartbeat",
            EventName::Message => "message",
            EventName::Error => "error",
        }
    }
}

/// A server message in its final bytes.
///
/// The WebSocket form is made at once. The SSE form is made by the first shard that has an SSE recipient, so a node
/// without SSE clients never pays for it.
#[derive(Debug)]
pub struct Frame {
    event: EventName,
    id: Option<NotificationId>,
    /// Frame header, then the JSON text.
    websocket: Box<[u8]>,
    json_start: u8,
    sse: OnceLock<SseBlock>,
}

/// An SSE block inside its HTTP chunk, so that HTTP/1.1 takes the whole and HTTP/1.0 the middle.
#[derive(Debug)]
struct SseBlock {
    chunk: Box<[u8]>,
    block: std::ops::Range<usize>,
}

impl Frame {
    /// A frame of compact JSON text (no raw newline).
    pub fn new(event: EventName, id: Option<NotificationId>, json: &[u8]) -> Frame {
        debug_assert!(!json.contains(&b'\n'), "a raw newline would end the SSE data line");
        let mut websocket = Vec::with_capacity(json.len() + 10);
        crate::ws::encoder::write_header(&mut websocket, crate::ws::encoder::Opcode::Text, json.len());
        let json_start = websocket.len() as u8;
        websocket.extend_from_slice(json);
        Frame { event, id, websocket: websocket.into_boxed_slice(), json_start, sse: OnceLock::new() }
    }

    /// The notification message of contract §3.5 and §5, keys in that order.
    pub fn notification(id: NotificationId, unix_ns: u64, source: &Source, content: &Content) -> Frame {
        let mut out = Vec::with_capacity(320 + content.payload.as_str().len());
        out.extend_from_slice(br#"{"type":"notification","id":""#);
        id.write(&mut out);
        out.extend_from_slice(br#"","occurred_at":""#);
        clock::write_rfc3339(&mut out, unix_ns);
        out.extend_from_slice(br#"","event_type":"#);
        json::write_string(&mut out, &content.event_type);
        out.extend_from_slice(br#","payload":"#);
        out.extend_from_slice(content.payload.as_str().as_bytes());
        out.extend_from_slice(br#","metadata":{"source":"#);
        match source {
            Source::Http => out.extend_from_slice(br#""http-api""#),
            Source::Redis(channel) => json::write_string(&mut out, &format!("redis:{channel}")),
        }
        out.extend_from_slice(br#","priority":""#);
        out.extend_from_slice(content.priority.as_str().as_bytes());
        out.push(b'"');
        if let Some(ttl) = content.ttl {
            out.extend_from_slice(br#","ttl":"#);
            out.extend_from_slice(itoa::Buffer::new().format(ttl).as_bytes());
        }
        if let Some(audience) = &content.audience {
            out.extend_from_slice(br#","audience":"#);
            json::write_value(&mut out, audience);
        }
        if let Some(correlation_id) = &content.correlation_id {
            out.extend_from_slice(br#","correlation_id":"#);
            json::write_string(&mut out, correlation_id);
        }
        out.extend_from_slice(b"}}");
        Frame::new(EventName::Notification, Some(id), &out)
    }

    /// A kept event (contract §5) as a notification message again. From the second delivery on its metadata say which one
    /// it is (C-12).
    pub fn replay(id: NotificationId, event: &[u8], attempt: u32) -> Frame {
        let mut out = Vec::with_capacity(event.len() + 48);
        out.extend_from_slice(br#"{"type":"notification","#);
        // An event is an object that ends with the object of its metadata: see `Frame::event`.
        let (inside, end) = event.get(1..).unwrap_or_default().split_at(event.len().saturating_sub(3));
        out.extend_from_slice(inside);
        if attempt > 1 {
            out.extend_from_slice(br#","attempt":"#);
            out.extend_from_slice(itoa::Buffer::new().format(attempt).as_bytes());
        }
        out.extend_from_slice(end);
        Frame::new(EventName::Notification, Some(id), &out)
    }

    /// The event object of contract §5 inside a notification message: what a mailbox keeps.
    pub fn event(&self) -> Vec<u8> {
        let mut event = vec![b'{'];
        event.extend_from_slice(self.json().strip_prefix(br#"{"type":"notification","#).unwrap_or_default());
        event
    }

    /// The whole WebSocket frame, unmasked, FIN set.
    pub fn websocket(&self) -> &[u8] {
        &self.websocket
    }

    /// The message text alone.
    pub fn json(&self) -> &[u8] {
        &self.websocket[usize::from(self.json_start)..]
    }

    /// The SSE block as one HTTP/1.1 chunk.
    pub fn sse_chunk(&self) -> &[u8] {
        &self.sse().chunk
    }

    /// The SSE block bare, for HTTP/1.0.
    pub fn sse_block(&self) -> &[u8] {
        let sse = self.sse();
        &sse.chunk[sse.block.clone()]
    }

    fn sse(&self) -> &SseBlock {
        self.sse.get_or_init(|| {
            let mut block = Vec::with_capacity(self.json().len() + 96);
            if let Some(id) = self.id {
                block.extend_from_slice(b"id: ");
                id.write(&mut block);
                block.push(b'\n');
            }
            block.extend_from_slice(b"event: ");
            block.extend_from_slice(self.event.as_str().as_bytes());
            block.extend_from_slice(b"\ndata: ");
            block.extend_from_slice(self.json());
            block.extend_from_slice(b"\n\n");
            let mut chunk = format!("{:x}\r\n", block.len()).into_bytes();
            let range = chunk.len()..chunk.len() + block.len();
            chunk.extend_from_slice(&block);
            chunk.extend_from_slice(b"\r\n");
            SseBlock { chunk: chunk.into_boxed_slice(), block: range }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::Priority;

    fn frame() -> Frame {
        let content = Content {
            event_type: "order.created".into(),
            payload: json::compact(r#"{"b":1.50,"a":"}}"}"#, 0).unwrap(),
            priority: Priority::High,
            ttl: Some(60),
            correlation_id: Some("c-1".into()),
            audience: None,
        };
        Frame::notification(NotificationId::NIL, 1_767_323_045_123_456_789, &Source::Http, &content)
    }

    #[test]
    fn a_kept_event_comes_back_byte_for_byte() {
        let live = frame();
        let kept = live.event();
        assert!(kept.starts_with(br#"{"id":"00000000-"#));
        assert_eq!(Frame::replay(NotificationId::NIL, &kept, 1).json(), live.json());
    }

    #[test]
    fn a_redelivery_says_which_it_is() {
        let replay = Frame::replay(NotificationId::NIL, &frame().event(), 3);
        let text = std::str::from_utf8(replay.json()).unwrap();
        assert!(text.ends_with(r#","correlation_id":"c-1","attempt":3}}"#), "{text}");
    }

    #[test]
    fn a_damaged_event_makes_a_frame_and_no_panic() {
        for event in [&b""[..], b"{", b"{}", b"x"] {
            Frame::replay(NotificationId::NIL, event, 2);
        }
    }
}
