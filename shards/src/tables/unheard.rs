//! Mailboxes in which another node has kept something that was read here, too, and of which its hint has not come yet.
use protocol::limits;
use protocol::store::{MailboxKey, Position};
use std::collections::VecDeque;
use std::sync::Arc;

/// Of one shard.
#[derive(Debug, Default)]
pub struct Unheard {
    /// All wait for the same time, so they are due in the order they came.
    due: VecDeque<(u64, Arc<MailboxKey>, Position)>,
}

impl Unheard {
    /// The hint of this entry, or of a later one, should come within [`limits::CLUSTER_HINT_WAIT_MS`]. False when
    /// [`limits::CLUSTER_CLAIMS_WAITING_MAX`] wait.
    pub fn wait(&mut self, now_ms: u64, key: &Arc<MailboxKey>, last: Position) -> bool {
        let is_room = self.due.len() < limits::CLUSTER_CLAIMS_WAITING_MAX;
        if is_room {
            self.due.push_back((now_ms + limits::CLUSTER_HINT_WAIT_MS, Arc::clone(key), last));
        }
        is_room
    }

    /// What has waited for long enough.
    pub fn take_due(&mut self, now_ms: u64) -> Option<(Arc<MailboxKey>, Position)> {
        self.due.front().filter(|(at_ms, ..)| *at_ms <= now_ms)?;
        self.due.pop_front().map(|(_, key, last)| (key, last))
    }

    /// When [`Unheard::take_due`] has something, in milliseconds on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.front().map(|(at_ms, ..)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TenantId;

    #[test]
    fn hints_are_waited_for_and_only_so_many() {
        let key = Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: "ana".into() });
        let mut unheard = Unheard::default();
        for n in 0..limits::CLUSTER_CLAIMS_WAITING_MAX as u64 {
            assert!(unheard.wait(n, &key, Position(n, 0)));
        }
        assert!(!unheard.wait(9, &key, Position(9, 0)));
        let due_ms = limits::CLUSTER_HINT_WAIT_MS;
        assert_eq!((unheard.due_ms(), unheard.take_due(due_ms - 1)), (Some(due_ms), None));
        assert_eq!(unheard.take_due(due_ms), Some((Arc::clone(&key), Position(0, 0))));
        assert_eq!((unheard.take_due(due_ms), unheard.due_ms()), (None, Some(due_ms + 1)));
    }
}
