//! For the tests of flows: a shard of its own, and somebody who listens.
use crate::config::ShardConfig;
use crate::conn::outbox::Transport;
use crate::effect::Effect;
use crate::host::Host;
use crate::key::{ConnKey, ShardId};
use crate::metrics::NodeMetrics;
use crate::shard::{Arrival, Shard};
use protocol::auth::token::{Algorithm, Claims, Verifier, VerifierConfig};
use protocol::clock::Now;
use protocol::http::Version;
use protocol::http::client_address::TrustedProxies;
use protocol::http::cors::Cors;
use protocol::ids::TenantId;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

struct NoPages;

impl Host for NoPages {
    fn health(&self, _: Now) -> Vec<u8> {
        Vec::new()
    }
    fn stats(&self, _: Now) -> Vec<u8> {
        Vec::new()
    }
    fn metrics(&self, _: Now) -> Vec<u8> {
        Vec::new()
    }
    fn cluster_status(&self, _: Now) -> Vec<u8> {
        Vec::new()
    }
}

/// A node of one shard.
pub(super) fn alone() -> Shard {
    alone_with(|_| {})
}

/// As [`alone`], with some settings changed.
pub(super) fn alone_with(change: impl FnOnce(&mut ShardConfig)) -> Shard {
    let verifier = VerifierConfig {
        algorithm: Algorithm::Hs256,
        secret: Some(b"secret"),
        public_key_pem: None,
        issuer: None,
        audience: None,
    };
    let mut config = ShardConfig {
        server_id: "alone".into(),
        production: false,
        api_key: None,
        verifier: Verifier::new(&verifier).unwrap(),
        cors: Cors::any(),
        tenancy: false,
        tenant_rules: None,
        heartbeat_interval_ms: 30_000,
        connection_timeout_ms: 120_000,
        connections_max: 0,
        sockets_max: 10,
        outbox_bytes_max: usize::MAX,
        connections_per_user_max: 0,
        subscriptions_max: 0,
        templates_kept: false,
        queue: None,
        ack: None,
        cluster: None,
        trusted_proxies: TrustedProxies::default(),
        rate_limits: None,
    };
    change(&mut config);
    Shard::new(ShardId(0), 1, Arc::new(config), Arc::new(NodeMetrics::new(1, 1)), Arc::new(NoPages), 1)
}

/// Somebody who listens to `a` and `b`.
pub(super) fn subscriber(shard: &mut Shard, effects: &mut Vec<Effect>) -> ConnKey {
    let claims = Claims { user: "ana".into(), expires_at_unix_s: u64::from(u32::MAX), ..Claims::default() };
    let arrival = Arrival {
        transport: Transport::SseBare,
        tenant: TenantId::default_tenant(),
        claims,
        accept: None,
        version: Version::Http10,
        origin: None,
        channels: vec!["a".into(), "b".into()],
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        quota: None,
        rest: Vec::new(),
    };
    shard.arrived(Now::default(), Box::new(arrival), effects)
}
