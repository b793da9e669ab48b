use super::*;
use crate::config::ShardConfig;
use crate::effect::Effect;
use crate::host::Host;
use crate::key::ShardId;
use crate::metrics::NodeMetrics;
use crate::shard::Arrival;
use protocol::auth::token::{Algorithm, Claims, Verifier, VerifierConfig};
use protocol::http::Version;
use protocol::http::cors::Cors;
use protocol::ids::TenantId;
use protocol::json;
use protocol::notification::{Content, Priority, Source};
use std::net::{IpAddr, Ipv4Addr};

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

fn alone() -> Shard {
    let verifier = VerifierConfig {
        algorithm: Algorithm::Hs256,
        secret: Some(b"secret"),
        public_key_pem: None,
        issuer: None,
        audience: None,
    };
    let config = ShardConfig {
        server_id: "alone".into(),
        production: false,
        api_key: None,
        verifier: Verifier::new(&verifier).unwrap(),
        cors: Cors::any(),
        tenancy: false,
        heartbeat_interval_ms: 30_000,
        connection_timeout_ms: 120_000,
        connections_max: 0,
        sockets_max: 10,
        connections_per_user_max: 0,
        subscriptions_max: 0,
        trusted_proxies: Vec::new(),
    };
    Shard::new(ShardId(0), 1, Arc::new(config), Arc::new(NodeMetrics::new(1, 1)), Arc::new(NoPages), 1)
}

fn subscriber(shard: &mut Shard, effects: &mut Vec<Effect>) -> crate::key::ConnKey {
    let claims = Claims { user: "ana".into(), expires_at_unix_s: u64::MAX, roles: Box::new([]), tenant: None };
    let arrival = Arrival {
        transport: Transport::SseBare,
        tenant: TenantId::default_tenant(),
        claims,
        accept: None,
        version: Version::Http10,
        origin: None,
        channels: vec!["a".into(), "b".into()],
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        rest: Vec::new(),
    };
    shard.arrived(Now::default(), Box::new(arrival), effects)
}

#[test]
fn marks_that_are_used_up_hide_nothing_from_anybody() {
    let (mut shard, mut effects) = (alone(), Vec::new());
    let early = subscriber(&mut shard, &mut effects);
    let publish = |shard: &mut Shard| {
        let content = Content {
            event_type: "e".into(),
            payload: json::compact("1", 1).unwrap(),
            priority: Priority::Normal,
            ttl: None,
            correlation_id: None,
            audience: None,
        };
        let target = Target::Channels(["a".into(), "b".into()].into());
        let publication =
            shard.accept(Now::default(), TenantId::default_tenant(), target, &content, &Source::Http).unwrap();
        shard.start_fanout(Now::default(), publication, None, &mut Vec::new());
    };
    publish(&mut shard);
    shard.fanout_stamp = u32::MAX;
    let late = subscriber(&mut shard, &mut effects);
    for _ in 0..3 {
        publish(&mut shard);
    }
    let waiting = [early, late].map(|key| shard.connections.get(key).unwrap().outbox.as_ref().unwrap().frames_len());
    assert_eq!(waiting, [4, 3]);
}
