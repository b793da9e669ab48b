//! A PostgreSQL server of a test's own, and a loop that turns a link to it.
mod installed;

use super::{PATIENCE, free_port, since_epoch_ns};
use installed::{MISSING, READY, children_of};
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Instant;
use storage::backend::Backend;
use storage::backoff::BackoffConfig;
use storage::breaker::BreakerConfig;
use storage::figures::StoreFigures;
use storage::link::state::LinkState;
use storage::link::wants::Wants;
use storage::postgres::command::Command;
use storage::postgres::link::{Link, LinkConfig, LinkTiming};
use storage::postgres::reply::{Cause, Reply, Ticket};
use storage::postgres::status::{LinkSnapshot, LinkStatus};
use storage::postgres::store::{PostgresAcks, PostgresQueue, PostgresStore, PostgresStoreConfig};
use storage::postgres::url::PostgresUrl;

/// Everybody may come in without proof.
pub(crate) const TRUST: &str = "host all all 127.0.0.1/32 trust\n";

/// A server on a loopback port of its own, ended when it goes out of scope.
pub(crate) struct PostgresServer {
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) directory: PathBuf,
    settings: Vec<String>,
}

impl PostgresServer {
    /// Starts one that lets everybody in.
    pub(crate) fn start() -> PostgresServer {
        PostgresServer::start_with(&[])
    }

    /// The same with settings of its own, each `name=value`.
    pub(crate) fn start_with(settings: &[&str]) -> PostgresServer {
        let mut server = PostgresServer::prepare();
        server.settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        server.restart();
        server
    }

    /// A cluster where a server may be started later, and none yet.
    pub(crate) fn prepare() -> PostgresServer {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("ara-postgres-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the server");
        let server = PostgresServer { child: None, port, directory, settings: Vec::new() };
        let made = installed::initdb(&server.directory).output().unwrap_or_else(|error| panic!("{MISSING}: {error}"));
        assert!(made.status.success(), "{MISSING}: initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.write("data/pg_hba.conf", TRUST);
        server
    }

    /// Writes a file the server may read and nobody else, below [`PostgresServer::directory`].
    pub(crate) fn write(&self, name: &str, content: &str) {
        let file = self.directory.join(name);
        std::fs::write(&file, content).expect("a file for the server");
        self.give(&file);
    }

    /// Gives a file to the server.
    pub(crate) fn give(&self, file: &Path) {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).expect("it is ours");
        installed::give(file);
    }

    /// Starts it on its port, after [`PostgresServer::kill`] or [`PostgresServer::prepare`].
    pub(crate) fn restart(&mut self) {
        let begun = Instant::now();
        let mut said = String::new();
        while begun.elapsed() < PATIENCE {
            match self.spawn() {
                Ok(()) => return,
                Err(words) => said = words,
            }
        }
        panic!("PostgreSQL did not start on port {}: {said}", self.port);
    }

    fn spawn(&mut self) -> Result<(), String> {
        let mut process = installed::postgres(&self.directory, self.port, &self.settings);
        let mut child = process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect(MISSING);
        let mut log = BufReader::new(child.stderr.take().expect("its output is piped"));
        let (mut said, mut line) = (String::new(), String::new());
        while log.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.contains(READY) {
                // Whoever listens to a log must listen on, or its writer stands still.
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                self.child = Some(child);
                return Ok(());
            }
            said.push_str(&line);
            line.clear();
        }
        child.wait().expect("its end is reported");
        Err(said)
    }

    /// Kills it and all its processes without a word.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The first one first: it would take the death of another for a crash, and tell the rest.
            let children = children_of(child.id());
            child.kill().expect("it is ours");
            for pid in children {
                // It may have followed its parent already.
                let _ = kill_process(pid, Signal::KILL);
            }
            child.wait().expect("its end is reported");
        }
    }

    /// Asks it to end, without waiting for its clients, and waits for it.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        kill_process(pid_of(&child), Signal::INT).expect("it is ours");
        child.wait().expect("its end is reported");
    }

    /// Has it end at once, and bury its processes itself.
    fn quit(&mut self) {
        if let Some(mut child) = self.child.take() {
            for signal in [Signal::QUIT, Signal::CONT] {
                let _ = kill_process(pid_of(&child), signal);
            }
            for pid in children_of(child.id()) {
                let _ = kill_process(pid, Signal::CONT);
            }
            let _ = child.wait();
        }
    }

    /// Holds it: connections stand, nothing is answered.
    pub(crate) fn hold(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        self.signal(Signal::CONT);
    }

    /// Holds the sessions that are there now, and them alone: new ones are welcome. Released by their pids.
    pub(crate) fn hold_sessions(&self) -> Vec<Pid> {
        let pids = self
            .psql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
        let pids: Vec<Pid> = pids.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
        for pid in &pids {
            kill_process(*pid, Signal::STOP).expect("it is a child of ours");
        }
        pids
    }

    /// Lets sessions go on.
    pub(crate) fn release_sessions(&self, pids: &[Pid]) {
        for pid in pids {
            // It may have ended.
            let _ = kill_process(*pid, Signal::CONT);
        }
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(pid_of(child), signal).expect("it is ours");
        for pid in children_of(child.id()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Has psql do something, as the superuser, and returns what it prints: rows as lines, columns joined by `|`.
    pub(crate) fn psql(&self, sql: &str) -> String {
        let done = installed::psql(self.port, sql).output().expect(MISSING);
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("our rows are UTF-8").trim_end().to_owned()
    }

    /// `who` is `user[:password]`; `more` is what follows the database.
    pub(crate) fn url_as(&self, who: &str, more: &str) -> String {
        format!("postgres://{who}@127.0.0.1:{}/postgres{more}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        self.url_as("postgres", "?sslmode=disable")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.quit();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a pid is positive")).expect("a pid is not zero")
}

/// Turns one link, as a shard would.
pub(crate) struct LinkDriver {
    pub(crate) link: Link,
    pub(crate) wants: Wants,
    /// The number of each ticket and what came for it, in the order it came.
    pub(crate) heard: VecDeque<(u64, String)>,
    status: Arc<LinkStatus>,
    bell: UnixStream,
    started: Instant,
    skipped_us: u64,
}

/// Settings for tests: short delays, a breaker that does not open by itself, no deadline that a slow machine meets.
pub(crate) fn link_config(url: &str) -> LinkConfig {
    let breaker = BreakerConfig { failure_threshold: u32::MAX, success_threshold: 2, reset_timeout_ms: 50 };
    let backoff = BackoffConfig { initial_ms: 10, max_ms: 50 };
    let url = PostgresUrl::parse(url).expect("a valid URL");
    let mut config = LinkConfig::new(url, breaker, backoff).expect("valid certificates");
    config.timing = LinkTiming { connect_deadline_ms: 60_000, ping_interval_ms: 60_000 };
    // What a lost connection leaves on the server is the concern of the tests that say so.
    config.fences = false;
    config
}

/// What came for a command, in a word or two.
pub(crate) fn in_words(reply: &Reply<'_>) -> String {
    let because = |cause: &Cause| match cause {
        Cause::Link(kind) => kind.as_str(),
        Cause::Late => "too late",
        Cause::Unsayable => "unsayable",
        Cause::Stopped => "stopped",
    };
    match reply {
        Reply::Row(row) => {
            let columns: Vec<_> =
                row.columns().map(|column| column.map_or("NULL".into(), String::from_utf8_lossy)).collect();
            format!("row {}", columns.join("|"))
        }
        Reply::Again => "again".to_owned(),
        Reply::Done { rows } => format!("done {rows}"),
        Reply::Failed(error) => format!("failed {}", error.code.as_str()),
        Reply::Unknown(cause) => format!("unknown {}", because(cause)),
        Reply::NotSent(cause) => format!("not sent {}", because(cause)),
    }
}

impl LinkDriver {
    /// With [`link_config`].
    pub(crate) fn to(url: &str) -> LinkDriver {
        LinkDriver::new(link_config(url))
    }

    pub(crate) fn new(config: LinkConfig) -> LinkDriver {
        let (bell, ringer) = UnixStream::pair().expect("a pair of sockets");
        bell.set_nonblocking(true).expect("non-blocking");
        let status = Arc::new(LinkStatus::new());
        let wake = Arc::new(move || (&ringer).write_all(b"!").expect("the driver lives"));
        let link = Link::new(Arc::new(config), Arc::clone(&status), 7, wake);
        let wants = Wants { again: true, ..Wants::default() };
        LinkDriver { link, wants, heard: VecDeque::new(), status, bell, started: Instant::now(), skipped_us: 0 }
    }

    pub(crate) fn now(&self) -> Now {
        let mono_us = self.started.elapsed().as_micros() as u64 + self.skipped_us;
        Now { mono_us, unix_ns: since_epoch_ns() }
    }

    pub(crate) fn status(&self) -> LinkSnapshot {
        self.status.snapshot()
    }

    /// Lets time pass for the link alone, and turns it.
    pub(crate) fn skip_ms(&mut self, ms: u64) {
        self.skipped_us += ms * 1_000;
        self.turn(false, false);
    }

    pub(crate) fn submit(&mut self, number: u64, command: Command) {
        self.link.submit(Ticket { number, order: None }, command).expect("there is room");
        self.wants.again = true;
    }

    pub(crate) fn turn(&mut self, readable: bool, writable: bool) {
        let (now, heard) = (self.now(), &mut self.heard);
        self.wants = self.link.turn(now, readable, writable, &mut |ticket, reply| {
            heard.push_back((ticket.number, in_words(&reply)));
        });
    }

    pub(crate) fn stop(&mut self) {
        let heard = &mut self.heard;
        self.link.stop(&mut |ticket, reply| heard.push_back((ticket.number, in_words(&reply))));
    }

    /// Waits for what the link wants, at most a little while, and turns it.
    pub(crate) fn step(&mut self) {
        let (readable, writable) = self.wait();
        self.turn(readable, writable);
    }

    /// Whether the socket is readable and writable, after a little while at most.
    pub(crate) fn wait(&mut self) -> (bool, bool) {
        let now_us = self.now().mono_us;
        let socket = self.link.socket().filter(|_| self.wants.socket.is_some());
        let ready = wait_for(&self.bell, &[(socket, self.wants)], now_us);
        ready[0]
    }

    /// Turns the link until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&LinkDriver) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {:?}, {:?}", self.status(), self.wants);
            self.step();
        }
    }

    /// Turns the link until it was healthy so many times.
    pub(crate) fn until_healthy(&mut self, times: u64) {
        self.until("the link is healthy", |d| d.status().connections >= times && d.status().link == LinkState::Healthy);
    }

    /// Turns the link until so many commands were answered, and takes what was heard.
    pub(crate) fn hear(&mut self, commands: usize) -> Vec<(u64, String)> {
        self.until("commands were answered", |d| {
            d.heard.iter().filter(|(_, words)| !words.starts_with("row") && words != "again").count() >= commands
        });
        std::mem::take(&mut self.heard).into()
    }

    /// One command and what came for it.
    pub(crate) fn ask(&mut self, command: Command) -> Vec<String> {
        self.submit(u64::MAX, command);
        self.hear(1).into_iter().map(|(_, words)| words).collect()
    }
}

/// Turns a store, as a shard would.
pub(crate) struct StoreDriver {
    pub(crate) store: PostgresStore,
    pub(crate) figures: Arc<StoreFigures>,
    wants: Vec<Wants>,
    /// Answers nobody has taken yet.
    pub(crate) replies: Vec<(StoreTicket, StoreReply)>,
    next_ticket: u64,
    bell: UnixStream,
    started: Instant,
    skipped_us: u64,
    /// The wall clock, where it must say the same each time.
    pub(crate) unix_ns: Option<u64>,
}

/// A store with everything on, on two links: one for requests, so that a test knows which, and one for chores.
pub(crate) fn store_config(url: &str) -> PostgresStoreConfig {
    let mut link = link_config(url);
    link.fences = true;
    PostgresStoreConfig {
        link: Arc::new(link),
        links: 2,
        command_timeout_ms: 600_000,
        templates: true,
        queue: Some(PostgresQueue { entries_max: 100 }),
        acks: Some(PostgresAcks { timeout_seconds: 30 }),
        chores: None,
    }
}

impl StoreDriver {
    pub(crate) fn to(server: &PostgresServer) -> StoreDriver {
        StoreDriver::new(store_config(&server.url()))
    }

    pub(crate) fn new(config: PostgresStoreConfig) -> StoreDriver {
        let (bell, ringer) = UnixStream::pair().expect("a pair of sockets");
        bell.set_nonblocking(true).expect("non-blocking");
        ringer.set_nonblocking(true).expect("non-blocking");
        let wake = Arc::new(move || {
            // A bell that is full has rung.
            let _ = (&ringer).write(b"!");
        });
        let figures = Arc::new(StoreFigures::new("postgres"));
        let store = PostgresStore::new(config, Arc::clone(&figures), 7, wake);
        let wants = vec![Wants { again: true, ..Wants::default() }; store.links()];
        let (replies, started) = (Vec::new(), Instant::now());
        StoreDriver { store, figures, wants, replies, next_ticket: 0, bell, started, skipped_us: 0, unix_ns: None }
    }

    pub(crate) fn now(&self) -> Now {
        let mono_us = self.started.elapsed().as_micros() as u64 + self.skipped_us;
        Now { mono_us, unix_ns: self.unix_ns.unwrap_or_else(since_epoch_ns) + self.skipped_us * 1_000 }
    }

    /// Lets time pass for the store alone.
    pub(crate) fn skip_ms(&mut self, ms: u64) {
        self.skipped_us += ms * 1_000;
        self.step();
    }

    /// Asks without waiting.
    pub(crate) fn submit(&mut self, request: StoreRequest) -> StoreTicket {
        self.next_ticket += 1;
        let ticket = StoreTicket(self.next_ticket);
        self.store.submit(self.now(), ticket, request);
        self.wants.iter_mut().for_each(|wants| wants.again = true);
        ticket
    }

    /// Waits for what the links want, at most a little while, and turns all of them.
    pub(crate) fn step(&mut self) {
        let now = self.now();
        let links: Vec<_> = self.wants.iter().enumerate().map(|(at, wants)| (self.store.socket(at), *wants)).collect();
        let ready = wait_for(&self.bell, &links, now.mono_us);
        let now = self.now();
        for (link, (readable, writable)) in ready.into_iter().enumerate() {
            self.wants[link] = self.store.turn(link, now, readable, writable);
        }
        self.store.take_replies(&mut self.replies);
    }

    /// Turns the store until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&StoreDriver) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {:?}, {:?}", self.figures, self.wants);
            self.step();
        }
    }

    /// Waits for the answer to a request.
    pub(crate) fn answer(&mut self, ticket: StoreTicket) -> StoreReply {
        self.until("it is answered", |d| d.replies.iter().any(|(other, _)| *other == ticket));
        let at = self.replies.iter().position(|(other, _)| *other == ticket).expect("it came");
        self.replies.remove(at).1
    }

    /// Asks and waits.
    pub(crate) fn ask(&mut self, request: StoreRequest) -> StoreReply {
        let ticket = self.submit(request);
        self.answer(ticket)
    }
}

/// Which of the sockets are readable and writable, after a little while at most.
pub(crate) fn wait_for(
    bell: &UnixStream,
    links: &[(Option<rustix::fd::BorrowedFd<'_>>, Wants)],
    now_us: u64,
) -> Vec<(bool, bool)> {
    const LITTLE_WHILE_US: u64 = 20_000;
    let mut wake_us = LITTLE_WHILE_US;
    let mut fds = vec![PollFd::new(bell, PollFlags::IN)];
    let mut places = Vec::new();
    for (socket, wants) in links {
        wake_us = wake_us.min(wants.wake_at_us.map_or(LITTLE_WHILE_US, |at| at.saturating_sub(now_us)));
        wake_us = if wants.again { 0 } else { wake_us };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, wants.read);
        flags.set(PollFlags::OUT, wants.write);
        places.push(socket.map(|socket| {
            fds.push(PollFd::from_borrowed_fd(socket, flags));
            fds.len() - 1
        }));
    }
    let timeout = Timespec { tv_sec: 0, tv_nsec: (wake_us * 1_000) as i64 };
    poll(&mut fds, Some(&timeout)).expect("poll");
    let ready = places.iter().map(|place| {
        let events = place.map_or(PollFlags::empty(), |place| fds[place].revents());
        let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
        (broken || events.contains(PollFlags::IN), broken || events.contains(PollFlags::OUT))
    });
    let ready = ready.collect();
    let mut bell = bell;
    let _ = bell.read(&mut [0; 16]);
    ready
}
