//! What a run asks of this machine: descriptors, cores, clocks.
use crate::error::LoadError;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use rustix::time::ClockId;

/// Descriptors kept for everything that is not a client.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Microseconds on the monotonic clock, the same for every process of this machine.
pub fn now_us() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// CPU this process has used, in microseconds.
pub fn cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// Seconds since the Unix epoch.
pub fn unix_seconds() -> u64 {
    rustix::time::clock_gettime(ClockId::Realtime).tv_sec as u64
}

/// Raises the soft limit of descriptors as far as needed for `connections`, and the hard one where that is allowed.
pub fn raise_descriptors(connections: u64) -> Result<(), LoadError> {
    let wanted = connections + DESCRIPTORS_RESERVED;
    let now = rustix::process::getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let hard = now.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(wanted), maximum: Some(hard.max(wanted)) };
    rustix::process::setrlimit(Resource::Nofile, raised).map_err(|_| {
        LoadError::Machine(format!(
            "{connections} connections need {wanted} descriptors and the hard limit is {hard}; raise it (ulimit -Hn) \
             or run several generators with different --user-prefix"
        ))
    })
}

/// Pins the calling thread to one core and lets it be woken to the microsecond.
pub fn pin(cpu: Option<usize>) -> Result<(), LoadError> {
    if let Some(cpu) = cpu {
        if cpu >= CpuSet::MAX_CPU {
            return Err(LoadError::Machine(format!("core {cpu} is out of range")));
        }
        let mut set = CpuSet::new();
        set.set(cpu);
        rustix::thread::sched_setaffinity(None, &set)
            .map_err(|error| LoadError::Machine(format!("cannot pin to core {cpu}: {error}")))?;
    }
    // The default slack of 50 µs would be counted as the server's latency. Refusal only makes us a little late.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    Ok(())
}
