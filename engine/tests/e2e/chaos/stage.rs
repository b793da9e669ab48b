//! What the threads of one test tell each other.
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How far the test has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everybody keeps to their habit.
    Run,
    /// Nobody publishes; everybody comes and stays.
    Gather,
    /// Everybody was sent a last word.
    LastWord,
}

/// How long the end may take until the books are checked as they are.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Debug)]
struct State {
    phase: Phase,
    gathered: usize,
    /// The number of the last publish to each user.
    last_words: BTreeMap<usize, usize>,
    give_up: Option<Instant>,
}

/// Where publishers and users meet.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) port: u16,
    /// Whether clients acknowledge.
    pub(crate) acknowledges: bool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Stage {
    pub(crate) fn new(port: u16, acknowledges: bool) -> Stage {
        let state = State { phase: Phase::Run, gathered: 0, last_words: BTreeMap::new(), give_up: None };
        Stage { port, acknowledges, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// A user is there and stays.
    pub(crate) fn gathered(&self) {
        self.state().gathered += 1;
        self.changed.notify_all();
    }

    /// Ends the run.
    pub(crate) fn gather(&self) {
        self.state().phase = Phase::Gather;
        self.changed.notify_all();
    }

    /// Waits until that many users are there; false when the test has failed meanwhile.
    pub(crate) fn await_gathered(&self, count: usize) -> bool {
        let (state, late) = self
            .changed
            .wait_timeout_while(self.state(), PATIENCE, |state| state.gathered < count && state.give_up.is_none())
            .expect("nobody panics while holding it");
        assert!(!late.timed_out(), "{} of {count} users came", state.gathered);
        state.give_up.is_none()
    }

    /// Sends everybody home: the test has failed.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        (state.phase, state.give_up) = (Phase::Gather, Some(Instant::now()));
        self.changed.notify_all();
    }

    /// The last word to this user has this number.
    pub(crate) fn last_word_was(&self, user: usize, n: usize) {
        self.state().last_words.insert(user, n);
    }

    /// All last words are accepted.
    pub(crate) fn await_last_words(&self) {
        let mut state = self.state();
        state.phase = Phase::LastWord;
        state.give_up = Some(Instant::now() + PATIENCE);
    }

    pub(crate) fn last_word(&self, user: usize) -> Option<usize> {
        self.state().last_words.get(&user).copied()
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.state().give_up.is_some_and(|at| at <= Instant::now())
    }

    /// Waits until `due` or the end of the run; false at the latter.
    pub(crate) fn pace(&self, due: Instant) -> bool {
        let wait = due.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.state(), wait, |state| state.phase == Phase::Run);
        waited.expect("nobody panics while holding it").0.phase == Phase::Run
    }
}

/// Sends everybody home when the test fails, so that its threads end, too.
#[derive(Debug)]
pub(crate) struct Curtain<'a>(pub(crate) &'a Stage);

impl Drop for Curtain<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.abandon();
        }
    }
}
