//! Limits of tenants on one node (contract §11, D-11).
use crate::support::http::call;
use crate::support::process::await_that;
use crate::support::server::Server;
use crate::support::token;
use crate::support::ws::Ws;
use serde_json::json;

/// A token of `user` in `tenant`.
fn token_of(tenant: &str, user: &str) -> String {
    token::sign(&json!({"sub": user, "exp": token::now() + 3600, "iat": token::now(), "tenant_id": tenant}))
}

const OVERRIDES: &str = "[tenant.tenant_overrides.acme]\nmax_connections = 5\nmax_connections_per_user = 0\n\
                         [tenant.tenant_overrides.\"b.olt\"]\nmax_subscriptions_per_connection = 3\n";

fn limited(more: &[(&str, &str)]) -> Server {
    let settings = [
        ("TENANT_ENABLED", "true"),
        ("TENANT_DEFAULT_MAX_CONNECTIONS", "3"),
        ("TENANT_DEFAULT_MAX_CONNECTIONS_PER_USER", "2"),
        ("TENANT_DEFAULT_MAX_SUBSCRIPTIONS_PER_CONNECTION", "2"),
        ("SHARDS", "4"),
    ];
    let all: Vec<_> = settings.into_iter().chain(more.iter().copied()).collect();
    Server::with_file(OVERRIDES, &all)
}

#[track_caller]
fn is_refused(server: &Server, tenant: &str, user: &str, words: &str) {
    let token = token_of(tenant, user);
    let mut ws = Ws::connect(server.port, &token);
    assert_eq!(ws.error("CONNECTION_LIMIT"), words);
    assert_eq!(ws.await_close(), Some(1008));
    let answer = call(server.port, "GET", &format!("/sse?token={token}"), &[], None);
    assert_eq!(answer.status, 429);
    assert!(answer.text().contains(words), "{}", answer.text());
}

#[test]
fn a_tenant_has_so_many_connections_on_the_whole_node() {
    let server = limited(&[]);
    let connect = |tenant: &str, user: &str| Ws::connect(server.port, &token_of(tenant, user));
    let subscribed = |mut ws: Ws| {
        ws.subscribe(&["a"]);
        ws
    };
    // Different users live on different shards.
    let mut bolt: Vec<Ws> = ["u1", "u2", "u3"].into_iter().map(|user| subscribed(connect("b.olt", user))).collect();
    is_refused(&server, "b.olt", "u4", "Tenant b.olt connection limit exceeded (3/3)");
    // Another tenant has its own, by its own limits; the global limit of users holds there, too.
    let _acme: Vec<Ws> = (0..5).map(|n| subscribed(connect("acme", &format!("u{n}")))).collect();
    is_refused(&server, "acme", "u9", "Tenant acme connection limit exceeded (5/5)");
    let _default = subscribed(connect("default", "u1"));
    // Who leaves makes room, on whatever shard.
    assert_eq!(bolt.remove(0).close(1000), Some(1000));
    await_that("room for one more", || {
        let page = call(server.port, "GET", "/api/v1/tenants/b.olt", &[("X-Tenant-ID", "b.olt")], None).ok();
        (page["connection_stats"]["total_connections"] == 2).then_some(())
    });
    subscribed(connect("b.olt", "u4"));
}

#[test]
fn a_user_has_as_many_as_its_tenant_allows_and_as_anybody_may_have() {
    let server = limited(&[("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "4")]);
    let connect = |tenant: &str| {
        let mut ws = Ws::connect(server.port, &token_of(tenant, "ana"));
        ws.subscribe(&["a"]);
        ws
    };
    let _bolt = [connect("b.olt"), connect("b.olt")];
    is_refused(&server, "b.olt", "ana", "User ana connection limit exceeded (2/2)");
    // Of the same name and somebody else; 0 is no limit of the tenant's, and the global one holds.
    let _acme = [connect("acme"), connect("acme"), connect("acme"), connect("acme")];
    is_refused(&server, "acme", "ana", "User ana connection limit exceeded (4/4)");
}

#[test]
fn a_connection_has_as_many_subscriptions_as_its_tenant_allows() {
    let server = limited(&[]);
    for (tenant, max) in [("carol", 2), ("b.olt", 3)] {
        let mut ws = Ws::connect(server.port, &token_of(tenant, "ana"));
        ws.subscribe(&["a", "b"]);
        ws.say(r#"{"type":"Subscribe","payload":{"channels":["c","d"]}}"#);
        let refusal = format!("Subscription limit exceeded ({max}/{max})");
        if max == 3 {
            assert!(ws.hear().contains(r#"["c"]"#));
            assert_eq!(ws.error("SUBSCRIPTION_ERROR"), refusal);
        } else {
            assert_eq!(ws.error("SUBSCRIPTION_ERROR"), format!("{refusal}; {refusal}"));
        }
        let path = format!("/sse?channels=a,b,c,d&token={}", token_of(tenant, "ben"));
        let answer = call(server.port, "GET", &path, &[], None);
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
}
