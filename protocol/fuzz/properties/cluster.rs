//! What comes from other nodes, or from whoever else may write to their Redis.
use super::publish::assert_blank_to_white_space;
use super::{AT_NS, assert_telling};
use protocol::clock::Now;
use protocol::cluster::Topic;
use protocol::cluster::wire::{Parcel, ParcelKind, Published};
use protocol::frame::Frame;
use protocol::json::Json;
use protocol::limits;

/// A parcel that is taken can be sent on and says the same there; its message is fit for clients.
pub fn parcel(bytes: &[u8]) {
    let parsed = Parcel::decode(bytes);
    assert_blank_to_white_space(bytes, &parsed, Parcel::decode);
    let parcel = match parsed {
        Ok(parcel) => parcel,
        Err(error) => {
            assert_telling(&error.to_string(), 120);
            assert_telling(error.label(), 20);
            return;
        }
    };
    assert!(parcel.from_server.len() <= limits::SERVER_ID_BYTES_MAX);
    assert!(!parcel.is_for(&parcel.from_server), "a node's own");
    let mut again = b"before".to_vec();
    parcel.encode(&mut again).expect("what was short enough is short enough");
    let again = again.strip_prefix(b"before").expect("only appended");
    assert_eq!(Parcel::decode(again).as_ref(), Ok(&parcel), "{}", again.escape_ascii());
    match parcel.kind {
        ParcelKind::Publication { target, audience, published } => {
            check_event(&published);
            let now = Now { mono_us: 1_000, unix_ns: AT_NS };
            let publication = published.clone().into_publication(target, audience, now);
            check_frame(&publication.frame, &published.message);
            assert!(publication.expires_at_us.is_none_or(|at_us| at_us >= now.mono_us));
        }
        ParcelKind::Hint { published, .. } => check_event(&published),
        ParcelKind::Plain(plain) => check_frame(&plain.to_frame(), &plain.message),
        _ => {}
    }
}

/// A mailbox may keep it, and it comes out again.
fn check_event(published: &Published) {
    let frame = Frame::new(protocol::frame::EventName::Notification, Some(published.id), published.message.as_bytes());
    assert_eq!(Frame::replay(published.id, &frame.event(), 1).json(), published.message.as_bytes());
    let third = Frame::replay(published.id, &frame.event(), 3);
    assert!(third.json().ends_with(br#""attempt":3}}"#));
}

fn check_frame(frame: &Frame, message: &str) {
    assert_eq!(frame.json(), message.as_bytes());
    assert!(!message.contains(['\n', '\r']), "it would end the line of an SSE block");
    assert!(Json::parse(message.as_bytes()).expect("JSON").is_object());
}

/// A Redis channel that is a topic is the channel of that topic.
pub fn topic(bytes: &[u8]) {
    let Some(topic) = Topic::parse("ara:cluster:route", bytes) else { return };
    let mut name = Vec::new();
    topic.write(&mut name, "ara:cluster:route");
    assert_eq!(name, bytes, "{topic:?}");
}
