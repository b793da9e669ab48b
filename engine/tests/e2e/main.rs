//! Black-box tests: the binary, real sockets, real servers beside it. What is asserted is the wire contract; nothing of
//! the workspace's own code is used, so the tests cannot share its mistakes.
//!
//! Each test brings its own processes on ports of its own and stops them when it ends, also when it fails.

mod chaos;
mod cluster;
mod conformance;
mod hostile;
mod hostile_frames;
mod hostile_http;
mod hostile_pace;
mod http;
mod lifecycle;
mod limits;
mod main_job;
mod publish;
mod queue;
mod rate_limits;
mod redis;
mod seed;
mod slow;
mod sse;
mod stores;
mod support;
mod tenants;
mod tls;
mod tokens;
mod websocket;
