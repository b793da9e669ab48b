//! Mailboxes: order, pages, exact bytes, deliveries, bounds, expiry, removal, whose mail it is.
use crate::bench::{Bench, Kind, Server, Settings, mail, mail_of, mailbox, mailbox_of, mails};
use protocol::limits;
use protocol::store::{Age, Entry, Mail, MailboxKey, Position, StoreReply, StoreRequest};
use std::sync::Arc;

rows! {
    everywhere:
        mail_comes_back_in_the_order_it_was_appended_page_by_page,
        a_page_of_long_events_is_bounded_and_leads_on,
        events_come_back_byte_for_byte,
        places_and_times_and_attempts_are_given_back,
        each_reading_begins_a_delivery_of_what_is_on_the_page_alone,
        a_delivery_of_what_nobody_read_is_counted_too,
        a_full_mailbox_lets_its_oldest_go_and_counts_them,
        what_has_expired_is_not_given_and_counts_once,
        what_nobody_reads_expires_in_the_sweep,
        removing_what_is_not_there_is_done_and_removes_nothing_else,
        appending_nothing_and_removing_nothing_is_done,
        tenants_are_apart,
        users_may_have_any_name,
        a_users_name_that_cannot_be_kept_fails_alone,
        many_mailboxes_asked_at_once_keep_each_its_order;
    on_servers:
        deliveries_are_counted_over_a_new_store,
        what_nobody_can_read_is_passed_over_and_counted_and_goes,
}

fn mail_comes_back_in_the_order_it_was_appended_page_by_page(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    let (mut positions, _) = bench.store.append(&ana, mails(1..=3));
    bench.store.append(&mailbox("bob"), mails(90..=99));
    positions.extend(bench.store.append(&ana, mails(4..=7)).0);
    assert!(positions.windows(2).all(|two| two[0] < two[1]), "{positions:?}");
    for entries_max in [1, 2, 3, 7, 50] {
        let pages = bench.store.pages(&ana, entries_max);
        assert_eq!(pages.len(), 7_usize.div_ceil(entries_max), "the page that ends with the last one is the last");
        let found: Vec<_> = pages.iter().flatten().map(|entry| (entry.position, entry.mail.stream.seq)).collect();
        assert_eq!(found, positions.iter().copied().zip(1..).collect::<Vec<_>>());
    }
    let (behind, next) = bench.store.read(&ana, Some(positions[4]), 50);
    assert_eq!((behind.iter().map(|entry| entry.mail.stream.seq).collect::<Vec<_>>(), next), (vec![6, 7], None));
    bench.store.remove(&ana, &positions[2..5]);
    let (behind, _) = bench.store.read(&ana, Some(positions[3]), 50);
    assert_eq!(behind[0].position, positions[5], "behind one that is gone is where it was");
    assert_eq!(bench.store.read(&ana, Some(positions[6]), 50), (Vec::new(), None));
}

fn a_page_of_long_events_is_bounded_and_leads_on(kind: Kind) {
    let mut bench = Bench::new(kind);
    let long = format!("\"{}\"", "x".repeat(400_000));
    let ana = mailbox("ana");
    bench.store.append(&ana, (1..=6).map(|number| mail_of(number, &long)).collect());
    let pages = bench.store.pages(&ana, 50);
    let numbers: Vec<u64> = pages.iter().flatten().map(|entry| entry.mail.stream.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    assert!(pages.iter().all(|page| !page.is_empty()), "each page gives something");
    // What lies in our own memory need not be cut.
    if kind != Kind::Memory {
        let bytes = |page: &Vec<Entry>| page.iter().map(|entry| entry.mail.event.len()).sum::<usize>();
        let bytes_max = limits::REDIS_PAGE_BYTES_MAX.max(limits::POSTGRES_PAGE_BYTES_MAX) + 401_000;
        assert!(pages.iter().all(|page| bytes(page) <= bytes_max));
        assert!(pages.len() > 1);
    }
}

fn events_come_back_byte_for_byte(kind: Kind) {
    let mut bench = Bench::new(kind);
    let megabyte = format!("\"{}\"", "é\\n".repeat(1_048_576 / 4));
    let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
    let payloads = [
        r#"{"b":1,"a":2,"b":3}"#,
        "1.50",
        "-0.0",
        "1e999999",
        "123456789012345678901234567890.10",
        r#""\u0000""#,
        r#""\ud83d\ude00 😀 é \/ \"""#,
        "null",
        r#"{"":{"'\\":"$1 % ' \\x00"}}"#,
        deep.as_str(),
        megabyte.as_str(),
    ];
    let ana = mailbox("ana");
    let sent: Vec<Mail> = payloads.iter().zip(1..).map(|(payload, number)| mail_of(number, payload)).collect();
    bench.store.append(&ana, sent.clone());
    let pages = bench.store.pages(&ana, 50);
    let found: Vec<&Entry> = pages.iter().flatten().collect();
    assert_eq!(found.len(), sent.len());
    for (found, sent) in found.iter().zip(&sent) {
        assert!(found.mail.event == sent.event, "{}", String::from_utf8_lossy(&sent.event[..200]));
    }
}

fn places_and_times_and_attempts_are_given_back(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    let mut sent = mails(1..=3);
    sent[0].attempts = 3;
    sent[1].stream = protocol::stream::StreamSeq { epoch: 1, seq: u64::MAX };
    sent[2].stream = protocol::stream::StreamSeq { epoch: u64::MAX, seq: 0 };
    let (positions, _) = bench.store.append(&ana, sent.clone());
    let (found, _) = bench.store.read(&ana, None, 9);
    let expected: Vec<Entry> = positions
        .into_iter()
        .zip(sent)
        .map(|(position, mail)| Entry::standing(position, Mail { attempts: mail.attempts + 1, ..mail }))
        .collect();
    // A store may know how long ago it was put in.
    let found: Vec<Entry> = found.into_iter().map(|entry| Entry { age: Age::UNKNOWN, ..entry }).collect();
    assert_eq!(found, expected);
}

fn each_reading_begins_a_delivery_of_what_is_on_the_page_alone(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    bench.store.append(&ana, mails(1..=3));
    bench.store.read(&ana, None, 1);
    bench.store.read(&ana, None, 2);
    bench.store.append(&ana, mails(4..=4));
    assert_eq!(bench.store.seen(&ana), [(1, 3), (2, 2), (3, 1), (4, 1)]);
    assert_eq!(bench.store.seen(&ana), [(1, 4), (2, 3), (3, 2), (4, 2)]);
}

fn a_delivery_of_what_nobody_read_is_counted_too(kind: Kind) {
    let mut bench = Bench::new(kind);
    let (ana, bob) = (mailbox("ana"), mailbox("bob"));
    let (positions, _) = bench.store.append(&ana, mails(1..=4));
    let nowhere = Position(u64::from(u32::MAX), 7);
    bench.store.begin(&ana, &[positions[1], nowhere, positions[2]]);
    bench.store.begin(&ana, &positions[2..3]);
    bench.store.begin(&bob, &positions);
    bench.store.begin(&ana, &[]);
    assert_eq!(bench.store.seen(&ana), [(1, 1), (2, 2), (3, 3), (4, 1)]);
    bench.store.remove(&ana, &positions);
    bench.store.begin(&ana, &positions);
    assert_eq!((bench.store.seen(&ana), bench.store.seen(&bob)), (vec![], vec![]));
    bench.store.until_mail_figures([0, 0, 4, 0, 0]);
}

fn deliveries_are_counted_over_a_new_store(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    bench.store.append(&ana, mails(1..=2));
    assert_eq!(bench.store.seen(&ana), [(1, 1), (2, 1)]);
    let mut next = bench.open();
    assert_eq!(next.seen(&ana), [(1, 2), (2, 2)]);
    next.append(&ana, mails(3..=3));
    assert_eq!(bench.open().seen(&ana), [(1, 3), (2, 3), (3, 1)]);
}

fn a_full_mailbox_lets_its_oldest_go_and_counts_them(kind: Kind) {
    let mut bench = Bench::with(kind, Settings { entries_max: 3, ..Settings::default() });
    let ana = mailbox("ana");
    assert_eq!(bench.store.append(&ana, mails(1..=2)).1, 0);
    assert_eq!(bench.store.append(&ana, mails(3..=4)).1, 1);
    bench.store.append(&mailbox("bob"), mails(90..=92));
    assert_eq!(bench.store.numbers(&ana), [2, 3, 4]);
    let (positions, dropped) = bench.store.append(&ana, mails(5..=9));
    assert_eq!((positions.len(), positions.is_sorted(), dropped), (5, true, 5), "more at once than it holds");
    let (entries, _) = bench.store.read(&ana, None, 9);
    assert_eq!(entries.iter().map(|entry| entry.position).collect::<Vec<_>>(), positions[2..]);
    assert_eq!(entries.iter().map(|entry| entry.mail.stream.seq).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(bench.store.numbers(&mailbox("bob")), [90, 91, 92]);
    bench.store.until_mail_figures([2, 6, 12, 6, 0]);
}

fn what_has_expired_is_not_given_and_counts_once(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    let mut sent = mails(1..=4);
    for short in [0, 2] {
        sent[short].expires_at_unix_ns = sent[short].queued_at_unix_ns + 20_000_000_000;
    }
    bench.store.append(&ana, sent);
    assert_eq!(bench.store.numbers(&ana), [1, 2, 3, 4]);
    bench.store.skip_ms(21_000);
    for _ in 0..2 {
        assert_eq!(bench.store.numbers(&ana), [2, 4]);
    }
    bench.store.until_mail_figures([1, 2, 4, 0, 2]);
    // The time of all of it, as the queue bounds it.
    bench.store.skip_ms(3_600_000);
    if kind != Kind::Memory {
        bench.store.until_healthy();
    }
    assert_eq!(bench.store.numbers(&ana), [0; 0]);
    bench.store.until_mail_figures([0, 0, 4, 0, 4]);
}

fn what_nobody_reads_expires_in_the_sweep(kind: Kind) {
    let mut bench = Bench::with(kind, Settings { sweep_interval_ms: 1_000, ..Settings::default() });
    let mut short = mails(1..=2);
    short[0].expires_at_unix_ns = short[0].queued_at_unix_ns + 5_000_000_000;
    let gone = vec![short[0].clone()];
    bench.store.append(&mailbox("ana"), short);
    bench.store.append(&mailbox("bob"), gone);
    bench.store.skip_ms(6_000);
    bench.sweep();
    bench.store.until_mail_figures([1, 1, 3, 0, 2]);
    assert_eq!(bench.store.numbers(&mailbox("ana")), [2]);
}

fn removing_what_is_not_there_is_done_and_removes_nothing_else(kind: Kind) {
    let mut bench = Bench::new(kind);
    let (ana, bob) = (mailbox("ana"), mailbox("bob"));
    let (anas, _) = bench.store.append(&ana, mails(1..=4));
    let (bobs, _) = bench.store.append(&bob, mails(5..=6));
    let last = bobs[1];
    let unknown = [Position(last.0 + 1_000_000, 0), Position(last.0, last.1 + 1_000), Position::default()];
    bench.store.remove(&ana, &unknown);
    bench.store.remove(&mailbox("nobody"), &anas);
    assert_eq!(bench.store.numbers(&ana), [1, 2, 3, 4]);
    bench.store.remove(&ana, &[anas[2], anas[0], anas[2], unknown[0], anas[2]]);
    bench.store.remove(&ana, &[anas[0]]);
    assert_eq!(bench.store.numbers(&ana), [2, 4]);
    // A position means something in its own mailbox only: Redis gives the same one in two.
    let of_ana_only: Vec<Position> = anas.iter().copied().filter(|position| !bobs.contains(position)).collect();
    bench.store.remove(&bob, &of_ana_only);
    assert_eq!((bench.store.numbers(&ana), bench.store.numbers(&bob)), (vec![2, 4], vec![5, 6]));
    if kind != Kind::Memory {
        bench.store.skip_ms(crate::bench::FIGURES_INTERVAL_MS);
        bench.store.until("two were delivered and four are left", |d| {
            (d.figures.mail.delivered.get(), d.figures.mail.depth.get()) == (2, 4)
        });
    }
}

fn appending_nothing_and_removing_nothing_is_done(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    assert_eq!(bench.store.append(&ana, Vec::new()), (Vec::new(), 0));
    bench.store.remove(&ana, &[]);
    assert_eq!(bench.store.read(&ana, None, 9), (Vec::new(), None));
    bench.store.until_mail_figures([0, 0, 0, 0, 0]);
}

fn tenants_are_apart(kind: Kind) {
    let mut bench = Bench::new(kind);
    let boxes = [mailbox("u1"), mailbox_of("acme", "u1"), mailbox_of("acme", "u2"), mailbox_of("globex", "u1")];
    let positions: Vec<_> = boxes.iter().zip(1..).map(|(of, n)| bench.store.append(of, vec![mail(n)]).0).collect();
    for (of, number) in boxes.iter().zip(1..) {
        assert_eq!(bench.store.numbers(of), [number]);
    }
    bench.store.remove(&boxes[1], &positions[1]);
    let left: Vec<_> = boxes.iter().flat_map(|of| bench.store.numbers(of)).collect();
    assert_eq!(left, [1, 3, 4]);
    // The key that is given for Redis (contract §8.2) has one form for two users; a JWT of `default` names its user
    // freely, so whoever signs for `default` must not give away names with a tenant before them.
    bench.store.append(&mailbox("acme:u3"), vec![mail(9)]);
    let meets: Vec<u64> = if matches!(kind, Kind::Redis | Kind::RedisCluster) { vec![9] } else { vec![] };
    assert_eq!(bench.store.numbers(&mailbox_of("acme", "u3")), meets);
    assert_eq!(bench.store.numbers(&mailbox("acme:u3")), [9]);
}

fn users_may_have_any_name(kind: Kind) {
    let mut bench = Bench::new(kind);
    let long = "é".repeat(255);
    let names = [
        "",
        " ",
        "é😀",
        "{a}",
        "a}b{c",
        "{}",
        "*",
        "a:b:c",
        "users",
        "default:u",
        "meta:{u}",
        "\r\n",
        "\t\\",
        "'; --",
        "$1",
        "\u{7f}\u{1}",
        "NULL",
        &long,
    ];
    for (name, number) in names.iter().zip(1..) {
        bench.store.append(&mailbox(name), vec![mail(number)]);
        bench.store.append(&mailbox_of("acme", name), vec![mail(number + 100)]);
    }
    for (name, number) in names.iter().zip(1..) {
        assert_eq!(bench.store.numbers(&mailbox(name)), [number], "{name:?}");
        assert_eq!(bench.store.numbers(&mailbox_of("acme", name)), [number + 100], "{name:?}");
        let (entries, _) = bench.store.read(&mailbox(name), None, 9);
        bench.store.remove(&mailbox(name), &[entries[0].position]);
        assert_eq!(bench.store.numbers(&mailbox(name)), [0; 0], "{name:?}");
    }
}

fn a_users_name_that_cannot_be_kept_fails_alone(kind: Kind) {
    let mut bench = Bench::new(kind);
    for name in ["a\0b".to_owned(), "u".repeat(300)] {
        let of = mailbox(&name);
        let before = bench.store.submit(append(&mailbox("ana"), 1));
        let odd = bench.store.submit(append(&of, 2));
        let after = bench.store.submit(append(&mailbox("ana"), 3));
        bench.store.turn(&[]);
        assert!(matches!(bench.store.reply(before), StoreReply::Appended { .. }));
        let odd = bench.store.reply(odd);
        match kind {
            // Its column is the seed's: 255 characters, none of them 0.
            Kind::Postgres => assert!(matches!(odd, StoreReply::Failed), "{odd:?}"),
            Kind::Memory | Kind::Redis | Kind::RedisCluster => assert_eq!(bench.store.numbers(&of), [2]),
        }
        assert!(matches!(bench.store.reply(after), StoreReply::Appended { .. }));
    }
    assert_eq!(bench.store.numbers(&mailbox("ana")), [1, 3, 1, 3]);
    assert!(kind == Kind::Memory || bench.store.figures.is_well(), "it is not the server's fault");
}

fn append(mailbox: &Arc<MailboxKey>, number: u64) -> StoreRequest {
    StoreRequest::AppendMail { mailbox: Arc::clone(mailbox), mail: vec![mail(number)], claim: None }
}

fn many_mailboxes_asked_at_once_keep_each_its_order(kind: Kind) {
    let mut bench = Bench::new(kind);
    let boxes: Vec<_> = (0..50).map(|user| mailbox(&format!("u{user}"))).collect();
    let mut asked = Vec::new();
    for round in 1..=12 {
        for (user, of) in boxes.iter().enumerate() {
            asked.push((bench.store.submit(append(of, round)), user, None));
            let read =
                StoreRequest::ReadMail { mailbox: Arc::clone(of), after: None, entries_max: 99, lingering_ms: 0 };
            asked.push((bench.store.submit(read), user, Some(round)));
        }
    }
    bench.store.turn(&[]);
    bench.store.until("all are answered", |d| d.replies.len() >= asked.len());
    let replies = std::mem::take(&mut bench.store.replies);
    assert_eq!(replies.len(), asked.len());
    for user in 0..boxes.len() {
        let of_user: Vec<_> = asked.iter().filter(|(_, of, _)| *of == user).collect();
        let tickets: Vec<u64> = of_user.iter().map(|(ticket, ..)| *ticket).collect();
        let told: Vec<_> = replies.iter().filter(|(ticket, _)| tickets.contains(ticket)).collect();
        assert_eq!(told.iter().map(|(ticket, _)| *ticket).collect::<Vec<_>>(), tickets, "answered in order, and once");
        for ((_, reply), (_, _, round)) in told.iter().zip(&of_user) {
            match (reply, round) {
                (StoreReply::Appended { positions, dropped: 0, .. }, None) => assert_eq!(positions.len(), 1),
                (StoreReply::Mail { entries, next: None }, Some(round)) => {
                    let seen: Vec<_> =
                        entries.iter().map(|e| (e.mail.stream.seq, u64::from(e.mail.attempts))).collect();
                    assert_eq!(seen, (1..=*round).map(|number| (number, round - number + 1)).collect::<Vec<_>>());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn what_nobody_can_read_is_passed_over_and_counted_and_goes(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    bench.store.append(&ana, mails(1..=1));
    for _ in 0..5 {
        bench.spoil("ana");
    }
    bench.store.append(&ana, mails(2..=2));
    let pages = bench.store.pages(&ana, 2);
    let numbers: Vec<u64> = pages.iter().flatten().map(|entry| entry.mail.stream.seq).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(bench.store.seen(&ana), [(1, 2), (2, 2)]);
    bench.store.skip_ms(crate::bench::FIGURES_INTERVAL_MS);
    bench.store.until("five were counted and two are left", |d| {
        let mail = &d.figures.mail;
        (mail.undecodable.get(), mail.depth.get(), mail.users.get()) == (5, 2, 1)
    });
    let left = match &bench.server {
        Server::None => panic!("this is asked of servers"),
        server @ (Server::Redis(_) | Server::RedisCluster(_)) => {
            let (mut client, key) = server.redis_mailbox("ana");
            format!("{:?}", client.command(&["XLEN", &key]))
        }
        Server::Postgres(server) => format!("Integer({})", server.psql("SELECT count(*) FROM notification_queue")),
    };
    assert_eq!(left, "Integer(2)");
    assert!(bench.store.figures.is_well());
}
