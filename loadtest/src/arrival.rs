//! When the next publish is due.

/// One publisher's schedule.
///
/// At a rate the n-th publish is due at a time fixed beforehand, whatever happened to the ones before it (open loop).
/// A publisher that could not keep up sends the overdue ones as soon as it can and stamps them with the time they were
/// due, so waiting in front of a slow server counts as latency.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// Due by the clock.
    Open {
        /// When the first is due.
        start_us: u64,
        /// From one to the next.
        interval_ns: f64,
        /// How many were taken.
        taken: u64,
    },
    /// Due whenever the window has room.
    Closed,
}

impl Arrival {
    /// The schedule of publisher `index` of `publishers` that together publish `rate` a second (0: closed), starting at
    /// `start_us`. The publishers' phases are spread evenly over the interval.
    pub fn new(rate: f64, index: u32, publishers: u32, start_us: u64) -> Arrival {
        if rate <= 0.0 {
            return Arrival::Closed;
        }
        let interval_ns = f64::from(publishers) * 1e9 / rate;
        let phase_us = interval_ns * f64::from(index) / f64::from(publishers) / 1e3;
        Arrival::Open { start_us: start_us + phase_us as u64, interval_ns, taken: 0 }
    }

    /// When the next publish is due; a closed schedule is always due.
    pub fn due_us(&self) -> Option<u64> {
        match self {
            Arrival::Open { start_us, interval_ns, taken } => {
                Some(start_us + (*taken as f64 * interval_ns / 1e3) as u64)
            }
            Arrival::Closed => None,
        }
    }

    /// Takes the next publish if it is due; answers the time to stamp it with.
    pub fn take(&mut self, now_us: u64) -> Option<u64> {
        match self.due_us() {
            Some(due_us) if due_us > now_us => None,
            Some(due_us) => {
                if let Arrival::Open { taken, .. } = self {
                    *taken += 1;
                }
                Some(due_us)
            }
            None => Some(now_us),
        }
    }

    /// Publishes that were due before `until_us` and not taken.
    pub fn overdue(&self, until_us: u64) -> u64 {
        match self {
            Arrival::Open { start_us, interval_ns, taken } => {
                let span_ns = until_us.saturating_sub(*start_us) as f64 * 1e3;
                let due = (span_ns / interval_ns).ceil() as u64;
                due.saturating_sub(*taken)
            }
            Arrival::Closed => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_publishes_keep_the_time_they_were_due() {
        let mut arrival = Arrival::new(1_000.0, 0, 1, 5_000);
        assert_eq!(arrival.take(4_999), None);
        assert_eq!(arrival.take(5_000), Some(5_000));
        assert_eq!(arrival.take(5_000), None);
        assert_eq!(arrival.overdue(9_000), 3);
        // The server held us up for 3 ms: the stamps do not move.
        let late: Vec<_> = std::iter::from_fn(|| arrival.take(8_000)).collect();
        assert_eq!(late, [6_000, 7_000, 8_000]);
        assert_eq!(arrival.overdue(8_000), 0);
    }

    #[test]
    fn publishers_share_a_rate_and_interleave() {
        let dues: Vec<_> = (0..4).map(|index| Arrival::new(1_000.0, index, 4, 0).due_us().unwrap()).collect();
        assert_eq!(dues, [0, 1_000, 2_000, 3_000]);
        let mut second = Arrival::new(1_000.0, 1, 4, 0);
        assert_eq!((second.take(10_000), second.take(10_000)), (Some(1_000), Some(5_000)));
    }

    #[test]
    fn flat_out_is_always_due_now() {
        let mut arrival = Arrival::new(0.0, 0, 1, 5);
        assert_eq!((arrival.take(77), arrival.take(78)), (Some(77), Some(78)));
    }
}
