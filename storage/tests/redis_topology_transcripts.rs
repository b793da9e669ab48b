//! Golden transcripts: what real servers and our questions said to each other, byte for byte; and the same with errors
//! put in.
//!
//! `tests/transcripts/topology_NAME.client.resp` is what we said, `.server.resp` what redis-server 7.0 answered, and
//! `.heard.txt` what was made of it. `UPDATE_GOLDEN=1` records them anew; read the difference.
mod common;
mod redis_topology_driver;

use redis_topology_driver::{Kind, Server, texts};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use storage::redis::topology::inquiry::{Inquiry, Question};
use storage::redis::topology::node::Node;
use storage::redis::topology::talk::Talk;
use storage::redis::topology::url::Login;
use storage::redis::topology::watch::Watch;

const NAMES: [&str; 7] = ["master", "not_known", "role_master", "role_replica", "slots", "slots_refused", "watch"];

/// One of the two conversations there are.
enum Side {
    Asks(Box<Inquiry>),
    Watches(Box<Watch>),
}

impl Side {
    fn of(name: &str) -> Side {
        let login = match name {
            "role_master" => Login { user: Some(b"ara".to_vec()), password: Some(b"pass-word".to_vec()) },
            _ => Login::default(),
        };
        let question = match name {
            "master" => Question::Master { name: "our-master".to_owned() },
            "not_known" => Question::Master { name: "their-master".to_owned() },
            "slots" | "slots_refused" => Question::Slots,
            "watch" => return Side::Watches(Box::new(Watch::new("our-master", &login))),
            _ => Question::Role,
        };
        let asked = Node { host: "seed.example".to_owned(), port: 7000 };
        Side::Asks(Box::new(Inquiry::new(question, asked, &login)))
    }

    fn talk(&mut self) -> &mut Talk {
        match self {
            Side::Asks(inquiry) => inquiry.talk(),
            Side::Watches(watch) => watch.talk(),
        }
    }

    /// Takes everything there is; whether it goes on.
    fn heard(&mut self, heard: &mut Vec<String>) -> bool {
        loop {
            let (line, ends) = match self {
                Side::Asks(inquiry) => match inquiry.answer() {
                    Ok(None) => return true,
                    Ok(Some(answer)) => (format!("{answer:?}"), true),
                    Err(error) => (format!("{error:?}"), true),
                },
                Side::Watches(watch) => match watch.heard() {
                    Ok(None) => return true,
                    Ok(Some(word)) => (format!("{word:?}"), false),
                    Err(error) => (format!("{error:?}"), true),
                },
            };
            heard.push(line);
            if ends {
                return false;
            }
        }
    }

    /// What is made of these bytes, cut into pieces.
    fn hears(name: &str, mut bytes: &[u8], mut piece: impl FnMut() -> usize) -> Vec<String> {
        let mut side = Side::of(name);
        let mut heard = Vec::new();
        while side.heard(&mut heard) && !bytes.is_empty() {
            let room = side.talk().room();
            assert!(!room.is_empty(), "there is room when everything was taken");
            let taken = piece().clamp(1, room.len().min(bytes.len()));
            room[..taken].copy_from_slice(&bytes[..taken]);
            side.talk().filled(taken);
            bytes = &bytes[taken..];
        }
        heard
    }
}

fn path(name: &str, end: &str) -> PathBuf {
    let file = format!("tests/transcripts/topology_{name}.{end}");
    [env!("CARGO_MANIFEST_DIR"), &file].iter().collect()
}

fn read(name: &str, end: &str) -> Vec<u8> {
    let path = path(name, end);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 records it", path.display()))
}

/// Says what we say to a server, and returns what it answers until we have heard enough.
fn record(name: &str, server: &Server, then: impl FnOnce()) {
    let mut side = Side::of(name);
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("the server listens");
    stream.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    let said = side.talk().output().to_vec();
    stream.write_all(&said).expect("the server takes it");
    let (mut answered, mut heard, mut then) = (Vec::new(), Vec::new(), Some(then));
    while side.heard(&mut heard) && !heard.iter().any(|line| line.starts_with("Switched")) {
        if !heard.is_empty()
            && let Some(then) = then.take()
        {
            then();
        }
        let bytes = stream.read(side.talk().room()).expect("the server answers");
        assert_ne!(bytes, 0, "the server closed the connection");
        let came = side.talk().room()[..bytes].to_vec();
        side.talk().filled(bytes);
        answered.extend(came);
    }
    for (end, bytes) in
        [("client.resp", said), ("server.resp", answered), ("heard.txt", (heard.join("\n") + "\n").into_bytes())]
    {
        std::fs::write(path(name, end), bytes).expect("the transcript is written");
    }
}

fn record_all() {
    let user = "user ara on >pass-word +@all ~*".to_owned();
    let master = Server::start(&Kind::Redis(vec![user]));
    let replica = Server::start(&Kind::Redis(vec![format!("replicaof 127.0.0.1 {}", master.port)]));
    let lines = |port| {
        let monitor = format!("sentinel monitor our-master 127.0.0.1 {port} 1");
        vec![monitor, "sentinel down-after-milliseconds our-master 60000".to_owned()]
    };
    let sentinels = [(); 2].map(|()| Server::start(&Kind::Sentinel(lines(master.port))));
    let told = |server: &Server, words: &[&str], wanted: &str| {
        while !texts(&server.ask(None, words)).join("\n").contains(wanted) {}
    };
    told(&sentinels[0], &["SENTINEL", "SENTINELS", "our-master"], "port");
    told(&sentinels[0], &["SENTINEL", "REPLICAS", "our-master"], "port");
    record("master", &sentinels[0], || ());
    record("not_known", &sentinels[0], || ());
    record("role_master", &master, || ());
    record("role_replica", &replica, || ());
    record("slots_refused", &master, || ());
    told(&replica, &["INFO", "replication"], "master_link_status:up");
    record("watch", &sentinels[0], || sentinels[0].must(&["SENTINEL", "FAILOVER", "our-master"]));
    let nodes = [(); 2].map(|()| Server::start(&Kind::ClusterNode));
    nodes[0].must(&["CLUSTER", "ADDSLOTSRANGE", "0", "99", "101", "8191"]);
    nodes[1].must(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    nodes[1].must(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string(), &nodes[0].bus_port.to_string()]);
    told(&nodes[0], &["CLUSTER", "SLOTS"], "16383");
    told(&nodes[0], &["CLUSTER", "SLOTS"], "127.0.0.1");
    record("slots", &nodes[0], || ());
}

#[test]
fn what_was_said_is_said_and_what_was_answered_is_heard() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        record_all();
    }
    for name in NAMES {
        let said = Side::of(name).talk().output().escape_ascii().to_string();
        assert_eq!(said, read(name, "client.resp").escape_ascii().to_string(), "{name}");
        let answered = read(name, "server.resp");
        let expected = String::from_utf8(read(name, "heard.txt")).expect("it is text");
        for piece in [1, 7, usize::MAX] {
            assert_eq!(Side::hears(name, &answered, || piece).join("\n") + "\n", expected, "{name} by {piece}");
        }
    }
}

#[test]
fn whatever_comes_nothing_panics_and_pieces_make_no_difference() {
    let mut rng = fastrand::Rng::with_seed(11);
    let insertions: [&[u8]; 9] = [
        b"*",
        b"$",
        b"\r\n",
        b"-ERR x\r\n",
        b"*-1\r\n",
        b"$-1\r\n",
        b":-9223372036854775808\r\n",
        b"*99999999\r\n",
        b"\xff",
    ];
    for name in NAMES {
        let answered = read(name, "server.resp");
        for _ in 0..1_500 {
            let mut bytes = answered.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                match rng.u8(..5) {
                    0 => bytes[at] = rng.u8(..),
                    1 => bytes[at] = *rng.choice(b"0123456789-:$*+\r\n").expect("there are some"),
                    2 => bytes.truncate(at.max(1)),
                    3 => drop(bytes.splice(at..at, insertions[rng.usize(..insertions.len())].iter().copied())),
                    _ => drop(bytes.splice(at..(at + rng.usize(..20)).min(bytes.len()), [])),
                }
                if bytes.is_empty() {
                    bytes.push(b'*');
                }
            }
            let whole = Side::hears(name, &bytes, || usize::MAX);
            let cut = Side::hears(name, &bytes, || rng.usize(1..9));
            assert_eq!(whole, cut, "{name}: {}", bytes.escape_ascii());
        }
    }
}
