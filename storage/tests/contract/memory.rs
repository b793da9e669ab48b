//! Memory as if it stood behind links, and any of the stores as one type.
//!
//! Memory has no links, and answers when it is asked.
use crate::partitioned::Summed;
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use storage::backend::Backend;
use storage::link::wants::Wants;
use storage::postgres::store::PostgresStore;
use storage::redis::store::RedisStore;
use storage::store::Store;

/// A store in memory and its answers.
pub(crate) struct MemoryStore {
    pub(crate) store: Store,
    replies: Vec<(StoreTicket, StoreReply)>,
}

impl MemoryStore {
    pub(crate) fn new(store: Store) -> MemoryStore {
        MemoryStore { store, replies: Vec::new() }
    }
}

impl Backend for MemoryStore {
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest) {
        let reply = self.store.handle(now, request);
        self.replies.push((ticket, reply));
    }

    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.append(&mut self.replies);
    }

    fn links(&self) -> usize {
        0
    }

    fn turn(&mut self, _link: usize, _now: Now, _readable: bool, _writable: bool) -> Wants {
        unreachable!("there is no link to turn")
    }

    fn owes(&self) -> bool {
        !self.replies.is_empty()
    }
}

/// Whichever store a row is asked of.
pub(crate) enum AnyStore {
    Memory(Box<MemoryStore>),
    Redis(Box<RedisStore>),
    RedisCluster(Box<Summed>),
    Postgres(Box<PostgresStore>),
}

impl AnyStore {
    fn backend(&mut self) -> &mut dyn Backend {
        match self {
            AnyStore::Memory(store) => &mut **store,
            AnyStore::Redis(store) => &mut **store,
            AnyStore::RedisCluster(store) => &mut **store,
            AnyStore::Postgres(store) => &mut **store,
        }
    }
}

impl Backend for AnyStore {
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest) {
        self.backend().submit(now, ticket, request);
    }

    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        self.backend().take_replies(out);
    }

    fn links(&self) -> usize {
        match self {
            AnyStore::Memory(store) => store.links(),
            AnyStore::Redis(store) => store.links(),
            AnyStore::RedisCluster(store) => store.links(),
            AnyStore::Postgres(store) => store.links(),
        }
    }

    fn turn(&mut self, link: usize, now: Now, readable: bool, writable: bool) -> Wants {
        self.backend().turn(link, now, readable, writable)
    }

    fn owes(&self) -> bool {
        match self {
            AnyStore::Memory(store) => store.owes(),
            AnyStore::Redis(store) => store.owes(),
            AnyStore::RedisCluster(store) => store.owes(),
            AnyStore::Postgres(store) => store.owes(),
        }
    }
}
