//! The Redis link: where to ([`url`]), what is said ([`session`]), who keeps it up ([`feed`]), how it does
//! ([`status`]).
//!
//! [`commands`] is another link, for commands and their answers; it shares nothing with the subscription but the way it
//! is made. [`mailbox`] and [`acks`] are what is said over it, and
//! [`store`] is who says it: the backend of a shard. [`counter`] counts requests over a link of its own. [`router`] is
//! a subscription whose names come and go.
//! [`partitions`] is where keys lie in a Redis Cluster.
pub mod acks;
pub mod admissions;
pub mod commands;
pub mod counter;
pub mod feed;
mod link;
pub mod mailbox;
pub mod partitions;
mod reply;
pub mod revocations;
pub mod router;
pub mod session;
pub mod sessions;
pub mod status;
pub mod store;
pub mod topology;
mod trouble;
pub mod url;
