//! Templates in Redis: the hash `{prefix}:templates`, with a field `{tenant}:{id}` for each and its JSON as
//! [`Template::write`] writes it.
use crate::memory::templates::MemoryTemplates;
use crate::redis::commands::script::Script;
use crate::redis::commands::status::Operation;
use crate::redis::commands::{Command, Words};
use protocol::ids::TenantId;
use protocol::limits;
use protocol::template::{self, Template};
use std::sync::Arc;

pub(super) static PAGE: Script = Script::new("templates_page", include_str!("../scripts/templates_page.lua"));

/// Where templates are kept.
#[derive(Debug)]
pub(super) struct Templates {
    key: Vec<u8>,
}

impl Templates {
    pub(super) fn new(prefix: &str) -> Templates {
        Templates { key: format!("{prefix}:templates").into_bytes() }
    }

    pub(super) fn put<R>(&self, tenant: &TenantId, kept: &Template, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let mut text = Vec::new();
        kept.write(&mut text);
        self.plain(&[b"HSET", &self.key, &field(tenant, &kept.id), &text], submit)
    }

    pub(super) fn delete<R>(&self, tenant: &TenantId, id: &str, submit: impl FnOnce(Command<'_>) -> R) -> R {
        self.plain(&[b"HDEL", &self.key, &field(tenant, id)], submit)
    }

    /// One of them.
    pub(super) fn one<R>(&self, field: &[u8], submit: impl FnOnce(Command<'_>) -> R) -> R {
        self.plain(&[b"HGET", &self.key, field], submit)
    }

    /// Some of them, from a cursor on.
    pub(super) fn page<R>(&self, cursor: &[u8], submit: impl FnOnce(Command<'_>) -> R) -> R {
        let (count, bytes) = (limits::REDIS_TEMPLATES_PAGE.to_string(), limits::REDIS_PAGE_BYTES_MAX.to_string());
        let text_bytes = limits::REDIS_ENTRY_BYTES_MAX.to_string();
        let arguments: [&[u8]; 4] = [cursor, count.as_bytes(), bytes.as_bytes(), text_bytes.as_bytes()];
        let words = Words::Script { script: &PAGE, keys: &[&self.key], arguments: &arguments };
        submit(Command { operation: Operation::Other, words })
    }

    fn plain<R>(&self, words: &[&[u8]], submit: impl FnOnce(Command<'_>) -> R) -> R {
        submit(Command { operation: Operation::Other, words: Words::Plain(words) })
    }
}

/// A tenant's name has no `:`.
fn field(tenant: &TenantId, id: &str) -> Vec<u8> {
    [tenant.as_str().as_bytes(), b":", id.as_bytes()].concat()
}

/// All templates, as far as they came. A page may name one again; the newer text counts.
#[derive(Debug, Default)]
pub(super) struct Load {
    templates: MemoryTemplates,
    undecodable: u64,
    above_bound: u64,
}

impl Load {
    /// One more. What is none of ours, or above the bound of its tenant, is left where it is and not used.
    pub(super) fn add(&mut self, field: &[u8], text: &[u8]) {
        let Some((tenant, kept)) = parse(field, text) else {
            self.undecodable += 1;
            return;
        };
        let id = kept.id.clone();
        if self.templates.put(tenant, &id, Arc::new(kept)).is_err() {
            self.above_bound += 1;
        }
    }

    /// All of them; says in the log what was left out.
    pub(super) fn all(self) -> Vec<(TenantId, Arc<Template>)> {
        let Load { templates, undecodable, above_bound } = self;
        if undecodable > 0 || above_bound > 0 {
            tracing::warn!(
                undecodable,
                above_bound,
                bound_per_tenant = limits::TEMPLATES_PER_TENANT_MAX,
                "some templates in Redis are not used"
            );
        }
        templates.load()
    }
}

fn parse(field: &[u8], text: &[u8]) -> Option<(TenantId, Template)> {
    let (tenant, id) = std::str::from_utf8(field).ok()?.split_once(':')?;
    let kept = template::parse_kept(text)?;
    (*kept.id == *id).then_some((TenantId::parse(tenant)?, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none_of_ours_or_above_the_bound_is_not_used() {
        let text = |id: &str| {
            let body = format!(r#"{{"id":"{id}","name":"n","event_type":"e","payload_template":1}}"#);
            let mut text = Vec::new();
            template::parse_create(body.as_bytes(), 5).unwrap().write(&mut text);
            text
        };
        let mut load = Load::default();
        for _ in 0..2 {
            load.add(b"acme:a:b", &text("a:b"));
        }
        let rows: [(&[u8], Vec<u8>); 6] = [
            (b"acme:b", text("a")),
            (b"a", text("a")),
            (b"ac me:a", text("a")),
            (b"acme:\xff", text("a")),
            (b"acme:a", b"{}".to_vec()),
            (b"", Vec::new()),
        ];
        for (field, text) in rows {
            load.add(field, &text);
        }
        for number in 0..limits::TEMPLATES_PER_TENANT_MAX + 2 {
            load.add(format!("many:t{number}").as_bytes(), &text(&format!("t{number}")));
        }
        assert_eq!((load.undecodable, load.above_bound), (6, 2));
        let all = load.all();
        assert_eq!(all.len(), 1 + limits::TEMPLATES_PER_TENANT_MAX);
        assert_eq!((all[0].0.as_str(), &*all[0].1.id), ("acme", "a:b"));
    }
}
