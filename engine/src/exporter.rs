//! `/metrics`: the node's figures as Prometheus text (contract §1.11 and §14).
mod families;
mod kept;
mod node;
mod text;

use crate::host::NodeView;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// The content type of [`Exporter::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the figures of one node.
#[derive(Debug)]
pub struct Exporter {
    registry: Registry,
}

impl Exporter {
    /// `route_labels` says method and path of the routes, in the order of [`shards::metrics::ShardMetrics::http_requests`].
    pub fn new(view: Arc<NodeView>, route_labels: &'static [(&'static str, &'static str)]) -> Exporter {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(node::NodeCollector { view, route_labels }));
        Exporter { registry }
    }

    /// All families at this moment, sorted by name. Reads counters and two small files of `/proc`; waits for nothing.
    pub fn render(&self) -> Vec<u8> {
        let mut open_metrics = String::with_capacity(32 * 1024);
        // Writing to a `String` cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut open_metrics, &self.registry);
        text::to_prometheus(&open_metrics).into_bytes()
    }
}

#[cfg(test)]
mod tests;
