//! The store and a server that goes away, stands still, forgets its tables, or takes no changes.
mod common;

use common::postgres::{LinkDriver, PostgresServer, StoreDriver, store_config};
use protocol::ids::{NotificationId, TenantId, uuid_v7};
use protocol::store::{Mail, MailboxKey, Position, StoreReply, StoreRequest};
use protocol::stream::StreamSeq;
use rustix::process::{Pid, Signal, kill_process};
use std::sync::Arc;
use storage::link::state::LinkState;
use storage::postgres::command::Command;

fn mailbox() -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: "ana".into() })
}

fn append(n: u64) -> StoreRequest {
    let id = NotificationId(uuid_v7(n, [7; 10]));
    let event = format!(
        r#"{{"id":"{id}","occurred_at":"t","event_type":"e","payload":{n},"metadata":{{"source":"s","priority":"Low"}}}}"#
    );
    let mail = Mail {
        id,
        event: event.into_bytes().into(),
        queued_at_unix_ns: common::since_epoch_ns(),
        expires_at_unix_ns: u64::MAX,
        attempts: 0,
        stream: StreamSeq { epoch: 1, seq: n },
    };
    StoreRequest::AppendMail { mailbox: mailbox(), mail: vec![mail], claim: None }
}

fn read() -> StoreRequest {
    StoreRequest::ReadMail { mailbox: mailbox(), after: None, entries_max: 99, lingering_ms: 0 }
}

fn numbers(reply: &StoreReply) -> Vec<u64> {
    match reply {
        StoreReply::Mail { entries, next: None } => entries.iter().map(|entry| entry.mail.stream.seq).collect(),
        other => panic!("{other:?}"),
    }
}

fn is_kept(reply: &StoreReply) -> bool {
    matches!(reply, StoreReply::Appended { positions, dropped: 0, .. } if positions.len() == 1)
}

/// Asks until it is done: while the link is down the answer is that it was not.
fn insist(driver: &mut StoreDriver, request: &StoreRequest) -> StoreReply {
    for _ in 0..1_000 {
        match driver.ask(request.clone()) {
            StoreReply::Failed => driver.step(),
            reply => return reply,
        }
    }
    panic!("not done in a thousand trials: {:?}", driver.figures);
}

#[test]
fn what_was_confirmed_is_there_after_the_server_was_killed() {
    let mut server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    assert!(is_kept(&driver.ask(append(1))));
    server.kill();
    driver.until("the links noticed", |d| d.figures.link() != LinkState::Healthy);
    let while_down = driver.submit(append(2));
    driver.skip_ms(700_000);
    assert!(matches!(driver.answer(while_down), StoreReply::Failed), "its time was over");
    assert!(!driver.figures.is_well());
    server.restart();
    assert!(is_kept(&insist(&mut driver, &append(3))));
    assert_eq!(numbers(&insist(&mut driver, &read())), [1, 3]);
    driver.until("it is well", |d| d.figures.is_well());
    assert_eq!(driver.figures.outstanding.get(), 0);
}

#[test]
fn requests_before_the_first_connection_wait_for_the_tables_in_their_own_time() {
    let mut server = PostgresServer::prepare();
    let mut driver = StoreDriver::to(&server);
    let early = driver.submit(append(1));
    let late = driver.submit(read());
    driver.step();
    assert!(driver.replies.is_empty());
    server.restart();
    assert!(is_kept(&driver.answer(early)));
    assert_eq!(numbers(&driver.answer(late)), [1]);
    let mut nowhere = StoreDriver::to(&PostgresServer::prepare());
    let lost = nowhere.submit(append(1));
    nowhere.skip_ms(600_001);
    assert!(matches!(nowhere.answer(lost), StoreReply::Failed));
}

/// The server's process that waits for a lock.
fn waiting_backend(server: &PostgresServer) -> Option<Pid> {
    let pid = server.psql("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%kept AS%'");
    Pid::from_raw(pid.parse().ok()?)
}

#[test]
fn nothing_of_a_lost_connection_is_done_behind_what_follows() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    assert!(is_kept(&driver.ask(append(1))));
    // The next append stands still in the middle: it waits for the table, and is stopped on top of that.
    let mut holder = LinkDriver::to(&server.url());
    let lock = "LOCK TABLE notification_queue IN EXCLUSIVE MODE; SELECT pg_sleep(600)";
    holder.submit(1, Command::script(lock, 600_000));
    let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    holder.until("the table is held", |_| server.psql(held) == "1");
    let first = driver.submit(append(2));
    let second = driver.submit(append(3));
    let mut waiting = None;
    driver.until("it waits for the table", |_| {
        waiting = waiting_backend(&server);
        waiting.is_some()
    });
    let backend = waiting.unwrap();
    kill_process(backend, Signal::STOP).unwrap();
    driver.skip_ms(700_000);
    assert!(matches!(driver.answer(first), StoreReply::Unknown));
    assert!(matches!(driver.answer(second), StoreReply::Unknown));
    server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    // The link is back, and takes nothing while that process could still go on.
    let third = driver.submit(append(4));
    let asked = "SELECT count(*) FROM pg_stat_activity
        WHERE state = 'active' AND query LIKE '%pg_terminate_backend(pid, $3%' AND pid <> pg_backend_pid()";
    driver.until("it has the process ended", |_| server.psql(asked) == "1");
    for _ in 0..20 {
        driver.step();
    }
    assert!(driver.replies.is_empty(), "{:?}", driver.replies);
    kill_process(backend, Signal::CONT).unwrap();
    assert!(is_kept(&driver.answer(third)));
    let kept = numbers(&driver.ask(read()));
    assert_eq!(kept.last(), Some(&4), "{kept:?}");
    assert!(kept.is_sorted(), "{kept:?}");
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", backend.as_raw_nonzero());
    assert_eq!(server.psql(&gone), "0");
    assert_eq!(numbers(&driver.ask(read())), kept, "nothing came later");
}

#[test]
fn a_server_that_stands_still_is_left_and_found_again() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    assert!(is_kept(&driver.ask(append(1))));
    server.hold();
    let lost = driver.submit(append(2));
    driver.step();
    driver.skip_ms(700_000);
    assert!(matches!(driver.answer(lost), StoreReply::Unknown));
    // The link of the chores asks for a sign of life, and then gives up, too.
    driver.skip_ms(61_000);
    driver.skip_ms(61_000);
    assert!(!driver.figures.is_well());
    server.release();
    assert!(is_kept(&insist(&mut driver, &append(3))));
    let kept = numbers(&insist(&mut driver, &read()));
    assert!(kept == [1, 3] || kept == [1, 2, 3], "{kept:?}");
}

#[test]
fn a_server_that_takes_no_changes_is_still_read() {
    let server = PostgresServer::start();
    server.psql("CREATE ROLE ara LOGIN SUPERUSER");
    let mut driver = StoreDriver::new(store_config(&server.url_as("ara", "?sslmode=disable")));
    let throw_out = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'ara'";
    assert!(is_kept(&driver.ask(append(1))));
    server.psql("ALTER ROLE ara SET default_transaction_read_only = on");
    driver.until("both links are there", |d| d.figures.connections.get() == 2);
    assert_eq!(server.psql(throw_out), "2");
    driver.until("they are there again", |d| d.figures.connections.get() == 4);
    for _ in 0..2 {
        assert_eq!(numbers(&driver.ask(read())), [1]);
    }
    assert!(matches!(driver.ask(append(2)), StoreReply::Failed));
    let remove = StoreRequest::RemoveMail { mailbox: mailbox(), positions: vec![Position(1, 0)], lingers: false };
    assert!(matches!(driver.ask(remove), StoreReply::Failed));
    assert!(driver.figures.link() == LinkState::Healthy && !driver.figures.is_well());
    // A start of its own finds the tables as well.
    let mut next = StoreDriver::new(store_config(&server.url_as("ara", "?sslmode=disable")));
    assert_eq!(numbers(&next.ask(read())), [1]);
    drop(next);
    server.psql("ALTER ROLE ara RESET default_transaction_read_only");
    server.psql(throw_out);
    driver.until("they are there once more", |d| d.figures.connections.get() == 6);
    // Nobody asks: it looks by itself.
    driver.skip_ms(10_000);
    driver.until("it takes changes again", |d| d.figures.is_well());
    assert!(is_kept(&driver.ask(append(3))));
}

#[test]
fn tables_that_are_taken_away_are_made_again() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    assert!(is_kept(&driver.ask(append(1))));
    server.psql("DROP TABLE notification_queue, notification_queue_stats, notification_acks");
    assert!(matches!(driver.ask(append(2)), StoreReply::Failed));
    assert!(!driver.figures.is_well());
    assert!(is_kept(&driver.ask(append(3))), "it waits for the tables");
    assert_eq!(numbers(&driver.ask(read())), [3]);
    assert!(driver.figures.is_well());
}

#[test]
fn a_role_that_may_not_make_tables_waits_for_somebody_who_does() {
    let server = PostgresServer::start();
    server.psql("CREATE ROLE ara LOGIN");
    let mut config = store_config(&server.url_as("ara", "?sslmode=disable"));
    config.templates = false;
    let mut driver = StoreDriver::new(config);
    let early = driver.submit(append(1));
    driver.until("it was refused", |d| d.figures.link() == LinkState::Healthy && !d.figures.is_well());
    let mut owner = StoreDriver::to(&server);
    assert_eq!(numbers(&owner.ask(read())), [0; 0]);
    server.psql(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ara;
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ara",
    );
    driver.skip_ms(1_000);
    assert!(is_kept(&driver.answer(early)));
    assert_eq!(numbers(&owner.ask(read())), [1]);
    server.psql("REVOKE INSERT ON notification_queue FROM ara");
    assert!(matches!(driver.ask(append(2)), StoreReply::Failed));
    assert!(!driver.figures.is_well());
    assert!(matches!(driver.ask(StoreRequest::LoadTemplates), StoreReply::Failed), "it keeps none");
}

#[test]
fn whoever_is_not_let_in_answers_that_nothing_was_done() {
    let mut server = PostgresServer::prepare();
    server.write("data/pg_hba.conf", "host all all 127.0.0.1/32 reject\n");
    server.restart();
    let mut driver = StoreDriver::to(&server);
    let refused = driver.submit(append(1));
    driver.until("it tried", |d| d.figures.link() != LinkState::Healthy);
    driver.skip_ms(600_001);
    assert!(matches!(driver.answer(refused), StoreReply::Failed));
    assert!(!driver.figures.is_well());
}
