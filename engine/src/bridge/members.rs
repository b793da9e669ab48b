//! Who is alive: whoever said `hello` within [`limits::CLUSTER_MEMBER_SILENCE_MS`] and not `bye` since. No socket, no
//! clock.
use protocol::clock::Now;
use protocol::cluster::wire::{Claim, Hello};
use protocol::limits;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How much earlier another node is taken to have begun to read that has read what this one has not: more than an event needs to
/// a shard.
const BEFORE_US_MS: u64 = 100;

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

    /// All of them with this node, in the order of their ids. Who reads has done so since it said it; and who has read what this
    /// node has not, `has_read`, for longer than it, whatever their clocks say.
    pub(super) fn with(&self, now: Now, own: Hello, has_read: impl Fn(Claim) -> bool) -> Arc<[Hello]> {
        let as_of_now = |Member { hello, heard_us }: &Member| {
            let passed_ms = now.mono_us.saturating_sub(*heard_us) / 1_000;
            let before_us = own.reading_ms.filter(|_| hello.first_read.is_some_and(|claim| !has_read(claim)));
            let least_ms = before_us.map_or(0, |own_ms| own_ms.saturating_add(BEFORE_US_MS));
            let reading_ms = hello.reading_ms.map(|ms| ms.saturating_add(passed_ms).max(least_ms));
            Hello { reading_ms, ..hello.clone() }
        };
        let mut all: Vec<Hello> = self.others.values().map(as_of_now).collect();
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
        let server_id = server_id.into();
        let reading_ms = Some(70);
        Hello {
            server_id,
            connections: 1,
            users: 1,
            started_unix_ms,
            reading_ms,
            first_read: None,
            version: "1".into(),
        }
    }

    fn at(ms: u64) -> Now {
        Now { mono_us: ms * 1_000, unix_ns: 0 }
    }

    fn names(members: &Members) -> Vec<String> {
        members.with(at(0), hello("b", 1), |_| true).iter().map(|hello| hello.server_id.to_string()).collect()
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
    fn who_reads_goes_on_reading_between_two_hellos() {
        let mut members = Members::default();
        members.hello(at(1_000), hello("a", 1));
        members.hello(at(1_000), Hello { reading_ms: None, ..hello("c", 1) });
        let all = members.with(at(1_500), hello("b", 1), |_| true);
        assert_eq!(all.iter().map(|hello| hello.reading_ms).collect::<Vec<_>>(), [Some(570), Some(70), None]);
    }

    #[test]
    fn who_has_read_what_we_have_not_began_before_us() {
        let mut members = Members::default();
        let said = |nth| Hello { reading_ms: Some(900), first_read: Some(Claim::new(1, nth)), ..hello("a", 1) };
        let own = || Hello { reading_ms: Some(1_000), ..hello("b", 1) };
        let mut reading = |nth| {
            members.hello(at(0), said(nth));
            members.with(at(0), own(), |claim| claim == Claim::new(1, 1))[0].reading_ms
        };
        assert_eq!((reading(1), reading(2)), (Some(900), Some(1_100)));
    }

    #[test]
    fn who_says_that_it_has_read_for_ever_is_believed() {
        let mut members = Members::default();
        members.hello(at(0), Hello { reading_ms: Some(u64::MAX), ..hello("a", 1) });
        assert_eq!(members.with(at(9), hello("b", 1), |_| false)[0].reading_ms, Some(u64::MAX));
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
