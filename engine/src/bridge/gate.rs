//! Whether the cluster has room for a connection: asked of Redis, and given back. No socket.
use protocol::cluster::Session;
use protocol::ids::{ConnectionId, TenantId};
use shards::config::ShardConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::redis::admissions::{Admissions, Counted};
use storage::redis::commands::Command;

/// The limits that hold for all nodes, and where they are counted.
pub(super) struct Gate {
    pub(super) admissions: Admissions,
    rules: Arc<ShardConfig>,
    /// It was said that the node's own counts decide; once per outage.
    is_told: bool,
}

impl Gate {
    pub(super) fn new(admissions: Admissions, rules: Arc<ShardConfig>) -> Gate {
        Gate { admissions, rules, is_told: false }
    }

    fn counted(&self, tenant: &TenantId) -> Counted {
        let limits = self.rules.limits_of(tenant);
        Counted { by_user: limits.connections_per_user_max != 0, by_tenant: limits.connections_max != 0 }
    }

    /// A connection is gone.
    pub(super) fn give_back<R>(&self, session: &Session, submit: impl FnMut(Command<'_>) -> R) {
        let Session { connection, tenant, user, .. } = session;
        self.admissions.give_back(*connection, tenant, user, self.counted(tenant), submit);
    }

    /// Connections that are still there.
    pub(super) fn hold<R>(&self, page: &[Session], mut submit: impl FnMut(Command<'_>) -> R) {
        let mut by_tenant: BTreeMap<&TenantId, Vec<(ConnectionId, &str)>> = BTreeMap::new();
        for Session { connection, tenant, user, .. } in page {
            by_tenant.entry(tenant).or_default().push((*connection, user));
        }
        for (tenant, connections) in by_tenant {
            let counted = self.counted(tenant);
            if counted.by_user || counted.by_tenant {
                self.admissions.hold(tenant, counted, &connections, &mut submit);
            }
        }
    }

    /// Redis does not say: the node's own counts decide. Told once in an outage.
    pub(super) fn own_counts_decide(&mut self) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                "Redis does not say how many connections users and tenants have in the cluster: until it does, this node \
                 admits by its own counts, and limits may be exceeded"
            );
        }
    }

    /// Redis is there again.
    pub(super) fn up(&mut self) {
        self.is_told = false;
    }
}
