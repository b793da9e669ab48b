//! Connections that wait for the cluster's word on whether there is room for them, by when they stop waiting.
use crate::key::ConnKey;
use protocol::limits;
use std::collections::VecDeque;

/// Who asked within the last [`limits::CLUSTER_ADMISSION_DEADLINE_MS`], whether or not the answer came: as many as
/// connected in that time.
#[derive(Debug, Default)]
pub struct Admissions(VecDeque<(u64, ConnKey)>);

impl Admissions {
    /// The bridge is about to be asked.
    pub fn ask(&mut self, key: ConnKey, now_ms: u64) {
        self.0.push_back((now_ms + limits::CLUSTER_ADMISSION_DEADLINE_MS, key));
    }

    /// Somebody whose time is over, though the answer may have come.
    pub fn expire(&mut self, now_ms: u64) -> Option<ConnKey> {
        self.0.front().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        self.0.pop_front().map(|(_, key)| key)
    }

    /// When [`Admissions::expire`] has something to do, in milliseconds on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        self.0.front().map(|(at_ms, _)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_due_in_the_order_of_asking() {
        let mut admissions = Admissions::default();
        let key = |slot| ConnKey { slot, generation: 0 };
        admissions.ask(key(1), 0);
        admissions.ask(key(2), 10);
        let due_ms = admissions.due_ms().unwrap();
        assert_eq!(admissions.expire(due_ms - 1), None);
        assert_eq!((admissions.expire(due_ms), admissions.expire(due_ms)), (Some(key(1)), None));
        assert_eq!((admissions.expire(due_ms + 10), admissions.due_ms()), (Some(key(2)), None));
    }
}
