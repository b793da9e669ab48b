//! Tokens that hold no longer though they have not expired. Every shard has all of them: who comes home, and who refreshes, is
//! looked for without asking anybody.
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use protocol::auth::revocation::{Revocation, Revoked};
use protocol::limits;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The table of one shard. What is held is shared with the other shards; here a revocation takes some ten bytes.
#[derive(Default)]
pub struct Revocations {
    hasher: RandomState,
    held: HashTable<Arc<Revocation>>,
    /// When to look for those whose time is over; nothing is held while there is none.
    sweep_at_ms: Option<u64>,
}

/// Kind, tenant and name: what a revocation is about.
type About<'a> = (bool, &'a str, &'a str);

impl Revocations {
    /// Holds a revocation, together with what is held about the same. False if it says nothing new.
    pub fn hold(&mut self, revocation: &Arc<Revocation>, now_ms: u64) -> bool {
        if self.covers(revocation) {
            return false;
        }
        let hash = self.hash(about(revocation));
        let Revocations { hasher, held, .. } = self;
        let rehash = |held: &Arc<Revocation>| hasher.hash_one(about(held));
        match held.entry(hash, |held| held.is_about_the_same(revocation), rehash) {
            Entry::Occupied(mut entry) => {
                let merged = entry.get().merged(revocation);
                // Mostly the new one says all, and is shared.
                *entry.get_mut() = if merged == **revocation { Arc::clone(revocation) } else { Arc::new(merged) };
            }
            Entry::Vacant(entry) => _ = entry.insert(Arc::clone(revocation)),
        }
        self.sweep_at_ms.get_or_insert(now_ms + limits::REVOCATION_SWEEP_MS);
        true
    }

    /// Whether a revocation says nothing that is not held.
    pub fn covers(&self, revocation: &Revocation) -> bool {
        self.about(about(revocation)).is_some_and(|held| held.merged(revocation) == **held)
    }

    /// Whether something is held about the same token or user, so that a revocation takes no more room.
    pub fn holds_about(&self, revocation: &Revocation) -> bool {
        self.about(about(revocation)).is_some()
    }

    /// Whether a token is revoked. `issued_at_unix_s` is 0 when it does not say.
    pub fn hit(&self, tenant: &str, user: &str, id: Option<&str>, issued_at_unix_s: u64) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let is_hit = |name: About<'_>| self.about(name).is_some_and(|held| held.hits(user, id, issued_at_unix_s));
        is_hit((false, tenant, user)) || id.is_some_and(|id| is_hit((true, tenant, id)))
    }

    /// When to sweep, in milliseconds on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        self.sweep_at_ms
    }

    /// Forgets those whose time is over.
    pub fn sweep(&mut self, now_ms: u64, now_unix_s: u64) {
        self.held.retain(|held| held.until_unix_s > now_unix_s);
        self.sweep_at_ms = (!self.held.is_empty()).then_some(now_ms + limits::REVOCATION_SWEEP_MS);
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn about(&self, name: About<'_>) -> Option<&Arc<Revocation>> {
        self.held.find(self.hash(name), |held| about(held) == name)
    }

    fn hash(&self, name: About<'_>) -> u64 {
        self.hasher.hash_one(name)
    }
}

fn about(revocation: &Revocation) -> About<'_> {
    let tenant = revocation.tenant.as_str();
    match &revocation.revoked {
        Revoked::Token { id } => (true, tenant, id),
        Revoked::User { user, .. } => (false, tenant, user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TenantId;

    fn token(tenant: &str, id: &str, until_unix_s: u64) -> Arc<Revocation> {
        let tenant = TenantId::parse(tenant).unwrap();
        Arc::new(Revocation { tenant, revoked: Revoked::Token { id: id.into() }, until_unix_s })
    }

    fn user(name: &str, before_unix_s: u64, until_unix_s: u64) -> Arc<Revocation> {
        let revoked = Revoked::User { user: name.into(), before_unix_s };
        Arc::new(Revocation { tenant: TenantId::default_tenant(), revoked, until_unix_s })
    }

    #[test]
    fn each_tenant_has_its_own_tokens_and_users() {
        let mut held = Revocations::default();
        assert!(held.hold(&token("acme", "x", 9), 0) && held.hold(&user("ana", 100, 9), 0));
        assert!(held.hit("acme", "bo", Some("x"), 500));
        assert!(!held.hit("default", "bo", Some("x"), 500) && !held.hit("acme", "bo", None, 500));
        assert!(held.hit("default", "ana", None, 99) && held.hit("default", "ana", Some("y"), 0));
        assert!(!held.hit("default", "ana", Some("y"), 100) && !held.hit("acme", "ana", None, 0));
        // A user of a token's name, and the other way round.
        assert!(!held.hit("acme", "x", None, 0) && !held.hit("default", "bo", Some("ana"), 0));
    }

    #[test]
    fn what_is_said_again_is_one_and_the_stricter_holds() {
        let mut held = Revocations::default();
        assert!(held.hold(&user("ana", 100, 50), 0));
        assert!(!held.hold(&user("ana", 90, 50), 0), "said already");
        assert!(held.hold(&user("ana", 90, 60), 0) && held.hold(&user("ana", 110, 10), 0));
        assert!(held.covers(&user("ana", 110, 60)) && !held.covers(&user("ana", 110, 61)));
        assert!(held.holds_about(&user("ana", 1_000, 1_000)) && !held.holds_about(&user("bo", 1, 1)));
        assert_eq!(held.len(), 1);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut held = Revocations::default();
        for n in 0..1_000 {
            held.hold(&token("acme", &n.to_string(), 100 + n), 5);
        }
        assert_eq!(held.due_ms(), Some(5 + limits::REVOCATION_SWEEP_MS));
        held.sweep(20, 599);
        assert_eq!((held.len(), held.due_ms()), (500, Some(20 + limits::REVOCATION_SWEEP_MS)));
        assert!(!held.hit("acme", "", Some("499"), 0) && held.hit("acme", "", Some("500"), 0));
        held.sweep(30, 5_000);
        assert_eq!((held.is_empty(), held.due_ms()), (true, None));
    }
}
