//! What was published to whom while something fails, what its publisher was told, and what its user heard.
//!
//! For each way into the cluster there is a user at each node and one who is away, and each of them has a publisher of his own: so
//! what each of them must hear is one row of numbers, in order.
use super::mail::{Class, Ear, Hearer, await_empty};
use crate::support::DEADLINE;
use crate::support::http::call;
use crate::support::process::await_that;
use crate::support::server::Server;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Between two publishes of a publisher: a pace, nothing is waited for.
const PACE: Duration = Duration::from_millis(20);
/// Numbers of each line before the fault and after it.
const QUIET: usize = 12;

/// Where a publisher puts its publishes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By REST, at this node.
    Rest(usize),
    Redis,
}

/// Where the user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seat {
    At(usize),
    /// Nowhere, until all is over.
    Away,
}

const WAYS: [Way; 3] = [Way::Rest(0), Way::Rest(1), Way::Redis];
const SEATS: [Seat; 3] = [Seat::At(0), Seat::At(1), Seat::Away];

/// What a publisher was told of one publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Delivered or kept; by Redis: that a node has it.
    Taken,
    Refused,
    /// Nothing, or nothing that can be relied on.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) told: Told,
    /// Under way at some moment of the fault.
    pub(super) in_fault: bool,
}

/// The numbers of one publisher for one user.
pub(super) struct Line {
    pub(super) way: Way,
    pub(super) seat: Seat,
    user: String,
    sent: Mutex<Vec<Sent>>,
    /// One more than the number that was heard last.
    heard: AtomicU64,
    /// What is to be heard last.
    last: AtomicU64,
}

impl Line {
    fn count(&self) -> usize {
        self.sent.lock().expect("nobody panics with it").len()
    }

    /// How many were taken at last, without anything else in between.
    fn taken_at_last(&self) -> usize {
        let sent = self.sent.lock().expect("nobody panics with it");
        sent.iter().rev().take_while(|sent| sent.told == Told::Taken).count()
    }

    fn can_be_taken(&self, class: Class) -> bool {
        class != Class::Off || self.seat != Seat::Away || self.way == Way::Redis
    }

    fn name(&self) -> String {
        let node = |at| ["a", "b"][at];
        let way = match self.way {
            Way::Rest(at) => format!("REST at {}", node(at)),
            Way::Redis => "Redis".to_owned(),
        };
        match self.seat {
            Seat::At(at) => format!("{way}, user at {}", node(at)),
            Seat::Away => format!("{way}, user away"),
        }
    }
}

/// Two nodes, their publishers and users.
pub(super) struct Ledger<'a> {
    class: Class,
    nodes: [&'a Server; 2],
    /// Where Redis may be, in the order in which publishers look.
    redis: Vec<u16>,
    lines: Vec<Line>,
    /// Before the fault, while it lasts, after it.
    phase: AtomicU8,
    is_over: AtomicBool,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(class: Class, nodes: [&'a Server; 2], redis: &[u16]) -> Ledger<'a> {
        let line = |way: Way, seat: Seat| Line {
            way,
            seat,
            user: format!("{way:?}-{seat:?}").replace(['(', ')'], "-"),
            sent: Mutex::default(),
            heard: AtomicU64::new(0),
            last: AtomicU64::new(u64::MAX),
        };
        let lines = WAYS.into_iter().flat_map(|way| SEATS.map(|seat| line(way, seat))).collect();
        let (phase, is_over) = (AtomicU8::new(0), AtomicBool::new(false));
        Ledger { class, nodes, redis: redis.to_vec(), lines, phase, is_over }
    }

    /// Publishes all the while, with this fault in the middle, which is over when the closure returns; then asserts that only what
    /// `may_be_lost` was lost, and prints the figures.
    pub(super) fn keep(self, fault: impl FnOnce(&Ledger), may_be_lost: impl Fn(&Line, &Sent) -> bool) {
        // The connections stay until all is seen: what comes by Redis may be kept two seconds after what came behind it, and then
        // somebody has to be there to take it.
        let (heard, connected): (Vec<Ear>, Vec<Option<Hearer>>) = std::thread::scope(|scope| {
            let ledger = &self;
            let hearers: Vec<_> = self
                .lines
                .iter()
                .map(|line| match line.seat {
                    Seat::At(at) => {
                        let hearer = Hearer::connect(self.nodes[at], &line.user, self.class);
                        Some(scope.spawn(move || ledger.listen(line, hearer)))
                    }
                    Seat::Away => None,
                })
                .collect();
            let over = Over(&self.is_over);
            let publishers: Vec<_> =
                self.lines.iter().map(|line| scope.spawn(move || ledger.publish_on(line))).collect();
            self.await_taken(QUIET);
            self.phase.store(1, SeqCst);
            // What was there before the fault is not lost in it.
            let before: Vec<usize> = self.lines.iter().map(Line::count).collect();
            await_that("what was published before the fault to be heard", || {
                let is_heard = |(line, before): (&Line, &usize)| {
                    line.seat == Seat::Away || line.heard.load(SeqCst) >= *before as u64
                };
                self.lines.iter().zip(&before).all(is_heard).then_some(())
            });
            fault(&self);
            self.await_taken(2);
            self.phase.store(2, SeqCst);
            self.await_taken(QUIET);
            drop(over);
            publishers.into_iter().for_each(|publisher| publisher.join().expect("a publisher"));
            let mut redis = None;
            for line in self.lines.iter().filter(|line| line.can_be_taken(self.class)) {
                line.last.store(line.count() as u64, SeqCst);
                assert_eq!(self.publish(line, &mut redis), Told::Taken, "the last one, {}", line.name());
            }
            let heard = self.lines.iter().zip(hearers).enumerate().map(|(n, (line, hearer))| match hearer {
                Some(hearer) => hearer.join().expect("a user"),
                None if self.class == Class::Off => (Ear::default(), None),
                None => self.listen(line, Hearer::connect(self.nodes[n / 3 % 2], &line.user, self.class)),
            });
            heard.unzip()
        });
        if self.class == Class::Written {
            await_empty(self.nodes[0], || ());
        }
        drop(connected);
        let mut unexpected = Vec::new();
        for (line, ear) in self.lines.iter().zip(heard) {
            unexpected.extend(self.figure(line, &ear, &may_be_lost));
        }
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }

    /// Prints a line's figures and gives what is against the promise.
    fn figure(&self, line: &Line, ear: &Ear, may_be_lost: &impl Fn(&Line, &Sent) -> bool) -> Option<String> {
        let sent = line.sent.lock().expect("nobody panics with it");
        let heard = &ear.heard;
        let count = |told: Told| sent.iter().filter(|sent| sent.told == told).count();
        let of = |told: Told, is_heard: bool| {
            let numbers = sent
                .iter()
                .enumerate()
                .filter(move |(n, sent)| sent.told == told && heard.contains(&(*n as u64)) == is_heard);
            numbers.collect::<Vec<_>>()
        };
        let nobody_hears = self.class == Class::Off && line.seat == Seat::Away;
        let lost = if nobody_hears { Vec::new() } else { of(Told::Taken, false) };
        let in_fault = sent.iter().filter(|sent| sent.in_fault).count();
        println!(
            "{:?}: {}: {} published ({in_fault} in the fault), {} accepted, {} refused, {} unknown; {} heard ({} of them refused or \
             unknown), {} repeated, {} lost",
            self.class,
            line.name(),
            sent.len(),
            count(Told::Taken),
            count(Told::Refused),
            count(Told::Unknown),
            heard.len(),
            of(Told::Refused, true).len() + of(Told::Unknown, true).len(),
            ear.repeated,
            lost.len(),
        );
        assert!(in_fault > 0, "nothing was published to {} while the fault lasted", line.name());
        let wrong: Vec<usize> = lost.iter().filter(|(_, sent)| !may_be_lost(line, sent)).map(|(n, _)| *n).collect();
        (!wrong.is_empty()).then(|| format!("{}: {wrong:?} were accepted and not heard", line.name()))
    }

    /// Waits until everything that can be taken was so often.
    pub(super) fn await_taken(&self, count: usize) {
        let begun: Vec<usize> = self.lines.iter().map(Line::count).collect();
        await_that("publishes to be taken", || {
            let is_done = |(line, begun): (&Line, &usize)| {
                let published = line.count() - begun;
                published >= count && (!line.can_be_taken(self.class) || line.taken_at_last() >= count)
            };
            self.lines.iter().zip(&begun).all(is_done).then_some(())
        });
    }

    /// Waits until so many more were published by REST, whatever became of them.
    pub(super) fn await_published(&self, count: usize) {
        let begun: Vec<usize> = self.lines.iter().map(Line::count).collect();
        await_that("more publishes", || {
            let is_done = |(line, begun): (&Line, &usize)| line.way == Way::Redis || line.count() - begun >= count;
            self.lines.iter().zip(&begun).all(is_done).then_some(())
        });
    }

    fn listen(&self, line: &Line, mut hearer: Hearer) -> (Ear, Option<Hearer>) {
        let mut ear = Ear::default();
        loop {
            let n = hearer.hear(&mut ear);
            line.heard.fetch_max(n + 1, SeqCst);
            if n == line.last.load(SeqCst) {
                return (ear, Some(hearer));
            }
        }
    }

    fn publish_on(&self, line: &Line) {
        let mut redis = None;
        while !self.is_over.load(SeqCst) {
            self.publish(line, &mut redis);
            std::thread::park_timeout(PACE);
        }
    }

    fn publish(&self, line: &Line, redis: &mut Option<BufReader<TcpStream>>) -> Told {
        let (n, from) = (line.count(), self.phase.load(SeqCst));
        let told = match line.way {
            Way::Rest(at) => self.by_rest(self.nodes[at], &line.user, n),
            Way::Redis => self.by_redis(redis, &line.user, n),
        };
        let in_fault = from <= 1 && self.phase.load(SeqCst) >= 1;
        line.sent.lock().expect("nobody panics with it").push(Sent { told, in_fault });
        told
    }

    fn by_rest(&self, node: &Server, user: &str, n: usize) -> Told {
        let body = json!({"target_user_id": user, "event_type": "e", "payload": n}).to_string();
        let response = call(node.port, "POST", "/api/v1/notifications/send", &[], Some(body.as_bytes()));
        if response.status == 503 {
            return Told::Refused;
        }
        let receipt = response.ok();
        match receipt["delivered_to"] != 0 || receipt["queued"].as_u64().is_some_and(|queued| queued > 0) {
            true => Told::Taken,
            false => Told::Refused,
        }
    }

    fn by_redis(&self, redis: &mut Option<BufReader<TcpStream>>, user: &str, n: usize) -> Told {
        let open = || {
            let mut ports = self.redis.iter();
            let stream = ports.find_map(|port| TcpStream::connect(("127.0.0.1", *port)).ok())?;
            stream.set_read_timeout(Some(DEADLINE)).expect("a fresh socket takes options");
            Some(BufReader::new(stream))
        };
        let Some(mut client) = redis.take().or_else(open) else { return Told::Refused };
        let event: Value = json!({"event_type": "e", "payload": n});
        let message = json!({"type": "user", "target": user, "event": event}).to_string();
        let channel = format!("notification:user:{user}");
        let command =
            format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{message}\r\n", channel.len(), message.len());
        let mut line = String::new();
        let asked = client.get_mut().write_all(command.as_bytes()).and_then(|()| client.read_line(&mut line));
        let told = match line.trim_end().strip_prefix(':').and_then(|count| count.parse::<u64>().ok()) {
            Some(0) => Told::Refused,
            Some(_) if asked.is_ok() => Told::Taken,
            _ => return Told::Unknown,
        };
        *redis = Some(client);
        told
    }
}

/// Ends the publishers, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
