//! Several nodes as one (decision 8): what is sent to one reaches the clients of the other; what Redis knows of them; and
//! whether a node tells when messages stop flowing.
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use serde_json::{Value, json};

mod alone;
mod both;
mod crowd;
mod failures;
mod faults;
mod ledger;
mod limits;
mod mail;
mod moves;
mod order;
mod partitions;
mod redis_cluster;
mod shared;
mod strangers;
mod tenants;
mod tokens;
mod turns;

/// A node of the cluster at this Redis, past its first canary.
fn node(redis: &Redis, server_id: &str) -> Server {
    node_with(redis, server_id, &[])
}

/// The same with these settings on top.
fn node_with(redis: &Redis, server_id: &str, more: &[(&str, &str)]) -> Server {
    node_at(&redis.url(), server_id, more)
}

/// The same at this `REDIS_URL`.
fn node_at(url: &str, server_id: &str, more: &[(&str, &str)]) -> Server {
    let mut settings = vec![
        ("REDIS_URL", url),
        ("CLUSTER_ENABLED", "true"),
        ("CLUSTER_SERVER_ID", server_id),
        ("REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD", "1000"),
        ("REDIS_BACKOFF_INITIAL_DELAY_MS", "10"),
        ("REDIS_BACKOFF_MAX_DELAY_MS", "50"),
    ];
    settings.extend(more);
    let server = Server::with(&settings);
    await_ready(&server);
    server
}

/// Waits until messages flow.
#[track_caller]
fn await_ready(server: &Server) {
    await_that("the node to be ready", || (server.get("/health/ready").status == 200).then_some(()));
}

/// Delivered in the cluster, and by the node that was asked.
fn delivered(receipt: &Value) -> (u64, u64) {
    let count = |key: &str| receipt[key].as_u64().unwrap_or_else(|| panic!("no {key} in {receipt}"));
    (count("delivered_to"), count("delivered_local"))
}

#[test]
fn what_is_sent_to_one_node_reaches_the_clients_of_the_other() {
    let redis = Redis::start();
    reach_each_other(&node(&redis, "a"), &node(&redis, "b"));
}

/// Every kind of publish by REST, from one node to the clients of both.
fn reach_each_other(a: &Server, b: &Server) {
    let (mut here, mut there, mut sse) = (a.ws("ana"), b.ws("ana"), b.sse("ben"));
    here.subscribe(&["orders"]);
    there.subscribe(&["orders", "news"]);
    let rows = [
        ("send", json!({"target_user_id": "ana"}), (2, 1), true, false),
        ("send-to-users", json!({"target_user_ids": ["ana", "ben"]}), (3, 1), true, true),
        ("broadcast", json!({}), (3, 1), true, true),
        ("channel", json!({"channel": "orders"}), (2, 1), true, false),
        ("channel", json!({"channel": "news"}), (1, 0), false, false),
        ("channels", json!({"channels": ["orders", "news"]}), (2, 1), true, false),
        ("send", json!({"target_user_id": "nobody"}), (0, 0), false, false),
    ];
    for (n, (kind, mut body, counts, is_here, is_at_ben)) in rows.into_iter().enumerate() {
        (body["event_type"], body["payload"]) = (json!("e"), json!(n));
        let receipt = a.publish(kind, &body.to_string());
        assert_eq!(delivered(&receipt), counts, "{kind}: {receipt}");
        let id = &receipt["notification_id"];
        if is_here {
            assert_eq!(&here.notification()["id"], id, "{kind} here");
        }
        if counts.0 > counts.1 {
            assert_eq!(&there.notification()["id"], id, "{kind} there");
        }
        if is_at_ben {
            let heard: Value = serde_json::from_str(&sse.notification_text()).unwrap();
            assert_eq!(&heard["id"], id, "{kind} by SSE");
        }
    }
    let batch = json!({"notifications": [
        {"target": {"type": "user", "value": "ana"}, "event_type": "e", "payload": "first"},
        {"target": {"type": "channel", "value": "news"}, "event_type": "e", "payload": "second"},
    ]});
    let answer = a.publish("batch", &batch.to_string());
    let rows = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(rows.iter().map(delivered).collect::<Vec<_>>(), [(2, 1), (1, 0)], "{answer}");
    assert_eq!(here.payload(), "first");
    // A user's mail and a channel have no order between them.
    let mut both = [there.payload(), there.payload()].map(|payload| payload.to_string());
    both.sort();
    assert_eq!(both, [r#""first""#, r#""second""#]);
    // Who has left is not reached, and nobody waits for his node.
    there.close(1000);
    await_that("the other node to forget it", || {
        let receipt = a.send("ana", "1");
        here.notification();
        (delivered(&receipt) == (1, 1)).then_some(())
    });
}

#[test]
fn redis_knows_who_is_where_and_forgets_who_left() {
    let redis = Redis::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    let (mut here, there) = (a.ws("ana"), b.ws("ana"));
    here.subscribe(&["orders"]);
    let members = |key: &str| {
        let mut members: Vec<String> = redis.cli(&["SMEMBERS", key]).split_whitespace().map(str::to_owned).collect();
        members.sort();
        members.join(" ")
    };
    let prefix = "ara:cluster:sessions";
    await_that("both nodes to have told of the user", || {
        (members(&format!("{prefix}:user:ana")) == "a b").then_some(())
    });
    assert_eq!(members(&format!("{prefix}:users")), "ana");
    await_that("the channel to be known", || (members(&format!("{prefix}:channel:orders")) == "a").then_some(()));
    let status = await_that("the members to be counted", || {
        let status = a.get("/api/v1/cluster/status").ok();
        (status["cluster_connections"] == 2 && status["cluster_users"] == 1).then_some(status)
    });
    assert_eq!((&status["mode"], &status["local_connections"]), (&json!("distributed"), &json!(1)));
    drop(there);
    await_that("the other node to leave", || (members(&format!("{prefix}:user:ana")) == "a").then_some(()));
    drop(here);
    await_that("nobody to be left", || (members(&format!("{prefix}:users")).is_empty()).then_some(()));
}

#[test]
fn a_node_tells_when_messages_stop_flowing_and_when_they_flow_again() {
    let mut redis = Redis::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    let mut there = b.ws("ana");
    assert_eq!(a.get("/health").ok()["status"], "healthy");
    redis.hold();
    // The sockets stand; only the canaries tell.
    await_that("the stall to be noticed", || (a.get("/health/ready").status == 503).then_some(()));
    assert_eq!(a.get("/health").ok()["status"], "degraded");
    assert_eq!(a.get("/health/live").status, 200);
    redis.release();
    await_ready(&a);
    await_ready(&b);
    redis.kill();
    await_that("the loss to be noticed", || (a.get("/health/ready").status == 503).then_some(()));
    // A node without Redis serves its own clients.
    let mut here = a.ws("ana");
    assert_eq!(delivered(&a.send("ana", "1")), (1, 1));
    assert_eq!(here.payload(), 1);
    redis.restart();
    await_ready(&a);
    await_ready(&b);
    // Who connected meanwhile, and who was there before, is reached from everywhere again.
    await_that("both to be reached", || (delivered(&b.send("ana", "2")) == (2, 1)).then_some(()));
    assert_eq!((here.payload(), there.payload()), (json!(2), json!(2)));
}

#[test]
fn the_ingest_alone_has_its_canaries() {
    let redis = Redis::start();
    let url = redis.url();
    let server = Server::with(&[("REDIS_URL", &url)]);
    await_ready(&server);
    redis.hold();
    await_that("the stall to be noticed", || {
        let page = server.get("/health/ready");
        (page.status == 503).then(|| assert_eq!(page.json()["checks"]["redis_ingest"], false))
    });
    assert_eq!(server.get("/health").ok()["status"], "healthy", "nothing that was asked for needs Redis");
    redis.release();
    await_ready(&server);
}
