//! The language between the shards and what outlives a connection. The engine carries it; neither side knows the other.
use crate::ids::TenantId;
use crate::template::Template;
use std::sync::Arc;

/// Names one request of one shard until its answer comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreTicket(pub u64);

/// What a shard asks of the store.
#[derive(Clone, Debug)]
pub enum StoreRequest {
    /// Keep a template, new or changed; its id is the key within the tenant.
    PutTemplate {
        /// Whose it is.
        tenant: TenantId,
        /// What to keep.
        template: Arc<Template>,
    },
    /// Forget a template; forgetting an unknown one is done, too.
    DeleteTemplate {
        /// Whose it is.
        tenant: TenantId,
        /// Its bare id.
        id: Box<str>,
    },
    /// Everything kept, at start.
    LoadTemplates,
}

/// What the store answers.
#[derive(Clone, Debug)]
pub enum StoreReply {
    /// It is kept, or forgotten.
    Done,
    /// Answer to [`StoreRequest::LoadTemplates`].
    Templates(Vec<(TenantId, Arc<Template>)>),
    /// It could not be done; the caller must not pretend otherwise.
    Failed,
}
