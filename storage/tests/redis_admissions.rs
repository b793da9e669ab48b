//! Who was admitted in the cluster, against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;

use common::{Client, RedisServer};
use protocol::cluster::{Admission, AdmissionRequest, AdmissionTicket};
use protocol::ids::{ConnectionId, TenantId, uuid_v7};
use redis_commands_driver::CommandDriver;
use redis_protocol::resp2::types::OwnedFrame;
use storage::redis::admissions::{self, Admissions, Counted, SCRIPTS};

const BOTH: Counted = Counted { by_user: true, by_tenant: true };

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn connection(n: u8) -> ConnectionId {
    ConnectionId(uuid_v7(1, [n; 10]))
}

fn number(client: &mut Client, words: &[&str]) -> i64 {
    match client.command(words) {
        OwnedFrame::Integer(number) => number,
        other => panic!("{other:?}"),
    }
}

/// Room for `n`, of this user and tenant, among so many.
fn ask(driver: &mut CommandDriver, n: u8, tenant_name: &str, user: &str, maxima: (usize, usize)) -> Admission {
    let request = AdmissionRequest {
        ticket: AdmissionTicket { shard: 0, slot: 0, generation: 0 },
        connection: connection(n),
        tenant: tenant(tenant_name),
        user: user.into(),
        connections_max: maxima.0,
        connections_per_user_max: maxima.1,
    };
    let admissions = Admissions::new("ara:s", 30);
    driver.ask(|submit| admissions.ask(&request, submit), |reply| admissions::read(reply).expect("its shape"))
}

#[test]
fn there_is_room_for_so_many_and_who_goes_makes_some() {
    let server = RedisServer::start();
    let mut client = server.client();
    let mut driver = CommandDriver::healthy(&server, &SCRIPTS);
    let maxima = (3, 2);
    assert_eq!(ask(&mut driver, 1, "acme", "ana", maxima), Admission::Granted);
    assert_eq!(ask(&mut driver, 2, "acme", "ana", maxima), Admission::Granted);
    assert_eq!(ask(&mut driver, 3, "acme", "ana", maxima), Admission::UserIsFull(2));
    assert_eq!(ask(&mut driver, 2, "acme", "ana", maxima), Admission::Granted, "it is there already");
    assert_eq!(ask(&mut driver, 4, "acme", "ben", maxima), Admission::Granted);
    assert_eq!(ask(&mut driver, 5, "acme", "carol", maxima), Admission::TenantIsFull(3));
    // Who is refused by one limit takes no room of the other.
    assert_eq!(number(&mut client, &["EXISTS", "ara:s:admitted:{acme}:carol"]), 0);
    assert_eq!(ask(&mut driver, 6, "bolt", "ana", maxima), Admission::Granted);
    for key in ["ara:s:admitted:{acme}", "ara:s:admitted:{acme}:ana", "ara:s:admitted:{bolt}:ana"] {
        let ttl_ms = number(&mut client, &["PTTL", key]);
        assert!((1..=30_000).contains(&ttl_ms), "{key} expires after {ttl_ms} ms");
    }
    let admissions = Admissions::new("ara:s", 30);
    for counted in [Counted { by_tenant: false, ..BOTH }, Counted { by_user: false, ..BOTH }] {
        let acme = tenant("acme");
        driver.ask(|submit| admissions.give_back(connection(1), &acme, "ana", counted, submit), |_| ());
    }
    assert_eq!(ask(&mut driver, 5, "acme", "carol", maxima), Admission::Granted);
    // Without a limit nothing is kept.
    assert_eq!(ask(&mut driver, 7, "dora", "ana", (0, 2)), Admission::Granted);
    assert_eq!(number(&mut client, &["EXISTS", "ara:s:admitted:{dora}"]), 0);
}

#[test]
fn who_is_not_written_again_is_forgotten_and_who_is_stays() {
    let server = RedisServer::start();
    let mut client = server.client();
    let mut driver = CommandDriver::healthy(&server, &SCRIPTS);
    let maxima = (2, 2);
    for n in [1, 2] {
        assert_eq!(ask(&mut driver, n, "acme", "ana", maxima), Admission::Granted);
    }
    // As if their time were over: of the first because its node is dead, the second is written again.
    let admissions = Admissions::new("ara:s", 30);
    for key in ["ara:s:admitted:{acme}", "ara:s:admitted:{acme}:ana"] {
        for n in [1, 2] {
            client.must(&["ZADD", key, "XX", "1", &connection(n).to_string()]);
        }
    }
    let rows = [(connection(2), "ana"), (connection(3), "ana"), (connection(4), "ben")];
    driver.ask(|submit| admissions.hold(&tenant("acme"), BOTH, &rows, submit), |_| ());
    assert_eq!(ask(&mut driver, 5, "acme", "ana", maxima), Admission::UserIsFull(2), "those that are held count");
    assert_eq!(number(&mut client, &["ZCARD", "ara:s:admitted:{acme}:ana"]), 2);
    assert_eq!(ask(&mut driver, 6, "acme", "carol", maxima), Admission::TenantIsFull(3), "even above the limit");
    let only_users = Counted { by_tenant: false, ..BOTH };
    driver.ask(|submit| admissions.hold(&tenant("bolt"), only_users, &rows[..1], submit), |_| ());
    assert_eq!(number(&mut client, &["EXISTS", "ara:s:admitted:{bolt}"]), 0);
    assert_eq!(number(&mut client, &["ZCARD", "ara:s:admitted:{bolt}:ana"]), 1);
}
