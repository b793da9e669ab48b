//! The server as `/proc` shows it.
use std::fs;

/// A process whose memory and CPU are read.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
}

/// One reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// User and system time since it started, in steps of a clock tick (10 ms).
    pub cpu_us: u64,
}

impl Process {
    /// The process of this id.
    pub fn new(pid: u32) -> Process {
        Process { pid }
    }

    /// Reads it; `None` when it is gone.
    pub fn usage(self) -> Option<Usage> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        Some(Usage {
            rss_bytes: rss_bytes(&status)?,
            cpu_us: cpu_ticks(&stat)? * 1_000_000 / rustix::param::clock_ticks_per_second().max(1),
        })
    }
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// `utime` and `stime`, counted from behind the name, which may itself contain blanks and brackets (proc_pid_stat(5)).
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(rss_bytes("Name:\tara\nVmRSS:\t   2048 kB\nThreads:\t2\n"), Some(2 * 1_024 * 1_024));
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 3 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert!(Process::new(std::process::id()).usage().unwrap().rss_bytes > 0);
        assert_eq!(Process::new(u32::MAX).usage(), None);
    }
}
