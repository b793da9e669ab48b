//! What was removed from a mailbox and can be read for a while yet, against a real redis-server, which each test starts for
//! itself.
//!
//! No test waits for time to pass, and none fails for having been slow: ids are of an hour that is still to come, where they are not
//! to grow old, and what the server is to forget by itself is asked when, and then held.
mod common;
mod redis_commands_driver;
mod redis_mailbox_driver;

use common::RedisServer;
use protocol::limits;
use protocol::store::{Entry, Mail, Position};
use redis_commands_driver::Told;
use redis_mailbox_driver::{Post, number};
use std::collections::BTreeMap;
use storage::redis::mailbox::page::{Page, Removed};
use storage::redis::mailbox::{Mailboxes, Removal};

const STREAM: &str = "ara:queue:default:u1";
const GONE: &str = "ara:queue:gone:{ara:queue:default:u1}";
const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

/// Mail of another writer, with this number.
fn stored(number: u64) -> String {
    format!(
        "{{\"id\":\"{ID}\",\"event\":{{\"payload\": {number}}},\"queued_at\":\"2026-01-02T03:04:05.123456789Z\",\"attempts\":4}}"
    )
}

fn text(position: Position) -> String {
    format!("{}-{}", position.0, position.1)
}

fn server_ms(post: &Post<'_>) -> u64 {
    let shown = post.raw(&["TIME"]);
    let mut numbers = shown.split('"').filter_map(|part| part.parse::<u64>().ok());
    numbers.next().unwrap() * 1_000 + numbers.next().unwrap() / 1_000
}

/// A mailbox whose ids are of an hour that is still to come, as after a clock that was set back: what has them is as young as can be.
fn ahead(server: &RedisServer, entries_max: u32) -> Post<'_> {
    let mut post = Post::new(server, entries_max, 3_600);
    let first = format!("{}-1", server_ms(&post) + 3_600_000);
    post.raw(&["XADD", STREAM, &first, "data", "x"]);
    post.raw(&["XDEL", STREAM, &first]);
    post.lingering_ms = u64::MAX;
    post
}

fn puts(post: &mut Post<'_>, count: usize) -> Vec<Position> {
    (0..count).map(|_| post.put("u1").positions[0]).collect()
}

/// Removes them so that they linger, and keeps the server from forgetting them by itself.
fn linger(post: &mut Post<'_>, positions: &[Position]) -> Removed {
    let removed = post.remove("u1", positions, Removal::Lingering);
    post.raw(&["PERSIST", GONE]);
    removed
}

/// Number, attempts, and whether it is gone, of each on all pages.
fn seen(post: &mut Post<'_>, count: u32) -> Vec<(u64, u32, bool)> {
    let (mut all, mut behind) = (Vec::new(), None);
    loop {
        behind = post.page("u1", behind, count, |page| {
            assert!(page.entries.len() <= count as usize && page.expired.is_empty() && page.undecodable.is_empty());
            assert!(page.entries.is_sorted_by_key(|entry| entry.position));
            assert!(page.next.is_none() || page.next == page.entries.last().map(|entry| entry.position));
            let show = |entry: &Entry| (number(&entry.mail.event), entry.mail.attempts, entry.is_gone);
            all.extend(page.entries.iter().map(show));
            page.next
        });
        if behind.is_none() {
            return all;
        }
    }
}

#[test]
fn what_lingers_is_read_in_its_place_by_who_asks_for_it_and_nowhere_else() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    let ids = puts(&mut post, 5);
    // Removed in another order than they were put in.
    assert_eq!(linger(&mut post, &ids[4..]), Removed { removed: 1, depth: 4 });
    assert_eq!(linger(&mut post, &[ids[2], ids[0], ids[2]]), Removed { removed: 2, depth: 2 });
    for attempts in 1..3 {
        let gone = |n| (n, 0, true);
        let stands = |n| (n, attempts * 2 - 1, false);
        assert_eq!(
            seen(&mut post, 10),
            [gone(1), stands(2), gone(3), stands(4), gone(5)],
            "only what stands is counted"
        );
        post.lingering_ms = 0;
        assert_eq!(seen(&mut post, 10), [(2, attempts * 2, false), (4, attempts * 2, false)]);
        post.lingering_ms = u64::MAX;
    }
    let stats = post.stats();
    assert_eq!((stats.users, stats.depth, stats.enqueued, stats.delivered), (1, 2, 5, 3));
    assert_eq!(post.raw(&["XLEN", STREAM]), "2");
    // What is gone is gone: removing it again is nothing, however it is meant.
    assert_eq!(linger(&mut post, &ids), Removed { removed: 2, depth: 0 });
    assert_eq!(post.remove("u1", &ids, Removal::Delivered), Removed { removed: 0, depth: 0 });
    assert_eq!(seen(&mut post, 10).len(), 5);
}

#[test]
fn a_mailbox_of_nothing_but_what_lingers_is_empty_and_time_takes_that_too() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    let ids = puts(&mut post, 3);
    assert_eq!(post.remove("u1", &ids, Removal::Lingering), Removed { removed: 3, depth: 0 });
    let left_ms = post.raw(&["PTTL", GONE]).parse::<i64>().unwrap();
    assert!((1..=limits::STORE_LINGER_MS as i64).contains(&left_ms), "{left_ms}");
    post.raw(&["PERSIST", GONE]);
    let mut keys: Vec<String> = post.raw(&["KEYS", "*"]).split('"').skip(1).step_by(2).map(str::to_owned).collect();
    keys.sort();
    assert_eq!(keys, [GONE, "ara:queue:stats"]);
    let stats = post.stats();
    assert_eq!((stats.users, stats.depth, stats.delivered, stats.expired), (0, 0, 3, 0));
    post.lingering_ms = 0;
    post.page("u1", None, 10, |page| assert_eq!(page, Page::default()));
    assert_eq!(post.sweep("u1"), Removed { removed: 0, depth: 0 });
    post.lingering_ms = u64::MAX;
    assert_eq!(seen(&mut post, 10).len(), 3);
    // The next begins a stream of its own behind them, and is one mailbox with one entry.
    let next = post.put("u1");
    assert!(next.positions[0] > ids[2]);
    assert_eq!((next.before, next.dropped, next.expired), (Some(ids[2]), 0, 0));
    assert_eq!(seen(&mut post, 10).iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((post.stats().users, post.stats().depth, post.stats().expired), (1, 1, 0));
}

#[test]
fn nothing_else_that_leaves_a_mailbox_lingers() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 4);
    let ids = puts(&mut post, 5);
    for (id, why) in ids[1..].iter().zip([Removal::Delivered, Removal::Expired, Removal::Undecodable]) {
        assert_eq!(post.remove("u1", &[*id], why).removed, 1);
    }
    assert_eq!(seen(&mut post, 10), [(5, 1, false)], "nor does what a full mailbox dropped");
    assert_eq!(post.raw(&["EXISTS", GONE]), "0");
    // What was not there does not linger either, and an entry that is none.
    post.raw(&["XADD", STREAM, "*", "other", "field"]);
    let last = post.put("u1").before.unwrap();
    assert_eq!(post.remove("u1", &[ids[1], last], Removal::Lingering).removed, 1);
    assert_eq!(post.raw(&["EXISTS", GONE]), "0");
}

#[test]
fn pages_go_on_through_what_stands_and_what_lingers() {
    let server = RedisServer::start();
    let gone = [[1, 2, 3], [18, 19, 20], [8, 9, 17], [1, 10, 20]];
    for (nth, gone) in gone.into_iter().enumerate() {
        let mut post = ahead(&server, 100);
        post.raw(&["FLUSHALL"]);
        post = ahead(&server, 100);
        let ids = puts(&mut post, 20);
        // More than are read at a time, too.
        let all: Vec<usize> = if nth == 0 { (0..17).collect() } else { gone.map(|n| n - 1).to_vec() };
        let positions: Vec<Position> = all.iter().map(|at| ids[*at]).collect();
        linger(&mut post, &positions);
        for count in [1, 2, 7, 8, 9, 19, 20, 21, 300] {
            let (mut numbers, mut pages, mut behind) = (Vec::new(), 0, None);
            loop {
                pages += 1;
                behind = post.page("u1", behind, count, |page| {
                    assert!(page.entries.iter().all(|e| e.is_gone == positions.contains(&e.position)));
                    numbers.extend(page.entries.iter().map(|entry| number(&entry.mail.event)));
                    page.next
                });
                if behind.is_none() {
                    break;
                }
            }
            assert_eq!(numbers, (1..=20).collect::<Vec<_>>(), "{count} a page");
            assert_eq!(pages, 20_usize.div_ceil(count as usize), "no page leads to nothing, {count} a page");
        }
        // From behind one that is not there any more, or never was.
        for (behind, expected) in [(ids[0], 19), (ids[17], 2), (Position(ids[19].0, ids[19].1 + 1), 0)] {
            assert_eq!(post.page("u1", Some(behind), 100, |page| page.entries.len()), expected);
        }
    }
}

#[test]
fn a_page_ends_by_its_bytes_among_what_lingers_too() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    let long = format!("{{\"payload\":\"{}\"}}", "x".repeat(limits::REDIS_ENTRY_BYTES_MAX - 200));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mail = Mail { event: long.as_bytes().into(), ..post.mail(3_600) };
        ids.extend(post.put_all("u1", &[mail]).positions);
    }
    ids.extend(puts(&mut post, 1));
    for gone in [ids[0], ids[2], ids[1], ids[3]] {
        linger(&mut post, &[gone]);
        let (mut pages, mut behind) = (Vec::new(), None);
        loop {
            behind = post.page("u1", behind, 10, |page| {
                pages.push(page.entries.iter().map(|entry| entry.position).collect::<Vec<_>>());
                page.next
            });
            if behind.is_none() {
                break;
            }
        }
        assert_eq!(pages, [vec![ids[0]], vec![ids[1]], vec![ids[2]], vec![ids[3]]]);
    }
    assert_eq!(post.driver.status().ends, 0);
}

/// Whether what was put in so long ago is read by who asks for so much.
#[test]
fn what_is_older_than_is_asked_for_is_not_read_and_what_is_too_old_does_not_linger() {
    let server = RedisServer::start();
    let mut post = Post::new(&server, 100, 3_600);
    let begun_ms = server_ms(&post);
    for (nth, ago_ms) in [10_000, 1_500, 0].into_iter().enumerate() {
        post.raw(&["XADD", STREAM, &format!("{}-{nth}", begun_ms - ago_ms), "data", &stored(ago_ms)]);
    }
    post.page("u1", None, 10, |page| {
        let ages: Vec<u64> = page.entries.iter().map(|entry| entry.age.most_ms).collect();
        assert!(ages[0] >= 10_000 && [ages[0] - ages[1], ages[1] - ages[2]] == [8_500, 1_500], "{ages:?}");
    });
    let ids = [(10_000, 0), (1_500, 1), (0, 2)].map(|(ago, nth)| Position(begun_ms - ago, nth));
    assert_eq!(linger(&mut post, &ids), Removed { removed: 3, depth: 0 });
    let is_soon = |post: &Post<'_>, ms| server_ms(post) < begun_ms + ms;
    let kept = post.raw(&["ZCARD", GONE]);
    assert!(kept == "2" || !is_soon(&post, 1_500), "{kept}");
    // By hand, what is too old is not read though it is there.
    post.raw(&["ZADD", GONE, "0", &format!("{:020}-{:020}  {}", begun_ms - 10_000, 7, stored(7))]);
    let mut read = |lingering_ms| {
        post.lingering_ms = lingering_ms;
        let seen = seen(&mut post, 10).iter().map(|(number, ..)| *number).collect::<Vec<_>>();
        (seen, server_ms(&post) - begun_ms)
    };
    for (lingering_ms, expected) in [(1_400, &[0][..]), (2_900, &[1_500, 0]), (u64::MAX, &[1_500, 0])] {
        let (seen, passed_ms) = read(lingering_ms);
        let in_time = passed_ms + expected[0] < lingering_ms.min(limits::STORE_LINGER_MS);
        assert!(seen == expected || !in_time && seen.len() < expected.len(), "{lingering_ms}: {seen:?}");
    }
    // The next removal takes it away.
    post.lingering_ms = u64::MAX;
    let positions = puts(&mut post, 1);
    post.remove("u1", &positions, Removal::Lingering);
    let oldest = post.raw(&["ZRANGE", GONE, "0", "0"]);
    assert!(!oldest.contains("\\\"payload\\\": 7}"), "{oldest}");
}

#[test]
fn as_many_linger_as_a_mailbox_holds_and_the_oldest_go() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 20);
    let ids = puts(&mut post, 20);
    linger(&mut post, &ids[10..]);
    linger(&mut post, &ids[..10]);
    let more = puts(&mut post, 13);
    linger(&mut post, &more[..12]);
    let expected = (13..=32).map(|n| (n, 0, true)).chain([(33, 1, false)]);
    assert_eq!(seen(&mut post, 7), expected.collect::<Vec<_>>());
    // As many as one request removes at a time.
    post.mailboxes = Mailboxes::new("ara:queue", 2_000, 3_600);
    let mail: Vec<Mail> = (0..limits::REDIS_REMOVE_LINGERING_MAX + 1).map(|_| post.mail(3_600)).collect();
    let ids = post.put_all("u1", &mail).positions;
    assert_eq!(linger(&mut post, &ids), Removed { removed: limits::REDIS_REMOVE_LINGERING_MAX as u64, depth: 2 });
    assert_eq!(seen(&mut post, 256).len(), limits::REDIS_REMOVE_LINGERING_MAX + 22);
}

#[test]
fn an_append_tells_of_the_last_one_that_stands_or_lingers() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    let ids = puts(&mut post, 2);
    linger(&mut post, &ids[1..]);
    let third = post.put("u1");
    assert_eq!(third.before, Some(ids[1]), "it lingers behind what stands");
    let fourth = post.put("u1");
    assert_eq!(fourth.before, Some(third.positions[0]), "it stands behind what lingers");
    post.remove("u1", &fourth.positions, Removal::Delivered);
    linger(&mut post, &[ids[0], third.positions[0]]);
    let fifth = post.put("u1");
    assert_eq!(fifth.before, Some(third.positions[0]), "nothing stands there");
    assert!(fifth.positions[0] > third.positions[0]);
    // What can no longer be read is not told of.
    let now_ms = server_ms(&post);
    post.raw(&["DEL", GONE, STREAM]);
    post.raw(&["ZADD", GONE, "0", &format!("{:020}-{:020}  {}", now_ms - 10_000, 7, stored(7))]);
    assert_eq!(post.put("u1").before, None);
    // Nor of what another put there that is none.
    post.raw(&["DEL", STREAM]);
    post.raw(&["ZADD", GONE, "0", "zzz", "0", ""]);
    assert_eq!(post.put("u1").before, None);
}

#[test]
fn a_clock_that_stands_or_went_back_gives_no_id_before_what_lingers() {
    let server = RedisServer::start();
    let mut post = Post::new(&server, 100, 3_600);
    post.lingering_ms = u64::MAX;
    let ahead_ms = server_ms(&post) + 3_600_000;
    let last = Position(ahead_ms, u64::MAX - 3);
    post.raw(&["XADD", STREAM, &text(last), "data", &stored(90)]);
    assert_eq!(linger(&mut post, &[last]), Removed { removed: 1, depth: 0 });
    let mail: Vec<Mail> = (0..6).map(|_| post.mail(3_600)).collect();
    let enqueued = post.put_all("u1", &mail);
    let behind = (u64::MAX - 2..=u64::MAX).map(|n| Position(ahead_ms, n));
    let expected: Vec<Position> = behind.chain((0..3).map(|n| Position(ahead_ms + 1, n))).collect();
    assert_eq!((enqueued.before, enqueued.positions), (Some(last), expected.clone()));
    assert_eq!(post.raw(&["XLEN", STREAM]), "6");
    let numbers: Vec<u64> = seen(&mut post, 2).iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [90, 1, 2, 3, 4, 5, 6]);
    // Again and again, from the place where the mailbox was empty.
    let mut last = expected[5];
    linger(&mut post, &expected);
    for _ in 0..20 {
        let enqueued = post.put("u1");
        assert_eq!(enqueued.before, Some(last));
        assert!(enqueued.positions[0] > last);
        last = enqueued.positions[0];
        linger(&mut post, &[last]);
    }
}

#[test]
fn ids_are_compared_by_all_their_digits() {
    let server = RedisServer::start();
    let mut post = Post::new(&server, 100, 3_600);
    post.lingering_ms = u64::MAX;
    let ms = server_ms(&post) + 3_600_000;
    let big = 1_u64 << 53;
    let ids = [1, 2, 9, 10, 99, 100, big - 1, big, big + 1, big + 2, u64::MAX - 1, u64::MAX].map(|n| Position(ms, n));
    for (nth, id) in (1..).zip(ids) {
        post.raw(&["XADD", STREAM, &text(id), "data", &stored(nth)]);
    }
    linger(&mut post, &[ids[8], ids[3], ids[11], ids[1], ids[7], ids[5]]);
    for count in [1, 100] {
        let numbers: Vec<u64> = seen(&mut post, count).iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
    }
    for (nth, id) in ids.into_iter().enumerate() {
        assert_eq!(post.page("u1", Some(id), 100, |page| page.entries.len()), 11 - nth, "behind {id:?}");
    }
    // Milliseconds that are no time do not linger, and what comes next has an id of the clock.
    post.raw(&["DEL", STREAM, GONE]);
    for never in [Position(1_000_000_000_000_000, 1), Position(u64::MAX, u64::MAX)] {
        post.raw(&["XADD", STREAM, &text(never), "data", &stored(1)]);
        assert_eq!(post.remove("u1", &[never], Removal::Lingering), Removed { removed: 1, depth: 0 });
        assert_eq!(post.raw(&["EXISTS", GONE]), "0");
    }
    let enqueued = post.put("u1");
    assert!(enqueued.before.is_none() && enqueued.positions[0].0 < ms);
}

#[test]
fn what_lingers_and_cannot_be_delivered_is_passed_over() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    post.put_with("u1", Some(1));
    post.raw(&["XADD", STREAM, "*", "data", "no JSON"]);
    post.raw(&["XADD", STREAM, "*", "data", &stored(77)]);
    let stands = post.put("u1");
    post.raw(&["XADD", STREAM, "*", "data", "no JSON"]);
    let all: Vec<Position> = {
        let shown = post.raw(&["XRANGE", STREAM, "-", "+"]);
        let ids = shown.split('"').filter_map(|part| part.split_once('-'));
        ids.filter_map(|(ms, n)| Some(Position(ms.parse().ok()?, n.parse().ok()?))).collect()
    };
    assert_eq!(all.len(), 5);
    let gone: Vec<Position> = all.iter().copied().filter(|id| *id != stands.positions[0]).collect();
    linger(&mut post, &gone);
    // Not for its form.
    let long = stored(5) + &" ".repeat(limits::REDIS_ENTRY_BYTES_MAX);
    let large = format!("{:020}-{:020}  {}", all[4].0, all[4].1 + 1, long);
    post.raw(&["ZADD", GONE, "0", &large, "0", "zzz", "0", ""]);
    post.pass_ms(1_000);
    let (mut entries, mut pages, mut behind) = (Vec::new(), 0, None);
    loop {
        pages += 1;
        behind = post.page("u1", behind, 1, |page| {
            assert!(page.expired.is_empty() && page.undecodable.is_empty(), "there is nothing to remove: {page:?}");
            assert!(page.next > behind || page.next.is_none(), "a page of nothing leads on");
            entries.extend(page.entries.iter().map(|e| (number(&e.mail.event), e.mail.attempts, e.is_gone)));
            page.next
        });
        if behind.is_none() {
            break;
        }
    }
    assert_eq!(entries, [(77, 4, true), (2, 1, false)], "no delivery begins of what is gone");
    assert!((6..=7).contains(&pages), "{pages}");
    // None of these events is in the form that clients are given.
    let page = post.page("u1", None, 100, Page::fit_for_clients);
    assert_eq!((page.entries.len(), page.undecodable), (0, stands.positions));
}

#[test]
fn what_stands_there_again_does_not_linger() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    let ids = puts(&mut post, 2);
    linger(&mut post, &ids);
    // By another hand, with the ids it had.
    post.raw(&["XADD", STREAM, &text(ids[1]), "data", &stored(2)]);
    for count in [1, 2, 9] {
        assert_eq!(seen(&mut post, count), [(1, 0, true), (2, 5, false)], "{count} a page");
    }
}

#[test]
fn a_key_of_a_wrong_type_where_it_lingers_fails_what_needs_it_and_changes_nothing() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    let ids = puts(&mut post, 3);
    post.raw(&["SET", GONE, "text"]);
    let before = post.stats();
    for act in 0..3 {
        let Post { driver, mailboxes, tenant, .. } = &mut post;
        let submit = |command: storage::redis::commands::Command<'_>| driver.submit(command).unwrap();
        match act {
            0 => _ = mailboxes.remove(tenant, "u1", &ids, Removal::Lingering, submit).unwrap(),
            1 => _ = mailboxes.read(tenant, "u1", None, 10, 1, submit),
            _ => post.submit_put("u1"),
        }
        let told = post.driver.answers();
        assert!(matches!(&told[0].1, Told::Failed(text) if text.contains("WRONGTYPE")), "{act}: {told:?}");
        assert_eq!((post.stats(), post.raw(&["XLEN", STREAM])), (before, "3".to_owned()));
    }
    // What does not need it is done.
    post.lingering_ms = 0;
    assert_eq!(seen(&mut post, 10).iter().map(|(_, attempts, _)| *attempts).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(post.remove("u1", &ids[..1], Removal::Delivered), Removed { removed: 1, depth: 2 });
    assert_eq!(post.sweep("u1"), Removed { removed: 0, depth: 2 });
    assert_eq!(post.raw(&["GET", GONE]), "\"text\"");
    assert_eq!((post.driver.status().ends, post.driver.status().failures), (0, 0));
}

#[test]
fn a_full_server_lets_mail_be_taken_out_though_it_lingers() {
    let server = RedisServer::start();
    let mut post = ahead(&server, 100);
    let ids = puts(&mut post, 20);
    post.raw(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(linger(&mut post, &ids[..19]), Removed { removed: 19, depth: 1 });
    assert_eq!(linger(&mut post, &ids[19..]), Removed { removed: 1, depth: 0 });
    assert_eq!(seen(&mut post, 7).len(), 20);
    assert_eq!((post.stats().users, post.stats().depth, post.stats().delivered), (0, 0, 20));
}

/// Acts at random, and what must be there after each.
#[test]
fn whatever_is_done_what_is_read_is_what_stands_and_what_lingers_in_order() {
    const MAX: usize = 12;
    for seed in 0..12 {
        let server = RedisServer::start();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut post = ahead(&server, MAX as u32);
        let (mut stands, mut gone) = (BTreeMap::new(), BTreeMap::new());
        for step in 0..150 {
            let told = format!("seed {seed}, step {step}");
            match rng.u8(0..10) {
                0..5 => {
                    let mail: Vec<Mail> = (0..rng.usize(1..4)).map(|_| post.mail(3_600)).collect();
                    let enqueued = post.put_all("u1", &mail);
                    let last = stands.keys().chain(gone.keys()).max().copied();
                    assert_eq!(enqueued.before, last, "{told}");
                    assert!(enqueued.positions[0] > last.unwrap_or_default(), "{told}");
                    stands.extend(enqueued.positions.into_iter().zip(mail.iter().map(|mail| mail.stream.seq)));
                    while stands.len() > MAX {
                        stands.pop_first();
                    }
                }
                5..8 => {
                    let mut ids: Vec<Position> = stands.keys().copied().filter(|_| rng.bool()).collect();
                    rng.shuffle(&mut ids);
                    // One stays, so that ids stay those of the hour to come.
                    ids.truncate(stands.len().saturating_sub(1));
                    let lingers = rng.bool();
                    if ids.is_empty() {
                        continue;
                    }
                    let removed = match lingers {
                        true => linger(&mut post, &ids),
                        false => post.remove("u1", &ids, Removal::Delivered),
                    };
                    assert_eq!(
                        removed,
                        Removed { removed: ids.len() as u64, depth: (stands.len() - ids.len()) as u64 }
                    );
                    for id in ids {
                        let number = stands.remove(&id).unwrap();
                        if lingers {
                            gone.insert(id, number);
                        }
                    }
                    while gone.len() > MAX {
                        gone.pop_first();
                    }
                }
                _ => {
                    let mut all: Vec<(Position, u64, bool)> = stands.iter().map(|(id, n)| (*id, *n, false)).collect();
                    all.extend(gone.iter().map(|(id, n)| (*id, *n, true)));
                    all.sort();
                    let behind = (rng.bool() && !all.is_empty()).then(|| all[rng.usize(0..all.len())].0);
                    all.retain(|(id, ..)| Some(*id) > behind);
                    let count = rng.usize(1..30);
                    let next = all.get(count - 1).filter(|_| all.len() > count).map(|(id, ..)| *id);
                    all.truncate(count);
                    post.page("u1", behind, count as u32, |page| {
                        let show = |e: &Entry| (e.position, number(&e.mail.event), e.is_gone);
                        assert_eq!(page.entries.iter().map(show).collect::<Vec<_>>(), all, "{told}");
                        assert_eq!(page.next, next, "{told}");
                    });
                }
            }
            let stats = post.stats();
            assert_eq!((stats.users, stats.depth), (u64::from(!stands.is_empty()), stands.len() as u64), "{told}");
        }
    }
}
