//! What the tests of the links share: servers of their own, a client to publish with, and loops that turn a link.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod cluster;
pub(crate) mod postgres;
pub(crate) mod store;

use protocol::clock::Now;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::backoff::BackoffConfig;
use storage::breaker::BreakerConfig;
use storage::redis::feed::{Feed, FeedConfig, FeedTiming, FeedWants, Heard};
use storage::redis::status::{FeedSnapshot, FeedStatus};
use storage::redis::url::RedisUrl;

/// How long anything may take before a test gives up: generous, never measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A redis-server on a loopback port of its own, killed when it goes out of scope.
pub(crate) struct RedisServer {
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) directory: PathBuf,
    /// Settings that it is started with beside those of every test.
    pub(crate) settings: Vec<String>,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> RedisServer {
        let mut server = RedisServer::absent();
        for _ in 0..20 {
            if server.spawn() {
                return server;
            }
            // Somebody took the port in between.
            server.port = free_port();
        }
        panic!("redis-server did not start on any of 20 ports");
    }

    /// A port where a server may be started later, and none yet.
    pub(crate) fn absent() -> RedisServer {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("ara-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        RedisServer { child: None, port, directory, settings: Vec::new() }
    }

    /// Starts it on its port, after [`RedisServer::kill`] or [`RedisServer::absent`].
    pub(crate) fn restart(&mut self) {
        for _ in 0..200 {
            if self.spawn() {
                return;
            }
        }
        panic!("redis-server did not start again on port {}", self.port);
    }

    fn spawn(&mut self) -> bool {
        let mut child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(&self.directory)
            .args(&self.settings)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server (7.0 or newer) in the PATH");
        let mut log = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut line = String::new();
        while log.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.contains("Ready to accept connections") {
                // Whoever listens to a log must listen on, or its writer stands still.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                self.child = Some(child);
                assert_eq!(self.client().command(&["PING"]), OwnedFrame::SimpleString(b"PONG".to_vec()));
                return true;
            }
            line.clear();
        }
        child.wait().expect("its end is reported");
        false
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("its end is reported");
        }
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.child.take().expect("it runs").wait().expect("its end is reported");
    }

    /// Holds it: connections stand, nothing is answered.
    pub(crate) fn hold(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = Pid::from_raw(child.id().try_into().expect("a pid is positive")).expect("a pid is not zero");
        kill_process(pid, signal).expect("it is ours");
    }

    /// A connection to command it and to publish with.
    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Client { stream, unread: Vec::new() }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A loopback port nobody listens on, below those that outgoing connections get: a feed that knocks at it while its
/// server is away must not meet itself.
pub(crate) fn free_port() -> u16 {
    let mut rng = fastrand::Rng::with_seed(u64::from(std::process::id()) ^ since_epoch_ns());
    for _ in 0..1_000 {
        let port = rng.u16(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from 20000 to 32000");
}

pub(crate) fn since_epoch_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    since.as_nanos() as u64
}

/// A plain client that waits for its answers.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn command<W: AsRef<[u8]>>(&mut self, words: &[W]) -> OwnedFrame {
        self.send(words);
        self.answer()
    }

    /// Sends without waiting; each is to be answered by [`Client::answer`].
    pub(crate) fn send<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&bytes).expect("the server takes it");
    }

    pub(crate) fn answer(&mut self) -> OwnedFrame {
        loop {
            if let Some((frame, bytes)) = decode(&self.unread).expect("the server speaks RESP2") {
                self.unread.drain(..bytes);
                return frame;
            }
            let mut chunk = [0; 4096];
            let bytes = self.stream.read(&mut chunk).expect("the server answers");
            assert_ne!(bytes, 0, "the server closed the connection");
            self.unread.extend_from_slice(&chunk[..bytes]);
        }
    }

    /// A command that must be taken.
    pub(crate) fn must<W: AsRef<[u8]>>(&mut self, words: &[W]) {
        let answer = self.command(words);
        assert!(!matches!(answer, OwnedFrame::Error(_)), "refused: {answer:?}");
    }

    /// Publishes and asserts that one subscriber got it.
    pub(crate) fn publish(&mut self, channel: &str, payload: &[u8]) {
        let receivers = self.command(&[b"PUBLISH", channel.as_bytes(), payload]);
        assert_eq!(receivers, OwnedFrame::Integer(1), "subscribers of {channel}");
    }
}

/// Turns one feed, as a shard would.
pub(crate) struct Driver {
    pub(crate) feed: Feed,
    pub(crate) wants: FeedWants,
    pub(crate) paused: bool,
    /// Channel and payload, in the order they came.
    pub(crate) heard: Vec<(String, Vec<u8>)>,
    status: Arc<FeedStatus>,
    bell: UnixStream,
    started: Instant,
    skipped_us: u64,
}

/// Settings for tests: short delays, a breaker that does not open by itself.
pub(crate) fn config(url: &str, channels: &[&str]) -> FeedConfig {
    FeedConfig {
        url: RedisUrl::parse(url).expect("a valid URL"),
        purpose: "a test",
        channels: channels.iter().map(|name| (*name).to_owned()).collect(),
        breaker: BreakerConfig { failure_threshold: u32::MAX, success_threshold: 2, reset_timeout_ms: 50 },
        backoff: BackoffConfig { initial_ms: 10, max_ms: 50 },
        timing: FeedTiming { connect_deadline_ms: 60_000, ping_interval_ms: 60_000 },
        located: None,
        sharded: false,
    }
}

impl Driver {
    pub(crate) fn new(config: FeedConfig) -> Driver {
        let (bell, ringer) = UnixStream::pair().expect("a pair of sockets");
        bell.set_nonblocking(true).expect("non-blocking");
        let status = Arc::new(FeedStatus::new());
        let wake = Box::new(move || (&ringer).write_all(b"!").expect("the driver lives"));
        let feed = Feed::new(config, Arc::clone(&status), 7, wake).expect("valid settings");
        let (wants, heard) = (FeedWants { again: true, ..FeedWants::default() }, Vec::new());
        Driver { feed, wants, paused: false, heard, status, bell, started: Instant::now(), skipped_us: 0 }
    }

    pub(crate) fn now(&self) -> Now {
        let mono_us = self.started.elapsed().as_micros() as u64 + self.skipped_us;
        Now { mono_us, unix_ns: since_epoch_ns() }
    }

    pub(crate) fn status(&self) -> FeedSnapshot {
        self.status.snapshot()
    }

    /// Lets time pass for the feed alone, and turns it.
    pub(crate) fn skip_ms(&mut self, ms: u64) {
        self.skipped_us += ms * 1_000;
        self.turn(false, false);
    }

    pub(crate) fn turn(&mut self, readable: bool, writable: bool) {
        let (now, heard) = (self.now(), &mut self.heard);
        self.wants = self.feed.turn(now, readable, writable, self.paused, &mut |event| {
            if let Heard::Message { channel, payload } = event {
                heard.push((String::from_utf8(channel.to_vec()).expect("our names are UTF-8"), payload.to_vec()));
            }
        });
    }

    /// Waits for what the feed wants, at most a little while, and turns it.
    pub(crate) fn step(&mut self) {
        let (readable, writable) = self.wait();
        self.turn(readable, writable);
    }

    /// Whether the socket is readable and writable, after a little while at most.
    pub(crate) fn wait(&mut self) -> (bool, bool) {
        const LITTLE_WHILE_US: u64 = 20_000;
        let now_us = self.now().mono_us;
        let wake_us =
            self.wants.wake_at_us.map_or(LITTLE_WHILE_US, |at| at.saturating_sub(now_us).min(LITTLE_WHILE_US));
        let wake_us = if self.wants.again { 0 } else { wake_us };
        let timeout = Timespec { tv_sec: 0, tv_nsec: (wake_us * 1_000) as i64 };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.wants.read);
        flags.set(PollFlags::OUT, self.wants.write);
        let bell = PollFd::new(&self.bell, PollFlags::IN);
        let socket = self.feed.socket().filter(|_| self.wants.socket.is_some());
        let mut fds = vec![bell];
        fds.extend(socket.map(|socket| PollFd::from_borrowed_fd(socket, flags)));
        poll(&mut fds, Some(&timeout)).expect("poll");
        let events = fds.get(1).map_or(PollFlags::empty(), |fd| fd.revents());
        drop(fds);
        let _ = (&self.bell).read(&mut [0; 16]);
        let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
        (broken || events.contains(PollFlags::IN), broken || events.contains(PollFlags::OUT))
    }

    /// Turns the feed until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&Driver) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {:?}, {:?}", self.status(), self.wants);
            self.step();
        }
    }

    /// Turns the feed until it was healthy so many times.
    pub(crate) fn until_healthy(&mut self, times: u64) {
        self.until("the link is healthy", |d| {
            d.status().reconnections >= times && d.status().link == storage::redis::status::LinkState::Healthy
        });
    }

    /// Turns the feed until it heard so many messages, and takes them.
    pub(crate) fn hear(&mut self, count: usize) -> Vec<(String, Vec<u8>)> {
        self.until("messages came", |d| d.heard.len() >= count);
        std::mem::take(&mut self.heard)
    }
}

/// Pairs as [`Driver::hear`] gives them.
pub(crate) fn pairs(rows: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    rows.iter().map(|(channel, payload)| ((*channel).to_owned(), payload.to_vec())).collect()
}
