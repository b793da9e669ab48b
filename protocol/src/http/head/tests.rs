use super::*;

/// The head of these bytes, which must be one and nothing else.
fn head(bytes: &str) -> RequestHead<'_> {
    match parse(bytes.as_bytes()) {
        Ok(HeadStatus::Complete { head, len }) => {
            assert_eq!(len, bytes.len(), "{bytes:?}");
            head
        }
        other => panic!("{bytes:?} came to {other:?}"),
    }
}

/// A head of 1.1 with these field lines besides `Host`.
fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: ara\r\n{fields}\r\n")
}

fn check_refused(bytes: &[u8], expected: HeadError) {
    assert_eq!(parse(bytes), Err(expected), "{:?}", String::from_utf8_lossy(bytes));
}

/// Every prefix must be `Partial` until one of them comes to the end that the whole came to.
fn check_byte_by_byte(bytes: &[u8]) {
    let whole = parse(bytes);
    for end in 0..bytes.len() {
        let part = parse(&bytes[..end]);
        if part != Ok(HeadStatus::Partial) {
            assert_eq!(part, whole, "after {end} of {:?}", String::from_utf8_lossy(bytes));
        }
    }
}

const PUBLISH: &str = "POST /api/v1/notifications/send?dry=1 HTTP/1.1\r\n\
    Host: notification:8081\r\n\
    content-type: application/json; charset=utf-8\r\n\
    CONTENT-LENGTH:  17  \r\n\
    X-API-Key: s3cr\u{e9}t\r\n\
    Authorization: Bearer a.b.c\r\n\
    X-Tenant-ID: acme\r\n\
    Origin: https://app.example\r\n\
    X-Real-IP: 203.0.113.7\r\n\
    X-Forwarded-For: 198.51.100.1, 10.0.0.2\r\n\
    Last-Event-ID: 42\r\n\
    X-Forwarded-For: 10.0.0.3\r\n\
    Expect: 100-Continue\r\n\
    \r\n";

const HANDSHAKE: &str = "GET /ws?token=a.b.c HTTP/1.1\r\n\
    Host: ara\r\n\
    Connection: keep-alive\r\n\
    Connection: , UPGRADE\r\n\
    Upgrade: h2c, WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    \r\n";

#[test]
fn a_head_says_everything_somebody_reads() {
    assert_eq!(
        head(PUBLISH),
        RequestHead {
            method: Method::Post,
            version: Version::Http11,
            path: "/api/v1/notifications/send",
            query: Some("dry=1"),
            framing: BodyFraming::Length(17),
            keep_alive: true,
            expect_continue: true,
            content_type: Some("application/json; charset=utf-8"),
            api_key: Some("s3cr\u{e9}t".as_bytes()),
            authorization: Some("Bearer a.b.c"),
            tenant: Some("acme"),
            origin: Some("https://app.example"),
            real_ip: Some("203.0.113.7"),
            forwarded_for: vec!["198.51.100.1, 10.0.0.2", "10.0.0.3"],
            last_event_id: Some("42"),
            upgrade: Upgrade::default(),
        }
    );
}

#[test]
fn a_handshake_is_gathered_over_lines_and_lists() {
    let upgrade = head(HANDSHAKE).upgrade;
    let key = Some("dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(upgrade, Upgrade { connection_upgrade: true, upgrade_websocket: true, version: Some("13"), key });
    let old = HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(head(&old).upgrade, Upgrade::default(), "1.0 cannot upgrade");
}

#[test]
fn methods_are_told_apart_by_case() {
    let rows = [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
        ("PATCH", Method::Other),
        ("get", Method::Other),
    ];
    for (name, method) in rows {
        assert_eq!(head(&format!("{name} / HTTP/1.0\r\n\r\n")).method, method, "{name}");
    }
}

#[test]
fn the_connection_is_kept_as_the_dialect_and_the_client_say() {
    let rows = [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Keep-Alive, CLOSE\r\n", false),
        ("1.1", "Connection: upgrade\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection:\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: x ,\tKeep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
    ];
    for (version, fields, kept) in rows {
        let bytes = format!("GET / HTTP/{version}\r\nHost: ara\r\n{fields}\r\n");
        assert_eq!(head(&bytes).keep_alive, kept, "{version} {fields:?}");
    }
}

#[test]
fn a_continue_is_awaited_only_before_a_body_and_on_11() {
    let rows = [
        ("1.1", "Content-Length: 1\r\n", true),
        ("1.1", "Transfer-Encoding: chunked\r\n", true),
        ("1.1", "Content-Length: 0\r\n", false),
        ("1.1", "", false),
        ("1.0", "Content-Length: 1\r\n", false),
    ];
    for (version, fields, awaited) in rows {
        let bytes = format!("POST / HTTP/{version}\r\nHost: ara\r\nExpect: 100-continue\r\n{fields}\r\n");
        assert_eq!(head(&bytes).expect_continue, awaited, "{version} {fields:?}");
    }
}

#[test]
fn framing_is_read_by_the_letter() {
    let rows = [
        ("", Ok(BodyFraming::None)),
        ("Content-Length: 0\r\n", Ok(BodyFraming::Length(0))),
        ("Content-Length: 0005\r\n", Ok(BodyFraming::Length(5))),
        ("Content-Length: 18446744073709551615\r\n", Ok(BodyFraming::Length(u64::MAX))),
        ("Content-Length: 18446744073709551616\r\n", Err(HeadError::ContentLength)),
        ("Content-Length: +5\r\n", Err(HeadError::ContentLength)),
        ("Content-Length: -5\r\n", Err(HeadError::ContentLength)),
        ("Content-Length: 5,5\r\n", Err(HeadError::ContentLength)),
        ("Content-Length: 5 5\r\n", Err(HeadError::ContentLength)),
        ("Content-Length: 0x5\r\n", Err(HeadError::ContentLength)),
        ("Content-Length:\r\n", Err(HeadError::ContentLength)),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Err(HeadError::Repeated("content-length"))),
        ("Content-Length: 5\r\ncontent-length: 6\r\n", Err(HeadError::Repeated("content-length"))),
        ("Transfer-Encoding: chunked\r\n", Ok(BodyFraming::Chunked)),
        ("Transfer-Encoding: CHUNKED \t\r\n", Ok(BodyFraming::Chunked)),
        ("Transfer-Encoding: gzip\r\n", Err(HeadError::TransferCodingUnknown)),
        ("Transfer-Encoding: gzip, chunked\r\n", Err(HeadError::TransferCodingUnknown)),
        ("Transfer-Encoding: identity\r\n", Err(HeadError::TransferCodingUnknown)),
        ("Transfer-Encoding: xchunked\r\n", Err(HeadError::TransferCodingUnknown)),
        ("Transfer-Encoding: \"chunked\"\r\n", Err(HeadError::TransferCodingUnknown)),
        ("Transfer-Encoding: chunked, chunked\r\n", Err(HeadError::TransferEncoding)),
        ("Transfer-Encoding: chunked,\r\n", Err(HeadError::TransferEncoding)),
        ("Transfer-Encoding: chunked;q=1\r\n", Err(HeadError::TransferEncoding)),
        ("Transfer-Encoding:\r\n", Err(HeadError::TransferEncoding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(HeadError::Repeated("transfer-encoding"))),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Err(HeadError::TwoFramings)),
        ("Content-Length: 5\r\nTransfer-Encoding: gzip\r\n", Err(HeadError::TwoFramings)),
    ];
    for (fields, expected) in rows {
        let bytes = with(fields);
        match expected {
            Ok(framing) => assert_eq!(head(&bytes).framing, framing, "{fields:?}"),
            Err(error) => check_refused(bytes.as_bytes(), error),
        }
    }
    check_refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", HeadError::TransferEncoding);
}

#[test]
fn hosts_are_needed_once_and_valid() {
    for host in ["Host: ara.example:8081", "hOsT: notification_cluster", "Host: [::1]:80", "Host:"] {
        head(&format!("GET / HTTP/1.1\r\n{host}\r\n\r\n"));
    }
    head("GET / HTTP/1.0\r\n\r\n");
    check_refused(b"GET / HTTP/1.1\r\n\r\n", HeadError::HostMissing);
    check_refused(b"GET http://ara/ HTTP/1.1\r\n\r\n", HeadError::HostMissing);
    for version in ["1.0", "1.1"] {
        let twice = format!("GET / HTTP/{version}\r\nHost: a\r\nHost: a\r\n\r\n");
        check_refused(twice.as_bytes(), HeadError::Repeated("host"));
        for host in ["a b", "a/b", "me@a", "a, b", "a:b", "http://a", "[::1", "é"] {
            let bytes = format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n");
            check_refused(bytes.as_bytes(), HeadError::HostInvalid);
        }
    }
}

#[test]
fn a_field_that_says_who_somebody_is_comes_once() {
    let names = [
        "content-type",
        "authorization",
        "x-api-key",
        "x-tenant-id",
        "origin",
        "x-real-ip",
        "last-event-id",
        "sec-websocket-key",
        "sec-websocket-version",
    ];
    for name in names {
        let upper = name.to_ascii_uppercase();
        check_refused(with(&format!("{name}: a\r\n{upper}: a\r\n")).as_bytes(), HeadError::Repeated(name));
    }
    head(&with("Accept: a\r\nAccept: b\r\nCookie: a\r\nCookie: b\r\n"));
}

#[test]
fn what_is_not_text_is_refused_but_for_the_key() {
    for name in ["content-type", "authorization", "x-tenant-id", "x-real-ip", "x-forwarded-for"] {
        let mut bytes = format!("GET / HTTP/1.1\r\nHost: ara\r\n{name}: a").into_bytes();
        bytes.extend_from_slice(b"\xff\r\n\r\n");
        check_refused(&bytes, HeadError::NotText(name));
    }
    let bytes = b"GET / HTTP/1.1\r\nHost: ara\r\nX-API-Key: a\xff\r\n\r\n";
    let Ok(HeadStatus::Complete { head, .. }) = parse(bytes) else { panic!("a wrong key is a key") };
    assert_eq!(head.api_key, Some(b"a\xff".as_slice()));
    assert_eq!(self::head(&with("X-API-Key:\r\n")).api_key, Some(b"".as_slice()));
    assert_eq!(self::head(&with("X-Tenant-ID: 訂單\r\n")).tenant, Some("訂單"));
}

#[test]
fn heads_out_of_grammar_are_refused() {
    let rows: [(&[u8], HeadError); 32] = [
        (b"GET / HTTP/1.1\r\nHost : ara\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost\t: ara\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\n Host: ara\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost: ara\r\n folded\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nX-A: b\r\n\tfolded\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost: ara\r\n: b\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nno colon\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nX-\xc3\xa9: b\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nX\0: b\r\n\r\n", HeadError::HeaderName),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nX-A: a\0b\r\n\r\n", HeadError::HeaderValue),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nX-A: a\rb\r\n\r\n", HeadError::HeaderValue),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nX-A: a\x7f\r\n\r\n", HeadError::HeaderValue),
        (b"GET / HTTP/1.1\r\nHost: ara\r\nX-A: \rb\r\n\r\n", HeadError::HeaderValue),
        (b"GET / HTTP/1.1\r\nHost: ara\r\n\rX", HeadError::RequestLine),
        (b"GET  / HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::RequestLine),
        (b"GET /a b HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::Version),
        (b"GET / HTTP/1.1 \r\nHost: ara\r\n\r\n", HeadError::RequestLine),
        (b"GET /\x01 HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::RequestLine),
        (b"GET /a\tb HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::RequestLine),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::Target),
        (b"GET /\xff HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::RequestLine),
        (b"G\x00T / HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::RequestLine),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", HeadError::RequestLine),
        (b"GET /\r\n", HeadError::RequestLine),
        (b"GET * HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::Target),
        (b"CONNECT ara:443 HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::Target),
        (b"GET ftp://ara/ HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::Target),
        (b"GET http://me@ara/ HTTP/1.1\r\nHost: ara\r\n\r\n", HeadError::Target),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HeadError::Version),
        (b"GET / HTTP/1.2\r\nHost: ara\r\n\r\n", HeadError::Version),
        (b"GET / HTTP/0.9\r\n\r\n", HeadError::Version),
        (b"GET / http/1.1\r\nHost: ara\r\n\r\n", HeadError::Version),
    ];
    for (bytes, expected) in rows {
        check_refused(bytes, expected);
        check_byte_by_byte(bytes);
    }
}

#[test]
fn lone_line_feeds_and_empty_lines_before_are_tolerated() {
    head("\r\n\n\r\nGET / HTTP/1.1\r\nHost: ara\r\n\r\n");
    head("GET / HTTP/1.1\nHost: ara\n\n");
    let flood = "\r\n".repeat(HTTP_HEAD_BYTES_MAX / 2);
    assert_eq!(parse(&flood.as_bytes()[2..]), Ok(HeadStatus::Partial));
    check_refused(flood.as_bytes(), HeadError::TooLarge);
}

#[test]
fn targets_come_as_path_and_query() {
    let target = |text: &str| {
        let bytes = format!("OPTIONS {text} HTTP/1.1\r\nHost: ara\r\n\r\n");
        let head = head(&bytes);
        (head.path.to_owned(), head.query.map(str::to_owned))
    };
    assert_eq!(target("http://ara.example/stats?a=1"), ("/stats".into(), Some("a=1".into())));
    assert_eq!(target("*"), ("*".into(), None));
    assert_eq!(target("/ws?token="), ("/ws".into(), Some("token=".into())));
}

#[test]
fn a_head_has_a_longest_form() {
    let padded = |bytes: usize| {
        let start = "GET / HTTP/1.1\r\nHost: ara\r\nX-Pad: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    head(&padded(HTTP_HEAD_BYTES_MAX));
    check_refused(padded(HTTP_HEAD_BYTES_MAX + 1).as_bytes(), HeadError::TooLarge);
    let endless = "x".repeat(HTTP_HEAD_BYTES_MAX);
    assert_eq!(parse(&endless.as_bytes()[1..]), Ok(HeadStatus::Partial));
    check_refused(endless.as_bytes(), HeadError::TooLarge);

    // `Host` is one of them.
    let many = |n: usize| with(&"X-A: b\r\n".repeat(n - 1));
    head(&many(HTTP_HEADERS_MAX));
    check_refused(many(HTTP_HEADERS_MAX + 1).as_bytes(), HeadError::TooManyHeaders);
}

#[test]
fn what_follows_a_head_is_left_alone() {
    let bytes = format!("{PUBLISH}{{\"a\":\x00\x01");
    let Ok(HeadStatus::Complete { len, .. }) = parse(bytes.as_bytes()) else { panic!("the head is whole") };
    assert_eq!(len, PUBLISH.len());
}

#[test]
fn byte_by_byte_is_the_same_as_whole() {
    for bytes in [PUBLISH, HANDSHAKE, "\r\nGET / HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\nHost: a\n\n"] {
        check_byte_by_byte(bytes.as_bytes());
        assert!(matches!(parse(bytes.as_bytes()), Ok(HeadStatus::Complete { .. })));
    }
}

#[test]
fn damaged_heads_never_panic_and_never_depend_on_how_they_were_cut() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..2_000 {
        let mut bytes = [PUBLISH, HANDSHAKE][round % 2].as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.insert(at, *random.choice(b"\r\n\t :,\0;").unwrap()),
                _ => drop(bytes.remove(at)),
            }
        }
        check_byte_by_byte(&bytes);
    }
}

#[test]
fn refusals_carry_a_status_a_code_and_a_message() {
    let rows = [
        (HeadError::TooLarge, 431, "HEADERS_TOO_LARGE", "The request head is longer than 16384 bytes"),
        (HeadError::TooManyHeaders, 431, "HEADERS_TOO_LARGE", "The request has more than 64 header fields"),
        (HeadError::Version, 505, "HTTP_VERSION_NOT_SUPPORTED", "Only HTTP/1.0 and HTTP/1.1 are spoken here"),
        (HeadError::TransferCodingUnknown, 501, "NOT_IMPLEMENTED", "The only known transfer coding is chunked"),
        (HeadError::Repeated("host"), 400, "BAD_REQUEST", "The header host must not be repeated"),
        (HeadError::TwoFramings, 400, "BAD_REQUEST", "Content-Length and Transfer-Encoding exclude each other"),
    ];
    for (error, status, code, message) in rows {
        assert_eq!((error.status(), error.code(), &*error.message()), (status, code, message));
    }
}

#[test]
fn json_has_more_than_one_name() {
    for json in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json ;x",
        "application/vnd.api+json",
        "application/problem+JSON;v=1",
    ] {
        assert!(is_json(Some(json)), "{json}");
    }
    for other in [
        "",
        "json",
        "text/json",
        "text/plain",
        "application/jsonp",
        "application/+json",
        "application/x json",
        "application/a b+json",
        "application/json+xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=application/json",
    ] {
        assert!(!is_json(Some(other)), "{other}");
    }
    assert!(!is_json(None));
}
