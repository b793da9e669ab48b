//! The parts of the binary `ara-notification-service`.
//!
//! | part | what it is |
//! |---|---|
//! | [`args`], [`commands`] | what can be asked of the binary on the command line |
//! | [`config`] | settings: read, checked, shown |
//! | [`logging`] | log lines on stdout |
//! | [`boot`] | from settings to a running node |
//! | [`host`] | pages about the node: health, stats, cluster status |
//! | [`exporter`] | the node's figures as Prometheus text |
//! | [`bridge`] | the other nodes of a cluster; whether messages flow |
//! | `ingress`, `keeper` | Redis and the store, as the shards see them |
//! | `signals` | how a run ends |
//! | [`tls`] | what clients are encrypted with |
//! | [`random`] | names and secrets made up at start |
pub mod args;
pub mod boot;
pub mod bridge;
pub mod commands;
pub mod config;
pub mod exporter;
pub mod host;
mod ingress;
mod keeper;
pub mod logging;
pub mod random;
mod signals;
pub mod tls;
