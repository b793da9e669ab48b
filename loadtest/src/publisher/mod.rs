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
    /// Taken; the count it named (connections by REST, mailboxes for a backlog by REST, subscribers by Redis).
    Accepted(u64),
    /// Not taken, and why.
    Refused(String),
    /// For each notification of a batch, the count, or why it was not taken.
    Batch(Vec<Result<u64, String>>),
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

    /// Ends a publish whose notifications were written.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Door::Rest(door) = self {
            door.finish(out);
        }
    }

    /// Notifications of one publish.
    fn batch_size(&self) -> usize {
        match self {
            Door::Rest(door) => door.batch_size(),
            Door::Redis(_) => 1,
        }
    }

    fn read(&self, bytes: &[u8]) -> Reply {
        match self {
            Door::Rest(door) => door.read(bytes),
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

/// A notification without its answer.
struct UnderWay {
    stream: u32,
    seq: u64,
    sent_us: u64,
}

/// What the publishers of a run counted.
pub struct Outbox {
    /// Notifications on each stream, refused ones included: the next number.
    pub published: Vec<u64>,
    /// Their sum.
    pub written: u64,
    /// Notifications not taken.
    pub refused: Refused,
    /// Their number.
    pub refusals: u64,
    /// Deliveries the taken ones must bring; refused ones are taken back out.
    pub expected: i64,
    /// Publishes answered.
    pub answered: u64,
    /// Notifications taken in the measured phase.
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
    /// Notifications of one publish.
    batch_size: usize,
    /// Notifications yet to publish.
    left: u64,
    outgoing: Outgoing,
    incoming: Vec<u8>,
    under_way: VecDeque<UnderWay>,
}

impl Publisher {
    /// Connects and logs in. It publishes `quota` notifications and no more.
    pub fn connect(
        target: SocketAddr,
        door: Door,
        deck: Deck,
        pipeline: usize,
        quota: u64,
    ) -> Result<Publisher, LoadError> {
        Ok(Publisher {
            socket: door.connect(target)?,
            wants_write: false,
            arrival: Arrival::Closed,
            target,
            batch_size: door.batch_size(),
            door,
            deck,
            pipeline,
            left: quota,
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
        self.left > 0 && self.under_way.len() < self.pipeline * self.batch_size
    }

    /// Whether its quota is published and answered.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.under_way.is_empty()
    }

    /// Notifications without an answer.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Writes the next publish if one is due and there is room; names the stream of each notification, and answers how
    /// many those were.
    pub fn publish(
        &mut self,
        now_us: u64,
        stationery: &Stationery,
        outbox: &mut Outbox,
        fanout: impl Fn(u32) -> u32,
        mut on_notification: impl FnMut(u32),
    ) -> u64 {
        if !self.has_room() {
            return 0;
        }
        let Some(sent_us) = self.arrival.take(now_us) else { return 0 };
        outbox.lateness_us.saturating_record(now_us - sent_us);
        let mut written = 0;
        // A deck deals without end, or nothing at all.
        while written < self.left.min(self.batch_size as u64)
            && let Some(stream) = self.deck.deal()
        {
            let seq = outbox.published[stream as usize];
            outbox.published[stream as usize] += 1;
            outbox.expected += i64::from(fanout(stream));
            self.door.write(self.outgoing.buffer(), stationery, stream, seq, sent_us);
            self.under_way.push_back(UnderWay { stream, seq, sent_us });
            on_notification(stream);
            written += 1;
        }
        self.door.finish(self.outgoing.buffer());
        outbox.written += written;
        self.left -= written;
        written
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
            let sent_us = self.under_way.front().ok_or("an answer nobody asked for")?.sent_us;
            let is_measured = measured.contains(&sent_us);
            outbox.answered += 1;
            if is_measured {
                outbox.answer_us.saturating_record(now_us.saturating_sub(sent_us));
            }
            let answered = self.batch_size.min(self.under_way.len());
            for (place, publish) in self.under_way.drain(..answered).enumerate() {
                match verdict(&answer, place, self.batch_size, fanout(publish.stream)) {
                    Ok(count) => {
                        outbox.delivered_to += count;
                        outbox.answered_measured += u64::from(is_measured);
                    }
                    Err(reason) => refuse(&publish, reason, outbox, &fanout),
                }
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

/// What an answer says of the notification at `place` of its publish: the count, or why it was not taken.
fn verdict(answer: &Answer, place: usize, batch_size: usize, fanout: u32) -> Result<u64, String> {
    match answer {
        Answer::Accepted(count) => Ok(*count),
        Answer::Refused(reason) => Err(reason.clone()),
        Answer::Batch(receipts) if receipts.len() != batch_size => {
            Err(format!("{} receipts for {batch_size} notifications", receipts.len()))
        }
        Answer::Batch(receipts) => match &receipts[place] {
            // Each is to one user, who has one connection; one that does not read may be gone.
            Ok(count) if (u64::from(fanout)..=1).contains(count) => Ok(*count),
            Ok(count) => Err(format!("the receipt says {count} deliveries where {fanout} was expected")),
            Err(reason) => Err(reason.clone()),
        },
    }
}

fn refuse(publish: &UnderWay, reason: String, outbox: &mut Outbox, fanout: impl Fn(u32) -> u32) {
    outbox.refused.add(publish.stream, publish.seq);
    outbox.refusals += 1;
    outbox.expected -= i64::from(fanout(publish.stream));
    outbox.trouble(format!("stream {} seq {}: {reason}", publish.stream, publish.seq));
}
