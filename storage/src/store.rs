//! The store: takes a [`StoreRequest`], asks the backend that was chosen, answers with a [`StoreReply`].
use crate::memory::templates::MemoryTemplates;
use protocol::store::{StoreReply, StoreRequest};
use std::sync::Arc;

/// What is kept for the shards, on the one thread that asks it.
///
/// Each request is answered before the next is taken, so two shards that change one template agree on which change
/// was the last.
#[derive(Debug)]
pub struct Store {
    backend: Backend,
}

/// Who keeps it: an enum and not a trait object, so that a missing answer is a compile error.
#[derive(Debug)]
enum Backend {
    Memory(MemoryTemplates),
}

impl Store {
    /// A store in memory: nothing to install, nothing survives the process.
    pub fn memory() -> Store {
        Store { backend: Backend::Memory(MemoryTemplates::default()) }
    }

    /// Does one request. [`StoreReply::Failed`] means that nothing was changed: a tenant at
    /// [`protocol::limits::TEMPLATES_PER_TENANT_MAX`] takes no new template.
    pub fn handle(&mut self, request: StoreRequest) -> StoreReply {
        let Backend::Memory(templates) = &mut self.backend;
        match request {
            StoreRequest::PutTemplate { tenant, template } => {
                match templates.put(tenant, &template.id, Arc::clone(&template)) {
                    Ok(()) => StoreReply::Done,
                    Err(_full) => StoreReply::Failed,
                }
            }
            StoreRequest::DeleteTemplate { tenant, id } => {
                templates.delete(&tenant, &id);
                StoreReply::Done
            }
            StoreRequest::LoadTemplates => StoreReply::Templates(templates.load()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TenantId;

    #[test]
    fn a_fresh_store_is_empty_and_forgetting_the_unknown_is_done() {
        let mut store = Store::memory();
        assert!(matches!(store.handle(StoreRequest::LoadTemplates), StoreReply::Templates(all) if all.is_empty()));
        let forget = StoreRequest::DeleteTemplate { tenant: TenantId::default_tenant(), id: Box::from("hello") };
        assert!(matches!(store.handle(forget), StoreReply::Done));
    }
}
