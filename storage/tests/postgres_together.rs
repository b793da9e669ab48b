//! Commands that share a transaction against a real server: one commit for all, and nobody's failure but one's own.
mod common;

use common::postgres::{LinkDriver, PostgresServer, link_config};
use protocol::limits::{POSTGRES_BATCH_BYTES_MAX, POSTGRES_BATCH_COMMANDS_MAX, POSTGRES_CONFLICTS_MAX};
use storage::postgres::command::{Command, Statement};

const LONG_MS: u32 = 600_000;
const GUARD: Statement =
    Statement { name: "guard", sql: "SELECT count(pg_advisory_xact_lock(key)) FROM unnest($1::int8[]) AS key" };
/// Each row knows its transaction.
const PUT: Statement =
    Statement { name: "put", sql: "INSERT INTO t (n, text) VALUES ($1::int8, $2::text) RETURNING n::text" };
const PUT_LATE: Statement = Statement { name: "put_late", sql: "INSERT INTO late (n) VALUES ($1::int8)" };
const ADD: Statement = Statement { name: "add", sql: "UPDATE t SET sum = sum + 1 WHERE n = $1::int8" };
/// Waits for whoever holds the gate.
const GATE: Statement = Statement { name: "gate", sql: "SELECT pg_advisory_xact_lock_shared(99)::text" };
const CONFLICT: Statement = Statement { name: "conflict", sql: "SELECT conflict($1::int8)::text" };

fn server() -> PostgresServer {
    let server = PostgresServer::start_with(&["deadlock_timeout=10ms"]);
    server.psql(
        "CREATE TABLE t (id bigserial, n bigint PRIMARY KEY, text text, sum int NOT NULL DEFAULT 0,
                         tx xid8 DEFAULT pg_current_xact_id());
         CREATE TABLE late (id bigserial, n bigint UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE SEQUENCE trials;
         CREATE FUNCTION conflict(trials int8) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN
             IF nextval('trials') < trials THEN RAISE EXCEPTION 'again' USING ERRCODE = 'serialization_failure'; END IF;
             RETURN 'in peace';
         END $$",
    );
    server
}

fn driver(server: &PostgresServer) -> LinkDriver {
    let mut config = link_config(&server.url());
    config.guard = Some(&GUARD);
    let mut driver = LinkDriver::new(config);
    driver.until_healthy(1);
    driver
}

fn put_text(n: u64, text: &str) -> Command {
    Command::new(&PUT, LONG_MS).int8(n as i64).text(text).shared(n as i64 % 7)
}

fn put(n: u64) -> Command {
    put_text(n, "")
}

/// The ends of commands, in the order they came.
fn ends(heard: &[(u64, String)]) -> Vec<(u64, &str)> {
    let is_end = |words: &str| !words.starts_with("row") && words != "again";
    heard.iter().filter(|(_, words)| is_end(words)).map(|(number, words)| (*number, words.as_str())).collect()
}

/// Closes the gate, and opens it when it is dropped.
fn close_gate(server: &PostgresServer) -> LinkDriver {
    let mut holder = LinkDriver::to(&server.url());
    assert_eq!(holder.ask(Command::script("SELECT pg_advisory_lock(99)", LONG_MS)), ["row ", "done 1"]);
    holder
}

fn waiting(server: &PostgresServer) -> String {
    server.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'")
}

#[test]
fn what_waits_goes_together_as_far_as_the_bounds_allow_and_one_alone_goes_at_once() {
    let server = server();
    let mut driver = driver(&server);
    let transactions = "SELECT string_agg(count::text, ' ' ORDER BY tx)
        FROM (SELECT tx, count(*) FROM t GROUP BY tx) AS transactions";
    assert_eq!(driver.ask(put(1_000)), ["row 1000", "done 1"]);
    let all = 2 * POSTGRES_BATCH_COMMANDS_MAX as u64 + 2;
    for n in 0..all {
        driver.submit(n, put(n));
    }
    let heard = driver.hear(all as usize);
    assert_eq!(ends(&heard), (0..all).map(|n| (n, "done 1")).collect::<Vec<_>>());
    let rows = heard.iter().filter(|(n, words)| *words == format!("row {n}")).count();
    assert_eq!((rows as u64, driver.status().done), (all, all + 1));
    assert_eq!(server.psql(transactions), format!("1 {POSTGRES_BATCH_COMMANDS_MAX} {POSTGRES_BATCH_COMMANDS_MAX} 2"));
    assert_eq!(server.psql("SELECT array_agg(n ORDER BY id) = array_agg(n ORDER BY n) FROM t WHERE n < 1000"), "t");
    server.psql("TRUNCATE t");
    let long = "x".repeat(POSTGRES_BATCH_BYTES_MAX / 3);
    for n in 0..4 {
        driver.submit(n, put_text(n, &long));
    }
    // Longer than the bound, and one that shares nothing: each is taken, alone.
    driver.submit(4, put_text(4, &long.repeat(4)));
    driver.submit(5, Command::new(&PUT, LONG_MS).int8(5).text("").locked(5));
    driver.submit(6, put(6));
    let heard = driver.hear(7);
    assert_eq!(ends(&heard), (0..7).map(|n| (n, "done 1")).collect::<Vec<_>>());
    assert_eq!(server.psql(transactions), "2 2 1 1 1");
}

#[test]
fn one_that_fails_does_so_alone_and_its_neighbours_are_done_in_order() {
    let server = server();
    let mut driver = driver(&server);
    for bad in [vec![0], vec![20], vec![39], vec![3, 4, 20, 38], (0..40).collect()] {
        server.psql("TRUNCATE t; INSERT INTO t (n) VALUES (1000)");
        let command = |n| if bad.contains(&n) { put(1_000) } else { put(n) };
        for n in 0..40 {
            driver.submit(n, command(n));
        }
        let heard = driver.hear(40);
        let expected: Vec<_> = (0..40).map(|n| (n, if bad.contains(&n) { "failed 23505" } else { "done 1" })).collect();
        assert_eq!(ends(&heard), expected);
        for n in (0..40).filter(|n| !bad.contains(n)) {
            let words: Vec<_> = heard.iter().filter(|(number, _)| *number == n).map(|(_, words)| words).collect();
            let counts = words.iter().rev().take_while(|words| **words != "again").count();
            assert_eq!(counts, 2, "a row that counts and an end: {words:?}");
        }
        let kept = server.psql("SELECT string_agg(n::text, ' ' ORDER BY id) FROM t WHERE n < 1000");
        let good: Vec<_> = (0..40).filter(|n| !bad.contains(n)).map(|n| n.to_string()).collect();
        assert_eq!(kept, good.join(" "));
    }
    assert_eq!(driver.status().connections, 1);
}

#[test]
fn a_commit_that_fails_is_nobodys_until_somebody_fails_alone() {
    let server = server();
    let mut driver = driver(&server);
    for n in 0..20 {
        // 13 comes as 5 once more.
        let value = if n == 13 { 5 } else { n as i64 };
        driver.submit(n, Command::new(&PUT_LATE, LONG_MS).int8(value).shared(1));
    }
    let heard = driver.hear(20);
    let expected: Vec<_> = (0..20).map(|n| (n, if n == 13 { "failed 23505" } else { "done 1" })).collect();
    assert_eq!(ends(&heard), expected);
    assert_eq!(server.psql("SELECT count(*), array_agg(n ORDER BY id) = array_agg(n ORDER BY n) FROM late"), "19|t");
}

#[test]
fn a_deadlock_between_two_links_fails_nobody() {
    let server = server();
    server.psql("INSERT INTO t (n) VALUES (1), (2)");
    let gate = close_gate(&server);
    let links = [[1, 2], [2, 1]].map(|[first, second]| {
        let mut config = link_config(&server.url());
        // With a guard it would not come to this.
        config.guard = None;
        let mut driver = LinkDriver::new(config);
        driver.until_healthy(1);
        let add = |n| Command::new(&ADD, LONG_MS).int8(n).shared(n);
        driver.submit(1, add(first));
        driver.submit(2, Command::new(&GATE, LONG_MS).shared(99));
        driver.submit(3, add(second));
        driver
    });
    let [mut one, mut two] = links;
    one.until("it waits at the gate", |_| waiting(&server) == "1");
    two.until("both wait at the gate", |_| waiting(&server) == "2");
    drop(gate);
    two.until("one of them was taken back and both are done", |_| {
        one.step();
        server.psql("SELECT string_agg(sum::text, ' ') FROM t") == "2 2"
    });
    let heard = [one.hear(3), two.hear(3)];
    for heard in &heard {
        assert_eq!(ends(heard), [(1, "done 1"), (2, "done 1"), (3, "done 1")]);
    }
    assert!(heard.iter().flatten().any(|(_, words)| words == "again"), "{heard:?}");
}

#[test]
fn a_conflict_of_one_that_is_alone_is_tried_again_a_few_times() {
    let server = server();
    let mut driver = driver(&server);
    let conflict = |trials| Command::new(&CONFLICT, LONG_MS).int8(trials).shared(1);
    assert_eq!(driver.ask(conflict(3)), ["again", "again", "row in peace", "done 1"]);
    let heard = driver.ask(conflict(i64::MAX));
    assert_eq!(heard.len() as u32, POSTGRES_CONFLICTS_MAX + 1);
    assert_eq!(heard.last().unwrap(), "failed 40001");
    assert_eq!(driver.status().outstanding, 0);
}

#[test]
fn of_a_transaction_whose_end_was_not_seen_nobody_knows_and_the_next_was_not_begun() {
    let mut server = server();
    let mut driver = driver(&server);
    let gate = close_gate(&server);
    driver.submit(1, put(1));
    driver.submit(2, Command::new(&GATE, LONG_MS).shared(99));
    driver.submit(3, put(3));
    driver.until("it waits at the gate", |_| waiting(&server) == "1");
    driver.submit(4, put(4));
    driver.step();
    server.kill();
    let heard = driver.hear(4);
    drop(gate);
    let closed = "unknown closed";
    assert_eq!(ends(&heard), [(1, closed), (2, closed), (3, closed), (4, "not sent closed")]);
    server.restart();
    driver.until_healthy(2);
    assert_eq!(server.psql("SELECT count(*) FROM t"), "0");
    assert_eq!(driver.ask(put(5)), ["row 5", "done 1"]);
}

#[test]
fn what_was_confirmed_before_the_server_was_killed_is_there_and_what_was_not_sent_is_not() {
    let mut server = server();
    let mut driver = driver(&server);
    for n in 0..4_000 {
        driver.submit(n, put(n));
    }
    driver.until("some are done", |d| d.status().done >= 500);
    server.kill();
    let heard = driver.hear(4_000);
    let ends = ends(&heard);
    assert!(ends.iter().map(|(n, _)| *n).eq(0..4_000), "each once, in order");
    server.restart();
    let stored = server.psql("SELECT n FROM t");
    let stored: std::collections::HashSet<u64> = stored.lines().map(|n| n.parse().unwrap()).collect();
    let mut unknown = Vec::new();
    for (n, words) in ends {
        match words {
            "done 1" => assert!(stored.contains(&n), "{n}"),
            "not sent closed" => assert!(!stored.contains(&n), "{n}"),
            _ => unknown.push(stored.contains(&n)),
        }
    }
    assert!(unknown.len() <= POSTGRES_BATCH_COMMANDS_MAX, "one transaction at most: {}", unknown.len());
    assert!(unknown.iter().all(|kept| *kept == unknown[0]), "wholly or not at all");
}

#[test]
fn what_was_taken_back_and_is_late_was_not_done() {
    let server = server();
    let mut driver = driver(&server);
    server.psql("INSERT INTO t (n) VALUES (1000)");
    let gate = close_gate(&server);
    driver.submit(1, Command::new(&GATE, LONG_MS).shared(99));
    driver.submit(2, put(1_000));
    driver.submit(3, Command::new(&PUT, 60_000).int8(3).text("").shared(3));
    driver.until("it waits at the gate", |_| waiting(&server) == "1");
    let mut next = LinkDriver::to(&server.url());
    next.submit(1, Command::script("SELECT pg_advisory_lock(99)", LONG_MS));
    next.until("somebody else is the next at the gate", |_| waiting(&server) == "2");
    drop(gate);
    driver.until("it was taken back", |d| d.heard.iter().any(|(n, words)| *n == 3 && words == "again"));
    driver.until("the first waits at the gate once more", |_| waiting(&server) == "1");
    driver.skip_ms(61_000);
    assert_eq!(ends(driver.heard.make_contiguous()), [(3, "not sent too late")]);
    drop(next);
    let heard = driver.hear(3);
    assert_eq!(ends(&heard), [(3, "not sent too late"), (1, "done 1"), (2, "failed 23505")]);
    assert_eq!(server.psql("SELECT count(*) FROM t"), "1");
}
