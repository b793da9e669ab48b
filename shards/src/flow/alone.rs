//! For the tests of flows: a shard of its own, and somebody who listens.
use crate::config::ShardConfig;
use crate::conn::outbox::Transport;
use crate::effect::Effect;
use crate::host::NoPages;
use crate::key::{ConnKey, ShardId};
use crate::metrics::NodeMetrics;
use crate::shard::{Arrival, Shard};
use protocol::auth::token::{Claims, Verifier};
use protocol::clock::Now;
use protocol::http::Version;
use protocol::ids::TenantId;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// A node of one shard.
pub(super) fn alone() -> Shard {
    alone_with(|_| {})
}

/// As [`alone`], with some settings changed.
pub(super) fn alone_with(change: impl FnOnce(&mut ShardConfig)) -> Shard {
    let mut config = ShardConfig::plain("alone", Verifier::hs256(b"secret").unwrap());
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
