//! What outlives a connection, and the links to the servers that keep it.
//!
//! | module | what it is | touches sockets |
//! |---|---|---|
//! | [`store`] | [`store::Store`]: one request in, one reply out, over the backend that was chosen | no |
//! | [`backend`] | [`backend::Backend`]: what a store behind links looks like | no |
//! | [`figures`] | what a store counts, for any thread to read | no |
//! | [`memory`] | the embedded backend: nothing to install, nothing survives the process | no |
//! | [`redis::url`] | `REDIS_URL`, taken apart and never printed with its password | no |
//! | [`redis::session`] | the words of a RESP2 subscription: commands to bytes, bytes to events | no |
//! | [`redis::feed`] | the subscription that is always there: connects, proves, reconnects for ever | yes |
//! | [`redis::router`] | a subscription whose names come and go: the topics of a cluster | yes |
//! | [`redis::sessions`] | the keys of contract §12.1: who is connected where | no |
//! | [`redis::partitions`] | what keys are called in a Redis Cluster | no |
//! | [`redis::store`] | the backend in Redis: a shard's requests over one pipelined link | yes |
//! | [`postgres`] | the PostgreSQL client: links that come back, commands pipelined over them, the tables; and the store over it | yes |
//! | [`link`] | what every link has in common: lookup, connect, socket, state | yes |
//! | [`breaker`], [`backoff`] | when to try again; pure, given the time | no |
//!
//! A link belongs to the thread that turns it and is never waited for: a turn makes only non-blocking calls and says
//! when it wants the next one. The one helper thread is the name lookup, which the system offers in no other form.
//!
//! **Absent on purpose:** shards, connections, HTTP, WebSocket; an async runtime; a clock (time is
//! [`protocol::clock::Now`], given by the caller). Every bound stands in [`protocol::limits`].
pub mod backend;
pub mod backoff;
pub mod breaker;
mod event;
pub mod figures;
pub mod link;
pub mod memory;
pub mod postgres;
pub mod redis;
pub mod store;
