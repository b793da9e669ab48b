//! Golden transcripts: what a real server and our command session said to each other, byte for byte.
//!
//! `tests/transcripts/commands_NAME.client.resp` is what we said, `.server.resp` what redis-server 7.0 answered, and
//! `.heard.txt` what the session made of it. `UPDATE_GOLDEN=1` records them anew; read the difference.
mod common;

use common::RedisServer;
use protocol::clock::Now;
use protocol::ids::{ConnectionId, NotificationId, TenantId, uuid_v7};
use protocol::store::{Mail, Position};
use protocol::stream::StreamSeq;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use storage::redis::acks::{self, Acks, Late};
use storage::redis::commands::event::{Answer, Bounds, Event};
use storage::redis::commands::script::Script;
use storage::redis::commands::session::CommandSession;
use storage::redis::commands::status::Operation;
use storage::redis::commands::{Command, Ticket, Words};
use storage::redis::mailbox::{self, Mailboxes, Removal};
use storage::redis::url::RedisUrl;

/// What takes a command.
type Submit<'a> = dyn FnMut(Command<'_>) + 'a;

struct Scenario {
    name: &'static str,
    /// Without host and port.
    credentials: &'static str,
    database: &'static str,
    scripts: &'static [&'static Script],
    /// Commands that make the server ready.
    before: &'static [&'static [&'static str]],
    /// Commands after which the session submits.
    between: &'static [&'static [&'static str]],
    /// What is submitted when the greeting is over.
    asked: fn(&mut Submit<'_>),
}

static APPEND: Script = Script::new("append", "return redis.call('RPUSH', KEYS[1], ARGV[1])");

fn plain(words: &[&[u8]], submit: &mut Submit<'_>) {
    submit(Command { operation: Operation::Other, words: Words::Plain(words) });
}

fn append(key: &[u8], text: &[u8], submit: &mut Submit<'_>) {
    let words = Words::Script { script: &APPEND, keys: &[key], arguments: &[text] };
    submit(Command { operation: Operation::Other, words });
}

const NOW: Now = Now { mono_us: 0, unix_ns: 1_767_323_045_123_456_789 };

const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "commands_of_every_shape",
        credentials: "",
        database: "",
        scripts: &[],
        before: &[],
        between: &[],
        asked: |submit| {
            plain(&[b"SET", b"k", b"\x00\xff\r\n"], submit);
            plain(&[b"GET", b"k"], submit);
            plain(&[b"GET", b"none"], submit);
            plain(&[b"INCR", b"n"], submit);
            plain(&[b"INCR", b"k"], submit);
            plain(&[b"XADD", b"s", b"1-1", b"data", b""], submit);
            plain(&[b"XRANGE", b"s", b"-", b"+"], submit);
            plain(&[b"LPUSH", b"s", b"x"], submit);
            plain(&[b"NOSUCH", b"private"], submit);
            plain(&[b"EVAL", b"return {1, {'a', {redis.error_reply('ERR inside')}}, {}}", b"0"], submit);
        },
    },
    Scenario {
        name: "commands_user_password_and_database",
        credentials: "ara:p%40ss@",
        database: "/3",
        scripts: &[&APPEND],
        before: &[&["ACL", "SETUSER", "ara", "on", ">p@ss", "~own:*", "+@all"]],
        between: &[],
        asked: |submit| {
            append(b"own:1", b"x", submit);
            append(b"other", b"x", submit);
        },
    },
    Scenario {
        name: "commands_wrong_password",
        credentials: "ara:wrong@",
        database: "/3",
        scripts: &[&APPEND],
        before: &[&["ACL", "SETUSER", "ara", "on", ">right", "+@all"]],
        between: &[],
        asked: |_| {},
    },
    Scenario {
        name: "commands_missing_password",
        credentials: "",
        database: "",
        scripts: &[],
        before: &[&["CONFIG", "SET", "requirepass", "secret"]],
        between: &[],
        asked: |_| {},
    },
    Scenario {
        name: "commands_scripts_flushed",
        credentials: "",
        database: "",
        scripts: &[&APPEND],
        before: &[],
        between: &[&["SCRIPT", "FLUSH"]],
        asked: |submit| {
            append(b"list", b"first", submit);
            plain(&[b"PING"], submit);
            append(b"list", b"second", submit);
        },
    },
    Scenario {
        name: "commands_full_server",
        credentials: "",
        database: "",
        scripts: &[&APPEND],
        before: &[&["CONFIG", "SET", "maxmemory", "1"]],
        between: &[],
        asked: |submit| {
            append(b"list", b"x", submit);
            plain(&[b"SET", b"k", b"v"], submit);
            plain(&[b"GET", b"k"], submit);
        },
    },
    Scenario {
        name: "commands_mailbox",
        credentials: "",
        database: "",
        scripts: &mailbox::SCRIPTS,
        before: &[],
        between: &[],
        asked: |submit| {
            let (mailboxes, tenant) = (Mailboxes::new("ara:queue", 2, 60), TenantId::parse("acme").unwrap());
            let mail = |seq| Mail {
                id: NotificationId(uuid_v7(seq, [0; 10])),
                event: (*b"{\"payload\":\"\xc3\xa9\"}").into(),
                queued_at_unix_ns: NOW.unix_ns,
                expires_at_unix_ns: NOW.unix_ns + 60_000_000_000,
                attempts: 0,
                stream: StreamSeq { epoch: 7, seq },
            };
            mailboxes.enqueue(&tenant, "u1", &[mail(1)], None, NOW, &mut *submit).unwrap();
            mailboxes.enqueue(&tenant, "u1", &[mail(2), mail(3)], None, NOW, &mut *submit).unwrap();
            mailboxes.read(&tenant, "u1", None, 10, 0, &mut *submit);
            mailboxes.read(&tenant, "u1", None, 1, 0, &mut *submit);
            mailboxes.remove(&tenant, "u1", &[Position(1, 1)], Removal::Delivered, &mut *submit);
            mailboxes.due(Now { unix_ns: NOW.unix_ns + 60_000_000_000, ..NOW }, 10, &mut *submit);
            mailboxes.sweep(b"acme:u1", Now { unix_ns: NOW.unix_ns + 60_000_000_000, ..NOW }, &mut *submit);
            mailboxes.stats(&mut *submit);
        },
    },
    Scenario {
        name: "commands_acknowledgements",
        credentials: "",
        database: "",
        scripts: &acks::SCRIPTS,
        before: &[],
        between: &[],
        asked: |submit| {
            let (acks, tenant) = (Acks::new("ara:ack", 30), TenantId::default_tenant());
            let (id, connection) = (NotificationId(uuid_v7(1, [0; 10])), ConnectionId(uuid_v7(2, [0; 10])));
            for user in ["u1", "u2", "u3"] {
                acks.track(id, &tenant, user, connection, NOW, &mut *submit);
            }
            acks.acknowledge(id, &tenant, "u2", NOW, Late::Refused, &mut *submit);
            acks.expire(Now { unix_ns: NOW.unix_ns + 31_000_000_000, ..NOW }, 10, &mut *submit);
            acks.stats(&mut *submit);
        },
    },
];

impl Scenario {
    fn session(&self) -> CommandSession {
        let url = format!("redis://{}localhost{}", self.credentials, self.database);
        let bounds = Bounds { commands_max: 100, bytes_max: 1_000_000 };
        let mut session = CommandSession::new(RedisUrl::parse(&url).unwrap(), self.scripts, bounds);
        session.begin();
        session
    }

    fn file(&self, kind: &str) -> PathBuf {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
        PathBuf::from(directory).join(format!("{}.{kind}", self.name))
    }

    fn read(&self, kind: &str) -> Vec<u8> {
        let file = self.file(kind);
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 records it", file.display()))
    }

    fn submit(&self, session: &mut CommandSession) {
        let mut ticket = 0;
        (self.asked)(&mut |command| {
            ticket += 1;
            session.push(0, u64::MAX, Ticket(ticket), command).unwrap();
        });
    }
}

/// Takes every event there is; whether the greeting is over now.
fn listen(session: &mut CommandSession, heard: &mut Vec<String>) -> bool {
    let mut ready = false;
    while let Some(event) = session.next_event().unwrap() {
        heard.push(match event {
            Event::Ready => {
                ready = true;
                "ready".to_owned()
            }
            Event::Pong => "pong".to_owned(),
            Event::NotLoaded { script, text } => format!("not loaded {}: {text}", script.name()),
            Event::NotFenced { text } => format!("not fenced: {text}"),
            Event::Overtaken { ask } => format!("{} overtaken", ask.ticket.0),
            Event::Elsewhere { text } => format!("elsewhere: {text}"),
            Event::GreetingRefused { step, text } => format!("refused {step:?}: {text}"),
            Event::Answered { ask, answer } => match answer {
                Answer::Done(reply) => format!("{} {reply:?}", ask.ticket.0),
                Answer::Refused(refusal) => format!("{} refused {:?}: {refusal}", ask.ticket.0, refusal.code),
                Answer::Failed(failure) => format!("{} failed: {failure}", ask.ticket.0),
            },
        });
    }
    ready
}

fn record(scenario: &Scenario) {
    let server = RedisServer::start();
    let mut other = server.client();
    for command in scenario.before {
        other.must(command);
    }
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let (mut session, mut heard) = (scenario.session(), Vec::new());
    let (mut client, mut answers) = (Vec::new(), Vec::new());
    loop {
        let said = session.output().to_vec();
        stream.write_all(&said).unwrap();
        session.sent(said.len());
        client.extend_from_slice(&said);
        if session.is_quiet() {
            break;
        }
        let room = session.room();
        let bytes = stream.read(room).unwrap();
        assert_ne!(bytes, 0, "the server closed");
        answers.extend_from_slice(&room[..bytes]);
        session.filled(bytes);
        if listen(&mut session, &mut heard) {
            for command in scenario.between {
                other.must(command);
            }
            scenario.submit(&mut session);
        }
    }
    std::fs::write(scenario.file("client.resp"), &client).unwrap();
    std::fs::write(scenario.file("server.resp"), &answers).unwrap();
    std::fs::write(scenario.file("heard.txt"), heard.join("\n") + "\n").unwrap();
}

/// Plays the server's part in pieces of the lengths that `cut` gives. What we say, and what we hear.
fn play(scenario: &Scenario, server: &[u8], mut cut: impl FnMut() -> usize) -> (String, String) {
    let (mut session, mut heard, mut client) = (scenario.session(), Vec::new(), Vec::new());
    let mut rest = server;
    loop {
        client.extend_from_slice(session.output());
        session.sent(session.output().len());
        if rest.is_empty() {
            return (client.escape_ascii().to_string(), heard.join("\n") + "\n");
        }
        let room = session.room();
        let bytes = cut().clamp(1, rest.len().min(room.len()));
        room[..bytes].copy_from_slice(&rest[..bytes]);
        session.filled(bytes);
        if listen(&mut session, &mut heard) {
            scenario.submit(&mut session);
        }
        rest = &rest[bytes..];
    }
}

/// Cuts that also end wherever we said something more: no server answers what is not said.
fn careful(server: &[u8], ends: &[usize], mut cut: impl FnMut() -> usize) -> impl FnMut() -> usize {
    let (mut at, all, ends) = (0, server.len(), ends.to_vec());
    move || {
        let end = ends.iter().copied().find(|end| *end > at).unwrap_or(all);
        let bytes = cut().clamp(1, (end - at).max(1));
        at += bytes;
        bytes
    }
}

/// After how many of the server's bytes we said something more.
fn turns(scenario: &Scenario, server: &[u8]) -> Vec<usize> {
    let (mut session, mut heard, mut ends) = (scenario.session(), Vec::new(), Vec::new());
    for (at, byte) in server.iter().enumerate() {
        if !session.output().is_empty() {
            ends.push(at);
            session.sent(session.output().len());
        }
        session.room()[0] = *byte;
        session.filled(1);
        if listen(&mut session, &mut heard) {
            scenario.submit(&mut session);
        }
    }
    ends
}

#[test]
fn what_was_recorded_is_understood_the_same_however_it_is_cut() {
    for scenario in &SCENARIOS {
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            record(scenario);
        }
        let client = scenario.read("client.resp").escape_ascii().to_string();
        let server = scenario.read("server.resp");
        let heard = String::from_utf8(scenario.read("heard.txt")).unwrap();
        let expected = (client, heard);
        let ends = turns(scenario, &server);
        let name = scenario.name;
        assert_eq!(play(scenario, &server, careful(&server, &ends, || usize::MAX)), expected, "{name} whole");
        assert_eq!(play(scenario, &server, || 1), expected, "{name} byte by byte");
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let cut = careful(&server, &ends, || rng.usize(1..60));
            assert_eq!(play(scenario, &server, cut), expected, "{name} cut by seed {seed}");
        }
    }
}
