//! Which repetition of a Redis message this is, so that every node that reads it makes the same claim of it. No socket.
//!
//! Equal messages are counted as long as they come within [`limits::CLUSTER_REPEATS_MS`] of each other. A node that came
//! later, or missed one, counts otherwise; then mail is kept a little later, by whoever waits for a word that does not
//! come, but neither twice nor never: the store takes each claim once, and numbers that were claimed before the message can
//! have been there do not count. That moment is when the node sent its last canary that it has heard: Redis keeps the order.
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use protocol::limits;
use std::collections::HashMap;

/// The counts of now and of the time before; what is not asked for in either is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    young: HashMap<u128, u32>,
    old: HashMap<u128, u32>,
    since_us: u64,
    /// When the last canary was sent that was heard; 0 before the first.
    after_us: u64,
}

impl Repeats {
    /// What is heard from now on was published after this canary of this node was sent.
    pub(crate) fn canary(&mut self, now: Now, sent_us: u64) {
        // One from the future is somebody else's.
        if sent_us <= now.mono_us {
            self.after_us = self.after_us.max(sent_us);
        }
    }

    /// The claim of a message that is read now.
    pub(crate) fn claim(&mut self, now: Now, channel: &[u8], payload: &[u8]) -> Claim {
        let is_over = now.mono_us >= self.since_us.saturating_add(limits::CLUSTER_REPEATS_MS * 1_000);
        if is_over || self.young.len() >= limits::CLUSTER_REPEATS_MAX {
            self.old = std::mem::take(&mut self.young);
            self.since_us = now.mono_us;
        }
        let first = Claim::of(channel, payload, 0);
        let before = self.young.get(&first.hash).or_else(|| self.old.get(&first.hash)).copied();
        let nth = before.map_or(0, |nth| nth.wrapping_add(1));
        self.young.insert(first.hash, nth);
        Claim { nth, after_us: self.after_us, ..first }
    }

    /// Whether it was read, as far as that is remembered, in whatever repetition.
    pub(crate) fn has(&self, claim: Claim) -> bool {
        self.young.contains_key(&claim.hash) || self.old.contains_key(&claim.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_us: ms * 1_000, unix_ns: 0 }
    }

    #[test]
    fn equal_messages_are_counted_and_others_are_not() {
        let mut repeats = Repeats::default();
        let mut nth = |ms, payload: &[u8]| repeats.claim(at(ms), b"c", payload).nth;
        assert_eq!((nth(0, b"a"), nth(0, b"b"), nth(0, b"a")), (0, 0, 1));
        let ms = limits::CLUSTER_REPEATS_MS;
        assert_eq!((nth(ms, b"a"), nth(2 * ms, b"a")), (2, 3));
        assert_eq!((nth(4 * ms, b"x"), nth(6 * ms, b"y"), nth(6 * ms, b"a")), (0, 0, 0), "it is forgotten");
    }

    #[test]
    fn a_message_was_published_after_the_canary_that_was_heard_before_it() {
        let mut repeats = Repeats::default();
        let mut heard = |ms, canary: Option<u64>| {
            canary.into_iter().for_each(|sent_ms| repeats.canary(at(ms), sent_ms * 1_000));
            repeats.claim(at(ms), b"c", b"a").after_us
        };
        assert_eq!(heard(1, None), 0);
        assert_eq!(heard(2_000, Some(1_500)), 1_500_000);
        assert_eq!(heard(2_000, Some(1_000)), 1_500_000, "another process had this name");
        assert_eq!(heard(2_001, Some(9_000)), 1_500_000, "likewise");
    }

    #[test]
    fn no_more_are_remembered_than_may_be() {
        let mut repeats = Repeats::default();
        for n in 0..3 * limits::CLUSTER_REPEATS_MAX {
            repeats.claim(at(0), b"c", &n.to_le_bytes());
        }
        assert!(repeats.young.len() + repeats.old.len() <= 2 * limits::CLUSTER_REPEATS_MAX);
    }
}
