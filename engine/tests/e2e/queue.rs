//! Mail for users who are away, and acknowledgements (contract §8, §9, C-4, C-11, C-12).
use crate::support::backend::Backend;
use crate::support::http::{Connection, request};
use crate::support::process::await_that;
use crate::support::server::Server;
use serde_json::Value;

fn queue(extra: &[(&str, &str)]) -> Server {
    let settings = [&[("QUEUE_ENABLED", "true"), ("QUEUE_MAX_SIZE_PER_USER", "6000")], extra].concat();
    Server::with(&settings)
}

/// Sends numbers over one kept connection, so that they are accepted in order.
fn send_numbers(server: &Server, user: &str, numbers: std::ops::Range<u64>) {
    let mut connection = Connection::open(server.port);
    for chunk in numbers.collect::<Vec<_>>().chunks(100) {
        for n in chunk {
            let body = format!(r#"{{"target_user_id":"{user}","event_type":"e","payload":{n}}}"#);
            let headers = [("content-type", "application/json")];
            connection.send(request("POST", "/api/v1/notifications/send", &headers, Some(body.as_bytes())));
        }
        for n in chunk {
            assert_eq!(connection.read().ok()["success"], true, "{n}");
        }
    }
}

fn five_thousand_come_first(backend: &Backend) {
    let server = backend.serve(&[("QUEUE_MAX_SIZE_PER_USER", "6000")]);
    await_that("the node to be healthy", || (server.get("/health").ok()["status"] == "healthy").then_some(()));
    for user in ["ana", "bo"] {
        send_numbers(&server, user, 0..5_000);
    }
    await_that("the mailboxes to be counted", || {
        let queue = &server.get("/health").ok()["queue"];
        (queue["total_messages"] == 10_000 && queue["users_with_queue"] == 2).then_some(())
    });
    std::thread::scope(|scope| {
        let publishing = ["ana", "bo"].map(|user| {
            let server = &server;
            scope.spawn(move || send_numbers(server, user, 5_000..6_000))
        });
        let mut ws = server.ws("ana");
        let mut sse = server.sse("bo");
        for n in 0..6_000 {
            assert_eq!(ws.payload(), n);
            assert_eq!(sse.notification()["payload"], n);
        }
        for thread in publishing {
            thread.join().expect("everything was accepted");
        }
        ws.say(r#"{"type":"Ping"}"#);
        assert_eq!(ws.hear(), r#"{"type":"pong"}"#, "the connection stays usable");
    });
    await_that("the mailboxes to be empty", || {
        (server.get("/health").ok()["queue"]["total_messages"] == 0).then_some(())
    });
}

#[test]
fn five_thousand_in_memory_come_first_and_in_order_while_more_is_published() {
    five_thousand_come_first(&Backend::Memory);
}

#[test]
fn five_thousand_in_redis_come_first_and_in_order_while_more_is_published() {
    five_thousand_come_first(&Backend::redis());
}

#[test]
fn five_thousand_in_postgres_come_first_and_in_order_while_more_is_published() {
    five_thousand_come_first(&Backend::postgres());
}

#[test]
fn an_answer_says_that_it_was_kept_and_an_event_comes_back_byte_for_byte() {
    let server = queue(&[]);
    let receipt = server.send("ana", r#"{"b":1.50,"a":[1e3]}"#);
    assert_eq!(
        (&receipt["success"], &receipt["delivered_to"], &receipt["queued"]),
        (&true.into(), &0.into(), &1.into())
    );
    let mut ws = server.ws("ana");
    let text = ws.hear();
    assert!(text.contains(r#""payload":{"b":1.50,"a":[1e3]},"#), "{text}");
    let notification: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(notification["id"], receipt["notification_id"]);
    assert_eq!(notification["metadata"].get("attempt"), None, "the first time");
    assert_eq!(server.send("ana", "2")["queued"], 0, "who is there gets it at once");
    assert_eq!(ws.payload(), 2);
}

#[test]
fn a_full_mailbox_lets_its_oldest_go_and_says_so() {
    let server = Server::with(&[("QUEUE_ENABLED", "true"), ("QUEUE_MAX_SIZE_PER_USER", "100")]);
    send_numbers(&server, "ana", 0..150);
    let mut ws = server.ws("ana");
    for n in 50..150 {
        assert_eq!(ws.payload(), n);
    }
    assert!(server.get("/metrics").text().contains("\nara_queue_dropped_total 50\n"));
}

#[test]
fn what_expires_in_the_mailbox_does_not_come() {
    let server = queue(&[("QUEUE_CLEANUP_INTERVAL_SECONDS", "1")]);
    server.publish("send", r#"{"target_user_id":"ana","event_type":"e","payload":"short","ttl":1}"#);
    server.publish("send", r#"{"target_user_id":"ana","event_type":"e","payload":"long","ttl":600}"#);
    await_that("the short one to expire", || {
        server.get("/metrics").text().contains("\nara_queue_expired_total 1\n").then_some(())
    });
    assert_eq!(server.ws("ana").payload(), "long");
}

#[test]
fn acknowledged_mail_is_forgotten_and_the_rest_comes_again() {
    let server = queue(&[("ACK_ENABLED", "true"), ("ACK_TIMEOUT_SECONDS", "30")]);
    let mut ws = server.ws("ana");
    let (first, second) = (server.send("ana", "1"), server.send("ana", "2"));
    assert_eq!((&first["delivered_to"], &first["queued"]), (&1.into(), &1.into()), "delivered, and kept");
    assert_eq!((ws.payload(), ws.payload()), (1.into(), 2.into()));
    let id = first["notification_id"].as_str().expect("an id");
    let ack = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
    ws.ask(&ack, &format!(r#"{{"type":"acked","notification_id":"{id}"}}"#));
    ws.say(&ack);
    assert_eq!(ws.error("INVALID_ACK"), format!("Unknown or invalid notification: {id}"));
    drop(ws);
    await_that("the server to see that ana is gone", || {
        (server.get("/health").ok()["connections"]["total"] == 0).then_some(())
    });
    let again = server.ws("ana").notification();
    assert_eq!(again["id"], second["notification_id"]);
    assert_eq!(again["metadata"]["attempt"], 2, "it says that it comes again");
    let stats = server.get("/stats").ok();
    assert_eq!((&stats["ack"]["total_acked"], &stats["ack"]["enabled"]), (&1.into(), &true.into()));
}

#[test]
fn every_recipient_of_a_broadcast_acknowledges_for_itself() {
    let server = Server::with(&[("ACK_ENABLED", "true")]);
    let mut clients = [server.ws("ana"), server.ws("bo")];
    let sent = server.publish("broadcast", r#"{"event_type":"e","payload":1}"#);
    let id = sent["notification_id"].as_str().expect("an id");
    for client in &mut clients {
        client.notification();
        let ack = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
        client.ask(&ack, &format!(r#"{{"type":"acked","notification_id":"{id}"}}"#));
    }
    let stats = server.get("/stats").ok();
    assert_eq!((&stats["ack"]["total_tracked"], &stats["ack"]["total_acked"]), (&2.into(), &2.into()));
    assert_eq!((&stats["ack"]["pending_count"], &stats["ack"]["ack_rate"]), (&0.into(), &1.0.into()));
}
