//! Golden transcripts: what a real server and our session said to each other, byte for byte.
//!
//! `tests/transcripts/postgres_NAME.client.pg` is what we said, `postgres_NAME.server.pg` what PostgreSQL 15 answered,
//! and `postgres_NAME.heard.txt` what the session made of it. `UPDATE_GOLDEN=1` records them anew; read the difference.
//! SCRAM is not among them: its nonce differs each time.
mod common;

use common::postgres::PostgresServer;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use storage::postgres::command::{Command, Statement};
use storage::postgres::session::{Event, Session};
use storage::postgres::url::PostgresUrl;

struct Scenario {
    name: &'static str,
    credentials: &'static str,
    /// What follows host and port.
    more: &'static str,
    /// How this user has to prove who it is.
    method: &'static str,
    /// Each is a transaction.
    commands: fn() -> Vec<Vec<Command>>,
}

const PUT: Statement = Statement { name: "put", sql: "INSERT INTO t (n, j) VALUES ($1, $2)" };
const GET: Statement = Statement { name: "get", sql: "SELECT n, j, NULL::text FROM t ORDER BY n" };
const LATE: Statement = Statement { name: "late", sql: "INSERT INTO late (n) VALUES ($1)" };
const LOST: Statement = Statement { name: "lost", sql: "SELECT * FROM lost" };

fn none() -> Vec<Vec<Command>> {
    Vec::new()
}

fn alone(commands: Vec<Command>) -> Vec<Vec<Command>> {
    commands.into_iter().map(|command| vec![command]).collect()
}

fn together() -> Vec<Vec<Command>> {
    let put = |n| Command::new(&PUT, 1_000).int8(n).jsonb(b"{}");
    let get = || Command::new(&GET, 1_000);
    vec![
        vec![put(1), get(), put(2)],
        // The second one fails: nothing of the third is done, prepared or answered.
        vec![put(3), put(1), Command::new(&LOST, 1_000)],
        vec![get(), Command::new(&LOST, 1_000), put(4)],
        // The commit fails.
        vec![Command::new(&LATE, 1_000).int8(1), get(), Command::new(&LATE, 1_000).int8(1)],
        vec![Command::new(&LATE, 1_000).int8(1)],
        vec![get()],
    ]
}

fn mixed() -> Vec<Vec<Command>> {
    let put = |n, text: &str| Command::new(&PUT, 1_000).int8(n).jsonb(text.as_bytes());
    alone(vec![
        put(1, "{\"a\": \"é\"}"),
        put(2, "[]"),
        put(1, "{}"),
        Command::new(&PUT, 1_000).literal("3").literal("null"),
        Command::new(&PUT, 1_000).int8(4).null(),
        put(5, "{"),
        Command::new(&GET, 1_000),
        Command::new(&LOST, 1_000),
        Command::new(&LOST, 1_000),
        Command::script("CREATE TABLE IF NOT EXISTS t (n int); SELECT count(*) FROM t; SELECT 'x'", 1_000),
        Command::script("SELECT 1; SELECT 1/0; SELECT 2", 1_000),
        Command::new(&GET, 1_000),
    ])
}

fn reading() -> Vec<Vec<Command>> {
    alone(vec![Command::new(&GET, 1_000), Command::new(&PUT, 1_000).int8(1).jsonb(b"{}"), Command::new(&GET, 1_000)])
}

const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "together",
        credentials: "ara",
        more: "/postgres?sslmode=disable",
        method: "trust",
        commands: together,
    },
    Scenario { name: "trust", credentials: "ara", more: "/postgres?sslmode=disable", method: "trust", commands: mixed },
    Scenario { name: "no_tls_there", credentials: "ara", more: "/postgres", method: "trust", commands: reading },
    Scenario {
        name: "password",
        credentials: "ara:p%40ss",
        more: "/postgres?sslmode=disable",
        method: "password",
        commands: none,
    },
    Scenario {
        name: "md5",
        credentials: "ara:p%40ss",
        more: "/postgres?sslmode=disable",
        method: "md5",
        commands: none,
    },
    Scenario {
        name: "wrong_password",
        credentials: "ara:wrong",
        more: "/postgres?sslmode=disable",
        method: "md5",
        commands: none,
    },
    Scenario {
        name: "no_such_database",
        credentials: "ara",
        more: "/nowhere?sslmode=disable",
        method: "trust",
        commands: none,
    },
    Scenario {
        name: "rejected",
        credentials: "ara",
        more: "/postgres?sslmode=disable",
        method: "reject",
        commands: none,
    },
    Scenario {
        name: "read_only",
        credentials: "reader",
        more: "/postgres?sslmode=disable",
        method: "trust",
        commands: reading,
    },
];

impl Scenario {
    fn file(&self, kind: &str) -> PathBuf {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
        PathBuf::from(directory).join(format!("postgres_{}.{kind}", self.name))
    }

    fn read(&self, kind: &str) -> Vec<u8> {
        let file = self.file(kind);
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 records it", file.display()))
    }
}

/// Our side of it: once let in, it gives all its commands at once, and a sign of life when they are answered.
struct Talk {
    session: Session,
    commands: Vec<Vec<Command>>,
    unanswered: usize,
    said: Vec<u8>,
    heard: Vec<String>,
}

impl Talk {
    fn new(scenario: &Scenario) -> Talk {
        let url = format!("postgres://{}@localhost{}", scenario.credentials, scenario.more);
        let session = Session::new(&PostgresUrl::parse(&url).unwrap());
        Talk { session, commands: (scenario.commands)(), unanswered: 0, said: Vec::new(), heard: Vec::new() }
    }

    /// Takes every event there is. Returns whether the conversation goes on.
    fn listen(&mut self) -> bool {
        loop {
            let event = match self.session.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    self.heard.push(format!("error {error}"));
                    return false;
                }
            };
            // What was taken back was a transaction of three.
            let answers = match event {
                Event::Done { .. } | Event::Failed(_) => 1,
                Event::RolledBack { .. } => 3,
                _ => 0,
            };
            let is_ready = event == Event::Ready;
            let words = match event {
                Event::Row { place, row } => {
                    let columns =
                        row.columns().map(|column| column.map_or("NULL".into(), |c| c.escape_ascii().to_string()));
                    let of = if place == 0 { String::new() } else { format!(" of {place}") };
                    format!("row{of} {}", columns.collect::<Vec<_>>().join(" | "))
                }
                Event::Done { rows } => format!("done {rows}"),
                Event::Failed(error) => format!("failed {error}"),
                Event::RolledBack { culprit, error } => format!("rolled back by {culprit:?} {error}"),
                Event::Refused(error) => format!("refused {error}"),
                Event::Gone(error) => format!("gone {error}"),
                Event::Notice(notice) => format!("notice {notice}"),
                other => format!("{other:?}").to_lowercase(),
            };
            self.heard.push(words);
            if is_ready {
                self.unanswered = self.commands.iter().map(Vec::len).sum();
                for transaction in &self.commands {
                    for command in transaction {
                        self.session.begin(command).unwrap();
                    }
                    self.session.finish();
                }
            }
            // A server that talks nonsense may answer too much.
            self.unanswered = self.unanswered.saturating_sub(answers);
            if (is_ready || answers > 0) && self.unanswered == 0 {
                self.session.ping();
            }
        }
        !self.heard.last().is_some_and(|words| words == "pong" || words.starts_with("refused"))
    }

    /// What is to be said now.
    fn say(&mut self) -> Vec<u8> {
        let output = self.session.output().to_vec();
        self.session.sent(output.len());
        self.said.extend_from_slice(&output);
        output
    }
}

fn record(scenario: &Scenario) {
    let mut server = PostgresServer::start();
    server.psql(
        "SET password_encryption = 'md5'; CREATE ROLE ara LOGIN PASSWORD 'p@ss'; CREATE ROLE reader LOGIN;
         ALTER ROLE reader SET default_transaction_read_only = on; CREATE TABLE t (n bigint PRIMARY KEY, j jsonb);
         CREATE TABLE late (n bigint UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON t, late TO ara, reader; GRANT CREATE ON SCHEMA public TO ara",
    );
    server.write("data/pg_hba.conf", &format!("host all all 127.0.0.1/32 {}\n", scenario.method));
    server.kill();
    server.restart();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let mut talk = Talk::new(scenario);
    let mut server_said = Vec::new();
    loop {
        stream.write_all(&talk.say()).unwrap();
        let room = talk.session.room();
        let bytes = stream.read(room).unwrap();
        assert_ne!(bytes, 0, "the server closed: {:?}", talk.heard);
        server_said.extend_from_slice(&room[..bytes]);
        talk.session.filled(bytes);
        if !talk.listen() {
            break;
        }
    }
    std::fs::write(scenario.file("client.pg"), &talk.said).unwrap();
    std::fs::write(scenario.file("server.pg"), &server_said).unwrap();
    std::fs::write(scenario.file("heard.txt"), talk.heard.join("\n") + "\n").unwrap();
}

/// Plays the server's part in pieces of the lengths that `cut` gives.
fn play(scenario: &Scenario, server: &[u8], mut cut: impl FnMut() -> usize) -> Talk {
    let mut talk = Talk::new(scenario);
    talk.say();
    let mut rest = server;
    while !rest.is_empty() {
        let room = talk.session.room();
        let bytes = cut().clamp(1, rest.len().min(room.len()));
        room[..bytes].copy_from_slice(&rest[..bytes]);
        talk.session.filled(bytes);
        rest = &rest[bytes..];
        let goes_on = talk.listen();
        talk.say();
        if !goes_on {
            break;
        }
    }
    talk
}

#[test]
fn what_was_recorded_is_understood_the_same_however_it_is_cut() {
    for scenario in &SCENARIOS {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            record(scenario);
        }
        let (client, server) = (scenario.read("client.pg"), scenario.read("server.pg"));
        let heard = String::from_utf8(scenario.read("heard.txt")).unwrap();
        let check = |talk: Talk, how: &str| {
            assert_eq!(talk.heard.join("\n") + "\n", heard, "{} {how}", scenario.name);
            let (said, expected) = (talk.said.escape_ascii().to_string(), client.escape_ascii().to_string());
            assert_eq!(said, expected, "{} {how}", scenario.name);
        };
        check(play(scenario, &server, || usize::MAX), "whole");
        check(play(scenario, &server, || 1), "byte by byte");
        for seed in 0..100 {
            let mut rng = fastrand::Rng::with_seed(seed);
            check(play(scenario, &server, || rng.usize(1..40)), &format!("cut by seed {seed}"));
        }
    }
}

#[test]
fn a_server_that_garbles_its_words_is_never_more_than_an_error() {
    for scenario in &SCENARIOS {
        let server = scenario.read("server.pg");
        for seed in 0..2_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut garbled = server.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(0..garbled.len());
                match rng.u8(0..4) {
                    0 => garbled[at] = rng.u8(..),
                    1 => garbled[at] ^= 1 << rng.u8(0..8),
                    2 => drop(garbled.remove(at)),
                    _ => garbled.insert(at, rng.u8(..)),
                }
            }
            let talk = play(scenario, &garbled, || rng.usize(1..200));
            assert!(!talk.heard.iter().any(|words| words.contains("p@ss")), "{} seed {seed}", scenario.name);
        }
    }
}
