//! What happens on a shard, one flow a file. A flow is a block of `Shard` methods: it reads and changes the tables, and
//! pushes effects. `deliver` and `gather` are the leaves that the others call.
mod ack;
#[cfg(test)]
mod alone;
mod answer;
mod api;
mod batch;
mod catch_up;
mod check;
mod client;
mod close;
pub(crate) mod cluster;
mod connect;
pub(crate) mod deliver;
pub(crate) mod fanout;
mod gather;
mod http;
pub(crate) mod limit;
pub(crate) mod mail;
pub(crate) mod publish;
mod query;
mod refresh;
mod removals;
mod revoke;
pub(crate) mod sealed;
pub(crate) mod shed;
mod stream;
mod subscribe;
pub(crate) mod templates;
mod timers;
