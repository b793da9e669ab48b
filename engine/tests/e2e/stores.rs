//! What is kept in Redis and in PostgreSQL: what a restart finds again, and what holds while the server there is away,
//! refuses to let us in, or refuses to work (contract §1.9, C-4, C-15).
use crate::support::backend::Backend;
use crate::support::postgres::Postgres;
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use serde_json::{Value, json};
use tungstenite::Message;

const ACK: (&str, &str) = ("ACK_ENABLED", "true");

/// A scene that is played with each of the backends.
macro_rules! with_each {
    ($scene:ident, $redis:expr, $postgres:expr) => {
        mod $scene {
            use super::*;

            #[test]
            fn redis() {
                super::$scene(Backend::Redis($redis));
            }

            #[test]
            fn postgres() {
                super::$scene(Backend::Postgres($postgres));
            }
        }
    };
}

with_each!(a_restart_finds_mail_templates_and_statistics_again, Redis::start(), Postgres::start());
with_each!(a_backend_that_is_away_at_the_start_is_told_of_and_waited_for, Redis::absent(), Postgres::absent());
with_each!(a_backend_that_is_away_does_not_keep_a_node_from_stopping, Redis::absent(), Postgres::absent());
with_each!(what_a_client_did_not_take_before_a_stop_comes_after_it, Redis::start(), Postgres::start());

/// Waits until the node calls itself healthy.
#[track_caller]
fn await_healthy(server: &Server) {
    await_that("the node to be healthy", || (server.get("/health").ok()["status"] == "healthy").then_some(()));
}

/// Waits until the node calls itself degraded and names this backend, and returns the word for it.
#[track_caller]
fn await_degraded(server: &Server, backend: &Backend) -> String {
    await_that("the node to be degraded", || {
        let health = server.get("/health").ok();
        let told = &health[backend.name()];
        (health["status"] == "degraded" && told["connected"] == false)
            .then(|| told["status"].as_str().expect("a word").to_owned())
    })
}

/// Mail for somebody who is away cannot be kept, and whoever sent it is told.
#[track_caller]
fn refuses_mail(server: &Server) {
    let body = r#"{"target_user_id":"nobody","event_type":"e","payload":0}"#;
    server.post("/api/v1/notifications/send", body).refusal(503, "QUEUE_ERROR");
}

/// Mail is kept again, sooner or later, and comes.
#[track_caller]
fn await_mail_kept(server: &Server) {
    await_that("mail to be kept", || {
        let body = r#"{"target_user_id":"kept","event_type":"e","payload":"kept"}"#;
        (server.post("/api/v1/notifications/send", body).status == 200).then_some(())
    });
    assert_eq!(server.ws("kept").payload(), "kept");
}

/// Who is there is served, whatever becomes of mail.
#[track_caller]
fn delivers_live(server: &Server) {
    let mut ws = server.ws("there");
    server.publish("broadcast", r#"{"event_type":"e","payload":"live"}"#);
    assert_eq!(ws.payload(), "live");
}

fn a_restart_finds_mail_templates_and_statistics_again(backend: Backend) {
    let mut server = backend.serve(&[ACK]);
    await_healthy(&server);
    let template = r#"{"id":"hello","name":"Hello","event_type":"e","payload_template":{"text":"Hello {{name}}"}}"#;
    // Until the templates of before are read, there is no saying whether this one is new.
    await_that("the template to be kept", || {
        let status = server.post("/api/v1/templates", template).status;
        assert!([201, 503].contains(&status), "{status}");
        (status == 201).then_some(())
    });
    let kept = [1, 2, 3].map(|n| server.send("ana", &n.to_string()));
    assert_eq!(kept[0]["queued"], 1);
    let mut ws = server.ws("bo");
    let sent = server.send("bo", "4");
    assert_eq!(ws.payload(), 4);
    let id = sent["notification_id"].as_str().expect("an id");
    let ack = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
    ws.ask(&ack, &format!(r#"{{"type":"acked","notification_id":"{id}"}}"#));
    drop(ws);
    server.terminate();
    assert_eq!(server.await_exit().code(), Some(0));

    let server = backend.serve(&[ACK]);
    await_that("the books to be read", || {
        let (health, stats) = (server.get("/health").ok(), server.get("/stats").ok());
        let queue = &health["queue"];
        let found = queue["total_messages"] == 3
            && queue["users_with_queue"] == 1
            && stats["queue"]["total_enqueued"] == 4
            && stats["ack"]["total_acked"] == 1;
        found.then_some(())
    });
    let mut ws = server.ws("ana");
    for (n, receipt) in (1..).zip(&kept) {
        let notification = ws.notification();
        assert_eq!((&notification["payload"], &notification["id"]), (&n.into(), &receipt["notification_id"]));
        assert_eq!(notification["metadata"].get("attempt"), None, "the first time");
    }
    let body = r#"{"target_user_id":"ana","template_id":"hello","variables":{"name":"Ana"}}"#;
    assert_eq!(await_that("the templates", || sent_by_template(&server, body))["delivered_to"], 1);
    assert_eq!(ws.payload(), json!({"text": "Hello Ana"}));
}

/// Templates are read in the background at the start; until then a send by template is refused.
fn sent_by_template(server: &Server, body: &str) -> Option<Value> {
    let response = server.post("/api/v1/notifications/send", body);
    (response.status == 200).then(|| response.json())
}

fn a_backend_that_is_away_at_the_start_is_told_of_and_waited_for(mut backend: Backend) {
    let server = backend.serve(&[ACK]);
    let health = server.get("/health").ok();
    assert_eq!((&health["status"], &health[backend.name()]["connected"]), (&"degraded".into(), &false.into()));
    refuses_mail(&server);
    delivers_live(&server);
    let metrics = server.get("/metrics");
    let line = format!("\nara_store_well{{backend=\"{}\"}} 0\n", backend.name());
    assert!(metrics.text().contains(&line), "{}", metrics.text());
    backend.restart();
    await_healthy(&server);
    await_mail_kept(&server);
}

fn a_backend_that_is_away_does_not_keep_a_node_from_stopping(backend: Backend) {
    let mut server = backend.serve(&[ACK]);
    let mut ws = server.ws("ana");
    let body = r#"{"target_user_id":"ana","event_type":"e","payload":0}"#;
    // With acknowledgements mail is kept first and delivered then.
    server.post("/api/v1/notifications/send", body).refusal(503, "QUEUE_ERROR");
    server.terminate();
    assert_eq!(ws.await_close(), Some(1001));
    assert_eq!(server.await_exit().code(), Some(0));
}

/// A client that does not read holds what it was sent; what it never took goes back into its mailbox while the node stops.
fn what_a_client_did_not_take_before_a_stop_comes_after_it(backend: Backend) {
    let mut server = backend.serve(&[("QUEUE_MAX_SIZE_PER_USER", "1000")]);
    await_healthy(&server);
    let mut deaf = server.ws("ana");
    let mail = |n: u64| format!(r#"{{"n":{n},"filling":"{}"}}"#, "x".repeat(60_000));
    for n in 0..200 {
        server.send("ana", &mail(n));
    }
    server.terminate();
    assert_eq!(server.await_exit().code(), Some(0));
    let mut taken = Vec::new();
    while let Ok(message) = deaf.0.read() {
        let Message::Text(text) = message else { continue };
        let message: Value = serde_json::from_str(text.as_str()).expect("it is JSON");
        taken.extend(message["payload"]["n"].as_u64());
    }
    assert!(taken.len() < 200, "the sockets held everything: nothing is shown");

    let server = backend.serve(&[("QUEUE_MAX_SIZE_PER_USER", "1000")]);
    let mut ws = server.ws("ana");
    let receipt = server.send("ana", r#"{"n":200}"#);
    let mut came = Vec::new();
    loop {
        let notification = ws.notification();
        if notification["id"] == receipt["notification_id"] {
            break;
        }
        came.push(notification["payload"]["n"].as_u64().expect("a number"));
    }
    let half_taken = taken.len() as u64;
    let first = came[0];
    assert_eq!(came, (first..200).collect::<Vec<_>>());
    let in_order: Vec<u64> = (0..taken.len() as u64).collect();
    assert_eq!(taken, in_order);
    assert!(first <= half_taken + 1, "{first} comes first, but only {half_taken} were taken");
}

/// Tries a wrong password, then the right one.
fn does_not_let_us_in(backend: &Backend, wrong: &str, right: &str) {
    let server = backend.serve_at(wrong, &[]);
    await_degraded(&server, backend);
    refuses_mail(&server);
    delivers_live(&server);
    server.process.await_output("WARN");
    assert!(!server.process.output().contains("hunter2"), "{}", server.process.output());
    let server = backend.serve_at(right, &[]);
    await_healthy(&server);
    await_mail_kept(&server);
    assert!(!server.process.output().contains("open-sesame"), "{}", server.process.output());
}

#[test]
fn a_redis_that_does_not_let_us_in_is_told_of_and_the_password_is_not() {
    let redis = Redis::with(&["--requirepass", "open-sesame"], Some("open-sesame"));
    let [wrong, right] = ["hunter2", "open-sesame"].map(|word| format!("redis://:{word}@127.0.0.1:{}", redis.port));
    does_not_let_us_in(&Backend::Redis(redis), &wrong, &right);
}

#[test]
fn a_postgres_that_does_not_let_us_in_is_told_of_and_the_password_is_not() {
    let postgres = Postgres::start();
    postgres.psql("CREATE ROLE ara LOGIN PASSWORD 'open-sesame'; GRANT ALL ON SCHEMA public TO ara");
    let [wrong, right] = ["ara:hunter2", "ara:open-sesame"].map(|who| postgres.url(who));
    does_not_let_us_in(&Backend::Postgres(postgres), &wrong, &right);
}

#[test]
fn a_database_that_became_read_only_is_told_of_until_it_is_not() {
    let backend = Backend::Postgres(Postgres::start());
    let Backend::Postgres(postgres) = &backend else { unreachable!("it was made so") };
    let server = backend.serve(&[]);
    await_healthy(&server);
    await_mail_kept(&server);
    let read_only = |on: &str| {
        postgres.psql(&format!("ALTER SYSTEM SET default_transaction_read_only = {on}"));
        postgres.psql("SELECT pg_reload_conf()");
    };
    read_only("on");
    await_that("mail to be refused", || {
        let body = r#"{"target_user_id":"nobody","event_type":"e","payload":0}"#;
        (server.post("/api/v1/notifications/send", body).status == 503).then_some(())
    });
    await_degraded(&server, &backend);
    refuses_mail(&server);
    delivers_live(&server);
    // ALTER SYSTEM writes no table: it is let through.
    read_only("off");
    await_mail_kept(&server);
    await_healthy(&server);
}

#[test]
fn a_redis_that_is_full_is_told_of_until_it_is_not() {
    let backend = Backend::redis();
    let Backend::Redis(redis) = &backend else { unreachable!("it was made so") };
    let server = backend.serve(&[]);
    await_healthy(&server);
    assert_eq!(server.send("ana", "1")["queued"], 1);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    refuses_mail(&server);
    assert_eq!(await_degraded(&server, &backend), "refusing");
    delivers_live(&server);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    await_mail_kept(&server);
    await_healthy(&server);
    assert_eq!(server.ws("ana").payload(), 1, "what was kept before is there");
}

#[test]
fn mail_and_acknowledgements_may_be_kept_apart() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let server = Server::with(&[
        ("QUEUE_ENABLED", "true"),
        ("QUEUE_BACKEND", "redis"),
        ACK,
        ("ACK_BACKEND", "postgres"),
        ("REDIS_URL", &redis.url()),
        ("DATABASE_URL", &postgres.url("postgres")),
    ]);
    await_healthy(&server);
    let mut ws = server.ws("ana");
    let sent = server.publish("broadcast", r#"{"event_type":"e","payload":1}"#);
    assert_eq!(ws.payload(), 1);
    let id = sent["notification_id"].as_str().expect("an id");
    let ack = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{id}"}}}}"#);
    ws.ask(&ack, &format!(r#"{{"type":"acked","notification_id":"{id}"}}"#));
    assert_eq!(server.send("bo", "2")["queued"], 1);
    await_that("PostgreSQL to have it in its books", || {
        (server.get("/stats").ok()["ack"]["total_acked"] == 1).then_some(())
    });
    assert_ne!(redis.cli(&["KEYS", "ara:queue:*"]).trim(), "", "mail is in Redis");
    assert_eq!(redis.cli(&["KEYS", "ara:ack:*"]).trim(), "", "acknowledgements are not");
    assert_eq!(server.ws("bo").payload(), 2);
}
