//! Who is alive: whoever said `hello` within [`limits::CLUSTER_MEMBER_SILENCE_MS`] and not `bye` since. No socket, no
//! clock.
use protocol::clock::Now;
use protocol::cluster::wire::Hello;
use protocol::limits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The other nodes, as they said last.
#[derive(Debug, Default)]
pub(super) struct Members {
    others: BTreeMap<Box<str>, Member>,
    /// When one was let go of last that had not said `bye`.
    lost_us: Option<u64>,
}

#[derive(Debug)]
struct Member {
    hello: Hello,
    heard_us: u64,
}

impl Members {
    /// Another node says hello. Whether it was not known, or is another process than before.
    pub(super) fn hello(&mut self, now: Now, hello: Hello) -> bool {
        let heard_us = now.mono_us;
        if let Some(member) = self.others.get_mut(&hello.server_id) {
            let is_other = member.hello.started_unix_ms != hello.started_unix_ms;
            *member = Member { hello, heard_us };
            return is_other;
        }
        // This node counts, too.
        if self.others.len() + 1 >= limits::CLUSTER_MEMBERS_MAX {
            return false;
        }
        self.others.insert(hello.server_id.clone(), Member { hello, heard_us });
        true
    }

    /// Another node leaves. Whether it was known.
    pub(super) fn bye(&mut self, server_id: &str) -> bool {
        self.others.remove(server_id).is_some()
    }

    /// Lets go of those that were silent too long. Whether there were any.
    pub(super) fn expire(&mut self, now: Now) -> bool {
        let silence_us = limits::CLUSTER_MEMBER_SILENCE_MS * 1_000;
        let before = self.others.len();
        self.others.retain(|_, member| now.mono_us.saturating_sub(member.heard_us) < silence_us);
        let is_anybody_lost = self.others.len() != before;
        if is_anybody_lost {
            self.lost_us = Some(now.mono_us);
        }
        is_anybody_lost
    }

    /// All of them with this node, in the order of their ids.
    pub(super) fn with(&self, own: Hello) -> Arc<[Hello]> {
        let mut all: Vec<Hello> = self.others.values().map(|member| member.hello.clone()).collect();
        let at = all.partition_point(|hello| hello.server_id < own.server_id);
        all.insert(at, own);
        all.into()
    }

    /// Whether there are no others.
    pub(super) fn is_alone(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether somebody fell silent within this time who may only stand still, and hear later what is said now.
    pub(super) fn may_return(&self, now: Now, within_us: u64) -> bool {
        self.lost_us.is_some_and(|lost_us| now.mono_us.saturating_sub(lost_us) < within_us)
    }

    /// Whether no id is before this one: one node does what is done once for all.
    pub(super) fn is_first(&self, own: &str) -> bool {
        self.others.keys().next().is_none_or(|first| own < &**first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(server_id: &str, started_unix_ms: u64) -> Hello {
        Hello { server_id: server_id.into(), connections: 1, users: 1, started_unix_ms, version: "1".into() }
    }

    fn at(ms: u64) -> Now {
        Now { mono_us: ms * 1_000, unix_ns: 0 }
    }

    fn names(members: &Members) -> Vec<String> {
        members.with(hello("b", 1)).iter().map(|hello| hello.server_id.to_string()).collect()
    }

    #[test]
    fn whoever_is_silent_or_leaves_is_gone() {
        let mut members = Members::default();
        assert!(members.hello(at(0), hello("c", 1)));
        assert!(members.hello(at(0), hello("a", 1)));
        assert!(!members.hello(at(1_000), hello("a", 1)), "nothing new");
        assert!(members.hello(at(1_000), hello("a", 2)), "another process");
        assert_eq!(names(&members), ["a", "b", "c"]);
        assert!(!members.expire(at(2_999)));
        assert!(members.expire(at(3_000)));
        assert_eq!(names(&members), ["a", "b"]);
        assert!(!members.is_first("b"));
        assert!(members.bye("a") && !members.bye("a"));
        assert!(members.is_first("b") && members.is_alone());
        assert!(members.may_return(at(3_500), 1_000_000) && !members.may_return(at(4_000), 1_000_000), "c, not a");
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let mut members = Members::default();
        for n in 0..2_000 {
            members.hello(at(0), hello(&format!("n{n}"), 1));
        }
        assert_eq!(names(&members).len(), limits::CLUSTER_MEMBERS_MAX);
    }
}
