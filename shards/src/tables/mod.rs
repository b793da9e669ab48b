//! What a shard knows: connections, users, channels, tenants, templates, and what is due.
//!
//! Plain data structures, each owned by its shard alone; they know nothing of each other. The flows keep them in step.
pub mod admissions;
pub mod buckets;
pub mod channels;
pub mod claims;
pub mod directory;
pub mod gathers;
pub mod mail;
pub mod named;
pub mod pace;
pub mod placement;
pub mod removals;
pub mod rendezvous;
pub mod retries;
pub mod revocations;
pub mod shard_set;
pub mod slots;
pub mod streams;
pub mod templates;
pub mod tenants;
pub mod token_ids;
pub mod turns;
pub mod unheard;
pub mod users;
pub mod watches;
pub mod wheel;
