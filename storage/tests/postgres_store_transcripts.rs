//! A golden transcript of every word the store says to PostgreSQL, and of what PostgreSQL 15 answered.
//!
//! `tests/transcripts/postgres_store.client.pg` is what we said, `.server.pg` what the server answered, `.heard.txt` what
//! the store made of it. Recorded through a relay, replayed by a stage server that knows only where an answer ends.
//! `UPDATE_GOLDEN=1` records them anew; read the difference.
mod common;

use common::postgres::{PostgresServer, StoreDriver, store_config};
use protocol::cluster::wire::Claim;
use protocol::ids::{ConnectionId, NotificationId, TenantId, uuid_v7};
use protocol::store::{Mail, MailboxKey, Position, StoreReply, StoreRequest};
use protocol::stream::StreamSeq;
use protocol::template::parse_create;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

/// 2026-01-02T03:04:05Z.
const UNIX_NS: u64 = 1_767_323_045_000_000_000;

fn file(kind: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts")).join(format!("postgres_store.{kind}"))
}

fn mail(n: u64) -> Mail {
    let id = NotificationId(uuid_v7(n, [7; 10]));
    let event = format!(
        r#"{{"id":"{id}","occurred_at":"t","event_type":"e","payload":{n},"metadata":{{"source":"s","priority":"Low"}}}}"#
    );
    Mail {
        id,
        event: event.into_bytes().into(),
        queued_at_unix_ns: UNIX_NS,
        expires_at_unix_ns: UNIX_NS + 3_600_000_000_000,
        attempts: 0,
        stream: StreamSeq { epoch: 1, seq: n },
    }
}

/// Every request there is; those in one row are asked at once.
fn requests() -> Vec<Vec<StoreRequest>> {
    let mailbox = |user: &str| Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: user.into() });
    let append = |user: &str, numbers: std::ops::Range<u64>, claim| StoreRequest::AppendMail {
        mailbox: mailbox(user),
        mail: numbers.map(mail).collect(),
        claim,
    };
    let read = |user: &str, after, entries_max| StoreRequest::ReadMail {
        mailbox: mailbox(user),
        after,
        entries_max,
        lingering_ms: 0,
    };
    let claim = Some(Claim::new(0xa_0123_4567_89ab_cdef, 2));
    let (id, connection) = (NotificationId(uuid_v7(1, [7; 10])), ConnectionId(uuid_v7(1, [1; 10])));
    let acknowledge = || StoreRequest::Acknowledge { mailbox: mailbox("ana"), id, is_kept: false };
    let body = br#"{"id":"t1","name":"n","event_type":"e","payload_template":{"b":1.50}}"#;
    let template = Arc::new(parse_create(body, UNIX_NS).unwrap());
    let tenant = TenantId::parse("acme").unwrap();
    vec![
        vec![append("ana", 1..3, None)],
        // One transaction: five mailboxes and one commit.
        vec![append("ana", 3..4, None), append("bob", 4..5, claim), append("eve", 5..6, None), read("ana", None, 2)],
        vec![append("bob", 4..5, claim)],
        vec![read("ana", Some(Position(2, 0)), 9)],
        vec![StoreRequest::RemoveMail {
            mailbox: mailbox("ana"),
            positions: vec![Position(1, 0), Position(3, 0)],
            lingers: false,
        }],
        vec![StoreRequest::RemoveMail { mailbox: mailbox("bob"), positions: vec![Position(4, 0)], lingers: true }],
        vec![StoreRequest::ReadMail { mailbox: mailbox("bob"), after: None, entries_max: 2, lingering_ms: 3_000 }],
        vec![StoreRequest::TrackAck { mailbox: mailbox("ana"), id, connection }],
        vec![acknowledge(), acknowledge()],
        vec![StoreRequest::PutTemplate { tenant: tenant.clone(), template }],
        vec![StoreRequest::LoadTemplates],
        vec![StoreRequest::DeleteTemplate { tenant, id: "t1".into() }],
    ]
}

fn in_words(reply: &StoreReply) -> String {
    match reply {
        StoreReply::Mail { entries, next } => {
            let entries = entries.iter().map(|entry| {
                let Mail { event, attempts, stream, .. } = &entry.mail;
                let gone = if entry.is_gone { " gone" } else { "" };
                format!("\n  {:?} {attempts} {stream:?}{gone} {}", entry.position, event.escape_ascii())
            });
            format!("mail, then {next:?}:{}", entries.collect::<String>())
        }
        StoreReply::Templates(all) => {
            format!("templates {:?}", all.iter().map(|(tenant, t)| format!("{tenant} {}", t.id)).collect::<Vec<_>>())
        }
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Asks everything of whoever listens on a port.
fn converse(port: u16) -> String {
    let mut config = store_config(&format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable"));
    config.links = 1;
    let mut driver = StoreDriver::new(config);
    driver.unix_ns = Some(UNIX_NS);
    driver.until("it is in and has its tables", |d| d.figures.connections.get() == 1);
    let mut heard = String::new();
    for together in requests() {
        let tickets: Vec<_> = together.into_iter().map(|request| driver.submit(request)).collect();
        for ticket in tickets {
            heard += &in_words(&driver.answer(ticket));
            heard.push('\n');
        }
    }
    heard
}

/// Passes on what comes and remembers it.
fn pass(mut from: TcpStream, mut to: TcpStream) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), [0; 4_096]);
        while let Ok(bytes @ 1..) = from.read(&mut some) {
            all.extend_from_slice(&some[..bytes]);
            to.write_all(&some[..bytes]).unwrap();
        }
        let _ = to.shutdown(Shutdown::Write);
        all
    })
}

fn record() {
    let server = PostgresServer::start();
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, server_port) = (relay.local_addr().unwrap().port(), server.port);
    let relay = std::thread::spawn(move || {
        let client = relay.accept().unwrap().0;
        let server = TcpStream::connect(("127.0.0.1", server_port)).unwrap();
        let said = pass(client.try_clone().unwrap(), server.try_clone().unwrap());
        let answered = pass(server, client);
        (said.join().unwrap(), answered.join().unwrap())
    });
    std::fs::write(file("heard.txt"), converse(port)).unwrap();
    let (said, answered) = relay.join().unwrap();
    std::fs::write(file("client.pg"), said).unwrap();
    std::fs::write(file("server.pg"), answered).unwrap();
}

/// A whole message at the front: its first byte and its length.
fn message(bytes: &[u8], is_first: bool) -> Option<(u8, usize)> {
    let (tag, rest) = if is_first { (b'S', bytes) } else { (*bytes.first()?, &bytes[1..]) };
    let length = u32::from_be_bytes(rest.get(..4)?.try_into().unwrap()) as usize;
    let length = length + usize::from(!is_first);
    (bytes.len() >= length).then_some((tag, length))
}

/// Answers each Sync and each script with what was recorded, up to where the server was ready. Returns what was said.
fn play(stage: &TcpListener, recorded: &[u8]) -> Vec<u8> {
    let mut client = stage.accept().unwrap().0;
    let (mut said, mut taken, mut answered, mut some) = (Vec::new(), 0, 0, [0; 4_096]);
    while let Ok(bytes @ 1..) = client.read(&mut some) {
        said.extend_from_slice(&some[..bytes]);
        while let Some((tag, length)) = message(&said[taken..], taken == 0) {
            taken += length;
            let begin = answered;
            while matches!(tag, b'S' | b'Q') && answered < recorded.len() {
                let (tag, length) = message(&recorded[answered..], false).expect("whole messages");
                answered += length;
                if tag == b'Z' {
                    break;
                }
            }
            client.write_all(&recorded[begin..answered]).unwrap();
        }
    }
    assert_eq!(answered, recorded.len(), "all was asked for");
    said
}

#[test]
fn every_statement_is_said_and_understood_as_it_was_recorded() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        record();
    }
    let read = |kind| std::fs::read(file(kind)).unwrap_or_else(|error| panic!("{kind}: {error}; UPDATE_GOLDEN=1"));
    let (client, server) = (read("client.pg"), read("server.pg"));
    let stage = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stage.local_addr().unwrap().port();
    let stage = std::thread::spawn(move || play(&stage, &server));
    assert_eq!(converse(port), String::from_utf8(read("heard.txt")).unwrap());
    assert_eq!(stage.join().unwrap().escape_ascii().to_string(), client.escape_ascii().to_string());
}
