//! A whole node in one thread: shards, lanes and clients, a virtual clock, one seed. No sockets.
//!
//! Every failure names its seed; the same seed replays the same world.
mod client;
mod cluster;
mod deadlines;
mod fanout;
mod http;
mod limits;
mod mail;
mod numbers;
mod outages;
mod seeds;
mod slow;
mod store;
mod storm;
mod streams;
mod tenants;
mod tokens;
mod world;
