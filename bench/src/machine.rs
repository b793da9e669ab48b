//! Clocks, cores and descriptors.
use crate::{BenchError, trying};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;
use rustix::time::ClockId;

/// Nanoseconds on the monotonic clock.
pub fn now_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// CPU the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::ThreadCPUTime)
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Pins the calling thread to one core.
pub fn pin(cpu: usize) -> Result<(), BenchError> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(BenchError(format!("core {cpu} is out of range")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(trying(&format!("pin to core {cpu}")))
}

/// Raises the limit of descriptors as far as needed, the hard one where that is allowed.
pub fn raise_descriptors(wanted: u64) -> Result<(), BenchError> {
    let now = rustix::process::getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let hard = now.maximum.unwrap_or(u64::MAX);
    let raised = Rlimit { current: Some(wanted), maximum: Some(hard.max(wanted)) };
    rustix::process::setrlimit(Resource::Nofile, raised)
        .map_err(|_| BenchError(format!("{wanted} descriptors are needed and the hard limit is {hard}")))
}
