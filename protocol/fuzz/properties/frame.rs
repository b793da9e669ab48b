//! Notifications as clients read them: whatever was published, a frame is one frame and a block is one block.
use super::{AT_NS, rng_of};
use protocol::frame::{EventName, Frame};
use protocol::ids::NotificationId;
use protocol::json::{self, Json};
use protocol::notification::{Audience, Content, Payload, Priority, Source};
use protocol::sse;
use serde_json::Value;
use std::io::Cursor;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};
use uuid::Uuid;

/// The first line is an event type, the rest the payload: as JSON if it is some, as a string otherwise.
pub fn frame(bytes: &[u8]) {
    let mut rng = rng_of(bytes);
    let at = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (event_type, rest) = bytes.split_at(at);
    let event_type = String::from_utf8_lossy(event_type);
    let payload = payload_of(rest);
    let text = || -> Box<str> { Box::from(&*event_type) };
    let content = Content {
        payload,
        priority: [Priority::Low, Priority::Normal, Priority::High, Priority::Critical][rng.usize(0..4)],
        ttl: rng.bool().then(|| rng.u32(..)),
        correlation_id: rng.bool().then(text),
        audience: match rng.u8(0..5) {
            0 => Some(Audience::All),
            1 => Some(Audience::Roles(vec![text()])),
            2 => Some(Audience::Users(vec![text(), text()])),
            3 => Some(Audience::Channels(Vec::new())),
            _ => None,
        },
        event_type: text(),
    };
    check(&content, &Source::Http);
    check(&content, &Source::Redis(text()));
}

fn payload_of(bytes: &[u8]) -> Payload {
    match Json::parse(bytes) {
        Ok(json) => json.payload(),
        Err(_) => {
            let mut text = Vec::new();
            json::write_string(&mut text, &String::from_utf8_lossy(bytes));
            Json::parse(&text).expect("a string that we wrote ourselves").payload()
        }
    }
}

/// A notification of this content, on both transports.
pub fn check(content: &Content, source: &Source) {
    let id = NotificationId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
    let frame = Frame::notification(id, AT_NS, source, content);
    let json = std::str::from_utf8(frame.json()).expect("JSON text is UTF-8");
    assert!(!json.contains(['\n', '\r']), "a raw line end in {json}");
    // A value that is a JSON text but no `Value` may stand in the payload; the rest is ours.
    if let Ok(value) = serde_json::from_str::<Value>(json) {
        assert_eq!(value["event_type"], &*content.event_type);
        assert_eq!(value["payload"], serde_json::from_str::<Value>(content.payload.as_str()).expect("a part of it"));
        assert_eq!(value["metadata"]["correlation_id"].as_str(), content.correlation_id.as_deref());
        assert_eq!(value["metadata"]["audience"], serde_json::to_value(&content.audience).expect("plain data"));
        if let Source::Redis(channel) = source {
            assert_eq!(value["metadata"]["source"].as_str(), Some(&*format!("redis:{channel}")));
        }
    } else {
        assert!(serde_json::from_str::<Value>(content.payload.as_str()).is_err() || depth_is_bound(json), "{json}");
    }

    let config = WebSocketConfig::default().read_buffer_size(4_096);
    let wire = Cursor::new(frame.websocket().to_vec());
    let mut client = WebSocket::from_raw_socket(wire, Role::Client, Some(config));
    match client.read() {
        Ok(Message::Text(text)) => assert_eq!(text.as_str(), json),
        other => panic!("a text frame was sent, heard was {other:?}"),
    }
    assert_eq!(client.get_ref().position(), frame.websocket().len() as u64, "bytes behind the frame");

    let block = std::str::from_utf8(frame.sse_block()).expect("UTF-8");
    check_block(block, "notification", Some(&id.to_string()), json);
    assert_eq!(frame.sse_chunk(), [format!("{:x}\r\n{block}", block.len()).as_bytes(), b"\r\n"].concat());

    let mut block = Vec::new();
    sse::write_block(&mut block, EventName::Message, json.as_bytes(), false);
    check_block(std::str::from_utf8(&block).expect("UTF-8"), "message", None, json);
}

/// Whether the text nests as deep as `serde_json` reads: then the wrapping of a payload is what makes it too deep.
fn depth_is_bound(json: &str) -> bool {
    Json::parse(json.as_bytes()).is_err()
}

/// Reads an event stream as a browser does (WHATWG HTML §9.2.6): one event, and its data is the JSON text.
fn check_block(block: &str, event_name: &str, id: Option<&str>, json: &str) {
    let normalised = block.replace("\r\n", "\n").replace('\r', "\n");
    let (mut data, mut name, mut last_id, mut events) = (Vec::new(), String::new(), None, 0);
    for line in normalised.strip_suffix('\n').expect("ends with an empty line").split('\n') {
        match line.split_once(':').map(|(field, value)| (field, value.strip_prefix(' ').unwrap_or(value))) {
            None => {
                assert_eq!(line, "", "a field without a value");
                assert_eq!((data.join("\n").as_str(), name.as_str()), (json, event_name));
                events += 1;
            }
            Some(("data", value)) => data.push(value),
            Some(("event", value)) => name = value.to_owned(),
            Some(("id", value)) => last_id = Some(value),
            Some((field, _)) => panic!("a field {field:?} that nobody wrote"),
        }
    }
    assert_eq!((events, last_id), (1, id));
}
