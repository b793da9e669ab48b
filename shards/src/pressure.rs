//! Tenants whose publishes are refused for a while, because some shard has as many of their fan-outs waiting as it may.
//!
//! Each shard writes a row of its own and all read all of them: a publish finds out with one load while nobody is held
//! back, and with a glance at the rows otherwise.
use foldhash::fast::FixedState;
use protocol::ids::TenantId;
use protocol::limits;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A tenant, in 63 bits: another one with the same would be refused with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantMark(u64);

impl TenantMark {
    /// The same on every shard.
    pub fn of(tenant: &TenantId) -> TenantMark {
        TenantMark(FixedState::with_seed(0x6865_6c64).hash_one(tenant.as_str()) | 1)
    }
}

/// The rows of a node.
#[derive(Debug)]
pub struct HeldBack {
    /// How many marks stand in the rows.
    marks: AtomicU64,
    rows: Vec<[AtomicU64; limits::TENANTS_HELD_BACK_MAX]>,
}

impl HeldBack {
    /// Nobody.
    pub fn new(shards: usize) -> HeldBack {
        let rows = (0..shards).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect();
        HeldBack { marks: AtomicU64::new(0), rows }
    }

    /// Holds a tenant back, on this shard's word and its thread. False when the row is full: then it is not held back.
    pub fn hold(&self, shard: usize, mark: TenantMark) -> bool {
        let Some(free) = self.rows[shard].iter().find(|place| place.load(Relaxed) == 0) else { return false };
        free.store(mark.0, Relaxed);
        self.marks.fetch_add(1, Relaxed);
        true
    }

    /// Takes that back.
    pub fn let_go(&self, shard: usize, mark: TenantMark) {
        if let Some(place) = self.rows[shard].iter().find(|place| place.load(Relaxed) == mark.0) {
            place.store(0, Relaxed);
            self.marks.fetch_sub(1, Relaxed);
        }
    }

    /// Whether some shard holds this tenant back.
    pub fn holds(&self, tenant: &TenantId) -> bool {
        self.marks.load(Relaxed) > 0 && self.holds_mark(TenantMark::of(tenant))
    }

    /// As [`HeldBack::holds`].
    pub fn holds_mark(&self, mark: TenantMark) -> bool {
        self.marks.load(Relaxed) > 0 && self.rows.iter().flatten().any(|place| place.load(Relaxed) == mark.0)
    }

    /// How many are held back, once for each shard that says so.
    pub fn len(&self) -> u64 {
        self.marks.load(Relaxed)
    }

    /// Whether nobody is held back.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_held_back_until_every_shard_has_let_it_go() {
        let held = HeldBack::new(2);
        let [acme, bolt] = ["acme", "bolt"].map(|name| TenantId::parse(name).unwrap());
        let mark = TenantMark::of(&acme);
        assert!(!held.holds(&acme));
        assert!(held.hold(0, mark) && held.hold(1, mark));
        assert!(held.holds(&acme) && !held.holds(&bolt));
        held.let_go(0, mark);
        assert!(held.holds(&acme));
        held.let_go(1, mark);
        held.let_go(1, mark);
        assert!(!held.holds(&acme) && held.is_empty());
    }

    #[test]
    fn a_full_row_holds_nobody_else_back() {
        let held = HeldBack::new(1);
        let taken = (0..99).take_while(|n| held.hold(0, TenantMark(2 * n + 1))).count();
        assert_eq!(taken, limits::TENANTS_HELD_BACK_MAX);
    }
}
