//! How many connections and subscriptions a tenant may have (contract §11, D-11).
use crate::config::ShardConfig;
use protocol::ids::TenantId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What one tenant may have; 0 is unlimited. In a cluster the first two hold for all nodes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// Connections of the tenant.
    pub connections_max: usize,
    /// Connections of one of its users.
    pub connections_per_user_max: usize,
    /// Subscriptions of one of its connections.
    pub subscriptions_max: usize,
}

/// `TENANT_DEFAULT_MAX_*`, and what some tenants have instead.
#[derive(Clone, Debug, Default)]
pub struct TenantRules {
    /// Of whoever is not named.
    pub default_limits: TenantLimits,
    /// `[tenant.tenant_overrides.<id>]`.
    pub overrides: BTreeMap<Box<str>, TenantLimits>,
}

impl TenantRules {
    /// What a tenant may have.
    pub fn of(&self, tenant: &TenantId) -> TenantLimits {
        self.overrides.get(tenant.as_str()).copied().unwrap_or(self.default_limits)
    }
}

impl ShardConfig {
    /// What holds for the connections of a tenant: its own limits, or those of every user and connection where these are
    /// stricter. Without tenancy there is no limit of tenants.
    pub fn limits_of(&self, tenant: &TenantId) -> TenantLimits {
        let own = self.tenant_rules.as_ref().map(|rules| rules.of(tenant)).unwrap_or_default();
        TenantLimits {
            connections_max: own.connections_max,
            connections_per_user_max: stricter(own.connections_per_user_max, self.connections_per_user_max),
            subscriptions_max: stricter(own.subscriptions_max, self.subscriptions_max),
        }
    }
}

/// 0 is no limit.
fn stricter(one: usize, other: usize) -> usize {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        (one, other) => one.min(other),
    }
}

/// What a shard holds a tenant to: obtained once, with the tenant's first connection there.
#[derive(Clone, Debug)]
pub struct Allowance {
    /// What it may have.
    pub limits: TenantLimits,
    /// What it has on the whole node: one count for all shards, touched when a connection begins and ends.
    pub connections: Arc<AtomicU64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_limit_holds_and_zero_is_none() {
        let rows = [(0, 0, 0), (0, 5, 5), (5, 0, 5), (3, 5, 3), (5, 3, 3)];
        for (one, other, expected) in rows {
            assert_eq!(stricter(one, other), expected, "{one} and {other}");
        }
    }

    #[test]
    fn a_tenant_that_is_named_has_its_own() {
        let limits = |connections_max| TenantLimits { connections_max, ..TenantLimits::default() };
        let rules = TenantRules { default_limits: limits(3), overrides: [("acme".into(), limits(7))].into() };
        let of = |name: &str| rules.of(&TenantId::parse(name).unwrap()).connections_max;
        assert_eq!((of("acme"), of("bolt"), of("default")), (7, 3, 3));
    }
}
