//! What was asked, what was answered and what was heard, and the check of one against the other. Pure: it knows no
//! sockets, and its own tests show that it can fail.
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// How a publish was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 200 with `success` true.
    Accepted { delivered_to: u64, queued: u64 },
    /// Any other answer.
    Refused(u16),
    /// The connection broke before an answer: nobody knows.
    Broken,
}

/// One publish. Its number is its place in [`Account::publishes`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publish {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) outcome: Outcome,
}

/// One notification as a client read it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reception {
    pub(crate) n: usize,
    /// `metadata.attempt`, 1 when absent.
    pub(crate) attempt: u64,
    pub(crate) at: Instant,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Close frames both ways, everything up to the end of the stream was read: nothing can be in between.
    Close,
    /// The server ended it, and everything up to the end was read.
    Server,
    /// A reset from the client: what its kernel had and the client had not read is gone.
    Reset,
    /// A long silence with an open socket, then a reset.
    Silence,
}

/// One connection of a user.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) opened: Instant,
    pub(crate) ended: Instant,
    pub(crate) end: End,
    /// The highest number that came to the client's kernel, read or not.
    pub(crate) highest: Option<usize>,
}

/// Everything about one user. A publisher sends to a user one by one, so numbers are the order of acceptance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) publishes: Vec<Publish>,
    /// Over all connections, in the order they were read.
    pub(crate) receptions: Vec<Reception>,
    /// What lay unread in the client's kernel when it reset: the server rightly calls it delivered.
    pub(crate) unread: BTreeSet<usize>,
    pub(crate) visits: Vec<Visit>,
}

/// What the server promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Queue on, acknowledgements off: kept until written.
    Written,
    /// Both on: kept until acknowledged.
    Acknowledged,
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    Lost { n: usize, outcome: Outcome },
    RepeatedInSilence { n: usize },
    OutOfOrder { n: usize, after: usize },
    NeverSent { n: usize },
}

impl fmt::Display for Breach {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Breach::Lost { n, outcome } => write!(out, "{n} was accepted ({outcome:?}) and never came"),
            Breach::RepeatedInSilence { n } => write!(out, "{n} came again and did not say so"),
            Breach::OutOfOrder { n, after } => write!(out, "{n} came for the first time after {after}"),
            Breach::NeverSent { n } => write!(out, "{n} came and was never sent"),
        }
    }
}

/// How long before a reset or a server's death an answer may have been given whose frame was written after the client's
/// last look, or was not written at all.
const SAME_TURN: Duration = Duration::from_secs(1);

impl Account {
    /// The breaches of the promise, in no order. `deaths` are the moments at which the server was killed.
    ///
    /// - **Nothing is lost.** Every accepted publish was received. In the third class without exception. In the second
    ///   [`Account::may_be_lost`] says which may be missing.
    /// - **What comes twice says so.** From the second reception on `metadata.attempt` is at least 2. The first may
    ///   say so, too: a delivery is counted when it is begun.
    /// - **Order.** First receptions are in the order of publishing. That holds of refused publishes and of those
    ///   without an answer as well: the next one is sent when the one before has its answer, and what is late may not
    ///   slip in behind what was answered since (`docs/decisions/0007`). They come before all later ones or not at all.
    pub(crate) fn breaches(&self, class: Class, deaths: &[Instant]) -> Vec<Breach> {
        let mut breaches = Vec::new();
        let mut seen = BTreeSet::new();
        let mut last = None;
        for reception in &self.receptions {
            let n = reception.n;
            if n >= self.publishes.len() {
                breaches.push(Breach::NeverSent { n });
            } else if !seen.insert(n) {
                if reception.attempt < 2 {
                    breaches.push(Breach::RepeatedInSilence { n });
                }
            } else if last.is_some_and(|last| n < last) {
                breaches.push(Breach::OutOfOrder { n, after: last.unwrap_or_default() });
            } else {
                last = Some(n);
            }
        }
        for (n, publish) in self.publishes.iter().enumerate() {
            let accepted = matches!(publish.outcome, Outcome::Accepted { .. });
            if accepted && !seen.contains(&n) && !(class == Class::Written && self.may_be_lost(n, deaths)) {
                breaches.push(Breach::Lost { n, outcome: publish.outcome });
            }
        }
        breaches
    }

    /// In the second class a frame handed to the kernel is delivered. Missing may be, exactly:
    ///
    /// 1. what lay unread in the client's kernel when the client reset;
    /// 2. what the server wrote between the client's last look at its socket and its reset, which follow each other: it
    ///    was answered for within the last moments as delivered to a connection (`delivered_to` ≥ 1, so not stored), it
    ///    comes after all that the client's kernel had seen there, and nothing between the two came later as something
    ///    new (a connection is written in order, so what a reset takes is one run);
    /// 3. when the server was killed, what it had answered for in the same way within its last moments, after all that
    ///    the user's last connection had seen.
    fn may_be_lost(&self, n: usize, deaths: &[Instant]) -> bool {
        let publish = self.publishes[n];
        let Outcome::Accepted { delivered_to: 1.., .. } = publish.outcome else { return self.unread.contains(&n) };
        let is_just_before = |end: Instant| publish.sent <= end && publish.answered + SAME_TURN >= end;
        let is_beyond = |visit: &Visit| visit.highest.is_none_or(|highest| highest < n);
        let by_reset = self.visits.iter().any(|visit| {
            matches!(visit.end, End::Reset | End::Silence)
                && is_just_before(visit.ended)
                && is_beyond(visit)
                && !self.came_fresh_between(visit, n)
        });
        let by_death = deaths.iter().any(|&death| {
            let last = self.visits.iter().rev().find(|visit| visit.opened < death);
            is_just_before(death) && last.is_some_and(is_beyond)
        });
        self.unread.contains(&n) || by_reset || by_death
    }

    /// Whether something between what this visit had seen and `n` came after its end as something new.
    fn came_fresh_between(&self, visit: &Visit, n: usize) -> bool {
        let from = visit.highest.map_or(0, |highest| highest + 1);
        self.receptions.iter().any(|other| other.at > visit.ended && other.attempt == 1 && (from..n).contains(&other.n))
    }
}

/// What a test tells about itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) published: usize,
    pub(crate) accepted: usize,
    pub(crate) refused: usize,
    pub(crate) broken: usize,
    pub(crate) received: usize,
    pub(crate) repeated: usize,
    pub(crate) unread: usize,
    /// Accepted and never received; and how many of those no kernel was seen to have had.
    pub(crate) missing: usize,
    pub(crate) unseen: usize,
    pub(crate) visits: usize,
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "published {}, accepted {}, refused {}, broken {}; received {}, repeated {}; connections {}, unread at a \
             reset {}; accepted and missing {}, of which seen nowhere {}",
            self.published,
            self.accepted,
            self.refused,
            self.broken,
            self.received,
            self.repeated,
            self.visits,
            self.unread,
            self.missing,
            self.unseen
        )
    }
}

/// The accounts of all users.
#[derive(Debug, Default)]
pub(crate) struct Books(pub(crate) BTreeMap<usize, Account>);

impl Books {
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for account in self.0.values() {
            let received: BTreeSet<usize> = account.receptions.iter().map(|reception| reception.n).collect();
            for (n, publish) in account.publishes.iter().enumerate() {
                figures.published += 1;
                match publish.outcome {
                    Outcome::Accepted { .. } => figures.accepted += 1,
                    Outcome::Refused(_) => figures.refused += 1,
                    Outcome::Broken => figures.broken += 1,
                }
                let accepted = matches!(publish.outcome, Outcome::Accepted { .. });
                if accepted && !received.contains(&n) {
                    figures.missing += 1;
                    figures.unseen += usize::from(!account.unread.contains(&n));
                }
            }
            figures.received += received.len();
            figures.repeated += account.receptions.len() - received.len();
            figures.unread += account.unread.len();
            figures.visits += account.visits.len();
        }
        figures
    }

    /// Asserts that no promise was broken to anybody; says which, with what there is to know about each.
    #[track_caller]
    pub(crate) fn check(&self, class: Class, deaths: &[Instant], seed: u64) {
        let mut told = Vec::new();
        for (user, account) in &self.0 {
            for breach in account.breaches(class, deaths) {
                told.push(format!("u{user}: {breach}{}", account.story(breach, deaths)));
            }
        }
        let count = told.len();
        told.truncate(20);
        assert!(told.is_empty(), "seed {seed}, {class:?}: {count} breaches\n{}\n{}", told.join("\n"), self.figures());
    }
}

impl Account {
    /// Whether the last publish was received.
    pub(crate) fn has_heard_the_last(&self) -> bool {
        self.receptions.iter().any(|reception| reception.n + 1 == self.publishes.len())
    }

    /// The surroundings of a breach.
    fn story(&self, breach: Breach, deaths: &[Instant]) -> String {
        let (Breach::Lost { n, .. }
        | Breach::RepeatedInSilence { n }
        | Breach::OutOfOrder { n, .. }
        | Breach::NeverSent { n }) = breach;
        let Some(publish) = self.publishes.get(n) else { return String::new() };
        let ago = |at: Instant| match at.checked_duration_since(publish.sent) {
            Some(after) => format!("+{} ms", after.as_millis()),
            None => format!("-{} ms", (publish.sent - at).as_millis()),
        };
        let mut out = format!("; answered {} {:?}", ago(publish.answered), publish.outcome);
        for visit in self.visits.iter().filter(|visit| visit.ended >= publish.sent).take(3) {
            out += &format!(
                "; visit {} to {} by {:?}, highest {:?}",
                ago(visit.opened),
                ago(visit.ended),
                visit.end,
                visit.highest
            );
        }
        for reception in self.receptions.iter().filter(|reception| reception.n == n) {
            out += &format!("; read {} attempt {}", ago(reception.at), reception.attempt);
        }
        if let Some(after) = self.receptions.iter().find(|reception| reception.n > n) {
            out += &format!("; {} read {}", after.n, ago(after.at));
        }
        for death in deaths {
            out += &format!("; server killed {}", ago(*death));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moments of a test, in seconds.
    struct Day(Instant);

    impl Day {
        fn at(&self, second: f64) -> Instant {
            self.0 + Duration::from_secs_f64(second)
        }

        /// Publish `n` goes out at second `n` and is answered half a second later.
        fn account(&self, outcomes: &[Outcome], heard: &[(usize, u64, f64)]) -> Account {
            let publish = |(n, outcome): (usize, &Outcome)| Publish {
                sent: self.at(n as f64),
                answered: self.at(n as f64 + 0.5),
                outcome: *outcome,
            };
            let reception = |&(n, attempt, at): &(usize, u64, f64)| Reception { n, attempt, at: self.at(at) };
            Account {
                publishes: outcomes.iter().enumerate().map(publish).collect(),
                receptions: heard.iter().map(reception).collect(),
                ..Account::default()
            }
        }

        fn visit(&self, opened: f64, ended: f64, end: End, highest: Option<usize>) -> Visit {
            Visit { opened: self.at(opened), ended: self.at(ended), end, highest }
        }
    }

    const LIVE: Outcome = Outcome::Accepted { delivered_to: 1, queued: 0 };
    const KEPT: Outcome = Outcome::Accepted { delivered_to: 0, queued: 1 };
    const NO: Outcome = Outcome::Refused(503);

    #[test]
    fn what_was_promised_and_kept_is_no_breach() {
        let day = Day(Instant::now());
        for (outcomes, heard) in [
            (&[LIVE, KEPT, LIVE][..], &[(0, 1, 0.5), (1, 1, 1.5), (2, 1, 2.5)][..]),
            (&[KEPT, NO, KEPT], &[(0, 1, 5.0), (2, 1, 5.0)]),
            (&[KEPT, NO, KEPT], &[(0, 1, 5.0), (1, 2, 5.0), (2, 1, 5.0)]),
            (&[KEPT, Outcome::Broken, KEPT], &[(0, 1, 5.0), (1, 1, 5.0), (2, 1, 5.0)]),
            (&[KEPT, KEPT], &[(0, 1, 5.0), (0, 2, 5.0), (1, 3, 5.0), (0, 4, 6.0)]),
        ] {
            for class in [Class::Written, Class::Acknowledged] {
                assert_eq!(day.account(outcomes, heard).breaches(class, &[]), [], "{outcomes:?} {heard:?}");
            }
        }
    }

    #[test]
    fn each_broken_promise_is_found() {
        let day = Day(Instant::now());
        for (outcomes, heard, breach) in [
            (&[LIVE, LIVE][..], &[(1, 1, 5.0)][..], Breach::Lost { n: 0, outcome: LIVE }),
            (&[KEPT], &[], Breach::Lost { n: 0, outcome: KEPT }),
            (&[KEPT], &[(0, 1, 5.0), (0, 1, 6.0)], Breach::RepeatedInSilence { n: 0 }),
            (&[KEPT], &[(0, 2, 5.0), (0, 1, 6.0)], Breach::RepeatedInSilence { n: 0 }),
            (&[KEPT, KEPT], &[(1, 1, 5.0), (0, 1, 5.0)], Breach::OutOfOrder { n: 0, after: 1 }),
            (&[KEPT, KEPT], &[(1, 1, 5.0), (0, 2, 5.0)], Breach::OutOfOrder { n: 0, after: 1 }),
            (&[NO, KEPT], &[(1, 1, 5.0), (0, 1, 5.0)], Breach::OutOfOrder { n: 0, after: 1 }),
            (&[KEPT], &[(0, 1, 5.0), (7, 1, 5.0)], Breach::NeverSent { n: 7 }),
        ] {
            for class in [Class::Written, Class::Acknowledged] {
                assert_eq!(day.account(outcomes, heard).breaches(class, &[]), [breach], "{outcomes:?} {heard:?}");
            }
        }
    }

    /// Four live ones, of which the first came; the connection ended at second 3.5 in this way.
    fn cut(day: &Day, end: End, heard: &[(usize, u64, f64)]) -> Account {
        let mut account = day.account(&[LIVE, LIVE, LIVE, LIVE, KEPT], heard);
        account.visits = vec![day.visit(0.0, 3.5, end, Some(0)), day.visit(5.0, 9.0, End::Close, Some(4))];
        account
    }

    fn lost(account: &Account, class: Class, deaths: &[Instant]) -> Vec<usize> {
        let number = |breach| match breach {
            Breach::Lost { n, .. } => n,
            other => panic!("{other}"),
        };
        account.breaches(class, deaths).into_iter().map(number).collect()
    }

    #[test]
    fn only_a_reset_excuses_and_only_in_the_second_class() {
        let day = Day(Instant::now());
        let heard = [(0, 1, 0.5), (4, 1, 5.5)];
        for (end, missing) in
            [(End::Reset, &[1][..]), (End::Silence, &[1]), (End::Close, &[1, 2, 3]), (End::Server, &[1, 2, 3])]
        {
            let account = cut(&day, end, &heard);
            assert_eq!(lost(&account, Class::Written, &[]), missing, "{end:?}");
            assert_eq!(lost(&account, Class::Acknowledged, &[]), [1, 2, 3], "{end:?}");
        }
    }

    #[test]
    fn a_reset_takes_one_run_and_nothing_sent_later() {
        let day = Day(Instant::now());
        let account = cut(&day, End::Reset, &[(0, 1, 0.5), (2, 1, 5.5), (4, 1, 5.5)]);
        assert_eq!(lost(&account, Class::Written, &[]), [1, 3], "2 was not taken, so 3 was not either");
        let account = cut(&day, End::Reset, &[(0, 1, 0.5)]);
        assert_eq!(lost(&account, Class::Written, &[]), [1, 4], "long before it, and when it was gone");
        let mut account = cut(&day, End::Reset, &[(0, 1, 0.5), (4, 1, 5.5)]);
        account.publishes[3].outcome = KEPT;
        assert_eq!(lost(&account, Class::Written, &[]), [1, 3], "what was stored goes when it was seen to arrive");
        let mut account = cut(&day, End::Close, &[(0, 1, 0.5), (4, 1, 5.5)]);
        account.unread = BTreeSet::from([1, 3]);
        assert_eq!(lost(&account, Class::Written, &[]), [2], "seen in the kernel, or not");
    }

    #[test]
    fn a_killed_server_takes_its_last_moments_of_live_mail() {
        let day = Day(Instant::now());
        let heard = [(0, 1, 0.5), (4, 1, 5.5)];
        let account = cut(&day, End::Server, &heard);
        assert_eq!(lost(&account, Class::Written, &[day.at(3.5)]), [1], "2 and 3 were answered just before");
        assert_eq!(lost(&account, Class::Acknowledged, &[day.at(3.5)]), [1, 2, 3]);
        assert_eq!(lost(&account, Class::Written, &[day.at(9.0)]), [1, 2, 3], "long after");
        let mut account = cut(&day, End::Server, &heard);
        account.publishes[3].outcome = KEPT;
        assert_eq!(lost(&account, Class::Written, &[day.at(3.5)]), [1, 3], "what was stored outlives it");
    }
}
