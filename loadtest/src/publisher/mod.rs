//! One publisher: a kept-alive connection, what is under way on it, and when the next publish is due.
pub mod redis;
pub mod rest;

use crate::arrival::Arrival;
use crate::error::LoadError;
use crate::payload::Stationery;
use crate::scenario::Deck;
use crate::socket::{self, Moved, Outgoing};
use crate::verify::{Refused, histogram};
use hdrhistogram::Histogram;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest we wait for a publisher's connect and for each answer to its login.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Sentences kept about refusals.
const TROUBLES_MAX: usize = 10;

/// How publishes are written and their answers read.
pub enum Door {
    /// HTTP.
    Rest(rest::RestDoor),
    /// Redis PUBLISH.
    Redis(redis::RedisDoor),
}

/// What the answer to one publish said.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken; the count it named (connections by REST, subscribers by Redis).
    Accepted(u64),
    /// Not taken, and why.
    Refused(String),
}

/// An answer and the bytes it took; `None` when it is not complete; the sentence says why the connection is of no use.
pub type Reply = Result<Option<(Answer, usize)>, String>;

impl Door {
    fn write(&mut self, out: &mut Vec<u8>, stationery: &Stationery, stream: u32, seq: u64, sent_us: u64) {
        match self {
            Door::Rest(door) => door.write(out, stationery, stream, seq, sent_us),
            Door::Redis(door) => door.write(out, stationery, stream, seq, sent_us),
        }
    }

    fn read(&self, bytes: &[u8]) -> Reply {
        match self {
            Door::Rest(_) => rest::read(bytes),
            Door::Redis(_) => redis::read(bytes),
        }
    }

    /// Connects and logs in. Blocking: it happens between the phases.
    fn connect(&self, target: SocketAddr) -> Result<OwnedFd, LoadError> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&target, CONNECT_DEADLINE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(CONNECT_DEADLINE))?;
            if let Door::Redis(door) = self {
                redis::greet(&stream, door.login())?;
            }
            stream.set_nonblocking(true)?;
            Ok(stream.into())
        };
        connect().map_err(|error: io::Error| LoadError::Publish(format!("{target}: {error}")))
    }
}

/// A publish without its answer.
struct UnderWay {
    stream: u32,
    seq: u64,
    sent_us: u64,
}

/// What the publishers of a run counted.
pub struct Outbox {
    /// Publishes on each stream, refused ones included: the next number.
    pub published: Vec<u64>,
    /// Their sum.
    pub written: u64,
    /// Publishes not taken.
    pub refused: Refused,
    /// Their number.
    pub refusals: u64,
    /// Deliveries the taken ones must bring; refused ones are taken back out.
    pub expected: i64,
    /// Publishes answered.
    pub answered: u64,
    /// Publishes taken in the measured phase.
    pub answered_measured: u64,
    /// What the answers said was delivered.
    pub delivered_to: u64,
    /// From `sent_us` to the answer, of publishes in the measured phase.
    pub answer_us: Histogram<u64>,
    /// From the time it was due to the time it was written.
    pub lateness_us: Histogram<u64>,
    /// The first few refusals.
    pub troubles: Vec<String>,
}

impl Outbox {
    /// For so many streams.
    pub fn new(streams: usize) -> Outbox {
        Outbox {
            published: vec![0; streams],
            written: 0,
            refused: Refused::default(),
            refusals: 0,
            expected: 0,
            answered: 0,
            answered_measured: 0,
            delivered_to: 0,
            answer_us: histogram(),
            lateness_us: histogram(),
            troubles: Vec::new(),
        }
    }

    fn trouble(&mut self, text: String) {
        if self.troubles.len() < TROUBLES_MAX {
            self.troubles.push(text);
        }
    }
}

/// One publisher.
pub struct Publisher {
    /// Its connection.
    pub socket: OwnedFd,
    /// Whether the poller was told about waiting output.
    pub wants_write: bool,
    /// When the next publish is due.
    pub arrival: Arrival,
    target: SocketAddr,
    door: Door,
    deck: Deck,
    pipeline: usize,
    outgoing: Outgoing,
    incoming: Vec<u8>,
    under_way: VecDeque<UnderWay>,
}

impl Publisher {
    /// Connects and logs in.
    pub fn connect(target: SocketAddr, door: Door, deck: Deck, pipeline: usize) -> Result<Publisher, LoadError> {
        Ok(Publisher {
            socket: door.connect(target)?,
            wants_write: false,
            arrival: Arrival::Closed,
            target,
            door,
            deck,
            pipeline,
            outgoing: Outgoing::default(),
            incoming: Vec::new(),
            under_way: VecDeque::new(),
        })
    }

    /// Whether output waits for the socket.
    pub fn is_blocked(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether it can take one more publish now.
    pub fn has_room(&self) -> bool {
        self.under_way.len() < self.pipeline
    }

    /// Publishes without an answer.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Writes the next publish if one is due and there is room; answers its stream.
    pub fn publish(
        &mut self,
        now_us: u64,
        stationery: &Stationery,
        outbox: &mut Outbox,
        fanout: impl Fn(u32) -> u32,
    ) -> Option<u32> {
        if !self.has_room() {
            return None;
        }
        let sent_us = self.arrival.take(now_us)?;
        let stream = self.deck.deal()?;
        let seq = outbox.published[stream as usize];
        outbox.published[stream as usize] += 1;
        outbox.written += 1;
        outbox.expected += i64::from(fanout(stream));
        outbox.lateness_us.saturating_record(now_us - sent_us);
        self.door.write(self.outgoing.buffer(), stationery, stream, seq, sent_us);
        self.under_way.push_back(UnderWay { stream, seq, sent_us });
        Some(stream)
    }

    /// Writes what waits. The sentence says why the connection is over.
    pub fn flush(&mut self) -> Result<(), String> {
        match self.outgoing.flush(&self.socket) {
            Moved::Bytes(_) | Moved::Later => Ok(()),
            Moved::Ended => Err("ended".to_owned()),
            Moved::Failed(error) => Err(error.to_string()),
        }
    }

    /// Reads answers. The sentence says why the connection is over.
    pub fn read(
        &mut self,
        buffer: &mut [u8],
        now_us: u64,
        measured: &std::ops::Range<u64>,
        outbox: &mut Outbox,
        fanout: impl Fn(u32) -> u32,
    ) -> Result<(), String> {
        match socket::receive(&self.socket, buffer) {
            Moved::Bytes(bytes) => self.incoming.extend_from_slice(&buffer[..bytes]),
            Moved::Later => return Ok(()),
            Moved::Ended => return Err("the server closed the connection".to_owned()),
            Moved::Failed(error) => return Err(error.to_string()),
        }
        let mut used = 0;
        while let Some((answer, bytes)) = self.door.read(&self.incoming[used..])? {
            used += bytes;
            let publish = self.under_way.pop_front().ok_or("an answer nobody asked for")?;
            outbox.answered += 1;
            if measured.contains(&publish.sent_us) {
                outbox.answered_measured += u64::from(matches!(answer, Answer::Accepted(_)));
                outbox.answer_us.saturating_record(now_us.saturating_sub(publish.sent_us));
            }
            match answer {
                Answer::Accepted(count) => outbox.delivered_to += count,
                Answer::Refused(reason) => refuse(&publish, reason, outbox, &fanout),
            }
        }
        self.incoming.drain(..used);
        Ok(())
    }

    /// Replaces a connection that is over. What was under way on it may or may not have been taken, so nobody is
    /// blamed for losing it, but the run counts it as refused.
    pub fn reconnect(
        &mut self,
        reason: &str,
        outbox: &mut Outbox,
        fanout: impl Fn(u32) -> u32,
    ) -> Result<(), LoadError> {
        for publish in std::mem::take(&mut self.under_way) {
            refuse(&publish, format!("no answer: {reason}"), outbox, &fanout);
        }
        self.outgoing = Outgoing::default();
        self.incoming.clear();
        self.wants_write = false;
        self.socket = self.door.connect(self.target)?;
        Ok(())
    }
}

fn refuse(publish: &UnderWay, reason: String, outbox: &mut Outbox, fanout: impl Fn(u32) -> u32) {
    outbox.refused.add(publish.stream, publish.seq);
    outbox.refusals += 1;
    outbox.expected -= i64::from(fanout(publish.stream));
    outbox.trouble(format!("stream {} seq {}: {reason}", publish.stream, publish.seq));
}
