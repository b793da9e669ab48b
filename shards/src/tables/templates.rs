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
    /// They are served, and another node has written some: how far they are read again.
    reading_again: Loading,
    /// What was changed here since they were asked for again.
    changed: Vec<(TenantId, Box<str>)>,
    tenants: HashMap<TenantId, HashMap<Box<str>, Arc<Template>, RandomState>, RandomState>,
}

impl Templates {
    /// Without a template; `is_loaded` when none are to come.
    pub fn new(is_loaded: bool) -> Templates {
        let loading = if is_loaded { Loading::Done } else { Loading::Due(0) };
        Templates {
            loading,
            deleted: Vec::new(),
            reading_again: Loading::Done,
            changed: Vec::new(),
            tenants: HashMap::default(),
        }
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

    /// Another node has written some: they are to be read again then, in milliseconds on the monotonic clock. What is on its
    /// way already may be too old.
    pub fn outdated(&mut self, at_ms: u64) {
        if !matches!(self.reading_again, Loading::Due(_)) {
            self.reading_again = Loading::Due(at_ms);
        }
    }

    /// How far they are read again.
    pub fn reading_again(&self) -> Loading {
        self.reading_again
    }

    /// They are asked for again.
    pub fn ask_once_more(&mut self, ticket: u64) {
        self.changed.clear();
        self.reading_again = Loading::Asked(ticket);
    }

    /// They are here again, but for what was changed here since they were asked for. So much may have been changed that they
    /// are better asked for anew: false then.
    pub fn replace(&mut self, templates: Vec<(TenantId, Arc<Template>)>) -> bool {
        if self.changed.len() >= limits::TEMPLATES_DELETED_MAX {
            return false;
        }
        let mut tenants: HashMap<TenantId, HashMap<Box<str>, Arc<Template>, RandomState>, RandomState> =
            HashMap::default();
        for (tenant, template) in templates {
            tenants.entry(tenant).or_default().insert(template.id.clone(), template);
        }
        for (tenant, id) in std::mem::take(&mut self.changed) {
            let held = self.tenants.get(&tenant).and_then(|templates| templates.get(&id)).cloned();
            let templates = tenants.entry(tenant).or_default();
            match held {
                Some(template) => drop(templates.insert(id, template)),
                None => drop(templates.remove(&id)),
            }
        }
        (self.tenants, self.reading_again) = (tenants, Loading::Done);
        true
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
        if matches!(self.reading_again, Loading::Asked(_)) && self.changed.len() < limits::TEMPLATES_DELETED_MAX {
            self.changed.push((tenant.clone(), id.into()));
        }
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

    #[test]
    fn what_another_node_wrote_replaces_what_was_not_changed_here_meanwhile() {
        let mut templates = Templates::new(true);
        let (tenant, _) = template("a", "old");
        for id in ["a", "b", "c", "d"] {
            templates.set(&tenant, id, Some(template(id, "old").1));
        }
        templates.outdated(5);
        assert_eq!(templates.reading_again(), Loading::Due(5));
        templates.ask_once_more(9);
        templates.set(&tenant, "b", Some(template("b", "here").1));
        templates.set(&tenant, "c", None);
        assert!(templates.replace(vec![template("a", "there"), template("b", "old"), template("c", "old")]));
        let names: Vec<(&str, &str)> = templates.list(&tenant).iter().map(|held| (&*held.id, &*held.name)).collect();
        assert_eq!(names, [("a", "there"), ("b", "here")], "d was deleted there");
        assert_eq!((templates.reading_again(), templates.loading()), (Loading::Done, Loading::Done));
    }

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
