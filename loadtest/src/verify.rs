//! The account of what arrived: loss, duplicates, order, latency.
use crate::scan::Mark;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Holes one (connection, stream) remembers one by one; beyond, they are only counted, so a late message beyond counts
/// as a duplicate.
const HOLES_MAX: usize = 4_096;
/// Sentences kept of each kind of trouble.
const TROUBLES_MAX: usize = 10;
/// Longest latency the histogram tells apart.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What one arrival means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The next one, or one beyond a hole.
    Fresh,
    /// One that fills a hole: it came out of order.
    Late,
    /// One that had come before.
    Duplicate,
    /// Of a stream this connection has no part in.
    Stray,
}

/// One stream at one connection.
#[derive(Debug, Default)]
struct Tracker {
    next: u64,
    holes: BTreeSet<u64>,
    holes_unremembered: u64,
}

impl Tracker {
    #[inline]
    fn take(&mut self, seq: u64) -> Arrived {
        if seq == self.next {
            self.next += 1;
            return Arrived::Fresh;
        }
        self.take_unexpected(seq)
    }

    #[cold]
    fn take_unexpected(&mut self, seq: u64) -> Arrived {
        if seq < self.next {
            let filled = self.holes.remove(&seq);
            return if filled { Arrived::Late } else { Arrived::Duplicate };
        }
        let room = HOLES_MAX.saturating_sub(self.holes.len()) as u64;
        let remembered = (seq - self.next).min(room);
        self.holes.extend(self.next..self.next + remembered);
        self.holes_unremembered += seq - self.next - remembered;
        self.next = seq + 1;
        Arrived::Fresh
    }

    /// Messages of the first `published` that never came, without those whose publish was refused.
    fn lost(&self, stream: u32, published: u64, refused: &Refused) -> u64 {
        let remembered = self.holes.iter().filter(|seq| !refused.contains(stream, **seq)).count() as u64;
        let tail = self.next..published.max(self.next);
        let refused_tail = refused.count(stream, tail.clone());
        remembered + self.holes_unremembered + (tail.end - tail.start) - refused_tail
    }
}

/// Publishes the server did not take: nobody is expected to receive them.
#[derive(Debug, Default)]
pub struct Refused(BTreeMap<u32, HashSet<u64>>);

impl Refused {
    /// Notes one.
    pub fn add(&mut self, stream: u32, seq: u64) {
        self.0.entry(stream).or_default().insert(seq);
    }

    fn contains(&self, stream: u32, seq: u64) -> bool {
        self.0.get(&stream).is_some_and(|seqs| seqs.contains(&seq))
    }

    fn count(&self, stream: u32, range: std::ops::Range<u64>) -> u64 {
        self.0.get(&stream).map_or(0, |seqs| seqs.iter().filter(|seq| range.contains(seq)).count() as u64)
    }
}

/// Everything one connection is to receive.
#[derive(Debug)]
pub struct Inbox {
    streams: Box<[(u32, Tracker)]>,
    last: usize,
    /// Messages that came, each counted once.
    pub received: u64,
    /// With so many it has everything; `u64::MAX` when that is not known beforehand.
    pub awaited: u64,
}

impl Inbox {
    /// An inbox for these streams.
    pub fn new(mut streams: Vec<u32>) -> Inbox {
        streams.sort_unstable();
        streams.dedup();
        let streams = streams.into_iter().map(|stream| (stream, Tracker::default())).collect();
        Inbox { streams, last: 0, received: 0, awaited: u64::MAX }
    }

    /// Accounts for one message.
    #[inline]
    pub fn take(&mut self, mark: Mark) -> Arrived {
        if self.streams.get(self.last).is_none_or(|(stream, _)| *stream != mark.stream) {
            match self.streams.binary_search_by_key(&mark.stream, |(stream, _)| *stream) {
                Ok(index) => self.last = index,
                Err(_) => return Arrived::Stray,
            }
        }
        let arrived = self.streams[self.last].1.take(mark.seq);
        if matches!(arrived, Arrived::Fresh | Arrived::Late) {
            self.received += 1;
        }
        arrived
    }

    /// Messages that never came, given how many were published on each stream.
    pub fn lost(&self, published: &[u64], refused: &Refused) -> u64 {
        let published = |stream: u32| published.get(stream as usize).copied().unwrap_or(0);
        self.streams.iter().map(|(stream, tracker)| tracker.lost(*stream, published(*stream), refused)).sum()
    }
}

/// What one thread counted.
#[derive(Debug)]
pub struct Tally {
    /// Messages that came, each counted once.
    pub received: u64,
    /// Of these, within the measured phase by the time they came.
    pub received_measured: u64,
    /// Out of order.
    pub late: u64,
    /// More than once.
    pub duplicates: u64,
    /// To a connection they were not for.
    pub strays: u64,
    /// Notifications of somebody else, or damaged.
    pub foreign: u64,
    /// What the full check found wrong.
    pub malformed: u64,
    /// Messages the full check read.
    pub verified: u64,
    /// Heartbeats and protocol pings.
    pub heartbeats: u64,
    /// `error` messages.
    pub errors: u64,
    /// Connections that ended before we ended them, where that was not to be expected.
    pub closed: u64,
    /// Of the clients that stopped reading, those the server closed.
    pub slow_closed: u64,
    /// Of these, those that it told why: 4008.
    pub slow_closed_4008: u64,
    /// Connections that never opened.
    pub failed: u64,
    /// Bytes read from clients' sockets.
    pub bytes: u64,
    /// From `sent_us` to the read, of messages sent in the measured phase, in microseconds.
    pub latency_us: Histogram<u64>,
    /// From the start of a connect until it can receive, in microseconds.
    pub connect_us: Histogram<u64>,
    /// From the start of a connect until the client has its whole backlog, in microseconds.
    pub backlog_us: Histogram<u64>,
    /// When the last client of this thread had its backlog, on the monotonic clock.
    pub backlog_done_us: u64,
    /// Acknowledgements sent.
    pub acks: u64,
    /// Acknowledgements answered `acked`.
    pub acked: u64,
    /// When the last of those answers came, on the monotonic clock.
    pub acked_us: u64,
    /// The first few sentences about what went wrong.
    pub troubles: Vec<String>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Tally {
        Tally {
            received: 0,
            received_measured: 0,
            late: 0,
            duplicates: 0,
            strays: 0,
            foreign: 0,
            malformed: 0,
            verified: 0,
            heartbeats: 0,
            errors: 0,
            closed: 0,
            slow_closed: 0,
            slow_closed_4008: 0,
            failed: 0,
            bytes: 0,
            latency_us: histogram(),
            connect_us: histogram(),
            backlog_us: histogram(),
            backlog_done_us: 0,
            acks: 0,
            acked: 0,
            acked_us: 0,
            troubles: Vec::new(),
        }
    }

    /// Keeps a sentence if there is room.
    pub fn trouble(&mut self, text: impl FnOnce() -> String) {
        if self.troubles.len() < TROUBLES_MAX {
            self.troubles.push(text());
        }
    }

    /// Adds another thread's.
    pub fn merge(&mut self, other: Tally) {
        self.received += other.received;
        self.received_measured += other.received_measured;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.strays += other.strays;
        self.foreign += other.foreign;
        self.malformed += other.malformed;
        self.verified += other.verified;
        self.heartbeats += other.heartbeats;
        self.errors += other.errors;
        self.closed += other.closed;
        self.slow_closed += other.slow_closed;
        self.slow_closed_4008 += other.slow_closed_4008;
        self.failed += other.failed;
        self.bytes += other.bytes;
        // Both have the same bounds, so adding cannot fail.
        let _ = self.latency_us.add(&other.latency_us);
        let _ = self.connect_us.add(&other.connect_us);
        let _ = self.backlog_us.add(&other.backlog_us);
        self.backlog_done_us = self.backlog_done_us.max(other.backlog_done_us);
        self.acks += other.acks;
        self.acked += other.acked;
        self.acked_us = self.acked_us.max(other.acked_us);
        let room = TROUBLES_MAX.saturating_sub(self.troubles.len());
        self.troubles.extend(other.troubles.into_iter().take(room));
    }
}

impl Default for Tally {
    fn default() -> Self {
        Tally::new()
    }
}

/// A latency histogram: 1 µs to 10 minutes, three digits.
pub fn histogram() -> Histogram<u64> {
    // The bounds are constants the constructor accepts.
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(stream: u32, seq: u64) -> Mark {
        Mark { stream, seq, sent_us: 0 }
    }

    fn check(seqs: &[u64], arrived: &[Arrived], published: u64, refused: &[u64], lost: u64) {
        let mut inbox = Inbox::new(vec![9, 4]);
        let heard: Vec<_> = seqs.iter().map(|seq| inbox.take(mark(9, *seq))).collect();
        assert_eq!(heard, arrived, "{seqs:?}");
        let mut all_refused = Refused::default();
        refused.iter().for_each(|seq| all_refused.add(9, *seq));
        let counts = [0, 0, 0, 0, 0, 0, 0, 0, 0, published];
        assert_eq!(inbox.lost(&counts, &all_refused), lost, "{seqs:?}");
    }

    #[test]
    fn loss_duplicates_and_order_are_told_apart() {
        use Arrived::{Duplicate, Fresh, Late};
        check(&[0, 1, 2], &[Fresh, Fresh, Fresh], 3, &[], 0);
        check(&[0, 2], &[Fresh, Fresh], 3, &[], 1);
        check(&[0, 2, 1], &[Fresh, Fresh, Late], 3, &[], 0);
        check(&[0, 1, 1], &[Fresh, Fresh, Duplicate], 2, &[], 0);
        check(&[2, 1, 1], &[Fresh, Late, Duplicate], 3, &[], 1);
        check(&[], &[], 5, &[], 5);
        check(&[0, 3], &[Fresh, Fresh], 6, &[1, 5], 2);
        check(&[9_999], &[Fresh], 10_000, &[], 9_999);
    }

    #[test]
    fn other_peoples_streams_are_strays() {
        let mut inbox = Inbox::new(vec![9, 4]);
        assert_eq!(inbox.take(mark(4, 0)), Arrived::Fresh);
        assert_eq!(inbox.take(mark(5, 0)), Arrived::Stray);
        assert_eq!(inbox.take(mark(9, 0)), Arrived::Fresh);
        assert_eq!(inbox.received, 2);
    }
}
