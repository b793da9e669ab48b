//! Stand-ins until the stores are joined.
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use std::fmt;
use std::sync::Arc;
use storage::backend::{Backend, Chores};
use storage::figures::StoreFigures;
use storage::link::wants::Wants;
use storage::redis::commands::link::CommandConfig;

#[derive(Clone)]
pub(crate) struct RedisStoreConfig {
    pub(crate) link: CommandConfig,
    pub(crate) templates: Option<String>,
    pub(crate) queue: Option<RedisQueue>,
    pub(crate) acks: Option<RedisAcks>,
    pub(crate) chores: Option<Chores>,
}
#[derive(Clone)]
pub(crate) struct RedisQueue {
    pub(crate) prefix: String,
    pub(crate) entries_max: u32,
    pub(crate) ttl_seconds: u32,
}
#[derive(Clone)]
pub(crate) struct RedisAcks {
    pub(crate) prefix: String,
    pub(crate) timeout_seconds: u32,
}
#[derive(Debug)]
pub struct RedisStoreError;
impl fmt::Display for RedisStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it cannot be used")
    }
}
pub(crate) struct RedisStore(RedisStoreConfig, Vec<(StoreTicket, StoreReply)>);
impl RedisStore {
    pub(crate) fn new(
        config: RedisStoreConfig,
        _figures: Arc<StoreFigures>,
        _seed: u64,
        _wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<RedisStore, RedisStoreError> {
        Ok(RedisStore(config, Vec::new()))
    }
}
macro_rules! refuse {
    ($store:ty) => {
        impl Backend for $store {
            fn submit(&mut self, _now: Now, ticket: StoreTicket, _request: StoreRequest) {
                self.1.push((ticket, StoreReply::Failed));
            }
            fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
                out.append(&mut self.1);
            }
            fn links(&self) -> usize {
                0
            }
            fn turn(&mut self, _link: usize, _now: Now, _readable: bool, _writable: bool) -> Wants {
                Wants::default()
            }
            fn owes(&self) -> bool {
                false
            }
        }
    };
}
refuse!(RedisStore);
