//! Request heads (RFC 9112 §2–§6): the request line and the header fields that somebody here reads.
//!
//! Every refusal closes the connection, because after a head that two readers could take for two different things
//! nobody knows where the next request starts: that gap is what request smuggling lives in. So the strict reading of
//! RFC 9112 holds wherever the lenient one is optional, with one exception: a line may end in a lone LF (§2.2), as
//! hand-typed requests do.
//!
//! The only module that names `httparse`.
use super::body::BodyFraming;
use super::{Method, Version, target};
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use std::borrow::Cow;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack for one request; a box would be an allocation each")]
pub enum HeadStatus<'a> {
    /// The beginning of a head; call again with more behind it.
    Partial,
    /// A whole head.
    Complete {
        /// What it says.
        head: RequestHead<'a>,
        /// Its length in bytes, leading empty lines and the last empty line included. The body starts here.
        len: usize,
    },
}

/// A request head, borrowed from the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: Method,
    /// The dialect of the client.
    pub version: Version,
    /// The path before `?`, not decoded: visible ASCII that starts with `/`, or `*` with [`Method::Options`]. Of an
    /// absolute-form target only its path.
    pub path: &'a str,
    /// What follows the `?`, not decoded.
    pub query: Option<&'a str>,
    /// How the body is delimited.
    pub framing: BodyFraming,
    /// Whether the client wants the connection kept (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends its body (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `X-API-Key`, as raw bytes: a key that is not text is a wrong key, not a missing one.
    pub api_key: Option<&'a [u8]>,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `X-Tenant-ID`.
    pub tenant: Option<&'a str>,
    /// `Origin`.
    pub origin: Option<&'a str>,
    /// `X-Real-IP`; believed from trusted peers only (C-10).
    pub real_ip: Option<&'a str>,
    /// `X-Forwarded-For` lines in the order they came, each a comma list; believed from trusted peers only (C-10).
    pub forwarded_for: Vec<&'a str>,
    /// `Last-Event-ID`.
    pub last_event_id: Option<&'a str>,
    /// What a WebSocket handshake needs.
    pub upgrade: Upgrade<'a>,
}

/// The headers of RFC 6455 §4.2.1. All empty on HTTP/1.0, where an upgrade must be ignored (RFC 9110 §7.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// `Connection` has the token `upgrade`.
    pub connection_upgrade: bool,
    /// `Upgrade` has the token `websocket`.
    pub upgrade_websocket: bool,
    /// `Sec-WebSocket-Version`.
    pub version: Option<&'a str>,
    /// `Sec-WebSocket-Key`.
    pub key: Option<&'a str>,
}

/// Why a head is refused. All are the client's doing; after any of them the connection must close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Longer than [`HTTP_HEAD_BYTES_MAX`]: 431.
    TooLarge,
    /// More fields than [`HTTP_HEADERS_MAX`]: 431.
    TooManyHeaders,
    /// Not HTTP/1.0 or HTTP/1.1, the HTTP/2 preface included: 505.
    Version,
    /// A request line out of grammar.
    RequestLine,
    /// A field name out of grammar, a blank before its colon, or a folded line.
    HeaderName,
    /// A control character or a lone CR in a field value.
    HeaderValue,
    /// A target that is neither a path nor an absolute `http` URI.
    Target,
    /// HTTP/1.1 without `Host`.
    HostMissing,
    /// A `Host` that is no authority.
    HostInvalid,
    /// `Content-Length` is not one plain number of 64 bits.
    ContentLength,
    /// `Transfer-Encoding` is not `chunked` once, or came on HTTP/1.0.
    TransferEncoding,
    /// `Transfer-Encoding` names a coding nobody here knows: 501.
    TransferCodingUnknown,
    /// Both `Content-Length` and `Transfer-Encoding`.
    TwoFramings,
    /// This field came more than once.
    Repeated(&'static str),
    /// The value of this field is not UTF-8.
    NotText(&'static str),
}

impl HeadError {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            HeadError::TooLarge | HeadError::TooManyHeaders => 431,
            HeadError::TransferCodingUnknown => 501,
            HeadError::Version => 505,
            _ => 400,
        }
    }

    /// The error code of the answer.
    pub fn code(&self) -> &'static str {
        match self.status() {
            431 => "HEADERS_TOO_LARGE",
            501 => "NOT_IMPLEMENTED",
            505 => "HTTP_VERSION_NOT_SUPPORTED",
            _ => "BAD_REQUEST",
        }
    }

    /// What the client is told; never quotes the client's bytes.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            HeadError::TooLarge => {
                return format!("The request head is longer than {HTTP_HEAD_BYTES_MAX} bytes").into();
            }
            HeadError::TooManyHeaders => {
                return format!("The request has more than {HTTP_HEADERS_MAX} header fields").into();
            }
            HeadError::Repeated(name) => return format!("The header {name} must not be repeated").into(),
            HeadError::NotText(name) => return format!("The header {name} is not UTF-8 text").into(),
            HeadError::Version => "Only HTTP/1.0 and HTTP/1.1 are spoken here",
            HeadError::RequestLine => "The request line is malformed",
            HeadError::HeaderName => "A header name is malformed",
            HeadError::HeaderValue => "A header value contains a control character",
            HeadError::Target => "The request target is not a path or an absolute http URI",
            HeadError::HostMissing => "The Host header is missing",
            HeadError::HostInvalid => "The Host header is invalid",
            HeadError::ContentLength => "The Content-Length header is not a number",
            HeadError::TransferEncoding => "Transfer-Encoding must be chunked, once, and on HTTP/1.1",
            HeadError::TransferCodingUnknown => "The only known transfer coding is chunked",
            HeadError::TwoFramings => "Content-Length and Transfer-Encoding exclude each other",
        })
    }
}

/// Reads the head at the start of `bytes`, over any empty lines before it (RFC 9112 §2.2), which count to its length.
///
/// A head that is fed piece by piece ends as the same value, or the same error, as one that came whole: nothing
/// beyond [`HTTP_HEAD_BYTES_MAX`] is looked at.
pub fn parse(bytes: &[u8]) -> Result<HeadStatus<'_>, HeadError> {
    let window = &bytes[..bytes.len().min(HTTP_HEAD_BYTES_MAX)];
    let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(window).map_err(refusal)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial if window.len() < HTTP_HEAD_BYTES_MAX => return Ok(HeadStatus::Partial),
        httparse::Status::Partial => return Err(HeadError::TooLarge),
    };
    let version = match request.version {
        Some(0) => Version::Http10,
        Some(1) => Version::Http11,
        _ => return Err(HeadError::Version),
    };
    let method = method(request.method.unwrap_or_default());
    let target = target::split(method, request.path.unwrap_or_default()).ok_or(HeadError::Target)?;
    let fields = Fields::collect(request.headers)?;

    match fields.host {
        Some(host) if !target::is_authority(host) => return Err(HeadError::HostInvalid),
        None if version == Version::Http11 => return Err(HeadError::HostMissing),
        _ => {}
    }
    let framing = framing(version, fields.content_length, fields.transfer_encoding)?;
    let on_11 = version == Version::Http11;
    let head = RequestHead {
        method,
        version,
        path: target.path,
        query: target.query,
        framing,
        keep_alive: !fields.close && (on_11 || fields.keep_alive),
        expect_continue: on_11
            && fields.expect_continue
            && !matches!(framing, BodyFraming::None | BodyFraming::Length(0)),
        content_type: fields.content_type,
        api_key: fields.api_key,
        authorization: fields.authorization,
        tenant: fields.tenant,
        origin: fields.origin,
        real_ip: fields.real_ip,
        forwarded_for: fields.forwarded_for,
        last_event_id: fields.last_event_id,
        upgrade: if on_11 { fields.upgrade } else { Upgrade::default() },
    };
    Ok(HeadStatus::Complete { head, len })
}

/// Whether a body of this type is read as JSON: `application/json` or `application/*+json`, with any parameters
/// (contract §1.6).
pub fn is_json(content_type: Option<&str>) -> bool {
    let Some(content_type) = content_type else { return false };
    let essence = content_type.split(';').next().unwrap_or_default().trim_matches([' ', '\t']);
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let suffixed = |subtype: &str| {
        subtype.len().checked_sub("+json".len()).is_some_and(|prefix_len| {
            prefix_len > 0
                && subtype.get(prefix_len..).is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
                && subtype.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        })
    };
    kind.eq_ignore_ascii_case("application") && (subtype.eq_ignore_ascii_case("json") || suffixed(subtype))
}

/// Methods are case-sensitive (RFC 9110 §9.1).
fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

fn refusal(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::HeaderName,
        httparse::Error::HeaderValue => HeadError::HeaderValue,
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => HeadError::RequestLine,
    }
}

/// RFC 9112 §6: at most one of the two, each at most once and in its plainest form.
fn framing(version: Version, length: Option<&[u8]>, coding: Option<&[u8]>) -> Result<BodyFraming, HeadError> {
    match (length, coding) {
        (None, None) => Ok(BodyFraming::None),
        (Some(_), Some(_)) => Err(HeadError::TwoFramings),
        (Some(digits), None) => content_length(digits).map(BodyFraming::Length).ok_or(HeadError::ContentLength),
        (None, Some(_)) if version == Version::Http10 => Err(HeadError::TransferEncoding),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyFraming::Chunked),
        (None, Some(codings)) => {
            // An empty member or a parameter on `chunked` is a mistake; a name we do not know, an honest wish.
            let known = |name: &[u8]| name.is_empty() || name.eq_ignore_ascii_case(b"chunked");
            match members(codings).any(|member| !known(without_parameters(member))) {
                true => Err(HeadError::TransferCodingUnknown),
                false => Err(HeadError::TransferEncoding),
            }
        }
    }
}

/// `1*DIGIT` that fits 64 bits. `str::parse` alone would also take a sign.
fn content_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The members of a comma list, blanks around them trimmed (RFC 9110 §5.6.1).
fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn without_parameters(member: &[u8]) -> &[u8] {
    member.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

fn has_member(list: &[u8], token: &str) -> bool {
    members(list).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// The fields somebody reads, before they are judged together.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    content_type: Option<&'a str>,
    api_key: Option<&'a [u8]>,
    authorization: Option<&'a str>,
    tenant: Option<&'a str>,
    origin: Option<&'a str>,
    real_ip: Option<&'a str>,
    forwarded_for: Vec<&'a str>,
    last_event_id: Option<&'a str>,
    upgrade: Upgrade<'a>,
}

/// No field name we read is longer.
const NAME_BYTES_MAX: usize = 24;

impl<'a> Fields<'a> {
    /// A field that frames the message or says who somebody is may come once: with two of them, a proxy before us and
    /// we could each believe another one.
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Fields<'a>, HeadError> {
        let mut fields = Fields::default();
        for header in headers {
            let mut lower = [0; NAME_BYTES_MAX];
            let Some(name) = lower.get_mut(..header.name.len()) else { continue };
            name.copy_from_slice(header.name.as_bytes());
            name.make_ascii_lowercase();
            fields.take(name, header.value)?;
        }
        Ok(fields)
    }

    fn take(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), HeadError> {
        match name {
            b"host" => once(&mut self.host, value, "host"),
            b"content-length" => once(&mut self.content_length, value, "content-length"),
            b"transfer-encoding" => once(&mut self.transfer_encoding, value, "transfer-encoding"),
            b"x-api-key" => once(&mut self.api_key, value, "x-api-key"),
            b"content-type" => once_text(&mut self.content_type, value, "content-type"),
            b"authorization" => once_text(&mut self.authorization, value, "authorization"),
            b"x-tenant-id" => once_text(&mut self.tenant, value, "x-tenant-id"),
            b"origin" => once_text(&mut self.origin, value, "origin"),
            b"x-real-ip" => once_text(&mut self.real_ip, value, "x-real-ip"),
            b"last-event-id" => once_text(&mut self.last_event_id, value, "last-event-id"),
            b"sec-websocket-key" => once_text(&mut self.upgrade.key, value, "sec-websocket-key"),
            b"sec-websocket-version" => once_text(&mut self.upgrade.version, value, "sec-websocket-version"),
            b"x-forwarded-for" => {
                self.forwarded_for.push(text(value, "x-forwarded-for")?);
                Ok(())
            }
            b"connection" => {
                self.close |= has_member(value, "close");
                self.keep_alive |= has_member(value, "keep-alive");
                self.upgrade.connection_upgrade |= has_member(value, "upgrade");
                Ok(())
            }
            b"upgrade" => {
                self.upgrade.upgrade_websocket |= has_member(value, "websocket");
                Ok(())
            }
            b"expect" => {
                self.expect_continue |= has_member(value, "100-continue");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), HeadError> {
    match slot.replace(value) {
        Some(_) => Err(HeadError::Repeated(name)),
        None => Ok(()),
    }
}

fn once_text<'a>(slot: &mut Option<&'a str>, value: &'a [u8], name: &'static str) -> Result<(), HeadError> {
    once(slot, text(value, name)?, name)
}

/// A value that is not text is refused rather than dropped: dropped, a credential or a hop would count as never sent.
fn text<'a>(value: &'a [u8], name: &'static str) -> Result<&'a str, HeadError> {
    std::str::from_utf8(value).map_err(|_| HeadError::NotText(name))
}

#[cfg(test)]
mod tests;
