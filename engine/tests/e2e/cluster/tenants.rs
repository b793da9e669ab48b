//! Tenants on two nodes: the same names in each, and no way from one into another over Redis.
use super::node_with;
use crate::support::http::call;
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::token;
use crate::support::ws::Ws;
use serde_json::{Value, json};

const TENANTS: [&str; 3] = ["acme", "bolt", "default"];

fn token_of(tenant: &str, user: &str) -> String {
    token::sign(&json!({"sub": user, "exp": token::now() + 3600, "iat": token::now(), "tenant_id": tenant}))
}

#[track_caller]
fn call_as(server: &Server, tenant: &str, method: &str, path: &str, body: Option<&Value>) -> Value {
    let body = body.map(Value::to_string);
    call(server.port, method, path, &[("X-Tenant-ID", tenant)], body.as_ref().map(String::as_bytes)).ok()
}

#[test]
fn what_a_tenant_publishes_at_one_node_reaches_its_own_at_the_other() {
    let redis = Redis::start();
    let [a, b] = ["a", "b"].map(|id| node_with(&redis, id, &[("TENANT_ENABLED", "true")]));
    let mut there: Vec<(&str, Ws, Sse)> = TENANTS
        .into_iter()
        .map(|tenant| {
            let token = token_of(tenant, "ana");
            let mut ws = Ws::connect(b.port, &token);
            ws.subscribe(&["orders"]);
            (tenant, ws, Sse::connect(b.port, &format!("/sse?channels=orders&token={token}")))
        })
        .collect();
    // Whatever reached another tenant would be the next that it hears.
    let mut round = 0;
    for (kind, target) in [
        ("send", json!({"target_user_id": "ana"})),
        ("send-to-users", json!({"target_user_ids": ["ana", "ben"]})),
        ("channel", json!({"channel": "orders"})),
        ("channels", json!({"channels": ["orders", "news"]})),
        ("broadcast", json!({})),
        ("broadcast", json!({"audience": {"type": "Users", "value": ["ana"]}})),
    ] {
        for (tenant, ws, sse) in &mut there {
            round += 1;
            let payload = json!(format!("{tenant} {round}"));
            let mut body = target.clone();
            (body["event_type"], body["payload"]) = (json!("e"), payload.clone());
            let receipt = call_as(&a, tenant, "POST", &format!("/api/v1/notifications/{kind}"), Some(&body));
            assert_eq!((&receipt["delivered_to"], &receipt["delivered_local"]), (&json!(2), &json!(0)), "{receipt}");
            assert_eq!((ws.payload(), &sse.notification()["payload"]), (payload.clone(), &payload));
        }
    }
    for (tenant, ..) in &there {
        let page = call_as(&a, tenant, "GET", "/api/v1/cluster/users/ana", None);
        assert_eq!(page["sessions"].as_array().map(Vec::len), Some(2), "{tenant}: {page}");
        // What answers cover is said.
        let page = call_as(&b, tenant, "GET", &format!("/api/v1/tenants/{tenant}"), None);
        assert_eq!((&page["scope"], &page["server_id"]), (&json!("node"), &json!("b")), "{page}");
        assert_eq!(page["connection_stats"], json!({"total_connections": 2, "unique_users": 1}), "{page}");
        let status = call_as(&b, tenant, "GET", "/api/v1/cluster/status", None);
        assert_eq!(
            (&status["local_connections"], &status["cluster_connections"]),
            (&json!(2), &Value::Null),
            "{status}"
        );
    }
    let path = "/api/v1/tenants/acme";
    let nobody = call(a.port, "GET", path, &[("X-Tenant-ID", "acme")], None);
    nobody.refusal(404, "TENANT_NOT_FOUND");
    assert!(nobody.text().contains("Tenant 'acme' has no recorded activity on node 'a'"), "{}", nobody.text());
    // A template of one tenant is made at one node, and is nobody else's at the other.
    let template = json!({"id": "t", "name": "n", "event_type": "e", "payload_template": "x"});
    let made =
        call(a.port, "POST", "/api/v1/templates", &[("X-Tenant-ID", "acme")], Some(template.to_string().as_bytes()));
    assert_eq!(made.status, 201, "{}", made.text());
    for server in [&a, &b] {
        let page = call(server.port, "GET", "/api/v1/templates/t", &[("X-Tenant-ID", "bolt")], None);
        page.refusal(404, "TEMPLATE_NOT_FOUND");
    }
    // What other tools say for one tenant is heard by that one.
    let plain = json!({"user_id": "ana", "tenant_id": "acme", "payload": r#"{"type":"pong"}"#, "from_server": "tool"});
    redis.publish("ara:cluster:route", &plain.to_string());
    await_that("the tool to be heard", || {
        let heard = there[0].1.hear();
        (heard == r#"{"type":"pong"}"#).then_some(())
    });
    for (tenant, ws, _) in &mut there[1..] {
        let body = json!({"event_type": "e", "payload": "last"});
        call_as(&a, tenant, "POST", "/api/v1/notifications/broadcast", Some(&body));
        assert_eq!(ws.payload(), "last", "{tenant}");
    }
}
