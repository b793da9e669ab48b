//! What the engine is for: ten thousand notifications by REST and by Redis to a thousand users and a hundred channels,
//! each delivered to everybody it is for, once, in the order of its line.
use crate::support::crowd::{self, Listener, Target};
use crate::support::http::{Connection, request};
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::{raise_file_limit, token};

const USERS: usize = 1_000;
/// The last of them listen by SSE.
const STREAMS: usize = 50;
const CHANNELS: usize = 100;
const PUBLISHES: usize = 10_000;
/// Every publisher has targets of its own, so that its own order is the order of each line it writes to.
const REST_PUBLISHERS: usize = 3;
const PUBLISHERS: usize = REST_PUBLISHERS + 1;

/// The two channels of a user.
fn channels_of(user: usize) -> [usize; 2] {
    [user % CHANNELS, (user * 7 + 1) % CHANNELS]
}

fn reaches(target: &Target, user: usize) -> bool {
    target.reaches(user, channels_of(user))
}

/// The publish number `n` of `publisher`: 50 % user, 15 % users, 25 % channel, 9 % channels, 1 in 500 a broadcast.
fn target_of(publisher: usize, n: usize, random: &mut fastrand::Rng) -> Target {
    let own = |random: &mut fastrand::Rng, all: usize| random.usize(..all / PUBLISHERS) * PUBLISHERS + publisher;
    if n % 500 == 499 {
        return Target::Broadcast;
    }
    match random.usize(..100) {
        0..50 => Target::User(own(random, USERS)),
        50..65 => Target::Users((0..5).map(|_| own(random, USERS)).collect()),
        65..91 => Target::Channel(own(random, CHANNELS)),
        _ => Target::Channels((0..3).map(|_| own(random, CHANNELS)).collect()),
    }
}

fn names(prefix: char, indexes: &[usize]) -> String {
    let names: Vec<_> = indexes.iter().map(|index| format!("\"{prefix}{index}\"")).collect();
    names.join(",")
}

/// Route and body of the REST call; every tenth goes as a batch of one.
fn rest(target: &Target, publisher: usize, n: usize) -> Vec<u8> {
    let content = format!(r#""event_type":"e","payload":{{"publisher":{publisher},"n":{n}}}"#);
    let (route, body) = if n % 10 == 3 {
        let target = match target {
            Target::User(user) => format!(r#"{{"type":"user","value":"u{user}"}}"#),
            Target::Users(users) => format!(r#"{{"type":"users","value":[{}]}}"#, names('u', users)),
            Target::Broadcast => r#"{"type":"broadcast"}"#.to_owned(),
            Target::Channel(channel) => format!(r#"{{"type":"channel","value":"c{channel}"}}"#),
            Target::Channels(several) => {
                format!(r#"{{"type":"channels","value":[{}]}}"#, names('c', several))
            }
        };
        ("batch", format!(r#"{{"notifications":[{{"target":{target},{content}}}]}}"#))
    } else {
        match target {
            Target::User(user) => ("send", format!(r#"{{"target_user_id":"u{user}",{content}}}"#)),
            Target::Users(users) => {
                ("send-to-users", format!(r#"{{"target_user_ids":[{}],{content}}}"#, names('u', users)))
            }
            Target::Broadcast => ("broadcast", format!("{{{content}}}")),
            Target::Channel(channel) => ("channel", format!(r#"{{"channel":"c{channel}",{content}}}"#)),
            Target::Channels(several) => ("channels", format!(r#"{{"channels":[{}],{content}}}"#, names('c', several))),
        }
    };
    request("POST", &format!("/api/v1/notifications/{route}"), &[], Some(body.as_bytes()))
}

/// The Redis message.
fn redis_message(target: &Target, publisher: usize, n: usize) -> String {
    let target = match target {
        Target::User(user) => format!(r#""type":"user","target":"u{user}""#),
        Target::Users(users) => format!(r#""type":"users","target":[{}]"#, names('u', users)),
        Target::Broadcast => r#""type":"broadcast""#.to_owned(),
        Target::Channel(channel) => format!(r#""type":"channel","target":"c{channel}""#),
        Target::Channels(several) => format!(r#""type":"channels","target":[{}]"#, names('c', several)),
    };
    format!(r#"{{{target},"event":{{"event_type":"e","payload":{{"publisher":{publisher},"n":{n}}}}}}}"#)
}

/// Publisher and number of the next notification.
fn hear(listener: &mut Listener) -> (usize, usize) {
    let heard = listener.payload();
    let number = |key: &str| heard[key].as_u64().unwrap_or_else(|| panic!("{key} in {heard}")) as usize;
    (number("publisher"), number("n"))
}

/// Numbers of the plan, and the one after it that everybody hears last.
const LAST: (usize, usize) = (PUBLISHERS, 0);

fn ten_thousand_arrive_once_and_in_order(settings: &[(&str, &str)]) {
    raise_file_limit();
    let redis = Redis::start();
    let url = redis.url();
    let mut all = vec![("REDIS_URL", url.as_str()), ("SHARDS", "2")];
    all.extend_from_slice(settings);
    let server = Server::with(&all);
    redis.await_default_subscriptions();

    let mut listeners: Vec<Listener> = (0..USERS)
        .map(|user| {
            let name = format!("u{user}");
            let [first, second] = channels_of(user).map(|channel| format!("c{channel}"));
            if user >= USERS - STREAMS {
                let path = format!("/sse?channels={first},{second}&token={}", token::of(&name));
                Listener::Stream(Box::new(Sse::connect(server.port, &path)))
            } else {
                let mut ws = server.ws(&name);
                ws.subscribe(&[&first, &second]);
                Listener::Ws(Box::new(ws))
            }
        })
        .collect();

    let mut random = fastrand::Rng::with_seed(7);
    let plan: Vec<Vec<Target>> = (0..PUBLISHERS)
        .map(|publisher| (0..PUBLISHES / PUBLISHERS).map(|n| target_of(publisher, n, &mut random)).collect())
        .collect();
    let line = |publisher: usize, n: usize| (publisher, plan[publisher][n].line());
    let expected = crowd::expected(USERS, &plan, reaches, line);
    // Several channels at once by Redis have no common line to be ordered by.
    let unordered = (REST_PUBLISHERS, "channels".to_owned());

    std::thread::scope(|scope| {
        for (publisher, targets) in plan.iter().enumerate().take(REST_PUBLISHERS) {
            let server = &server;
            let expected = &expected;
            scope.spawn(move || {
                let mut connection = Connection::open(server.port);
                for (n, target) in targets.iter().enumerate() {
                    connection.send(rest(target, publisher, n));
                    let receipt = connection.read().ok();
                    let receipt = if receipt["results"].is_array() { &receipt["results"][0] } else { &receipt };
                    let reached = (0..expected.len()).filter(|user| reaches(target, *user)).count();
                    assert_eq!(receipt["delivered_to"], reached, "{publisher}/{n} {target:?}: {receipt}");
                    assert_eq!(receipt["failed"], 0, "{receipt}");
                }
            });
        }
        let redis = &redis;
        let targets = &plan[REST_PUBLISHERS];
        scope.spawn(move || {
            let mut client = redis.client();
            for (n, target) in targets.iter().enumerate() {
                client.send(&[
                    b"PUBLISH",
                    b"notification:broadcast",
                    redis_message(target, REST_PUBLISHERS, n).as_bytes(),
                ]);
            }
            for _ in targets {
                assert_eq!(client.reply(), "1");
            }
        });
        crowd::hear_all(scope, &mut listeners, &expected, hear, &line, &unordered);
    });

    // Everybody has heard all that is theirs; one more for everybody shows that nothing came twice.
    let body = format!(r#"{{"event_type":"e","payload":{{"publisher":{},"n":{}}}}}"#, LAST.0, LAST.1);
    assert_eq!(server.publish("broadcast", &body)["delivered_to"], USERS);
    for (user, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(hear(listener), LAST, "user {user} heard something twice");
    }
    let stats = server.get("/stats").ok();
    assert_eq!(stats["notifications"]["total_sent"], PUBLISHES + 1, "{stats}");
    let deliveries: usize = expected.iter().flat_map(|heard| heard.values()).map(Vec::len).sum();
    assert_eq!(stats["notifications"]["total_delivered"], deliveries + USERS, "{stats}");
    assert_eq!(stats["notifications"]["total_failed"], 0, "{stats}");
}

#[test]
fn ten_thousand_arrive_on_the_default_driver() {
    ten_thousand_arrive_once_and_in_order(&[]);
}

#[test]
fn ten_thousand_arrive_with_more_shards_than_cores() {
    ten_thousand_arrive_once_and_in_order(&[("SHARDS", "8")]);
}

#[test]
fn ten_thousand_arrive_on_epoll() {
    ten_thousand_arrive_once_and_in_order(&[("MONOIO_FORCE_LEGACY_DRIVER", "1")]);
}
