//! The link against servers that no Redis is: a listener that a test speaks for, in time that a test lets pass.
mod common;

use common::{Driver, PATIENCE, config};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use storage::redis::feed::{Feed, FeedError};
use storage::redis::status::{FeedErrorKind, FeedStatus, LinkState};

/// A server that says what the test wants.
struct Impostor {
    listener: TcpListener,
}

impl Impostor {
    fn new() -> Impostor {
        Impostor { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.listener.local_addr().unwrap())
    }

    /// Takes the feed's connection and its first words.
    fn accept(&self, driver: &mut Driver) -> TcpStream {
        // The feed's connect is over when the kernel took it, before it is accepted here.
        driver.until("its words are on their way", |d| d.wants.socket.is_some() && !d.wants.write);
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = [0; 256];
        let bytes = stream.read(&mut said).unwrap();
        assert!(said[..bytes].ends_with(b"*2\r\n$9\r\nSUBSCRIBE\r\n$4\r\nnews\r\n"));
        stream
    }

    /// The same, confirmed.
    fn welcome(&self, driver: &mut Driver) -> TcpStream {
        let mut stream = self.accept(driver);
        stream.write_all(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").unwrap();
        let times = driver.status().reconnections + 1;
        driver.until_healthy(times);
        stream
    }
}

fn read_ping(stream: &mut TcpStream) {
    let mut said = [0; 14];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"*1\r\n$4\r\nPING\r\n");
}

const PONG: &[u8] = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n";

#[test]
fn settings_that_cannot_work_are_refused_with_the_setting_named() {
    let refused = |url: &str, channels: &[&str]| {
        let result = Feed::new(config(url, channels), FeedStatus::new().into(), 7, Box::new(|| ()));
        result.err().map(|error| (error.clone(), error.to_string()))
    };
    let (error, text) = refused("rediss://h?ssl_ca=/no/such.pem", &["a"]).unwrap();
    assert!(matches!(error, FeedError::Tls(_)));
    assert!(text.contains("REDIS_URL") && text.contains("/no/such.pem"), "{text}");
    let (error, text) = refused("redis://h", &[]).unwrap();
    assert_eq!(error, FeedError::NoChannels);
    assert!(text.contains("REDIS_CHANNELS"), "{text}");
    let (error, text) = refused("redis://h", &["a"; 1_025]).unwrap();
    assert_eq!(error, FeedError::TooManyChannels { count: 1_025 });
    assert!(text.contains("1025") && text.contains("1024"), "{text}");
    assert!(refused("redis://h", &["a"; 1_024]).is_none());
}

#[test]
fn silence_brings_a_ping_and_a_ping_without_an_answer_ends_the_link() {
    let impostor = Impostor::new();
    let mut driver = Driver::new(config(&impostor.url(), &["news"]));
    let mut stream = impostor.welcome(&mut driver);
    for _ in 0..3 {
        driver.skip_ms(60_000);
        read_ping(&mut stream);
        driver.skip_ms(30_000);
        assert_eq!(driver.status().link, LinkState::Healthy, "half of the answer's time is left");
        stream.write_all(PONG).unwrap();
        driver.until("the pong came", |d| d.wants.wake_at_us > Some(d.now().mono_us + 40_000_000));
    }
    driver.skip_ms(60_000);
    read_ping(&mut stream);
    driver.skip_ms(60_000);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Silent));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "the feed closed it");
}

#[test]
fn an_owner_that_stood_still_for_long_asks_before_it_judges() {
    let impostor = Impostor::new();
    let mut driver = Driver::new(config(&impostor.url(), &["news"]));
    let mut stream = impostor.welcome(&mut driver);
    driver.skip_ms(3_600_000);
    assert_eq!(driver.status().link, LinkState::Healthy);
    read_ping(&mut stream);
    stream.write_all(PONG).unwrap();
    // The pong lies there while the owner stands still again: it is read before the verdict.
    while !driver.wait().0 {}
    driver.skip_ms(3_600_000);
    assert_eq!((driver.status().link, driver.status().last_error), (LinkState::Healthy, None));
}

#[test]
fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
    let impostor = Impostor::new();
    let mut driver = Driver::new(config(&impostor.url(), &["news"]));
    let mut stream = impostor.accept(&mut driver);
    driver.skip_ms(59_000);
    assert_eq!(driver.status().last_error, None);
    driver.skip_ms(2_000);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Deadline));
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    impostor.welcome(&mut driver);
}

#[test]
fn whoever_does_not_speak_redis_is_left() {
    let rows: [(&[u8], FeedErrorKind); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", FeedErrorKind::Protocol),
        (b"+OK\r\n", FeedErrorKind::Protocol),
        (b"-ERR max number of clients reached\r\n", FeedErrorKind::Refused),
        (b"", FeedErrorKind::Closed),
    ];
    for (said, kind) in rows {
        let impostor = Impostor::new();
        let mut driver = Driver::new(config(&impostor.url(), &["news"]));
        let mut stream = impostor.accept(&mut driver);
        stream.write_all(said).unwrap();
        drop(stream);
        driver.until("it is left", |d| d.status().last_error.is_some());
        assert_eq!(driver.status().last_error, Some(kind), "{said:?}");
        impostor.welcome(&mut driver);
    }
}

#[test]
fn a_reply_in_a_thousand_pieces_is_one_message() {
    let impostor = Impostor::new();
    let mut driver = Driver::new(config(&impostor.url(), &["news"]));
    let mut stream = impostor.welcome(&mut driver);
    stream.set_nodelay(true).unwrap();
    for byte in b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n" {
        stream.write_all(&[*byte]).unwrap();
        driver.step();
    }
    assert_eq!(driver.hear(1), common::pairs(&[("news", b"hello")]));
}

#[test]
fn a_turn_reads_one_buffer_and_says_that_there_is_more() {
    let impostor = Impostor::new();
    let mut driver = Driver::new(config(&impostor.url(), &["news"]));
    let mut stream = impostor.welcome(&mut driver);
    let payload = "x".repeat(1_000);
    let message = format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1000\r\n{payload}\r\n");
    let flood = message.repeat(1_000);
    let writer = std::thread::spawn(move || stream.write_all(flood.as_bytes()).map(|()| stream));
    let mut heard = 0;
    driver.until("all came", |d| d.status().messages == 1_000 || d.heard.len() > 1_000);
    for (channel, text) in driver.hear(1_000) {
        assert_eq!((channel.as_str(), text.as_slice()), ("news", payload.as_bytes()));
        heard += 1;
    }
    assert_eq!(heard, 1_000);
    let mut stream = writer.join().unwrap().unwrap();
    // One turn takes what fits its buffer and no more.
    let burst = message.repeat(100);
    stream.write_all(burst.as_bytes()).unwrap();
    driver.until("something came", |d| !d.heard.is_empty());
    let most = protocol::limits::READ_BYTES_MAX / message.len() + 1;
    assert!(driver.heard.len() <= most, "{} messages in a turn", driver.heard.len());
    driver.hear(100);
}

#[test]
fn a_name_that_is_none_is_looked_up_again_each_time() {
    let mut driver = Driver::new(config("redis://no-such-host.invalid", &["news"]));
    driver.until("it was tried twice", |d| d.status().attempts > 2);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Resolve));
    driver.feed.stop();
}
