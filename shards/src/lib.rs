//! One core's world: its state machine, its tables, its sockets, and the mesh to its siblings.
//!
//! | part | what it is |
//! |---|---|
//! | [`shard`] | the state machine: `(now, event) -> effects`, no sockets, no clocks |
//! | `flow/`, `tables/`, `conn/` | what it is made of |
//! | [`reactor`] | the rim: epoll, sockets, clocks, one turn after another |
//! | [`mesh`] | N×N lanes between the shards of a node |
//! | [`guest`] | links to other servers that live on a shard's reactor |
//! | [`pressure`] | which tenants are held back |
//! | [`host`], [`config`], [`metrics`] | what the engine gives to a shard and reads from it |
pub mod config;
pub mod conn;
pub mod effect;
mod flow;
pub mod guest;
pub mod host;
pub mod key;
pub mod mesh;
pub mod metrics;
pub mod pressure;
pub mod reactor;
pub mod shard;
pub mod tables;
pub mod tenant_limits;
