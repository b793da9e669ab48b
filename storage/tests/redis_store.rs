//! The store in Redis against a real redis-server, which each test starts for itself.
mod common;

use common::store::StoreDriver;
use common::{RedisServer, free_port};
use protocol::cluster::wire::Claim;
use protocol::ids::{ConnectionId, NotificationId, TenantId, uuid_v7};
use protocol::limits;
use protocol::store::{AckVerdict, Entry, Mail, MailboxKey, Position, StoreReply, StoreRequest};
use protocol::stream::StreamSeq;
use protocol::template;
use std::sync::Arc;
use storage::backend::{Backend, Chores};
use storage::backoff::BackoffConfig;
use storage::breaker::BreakerConfig;
use storage::figures::{Figure, StoreOperation};
use storage::link::state::LinkState;
use storage::redis::commands::link::{CommandConfig, CommandTiming};
use storage::redis::store::{RedisAcks, RedisQueue, RedisStore, RedisStoreConfig};
use storage::redis::url::RedisUrl;

type Store = StoreDriver<RedisStore>;

const LONG_MS: u64 = 600_000;
const STREAM: &str = "ara:queue:default:u1";
const META: &str = "ara:queue:meta:{ara:queue:default:u1}";

/// Short delays, a breaker that does not open by itself, and time that only the test lets pass.
fn config(url: &str, chores: Option<Chores>) -> RedisStoreConfig {
    let mut link = CommandConfig::new(RedisUrl::parse(url).unwrap(), &[]).unwrap();
    link.breaker = BreakerConfig { failure_threshold: u32::MAX, success_threshold: 2, reset_timeout_ms: 50 };
    link.backoff = BackoffConfig { initial_ms: 10, max_ms: 50 };
    link.timing =
        CommandTiming { connect_deadline_ms: LONG_MS, command_timeout_ms: LONG_MS, ping_interval_ms: LONG_MS };
    RedisStoreConfig {
        link,
        templates: Some("ara:queue".to_owned()),
        queue: Some(RedisQueue { prefix: "ara:queue".to_owned(), entries_max: 100, ttl_seconds: 3_600 }),
        acks: Some(RedisAcks { prefix: "ara:ack".to_owned(), timeout_seconds: 30 }),
        chores,
    }
}

fn store_with(config: RedisStoreConfig) -> Store {
    let mut store = StoreDriver::new("redis", |figures, wake| RedisStore::new(config, figures, 7, wake));
    store.until_healthy();
    store
}

fn store(server: &RedisServer) -> Store {
    store_with(config(&server.url(), None))
}

fn mailbox() -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: "u1".into() })
}

fn event(id: NotificationId, payload: &str) -> Vec<u8> {
    format!(
        r#"{{"id":"{id}","occurred_at":"t","event_type":"e","payload":{payload},"metadata":{{"source":"s","priority":"Low"}}}}"#
    )
    .into_bytes()
}

fn mail(store: &Store, number: u64) -> Mail {
    let unix_ns = store.now().unix_ns;
    let id = NotificationId(uuid_v7(number, [0; 10]));
    Mail {
        id,
        event: event(id, &number.to_string()).into(),
        queued_at_unix_ns: unix_ns,
        expires_at_unix_ns: unix_ns + 3_600_000_000_000,
        attempts: 0,
        stream: StreamSeq { epoch: 9, seq: number },
    }
}

fn append(store: &Store, numbers: std::ops::RangeInclusive<u64>) -> StoreRequest {
    StoreRequest::AppendMail {
        mailbox: mailbox(),
        mail: numbers.map(|number| mail(store, number)).collect(),
        claim: None,
    }
}

/// Where they stand, and how many went.
fn appended(reply: StoreReply) -> (Vec<Position>, u64) {
    match reply {
        StoreReply::Appended { positions, dropped, .. } => (positions, dropped),
        other => panic!("not appended: {other:?}"),
    }
}

fn put(store: &mut Store, numbers: std::ops::RangeInclusive<u64>) -> Vec<Position> {
    let request = append(store, numbers);
    appended(store.ask(request)).0
}

fn read(after: Option<Position>, entries_max: usize) -> StoreRequest {
    StoreRequest::ReadMail { mailbox: mailbox(), after, entries_max, lingering_ms: 0 }
}

fn page(reply: StoreReply) -> (Vec<Entry>, Option<Position>) {
    match reply {
        StoreReply::Mail { entries, next } => (entries, next),
        other => panic!("no mail: {other:?}"),
    }
}

/// The number and the attempts of each entry.
fn seen(store: &mut Store) -> Vec<(u64, u32)> {
    let (entries, next) = page(store.ask(read(None, 256)));
    assert_eq!(next, None);
    entries.iter().map(|entry| (entry.mail.stream.seq, entry.mail.attempts)).collect()
}

fn remove(positions: &[Position]) -> StoreRequest {
    StoreRequest::RemoveMail { mailbox: mailbox(), positions: positions.to_vec(), lingers: false }
}

fn track(number: u64) -> StoreRequest {
    let (id, connection) = (NotificationId(uuid_v7(number, [0; 10])), ConnectionId(uuid_v7(1, [1; 10])));
    StoreRequest::TrackAck { mailbox: mailbox(), id, connection }
}

fn acknowledge(number: u64, is_kept: bool) -> StoreRequest {
    StoreRequest::Acknowledge { mailbox: mailbox(), id: NotificationId(uuid_v7(number, [0; 10])), is_kept }
}

fn template(id: &str, payload: &str) -> StoreRequest {
    let body = format!(r#"{{"id":"{id}","name":"n","event_type":"e","payload_template":"{payload}"}}"#);
    let template = template::parse_create(body.as_bytes(), 1_767_323_045_123_456_789).unwrap();
    StoreRequest::PutTemplate { tenant: TenantId::parse("acme").unwrap(), template: Arc::new(template) }
}

/// Tenant, id and payload of each.
fn templates(store: &mut Store) -> Vec<(String, String, usize)> {
    match store.ask(StoreRequest::LoadTemplates) {
        StoreReply::Templates(all) => all
            .iter()
            .map(|(tenant, t)| (tenant.as_str().to_owned(), t.id.to_string(), t.payload_template.as_str().len()))
            .collect(),
        other => panic!("no templates: {other:?}"),
    }
}

fn count(store: &Store, operation: StoreOperation) -> [u64; 3] {
    store.figures.operations[operation as usize].results.each_ref().map(Figure::get)
}

#[test]
fn every_request_is_done_and_answered_once() {
    let server = RedisServer::start();
    let mut store = store(&server);
    let positions = put(&mut store, 1..=5);
    assert!(positions.len() == 5 && positions.is_sorted());
    let (first, next) = page(store.ask(read(None, 2)));
    assert_eq!((first.len(), next), (2, Some(positions[1])));
    assert_eq!(
        (first[0].position, first[0].mail.attempts, &*first[0].mail.event),
        (positions[0], 1, &*event(first[0].mail.id, "1"))
    );
    let (rest, next) = page(store.ask(read(next, 3)));
    assert_eq!((rest.len(), next), (3, None), "nothing is behind a page that ends with the last one");
    assert!(matches!(store.ask(remove(&positions[..1])), StoreReply::Done));
    assert!(matches!(store.ask(remove(&[])), StoreReply::Done));
    assert_eq!(seen(&mut store), [(2, 2), (3, 2), (4, 2), (5, 2)]);
    assert!(matches!(store.ask(track(1)), StoreReply::Done));
    assert!(matches!(store.ask(acknowledge(1, true)), StoreReply::Acknowledged(AckVerdict::Done)));
    assert!(matches!(store.ask(acknowledge(1, true)), StoreReply::Acknowledged(AckVerdict::NotPending)));
    assert!(matches!(store.ask(track(2)), StoreReply::Done));
    store.skip_ms(31_000);
    assert!(matches!(store.ask(acknowledge(2, false)), StoreReply::Acknowledged(AckVerdict::Late)));
    assert!(templates(&mut store).is_empty());
    assert!(matches!(store.ask(template("a:b", "{{x}}")), StoreReply::Done));
    assert_eq!(templates(&mut store), [("acme".to_owned(), "a:b".to_owned(), 7)]);
    let delete = StoreRequest::DeleteTemplate { tenant: TenantId::parse("acme").unwrap(), id: "a:b".into() };
    for _ in 0..2 {
        assert!(matches!(store.ask(delete.clone()), StoreReply::Done));
    }
    assert!(templates(&mut store).is_empty());
    assert_eq!(count(&store, StoreOperation::Read), [3, 0, 0]);
    assert_eq!(count(&store, StoreOperation::Template), [6, 0, 0]);
    let append = &store.figures.operations[StoreOperation::Append as usize];
    assert_eq!(append.latency.iter().map(Figure::get).sum::<u64>(), 1);
    assert_eq!((store.figures.outstanding.get(), store.store.owes(), store.replies.len()), (0, false, 0));
    assert!(store.figures.is_well());
}

#[test]
fn what_is_not_kept_here_is_not_done() {
    let server = RedisServer::start();
    let mut store =
        store_with(RedisStoreConfig { templates: None, queue: None, acks: None, ..config(&server.url(), None) });
    let append = append(&store, 1..=1);
    for request in
        [append, read(None, 1), track(1), acknowledge(1, true), template("a", ""), StoreRequest::LoadTemplates]
    {
        assert!(matches!(store.ask(request), StoreReply::Failed));
    }
    assert!(store.figures.is_well());
}

#[test]
fn mail_its_deliveries_and_templates_outlive_the_node_and_the_server() {
    let mut server = RedisServer::absent();
    server.settings = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned).to_vec();
    server.restart();
    let mut first = store(&server);
    put(&mut first, 1..=3);
    assert_eq!(seen(&mut first), [(1, 1), (2, 1), (3, 1)]);
    first.ask(template("t", "x"));
    first.ask(track(1));
    drop(first);
    let mut second = store(&server);
    assert_eq!(seen(&mut second), [(1, 2), (2, 2), (3, 2)]);
    server.kill();
    second.until("the loss is noticed", |d| d.figures.link() != LinkState::Healthy);
    let early = second.submit(read(None, 256));
    server.restart();
    second.until_healthy();
    assert!(
        matches!(second.reply(early), StoreReply::Failed | StoreReply::Mail { .. }),
        "it never left, or was answered"
    );
    assert!(seen(&mut second).iter().all(|(_, attempts)| *attempts >= 3));
    assert_eq!(templates(&mut second).len(), 1);
    assert!(matches!(second.ask(acknowledge(1, true)), StoreReply::Acknowledged(AckVerdict::Done)));
    assert_eq!(second.figures.connections.get(), 2);
}

#[test]
fn a_server_killed_with_requests_on_their_way_leaves_them_unknown_or_failed() {
    let mut server = RedisServer::start();
    let mut store = store(&server);
    server.hold();
    let request = append(&store, 1..=1);
    let sent = store.submit(request.clone());
    store.turn(&[]);
    let waiting = store.submit(request);
    server.kill();
    assert!(matches!(store.reply(sent), StoreReply::Unknown));
    assert!(matches!(store.reply(waiting), StoreReply::Failed | StoreReply::Unknown));
    assert_eq!(count(&store, StoreOperation::Append).iter().sum::<u64>(), 2);
    assert!(!store.figures.is_well());
    server.restart();
    store.until_healthy();
    assert!(seen(&mut store).is_empty());
}

#[test]
fn what_a_server_that_stood_still_had_of_the_old_link_is_not_done_behind_the_new_one() {
    let server = RedisServer::start();
    let mut settings = config(&server.url(), None);
    settings.link.timing.command_timeout_ms = 1_000;
    let mut store = store_with(settings);
    put(&mut store, 1..=1);
    for round in 0..3 {
        let number = 2 + round * 2;
        server.hold();
        let request = append(&store, number..=number);
        let lost = store.submit(request);
        store.turn(&[]);
        store.skip_ms(1_001);
        assert!(matches!(store.reply(lost), StoreReply::Unknown));
        // The server is let go only when the next connection waits beside the old one's last command.
        store.until("it greets again", |d| d.figures.link() != LinkState::Healthy);
        for _ in 0..5 {
            store.step();
        }
        server.release();
        store.until_healthy();
        put(&mut store, number + 1..=number + 1);
        let numbers: Vec<u64> = seen(&mut store).iter().map(|(number, _)| *number).collect();
        // Done or not, the unknown one is over: it stands before what was done since, and comes no more.
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(seen(&mut store).len(), numbers.len());
    }
}

#[test]
fn a_link_that_is_killed_comes_back_and_keeps_its_promises() {
    let server = RedisServer::start();
    let mut store = store(&server);
    for number in 1..=50 {
        let request = append(&store, number..=number);
        let ticket = store.submit(request);
        store.turn(&[]);
        server.client().must(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let reply = store.reply(ticket);
        store.until("the link is up again", |d| d.figures.connections.get() > number && d.figures.is_well());
        let there = seen(&mut store).iter().any(|(seq, _)| *seq == number);
        match reply {
            StoreReply::Appended { .. } => assert!(there),
            StoreReply::Failed => assert!(!there),
            StoreReply::Unknown => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_full_server_is_told_and_noticed_when_it_is_not_full_any_more() {
    let server = RedisServer::start();
    let mut store = store(&server);
    put(&mut store, 1..=2);
    let mut client = server.client();
    client.must(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    client.must(&["CONFIG", "SET", "maxmemory", "1"]);
    for request in [append(&store, 3..=3), track(1), template("t", "x")] {
        assert!(matches!(store.ask(request), StoreReply::Failed));
        assert!(!store.figures.is_well());
    }
    assert_eq!(seen(&mut store), [(1, 1), (2, 1)]);
    assert_eq!(seen(&mut store), [(1, 1), (2, 1)], "given, but not noted");
    let (entries, _) = page(store.ask(read(None, 1)));
    assert!(matches!(store.ask(remove(&[entries[0].position])), StoreReply::Done));
    assert!(!store.figures.is_well(), "that it takes deletions says nothing");
    for _ in 0..3 {
        store.skip_ms(limits::REDIS_PROBE_INTERVAL_MS);
        assert_eq!(seen(&mut store), [(2, 1)]);
        assert!(!store.figures.is_well());
    }
    client.must(&["CONFIG", "SET", "maxmemory", "0"]);
    store.skip_ms(limits::REDIS_PROBE_INTERVAL_MS);
    store.until("it is well by itself", |d| d.figures.is_well());
    client.must(&["CONFIG", "SET", "maxmemory", "1"]);
    let request = append(&store, 3..=3);
    assert!(matches!(store.ask(request), StoreReply::Failed));
    client.must(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(put(&mut store, 3..=3).len(), 1);
    assert!(store.figures.is_well(), "a write that was done says so at once");
}

#[test]
fn a_replica_gives_mail_and_takes_none() {
    let server = RedisServer::start();
    let mut store = store(&server);
    put(&mut store, 1..=1);
    let mut client = server.client();
    client.must(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    assert_eq!(seen(&mut store), [(1, 1)]);
    let request = append(&store, 2..=2);
    assert!(matches!(store.ask(request), StoreReply::Failed));
    assert!(!store.figures.is_well());
    client.must(&["REPLICAOF", "NO", "ONE"]);
    store.skip_ms(limits::REDIS_PROBE_INTERVAL_MS);
    store.until("it is well again", |d| d.figures.is_well());
    put(&mut store, 2..=2);
    assert_eq!(seen(&mut store).len(), 2);
}

#[test]
fn a_server_that_wants_a_password_is_not_well_until_it_does_not() {
    let server = RedisServer::start();
    let mut client = server.client();
    client.must(&["CONFIG", "SET", "requirepass", "secret"]);
    let mut store =
        StoreDriver::new("redis", |figures, wake| RedisStore::new(config(&server.url(), None), figures, 7, wake));
    let request = append(&store, 1..=1);
    assert!(matches!(store.ask(request), StoreReply::Failed));
    assert!(!store.figures.is_well());
    client.must(&["CONFIG", "SET", "requirepass", ""]);
    store.until_healthy();
    put(&mut store, 1..=1);
    // A user who may not use CLIENT has a store all the same; one who may not write has not.
    client.must(&["ACL", "SETUSER", "ara", "on", ">pw", "~ara:*", "+@all", "-client"]);
    client.must(&["ACL", "SETUSER", "reader", "on", ">pw", "~ara:*", "+@all", "-@write"]);
    let mut ara = store_with(config(&format!("redis://ara:pw@127.0.0.1:{}", server.port), None));
    put(&mut ara, 2..=2);
    assert_eq!(seen(&mut ara).len(), 2);
    let mut reader = store_with(config(&format!("redis://reader:pw@127.0.0.1:{}", server.port), None));
    let request = append(&reader, 3..=3);
    assert!(matches!(reader.ask(request), StoreReply::Failed));
    assert!(!reader.figures.is_well());
    assert_eq!(seen(&mut reader).len(), 2);
}

#[test]
fn keys_of_a_wrong_type_fail_what_needs_them_and_nothing_else() {
    let server = RedisServer::start();
    let mut client = server.client();
    let keys = [STREAM, META, "ara:queue:users", "ara:queue:stats", "ara:queue:templates", "ara:ack:default:stats"];
    for key in keys {
        client.must(&["FLUSHALL"]);
        client.must(&["SET", key, "text"]);
        let mut store = store(&server);
        let append = append(&store, 1..=1);
        let replies =
            [append, track(1), template("t", "x"), StoreRequest::LoadTemplates].map(|request| store.ask(request));
        let failed = replies.each_ref().map(|reply| matches!(reply, StoreReply::Failed));
        let expected = match key {
            "ara:queue:templates" => [false, false, true, true],
            "ara:ack:default:stats" => [false, true, false, false],
            _ => [true, false, false, false],
        };
        assert_eq!(failed, expected, "{key}: {replies:?}");
        assert!(store.figures.is_well(), "{key}: the server does what it can");
    }
}

#[test]
fn what_nobody_can_read_and_what_has_expired_never_blocks_and_goes() {
    let server = RedisServer::start();
    let mut store = store_with(config(
        &server.url(),
        Some(Chores { queue_interval_ms: LONG_MS, ack_interval_ms: LONG_MS, figures_interval_ms: 1_000 }),
    ));
    let mut client = server.client();
    for number in 0..10 {
        client.must(&["XADD", STREAM, "*", "data", &format!("no JSON {number}")]);
    }
    let short = Mail { expires_at_unix_ns: store.now().unix_ns + 1_000_000, ..mail(&store, 1) };
    store.ask(StoreRequest::AppendMail { mailbox: mailbox(), mail: vec![short, mail(&store, 2)], claim: None });
    store.skip_ms(2);
    let (entries, next) = page(store.ask(read(None, 5)));
    assert_eq!((entries.len(), next.is_some()), (0, true), "a page of nothing leads on");
    let (entries, next) = page(store.ask(read(next, 256)));
    assert_eq!((entries.len(), entries[0].mail.stream.seq, next), (1, 2, None));
    assert_eq!(seen(&mut store), [(2, 2)]);
    store.skip_ms(1_000);
    store.until("the figures came", |d| d.figures.mail.undecodable.get() == 10 && d.figures.mail.expired.get() == 1);
    assert_eq!((store.figures.mail.depth.get(), store.figures.mail.users.get()), (1, 1));
    assert_eq!(format!("{:?}", client.command(&["XLEN", STREAM])), "Integer(1)");
}

#[test]
fn chores_sweep_give_up_and_count_while_other_shards_do_not() {
    let server = RedisServer::start();
    let chores = Chores { queue_interval_ms: 10_000, ack_interval_ms: 10_000, figures_interval_ms: 1_000 };
    let mut worker = store_with(config(&server.url(), Some(chores)));
    let mut idle = store(&server);
    // More than one round takes of either.
    let users = u64::from(limits::REDIS_SWEEP_MAILBOXES_MAX) * 2 + 1;
    let tracked = u64::from(limits::REDIS_ACK_EXPIRE_MAX) * 2 + 1;
    for number in 1..=users {
        let mailbox = MailboxKey { tenant: TenantId::parse("acme").unwrap(), user: format!("u{number}").into() };
        let mail = vec![mail(&idle, number)];
        idle.submit(StoreRequest::AppendMail { mailbox: Arc::new(mailbox), mail, claim: None });
    }
    for number in 1..=tracked {
        idle.submit(track(number));
    }
    idle.turn(&[]);
    idle.until("all are stored", |d| !d.store.owes());
    worker.skip_ms(1_000);
    worker.until("they are counted", |d| {
        (d.figures.mail.users.get(), d.figures.mail.enqueued.get(), d.figures.acks.pending.get())
            == (users, users, tracked)
    });
    worker.skip_ms(3_600_000);
    worker.until("all of it is gone and counted", |d| {
        let (mail, acks) = (&d.figures.mail, &d.figures.acks);
        (mail.depth.get(), mail.expired.get(), acks.pending.get(), acks.expired.get()) == (0, users, 0, tracked)
    });
    idle.skip_ms(3_600_000);
    assert_eq!((idle.figures.mail.enqueued.get(), count(&idle, StoreOperation::Stats)), (0, [0, 0, 0]));
    assert!(count(&worker, StoreOperation::Sweep)[0] > users);
}

#[test]
fn templates_of_any_number_and_size_are_read_page_by_page_and_damaged_ones_are_left_out() {
    let server = RedisServer::start();
    let mut store = store(&server);
    for number in 0..1_500 {
        store.submit(template(&format!("t{number:04}"), "x"));
    }
    let large = "x".repeat(900_000);
    for number in 0..8 {
        store.submit(template(&format!("large{number}"), &large));
    }
    store.turn(&[]);
    store.until("all are stored", |d| !d.store.owes());
    let mut client = server.client();
    client.must(&[
        "HSET",
        "ara:queue:templates",
        "acme:t0000",
        "{}",
        "nobody",
        "x",
        "acme:huge",
        &"x".repeat(3_000_000),
    ]);
    let all = templates(&mut store);
    assert_eq!(all.len(), 1_499 + 8);
    assert_eq!(all.iter().filter(|(_, _, bytes)| *bytes == large.len() + 2).count(), 8);
    assert!(store.figures.is_well() && store.figures.connections.get() == 1);
}

#[test]
fn an_append_says_what_stood_before_all_of_it_and_its_claim_is_taken_once() {
    let server = RedisServer::start();
    let mut store = store(&server);
    let first = put(&mut store, 1..=1);
    let before = |reply: StoreReply| match reply {
        StoreReply::Appended { positions, before, .. } => (positions.len(), before),
        other => panic!("not appended: {other:?}"),
    };
    let parts = limits::REDIS_APPEND_MAX as u64 * 2;
    let several = append(&store, 2..=parts);
    assert_eq!(before(store.ask(several)), (parts as usize - 1, first.last().copied()));
    let claimed = |store: &Store, last: u64, hash: u128, nth: u32| match append(store, 2..=last) {
        StoreRequest::AppendMail { mailbox, mail, .. } => {
            StoreRequest::AppendMail { mailbox, mail, claim: Some(Claim::new(hash, nth)) }
        }
        other => other,
    };
    let rows = [(1, 0, 1), (1, 0, 0), (1, 1, 1), (1, 0, 0), (2, 0, 1)];
    for (hash, nth, kept) in rows {
        let request = claimed(&store, 2, hash, nth);
        assert_eq!(before(store.ask(request)).0, kept, "{hash} {nth}");
    }
    // A claim is of one notification, and never half taken.
    let request = claimed(&store, parts, 3, 0);
    assert!(matches!(store.ask(request), StoreReply::Failed));
    let request = claimed(&store, 2, 3, 0);
    assert_eq!(before(store.ask(request)).0, 1);
}

#[test]
fn an_outbox_that_is_put_back_is_kept_wholly_however_large_it_is() {
    let server = RedisServer::start();
    let mut settings = config(&server.url(), None);
    settings.queue = Some(RedisQueue { prefix: "ara:queue".to_owned(), entries_max: 100_000, ttl_seconds: 3_600 });
    let mut store = store_with(settings);
    let request = append(&store, 1..=limits::OUTBOX_FRAMES_MAX as u64);
    assert_eq!(appended(store.ask(request)).0.len(), limits::OUTBOX_FRAMES_MAX);
    // Several commands: more than an outbox ever holds.
    let payload = format!("\"{}\"", "x".repeat(1_000_000));
    let larger = |mail: Mail| Mail { event: event(mail.id, &payload).into(), ..mail };
    let large: Vec<Mail> = (1..=20).map(|number| larger(mail(&store, number))).collect();
    let (positions, dropped) =
        appended(store.ask(StoreRequest::AppendMail { mailbox: mailbox(), mail: large, claim: None }));
    assert_eq!((positions.len(), dropped, positions.is_sorted()), (20, 0, true));
    let too_large: Arc<[u8]> = vec![b'1'; limits::REDIS_ENTRY_BYTES_MAX].into();
    let mail = vec![mail(&store, 1), Mail { event: too_large, ..mail(&store, 2) }];
    assert!(matches!(
        store.ask(StoreRequest::AppendMail { mailbox: mailbox(), mail, claim: None }),
        StoreReply::Failed
    ));
    let all: Vec<Position> = {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let (entries, next) = page(store.ask(read(after, 256)));
            all.extend(entries.iter().map(|entry| entry.position));
            after = next;
            if after.is_none() {
                break all;
            }
        }
    };
    assert_eq!(all.len(), limits::OUTBOX_FRAMES_MAX + 20);
    assert!(matches!(store.ask(remove(&all)), StoreReply::Done));
    assert!(seen(&mut store).is_empty());
}
