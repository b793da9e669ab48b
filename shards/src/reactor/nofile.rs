//! The file-descriptor limit of the process, from which the limit of sockets is derived.
use protocol::limits::FDS_RESERVED;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `RLIMIT_NOFILE` after [`raise`]; [`u64::MAX`] where the system says "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// What the process may open.
    pub soft: u64,
    /// How far `soft` may be raised without privileges.
    pub hard: u64,
}

impl FileLimit {
    /// Sockets the node may hold: what is left of the soft limit after the reserve for listeners, links, bells and the
    /// log ([`FDS_RESERVED`]).
    pub fn sockets_max(self) -> usize {
        usize::try_from(self.soft.saturating_sub(FDS_RESERVED)).unwrap_or(usize::MAX)
    }
}

/// Raises the soft limit to the hard one, once, at start. Where the system refuses, the limit stays what it was: a
/// smaller node, not a dead one. Compare the two to tell.
pub fn raise() -> FileLimit {
    let before = getrlimit(Resource::Nofile);
    if before.current != before.maximum {
        let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
        // Refused when "unlimited" is above what the kernel allows a process (fs.nr_open).
        let _ = setrlimit(Resource::Nofile, wanted);
    }
    let after = getrlimit(Resource::Nofile);
    FileLimit { soft: after.current.unwrap_or(u64::MAX), hard: after.maximum.unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_the_reserve_kept() {
        let limit = raise();
        assert!(limit.soft > 0 && limit.soft <= limit.hard);
        assert_eq!(raise(), limit);
        assert_eq!(FileLimit { soft: 1024, hard: 4096 }.sockets_max(), 1024 - FDS_RESERVED as usize);
        assert_eq!(FileLimit { soft: 10, hard: 10 }.sockets_max(), 0);
    }
}
