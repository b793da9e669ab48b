//! When mail ends, and mailboxes with it, against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;
mod redis_mailbox_driver;

use common::RedisServer;
use redis_mailbox_driver::Post;
use std::collections::BTreeSet;
use storage::redis::mailbox::page::Removed;

#[test]
fn mail_expires_by_its_own_ttl_or_that_of_all_and_a_sweep_takes_it_out() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    mailbox.put_with("u1", None);
    mailbox.put_with("u1", Some(10));
    mailbox.put_with("u1", Some(3_600));
    mailbox.put_with("u2", Some(20));
    assert!(mailbox.due().is_empty());
    mailbox.pass_ms(9_999);
    assert!(mailbox.due().is_empty());
    assert_eq!(mailbox.all("u1").len(), 3);
    mailbox.pass_ms(1);
    assert_eq!(mailbox.all("u1"), [(1, 1), (3, 3)], "not given, swept or not");
    mailbox.page("u1", None, 100, |page| assert_eq!(page.expired.len(), 1));
    assert_eq!(mailbox.due(), ["u1"]);
    assert_eq!(mailbox.sweep("u1"), Removed { removed: 1, depth: 2 });
    assert_eq!(mailbox.sweep("u1"), Removed { removed: 0, depth: 2 }, "a second node does no harm");
    assert!(mailbox.due().is_empty());
    mailbox.pass_ms(10_000);
    assert_eq!(mailbox.due(), ["u2"]);
    assert_eq!(mailbox.sweep("u2"), Removed { removed: 1, depth: 0 });
    assert_eq!(mailbox.raw(&["EXISTS", "ara:queue:default:u2"]), "0");
    let stats = mailbox.stats();
    assert_eq!((stats.users, stats.depth, stats.expired), (1, 2, 2));
    mailbox.pass_ms(40_000);
    assert_eq!(mailbox.due(), ["u1"]);
    assert_eq!(mailbox.sweep("u1"), Removed { removed: 2, depth: 0 });
    let stats = mailbox.stats();
    assert_eq!((stats.users, stats.depth, stats.expired, stats.enqueued), (0, 0, 4, 4));
}

/// Of the nanoseconds of an end, a script's numbers hold only the first 53 bits.
#[test]
fn mail_ends_in_its_millisecond_whatever_the_clock_says() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    for _ in 0..32 {
        mailbox.pass_ms(1);
        mailbox.put_with("u1", Some(1));
        mailbox.pass_ms(1_000);
        assert_eq!(mailbox.due(), ["u1"]);
        assert_eq!(mailbox.sweep("u1"), Removed { removed: 1, depth: 0 }, "at {} ns", mailbox.now.unix_ns);
    }
}

#[test]
fn an_expired_entry_that_makes_room_is_expired_and_not_dropped() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 2, 60);
    mailbox.put_with("u1", Some(1));
    mailbox.put("u1");
    mailbox.pass_ms(1_000);
    let enqueued = mailbox.put("u1");
    assert_eq!((enqueued.dropped, enqueued.expired), (0, 1));
    let enqueued = mailbox.put("u1");
    assert_eq!((enqueued.dropped, enqueued.expired), (1, 0));
    let stats = mailbox.stats();
    assert_eq!((stats.depth, stats.dropped, stats.expired), (2, 1, 1));
}

#[test]
fn entries_without_a_mark_are_as_old_as_their_ids() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    let key = "ara:queue:default:u1";
    let good = "{\"id\":\"550e8400-e29b-41d4-a716-446655440000\",\"event\":{\"payload\": 77},\
                \"queued_at\":\"2026-01-02T03:04:05.123456789Z\",\"attempts\":0}";
    let now_ms = mailbox.now.unix_ms();
    mailbox.raw(&["XADD", key, &format!("{}-0", now_ms - 100_000), "data", good]);
    mailbox.raw(&["XADD", key, &format!("{}-0", now_ms - 10_000), "data", good]);
    mailbox.page("u1", None, 10, |page| assert_eq!((page.entries.len(), page.expired.len()), (1, 1)));
    mailbox.put("u1");
    assert_eq!(mailbox.sweep("u1"), Removed { removed: 1, depth: 2 });
    mailbox.pass_ms(55_000);
    assert_eq!(mailbox.due(), ["u1"], "it is looked at when the next of them is old enough");
    assert_eq!(mailbox.all("u1"), [(77, 0), (1, 1)], "by the server's clock it is not");
}

#[test]
fn a_mailbox_that_went_by_itself_is_made_up_for_in_the_figures() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    for user in ["u1", "u2", "u3"] {
        mailbox.put(user);
        mailbox.put(user);
    }
    // As if their TTL were over.
    for user in ["u1", "u2"] {
        mailbox.raw(&["DEL", &format!("ara:queue:default:{user}")]);
    }
    assert_eq!((mailbox.stats().users, mailbox.stats().depth), (3, 6), "nobody has looked yet");
    let enqueued = mailbox.put("u1");
    assert_eq!(enqueued.expired, 2);
    assert_eq!(mailbox.raw(&["HLEN", "ara:queue:meta:{ara:queue:default:u1}"]), "4", "no marks of what is gone");
    mailbox.pass_ms(60_000);
    let due: BTreeSet<String> = mailbox.due().into_iter().collect();
    assert_eq!(due, ["u1", "u2", "u3"].map(str::to_owned).into());
    assert_eq!(mailbox.sweep("u2"), Removed { removed: 2, depth: 0 });
    let stats = mailbox.stats();
    assert_eq!((stats.users, stats.depth, stats.expired), (2, 3, 4));
    // Figures that were lost are right again when everything is empty.
    mailbox.raw(&["DEL", "ara:queue:stats"]);
    mailbox.sweep("u1");
    assert_eq!(mailbox.stats().depth, 0);
    mailbox.sweep("u3");
    assert_eq!(mailbox.raw(&["HGET", "ara:queue:stats", "depth"]), "\"0\"");
    mailbox.put("u1");
    assert_eq!((mailbox.stats().users, mailbox.stats().depth), (1, 1));
}

#[test]
fn a_mailbox_that_is_in_use_keeps_its_ttl_and_what_is_due() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    mailbox.put_with("u1", Some(50));
    for (key, ttl) in [("ara:queue:default:u1", 60), ("ara:queue:meta:{ara:queue:default:u1}", 86_460)] {
        mailbox.raw(&["EXPIRE", key, "20"]);
        mailbox.pass_ms(99);
        mailbox.put("u1");
        assert!(mailbox.raw(&["TTL", key]).parse::<u64>().unwrap() <= 20, "it was renewed a moment ago");
        mailbox.pass_ms(1);
        mailbox.put("u1");
        assert!(mailbox.raw(&["TTL", key]).parse::<u64>().unwrap() >= ttl - 10);
    }
    // A clock that is behind renews, too.
    mailbox.raw(&["EXPIRE", "ara:queue:default:u1", "20"]);
    mailbox.now.unix_ns -= 5_000_000;
    mailbox.put("u1");
    assert!(mailbox.raw(&["TTL", "ara:queue:default:u1"]).parse::<u64>().unwrap() >= 50);
    mailbox.put_with("u1", Some(10));
    mailbox.pass_ms(10_000);
    assert_eq!(mailbox.due(), ["u1"], "what expires sooner is due sooner");
}
