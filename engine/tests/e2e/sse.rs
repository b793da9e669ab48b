//! `/sse`: event streams (contract §2, §4, C-16).
use crate::support::http::{call, request};
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::{is_uuid_v7, token};
use serde_json::Value;

#[test]
fn a_stream_begins_with_connected() {
    let server = Server::start();
    let stream = server.sse("ana");
    assert_eq!(stream.head.version, "HTTP/1.1");
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.head.header("cache-control"), Some("no-cache"));
    assert_eq!(stream.head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(stream.head.header("access-control-allow-origin"), Some("*"));
    assert_eq!(stream.head.header("content-length"), None);
    assert_eq!(stream.connected.name.as_deref(), Some("connected"));
    let data = stream.connected.data.as_deref().expect("it has data");
    let connected: Value = serde_json::from_str(data).expect("it is JSON");
    let id = connected["connection_id"].as_str().expect("an id");
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    assert_eq!(data, format!(r#"{{"type":"connected","connection_id":"{id}"}}"#));
}

#[test]
fn a_notification_is_three_lines() {
    let server = Server::start();
    let mut stream = server.sse("ana");
    let receipt = server.send("ana", "{\"a\":\n1}");
    assert_eq!(receipt["delivered_to"], 1);
    let event = stream.hear().expect("the stream goes on");
    let id = receipt["notification_id"].as_str().expect("an id");
    assert!(is_uuid_v7(id), "{id}");
    let data = event.data.expect("it has data");
    assert_eq!(event.text, format!("id: {id}\nevent: notification\ndata: {data}\n\n"));
    assert!(data.starts_with(&format!(r#"{{"type":"notification","id":"{id}","#)), "{data}");
    assert!(data.contains(r#""payload":{"a":1},"#), "{data}");
}

#[test]
fn a_stream_says_how_long_to_wait_before_coming_back() {
    let server = Server::start();
    let mut stream = server.sse("ana");
    server.send("ana", "1");
    stream.notification();
    let retry = stream.retry.expect("a block with retry came before the notification");
    assert!(retry.parse::<u32>().is_ok_and(|ms| ms > 0), "{retry}");
}

#[test]
fn a_stream_can_name_channels() {
    let server = Server::start();
    let token = token::of("ana");
    let mut stream = Sse::connect(server.port, &format!("/sse?channels=orders,%E8%A8%82%E5%96%AE&token={token}"));
    for (channel, count) in [("orders", 1), ("訂單", 1), ("alerts", 0)] {
        let body = format!(r#"{{"channel":"{channel}","event_type":"{channel}","payload":1}}"#);
        assert_eq!(server.publish("channel", &body)["delivered_to"], count, "{channel}");
    }
    assert_eq!(stream.notification()["event_type"], "orders");
    assert_eq!(stream.notification()["event_type"], "訂單");
    assert_eq!(server.get("/api/v1/channels/orders").ok()["subscriber_count"], 1);

    let bad = call(server.port, "GET", &format!("/sse?channels=or%20ders&token={token}"), &[], None);
    bad.refused(400);
    let many: Vec<_> = (0..51).map(|index| format!("c{index}")).collect();
    let bad = call(server.port, "GET", &format!("/sse?channels={}&token={token}", many.join(",")), &[], None);
    bad.refused(400);
}

#[test]
fn a_stream_wants_a_token() {
    let server = Server::start();
    call(server.port, "GET", "/sse", &[], None).refusal(401, "UNAUTHORIZED");
    call(server.port, "GET", "/sse?token=nonsense", &[], None).refusal(401, "UNAUTHORIZED");
    let bearer = format!("Bearer {}", token::of("ana"));
    let expired = token::sign(&serde_json::json!({"sub": "ana", "exp": token::now() - 120}));
    call(server.port, "GET", &format!("/sse?token={expired}"), &[("Authorization", &bearer)], None)
        .refusal(401, "UNAUTHORIZED");

    let request = String::from_utf8(request("GET", "/sse", &[("Authorization", &bearer)], None)).expect("text");
    let mut stream = Sse::open(server.port, &request);
    server.send("ana", "1");
    assert_eq!(stream.notification()["payload"], 1);
}

#[test]
fn http_1_0_gets_the_stream_without_chunks() {
    let server = Server::start();
    // As the seed's nginx asks: HTTP/1.0, Connection: close.
    let request = format!("GET /sse?token={} HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n", token::of("ana"));
    let mut stream = Sse::open(server.port, &request);
    assert_eq!(stream.head.header("transfer-encoding"), None);
    assert_eq!(stream.head.header("content-length"), None);
    assert_eq!(stream.connected.name.as_deref(), Some("connected"));
    for index in 0..3 {
        server.send("ana", &index.to_string());
        assert_eq!(stream.notification()["payload"], index);
    }
}

#[test]
fn streams_outlive_the_connection_timeout() {
    let server = Server::with(&[
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "1"),
        ("WEBSOCKET_CONNECTION_TIMEOUT", "2"),
        ("WEBSOCKET_CLEANUP_INTERVAL", "1"),
    ]);
    let mut stream = server.sse("ana");
    // An event stream's reader cannot say that it lives. Five heartbeats are more than twice the timeout.
    for _ in 0..5 {
        let event = stream.event().expect("the stream goes on");
        assert_eq!(
            (event.name.as_deref(), event.data.as_deref()),
            (Some("heartbeat"), Some(r#"{"type":"heartbeat"}"#))
        );
    }
    assert_eq!(server.send("ana", "1")["delivered_to"], 1);
    assert_eq!(stream.notification()["payload"], 1);
}

#[test]
fn a_stream_counts_as_a_connection() {
    let server = Server::start();
    let stream = server.sse("ana");
    let _ws = server.ws("ana");
    assert_eq!(server.get("/api/v1/users/ana/subscriptions").ok()["connection_count"], 2);
    let metrics = server.get("/metrics");
    for line in ["ara_connections_total 2", "ara_connections_by_transport{transport=\"sse\"} 1"] {
        assert!(metrics.text().lines().any(|found| found == line), "{line}");
    }
    drop(stream);
    crate::support::process::await_that("the stream to be forgotten", || {
        (server.get("/health").ok()["connections"]["total"] == 1).then_some(())
    });
}
