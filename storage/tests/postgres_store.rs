//! The store against a real server: what it keeps, gives back, counts, and does not let itself be confused by.
mod common;

use common::postgres::{PostgresServer, StoreDriver, store_config};
use protocol::ids::{ConnectionId, NotificationId, TenantId, uuid_v7};
use protocol::store::{AckVerdict, Entry, Mail, MailboxKey, Position, StoreReply, StoreRequest};
use protocol::stream::StreamSeq;
use protocol::template::parse_create;
use std::sync::Arc;
use storage::backend::Chores;
use storage::figures::{Figure, StoreOperation};

fn mailbox(user: &str) -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: user.into() })
}

fn id(n: u64) -> NotificationId {
    NotificationId(uuid_v7(n, [7; 10]))
}

fn event(n: u64, payload: &str) -> String {
    let id = id(n);
    format!(
        r#"{{"id":"{id}","occurred_at":"2026-01-02T03:04:05.000000000Z","event_type":"e","payload":{payload},"metadata":{{"source":"http-api","priority":"Normal"}}}}"#
    )
}

fn mail_of(n: u64, payload: &str) -> Mail {
    let queued_at_unix_ns = common::since_epoch_ns() / 1_000 * 1_000;
    Mail {
        id: id(n),
        event: event(n, payload).into_bytes().into(),
        queued_at_unix_ns,
        expires_at_unix_ns: queued_at_unix_ns + 3_600_000_000_000,
        attempts: 0,
        stream: StreamSeq { epoch: u64::MAX - 5, seq: n },
    }
}

fn mail(n: u64) -> Mail {
    mail_of(n, &n.to_string())
}

fn append(driver: &mut StoreDriver, user: &str, mail: Vec<Mail>) -> (Vec<Position>, u64) {
    match driver.ask(StoreRequest::AppendMail { mailbox: mailbox(user), mail, claim: None }) {
        StoreReply::Appended { positions, dropped, .. } => (positions, dropped),
        other => panic!("{other:?}"),
    }
}

fn read(driver: &mut StoreDriver, user: &str, after: Option<Position>, max: usize) -> (Vec<Entry>, Option<Position>) {
    match driver.ask(StoreRequest::ReadMail { mailbox: mailbox(user), after, entries_max: max, lingering_ms: 0 }) {
        StoreReply::Mail { entries, next } => (entries, next),
        other => panic!("{other:?}"),
    }
}

fn numbers(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.mail.stream.seq).collect()
}

const STATS: &str = "SELECT coalesce(sum(enqueued), 0), coalesce(sum(dropped), 0), coalesce(sum(expired), 0),
    coalesce(sum(delivered), 0), coalesce(sum(undecodable), 0) FROM notification_queue_stats";

#[test]
fn mail_comes_back_as_it_went_in_page_by_page_and_counts_its_deliveries() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let all: Vec<_> = (1..=5).map(mail).collect();
    let (positions, dropped) = append(&mut driver, "ana", all.clone());
    assert!(positions.is_sorted() && positions.len() == 5 && dropped == 0, "{positions:?}");
    append(&mut driver, "bob", vec![mail(9)]);
    let (first, next) = read(&mut driver, "ana", None, 2);
    assert_eq!(next, Some(positions[1]));
    let (rest, end) = read(&mut driver, "ana", next, 9);
    assert_eq!(end, None);
    for ((entry, mail), position) in first.iter().chain(&rest).zip(&all).zip(&positions) {
        assert_eq!((entry.position, entry.is_gone), (*position, false));
        assert_eq!(entry.mail, Mail { attempts: 1, ..mail.clone() });
    }
    assert_eq!(read(&mut driver, "ana", None, 1).0[0].mail.attempts, 2);
    let remove =
        StoreRequest::RemoveMail { mailbox: mailbox("ana"), positions: positions[..3].to_vec(), lingers: false };
    assert!(matches!(driver.ask(remove.clone()), StoreReply::Done));
    assert!(matches!(driver.ask(remove), StoreReply::Done), "forgetting what is not there is done");
    assert_eq!(numbers(&read(&mut driver, "ana", None, 9).0), [4, 5]);
    assert_eq!(server.psql(STATS), "6|0|0|3|0");
    let stranger = MailboxKey { tenant: TenantId::parse("acme").unwrap(), user: "ana".into() };
    let request = StoreRequest::ReadMail { mailbox: Arc::new(stranger), after: None, entries_max: 9, lingering_ms: 0 };
    assert!(matches!(driver.ask(request), StoreReply::Mail { entries, .. } if entries.is_empty()));
}

#[test]
fn a_full_mailbox_lets_its_oldest_go_also_when_more_comes_than_it_holds() {
    let server = PostgresServer::start();
    let mut config = store_config(&server.url());
    config.queue.as_mut().unwrap().entries_max = 3;
    let mut driver = StoreDriver::new(config);
    let two = vec![mail(1), mail(2)];
    assert_eq!(append(&mut driver, "ana", two).1, 0);
    let two = vec![mail(3), mail(4)];
    assert_eq!(append(&mut driver, "ana", two).1, 1);
    assert_eq!(numbers(&read(&mut driver, "ana", None, 9).0), [2, 3, 4]);
    let many = (5..=9).map(mail).collect();
    let (positions, dropped) = append(&mut driver, "ana", many);
    assert_eq!((positions.len(), positions.is_sorted(), dropped), (5, true, 5));
    let (entries, _) = read(&mut driver, "ana", None, 9);
    assert_eq!(numbers(&entries), [7, 8, 9]);
    assert_eq!(entries[0].position, positions[2]);
    assert_eq!(server.psql(STATS), "9|6|0|0|0");
    assert_eq!(append(&mut driver, "ana", Vec::new()), (Vec::new(), 0));
}

#[test]
fn events_are_kept_exactly_even_those_that_jsonb_does_not_take() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let payloads = ["1.50", r#"{"b":1,"a":-0.0,"a":1}"#, r#""\u0000""#, "1e999999", r#""é\ud83d\ude00""#];
    let all: Vec<_> = payloads.iter().zip(1..).map(|(payload, n)| mail_of(n, payload)).collect();
    append(&mut driver, "ana", all.clone());
    let (entries, _) = read(&mut driver, "ana", None, 9);
    assert_eq!(entries.len(), payloads.len());
    for (entry, mail) in entries.iter().zip(&all) {
        assert_eq!(entry.mail.event, mail.event);
    }
    let kept =
        "SELECT string_agg(coalesce(message -> 'payload', 'null')::text, ' ' ORDER BY id) FROM notification_queue";
    assert_eq!(server.psql(kept), r#"1.50 {"a": 1, "b": 1} null null "é😀""#);
}

#[test]
fn a_page_is_bounded_in_bytes_and_hands_out_one_always() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let long = format!("\"{}\"", "x".repeat(700_000));
    let all: Vec<_> = (1..=3).map(|n| mail_of(n, &long)).collect();
    append(&mut driver, "ana", all);
    let (first, next) = read(&mut driver, "ana", None, 9);
    assert_eq!((numbers(&first), next), (vec![1], Some(first[0].position)));
    let (second, next) = read(&mut driver, "ana", next, 9);
    assert_eq!(numbers(&second), [2]);
    assert_eq!(
        (numbers(&read(&mut driver, "ana", next, 9).0), read(&mut driver, "bob", None, 9)),
        (vec![3], (vec![], None))
    );
}

#[test]
fn what_has_expired_is_not_handed_out_and_is_counted_once() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let (mut one, mut two) = (mail(1), mail(2));
    one.expires_at_unix_ns = common::since_epoch_ns() - 1_000;
    two.expires_at_unix_ns = u64::MAX;
    append(&mut driver, "ana", vec![one, two]);
    assert_eq!(numbers(&read(&mut driver, "ana", None, 9).0), [2]);
    assert_eq!(server.psql(STATS), "2|0|1|0|0");
    assert_eq!(server.psql("SELECT count(*) FROM notification_queue"), "1");
}

#[test]
fn rows_of_other_programs_are_delivered_if_they_are_events_and_go_if_not() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    append(&mut driver, "ana", vec![mail(1)]);
    let good = event(2, r#"{"a":[1,2]}"#);
    let insert = "INSERT INTO notification_queue (user_id, expires_at, message, event) VALUES ('ana',";
    server.psql(&format!(
        "{insert} 'infinity', '{good}', NULL); {insert} now() + interval '1 h', '{{}}', NULL);
         {insert} now() + interval '1 h', '[1]', NULL); {insert} now() + interval '1 h', '{good}', 'garbage');
         {insert} now() + interval '1 h', to_jsonb(repeat('x', 5000000)), NULL)"
    ));
    append(&mut driver, "ana", vec![mail(3)]);
    let (entries, mut next) = read(&mut driver, "ana", None, 99);
    let mut found: Vec<_> = entries.iter().map(|entry| (entry.mail.id, entry.mail.event.to_vec())).collect();
    while next.is_some() {
        let (entries, following) = read(&mut driver, "ana", next, 99);
        found.extend(entries.iter().map(|entry| (entry.mail.id, entry.mail.event.to_vec())));
        next = following;
    }
    let expected = [(1, "1"), (2, r#"{"a":[1,2]}"#), (3, "3")].map(|(n, p)| (id(n), event(n, p).into_bytes()));
    assert_eq!(found, expected);
    assert_eq!(numbers(&read(&mut driver, "ana", None, 99).0), [1, 0, 3]);
    assert_eq!(server.psql(STATS), "2|0|0|0|4");
    assert_eq!(server.psql("SELECT count(*) FROM notification_queue"), "3");
}

#[test]
fn acknowledgements_are_awaited_once_each_and_late_ones_are_told_apart() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let connection = ConnectionId(uuid_v7(1, [1; 10]));
    let track = |driver: &mut StoreDriver, user: &str, n| {
        let request = StoreRequest::TrackAck { mailbox: mailbox(user), id: id(n), connection };
        assert!(matches!(driver.ask(request), StoreReply::Done));
    };
    let acknowledge = |driver: &mut StoreDriver, user: &str, n, is_kept| match driver.ask(StoreRequest::Acknowledge {
        mailbox: mailbox(user),
        id: id(n),
        is_kept,
    }) {
        StoreReply::Acknowledged(verdict) => verdict,
        other => panic!("{other:?}"),
    };
    for (user, n) in [("ana", 1), ("ana", 1), ("bob", 1), ("ana", 2), ("ana", 3), ("ana", 4)] {
        track(&mut driver, user, n);
    }
    driver.skip_ms(2_000);
    assert_eq!(acknowledge(&mut driver, "ana", 1, false), AckVerdict::Done);
    assert_eq!(acknowledge(&mut driver, "ana", 1, false), AckVerdict::NotPending);
    assert_eq!(acknowledge(&mut driver, "bob", 1, false), AckVerdict::Done, "every recipient (C-9)");
    assert_eq!(acknowledge(&mut driver, "eve", 1, false), AckVerdict::NotPending);
    driver.skip_ms(40_000);
    assert_eq!(acknowledge(&mut driver, "ana", 2, false), AckVerdict::Late);
    assert_eq!(acknowledge(&mut driver, "ana", 2, false), AckVerdict::NotPending);
    assert_eq!(acknowledge(&mut driver, "ana", 3, true), AckVerdict::Done, "kept mail is never too late");
    let sums = "SELECT sum(tracked), sum(acked), sum(expired), sum(latency_ms) >= 46000 FROM notification_ack_stats";
    assert_eq!(server.psql(sums), "5|3|1|t");
    assert_eq!(server.psql("SELECT count(*) FROM notification_acks WHERE acked_at IS NULL"), "1");
    track(&mut driver, "ana", 1);
    assert_eq!(acknowledge(&mut driver, "ana", 1, false), AckVerdict::Done, "sent once more, awaited once more");
}

#[test]
fn templates_are_kept_exactly_and_found_by_the_next_start() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let body = r#"{"id":"t:1","name":"é","event_type":"e","payload_template":{"b":1.50,"a":"\u0000{{x}}"}}"#;
    let template = Arc::new(parse_create(body.as_bytes(), 1_767_323_045_123_456_789).unwrap());
    let tenant = TenantId::parse("acme").unwrap();
    let put = StoreRequest::PutTemplate { tenant: tenant.clone(), template: Arc::clone(&template) };
    for _ in 0..2 {
        assert!(matches!(driver.ask(put.clone()), StoreReply::Done));
    }
    server.psql("INSERT INTO notification_templates VALUES ('acme', 'bad', 'no JSON'), ('a:b', 't', '{}')");
    let mut next = StoreDriver::to(&server);
    let StoreReply::Templates(all) = next.ask(StoreRequest::LoadTemplates) else { panic!("templates") };
    assert_eq!(all, [(tenant.clone(), template)]);
    let delete = StoreRequest::DeleteTemplate { tenant, id: "t:1".into() };
    assert!(matches!(next.ask(delete.clone()), StoreReply::Done));
    assert!(matches!(next.ask(delete), StoreReply::Done));
    assert!(matches!(driver.ask(StoreRequest::LoadTemplates), StoreReply::Templates(all) if all.is_empty()));
}

#[test]
fn chores_sweep_and_tell_figures_that_survive_a_restart() {
    let server = PostgresServer::start();
    let mut config = store_config(&server.url());
    config.chores = Some(Chores { queue_interval_ms: 1_000, ack_interval_ms: 1_000, figures_interval_ms: 1_000 });
    let mut driver = StoreDriver::new(config.clone());
    let many: Vec<_> = (1..=4).map(mail).collect();
    let (positions, _) = append(&mut driver, "ana", many);
    append(&mut driver, "bob", vec![mail(5)]);
    driver.ask(StoreRequest::RemoveMail {
        mailbox: mailbox("ana"),
        positions: positions[..1].to_vec(),
        lingers: false,
    });
    let connection = ConnectionId(uuid_v7(1, [1; 10]));
    driver.ask(StoreRequest::TrackAck { mailbox: mailbox("ana"), id: id(1), connection });
    server.psql(
        "UPDATE notification_queue SET expires_at = now() WHERE seq = 2;
         INSERT INTO notification_queue (user_id, message, expires_at) SELECT 'eve', '{}', now() FROM generate_series(1, 2500)",
    );
    driver.skip_ms(60_000);
    driver.until("all is swept and counted", |d| {
        let (mail, acks) = (&d.figures.mail, &d.figures.acks);
        mail.expired.get() == 2_501 && mail.depth.get() == 3 && acks.expired.get() == 1
    });
    let mut next = StoreDriver::new(config);
    next.until("the figures are there", |d| d.figures.mail.enqueued.get() > 0 && d.figures.acks.tracked.get() > 0);
    let (mail, acks) = (&next.figures.mail, &next.figures.acks);
    let figures = [&mail.users, &mail.depth, &mail.enqueued, &mail.dropped, &mail.expired, &mail.delivered];
    assert_eq!(figures.map(Figure::get), [2, 3, 5, 0, 2_501, 1]);
    assert_eq!([&acks.pending, &acks.tracked, &acks.acked, &acks.expired].map(Figure::get), [0, 1, 0, 1]);
}

#[test]
fn many_requests_at_once_are_answered_in_order_and_counted() {
    let server = PostgresServer::start();
    let mut config = store_config(&server.url());
    config.links = 4;
    let mut driver = StoreDriver::new(config);
    // Before the tables are there, so that they wait, too.
    let tickets: Vec<_> = (0..300)
        .map(|n| {
            let mail = vec![mail(n)];
            driver.submit(StoreRequest::AppendMail { mailbox: mailbox(&format!("u{}", n % 7)), mail, claim: None })
        })
        .collect();
    assert_eq!(driver.figures.outstanding.get(), 300);
    driver.until("all are answered", |d| d.replies.len() == 300);
    for user in 0..7_u64 {
        let of_user = driver.replies.iter().map(|(ticket, _)| ticket.0 - tickets[0].0).filter(|n| n % 7 == user);
        assert!(of_user.is_sorted(), "user {user}");
    }
    for user in 0..7 {
        let (entries, _) = read(&mut driver, &format!("u{user}"), None, 99);
        assert_eq!(numbers(&entries), (0..300).filter(|n| n % 7 == user).collect::<Vec<_>>());
    }
    let appended = &driver.figures.operations[StoreOperation::Append as usize];
    assert_eq!((appended.results[0].get(), driver.figures.outstanding.get()), (300, 0));
    assert!(driver.figures.is_well());
}
