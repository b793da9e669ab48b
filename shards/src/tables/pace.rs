//! How many requests of one kind a shard has under way at its store: many while they succeed, one now and then while they
//! do not.
use protocol::limits;

/// One kind's pace. Each success doubles what may be under way, each failure halves it; who fails alone makes all wait for
/// [`limits::STORE_RETRY_MS`]. So one mailbox that cannot be read hardly slows the others, and a store that is down is asked
/// twice a second.
#[derive(Debug)]
pub struct Pace {
    most: usize,
    allowed: usize,
    under_way: usize,
    resumes_at_ms: u64,
}

impl Pace {
    /// At most so many at once.
    pub fn new(most: usize) -> Pace {
        Pace { most, allowed: most, under_way: 0, resumes_at_ms: 0 }
    }

    /// Whether one more may be asked now.
    pub fn has_room(&self, now_ms: u64) -> bool {
        self.under_way < self.allowed && now_ms >= self.resumes_at_ms
    }

    /// When to look again, in milliseconds on the monotonic clock; `None` while answers are awaited.
    pub fn due_ms(&self) -> Option<u64> {
        (self.under_way < self.allowed).then_some(self.resumes_at_ms)
    }

    /// Asked, and not yet answered.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// One is asked.
    pub fn begin(&mut self) {
        self.under_way += 1;
    }

    /// One was done.
    pub fn succeeded(&mut self) {
        self.under_way -= 1;
        self.allowed = (self.allowed * 2).min(self.most);
    }

    /// One was not done, or nobody knows.
    pub fn failed(&mut self, now_ms: u64) {
        self.under_way -= 1;
        if self.allowed == 1 {
            self.rest(now_ms);
        }
        self.allowed = (self.allowed / 2).max(1);
    }

    /// Nothing is asked for [`limits::STORE_RETRY_MS`], and then one.
    pub fn rest(&mut self, now_ms: u64) {
        self.allowed = 1;
        self.resumes_at_ms = now_ms + limits::STORE_RETRY_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are asked of a store that answers at once, in `ms` looked at every millisecond.
    fn asked(pace: &mut Pace, from_ms: u64, ms: u64, fails: impl Fn(usize) -> bool) -> usize {
        let mut count = 0;
        for now_ms in from_ms..from_ms + ms {
            while pace.has_room(now_ms) && count < 1_000_000 {
                pace.begin();
                count += 1;
                if fails(count) {
                    pace.failed(now_ms)
                } else {
                    pace.succeeded()
                }
                if count % 1_000 == 0 {
                    break;
                }
            }
        }
        count
    }

    #[test]
    fn a_store_that_is_down_is_asked_twice_a_second() {
        let mut pace = Pace::new(64);
        let tries = asked(&mut pace, 0, 10_000, |_| true);
        assert!((20..32).contains(&tries), "{tries}");
        assert!(asked(&mut pace, 10_000, 1_000, |_| false) > 1_000, "it is back");
    }

    #[test]
    fn one_in_ten_that_fails_slows_nobody_down() {
        let mut pace = Pace::new(64);
        let done = asked(&mut pace, 0, 100, |count| count % 10 == 0);
        assert!(done >= 100_000, "{done}");
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut pace = Pace::new(4);
        while pace.has_room(0) {
            pace.begin();
        }
        assert_eq!((pace.under_way(), pace.due_ms()), (4, None));
        pace.failed(0);
        assert!(!pace.has_room(0), "three are under way and two are allowed");
    }
}
