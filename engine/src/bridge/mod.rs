//! The bridge to the other nodes of a cluster: topics and parcels over Redis (`docs/decisions/0008-cluster.md`).
//!
//! | part | what it is |
//! |---|---|
//! | `plan` | settings to a bridge, made on its shard |
//! | `desk` | the shard's door: requests to commands and topics, what comes in to events; its two links as guests |
//! | `bundles` | what is said while nobody else is known to be there: together |
//! | `inbox` | what comes in, told apart |
//! | `fences` | publishes to several partitions of a Redis Cluster: in order, and once |
//! | `gate` | whether the cluster has room for a connection |
//! | `members` | who is alive |
//! | `register` | the keys of sessions, written again before they expire and after a loss |
//! | `ledger` | revoked tokens: what Redis is to have, and how far it was read |
//! | `reading` | what this node reads of what is published to Redis |
//! | `repeats` | which repetition of a message of Redis this is |
//! | `canary` | what goes out to come back: whether messages flow; and the one of the ingest |
//! | `figures` | what it counts, for any thread to read |
//!
//! **Bounds.** Nothing waits for a Redis that is away: a parcel is told as not sent at once, a topic as watched, a connection
//! that it might have no room for as the node's own to decide, keys of
//! sessions are left to the refresh that follows when Redis is back. While it is there, the command link's own bounds
//! hold, and a parcel above them is told as not sent.
mod bundles;
pub(crate) mod canary;
mod desk;
mod fences;
pub(crate) mod figures;
mod gate;
mod inbox;
mod ledger;
mod members;
pub(crate) mod plan;
pub(crate) mod reading;
mod register;
mod repeats;

pub use canary::Flow;
pub use figures::{BridgeFigures, REFUSALS};
pub use plan::BridgeError;
