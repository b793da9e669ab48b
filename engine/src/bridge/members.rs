//! Who is alive: whoever said `hello` within [`limits::CLUSTER_MEMBER_SILENCE_MS`] and not `bye` since. No socket, no
//! clock.
use protocol::clock::Now;
use protocol::cluster::wire::{Claim, Hello};
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

    /// All of them with this node, in the order of their ids. Who reads has done so since it said it.
    pub(super) fn with(&self, now: Now, own: Hello) -> Arc<[Hello]> {
        let as_of_now = |Member { hello, heard_us }: &Member| {
            let passed_ms = now.mono_us.saturating_sub(*heard_us) / 1_000;
            Hello { reading_ms: hello.reading_ms.map(|ms| ms.saturating_add(passed_ms)), ..hello.clone() }
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

/// Whether none of these nodes is known to have begun to read before this one does. What was read first tells: who has not read it
/// began later. Only where one of two has read nothing it is the time that decides, which is late by what a hello needs.
pub(super) fn reads_first(all: &[Hello], own: &Hello, has_read: impl Fn(Claim) -> bool) -> bool {
    let Some(own_ms) = own.reading_ms else { return false };
    let is_before = |other: &Hello| {
        let by_id = own.server_id < other.server_id;
        match (own.first_read, other.first_read, other.reading_ms) {
            (_, _, None) => true,
            (Some(ours), Some(theirs), _) if ours.hash == theirs.hash => by_id,
            (_, Some(theirs), _) if !has_read(theirs) => false,
            (Some(_), Some(_), _) => true,
            (_, _, Some(other_ms)) => own_ms > other_ms || own_ms == other_ms && by_id,
        }
    };
    all.iter().filter(|hello| hello.server_id != own.server_id).all(is_before)
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
        members.with(at(0), hello("b", 1)).iter().map(|hello| hello.server_id.to_string()).collect()
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
        let all = members.with(at(1_500), hello("b", 1));
        assert_eq!(all.iter().map(|hello| hello.reading_ms).collect::<Vec<_>>(), [Some(570), Some(70), None]);
    }

    #[test]
    fn who_began_first_is_known_by_what_was_read_first_and_else_by_the_time() {
        let claim = |nth| Some(Claim::new(nth, 0));
        let began_first = |id, own_first, own_ms, first_read, reading_ms| {
            let mut members = Members::default();
            members.hello(at(0), Hello { reading_ms, first_read, ..hello("b", 1) });
            let own = Hello { reading_ms: Some(own_ms), first_read: own_first, ..hello(id, 1) };
            // It has read the first three.
            reads_first(&members.with(at(0), own.clone()), &own, |claim| claim.hash <= 3)
        };
        let rows = [
            (began_first("a", claim(1), 500, claim(2), Some(900)), true, "the other missed what we have read before"),
            (began_first("a", claim(1), 900, claim(4), Some(500)), false, "we have missed what the other has read"),
            (began_first("a", claim(1), 500, claim(1), Some(900)), true, "both have read the same, the ids decide"),
            (began_first("c", claim(1), 900, claim(1), Some(500)), false, "likewise"),
            (began_first("c", claim(1), 900, None, Some(500)), true, "nothing read yet, the time decides"),
            (began_first("a", None, 500, claim(1), Some(501)), false, "likewise"),
            (began_first("a", None, 900, claim(4), Some(500)), false, "we have read nothing, and missed something"),
            (began_first("c", None, 500, None, Some(500)), false, "and the ids"),
            (began_first("c", None, 500, claim(4), None), true, "it does not read"),
        ];
        rows.into_iter().for_each(|(began_first, expected, why)| assert_eq!(began_first, expected, "{why}"));
        assert!(!reads_first(&[], &Hello { reading_ms: None, ..hello("a", 1) }, |_| true), "we do not");
    }

    #[test]
    fn who_says_that_it_has_read_for_ever_is_believed() {
        let mut members = Members::default();
        members.hello(at(0), Hello { reading_ms: Some(u64::MAX), ..hello("a", 1) });
        assert_eq!(members.with(at(9), hello("b", 1))[0].reading_ms, Some(u64::MAX));
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
