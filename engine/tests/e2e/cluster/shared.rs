//! What nodes have in common besides deliveries: templates, and what their pages say of the cluster.
use super::node_with;
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use serde_json::{Value, json};

/// Two nodes whose templates and mail live in the cluster's Redis.
fn pair(redis: &Redis, more: &[(&str, &str)]) -> [Server; 2] {
    let settings = [&[("QUEUE_ENABLED", "true"), ("QUEUE_BACKEND", "redis")], more].concat();
    ["a", "b"].map(|name| {
        let server = node_with(redis, name, &settings);
        await_that("the node to be healthy", || (server.get("/health").ok()["status"] == "healthy").then_some(()));
        server
    })
}

#[test]
fn a_template_made_on_one_node_is_used_on_the_other() {
    let redis = Redis::start();
    let [a, b] = pair(&redis, &[]);
    let mut ws = a.ws("ana");
    let template = |text: &str| {
        json!({"id": "shipped", "name": "Shipped", "event_type": "order.shipped", "payload_template": {"text": text}})
            .to_string()
    };
    let made = a.post("/api/v1/templates", &template("{{order}} is on its way"));
    assert_eq!(made.status, 201, "{}", made.text());
    let use_it = |server: &Server, order: &str| {
        let body = json!({"target_user_id": "ana", "template_id": "shipped", "variables": {"order": order}});
        server.post("/api/v1/notifications/send", &body.to_string())
    };
    await_that("the other node to know it", || (b.get("/api/v1/templates/shipped").status == 200).then_some(()));
    assert_eq!(use_it(&b, "ORD-1").ok()["delivered_to"], 1);
    let heard = ws.notification();
    assert_eq!(
        (&heard["event_type"], &heard["payload"]["text"]),
        (&json!("order.shipped"), &json!("ORD-1 is on its way"))
    );
    let changed =
        b.call("PUT", "/api/v1/templates/shipped", Some(r#"{"payload_template":{"text":"{{order}} is here"}}"#));
    assert_eq!(changed.status, 200, "{}", changed.text());
    await_that("the first node to know the change", || {
        let page = a.get("/api/v1/templates/shipped").ok();
        (page["payload_template"]["text"] == "{{order}} is here").then_some(())
    });
    assert_eq!(use_it(&a, "ORD-2").ok()["delivered_to"], 1);
    assert_eq!(ws.notification()["payload"]["text"], "ORD-2 is here");
    let gone = a.call("DELETE", "/api/v1/templates/shipped", None);
    assert!(gone.status == 200 || gone.status == 204, "{gone:?}");
    await_that("the other node to have forgotten it", || {
        (b.get("/api/v1/templates/shipped").status == 404).then_some(())
    });
    use_it(&b, "ORD-3").refusal(400, "VALIDATION_ERROR");
}

#[test]
fn both_nodes_tell_of_the_same_cluster() {
    let redis = Redis::start();
    let nodes = pair(&redis, &[]);
    let (mut here, _second, _there) = (nodes[0].ws("ana"), nodes[0].ws("ben"), nodes[1].sse("ana"));
    here.subscribe(&["orders"]);
    for (server, id, connections, users) in [(&nodes[0], "a", 2, 2), (&nodes[1], "b", 1, 1)] {
        let expected = json!({
            "enabled": true, "mode": "distributed", "server_id": id, "local_connections": connections,
            "local_users": users, "cluster_connections": 3, "cluster_users": 2,
        });
        let mut last = Value::Null;
        await_that("the cluster to be counted", || {
            last = server.get("/api/v1/cluster/status").ok();
            (last["cluster_connections"] == 3 && last["cluster_users"] == 2).then_some(())
        });
        assert_eq!(last, expected);
        let sessions = await_that("both sessions to be known", || {
            let page = server.get("/api/v1/cluster/users/ana").ok();
            let mut sessions = page["sessions"].as_array().expect("sessions").clone();
            sessions.sort_by_key(|session| session["server_id"].to_string());
            let known = sessions.len() == 2 && sessions[0]["channels"] == json!(["orders"]);
            known.then_some(sessions)
        });
        assert_eq!((&sessions[0]["server_id"], &sessions[1]["server_id"]), (&json!("a"), &json!("b")));
        assert_eq!(sessions[1]["channels"], json!([]));
        for session in sessions {
            assert!(session["connection_id"].as_str().is_some_and(|id| id.len() == 36), "{session}");
            assert!(session["connected_at"].as_u64().is_some(), "{session}");
        }
        let nobody = server.get("/api/v1/cluster/users/nobody").ok();
        assert_eq!(nobody, json!({"user_id": "nobody", "found": false, "sessions": []}));
    }
}
