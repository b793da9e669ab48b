//! One node after another is begun and stopped while several publishers speak to whichever there are, so that now one and now another
//! is alone. Who is connected to a node hears everything of every publisher once and in order, for as long as the node is there.
use super::alone::EndAnyway;
use super::node_at;
use super::partitions::metric;
use crate::support::DEADLINE;
use crate::support::http::request;
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::redis_cluster::RedisCluster;
use crate::support::server::Server;
use crate::support::ws::Ws;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

const PUBLISHERS: usize = 3;
/// What a publisher says to ana, alone and with others; to a channel, alone and with another; and to everybody.
const STREAMS: usize = 3;

/// What is published, and where.
struct Stage {
    /// Ports of the nodes that publishers may ask.
    ports: RwLock<Vec<u16>>,
    /// The next number of each stream of each publisher.
    next: [[AtomicU64; STREAMS]; PUBLISHERS],
    /// What was not answered, for its node was about to go: it may be heard, and whenever.
    unsure: Mutex<BTreeSet<[u64; 3]>>,
    is_over: AtomicBool,
}

impl Stage {
    fn next(&self) -> [[u64; STREAMS]; PUBLISHERS] {
        std::array::from_fn(|by| std::array::from_fn(|stream| self.next[by][stream].load(SeqCst)))
    }

    fn is_sure(&self, by: usize, stream: usize, number: u64) -> bool {
        !self.unsure.lock().expect("no panic").contains(&[by as u64, stream as u64, number])
    }

    /// One publisher, until all is over.
    fn publish(&self, by: usize) {
        let mut rng = fastrand::Rng::with_seed(by as u64);
        while !self.is_over.load(SeqCst) {
            let (stream, has_others) = (rng.usize(0..STREAMS), rng.bool());
            let (kind, mut body) = match (stream, has_others) {
                (0, false) => ("send", json!({"target_user_id": "ana"})),
                (0, true) => ("send-to-users", json!({"target_user_ids": ["ben", "ana"]})),
                (1, false) => ("channel", json!({"channel": "orders"})),
                (1, true) => ("channels", json!({"channels": ["news", "orders"]})),
                _ => ("broadcast", json!({})),
            };
            let number = self.next[by][stream].load(SeqCst);
            (body["event_type"], body["payload"]) = (json!("e"), json!([by, stream, number]));
            let port = {
                let ports = self.ports.read().expect("no panic");
                ports[rng.usize(0..ports.len())]
            };
            if !is_answered(port, kind, &body) {
                self.unsure.lock().expect("no panic").insert([by as u64, stream as u64, number]);
            }
            self.next[by][stream].store(number + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether a node took it and said so.
fn is_answered(port: u16, kind: &str, body: &Value) -> bool {
    let headers = [("Connection", "close")];
    let path = format!("/api/v1/notifications/{kind}");
    let asked = request("POST", &path, &headers, Some(body.to_string().as_bytes()));
    let mut answer = Vec::new();
    let done = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(&asked)?;
        stream.read_to_end(&mut answer)
    });
    done.is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
}

/// A connection of ana's, subscribed to the channel.
struct Hearer {
    name: String,
    ws: Ws,
    /// From there on she hears it.
    first: [[u64; STREAMS]; PUBLISHERS],
    heard: [[Vec<u64>; STREAMS]; PUBLISHERS],
}

impl Hearer {
    fn connect(name: &str, node: &Server, stage: &Stage) -> Hearer {
        let mut hearer =
            Hearer { name: name.to_owned(), ws: node.ws("ana"), first: stage.next(), heard: Default::default() };
        hearer.ws.say(&json!({"type": "Subscribe", "payload": {"channels": ["orders"]}}).to_string());
        while hearer.hear() != "subscribed" {}
        // What was begun to be published before this may come, and need not.
        hearer.first = stage.next().map(|streams| streams.map(|number| number + 1));
        hearer
    }

    /// Takes the next text; its type.
    fn hear(&mut self) -> String {
        let value: Value = serde_json::from_str(&self.ws.hear()).expect("JSON");
        let kind = value["type"].as_str().expect("a type").to_owned();
        if kind == "notification" {
            let [by, stream, number] = std::array::from_fn(|at| value["payload"][at].as_u64().expect("a number"));
            self.heard[by as usize][stream as usize].push(number);
        }
        kind
    }

    /// Everything up to the end, which is what she heard last if her node is gone.
    fn check(&self, stage: &Stage, is_gone: bool) -> usize {
        let end = stage.next();
        for (by, stream) in (0..PUBLISHERS).flat_map(|by| (0..STREAMS).map(move |stream| (by, stream))) {
            let (heard, first) = (&self.heard[by][stream], self.first[by][stream]);
            let once: BTreeSet<u64> = heard.iter().copied().collect();
            assert_eq!(once.len(), heard.len(), "{}: once, of {by} on {stream}: {heard:?}", self.name);
            let sure: Vec<u64> = heard.iter().copied().filter(|number| stage.is_sure(by, stream, *number)).collect();
            assert!(sure.is_sorted(), "{}: in order, of {by} on {stream}: {heard:?}", self.name);
            let until = if is_gone { sure.last().map_or(0, |last| last + 1) } else { end[by][stream] };
            let is_missed = |number: &u64| stage.is_sure(by, stream, *number) && !once.contains(number);
            let missed: Vec<u64> = (first..until).filter(is_missed).collect();
            assert!(missed.is_empty(), "{}: of {by} on {stream}, from {first} to {until}: {missed:?}", self.name);
        }
        self.heard.iter().flatten().map(Vec::len).sum()
    }

    fn has_all(&self, stage: &Stage) -> bool {
        let end = stage.next();
        let has_last = |by: usize, stream: usize| {
            let mut numbers = (self.first[by][stream]..end[by][stream]).rev();
            let last = numbers.find(|number| stage.is_sure(by, stream, *number));
            last.is_none_or(|last| self.heard[by][stream].contains(&last))
        };
        (0..PUBLISHERS).all(|by| (0..STREAMS).all(|stream| has_last(by, stream)))
    }
}

/// Begins (`+`) and stops (`-`) nodes by their names; at a `.` the only one has found out that it is.
fn take_turns(turns: &str, begin: &dyn Fn(&str) -> Server) {
    let mut nodes: Vec<(String, Server, Hearer)> = Vec::new();
    let next = Default::default();
    let stage = Stage { ports: RwLock::default(), next, unsure: Mutex::default(), is_over: AtomicBool::new(false) };
    let mut heard = 0;
    let admit = |nodes: &mut Vec<(String, Server, Hearer)>, name: &str| {
        let node = begin(name);
        let hearer = Hearer::connect(name, &node, &stage);
        nodes.push((name.to_owned(), node, hearer));
        // Who sends publishers to a node has seen that the others know of it.
        for (_, node, _) in nodes.iter() {
            await_that("the nodes to meet", || {
                (metric(node, "ara_cluster_members") == nodes.len() as u64).then_some(())
            });
        }
        *stage.ports.write().expect("no panic") = nodes.iter().map(|(_, node, _)| node.port).collect();
    };
    admit(&mut nodes, "a");
    std::thread::scope(|scope| {
        let end = EndAnyway(&stage.is_over);
        let stage = &stage;
        let publishers: Vec<_> = (0..PUBLISHERS).map(|by| scope.spawn(move || stage.publish(by))).collect();
        let mut turns = turns.chars();
        while let Some(turn) = turns.next() {
            match (turn, turns.clone().next().filter(char::is_ascii_alphabetic)) {
                ('.', _) => {
                    let (_, node, _) = &nodes[0];
                    let bundles = metric(node, "ara_cluster_bundles_sent_total");
                    await_that("the node to be alone", || {
                        (metric(node, "ara_cluster_bundles_sent_total") > bundles + 5).then_some(())
                    });
                }
                ('+', Some(name)) => admit(&mut nodes, &name.to_string()),
                ('-', Some(name)) => {
                    let at = nodes.iter().position(|(of, ..)| *of == name.to_string()).expect("it is there");
                    let (_, mut node, mut hearer) = nodes.remove(at);
                    // Some are under way to it when it is told to stop.
                    node.terminate();
                    *stage.ports.write().expect("no panic") = nodes.iter().map(|(_, node, _)| node.port).collect();
                    while hearer.hear() != "shutdown" {}
                    heard += hearer.check(stage, true);
                    drop(hearer);
                    assert!(node.await_exit().success());
                }
                _ => continue,
            }
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(300) {
                nodes.iter_mut().for_each(|(.., hearer)| _ = hearer.hear());
            }
        }
        drop(end);
        publishers.into_iter().for_each(|publisher| publisher.join().expect("the publisher ends"));
    });
    for (_, _, hearer) in &mut nodes {
        while !hearer.has_all(&stage) {
            hearer.hear();
        }
        heard += hearer.check(&stage, false);
    }
    let published: u64 = stage.next().iter().flatten().sum();
    let unsure = stage.unsure.lock().expect("no panic").len();
    println!("{published} published, {unsure} of them not answered, {heard} heard");
    assert!(published > 500 && unsure < 100, "there was something to lose");
}

#[test]
fn nodes_begin_and_stop_in_turn() {
    let redis = Redis::start();
    take_turns(".+b+c-b-c.+b-a.+c+a-b-c.", &|name| node_at(&redis.url(), name, &[]));
}

#[test]
fn nodes_begin_and_stop_in_turn_at_a_redis_cluster() {
    let redis = RedisCluster::start();
    take_turns(".+b-a.+c-b.", &|name| node_at(&redis.url(), name, &[]));
}
