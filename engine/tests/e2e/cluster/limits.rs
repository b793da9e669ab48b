//! Limits of users and tenants hold for all nodes together.
use super::{await_ready, node_with};
use crate::support::http::call;
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::token;
use crate::support::ws::Ws;
use rustix::process::Signal;
use serde_json::json;
use std::thread;

const LIMITS: [(&str, &str); 4] = [
    ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "2"),
    ("TENANT_ENABLED", "true"),
    ("TENANT_DEFAULT_MAX_CONNECTIONS", "4"),
    ("TENANT_DEFAULT_MAX_CONNECTIONS_PER_USER", "0"),
];

/// Two nodes with these limits; sessions live as short as settings allow.
fn pair(redis: &Redis, more: &[(&str, &str)]) -> [Server; 2] {
    let all: Vec<_> = LIMITS.iter().chain(more).copied().collect();
    ["a", "b"].map(|id| node_with(redis, id, &all))
}

fn token_of(tenant: &str, user: &str) -> String {
    token::sign(&json!({"sub": user, "exp": token::now() + 3600, "iat": token::now(), "tenant_id": tenant}))
}

/// A connection that is in, or the words of its refusal.
fn connect(server: &Server, tenant: &str, user: &str) -> Result<Ws, String> {
    let mut ws = Ws::connect(server.port, &token_of(tenant, user));
    ws.say(r#"{"type":"Ping"}"#);
    let heard: serde_json::Value = serde_json::from_str(&ws.hear()).expect("JSON");
    if heard["type"] == "pong" {
        return Ok(ws);
    }
    assert_eq!(heard["code"], "CONNECTION_LIMIT", "{heard}");
    assert_eq!(ws.await_close(), Some(1008));
    Err(heard["message"].as_str().expect("words").to_owned())
}

#[track_caller]
fn is_refused(server: &Server, tenant: &str, user: &str, words: &str) {
    assert_eq!(connect(server, tenant, user).err().as_deref(), Some(words));
    let answer = call(server.port, "GET", &format!("/sse?token={}", token_of(tenant, user)), &[], None);
    assert_eq!(answer.status, 429);
    assert!(answer.text().contains(words), "{}", answer.text());
}

/// So many admissions with this result.
fn admissions(server: &Server, result: &str) -> u64 {
    let line = format!("ara_cluster_admissions_total{{result=\"{result}\"}} ");
    let page = server.get("/metrics").text().to_owned();
    page.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or_else(|| panic!("no {line}"))
}

#[test]
fn limits_of_users_and_tenants_hold_for_two_nodes_together() {
    let redis = Redis::start();
    let [a, b] = pair(&redis, &[]);
    let first = connect(&a, "acme", "ana").expect("room");
    let mut there = connect(&b, "acme", "ana").expect("room");
    for server in [&a, &b] {
        is_refused(server, "acme", "ana", "User ana connection limit exceeded (2/2)");
    }
    // The same name in another tenant is somebody else.
    let _other = connect(&a, "bolt", "ana").expect("room");
    let _more = [connect(&a, "acme", "ben").expect("room"), connect(&b, "acme", "carol").expect("room")];
    for server in [&a, &b] {
        is_refused(server, "acme", "dora", "Tenant acme connection limit exceeded (4/4)");
    }
    assert!(admissions(&a, "refused") + admissions(&b, "refused") >= 8);
    assert_eq!((admissions(&a, "alone"), admissions(&b, "alone")), (0, 0));
    // Who was refused is known nowhere.
    let page = call(a.port, "GET", "/api/v1/cluster/users/dora", &[("X-Tenant-ID", "acme")], None).ok();
    assert_eq!(page["found"], false, "{page}");
    // Closing gives the place back, to whoever asks first.
    drop(first);
    let _next = await_that("room for one more", || connect(&b, "acme", "ana").ok());
    assert_eq!(there.close(1000), Some(1000));
    let _last = await_that("room for one more", || connect(&a, "acme", "dora").ok());
}

#[test]
fn nodes_that_admit_at_once_do_not_exceed_a_limit() {
    let redis = Redis::start();
    let servers = pair(&redis, &[]);
    for round in 0..5 {
        let user = format!("ana-{round}");
        let connected: Vec<Ws> = thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|n| {
                    let (server, user) = (&servers[n % 2], &user);
                    scope.spawn(move || connect(server, &format!("t{round}"), user).ok())
                })
                .collect();
            clients.into_iter().filter_map(|client| client.join().expect("no panic")).collect()
        });
        assert_eq!(connected.len(), 2, "round {round}");
    }
}

/// A node that was killed keeps the places of its clients until their time to live is over, and no longer.
#[test]
fn what_a_killed_node_held_is_free_after_the_time_to_live() {
    let redis = Redis::start();
    let short = [("WEBSOCKET_HEARTBEAT_INTERVAL", "1"), ("CLUSTER_SESSION_TTL_SECONDS", "6")];
    let [a, b] = pair(&redis, &short);
    let held: Vec<Ws> = ["ana", "ana", "ben"].map(|user| connect(&a, "acme", user).expect("room")).into();
    let mut carol = connect(&b, "acme", "carol").expect("room");
    a.process.signal(Signal::KILL);
    drop(held);
    is_refused(&b, "acme", "ana", "User ana connection limit exceeded (2/2)");
    let _back = await_that("room for who comes back", || connect(&b, "acme", "ana").ok());
    let _back = await_that("room for who comes back", || connect(&b, "acme", "ben").ok());
    // Those of a node that lives are kept beyond it.
    carol.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
    let _more = await_that("room for one more of the tenant", || connect(&b, "acme", "carol").ok());
    is_refused(&b, "acme", "carol", "User carol connection limit exceeded (2/2)");
}

#[test]
fn without_redis_each_node_counts_for_itself_and_afterwards_all_are_known() {
    let mut redis = Redis::start();
    let [a, b] = pair(&redis, &[("WEBSOCKET_HEARTBEAT_INTERVAL", "1")]);
    let here = [connect(&a, "acme", "ana").expect("room"), connect(&a, "acme", "ana").expect("room")];
    redis.kill();
    await_that("the loss to be noticed", || (b.get("/health/ready").status == 503).then_some(()));
    let _there = [connect(&b, "acme", "ana").expect("room"), connect(&b, "acme", "ana").expect("room")];
    is_refused(&b, "acme", "ana", "User ana connection limit exceeded (2/2)");
    assert_eq!(admissions(&b, "alone"), 2);
    let said = b.process.output();
    assert_eq!(said.matches("this node admits by its own counts").count(), 1, "{said}");
    redis.restart();
    await_ready(&a);
    await_ready(&b);
    // It came back with nothing, and is told of everybody.
    await_that("the connections to be told again", || {
        (redis.cli(&["ZCARD", "ara:cluster:sessions:admitted:{acme}:ana"]).trim() == "4").then_some(())
    });
    drop(here);
    await_that("those who left to be forgotten", || {
        (redis.cli(&["ZCARD", "ara:cluster:sessions:admitted:{acme}:ana"]).trim() == "2").then_some(())
    });
    is_refused(&a, "acme", "ana", "User ana connection limit exceeded (2/2)");
}
