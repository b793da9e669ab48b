//! Slow consumers (design §4): clients that stop reading cost themselves their connection or make them catch up; publishers
//! and those who read notice nothing, and memory is bounded.
use crate::support::http::{Connection, request};
use crate::support::process::await_that;
use crate::support::server::Server;
use crate::support::token;
use crate::support::ws::{RawWs, Ws, op};
use serde_json::Value;

/// The value of a metric without labels.
fn metric(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics");
    let line = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {}", page.text()))
}

/// A publisher on a connection of its own, all of whose publishes are taken.
struct Publisher(Connection);

impl Publisher {
    fn of(server: &Server) -> Publisher {
        Publisher(Connection::open(server.port))
    }

    #[track_caller]
    fn publish(&mut self, kind: &str, body: &str) -> Value {
        let path = format!("/api/v1/notifications/{kind}");
        self.0.send(request("POST", &path, &[], Some(body.as_bytes())));
        self.0.read().ok()
    }
}

fn large(target: &str, n: usize) -> String {
    format!(r#"{{{target},"event_type":"{n}","payload":"{}"}}"#, "x".repeat(60_000))
}

/// The numbers of the notifications up to the Close frame, whose code must be 4008. Every frame is whole.
fn read_to_4008(mut slow: RawWs) -> Vec<usize> {
    let mut numbers = Vec::new();
    loop {
        let (first, payload) = slow.read();
        if first == op::FIN | op::CLOSE {
            assert_eq!(payload, 4008u16.to_be_bytes());
            return numbers;
        }
        if first == op::FIN | op::TEXT {
            numbers.push(number(&serde_json::from_slice(&payload).expect("a whole frame is JSON")));
        }
    }
}

fn number(notification: &Value) -> usize {
    let event_type = notification["event_type"].as_str().expect("a notification");
    event_type.parse().expect("numbered")
}

#[test]
fn a_fifth_of_a_crowd_stops_reading_and_the_others_hear_everything_in_order() {
    let server = Server::with(&[("SERVER_OUTBOX_MEMORY_MB", "16"), ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "0")]);
    let slow: Vec<RawWs> = (0..3).map(|n| RawWs::connect(server.port, &token::of(&format!("slow{n}")))).collect();
    let readers: Vec<Ws> = (0..12).map(|n| server.ws(&format!("quick{n}"))).collect();
    let before_kib = server.rss_kib();
    let readers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            std::thread::spawn(move || {
                for n in 0.. {
                    let heard = reader.notification();
                    if heard["event_type"] == "end" {
                        return n;
                    }
                    assert_eq!(number(&heard), n, "in order, and without a hole");
                }
                unreachable!("numbers do not end")
            })
        })
        .collect();
    let mut publisher = Publisher::of(&server);
    let (mut published, mut peak_kib) = (0, 0);
    // Until what the sockets and the outboxes of the slow ones hold is more than they may.
    while metric(&server, "ara_slow_consumers_closed_total") < 3 {
        for _ in 0..10 {
            let receipt = publisher.publish("broadcast", &large(r#""x":1"#, published));
            assert!(receipt["delivered_to"].as_u64() >= Some(12), "those who read are always reached: {receipt}");
            published += 1;
        }
        peak_kib = peak_kib.max(server.rss_kib());
        assert!(published < 2_000, "nobody was closed");
    }
    publisher.publish("broadcast", r#"{"event_type":"end","payload":1}"#);
    let slow: Vec<_> = slow.into_iter().map(|slow| std::thread::spawn(move || read_to_4008(slow))).collect();
    for reader in readers {
        assert_eq!(reader.join().expect("a reader ends well"), published);
    }
    for slow in slow {
        let numbers = slow.join().expect("a slow reader is told why it has to go");
        assert!(numbers.len() < published && numbers.iter().copied().eq(0..numbers.len()), "{numbers:?}");
    }
    // The memory of all outboxes, and as much again for what is on its way.
    assert!(peak_kib.saturating_sub(before_kib) < 2 * 16 * 1024 + 16 * 1024, "{before_kib} KiB, then {peak_kib}");
    server.still_delivers();
}

/// What each of them waits for is its own: only the bound of all outboxes together keeps it in memory's limits.
#[test]
fn what_nobody_reads_stays_within_the_memory_of_all_outboxes() {
    let server = Server::with(&[("SERVER_OUTBOX_MEMORY_MB", "16")]);
    let slow: Vec<RawWs> = (0..16).map(|n| RawWs::connect(server.port, &token::of(&format!("slow{n}")))).collect();
    let mut quick = server.ws("quick");
    let before_kib = server.rss_kib();
    let (mut publisher, mut peak_kib) = (Publisher::of(&server), 0);
    for n in 0.. {
        assert!(n < 500, "nothing was shed");
        for user in 0..16 {
            publisher.publish("send", &large(&format!(r#""target_user_id":"slow{user}""#), n));
        }
        publisher.publish("send", &large(r#""target_user_id":"quick""#, n));
        assert_eq!(number(&quick.notification()), n);
        peak_kib = peak_kib.max(server.rss_kib());
        // Shed, and not by the bound of each: that would take all of them at once.
        if metric(&server, "ara_outboxes_shed_total") >= 12 {
            break;
        }
    }
    assert!(peak_kib.saturating_sub(before_kib) < 2 * 16 * 1024 + 16 * 1024, "{before_kib} KiB, then {peak_kib}");
    let log = server.process.output();
    let told = log.matches("the largest outboxes are shed").count();
    assert!((1..=2).contains(&told), "once for each shard: {told} in {log}");
    drop(slow);
    server.still_delivers();
}

#[test]
fn a_reader_that_resumes_gets_its_mail_from_the_mailbox() {
    let classes: [&[(&str, &str)]; 2] = [&[], &[("ACK_ENABLED", "true"), ("ACK_TIMEOUT_SECONDS", "600")]];
    for class in classes {
        let all = [&[("QUEUE_ENABLED", "true"), ("QUEUE_MAX_SIZE_PER_USER", "10000")], class].concat();
        let server = Server::with(&all);
        let mut ana = server.ws("ana");
        let (mut publisher, count) = (Publisher::of(&server), 300);
        for n in 0..count {
            let receipt = publisher.publish("send", &large(r#""target_user_id":"ana""#, n));
            assert_eq!(receipt["success"], true, "{receipt}");
        }
        assert_eq!(metric(&server, "ara_slow_consumers_closed_total"), 0, "it paused, and was not let go");
        for n in 0..count {
            assert_eq!(number(&ana.notification()), n);
        }
        server.nothing_waits("ana", &mut ana);
    }
}

/// Behind a backlog, urgent notifications overtake; each class keeps its order.
#[test]
fn urgent_notifications_overtake_a_backlog() {
    let server = Server::with(&[("QUEUE_ENABLED", "true"), ("QUEUE_MAX_SIZE_PER_USER", "10000")]);
    let mut ana = server.ws("ana");
    let mut publisher = Publisher::of(&server);
    // More than sockets hold, less than an outbox does with them.
    let target = r#""target_user_id":"ana""#;
    let mut published = 0;
    await_that("a backlog", || {
        publisher.publish("send", &large(target, published));
        published += 1;
        let waits = server.get("/metrics").text().lines().any(|line| {
            line.starts_with("ara_shard_outbox_bytes{") && line.split(' ').next_back().is_some_and(|n| n.len() > 6)
        });
        waits.then_some(())
    });
    let urgent = [published, published + 1];
    for n in urgent {
        publisher.publish("send", &format!(r#"{{{target},"event_type":"{n}","payload":1,"priority":"High"}}"#));
    }
    let heard: Vec<usize> = (0..published + 2).map(|_| number(&ana.notification())).collect();
    let (overtaking, ordinary): (Vec<usize>, Vec<usize>) = heard.iter().partition(|n| urgent.contains(n));
    assert_eq!((overtaking.as_slice(), ordinary.len()), (&urgent[..], published));
    assert!(ordinary.is_sorted());
    let at = heard.iter().position(|n| *n == urgent[0]).expect("it came");
    assert!(at + 10 < published, "it waited behind {at} of {published}");
}
