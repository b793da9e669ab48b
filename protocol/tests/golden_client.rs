//! What a client sees on the wire, byte for byte (contract §3.5, §3.8, §4).
use protocol::client::event::{self, ErrorCode};
use protocol::frame::{EventName, Frame};
use protocol::ids::{ConnectionId, NotificationId};
use protocol::sse;
use protocol::ws::close::CloseCode;
use protocol::ws::encoder;
use uuid::Uuid;

const ID: Uuid = Uuid::from_u128(0x550e8400_e29b_41d4_a716_446655440000);

/// What a writer appends, which must leave alone what is already there.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before ".to_vec();
    write(&mut out);
    let text = String::from_utf8(out).expect("every message here is text");
    text.strip_prefix("before ").expect("a writer only appends").to_owned()
}

#[test]
fn messages() {
    let rows = [
        (written(|out| out.extend_from_slice(event::PONG)), r#"{"type":"pong"}"#),
        (written(|out| out.extend_from_slice(event::HEARTBEAT)), r#"{"type":"heartbeat"}"#),
        (
            written(|out| event::write_subscribed(out, &["orders", "v1.events"])),
            r#"{"type":"subscribed","payload":["orders","v1.events"]}"#,
        ),
        (written(|out| event::write_subscribed(out, &["订单"])), r#"{"type":"subscribed","payload":["订单"]}"#),
        (written(|out| event::write_subscribed(out, &[])), r#"{"type":"subscribed","payload":[]}"#),
        (
            written(|out| event::write_unsubscribed(out, &["orders", "orders", "a\"b\n", ""])),
            r#"{"type":"unsubscribed","payload":["orders","orders","a\"b\n",""]}"#,
        ),
        (
            written(|out| event::write_acked(out, NotificationId(ID))),
            r#"{"type":"acked","notification_id":"550e8400-e29b-41d4-a716-446655440000"}"#,
        ),
        (
            written(|out| {
                event::write_error(out, ErrorCode::ConnectionLimit, "User lim connection limit exceeded (5/5)")
            }),
            r#"{"type":"error","code":"CONNECTION_LIMIT","message":"User lim connection limit exceeded (5/5)"}"#,
        ),
        (
            written(|out| event::write_error(out, ErrorCode::InvalidMessage, "expected `\"` at line 1 column 2\u{1}/")),
            r#"{"type":"error","code":"INVALID_MESSAGE","message":"expected `\"` at line 1 column 2\u0001/"}"#,
        ),
        (
            written(|out| event::write_error(out, ErrorCode::UnsupportedFormat, "Binary messages are not supported")),
            r#"{"type":"error","code":"UNSUPPORTED_FORMAT","message":"Binary messages are not supported"}"#,
        ),
        (
            written(|out| event::write_error(out, ErrorCode::SubscriptionError, "Invalid channel name: a b")),
            r#"{"type":"error","code":"SUBSCRIPTION_ERROR","message":"Invalid channel name: a b"}"#,
        ),
        (
            written(|out| event::write_error(out, ErrorCode::InvalidAck, "Unknown or invalid notification: x")),
            r#"{"type":"error","code":"INVALID_ACK","message":"Unknown or invalid notification: x"}"#,
        ),
        (
            written(|out| event::write_error(out, ErrorCode::RateLimited, "Too many messages")),
            r#"{"type":"error","code":"RATE_LIMITED","message":"Too many messages"}"#,
        ),
        (
            written(|out| event::write_shutdown(out, "Server shutting down", 5)),
            r#"{"type":"shutdown","reason":"Server shutting down","reconnect_after_seconds":5}"#,
        ),
        (
            written(|out| event::write_connected(out, ConnectionId(ID))),
            r#"{"type":"connected","connection_id":"550e8400-e29b-41d4-a716-446655440000"}"#,
        ),
        (written(|out| event::write_refreshed(out, 1_767_326_645)), r#"{"type":"refreshed","expires_at":1767326645}"#),
        (
            written(|out| event::write_error(out, ErrorCode::InvalidToken, "Invalid token")),
            r#"{"type":"error","code":"INVALID_TOKEN","message":"Invalid token"}"#,
        ),
        (
            written(|out| event::write_stream_error(out, ErrorCode::TokenExpired, "Token has expired")),
            r#"{"code":"TOKEN_EXPIRED","message":"Token has expired"}"#,
        ),
        (
            written(|out| event::write_stream_error(out, ErrorCode::TokenRevoked, "Token has been revoked")),
            r#"{"code":"TOKEN_REVOKED","message":"Token has been revoked"}"#,
        ),
        (
            written(|out| event::write_stream_error(out, ErrorCode::Disconnected, "Disconnected")),
            r#"{"code":"DISCONNECTED","message":"Disconnected"}"#,
        ),
    ];
    for (said, golden) in rows {
        assert_eq!(said, golden);
    }
}

#[test]
fn sse_pieces_bare_and_in_chunks() {
    type Write = fn(&mut Vec<u8>, bool);
    let rows: [(Write, &str, &str); 9] = [
        (|out, chunked| sse::write_retry(out, 3_000, chunked), "retry: 3000\n\n", "d\r\nretry: 3000\n\n\r\n"),
        (|out, chunked| sse::write_retry(out, 0, chunked), "retry: 0\n\n", "a\r\nretry: 0\n\n\r\n"),
        (
            |out, chunked| sse::write_retry(out, u32::MAX, chunked),
            "retry: 4294967295\n\n",
            "13\r\nretry: 4294967295\n\n\r\n",
        ),
        (sse::write_comment_heartbeat, ": heartbeat\n\n", "d\r\n: heartbeat\n\n\r\n"),
        (sse::write_end, "", "0\r\n\r\n"),
        (
            |out, chunked| sse::write_block(out, EventName::Heartbeat, event::HEARTBEAT, chunked),
            "event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n",
            "2d\r\nevent: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n\r\n",
        ),
        (
            |out, chunked| {
                let mut json = Vec::new();
                event::write_connected(&mut json, ConnectionId(ID));
                sse::write_block(out, EventName::Connected, &json, chunked);
            },
            "event: connected\n\
             data: {\"type\":\"connected\",\"connection_id\":\"550e8400-e29b-41d4-a716-446655440000\"}\n\n",
            "64\r\nevent: connected\n\
             data: {\"type\":\"connected\",\"connection_id\":\"550e8400-e29b-41d4-a716-446655440000\"}\n\n\r\n",
        ),
        (
            |out, chunked| {
                let mut json = Vec::new();
                event::write_shutdown(&mut json, "Server shutting down", 5);
                sse::write_block(out, EventName::Message, &json, chunked);
            },
            "event: message\n\
             data: {\"type\":\"shutdown\",\"reason\":\"Server shutting down\",\"reconnect_after_seconds\":5}\n\n",
            "66\r\nevent: message\n\
             data: {\"type\":\"shutdown\",\"reason\":\"Server shutting down\",\"reconnect_after_seconds\":5}\n\n\r\n",
        ),
        (
            |out, chunked| sse::write_block(out, EventName::Error, br#"{"code":"X","message":"y"}"#, chunked),
            "event: error\ndata: {\"code\":\"X\",\"message\":\"y\"}\n\n",
            "2f\r\nevent: error\ndata: {\"code\":\"X\",\"message\":\"y\"}\n\n\r\n",
        ),
    ];
    for (write, bare, chunk) in rows {
        assert_eq!(written(|out| write(out, false)), bare);
        assert_eq!(written(|out| write(out, true)), chunk);
    }
}

#[test]
fn a_one_off_block_and_a_shared_one_are_the_same_bytes() {
    let frame = Frame::new(EventName::Heartbeat, None, event::HEARTBEAT);
    let one_off = |chunked| written(|out| sse::write_block(out, EventName::Heartbeat, event::HEARTBEAT, chunked));
    assert_eq!(one_off(true).as_bytes(), frame.sse_chunk());
    assert_eq!(one_off(false).as_bytes(), frame.sse_block());
}

#[test]
fn close_frames() {
    let rows: [(CloseCode, &str, &[u8]); 11] = [
        (CloseCode::NORMAL, "", b"\x88\x02\x03\xe8"),
        (CloseCode::GOING_AWAY, "idle", b"\x88\x06\x03\xe9idle"),
        (CloseCode::PROTOCOL_ERROR, "reserved opcode", b"\x88\x11\x03\xeareserved opcode"),
        (CloseCode::INVALID_DATA, "text is not UTF-8", b"\x88\x13\x03\xeftext is not UTF-8"),
        (CloseCode::POLICY, "", b"\x88\x02\x03\xf0"),
        (CloseCode::TOO_BIG, "message is too big", b"\x88\x14\x03\xf1message is too big"),
        (CloseCode::INTERNAL, "", b"\x88\x02\x03\xf3"),
        (CloseCode::TRY_AGAIN, "", b"\x88\x02\x03\xf5"),
        (CloseCode::TOKEN_EXPIRED, "token expired", b"\x88\x0f\x0f\xa1token expired"),
        (CloseCode::REVOKED, "", b"\x88\x02\x0f\xa2"),
        (CloseCode::SLOW_CONSUMER, "", b"\x88\x02\x0f\xa8"),
    ];
    for (code, reason, golden) in rows {
        let mut out = Vec::new();
        encoder::write_close(&mut out, code, reason);
        assert_eq!(out, golden);
    }
}
