//! Templates in memory, by tenant.
use protocol::ids::TenantId;
use protocol::limits;
use protocol::template::Template;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every tenant's templates, in the order of tenant and id.
///
/// Bounded by [`limits::TEMPLATES_PER_TENANT_MAX`] for each tenant. A tenant without templates takes no room. What a
/// template is does not matter here.
#[derive(Debug)]
pub struct MemoryTemplates<T = Template> {
    tenants: BTreeMap<TenantId, BTreeMap<Box<str>, Arc<T>>>,
}

/// The tenant has as many templates as it may; only one that is there already can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplatesFull;

impl<T> Default for MemoryTemplates<T> {
    fn default() -> Self {
        MemoryTemplates { tenants: BTreeMap::new() }
    }
}

impl<T> MemoryTemplates<T> {
    /// Keeps a template, new or changed.
    ///
    /// # Errors
    /// [`TemplatesFull`] if it is new and the tenant is at its bound; nothing changed then.
    pub fn put(&mut self, tenant: TenantId, id: &str, template: Arc<T>) -> Result<(), TemplatesFull> {
        let templates = self.tenants.entry(tenant).or_default();
        if let Some(kept) = templates.get_mut(id) {
            *kept = template;
            return Ok(());
        }
        if templates.len() >= limits::TEMPLATES_PER_TENANT_MAX {
            return Err(TemplatesFull);
        }
        templates.insert(Box::from(id), template);
        Ok(())
    }

    /// Forgets a template; an unknown one is forgotten already.
    pub fn delete(&mut self, tenant: &TenantId, id: &str) {
        let Some(templates) = self.tenants.get_mut(tenant) else { return };
        templates.remove(id);
        if templates.is_empty() {
            self.tenants.remove(tenant);
        }
    }

    /// All of them, in the order of tenant and id.
    pub fn load(&self) -> Vec<(TenantId, Arc<T>)> {
        let all = self.tenants.iter();
        all.flat_map(|(tenant, templates)| templates.values().map(|t| (tenant.clone(), Arc::clone(t)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn put(templates: &mut MemoryTemplates<String>, name: &str, id: &str, text: &str) -> Result<(), TemplatesFull> {
        templates.put(tenant(name), id, Arc::new(text.to_owned()))
    }

    fn kept(templates: &MemoryTemplates<String>) -> Vec<String> {
        templates.load().iter().map(|(tenant, text)| format!("{tenant}/{text}")).collect()
    }

    #[test]
    fn each_tenant_has_its_own_and_the_last_change_stays() {
        let mut templates = MemoryTemplates::default();
        put(&mut templates, "globex", "hello", "first").unwrap();
        put(&mut templates, "acme", "hello", "second").unwrap();
        put(&mut templates, "acme", "bye", "third").unwrap();
        put(&mut templates, "acme", "hello", "changed").unwrap();
        assert_eq!(kept(&templates), ["acme/third", "acme/changed", "globex/first"]);
    }

    #[test]
    fn what_is_deleted_is_gone_and_deleting_it_again_is_fine() {
        let mut templates = MemoryTemplates::default();
        put(&mut templates, "acme", "hello", "text").unwrap();
        templates.delete(&tenant("globex"), "hello");
        templates.delete(&tenant("acme"), "bye");
        assert_eq!(kept(&templates), ["acme/text"]);
        templates.delete(&tenant("acme"), "hello");
        templates.delete(&tenant("acme"), "hello");
        assert!(templates.tenants.is_empty(), "an empty tenant leaves nothing behind");
    }

    #[test]
    fn a_full_tenant_takes_changes_but_nothing_new_and_others_do_not_notice() {
        let mut templates = MemoryTemplates::default();
        for n in 0..limits::TEMPLATES_PER_TENANT_MAX {
            put(&mut templates, "acme", &n.to_string(), "text").unwrap();
        }
        assert_eq!(put(&mut templates, "acme", "new", "text"), Err(TemplatesFull));
        assert_eq!(put(&mut templates, "acme", "7", "changed"), Ok(()));
        assert_eq!(put(&mut templates, "globex", "new", "text"), Ok(()));
        templates.delete(&tenant("acme"), "7");
        assert_eq!(put(&mut templates, "acme", "new", "text"), Ok(()));
    }
}
