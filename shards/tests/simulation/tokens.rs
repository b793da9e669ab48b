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
    for seed in 0..5 {
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
