//! A circuit breaker (contract §13.1, without the faults W-57 to W-59): pure, given the time in microseconds.
//!
//! One breaker guards one link; links do not share it, so that a silent subscription never blocks a healthy pool. The
//! caller reports connection trouble only: a server that answers, if only with an error, is there.

/// From the settings. A threshold of 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// `REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD`: failures in a row that open it.
    pub failure_threshold: u32,
    /// `REDIS_CIRCUIT_BREAKER_SUCCESS_THRESHOLD`: successes in a row that close it from half-open.
    pub success_threshold: u32,
    /// `REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS`, in milliseconds: how long it stays open.
    pub reset_timeout_ms: u64,
}

impl Default for BreakerConfig {
    /// 5 failures, 2 successes, 30 s.
    fn default() -> Self {
        BreakerConfig { failure_threshold: 5, success_threshold: 2, reset_timeout_ms: 30_000 }
    }
}

/// Where it stands; the discriminant is the value of the metric `redis_circuit_breaker_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum BreakerState {
    /// Everything passes.
    #[default]
    Closed = 0,
    /// Nothing passes until the reset timeout is over.
    Open = 1,
    /// One probe at a time passes.
    HalfOpen = 2,
}

impl BreakerState {
    /// The word of `/stats` (contract §1.10).
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// Whether an attempt may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes; report its end by [`Breaker::succeed`], [`Breaker::fail`] or [`Breaker::abandon`].
    Granted,
    /// Not before this time.
    OpenUntil {
        /// When the breaker becomes half-open, in microseconds.
        us: u64,
    },
    /// Another probe is under way; its end decides.
    ProbeUnderWay,
}

/// The breaker of one link.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    inner: Inner,
    failures: u32,
}

#[derive(Clone, Copy, Debug)]
enum Inner {
    Closed,
    Open { until_us: u64 },
    HalfOpen { successes: u32, probing: bool },
}

impl Breaker {
    /// Closed.
    pub fn new(config: BreakerConfig) -> Breaker {
        Breaker { config, inner: Inner::Closed, failures: 0 }
    }

    /// Asks for an attempt. An open breaker whose time is over becomes half-open and grants the first probe.
    pub fn admit(&mut self, now_us: u64) -> Admission {
        match &mut self.inner {
            Inner::Closed => Admission::Granted,
            Inner::Open { until_us } if now_us < *until_us => Admission::OpenUntil { us: *until_us },
            Inner::Open { .. } => {
                self.inner = Inner::HalfOpen { successes: 0, probing: true };
                Admission::Granted
            }
            Inner::HalfOpen { probing: true, .. } => Admission::ProbeUnderWay,
            Inner::HalfOpen { probing, .. } => {
                *probing = true;
                Admission::Granted
            }
        }
    }

    /// The server is there. A success that comes in while open is old news and changes nothing.
    pub fn succeed(&mut self) {
        match &mut self.inner {
            Inner::Closed => self.failures = 0,
            Inner::Open { .. } => {}
            Inner::HalfOpen { successes, probing } => {
                *probing = false;
                *successes += 1;
                if *successes >= self.config.success_threshold {
                    self.inner = Inner::Closed;
                    self.failures = 0;
                }
            }
        }
    }

    /// The connection could not be made, or was lost. While open it restarts the reset timeout.
    pub fn fail(&mut self, now_us: u64) {
        let threshold = self.config.failure_threshold.max(1);
        self.failures = self.failures.saturating_add(1).min(threshold);
        if self.failures >= threshold || !matches!(self.inner, Inner::Closed) {
            let until_us = now_us.saturating_add(self.config.reset_timeout_ms.saturating_mul(1_000));
            self.inner = Inner::Open { until_us };
        }
    }

    /// The attempt ended without telling anything about the connection, for example with a refused password. The next
    /// probe may go.
    pub fn abandon(&mut self) {
        if let Inner::HalfOpen { probing, .. } = &mut self.inner {
            *probing = false;
        }
    }

    /// Where it stands. An open breaker stays open until somebody asks it ([`Breaker::admit`]).
    pub fn state(&self) -> BreakerState {
        match self.inner {
            Inner::Closed => BreakerState::Closed,
            Inner::Open { .. } => BreakerState::Open,
            Inner::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// When an open breaker grants a probe, in microseconds.
    pub fn open_until_us(&self) -> Option<u64> {
        match self.inner {
            Inner::Open { until_us } => Some(until_us),
            _ => None,
        }
    }

    /// Failures in a row; stays at the threshold while not closed.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three failures open it, two successes close it, it stays open for ten seconds.
    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig { failure_threshold: 3, success_threshold: 2, reset_timeout_ms: 10_000 })
    }

    fn opened_at(now_us: u64) -> Breaker {
        let mut breaker = breaker();
        for _ in 0..3 {
            assert_eq!(breaker.admit(now_us), Admission::Granted);
            breaker.fail(now_us);
        }
        breaker
    }

    #[test]
    fn it_opens_at_the_threshold_and_a_success_in_between_starts_the_count_anew() {
        let mut breaker = breaker();
        breaker.fail(1);
        breaker.fail(2);
        breaker.succeed();
        assert_eq!(breaker.failures(), 0);
        breaker.fail(3);
        breaker.fail(4);
        assert_eq!(breaker.state(), BreakerState::Closed);
        breaker.fail(5);
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Open, 3));
    }

    #[test]
    fn it_stays_open_for_the_reset_timeout_and_then_grants_one_probe_at_a_time() {
        let mut breaker = opened_at(5);
        assert_eq!(breaker.admit(6), Admission::OpenUntil { us: 10_000_005 });
        assert_eq!(breaker.admit(10_000_004), Admission::OpenUntil { us: 10_000_005 });
        assert_eq!(breaker.admit(10_000_005), Admission::Granted);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(10_000_006), Admission::ProbeUnderWay);
        breaker.succeed();
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::HalfOpen, 3));
        assert_eq!(breaker.admit(10_000_007), Admission::Granted);
        assert_eq!(breaker.admit(10_000_008), Admission::ProbeUnderWay);
        breaker.succeed();
        assert_eq!((breaker.state(), breaker.failures()), (BreakerState::Closed, 0));
    }

    #[test]
    fn any_failure_of_a_probe_opens_it_again() {
        let mut breaker = opened_at(0);
        assert_eq!(breaker.admit(10_000_000), Admission::Granted);
        breaker.succeed();
        breaker.fail(20_000_000);
        assert_eq!(breaker.open_until_us(), Some(30_000_000));
        assert_eq!(breaker.failures(), 3);
    }

    #[test]
    fn late_reports_while_open_restart_the_timeout_or_change_nothing() {
        let mut breaker = opened_at(0);
        breaker.succeed();
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.fail(4_000_000);
        assert_eq!(breaker.open_until_us(), Some(14_000_000));
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let mut breaker = opened_at(0);
        assert_eq!(breaker.admit(10_000_000), Admission::Granted);
        breaker.abandon();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(10_000_001), Admission::Granted);
    }

    #[test]
    fn thresholds_of_zero_count_as_one_and_huge_timeouts_do_not_overflow() {
        let config = BreakerConfig { failure_threshold: 0, success_threshold: 0, reset_timeout_ms: u64::MAX };
        let mut breaker = Breaker::new(config);
        breaker.fail(5);
        assert_eq!(breaker.admit(u64::MAX - 1), Admission::OpenUntil { us: u64::MAX });
        assert_eq!(breaker.admit(u64::MAX), Admission::Granted);
        breaker.succeed();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
