//! The store of a Redis Cluster with the sums of its figures, as a node's pages show them.
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use std::sync::Arc;
use storage::backend::Backend;
use storage::figures::{Figure, StoreFigures};
use storage::link::state::LinkState;
use storage::link::wants::Wants;
use storage::redis::store::RedisStoreConfig;
use storage::redis::store::partitioned::{PartitionedStore, partitions};

pub(crate) struct Summed {
    store: PartitionedStore,
    parts: Vec<Arc<StoreFigures>>,
    sum: Arc<StoreFigures>,
}

impl Summed {
    pub(crate) fn new(config: &RedisStoreConfig, sum: Arc<StoreFigures>, wake: &Arc<dyn Fn() + Send + Sync>) -> Summed {
        let parts: Vec<_> = (0..partitions(config)).map(|_| Arc::new(StoreFigures::new("redis"))).collect();
        Summed { store: PartitionedStore::new(config, &parts, 7, wake), parts, sum }
    }

    fn add_up(&self) {
        for figure in all(&self.sum) {
            figure.set(0);
        }
        for part in &self.parts {
            for (sum, figure) in all(&self.sum).into_iter().zip(all(part)) {
                sum.add(figure.get());
            }
        }
        let is_away = |part: &&Arc<StoreFigures>| part.link() != LinkState::Healthy;
        let worst = self.parts.iter().find(is_away).unwrap_or(&self.parts[0]);
        self.sum.set_link(worst.link(), worst.breaker());
        self.sum.set_refused(self.parts.iter().any(|part| part.link() == LinkState::Healthy && !part.is_well()));
    }
}

fn all(figures: &StoreFigures) -> Vec<&Figure> {
    let (mail, acks) = (&figures.mail, &figures.acks);
    let mut all = vec![
        &mail.users,
        &mail.depth,
        &mail.enqueued,
        &mail.dropped,
        &mail.expired,
        &mail.delivered,
        &mail.undecodable,
        &acks.pending,
        &acks.tracked,
        &acks.acked,
        &acks.expired,
        &acks.latency_ms,
        &figures.outstanding,
        &figures.connections,
    ];
    for operation in &figures.operations {
        all.extend(operation.results.iter().chain(&operation.latency));
    }
    all
}

impl Backend for Summed {
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest) {
        self.store.submit(now, ticket, request);
        self.add_up();
    }

    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        self.store.take_replies(out);
    }

    fn links(&self) -> usize {
        self.store.links()
    }

    fn turn(&mut self, link: usize, now: Now, readable: bool, writable: bool) -> Wants {
        let wants = self.store.turn(link, now, readable, writable);
        self.add_up();
        wants
    }

    fn owes(&self) -> bool {
        self.store.owes()
    }
}
