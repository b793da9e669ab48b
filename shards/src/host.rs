//! What the engine knows and the shards do not: pages that tell about the whole node.
use crate::key::ShardId;
use protocol::clock::Now;
use protocol::cluster::{ClusterEvent, ClusterRequest};
use protocol::ids::TenantId;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A page of the node, made from counters that may be read from any thread. Never waits.
pub trait Host: Send + Sync {
    /// `GET /health` (contract §1.9): JSON.
    fn health(&self, now: Now) -> Vec<u8>;
    /// `GET /health/ready`: whether messages flow, and JSON that says which do not. A node that waits for nobody is ready.
    fn ready(&self, _now: Now) -> (bool, Vec<u8>) {
        (true, br#"{"status":"ready"}"#.to_vec())
    }
    /// `GET /stats` (contract §1.10): JSON.
    fn stats(&self, now: Now) -> Vec<u8>;
    /// `GET /metrics` (contract §1.11): Prometheus text 0.0.4.
    fn metrics(&self, now: Now) -> Vec<u8>;
    /// `GET /api/v1/cluster/status` (contract §1.8): JSON.
    fn cluster_status(&self, now: Now) -> Vec<u8>;
    /// The count of a tenant's connections on the whole node, the same one for every shard that asks: a shard does so once
    /// for each tenant. Without one of the node, as here, a shard counts for itself, which is right where it is alone.
    fn tenant_connections(&self, _tenant: &TenantId) -> Arc<AtomicU64> {
        Arc::default()
    }
}

/// A host that knows nothing, for shards without an engine around them: a measurement's, a test's.
#[derive(Clone, Copy, Debug)]
pub struct NoPages;

impl Host for NoPages {
    fn health(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn stats(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn metrics(&self, _: Now) -> Vec<u8> {
        b"# none\n".to_vec()
    }
    fn cluster_status(&self, _: Now) -> Vec<u8> {
        b"{}".to_vec()
    }
}

/// A shard's door to the store. It and the links behind it share what they need, on the shard's thread.
pub trait StorePort {
    /// Takes a request; refuses (gives it back as a failure) when too many are in flight. The shard's store links have a
    /// turn before the shard sleeps or writes to its connections.
    fn submit(&mut self, now: Now, shard: ShardId, ticket: StoreTicket, request: StoreRequest);
    /// Answers that have come since the last call.
    fn take_replies(&mut self, now: Now, out: &mut Vec<(StoreTicket, StoreReply)>);
}

/// The bridge shard's door to the other nodes. It and the links behind it share what they need, on the shard's thread.
pub trait ClusterPort {
    /// Takes a request. Requests are carried out in order. The links behind it have a turn before the shard sleeps.
    fn submit(&mut self, now: Now, request: ClusterRequest);
    /// What has happened since the last call.
    fn take_events(&mut self, now: Now, out: &mut Vec<ClusterEvent>);
}
