//! The only clock of the crate.
use protocol::clock::Now;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Time zero of [`Now::mono_us`]: one for the whole process, because shards tell each other times.
static START: OnceLock<Instant> = OnceLock::new();

/// Reads both clocks. The first call of the process is its time zero, so the engine calls it early. Costs two reads
/// of the kernel's shared page, no system call.
pub fn now() -> Now {
    let start = *START.get_or_init(Instant::now);
    // A `u64` of microseconds lasts half a million years, one of nanoseconds since 1970 until 2554.
    let mono_us = start.elapsed().as_micros() as u64;
    // A wall clock before 1970 is a broken machine; it gets the epoch rather than a dead server.
    let unix_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    Now { mono_us, unix_ns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_reading_never_goes_back() {
        let mut last = now();
        for _ in 0..1_000 {
            let next = now();
            assert!(next.mono_us >= last.mono_us);
            last = next;
        }
    }
}
