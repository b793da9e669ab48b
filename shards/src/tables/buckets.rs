//! Token buckets of one limit, for the identities whose home this shard is. Bounded and swept.
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::clock::Now;
use protocol::limits;
use protocol::rate_limit::bucket::Empty;
use protocol::rate_limit::{Bucket, Identity, LimitKind, Quota, Rate};

/// What became of a request at a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was counted.
    Passes(Quota),
    /// It was not.
    Refused {
        /// Nothing is left.
        quota: Quota,
        /// Until then, on the monotonic clock, every other one of the same identity is refused, too.
        until_us: u64,
    },
}

/// The buckets of one kind.
pub struct Buckets {
    kind: LimitKind,
    rate: Rate,
    max: usize,
    entries: Vec<(Identity, Bucket)>,
    index: HashMap<Identity, u32, RandomState>,
    /// For newcomers who find no room, all together.
    crowd: Bucket,
    /// Where the next look for a full bucket begins.
    hand: usize,
    /// Where the sweep that is under way goes on.
    swept: Option<usize>,
    sweep_at_ms: u64,
    sweep_interval_ms: u64,
}

impl Buckets {
    /// None yet; swept at this interval.
    pub fn new(kind: LimitKind, rate: Rate, sweep_interval_ms: u64) -> Buckets {
        Buckets::bounded(kind, rate, sweep_interval_ms, limits::RATE_LIMIT_BUCKETS_MAX)
    }

    fn bounded(kind: LimitKind, rate: Rate, sweep_interval_ms: u64, max: usize) -> Buckets {
        Buckets {
            kind,
            rate,
            max,
            entries: Vec::new(),
            index: HashMap::default(),
            crowd: Bucket::full(&rate, 0),
            hand: 0,
            swept: None,
            sweep_at_ms: 0,
            sweep_interval_ms,
        }
    }

    /// Counts a request. An identity is in its own bucket, always; a newcomer above the bound gets the place of one whose
    /// bucket is full, or else shares a bucket with all that come while there is no room.
    pub fn count(&mut self, now: Now, identity: Identity) -> Verdict {
        let at = self.place(now, identity);
        let bucket = match at {
            Some(at) => &mut self.entries[at].1,
            None => &mut self.crowd,
        };
        verdict(self.kind, &self.rate, bucket, now)
    }

    /// Where the bucket of an identity is; `None` when there is none and no room for one.
    fn place(&mut self, now: Now, identity: Identity) -> Option<usize> {
        if let Some(at) = self.index.get(&identity) {
            return Some(*at as usize);
        }
        let fresh = (identity, Bucket::full(&self.rate, now.mono_us));
        if self.entries.len() < self.max {
            if self.entries.is_empty() {
                self.sweep_at_ms = now.mono_ms() + self.sweep_interval_ms;
            }
            self.index.insert(identity, self.entries.len() as u32);
            self.entries.push(fresh);
            return Some(self.entries.len() - 1);
        }
        for _ in 0..limits::RATE_LIMIT_BUCKETS_TRIED_MAX.min(self.entries.len()) {
            let at = self.hand % self.entries.len();
            self.hand = at + 1;
            if self.entries[at].1.is_full(&self.rate, now.mono_us) {
                self.index.remove(&self.entries[at].0);
                self.index.insert(identity, at as u32);
                self.entries[at] = fresh;
                return Some(at);
            }
        }
        None
    }

    /// When [`Buckets::sweep`] wants to be called; `None` while there is nothing.
    pub fn due_ms(&self) -> Option<u64> {
        (!self.entries.is_empty()).then_some(self.sweep_at_ms)
    }

    /// When it is time: a step of forgetting buckets that were not used for [`limits::RATE_LIMIT_IDLE_MS`] and are full, so
    /// that nobody gains by being forgotten.
    pub fn sweep(&mut self, now: Now) {
        if self.entries.is_empty() || now.mono_ms() < self.sweep_at_ms {
            return;
        }
        let mut at = self.swept.take().unwrap_or(0);
        for _ in 0..limits::RATE_LIMIT_SWEEP_MAX {
            let Some((identity, bucket)) = self.entries.get(at) else { break };
            let is_idle = now.mono_ms() >= bucket.taken_at_us() / 1_000 + limits::RATE_LIMIT_IDLE_MS;
            if is_idle && bucket.is_full(&self.rate, now.mono_us) {
                self.index.remove(identity);
                self.entries.swap_remove(at);
                if let Some((moved, _)) = self.entries.get(at) {
                    self.index.insert(*moved, at as u32);
                }
            } else {
                at += 1;
            }
        }
        if at < self.entries.len() {
            self.swept = Some(at);
        } else {
            self.sweep_at_ms = now.mono_ms() + self.sweep_interval_ms;
            // What a crowd of newcomers took is given back.
            self.index.shrink_to(2 * self.entries.len());
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// How many identities have a bucket.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Takes a token, and says it as answers do.
fn verdict(kind: LimitKind, rate: &Rate, bucket: &mut Bucket, now: Now) -> Verdict {
    let taken = bucket.take(rate, now.mono_us);
    let ago_ms = now.mono_us.saturating_sub(bucket.taken_at_us()) / 1_000;
    let reset_unix_ms = now.unix_ms().saturating_sub(ago_ms) + kind.period_ms();
    let quota = |remaining| Quota { limit: rate.tokens(), remaining, reset_unix_ms };
    match taken {
        Ok(remaining) => Verdict::Passes(quota(remaining)),
        Err(Empty { until_us }) => Verdict::Refused { quota: quota(0), until_us },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const SECOND: Rate = Rate::per_second(2, 3);

    fn client(n: u32) -> Identity {
        Identity::V4(Ipv4Addr::from_bits(n))
    }

    fn at(ms: u64) -> Now {
        Now { mono_us: ms * 1_000, unix_ns: (1_000_000 + ms) * 1_000_000 }
    }

    /// How many of so many requests pass.
    fn passed(buckets: &mut Buckets, ms: u64, identity: Identity, count: usize) -> usize {
        (0..count).filter(|_| matches!(buckets.count(at(ms), identity), Verdict::Passes(_))).count()
    }

    /// The table and its index agree.
    fn check(buckets: &Buckets) {
        assert_eq!(buckets.index.len(), buckets.entries.len());
        for (at, (identity, _)) in buckets.entries.iter().enumerate() {
            assert_eq!(buckets.index.get(identity), Some(&(at as u32)));
        }
    }

    #[test]
    fn everybody_has_a_bucket_and_hears_what_is_left() {
        let mut buckets = Buckets::new(LimitKind::Http, SECOND, 60_000);
        let quota = |remaining, reset_unix_ms| Quota { limit: 2, remaining, reset_unix_ms };
        assert_eq!(buckets.count(at(0), client(1)), Verdict::Passes(quota(2, 1_001_000)));
        assert_eq!(buckets.count(at(100), client(1)), Verdict::Passes(quota(1, 1_001_100)));
        assert_eq!(buckets.count(at(100), client(1)), Verdict::Passes(quota(0, 1_001_100)));
        let refused = Verdict::Refused { quota: quota(0, 1_001_100), until_us: 500_000 };
        assert_eq!(buckets.count(at(300), client(1)), refused, "reset goes by the last that passed");
        assert_eq!(buckets.count(at(300), client(2)), Verdict::Passes(quota(2, 1_001_300)));
        assert_eq!(buckets.count(at(500), client(1)), Verdict::Passes(quota(0, 1_001_500)));
        check(&buckets);
    }

    #[test]
    fn a_connect_limit_speaks_of_minutes() {
        let mut buckets = Buckets::new(LimitKind::Connect, Rate::per_minute(1), 60_000);
        let quota = Quota { limit: 1, remaining: 0, reset_unix_ms: 1_060_000 };
        assert_eq!(buckets.count(at(0), client(1)), Verdict::Passes(quota));
        assert_eq!(buckets.count(at(1), client(1)), Verdict::Refused { quota, until_us: 60_000_000 });
    }

    #[test]
    fn who_is_full_and_idle_is_forgotten_by_a_sweep_and_nobody_else() {
        let slow = Rate::per_minute(1);
        let mut buckets = Buckets::new(LimitKind::Connect, slow, 60_000);
        assert_eq!(buckets.due_ms(), None);
        (0..10_000).for_each(|n| assert_eq!(passed(&mut buckets, u64::from(n % 2) * 200_000, client(n), 1), 1));
        assert_eq!(buckets.due_ms(), Some(60_000));
        buckets.sweep(at(59_999));
        assert_eq!(buckets.len(), 10_000);
        // Those that were used 100 seconds ago are full and not idle.
        for _ in 0..3 {
            buckets.sweep(at(300_000));
            check(&buckets);
        }
        assert_eq!(buckets.len(), 5_000);
        assert_eq!(buckets.due_ms(), Some(360_000), "a pass is over when every bucket was looked at");
        for _ in 0..3 {
            buckets.sweep(at(600_000));
        }
        assert_eq!((buckets.len(), buckets.due_ms()), (0, None));
    }

    #[test]
    fn who_is_idle_and_not_full_keeps_its_bucket() {
        let rate = Rate::per_second(1, 1_000);
        let mut buckets = Buckets::new(LimitKind::Http, rate, 1_000);
        assert_eq!(passed(&mut buckets, 0, client(1), 2_000), 1_000);
        buckets.sweep(at(400_000));
        assert_eq!(passed(&mut buckets, 400_000, client(1), 2_000), 400, "no burst for being forgotten");
        buckets.sweep(at(2_000_000));
        assert!(buckets.is_empty());
    }

    #[test]
    fn at_the_bound_a_newcomer_takes_the_place_of_a_full_bucket() {
        let mut buckets = Buckets::bounded(LimitKind::Http, SECOND, 60_000, 100);
        (0..100).for_each(|n| assert_eq!(passed(&mut buckets, 0, client(n), 9), 3));
        // All but one are used once more, so that they are not full when that one is.
        (0..100).filter(|n| *n != 20).for_each(|n| assert_eq!(passed(&mut buckets, 1_400, client(n), 1), 1));
        assert_eq!(passed(&mut buckets, 1_500, client(1_000), 9), 3);
        check(&buckets);
        assert_eq!(buckets.len(), 100);
        assert!(buckets.index.contains_key(&client(1_000)) && !buckets.index.contains_key(&client(20)));
    }

    #[test]
    fn newcomers_without_room_share_one_bucket() {
        let mut buckets = Buckets::bounded(LimitKind::Http, SECOND, 60_000, 10);
        (0..10).for_each(|n| assert_eq!(passed(&mut buckets, 1_000, client(n), 9), 3));
        let crowd: usize = (100..10_000).map(|n| passed(&mut buckets, 1_000, client(n), 1)).sum();
        assert_eq!(crowd, 3, "ten thousand strangers are one");
        (0..10).for_each(|n| assert_eq!(passed(&mut buckets, 1_500, client(n), 9), 1, "and cost nobody anything"));
        assert_eq!(passed(&mut buckets, 4_000, client(500), 9), 3, "there is room again");
        check(&buckets);
    }
}
