//! The link against a real redis-server, which each test starts for itself.
mod common;

use common::{Driver, RedisServer, config, pairs};
use std::sync::{Arc, Mutex};
use storage::breaker::{BreakerConfig, BreakerState};
use storage::redis::feed::FeedTiming;
use storage::redis::status::{FeedErrorKind, LinkState};

#[test]
fn patterns_and_plain_channels_are_heard_and_payloads_stay_as_they_are() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news", "user:*", "room-[ab]", "v?"]));
    driver.until_healthy(1);
    let every_byte: Vec<u8> = (0..=255).collect();
    let rows: [(&str, &[u8]); 7] = [
        ("news", b"{\"a\":1}"),
        ("user:1", b""),
        ("user:", b"\r\n$5\r\n*3\r\n"),
        ("room-a", &every_byte),
        ("v1", "\u{1f514} ünï".as_bytes()),
        ("news", &vec![b'x'; 1_000_000]),
        ("user:*", b"last"),
    ];
    let mut client = server.client();
    for (channel, payload) in rows {
        client.publish(channel, payload);
    }
    assert_eq!(driver.hear(rows.len()), pairs(&rows));
    assert_eq!(driver.status().messages, rows.len() as u64);
}

#[test]
fn ten_thousand_messages_come_in_order() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["stream:*"]));
    driver.until_healthy(1);
    let mut client = server.client();
    for n in 0..10_000 {
        client.send(&["PUBLISH", "stream:1", &format!("{n:0300}")]);
    }
    for (n, (channel, payload)) in driver.hear(10_000).into_iter().enumerate() {
        assert_eq!((channel.as_str(), payload), ("stream:1", format!("{n:0300}").into_bytes()));
    }
}

#[test]
fn thousands_of_bytes_of_names_are_confirmed_before_the_link_is_healthy() {
    let server = RedisServer::start();
    let names: Vec<String> = (0..1_024).map(|n| format!("channel-{n:060}{}", ["", "*"][n % 2])).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut driver = Driver::new(config(&server.url(), &names));
    driver.until_healthy(1);
    let mut client = server.client();
    for name in &names {
        client.publish(name, b"x");
    }
    assert_eq!(driver.hear(names.len()), names.iter().map(|n| ((*n).to_owned(), b"x".to_vec())).collect::<Vec<_>>());
}

#[test]
fn a_killed_and_restarted_server_is_found_again() {
    let mut server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until_healthy(1);
    for round in 2..5 {
        server.kill();
        driver.until("the loss is noticed", |d| d.status().link == LinkState::Reconnecting && d.status().attempts > 2);
        assert_eq!(driver.status().last_error, Some(FeedErrorKind::Connect));
        server.restart();
        driver.until_healthy(round);
        assert_eq!(driver.status().attempts, 0);
        server.client().publish("news", b"back");
        assert_eq!(driver.hear(1), pairs(&[("news", b"back")]));
    }
}

#[test]
fn a_killed_connection_is_made_anew() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until_healthy(1);
    server.client().must(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    driver.until_healthy(2);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Closed));
    server.client().publish("news", b"again");
    assert_eq!(driver.hear(1), pairs(&[("news", b"again")]));
}

#[test]
fn user_password_and_database_are_spoken_as_the_url_encodes_them() {
    let server = RedisServer::start();
    let mut client = server.client();
    client.must(&["ACL", "SETUSER", "ara:1", "on", ">p@ss/w?rd #% é", "~*", "&*", "+@all"]);
    client.must(&["ACL", "SETUSER", "open", "on", "nopass", "&*", "+@all"]);
    client.must(&["CONFIG", "SET", "requirepass", "default secret"]);
    let port = server.port;
    let urls = [
        format!("redis://ara%3A1:p%40ss%2Fw%3Frd%20%23%25%20%C3%A9@127.0.0.1:{port}/3"),
        format!("redis://:default%20secret@localhost:{port}"),
        format!("redis://open@127.0.0.1:{port}/15"),
    ];
    for url in urls {
        let mut driver = Driver::new(config(&url, &["news"]));
        driver.until_healthy(1);
        client.publish("news", b"hello");
        assert_eq!(driver.hear(1), pairs(&[("news", b"hello")]));
    }
}

#[test]
fn what_the_server_refuses_is_named_and_tried_again_without_opening_the_breaker() {
    let server = RedisServer::start();
    let mut client = server.client();
    client.must(&["ACL", "SETUSER", "deaf", "on", ">pw", "resetchannels", "+@all"]);
    let port = server.port;
    let rows = [
        (format!("redis://ara:wrong@127.0.0.1:{port}"), FeedErrorKind::Auth),
        (format!("redis://:unasked@127.0.0.1:{port}"), FeedErrorKind::Auth),
        (format!("redis://127.0.0.1:{port}/16"), FeedErrorKind::Database),
        (format!("redis://deaf:pw@127.0.0.1:{port}"), FeedErrorKind::Auth),
    ];
    for (url, kind) in rows {
        let mut settings = config(&url, &["news"]);
        settings.breaker.failure_threshold = 2;
        let mut driver = Driver::new(settings);
        driver.until("it was tried again and again", |d| d.status().attempts > 4);
        let status = driver.status();
        assert_eq!((status.last_error, status.failures), (Some(kind), 0), "{url}");
        assert_eq!((status.link, status.breaker), (LinkState::Reconnecting, BreakerState::Closed), "{url}");
    }
    client.must(&["CONFIG", "SET", "requirepass", "secret"]);
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until("the missing password is noticed", |d| d.status().last_error == Some(FeedErrorKind::Auth));
    client.must(&["CONFIG", "SET", "requirepass", ""]);
    driver.until_healthy(1);
}

#[test]
fn a_server_that_comes_later_is_found() {
    let mut server = RedisServer::absent();
    let mut driver = Driver::new(config(&format!("redis://localhost:{}", server.port), &["news"]));
    driver.until("it was tried in vain", |d| d.status().attempts > 3);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Connect));
    server.restart();
    driver.until_healthy(1);
}

#[test]
fn the_breaker_opens_and_closes_again_when_the_server_proved_itself() {
    let mut server = RedisServer::absent();
    let mut settings = config(&server.url(), &["news"]);
    settings.breaker = BreakerConfig { failure_threshold: 3, success_threshold: 4, reset_timeout_ms: 200 };
    let mut driver = Driver::new(settings);
    driver.until("the breaker opens", |d| d.status().link == LinkState::CircuitOpen);
    assert_eq!((driver.status().breaker, driver.status().failures), (BreakerState::Open, 3));
    server.restart();
    driver.until("the breaker closes", |d| d.status().breaker == BreakerState::Closed);
    let status = driver.status();
    assert_eq!((status.link, status.failures, status.reconnections), (LinkState::Healthy, 0, 1));
}

#[test]
fn a_server_that_stands_still_is_given_up_and_found_again() {
    let server = RedisServer::start();
    let mut settings = config(&server.url(), &["news"]);
    settings.timing = FeedTiming { connect_deadline_ms: 1_000, ping_interval_ms: 500 };
    let mut driver = Driver::new(settings);
    driver.until_healthy(1);
    server.hold();
    driver.until("the silence is noticed", |d| d.status().last_error == Some(FeedErrorKind::Silent));
    // The kernel still takes connections for it, but nobody answers.
    driver.until("an attempt is given up", |d| d.status().last_error == Some(FeedErrorKind::Deadline));
    server.release();
    driver.until_healthy(2);
    server.client().publish("news", b"again");
    assert_eq!(driver.hear(1), pairs(&[("news", b"again")]));
}

#[test]
fn a_quiet_link_is_kept_alive_by_pings() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until_healthy(1);
    let mut client = server.client();
    for pings in 1..6 {
        driver.skip_ms(60_000);
        // One of our own to start with: the helper asks whether the server is ready.
        driver.until("the ping was answered", |_| {
            format!("{:?}", client.command(&["INFO", "commandstats"])).contains(&format_bytes(pings + 1))
        });
        client.publish("news", b"after the pong");
        assert_eq!(driver.hear(1), pairs(&[("news", b"after the pong")]));
    }
    assert_eq!((driver.status().reconnections, driver.status().last_error), (1, None));
}

/// How the debug form of an answer shows the line of so many PINGs.
fn format_bytes(pings: usize) -> String {
    let line = format!("cmdstat_ping:calls={pings},");
    let listed = format!("{:?}", line.as_bytes());
    listed.trim_matches(['[', ']']).to_owned()
}

#[test]
fn a_pause_reads_nothing_and_does_not_kill_the_link() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until_healthy(1);
    let mut client = server.client();
    for pinged in [false, true] {
        if pinged {
            driver.skip_ms(60_000);
        }
        driver.paused = true;
        driver.turn(false, false);
        client.publish("news", b"waits");
        for _ in 0..10 {
            driver.skip_ms(60_000);
            assert_eq!((driver.wants.read, driver.wants.wake_at_us), (false, None));
            driver.step();
        }
        assert_eq!((driver.heard.len(), driver.status().link), (0, LinkState::Healthy));
        driver.paused = false;
        assert_eq!(driver.hear(1), pairs(&[("news", b"waits")]));
    }
    assert_eq!((driver.status().reconnections, driver.status().last_error), (1, None));
}

#[test]
fn a_pause_before_the_link_is_up_delays_it_only() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.paused = true;
    for _ in 0..20 {
        driver.step();
    }
    driver.skip_ms(10 * 60_000);
    driver.paused = false;
    driver.until_healthy(1);
    assert_eq!(driver.status().last_error, None);
}

#[test]
fn a_connection_lost_during_a_pause_is_noticed() {
    let mut server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until_healthy(1);
    driver.paused = true;
    driver.step();
    server.kill();
    driver.paused = false;
    driver.until("the loss is noticed", |d| d.status().last_error.is_some());
    driver.paused = true;
    server.restart();
    driver.until("it waits to be read", |d| d.wants.socket.is_some() && !d.wants.write);
    driver.paused = false;
    driver.until_healthy(2);
}

#[test]
fn a_message_over_the_bound_makes_the_link_anew() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until_healthy(1);
    server.client().publish("news", &vec![b'x'; protocol::limits::REDIS_REPLY_BYTES_MAX + 1]);
    driver.until_healthy(2);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Protocol));
    assert_eq!(driver.status().messages, 0);
}

#[test]
fn a_stopped_feed_closes_its_socket_and_wants_nothing() {
    let server = RedisServer::start();
    let mut driver = Driver::new(config(&server.url(), &["news"]));
    driver.until_healthy(1);
    driver.feed.stop();
    driver.turn(true, true);
    assert_eq!(driver.wants, storage::redis::feed::FeedWants::default());
    assert_eq!(driver.status().link, LinkState::Reconnecting);
    let mut client = server.client();
    let listed = |client: &mut common::Client| format!("{:?}", client.command(&["PUBSUB", "NUMSUB", "news"]));
    while !listed(&mut client).contains("Integer(0)") {}
}

/// Where the log goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_has_a_line_for_each_end_with_the_cause_and_the_delay_and_without_the_password() {
    let server = RedisServer::start();
    server.client().must(&["ACL", "SETUSER", "ara", "on", ">right", "&*", "+@all"]);
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let url = format!("redis://ara:hunter2@127.0.0.1:{}", server.port);
        let mut driver = Driver::new(config(&url, &["news"]));
        driver.until("it was refused", |d| d.status().attempts > 2);
        driver.feed.stop();
        let url = format!("redis://ara:right@127.0.0.1:{}", server.port);
        let mut driver = Driver::new(config(&url, &["news"]));
        driver.until_healthy(1);
        server.client().must(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        driver.until_healthy(2);
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 5, "two refusals, up, down, up:\n{log}");
    for refused in &lines[..2] {
        assert!(refused.contains("WARN") && refused.contains("Redis subscription is down"), "{refused}");
        assert!(refused.contains("check the user and password in REDIS_URL: WRONGPASS"), "{refused}");
        assert!(refused.contains("retry_in_ms="), "{refused}");
    }
    assert!(lines[3].contains("the server closed the connection"), "{log}");
    assert!(lines[4].contains("INFO") && lines[4].contains("Redis subscription is up"), "{log}");
    assert!(!log.contains("hunter2") && !log.contains("right"), "{log}");
}
