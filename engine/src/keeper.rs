//! The store as the shards see it: each shard's own door.
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use shards::host::StorePort;
use shards::key::ShardId;
use shards::metrics::NodeMetrics;
use std::sync::Arc;
use storage::memory::mailboxes::MailboxLimits;
use storage::store::Store;

/// A door to a store in this process: answers at once, in order.
pub(crate) struct Keeper {
    store: Store,
    replies: Vec<(StoreTicket, StoreReply)>,
    sweep_interval_us: u64,
    swept_at_us: u64,
    metrics: Arc<NodeMetrics>,
    shard: Option<ShardId>,
}

impl Keeper {
    /// A shard's own store. A tenant's templates are written by the owner of its line only, and a user's mailbox by the
    /// user's home, so no two shards keep the same thing.
    pub(crate) fn memory(limits: MailboxLimits, sweep_interval_us: u64, metrics: Arc<NodeMetrics>) -> Keeper {
        let store = Store::memory(limits);
        Keeper { store, replies: Vec::new(), sweep_interval_us, swept_at_us: 0, metrics, shard: None }
    }

    /// Tells the shard's figures, on the shard's thread.
    fn tell(&self) {
        let Some(shard) = self.shard else { return };
        let (counts, metrics) = (self.store.mailbox_counts(), &self.metrics.shards[shard.index()]);
        metrics.queue_messages.set(counts.entries as i64);
        metrics.queue_bytes.set(counts.bytes as i64);
        metrics.queue_users.set(counts.mailboxes as i64);
        metrics.queue_expired.set(counts.expired as i64);
    }
}

impl StorePort for Keeper {
    fn submit(&mut self, now: Now, shard: ShardId, ticket: StoreTicket, request: StoreRequest) {
        self.shard = Some(shard);
        let reply = self.store.handle(now, request);
        self.replies.push((ticket, reply));
        self.tell();
    }

    fn take_replies(&mut self, now: Now, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.append(&mut self.replies);
        if now.mono_us >= self.swept_at_us.saturating_add(self.sweep_interval_us) {
            self.swept_at_us = now.mono_us;
            self.store.sweep(now);
            self.tell();
        }
    }
}
