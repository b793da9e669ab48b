//! A server and a store of a test's own, and what is asked of any store.
use crate::common::cluster::Cluster;
use crate::common::postgres::{PostgresServer, store_config};
use crate::common::store::StoreDriver;
use crate::common::{Client, RedisServer, since_epoch_ns};
use crate::memory::{AnyStore, MemoryStore};
use crate::partitioned::Summed;
use protocol::ids::{NotificationId, TenantId, uuid_v7};
use protocol::store::{Entry, Mail, MailboxKey, Position, StoreReply, StoreRequest};
use protocol::stream::StreamSeq;
use std::sync::Arc;
use storage::backend::Chores;
use storage::backoff::BackoffConfig;
use storage::breaker::BreakerConfig;
use storage::figures::Figure;
use storage::memory::mailboxes::MailboxLimits;
use storage::postgres::link::LinkTiming;
use storage::postgres::store::{PostgresAcks, PostgresQueue, PostgresStore};
use storage::redis::commands::link::{CommandConfig, CommandTiming};
use storage::redis::partitions;
use storage::redis::store::{RedisAcks, RedisQueue, RedisStore, RedisStoreConfig};
use storage::redis::topology::scout::Located;
use storage::redis::url::RedisUrl;
use storage::store::Store as Memory;

/// How long an acknowledgement is awaited.
pub(crate) const ACK_TIMEOUT_MS: u64 = 30_000;
/// How often the figures are asked for.
pub(crate) const FIGURES_INTERVAL_MS: u64 = 1_000;
const HOUR_NS: u64 = 3_600_000_000_000;

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Redis,
    RedisCluster,
    Postgres,
}

/// What a row chooses; the rest is the same for all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Of one mailbox.
    pub(crate) entries_max: u32,
    /// From asking to giving up; the default is never in a test.
    pub(crate) command_timeout_ms: u32,
    /// How often what has expired is swept; the default is never in a test.
    pub(crate) sweep_interval_ms: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { entries_max: 1_000, command_timeout_ms: 600_000, sweep_interval_ms: 86_400_000 }
    }
}

/// A driver of any store.
pub(crate) type Store = StoreDriver<AnyStore>;

/// A server, if the store has one, and a store.
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) server: Server,
    settings: Settings,
}

/// Who keeps it.
pub(crate) enum Server {
    None,
    Redis(RedisServer),
    RedisCluster(Cluster),
    Postgres(PostgresServer),
}

impl Server {
    fn start(kind: Kind) -> Server {
        match kind {
            Kind::Memory => Server::None,
            Kind::Redis => {
                let mut server = RedisServer::absent();
                server.settings = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned).to_vec();
                server.restart();
                Server::Redis(server)
            }
            Kind::RedisCluster => Server::RedisCluster(Cluster::durable()),
            Kind::Postgres => Server::Postgres(PostgresServer::start()),
        }
    }

    fn open(&self, settings: Settings) -> Store {
        let chores = Chores {
            queue_interval_ms: settings.sweep_interval_ms,
            ack_interval_ms: settings.sweep_interval_ms,
            figures_interval_ms: FIGURES_INTERVAL_MS,
        };
        let timeout_ms = u64::from(settings.command_timeout_ms);
        let mut store = match self {
            Server::None => {
                let memory = Memory::memory(MailboxLimits { entries_max: settings.entries_max as usize });
                return StoreDriver::new("memory", |_, _| AnyStore::Memory(Box::new(MemoryStore::new(memory))));
            }
            Server::Redis(server) => {
                let url = RedisUrl::parse(&server.url()).expect("a valid URL");
                let config = redis_config(url, settings, chores);
                StoreDriver::new("redis", |figures, wake| {
                    AnyStore::Redis(Box::new(RedisStore::new(config, figures, 7, wake)))
                })
            }
            Server::RedisCluster(cluster) => {
                let mut config = redis_config(cluster.url.clone(), settings, chores);
                config.link.located = Some(Located::new(&cluster.whereabouts, b""));
                StoreDriver::new("redis", |figures, wake| {
                    AnyStore::RedisCluster(Box::new(Summed::new(&config, figures, &wake)))
                })
            }
            Server::Postgres(server) => {
                let mut config = store_config(&server.url());
                let link = Arc::make_mut(&mut config.link);
                link.timing = LinkTiming { connect_deadline_ms: timeout_ms.max(1_000), ping_interval_ms: timeout_ms };
                config.links = 4;
                config.command_timeout_ms = settings.command_timeout_ms;
                config.queue = Some(PostgresQueue { entries_max: settings.entries_max });
                config.acks = Some(PostgresAcks { timeout_seconds: (ACK_TIMEOUT_MS / 1_000) as u32 });
                config.chores = Some(chores);
                StoreDriver::new("postgres", |figures, wake| {
                    AnyStore::Postgres(Box::new(PostgresStore::new(config, figures, 7, wake)))
                })
            }
        };
        store.until_healthy();
        store
    }
}

impl Server {
    /// A connection to where the mailbox of a user of the tenant `default` is in Redis, and its key.
    pub(crate) fn redis_mailbox(&self, user: &str) -> (Client, String) {
        match self {
            Server::Redis(server) => (server.client(), format!("ara:queue:default:{user}")),
            Server::RedisCluster(cluster) => {
                let partition = partitions::partition_of(&TenantId::default_tenant(), user);
                let key = format!("{}:default:{user}", partitions::prefix_of("ara:queue", partition));
                (cluster.client_of(&key), key)
            }
            Server::None | Server::Postgres(_) => panic!("it is not in Redis"),
        }
    }
}

fn redis_config(url: RedisUrl, settings: Settings, chores: Chores) -> RedisStoreConfig {
    let mut link = CommandConfig::new(url, &[]).expect("valid settings");
    let timeout_ms = u64::from(settings.command_timeout_ms);
    link.breaker = BreakerConfig { failure_threshold: u32::MAX, success_threshold: 2, reset_timeout_ms: 50 };
    link.backoff = BackoffConfig { initial_ms: 10, max_ms: 50 };
    link.timing = CommandTiming {
        connect_deadline_ms: timeout_ms.max(1_000),
        command_timeout_ms: timeout_ms,
        ping_interval_ms: timeout_ms,
    };
    let prefix = "ara:queue".to_owned();
    RedisStoreConfig {
        link,
        templates: Some(prefix.clone()),
        queue: Some(RedisQueue { prefix, entries_max: settings.entries_max, ttl_seconds: 3_600 }),
        acks: Some(RedisAcks { prefix: "ara:ack".to_owned(), timeout_seconds: (ACK_TIMEOUT_MS / 1_000) as u32 }),
        chores: Some(chores),
    }
}

impl Bench {
    pub(crate) fn new(kind: Kind) -> Bench {
        Bench::with(kind, Settings::default())
    }

    pub(crate) fn with(kind: Kind, settings: Settings) -> Bench {
        let server = Server::start(kind);
        Bench { store: server.open(settings), server, settings }
    }

    /// Another store on the same server, as after a restart of the node.
    pub(crate) fn open(&self) -> Store {
        assert!(!matches!(self.server, Server::None), "a second store in memory is another store");
        self.server.open(self.settings)
    }

    /// Has what has expired swept; on a server that is done when the figures say so.
    pub(crate) fn sweep(&mut self) {
        let now = self.store.now();
        match &mut self.store.store {
            AnyStore::Memory(memory) => memory.store.sweep(now),
            AnyStore::Redis(_) | AnyStore::RedisCluster(_) | AnyStore::Postgres(_) => {
                self.store.skip_ms(self.settings.sweep_interval_ms)
            }
        }
    }

    /// Puts something that is no notification into a mailbox of the tenant `default`, by another program's hand.
    pub(crate) fn spoil(&self, user: &str) {
        match &self.server {
            Server::None => panic!("nobody else writes to our memory"),
            server @ (Server::Redis(_) | Server::RedisCluster(_)) => {
                let (mut client, key) = server.redis_mailbox(user);
                client.must(&["XADD", &key, "*", "data", "no JSON"]);
            }
            Server::Postgres(server) => {
                server.psql(&format!(
                    "INSERT INTO notification_queue (user_id, message, expires_at, event)
                     VALUES ('{user}', '{{}}', now() + interval '1 h', 'no JSON')"
                ));
            }
        }
    }
}

impl StoreDriver<AnyStore> {
    pub(crate) fn append(&mut self, mailbox: &Arc<MailboxKey>, mail: Vec<Mail>) -> (Vec<Position>, u64) {
        match self.ask(StoreRequest::AppendMail { mailbox: Arc::clone(mailbox), mail, claim: None }) {
            StoreReply::Appended { positions, dropped, .. } => (positions, dropped),
            other => panic!("not appended: {other:?}"),
        }
    }

    pub(crate) fn read(
        &mut self,
        mailbox: &Arc<MailboxKey>,
        after: Option<Position>,
        entries_max: usize,
    ) -> (Vec<Entry>, Option<Position>) {
        match self.ask(StoreRequest::ReadMail { mailbox: Arc::clone(mailbox), after, entries_max, lingering_ms: 0 }) {
            StoreReply::Mail { entries, next } => (entries, next),
            other => panic!("not read: {other:?}"),
        }
    }

    /// Every page, one after another.
    pub(crate) fn pages(&mut self, mailbox: &Arc<MailboxKey>, entries_max: usize) -> Vec<Vec<Entry>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let (entries, next) = self.read(mailbox, after, entries_max);
            pages.push(entries);
            assert!(next.is_none() || next > after, "a page leads on: {after:?} to {next:?}");
            match next {
                Some(_) => after = next,
                None => return pages,
            }
        }
    }

    /// Everything that is there: its number and how often it was given.
    pub(crate) fn seen(&mut self, mailbox: &Arc<MailboxKey>) -> Vec<(u64, u32)> {
        let pages = self.pages(mailbox, 100);
        pages.iter().flatten().map(|entry| (entry.mail.stream.seq, entry.mail.attempts)).collect()
    }

    /// The numbers of everything that is there.
    pub(crate) fn numbers(&mut self, mailbox: &Arc<MailboxKey>) -> Vec<u64> {
        self.seen(mailbox).into_iter().map(|(number, _)| number).collect()
    }

    pub(crate) fn begin(&mut self, mailbox: &Arc<MailboxKey>, positions: &[Position]) {
        let request = StoreRequest::BeginMail { mailbox: Arc::clone(mailbox), positions: positions.to_vec() };
        let reply = self.ask(request);
        assert!(matches!(reply, StoreReply::Done), "not begun: {reply:?}");
    }

    pub(crate) fn remove(&mut self, mailbox: &Arc<MailboxKey>, positions: &[Position]) {
        let request =
            StoreRequest::RemoveMail { mailbox: Arc::clone(mailbox), positions: positions.to_vec(), lingers: false };
        let reply = self.ask(request);
        assert!(matches!(reply, StoreReply::Done), "not removed: {reply:?}");
    }

    /// Users, depth, enqueued, dropped and expired, as told last.
    pub(crate) fn mail_figures(&self) -> [u64; 5] {
        match &self.store {
            AnyStore::Memory(memory) => {
                let counts = memory.store.mailbox_counts();
                [counts.mailboxes, counts.entries, counts.enqueued, counts.dropped, counts.expired]
            }
            AnyStore::Redis(_) | AnyStore::RedisCluster(_) | AnyStore::Postgres(_) => {
                let mail = &self.figures.mail;
                [&mail.users, &mail.depth, &mail.enqueued, &mail.dropped, &mail.expired].map(Figure::get)
            }
        }
    }

    /// Waits for figures that are told now and then.
    pub(crate) fn until_mail_figures(&mut self, expected: [u64; 5]) {
        if matches!(self.store, AnyStore::Memory(_)) {
            return assert_eq!(self.mail_figures(), expected, "users, depth, enqueued, dropped, expired");
        }
        self.skip_ms(FIGURES_INTERVAL_MS);
        let what = format!("users, depth, enqueued, dropped and expired are {expected:?}");
        self.until(&what, |d| d.mail_figures() == expected);
    }
}

/// A mailbox of the tenant `default`.
pub(crate) fn mailbox(user: &str) -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: user.into() })
}

/// A mailbox of another tenant.
pub(crate) fn mailbox_of(tenant: &str, user: &str) -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::parse(tenant).expect("a tenant's name"), user: user.into() })
}

pub(crate) fn id(number: u64) -> NotificationId {
    NotificationId(uuid_v7(number, [7; 10]))
}

/// An event of contract §5, with this payload.
pub(crate) fn mail_of(number: u64, payload: &str) -> Mail {
    let id = id(number);
    let event = format!(
        r#"{{"id":"{id}","occurred_at":"2026-01-02T03:04:05.000000000Z","event_type":"e","payload":{payload},"metadata":{{"source":"http-api","priority":"Normal"}}}}"#
    );
    // Whole microseconds, which all of them keep.
    let queued_at_unix_ns = since_epoch_ns() / 1_000 * 1_000;
    Mail {
        id,
        event: event.into_bytes().into(),
        queued_at_unix_ns,
        expires_at_unix_ns: queued_at_unix_ns + HOUR_NS,
        attempts: 0,
        stream: StreamSeq { epoch: u64::MAX - 5, seq: number },
    }
}

pub(crate) fn mail(number: u64) -> Mail {
    mail_of(number, &number.to_string())
}

/// Several, by their numbers.
pub(crate) fn mails(numbers: std::ops::RangeInclusive<u64>) -> Vec<Mail> {
    numbers.map(mail).collect()
}
