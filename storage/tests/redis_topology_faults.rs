//! The finder against servers that are slow, gone, wrong or hostile, all of them scripted.
mod common;
mod redis_topology_driver;

use common::free_port;
use redis_topology_driver::{FinderDriver, config};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use storage::link::wants::Wants;
use storage::redis::topology::finder::{ASKING, LINES, WATCHING};
use storage::redis::topology::node::Node;
use storage::redis::topology::slots::Redirect;

/// Answers the first words of every connection with what the script makes of them, and then listens on.
struct Scripted {
    port: u16,
    /// Connections that were taken; kept open.
    taken: Arc<Mutex<Vec<TcpStream>>>,
}

impl Scripted {
    fn start(script: impl Fn(&str) -> String + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (taken, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let connections = Arc::clone(&taken);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut own = stream.try_clone().expect("a second handle");
                connections.lock().expect("not poisoned").push(stream);
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    let mut chunk = [0; 4096];
                    while let Ok(bytes @ 1..) = own.read(&mut chunk) {
                        let answer = script(&String::from_utf8_lossy(&chunk[..bytes]));
                        if own.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Scripted { port, taken }
    }

    /// A sentinel that names a master and takes subscriptions.
    fn sentinel(master: Arc<Mutex<u16>>) -> Scripted {
        Scripted::start(move |words| match words.contains("SUBSCRIBE") {
            true => "*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n".to_owned(),
            false if words.contains("PING") => "*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_owned(),
            false => {
                let port = *master.lock().expect("not poisoned");
                format!("*2\r\n$9\r\n127.0.0.1\r\n$5\r\n{port:05}\r\n*0\r\n")
            }
        })
    }

    fn redis(role: &'static str) -> Scripted {
        Scripted::start(move |_| format!("*2\r\n${}\r\n{role}\r\n:0\r\n", role.len()))
    }

    fn node(&self) -> Node {
        node(self.port)
    }

    fn connections(&self) -> usize {
        self.taken.lock().expect("not poisoned").len()
    }

    fn say_to_all(&self, words: &str) {
        for mut stream in self.taken.lock().expect("not poisoned").iter() {
            // Those that were closed do not matter.
            let _ = stream.write_all(words.as_bytes());
        }
    }
}

fn node(port: u16) -> Node {
    Node { host: "127.0.0.1".to_owned(), port }
}

fn shared(port: u16) -> Arc<Mutex<u16>> {
    Arc::new(Mutex::new(port))
}

fn url(sentinels: &[u16]) -> String {
    let hosts: Vec<String> = sentinels.iter().map(|port| node(*port).to_string()).collect();
    format!("redis+sentinel://{}/m", hosts.join(","))
}

#[test]
fn one_server_is_known_at_once_and_nothing_is_wanted() {
    let mut driver = FinderDriver::new(config("redis://:secret@h:7/2"));
    assert_eq!((driver.wants, driver.finder.changes()), ([Wants::default(); LINES], 1));
    driver.finder.invalidate();
    driver.turn(Default::default());
    assert_eq!(driver.finder.master_url().unwrap().to_string(), "redis://:***@h:7/2");
    assert_eq!(driver.wants, [Wants::default(); LINES]);
}

#[test]
fn a_sentinel_that_says_nothing_is_given_up_for_the_next() {
    let silent = Scripted::start(|_| String::new());
    let master = Scripted::redis("master");
    let sentinel = Scripted::sentinel(shared(master.port));
    let config = config(&url(&[silent.port, sentinel.port]));
    let mut driver = FinderDriver::that_asks_first(&config, "127.0.0.1", silent.port);
    driver.until("it was asked", |driver| driver.wants[ASKING].read && !driver.wants[ASKING].write);
    assert_eq!(sentinel.connections(), 0);
    driver.skip_ms(120_000);
    driver.until_master(&master.node());
    assert_eq!(driver.finder.servers()[0], sentinel.node(), "it is asked first the next time");
}

#[test]
fn a_sentinel_that_names_a_replica_is_not_believed() {
    let (replica, master) = (Scripted::redis("slave"), Scripted::redis("master"));
    let named = shared(replica.port);
    let sentinel = Scripted::sentinel(Arc::clone(&named));
    let mut driver = FinderDriver::new(config(&url(&[sentinel.port])));
    driver.until("the round is over", |driver| driver.finder.last_miss().is_some());
    let miss = driver.finder.last_miss().unwrap().to_string();
    assert!(miss.contains(&format!("{}, which is no master", replica.node())), "{miss}");
    assert_eq!(driver.finder.current(), None);
    *named.lock().unwrap() = master.port;
    driver.until_master(&master.node());
}

#[test]
fn a_switch_is_believed_only_when_the_new_master_says_so() {
    let (old, new) = (Scripted::redis("master"), Scripted::redis("master"));
    let named = shared(old.port);
    let sentinel = Scripted::sentinel(Arc::clone(&named));
    let mut driver = FinderDriver::new(config(&url(&[sentinel.port])));
    driver.until_master(&old.node());
    // The subscription stands once it has brought a second question.
    driver.until("the sentinel is watched", |_| sentinel.connections() >= 3);
    driver.until_master(&old.node());
    let told = |text: &str| format!("*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n${}\r\n{text}\r\n", text.len());
    let changes = driver.finder.changes();
    // It tells of a server that nobody else names: what counts is what it answers.
    sentinel.say_to_all(&told("m 127.0.0.1 1 127.0.0.1 2"));
    driver.until("it was doubted and found again", |driver| driver.finder.changes() == changes + 2);
    driver.until_master(&old.node());
    *named.lock().unwrap() = new.port;
    sentinel.say_to_all(&told("other 127.0.0.1 1 127.0.0.1 2"));
    sentinel.say_to_all(&told("m 127.0.0.1 1 127.0.0.1 2"));
    driver.until_master(&new.node());
}

#[test]
fn nobody_there_is_asked_again_with_pauses_until_somebody_is() {
    let ports = [free_port(), free_port()];
    let mut driver = FinderDriver::new(config(&url(&ports)));
    driver.until("the round is over", |driver| driver.finder.last_miss().is_some());
    assert!(driver.finder.last_miss().unwrap().to_string().contains("no server of REDIS_URL answers"));
    for _ in 0..5 {
        // However often it is doubted, the pause stays.
        driver.finder.invalidate();
        driver.finder.refresh();
        driver.step();
    }
    assert!(driver.wants[ASKING].wake_at_us.is_some());
    let listener = TcpListener::bind(("127.0.0.1", ports[1])).expect("the port is free");
    driver.until("somebody is asked", |driver| driver.wants[ASKING].read);
    drop(listener);
}

#[test]
fn nonsense_is_no_answer_and_the_next_is_asked() {
    let endless = "*1\r\n".repeat(2_000);
    let large = format!("${}\r\n{}", 3_000_000, "x".repeat(2_000_000));
    let rows: [String; 7] = [
        "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
        endless,
        large,
        "*-2\r\n".to_owned(),
        "*2\r\n$9\r\n127.0.0.1\r\n$6\r\n999999\r\n*0\r\n".to_owned(),
        "*2\r\n$1\r\n\0\r\n$1\r\n1\r\n*0\r\n".to_owned(),
        ":7\r\n".to_owned(),
    ];
    for said in rows {
        let start = said.chars().take(40).collect::<String>();
        let wrong = Scripted::start(move |_| said.clone());
        let mut driver = FinderDriver::new(config(&url(&[wrong.port])));
        driver.until("the round is over", |driver| driver.finder.last_miss().is_some());
        let miss = driver.finder.last_miss().unwrap().to_string();
        assert!(miss.contains("no answer that makes sense"), "{start:?}: {miss}");
        let master = Scripted::redis("master");
        let sentinel = Scripted::sentinel(shared(master.port));
        let config = config(&url(&[wrong.port, sentinel.port]));
        let mut driver = FinderDriver::that_asks_first(&config, "127.0.0.1", wrong.port);
        driver.until_master(&master.node());
    }
}

#[test]
fn a_name_that_nobody_knows_does_not_keep_the_others_from_being_asked() {
    let master = Scripted::redis("master");
    let sentinel = Scripted::sentinel(shared(master.port));
    let url = format!("redis+sentinel://no-such-host.invalid:1,localhost:{}/m", sentinel.port);
    let mut short = config(&url);
    short.timing.node_deadline_ms = 2_000;
    let mut driver = FinderDriver::that_asks_first(&short, "no-such-host.invalid", 1);
    driver.until_master(&master.node());
    assert_eq!(driver.finder.servers()[0].host, "localhost");
}

#[test]
fn a_moved_slot_has_its_new_master_at_once_and_the_table_is_asked_for_again() {
    let nodes = Scripted::start(|_| "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:7\r\n".to_owned());
    let mut driver = FinderDriver::new(config(&format!("redis-cluster://{}", nodes.node())));
    driver.until("the table is known", |driver| driver.table().is_some());
    assert_eq!(driver.wants[WATCHING], Wants::default());
    let (asked, changes) = (nodes.connections(), driver.finder.changes());
    driver.finder.redirected(&Redirect::Ask { slot: 5, node: node(8) });
    assert_eq!(driver.finder.changes(), changes);
    driver.finder.redirected(&Redirect::Moved { slot: 5, node: node(8) });
    assert_eq!(driver.table().unwrap().owner(5), Some(&node(8)));
    assert_eq!(driver.table().unwrap().owner(6), Some(&node(7)));
    assert_eq!(driver.finder.changes(), changes + 1);
    driver
        .until("it was asked for again", |driver| driver.table().is_some_and(|table| table.owner(5) == Some(&node(7))));
    assert!(nodes.connections() > asked || driver.finder.servers().len() > 1);
    assert_eq!(driver.finder.servers(), [nodes.node(), node(7)]);
}

#[test]
fn a_question_in_the_middle_of_a_round_is_followed_by_another_round() {
    let nodes = Scripted::start(|_| "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$0\r\n\r\n:7\r\n".to_owned());
    let mut driver = FinderDriver::new(config(&format!("redis-cluster://{}", nodes.node())));
    assert!(driver.wants[ASKING].socket.is_some(), "the round is under way");
    driver.finder.refresh();
    driver.until("it was asked twice", |_| nodes.connections() == 2);
    driver.until("the table is known", |driver| driver.table().is_some());
}

#[test]
fn a_finder_that_is_stopped_wants_nothing() {
    let master = Scripted::redis("master");
    let sentinel = Scripted::sentinel(shared(master.port));
    let mut driver = FinderDriver::new(config(&url(&[sentinel.port])));
    driver.until("a sentinel is watched", |driver| driver.wants[WATCHING].read);
    driver.finder.stop();
    driver.finder.invalidate();
    driver.turn(Default::default());
    assert_eq!(driver.wants, [Wants::default(); LINES]);
    assert!(driver.finder.socket(ASKING).is_none() && driver.finder.socket(WATCHING).is_none());
}
