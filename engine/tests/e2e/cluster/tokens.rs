//! Users are disconnected and tokens revoked on every node, on those that start later, and on those that could not hear of
//! it; and a node that cannot tell the others says so.
use super::{await_ready, node};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::token;
use crate::support::ws::Ws;
use rustix::process::Signal;
use serde_json::json;

/// A token for ana that can be revoked by this name.
fn named(id: &str) -> String {
    token::sign(&json!({"sub": "ana", "exp": token::now() + 3600, "iat": token::now() - 10, "jti": id}))
}

fn connect(server: &Server, id: &str) -> Ws {
    Ws::connect(server.port, &named(id))
}

/// Whether this token opens no door here, or one that is shut again: a node may have just begun to read what is revoked.
fn await_refusal(server: &Server, id: &str) {
    await_that("the token to be refused", || match Ws::open(server.port, &format!("/ws?token={}", named(id)), &[]) {
        Err((status, _)) => (status == 401).then_some(()),
        Ok(mut ws) => {
            assert_eq!(ws.await_close(), Some(4002));
            None
        }
    });
}

#[test]
fn a_user_is_disconnected_everywhere() {
    let redis = Redis::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    let (mut here, mut there) = (a.ws("ana"), b.ws("ana"));
    let mut bo = b.ws("bo");
    let answer = a.call("POST", "/api/v1/users/ana/disconnect", None).ok();
    assert_eq!(answer, json!({"user_id": "ana", "disconnected": 2, "disconnected_local": 1}));
    assert_eq!((here.await_close(), there.await_close()), (Some(1000), Some(1000)));
    b.nothing_waits("bo", &mut bo);
    let answer = b.call("POST", "/api/v1/users/ana/disconnect", None).ok();
    assert_eq!(answer, json!({"user_id": "ana", "disconnected": 0, "disconnected_local": 0}));
}

#[test]
fn a_token_is_revoked_on_every_node_and_on_one_that_starts_later() {
    let redis = Redis::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    let (mut here, mut there, mut stays) = (connect(&a, "one"), connect(&b, "one"), connect(&b, "two"));
    let answer = a.post("/api/v1/tokens/revoke", r#"{"jti":"one"}"#).ok();
    assert_eq!((&answer["disconnected"], &answer["disconnected_local"]), (&json!(2), &json!(1)), "{answer}");
    assert_eq!((here.await_close(), there.await_close()), (Some(4002), Some(4002)));
    // Whoever asked has been told that every node holds it.
    for server in [&a, &b] {
        let refused = Ws::open(server.port, &format!("/ws?token={}", named("one")), &[]).err();
        assert_eq!(refused.map(|(status, _)| status), Some(401));
    }
    assert!(redis.cli(&["TTL", "ara:cluster:sessions:revoked"]).trim().parse::<u64>().is_ok_and(|ttl| ttl > 86_400));
    let c = node(&redis, "c");
    await_refusal(&c, "one");
    let answer = c.post("/api/v1/tokens/revoke", r#"{"user_id":"ana"}"#).ok();
    assert_eq!((&answer["disconnected"], &answer["disconnected_local"]), (&json!(1), &json!(0)), "{answer}");
    assert_eq!(stays.await_close(), Some(4002));
}

#[test]
fn what_a_node_could_not_tell_or_hear_is_made_up_for_when_redis_is_back() {
    let mut redis = Redis::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    a.post("/api/v1/tokens/revoke", r#"{"jti":"zero"}"#).ok();
    let (mut here, mut there) = (connect(&a, "one"), connect(&b, "one"));
    redis.kill();
    await_that("the loss to be noticed", || (a.get("/health/ready").status == 503).then_some(()));
    let answer = a.post("/api/v1/tokens/revoke", r#"{"jti":"one"}"#);
    answer.refusal(503, "CLUSTER_ERROR");
    assert_eq!(here.await_close(), Some(4002), "done as far as it could be");
    b.nothing_waits("ana", &mut there);
    // It comes back with nothing: whoever is left writes again what was revoked.
    redis.restart();
    assert_eq!(there.await_close(), Some(4002));
    await_ready(&a);
    await_that("both to be kept again", || {
        (redis.cli(&["ZCARD", "ara:cluster:sessions:revoked"]).trim() == "2").then_some(())
    });
    let c = node(&redis, "c");
    await_refusal(&c, "zero");
    await_refusal(&c, "one");
    a.post("/api/v1/tokens/revoke", r#"{"jti":"one"}"#).ok();
}

#[test]
fn a_node_that_stands_still_is_told_of_and_does_its_part_when_it_goes_on() {
    let redis = Redis::start();
    let (a, b) = (node(&redis, "a"), node(&redis, "b"));
    let mut there = connect(&b, "one");
    b.process.signal(Signal::STOP);
    let answer = a.post("/api/v1/tokens/revoke", r#"{"jti":"one"}"#).ok();
    assert_eq!((&answer["disconnected"], &answer["unconfirmed"]), (&json!(0), &json!(1)), "{answer}");
    b.process.signal(Signal::CONT);
    assert_eq!(there.await_close(), Some(4002));
}
