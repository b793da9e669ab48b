//! Links to a real PostgreSQL server: who is let in, what is done and answered, and what becomes of it when the server
//! is killed, held, or comes back.
mod common;

use common::postgres::{LinkDriver, PostgresServer, link_config};
use std::collections::BTreeSet;
use storage::breaker::{BreakerConfig, BreakerState};
use storage::link::state::LinkState;
use storage::postgres::command::{Command, Statement};
use storage::postgres::status::LinkErrorKind;

const PUT: Statement = Statement { name: "put", sql: "INSERT INTO t (n) VALUES ($1::bigint) RETURNING n::text" };
const SLEEP: Statement = Statement { name: "sleep", sql: "SELECT pg_sleep($1::int)::text" };
const ONE: Statement = Statement { name: "one", sql: "SELECT 'one'::text" };

/// Generous: no test waits for it.
const LONG_MS: u32 = 600_000;

fn put(n: u64) -> Command {
    Command::new(&PUT, LONG_MS).int8(n as i64)
}

fn one() -> Command {
    Command::new(&ONE, LONG_MS)
}

/// A server with the table of [`PUT`].
fn server() -> PostgresServer {
    let server = PostgresServer::start();
    server.psql("CREATE TABLE t (n bigint PRIMARY KEY)");
    server
}

/// Numbers of the commands that ended in these words.
fn numbers(heard: &[(u64, String)], words: &str) -> Vec<u64> {
    heard.iter().filter(|(_, heard)| heard.starts_with(words)).map(|(number, _)| *number).collect()
}

fn stored(server: &PostgresServer) -> BTreeSet<u64> {
    server.psql("SELECT n FROM t").lines().map(|line| line.parse().unwrap()).collect()
}

#[test]
fn every_proof_that_a_server_asks_for_is_given_and_wrong_ones_are_named() {
    let mut server = PostgresServer::start();
    server.psql(
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram LOGIN PASSWORD 'p@ss é'; CREATE ROLE clear LOGIN PASSWORD 'pw';
         SET password_encryption = 'md5'; CREATE ROLE old LOGIN PASSWORD 'pw'; CREATE ROLE nobody NOLOGIN",
    );
    server.write(
        "data/pg_hba.conf",
        "host all scram 127.0.0.1/32 scram-sha-256\nhost all old 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\n\
         host all postgres,nobody 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 reject\n",
    );
    server.kill();
    server.restart();
    for who in ["scram:p%40ss%20%C3%A9", "old:pw", "clear:pw", "postgres", "postgres:unasked"] {
        let mut driver = LinkDriver::to(&server.url_as(who, ""));
        driver.until_healthy(1);
        assert_eq!(driver.ask(one()), ["row one", "done 1"], "{who}");
        assert_eq!(
            (driver.status().ends, driver.status().encrypted),
            (0, false),
            "{who}: sslmode=prefer goes on in plain"
        );
    }
    let refused = [
        ("scram:wrong", "", LinkErrorKind::Auth),
        ("scram", "", LinkErrorKind::Auth),
        ("old:wrong", "", LinkErrorKind::Auth),
        ("old", "", LinkErrorKind::Auth),
        ("clear:wrong", "", LinkErrorKind::Auth),
        ("clear", "", LinkErrorKind::Auth),
        ("nobody", "", LinkErrorKind::Auth),
        ("stranger:x", "", LinkErrorKind::Auth),
        ("postgres", "no_such_database", LinkErrorKind::Database),
        ("postgres", "?sslmode=require", LinkErrorKind::Tls),
    ];
    for (who, more, kind) in refused {
        let mut config = link_config(&server.url_as(who, more));
        config.breaker = BreakerConfig { failure_threshold: 1, ..config.breaker };
        let mut driver = LinkDriver::new(config);
        driver.submit(1, one());
        driver.until("it was tried twice", |d| d.status().ends >= 2);
        assert_eq!(driver.status().last_error, Some(kind), "{who} {more}");
        assert_eq!(driver.status().breaker, BreakerState::Closed, "{who} {more}: the server is there");
        assert_eq!(Vec::from(driver.heard), [(1, format!("not sent {}", kind.as_str()))]);
    }
}

#[test]
fn a_thousand_commands_are_done_in_order_over_one_connection() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    for n in 0..1_000 {
        driver.submit(n, put(n));
    }
    let heard = driver.hear(1_000);
    let expected: Vec<_> = (0..1_000).flat_map(|n| [(n, format!("row {n}")), (n, "done 1".to_owned())]).collect();
    assert_eq!(heard, expected);
    assert_eq!(server.psql("SELECT count(*), max(n) FROM t"), "1000|999");
    assert_eq!((driver.status().done, driver.status().connections, driver.status().outstanding), (1_000, 1, 0));
    assert_eq!(
        server.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ara-notification-service'"),
        "1"
    );
}

#[test]
fn more_than_may_be_in_flight_waits_its_turn() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    for n in 0..5_000 {
        driver.submit(n, put(n));
    }
    let heard = driver.hear(5_000);
    assert_eq!(numbers(&heard, "done"), (0..5_000).collect::<Vec<_>>());
}

#[test]
fn values_of_every_kind_come_back_as_they_went() {
    const ECHO: Statement = Statement {
        name: "echo",
        sql: "SELECT $1::text, $2::jsonb #>> '{a,0}', ($3::int4 + 1)::text, ($4::int8 - 1)::text, $5::uuid::text, \
              ($6::timestamptz AT TIME ZONE 'UTC')::text, encode($7::bytea, 'hex'), $8::text, (NOT $9::bool)::text, $10::date::text",
    };
    let server = PostgresServer::start();
    let mut driver = LinkDriver::to(&server.url());
    let uuid = *b"\x01\x8f\0\0\0\0\x70\0\x80\0\0\0\0\0\0\x07";
    let echo = Command::new(&ECHO, LONG_MS)
        .text("é\n'\"\\;--")
        .jsonb(br#"{"a":["x"]}"#)
        .int4(-2)
        .int8(i64::MIN + 1)
        .uuid(uuid)
        .timestamp(1_767_323_045_123_456_789)
        .bytes(b"\0\xff")
        .null()
        .boolean(false)
        .literal("2026-01-02");
    let row = "row é\n'\"\\;--|x|-1|-9223372036854775808|018f0000-0000-7000-8000-000000000007|2026-01-02 03:04:05.123456|00ff|NULL|true|2026-01-02";
    assert_eq!(driver.ask(echo), [row, "done 1"]);
    const BACK: Statement =
        Statement { name: "back", sql: "SELECT $1::timestamptz, $2::uuid, $3::jsonb, $4::int8, $5::bool, $6::int4" };
    let command = Command::new(&BACK, LONG_MS)
        .timestamp(1_767_323_045_123_456_789)
        .uuid(uuid)
        .jsonb(b"[1]")
        .int8(-7)
        .boolean(true)
        .int4(7);
    let mut seen = false;
    driver.link.submit(storage::postgres::reply::Ticket { number: 1, order: None }, command).unwrap();
    while driver.status().done < 2 {
        let (readable, writable) = driver.wait();
        let now = driver.now();
        driver.wants = driver.link.turn(now, readable, writable, &mut |_, reply| {
            if let storage::postgres::reply::Reply::Row(row) = reply {
                assert_eq!((row.timestamp(0), row.uuid(1)), (Some(1_767_323_045_123_456_000), Some(uuid)));
                assert_eq!(
                    (row.jsonb(2), row.int8(3), row.boolean(4), row.int4(5)),
                    (Some(&b"[1]"[..]), Some(-7), Some(true), Some(7))
                );
                seen = true;
            }
        });
    }
    assert!(seen);
}

#[test]
fn a_megabyte_goes_and_comes_and_many_rows_do() {
    const LONG: Statement = Statement { name: "long", sql: "SELECT $1::text FROM generate_series(1, 3)" };
    const MANY: Statement = Statement { name: "many", sql: "SELECT n::text FROM generate_series(1, 100000) n" };
    let server = PostgresServer::start();
    let mut driver = LinkDriver::to(&server.url());
    let text = "x".repeat(1_000_000);
    let heard = driver.ask(Command::new(&LONG, LONG_MS).text(&text));
    let row = format!("row {text}");
    assert!(heard == [row.as_str(), &row, &row, "done 3"]);
    let heard = driver.ask(Command::new(&MANY, LONG_MS));
    assert_eq!((heard.len(), heard[99_999].as_str(), heard[100_000].as_str()), (100_001, "row 100000", "done 100000"));
    const HUGE: Statement = Statement { name: "huge", sql: "SELECT repeat('x', 5000000)" };
    assert_eq!(driver.ask(Command::new(&HUGE, LONG_MS)), ["unknown protocol"], "a row over the bound ends the link");
    driver.until_healthy(2);
    assert_eq!(driver.ask(one()), ["row one", "done 1"]);
}

#[test]
fn what_the_server_refuses_to_do_is_no_trouble_of_the_connection() {
    const MISSING: Statement = Statement { name: "missing", sql: "SELECT n::text FROM later" };
    const BROKEN: Statement = Statement { name: "broken", sql: "SELEKT" };
    const SCRIPT: &str = "CREATE TABLE half (n int); SELECT 1/0";
    let server = server();
    server.psql(
        "CREATE ROLE reader LOGIN; GRANT ALL ON t TO reader; ALTER ROLE reader SET default_transaction_read_only = on",
    );
    let mut config = link_config(&server.url_as("reader", "?sslmode=disable"));
    config.breaker = BreakerConfig { failure_threshold: 1, ..config.breaker };
    let mut reader = LinkDriver::new(config);
    for n in 0..10 {
        assert_eq!(reader.ask(put(n)), ["failed 25006"]);
    }
    assert_eq!((reader.status().breaker, reader.status().ends, reader.status().failed), (BreakerState::Closed, 0, 10));

    let mut config = link_config(&server.url());
    config.breaker = BreakerConfig { failure_threshold: 1, ..config.breaker };
    let mut driver = LinkDriver::new(config);
    let commands = [
        put(1),
        put(1),
        Command::new(&MISSING, LONG_MS),
        Command::new(&MISSING, LONG_MS),
        Command::new(&BROKEN, LONG_MS),
        Command::new(&PUT, LONG_MS).text("not eight bytes"),
        Command::new(&PUT, LONG_MS),
        Command::script(SCRIPT, LONG_MS),
        put(2),
    ];
    for (number, command) in commands.into_iter().enumerate() {
        driver.submit(number as u64, command);
    }
    let heard = driver.hear(9).into_iter().filter(|(_, words)| !words.starts_with("row")).map(|(_, words)| words);
    let expected = [
        "done 1",
        "failed 23505",
        "failed 42P01",
        "failed 42P01",
        "failed 42601",
        "failed 22P03",
        "failed 08P01",
        "failed 22012",
        "done 1",
    ];
    assert_eq!(heard.collect::<Vec<_>>(), expected);
    assert_eq!(server.psql("SELECT to_regclass('half') IS NULL"), "t", "a script is done whole or not at all");
    server.psql("CREATE TABLE later (n int); INSERT INTO later VALUES (7)");
    assert_eq!(driver.ask(Command::new(&MISSING, LONG_MS)), ["row 7", "done 1"], "prepared again");
    assert_eq!((driver.status().breaker, driver.status().ends), (BreakerState::Closed, 0));
}

#[test]
fn a_script_that_leaves_its_transaction_open_ends_the_link() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.submit(1, Command::script("BEGIN; INSERT INTO t VALUES (1)", LONG_MS));
    driver.submit(2, put(2));
    let heard = driver.hear(2);
    assert_eq!(heard, [(1, "unknown protocol".to_owned()), (2, "unknown protocol".to_owned())]);
    driver.until_healthy(2);
    assert_eq!(driver.ask(one()), ["row one", "done 1"]);
}

#[test]
fn a_server_killed_in_the_middle_leaves_no_doubt_about_what_was_answered() {
    let mut server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.until_healthy(1);
    for n in 0..4_000 {
        driver.submit(n, put(n));
    }
    driver.until("some are done", |d| d.status().done >= 500);
    server.kill();
    let heard = driver.hear(4_000);
    let (done, unknown, not_sent) = (numbers(&heard, "done"), numbers(&heard, "unknown"), numbers(&heard, "not sent"));
    assert_eq!(done.len() + unknown.len() + not_sent.len(), 4_000, "each is answered once");
    let ends: Vec<_> = [&done[..], &unknown, &not_sent].concat();
    assert_eq!(ends, (0..4_000).collect::<Vec<_>>(), "in order");
    assert!(!unknown.is_empty() && !not_sent.is_empty(), "{} unknown, {} not sent", unknown.len(), not_sent.len());

    server.restart();
    driver.until_healthy(2);
    let stored = stored(&server);
    assert!(done.iter().all(|n| stored.contains(n)), "what was done is there");
    assert!(not_sent.iter().all(|n| !stored.contains(n)), "what was not sent is not");
    assert_eq!(driver.ask(put(5_000)), ["row 5000", "done 1"]);
    let status = driver.status();
    assert_eq!((status.unknown, status.not_sent), (unknown.len() as u64, not_sent.len() as u64));
}

#[test]
fn a_server_that_stands_still_fails_the_late_command_and_is_found_again() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.until_healthy(1);
    assert_eq!(driver.ask(put(1)), ["row 1", "done 1"]);
    server.hold();
    driver.submit(2, Command::new(&PUT, 5_000).int8(2));
    driver.submit(3, put(3));
    driver.turn(false, true);
    driver.skip_ms(4_000);
    assert_eq!(driver.heard.len(), 0, "it has a second left");
    driver.skip_ms(2_000);
    assert_eq!(
        Vec::from(std::mem::take(&mut driver.heard)),
        [(2, "unknown late".to_owned()), (3, "unknown late".to_owned())]
    );
    assert_eq!(
        (driver.status().link, driver.status().last_error),
        (LinkState::Reconnecting, Some(LinkErrorKind::Late))
    );
    // The kernel takes connections for it; nobody answers, and what waits is late before it is sent.
    driver.until("it tries again", |d| d.wants.socket.is_some() && !d.wants.write);
    driver.submit(4, Command::new(&PUT, 1_000).int8(4));
    driver.turn(false, false);
    driver.skip_ms(1_000);
    assert_eq!(Vec::from(std::mem::take(&mut driver.heard)), [(4, "not sent too late".to_owned())]);
    server.release();
    driver.until_healthy(2);
    assert_eq!(driver.ask(put(5)), ["row 5", "done 1"]);
    assert!(!stored(&server).contains(&4));
}

#[test]
fn an_owner_that_stood_still_reads_before_it_judges() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.until_healthy(1);
    for n in 0..100 {
        driver.submit(n, Command::new(&PUT, 1_000).int8(n as i64));
    }
    driver.turn(false, true);
    // The answers lie there while an hour passes here.
    let mut answers = 0;
    while answers < 100 {
        driver.wait();
        let mut lying = [0; 64 * 1024];
        let socket = driver.link.socket().expect("it is connected");
        if let Ok((_, bytes)) = rustix::net::recv(socket, &mut lying[..], rustix::net::RecvFlags::PEEK) {
            answers = lying[..bytes].windows(6).filter(|window| *window == b"Z\0\0\0\x05I").count();
        }
    }
    driver.skip_ms(3_600_000);
    assert_eq!(numbers(&driver.hear(100), "done").len(), 100);
}

#[test]
fn a_command_that_takes_long_is_no_silence() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.until_healthy(1);
    driver.submit(1, Command::new(&SLEEP, LONG_MS).int4(1));
    driver.turn(false, true);
    driver.skip_ms(500_000);
    assert_eq!(driver.hear(1).last().unwrap().1, "done 1");
    assert_eq!(driver.status().ends, 0);
}

#[test]
fn a_session_that_the_server_ends_is_made_anew() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.until_healthy(1);
    assert_eq!(driver.ask(put(1)), ["row 1", "done 1"]);
    server.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ara-notification-service'",
    );
    driver.until("it ended", |d| d.status().ends == 1);
    assert_eq!(driver.status().last_error, Some(LinkErrorKind::Closed));
    driver.until_healthy(2);
    assert_eq!(driver.ask(put(2)), ["row 2", "done 1"], "prepared on the new connection, too");
}

#[test]
fn the_breaker_opens_answers_at_once_and_closes_when_the_server_proved_itself() {
    let mut server = PostgresServer::prepare();
    let mut config = link_config(&server.url());
    config.breaker = BreakerConfig { failure_threshold: 3, success_threshold: 2, reset_timeout_ms: 3_600_000 };
    let mut driver = LinkDriver::new(config);
    driver.submit(1, one());
    driver.until("it opened", |d| d.status().link == LinkState::CircuitOpen);
    assert_eq!((driver.status().breaker, driver.status().failures), (BreakerState::Open, 3));
    assert_eq!(driver.heard.pop_front(), Some((1, "not sent connect".to_owned())));
    driver.submit(2, one());
    driver.turn(false, false);
    assert_eq!(driver.heard.pop_front(), Some((2, "not sent connect".to_owned())));
    server.restart();
    driver.skip_ms(3_600_000);
    driver.until("it is closed", |d| d.status().breaker == BreakerState::Closed);
    assert_eq!(driver.status().link, LinkState::Healthy);
    assert_eq!(driver.ask(one()), ["row one", "done 1"]);
}

#[test]
fn a_quiet_link_is_asked_for_a_sign_of_life() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.until_healthy(1);
    for _ in 0..3 {
        driver.skip_ms(60_000);
        while !driver.wait().0 {}
        driver.turn(true, false);
    }
    assert_eq!(driver.status().ends, 0);
    server.hold();
    driver.skip_ms(60_000);
    driver.skip_ms(60_000);
    assert_eq!(driver.status().last_error, Some(LinkErrorKind::Silent));
    server.release();
    driver.until_healthy(2);
}

#[test]
fn a_stopped_link_says_good_bye_and_answers_everything() {
    let server = server();
    let mut driver = LinkDriver::to(&server.url());
    driver.until_healthy(1);
    driver.submit(1, Command::new(&SLEEP, LONG_MS).int4(600));
    driver.turn(false, true);
    driver.submit(2, one());
    driver.stop();
    assert_eq!(
        Vec::from(std::mem::take(&mut driver.heard)),
        [(1, "unknown stopped".to_owned()), (2, "not sent stopped".to_owned())]
    );
    driver.submit(3, one());
    driver.turn(true, true);
    assert_eq!(driver.heard.pop_front(), Some((3, "not sent stopped".to_owned())));
    assert!(driver.link.socket().is_none() && driver.wants.wake_at_us.is_none());
}
