//! Several nodes and one server: each mailbox is one order for all, what stood before is told exactly, and a claim is
//! taken once.
mod common;

use common::postgres::{PostgresServer, StoreDriver, store_config};
use protocol::cluster::wire::Claim;
use protocol::ids::{NotificationId, TenantId, uuid_v7};
use protocol::store::{Mail, MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use protocol::stream::StreamSeq;
use std::collections::HashMap;
use std::sync::Arc;
use storage::backend::Chores;
use storage::link::state::LinkState;

fn mailbox(user: &str) -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: user.into() })
}

fn mail(n: u64) -> Mail {
    let id = NotificationId(uuid_v7(n, [7; 10]));
    let event = format!(
        r#"{{"id":"{id}","occurred_at":"t","event_type":"e","payload":{n},"metadata":{{"source":"s","priority":"Low"}}}}"#
    );
    Mail {
        id,
        event: event.into_bytes().into(),
        queued_at_unix_ns: common::since_epoch_ns(),
        expires_at_unix_ns: u64::MAX,
        attempts: 0,
        stream: StreamSeq { epoch: 1, seq: n },
    }
}

fn append(user: &str, numbers: std::ops::Range<u64>, claim: Option<Claim>) -> StoreRequest {
    StoreRequest::AppendMail { mailbox: mailbox(user), mail: numbers.map(mail).collect(), claim }
}

/// Where they stand, what stood before, and how many had to go.
fn appended(reply: StoreReply) -> (Vec<Position>, Option<Position>, u64) {
    match reply {
        StoreReply::Appended { positions, before, dropped } => (positions, before, dropped),
        other => panic!("not appended: {other:?}"),
    }
}

#[test]
fn an_append_tells_what_stood_before_it() {
    let server = PostgresServer::start();
    let mut config = store_config(&server.url());
    config.queue.as_mut().unwrap().entries_max = 3;
    let mut driver = StoreDriver::new(config);
    let mut ask = |request| driver.ask(request);
    let (first, before, _) = appended(ask(append("ana", 0..2, None)));
    assert_eq!(before, None);
    let (second, before, dropped) = appended(ask(append("ana", 2..4, None)));
    assert_eq!((before, dropped), (Some(first[1]), 1));
    let (_, before, _) = appended(ask(append("bob", 0..1, None)));
    assert_eq!(before, None, "another mailbox");
    let remove = StoreRequest::RemoveMail { mailbox: mailbox("ana"), positions: vec![second[1]], lingers: false };
    assert!(matches!(ask(remove), StoreReply::Done));
    let (third, before, _) = appended(ask(append("ana", 4..5, None)));
    assert_eq!(before, Some(second[0]), "what was taken out does not stand there");
    let (positions, before, dropped) = appended(ask(append("ana", 5..10, None)));
    assert_eq!((positions.len(), before, dropped), (5, Some(third[0]), 5));
    assert_eq!(positions[..2], [Position::default(); 2]);
    let remove = StoreRequest::RemoveMail { mailbox: mailbox("ana"), positions, lingers: false };
    assert!(matches!(ask(remove), StoreReply::Done));
    assert_eq!(appended(ask(append("ana", 10..11, None))).1, None, "it was empty");
}

#[test]
fn a_claim_is_taken_once_on_whichever_node_and_forgotten_ten_minutes_later() {
    let server = PostgresServer::start();
    let mut nodes = [StoreDriver::to(&server), StoreDriver::to(&server)];
    let claim = |nth| Some(Claim::new(u128::MAX - 5, nth));
    let mut ask = |node: usize, user: &str, claim| appended(nodes[node].ask(append(user, 0..2, claim)));
    let (first, before, _) = ask(0, "ana", claim(1));
    assert_eq!((first.len(), before), (2, None));
    for (node, nth) in [(0, 1), (1, 1), (1, 0)] {
        assert_eq!(ask(node, "ana", claim(nth)), (Vec::new(), Some(first[1]), 0));
    }
    let (second, before, _) = ask(1, "ana", claim(u32::MAX));
    assert_eq!((second.len(), before), (2, Some(first[1])), "one more of the same");
    assert_eq!(ask(0, "ana", claim(2)).0, [], "an earlier one that comes late");
    assert_eq!(ask(0, "bob", claim(1)).0.len(), 2, "another mailbox");
    assert_eq!(ask(0, "ana", Some(Claim::new(0, 0))).0.len(), 2, "another message");
    assert_eq!(server.psql("SELECT sum(enqueued), sum(dropped) FROM notification_queue_stats"), "8|0");
    server.psql("UPDATE notification_claims SET taken_at = taken_at - interval '599 s'");
    assert_eq!(ask(0, "ana", claim(1)).0, []);
    server.psql("UPDATE notification_claims SET taken_at = taken_at - interval '1 s'");
    assert_eq!(ask(0, "ana", claim(1)).0.len(), 2);
    // A message that is there for a second at most, two with what clocks may differ by: what was claimed before was another.
    let young = |driver: &StoreDriver, nth| {
        Some(Claim { after_us: driver.now().mono_us.saturating_sub(1_000_000).max(1), ..Claim::new(6, nth) })
    };
    for (aged, nth, count) in [("0 s", 7, 2), ("0 s", 0, 0), ("9 s", 0, 2), ("0 s", 8, 0), ("0 s", 9, 2), ("9 s", 9, 2)]
    {
        server.psql(&format!("UPDATE notification_claims SET taken_at = taken_at - interval '{aged}'"));
        let claim = young(&nodes[0], nth);
        assert_eq!(appended(nodes[0].ask(append("cyd", 0..2, claim))).0.len(), count, "{nth}, {aged} later");
    }
    server.psql("DELETE FROM notification_claims WHERE user_id = 'cyd'");
    let mut config = store_config(&server.url());
    config.chores = Some(Chores { queue_interval_ms: 1_000, ack_interval_ms: 1_000, figures_interval_ms: 1_000 });
    let mut sweeper = StoreDriver::new(config);
    sweeper.until("the old ones are swept", |_| server.psql("SELECT count(*) FROM notification_claims") == "1");
    assert_eq!(server.psql("SELECT nth FROM notification_claims"), "4294967296", "behind the greatest there was");
}

#[test]
fn a_claim_that_many_nodes_make_at_once_is_taken_by_one() {
    let server = PostgresServer::start();
    let mut nodes: Vec<_> = (0..3).map(|_| StoreDriver::to(&server)).collect();
    let messages = 200;
    for node in &mut nodes {
        for n in 0..messages {
            let claim = Claim::of(b"channel", n.to_string().as_bytes(), 0);
            node.submit(append(&format!("u{}", n % 10), n..n + 1, Some(claim)));
        }
    }
    turn_all(&mut nodes, |nodes| nodes.iter().all(|node| node.replies.len() == messages as usize));
    let mut taken = vec![0; messages as usize];
    for node in &mut nodes {
        for (ticket, reply) in node.replies.drain(..) {
            taken[ticket.0 as usize - 1] += appended(reply).0.len();
        }
    }
    assert!(taken.iter().all(|times| *times == 1), "{taken:?}");
}

fn turn_all(nodes: &mut [StoreDriver], done: impl Fn(&[StoreDriver]) -> bool) {
    let begun = std::time::Instant::now();
    while !done(nodes) {
        assert!(begun.elapsed() < common::PATIENCE, "{:?}", nodes.iter().map(|n| n.replies.len()).collect::<Vec<_>>());
        nodes.iter_mut().for_each(StoreDriver::step);
    }
}

#[test]
fn nodes_that_append_to_the_same_mailboxes_make_one_order_without_a_hole() {
    const USERS: u64 = 12;
    const APPENDS: u64 = 240;
    let server = PostgresServer::start_with(&["deadlock_timeout=10ms"]);
    let mut nodes: Vec<_> = (0..3)
        .map(|_| {
            let mut config = store_config(&server.url());
            (config.links, config.queue.as_mut().unwrap().entries_max) = (4, 100_000);
            StoreDriver::new(config)
        })
        .collect();
    // Each node goes through the users in another order, so that their transactions meet.
    for (node, step) in nodes.iter_mut().zip([1, 5, 11]) {
        for n in 0..APPENDS {
            node.submit(append(&format!("u{}", n * step % USERS), n..n + 1, None));
        }
    }
    // Somebody reads on from where it was, all the time.
    let mut reader = StoreDriver::to(&server);
    let mut after: HashMap<u64, Option<Position>> = (0..USERS).map(|user| (user, None)).collect();
    let mut seen: HashMap<u64, Vec<Position>> = HashMap::new();
    let mut is_over = false;
    loop {
        let mut found = 0;
        for user in 0..USERS {
            let request = StoreRequest::ReadMail {
                mailbox: mailbox(&format!("u{user}")),
                after: after[&user],
                entries_max: 7,
                lingering_ms: 0,
            };
            let ticket = reader.submit(request);
            let mut answer = None;
            while answer.is_none() {
                reader.step();
                nodes.iter_mut().for_each(StoreDriver::step);
                answer = reader.replies.pop();
            }
            let Some((other, StoreReply::Mail { entries, .. })) = answer else { panic!("{answer:?}") };
            assert_eq!(other, ticket);
            found += entries.len();
            if let Some(last) = entries.last() {
                after.insert(user, Some(last.position));
            }
            seen.entry(user).or_default().extend(entries.iter().map(|entry| entry.position));
        }
        if is_over && found == 0 {
            break;
        }
        is_over = nodes.iter().all(|node| node.replies.len() == APPENDS as usize);
    }
    for user in 0..USERS {
        let mut told = Vec::new();
        for (node, step) in nodes.iter().zip([1, 5, 11]) {
            let of_user = |ticket: &StoreTicket| (ticket.0 - 1) * step % USERS == user;
            for (_, reply) in node.replies.iter().filter(|(ticket, _)| of_user(ticket)) {
                let (positions, before, _) = appended(reply.clone());
                told.push((positions[0], before));
            }
        }
        told.sort_unstable();
        let mut last = None;
        for (position, before) in &told {
            assert_eq!(*before, last, "user {user}");
            last = Some(*position);
        }
        assert_eq!(told.len() as u64, 3 * APPENDS / USERS);
        let positions: Vec<_> = told.iter().map(|(position, _)| *position).collect();
        assert_eq!(seen[&user], positions, "whoever reads on misses nothing");
    }
}

#[test]
fn a_name_that_cannot_be_kept_is_refused_and_hurts_nobody() {
    let server = PostgresServer::start();
    let mut driver = StoreDriver::to(&server);
    let tickets = ["ana", "a\0na", "bob"].map(|user| driver.submit(append(user, 0..1, None)));
    let replies = tickets.map(|ticket| driver.answer(ticket));
    assert!(matches!(replies[1], StoreReply::Failed));
    assert_eq!(server.psql("SELECT count(*) FROM notification_queue"), "2");
    assert!(driver.figures.is_well());
}

#[test]
fn a_store_is_well_when_every_link_that_has_mailboxes_is_up() {
    let server = PostgresServer::start();
    server.psql("CREATE ROLE ara LOGIN; GRANT CREATE ON SCHEMA public TO ara");
    let mut config = store_config(&server.url_as("ara", "?sslmode=disable"));
    config.links = 4;
    let mut driver = StoreDriver::new(config);
    driver.until("it is well", |d| d.figures.is_well() && d.figures.connections.get() == 4);
    appended(driver.ask(append("ana", 0..1, None)));
    // The link of one mailbox is thrown out and not let in again.
    server.psql("ALTER ROLE ara CONNECTION LIMIT 3");
    let out = server.psql(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'ara' AND query LIKE '%kept AS%'",
    );
    assert_eq!(out, "1");
    driver.until("it is not well", |d| !d.figures.is_well());
    for _ in 0..20 {
        driver.step();
    }
    assert!(!driver.figures.is_well() && driver.figures.link() == LinkState::Reconnecting);
    server.psql("ALTER ROLE ara CONNECTION LIMIT 4");
    driver.until("it is well again", |d| d.figures.is_well());
    appended(driver.ask(append("ana", 1..2, None)));
}
