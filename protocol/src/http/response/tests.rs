use super::*;

const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

fn responder(cors: &Cors) -> Responder<'_> {
    Responder {
        version: Version::Http11,
        keep_alive: true,
        head_only: false,
        date: DATE,
        cors,
        origin: Some("https://app.example"),
        quota: None,
    }
}

/// What a writer appends; lines must end in CRLF, which is shown as the line's end.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"before".to_vec();
    write(&mut out);
    let text = String::from_utf8(out).unwrap();
    let text = text.strip_prefix("before").expect("responses append").to_owned();
    let head = text.split_once("\r\n\r\n").expect("a head ends").0;
    assert_eq!(head.matches('\n').count(), head.matches("\r\n").count());
    text.replace("\r\n", "\n")
}

#[test]
fn json_for_any_origin() {
    let cors = Cors::any();
    assert_eq!(
        written(|out| responder(&cors).write_json(out, 200, br#"{"status":"healthy"}"#)),
        "HTTP/1.1 200 OK\n\
         content-type: application/json\n\
         content-length: 20\n\
         access-control-allow-origin: *\n\
         vary: origin, access-control-request-method, access-control-request-headers\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n\
         {\"status\":\"healthy\"}"
    );
}

#[test]
fn text_with_fields_besides_and_a_listed_origin() {
    let cors = Cors::listed(vec!["https://app.example".into()]);
    let extra = [("x-one", "1"), ("x-two", "2")];
    let quota = Some(Quota { limit: 100, remaining: 99, reset_unix_ms: 784_111_778_000 });
    let responder = Responder { quota, ..responder(&cors) };
    assert_eq!(
        written(|out| responder.write(out, 200, Some(METRICS_TEXT), &extra, b"ara_up 1\n")),
        "HTTP/1.1 200 OK\n\
         content-type: text/plain; version=0.0.4; charset=utf-8\n\
         content-length: 9\n\
         x-one: 1\n\
         x-two: 2\n\
         x-ratelimit-limit: 100\n\
         x-ratelimit-remaining: 99\n\
         x-ratelimit-reset: 784111778000\n\
         access-control-allow-origin: https://app.example\n\
         vary: origin, access-control-request-method, access-control-request-headers\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n\
         ara_up 1\n"
    );
}

#[test]
fn no_content_has_neither_length_nor_type() {
    let cors = Cors::none();
    assert_eq!(
        written(|out| responder(&cors).write(out, 204, Some(JSON), &[], b"ignored")),
        "HTTP/1.1 204 No Content\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n"
    );
}

#[test]
fn head_keeps_the_length_and_drops_the_body() {
    let cors = Cors::none();
    let responder = Responder { head_only: true, ..responder(&cors) };
    assert_eq!(
        written(|out| responder.write_json(out, 200, b"[1,2]")),
        "HTTP/1.1 200 OK\n\
         content-type: application/json\n\
         content-length: 5\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n"
    );
}

#[test]
fn the_connection_header_says_what_differs_from_habit() {
    let cors = Cors::none();
    let rows = [
        (Version::Http11, true, ""),
        (Version::Http11, false, "connection: close\n"),
        (Version::Http10, true, "connection: keep-alive\n"),
        (Version::Http10, false, ""),
    ];
    for (version, keep_alive, line) in rows {
        let responder = Responder { version, keep_alive, ..responder(&cors) };
        let dialect = if version == Version::Http10 { "1.0" } else { "1.1" };
        assert_eq!(
            written(|out| responder.write(out, 200, None, &[], b"")),
            format!("HTTP/{dialect} 200 OK\ncontent-length: 0\ndate: Sun, 06 Nov 1994 08:49:37 GMT\n{line}\n")
        );
    }
}

#[test]
fn an_unknown_method_is_told_the_known_ones() {
    let cors = Cors::none();
    assert_eq!(
        written(|out| responder(&cors).write_error(out, &ApiError::method_not_allowed("GET,HEAD"), true)),
        "HTTP/1.1 405 Method Not Allowed\n\
         content-type: application/json\n\
         content-length: 86\n\
         allow: GET,HEAD\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n\
         {\"error\":{\"code\":\"METHOD_NOT_ALLOWED\",\"message\":\"The path does not know this method\"}}"
    );
}

#[test]
fn a_limited_client_is_told_when_to_come_back() {
    let cors = Cors::none();
    let responder = Responder { keep_alive: false, ..responder(&cors) };
    let extra = [("x-ratelimit-remaining", "0")];
    assert_eq!(
        written(|out| responder.write_error_with(out, &ApiError::rate_limited(3), false, &extra)),
        "HTTP/1.1 429 Too Many Requests\n\
         content-type: application/json\n\
         content-length: 93\n\
         retry-after: 3\n\
         x-ratelimit-remaining: 0\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         connection: close\n\
         \n\
         {\"error\":{\"code\":\"RATE_LIMITED\",\"message\":\"Too many requests, please retry after 3 seconds\"}}"
    );
}

#[test]
fn preflights_by_who_may_call() {
    let preflight = |cors: &Cors| written(|out| responder(cors).write_options(out, Some("POST")));
    assert_eq!(
        preflight(&Cors::any()),
        "HTTP/1.1 200 OK\n\
         content-length: 0\n\
         allow: POST\n\
         access-control-allow-methods: *\n\
         access-control-allow-headers: *\n\
         access-control-allow-origin: *\n\
         vary: origin, access-control-request-method, access-control-request-headers\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n"
    );
    assert_eq!(
        preflight(&Cors::listed(vec!["https://app.example".into()])),
        "HTTP/1.1 200 OK\n\
         content-length: 0\n\
         allow: POST\n\
         access-control-allow-methods: GET,POST,PUT,DELETE,OPTIONS\n\
         access-control-allow-headers: content-type,authorization,x-api-key,x-tenant-id\n\
         access-control-allow-origin: https://app.example\n\
         vary: origin, access-control-request-method, access-control-request-headers\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n"
    );
    assert_eq!(
        written(|out| responder(&Cors::none()).write_options(out, None)),
        "HTTP/1.1 200 OK\n\
         content-length: 0\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n"
    );
}

#[test]
fn a_stream_is_chunked_or_ends_with_the_connection() {
    let cors = Cors::none();
    assert_eq!(
        written(|out| responder(&cors).write_stream_head(out)),
        "HTTP/1.1 200 OK\n\
         content-type: text/event-stream\n\
         cache-control: no-cache\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         transfer-encoding: chunked\n\
         \n"
    );
    let old = Responder { version: Version::Http10, ..responder(&cors) };
    assert_eq!(
        written(|out| old.write_stream_head(out)),
        "HTTP/1.0 200 OK\n\
         content-type: text/event-stream\n\
         cache-control: no-cache\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         connection: close\n\
         \n"
    );
}

#[test]
fn interim_responses_have_no_length() {
    let cors = Cors::any();
    assert_eq!(
        written(|out| responder(&cors).write_switching(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")),
        "HTTP/1.1 101 Switching Protocols\n\
         connection: upgrade\n\
         upgrade: websocket\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n\
         access-control-allow-origin: *\n\
         vary: origin, access-control-request-method, access-control-request-headers\n\
         date: Sun, 06 Nov 1994 08:49:37 GMT\n\
         \n"
    );
    assert_eq!(written(Responder::write_continue), "HTTP/1.1 100 Continue\n\n");
}
