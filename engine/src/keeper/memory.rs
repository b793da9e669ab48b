//! What a shard keeps in its own memory: answers at once, in order.
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest};
use shards::key::ShardId;
use shards::metrics::NodeMetrics;
use std::sync::Arc;
use storage::memory::mailboxes::MailboxLimits;
use storage::store::Store;

/// A shard's own store. A tenant's templates are written by the owner of its line only, and a user's mailbox by the
/// user's home, so no two shards keep the same thing.
pub(crate) struct Memory {
    store: Store,
    sweep_interval_us: u64,
    swept_at_us: u64,
    metrics: Arc<NodeMetrics>,
    shard: ShardId,
}

impl Memory {
    /// Empty. Sweeps every `QUEUE_CLEANUP_INTERVAL_SECONDS`.
    pub(crate) fn new(
        shard: ShardId,
        limits: MailboxLimits,
        sweep_interval_us: u64,
        metrics: Arc<NodeMetrics>,
    ) -> Memory {
        Memory { store: Store::memory(limits), sweep_interval_us, swept_at_us: 0, metrics, shard }
    }

    /// Does one request.
    pub(super) fn handle(&mut self, now: Now, request: StoreRequest) -> StoreReply {
        let reply = self.store.handle(now, request);
        self.tell();
        reply
    }

    /// Sweeps when it is time.
    pub(super) fn tick(&mut self, now: Now) {
        if now.mono_us >= self.swept_at_us.saturating_add(self.sweep_interval_us) {
            self.swept_at_us = now.mono_us;
            self.store.sweep(now);
            self.tell();
        }
    }

    /// Tells the shard's figures, on the shard's thread.
    fn tell(&self) {
        let (counts, metrics) = (self.store.mailbox_counts(), &self.metrics.shards[self.shard.index()]);
        metrics.queue_messages.set(counts.entries as i64);
        metrics.queue_bytes.set(counts.bytes as i64);
        metrics.queue_users.set(counts.mailboxes as i64);
        metrics.queue_expired.set(counts.expired as i64);
    }
}
