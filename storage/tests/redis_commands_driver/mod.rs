//! A loop that turns one command link, as a shard would, and writes down what it is told.
#![allow(dead_code, reason = "each test binary uses its part")]

use crate::common::{PATIENCE, RedisServer};
use protocol::clock::Now;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;
use storage::backoff::BackoffConfig;
use storage::breaker::BreakerConfig;
use storage::redis::commands::answer::{Outcome, RefusalCode};
use storage::redis::commands::event::NotTaken;
use storage::redis::commands::link::{CommandConfig, CommandLink, CommandTiming, CommandWants};
use storage::redis::commands::reply::Reply;
use storage::redis::commands::script::Script;
use storage::redis::commands::status::{CommandSnapshot, CommandStatus, Operation};
use storage::redis::commands::{Command, Ticket, Words};
use storage::redis::status::LinkState;
use storage::redis::url::RedisUrl;

/// What became of a command, to be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The reply as it is shown.
    Done(String),
    Refused(RefusalCode),
    Failed(String),
    Unknown,
    NotSent,
}

/// Settings for tests: short delays, a breaker that does not open by itself, and time that only the test lets pass.
pub(crate) fn config(url: &str, scripts: &[&'static Script]) -> CommandConfig {
    let url = RedisUrl::parse(url).expect("a valid URL");
    let mut config = CommandConfig::new(url, scripts).expect("no encryption, or one that can be");
    config.breaker = BreakerConfig { failure_threshold: u32::MAX, success_threshold: 2, reset_timeout_ms: 50 };
    config.backoff = BackoffConfig { initial_ms: 10, max_ms: 50 };
    config.timing =
        CommandTiming { connect_deadline_ms: 120_000, command_timeout_ms: 120_000, ping_interval_ms: 120_000 };
    config
}

pub(crate) struct CommandDriver {
    pub(crate) link: CommandLink,
    pub(crate) wants: CommandWants,
    /// What became of commands, in the order it was told.
    pub(crate) told: Vec<(u64, Told)>,
    next_ticket: u64,
    status: Arc<CommandStatus>,
    bell: UnixStream,
    started: Instant,
    skipped_us: u64,
}

impl CommandDriver {
    pub(crate) fn new(config: CommandConfig) -> CommandDriver {
        let (bell, ringer) = UnixStream::pair().expect("a pair of sockets");
        bell.set_nonblocking(true).expect("non-blocking");
        let status = Arc::new(CommandStatus::new());
        let wake = Arc::new(move || (&ringer).write_all(b"!").expect("the driver lives"));
        let link = CommandLink::new(config, Arc::clone(&status), 7, wake);
        let wants = CommandWants { again: true, ..CommandWants::default() };
        let started = Instant::now();
        CommandDriver { link, wants, told: Vec::new(), next_ticket: 1, status, bell, started, skipped_us: 0 }
    }

    /// One over a healthy link.
    pub(crate) fn healthy(server: &RedisServer, scripts: &[&'static Script]) -> CommandDriver {
        let mut driver = CommandDriver::new(config(&server.url(), scripts));
        driver.until_healthy(1);
        driver
    }

    pub(crate) fn now(&self) -> Now {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
        let mono_us = self.started.elapsed().as_micros() as u64 + self.skipped_us;
        Now { mono_us, unix_ns: since.as_nanos() as u64 }
    }

    pub(crate) fn status(&self) -> CommandSnapshot {
        self.status.snapshot()
    }

    /// Submits a command and gives its ticket.
    pub(crate) fn submit(&mut self, command: Command<'_>) -> Result<u64, NotTaken> {
        let (now, ticket) = (self.now(), self.next_ticket);
        self.next_ticket += 1;
        self.link.submit(now, Ticket(ticket), command).map(|()| ticket)
    }

    /// Submits a plain command that is taken.
    pub(crate) fn say(&mut self, words: &[&str]) -> u64 {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.submit(Command { operation: Operation::Other, words: Words::Plain(&words) }).expect("there is room")
    }

    /// Submits a script that is taken.
    pub(crate) fn run(&mut self, script: &'static Script, keys: &[&str], arguments: &[&str]) -> u64 {
        let keys: Vec<&[u8]> = keys.iter().map(|word| word.as_bytes()).collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(|word| word.as_bytes()).collect();
        let words = Words::Script { script, keys: &keys, arguments: &arguments };
        self.submit(Command { operation: Operation::Other, words }).expect("there is room")
    }

    /// Submits by a function that gets the ticket's submission, waits for the answer, and has it read.
    pub(crate) fn ask<T>(&mut self, submit: impl FnOnce(&mut Submit<'_>), read: impl FnOnce(Reply<'_>) -> T) -> T {
        let ticket = self.next_ticket;
        submit(&mut |command| {
            self.submit(command).expect("there is room");
        });
        let mut read = Some(read);
        let mut result = None;
        let begun = Instant::now();
        while result.is_none() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for an answer: {:?}", self.status());
            let (readable, writable) = self.wait();
            self.turn_with(readable, writable, &mut |told, outcome| {
                assert_eq!(told.0, ticket, "one at a time");
                match outcome {
                    Outcome::Done(reply) => result = read.take().map(|read| read(reply)),
                    other => panic!("not done: {other:?}"),
                }
            });
        }
        result.expect("it was waited for")
    }

    /// Lets time pass for the link alone, and turns it.
    pub(crate) fn skip_ms(&mut self, ms: u64) {
        self.skipped_us += ms * 1_000;
        self.turn(false, false);
    }

    pub(crate) fn turn(&mut self, readable: bool, writable: bool) {
        let mut told = std::mem::take(&mut self.told);
        self.turn_with(readable, writable, &mut |ticket, outcome| {
            told.push((
                ticket.0,
                match outcome {
                    Outcome::Done(reply) => Told::Done(format!("{reply:?}")),
                    Outcome::Refused(refusal) => Told::Refused(refusal.code),
                    Outcome::Failed(failure) => Told::Failed(failure.text),
                    Outcome::Unknown => Told::Unknown,
                    Outcome::NotSent => Told::NotSent,
                },
            ));
        });
        self.told = told;
    }

    fn turn_with(&mut self, readable: bool, writable: bool, on_reply: &mut dyn FnMut(Ticket, Outcome<'_>)) {
        let now = self.now();
        self.wants = self.link.turn(now, readable, writable, on_reply);
    }

    /// Waits for what the link wants, at most a little while, and turns it.
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
        // What was submitted since leaves with a turn.
        let wake_us = if self.wants.again || self.link.unanswered() > 0 { wake_us.min(1_000) } else { wake_us };
        let timeout = Timespec { tv_sec: 0, tv_nsec: (wake_us * 1_000) as i64 };
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.wants.read);
        flags.set(PollFlags::OUT, self.wants.write);
        let bell = PollFd::new(&self.bell, PollFlags::IN);
        let socket = self.link.socket().filter(|_| self.wants.socket.is_some());
        let mut fds = vec![bell];
        fds.extend(socket.map(|socket| PollFd::from_borrowed_fd(socket, flags)));
        poll(&mut fds, Some(&timeout)).expect("poll");
        let events = fds.get(1).map_or(PollFlags::empty(), |fd| fd.revents());
        drop(fds);
        let _ = (&self.bell).read(&mut [0; 16]);
        let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
        (broken || events.contains(PollFlags::IN), broken || events.contains(PollFlags::OUT))
    }

    /// Turns the link until something holds.
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&CommandDriver) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {:?}, {:?}", self.status(), self.wants);
            self.step();
        }
    }

    /// Turns the link until it was healthy so many times.
    pub(crate) fn until_healthy(&mut self, times: u64) {
        self.until("the link is healthy", |d| {
            d.status().reconnections >= times && d.status().link == LinkState::Healthy
        });
    }

    /// Turns the link until everything is answered, and takes the answers.
    pub(crate) fn answers(&mut self) -> Vec<(u64, Told)> {
        self.turn(false, false);
        self.until("everything is answered", |d| d.link.unanswered() == 0);
        std::mem::take(&mut self.told)
    }

    /// One plain command and what became of it.
    pub(crate) fn command(&mut self, words: &[&str]) -> Told {
        self.say(words);
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers.remove(0).1
    }
}

/// What takes a command.
pub(crate) type Submit<'a> = dyn FnMut(Command<'_>) + 'a;

/// A reply that was given.
pub(crate) fn done(shown: &str) -> Told {
    Told::Done(shown.to_owned())
}
