//! The revocations that Redis is to have, and how far this node has read those that it has. No socket.
//!
//! A node holds what it revoked and what it heard of, so that a Redis that lost everything has all of it again from whoever
//! is left. As many as the shards hold, twice [`limits::REVOCATIONS_MAX`]: of more, which take a stranger in Redis, nothing is held
//! here, and Redis has them for as long as it does.
use protocol::auth::revocation::{Revocation, Revoked};
use protocol::ids::TenantId;
use protocol::limits;
use std::collections::HashMap;
use std::sync::Arc;
use storage::redis::revocations::Page;

/// A token, or a user's tokens.
type About = (TenantId, bool, Box<str>);

struct Held {
    revocation: Arc<Revocation>,
    /// Redis has it, and who listened was told.
    is_told: bool,
}

/// How far what Redis has is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Nothing was missed.
    Done,
    /// From this cursor on.
    Due(u64),
    /// A page is on its way.
    Asked,
    /// It did not come.
    Failed,
}

pub(super) struct Ledger {
    held: HashMap<About, Held>,
    /// To be written to Redis again.
    owed: Vec<Arc<Revocation>>,
    pub(super) reading: Reading,
}

impl Ledger {
    /// Empty: everything is to be read.
    pub(super) fn new() -> Ledger {
        Ledger { held: HashMap::new(), owed: Vec::new(), reading: Reading::Due(0) }
    }

    /// A revocation of this node's own, or one it heard of. What it takes the place of in Redis is given back.
    pub(super) fn add(&mut self, revocation: &Arc<Revocation>, is_told: bool) -> Option<Arc<Revocation>> {
        let new = || Held { revocation: Arc::clone(revocation), is_told };
        let held = match self.held.get_mut(&about(revocation)) {
            Some(held) => held,
            None => {
                if self.held.len() < 2 * limits::REVOCATIONS_MAX {
                    self.held.insert(about(revocation), new());
                }
                return None;
            }
        };
        let merged = held.revocation.merged(revocation);
        if merged == *held.revocation {
            return None;
        }
        let old = std::mem::replace(held, Held { revocation: Arc::new(merged), is_told });
        (old.revocation.revoked != held.revocation.revoked).then_some(old.revocation)
    }

    /// Redis has it, and who listened was told.
    pub(super) fn told(&mut self, revocation: &Revocation) {
        if let Some(held) = self.held.get_mut(&about(revocation)) {
            held.is_told |= *held.revocation == *revocation;
        }
    }

    /// Redis is back, and may have lost everything.
    pub(super) fn up(&mut self, now_unix_s: u64) {
        self.forget(now_unix_s);
        self.owed = self.held.values().map(|held| Arc::clone(&held.revocation)).collect();
        self.missed();
    }

    /// What nobody was told of is owed again, though Redis was not away: it may have refused.
    pub(super) fn owe_untold(&mut self) {
        if self.owed.is_empty() {
            let untold = self.held.values().filter(|held| !held.is_told);
            self.owed = untold.map(|held| Arc::clone(&held.revocation)).collect();
        }
    }

    /// Something may have been missed.
    pub(super) fn missed(&mut self) {
        // A page that is on its way stands for an older look; the one that follows it begins anew.
        self.reading = Reading::Due(0);
    }

    /// What did not come is asked for again.
    pub(super) fn retry(&mut self) {
        if self.reading == Reading::Failed {
            self.missed();
        }
    }

    /// Whether something is to be written or read.
    pub(super) fn has_work(&self) -> bool {
        !self.owed.is_empty() || matches!(self.reading, Reading::Due(_))
    }

    /// Takes some that are to be written again, each with whether nobody was told of it.
    pub(super) fn take_owed(&mut self, count: usize) -> Vec<(Arc<Revocation>, bool)> {
        let from = self.owed.len().saturating_sub(count);
        let taken = self.owed.split_off(from);
        let is_untold = |one: &Revocation| self.held.get(&about(one)).is_some_and(|held| !held.is_told);
        taken.into_iter().map(|one| (Arc::clone(&one), is_untold(&one))).collect()
    }

    /// A page of what Redis has came: what the shards are to be told.
    pub(super) fn read(&mut self, page: Page, now_unix_s: u64) -> Vec<Arc<Revocation>> {
        if self.reading == Reading::Asked {
            self.reading = if page.cursor == 0 { Reading::Done } else { Reading::Due(page.cursor) };
        }
        let is_alive = |one: &Revocation| one.until_unix_s > now_unix_s;
        let read: Vec<Arc<Revocation>> = page.revocations.into_iter().filter(is_alive).map(Arc::new).collect();
        for one in &read {
            self.add(one, true);
        }
        read
    }

    /// Forgets those whose time is over.
    pub(super) fn forget(&mut self, now_unix_s: u64) {
        self.held.retain(|_, held| held.revocation.until_unix_s > now_unix_s);
    }
}

fn about(revocation: &Revocation) -> About {
    let tenant = revocation.tenant.clone();
    match &revocation.revoked {
        Revoked::Token { id } => (tenant, true, id.clone()),
        Revoked::User { user, .. } => (tenant, false, user.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, before_unix_s: u64, until_unix_s: u64) -> Arc<Revocation> {
        let revoked = Revoked::User { user: name.into(), before_unix_s };
        Arc::new(Revocation { tenant: TenantId::default_tenant(), revoked, until_unix_s })
    }

    fn page(cursor: u64, revocations: &[&Arc<Revocation>]) -> Page {
        Page { cursor, revocations: revocations.iter().map(|one| (***one).clone()).collect(), unreadable: 0 }
    }

    #[test]
    fn the_stricter_takes_the_place_of_the_other() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.add(&user("ana", 100, 9), false), None);
        assert_eq!(ledger.add(&user("ana", 90, 9), false), None, "says nothing new");
        assert_eq!(ledger.add(&user("ana", 100, 20), false), None, "the same member, kept longer");
        assert_eq!(ledger.add(&user("ana", 110, 9), false), Some(user("ana", 100, 20)));
        ledger.up(0);
        assert_eq!(ledger.take_owed(9), [(user("ana", 110, 20), true)]);
    }

    #[test]
    fn no_more_are_held_than_may_be_and_those_that_are_still_change() {
        let mut ledger = Ledger::new();
        for n in 0..=2 * limits::REVOCATIONS_MAX {
            ledger.add(&user(&n.to_string(), 1, 9), true);
        }
        assert_eq!(ledger.add(&user("7", 2, 9), true), Some(user("7", 1, 9)));
        ledger.up(0);
        assert_eq!(ledger.take_owed(usize::MAX).len(), 2 * limits::REVOCATIONS_MAX);
    }

    #[test]
    fn a_redis_that_is_back_has_everything_again_and_those_untold_are_told() {
        let mut ledger = Ledger::new();
        for n in 0..5 {
            ledger.add(&user(&n.to_string(), 1, 10 + n), false);
        }
        ledger.owe_untold();
        assert_eq!(ledger.take_owed(9).len(), 5);
        ledger.told(&user("1", 1, 11));
        ledger.owe_untold();
        assert_eq!(ledger.take_owed(9).len(), 4);
        ledger.told(&user("2", 1, 99));
        ledger.up(11);
        let mut owed = ledger.take_owed(2);
        assert!(ledger.has_work() && owed.len() == 2);
        owed.extend(ledger.take_owed(9));
        owed.sort_by_key(|(one, _)| one.until_unix_s);
        assert_eq!(owed, [(user("2", 1, 12), true), (user("3", 1, 13), true), (user("4", 1, 14), true)]);
    }

    #[test]
    fn what_redis_has_is_read_page_by_page_and_anew_when_something_was_missed() {
        let mut ledger = Ledger::new();
        assert_eq!(ledger.reading, Reading::Due(0));
        ledger.reading = Reading::Asked;
        assert_eq!(ledger.read(page(7, &[&user("a", 1, 9), &user("old", 1, 5)]), 5), [user("a", 1, 9)]);
        assert_eq!(ledger.reading, Reading::Due(7));
        ledger.reading = Reading::Asked;
        ledger.missed();
        ledger.read(page(0, &[]), 5);
        assert_eq!(ledger.reading, Reading::Due(0), "from the beginning");
        ledger.reading = Reading::Asked;
        ledger.read(page(0, &[]), 5);
        assert_eq!((ledger.reading, ledger.has_work()), (Reading::Done, false));
        ledger.reading = Reading::Failed;
        ledger.retry();
        assert_eq!(ledger.reading, Reading::Due(0));
        // What was read is told already.
        ledger.up(5);
        assert_eq!(ledger.take_owed(9), [(user("a", 1, 9), false)]);
    }
}
