//! Every language Ara speaks at a boundary, as pure functions and plain data: bytes in, values out; values in,
//! bytes out.
//!
//! | boundary | spoken in |
//! |---|---|
//! | HTTP/1.1 | [`http`]: request heads and bodies, routes, responses, CORS |
//! | WebSocket and SSE | [`ws`], [`sse`]; what is said over them in [`client`] |
//! | publishers | [`publish`]: REST bodies and Redis payloads; [`template`]; what they become in [`notification`] |
//! | identity | [`auth`]: JWT and API keys; [`rate_limit`]: who may ask how often |
//! | other nodes | [`cluster`]: topics, parcels, sessions, and the language between a shard and the bridge |
//! | storage | [`store`]: the language between the shards and what outlives a connection; [`stream`]: how mail is numbered |
//!
//! **Absent on purpose:** sockets, threads, clocks, randomness, environment, files, logging. Time comes in as
//! [`clock::Now`], randomness as an argument. Every bound stands in [`limits`].
pub mod auth;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod frame;
pub mod http;
pub mod ids;
pub mod json;
pub mod limits;
pub mod notification;
pub mod publish;
pub mod rate_limit;
pub mod sse;
pub mod store;
pub mod stream;
pub mod template;
pub mod ws;
