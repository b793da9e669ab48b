//! How long to wait before the next attempt (contract §13.2, without the faults of W-61): pure, given the randomness.
use fastrand::Rng;

/// The shortest delay between two attempts, whatever the settings say: an initial delay of 0 must not become a loop
/// that eats a core and floods the server that is just coming back.
pub const DELAY_MS_MIN: u64 = 10;

/// From the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffConfig {
    /// `REDIS_BACKOFF_INITIAL_DELAY_MS`: the first delay, before jitter. 0 means [`DELAY_MS_MIN`].
    pub initial_ms: u64,
    /// `REDIS_BACKOFF_MAX_DELAY_MS`: no delay is longer, jitter included. Below [`DELAY_MS_MIN`] it counts as that.
    pub max_ms: u64,
}

impl Default for BackoffConfig {
    /// 100 ms and 30 s.
    fn default() -> Self {
        BackoffConfig { initial_ms: 100, max_ms: 30_000 }
    }
}

/// Delays that double from the first to the cap, each jittered by ±10 % so that a fleet does not come back in step.
///
/// The jitter is put on what is given out, never on what is doubled, so it neither drifts nor passes the cap.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial_us: u64,
    max_us: u64,
    next_us: u64,
}

impl Backoff {
    /// Starts at the initial delay.
    pub fn new(config: BackoffConfig) -> Backoff {
        let max_us = config.max_ms.max(DELAY_MS_MIN).saturating_mul(1_000);
        let initial_us = config.initial_ms.max(DELAY_MS_MIN).saturating_mul(1_000).min(max_us);
        Backoff { initial_us, max_us, next_us: initial_us }
    }

    /// The delay before the next attempt, in microseconds; the one after it doubles.
    pub fn next_delay_us(&mut self, rng: &mut Rng) -> u64 {
        let base = self.next_us;
        self.next_us = base.saturating_mul(2).min(self.max_us);
        let spread = base / 10;
        let jittered = (base - spread).saturating_add(rng.u64(0..=spread.saturating_mul(2)));
        jittered.clamp(DELAY_MS_MIN * 1_000, self.max_us)
    }

    /// An attempt succeeded: the next delay is the initial one again.
    pub fn reset(&mut self) {
        self.next_us = self.initial_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(initial_ms: u64, max_ms: u64) -> Backoff {
        Backoff::new(BackoffConfig { initial_ms, max_ms })
    }

    #[test]
    fn delays_double_from_the_initial_one_to_the_cap() {
        for seed in 0..200 {
            let mut rng = Rng::with_seed(seed);
            let mut backoff = backoff(100, 1_000);
            for base_ms in [100, 200, 400, 800, 1_000, 1_000] {
                let delay_us = backoff.next_delay_us(&mut rng);
                let highest_us = (base_ms * 1_100).min(1_000_000);
                assert!((base_ms * 900..=highest_us).contains(&delay_us), "seed {seed}: {delay_us} for {base_ms} ms");
            }
        }
    }

    #[test]
    fn a_success_starts_anew() {
        let mut rng = Rng::with_seed(7);
        let mut backoff = backoff(100, 30_000);
        for _ in 0..10 {
            backoff.next_delay_us(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next_delay_us(&mut rng) <= 110_000);
    }

    #[test]
    fn odd_settings_stay_within_the_floor_and_the_cap() {
        let rows = [(0, 0), (0, 30_000), (1, 5), (100, 50), (u64::MAX, u64::MAX), (100, u64::MAX)];
        for (initial_ms, max_ms) in rows {
            let mut rng = Rng::with_seed(7);
            let mut backoff = backoff(initial_ms, max_ms);
            for _ in 0..80 {
                let delay_us = backoff.next_delay_us(&mut rng);
                let highest_us = max_ms.max(DELAY_MS_MIN).saturating_mul(1_000);
                assert!((10_000..=highest_us).contains(&delay_us), "{initial_ms} to {max_ms} ms gave {delay_us} us");
            }
        }
    }

    #[test]
    fn two_nodes_do_not_wait_alike() {
        let delays = |seed| {
            let (mut rng, mut backoff) = (Rng::with_seed(seed), backoff(100, 30_000));
            [(); 4].map(|()| backoff.next_delay_us(&mut rng))
        };
        assert_ne!(delays(1), delays(2));
    }
}
