//! A token bucket in whole numbers: nothing is lost to rounding, however often it is asked.

/// How fast a bucket fills and how much it holds.
///
/// A token is divided into as many parts as its period has microseconds, so that each microsecond brings a whole number of
/// parts: the number of tokens in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    tokens: u32,
    period_us: u64,
    burst: u32,
}

impl Rate {
    /// So many tokens a second. Numbers below 1 count as 1.
    pub const fn per_second(tokens: u32, burst: u32) -> Rate {
        Rate::new(tokens, 1_000_000, burst)
    }

    /// So many tokens a minute, all of which may be taken at once.
    pub const fn per_minute(tokens: u32) -> Rate {
        Rate::new(tokens, 60_000_000, tokens)
    }

    const fn new(tokens: u32, period_us: u64, burst: u32) -> Rate {
        let tokens = if tokens == 0 { 1 } else { tokens };
        let burst = if burst == 0 { 1 } else { burst };
        Rate { tokens, period_us, burst }
    }

    /// Tokens in a period: the number of the setting.
    pub const fn tokens(&self) -> u32 {
        self.tokens
    }

    /// In parts of tokens. At most 2^32 × 6·10^7, far below 2^64.
    fn full(&self) -> u64 {
        u64::from(self.burst) * self.period_us
    }
}

/// One bucket: 16 bytes, and no timer. What has flowed in is computed when somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Parts of tokens, at that time.
    level: u64,
    /// When a token was last taken, on the monotonic clock; at first, when it was made.
    at_us: u64,
}

/// No token is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty {
    /// When there will be one, on the monotonic clock, if nobody takes it before.
    pub until_us: u64,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: &Rate, now_us: u64) -> Bucket {
        Bucket { level: rate.full(), at_us: now_us }
    }

    /// Takes a token; how many whole ones are left. In any time `t` at most `burst + rate × t` are taken, and whoever takes
    /// one each time that the rate brings one is never refused. (With a burst of 1 the latter holds for rates that bring one
    /// at a whole microsecond: a full bucket has no room for the rest of the others.)
    ///
    /// # Errors
    /// [`Empty`]: nothing was changed.
    pub fn take(&mut self, rate: &Rate, now_us: u64) -> Result<u32, Empty> {
        let level = self.level_at(rate, now_us);
        match level.checked_sub(rate.period_us) {
            Some(left) => {
                *self = Bucket { level: left, at_us: self.at_us.max(now_us) };
                Ok((left / rate.period_us) as u32)
            }
            None => {
                let missing = rate.period_us - self.level;
                Err(Empty { until_us: self.at_us + missing.div_ceil(u64::from(rate.tokens)) })
            }
        }
    }

    /// When a token was last taken.
    pub fn taken_at_us(&self) -> u64 {
        self.at_us
    }

    /// Whether it is as good as a new one.
    pub fn is_full(&self, rate: &Rate, now_us: u64) -> bool {
        self.level_at(rate, now_us) == rate.full()
    }

    fn level_at(&self, rate: &Rate, now_us: u64) -> u64 {
        let flowed = now_us.saturating_sub(self.at_us).saturating_mul(u64::from(rate.tokens));
        self.level.saturating_add(flowed).min(rate.full())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::per_second(5, 3);
        let mut bucket = Bucket::full(&rate, 0);
        assert_eq!([0; 3].map(|at_us| bucket.take(&rate, at_us)), [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(bucket.take(&rate, 0), Err(Empty { until_us: 200_000 }));
        assert_eq!(bucket.take(&rate, 199_999), Err(Empty { until_us: 200_000 }));
        assert_eq!(bucket.take(&rate, 200_000), Ok(0));
        assert_eq!(bucket.taken_at_us(), 200_000);
        assert!(!bucket.is_full(&rate, 799_999));
        assert!(bucket.is_full(&rate, 800_000));
        assert_eq!(bucket.take(&rate, 60_000_000), Ok(2), "it never holds more than the burst");
    }

    #[test]
    fn a_minute_s_limit_fills_by_the_minute() {
        let rate = Rate::per_minute(10);
        let mut bucket = Bucket::full(&rate, 0);
        assert_eq!((0..20).filter(|_| bucket.take(&rate, 0).is_ok()).count(), 10);
        assert_eq!(bucket.take(&rate, 1_000_000), Err(Empty { until_us: 6_000_000 }));
        assert_eq!((0..20).filter(|_| bucket.take(&rate, 60_000_000).is_ok()).count(), 10);
    }

    #[test]
    fn a_steady_client_at_exactly_the_rate_is_never_refused() {
        let whole = [1, 2, 50, 100, 1_000, 1_000_000].map(|tokens| (tokens, 1));
        let others = [3, 7, 99, 333, 999_999].map(|tokens| (tokens, 2));
        for (tokens, burst) in whole.into_iter().chain(others) {
            let rate = Rate::per_second(tokens, burst);
            let mut bucket = Bucket::full(&rate, 17);
            for n in 0..100_000_u64 {
                let at_us = 17 + (n * 1_000_000).div_ceil(u64::from(tokens));
                assert!(bucket.take(&rate, at_us).is_ok(), "{tokens}/s, request {n}");
            }
        }
        let rate = Rate::per_minute(7);
        let mut bucket = Bucket::full(&rate, 0);
        (0..10_000_u64).for_each(|n| assert!(bucket.take(&rate, (n * 60_000_000).div_ceil(7)).is_ok(), "{n}"));
    }

    #[test]
    fn whatever_the_arrivals_no_more_passes_than_burst_and_rate_allow() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (tokens, burst) = (rng.u32(1..2_000), rng.u32(1..500));
            let rate = if rng.bool() { Rate::per_second(tokens, burst) } else { Rate::per_minute(tokens) };
            let burst = u128::from(rate.burst);
            let mut bucket = Bucket::full(&rate, 0);
            let (mut now_us, mut passed): (u64, Vec<u64>) = (0, Vec::new());
            for _ in 0..2_000 {
                now_us += match rng.u8(0..4) {
                    0 => 0,
                    1 => rng.u64(0..10),
                    2 => rng.u64(0..2_000),
                    _ => rng.u64(0..rate.period_us / 10),
                };
                match bucket.take(&rate, now_us) {
                    Ok(_) => passed.push(now_us),
                    Err(Empty { until_us }) => {
                        assert!(until_us > now_us);
                        let mut later = bucket;
                        assert!(later.take(&rate, until_us - 1).is_err(), "seed {seed}: too late is said");
                        assert!(later.take(&rate, until_us).is_ok(), "seed {seed}: too early is said");
                    }
                }
            }
            // Any stretch from one that passed to another, both counted.
            for _ in 0..2_000 {
                let first = rng.usize(0..passed.len());
                let last = rng.usize(first..passed.len());
                let (count, us) = ((last - first + 1) as u128, u128::from(passed[last] - passed[first]));
                let allowed = burst + us * u128::from(rate.tokens) / u128::from(rate.period_us);
                assert!(count <= allowed, "seed {seed}: {count} passed in {us} us where {allowed} may");
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let rate = Rate::per_minute(u32::MAX);
        let mut bucket = Bucket::full(&rate, 0);
        assert_eq!(bucket.take(&rate, u64::MAX), Ok(u32::MAX - 1));
        let slow = Rate::per_second(0, 0);
        assert_eq!(Bucket::full(&slow, 0).take(&slow, 0), Ok(0), "zero counts as one");
    }

    #[test]
    fn a_clock_that_lags_takes_nothing_away_and_gives_nothing() {
        let rate = Rate::per_second(1, 2);
        let mut bucket = Bucket::full(&rate, 1_000_000);
        assert_eq!(bucket.take(&rate, 1_000_000), Ok(1));
        assert_eq!(bucket.take(&rate, 999_990), Ok(0));
        assert_eq!(bucket.take(&rate, 999_990), Err(Empty { until_us: 2_000_000 }));
    }
}
