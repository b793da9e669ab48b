//! What the engine is for: ten thousand notifications by REST and by Redis to a thousand users and a hundred channels,
//! each delivered to everybody it is for, once, in the order of its line.
use crate::support::http::{Connection, request};
use crate::support::redis::Redis;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::ws::Ws;
use crate::support::{raise_file_limit, token};
use serde_json::Value;
use std::collections::BTreeMap;

const USERS: usize = 1_000;
/// The last of them listen by SSE.
const STREAMS: usize = 50;
const CHANNELS: usize = 100;
const PUBLISHES: usize = 10_000;
/// Every publisher has targets of its own, so that its own order is the order of each line it writes to.
const REST_PUBLISHERS: usize = 3;
const PUBLISHERS: usize = REST_PUBLISHERS + 1;

/// Whom a publish is for. The indexes are of users or channels.
#[derive(Clone, Debug)]
enum Target {
    User(usize),
    Users(Vec<usize>),
    Broadcast,
    Channel(usize),
    Channels(Vec<usize>),
}

/// A line has an order: what one publisher says to one user, to one channel, to everybody. Several channels at once are
/// a line of their own.
type Line = (usize, String);

/// What a listener hears or should hear: numbers per line.
type Heard = BTreeMap<Line, Vec<usize>>;

/// The two channels of a user.
fn channels_of(user: usize) -> [usize; 2] {
    [user % CHANNELS, (user * 7 + 1) % CHANNELS]
}

impl Target {
    /// The publish number `n` of `publisher`: 50 % user, 15 % users, 25 % channel, 9 % channels, 1 in 500 a broadcast.
    fn of(publisher: usize, n: usize, random: &mut fastrand::Rng) -> Target {
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

    fn line(&self, user: usize) -> String {
        match self {
            Target::User(_) | Target::Users(_) => format!("user:u{user}"),
            Target::Broadcast => "broadcast".to_owned(),
            Target::Channel(channel) => format!("channel:c{channel}"),
            Target::Channels(_) => "channels".to_owned(),
        }
    }

    fn reaches(&self, user: usize) -> bool {
        match self {
            Target::User(one) => *one == user,
            Target::Users(several) => several.contains(&user),
            Target::Broadcast => true,
            Target::Channel(channel) => channels_of(user).contains(channel),
            Target::Channels(several) => channels_of(user).iter().any(|channel| several.contains(channel)),
        }
    }

    fn names(prefix: char, indexes: &[usize]) -> String {
        let names: Vec<_> = indexes.iter().map(|index| format!("\"{prefix}{index}\"")).collect();
        names.join(",")
    }

    /// Route and body of the REST call; every tenth goes as a batch of one.
    fn rest(&self, publisher: usize, n: usize) -> Vec<u8> {
        let content = format!(r#""event_type":"e","payload":{{"publisher":{publisher},"n":{n}}}"#);
        let (route, body) = if n % 10 == 3 {
            let target = match self {
                Target::User(user) => format!(r#"{{"type":"user","value":"u{user}"}}"#),
                Target::Users(users) => format!(r#"{{"type":"users","value":[{}]}}"#, Target::names('u', users)),
                Target::Broadcast => r#"{"type":"broadcast"}"#.to_owned(),
                Target::Channel(channel) => format!(r#"{{"type":"channel","value":"c{channel}"}}"#),
                Target::Channels(several) => {
                    format!(r#"{{"type":"channels","value":[{}]}}"#, Target::names('c', several))
                }
            };
            ("batch", format!(r#"{{"notifications":[{{"target":{target},{content}}}]}}"#))
        } else {
            match self {
                Target::User(user) => ("send", format!(r#"{{"target_user_id":"u{user}",{content}}}"#)),
                Target::Users(users) => {
                    ("send-to-users", format!(r#"{{"target_user_ids":[{}],{content}}}"#, Target::names('u', users)))
                }
                Target::Broadcast => ("broadcast", format!("{{{content}}}")),
                Target::Channel(channel) => ("channel", format!(r#"{{"channel":"c{channel}",{content}}}"#)),
                Target::Channels(several) => {
                    ("channels", format!(r#"{{"channels":[{}],{content}}}"#, Target::names('c', several)))
                }
            }
        };
        request("POST", &format!("/api/v1/notifications/{route}"), &[], Some(body.as_bytes()))
    }

    /// The Redis message.
    fn redis(&self, publisher: usize, n: usize) -> String {
        let target = match self {
            Target::User(user) => format!(r#""type":"user","target":"u{user}""#),
            Target::Users(users) => format!(r#""type":"users","target":[{}]"#, Target::names('u', users)),
            Target::Broadcast => r#""type":"broadcast""#.to_owned(),
            Target::Channel(channel) => format!(r#""type":"channel","target":"c{channel}""#),
            Target::Channels(several) => format!(r#""type":"channels","target":[{}]"#, Target::names('c', several)),
        };
        format!(r#"{{{target},"event":{{"event_type":"e","payload":{{"publisher":{publisher},"n":{n}}}}}}}"#)
    }
}

enum Listener {
    Ws(Box<Ws>),
    Stream(Box<Sse>),
}

impl Listener {
    /// Publisher and number of the next notification.
    fn hear(&mut self) -> (usize, usize) {
        let heard: Value = match self {
            Listener::Ws(ws) => ws.payload(),
            Listener::Stream(stream) => stream.notification()["payload"].take(),
        };
        let number = |key: &str| heard[key].as_u64().unwrap_or_else(|| panic!("{key} in {heard}")) as usize;
        (number("publisher"), number("n"))
    }
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
        .map(|publisher| (0..PUBLISHES / PUBLISHERS).map(|n| Target::of(publisher, n, &mut random)).collect())
        .collect();
    let mut expected: Vec<Heard> = vec![Heard::new(); USERS];
    for (publisher, targets) in plan.iter().enumerate() {
        for (n, target) in targets.iter().enumerate() {
            for (user, heard) in expected.iter_mut().enumerate().filter(|(user, _)| target.reaches(*user)) {
                heard.entry((publisher, target.line(user))).or_default().push(n);
            }
        }
    }

    std::thread::scope(|scope| {
        for (publisher, targets) in plan.iter().enumerate().take(REST_PUBLISHERS) {
            let server = &server;
            let expected = &expected;
            scope.spawn(move || {
                let mut connection = Connection::open(server.port);
                for (n, target) in targets.iter().enumerate() {
                    connection.send(target.rest(publisher, n));
                    let receipt = connection.read().ok();
                    let receipt = if receipt["results"].is_array() { &receipt["results"][0] } else { &receipt };
                    let reached = (0..expected.len()).filter(|user| target.reaches(*user)).count();
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
                client.send(&[b"PUBLISH", b"notification:broadcast", target.redis(REST_PUBLISHERS, n).as_bytes()]);
            }
            for _ in targets {
                assert_eq!(client.reply(), "1");
            }
        });
        // Four readers, one listener after the other: what waits meanwhile is far below what an outbox holds.
        let quarter = USERS / 4;
        for (part, (listeners, expected)) in listeners.chunks_mut(quarter).zip(expected.chunks(quarter)).enumerate() {
            let plan = &plan;
            scope.spawn(move || {
                for (index, (listener, expected)) in listeners.iter_mut().zip(expected).enumerate() {
                    let user = part * quarter + index;
                    let mut heard = Heard::new();
                    for _ in 0..expected.values().map(Vec::len).sum() {
                        let (publisher, n) = listener.hear();
                        heard.entry((publisher, plan[publisher][n].line(user))).or_default().push(n);
                    }
                    // Several channels at once by Redis have no common line to be ordered by.
                    if let Some(unordered) = heard.get_mut(&(REST_PUBLISHERS, "channels".to_owned())) {
                        unordered.sort_unstable();
                    }
                    assert_eq!(&heard, expected, "user {user}");
                }
            });
        }
    });

    // Everybody has heard all that is theirs; one more for everybody shows that nothing came twice.
    let body = format!(r#"{{"event_type":"e","payload":{{"publisher":{},"n":{}}}}}"#, LAST.0, LAST.1);
    assert_eq!(server.publish("broadcast", &body)["delivered_to"], USERS);
    for (user, listener) in listeners.iter_mut().enumerate() {
        assert_eq!(listener.hear(), LAST, "user {user} heard something twice");
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
