//! Requests as they come from a socket, and the heads of answers to them.
use super::{assert_telling, rng_of, torn};
use protocol::http::body::{BodyDecoder, BodyError, BodyFraming};
use protocol::http::cors::Cors;
use protocol::http::error::ApiError;
use protocol::http::head::{HeadStatus, RequestHead, parse};
use protocol::http::response::Responder;
use protocol::http::{Method, Version};
use protocol::limits;
use protocol::ws::handshake::{self, Offer};

const BODY_BYTES_MAX: usize = 4_096;

/// A head that is cut anywhere is the beginning of a head, or already comes to what the whole comes to.
pub fn head(bytes: &[u8]) {
    let whole = parse(bytes);
    let mut rng = rng_of(bytes);
    let cuts: Vec<usize> = match bytes.len() {
        len @ 0..=64 => (0..len).collect(),
        len => (0..8).map(|_| rng.usize(0..len)).chain(len - 4..len).collect(),
    };
    for cut in cuts {
        let part = parse(&bytes[..cut]);
        if part != Ok(HeadStatus::Partial) {
            assert_eq!(part, whole, "cut at {cut}");
        }
    }
    match whole {
        Ok(HeadStatus::Partial) => assert!(bytes.len() < limits::HTTP_HEAD_BYTES_MAX),
        Ok(HeadStatus::Complete { head, len }) => {
            assert!(len <= limits::HTTP_HEAD_BYTES_MAX && bytes[..len].ends_with(b"\n"));
            check_head(&head);
            check_answer(&head);
        }
        Err(error) => {
            assert!(matches!(error.status(), 400 | 431 | 501 | 505));
            assert_telling(error.code(), 30);
            assert_telling(&error.message(), 100);
        }
    }
}

fn check_head(head: &RequestHead<'_>) {
    assert!(head.path.starts_with('/') || head.path == "*" && head.method == Method::Options);
    assert!(!head.path.contains('?') && head.path.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(head.query.is_none_or(|query| query.bytes().all(|byte| byte.is_ascii_graphic())));
    assert!(head.version == Version::Http11 || head.framing != BodyFraming::Chunked && !head.expect_continue);
    let offer = Offer {
        is_get_http11: head.method == Method::Get && head.version == Version::Http11,
        connection_upgrade: head.upgrade.connection_upgrade,
        upgrade_websocket: head.upgrade.upgrade_websocket,
        version: head.upgrade.version,
        key: head.upgrade.key,
    };
    match handshake::accept(&offer) {
        Ok(accept) => assert!(accept.len() == 28 && accept.is_ascii()),
        Err(error) => assert_telling(error.message(), 100),
    }
}

/// What an answer repeats of a head cannot add a line to it.
fn check_answer(head: &RequestHead<'_>) {
    let origin = head.origin.unwrap_or_default().to_owned();
    for cors in [Cors::any(), Cors::none(), Cors::listed(vec![origin])] {
        let responder = Responder {
            version: head.version,
            keep_alive: head.keep_alive,
            head_only: head.method == Method::Head,
            date: b"Sun, 06 Nov 1994 08:49:37 GMT",
            cors: &cors,
            origin: head.origin,
            quota: None,
        };
        let error = ApiError::not_found();
        let mut out = Vec::new();
        responder.write_error(&mut out, &error, false);
        let end = out.windows(4).position(|four| four == b"\r\n\r\n").expect("an end of the head") + 4;
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut answer = httparse::Response::new(&mut fields);
        assert_eq!(answer.parse(&out).expect("a head"), httparse::Status::Complete(end));
        let (mut body, mut length) = (Vec::new(), None);
        error.write_body(&mut body, false);
        for field in answer.headers {
            let known = ["content-type", "content-length", "date", "connection", "vary"];
            assert!(known.contains(&field.name) || field.name.starts_with("access-control-"), "{}", field.name);
            if field.name == "content-length" {
                length = std::str::from_utf8(field.value).ok().and_then(|digits| digits.parse().ok());
            }
        }
        assert_eq!(length, Some(body.len()));
        assert_eq!(&out[end..], if responder.head_only { b"" } else { &*body });
    }
}

/// A body that is torn comes to the same bytes, the same end, or the same refusal as one that came whole.
pub fn body(bytes: &[u8]) {
    let mut rng = rng_of(bytes);
    let lengths = [0, bytes.len() / 2, bytes.len(), bytes.len() + 1];
    let counted = lengths.map(|length| BodyFraming::Length(length as u64));
    for framing in counted.into_iter().chain([BodyFraming::Chunked, BodyFraming::None]) {
        let whole = fed(framing, &[bytes]);
        assert_eq!(fed(framing, &torn(bytes, &mut rng)), whole, "{framing:?}, torn and whole");
        match (framing, whole) {
            (BodyFraming::Chunked, Ok((body, consumed, true))) => {
                let by_hand = unchunked(bytes).expect("by hand it comes to an end, too");
                assert_eq!((by_hand.body, by_hand.consumed), (body, consumed));
            }
            (BodyFraming::Chunked, refused) => {
                if let Err(BodyError::Malformed(what)) = refused {
                    assert_telling(what, 100);
                }
                let is_taken = |by_hand: &Unchunked| by_hand.is_plain && by_hand.body.len() <= BODY_BYTES_MAX;
                assert!(!unchunked(bytes).as_ref().is_some_and(is_taken), "{refused:?}");
            }
            (_, Err(error)) => assert_eq!(error, BodyError::TooLarge { bytes_max: BODY_BYTES_MAX }),
            (BodyFraming::None, Ok(fed)) => assert_eq!(fed, (Vec::new(), 0, true)),
            (BodyFraming::Length(length), Ok((body, consumed, done))) => {
                let taken = (length as usize).min(bytes.len());
                assert_eq!((&*body, consumed), (&bytes[..taken], taken));
                assert_eq!(done, length as usize <= bytes.len());
            }
        }
    }
}

/// A body of chunks that is all there.
struct Unchunked {
    body: Vec<u8>,
    /// Bytes with all framing.
    consumed: usize,
    /// Without extensions and trailers, in which more could be wrong.
    is_plain: bool,
}

/// The slow way.
fn unchunked(bytes: &[u8]) -> Option<Unchunked> {
    let (mut body, mut rest, mut is_plain) = (Vec::new(), bytes, true);
    let line = |rest: &mut &[u8]| {
        let (line, behind) = rest.split_at(rest.windows(2).position(|two| two == b"\r\n")?);
        *rest = &behind[2..];
        Some(String::from_utf8_lossy(line).into_owned())
    };
    loop {
        let size_line = line(&mut rest)?;
        let size = match size_line.split_once(';') {
            Some((size, _)) => size.trim_end_matches([' ', '\t']),
            None => &*size_line,
        };
        is_plain &= size == size_line;
        if size.is_empty() || size.len() > 16 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            while !line(&mut rest)?.is_empty() {
                is_plain = false;
            }
            return Some(Unchunked { body, consumed: bytes.len() - rest.len(), is_plain });
        }
        let (chunk, behind) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n")?;
    }
}

fn fed(framing: BodyFraming, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut decoder = BodyDecoder::new(framing, BODY_BYTES_MAX)?;
    let (mut body, mut consumed) = (Vec::new(), 0);
    let mut done = decoder.decode(&[], &mut body)?.done;
    for piece in pieces {
        let progress = decoder.decode(piece, &mut body)?;
        assert!(progress.done || progress.consumed == piece.len(), "a byte was left and the body is not done");
        assert!(!done || progress.consumed == 0, "a byte of the next request was taken");
        consumed += progress.consumed;
        done = progress.done;
    }
    assert!(body.len() <= BODY_BYTES_MAX && body.len() <= consumed);
    Ok((body, consumed, done))
}
