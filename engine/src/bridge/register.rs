//! When the keys of sessions are written again, and which topics were left while nobody could be told. No socket.
use protocol::clock::Now;
use protocol::cluster::Topic;
use protocol::limits;
use std::collections::HashSet;
use storage::redis::router::{Cursor, Walk};

/// What is to be done about the keys of sessions.
#[derive(Debug)]
pub(super) struct Register {
    interval_us: u64,
    due_us: u64,
    /// A walk over the topics is under way.
    pub(super) walk: Option<Walks>,
    /// Users and channels that were left while Redis was away.
    owed: HashSet<Topic>,
}

/// Where a walk over the topics is, on one server and in a Redis Cluster.
#[derive(Debug)]
pub(super) struct Walks {
    pub(super) meeting: Cursor,
    pub(super) partitions: Walk,
}

impl Register {
    /// Everything is written again each third of its time to live.
    pub(super) fn new(ttl_seconds: u64) -> Register {
        let interval_us = ttl_seconds.max(1).saturating_mul(1_000_000) / 3;
        Register { interval_us, due_us: interval_us, walk: None, owed: HashSet::new() }
    }

    /// Redis is back and may have lost everything. What was left meanwhile is to be told now.
    pub(super) fn up(&mut self, now: Now) -> Vec<Topic> {
        self.due_us = now.mono_us;
        self.owed.drain().collect()
    }

    /// Whether it is time to write everything again; the walk over the topics then begins.
    pub(super) fn begins(&mut self, now: Now) -> bool {
        let is_due = now.mono_us >= self.due_us;
        if is_due {
            self.due_us = now.mono_us.saturating_add(self.interval_us);
            self.walk = Some(Walks { meeting: Cursor::new(), partitions: Walk::new() });
        }
        is_due
    }

    /// When to look again.
    pub(super) fn due_us(&self) -> u64 {
        self.due_us
    }

    /// A topic is there again, or for the first time.
    pub(super) fn joined(&mut self, topic: &Topic) {
        self.owed.remove(topic);
    }

    /// A topic was left, and Redis could not be told. Beyond the bound its key is right after its time to live.
    pub(super) fn owe(&mut self, topic: Topic) {
        if self.owed.len() < limits::CLUSTER_LEAVES_OWED_MAX {
            self.owed.insert(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { mono_us: seconds * 1_000_000, unix_ns: 0 }
    }

    #[test]
    fn everything_is_written_again_before_it_expires_and_after_a_loss() {
        let mut register = Register::new(60);
        assert!(!register.begins(at(19)));
        assert!(register.begins(at(20)) && register.walk.is_some());
        assert!(!register.begins(at(39)));
        assert_eq!(register.due_us(), 40_000_000);
        assert!(register.up(at(30)).is_empty());
        assert!(register.begins(at(30)));
    }

    #[test]
    fn what_was_left_is_owed_unless_it_is_back() {
        let user = |name: String| Topic::User(protocol::ids::TenantId::default_tenant(), name.into());
        let mut register = Register::new(60);
        for n in 0..limits::CLUSTER_LEAVES_OWED_MAX + 5 {
            register.owe(user(n.to_string()));
        }
        register.joined(&user("7".to_owned()));
        let owed = register.up(at(1));
        assert_eq!(owed.len(), limits::CLUSTER_LEAVES_OWED_MAX - 1);
        assert!(!owed.contains(&user("7".to_owned())));
        assert!(register.up(at(2)).is_empty());
    }
}
