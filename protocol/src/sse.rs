//! Server-sent events (WHATWG HTML §9.2, contract §4): what a stream carries beside the shared blocks of
//! [`crate::frame::Frame`].
//!
//! `chunked` throughout: HTTP/1.1 clients get every piece as one chunk (RFC 9112 §7.1); HTTP/1.0 clients get it bare.
use crate::frame::{EventName, Frame};

/// Appends `retry: N`: how long a client waits before it reconnects, in milliseconds. A block of its own, so that the
/// client knows it even if the stream breaks before its first event.
pub fn write_retry(out: &mut Vec<u8>, retry_ms: u32, chunked: bool) {
    let mut digits = itoa::Buffer::new();
    write_piece(out, &[b"retry: ", digits.format(retry_ms).as_bytes(), b"\n\n"], chunked);
}

/// Appends a comment, which clients ignore: it keeps a silent stream open through proxies.
pub fn write_comment_heartbeat(out: &mut Vec<u8>, chunked: bool) {
    write_piece(out, &[b": heartbeat\n\n"], chunked);
}

/// Appends the end of the body: the last chunk, or nothing where closing the connection says it.
pub fn write_end(out: &mut Vec<u8>, chunked: bool) {
    if chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
}

/// Appends one event for one client. `json` is compact text without a raw newline. What many clients get is a shared
/// [`Frame`] instead; this one is made by it, so both are one form.
pub fn write_block(out: &mut Vec<u8>, event: EventName, json: &[u8], chunked: bool) {
    let frame = Frame::new(event, None, json);
    out.extend_from_slice(if chunked { frame.sse_chunk() } else { frame.sse_block() });
}

fn write_piece(out: &mut Vec<u8>, parts: &[&[u8]], chunked: bool) {
    if chunked {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        out.extend_from_slice(format!("{len:x}\r\n").as_bytes());
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    if chunked {
        out.extend_from_slice(b"\r\n");
    }
}
