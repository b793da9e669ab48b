//! What is kept for the shards, and where: each shard's own door to it, with the links behind the door.
//!
//! | part | what it is |
//! |---|---|
//! | [`plan`] | settings to stores: which server keeps what, over how many links |
//! | [`place`] | where Redis is |
//! | [`desk`] | one shard's door: a request to the place that keeps such things; its links as guests of the shard |
//! | [`memory`] | the place in the shard's own memory |
pub(crate) mod desk;
pub(crate) mod memory;
pub(crate) mod place;
pub(crate) mod plan;
