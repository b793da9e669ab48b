//! The word that ends a node, and how its shards leave together.
use crate::mesh::Bell;
use protocol::limits::SHUTDOWN_DEADLINE_MS;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Tells every shard to stop, from any thread, once.
///
/// A shard that has closed its last connection goes on serving the mesh until all others have, too: they may still
/// need its answers, or its link to another server.
#[derive(Debug)]
pub struct StopSignal {
    raised: AtomicBool,
    /// Shards that still have connections.
    serving: AtomicUsize,
    bells: Vec<Bell>,
}

impl StopSignal {
    /// For the shards with these bells, all of them.
    pub fn new(bells: Vec<Bell>) -> StopSignal {
        StopSignal { raised: AtomicBool::new(false), serving: AtomicUsize::new(bells.len()), bells }
    }

    /// Tells all shards. Returns at once; a second call changes nothing.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.bells.iter().for_each(Bell::ring);
    }

    /// Whether the node stops.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// A shard has closed its last connection; called once by each.
    pub(super) fn leave(&self) {
        if self.serving.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.bells.iter().for_each(Bell::ring);
        }
    }

    /// Whether every shard has.
    pub(super) fn all_have_left(&self) -> bool {
        self.serving.load(Ordering::Acquire) == 0
    }
}

/// How long a shard waits for guests that owe something, after its last connection is gone. A guest that is at a loss
/// (its server is down) owes for ever, and a stop should not take all of its deadline because of it.
const GUESTS_FLUSH_US: u64 = 1_000_000;

/// How far one shard has come with leaving; times on `Now::mono_us`.
#[derive(Debug)]
pub(super) struct Leaving {
    deadline_us: u64,
    empty_since_us: Option<u64>,
    left: bool,
}

/// Whether a shard may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not yet.
    Stay,
    /// It and all others are done.
    Done,
    /// [`SHUTDOWN_DEADLINE_MS`] are over.
    Late,
}

impl Leaving {
    /// The word has come.
    pub(super) fn new(now_us: u64) -> Leaving {
        Leaving { deadline_us: now_us + SHUTDOWN_DEADLINE_MS * 1_000, empty_since_us: None, left: false }
    }

    /// When to look again at the latest.
    pub(super) fn next_deadline_us(&self) -> u64 {
        match self.empty_since_us {
            Some(empty_since_us) if !self.left => self.deadline_us.min(empty_since_us + GUESTS_FLUSH_US),
            _ => self.deadline_us,
        }
    }

    /// Looks, and tells the others when this shard is done: when it has no connection and its guests owe nothing.
    pub(super) fn look(&mut self, now_us: u64, signal: &StopSignal, empty: bool, guests_owe: bool) -> Verdict {
        if empty && !self.left {
            let empty_since_us = *self.empty_since_us.get_or_insert(now_us);
            if !guests_owe || now_us >= empty_since_us + GUESTS_FLUSH_US {
                self.left = true;
                signal.leave();
            }
        }
        if empty && self.left && signal.all_have_left() {
            return Verdict::Done;
        }
        if now_us >= self.deadline_us { Verdict::Late } else { Verdict::Stay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    fn signal(shards: usize) -> StopSignal {
        StopSignal::new((0..shards).map(|_| Bell::new().unwrap()).collect())
    }

    #[test]
    fn shards_leave_together() {
        let signal = signal(2);
        assert!(!signal.is_raised());
        signal.raise();
        assert!(signal.is_raised());
        let (mut first, mut second) = (Leaving::new(0), Leaving::new(0));
        assert_eq!(first.look(0, &signal, true, false), Verdict::Stay, "the second still serves");
        assert_eq!(second.look(0, &signal, false, false), Verdict::Stay);
        assert_eq!(second.look(SECOND_US, &signal, true, false), Verdict::Done);
        assert_eq!(first.look(SECOND_US, &signal, false, false), Verdict::Stay, "somebody was on the way to it");
        assert_eq!(first.look(SECOND_US, &signal, true, false), Verdict::Done);
    }

    #[test]
    fn guests_that_owe_are_waited_for_a_while() {
        let signal = signal(1);
        let mut leaving = Leaving::new(0);
        assert_eq!(leaving.next_deadline_us(), SHUTDOWN_DEADLINE_MS * 1_000);
        assert_eq!(leaving.look(SECOND_US, &signal, true, true), Verdict::Stay);
        assert_eq!(leaving.next_deadline_us(), SECOND_US + GUESTS_FLUSH_US);
        assert_eq!(leaving.look(SECOND_US + GUESTS_FLUSH_US - 1, &signal, true, true), Verdict::Stay);
        assert_eq!(leaving.look(SECOND_US + GUESTS_FLUSH_US, &signal, true, true), Verdict::Done);
    }

    #[test]
    fn the_deadline_ends_everything() {
        let signal = signal(1);
        let mut leaving = Leaving::new(SECOND_US);
        let deadline_us = SECOND_US + SHUTDOWN_DEADLINE_MS * 1_000;
        assert_eq!(leaving.look(deadline_us - 1, &signal, false, false), Verdict::Stay);
        assert_eq!(leaving.look(deadline_us, &signal, false, false), Verdict::Late);
    }
}
