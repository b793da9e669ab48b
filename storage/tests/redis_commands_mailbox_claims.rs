//! Mail that only one of several nodes is to keep, against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;
mod redis_mailbox_driver;

use common::RedisServer;
use protocol::cluster::wire::Claim;
use redis_mailbox_driver::Post;
use storage::redis::mailbox::Removal;

#[test]
fn an_append_says_what_stood_before_and_takes_a_claim_once() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 3, 60);
    let first = mailbox.put("u1");
    assert_eq!(first.before, None);
    let second = mailbox.put("u1");
    assert_eq!(second.before, Some(first.positions[0]));
    mailbox.remove("u1", &second.positions, Removal::Delivered);
    let third = mailbox.put("u1");
    assert_eq!(third.before, Some(first.positions[0]), "what is gone does not stand there");
    mailbox.remove("u1", &[first.positions[0], third.positions[0]], Removal::Delivered);
    // Of one message: the first, the first again, an equal one, and both again.
    let rows = [(0, true), (0, false), (1, true), (0, false), (1, false), (7, true), (6, false), (u32::MAX, true)];
    let mut before = None;
    for (nth, taken) in rows {
        let enqueued = mailbox.claim("u1", Claim::new(5, nth));
        assert_eq!((enqueued.before, enqueued.positions.len()), (before, usize::from(taken)), "{nth}");
        before = enqueued.positions.last().copied().or(before);
    }
    assert_eq!(mailbox.claim("u1", Claim::new(6, 0)).positions.len(), 1, "another message");
    assert_eq!(mailbox.claim("u2", Claim::new(5, 0)).positions.len(), 1, "another mailbox");
    let stats = mailbox.stats();
    assert_eq!((stats.users, stats.depth, stats.enqueued, stats.dropped), (2, 4, 9, 2));
    // A claim outlives its mail, for a while.
    let key = format!("ara:queue:claim:{{ara:queue:default:u2}}:{:032x}", 5);
    assert!((590..=600).contains(&mailbox.raw(&["TTL", &key]).parse::<u64>().unwrap()));
    mailbox.raw(&["DEL", "ara:queue:default:u2"]);
    assert_eq!(mailbox.claim("u2", Claim::new(5, 0)).positions, []);
    mailbox.raw(&["DEL", &key]);
    assert_eq!(mailbox.claim("u2", Claim::new(5, 0)).positions.len(), 1);
}

/// A node that has begun anew counts from 0 again: what was claimed before its message can have been there does not count.
#[test]
fn a_claim_of_before_the_message_was_there_was_of_another_one() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    mailbox.now.mono_us = 20_000_000;
    let key = format!("ara:queue:claim:{{ara:queue:default:u1}}:{:032x}", 5);
    let ago_ms = |mailbox: &Post<'_>, ms: u64| mailbox.now.unix_ns / 1_000_000 - ms;
    // A message that is there for a second at most, two with what clocks may differ by.
    let claim = |nth| Claim { after_us: 19_000_000, ..Claim::new(5, nth) };
    assert_eq!(mailbox.claim("u1", claim(7)).positions.len(), 1, "the first of all");
    assert_eq!(mailbox.claim("u1", claim(0)).positions, [], "a moment ago is not before");
    for (last, ms, nth, then) in
        [(7, 1_900, 0, None), (7, 2_100, 0, Some(8)), (7, 2_100, 7, Some(8)), (7, 2_100, 9, Some(9))]
    {
        let at_ms = ago_ms(&mailbox, ms);
        mailbox.raw(&["SET", &key, &format!("{last}:{at_ms}")]);
        assert_eq!(mailbox.claim("u1", claim(nth)).positions.len(), usize::from(then.is_some()), "{nth} after {ms} ms");
        let number = mailbox.raw(&["GET", &key]).trim_matches('"').split(':').next().unwrap().to_owned();
        assert_eq!(number, then.unwrap_or(last).to_string());
        assert_eq!(mailbox.claim("u1", claim(nth)).positions, [], "and once");
    }
    // The command was a minute on its way: it was sent before the claim that it is compared with.
    let at_ms = ago_ms(&mailbox, 57_000);
    mailbox.raw(&["SET", &key, &format!("7:{at_ms}")]);
    mailbox.now.unix_ns -= 60_000_000_000;
    assert_eq!(mailbox.claim("u1", claim(0)).positions, []);
}
