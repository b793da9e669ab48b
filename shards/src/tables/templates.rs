//! Every shard's copy of the templates: a send never asks another shard for one. Writes go through the line's owner.
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::ids::TenantId;
use protocol::template::Template;
use std::sync::Arc;

/// The table.
#[derive(Default)]
pub struct Templates {
    tenants: HashMap<TenantId, HashMap<Box<str>, Arc<Template>, RandomState>, RandomState>,
}

impl Templates {
    /// A tenant's template, by bare id.
    pub fn get(&self, tenant: &TenantId, id: &str) -> Option<&Arc<Template>> {
        self.tenants.get(tenant)?.get(id)
    }

    /// Keeps a template, or forgets it.
    pub fn set(&mut self, tenant: &TenantId, id: &str, template: Option<Arc<Template>>) {
        match template {
            Some(template) => {
                self.tenants.entry_ref(tenant).or_default().insert(id.into(), template);
            }
            None => {
                if let Some(templates) = self.tenants.get_mut(tenant) {
                    templates.remove(id);
                }
            }
        }
    }

    /// A tenant's templates, by id, so that the same list reads the same twice.
    pub fn list(&self, tenant: &TenantId) -> Vec<&Arc<Template>> {
        let mut list: Vec<_> = self.tenants.get(tenant).into_iter().flat_map(|templates| templates.values()).collect();
        list.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// How many a tenant has.
    pub fn len_of(&self, tenant: &TenantId) -> usize {
        self.tenants.get(tenant).map_or(0, |templates| templates.len())
    }
}
