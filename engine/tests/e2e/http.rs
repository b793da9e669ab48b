//! HTTP/1.1 and the rules that hold for every route (contract §1, C-5, C-6; RFC 9110, RFC 9112).
use crate::support::http::{Connection, call, request};
use crate::support::server::Server;
use crate::support::{is_rfc3339_utc, is_uuid_v7};
use serde_json::json;

const SEND: &str = "/api/v1/notifications/send";
const BATCH: &str = "/api/v1/notifications/batch";
/// A send that is well formed and reaches nobody.
const GOOD: &str = r#"{"target_user_id":"nobody","event_type":"test","payload":1}"#;

/// [`GOOD`] with a payload that makes it `len` bytes long.
fn body_of(len: usize) -> Vec<u8> {
    let empty = r#"{"target_user_id":"nobody","event_type":"test","payload":""}"#;
    let mut body = empty.as_bytes().to_vec();
    let at = body.len() - 2;
    body.splice(at..at, std::iter::repeat_n(b'x', len - empty.len()));
    assert_eq!(body.len(), len);
    body
}

#[test]
fn health_tells_about_a_fresh_node() {
    let server = Server::start();
    let response = server.get("/health");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(response.header("date").is_some_and(|date| date.ends_with(" GMT")), "{response:?}");
    assert_eq!(response.header("server"), None);
    let health = response.ok();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["version"], "1.0.0");
    assert!(health["uptime_seconds"].is_u64(), "{health}");
    assert_eq!(health["redis"], json!({"status": "disabled", "connected": false}));
    assert_eq!(health["connections"], json!({"total": 0, "unique_users": 0, "channels_count": 0}));
    assert_eq!(
        health["queue"],
        json!({"enabled": false, "backend": "memory", "total_messages": 0, "users_with_queue": 0})
    );
    assert_eq!(health.get("postgres"), None);
    assert_eq!(health.get("cluster"), None);
}

#[test]
fn stats_need_no_key_and_count_what_happened() {
    let server = Server::with(&[("API_KEY", "a-key-of-the-tests")]);
    let mut ana = server.ws("ana");
    ana.subscribe(&["orders"]);
    server.send("ana", "1");
    server.send("nobody", "1");
    server.publish("channel", r#"{"channel":"orders","event_type":"test","payload":2}"#);
    server.publish("broadcast", r#"{"event_type":"test","payload":3}"#);
    let stats = call(server.port, "GET", "/stats", &[], None).ok();
    assert_eq!(stats["connections"], json!({"total_connections": 1, "unique_users": 1, "channels": {}}));
    assert_eq!(
        stats["notifications"],
        json!({"total_sent": 4, "total_delivered": 3, "total_failed": 0, "user_notifications": 2,
               "broadcast_notifications": 1, "channel_notifications": 1})
    );
    let redis = &stats["redis"];
    assert!(redis["status"].is_string() && redis["connected"] == false, "{stats}");
    assert!(matches!(redis["circuit_breaker_state"].as_str(), Some("closed" | "open" | "half_open")), "{stats}");
    for count in ["circuit_breaker_failures", "reconnection_attempts", "total_reconnections"] {
        assert!(redis[count].is_u64(), "{count} in {stats}");
    }
    assert_eq!(stats.get("ack"), None);
}

#[test]
fn metrics_are_prometheus_text_with_every_family_from_the_start() {
    let server = Server::start();
    let response = server.get("/metrics");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = response.text();
    for line in [
        "# TYPE ara_connections_total gauge",
        "ara_connections_total 0",
        "ara_connections_by_transport{transport=\"ws\"} 0",
        "ara_connections_by_transport{transport=\"sse\"} 0",
        "ara_messages_sent_total{target=\"user\"} 0",
        "ara_messages_sent_total{target=\"channels\"} 0",
        "# TYPE ara_messages_delivered_total counter",
        "ara_messages_delivered_total 0",
        "ara_ws_messages_received_total{type=\"subscribe\"} 0",
        "# TYPE ara_message_delivery_latency_seconds histogram",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.is_sorted(), "families are not sorted by name: {families:?}");
}

#[test]
fn unknown_paths_are_not_found_without_a_key() {
    let server = Server::with(&[("API_KEY", "a-key-of-the-tests")]);
    for path in ["/", "/health/", "//health", "/api/v1/stats", "/api/v1/stats/acks", "/api/v1/notifications/none"] {
        call(server.port, "GET", path, &[], None).refusal(404, "NOT_FOUND");
    }
}

#[test]
fn wrong_methods_are_answered_with_the_right_ones() {
    let server = Server::start();
    for (method, path, allowed) in [
        ("POST", "/health", &["GET", "HEAD"][..]),
        ("DELETE", "/metrics", &["GET", "HEAD"]),
        ("GET", SEND, &["POST"]),
        ("PATCH", "/api/v1/templates", &["GET", "HEAD", "POST"]),
        ("POST", "/api/v1/templates/t1", &["GET", "HEAD", "PUT", "DELETE"]),
        ("BREW", "/ws", &["GET"]),
    ] {
        let response = server.call(method, path, None);
        response.refusal(405, "METHOD_NOT_ALLOWED");
        let allow = response.header("allow").unwrap_or_else(|| panic!("no allow in {response:?}"));
        let allow: Vec<_> = allow.split(',').map(str::trim).collect();
        assert!(allowed.iter().all(|method| allow.contains(method)), "{method} {path}: {allow:?}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(request("HEAD", "/api/v1/channels", &[], None));
    connection.send(request("GET", "/api/v1/channels", &[], None));
    let head = connection.read_head();
    let get = connection.read();
    assert_eq!((head.status, get.status), (200, 200));
    assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()));
    assert_eq!(head.header("content-type"), get.header("content-type"));
}

const VARY: &str = "origin, access-control-request-method, access-control-request-headers";

#[test]
fn cors_lets_everybody_in_when_nothing_is_configured() {
    let server = Server::start();
    for response in [
        server.get("/health"),
        server.get("/nowhere"),
        server.post(SEND, "not json"),
        call(server.port, "GET", "/health", &[("Origin", "https://app.example.com")], None),
    ] {
        assert_eq!(response.header("access-control-allow-origin"), Some("*"), "{response:?}");
        assert_eq!(response.header("vary"), Some(VARY), "{response:?}");
        assert_eq!(response.header("access-control-allow-credentials"), None);
    }
    let preflight = [("Origin", "https://app.example.com"), ("Access-Control-Request-Method", "POST")];
    let response = call(server.port, "OPTIONS", SEND, &preflight, None);
    assert_eq!((response.status, response.text()), (200, ""));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.header("access-control-allow-methods"), Some("*"));
    assert_eq!(response.header("access-control-allow-headers"), Some("*"));
}

#[test]
fn cors_names_only_listed_origins() {
    let server = Server::with(&[
        ("RUN_MODE", "production"),
        ("API_KEY", "a-key-of-the-tests"),
        ("CORS_ORIGINS", " https://app.example.com , ,https://admin.example.com"),
    ]);
    let origin_of = |origin| {
        let response = call(server.port, "GET", "/health", &[("Origin", origin)], None);
        assert_eq!(response.header("vary"), Some(VARY));
        response.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(origin_of("https://app.example.com").as_deref(), Some("https://app.example.com"));
    assert_eq!(origin_of("https://admin.example.com").as_deref(), Some("https://admin.example.com"));
    assert_eq!(origin_of("https://app.example.com.evil.example"), None);
    assert_eq!(origin_of("http://app.example.com"), None);

    let response = call(server.port, "OPTIONS", SEND, &[("Origin", "https://app.example.com")], None);
    assert_eq!(response.status, 200);
    let methods = response.header("access-control-allow-methods").expect("a preflight names methods");
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(methods.split(',').any(|m| m.trim() == method), "{method} in {methods}");
    }
    let headers = response.header("access-control-allow-headers").expect("a preflight names headers");
    for header in ["content-type", "authorization", "x-api-key", "x-tenant-id"] {
        assert!(headers.split(',').any(|h| h.trim().eq_ignore_ascii_case(header)), "{header} in {headers}");
    }
}

#[test]
fn cors_in_production_without_origins_lets_nobody_in() {
    let server = Server::with(&[("RUN_MODE", "Prod"), ("API_KEY", "a-key-of-the-tests")]);
    let response = call(server.port, "GET", "/health", &[("Origin", "https://app.example.com")], None);
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, None));
}

#[test]
fn a_connection_serves_request_after_request() {
    let server = Server::start();
    let mut connection = server.connect();
    for _ in 0..3 {
        connection.send(request("POST", SEND, &[], Some(GOOD.as_bytes())));
        assert_eq!(connection.read().ok()["delivered_to"], 0);
    }
    connection.send(request("GET", "/health", &[("Connection", "close")], None));
    assert_eq!(connection.read().status, 200);
    connection.expect_end();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let mut connection = server.connect();
    let mut bytes = request("GET", "/health", &[], None);
    for index in 0..20 {
        let body = format!(r#"{{"target_user_id":"u{index}","event_type":"test","payload":1}}"#);
        bytes.extend(request("POST", SEND, &[], Some(body.as_bytes())));
        bytes.extend(request("GET", &format!("/api/v1/users/u{index}/subscriptions"), &[], None));
    }
    bytes.extend(request("GET", "/nowhere", &[("Connection", "close")], None));
    connection.send(bytes);
    assert_eq!(connection.read().ok()["status"], "healthy");
    for index in 0..20 {
        let receipt = connection.read().ok();
        assert!(receipt["notification_id"].as_str().is_some_and(is_uuid_v7), "{receipt}");
        let message = connection.read().refusal(404, "USER_NOT_CONNECTED");
        assert_eq!(message, format!("User 'u{index}' has no active connections"));
    }
    connection.read().refusal(404, "NOT_FOUND");
    connection.expect_end();
}

#[test]
fn http_1_0_is_answered_and_closed_unless_it_asks_otherwise() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send("GET /health HTTP/1.0\r\n\r\n");
    let response = connection.read();
    assert_eq!((response.status, response.header("transfer-encoding")), (200, None));
    connection.expect_end();

    let mut connection = server.connect();
    for _ in 0..2 {
        connection.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let response = connection.read();
        assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
    }
}

#[test]
fn chunked_bodies_are_bodies() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(format!(
        "POST {SEND} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ));
    for piece in GOOD.as_bytes().chunks(7) {
        connection.send(format!("{:X};name=\"value\"\r\n", piece.len()));
        connection.send(piece);
        connection.send("\r\n");
    }
    connection.send("0\r\nTrailer: ignored\r\n\r\n");
    assert_eq!(connection.read().ok()["failed"], 0);
    connection.send(request("GET", "/health", &[], None));
    assert_eq!(connection.read().status, 200);

    connection.send(format!(
        "POST {SEND} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    ));
    connection.read().refusal(400, "BAD_REQUEST");
    connection.expect_end();
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let server = Server::start();
    let head = |length| {
        format!(
            "POST {SEND} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut connection = server.connect();
    connection.send(head(GOOD.len()));
    assert_eq!(connection.read_head().status, 100);
    connection.send(GOOD);
    assert_eq!(connection.read().status, 200);

    let mut connection = server.connect();
    connection.send(head(65_537));
    connection.read().refusal(413, "PAYLOAD_TOO_LARGE");
}

#[test]
fn a_single_send_may_be_64_kib_and_not_a_byte_more() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(request("POST", SEND, &[], Some(&body_of(65_536))));
    assert_eq!(connection.read().status, 200);
    connection.send(request("POST", SEND, &[], Some(&body_of(65_537))));
    connection.read().refusal(413, "PAYLOAD_TOO_LARGE");

    let mut connection = server.connect();
    let body = body_of(65_537);
    connection.send(format!(
        "POST {SEND} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    ));
    connection.send(&body);
    connection.send("\r\n0\r\n\r\n");
    connection.read().refusal(413, "PAYLOAD_TOO_LARGE");
}

#[test]
fn a_batch_may_be_1_mib_and_not_a_byte_more() {
    let server = Server::start();
    let batch_of = |len: usize| {
        let frame = r#"{"notifications":[{"target":{"type":"broadcast"},"event_type":"test","payload":""}]}"#;
        let mut body = frame.as_bytes().to_vec();
        let at = frame.len() - 4;
        body.splice(at..at, std::iter::repeat_n(b'x', len - frame.len()));
        body
    };
    let mut connection = server.connect();
    connection.send(request("POST", BATCH, &[], Some(&batch_of(1_048_576))));
    assert_eq!(connection.read().ok()["summary"]["total"], 1);
    connection.send(request("POST", BATCH, &[], Some(&batch_of(1_048_577))));
    connection.read().refusal(413, "PAYLOAD_TOO_LARGE");
}

#[test]
fn bad_json_is_400_and_bad_shape_is_422() {
    let server = Server::start();
    for body in [
        "",
        "{",
        "not json",
        r#"{"target_user_id":"u1","event_type":"e","payload":01}"#,
        r#"{"target_user_id":"u1","event_type":"e","payload":1} trailing"#,
    ] {
        let message = server.post(SEND, body).refusal(400, "BAD_REQUEST");
        assert!(message.starts_with("Failed to parse the request body as JSON: "), "{body:?}: {message}");
    }
    let not_utf8 = b"{\"target_user_id\":\"u1\",\"event_type\":\"\xff\",\"payload\":1}";
    call(server.port, "POST", SEND, &[], Some(not_utf8)).refusal(400, "BAD_REQUEST");

    for body in [
        "[]",
        "null",
        r#"{"event_type":"e","payload":1}"#,
        r#"{"target_user_id":"u1","payload":1}"#,
        r#"{"target_user_id":"u1","event_type":"e"}"#,
        r#"{"target_user_id":7,"event_type":"e","payload":1}"#,
        r#"{"target_user_id":"u1","target_user_id":"u2","event_type":"e","payload":1}"#,
        r#"{"target_user_id":"u1","event_type":"e","payload":1,"priority":"high"}"#,
        r#"{"target_user_id":"u1","event_type":"e","payload":1,"ttl":-1}"#,
        r#"{"target_user_id":"u1","event_type":"e","payload":1,"ttl":4294967296}"#,
        r#"{"target_user_id":"u1","event_type":"e","payload":1,"ttl":1.5}"#,
    ] {
        let message = server.post(SEND, body).refusal(422, "UNPROCESSABLE");
        let prefix = "Failed to deserialize the JSON body into the target type: ";
        assert!(message.starts_with(prefix), "{body}: {message}");
    }
}

#[test]
fn json_may_nest_127_deep() {
    let server = Server::start();
    let nested = |depth: usize| {
        let open = "[".repeat(depth - 1);
        let close = "]".repeat(depth - 1);
        format!(r#"{{"target_user_id":"u1","event_type":"e","payload":{open}{close}}}"#)
    };
    assert_eq!(server.post(SEND, &nested(127)).status, 200);
    server.post(SEND, &nested(128)).refusal(400, "BAD_REQUEST");
}

#[test]
fn bodies_must_say_that_they_are_json() {
    let server = Server::start();
    let sent_as =
        |content_type| call(server.port, "POST", SEND, &[("Content-Type", content_type)], Some(GOOD.as_bytes()));
    for good in ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.ara+json"]
    {
        assert_eq!(sent_as(good).status, 200, "{good}");
    }
    for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json"] {
        sent_as(bad).refusal(415, "UNSUPPORTED_MEDIA_TYPE");
    }
    let mut connection = server.connect();
    connection.send(format!("POST {SEND} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{GOOD}", GOOD.len()));
    connection.read().refusal(415, "UNSUPPORTED_MEDIA_TYPE");
}

/// What an intermediary could read differently from us is refused, and nothing after it on the connection is looked at.
#[test]
fn ambiguous_requests_are_refused_and_the_connection_ends() {
    let server = Server::start();
    for (what, head) in [
        (
            "length and chunks",
            "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "two lengths",
            "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
        ),
        ("a list of lengths", "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\n"),
        ("a signed length", "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\n"),
        ("a negative length", "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n"),
        ("a hexadecimal length", "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\n"),
        ("an empty length", "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"),
        (
            "a length beyond numbers",
            "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        ),
        (
            "chunks in HTTP/1.0",
            "POST /api/v1/notifications/send HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "chunks twice",
            "POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        ),
        ("no host", "GET /health HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("a host with a path", "GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("a host with a blank", "GET /health HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("a blank before the colon", "GET /health HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("a folded header", "GET /health HTTP/1.1\r\nHost: a\r\nX-One: 1\r\n two\r\n\r\n"),
        ("a NUL in a header", "GET /health HTTP/1.1\r\nHost: a\r\nX-One: 1\0\r\n\r\n"),
        ("a header without colon", "GET /health HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n"),
        ("a target that is no path", "GET health HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut connection = server.connect();
        connection.send(head);
        connection.send(request("GET", "/health", &[], None));
        let response = connection.read();
        assert_eq!(response.status, 400, "{what}: {}", response.text());
        response.refusal(400, "BAD_REQUEST");
        connection.expect_end();
    }
    server.still_delivers();
}

#[test]
fn unknown_transfer_codings_are_refused_and_the_connection_ends() {
    let server = Server::start();
    for coding in ["gzip", "gzip, chunked", "chunked, gzip", "identity", "xchunked"] {
        let mut connection = server.connect();
        connection.send(format!("POST {SEND} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"));
        connection.send(request("GET", "/health", &[], None));
        let response = connection.read();
        // RFC 9112 §6.1 suggests 501 for a coding that is not understood; 400 is as good, reading on is not.
        assert!(matches!(response.status, 400 | 501), "{coding}: {response:?}");
        response.refused(response.status);
        connection.expect_end();
    }
}

#[test]
fn hosts_as_the_field_sends_them_are_understood() {
    let server = Server::start();
    // nginx names its upstream in `Host`, underscores included; others send ports and addresses.
    for host in ["notification_cluster", "127.0.0.1:8081", "[::1]:8081", "notification", "a.example.com:80", ""] {
        let mut connection = server.connect();
        connection.send(format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(connection.read().status, 200, "{host:?}");
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = Server::start();
    let mut connection = server.connect();
    for byte in request("POST", SEND, &[], Some(GOOD.as_bytes())) {
        connection.send([byte]);
    }
    assert_eq!(connection.read().ok()["success"], false);
}

#[test]
fn a_head_without_end_is_refused() {
    let server = Server::start();
    for (what, head) in [
        ("long header", format!("GET /health HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n", "x".repeat(70_000))),
        ("many headers", format!("GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-One: 1\r\n".repeat(500))),
    ] {
        let mut connection = server.connect();
        connection.send(head);
        let response = connection.read();
        assert_eq!(response.status, 431, "{what}");
        response.refused(431);
        connection.expect_end();
    }
    let mut connection = server.connect();
    connection.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)));
    let response = connection.read();
    assert!(matches!(response.status, 414 | 431), "{response:?}");
    response.refused(response.status);
    connection.expect_end();
}

#[test]
fn protected_routes_want_the_key() {
    let key = "0123456789012345";
    let server = Server::with(&[("API_KEY", key)]);
    let with = |headers: &[(&str, &str)]| call(server.port, "POST", SEND, headers, Some(GOOD.as_bytes()));
    assert_eq!(with(&[("x-api-key", key)]).status, 200);
    let bearer = format!("Bearer {key}");
    for headers in [
        &[][..],
        &[("X-API-Key", "")],
        &[("X-API-Key", "123456789012345")],
        &[("X-API-Key", "01234567890123456")],
        &[("X-API-Key", "1123456789012345")],
        &[("Authorization", bearer.as_str())],
    ] {
        let response = with(headers);
        response.refusal(401, "UNAUTHORIZED");
        assert_eq!(response.header("www-authenticate"), None);
    }
    for path in [
        "/api/v1/channels",
        "/api/v1/channels/orders",
        "/api/v1/users/u1/subscriptions",
        "/api/v1/templates",
        "/api/v1/templates/t1",
        "/api/v1/tenants",
        "/api/v1/tenants/default",
        "/api/v1/cluster/status",
        "/api/v1/cluster/users/u1",
    ] {
        call(server.port, "GET", path, &[], None).refusal(401, "UNAUTHORIZED");
    }
    // The key comes before the body is judged.
    call(server.port, "POST", SEND, &[], Some(b"not json")).refusal(401, "UNAUTHORIZED");
    for path in ["/health", "/metrics", "/stats"] {
        assert_eq!(call(server.port, "GET", path, &[], None).status, 200, "{path}");
    }
}

#[test]
fn an_empty_key_is_no_key() {
    let server = Server::with(&[("API_KEY", "")]);
    assert_eq!(call(server.port, "POST", SEND, &[], Some(GOOD.as_bytes())).status, 200);
}

#[test]
fn production_without_a_key_serves_no_protected_route() {
    let server = Server::with(&[("RUN_MODE", "production")]);
    call(server.port, "POST", SEND, &[], Some(GOOD.as_bytes())).refused(503);
    call(server.port, "GET", "/api/v1/channels", &[("X-API-Key", "anything")], None).refused(503);
    assert_eq!(call(server.port, "GET", "/health", &[], None).status, 200);
    let mut ws = server.ws("ana");
    ws.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
}

#[test]
fn a_receipt_has_its_fields_in_order() {
    let server = Server::start();
    let response = server.post(SEND, GOOD);
    let receipt = response.ok();
    assert!(receipt["notification_id"].as_str().is_some_and(is_uuid_v7), "{receipt}");
    assert!(receipt["timestamp"].as_str().is_some_and(is_rfc3339_utc), "{receipt}");
    let text = response.text();
    let places: Vec<_> = ["success", "notification_id", "delivered_to", "failed", "timestamp"]
        .map(|key| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {text}")))
        .into();
    assert!(places.is_sorted(), "{text}");
    assert_eq!((&receipt["success"], &receipt["queued"]), (&json!(false), &json!(0)));
}

#[test]
fn a_body_on_a_get_is_read_over() {
    let server = Server::start();
    let mut connection = Connection::open(server.port);
    connection.send(request("GET", "/health", &[], Some(b"{}")));
    connection.send(request("GET", "/api/v1/channels", &[], None));
    assert_eq!(connection.read().ok()["status"], "healthy");
    assert_eq!(connection.read().ok(), json!({"channels": [], "total_channels": 0}));
}
