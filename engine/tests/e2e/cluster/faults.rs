//! Redis stands still, dies with its data or without it, is replaced by its replica, or cannot be reached by one of the nodes,
//! while mail is published all the time: what was accepted and lost is what `docs/OPERATIONS.md` says, a row of it each.
use super::await_ready;
use super::ledger::{Ledger, Line, Seat, Sent, Way};
use super::mail::{Class, mail_node, mail_node_at};
use crate::support::cable::{Cable, Direction};
use crate::support::process::await_that;
use crate::support::redis::Redis;
use crate::support::sentinel::Guarded;
use crate::support::server::Server;

/// Nobody but a healthy node waits long for an acknowledgement.
const SOON: [(&str, &str); 1] = [("ACK_TIMEOUT_SECONDS", "3")];

fn await_unready(server: &Server) {
    await_that("the fault to be noticed", || (server.get("/health/ready").status == 503).then_some(()));
}

fn await_back(server: &Server) {
    await_ready(server);
    await_that("the node to be healthy", || (server.get("/health").ok()["status"] == "healthy").then_some(()));
}

/// What is published to Redis while no node hears it.
fn by_redis_meanwhile(line: &Line, sent: &Sent) -> bool {
    line.way == Way::Redis && sent.in_fault
}

fn redis_stands_still(class: Class) {
    let redis = Redis::start();
    let (a, b) = (mail_node(&redis, "a", class, &SOON), mail_node(&redis, "b", class, &SOON));
    let fault = |ledger: &Ledger| {
        redis.hold();
        [&a, &b].into_iter().for_each(await_unready);
        ledger.await_published(1);
        redis.release();
        [&a, &b].into_iter().for_each(await_back);
    };
    Ledger::new(class, [&a, &b], &[redis.port]).keep(fault, by_redis_meanwhile);
}

fn redis_comes_back(class: Class, with_its_data: bool) {
    let durable: &[&str] = if with_its_data { &["--appendonly", "yes", "--appendfsync", "always"] } else { &[] };
    let redis = Redis::with(durable, None);
    let (a, b) = (mail_node(&redis, "a", class, &SOON), mail_node(&redis, "b", class, &SOON));
    let port = redis.port;
    let mut redis = redis;
    let fault = |ledger: &Ledger| {
        redis.kill();
        [&a, &b].into_iter().for_each(await_unready);
        ledger.await_published(1);
        redis.restart();
        [&a, &b].into_iter().for_each(await_back);
    };
    Ledger::new(class, [&a, &b], &[port]).keep(fault, |line, sent| match (class, with_its_data) {
        // Without its data everything goes that nobody has heard; who was there had heard what was there before.
        (Class::Written | Class::Acknowledged, false) => line.seat == Seat::Away || sent.in_fault,
        _ => by_redis_meanwhile(line, sent),
    });
}

fn a_replica_takes_over(class: Class) {
    let guarded = Guarded::start();
    let [a, b] = ["a", "b"].map(|name| mail_node_at(&guarded.url(), name, class, &SOON));
    let ports = [guarded.master.port, guarded.replica.port];
    let Guarded { mut master, .. } = guarded;
    let fault = |ledger: &Ledger| {
        master.kill();
        [&a, &b].into_iter().for_each(await_unready);
        ledger.await_published(1);
        [&a, &b].into_iter().for_each(await_back);
    };
    // What the old master had not passed on yet is gone with it.
    Ledger::new(class, [&a, &b], &ports).keep(fault, |_, sent| sent.in_fault);
}

/// One node, `b`, cannot reach Redis, or Redis not it, or both. The other can.
fn one_node_is_cut_off(class: Class, directions: &[Direction]) {
    let redis = Redis::start();
    let cable = Cable::to(redis.port);
    let (a, b) = (mail_node(&redis, "a", class, &SOON), mail_node_at(&cable.url(), "b", class, &SOON));
    let fault = |ledger: &Ledger| {
        cable.cut(directions);
        await_unready(&b);
        ledger.await_published(1);
        assert_eq!(a.get("/health/ready").status, 200, "the other node is well");
        cable.mend();
        [&a, &b].into_iter().for_each(await_back);
    };
    Ledger::new(class, [&a, &b], &[redis.port]).keep(fault, |line, sent| {
        // With the queue off what comes by Redis is heard by who is at the other node.
        class == Class::Off && line.way == Way::Redis && line.seat == Seat::At(1) && sent.in_fault
    });
}

const BOTH: [Direction; 2] = [Direction::ToRedis, Direction::ToNode];

/// One test per fault and class.
macro_rules! faults {
    ($($name:ident: $fault:expr;)*) => {$(
        #[test]
        fn $name() {
            $fault;
        }
    )*};
}

faults! {
    redis_stands_still_off: redis_stands_still(Class::Off);
    redis_stands_still_written: redis_stands_still(Class::Written);
    redis_stands_still_acknowledged: redis_stands_still(Class::Acknowledged);
    redis_comes_back_with_its_data_off: redis_comes_back(Class::Off, true);
    redis_comes_back_with_its_data_written: redis_comes_back(Class::Written, true);
    redis_comes_back_with_its_data_acknowledged: redis_comes_back(Class::Acknowledged, true);
    redis_comes_back_empty_off: redis_comes_back(Class::Off, false);
    redis_comes_back_empty_written: redis_comes_back(Class::Written, false);
    redis_comes_back_empty_acknowledged: redis_comes_back(Class::Acknowledged, false);
    a_replica_takes_over_off: a_replica_takes_over(Class::Off);
    a_replica_takes_over_written: a_replica_takes_over(Class::Written);
    a_replica_takes_over_acknowledged: a_replica_takes_over(Class::Acknowledged);
    one_node_is_cut_off_off: one_node_is_cut_off(Class::Off, &BOTH);
    one_node_is_cut_off_written: one_node_is_cut_off(Class::Written, &BOTH);
    one_node_is_cut_off_acknowledged: one_node_is_cut_off(Class::Acknowledged, &BOTH);
    one_node_is_not_heard_off: one_node_is_cut_off(Class::Off, &[Direction::ToRedis]);
    one_node_is_not_heard_written: one_node_is_cut_off(Class::Written, &[Direction::ToRedis]);
    one_node_is_not_heard_acknowledged: one_node_is_cut_off(Class::Acknowledged, &[Direction::ToRedis]);
    one_node_hears_nothing_off: one_node_is_cut_off(Class::Off, &[Direction::ToNode]);
    one_node_hears_nothing_written: one_node_is_cut_off(Class::Written, &[Direction::ToNode]);
    one_node_hears_nothing_acknowledged: one_node_is_cut_off(Class::Acknowledged, &[Direction::ToNode]);
}
