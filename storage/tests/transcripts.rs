//! Golden transcripts: what a real server and our session said to each other, byte for byte.
//!
//! `tests/transcripts/NAME.client.resp` is what we said, `NAME.server.resp` what redis-server 7.0 answered, and
//! `NAME.heard.txt` what the session made of it. `UPDATE_GOLDEN=1` records them anew; read the difference.
mod common;

use common::{Client, RedisServer};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use storage::redis::session::{Event, Session};
use storage::redis::url::RedisUrl;

struct Scenario {
    name: &'static str,
    /// Without host and port.
    credentials: &'static str,
    database: &'static str,
    channels: &'static [&'static str],
    /// Commands that make the server ready.
    before: &'static [&'static [&'static str]],
    /// Names that come and go later, each with whether it comes.
    changed: &'static [(bool, &'static str)],
    /// Channel and payload.
    published: &'static [(&'static str, &'static [u8])],
}

const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "names_that_come_and_go",
        credentials: "ara:pw@",
        database: "",
        channels: &["news"],
        before: &[&["ACL", "SETUSER", "ara", "on", ">pw", "resetchannels", "&news", "&user:*", "+@all"]],
        changed: &[(true, "user:1"), (true, "forbidden"), (true, "user:2"), (false, "user:1")],
        published: &[("user:1", b"nobody listens"), ("user:2", b"hello")],
    },
    Scenario {
        name: "plain_and_patterns",
        credentials: "",
        database: "",
        channels: &["news", "user:*", "room-[ab]", "v?"],
        before: &[],
        changed: &[],
        published: &[
            ("news", b"{\"a\":1}"),
            ("user:1", b""),
            ("room-b", b"\r\n*3\r\n$7\r\nmessage\r\n"),
            ("v2", b"\x00\xff\xfe"),
        ],
    },
    Scenario {
        name: "one_message_for_a_name_and_a_pattern",
        credentials: "",
        database: "",
        channels: &["news", "n*"],
        before: &[],
        changed: &[],
        published: &[("news", b"twice")],
    },
    Scenario {
        name: "user_password_and_database",
        credentials: "ara:p%40ss@",
        database: "/3",
        channels: &["news"],
        before: &[&["ACL", "SETUSER", "ara", "on", ">p@ss", "&*", "+@all"]],
        changed: &[],
        published: &[("news", b"hello")],
    },
    Scenario {
        name: "wrong_password",
        credentials: "ara:wrong@",
        database: "/3",
        channels: &["news"],
        before: &[&["ACL", "SETUSER", "ara", "on", ">right", "&*", "+@all"]],
        changed: &[],
        published: &[],
    },
    Scenario {
        name: "missing_password",
        credentials: "",
        database: "",
        channels: &["news"],
        before: &[&["CONFIG", "SET", "requirepass", "secret"]],
        changed: &[],
        published: &[],
    },
    Scenario {
        name: "unknown_database",
        credentials: "",
        database: "/16",
        channels: &["news"],
        before: &[],
        changed: &[],
        published: &[],
    },
    Scenario {
        name: "forbidden_channel",
        credentials: "ara:pw@",
        database: "",
        channels: &["news", "other"],
        before: &[&["ACL", "SETUSER", "ara", "on", ">pw", "resetchannels", "&news", "+@all"]],
        changed: &[],
        published: &[],
    },
];

impl Scenario {
    fn session(&self) -> Session {
        let url = format!("redis://{}localhost{}", self.credentials, self.database);
        let channels: Vec<String> = self.channels.iter().map(|name| (*name).to_owned()).collect();
        Session::new(&RedisUrl::parse(&url).unwrap(), &channels)
    }

    fn file(&self, kind: &str) -> PathBuf {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
        PathBuf::from(directory).join(format!("{}.{kind}", self.name))
    }

    fn read(&self, kind: &str) -> Vec<u8> {
        let file = self.file(kind);
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 records it", file.display()))
    }
}

/// Takes every event there is; a refusal is the end.
fn listen(session: &mut Session, heard: &mut Vec<String>) {
    while let Some(event) = session.next_event().unwrap() {
        heard.push(match event {
            Event::Message { channel, payload } => {
                format!("message on {} of {}", channel.escape_ascii(), payload.escape_ascii())
            }
            Event::Subscribed { count } => format!("subscribed {count}"),
            Event::Ready => "ready".to_owned(),
            Event::Pong => "pong".to_owned(),
            Event::Changed { subscribed, name } => {
                format!("{} {}", if subscribed { "listens to" } else { "has left" }, name.escape_ascii())
            }
            Event::ChangeRefused { names, text } => format!("{names} not listened to: {text}"),
            Event::SlotLost => "slot lost".to_owned(),
            Event::ServerError { step, text } => format!("refused {step:?}: {text}"),
        });
    }
}

/// Whether this was heard, or a refusal, after which nothing else will be.
fn is_over(heard: &[String], until: &str) -> bool {
    heard.iter().any(|line| line.starts_with(until) || line.starts_with("refused"))
}

struct Recorder {
    stream: TcpStream,
    session: Session,
    client: Vec<u8>,
    server: Vec<u8>,
    heard: Vec<String>,
}

impl Recorder {
    fn converse(&mut self, over: impl Fn(&[String]) -> bool) {
        let said = self.session.output().to_vec();
        self.stream.write_all(&said).unwrap();
        self.session.sent(said.len());
        self.client.extend_from_slice(&said);
        while !over(&self.heard) {
            let room = self.session.room();
            let bytes = self.stream.read(room).unwrap();
            assert_ne!(bytes, 0, "the server closed");
            self.server.extend_from_slice(&room[..bytes]);
            self.session.filled(bytes);
            listen(&mut self.session, &mut self.heard);
        }
    }
}

fn record(scenario: &Scenario) {
    let server = RedisServer::start();
    let mut publisher: Client = server.client();
    for command in scenario.before {
        publisher.must(command);
    }
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let (client, answers) = (Vec::new(), Vec::new());
    let mut recorder = Recorder { stream, session: scenario.session(), client, server: answers, heard: Vec::new() };
    recorder.converse(|heard| is_over(heard, "ready"));
    if recorder.heard.last().is_some_and(|line| line == "ready") {
        for (subscribe, name) in scenario.changed {
            recorder.session.change(*subscribe, &[name.as_bytes()]);
        }
        let heard = recorder.heard.len() + scenario.changed.len();
        recorder.converse(|all| all.len() >= heard);
        for (channel, payload) in scenario.published {
            publisher.must(&[b"PUBLISH", channel.as_bytes(), payload]);
        }
        recorder.session.ping();
        recorder.converse(|heard| is_over(heard, "pong"));
    }
    std::fs::write(scenario.file("client.resp"), &recorder.client).unwrap();
    std::fs::write(scenario.file("server.resp"), &recorder.server).unwrap();
    std::fs::write(scenario.file("heard.txt"), recorder.heard.join("\n") + "\n").unwrap();
}

/// Plays the server's part in pieces of the lengths that `cut` gives.
fn play(scenario: &Scenario, server: &[u8], mut cut: impl FnMut() -> usize) -> String {
    let mut session = scenario.session();
    for (subscribe, name) in scenario.changed {
        session.change(*subscribe, &[name.as_bytes()]);
    }
    let mut heard = Vec::new();
    let mut rest = server;
    while !rest.is_empty() {
        let room = session.room();
        let bytes = cut().clamp(1, rest.len().min(room.len()));
        room[..bytes].copy_from_slice(&rest[..bytes]);
        session.filled(bytes);
        listen(&mut session, &mut heard);
        rest = &rest[bytes..];
    }
    heard.join("\n") + "\n"
}

#[test]
fn what_was_recorded_is_understood_the_same_however_it_is_cut() {
    for scenario in &SCENARIOS {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            record(scenario);
        }
        let mut session = scenario.session();
        let client = scenario.read("client.resp");
        for (subscribe, name) in scenario.changed {
            session.change(*subscribe, &[name.as_bytes()]);
        }
        if client.ends_with(b"*1\r\n$4\r\nPING\r\n") {
            session.ping();
        }
        assert_eq!(session.output().escape_ascii().to_string(), client.escape_ascii().to_string(), "{}", scenario.name);

        let server = scenario.read("server.resp");
        let heard = String::from_utf8(scenario.read("heard.txt")).unwrap();
        assert_eq!(play(scenario, &server, || usize::MAX), heard, "{} whole", scenario.name);
        assert_eq!(play(scenario, &server, || 1), heard, "{} byte by byte", scenario.name);
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let cut = || rng.usize(1..40);
            assert_eq!(play(scenario, &server, cut), heard, "{} cut by seed {seed}", scenario.name);
        }
    }
}
