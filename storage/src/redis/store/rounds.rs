//! When to sweep, to give acknowledgements up, and to ask for the figures.
//!
//! A round begins when the one before is over and its interval has passed; one that found as much as it takes is followed
//! by the next at once.
use crate::backend::Chores;
use crate::redis::store::Kept;
use protocol::clock::Now;

/// When what is due, in microseconds; at once at first.
#[derive(Debug)]
pub(super) struct Rounds {
    chores: Chores,
    sweep_us: u64,
    expiry_us: u64,
    figures_us: u64,
    /// Commands of the sweep that are not answered.
    pub(super) sweeping: usize,
    /// Whether the sweep found as many mailboxes as it takes.
    more: bool,
    /// Whether an expiry is not answered.
    pub(super) expiring: bool,
}

impl Rounds {
    pub(super) fn new(chores: Chores) -> Rounds {
        Rounds { chores, sweep_us: 0, expiry_us: 0, figures_us: 0, sweeping: 0, more: false, expiring: false }
    }

    /// Whether a sweep is due; the next one is after its interval then.
    pub(super) fn begin_sweep(&mut self, now: Now) -> bool {
        let due = self.sweeping == 0 && now.mono_us >= self.sweep_us;
        if due {
            self.sweep_us = after(now, self.chores.queue_interval_ms);
            self.more = false;
        }
        due
    }

    /// Whether an expiry is due.
    pub(super) fn begin_expiry(&mut self, now: Now) -> bool {
        let due = !self.expiring && now.mono_us >= self.expiry_us;
        if due {
            self.expiry_us = after(now, self.chores.ack_interval_ms);
        }
        due
    }

    /// Whether the figures are to be asked for.
    pub(super) fn begin_figures(&mut self, now: Now) -> bool {
        let due = now.mono_us >= self.figures_us;
        if due {
            self.figures_us = after(now, self.chores.figures_interval_ms);
        }
        due
    }

    /// One command of a sweep was answered; `more` if it named as many mailboxes as it may.
    pub(super) fn swept(&mut self, now: Now, more: bool) {
        self.sweeping = self.sweeping.saturating_sub(1);
        self.more |= more;
        if self.sweeping == 0 && self.more {
            self.sweep_us = now.mono_us;
        }
    }

    /// An expiry was answered; `more` if it gave up as many as it may.
    pub(super) fn expired(&mut self, now: Now, more: bool) {
        self.expiring = false;
        if more {
            self.expiry_us = now.mono_us;
        }
    }

    /// When something is due; what is under way makes itself heard.
    pub(super) fn due_us(&self, kept: &Kept) -> Option<u64> {
        let sweep = (kept.mail.is_some() && self.sweeping == 0).then_some(self.sweep_us);
        let expiry = (kept.acks.is_some() && !self.expiring).then_some(self.expiry_us);
        [sweep, expiry, Some(self.figures_us)].into_iter().flatten().min()
    }
}

fn after(now: Now, interval_ms: u64) -> u64 {
    // An interval of 0 must not keep the thread busy.
    now.mono_us.saturating_add(interval_ms.max(1).saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_waits_for_its_interval_and_its_predecessor_unless_there_is_more() {
        let at = |mono_us| Now { mono_us, unix_ns: 0 };
        let chores = Chores { queue_interval_ms: 10, ack_interval_ms: 0, figures_interval_ms: 5 };
        let mut rounds = Rounds::new(chores);
        assert!(rounds.begin_sweep(at(0)) && rounds.begin_expiry(at(0)) && rounds.begin_figures(at(0)));
        assert!(!rounds.begin_sweep(at(9_999)) && !rounds.begin_figures(at(4_999)));
        assert!(rounds.begin_figures(at(5_000)));
        // The list of those that are due, and two of them.
        rounds.sweeping = 3;
        rounds.swept(at(10_000), true);
        assert!(!rounds.begin_sweep(at(10_000)));
        rounds.swept(at(10_001), false);
        rounds.swept(at(10_002), false);
        assert!(rounds.begin_sweep(at(10_002)), "there was more");
        assert!(!rounds.begin_sweep(at(20_001)) && rounds.begin_sweep(at(20_002)));
        rounds.expiring = true;
        assert!(!rounds.begin_expiry(at(1_000_000)));
        rounds.expired(at(1_000_000), true);
        assert!(rounds.begin_expiry(at(1_000_000)) && !rounds.begin_expiry(at(1_000_000)));
    }
}
