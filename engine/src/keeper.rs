//! The store as the shards see it: each shard's own door.
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use shards::host::StorePort;
use shards::key::ShardId;
use storage::store::Store;

/// A door to a store in this process: answers at once.
pub(crate) struct Keeper {
    store: Store,
    replies: Vec<(StoreTicket, StoreReply)>,
}

impl Keeper {
    /// A shard's own store. A tenant's templates are written by the owner of its line only, so no two shards keep the
    /// same thing.
    pub(crate) fn memory() -> Keeper {
        Keeper { store: Store::memory(), replies: Vec::new() }
    }
}

impl StorePort for Keeper {
    fn submit(&mut self, _now: Now, _shard: ShardId, ticket: StoreTicket, request: StoreRequest) {
        let reply = self.store.handle(request);
        self.replies.push((ticket, reply));
    }

    fn take_replies(&mut self, _now: Now, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.append(&mut self.replies);
    }
}
