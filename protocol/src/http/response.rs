//! Responses, written whole into a connection's output (RFC 9110 §15, RFC 9112 §4, contract §1.5).
use super::Version;
use super::cors::Cors;
use super::error::ApiError;
use crate::rate_limit::Quota;

/// Media type of every JSON answer.
pub const JSON: &str = "application/json";
/// Media type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Media type of `/metrics` (contract §1.11).
pub const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Media type of `/sse`.
pub const EVENT_STREAM: &str = "text/event-stream";

/// What all responses to one request have in common.
///
/// Header names are lower-case, no `server` header is sent, and a response is one run of bytes: a caller that sees the
/// output before and after has all of it or none.
#[derive(Clone, Copy, Debug)]
pub struct Responder<'a> {
    /// The client's dialect, repeated in the status line. Of a head that could not be read: 1.1.
    pub version: Version,
    /// Whether the connection stays open after this response.
    pub keep_alive: bool,
    /// Whether the request was `HEAD`: headers as for `GET`, and no body.
    pub head_only: bool,
    /// The `date` header, an IMF-fixdate of 29 bytes.
    pub date: &'a [u8],
    /// Who may call.
    pub cors: &'a Cors,
    /// The request's `Origin`.
    pub origin: Option<&'a str>,
    /// What is left of the limit that the request met.
    pub quota: Option<Quota>,
}

impl Responder<'_> {
    /// Appends a response. `extra` are header fields of ours, without control characters. A 204 has neither length,
    /// type nor body (RFC 9110 §8.6).
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        status: u16,
        content_type: Option<&str>,
        extra: &[(&str, &str)],
        body: &[u8],
    ) {
        let with_body = status != 204;
        let body_sent = if with_body && !self.head_only { body } else { b"" };
        out.reserve(HEAD_BYTES_USUAL + body_sent.len());
        self.write_status(out, status);
        if with_body {
            if let Some(content_type) = content_type {
                write_header(out, "content-type", content_type);
            }
            write_header(out, "content-length", itoa::Buffer::new().format(body.len()));
        }
        self.write_common(out, extra);
        self.write_connection(out, extra);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body_sent);
    }

    /// Appends a JSON response.
    pub fn write_json(&self, out: &mut Vec<u8>, status: u16, body: &[u8]) {
        self.write(out, status, Some(JSON), &[], body);
    }

    /// Appends a refusal with its `allow` and `retry-after`. `production` masks what a 5xx says.
    pub fn write_error(&self, out: &mut Vec<u8>, error: &ApiError, production: bool) {
        self.write_error_with(out, error, production, &[]);
    }

    /// [`Responder::write_error`] with header fields besides, such as those of a rate limit; eight at most.
    pub fn write_error_with(&self, out: &mut Vec<u8>, error: &ApiError, production: bool, extra: &[(&str, &str)]) {
        let mut body = Vec::with_capacity(64 + error.message.len());
        error.write_body(&mut body, production);
        let mut seconds = itoa::Buffer::new();
        let mut fields = Vec::with_capacity(extra.len() + 2);
        fields.extend(error.allow.map(|allow| ("allow", allow)));
        fields.extend(error.retry_after_seconds.map(|after| ("retry-after", seconds.format(after))));
        fields.extend_from_slice(extra);
        self.write(out, error.status, Some(JSON), &fields, &body);
    }

    /// Appends the answer to `OPTIONS`, a preflight or not; `allow` are the methods of a known path (contract §1.4).
    pub fn write_options(&self, out: &mut Vec<u8>, allow: Option<&'static str>) {
        out.reserve(HEAD_BYTES_USUAL);
        self.write_status(out, 200);
        write_header(out, "content-length", "0");
        if let Some(allow) = allow {
            write_header(out, "allow", allow);
        }
        self.cors.write_preflight(out);
        self.write_common(out, &[]);
        self.write_connection(out, &[]);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the interim response that asks for the body (RFC 9110 §15.2.1). Only to HTTP/1.1.
    pub fn write_continue(out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Appends the head of an event stream (contract §4). On HTTP/1.1 what follows must be chunked, the last chunk
    /// ends the stream; on 1.0 it is raw and ends with the connection.
    pub fn write_stream_head(&self, out: &mut Vec<u8>) {
        out.reserve(HEAD_BYTES_USUAL);
        self.write_status(out, 200);
        write_header(out, "content-type", EVENT_STREAM);
        write_header(out, "cache-control", "no-cache");
        self.write_common(out, &[]);
        match self.version {
            Version::Http10 => write_header(out, "connection", "close"),
            Version::Http11 => {
                write_header(out, "transfer-encoding", "chunked");
                self.write_connection(out, &[]);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Appends the answer to a WebSocket handshake (RFC 6455 §4.2.2, contract §3.1); WebSocket frames follow it.
    /// `accept` is the value of `sec-websocket-accept`.
    pub fn write_switching(&self, out: &mut Vec<u8>, accept: &str) {
        out.reserve(HEAD_BYTES_USUAL);
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n");
        write_header(out, "sec-websocket-accept", accept);
        self.write_common(out, &[]);
        out.extend_from_slice(b"\r\n");
    }

    fn write_status(&self, out: &mut Vec<u8>, status: u16) {
        out.extend_from_slice(match self.version {
            Version::Http10 => b"HTTP/1.0 ",
            Version::Http11 => b"HTTP/1.1 ",
        });
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    fn write_common(&self, out: &mut Vec<u8>, extra: &[(&str, &str)]) {
        for (name, value) in extra {
            write_header(out, name, value);
        }
        if let Some(quota) = &self.quota {
            quota.write(out);
        }
        self.cors.write(out, self.origin);
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(self.date);
        out.extend_from_slice(b"\r\n");
    }

    /// Says what differs from the dialect's habit (RFC 9112 §9.3). An `upgrade` among the other fields is named here, too
    /// (RFC 9110 §7.8), because the options of a connection stand in one field.
    fn write_connection(&self, out: &mut Vec<u8>, extra: &[(&str, &str)]) {
        let upgrades = extra.iter().any(|(name, _)| *name == "upgrade");
        match (self.version, self.keep_alive) {
            (Version::Http11, false) if upgrades => write_header(out, "connection", "upgrade, close"),
            (Version::Http11, true) if upgrades => write_header(out, "connection", "upgrade"),
            (Version::Http11, false) => write_header(out, "connection", "close"),
            (Version::Http10, true) => write_header(out, "connection", "keep-alive"),
            _ => {}
        }
    }
}

/// No usual head is longer, so that a response grows its output once.
const HEAD_BYTES_USUAL: usize = 512;

fn write_header(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(
        !name.contains(|c: char| c.is_control()) && !value.contains(|c: char| c.is_control()),
        "header {name:?} would split the response: {value:?}"
    );
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The phrases of RFC 9110 §15 and RFC 6585 for the statuses we send; empty for others, as the grammar allows.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Payload Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Entity",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
