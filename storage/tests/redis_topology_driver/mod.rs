//! Servers that a topology is made of, and a loop that turns one finder, as a shard would.
#![allow(dead_code, reason = "each test binary uses its part")]

use crate::common::{PATIENCE, free_port, since_epoch_ns};
use protocol::clock::Now;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;
use storage::backoff::BackoffConfig;
use storage::link::wants::Wants;
use storage::redis::topology::finder::{Finder, FinderConfig, FinderTiming, LINES};
use storage::redis::topology::line::Ready;
use storage::redis::topology::node::Node;
use storage::redis::topology::search::Where;
use storage::redis::topology::slots::SlotTable;
use storage::redis::topology::url::RedisAddress;

/// What is started on a port of its own.
pub(crate) enum Kind {
    /// With lines of a configuration.
    Redis(Vec<String>),
    /// With the bus on a port of its own.
    ClusterNode,
    /// The same, encrypted, with the certificate `server.crt` of a directory.
    EncryptedNode(PathBuf),
    /// With lines of a configuration.
    Sentinel(Vec<String>),
}

/// A redis-server in one of its kinds, killed when it goes out of scope.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    /// Of a node of a cluster.
    pub(crate) bus_port: u16,
    directory: PathBuf,
}

impl Server {
    /// Starts one and waits until it is there.
    pub(crate) fn start(kind: &Kind) -> Server {
        for _ in 0..20 {
            // Somebody may take the port in between.
            if let Some(server) = Server::spawn(kind) {
                return server;
            }
        }
        panic!("redis-server did not start on any of 20 ports");
    }

    fn spawn(kind: &Kind) -> Option<Server> {
        let (port, bus_port) = (free_port(), free_port());
        let directory = std::env::temp_dir().join(format!("ara-topology-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        let port_line = match kind {
            Kind::EncryptedNode(_) => format!("port 0\ntls-port {port}\ntls-auth-clients no\ntls-cluster yes"),
            Kind::Redis(_) | Kind::ClusterNode | Kind::Sentinel(_) => format!("port {port}"),
        };
        let mut lines = vec![port_line, "bind 127.0.0.1".to_owned(), format!("dir {}", directory.display())];
        let quiet = ["save \"\"", "appendonly no", "repl-diskless-sync-delay 0"].map(str::to_owned);
        let mode = match kind {
            Kind::Redis(more) => {
                lines.extend(quiet);
                lines.extend(more.iter().cloned());
                None
            }
            Kind::ClusterNode | Kind::EncryptedNode(_) => {
                lines.extend(quiet);
                let of_cluster =
                    ["cluster-enabled yes", "cluster-node-timeout 500", "cluster-require-full-coverage no"];
                lines.extend(of_cluster.map(str::to_owned));
                lines.push("cluster-replica-validity-factor 0".to_owned());
                lines.push(format!("cluster-port {bus_port}"));
                if let Kind::EncryptedNode(folder) = kind {
                    let file = |name: &str| folder.join(name).display().to_string();
                    lines.push(format!("tls-cert-file {}", file("server.crt")));
                    lines.push(format!("tls-key-file {}", file("server.key")));
                    lines.push(format!("tls-ca-cert-file {}", file("ca.pem")));
                }
                None
            }
            Kind::Sentinel(more) => {
                lines.extend(more.iter().cloned());
                Some("--sentinel")
            }
        };
        let file = directory.join("server.conf");
        std::fs::write(&file, lines.join("\n") + "\n").expect("its configuration is written");
        let mut child = Command::new("redis-server")
            .arg(&file)
            .args(mode)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server (7.0 or newer) in the PATH");
        let mut log = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut line = String::new();
        while log.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.contains("Ready to accept connections") || line.contains("Sentinel ID is") {
                // Whoever listens to a log must listen on, or its writer stands still.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Some(Server { child, port, bus_port, directory });
            }
            line.clear();
        }
        child.wait().expect("its end is reported");
        let _ = std::fs::remove_dir_all(&directory);
        None
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("its end is reported");
    }

    pub(crate) fn node(&self) -> Node {
        Node { host: "127.0.0.1".to_owned(), port: self.port }
    }

    /// Asks it on a connection that it knows already as this user, or none.
    pub(crate) fn ask(&self, password: Option<&str>, words: &[&str]) -> OwnedFrame {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        if let Some(password) = password {
            let answer = exchange(&mut stream, &["AUTH", password]);
            assert_eq!(answer, OwnedFrame::SimpleString(b"OK".to_vec()));
        }
        exchange(&mut stream, words)
    }

    /// A command that must be taken.
    pub(crate) fn must(&self, words: &[&str]) {
        let answer = self.ask(None, words);
        assert!(!matches!(answer, OwnedFrame::Error(_)), "{words:?} refused: {answer:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn exchange(stream: &mut TcpStream, words: &[&str]) -> OwnedFrame {
    let mut bytes = format!("*{}\r\n", words.len());
    for word in words {
        bytes += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(bytes.as_bytes()).expect("the server takes it");
    let mut unread = Vec::new();
    loop {
        if let Some((frame, _)) = decode(&unread).expect("the server speaks RESP2") {
            return frame;
        }
        let mut chunk = [0; 4096];
        let bytes = stream.read(&mut chunk).expect("the server answers");
        assert_ne!(bytes, 0, "the server closed the connection");
        unread.extend_from_slice(&chunk[..bytes]);
    }
}

/// The texts of a reply, however deep.
pub(crate) fn texts(frame: &OwnedFrame) -> Vec<String> {
    match frame {
        OwnedFrame::Array(items) => items.iter().flat_map(texts).collect(),
        OwnedFrame::BulkString(text) | OwnedFrame::SimpleString(text) => {
            vec![String::from_utf8_lossy(text).into_owned()]
        }
        OwnedFrame::Integer(number) => vec![number.to_string()],
        OwnedFrame::Error(text) => vec![text.to_string()],
        OwnedFrame::Null => vec!["nil".to_owned()],
    }
}

/// Settings for tests: short delays; only what a test shortens is short of patience.
pub(crate) fn config(url: &str) -> FinderConfig {
    FinderConfig {
        backoff: BackoffConfig { initial_ms: 10, max_ms: 100 },
        timing: FinderTiming {
            node_deadline_ms: 120_000,
            refresh_ms: 240_000,
            round_gap_ms: 10,
            ping_interval_ms: 240_000,
        },
        ..FinderConfig::new(RedisAddress::parse(url).expect("a valid address"))
    }
}

pub(crate) struct FinderDriver {
    pub(crate) finder: Finder,
    pub(crate) wants: [Wants; LINES],
    bell: UnixStream,
    started: Instant,
    skipped_us: u64,
}

impl FinderDriver {
    pub(crate) fn new(config: FinderConfig) -> FinderDriver {
        FinderDriver::seeded(config, 7)
    }

    /// One whose first question goes to this server: the order of those that are configured is drawn.
    pub(crate) fn that_asks_first(config: &FinderConfig, host: &str, port: u16) -> FinderDriver {
        let first = |seed: u64| {
            let finder = Finder::new(config.clone(), seed, Arc::new(|| ())).expect("valid settings");
            finder.servers()[0] == Node { host: host.to_owned(), port }
        };
        let seed = (0..1_000).find(|seed| first(*seed)).expect("each comes first sometimes");
        FinderDriver::seeded(config.clone(), seed)
    }

    fn seeded(config: FinderConfig, seed: u64) -> FinderDriver {
        let (bell, ringer) = UnixStream::pair().expect("a pair of sockets");
        bell.set_nonblocking(true).expect("non-blocking");
        let wake = Arc::new(move || (&ringer).write_all(b"!").unwrap_or_default());
        let finder = Finder::new(config, seed, wake).expect("valid settings");
        let mut driver =
            FinderDriver { finder, wants: Default::default(), bell, started: Instant::now(), skipped_us: 0 };
        driver.turn([Ready::default(); LINES]);
        driver
    }

    fn now(&self) -> Now {
        let mono_us = self.started.elapsed().as_micros() as u64 + self.skipped_us;
        Now { mono_us, unix_ns: since_epoch_ns() }
    }

    /// Lets time pass for the finder alone, and turns it.
    pub(crate) fn skip_ms(&mut self, ms: u64) {
        self.skipped_us += ms * 1_000;
        self.turn([Ready::default(); LINES]);
    }

    pub(crate) fn turn(&mut self, ready: [Ready; LINES]) {
        self.wants = self.finder.turn(self.now(), ready);
    }

    /// Waits for what the finder wants, at most a little while, and turns it.
    pub(crate) fn step(&mut self) {
        const LITTLE_WHILE_US: u64 = 20_000;
        let now_us = self.now().mono_us;
        let mut wait_us = LITTLE_WHILE_US;
        for wants in &self.wants {
            let until_us = if wants.again { 0 } else { wants.wake_at_us.unwrap_or(u64::MAX) };
            wait_us = wait_us.min(until_us.saturating_sub(now_us));
        }
        let mut fds = vec![PollFd::new(&self.bell, PollFlags::IN)];
        let mut lines = Vec::new();
        for (line, wants) in self.wants.iter().enumerate() {
            if let Some(socket) = self.finder.socket(line).filter(|_| wants.socket.is_some()) {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, wants.read);
                flags.set(PollFlags::OUT, wants.write);
                fds.push(PollFd::from_borrowed_fd(socket, flags));
                lines.push(line);
            }
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: (wait_us * 1_000) as i64 };
        poll(&mut fds, Some(&timeout)).expect("poll");
        let mut ready = [Ready::default(); LINES];
        for (line, fd) in lines.into_iter().zip(&fds[1..]) {
            let events = fd.revents();
            let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
            ready[line] = Ready {
                readable: broken || events.contains(PollFlags::IN),
                writable: broken || events.contains(PollFlags::OUT),
            };
        }
        drop(fds);
        let _ = (&self.bell).read(&mut [0; 16]);
        self.turn(ready);
    }

    /// Turns the finder until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut FinderDriver) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            let (current, miss) = (self.finder.current(), self.finder.last_miss());
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {current:?}, {miss:?}, {:?}", self.wants);
            self.step();
        }
    }

    pub(crate) fn until_master(&mut self, node: &Node) {
        self.until(
            &format!("{node} is the master"),
            |driver| matches!(driver.finder.current(), Some(Where::Master(master)) if master == node),
        );
    }

    pub(crate) fn table(&self) -> Option<&SlotTable> {
        match self.finder.current() {
            Some(Where::Slots(table)) => Some(table),
            _ => None,
        }
    }
}

/// One master, one replica, three sentinels, with passwords of their own.
pub(crate) struct Guarded {
    pub(crate) servers: [Server; 2],
    pub(crate) sentinels: Vec<Server>,
}

const SENTINEL_PASSWORD: &str = "watch-word";

impl Guarded {
    pub(crate) fn start() -> Guarded {
        let own = || ["requirepass pass-word", "masterauth pass-word"].map(str::to_owned).to_vec();
        let master = Server::start(&Kind::Redis(own()));
        let mut follows = own();
        follows.push(format!("replicaof 127.0.0.1 {}", master.port));
        let replica = Server::start(&Kind::Redis(follows));
        let lines = vec![
            format!("sentinel monitor our-master 127.0.0.1 {} 2", master.port),
            "sentinel down-after-milliseconds our-master 500".to_owned(),
            "sentinel failover-timeout our-master 3000".to_owned(),
            "sentinel auth-pass our-master pass-word".to_owned(),
            format!("requirepass {SENTINEL_PASSWORD}"),
            format!("sentinel sentinel-pass {SENTINEL_PASSWORD}"),
        ];
        let sentinels = (0..3).map(|_| Server::start(&Kind::Sentinel(lines.clone()))).collect();
        Guarded { servers: [master, replica], sentinels }
    }

    /// Names only the sentinels that are given.
    pub(crate) fn url(&self, sentinels: &[usize]) -> String {
        let hosts: Vec<String> = sentinels.iter().map(|at| self.sentinels[*at].node().to_string()).collect();
        let hosts = hosts.join(",");
        format!("redis+sentinel://:pass-word@{hosts}/our-master/1?sentinel_password={SENTINEL_PASSWORD}")
    }

    /// Whether every sentinel knows of the replica and of the other two, so that they can act together.
    pub(crate) fn is_complete(&self) -> bool {
        self.sentinels.iter().all(|sentinel| {
            let told = texts(&sentinel.ask(Some(SENTINEL_PASSWORD), &["SENTINEL", "MASTER", "our-master"]));
            let value = |name: &str| told.iter().skip_while(|word| *word != name).nth(1).cloned();
            value("num-slaves").as_deref() == Some("1") && value("num-other-sentinels").as_deref() == Some("2")
        })
    }
}
