//! Templates as rows of `notification_templates`: the text of the template, whose payload is kept exactly.
use crate::postgres::command::{Command, Row};
use crate::postgres::store::statements::{DELETE_TEMPLATE, LOAD_TEMPLATES, PUT_TEMPLATE, TEMPLATES};
use protocol::ids::TenantId;
use protocol::limits;
use protocol::template::{Template, parse_kept};
use std::sync::Arc;

pub(super) fn put(tenant: &TenantId, template: &Template, timeout_ms: u32) -> Command {
    let mut text = Vec::new();
    template.write(&mut text);
    // JSON text without a control character, in UTF-8: literal and binary form are the same bytes.
    let text = String::from_utf8_lossy(&text);
    Command::new(&PUT_TEMPLATE, timeout_ms)
        .shared(TEMPLATES)
        .text(tenant.as_str())
        .text(&template.id)
        .text(&text)
        .int8(limits::TEMPLATES_PER_TENANT_MAX as i64)
}

pub(super) fn delete(tenant: &TenantId, id: &str, timeout_ms: u32) -> Command {
    Command::new(&DELETE_TEMPLATE, timeout_ms).shared(TEMPLATES).text(tenant.as_str()).text(id)
}

pub(super) fn load(timeout_ms: u32) -> Command {
    Command::new(&LOAD_TEMPLATES, timeout_ms).int8(limits::POSTGRES_EVENT_BYTES_MAX as i64)
}

/// All templates, on their way.
#[derive(Debug, Default)]
pub(super) struct Templates {
    all: Vec<(TenantId, Arc<Template>)>,
    unreadable: u64,
}

impl Templates {
    pub(super) fn heard_row(&mut self, row: &Row<'_>) {
        let tenant = row.text(0).and_then(TenantId::parse);
        match tenant.zip(row.bytes(1).and_then(parse_kept)) {
            Some((tenant, template)) => self.all.push((tenant, Arc::new(template))),
            None => self.unreadable += 1,
        }
    }

    pub(super) fn all(self) -> Vec<(TenantId, Arc<Template>)> {
        if self.unreadable > 0 {
            tracing::warn!(rows = self.unreadable, "notification_templates has rows that are no templates; left alone");
        }
        self.all
    }
}
