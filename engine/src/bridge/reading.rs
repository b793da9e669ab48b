//! What this node reads of what is published to Redis: since when without a break, and which mail. Written by the subscription, read
//! by the bridge, on one shard.
use super::repeats::Repeats;
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storage::redis::status::FeedStatus;

/// One subscription.
#[derive(Debug)]
pub(crate) struct Reading {
    status: Arc<FeedStatus>,
    /// Where other nodes read the same and keep it in the same place. Nobody waits for it: both are on one thread.
    mail: Option<Mutex<Mail>>,
}

#[derive(Debug, Default)]
struct Mail {
    repeats: Repeats,
    /// The first that was read since the last break.
    first: Option<Claim>,
    /// When something came that was read before everything is subscribed to.
    begun_us: Option<u64>,
}

impl Reading {
    /// Of the subscription with this status. `is_one_of_many`: other nodes read the same, and keep mail in the same place.
    pub(crate) fn new(status: Arc<FeedStatus>, is_one_of_many: bool) -> Reading {
        Reading { status, mail: is_one_of_many.then(Mutex::default) }
    }

    /// How the subscription does.
    pub(crate) fn status(&self) -> &Arc<FeedStatus> {
        &self.status
    }

    /// Since when nothing was missed, on the monotonic clock. None while the subscription is not there.
    pub(crate) fn since_us(&self) -> Option<u64> {
        self.status.healthy_since_us()
    }

    fn mail(&self) -> Option<MutexGuard<'_, Mail>> {
        self.mail.as_ref().map(|mail| mail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The claim of mail that is read now; none where nobody else reads it.
    pub(crate) fn claim(&self, now: Now, channel: &[u8], payload: &[u8]) -> Option<Claim> {
        let mut mail = self.mail()?;
        let since_us = self.since_us();
        let reads_since_us = since_us.or(mail.begun_us).unwrap_or(now.mono_us);
        mail.begun_us = Some(reads_since_us).filter(|_| since_us.is_none());
        let claim = Claim { reads_since_us, ..mail.repeats.claim(now, channel, payload) };
        if mail.first.is_none_or(|first| first.reads_since_us != reads_since_us) {
            mail.first = Some(claim);
        }
        Some(claim)
    }

    /// A canary of this node came back.
    pub(crate) fn canary(&self, now: Now, sent_us: u64) {
        self.mail().into_iter().for_each(|mut mail| mail.repeats.canary(now, sent_us));
    }

    /// The first mail that was read since the last break, if any was.
    pub(crate) fn first(&self) -> Option<Claim> {
        self.mail()?.first.filter(|first| self.since_us() == Some(first.reads_since_us))
    }

    /// Whether this mail was read in the last [`protocol::limits::CLUSTER_REPEATS_MS`], as far as it is remembered.
    pub(crate) fn has_read(&self, claim: Claim) -> bool {
        self.mail().is_some_and(|mail| mail.repeats.has(claim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_us: ms * 1_000, unix_ns: 0 }
    }

    #[test]
    fn what_was_read_first_is_what_came_first_after_a_break() {
        let reading = Reading::new(Arc::new(FeedStatus::up_since(1_000)), true);
        assert_eq!(reading.first(), None);
        let first = reading.claim(at(2), b"c", b"a").unwrap();
        let second = reading.claim(at(3), b"c", b"b").unwrap();
        assert_eq!((reading.first(), first.reads_since_us, second.reads_since_us), (Some(first), 1_000, 1_000));
        assert!(reading.has_read(first) && reading.has_read(second) && !reading.has_read(Claim::of(b"c", b"x", 0)));
    }

    #[test]
    fn what_comes_before_all_is_subscribed_to_is_of_one_time() {
        let status = Arc::new(FeedStatus::new());
        let reading = Reading::new(Arc::clone(&status), true);
        let since = |at_ms, payload: &[u8]| reading.claim(at(at_ms), b"c", payload).unwrap().reads_since_us;
        assert_eq!((since(1, b"a"), since(2, b"b"), reading.first()), (1_000, 1_000, None));
    }

    #[test]
    fn where_nobody_else_reads_nothing_is_claimed() {
        let reading = Reading::new(Arc::default(), false);
        assert_eq!((reading.claim(at(2), b"c", b"a"), reading.first(), reading.since_us()), (None, None, None));
    }
}
