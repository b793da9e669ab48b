//! One thread: its clients, its publishers, one epoll set, one read buffer.
use crate::client::{Client, Ears, Introduction, State};
use crate::error::LoadError;
use crate::machine;
use crate::oracle::Oracle;
use crate::payload::Stationery;
use crate::poller::{Interest, Poller, Ready};
use crate::publisher::{Outbox, Publisher};
use crate::scan::Scanner;
use crate::scenario::{Audience, Plan};
use crate::socket::{self, Moved};
use crate::token::Signer;
use crate::verify::{Inbox, Refused, Tally};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes of the read buffer: one read takes what a kernel buffer holds, and it still fits a core's cache.
const READ_BYTES: usize = 256 * 1_024;
/// Bytes the read buffer grows to for a message that does not fit.
const READ_BYTES_MAX: usize = 16 * 1_024 * 1_024;
/// Publishes one publisher writes before the clients are read again.
const PUBLISHES_PER_PUMP: usize = 64;
/// Connects started before the sockets are looked at again.
const CONNECTS_PER_TURN: usize = 64;
/// Clients whose lag closes the window when flat out.
const SAMPLE: usize = 64;
/// Of so many clients one is read a second time by `--verify sample`.
pub const VERIFY_ONE_IN: u32 = 64;
/// Marks a publisher's token.
const PUBLISHER: u64 = 1 << 63;

/// What the threads share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The run is over.
    pub stop: AtomicBool,
    /// From when on clients connect, on the monotonic clock; 0 while they may not.
    pub connect_from_us: AtomicU64,
    /// Clients that can receive.
    pub open: AtomicU64,
    /// Clients that never could.
    pub failed: AtomicU64,
    /// All is measured: clients that stopped reading read on, to see how they end.
    pub slow_read_on: AtomicBool,
    /// Messages received, by thread.
    pub received: Vec<AtomicU64>,
    /// Acknowledgements answered, by thread.
    pub acked: Vec<AtomicU64>,
    /// Start of the measured phase on the monotonic clock.
    pub measured_from_us: AtomicU64,
    /// Its end.
    pub measured_until_us: AtomicU64,
}

impl Shared {
    /// For so many threads; the measured phase is not known yet.
    pub fn new(threads: u32) -> Shared {
        let counts = || (0..threads).map(|_| AtomicU64::new(0)).collect();
        Shared { received: counts(), acked: counts(), ..Shared::default() }
    }

    /// The measured phase; empty while it is not known.
    pub fn measured(&self) -> std::ops::Range<u64> {
        self.measured_from_us.load(Ordering::Relaxed)..self.measured_until_us.load(Ordering::Relaxed)
    }

    /// Messages received by all threads.
    pub fn received(&self) -> u64 {
        self.received.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Acknowledgements answered to all threads.
    pub fn acked(&self) -> u64 {
        self.acked.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// What every thread reads and none changes.
pub struct Scene {
    /// Who connects.
    pub audience: Audience,
    /// What is published.
    pub plan: Plan,
    /// How payloads look.
    pub stationery: Stationery,
    /// The run's name.
    pub run: String,
    /// Signs the tokens.
    pub signer: Signer,
    /// One of so many clients is read twice; 0 is none.
    pub verify_one_in: u32,
    /// Connects in a second over all threads; 0 is no limit.
    pub connect_rate: u32,
    /// Handshakes under way at once over all threads.
    pub connecting_max: u32,
    /// Threads.
    pub threads: u32,
    /// Whether clients acknowledge what they receive.
    pub acks: bool,
}

/// One thread's world.
pub struct Worker<'a> {
    index: u32,
    scene: &'a Scene,
    shared: &'a Shared,
    poller: Poller,
    clients: Vec<Client>,
    /// Clients yet to connect.
    waiting: VecDeque<u32>,
    connects_started: u64,
    connecting: u32,
    buffer: Vec<u8>,
    acks: Vec<u8>,
    scanner: Scanner,
    /// What was counted.
    pub tally: Tally,
    publishers: Vec<Publisher>,
    /// What the publishers counted.
    pub outbox: Outbox,
    /// Whether the slow clients of this thread read on.
    slow_read_on: bool,
    /// Publishes for each sampled client, in the order of `sampled`.
    sample_expected: Vec<u64>,
    /// Places in `clients` of the sampled ones.
    sampled: Vec<usize>,
    /// For each stream the sampled clients it reaches.
    sample_of_stream: Vec<Vec<u16>>,
}

impl<'a> Worker<'a> {
    /// The thread of this number, with every `threads`-th client.
    pub fn new(index: u32, scene: &'a Scene, shared: &'a Shared) -> Result<Worker<'a>, LoadError> {
        let poller = Poller::new().map_err(|error| LoadError::Machine(format!("epoll: {error}")))?;
        Ok(Worker {
            index,
            scene,
            shared,
            poller,
            clients: Vec::new(),
            waiting: (index..scene.audience.clients).step_by(scene.threads as usize).collect(),
            connects_started: 0,
            connecting: 0,
            buffer: vec![0; READ_BYTES],
            acks: Vec::new(),
            scanner: Scanner::new(&scene.run),
            tally: Tally::new(),
            publishers: Vec::new(),
            outbox: Outbox::new(scene.plan.streams.len()),
            slow_read_on: false,
            sample_expected: Vec::new(),
            sampled: Vec::new(),
            sample_of_stream: Vec::new(),
        })
    }

    /// Starts the connects that are due.
    pub fn connect(&mut self) -> Result<(), LoadError> {
        let threads = u64::from(self.scene.threads);
        let from_us = self.shared.connect_from_us.load(Ordering::Relaxed);
        if from_us == 0 {
            return Ok(());
        }
        for _ in 0..CONNECTS_PER_TURN {
            if self.connecting >= self.scene.connecting_max.div_ceil(self.scene.threads) {
                return Ok(());
            }
            let elapsed_us = machine::now_us().saturating_sub(from_us);
            let due_us = match u64::from(self.scene.connect_rate) {
                0 => 0,
                rate => self.connects_started * threads * 1_000_000 / rate,
            };
            if due_us > elapsed_us {
                return Ok(());
            }
            let Some(number) = self.waiting.pop_front() else { return Ok(()) };
            self.connects_started += 1;
            self.connect_one(number)?;
        }
        Ok(())
    }

    fn connect_one(&mut self, number: u32) -> Result<(), LoadError> {
        let audience = &self.scene.audience;
        let target = audience.target_of(number);
        let socket = match socket::connect(target, audience.place_at_target(number), audience.is_slow(number)) {
            Ok(socket) => socket,
            Err(error) => {
                self.fail(number, &format!("connect: {error}"));
                return Ok(());
            }
        };
        let introduction = Introduction {
            host: target.to_string(),
            token: self.scene.signer.sign(&audience.user(number))?,
            channels: audience.channels_of(number).map(|channel| audience.channel(channel)).collect(),
        };
        let is_slow = audience.is_slow(number);
        let mut inbox = Inbox::new(if is_slow { Vec::new() } else { self.scene.plan.streams_of(number, audience) });
        inbox.awaited = self.scene.plan.backlog.map_or(u64::MAX, u64::from);
        let is_websocket = audience.is_websocket(number);
        let make = if is_websocket { Client::websocket } else { Client::sse };
        let mut client = make(number, socket, introduction, inbox);
        client.is_slow = is_slow;
        if !is_slow && self.scene.verify_one_in > 0 && number.is_multiple_of(self.scene.verify_one_in) {
            let stationery = self.scene.stationery.clone();
            client.verify(if is_websocket { Oracle::websocket(stationery) } else { Oracle::sse(stationery) });
        }
        self.poller
            .add(&client.socket, self.clients.len() as u64, Interest::ReadWrite)
            .map_err(|error| LoadError::Machine(format!("epoll: {error}")))?;
        self.clients.push(client);
        self.connecting += 1;
        Ok(())
    }

    fn fail(&mut self, number: u32, reason: &str) {
        self.tally.failed += 1;
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
        self.tally.trouble(|| format!("client {number}: {reason}"));
    }

    /// Takes the publishers; only the first thread has any.
    pub fn employ(&mut self, publishers: Vec<Publisher>) -> Result<(), LoadError> {
        for (index, publisher) in publishers.iter().enumerate() {
            self.poller
                .add(&publisher.socket, PUBLISHER | index as u64, Interest::Read)
                .map_err(|error| LoadError::Machine(format!("epoll: {error}")))?;
        }
        self.publishers = publishers;
        let reading: Vec<usize> = (0..self.clients.len()).filter(|client| !self.clients[*client].is_slow).collect();
        let stride = reading.len().div_ceil(SAMPLE).max(1);
        self.sampled = reading.into_iter().step_by(stride).collect();
        self.sample_expected = vec![0; self.sampled.len()];
        self.sample_of_stream = vec![Vec::new(); self.scene.plan.streams.len()];
        for (place, client) in self.sampled.iter().enumerate() {
            for stream in self.scene.plan.streams_of(self.clients[*client].number, &self.scene.audience) {
                self.sample_of_stream[stream as usize].push(place as u16);
            }
        }
        Ok(())
    }

    /// Changes the publishers' schedules: `schedule` is given each one's number.
    pub fn schedule(&mut self, schedule: impl Fn(u32) -> crate::arrival::Arrival) {
        for (index, publisher) in (0..).zip(&mut self.publishers) {
            publisher.arrival = schedule(index);
        }
    }

    /// Publishes that were due before `until_us` and never written.
    pub fn overdue(&self, until_us: u64) -> u64 {
        self.publishers.iter().map(|publisher| publisher.arrival.overdue(until_us)).sum()
    }

    /// When the next publish is due, at a rate; `None` when the window decides.
    pub fn next_due_us(&self) -> Option<u64> {
        let open = self.publishers.iter().filter(|publisher| publisher.has_room());
        open.filter_map(|publisher| publisher.arrival.due_us()).min()
    }

    /// Publishes whose answer has not come.
    pub fn under_way(&self) -> usize {
        self.publishers.iter().map(Publisher::under_way).sum()
    }

    /// Publishes the flat-out window of `window` publishes still takes.
    ///
    /// It is closed by what arrived, in two ways: the deliveries outstanding in all must not exceed what `window`
    /// publishes bring on average, and no sampled client may lag by more than `window` messages.
    pub fn window_room(&self, window: u64) -> u64 {
        let expected = self.outbox.expected.max(0) as u64;
        let fanout = expected.checked_div(self.outbox.written).unwrap_or(0).max(1);
        let outstanding = expected.saturating_sub(self.shared.received());
        let room = (window * fanout).saturating_sub(outstanding).div_ceil(fanout);
        let lags = self.sampled.iter().zip(&self.sample_expected);
        let lag = lags.map(|(client, expected)| expected.saturating_sub(self.clients[*client].inbox.received)).max();
        room.min(window.saturating_sub(lag.unwrap_or(0)))
    }

    /// Whether the publishers' quotas are published and answered.
    pub fn is_done(&self) -> bool {
        self.publishers.iter().all(Publisher::is_done)
    }

    /// Writes publishes that are due, as long as there is room for a notification; answers how many those were.
    pub fn publish(&mut self, room: u64) -> Result<u64, LoadError> {
        let scene = self.scene;
        let fanout = |stream: u32| scene.plan.streams[stream as usize].fanout;
        let mut written = 0;
        for index in 0..self.publishers.len() {
            let publisher = &mut self.publishers[index];
            for _ in 0..PUBLISHES_PER_PUMP {
                if written >= room || publisher.is_blocked() && publisher.wants_write {
                    break;
                }
                let now_us = machine::now_us();
                let (expected, reached) = (&mut self.sample_expected, &self.sample_of_stream);
                let count = |stream: u32| {
                    reached[stream as usize].iter().for_each(|place| expected[usize::from(*place)] += 1);
                };
                let notifications = publisher.publish(now_us, &scene.stationery, &mut self.outbox, fanout, count);
                if notifications == 0 {
                    break;
                }
                written += notifications;
            }
            self.flush_publisher(index)?;
        }
        Ok(written)
    }

    fn flush_publisher(&mut self, index: usize) -> Result<(), LoadError> {
        let publisher = &mut self.publishers[index];
        if let Err(reason) = publisher.flush() {
            return self.reconnect_publisher(index, &reason);
        }
        if publisher.is_blocked() != publisher.wants_write {
            publisher.wants_write = publisher.is_blocked();
            let interest = if publisher.wants_write { Interest::ReadWrite } else { Interest::Read };
            self.poller
                .set(&publisher.socket, PUBLISHER | index as u64, interest)
                .map_err(|error| LoadError::Machine(format!("epoll: {error}")))?;
        }
        Ok(())
    }

    fn reconnect_publisher(&mut self, index: usize, reason: &str) -> Result<(), LoadError> {
        let scene = self.scene;
        let fanout = |stream: u32| scene.plan.streams[stream as usize].fanout;
        let publisher = &mut self.publishers[index];
        publisher.reconnect(reason, &mut self.outbox, fanout)?;
        self.poller
            .add(&publisher.socket, PUBLISHER | index as u64, Interest::Read)
            .map_err(|error| LoadError::Machine(format!("epoll: {error}")))
    }

    /// Waits up to `wait_us` and serves every socket that is ready.
    pub fn turn(&mut self, wait_us: u64) -> Result<(), LoadError> {
        if !self.slow_read_on && self.shared.slow_read_on.load(Ordering::Relaxed) {
            self.slow_read_on = true;
            self.read_on()?;
        }
        let ready = self.poller.wait(wait_us).map_err(|error| LoadError::Machine(format!("epoll: {error}")))?;
        for index in 0..ready {
            let Some(ready) = self.poller.ready(index) else { break };
            if ready.token & PUBLISHER != 0 {
                self.serve_publisher((ready.token & !PUBLISHER) as usize, ready)?;
            } else {
                self.serve_client(ready.token as usize, ready)?;
            }
        }
        let index = self.index as usize;
        for (counts, count) in [(&self.shared.received, self.tally.received), (&self.shared.acked, self.tally.acked)] {
            if let Some(place) = counts.get(index) {
                place.store(count, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Has the clients that stopped reading read again.
    fn read_on(&self) -> Result<(), LoadError> {
        let slow = |(_, client): &(u64, &Client)| client.is_slow && client.state == State::Open;
        for (token, client) in (0..).zip(&self.clients).filter(slow) {
            socket::widen(&client.socket);
            self.poller
                .set(&client.socket, token, Interest::Read)
                .map_err(|error| LoadError::Machine(format!("epoll: {error}")))?;
        }
        Ok(())
    }

    fn serve_publisher(&mut self, index: usize, ready: Ready) -> Result<(), LoadError> {
        if ready.readable {
            let scene = self.scene;
            let fanout = |stream: u32| scene.plan.streams[stream as usize].fanout;
            let publisher = &mut self.publishers[index];
            let now_us = machine::now_us();
            let measured = self.shared.measured();
            if let Err(reason) = publisher.read(&mut self.buffer, now_us, &measured, &mut self.outbox, fanout) {
                return self.reconnect_publisher(index, &reason);
            }
        }
        self.flush_publisher(index)
    }

    fn serve_client(&mut self, index: usize, ready: Ready) -> Result<(), LoadError> {
        let before = self.clients[index].state;
        if before == State::Closed {
            return Ok(());
        }
        let outcome = self.drive_client(index, ready);
        let client = &mut self.clients[index];
        if let Err(reason) = outcome {
            client.state = State::Closed;
            let number = client.number;
            // The slot keeps its number and the descriptor with it, so it must leave the set by itself: a connection
            // that is over stays ready for ever.
            self.poller.remove(&client.socket);
            let _ = rustix::net::shutdown(&client.socket, rustix::net::Shutdown::Both);
            if before == State::Open && client.is_slow && matches!(client.close_code, None | Some(4008 | 1001)) {
                // Without a code: what was before the Close frame was never read, so it could not be sent either.
                self.tally.slow_closed += 1;
                self.tally.slow_closed_4008 += u64::from(client.close_code == Some(4008));
            } else if before == State::Open {
                self.tally.closed += 1;
                self.tally.trouble(|| format!("client {number}: {reason}"));
            } else {
                self.connecting -= 1;
                self.fail(number, &reason);
            }
            return Ok(());
        }
        if before != State::Open && client.state == State::Open {
            self.connecting -= 1;
            self.shared.open.fetch_add(1, Ordering::Relaxed);
            if client.is_slow {
                return self
                    .poller
                    .set(&client.socket, index as u64, Interest::Nothing)
                    .map_err(|error| LoadError::Machine(format!("epoll: {error}")));
            }
        }
        let wants_write = !client.outgoing.is_empty();
        if wants_write != client.wants_write {
            client.wants_write = wants_write;
            let interest = if wants_write { Interest::ReadWrite } else { Interest::Read };
            self.poller
                .set(&client.socket, index as u64, interest)
                .map_err(|error| LoadError::Machine(format!("epoll: {error}")))?;
        }
        Ok(())
    }

    /// Moves one client's bytes. The sentence says why it is over.
    fn drive_client(&mut self, index: usize, ready: Ready) -> Result<(), String> {
        let client = &mut self.clients[index];
        if ready.writable {
            client.write_ready()?;
        }
        if !ready.readable || client.state == State::Connecting {
            return Ok(());
        }
        // The tail goes in front of what is read, so that every message is contiguous.
        let seen = client.tail.len();
        if self.buffer.len() < seen + READ_BYTES / 2 {
            if seen >= READ_BYTES_MAX {
                return Err(format!("a message of more than {READ_BYTES_MAX} bytes"));
            }
            self.buffer.resize(seen + READ_BYTES, 0);
        }
        self.buffer[..seen].copy_from_slice(&client.tail);
        let bytes = match socket::receive(&client.socket, &mut self.buffer[seen..]) {
            Moved::Bytes(bytes) => bytes,
            Moved::Later => return Ok(()),
            Moved::Ended => return Err("the server closed the connection".to_owned()),
            Moved::Failed(error) => return Err(format!("read: {error}")),
        };
        self.tally.bytes += bytes as u64;
        let end = seen + bytes;
        let mut ears = Ears {
            scanner: &mut self.scanner,
            tally: &mut self.tally,
            now_us: machine::now_us(),
            measured: self.shared.measured(),
            acks: self.scene.acks.then_some(&mut self.acks),
        };
        let used = client.read(&self.buffer[..end], seen, &mut ears)?;
        client.tail.clear();
        client.tail.extend_from_slice(&self.buffer[used..end]);
        if !client.outgoing.is_empty() {
            client.write_ready()?;
        }
        Ok(())
    }

    /// Runs until the run is over: the life of a thread that only listens.
    pub fn listen(mut self) -> Result<Harvest, LoadError> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.connect()?;
            self.turn(if self.waiting.is_empty() { 10_000 } else { 500 })?;
        }
        Ok(self.finish())
    }

    /// Ends all connections and keeps what was counted.
    pub fn finish(self) -> Harvest {
        let open = self.clients.iter().filter(|client| client.state == State::Open).count() as u64;
        let inboxes = self.clients.into_iter().map(|client| client.inbox).collect();
        Harvest { open, inboxes, tally: self.tally, outbox: self.outbox }
    }
}

/// What a thread brings back.
pub struct Harvest {
    /// Clients that were still receiving.
    pub open: u64,
    /// What each client received.
    pub inboxes: Vec<Inbox>,
    /// The counts.
    pub tally: Tally,
    /// What its publishers counted.
    pub outbox: Outbox,
}

impl Harvest {
    /// Messages that never came to this thread's clients.
    pub fn lost(&self, published: &[u64], refused: &Refused) -> u64 {
        self.inboxes.iter().map(|inbox| inbox.lost(published, refused)).sum()
    }
}
