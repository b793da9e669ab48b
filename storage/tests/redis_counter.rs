//! Requests counted in a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;

use common::{RedisServer, free_port};
use protocol::clock::Now;
use protocol::rate_limit::identity::key_name;
use protocol::rate_limit::{Identity, LimitKind};
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use redis_commands_driver::config;
use redis_protocol::resp2::types::OwnedFrame;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::backend::Backend;
use storage::redis::counter::{Outage, RedisCounter, RedisCounterConfig};

/// A counter and the loop that turns it. The wall clock is the test's.
struct Desk {
    counter: RedisCounter,
    began: Instant,
    unix_ms: u64,
    tickets: u64,
}

impl Desk {
    fn new(url: &str) -> Desk {
        let config = RedisCounterConfig {
            link: config(url, &[]),
            prefix: "t:limits".to_owned(),
            key_name: key_name(b"0123456789abcdef"),
            outage: Arc::new(Outage::default()),
        };
        let counter = RedisCounter::new(config, 1, Arc::new(|| ()));
        Desk { counter, began: Instant::now(), unix_ms: 1_767_323_045_678, tickets: 0 }
    }

    fn now(&self) -> Now {
        Now { mono_us: self.began.elapsed().as_micros() as u64, unix_ns: self.unix_ms * 1_000_000 }
    }

    /// The answer to one request; `None` for a failure.
    fn ask(&mut self, kind: LimitKind, identity: Identity) -> Option<(u64, u64)> {
        self.tickets += 1;
        let ticket = StoreTicket(self.tickets);
        self.counter.submit(self.now(), ticket, StoreRequest::CountRequest { kind, identity });
        let mut replies = Vec::new();
        while replies.is_empty() {
            assert!(self.began.elapsed() < Duration::from_secs(20), "no answer");
            self.turn();
            self.counter.take_replies(&mut replies);
        }
        match &replies[..] {
            [(of, StoreReply::Counted { count, ends_unix_ms })] if *of == ticket => Some((*count, *ends_unix_ms)),
            [(of, StoreReply::Failed)] if *of == ticket => None,
            other => panic!("{other:?}"),
        }
    }

    fn turn(&mut self) {
        self.counter.turn(0, self.now(), true, true);
        std::thread::yield_now();
    }

    /// Asks until the link works.
    fn connect(&mut self) {
        while self.ask(LimitKind::Http, Identity::V6(0)).is_none() {
            assert!(self.began.elapsed() < Duration::from_secs(20), "no link");
            self.turn();
        }
    }
}

/// Says something to the server; texts and numbers of the answer, one a line.
fn say(server: &RedisServer, words: &[&str]) -> String {
    fn shown(frame: OwnedFrame) -> String {
        match frame {
            OwnedFrame::BulkString(bytes) | OwnedFrame::SimpleString(bytes) => {
                String::from_utf8(bytes).expect("the tests keep text")
            }
            OwnedFrame::Integer(number) => number.to_string(),
            OwnedFrame::Array(frames) => frames.into_iter().map(shown).collect::<Vec<_>>().join("\n"),
            other => panic!("{other:?}"),
        }
    }
    shown(server.client().command(words))
}

fn client(n: u32) -> Identity {
    Identity::V4(n.into())
}

#[test]
fn counts_are_shared_and_begin_anew_with_each_window() {
    let server = RedisServer::start();
    let (mut one, mut two) = (Desk::new(&server.url()), Desk::new(&server.url()));
    one.connect();
    two.connect();
    assert_eq!(one.ask(LimitKind::Http, client(1)), Some((1, 1_767_323_046_000)));
    assert_eq!(two.ask(LimitKind::Http, client(1)), Some((2, 1_767_323_046_000)));
    assert_eq!(one.ask(LimitKind::Http, client(2)), Some((1, 1_767_323_046_000)));
    assert_eq!(one.ask(LimitKind::Connect, client(1)), Some((1, 1_767_323_100_000)), "connects are counted apart");
    one.unix_ms += 1_000;
    assert_eq!(one.ask(LimitKind::Http, client(1)), Some((1, 1_767_323_047_000)));
    assert_eq!(one.ask(LimitKind::Connect, client(1)), Some((2, 1_767_323_100_000)));
    assert_eq!(one.ask(LimitKind::Http, Identity::ApiKey), Some((1, 1_767_323_047_000)));
    let keys = say(&server, &["KEYS", "t:limits:*"]);
    let name = key_name(b"0123456789abcdef");
    for key in [
        "t:limits:http:ip:0.0.0.1:1767323045".to_owned(),
        "t:limits:ws:ip:0.0.0.1:29455384".to_owned(),
        format!("t:limits:http:key:{name}:1767323046"),
    ] {
        assert!(keys.contains(&key), "{key} in {keys}");
        let ttl: i64 = say(&server, &["PTTL", &key]).trim().parse().expect("a number");
        assert!(ttl == -2 || (1..=60_000).contains(&ttl), "{key} lives {ttl} ms");
    }
    assert!(!keys.contains("0123456789abcdef"), "nobody reads the key there");
}

#[test]
fn who_cannot_be_asked_is_not_waited_for() {
    let mut desk = Desk::new(&format!("redis://127.0.0.1:{}", free_port()));
    for _ in 0..10 {
        assert_eq!(desk.ask(LimitKind::Http, client(1)), None);
    }
    assert!(!desk.counter.owes());
}

#[test]
fn a_server_that_refuses_is_a_failure_and_one_that_is_back_counts_again() {
    let server = RedisServer::start();
    let mut desk = Desk::new(&server.url());
    desk.connect();
    say(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(desk.ask(LimitKind::Http, client(1)), None);
    say(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(desk.ask(LimitKind::Http, client(1)).map(|(count, _)| count), Some(1));
    say(&server, &["SCRIPT", "FLUSH"]);
    assert_eq!(desk.ask(LimitKind::Http, client(1)).map(|(count, _)| count), Some(2), "it is told the script anew");
}
