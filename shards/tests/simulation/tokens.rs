//! Who may listen to what, for how long, and how that ends.
use crate::client::ClientId;
use crate::world::World;
use protocol::auth::token::MintClaims;

const SUBSCRIBE: &str = r#"{"type":"Subscribe","payload":{"channels":["orders","news.eu","news","a b"]}}"#;

/// Ana, who may listen to these channels.
fn ana(channels: &[&str]) -> MintClaims {
    let channels = Some(channels.iter().map(|name| (*name).to_owned()).collect());
    MintClaims { sub: "ana".into(), channels, ..MintClaims::default() }
}

fn refresh(world: &mut World, client: ClientId, claims: MintClaims) {
    let token = world.sign(claims);
    world.clients[client].say(&format!(r#"{{"type":"Refresh","payload":{{"token":"{token}"}}}}"#));
    world.settle();
}

/// What a client heard since it was last asked, heartbeats aside.
fn news(world: &mut World, client: ClientId) -> Vec<String> {
    let mut messages = world.clients[client].messages();
    messages.retain(|text| !text.contains("heartbeat"));
    let head = world.clients[client].from_server.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    world.clients[client].from_server.truncate(head);
    messages
}

/// Lets time pass until this moment is less than a second ahead.
fn pass_until_just_before(world: &mut World, unix_s: u64) {
    while world.now().unix_ms() + 900 < unix_s * 1_000 {
        world.pass_ms(if world.now().unix_seconds() + 60 < unix_s { 10_000 } else { 100 });
    }
    assert!(world.now().unix_seconds() < unix_s, "seed {}: too far", world.seed);
}

/// What is published to a channel reaches so many.
fn reached(world: &mut World, channel: &str) -> String {
    let backend = world.dial();
    let body = format!(r#"{{"channel":"{channel}","event_type":"e","payload":1}}"#);
    world.post(backend, "/api/v1/notifications/channel", &body);
    world.settle();
    let text = world.clients[backend].text();
    let (_, rest) = text.split_once(r#""delivered_to":"#).unwrap_or_else(|| panic!("{text}"));
    rest.chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_token_says_what_may_be_subscribed_to() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2);
        let token = world.sign(ana(&["orders", "news.*"]));
        let client = world.websocket_as(&token);
        world.settle();
        world.clients[client].say(SUBSCRIBE);
        world.settle();
        let words = [
            r#"{"type":"subscribed","payload":["orders","news.eu"]}"#,
            r#"{"type":"error","code":"SUBSCRIPTION_ERROR","message":"Channel not permitted: news; Invalid channel name: a b"}"#,
        ];
        assert_eq!(news(&mut world, client), words, "seed {seed}");
        assert_eq!((reached(&mut world, "orders"), reached(&mut world, "news")), ("1".into(), "0".into()));
        let token = world.sign(ana(&[]));
        let nobody = world.websocket_as(&token);
        world.settle();
        world.clients[nobody].say(r#"{"type":"Subscribe","payload":{"channels":["orders"]}}"#);
        world.settle();
        let words = r#"{"type":"error","code":"SUBSCRIPTION_ERROR","message":"Channel not permitted: orders"}"#;
        assert_eq!(news(&mut world, nobody), [words], "seed {seed}");
    }
}

#[test]
fn a_stream_to_a_channel_that_is_not_permitted_is_refused_as_a_whole() {
    let mut world = World::new(1, 2);
    let token = world.sign(ana(&["orders", "news.*"]));
    let (refused, taken) = (world.sse_as(&token, "orders,news"), world.sse_as(&token, "orders,news.eu"));
    world.settle();
    let text = world.clients[refused].text();
    assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{text}");
    let body = r#"{"error":{"code":"CHANNEL_FORBIDDEN","message":"Channel not permitted: news"}}"#;
    assert!(text.ends_with(body), "{text}");
    assert!(world.clients[taken].text().contains("event: connected"));
}

#[test]
fn a_new_token_carries_a_connection_on() {
    for seed in 0..2 {
        let mut world = World::with_config(seed, 2, |config| config.connection_timeout_ms = 40_000_000);
        let client = world.websocket("ana");
        world.settle();
        world.clients[client].say(r#"{"type":"Subscribe","payload":{"channels":["orders","news.eu","x"]}}"#);
        world.settle();
        world.pass_ms(1_800_000);
        news(&mut world, client);
        let exp = world.now().unix_seconds() + 3_600;
        refresh(&mut world, client, MintClaims { exp, jti: Some("second".into()), ..ana(&["x"]) });
        let heard = news(&mut world, client);
        assert_eq!(heard[0], format!(r#"{{"type":"refreshed","expires_at":{exp}}}"#), "seed {seed}");
        assert!(
            heard[1] == r#"{"type":"unsubscribed","payload":["orders","news.eu"]}"#
                || heard[1] == r#"{"type":"unsubscribed","payload":["news.eu","orders"]}"#,
            "seed {seed}: {heard:?}"
        );
        assert_eq!((reached(&mut world, "orders"), reached(&mut world, "x")), ("0".into(), "1".into()));
        // Beyond the end of the first one, up to the end of the second.
        pass_until_just_before(&mut world, exp);
        assert!(world.clients[client].place.is_some(), "seed {seed}");
        world.pass_ms(1_000);
        assert_eq!(world.clients[client].close_code(), Some(4001), "seed {seed}");
        assert_eq!(world.metrics.sum(|shard| shard.token_expired.get()), 1);
    }
}

#[test]
fn a_token_that_does_not_hold_changes_nothing() {
    let mut world = World::with_config(3, 2, |config| config.connection_timeout_ms = 40_000_000);
    let client = world.websocket("ana");
    world.settle();
    world.clients[client].say(r#"{"type":"Subscribe","payload":{"channels":["orders"]}}"#);
    world.settle();
    news(&mut world, client);
    let past = world.now().unix_seconds() - 120;
    let invalid = r#"{"type":"error","code":"INVALID_TOKEN","message":"Invalid token"}"#;
    let other = r#"{"type":"error","code":"INVALID_TOKEN","message":"Token is of another user"}"#;
    refresh(&mut world, client, MintClaims { exp: past, ..ana(&[]) });
    refresh(&mut world, client, MintClaims { sub: "bo".into(), ..MintClaims::default() });
    refresh(&mut world, client, ana(&["*"]));
    world.clients[client].say(&format!(r#"{{"type":"Refresh","payload":{{"token":"{}"}}}}"#, "x".repeat(9_000)));
    world.settle();
    assert_eq!(news(&mut world, client), [invalid, other, invalid, invalid]);
    assert_eq!(reached(&mut world, "orders"), "1");
    world.pass_ms(3_601_000);
    assert_eq!(world.clients[client].close_code(), Some(4001));
}

#[test]
fn a_token_of_another_tenant_is_of_another_user() {
    let mut world = World::with_config(3, 2, |config| config.tenancy = true);
    let token = |world: &World, tenant: &str| {
        world.sign(MintClaims { sub: "ana".into(), tenant_id: Some(tenant.into()), ..MintClaims::default() })
    };
    let first = token(&world, "acme");
    let client = world.websocket_as(&first);
    world.settle();
    for (tenant, words) in [("other", "Token is of another user"), ("acme", "refreshed")] {
        let next = token(&world, tenant);
        world.clients[client].say(&format!(r#"{{"type":"Refresh","payload":{{"token":"{next}"}}}}"#));
        world.settle();
        let heard = news(&mut world, client);
        assert!(heard.len() == 1 && heard[0].contains(words), "{heard:?}");
    }
}

#[test]
fn a_stream_says_that_its_token_ended() {
    let mut world = World::new(2, 2);
    let (exp, client) = (world.now().unix_seconds() + 3_600, world.sse("ana", ""));
    world.settle();
    pass_until_just_before(&mut world, exp);
    assert!(!world.clients[client].ended);
    world.pass_ms(1_000);
    let text = world.clients[client].text();
    let last = "event: error\ndata: {\"code\":\"TOKEN_EXPIRED\",\"message\":\"Token has expired\"}\n\n\r\n0\r\n\r\n";
    assert!(text.ends_with(last), "{}", &text[text.len() - 200..]);
    assert!(world.clients[client].ended);
}

#[test]
fn a_token_ends_by_the_wall_clock_even_if_somebody_sets_it() {
    // A heartbeat a day: nothing else makes the shard look.
    let mut world = World::with_config(3, 1, |config| {
        (config.heartbeat_interval_ms, config.connection_timeout_ms) = (86_400_000, 86_500_000);
    });
    let client = world.websocket("ana");
    world.settle();
    world.pass_ms(1_000);
    world.wall_ahead_s = 3_500;
    world.pass_ms(31_000);
    assert!(world.clients[client].place.is_some(), "68 seconds are left");
    world.wall_ahead_s = 0;
    world.pass_ms(3_000_000);
    assert!(world.clients[client].place.is_some(), "set back again");
    world.wall_ahead_s = 3_500;
    world.pass_ms(30_500);
    assert_eq!(world.clients[client].close_code(), Some(4001));
}

#[test]
fn a_token_accepted_within_the_leeway_ends_with_it() {
    let mut world = World::new(3, 2);
    let exp = world.now().unix_seconds() - 58;
    let token = world.sign(MintClaims { sub: "ana".into(), exp, ..MintClaims::default() });
    let client = world.websocket_as(&token);
    world.settle();
    world.pass_ms(900);
    assert!(world.clients[client].place.is_some());
    world.pass_ms(1_200);
    assert_eq!(world.clients[client].close_code(), Some(4001));
}

// --- How it ends at once -----------------------------------------------------------------------------------------------

/// The answer to a POST: its status line and its body.
fn post(world: &mut World, path: &str, body: &str) -> (String, String) {
    let backend = world.dial();
    world.post(backend, path, body);
    world.settle();
    let text = world.clients[backend].text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("seed {}: {text}", world.seed));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn revoke(world: &mut World, body: &str) -> String {
    let (status, answer) = post(world, "/api/v1/tokens/revoke", body);
    assert_eq!(status, "HTTP/1.1 200 OK", "seed {}: {answer}", world.seed);
    answer
}

fn named(sub: &str, jti: &str) -> MintClaims {
    MintClaims { sub: sub.into(), jti: Some(jti.into()), ..MintClaims::default() }
}

#[test]
fn a_user_is_disconnected_everywhere_on_the_node_and_may_come_back() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3);
        let (first, second, bo) = (world.websocket("ana"), world.sse("ana", "a"), world.websocket("bo"));
        world.settle();
        let (status, body) = post(&mut world, "/api/v1/users/ana/disconnect", "");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert_eq!(body, r#"{"user_id":"ana","disconnected":2}"#, "seed {seed}");
        assert_eq!(world.clients[first].close_code(), Some(1000));
        let last = "event: error\ndata: {\"code\":\"DISCONNECTED\",\"message\":\"Disconnected by the server's API\"}\n\n\r\n0\r\n\r\n";
        assert!(world.clients[second].text().ends_with(last));
        assert!(world.clients[bo].place.is_some());
        let again = world.websocket("ana");
        world.settle();
        assert!(world.clients[again].place.is_some());
        let (_, body) = post(&mut world, "/api/v1/users/nobody/disconnect", "");
        assert_eq!(body, r#"{"user_id":"nobody","disconnected":0}"#);
        world.shards.iter().for_each(shards::shard::Shard::check);
    }
}

#[test]
fn a_revoked_token_ends_its_connections_and_opens_none() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3);
        let (one, other) = (world.sign(named("ana", "one")), world.sign(named("ana", "other")));
        let (first, second) = (world.websocket_as(&one), world.sse_as(&one, ""));
        let stays = world.websocket_as(&other);
        world.settle();
        let until = world.now().unix_seconds() + 600;
        let answer = revoke(&mut world, &format!(r#"{{"jti":"one","expires_at":{until}}}"#));
        let expected = format!(r#"{{"revoked":true,"expires_at":{},"disconnected":2}}"#, until + 61);
        assert_eq!(answer, expected, "seed {seed}");
        assert_eq!(world.clients[first].close_code(), Some(4002), "seed {seed}");
        assert!(
            world.clients[second].text().contains(r#"{"code":"TOKEN_REVOKED","message":"Token has been revoked"}"#)
        );
        assert!(world.clients[stays].place.is_some());
        let refused = world.websocket_as(&one);
        world.settle();
        let text = world.clients[refused].text();
        assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "seed {seed}: {text}");
        assert!(text.ends_with(r#"{"error":{"code":"UNAUTHORIZED","message":"Invalid token"}}"#), "{text}");
        // By the other way in, too, which is the connection's own.
        refresh(&mut world, stays, named("ana", "one"));
        let heard = news(&mut world, stays);
        assert!(heard[0].contains("INVALID_TOKEN"), "seed {seed}: {heard:?}");
        assert_eq!(world.metrics.sum(|shard| shard.token_refused.get()), 2);
        assert_eq!(world.metrics.sum(|shard| shard.revocations.get()), 1);
        // Who has gone on with another token is not hit by the end of the first.
        refresh(&mut world, stays, named("ana", "third"));
        revoke(&mut world, r#"{"jti":"other"}"#);
        assert!(world.clients[stays].place.is_some());
        assert!(revoke(&mut world, r#"{"jti":"third"}"#).contains(r#""disconnected":1"#), "seed {seed}");
        // The first has expired by now, and is forgotten.
        world.wall_ahead_s += 700;
        world.pass_ms(10_500);
        assert_eq!(world.metrics.sum(|shard| shard.revocations.get()), 2, "seed {seed}");
    }
}

#[test]
fn all_tokens_of_a_user_up_to_a_time_are_revoked_at_once() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2);
        let now_s = world.now().unix_seconds();
        let issued =
            |world: &World, iat: u64| world.sign(MintClaims { sub: "ana".into(), iat, ..MintClaims::default() });
        let (old, new) = (issued(&world, now_s - 100), issued(&world, now_s - 10));
        let (first, stays) = (world.websocket_as(&old), world.websocket_as(&new));
        world.settle();
        let answer = revoke(&mut world, &format!(r#"{{"user_id":"ana","before":{}}}"#, now_s - 50));
        assert!(answer.ends_with(r#""disconnected":1}"#), "seed {seed}: {answer}");
        assert_eq!(world.clients[first].close_code(), Some(4002));
        assert!(world.clients[stays].place.is_some());
        let answer = revoke(&mut world, r#"{"user_id":"ana"}"#);
        assert!(answer.ends_with(r#""disconnected":1}"#), "seed {seed}: {answer}");
        let refused = world.websocket_as(&new);
        world.settle();
        assert!(world.clients[refused].text().starts_with("HTTP/1.1 401"));
        // A token that is issued a second later is a good one.
        world.wall_ahead_s = 2;
        let again = world.websocket("ana");
        world.settle();
        assert!(world.clients[again].place.is_some(), "seed {seed}");
        let bo = world.websocket("bo");
        world.settle();
        assert!(world.clients[bo].place.is_some(), "seed {seed}");
    }
}

#[test]
fn nothing_slips_between_the_door_and_home() {
    let (mut refused, mut closed) = (0, 0);
    for seed in 0..200 {
        let mut world = World::new(seed, 4);
        let token = world.sign(named("ana", "one"));
        let clients: Vec<ClientId> = (0..4).map(|_| world.websocket_as(&token)).collect();
        let backend = world.dial();
        world.post(backend, "/api/v1/tokens/revoke", r#"{"jti":"one"}"#);
        world.run(seed as usize % 12);
        world.settle();
        for client in clients {
            let text = world.clients[client].text();
            if text.starts_with("HTTP/1.1 401") {
                refused += 1;
            } else {
                assert_eq!(world.clients[client].close_code(), Some(4002), "seed {seed}: {text}");
                closed += 1;
            }
        }
    }
    assert!(refused > 50 && closed > 50, "{refused} refused, {closed} closed: the seeds show both");
}

#[test]
fn what_waits_for_a_revoked_token_is_not_written() {
    let mut world = World::new(5, 2);
    let token = world.sign(named("ana", "one"));
    let client = world.websocket_as(&token);
    world.settle();
    world.clients[client].credit = Some(0);
    let body = r#"{"target_user_id":"ana","event_type":"e","payload":"secret"}"#;
    post(&mut world, "/api/v1/notifications/send", body);
    revoke(&mut world, r#"{"jti":"one"}"#);
    world.clients[client].credit = None;
    world.settle();
    assert!(!world.clients[client].text().contains("secret"));
    assert_eq!(world.clients[client].close_code(), Some(4002));
}

#[test]
fn at_the_bound_a_revocation_is_refused_and_said_to_be() {
    let mut world = World::new(5, 2);
    world.shards.iter_mut().for_each(|shard| shard.bound_revocations(20));
    let backend = world.dial();
    let until = world.now().unix_seconds() + 100;
    for n in 0..20 {
        world.post(backend, "/api/v1/tokens/revoke", &format!(r#"{{"jti":"{n}","expires_at":{until}}}"#));
    }
    world.settle();
    assert_eq!(world.metrics.sum(|shard| shard.revocations.get()), 20);
    let (status, body) = post(&mut world, "/api/v1/tokens/revoke", r#"{"jti":"one more"}"#);
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(body.contains(r#""code":"REVOCATIONS_FULL""#), "{body}");
    revoke(&mut world, r#"{"jti":"7"}"#);
    // Those whose tokens have expired make room.
    world.wall_ahead_s = 200;
    revoke(&mut world, r#"{"jti":"one more"}"#);
    assert_eq!(world.metrics.sum(|shard| shard.revocations.get()), 2);
}

#[test]
fn a_tenant_revokes_its_own_tokens_only() {
    let mut world = World::with_config(3, 2, |config| config.tenancy = true);
    let token =
        |world: &World, tenant: &str| world.sign(MintClaims { tenant_id: Some(tenant.into()), ..named("ana", "one") });
    let (acme, other) = (token(&world, "acme"), token(&world, "other"));
    let (hit, stays) = (world.websocket_as(&acme), world.websocket_as(&other));
    world.settle();
    let backend = world.dial();
    for (path, body) in [("tokens/revoke", r#"{"jti":"one"}"#), ("users/ana/disconnect", "")] {
        world.clients[backend].send(format!(
            "POST /api/v1/{path} HTTP/1.1\r\nhost: world\r\nx-tenant-id: acme\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ));
        world.settle();
    }
    assert_eq!(world.clients[backend].text().matches("HTTP/1.1 200 OK").count(), 2);
    assert_eq!(world.clients[hit].close_code(), Some(4002));
    assert!(world.clients[stays].place.is_some());
}
