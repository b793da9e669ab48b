//! Acknowledgements against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;

use common::RedisServer;
use protocol::clock::Now;
use protocol::ids::{ConnectionId, NotificationId, TenantId, uuid_v7};
use redis_commands_driver::{CommandDriver, Told};
use storage::redis::acks::{AckStats, Acknowledged, Acks, Late, Overdue, SCRIPTS};
use storage::redis::commands::answer::RefusalCode;

struct Desk {
    driver: CommandDriver,
    acks: Acks,
    now: Now,
}

fn notification(number: u64) -> NotificationId {
    NotificationId(uuid_v7(number, [0; 10]))
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

impl Desk {
    /// Acknowledgements are due within 30 s.
    fn new(server: &RedisServer) -> Desk {
        let driver = CommandDriver::healthy(server, &SCRIPTS);
        // A whole second, so that timeouts end at whole seconds, too.
        let unix_ns = driver.now().unix_ns / 1_000_000_000 * 1_000_000_000;
        Desk { driver, acks: Acks::new("ara:ack", 30), now: Now { mono_us: 0, unix_ns } }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now.unix_ns += ms * 1_000_000;
    }

    /// Whether it was not pending already.
    fn track(&mut self, number: u64, tenant_name: &str, user: &str) -> bool {
        let Desk { driver, acks, now } = self;
        let (id, tenant, connection) = (notification(number), tenant(tenant_name), ConnectionId(uuid_v7(9, [0; 10])));
        driver.ask(
            |submit| acks.track(id, &tenant, user, connection, *now, submit),
            |reply| reply.integer().expect("a number") == 1,
        )
    }

    fn acknowledge(&mut self, number: u64, tenant_name: &str, user: &str, late: Late) -> Acknowledged {
        let Desk { driver, acks, now } = self;
        let (id, tenant) = (notification(number), tenant(tenant_name));
        driver.ask(
            |submit| acks.acknowledge(id, &tenant, user, *now, late, submit),
            |reply| Acknowledged::read(reply).expect("its shape"),
        )
    }

    fn expire(&mut self, count: u32) -> Vec<Overdue> {
        let Desk { driver, acks, now } = self;
        driver.ask(|submit| acks.expire(*now, count, submit), |reply| Overdue::read(reply).expect("its shape"))
    }

    fn stats(&mut self) -> AckStats {
        let Desk { driver, acks, .. } = self;
        driver.ask(|submit| acks.stats(submit), |reply| AckStats::read(reply).expect("its shape"))
    }

    fn raw(&mut self, words: &[&str]) -> String {
        match self.driver.command(words) {
            Told::Done(shown) => shown,
            told => panic!("{words:?}: {told:?}"),
        }
    }
}

fn overdue(number: u64, scoped: &str) -> Overdue {
    Overdue { id: notification(number), scoped: Some(scoped.as_bytes().to_vec()) }
}

#[test]
fn what_is_acknowledged_is_counted_once_with_its_latency_and_leaves_nothing() {
    let server = RedisServer::start();
    let mut desk = Desk::new(&server);
    assert!(desk.track(1, "default", "u1"));
    let key = format!("ara:ack:default:pending:{}", notification(1));
    let data = desk.raw(&["HGET", &key, "data"]);
    assert!(data.starts_with("\"{\\\"notification_id\\\":\\\"00000000-0001-7000-8000-000000000000\\\",\\\"user_id\\\":\\\"u1\\\",\\\"connection_id\\\":"));
    let seconds = desk.now.unix_seconds() + 30;
    let shown = format!("[\"{}\", \"{seconds}\"]", notification(1));
    assert_eq!(desk.raw(&["ZRANGE", "ara:ack:default:timeout", "0", "-1", "WITHSCORES"]), shown);
    assert!((80..=90).contains(&desk.raw(&["TTL", &key]).parse::<u32>().unwrap()));
    assert_eq!(desk.stats(), AckStats { pending: 1, tracked: 1, ..AckStats::default() });
    desk.pass_ms(250);
    assert_eq!(desk.acknowledge(1, "default", "u2", Late::Refused), Acknowledged::NotPending);
    assert_eq!(desk.acknowledge(1, "acme", "u1", Late::Refused), Acknowledged::NotPending);
    assert_eq!(desk.acknowledge(1, "default", "u1", Late::Refused), Acknowledged::Done { latency_ms: 250 });
    assert_eq!(desk.acknowledge(1, "default", "u1", Late::Refused), Acknowledged::NotPending);
    assert_eq!(desk.stats(), AckStats { tracked: 1, acked: 1, latency_ms: 250, ..AckStats::default() });
    assert_eq!(desk.raw(&["KEYS", "*"]), "[\"ara:ack:default:stats\"]");
}

#[test]
fn each_recipient_of_a_broadcast_acknowledges_for_itself() {
    let server = RedisServer::start();
    let mut desk = Desk::new(&server);
    for (tenant, user) in [("default", "u1"), ("default", "u2"), ("acme", "u1"), ("default", "u1")] {
        desk.track(1, tenant, user);
        desk.pass_ms(100);
    }
    assert_eq!(desk.stats(), AckStats { pending: 3, tracked: 3, ..AckStats::default() }, "a second device is no other");
    assert_eq!(desk.acknowledge(1, "default", "u1", Late::Refused), Acknowledged::Done { latency_ms: 100 });
    // Who comes now finds the first place free; who is there already stays where he is.
    assert!(desk.track(1, "default", "u3"));
    assert!(!desk.track(1, "default", "u2"));
    for (tenant, user) in [("default", "u2"), ("acme", "u1"), ("default", "u3")] {
        assert!(
            matches!(desk.acknowledge(1, tenant, user, Late::Refused), Acknowledged::Done { .. }),
            "{tenant} {user}"
        );
        assert_eq!(desk.acknowledge(1, tenant, user, Late::Refused), Acknowledged::NotPending);
    }
    let stats = desk.stats();
    assert_eq!((stats.pending, stats.tracked, stats.acked), (0, 4, 4));
    assert_eq!(desk.raw(&["KEYS", "*"]), "[\"ara:ack:default:stats\"]");
}

#[test]
fn a_late_one_is_refused_or_taken_as_mail_was_kept_for_it() {
    let server = RedisServer::start();
    let mut desk = Desk::new(&server);
    for number in 1..=3 {
        desk.track(number, "default", "u1");
    }
    desk.pass_ms(29_999);
    assert!(matches!(desk.acknowledge(1, "default", "u1", Late::Refused), Acknowledged::Done { .. }));
    desk.pass_ms(1);
    assert_eq!(desk.acknowledge(2, "default", "u1", Late::Refused), Acknowledged::Late);
    assert_eq!(desk.acknowledge(2, "default", "u1", Late::Refused), Acknowledged::NotPending);
    assert_eq!(desk.acknowledge(3, "default", "u1", Late::Taken), Acknowledged::Done { latency_ms: 30_000 });
    let stats = desk.stats();
    assert_eq!((stats.pending, stats.tracked, stats.acked, stats.expired), (0, 3, 2, 1));
}

#[test]
fn what_nobody_acknowledges_is_given_up_once_and_a_few_at_a_time() {
    let server = RedisServer::start();
    let mut desk = Desk::new(&server);
    desk.track(1, "default", "u1");
    desk.track(1, "acme", "u:2");
    desk.pass_ms(5_000);
    desk.track(2, "default", "u1");
    desk.pass_ms(5_000);
    desk.track(3, "default", "u1");
    assert_eq!(desk.expire(10), []);
    desk.pass_ms(20_000);
    assert_eq!(desk.expire(1), [overdue(1, "u1")]);
    assert_eq!(desk.expire(10), [overdue(1, "acme:u:2")]);
    assert_eq!(desk.expire(10), []);
    desk.pass_ms(5_000);
    // Sent again, its time starts anew.
    assert!(!desk.track(2, "default", "u1"));
    assert_eq!(desk.expire(10), []);
    desk.pass_ms(30_000);
    assert_eq!(desk.expire(10), [overdue(3, "u1"), overdue(2, "u1")]);
    let stats = desk.stats();
    assert_eq!((stats.pending, stats.tracked, stats.expired, stats.acked), (0, 4, 4, 0));
    assert_eq!(desk.raw(&["KEYS", "*"]), "[\"ara:ack:default:stats\"]");
}

#[test]
fn what_is_not_ours_among_the_pending_stops_nobody() {
    let server = RedisServer::start();
    let mut desk = Desk::new(&server);
    desk.track(1, "default", "u1");
    desk.raw(&["ZADD", "ara:ack:default:timeout", "1", "foreign"]);
    desk.raw(&["SET", &format!("ara:ack:default:pending:{}", notification(2)), "text"]);
    desk.raw(&["ZADD", "ara:ack:default:timeout", "2", &notification(2).to_string()]);
    desk.pass_ms(30_000);
    assert_eq!(desk.expire(10), [Overdue { id: notification(2), scoped: None }, overdue(1, "u1")]);
    assert_eq!((desk.stats().pending, desk.stats().expired), (0, 3));
}

#[test]
fn a_key_of_a_wrong_type_or_a_full_server_changes_nothing() {
    let server = RedisServer::start();
    let mut desk = Desk::new(&server);
    let hash = format!("ara:ack:default:pending:{}", notification(1));
    let (id, tenant, connection) = (notification(1), tenant("default"), ConnectionId(uuid_v7(9, [0; 10])));
    for wrong in [hash.as_str(), "ara:ack:default:timeout", "ara:ack:default:stats"] {
        desk.raw(&["FLUSHALL"]);
        desk.raw(&["SET", wrong, "text"]);
        let Desk { driver, acks, now } = &mut desk;
        acks.track(id, &tenant, "u1", connection, *now, |command| driver.submit(command).unwrap());
        acks.acknowledge(id, &tenant, "u1", *now, Late::Taken, |command| driver.submit(command).unwrap());
        for (_, told) in desk.driver.answers() {
            assert!(matches!(&told, Told::Failed(text) if text.contains("WRONGTYPE")), "{wrong}: {told:?}");
        }
        assert_eq!(desk.raw(&["KEYS", "*"]), format!("[\"{wrong}\"]"));
    }
    desk.raw(&["FLUSHALL"]);
    desk.track(1, "default", "u1");
    desk.raw(&["CONFIG", "SET", "maxmemory", "1"]);
    let Desk { driver, acks, now } = &mut desk;
    acks.track(notification(2), &tenant, "u1", connection, *now, |command| driver.submit(command).unwrap());
    assert_eq!(desk.driver.answers()[0].1, Told::Refused(RefusalCode::OutOfMemory));
    assert!(matches!(desk.acknowledge(1, "default", "u1", Late::Refused), Acknowledged::Done { .. }));
    assert_eq!((desk.stats().pending, desk.stats().tracked), (0, 1));
}
