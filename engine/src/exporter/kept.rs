//! Figures of what is kept: mail, acknowledgements, and the stores behind links that keep them.
use super::families::{Families, Labels, Reading};
use super::node::NodeCollector;
use crate::host::stores::StoreView;
use shards::metrics::{self, ShardMetrics};
use std::fmt::Result;
use storage::figures::{Figure, LATENCY_BOUNDS_US, OperationFigures, StoreFigures, StoreOperation, StoreResult};
use storage::link::state::LinkState;

/// [`LATENCY_BOUNDS_US`] in seconds.
const LATENCY_BOUNDS: [f64; LATENCY_BOUNDS_US.len()] = {
    let mut seconds = [0.0; LATENCY_BOUNDS_US.len()];
    let mut bound = 0;
    while bound < seconds.len() {
        seconds[bound] = LATENCY_BOUNDS_US[bound] as f64 / 1e6;
        bound += 1;
    }
    seconds
};

/// Operations that `ara_backend_*` tells of, by the names they have there.
const MAIL_OPERATIONS: [(&str, StoreOperation); 2] =
    [("enqueue", StoreOperation::Append), ("drain", StoreOperation::Read)];
/// See [`MAIL_OPERATIONS`].
const ACK_OPERATIONS: [(&str, StoreOperation); 2] =
    [("track", StoreOperation::Track), ("acknowledge", StoreOperation::Acknowledge)];

type Level = (&'static str, &'static str, fn(&StoreView) -> u64);
type Count = (&'static str, &'static str, fn(&ShardMetrics) -> u64);

impl NodeCollector {
    /// Levels, and what happens where mail is kept, are the backend's word; what this node did is its own.
    pub(super) fn mail(&self, out: &mut Families) -> Result {
        let queue = self.view.queue();
        out.gauge("ara_queue_messages", "Notifications kept for their users now.", queue.messages)?;
        out.gauge("ara_queue_size_total", "The same as ara_queue_messages.", queue.messages)?;
        out.gauge("ara_queue_users_total", "Users for whom notifications are kept now.", queue.users)?;
        let bytes = self.sum(|shard| shard.queue_bytes.get());
        out.gauge("ara_queue_memory_bytes", "Memory of the notifications kept in this process.", bytes)?;
        let counters: [Count; 6] = [
            ("ara_queue_enqueued_total", "Notifications put into mailboxes.", |shard| shard.queue_enqueued.get()),
            ("ara_queue_dropped_total", "Notifications dropped because a mailbox was full.", |shard| {
                shard.queue_dropped.get()
            }),
            ("ara_queue_refused_total", "Notifications that no mailbox could take.", |shard| shard.queue_refused.get()),
            (
                "ara_queue_removals_refused_total",
                "Notifications that stay in their mailboxes though they are done with.",
                |shard| shard.removals_refused.get(),
            ),
            ("ara_queue_replayed_total", "Notifications delivered from mailboxes.", |shard| shard.queue_replayed.get()),
            ("ara_queue_redelivered_total", "Of them, deliveries that were not the first.", |shard| {
                shard.redelivered.get()
            }),
        ];
        for (name, help, of) in counters {
            out.counter(name, help, self.sum(of))?;
        }
        out.counter("ara_queue_expired_total", "Notifications that expired in mailboxes.", queue.expired)?;
        out.counter(
            "ara_queue_undecodable_total",
            "Entries of mailboxes that were skipped because nobody can read them.",
            queue.undecodable,
        )
    }

    pub(super) fn acknowledgements(&self, out: &mut Families) -> Result {
        let acks = self.view.acks();
        let (tracked, received) =
            (self.sum(|shard| shard.ack_tracked.get()), self.sum(|shard| shard.ack_received.get()));
        out.counter("ara_ack_tracked_total", "Notifications whose acknowledgement is awaited.", tracked)?;
        out.counter("ara_ack_received_total", "Acknowledgements received in time.", received)?;
        out.counter("ara_ack_expired_total", "Notifications not acknowledged in time.", acks.expired)?;
        out.counter(
            "ara_ack_unrecorded_total",
            "Deliveries and acknowledgements that their store could not note.",
            self.sum(|shard| shard.ack_unrecorded.get()),
        )?;
        out.gauge("ara_ack_pending", "Notifications not acknowledged yet.", acks.pending)?;
        let latencies = self.view.metrics.shards.iter().map(|shard| &shard.ack_latency_seconds);
        let latency = Reading::of(&metrics::ACK_LATENCY_BOUNDS, latencies);
        out.histogram("ara_ack_latency_seconds", "From a delivery to its acknowledgement.", &latency)
    }

    /// The stores behind links. A node without one shows the families for what it keeps in memory, at 0.
    pub(super) fn stores(&self, out: &mut Families) -> Result {
        let settings = &self.view.settings;
        let named = |backend: &'static str, operations: [(&'static str, StoreOperation); 2]| {
            operations.map(|(name, operation)| ([("backend", backend), ("operation", name)], operation))
        };
        let (queue, ack) = (settings.queue.backend, settings.ack.backend);
        let rows = [
            (self.view.store(queue), named(queue.as_str(), MAIL_OPERATIONS)),
            (self.view.store(ack), named(ack.as_str(), ACK_OPERATIONS)),
        ];
        let rows = rows
            .iter()
            .flat_map(|(store, rows)| rows.iter().map(move |(labels, operation)| (&labels[..], *store, *operation)));
        let latencies = rows.clone().map(|(labels, store, operation)| (labels, latency(store, operation)));
        out.histograms("ara_backend_operation_latency_seconds", "How long backends took.", latencies)?;
        let errors = rows.map(|(labels, store, operation)| {
            (labels, ended(store, operation, StoreResult::Failed) + ended(store, operation, StoreResult::Unknown))
        });
        out.counters("ara_backend_errors_total", "Backend operations that failed.", errors)?;

        let behind_links: Vec<_> =
            self.view.stores.iter().map(|store| (store.backend().as_str(), Some(store))).collect();
        let stores = if behind_links.is_empty() { vec![(queue.as_str(), None)] } else { behind_links };
        self.operations(out, &stores)?;
        self.links(out, &stores)
    }

    /// Everything that is asked of stores, by how it ended.
    fn operations(&self, out: &mut Families, stores: &[(&str, Option<&StoreView>)]) -> Result {
        let mut operations = Vec::new();
        for (backend, store) in stores {
            for operation in StoreOperation::ALL {
                operations.push(([("backend", *backend), ("operation", operation.as_str())], *store, operation));
            }
        }
        let mut results = Vec::new();
        for ([backend, name], store, operation) in &operations {
            for result in StoreResult::ALL {
                let labels = [*backend, *name, ("result", result.as_str())];
                results.push((labels, ended(*store, *operation, result)));
            }
        }
        out.counters(
            "ara_store_operations_total",
            "What was asked of a store behind links, by how it ended.",
            results.iter().map(|(labels, count)| (&labels[..], *count)),
        )?;
        let latencies = operations.iter().map(|(labels, store, operation)| (&labels[..], latency(*store, *operation)));
        out.histograms("ara_store_operation_latency_seconds", "From asking a store to its answer.", latencies)
    }

    /// How stores are, and the links to them.
    fn links(&self, out: &mut Families, stores: &[(&str, Option<&StoreView>)]) -> Result {
        let labels: Vec<[(&str, &str); 1]> = stores.iter().map(|(backend, _)| [("backend", *backend)]).collect();
        let rows = |of: fn(&StoreView) -> u64| {
            let values = stores.iter().map(move |(_, store)| store.map_or(0, of));
            labels.iter().map(|labels| &labels[..] as Labels).zip(values).collect::<Vec<_>>()
        };
        let gauges: [Level; 5] = [
            ("ara_store_link_state", "The worst shard: 0 reconnecting, 1 healthy, 2 not trying.", |store| {
                let links = || store.figures().map(StoreFigures::link);
                let worst = [LinkState::CircuitOpen, LinkState::Reconnecting, LinkState::Healthy];
                let worst = worst.into_iter().find(|state| links().any(|link| link == *state));
                worst.map_or(0, |state| state as u64)
            }),
            ("ara_store_circuit_breaker_state", "The worst shard: 0 closed, 1 open, 2 half open.", |store| {
                store.breaker() as u64
            }),
            ("ara_store_well", "1 while every shard reaches the store and it does what it is asked.", |store| {
                u64::from(store.state().is_well())
            }),
            ("ara_store_links", "Links to the store, up or not.", |store| store.links() as u64),
            ("ara_store_requests_outstanding", "Requests that are not answered now.", |store| {
                store.sum(|figures| figures.outstanding.get())
            }),
        ];
        for (name, help, of) in gauges {
            out.gauges(name, help, rows(of))?;
        }
        let connections = rows(|store| store.sum(|figures| figures.connections.get()));
        out.counters("ara_store_connections_total", "How often a link to the store became healthy.", connections)
    }
}

fn of(store: Option<&StoreView>, operation: StoreOperation) -> impl Iterator<Item = &OperationFigures> {
    store.into_iter().flat_map(StoreView::figures).map(move |figures| &figures.operations[operation as usize])
}

fn ended(store: Option<&StoreView>, operation: StoreOperation, result: StoreResult) -> u64 {
    of(store, operation).map(|figures| figures.results[result as usize].get()).sum()
}

fn latency(store: Option<&StoreView>, operation: StoreOperation) -> Reading {
    let (mut counts, mut sum_us) = (vec![0; LATENCY_BOUNDS.len() + 1], 0);
    for figures in of(store, operation) {
        for (all, count) in counts.iter_mut().zip(figures.latency.iter().map(Figure::get)) {
            *all += count;
        }
        sum_us += figures.latency_sum_us.get();
    }
    Reading::new(&LATENCY_BOUNDS, counts, sum_us as f64 / 1e6)
}
