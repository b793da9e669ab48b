//! Every shard's copy of the templates: a send never asks another shard for one. Writes go through the line's owner.
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::ids::TenantId;
use protocol::limits;
use protocol::template::Template;
use std::sync::Arc;

/// How far the templates of a store that outlives the process are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// Nothing is to come.
    Done,
    /// They are to be asked for at this time, in milliseconds on the monotonic clock.
    Due(u64),
    /// They were asked for under this ticket.
    Asked(u64),
}

/// The table.
pub struct Templates {
    loading: Loading,
    /// What was deleted since they were asked for: the answer may not know it.
    deleted: Vec<(TenantId, Box<str>)>,
    tenants: HashMap<TenantId, HashMap<Box<str>, Arc<Template>, RandomState>, RandomState>,
}

impl Templates {
    /// Without a template; `is_loaded` when none are to come.
    pub fn new(is_loaded: bool) -> Templates {
        let loading = if is_loaded { Loading::Done } else { Loading::Due(0) };
        Templates { loading, deleted: Vec::new(), tenants: HashMap::default() }
    }

    /// How far the templates are here.
    pub fn loading(&self) -> Loading {
        self.loading
    }

    /// They are asked for: what was deleted until now the store knows.
    pub fn ask(&mut self, ticket: u64) {
        self.deleted.clear();
        self.loading = Loading::Asked(ticket);
    }

    /// They did not come; when to ask again.
    pub fn ask_again(&mut self, at_ms: u64) {
        self.loading = Loading::Due(at_ms);
    }

    /// They are here. What was changed or deleted since they were asked for is newer.
    pub fn load(&mut self, templates: Vec<(TenantId, Arc<Template>)>) {
        for (tenant, template) in templates {
            let is_newer = |(of, id): &(TenantId, Box<str>)| *of == tenant && *id == template.id;
            if self.get(&tenant, &template.id).is_none() && !self.deleted.iter().any(is_newer) {
                self.set(&tenant, &template.id.clone(), Some(template));
            }
        }
        (self.loading, self.deleted) = (Loading::Done, Vec::new());
    }

    /// Whether so much was deleted since they were asked for that they are better asked for anew.
    pub fn is_outdated(&self) -> bool {
        self.deleted.len() >= limits::TEMPLATES_DELETED_MAX
    }
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
                if matches!(self.loading, Loading::Asked(_)) && !self.is_outdated() {
                    self.deleted.push((tenant.clone(), id.into()));
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::template;

    fn template(id: &str, name: &str) -> (TenantId, Arc<Template>) {
        let body = format!(r#"{{"id":"{id}","name":"{name}","event_type":"e","payload_template":1}}"#);
        (TenantId::default_tenant(), Arc::new(template::parse_create(body.as_bytes(), 0).unwrap()))
    }

    #[test]
    fn what_changed_while_they_were_loaded_is_newer() {
        let mut templates = Templates::new(false);
        assert_eq!(templates.loading(), Loading::Due(0));
        let (tenant, _) = template("a", "old");
        templates.set(&tenant, "early", None);
        templates.ask(7);
        templates.set(&tenant, "a", Some(template("a", "new").1));
        templates.set(&tenant, "b", None);
        templates.load(vec![
            template("a", "old"),
            template("b", "old"),
            template("c", "old"),
            template("early", "old"),
        ]);
        let names: Vec<(&str, &str)> = templates.list(&tenant).iter().map(|held| (&*held.id, &*held.name)).collect();
        assert_eq!(names, [("a", "new"), ("c", "old"), ("early", "old")]);
        assert_eq!(templates.loading(), Loading::Done);
    }
}
