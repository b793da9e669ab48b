//! Three nodes, the guide's nginx before two of them, and a crowd: each publish reaches everybody it is for, wherever they
//! are and wherever it came in, once and in the order of its publisher.
use super::node;
use crate::seed::nginx;
use crate::support::crowd::{self, Listener, Target};
use crate::support::http::{Connection, call, request};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::ws::Ws;
use crate::support::{raise_file_limit, token};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const USERS: usize = 1_000;
const CHANNELS: usize = 30;
/// Three nodes and nginx; the last publisher is Redis itself.
const DOORS: usize = 4;
const PUBLISHERS: usize = DOORS + 1;
/// Publishes of each publisher.
const PUBLISHES: usize = 300;

fn channels_of(user: usize) -> [usize; 2] {
    [user % CHANNELS, (user + 7) % CHANNELS]
}

fn reaches(target: &Target, user: usize) -> bool {
    target.reaches(user, channels_of(user))
}

/// The kinds in turn; each publisher has users and channels of its own, as its order is promised for its own.
fn target_of(publisher: usize, n: usize, random: &mut fastrand::Rng) -> Target {
    let own = |random: &mut fastrand::Rng, all: usize| random.usize(..all / PUBLISHERS) * PUBLISHERS + publisher;
    if n % 100 == 50 {
        return Target::Broadcast;
    }
    match n % 4 {
        0 => Target::User(own(random, USERS)),
        1 => Target::Users((0..10).map(|_| own(random, USERS)).collect()),
        2 => Target::Channel(own(random, CHANNELS)),
        _ => Target::Channels((0..2).map(|_| own(random, CHANNELS)).collect()),
    }
}

/// Type and value, as batches and Redis messages name them.
fn named(target: &Target) -> (&'static str, Value) {
    let names = |prefix: char, several: &[usize]| several.iter().map(|one| format!("{prefix}{one}")).collect();
    match target {
        Target::User(user) => ("user", json!(format!("u{user}"))),
        Target::Users(users) => ("users", names('u', users)),
        Target::Broadcast => ("broadcast", Value::Null),
        Target::Channel(channel) => ("channel", json!(format!("c{channel}"))),
        Target::Channels(channels) => ("channels", names('c', channels)),
    }
}

/// The REST call; every seventh goes as a batch of one.
fn rest(target: &Target, payload: &Value, n: usize) -> Vec<u8> {
    let (kind, value) = named(target);
    let mut body = json!({"event_type": "e", "payload": payload});
    let route = if n % 7 == 3 {
        body["target"] = if value.is_null() { json!({"type": kind}) } else { json!({"type": kind, "value": value}) };
        body = json!({"notifications": [body]});
        "batch"
    } else {
        let (route, key) = match target {
            Target::User(_) => ("send", "target_user_id"),
            Target::Users(_) => ("send-to-users", "target_user_ids"),
            Target::Broadcast => ("broadcast", "audience"),
            Target::Channel(_) => ("channel", "channel"),
            Target::Channels(_) => ("channels", "channels"),
        };
        if !value.is_null() {
            body[key] = value;
        }
        route
    };
    request("POST", &format!("/api/v1/notifications/{route}"), &[], Some(body.to_string().as_bytes()))
}

/// Redis channel and message, each kind where the guide publishes it.
fn redis_message(target: &Target, payload: &Value) -> (String, String) {
    let (kind, value) = named(target);
    let channel = match target {
        Target::User(user) => format!("notification:user:u{user}"),
        Target::Channel(channel) => format!("notification:channel:c{channel}"),
        Target::Users(_) | Target::Broadcast | Target::Channels(_) => "notification:broadcast".to_owned(),
    };
    let event = json!({"event_type": "e", "payload": payload});
    (channel, json!({"type": kind, "target": value, "event": event}).to_string())
}

/// A user with the two channels; every fifth listens by SSE.
fn listen(user: usize, connection: Connection) -> Listener {
    let token = token::of(&format!("u{user}"));
    let [first, second] = channels_of(user).map(|channel| format!("c{channel}"));
    if user.is_multiple_of(5) {
        let path = format!("/sse?channels={first},{second}&token={token}");
        let head = format!("GET {path} HTTP/1.1\r\nHost: ara.test\r\nAccept: text/event-stream\r\n\r\n");
        Listener::Stream(Box::new(Sse::open_over(connection, &head)))
    } else {
        let mut ws = Ws::open_over(connection, &format!("/ws?token={token}"), &[]).expect("a good token");
        ws.subscribe(&[&first, &second]);
        Listener::Ws(Box::new(ws))
    }
}

/// Publisher and number of the next notification.
fn hear(listener: &mut Listener) -> (usize, usize) {
    let heard = listener.payload();
    let number = |at: usize| heard[at].as_u64().unwrap_or_else(|| panic!("no pair of numbers: {heard}")) as usize;
    (number(0), number(1))
}

/// The name a node gives itself at this port.
fn server_id(port: u16) -> String {
    let status = call(port, "GET", "/api/v1/cluster/status", &[], None).ok();
    status["server_id"].as_str().unwrap_or_else(|| panic!("no server_id in {status}")).to_owned()
}

/// The node that has this user, as every node knows it from Redis.
fn home_of(user: usize, asked: &Server) -> String {
    await_that("the user's session to be known", || {
        let page = asked.get(&format!("/api/v1/cluster/users/u{user}")).ok();
        assert_eq!(page["user_id"], format!("u{user}"), "{page}");
        let [session] = page["sessions"].as_array()?.as_slice() else { return None };
        let mut channels: Vec<&str> = session["channels"].as_array()?.iter().filter_map(Value::as_str).collect();
        let mut expected = channels_of(user).map(|channel| format!("c{channel}"));
        channels.sort_unstable();
        expected.sort_unstable();
        (channels == expected).then(|| session["server_id"].as_str().expect("a server id").to_owned())
    })
}

#[test]
fn every_publish_reaches_a_crowd_on_three_nodes_once_and_in_order() {
    raise_file_limit();
    let redis = Redis::start();
    let names = ["a", "b", "c"];
    let nodes = names.map(|name| node(&redis, name));
    let (_nginx, front, _folder) = nginx(&nodes[0], &nodes[1]);
    let doors = [nodes[0].port, nodes[1].port, nodes[2].port, front.number];

    // A quarter comes through nginx, from addresses that it tells apart, the others straight to each node.
    let mut listeners: Vec<Listener> = (0..USERS)
        .map(|user| {
            let address = Ipv4Addr::new(127, 0, (user / DOORS % 250) as u8, 1);
            listen(user, Connection::open_from(address, doors[user % DOORS]))
        })
        .collect();
    let homes: Vec<String> = (0..USERS).map(|user| home_of(user, &nodes[user % names.len()])).collect();
    for (user, home) in homes.iter().enumerate() {
        match names.get(user % DOORS) {
            Some(name) => assert_eq!(home, name, "user {user}"),
            None => assert!(home == "a" || home == "b", "user {user} came through nginx to {home}"),
        }
    }
    for name in ["a", "b"] {
        assert!((3..USERS).step_by(DOORS).any(|user| homes[user] == name), "nginx sent nobody to {name}");
    }

    let mut random = fastrand::Rng::with_seed(11);
    let plan: Vec<Vec<Target>> = (0..PUBLISHERS)
        .map(|publisher| (0..PUBLISHES).map(|n| target_of(publisher, n, &mut random)).collect())
        .collect();
    let line = |publisher: usize, n: usize| match publisher {
        // Nobody is answered by Redis: what it publishes has an order by whom it is for.
        DOORS => (publisher, plan[publisher][n].line()),
        // Who waits for answers has one order, whatever it publishes.
        _ => (publisher, "answered".to_owned()),
    };
    let expected = crowd::expected(USERS, &plan, reaches, line);
    // Several channels at once by Redis have no common line to be ordered by.
    let unordered = (DOORS, "channels".to_owned());

    std::thread::scope(|scope| {
        for (publisher, port) in doors.into_iter().enumerate() {
            let (targets, homes) = (&plan[publisher], &homes);
            scope.spawn(move || {
                let name = server_id(port);
                for (n, target) in targets.iter().enumerate() {
                    // The guide's nginx closes a connection to an upstream after each answer; a client may do so as well.
                    let mut connection = Connection::open(port);
                    connection.send(rest(target, &json!([publisher, n]), n));
                    let receipt = connection.read().ok();
                    let is_batch = receipt["results"].is_array();
                    let receipt = if is_batch { &receipt["results"][0] } else { &receipt };
                    let reached: Vec<_> = (0..USERS).filter(|user| reaches(target, *user)).collect();
                    let here = reached.iter().filter(|user| homes[**user] == name).count();
                    let told = (&receipt["delivered_to"], &receipt["failed"]);
                    assert_eq!(told, (&json!(reached.len()), &json!(0)), "{publisher}/{n} {target:?}: {receipt}");
                    // The rows of a batch have the cluster's count alone.
                    if !is_batch {
                        assert_eq!(receipt["delivered_local"], here, "{publisher}/{n} {target:?}: {receipt}");
                    }
                }
            });
        }
        let (redis, targets) = (&redis, &plan[DOORS]);
        scope.spawn(move || {
            let mut client = redis.client();
            for (n, target) in targets.iter().enumerate() {
                let (channel, message) = redis_message(target, &json!([DOORS, n]));
                assert_eq!(
                    client.call(&[b"PUBLISH", channel.as_bytes(), message.as_bytes()]),
                    "3",
                    "every node listens"
                );
            }
        });
        crowd::hear_all(scope, &mut listeners, &expected, hear, &line, &unordered);
    });

    // Everybody has heard all that is theirs; one more for everybody shows that nothing came twice.
    let receipt = nodes[2].publish("broadcast", r#"{"event_type":"e","payload":[9,9]}"#);
    assert_eq!(receipt["delivered_to"], USERS, "{receipt}");
    for (user, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(hear(listener), (9, 9), "user {user} heard something twice");
    }
}
