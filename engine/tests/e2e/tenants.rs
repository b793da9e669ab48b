//! Tenants on one node (contract §11, C-8): the same names in each, and no way from one into another.
use crate::support::http::{Response, call};
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::token;
use crate::support::ws::Ws;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `default` is where a token without a tenant belongs.
const TENANTS: [&str; 3] = ["acme", "bolt", "default"];

/// A server that keeps tenants apart.
fn tenanted(settings: &[(&str, &str)]) -> Server {
    let all: Vec<_> = [("TENANT_ENABLED", "true")].iter().chain(settings).copied().collect();
    Server::with(&all)
}

/// A token of `user` in `tenant`; `default` is said by saying nothing.
fn token_of(tenant: &str, user: &str) -> String {
    let mut claims = json!({"sub": user, "exp": token::now() + 3600, "iat": token::now()});
    if tenant != "default" {
        claims["tenant_id"] = tenant.into();
    }
    token::sign(&claims)
}

/// A call of a tenant's backend.
#[track_caller]
fn call_as(server: &Server, tenant: &str, method: &str, path: &str, body: Option<&str>) -> Response {
    call(server.port, method, path, &[("X-Tenant-ID", tenant)], body.map(str::as_bytes))
}

#[track_caller]
fn publish_as(server: &Server, tenant: &str, kind: &str, body: &str) -> Value {
    call_as(server, tenant, "POST", &format!("/api/v1/notifications/{kind}"), Some(body)).ok()
}

/// The same user in each tenant, subscribed to the same channels, over both transports.
struct Members(BTreeMap<&'static str, (Ws, Sse)>);

impl Members {
    #[track_caller]
    fn connect(server: &Server) -> Members {
        let members = TENANTS.map(|tenant| {
            let token = token_of(tenant, "ana");
            let mut ws = Ws::connect(server.port, &token);
            ws.subscribe(&["orders", "alerts"]);
            let sse = Sse::connect(server.port, &format!("/sse?channels=orders&token={token}"));
            (tenant, (ws, sse))
        });
        Members(members.into_iter().collect())
    }

    fn of(&mut self, tenant: &str) -> &mut (Ws, Sse) {
        self.0.get_mut(tenant).expect("it is one of the three")
    }

    /// Asserts that the next thing both connections of the tenant hear is this payload: whatever came before it from
    /// elsewhere would stand in front.
    #[track_caller]
    fn hear(&mut self, tenant: &str, payload: &Value) {
        let (ws, sse) = self.of(tenant);
        assert_eq!(ws.payload(), *payload, "{tenant}");
        assert_eq!(sse.notification()["payload"], *payload, "{tenant}");
    }
}

#[test]
fn every_way_to_publish_stays_in_its_tenant() {
    let server = tenanted(&[]);
    let mut members = Members::connect(&server);
    for tenant in TENANTS {
        for (kind, target) in [
            ("send", r#""target_user_id":"ana""#),
            ("send-to-users", r#""target_user_ids":["ana","ben"]"#),
            ("channel", r#""channel":"orders""#),
            ("channels", r#""channels":["orders","alerts"]"#),
            ("broadcast", r#""priority":"High""#),
            ("broadcast", r#""audience":{"type":"Users","value":["ana"]}"#),
            ("broadcast", r#""audience":{"type":"Channels","value":["orders"]}"#),
        ] {
            let payload = json!(format!("{tenant} by {kind}"));
            let receipt =
                publish_as(&server, tenant, kind, &format!(r#"{{{target},"event_type":"e","payload":{payload}}}"#));
            assert_eq!((&receipt["delivered_to"], &receipt["failed"]), (&json!(2), &json!(0)), "{payload}: {receipt}");
            members.hear(tenant, &payload);
        }
        for target in [
            r#"{"type":"user","value":"ana"}"#,
            r#"{"type":"users","value":["ana"]}"#,
            r#"{"type":"channel","value":"orders"}"#,
            r#"{"type":"channels","value":["orders"]}"#,
            r#"{"type":"broadcast"}"#,
        ] {
            let payload = json!(format!("{tenant} by batch to {target}"));
            let body = format!(r#"{{"notifications":[{{"target":{target},"event_type":"e","payload":{payload}}}]}}"#);
            let receipt = publish_as(&server, tenant, "batch", &body);
            assert_eq!(receipt["summary"]["total_delivered"], 2, "{payload}: {receipt}");
            members.hear(tenant, &payload);
        }
    }
    // A tenant nobody belongs to reaches nobody.
    assert_eq!(publish_as(&server, "empty", "broadcast", r#"{"event_type":"e","payload":1}"#)["delivered_to"], 0);
    // Everything was heard by those it was for; this is the next that anybody hears.
    for tenant in TENANTS {
        let last = json!("last");
        publish_as(&server, tenant, "broadcast", r#"{"event_type":"e","payload":"last"}"#);
        members.hear(tenant, &last);
    }
}

#[test]
fn a_name_with_a_prefix_leads_nowhere() {
    let server = tenanted(&[]);
    let mut members = Members::connect(&server);
    for tenant in ["default", "bolt"] {
        for (kind, target) in [
            ("send", r#""target_user_id":"acme:ana""#),
            ("send-to-users", r#""target_user_ids":["ana","acme:ana"]"#),
            ("channel", r#""channel":"acme:orders""#),
            ("channels", r#""channels":["acme:orders"]"#),
        ] {
            let body = format!(r#"{{{target},"event_type":"e","payload":1}}"#);
            let path = format!("/api/v1/notifications/{kind}");
            call_as(&server, tenant, "POST", &path, Some(&body)).refusal(400, "VALIDATION_ERROR");
        }
        let body = r#"{"notifications":[
            {"target":{"type":"user","value":"acme:ana"},"event_type":"e","payload":1},
            {"target":{"type":"channels","value":["a","acme:orders"]},"event_type":"e","payload":1},
            {"target":{"type":"user","value":"nobody"},"event_type":"e","payload":1}]}"#;
        let batch = publish_as(&server, tenant, "batch", body);
        for index in [0, 1] {
            let error = batch["results"][index]["error"].as_str().unwrap_or_default();
            assert!(error.starts_with("Validation error: "), "{batch}");
        }
        assert_eq!(batch["results"][2]["error"], Value::Null, "{batch}");
        for channel in ["acme:orders", "acme%3Aorders"] {
            let path = format!("/api/v1/channels/{channel}");
            call_as(&server, tenant, "GET", &path, None).refusal(404, "CHANNEL_NOT_FOUND");
        }
        members.of(tenant).0.say(r#"{"type":"Subscribe","payload":{"channels":["acme:orders"]}}"#);
        members.of(tenant).0.error("SUBSCRIPTION_ERROR");
        let path = "/api/v1/users/acme:ana/subscriptions";
        call_as(&server, tenant, "GET", path, None).refusal(404, "USER_NOT_CONNECTED");
        let page = call_as(&server, tenant, "GET", "/api/v1/cluster/users/acme:ana", None).ok();
        assert_eq!(page["found"], false, "{page}");
        // Nobody can be called so.
        let refused = Ws::open(server.port, &format!("/ws?token={}", token_of(tenant, "acme:ana")), &[]).err();
        assert_eq!(refused.map(|(status, _)| status), Some(401), "{tenant}");
    }
    publish_as(&server, "acme", "channel", r#"{"channel":"orders","event_type":"e","payload":"own"}"#);
    members.hear("acme", &json!("own"));
}

#[test]
fn answers_tell_of_the_own_tenant_and_in_bare_names() {
    let server = tenanted(&[]);
    let mut members = Members::connect(&server);
    members.of("acme").0.subscribe(&["secret"]);
    let names = |tenant: &str| -> Vec<(String, u64)> {
        let list = call_as(&server, tenant, "GET", "/api/v1/channels", None).ok();
        let rows = list["channels"].as_array().unwrap_or_else(|| panic!("{list}"));
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| {
                (row["name"].as_str().unwrap_or_default().to_owned(), row["subscriber_count"].as_u64().unwrap_or(0))
            })
            .collect();
        rows.sort();
        assert_eq!(list["total_channels"], rows.len(), "{list}");
        rows
    };
    let row = |name: &str, count: u64| (name.to_owned(), count);
    assert_eq!(names("acme"), [row("alerts", 1), row("orders", 2), row("secret", 1)]);
    for tenant in ["bolt", "default"] {
        assert_eq!(names(tenant), [row("alerts", 1), row("orders", 2)]);
        call_as(&server, tenant, "GET", "/api/v1/channels/secret", None).refusal(404, "CHANNEL_NOT_FOUND");
        let found = call_as(&server, tenant, "GET", "/api/v1/users/ana/subscriptions", None).ok();
        let found = found.to_string();
        assert!(found.contains("orders") && !found.contains("secret") && !found.contains("acme"), "{found}");
    }
    assert_eq!(names("empty"), []);
    let own = call_as(&server, "acme", "GET", "/api/v1/tenants", None).ok();
    assert_eq!(
        (&own["enabled"], &own["total"], &own["tenants"][0]["tenant_id"]),
        (&json!(true), &json!(1), &json!("acme"))
    );
    let stats = call_as(&server, "acme", "GET", "/api/v1/tenants/acme", None).ok();
    assert_eq!(stats["connection_stats"], json!({"total_connections": 2, "unique_users": 1}), "{stats}");
    call_as(&server, "acme", "GET", "/api/v1/tenants/bolt", None).refused(403);
    // Totals are the caller's own.
    let status = call_as(&server, "acme", "GET", "/api/v1/cluster/status", None).ok();
    assert_eq!(
        (&status["tenant_id"], &status["local_connections"], &status["local_users"]),
        (&json!("acme"), &json!(2), &json!(1)),
        "{status}"
    );
}

#[test]
fn templates_belong_to_their_tenant() {
    let server = tenanted(&[]);
    let mut members = Members::connect(&server);
    let template =
        |id: &str, text: &str| format!(r#"{{"id":"{id}","name":"n","event_type":"e","payload_template":"{text}"}}"#);
    for tenant in TENANTS {
        let made = call_as(&server, tenant, "POST", "/api/v1/templates", Some(&template("shared", tenant)));
        assert_eq!((made.status, &made.json()["id"]), (201, &json!("shared")), "{tenant}: {}", made.text());
    }
    let made = call_as(&server, "acme", "POST", "/api/v1/templates", Some(&template("own", "acme's")));
    assert_eq!(made.status, 201, "{}", made.text());
    for tenant in TENANTS {
        let body = r#"{"target_user_id":"ana","template_id":"shared"}"#;
        assert_eq!(publish_as(&server, tenant, "send", body)["delivered_to"], 2);
        members.hear(tenant, &json!(tenant));
    }
    for tenant in ["bolt", "default"] {
        assert_eq!(call_as(&server, tenant, "GET", "/api/v1/templates", None).ok()["total"], 1);
        for id in ["own", "acme:own", "acme:shared"] {
            let path = format!("/api/v1/templates/{id}");
            call_as(&server, tenant, "GET", &path, None).refusal(404, "TEMPLATE_NOT_FOUND");
            call_as(&server, tenant, "PUT", &path, Some(r#"{"name":"x"}"#)).refusal(404, "TEMPLATE_NOT_FOUND");
            call_as(&server, tenant, "DELETE", &path, None).refusal(404, "TEMPLATE_NOT_FOUND");
            let body = format!(r#"{{"target_user_id":"ana","template_id":"{id}"}}"#);
            let refused = call_as(&server, tenant, "POST", "/api/v1/notifications/send", Some(&body));
            refused.refusal(400, "VALIDATION_ERROR");
        }
    }
    assert_eq!(call_as(&server, "bolt", "DELETE", "/api/v1/templates/shared", None).status, 204);
    let kept = call_as(&server, "acme", "GET", "/api/v1/templates/shared", None).ok();
    assert_eq!(kept["payload_template"], "acme");
}

#[test]
fn the_api_wants_to_know_the_tenant() {
    let long = "x".repeat(65);
    let bad = [None, Some(""), Some("  "), Some("a:b"), Some("a b"), Some("a/b"), Some(long.as_str())];
    for key in [None, Some("a-key-of-the-tests")] {
        let server = tenanted(&key.map(|key| ("API_KEY", key)).into_iter().collect::<Vec<_>>());
        let headers = |tenant: Option<&'static str>| {
            let key = key.map(|key| ("X-API-Key", key));
            tenant.map(|tenant| ("X-Tenant-ID", tenant)).into_iter().chain(key).collect::<Vec<_>>()
        };
        let body = r#"{"target_user_id":"ana","event_type":"e","payload":1}"#;
        for tenant in bad {
            let mut headers = headers(None);
            headers.extend(tenant.map(|tenant| ("X-Tenant-ID", tenant)));
            for (method, path, body) in [
                ("POST", "/api/v1/notifications/send", Some(body)),
                ("GET", "/api/v1/channels", None),
                ("GET", "/api/v1/templates", None),
                ("GET", "/api/v1/tenants", None),
            ] {
                let answer = call(server.port, method, path, &headers, body.map(str::as_bytes));
                answer.refusal(400, "BAD_REQUEST");
            }
        }
        for good in ["acme", " acme ", "a.b-c_D9", "default"] {
            let answer =
                call(server.port, "POST", "/api/v1/notifications/send", &headers(Some(good)), Some(body.as_bytes()));
            assert_eq!(answer.status, 200, "{good:?}: {}", answer.text());
        }
        // A stranger is not told about headers, and the pages about the node belong to no tenant.
        if key.is_some() {
            call(server.port, "GET", "/api/v1/channels", &[], None).refusal(401, "UNAUTHORIZED");
        }
        for path in ["/health", "/stats", "/metrics"] {
            assert_eq!(server.get(path).status, 200, "{path}");
        }
    }
}

#[test]
fn a_token_of_a_tenant_that_cannot_be_is_refused() {
    let server = tenanted(&[]);
    for tenant in ["", "a:b", "a b", &"x".repeat(65)] {
        let token = token::sign(&json!({"sub": "ana", "exp": token::now() + 60, "tenant_id": tenant}));
        for path in ["/ws", "/sse"] {
            let answer = match path {
                "/ws" => Ws::open(server.port, &format!("/ws?token={token}"), &[]).err(),
                _ => {
                    let answer = call(server.port, "GET", &format!("/sse?token={token}"), &[], None);
                    Some((answer.status, answer.text().to_owned()))
                }
            };
            let (status, body) = answer.unwrap_or_else(|| panic!("{path} lets {tenant:?} in"));
            assert_eq!(status, 401, "{path} {tenant:?}: {body}");
        }
    }
}

#[test]
fn redis_names_the_tenant() {
    let redis = Redis::start();
    let url = redis.url();
    let server = tenanted(&[("REDIS_URL", &url)]);
    redis.await_default_subscriptions();
    let mut members = Members::connect(&server);
    let mut publisher = redis.client();
    for target in [
        r#""type":"user","target":"ana""#,
        r#""type":"users","target":["ana"]"#,
        r#""type":"channel","target":"orders""#,
        r#""type":"channels","target":["orders","alerts"]"#,
        r#""type":"broadcast""#,
    ] {
        for tenant in TENANTS {
            // As with tokens, nothing said is `default`.
            let named = if tenant == "default" { String::new() } else { format!(r#""tenant_id":"{tenant}","#) };
            let payload = json!(format!("{tenant} {target}"));
            let message = format!(r#"{{{named}{target},"event":{{"event_type":"e","payload":{payload}}}}}"#);
            publisher.publish("notification:broadcast", message.as_bytes());
            members.hear(tenant, &payload);
        }
    }
}

#[test]
fn without_tenancy_nobody_is_apart() {
    let server = Server::start();
    let mut acme = Ws::connect(server.port, &token_of("acme", "ana"));
    let mut none = Ws::connect(server.port, &token_of("default", "ana"));
    for headers in [&[][..], &[("X-Tenant-ID", "acme")], &[("X-Tenant-ID", "not a tenant")]] {
        let body = br#"{"target_user_id":"ana","event_type":"e","payload":1}"#;
        let answer = call(server.port, "POST", "/api/v1/notifications/send", headers, Some(body));
        assert_eq!(answer.ok()["delivered_to"], 2, "{headers:?}");
        assert_eq!((acme.payload(), none.payload()), (json!(1), json!(1)));
    }
}
