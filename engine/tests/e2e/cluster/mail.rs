//! Mail in Redis that all nodes share: kept once whoever hears of it, complete and in order for who moves between nodes.
use super::{delivered, node_at};
use crate::support::http::{Connection, request};
use crate::support::process::await_that;
use crate::support::redis::{Redis, Resp};
use crate::support::server::Server;
use crate::support::ws::Ws;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use tungstenite::Message;

/// How mail is kept: not at all, until it was written to a connection, or until it was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Off,
    Written,
    Acknowledged,
}

/// A node that keeps mail in the cluster's Redis, and these settings on top.
pub(super) fn mail_node(redis: &Redis, server_id: &str, class: Class, more: &[(&str, &str)]) -> Server {
    mail_node_at(&redis.url(), server_id, class, more)
}

/// The same at this `REDIS_URL`.
pub(super) fn mail_node_at(url: &str, server_id: &str, class: Class, more: &[(&str, &str)]) -> Server {
    let flag = |is_on| if is_on { "true" } else { "false" };
    let (keeps, acknowledges) = (flag(class != Class::Off), flag(class == Class::Acknowledged));
    let mut settings = vec![
        ("QUEUE_ENABLED", keeps),
        ("QUEUE_BACKEND", "redis"),
        ("QUEUE_MAX_SIZE_PER_USER", "10000"),
        ("ACK_ENABLED", acknowledges),
        ("ACK_BACKEND", "redis"),
        ("REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS", "1"),
    ];
    settings.extend(more);
    let server = node_at(url, server_id, &settings);
    await_that("the node to be healthy", || (server.get("/health").ok()["status"] == "healthy").then_some(()));
    server
}

/// What the guide's PHP publishes to this user, with a number for a payload.
pub(super) fn publish_number(client: &mut Resp, user: &str, n: u64) {
    let event = json!({"event_type": "e", "payload": n});
    let message = json!({"type": "user", "target": user, "event": event}).to_string();
    client.publish(&format!("notification:user:{user}"), message.as_bytes());
}

/// Waits until each node was heard of so often; a second passes from one to the next.
pub(super) fn await_hellos(redis: &Redis, nodes: usize, each: usize) {
    let mut listener = redis.client();
    listener.call(&[b"SUBSCRIBE", b"ara:cluster:route"]);
    let mut hellos = BTreeMap::new();
    while hellos.len() < nodes || hellos.values().any(|count| *count < each) {
        let heard = listener.reply();
        let Some(hello) = heard.find('{').and_then(|at| serde_json::from_str::<Value>(&heard[at..]).ok()) else {
            continue;
        };
        if hello["ara"]["kind"] == "hello" {
            *hellos.entry(hello["from_server"].to_string()).or_insert(0) += 1;
        }
    }
}

/// Everything one user heard.
#[derive(Debug, Default)]
pub(super) struct Ear {
    pub(super) heard: BTreeSet<u64>,
    /// How often something came that was heard before.
    pub(super) repeated: u64,
}

impl Ear {
    /// Takes a notification that this connection heard: `of_this` are the numbers it heard before.
    ///
    /// First receptions of a connection are in order; what it hears again says so.
    fn take(&mut self, of_this: &mut Vec<u64>, heard: &Value) {
        let n = heard["payload"].as_u64().unwrap_or_else(|| panic!("no number in {heard}"));
        self.repeated += u64::from(self.heard.contains(&n));
        let comes_again = heard["metadata"]["attempt"].as_u64().is_some_and(|attempt| attempt > 1);
        if of_this.contains(&n) {
            assert!(comes_again, "{n} came twice and did not say so: {heard}");
            return;
        }
        if !self.heard.contains(&n)
            && let Some(last) = of_this.last()
        {
            assert!(*last < n, "{n} came for the first time after {last}: {heard}");
        }
        of_this.push(n);
        self.heard.insert(n);
    }
}

/// A connection of a user, with the numbers it heard.
pub(super) struct Hearer {
    ws: Ws,
    class: Class,
    numbers: Vec<u64>,
}

impl Hearer {
    pub(super) fn connect(server: &Server, user: &str, class: Class) -> Hearer {
        Hearer { ws: server.ws(user), class, numbers: Vec::new() }
    }

    /// The next notification, acknowledged when that is asked for. The server's other words are passed over.
    pub(super) fn hear(&mut self, ear: &mut Ear) -> u64 {
        loop {
            let text = self.ws.hear();
            if let Some(n) = self.take(&text, ear) {
                return n;
            }
        }
    }

    fn take(&mut self, text: &str, ear: &mut Ear) -> Option<u64> {
        let n = self.understand(text, ear)?;
        if self.class == Class::Acknowledged {
            let id = serde_json::from_str::<Value>(text).expect("JSON")["id"].take();
            self.ws.say(&json!({"type": "Ack", "payload": {"notification_id": id}}).to_string());
        }
        Some(n)
    }

    fn understand(&mut self, text: &str, ear: &mut Ear) -> Option<u64> {
        let value: Value = serde_json::from_str(text).expect("JSON");
        match value["type"].as_str() {
            Some("notification") => {
                ear.take(&mut self.numbers, &value);
                value["payload"].as_u64()
            }
            // A user's two connections both acknowledge what both heard.
            Some("acked" | "heartbeat" | "shutdown") => None,
            Some("error") if value["code"] == "INVALID_ACK" => None,
            _ => panic!("unexpected: {text}"),
        }
    }

    /// Hears until this number was heard by any connection.
    pub(super) fn hear_until(&mut self, last: u64, ear: &mut Ear) {
        while !ear.heard.contains(&last) {
            self.hear(ear);
        }
    }

    /// Hears something if there is anything, without waiting.
    pub(super) fn hear_what_came(&mut self, ear: &mut Ear) {
        self.ws.0.get_ref().set_nonblocking(true).expect("an open socket");
        let read = self.ws.0.read();
        self.ws.0.get_ref().set_nonblocking(false).expect("an open socket");
        match read {
            Ok(Message::Text(text)) => drop(self.take(text.as_str(), ear)),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("waited for a text, got {other:?}"),
        }
    }

    /// Closes as a browser does, and hears what was under way.
    pub(super) fn leave(mut self, ear: &mut Ear) {
        self.ws.0.close(None).expect("the server reads");
        self.hear_to_the_end(ear);
    }

    /// Hears until the connection is closed, by whichever side.
    pub(super) fn hear_to_the_end(&mut self, ear: &mut Ear) {
        loop {
            match self.ws.0.read() {
                Ok(Message::Text(text)) => drop(self.understand(text.as_str(), ear)),
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed) => return,
                Err(error) => panic!("waited for the end: {error}"),
            }
        }
    }
}

fn kept_once(class: Class) {
    const MAIL: u64 = 200;
    let redis = Redis::start();
    let (a, b) = (mail_node(&redis, "a", class, &[]), mail_node(&redis, "b", class, &[]));
    let mut client = redis.client();
    for n in 0..MAIL {
        publish_number(&mut client, "ana", n);
    }
    // The same words twice are two notifications.
    publish_number(&mut client, "ana", MAIL);
    publish_number(&mut client, "ana", MAIL);
    let queued = |server: &Server| server.get("/health").ok()["queue"]["total_messages"].as_u64();
    await_that("the mail to be kept", || (queued(&a) == Some(MAIL + 2)).then_some(()));
    // A node that waits for another's word on what it heard from Redis has given up waiting in three seconds.
    await_hellos(&redis, 2, 4);
    await_that("both to count the same", || (queued(&b) == queued(&a)).then_some(()));
    assert_eq!(queued(&a), Some(MAIL + 2), "nothing was kept twice");
    let mut ws = b.ws("ana");
    for n in (0..=MAIL).chain([MAIL]) {
        let heard = ws.notification();
        assert_eq!(heard["payload"], n, "{heard}");
        assert_eq!(heard["metadata"].get("attempt"), None, "{heard}");
    }
    a.nothing_waits("ana", &mut ws);
}

/// The same words again when every node has begun anew are another notification, as they are while a node remembers them.
fn same_words_again(class: Class) {
    let redis = Redis::start();
    let mut client = redis.client();
    let mut count = 0;
    for _ in 0..2 {
        let a = mail_node(&redis, "a", class, &[]);
        publish_number(&mut client, "ana", 7);
        count += 1;
        let kept = || a.get("/health").ok()["queue"]["total_messages"].as_u64();
        await_that("the mail to be kept", || (kept() == Some(count)).then_some(()));
        // Equal messages within two seconds of a new beginning may pass for one.
        await_hellos(&redis, 1, 3);
    }
    let a = mail_node(&redis, "a", class, &[]);
    let mut ws = a.ws("ana");
    for _ in 0..count {
        assert_eq!(ws.payload(), 7);
    }
    a.nothing_waits("ana", &mut ws);
}

fn moves_while_published_to(class: Class) {
    const MAIL: u64 = 500;
    let redis = Redis::start();
    // What a connection took with it unacknowledged comes again soon.
    let soon = [("ACK_TIMEOUT_SECONDS", "3")];
    let nodes = ["a", "b"].map(|name| mail_node(&redis, name, class, &soon));
    // What they read at first waits and then comes all at once: the user is to move meanwhile.
    await_hellos(&redis, 2, 4);
    let mut ear = Ear::default();
    std::thread::scope(|scope| {
        let (redis, nodes) = (&redis, &nodes);
        let publishing = scope.spawn(move || {
            let mut client = redis.client();
            for n in 0..MAIL {
                publish_number(&mut client, "ana", n);
                // Paced by a node's answer.
                nodes[n as usize % 2].get("/health/live").ok();
            }
        });
        let mut here = Hearer::connect(&nodes[0], "ana", class);
        for turn in 1..=12 {
            for _ in 0..20 {
                if ear.heard.len() < MAIL as usize - 20 {
                    here.hear(&mut ear);
                }
            }
            let to = &nodes[turn % 2];
            // Every other time the old connection stays for a moment.
            here = if turn % 4 < 2 {
                let mut there = Hearer::connect(to, "ana", class);
                if ear.heard.len() < MAIL as usize - 20 {
                    there.hear(&mut ear);
                }
                here.leave(&mut ear);
                there
            } else {
                here.leave(&mut ear);
                Hearer::connect(to, "ana", class)
            };
        }
        publishing.join().expect("Redis took everything");
        // Everything comes before a last word.
        publish_number(&mut redis.client(), "ana", MAIL);
        here.hear_until(MAIL, &mut ear);
        if class == Class::Acknowledged {
            here.leave(&mut ear);
            // Acknowledgements that went with a connection are said again when the mail comes again.
            let mut last = Hearer::connect(&nodes[1], "ana", class);
            await_empty(&nodes[0], || last.hear_what_came(&mut ear));
        }
    });
    let missing: Vec<u64> = (0..=MAIL).filter(|n| !ear.heard.contains(n)).collect();
    assert_eq!(missing, [0; 0], "lost");
}

/// Waits until no mail is kept; `meanwhile` is done between the looks.
pub(super) fn await_empty(server: &Server, mut meanwhile: impl FnMut()) {
    await_that("the mailbox to be empty", || {
        meanwhile();
        (server.get("/health").ok()["queue"]["total_messages"] == 0).then_some(())
    });
}

fn elsewhere_online(class: Class) {
    let redis = Redis::start();
    let (a, b) = (mail_node(&redis, "a", class, &[]), mail_node(&redis, "b", class, &[]));
    let mut there = b.ws("ana");
    // A connection reads its mailbox first; then it takes what comes, also when its mailbox was empty a moment ago.
    a.send("ana", "0");
    there.notification();
    let mut connection = Connection::open(a.port);
    for n in 1..=500 {
        let body = json!({"target_user_id": "ana", "event_type": "e", "payload": n}).to_string();
        connection.send(request("POST", "/api/v1/notifications/send", &[], Some(body.as_bytes())));
        let receipt = connection.read().ok();
        assert_eq!((delivered(&receipt), &receipt["success"]), ((1, 0), &json!(true)), "{n}: {receipt}");
        let heard = there.notification();
        assert_eq!((&heard["payload"], &heard["id"]), (&json!(n), &receipt["notification_id"]), "{heard}");
    }
    let away = a.send("ben", "1");
    assert_eq!((delivered(&away), &away["queued"]), ((0, 0), &json!(1)), "{away}");
    assert_eq!(b.ws("ben").payload(), 1);
}

/// One test per conversation and class.
macro_rules! classes {
    ($($name:ident: $conversation:ident, $class:expr;)*) => {$(
        #[test]
        fn $name() {
            $conversation($class);
        }
    )*};
}

classes! {
    mail_by_redis_for_who_is_away_is_kept_once_written: kept_once, Class::Written;
    mail_by_redis_for_who_is_away_is_kept_once_acknowledged: kept_once, Class::Acknowledged;
    the_same_words_are_kept_again_by_nodes_that_began_anew: same_words_again, Class::Acknowledged;
    who_moves_between_nodes_hears_everything_written: moves_while_published_to, Class::Written;
    who_moves_between_nodes_hears_everything_acknowledged: moves_while_published_to, Class::Acknowledged;
    mail_by_rest_reaches_who_is_elsewhere_written: elsewhere_online, Class::Written;
    mail_by_rest_reaches_who_is_elsewhere_acknowledged: elsewhere_online, Class::Acknowledged;
}

/// The mail is kept, and the word of it is not taken. Whoever is elsewhere hears of it when Redis takes it again, though no link broke.
#[test]
fn mail_of_which_redis_would_not_tell_is_told_of_later() {
    let redis = Redis::start();
    let [a, b] = ["a", "b"].map(|name| mail_node(&redis, name, Class::Written, &[]));
    let (mut hearer, mut ear) = (Hearer::connect(&a, "ana", Class::Written), Ear::default());
    assert_eq!(delivered(&b.send("ana", "0")), (1, 0));
    hearer.hear_until(0, &mut ear);
    redis.cli(&["ACL", "SETUSER", "default", "-publish"]);
    assert_eq!(b.send("ana", "1")["queued"], 1);
    redis.cli(&["ACL", "SETUSER", "default", "+publish"]);
    hearer.hear_until(1, &mut ear);
}
