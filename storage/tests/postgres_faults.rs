//! Links to servers that no PostgreSQL is: a listener that a test speaks for, in time that a test lets pass.
mod common;

use common::PATIENCE;
use common::postgres::{LinkDriver, link_config};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use storage::breaker::{BreakerConfig, BreakerState};
use storage::link::state::LinkState;
use storage::postgres::command::{Command, Statement};
use storage::postgres::reply::{Full, Ticket};
use storage::postgres::status::LinkErrorKind;

const LONG_MS: u32 = 600_000;
const PUT: Statement = Statement { name: "put", sql: "INSERT INTO t VALUES ($1)" };

fn put(text: &str) -> Command {
    Command::new(&PUT, LONG_MS).text(text)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn fatal(code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0").as_bytes())
}

/// Prepared, bound, one row changed, ready.
fn done() -> Vec<u8> {
    [message(b'2', b""), message(b'C', b"INSERT 0 1\0"), message(b'Z', b"I")].concat()
}

/// A server that says what the test wants.
struct Impostor {
    listener: TcpListener,
}

impl Impostor {
    fn new() -> Impostor {
        Impostor { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn url(&self, more: &str) -> String {
        format!("postgres://ara:hunter2@{}/d{more}", self.listener.local_addr().unwrap())
    }

    fn driver(&self) -> LinkDriver {
        LinkDriver::to(&self.url("?sslmode=disable"))
    }

    /// Takes the link's connection and its first words.
    fn accept(&self, driver: &mut LinkDriver) -> TcpStream {
        // The link's connect is over when the kernel took it, before it is accepted here.
        driver.until("its words are on their way", |d| d.wants.socket.is_some() && !d.wants.write);
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut rest).unwrap();
        stream
    }

    /// The same, let in.
    fn welcome(&self, driver: &mut LinkDriver) -> TcpStream {
        let mut stream = self.accept(driver);
        stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).unwrap();
        let times = driver.status().connections + 1;
        driver.until_healthy(times);
        stream
    }
}

#[test]
fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
    for more in ["?sslmode=disable", "?sslmode=require"] {
        let impostor = Impostor::new();
        let mut driver = LinkDriver::to(&impostor.url(more));
        driver.submit(1, put("a"));
        let mut stream = impostor.accept(&mut driver);
        driver.skip_ms(59_000);
        assert_eq!(driver.status().last_error, None);
        driver.skip_ms(2_000);
        assert_eq!(driver.status().last_error, Some(LinkErrorKind::Deadline));
        assert_eq!(driver.heard.pop_front(), Some((1, "not sent deadline".to_owned())));
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn whoever_does_not_speak_postgresql_is_left() {
    let rows: [(&str, &[u8], LinkErrorKind); 9] = [
        ("?sslmode=disable", b"HTTP/1.1 400 Bad Request\r\n\r\n", LinkErrorKind::Protocol),
        ("?sslmode=disable", b"-ERR unknown command\r\n", LinkErrorKind::Protocol),
        ("?sslmode=disable", &message(b'Z', b"T"), LinkErrorKind::Protocol),
        ("?sslmode=disable", &message(b'D', b"\0\0"), LinkErrorKind::Protocol),
        ("?sslmode=disable", b"", LinkErrorKind::Closed),
        ("", b"X", LinkErrorKind::Protocol),
        ("", b"E\0\0\0\x10", LinkErrorKind::Protocol),
        ("?sslmode=require", b"N", LinkErrorKind::Tls),
        // Words in plain behind the agreement on TLS are no TLS.
        ("?sslmode=require", &[b"S", &message(b'R', &[0; 4])[..], &message(b'Z', b"I")].concat(), LinkErrorKind::Tls),
    ];
    for (more, said, kind) in rows {
        let impostor = Impostor::new();
        let mut driver = LinkDriver::to(&impostor.url(more));
        let mut stream = impostor.accept(&mut driver);
        stream.write_all(said).unwrap();
        let stream = Some(stream).filter(|_| !said.is_empty());
        driver.until("it is left", |d| d.status().last_error.is_some());
        assert_eq!(driver.status().last_error, Some(kind), "{more} {}", said.escape_ascii());
        drop(stream);
        impostor.accept(&mut driver);
    }
}

#[test]
fn a_server_that_refuses_for_now_is_no_trouble_of_the_connection() {
    let rows = [("53300", LinkErrorKind::Refused), ("57P03", LinkErrorKind::Refused), ("57P01", LinkErrorKind::Closed)];
    for (code, kind) in rows {
        let impostor = Impostor::new();
        let mut config = link_config(&impostor.url("?sslmode=disable"));
        config.breaker = BreakerConfig { failure_threshold: 1, ..config.breaker };
        let mut driver = LinkDriver::new(config);
        let mut stream = impostor.accept(&mut driver);
        stream.write_all(&fatal(code, "not now")).unwrap();
        drop(stream);
        driver.until("it is refused", |d| d.status().last_error.is_some());
        assert_eq!(driver.status().last_error, Some(kind), "{code}");
        let opened = driver.status().breaker == BreakerState::Open;
        assert_eq!(opened, kind == LinkErrorKind::Closed, "{code}");
    }
}

#[test]
fn what_was_not_sent_is_told_from_what_may_have_happened() {
    let impostor = Impostor::new();
    let mut driver = impostor.driver();
    let stream = impostor.welcome(&mut driver);
    // Far more than the buffers of two sockets hold, and nobody reads.
    let long = "x".repeat(1_000_000);
    for number in 0..25 {
        driver.submit(number, put(&long));
    }
    driver.until("the socket is full", |d| d.wants.write && !d.wants.again);
    for _ in 0..10 {
        driver.step();
    }
    drop(stream);
    let heard = driver.hear(25);
    let unknown = heard.iter().filter(|(_, words)| words == "unknown closed").count();
    assert!((1..24).contains(&unknown), "{unknown}");
    let expected =
        (0..25).map(|n| (n, if n < unknown as u64 { "unknown closed" } else { "not sent closed" }.to_owned()));
    assert_eq!(heard, expected.collect::<Vec<_>>());
}

#[test]
fn answers_that_came_before_the_end_are_answers() {
    let impostor = Impostor::new();
    let mut driver = impostor.driver();
    let mut stream = impostor.welcome(&mut driver);
    for number in 0..5 {
        driver.submit(number, put("a"));
    }
    driver.until("they are on their way", |d| !d.wants.again && !d.wants.write);
    let half = [message(b'2', b""), message(b'C', b"INSERT 0 1\0")].concat();
    let said = [message(b'1', b""), done(), done(), half, fatal("57P01", "terminating")].concat();
    stream.write_all(&said).unwrap();
    drop(stream);
    let heard: Vec<_> = driver.hear(5).into_iter().map(|(_, words)| words).collect();
    // The third one's row was changed, but nobody said that it was committed.
    assert_eq!(heard, ["done 1", "done 1", "unknown closed", "unknown closed", "unknown closed"]);
}

#[test]
fn an_answer_in_a_hundred_pieces_is_one_answer() {
    let impostor = Impostor::new();
    let mut driver = impostor.driver();
    let mut stream = impostor.welcome(&mut driver);
    driver.submit(1, put("a"));
    driver.step();
    for byte in [message(b'1', b""), done()].concat() {
        stream.write_all(&[byte]).unwrap();
        driver.step();
    }
    assert_eq!(driver.hear(1), [(1, "done 1".to_owned())]);
}

#[test]
fn a_queue_that_nobody_empties_is_bounded() {
    let impostor = Impostor::new();
    let mut driver = impostor.driver();
    let mut taken = 0;
    while driver.link.submit(Ticket { number: taken, order: None }, put("a")) != Err(Full) {
        taken += 1;
    }
    assert_eq!(taken, storage::postgres::queue::QUEUE_COMMANDS_MAX as u64);
    assert_eq!(driver.status().outstanding, taken);
    driver.stop();
    assert_eq!((driver.heard.len() as u64, driver.status().outstanding), (taken, 0));
}

#[test]
fn silence_brings_a_question_and_no_answer_ends_the_link() {
    let impostor = Impostor::new();
    let mut driver = impostor.driver();
    let mut stream = impostor.welcome(&mut driver);
    let read_question = |stream: &mut TcpStream| {
        let mut said = [0; 5];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(said, *b"S\0\0\0\x04");
    };
    for _ in 0..3 {
        driver.skip_ms(60_000);
        read_question(&mut stream);
        driver.skip_ms(30_000);
        assert_eq!(driver.status().link, LinkState::Healthy, "half of the answer's time is left");
        stream.write_all(&message(b'Z', b"I")).unwrap();
        while !driver.wait().0 {}
        driver.turn(true, false);
    }
    // An hour in which nobody turned it: it asks before it judges.
    driver.skip_ms(3_600_000);
    read_question(&mut stream);
    assert_eq!(driver.status().link, LinkState::Healthy);
    driver.skip_ms(60_000);
    assert_eq!(driver.status().last_error, Some(LinkErrorKind::Silent));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the link closed it");
}

#[test]
fn a_name_that_is_none_is_looked_up_again_each_time() {
    let mut driver = LinkDriver::to("postgres://no-such-host.invalid/d");
    driver.until("it was tried twice", |d| d.status().attempts > 2);
    assert_eq!(driver.status().last_error, Some(LinkErrorKind::Resolve));
    driver.stop();
}

/// A place for log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_has_a_line_for_each_end_with_the_cause_and_without_the_password() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let impostor = Impostor::new();
    let mut driver = impostor.driver();
    let mut stream = impostor.accept(&mut driver);
    stream.write_all(&fatal("28P01", "password authentication failed for user \"ara\"")).unwrap();
    driver.until("it is refused", |d| d.status().ends == 1);
    let stream = impostor.welcome(&mut driver);
    drop(stream);
    driver.until("it ended", |d| d.status().ends == 2);
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let mut lines = log.lines();
    for words in [
        [
            "PostgreSQL link is down",
            "check the user and password in DATABASE_URL: password authentication failed",
            "auth",
        ],
        ["PostgreSQL link is up", "ara:***@127.0.0.1", "encrypted=false"],
        ["PostgreSQL link is down", "the server closed the connection", "closed"],
    ] {
        let line = lines.next().expect("a line");
        assert!(words.iter().all(|words| line.contains(words)), "{line}");
    }
    assert!(lines.next().is_none() && !log.contains("hunter2"), "{log}");
}
