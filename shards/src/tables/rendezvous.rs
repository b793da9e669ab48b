//! Which node keeps what Redis says to a user: one for each mailbox, and the same one wherever the same nodes are known.
use crate::tables::claims::settled_ms;
use foldhash::fast::FixedState;
use protocol::clock::Now;
use protocol::cluster::wire::Hello;
use protocol::limits;
use protocol::store::MailboxKey;
use std::hash::BuildHasher;

/// Who reads, as one shard knows it. At most [`protocol::limits::CLUSTER_MEMBERS_MAX`].
#[derive(Debug, Default)]
pub struct Rendezvous {
    others: Vec<Reader>,
    /// None of them is known to have begun before this node.
    is_first: bool,
}

/// Another node that reads what is published to Redis.
#[derive(Debug)]
struct Reader {
    server_id: Box<str>,
    /// Since when, on this process's monotonic clock.
    since_us: u64,
}

impl Rendezvous {
    /// The others of these members, as they said just now; `is_first`: none of them is known to have begun before this node.
    pub fn meet(&mut self, now: Now, members: &[Hello], own: &str, is_first: bool) {
        self.is_first = is_first;
        let reader = |hello: &Hello| {
            let since_us = now.mono_us.saturating_sub(hello.reading_ms?.saturating_mul(1_000));
            Some(Reader { server_id: hello.server_id.clone(), since_us })
        };
        self.others = members.iter().filter(|hello| *hello.server_id != *own).filter_map(reader).collect();
    }

    /// Since when the one of them has read that has read for longest.
    pub fn others_since_us(&self) -> Option<u64> {
        self.others.iter().map(|other| other.since_us).min()
    }

    /// Whether the node `own`, which reads since then, is the one for a mailbox: of those that have missed nothing that another
    /// may still hold, the one with the greatest weight; if there is none, the one that began first. One that knows of nobody
    /// names itself.
    pub fn names(&self, now: Now, own: &str, reads_since_us: u64, key: &MailboxKey) -> bool {
        // By then who began later than another has yielded to him.
        let is_settled =
            |since_us: u64| settled_ms(since_us).saturating_add(limits::CLUSTER_CLAIM_YIELD_MS) <= now.mono_ms();
        let mailbox = (key.tenant.as_str(), &*key.user);
        let weight = |server_id: &str| FixedState::with_seed(0x636c_6169).hash_one((mailbox, server_id));
        let mut settled = self.others.iter().filter(|other| is_settled(other.since_us)).peekable();
        if is_settled(reads_since_us) {
            let ours = (weight(own), own);
            settled.all(|other| (weight(&other.server_id), &*other.server_id) <= ours)
        } else {
            settled.peek().is_none() && (self.is_first || self.others.is_empty())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TenantId;

    const SECOND_US: u64 = 1_000_000;

    fn at(seconds: u64) -> Now {
        Now { mono_us: seconds * SECOND_US, unix_ns: 0 }
    }

    fn key(user: usize) -> MailboxKey {
        MailboxKey { tenant: TenantId::default_tenant(), user: format!("u{user}").into() }
    }

    fn hello(server_id: &str, reading_ms: Option<u64>) -> Hello {
        Hello {
            server_id: server_id.into(),
            connections: 0,
            users: 0,
            started_unix_ms: 0,
            reading_ms,
            first_read: None,
            version: "1".into(),
        }
    }

    /// Of a hundred mailboxes, how many a node is named for that knows of these others.
    fn named(others: &[Hello], own: &str, reads_since_us: u64) -> usize {
        named_if(others, own, reads_since_us, false)
    }

    fn named_if(others: &[Hello], own: &str, reads_since_us: u64, is_first: bool) -> usize {
        let mut rendezvous = Rendezvous::default();
        rendezvous.meet(at(100), others, own, is_first);
        (0..100).filter(|user| rendezvous.names(at(100), own, reads_since_us, &key(*user))).count()
    }

    #[test]
    fn nodes_that_have_read_for_long_share_the_mailboxes() {
        let (a, b) = (hello("a", Some(50_000)), hello("b", Some(4_000)));
        let all = [a, b];
        let (of_a, of_b) = (named(&all, "a", 50 * SECOND_US), named(&all, "b", 96 * SECOND_US));
        assert_eq!(of_a + of_b, 100);
        assert!((20..80).contains(&of_a), "{of_a}");
    }

    #[test]
    fn who_has_just_begun_to_read_leaves_it_to_the_others() {
        let young = [hello("a", Some(50_000)), hello("b", Some(3_000))];
        assert_eq!((named(&young, "a", 50 * SECOND_US), named(&young, "b", 97 * SECOND_US)), (100, 0));
        let silent = [hello("a", Some(50_000)), hello("b", None)];
        assert_eq!(named(&silent, "a", 50 * SECOND_US), 100);
    }

    #[test]
    fn who_says_that_it_has_read_for_ever_is_one_of_those_that_have_read_for_long() {
        let others = [hello("a", Some(u64::MAX))];
        assert!((20..80).contains(&named(&others, "b", 50 * SECOND_US)));
        assert_eq!(named(&others, "b", 99 * SECOND_US), 0);
    }

    #[test]
    fn where_all_have_just_begun_it_is_the_first() {
        let all = [hello("a", Some(1_000)), hello("b", Some(1_001))];
        let named = |own, is_first| named_if(&all, own, 99 * SECOND_US, is_first);
        assert_eq!((named("a", false), named("b", true)), (0, 100));
        assert_eq!(named_if(&[], "a", 99 * SECOND_US, false), 100, "alone, as far as it knows");
    }
}
