//! Revoked tokens in Redis, against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;

use common::RedisServer;
use protocol::auth::revocation::{Revocation, Revoked};
use protocol::ids::TenantId;
use protocol::limits;
use redis_commands_driver::CommandDriver;
use redis_protocol::resp2::types::OwnedFrame;
use std::collections::BTreeMap;
use storage::redis::revocations::{Page, Revocations};

fn token(id: &str, until_unix_s: u64) -> Revocation {
    Revocation { tenant: TenantId::default_tenant(), revoked: Revoked::Token { id: id.into() }, until_unix_s }
}

/// Everything that is kept, by name: until when; and how many members nobody could read.
fn kept(driver: &mut CommandDriver, revocations: &Revocations) -> (BTreeMap<String, u64>, u64) {
    let (mut kept, mut unreadable, mut cursor) = (BTreeMap::new(), 0, 0);
    loop {
        let page = driver.ask(|submit| revocations.page(cursor, submit), |reply| Page::read(reply).expect("its shape"));
        for revocation in page.revocations {
            kept.insert(format!("{:?}", revocation.revoked), revocation.until_unix_s);
        }
        unreadable += page.unreadable;
        cursor = page.cursor;
        if cursor == 0 {
            return (kept, unreadable);
        }
    }
}

#[test]
fn what_is_kept_is_read_in_pages_until_its_time_is_over() {
    let server = RedisServer::start();
    let mut client = server.client();
    let mut driver = CommandDriver::healthy(&server, &[]);
    let revocations = Revocations::new("ara:s");
    assert_eq!(kept(&mut driver, &revocations), (BTreeMap::new(), 0));
    let all: Vec<Revocation> = (0..1_000).map(|n| token(&n.to_string(), 1_767_323_045 + n)).collect();
    for page in all.chunks(limits::REVOCATION_PAGE) {
        driver.ask(|submit| revocations.keep(page.iter(), submit), |_| ());
    }
    driver.ask(|submit| revocations.outlive(submit), |_| ());
    // Said again for a shorter time it stays, for a longer one it stays longer.
    let again = [token("7", 1), token("8", 1_800_000_000)];
    driver.ask(|submit| revocations.keep(again.iter(), submit), |_| ());
    let (read, unreadable) = kept(&mut driver, &revocations);
    assert_eq!((read.len(), unreadable), (1_000, 0));
    assert_eq!(read[r#"Token { id: "7" }"#], 1_767_323_052);
    assert_eq!(read[r#"Token { id: "8" }"#], 1_800_000_000);
    driver.ask(|submit| revocations.drop(&token("9", 0), submit), |_| ());
    driver.ask(|submit| revocations.sweep(1_767_323_045 + 499, submit), |_| ());
    client.command(&["ZADD", "ara:s:revoked", "1800000000", "a stranger's"]);
    let (read, unreadable) = kept(&mut driver, &revocations);
    assert_eq!((read.len(), unreadable), (501, 1), "half of them, and the one that stays longer");
    let OwnedFrame::Integer(ttl) = client.command(&["TTL", "ara:s:revoked"]) else { panic!("a number") };
    let ttl_max = limits::REVOCATION_SECONDS_MAX as i64;
    assert!((ttl_max - 60..=ttl_max).contains(&ttl), "{ttl}");
}
