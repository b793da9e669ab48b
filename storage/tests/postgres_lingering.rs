//! What was delivered lingers: out of the mailbox, and there for the nodes that have not heard of it.
mod common;

use common::postgres::{PostgresServer, StoreDriver, store_config};
use protocol::ids::{NotificationId, TenantId, uuid_v7};
use protocol::limits::{POSTGRES_COMMIT_MS, STORE_LINGER_MS};
use protocol::store::{Age, Entry, Mail, MailboxKey, Position, StoreReply, StoreRequest};
use protocol::stream::StreamSeq;
use std::sync::Arc;
use storage::backend::Chores;
use storage::link::state::LinkState;

fn mailbox_of(tenant: &str, user: &str) -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::parse(tenant).unwrap(), user: user.into() })
}

fn ana() -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: "ana".into() })
}

fn mail_of(n: u64, payload: &str) -> Mail {
    let id = NotificationId(uuid_v7(n, [7; 10]));
    let event = format!(
        r#"{{"id":"{id}","occurred_at":"t","event_type":"e","payload":{payload},"metadata":{{"source":"s","priority":"Low"}}}}"#
    );
    let queued_at_unix_ns = common::since_epoch_ns() / 1_000 * 1_000;
    Mail {
        id,
        event: event.into_bytes().into(),
        queued_at_unix_ns,
        expires_at_unix_ns: queued_at_unix_ns + 3_600_000_000_000,
        attempts: 0,
        stream: StreamSeq { epoch: u64::MAX - 5, seq: n },
    }
}

fn mails(numbers: std::ops::RangeInclusive<u64>) -> Vec<Mail> {
    numbers.map(|n| mail_of(n, &n.to_string())).collect()
}

/// Where they stand, and what was put in before.
fn append(driver: &mut StoreDriver, mailbox: &Arc<MailboxKey>, mail: Vec<Mail>) -> (Vec<Position>, Option<Position>) {
    match driver.ask(StoreRequest::AppendMail { mailbox: Arc::clone(mailbox), mail, claim: None }) {
        StoreReply::Appended { positions, before, .. } => (positions, before),
        other => panic!("{other:?}"),
    }
}

fn remove(driver: &mut StoreDriver, mailbox: &Arc<MailboxKey>, positions: &[Position], lingers: bool) {
    let (mailbox, positions) = (Arc::clone(mailbox), positions.to_vec());
    let reply = driver.ask(StoreRequest::RemoveMail { mailbox, positions, lingers });
    assert!(matches!(reply, StoreReply::Done), "{reply:?}");
}

fn page(
    driver: &mut StoreDriver,
    mailbox: &Arc<MailboxKey>,
    after: Option<Position>,
    entries_max: usize,
    lingering_ms: u64,
) -> (Vec<Entry>, Option<Position>) {
    let mailbox = Arc::clone(mailbox);
    match driver.ask(StoreRequest::ReadMail { mailbox, after, entries_max, lingering_ms }) {
        StoreReply::Mail { entries, next } => (entries, next),
        other => panic!("{other:?}"),
    }
}

/// What is read at once: the number of each, and whether it is gone.
fn seen(driver: &mut StoreDriver, mailbox: &Arc<MailboxKey>, lingering_ms: u64) -> Vec<(u64, bool)> {
    let (entries, next) = page(driver, mailbox, None, 99, lingering_ms);
    assert_eq!(next, None);
    entries.iter().map(|entry| (entry.mail.stream.seq, entry.is_gone)).collect()
}

/// Makes everything so young that no test is too slow to find it lingering.
fn rejuvenate(server: &PostgresServer) {
    server.psql(
        "UPDATE notification_queue SET kept_at = clock_timestamp() + interval '1 h';
         UPDATE notification_queue_lately SET kept_at = clock_timestamp() + interval '1 h'",
    );
}

/// Takes mail out that lingers then, however slow the test is.
fn deliver(server: &PostgresServer, driver: &mut StoreDriver, mailbox: &Arc<MailboxKey>, positions: &[Position]) {
    rejuvenate(server);
    remove(driver, mailbox, positions, true);
    rejuvenate(server);
}

const LATELY: &str = "SELECT coalesce(string_agg(seq::text, ' ' ORDER BY id), '') FROM notification_queue_lately";

#[test]
fn what_is_delivered_lingers_in_its_place_for_who_asks() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let all = mails(1..=5);
    let (positions, _) = append(&mut driver, &ana(), all.clone());
    page(&mut driver, &ana(), None, 2, 0);
    deliver(&server, &mut driver, &ana(), &[positions[1], positions[3]]);
    remove(&mut driver, &ana(), &positions[4..], false);
    assert_eq!(seen(&mut driver, &ana(), 0), [(1, false), (3, false)]);
    for _ in 0..2 {
        let expected = [(1, false), (2, true), (3, false), (4, true)];
        assert_eq!(seen(&mut driver, &ana(), STORE_LINGER_MS), expected);
    }
    // Four readings of the first, and three of what stood behind it; what was gone stayed at what it was.
    let (entries, _) = page(&mut driver, &ana(), None, 9, 1_000);
    for (entry, (at, attempts)) in entries.iter().zip([(0, 5), (1, 1), (2, 4), (3, 0)]) {
        assert_eq!((entry.position, &entry.mail), (positions[at], &Mail { attempts, ..all[at].clone() }));
    }
    // Another node, which knows nothing.
    assert_eq!(seen(&mut StoreDriver::to(&server), &ana(), 1).len(), 4);
    remove(&mut driver, &ana(), &positions, true);
    assert_eq!(server.psql("SELECT sum(delivered) FROM notification_queue_stats"), "5", "each once");
}

#[test]
fn what_lingers_is_in_no_figure() {
    let server = PostgresServer::start();
    let mut config = store_config(&server.url());
    config.chores = Some(Chores { queue_interval_ms: 86_400_000, ack_interval_ms: 1_000, figures_interval_ms: 1 });
    let mut driver = StoreDriver::new(config);
    let (positions, _) = append(&mut driver, &ana(), mails(1..=4));
    let (bobs, _) = append(&mut driver, &mailbox_of("acme", "bob"), mails(5..=6));
    deliver(&server, &mut driver, &ana(), &positions[..1]);
    deliver(&server, &mut driver, &mailbox_of("acme", "bob"), &bobs);
    assert_eq!(seen(&mut driver, &mailbox_of("acme", "bob"), 1), [(5, true), (6, true)]);
    driver.until("it is counted", |d| d.figures.mail.delivered.get() == 3);
    let mail = &driver.figures.mail;
    assert_eq!([&mail.users, &mail.depth, &mail.enqueued].map(|figure| figure.get()), [1, 3, 6]);
    assert_eq!([&mail.expired, &mail.dropped, &mail.undecodable].map(|figure| figure.get()), [0; 3]);
}

#[test]
fn it_lingers_as_long_as_it_is_young() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let (positions, _) = append(&mut driver, &ana(), mails(1..=4));
    let age = |table: &str, n: u64, ms: u64| {
        server.psql(&format!(
            "UPDATE {table} SET kept_at = clock_timestamp() - interval '{ms} ms' WHERE seq = {n} AND user_id = 'ana'"
        ));
    };
    rejuvenate(&server);
    age("notification_queue", 1, STORE_LINGER_MS);
    server.psql("UPDATE notification_queue SET kept_at = NULL WHERE seq = 4");
    let (entries, _) = page(&mut driver, &ana(), None, 9, 0);
    assert!((STORE_LINGER_MS..u64::MAX).contains(&entries[0].age.most_ms), "{}", entries[0].age.most_ms);
    assert_eq!((entries[1].age.most_ms, entries[3].age), (1, Age::UNKNOWN));
    remove(&mut driver, &ana(), &positions, true);
    assert_eq!(server.psql(LATELY), "2 3", "the first is too old, and nobody knows how old the last is");
    let ahead = "SELECT count(*) FROM notification_queue_lately WHERE kept_at > clock_timestamp()";
    assert_eq!(server.psql(ahead), "0", "a clock that was set back lets nothing linger for longer");
    rejuvenate(&server);
    age("notification_queue_lately", 3, 1_000);
    assert_eq!(seen(&mut driver, &ana(), STORE_LINGER_MS), [(2, true), (3, true)]);
    assert_eq!(seen(&mut driver, &ana(), 1_000), [(2, true)]);
    let (entries, _) = page(&mut driver, &ana(), None, 9, STORE_LINGER_MS);
    assert!((1_000..STORE_LINGER_MS).contains(&entries[1].age.most_ms), "{}", entries[1].age.most_ms);
    age("notification_queue_lately", 3, STORE_LINGER_MS);
    assert_eq!(seen(&mut driver, &ana(), u64::MAX), [(2, true)], "whoever asks for more");
    // What is too old takes no room on a page.
    rejuvenate(&server);
    age("notification_queue_lately", 2, STORE_LINGER_MS);
    let (entries, next) = page(&mut driver, &ana(), None, 1, STORE_LINGER_MS);
    assert_eq!((entries[0].mail.stream.seq, next), (3, None));
}

#[test]
fn pages_go_on_through_what_lingers_and_what_is_passed_over() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let (positions, _) = append(&mut driver, &ana(), mails(1..=9));
    let gone = [0, 2, 3, 4, 5, 7].map(|at: usize| positions[at]);
    deliver(&server, &mut driver, &ana(), &gone);
    server.psql(
        "UPDATE notification_queue_lately SET expires_at = now() WHERE seq IN (4, 6);
         UPDATE notification_queue_lately SET event = 'garbage' WHERE seq = 5;
         UPDATE notification_queue_lately SET event = repeat('x', 2097153) WHERE seq = 8",
    );
    let mut found = Vec::new();
    let (mut next, mut pages) = (None, 0);
    while pages == 0 || next.is_some() {
        let (entries, following) = page(&mut driver, &ana(), next, 2, 1_000);
        assert!(following.is_none_or(|following| Some(following) > next), "{following:?} behind {next:?}");
        found.push(entries.iter().map(|entry| (entry.mail.stream.seq, entry.is_gone)).collect::<Vec<_>>());
        (next, pages) = (following, pages + 1);
    }
    // The long one is not on the page of the one before it, for the bytes.
    let expected = [vec![(1, true), (2, false)], vec![(3, true)], vec![], vec![(7, false)], vec![], vec![(9, false)]];
    assert_eq!(found, expected);
    let (entries, next) = page(&mut driver, &ana(), Some(positions[2]), 3, 1_000);
    assert_eq!((entries.len(), next), (0, Some(positions[5])), "all of them were passed over");
    assert_eq!(page(&mut driver, &ana(), Some(positions[8]), 9, 1_000), (vec![], None));
    assert_eq!(server.psql(LATELY), "1 3 4 5 6 8", "nobody takes it out for that");
    let others = "SELECT sum(expired) + sum(undecodable) FROM notification_queue_stats";
    assert_eq!(server.psql(others), "0");
    // What stands goes as ever, beside what lingers.
    server.psql("UPDATE notification_queue SET expires_at = now() WHERE seq = 2");
    server.psql("UPDATE notification_queue SET event = 'garbage' WHERE seq = 7");
    assert_eq!(page(&mut driver, &ana(), None, 7, 1_000).0.len(), 2);
    driver.until("both are out", |_| server.psql("SELECT count(*) FROM notification_queue") == "1");
    assert_eq!(server.psql(others), "2");
}

#[test]
fn a_page_is_bounded_in_bytes_whatever_is_on_it() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let long = format!("\"{}\"", "x".repeat(700_000));
    let (positions, _) = append(&mut driver, &ana(), (1..=3).map(|n| mail_of(n, &long)).collect());
    deliver(&server, &mut driver, &ana(), &positions[1..2]);
    for at in 0..3_usize {
        let after = at.checked_sub(1).map(|before| positions[before]);
        let (entries, next) = page(&mut driver, &ana(), after, 9, 1_000);
        assert_eq!((entries.len(), entries[0].position, entries[0].is_gone), (1, positions[at], at == 1));
        assert_eq!(next, Some(positions[at]).filter(|_| at < 2));
    }
}

#[test]
fn as_much_lingers_as_a_mailbox_holds_and_the_next_removal_takes_the_rest() {
    let server = PostgresServer::start();
    let mut config = store_config(&server.url());
    config.queue.as_mut().unwrap().entries_max = 3;
    let mut driver = StoreDriver::new(config);
    let bob = mailbox_of("acme", "bob");
    let (bobs, _) = append(&mut driver, &bob, mails(101..=103));
    deliver(&server, &mut driver, &bob, &bobs);
    let (first, _) = append(&mut driver, &ana(), mails(1..=3));
    deliver(&server, &mut driver, &ana(), &first);
    let (second, _) = append(&mut driver, &ana(), mails(4..=6));
    deliver(&server, &mut driver, &ana(), &second[1..]);
    assert_eq!(server.psql(LATELY), "101 102 103 3 5 6");
    // One that stood before all that lingers does not get in.
    let (third, _) = append(&mut driver, &ana(), mails(7..=7));
    deliver(&server, &mut driver, &ana(), &third);
    deliver(&server, &mut driver, &ana(), &second[..1]);
    assert_eq!(server.psql(LATELY), "101 102 103 5 6 7");
    server.psql("UPDATE notification_queue_lately SET kept_at = kept_at - interval '2 h' WHERE seq IN (5, 6, 101)");
    remove(&mut driver, &ana(), &[], true);
    assert_eq!(server.psql(LATELY), "101 102 103 7", "of this mailbox only");
    // What had to go for younger mail was not delivered, and neither was what expired.
    rejuvenate(&server);
    let mut short = mails(8..=11);
    short[3].expires_at_unix_ns = 1_000_000;
    append(&mut driver, &ana(), short[..2].to_vec());
    append(&mut driver, &ana(), short[2..].to_vec());
    assert_eq!(seen(&mut driver, &ana(), 1), [(7, true), (9, false), (10, false)]);
    assert_eq!(server.psql(LATELY), "101 102 103 7");
}

#[test]
fn the_sweep_forgets_what_nobody_touches() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let (positions, _) = append(&mut driver, &ana(), mails(1..=2));
    deliver(&server, &mut driver, &ana(), &positions);
    // More than one statement takes, of somebody the store does not know.
    server.psql(
        "INSERT INTO notification_queue_lately (tenant_id, user_id, id, event, expires_at, attempt, epoch, seq, kept_at)
         SELECT 'default', 'eve', n, '{}', 'infinity', 1, 1, n, clock_timestamp() - interval '4 s'
         FROM generate_series(1, 2500) AS n;
         UPDATE notification_queue_lately SET kept_at = kept_at - interval '2 h' WHERE user_id = 'ana' AND seq = 1",
    );
    let mut config = store_config(&server.url());
    config.chores = Some(Chores { queue_interval_ms: 100, ack_interval_ms: 60_000, figures_interval_ms: 60_000 });
    let mut sweeper = StoreDriver::new(config);
    sweeper.until("it is swept", |_| server.psql(LATELY) == "2");
    assert_eq!(seen(&mut driver, &ana(), 1), [(2, true)]);
    // The next round.
    server.psql("UPDATE notification_queue_lately SET kept_at = kept_at - interval '2 h'");
    sweeper.until("it is swept again", |_| server.psql(LATELY).is_empty());
    assert!(sweeper.figures.is_well() && server.psql("SELECT sum(expired) FROM notification_queue_stats") == "0");
}

#[test]
fn an_append_tells_of_what_lingers_before_it() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let (first, before) = append(&mut driver, &ana(), mails(1..=2));
    assert_eq!(before, None);
    deliver(&server, &mut driver, &ana(), &first[1..]);
    let (second, before) = append(&mut driver, &ana(), mails(3..=3));
    assert_eq!(before, Some(first[1]), "it lingers");
    deliver(&server, &mut driver, &ana(), &first[..1]);
    let (third, before) = append(&mut driver, &ana(), mails(4..=4));
    assert_eq!(before, Some(second[0]), "it stands");
    deliver(&server, &mut driver, &ana(), &[second[0], third[0]]);
    assert_eq!(append(&mut driver, &mailbox_of("acme", "ana"), mails(5..=5)).1, None, "another mailbox");
    server.psql("UPDATE notification_queue_lately SET kept_at = kept_at - interval '2 h' WHERE seq = 4");
    let (fourth, before) = append(&mut driver, &ana(), mails(6..=6));
    assert_eq!(before, Some(second[0]), "the other does not linger any more");
    deliver(&server, &mut driver, &ana(), &fourth);
    server.psql("UPDATE notification_queue_lately SET kept_at = kept_at - interval '2 h'");
    assert_eq!(append(&mut driver, &ana(), mails(7..=7)).1, None);
}

#[test]
fn nobody_sees_what_lingers_of_others() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let (positions, _) = append(&mut driver, &ana(), mails(1..=2));
    let acmes = mailbox_of("acme", "ana");
    let (others, _) = append(&mut driver, &acmes, mails(3..=4));
    rejuvenate(&server);
    // Those of others are not there, for who asks.
    remove(&mut driver, &acmes, &positions, true);
    remove(&mut driver, &ana(), &[positions[0], others[0]], true);
    rejuvenate(&server);
    assert_eq!(seen(&mut driver, &ana(), 1), [(1, true), (2, false)]);
    assert_eq!(seen(&mut driver, &acmes, 1), [(3, false), (4, false)]);
    for mailbox in [mailbox_of("acme", "bob"), mailbox_of("default", "bob"), mailbox_of("other", "ana")] {
        assert_eq!(seen(&mut driver, &mailbox, 1), []);
    }
    assert_eq!(server.psql("SELECT tenant_id, user_id, seq FROM notification_queue_lately"), "default|ana|1");
}

#[test]
fn mail_from_before_is_read_and_nobody_knows_when_it_was_put_in() {
    let server = PostgresServer::start();
    server.psql(
        "CREATE TABLE notification_queue (
            id BIGSERIAL PRIMARY KEY, user_id VARCHAR(255) NOT NULL, tenant_id VARCHAR(255) DEFAULT 'default',
            message JSONB NOT NULL, created_at TIMESTAMPTZ DEFAULT NOW(), expires_at TIMESTAMPTZ NOT NULL)",
    );
    let insert = |n: u64| {
        let mail = mail_of(n, "1");
        let event = std::str::from_utf8(&mail.event).unwrap();
        server.psql(&format!(
            "INSERT INTO notification_queue (user_id, message, expires_at) VALUES ('ana', '{event}', 'infinity')"
        ));
    };
    insert(1);
    let mut driver = StoreDriver::to(&server);
    assert_eq!(page(&mut driver, &ana(), None, 9, 0).0[0].age, Age::UNKNOWN);
    // A program that knows the old table writes on.
    insert(2);
    for lingering_ms in [0, 1_000] {
        let (entries, _) = page(&mut driver, &ana(), None, 9, lingering_ms);
        let ages: Vec<_> = entries.iter().map(|entry| entry.age == Age::UNKNOWN).collect();
        assert_eq!(ages, [true, false]);
    }
    let (entries, _) = page(&mut driver, &ana(), None, 9, 0);
    server.psql("UPDATE notification_queue SET kept_at = clock_timestamp() + interval '1 h' WHERE kept_at IS NOT NULL");
    remove(&mut driver, &ana(), &[entries[0].position, entries[1].position], true);
    rejuvenate(&server);
    let (left, _) = page(&mut driver, &ana(), None, 9, 1_000);
    let expected = Entry { age: Age::of(0, POSTGRES_COMMIT_MS), is_gone: true, ..entries[1].clone() };
    assert_eq!(left, [expected], "only what was put in lately, with what it says");
}

#[test]
fn who_may_only_read_and_write_lets_mail_linger() {
    let server = PostgresServer::start();
    append(&mut StoreDriver::to(&server), &ana(), mails(1..=2));
    server.psql(
        "CREATE ROLE ara LOGIN;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ara;
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ara",
    );
    let mut config = store_config(&server.url_as("ara", "?sslmode=disable"));
    config.chores = Some(Chores { queue_interval_ms: 1_000, ack_interval_ms: 1_000, figures_interval_ms: 1_000 });
    let mut driver = StoreDriver::new(config);
    let (positions, _) = append(&mut driver, &ana(), mails(3..=3));
    deliver(&server, &mut driver, &ana(), &positions);
    assert_eq!(seen(&mut driver, &ana(), 1), [(1, false), (2, false), (3, true)]);
    server.psql("UPDATE notification_queue_lately SET kept_at = kept_at - interval '2 h'");
    driver.skip_ms(1_000);
    driver.until("it is swept", |_| server.psql(LATELY).is_empty());
    assert!(driver.figures.is_well());
}

#[test]
fn a_server_that_takes_no_changes_shows_what_stands() {
    let server = PostgresServer::start();
    server.psql("CREATE ROLE ara LOGIN SUPERUSER");
    let mut owner = StoreDriver::to(&server);
    let (positions, _) = append(&mut owner, &ana(), mails(1..=2));
    deliver(&server, &mut owner, &ana(), &positions[..1]);
    server.psql("ALTER ROLE ara SET default_transaction_read_only = on");
    let mut driver = StoreDriver::new(store_config(&server.url_as("ara", "?sslmode=disable")));
    for lingering_ms in [0, 1_000] {
        let (entries, next) = page(&mut driver, &ana(), None, 9, lingering_ms);
        let found: Vec<_> = entries.iter().map(|entry| (entry.mail.stream.seq, entry.age.most_ms)).collect();
        assert_eq!((found, next), (vec![(2, 1)], None));
    }
    assert_eq!(seen(&mut owner, &ana(), 1), [(1, true), (2, false)]);
}

#[test]
fn a_standby_is_read_though_it_has_nothing_that_lingers() {
    let mut server = PostgresServer::start();
    let mut owner = StoreDriver::to(&server);
    let (positions, _) = append(&mut owner, &ana(), mails(1..=2));
    deliver(&server, &mut owner, &ana(), &positions[..1]);
    server.psql("CHECKPOINT");
    drop(owner);
    server.kill();
    server.write("data/standby.signal", "");
    server.restart();
    assert_eq!(server.psql("SELECT pg_is_in_recovery()"), "t");
    let mut driver = StoreDriver::to(&server);
    for lingering_ms in [0, 1_000] {
        assert_eq!(seen(&mut driver, &ana(), lingering_ms), [(2, false)]);
    }
    let remove = StoreRequest::RemoveMail { mailbox: ana(), positions: positions[1..].to_vec(), lingers: true };
    let append = StoreRequest::AppendMail { mailbox: ana(), mail: mails(3..=3), claim: None };
    for request in [remove, append] {
        driver.until("it looks once more", |d| !d.figures.is_well());
        assert!(matches!(driver.ask(request), StoreReply::Failed));
    }
    assert!(driver.figures.link() == LinkState::Healthy && !driver.figures.is_well());
}

#[test]
fn a_server_that_falls_forgets_what_lingers_and_nothing_else() {
    let mut server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let (positions, _) = append(&mut driver, &ana(), mails(1..=2));
    deliver(&server, &mut driver, &ana(), &positions[..1]);
    server.kill();
    server.restart();
    let mut next = StoreDriver::to(&server);
    assert_eq!(seen(&mut next, &ana(), 1_000), [(2, false)]);
    assert_eq!(append(&mut next, &ana(), mails(3..=3)).1, Some(positions[1]));
}

#[test]
fn nodes_and_the_sweep_do_not_refuse_one_another() {
    const ROUNDS: u64 = 60;
    let server = PostgresServer::start();
    assert_eq!(seen(&mut StoreDriver::to(&server), &ana(), 1), [], "the tables are there");
    let mut config = store_config(&server.url());
    config.chores = Some(Chores { queue_interval_ms: 1, ack_interval_ms: 60_000, figures_interval_ms: 60_000 });
    let threads: Vec<_> = (0..3_u64)
        .map(|node| {
            let mut driver = StoreDriver::new(config.clone());
            std::thread::spawn(move || {
                for round in 0..ROUNDS {
                    let mailbox = mailbox_of("acme", &format!("u{}", (node + round) % 2));
                    let (positions, _) = append(&mut driver, &mailbox, mails(round..=round + 2));
                    let (entries, _) = page(&mut driver, &mailbox, Some(positions[1]), 99, 1_000);
                    assert_eq!((entries[0].position, entries[0].is_gone), (positions[2], false));
                    remove(&mut driver, &mailbox, &positions, true);
                }
                assert!(driver.figures.is_well());
            })
        })
        .collect();
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        // What lingers is old at once, so that removals and sweeps meet at it.
        server.psql("UPDATE notification_queue_lately SET kept_at = kept_at - interval '4 s' WHERE id % 2 = 0");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(server.psql("SELECT count(*) FROM notification_queue"), "0");
    let delivered = format!("{}", 3 * 3 * ROUNDS);
    assert_eq!(server.psql("SELECT sum(delivered) FROM notification_queue_stats"), delivered);
    server.psql("UPDATE notification_queue_lately SET kept_at = kept_at - interval '4 s'");
    let mut sweeper = StoreDriver::new(config);
    sweeper.until("all is swept", |_| server.psql(LATELY).is_empty());
}
