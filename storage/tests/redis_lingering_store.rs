//! What one node removed and another can still read, asked of the store: of one redis-server and of a Redis Cluster, which each
//! test starts for itself.
mod common;

use common::cluster::Cluster;
use common::store::StoreDriver;
use common::{Client, RedisServer, since_epoch_ns};
use protocol::clock::Now;
use protocol::ids::{NotificationId, TenantId, uuid_v7};
use protocol::limits;
use protocol::store::{Entry, Mail, MailboxKey, Position, StoreReply, StoreRequest};
use protocol::stream::StreamSeq;
use std::sync::Arc;
use storage::backend::Backend;
use storage::figures::StoreFigures;
use storage::link::state::LinkState;
use storage::redis::commands::link::CommandConfig;
use storage::redis::partitions::{PARTITIONS, partition_of, prefix_of};
use storage::redis::store::partitioned::PartitionedStore;
use storage::redis::store::{RedisQueue, RedisStore, RedisStoreConfig};
use storage::redis::topology::scout::Located;
use storage::redis::url::RedisUrl;

const STREAM: &str = "ara:queue:default:u1";
const GONE: &str = "ara:queue:gone:{ara:queue:default:u1}";

/// Ids of a mailbox become those of an hour that is still to come, so that no slowness makes them old.
fn ahead(client: &mut Client, stream: &str) {
    let first = format!("{}-1", since_epoch_ns() / 1_000_000 + 3_600_000);
    client.must(&["XADD", stream, &first, "data", "x"]);
    client.must(&["XDEL", stream, &first]);
}

fn config(url: RedisUrl) -> RedisStoreConfig {
    RedisStoreConfig {
        link: CommandConfig::new(url, &[]).unwrap(),
        templates: None,
        queue: Some(RedisQueue { prefix: "ara:queue".to_owned(), entries_max: 5_000, ttl_seconds: 3_600 }),
        acks: None,
        chores: None,
    }
}

fn partitioned(cluster: &Cluster) -> StoreDriver<PartitionedStore> {
    let mut config = config(cluster.url.clone());
    config.link.located = Some(Located::new(&cluster.whereabouts, b""));
    let parts: Vec<_> = (0..PARTITIONS).map(|_| Arc::new(StoreFigures::new("redis"))).collect();
    let mut store = StoreDriver::new("redis", |_, wake| PartitionedStore::new(&config, &parts, 7, &wake));
    store.until("all partitions are there", |_| parts.iter().all(|part| part.link() == LinkState::Healthy));
    store
}

fn store(server: &RedisServer) -> StoreDriver<RedisStore> {
    let config = config(RedisUrl::parse(&server.url()).unwrap());
    let mut store = StoreDriver::new("redis", |figures, wake| RedisStore::new(config, figures, 7, wake));
    store.until_healthy();
    store
}

fn mailbox() -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: "u1".into() })
}

fn mail(now: Now, number: u64) -> Mail {
    let id = NotificationId(uuid_v7(number, [0; 10]));
    let event = format!(
        r#"{{"id":"{id}","occurred_at":"t","event_type":"e","payload":{number},"metadata":{{"source":"s","priority":"Low"}}}}"#
    );
    Mail {
        id,
        event: event.into_bytes().into(),
        queued_at_unix_ns: now.unix_ns,
        expires_at_unix_ns: now.unix_ns + 3_600_000_000_000,
        attempts: 0,
        stream: StreamSeq { epoch: 9, seq: number },
    }
}

#[test]
fn a_node_reads_what_another_removed_before_it_heard_of_it() {
    let server = RedisServer::start();
    let mut client = server.client();
    ahead(&mut client, STREAM);
    another_removed(&mut store(&server), &mut store(&server), &mut client, GONE);
}

#[test]
fn a_node_of_a_redis_cluster_does_so_too() {
    let cluster = Cluster::durable();
    let prefix = prefix_of("ara:queue", partition_of(&mailbox().tenant, &mailbox().user));
    let stream = format!("{prefix}:default:u1");
    let tag = prefix.split(['{', '}']).nth(1).unwrap();
    let gone = format!("{prefix}:gone-tagged:{{{tag}}}:{stream}");
    let mut client = cluster.client_of(&stream);
    ahead(&mut client, &stream);
    another_removed(&mut partitioned(&cluster), &mut partitioned(&cluster), &mut client, &gone);
}

/// Two nodes of one mailbox, whose `gone` is where it lingers.
fn another_removed<B: Backend>(here: &mut StoreDriver<B>, there: &mut StoreDriver<B>, client: &mut Client, gone: &str) {
    let append = |store: &mut StoreDriver<B>, numbers: std::ops::RangeInclusive<u64>| {
        let mail = numbers.map(|number| mail(store.now(), number)).collect();
        match store.ask(StoreRequest::AppendMail { mailbox: mailbox(), mail, claim: None }) {
            StoreReply::Appended { positions, before, .. } => (positions, before),
            other => panic!("not appended: {other:?}"),
        }
    };
    let (first, before) = append(here, 1..=1);
    assert_eq!(before, None);
    let remove = |positions: &[Position], lingers| StoreRequest::RemoveMail {
        mailbox: mailbox(),
        positions: positions.to_vec(),
        lingers,
    };
    assert!(matches!(here.ask(remove(&first, true)), StoreReply::Done));
    client.must(&["PERSIST", gone]);
    let (second, before) = append(there, 2..=2);
    assert_eq!(before, first.last().copied(), "what it has not heard of");
    let read = |store: &mut StoreDriver<B>, lingering_ms| {
        let request = StoreRequest::ReadMail { mailbox: mailbox(), after: None, entries_max: 5_000, lingering_ms };
        match store.ask(request) {
            StoreReply::Mail { entries, .. } => entries,
            other => panic!("not read: {other:?}"),
        }
    };
    let show = |entries: Vec<Entry>| -> Vec<(Position, u64, u32, u64, bool)> {
        let show = |e: &Entry| (e.position, e.mail.stream.seq, e.mail.attempts, e.age.most_ms - 1, e.is_gone);
        entries.iter().map(show).collect()
    };
    let stands = |attempts| (second[0], 2, attempts, 0, false);
    assert_eq!(show(read(there, limits::STORE_LINGER_MS)), [(first[0], 1, 0, 0, true), stands(1)]);
    assert_eq!(show(read(there, 0)), [stands(2)]);
    // More than one command removes.
    let count = limits::REDIS_REMOVE_LINGERING_MAX as u64 * 2 + 1;
    let (many, before) = append(here, 3..=count + 2);
    assert_eq!(before, second.last().copied());
    assert!(matches!(here.ask(remove(&many, true)), StoreReply::Done));
    client.must(&["PERSIST", gone]);
    assert_eq!(show(read(there, 0)), [stands(3)]);
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let request = StoreRequest::ReadMail { mailbox: mailbox(), after, entries_max: 5_000, lingering_ms: 3_000 };
        let StoreReply::Mail { entries, next } = there.ask(request) else { panic!("not read") };
        all.extend(entries.iter().map(|entry| (entry.mail.stream.seq, entry.is_gone)));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(all, (1..=count + 2).map(|number| (number, number != 2)).collect::<Vec<_>>());
    // Removed without lingering: nobody reads it again.
    assert!(matches!(here.ask(remove(&second, false)), StoreReply::Done));
    assert!(read(there, 3_000).iter().all(|entry| entry.is_gone && entry.mail.stream.seq != 2));
}

#[test]
fn what_the_store_tidies_away_does_not_linger() {
    let server = RedisServer::start();
    let (mut store, mut client) = (store(&server), server.client());
    ahead(&mut client, STREAM);
    client.must(&["XADD", STREAM, "*", "data", "no JSON"]);
    let expired = Mail { expires_at_unix_ns: 1, ..mail(store.now(), 1) };
    store.ask(StoreRequest::AppendMail { mailbox: mailbox(), mail: vec![expired], claim: None });
    for _ in 0..3 {
        let request = StoreRequest::ReadMail { mailbox: mailbox(), after: None, entries_max: 9, lingering_ms: 3_000 };
        match store.ask(request) {
            StoreReply::Mail { entries, next: None } => assert!(entries.is_empty()),
            other => panic!("not read: {other:?}"),
        }
    }
    assert_eq!(format!("{:?}", client.command(&["EXISTS", STREAM, GONE])), "Integer(0)");
}
