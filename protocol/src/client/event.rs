//! What we say to a client beside notifications (contract §3.5, §4): exact JSON text, without any framing.
use crate::ids::{ConnectionId, NotificationId};
use crate::json;

/// Answers a client's `Ping`.
pub const PONG: &[u8] = br#"{"type":"pong"}"#;
/// Said every heartbeat interval.
pub const HEARTBEAT: &[u8] = br#"{"type":"heartbeat"}"#;

/// The `code` of an `error` message. Only `CONNECTION_LIMIT` is followed by a Close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The node, the tenant or the user has as many connections as it may.
    ConnectionLimit,
    /// The text is no command.
    InvalidMessage,
    /// The message is binary.
    UnsupportedFormat,
    /// Some channels of a Subscribe were refused.
    SubscriptionError,
    /// The notification is unknown, somebody else's, expired, or acknowledged before.
    InvalidAck,
    /// The client says more than it may.
    RateLimited,
    /// The token of a Refresh does not hold, or is another's. Nothing has changed.
    InvalidToken,
    /// An SSE stream ends with its token. A WebSocket's Close frame says so by its code, as for the next two.
    TokenExpired,
    /// An SSE stream ends because its token was revoked.
    TokenRevoked,
    /// An SSE stream ends because somebody ended all connections of its user.
    Disconnected,
}

impl ErrorCode {
    /// The wire text.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::ConnectionLimit => "CONNECTION_LIMIT",
            ErrorCode::InvalidMessage => "INVALID_MESSAGE",
            ErrorCode::UnsupportedFormat => "UNSUPPORTED_FORMAT",
            ErrorCode::SubscriptionError => "SUBSCRIPTION_ERROR",
            ErrorCode::InvalidAck => "INVALID_ACK",
            ErrorCode::RateLimited => "RATE_LIMITED",
            ErrorCode::InvalidToken => "INVALID_TOKEN",
            ErrorCode::TokenExpired => "TOKEN_EXPIRED",
            ErrorCode::TokenRevoked => "TOKEN_REVOKED",
            ErrorCode::Disconnected => "DISCONNECTED",
        }
    }
}

/// Appends `subscribed`: the accepted names, bare, in the client's order.
pub fn write_subscribed(out: &mut Vec<u8>, channels: &[&str]) {
    out.extend_from_slice(br#"{"type":"subscribed","payload":"#);
    json::write_value(out, channels);
    out.push(b'}');
}

/// Appends `unsubscribed`: every name given, as given.
pub fn write_unsubscribed(out: &mut Vec<u8>, channels: &[&str]) {
    out.extend_from_slice(br#"{"type":"unsubscribed","payload":"#);
    json::write_value(out, channels);
    out.push(b'}');
}

/// Appends `acked`.
pub fn write_acked(out: &mut Vec<u8>, notification_id: NotificationId) {
    out.extend_from_slice(br#"{"type":"acked","notification_id":""#);
    notification_id.write(out);
    out.extend_from_slice(br#""}"#);
}

/// Appends `refreshed`: the connection now ends at this time, in seconds since the Unix epoch.
pub fn write_refreshed(out: &mut Vec<u8>, expires_at_unix_s: u64) {
    out.extend_from_slice(br#"{"type":"refreshed","expires_at":"#);
    out.extend_from_slice(itoa::Buffer::new().format(expires_at_unix_s).as_bytes());
    out.push(b'}');
}

/// Appends `error`.
pub fn write_error(out: &mut Vec<u8>, code: ErrorCode, message: &str) {
    out.extend_from_slice(br#"{"type":"error","code":""#);
    out.extend_from_slice(code.as_str().as_bytes());
    out.extend_from_slice(br#"","message":"#);
    json::write_string(out, message);
    out.push(b'}');
}

/// Appends the data of the `error` event that an SSE stream ends with (contract §4).
pub fn write_stream_error(out: &mut Vec<u8>, code: ErrorCode, message: &str) {
    out.extend_from_slice(br#"{"code":""#);
    out.extend_from_slice(code.as_str().as_bytes());
    out.extend_from_slice(br#"","message":"#);
    json::write_string(out, message);
    out.push(b'}');
}

/// Appends `shutdown`. `reconnect_after_seconds` is drawn by the caller from
/// [`crate::limits::RECONNECT_AFTER_SECONDS`].
pub fn write_shutdown(out: &mut Vec<u8>, reason: &str, reconnect_after_seconds: u32) {
    out.extend_from_slice(br#"{"type":"shutdown","reason":"#);
    json::write_string(out, reason);
    out.extend_from_slice(br#","reconnect_after_seconds":"#);
    out.extend_from_slice(itoa::Buffer::new().format(reconnect_after_seconds).as_bytes());
    out.push(b'}');
}

/// Appends `connected`, the first event of an SSE stream. WebSocket clients never hear it.
pub fn write_connected(out: &mut Vec<u8>, connection_id: ConnectionId) {
    out.extend_from_slice(br#"{"type":"connected","connection_id":""#);
    connection_id.write(out);
    out.extend_from_slice(br#""}"#);
}
