//! Mailboxes against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;
mod redis_mailbox_driver;

use common::RedisServer;
use protocol::ids::TenantId;
use protocol::limits;
use protocol::store::{Mail, Position};
use protocol::stream::StreamSeq;
use redis_commands_driver::Told;
use redis_mailbox_driver::{Post, Seen, number};
use std::collections::BTreeSet;
use storage::redis::commands::answer::RefusalCode;
use storage::redis::commands::status::Operation;
use storage::redis::commands::{Command, Words};
use storage::redis::mailbox::page::{Page, Removed};
use storage::redis::mailbox::{Mailboxes, Removal};

#[test]
fn of_150_sends_exactly_the_newest_100_are_kept_in_order() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 3_600);
    for n in 1..=150 {
        let enqueued = mailbox.put("u1");
        assert_eq!((enqueued.dropped, enqueued.expired), (u64::from(n > 100), 0));
    }
    assert_eq!(mailbox.all("u1"), (51..=150).map(|n| (n, n)).collect::<Seen>());
    assert_eq!(mailbox.raw(&["XLEN", "ara:queue:default:u1"]), "100");
    assert_eq!(mailbox.raw(&["TTL", "ara:queue:default:u1"]).parse::<u32>().unwrap().div_ceil(60), 60);
    assert_eq!(mailbox.raw(&["HLEN", "ara:queue:meta:{ara:queue:default:u1}"]), "103", "marks go with their entries");
    let first = mailbox.raw(&["XRANGE", "ara:queue:default:u1", "-", "+", "COUNT", "1"]);
    assert!(first.contains("[\"data\", ") && first.contains("\\\"event\\\":{\\\"payload\\\": 51},\\\"queued_at\\\":"));
    let stats = mailbox.stats();
    assert_eq!((stats.users, stats.depth, stats.enqueued, stats.dropped), (1, 100, 150, 50));
}

#[test]
fn what_is_put_in_while_a_reader_takes_out_is_not_lost() {
    const COUNT: u64 = 3_000;
    let server = RedisServer::start();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Post::new(&server, 1_000_000, 3_600);
            for n in 0..COUNT {
                writer.submit_put("u1");
                if n % 17 == 0 {
                    writer.driver.step();
                }
            }
            assert!(writer.driver.answers().iter().all(|(_, told)| matches!(told, Told::Done(_))));
        });
        let mut reader = Post::new(&server, 1_000_000, 3_600);
        let mut seen = Vec::new();
        while seen.len() < COUNT as usize {
            let ids = reader.page("u1", None, 10, |page| {
                seen.extend(page.entries.iter().map(|entry| entry.mail.stream.seq));
                page.entries.iter().map(|entry| entry.position).collect::<Vec<_>>()
            });
            if !ids.is_empty() {
                assert_eq!(reader.remove("u1", &ids, Removal::Delivered).removed, ids.len() as u64);
            }
        }
        assert_eq!(seen, (1..=COUNT).collect::<Vec<_>>());
        let stats = reader.stats();
        assert_eq!((stats.users, stats.depth, stats.enqueued, stats.delivered), (0, 0, COUNT, COUNT));
    });
}

/// Who has an entry takes what stands before it for heard. A mailbox that was emptied begins anew, mostly within the millisecond.
#[test]
fn a_mailbox_that_was_emptied_gives_no_id_again() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    let (mut last, mut of_a_millisecond) = ((0, 0), 0);
    for _ in 0..10 {
        // All at once, so that they are done one behind the other.
        for _ in 0..20 {
            mailbox.submit_put("u1");
            let words: [&[u8]; 2] = [b"DEL", b"ara:queue:default:u1"];
            let command = Command { operation: Operation::Other, words: Words::Plain(&words) };
            mailbox.driver.submit(command).expect("there is room");
        }
        for (_, told) in mailbox.driver.answers() {
            let Told::Done(told) = told else { panic!("{told:?}") };
            let Some((ms, n)) = told.rsplit('"').nth(1).and_then(|id| id.split_once('-')) else { continue };
            let id: (u64, u64) = (ms.parse().unwrap(), n.parse().unwrap());
            assert!(id > last, "{id:?} after {last:?}");
            of_a_millisecond += usize::from(id.0 == last.0);
            last = id;
        }
    }
    assert!(of_a_millisecond > 10, "{of_a_millisecond} of 200 ids were given within a millisecond, {last:?}");
}

#[test]
fn an_emptied_mailbox_leaves_nothing() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 10, 3_600);
    let ids: Vec<Position> = (0..3).map(|_| mailbox.put("u1").positions[0]).collect();
    assert_eq!(mailbox.remove("u1", &ids[1..2], Removal::Delivered), Removed { removed: 1, depth: 2 });
    assert_eq!(mailbox.all("u1"), [(1, 1), (3, 3)]);
    assert_eq!(mailbox.remove("u1", &ids, Removal::Delivered), Removed { removed: 2, depth: 0 });
    assert_eq!(mailbox.remove("u1", &ids, Removal::Delivered), Removed { removed: 0, depth: 0 });
    assert_eq!(mailbox.raw(&["KEYS", "*"]), "[\"ara:queue:stats\"]");
    let stats = mailbox.stats();
    assert_eq!((stats.users, stats.depth, stats.delivered), (0, 0, 3));
    // A reader of nothing learns that there is nothing, and a removal from nothing leaves nothing.
    mailbox.page("nobody", None, 10, |page| assert_eq!(page, Page::default()));
    assert_eq!(mailbox.remove("nobody", &ids, Removal::Delivered), Removed { removed: 0, depth: 0 });
    assert_eq!(mailbox.raw(&["KEYS", "*"]), "[\"ara:queue:stats\"]");
}

#[test]
fn what_was_put_in_comes_back_as_it_was_and_each_reading_counts() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 10, 3_600);
    let mail = Mail {
        expires_at_unix_ns: mailbox.now.unix_ns + 1_234_567_891,
        attempts: 2,
        stream: StreamSeq { epoch: u64::MAX, seq: u64::MAX - 1 },
        ..mailbox.mail(1)
    };
    let positions = mailbox.put_all("u1", std::slice::from_ref(&mail)).positions;
    for attempts in 3..6 {
        mailbox.page("u1", None, 10, |page| {
            assert_eq!(page.entries.len(), 1);
            assert_eq!(page.entries[0].position, positions[0]);
            assert_eq!(page.entries[0].mail, Mail { attempts, ..mail.clone() });
        });
    }
    let text = mailbox.raw(&["XRANGE", "ara:queue:default:u1", "-", "+"]);
    assert!(text.contains("\\\"attempts\\\":2}"), "what is stored stays as it was: {text}");
}

#[test]
fn several_are_put_in_at_once_or_not_at_all() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 5, 3_600);
    mailbox.put("u1");
    mailbox.put("u1");
    let mail: Vec<Mail> = (0..4).map(|_| mailbox.mail(3_600)).collect();
    let enqueued = mailbox.put_all("u1", &mail);
    assert_eq!((enqueued.positions.len(), enqueued.dropped), (4, 1));
    assert!(enqueued.positions.is_sorted());
    assert_eq!(mailbox.all("u1"), (2..=6).map(|n| (n, n)).collect::<Seen>());
    // More at once than a mailbox holds: the youngest stay, and each had its place.
    let mail: Vec<Mail> = (0..12).map(|_| mailbox.mail(3_600)).collect();
    let enqueued = mailbox.put_all("u1", &mail);
    assert_eq!((enqueued.positions.len(), enqueued.dropped), (12, 12));
    assert_eq!(mailbox.all("u1"), (14..=18).map(|n| (n, n)).collect::<Seen>());
    assert_eq!(mailbox.raw(&["HLEN", "ara:queue:meta:{ara:queue:default:u1}"]), "8");
    let stats = mailbox.stats();
    assert_eq!((stats.users, stats.depth, stats.enqueued, stats.dropped), (1, 5, 18, 13));
    // Thousands: more than Lua's stack has room for.
    mailbox.mailboxes = Mailboxes::new("ara:queue", 100_000, 3_600);
    let mail: Vec<Mail> = (0..limits::OUTBOX_FRAMES_MAX).map(|_| mailbox.mail(3_600)).collect();
    assert_eq!(mailbox.put_all("u2", &mail).positions.len(), limits::OUTBOX_FRAMES_MAX);
    mailbox.mailboxes = Mailboxes::new("ara:queue", 1, 3_600);
    assert_eq!(mailbox.put("u2").dropped, limits::OUTBOX_FRAMES_MAX as u64);
    assert_eq!(mailbox.raw(&["HLEN", "ara:queue:meta:{ara:queue:default:u2}"]), "4");
}

#[test]
fn pages_go_on_behind_the_last_entry_and_end_by_count_and_by_bytes() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 1_000, 3_600);
    for _ in 0..20 {
        mailbox.put("u1");
    }
    for count in [1, 7, 8, 9, 20, 21, 1_000] {
        let (mut numbers, mut behind) = (Vec::new(), None);
        loop {
            behind = mailbox.page("u1", behind, count, |page| {
                assert!(page.entries.len() <= count as usize);
                numbers.extend(page.entries.iter().map(|entry| number(&entry.mail.event)));
                page.next
            });
            if behind.is_none() {
                break;
            }
        }
        assert_eq!(numbers, (1..=20).collect::<Vec<_>>(), "{count} a page");
    }
    // The longest entries there are: a page holds the one that goes over its bytes, and a reply holds the page.
    let long = format!("{{\"payload\":\"{}\"}}", "x".repeat(limits::REDIS_ENTRY_BYTES_MAX - 200));
    for _ in 0..3 {
        let mail = Mail { event: long.as_bytes().into(), ..mailbox.mail(3_600) };
        mailbox.put_all("u2", &[mail]);
    }
    assert!(long.len() > limits::REDIS_PAGE_BYTES_MAX);
    let next = mailbox.page("u2", None, 10, |page| {
        assert_eq!((page.entries.len(), *page.entries[0].mail.event == *long.as_bytes()), (1, true));
        page.next
    });
    let next = mailbox.page("u2", next, 10, |page| page.next);
    mailbox.page("u2", next, 10, |page| assert_eq!(page.entries.len(), 1));
    assert_eq!(mailbox.driver.status().ends, 0);
}

#[test]
fn entries_of_other_writers_never_block() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 1_000, 3_600);
    let key = "ara:queue:default:u1";
    let good = "{\"id\":\"550e8400-e29b-41d4-a716-446655440000\",\"event\":{\"payload\": 77},\
                \"queued_at\":\"2026-01-02T03:04:05.123456789Z\",\"attempts\":0}";
    mailbox.raw(&["XADD", key, "*", "data", "no JSON"]);
    mailbox.raw(&["XADD", key, "*", "other", "field"]);
    mailbox.raw(&["XADD", key, "*", "data", &"x".repeat(limits::REDIS_ENTRY_BYTES_MAX + 1)]);
    mailbox.raw(&["XADD", key, "*", "data", good]);
    mailbox.put("u1");
    let ids = mailbox.page("u1", None, 100, |page| {
        let seen: Seen = page.entries.iter().map(|entry| (number(&entry.mail.event), entry.mail.stream.seq)).collect();
        assert_eq!(seen, [(77, 0), (1, 1)]);
        page.undecodable
    });
    assert_eq!(ids.len(), 3);
    // Before anything is removed, a page of nothing else still leads on.
    let next = mailbox.page("u1", None, 2, |page| {
        assert_eq!((page.entries.len(), page.undecodable.len()), (0, 2));
        page.next
    });
    assert_eq!(next, Some(ids[1]));
    assert_eq!(mailbox.stats().depth, 5, "an enqueue counts what it finds");
    assert_eq!(mailbox.remove("u1", &ids, Removal::Undecodable), Removed { removed: 3, depth: 2 });
    assert_eq!(mailbox.all("u1"), [(77, 0), (1, 1)]);
    let stats = mailbox.stats();
    assert_eq!((stats.depth, stats.undecodable), (2, 3));
}

#[test]
fn a_lowered_bound_is_kept_with_the_next_enqueue() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 1_000, 60);
    for _ in 0..50 {
        mailbox.put("u1");
    }
    mailbox.mailboxes = Mailboxes::new("ara:queue", 10, 60);
    let enqueued = mailbox.put("u1");
    assert_eq!(enqueued.dropped, 41);
    assert_eq!(mailbox.all("u1"), (42..=51).map(|n| (n, n)).collect::<Seen>());
    assert_eq!(mailbox.raw(&["HLEN", "ara:queue:meta:{ara:queue:default:u1}"]), "13");
    let stats = mailbox.stats();
    assert_eq!((stats.depth, stats.dropped), (10, 41));
}

#[test]
fn mail_whose_sibling_was_lost_is_as_anothers() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    mailbox.put("u1");
    mailbox.put("u1");
    mailbox.raw(&["DEL", "ara:queue:meta:{ara:queue:default:u1}"]);
    mailbox.put("u1");
    for _ in 0..2 {
        assert_eq!(mailbox.all("u1"), [(1, 0), (2, 0), (3, 3)]);
    }
    let attempts =
        mailbox.page("u1", None, 10, |page| page.entries.iter().map(|e| e.mail.attempts).collect::<Vec<_>>());
    assert_eq!(attempts, [1, 1, 3], "what is not ours begins its first delivery each time");
}

#[test]
fn a_key_of_a_wrong_type_fails_the_act_and_changes_nothing() {
    let server = RedisServer::start();
    let keys = ["ara:queue:default:u1", "ara:queue:meta:{ara:queue:default:u1}", "ara:queue:users", "ara:queue:stats"];
    for wrong in keys {
        let mut mailbox = Post::new(&server, 100, 60);
        mailbox.raw(&["FLUSHALL"]);
        mailbox.raw(&["SET", wrong, "text"]);
        mailbox.submit_put("u1");
        let Post { driver, mailboxes, tenant, now, .. } = &mut mailbox;
        mailboxes.sweep(b"u1", *now, |command| driver.submit(command).unwrap());
        let ids = [Position(1, 1)];
        mailboxes.remove(tenant, "u1", &ids, Removal::Delivered, |command| driver.submit(command).unwrap());
        for (_, told) in mailbox.driver.answers() {
            assert!(matches!(&told, Told::Failed(text) if text.contains("WRONGTYPE")), "{wrong}: {told:?}");
        }
        assert_eq!(mailbox.raw(&["KEYS", "*"]), format!("[\"{wrong}\"]"));
        let status = mailbox.driver.status();
        assert_eq!((status.ends, status.failures), (0, 0));
    }
}

#[test]
fn a_full_server_refuses_mail_wholly_and_still_lets_it_be_taken_out() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 2, 60);
    let ids = [mailbox.put("u1").positions[0], mailbox.put("u1").positions[0]];
    mailbox.raw(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    mailbox.raw(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = mailbox.stats();
    mailbox.submit_put("u1");
    mailbox.submit_put("u2");
    let told: Vec<Told> = mailbox.driver.answers().into_iter().map(|(_, told)| told).collect();
    assert_eq!(told, [Told::Refused(RefusalCode::OutOfMemory), Told::Refused(RefusalCode::OutOfMemory)]);
    assert_eq!(mailbox.stats(), before);
    assert_eq!(mailbox.raw(&["EXISTS", "ara:queue:meta:{ara:queue:default:u2}"]), "0");
    for _ in 0..2 {
        assert_eq!(mailbox.all("u1"), [(1, 1), (2, 2)], "what is there is given, though it is not noted");
    }
    assert_eq!(mailbox.remove("u1", &ids, Removal::Delivered), Removed { removed: 2, depth: 0 });
    assert_eq!((mailbox.stats().users, mailbox.stats().depth), (0, 0));
    mailbox.raw(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(mailbox.put("u1").positions.len(), 1);
}

#[test]
fn tenants_have_mailboxes_of_their_own() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 100, 60);
    mailbox.put("u1");
    mailbox.tenant = TenantId::parse("acme").unwrap();
    mailbox.put("u1");
    mailbox.put("a{b}c");
    assert_eq!(mailbox.all("u1"), [(2, 2)]);
    assert_eq!(mailbox.raw(&["XLEN", "ara:queue:default:acme:u1"]), "1");
    assert_eq!(mailbox.all("a{b}c"), [(3, 3)]);
    mailbox.pass_ms(60_000);
    let due: BTreeSet<String> = mailbox.due().into_iter().collect();
    assert_eq!(due, ["u1", "acme:u1", "acme:a{b}c"].map(str::to_owned).into());
    for scoped in due {
        assert_eq!(mailbox.sweep(&scoped), Removed { removed: 1, depth: 0 });
    }
}

#[test]
fn mail_keeps_its_order_though_the_scripts_are_flushed() {
    let server = RedisServer::start();
    let mut mailbox = Post::new(&server, 10_000, 60);
    for n in 0..1_000 {
        mailbox.submit_put("u1");
        if n % 100 == 50 {
            mailbox.raw(&["SCRIPT", "FLUSH"]);
            mailbox.driver.step();
        }
    }
    let answers = mailbox.driver.answers();
    assert!(answers.iter().all(|(_, told)| matches!(told, Told::Done(_))));
    assert_eq!(mailbox.all("u1"), (1..=1_000).map(|n| (n, n)).collect::<Seen>());
    assert_eq!(mailbox.driver.status().ends, 0);
}
