//! The keys of sessions, against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;

use common::{Client, RedisServer};
use protocol::cluster::Session;
use protocol::ids::{ConnectionId, TenantId, uuid_v7};
use redis_commands_driver::CommandDriver;
use redis_protocol::resp2::types::OwnedFrame;
use storage::redis::sessions::{Joining, SCRIPTS, Sessions, Swept};

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

/// What a key holds, in words; a set in order.
fn shown(client: &mut Client, words: &[&str]) -> Vec<String> {
    fn flat(frame: OwnedFrame) -> Vec<String> {
        match frame {
            OwnedFrame::BulkString(bytes) | OwnedFrame::SimpleString(bytes) => {
                vec![String::from_utf8(bytes).unwrap()]
            }
            OwnedFrame::Integer(number) => vec![number.to_string()],
            OwnedFrame::Array(items) => items.into_iter().flat_map(flat).collect(),
            OwnedFrame::Null => Vec::new(),
            OwnedFrame::Error(text) => panic!("{text}"),
        }
    }
    let mut shown = flat(client.command(words));
    shown.sort();
    shown
}

#[test]
fn what_a_node_has_is_there_until_it_leaves_or_dies() {
    let server = RedisServer::start();
    let mut client = server.client();
    let mut driver = CommandDriver::healthy(&server, &SCRIPTS);
    let [n1, n2] = ["n1", "n2"].map(|node| Sessions::new("ara:s", node, 30));
    let session = Session {
        connection: ConnectionId(uuid_v7(1, [0; 10])),
        tenant: tenant("acme"),
        user: "u".into(),
        connected_at_unix_s: 7,
        channels: vec!["news".into()],
    };
    let key = format!("ara:s:conn:{}", session.connection);
    let acme = tenant("acme");
    driver.ask(|submit| n1.open(&session, submit), |_| ());
    driver.ask(|submit| n1.count(1, submit), |_| ());
    driver.ask(|submit| n2.count(0, submit), |_| ());
    for node in [&n1, &n2] {
        driver.ask(|submit| node.join_user(&acme, "u", Joining::First, submit), |_| ());
        driver.ask(|submit| node.join_channel(&tenant("default"), "news", Joining::First, submit), |_| ());
    }
    let mut json = Vec::new();
    session.write(&mut json, "n1");
    assert_eq!(shown(&mut client, &["GET", &key]), [String::from_utf8(json).unwrap()]);
    assert_eq!(shown(&mut client, &["SMEMBERS", "ara:s:user:acme:u"]), ["n1", "n2"]);
    assert_eq!(shown(&mut client, &["SMEMBERS", "ara:s:channel:news"]), ["n1", "n2"]);
    assert_eq!(shown(&mut client, &["SMEMBERS", "ara:s:users"]), ["acme:u"]);
    assert_eq!(driver.ask(|submit| n1.users(submit), |reply| reply.unsigned()), Some(1));
    assert_eq!(shown(&mut client, &["GET", "ara:s:server:n1"]), ["1"]);
    for key in [&key, "ara:s:user:acme:u", "ara:s:channel:news", "ara:s:users", "ara:s:server:n2"] {
        let ttl: i64 = shown(&mut client, &["TTL", key])[0].parse().unwrap();
        assert!((1..=60).contains(&ttl), "{key} expires after {ttl} s");
    }

    // One node leaves in order.
    driver.ask(|submit| n1.close(session.connection, submit), |_| ());
    driver.ask(|submit| n1.leave_user(&acme, "u", submit), |_| ());
    driver.ask(|submit| n1.leave_channel(&tenant("default"), "news", submit), |_| ());
    assert_eq!(shown(&mut client, &["EXISTS", &key]), ["0"]);
    assert_eq!(shown(&mut client, &["SMEMBERS", "ara:s:users"]), ["acme:u"], "the other node has the user");
    assert_eq!(shown(&mut client, &["SMEMBERS", "ara:s:channel:news"]), ["n2"]);

    // The other one dies: its key expires, and whoever refreshes a set takes it out.
    client.must(&["DEL", "ara:s:server:n2"]);
    driver.ask(|submit| n1.join_user(&acme, "u", Joining::Again, submit), |_| ());
    assert_eq!(shown(&mut client, &["SMEMBERS", "ara:s:user:acme:u"]), ["n1"]);
    driver.ask(|submit| n1.leave_user(&acme, "u", submit), |_| ());
    assert_eq!(shown(&mut client, &["EXISTS", "ara:s:users"]), ["0"]);
}

#[test]
fn users_whom_nobody_has_are_swept() {
    let server = RedisServer::start();
    let mut client = server.client();
    let mut driver = CommandDriver::healthy(&server, &SCRIPTS);
    let sessions = Sessions::new("{ara}:s", "n1", 30);
    for n in 0..2_000 {
        let user = format!("u{n}");
        driver.ask(|submit| sessions.join_user(&tenant("default"), &user, Joining::First, submit), |_| ());
        if n % 2 == 0 {
            client.must(&["DEL", &format!("{{ara}}:s:user:{user}")]);
        }
    }
    let (mut cursor, mut gone) = (0, 0);
    loop {
        let swept = driver.ask(|submit| sessions.sweep(cursor, submit), |reply| Swept::read(reply).expect("its shape"));
        (cursor, gone) = (swept.cursor, gone + swept.gone);
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(gone, 1_000);
    assert_eq!(shown(&mut client, &["SCARD", "{ara}:s:users"]), ["1000"]);
}
