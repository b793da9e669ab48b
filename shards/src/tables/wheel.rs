//! What is due when: one entry per connection or gather, in buckets of fifty milliseconds.
use crate::key::ConnKey;

/// Length of a tick. Deadlines fire up to one tick late, never early.
pub const TICK_MS: u64 = 50;
/// Buckets: 102 seconds; a later deadline waits in its bucket for the lap it belongs to.
const BUCKETS: usize = 2_048;

/// A tick number; 0 means none.
pub type Tick = u32;

/// The wheel of one shard. It holds keys, not deadlines: the owner of a key remembers the tick it is waiting for, so a
/// deadline that moved later costs nothing until the earlier entry fires, and a stale entry is recognised and dropped.
#[derive(Debug)]
pub struct Wheel {
    buckets: Vec<Vec<ConnKey>>,
    /// One bit per bucket that holds something.
    occupied: [u64; BUCKETS / 64],
    /// The next tick to fire.
    next: Tick,
}

impl Default for Wheel {
    fn default() -> Self {
        Wheel { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), occupied: [0; BUCKETS / 64], next: 1 }
    }
}

impl Wheel {
    /// Enters a key to fire at `at_ms` or within a tick after; the tick to remember.
    pub fn enter(&mut self, key: ConnKey, at_ms: u64) -> Tick {
        let tick = (at_ms.div_ceil(TICK_MS) as Tick).max(self.next);
        let bucket = tick as usize % BUCKETS;
        self.buckets[bucket].push(key);
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        tick
    }

    /// The tick that `at_ms` would be entered under.
    pub fn tick_of(&self, at_ms: u64) -> Tick {
        (at_ms.div_ceil(TICK_MS) as Tick).max(self.next)
    }

    /// Moves the keys of every tick up to now into `due`, with the tick they fired at. `expects` tells which tick a key is
    /// waiting for: entries for a later lap stay, stale ones are dropped.
    pub fn expire(&mut self, now_ms: u64, expects: impl Fn(ConnKey) -> Tick, due: &mut Vec<ConnKey>) {
        let last = (now_ms / TICK_MS) as Tick;
        // After a long sleep one lap sees every bucket; more laps would see the same entries again.
        if last.saturating_sub(self.next) as usize > BUCKETS {
            self.next = last - BUCKETS as Tick;
        }
        while self.next <= last {
            let tick = self.next;
            self.next += 1;
            let bucket = tick as usize % BUCKETS;
            if self.occupied[bucket / 64] & (1 << (bucket % 64)) == 0 {
                continue;
            }
            self.buckets[bucket].retain(|key| {
                let expected = expects(*key);
                let is_due = expected != 0 && expected <= tick;
                if is_due {
                    due.push(*key);
                }
                !is_due && expected != 0 && expected as usize % BUCKETS == bucket
            });
            if self.buckets[bucket].is_empty() {
                self.buckets[bucket] = Vec::new();
                self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            }
        }
    }

    /// Whether a key will fire at this tick, or fires next.
    pub fn holds(&self, key: ConnKey, tick: Tick) -> bool {
        tick >= self.next && self.buckets[tick as usize % BUCKETS].contains(&key)
    }

    /// Whether an entry for this tick has fired.
    pub fn is_over(&self, tick: Tick) -> bool {
        tick != 0 && tick < self.next
    }

    /// How often a key stands in it, stale entries included; looks everywhere.
    pub fn entries(&self, key: ConnKey) -> usize {
        self.buckets.iter().flatten().filter(|entry| **entry == key).count()
    }

    /// When the next occupied bucket comes up, in milliseconds on the clock of `at_ms`.
    pub fn next_ms(&self) -> Option<u64> {
        let start = self.next as usize % BUCKETS;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                return Some((u64::from(self.next) + ahead as u64) * TICK_MS);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn key(slot: u32) -> ConnKey {
        ConnKey { slot, generation: 1 }
    }

    fn fire(wheel: &mut Wheel, waits: &HashMap<u32, Tick>, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(now_ms, |key| waits.get(&key.slot).copied().unwrap_or(0), &mut due);
        due.iter().map(|key| key.slot).collect()
    }

    #[test]
    fn nothing_fires_early_and_everything_within_a_tick() {
        let mut wheel = Wheel::default();
        let waits = HashMap::from([(1, wheel.enter(key(1), 1_010)), (2, wheel.enter(key(2), 250_000))]);
        assert_eq!(wheel.next_ms(), Some(1_050));
        assert_eq!(fire(&mut wheel, &waits, 1_009), [0; 0]);
        assert_eq!(fire(&mut wheel, &waits, 1_060), [1]);
        assert_eq!(fire(&mut wheel, &waits, 249_999), [0; 0], "two laps later");
        assert_eq!(fire(&mut wheel, &waits, 250_050), [2]);
        assert_eq!(wheel.next_ms(), None);
    }

    #[test]
    fn an_entry_that_was_replaced_is_dropped() {
        let mut wheel = Wheel::default();
        wheel.enter(key(1), 100);
        let waits = HashMap::from([(1, wheel.enter(key(1), 5_000))]);
        assert_eq!(fire(&mut wheel, &waits, 4_000), [0; 0]);
        assert_eq!(fire(&mut wheel, &waits, 5_000), [1]);
    }

    #[test]
    fn a_long_sleep_fires_everything_once() {
        let mut wheel = Wheel::default();
        let waits = HashMap::from([(1, wheel.enter(key(1), 100)), (2, wheel.enter(key(2), 90_000))]);
        let mut fired = fire(&mut wheel, &waits, 10_000_000);
        fired.sort_unstable();
        assert_eq!(fired, [1, 2]);
    }
}
