//! The store: takes a [`StoreRequest`], asks the backend that was chosen, answers with a [`StoreReply`].
use crate::memory::mailboxes::{Appended, MailboxCounts, MailboxLimits, MemoryMailboxes};
use crate::memory::templates::MemoryTemplates;
use protocol::clock::Now;
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
    Memory(MemoryTemplates, MemoryMailboxes),
}

impl Store {
    /// A store in memory: nothing to install, nothing survives the process.
    pub fn memory(limits: MailboxLimits) -> Store {
        Store { backend: Backend::Memory(MemoryTemplates::default(), MemoryMailboxes::new(limits)) }
    }

    /// What happened to the mailboxes so far.
    pub fn mailbox_counts(&self) -> MailboxCounts {
        let Backend::Memory(_, mailboxes) = &self.backend;
        mailboxes.counts()
    }

    /// Drops what has expired; called every `QUEUE_CLEANUP_INTERVAL_SECONDS`.
    pub fn sweep(&mut self, now: Now) {
        let Backend::Memory(_, mailboxes) = &mut self.backend;
        mailboxes.sweep(now.unix_ns);
    }

    /// Does one request. [`StoreReply::Failed`] means that nothing was changed: a tenant at
    /// [`protocol::limits::TEMPLATES_PER_TENANT_MAX`] takes no new template.
    pub fn handle(&mut self, now: Now, request: StoreRequest) -> StoreReply {
        let Backend::Memory(templates, mailboxes) = &mut self.backend;
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
            StoreRequest::AppendMail { mailbox, mail, claim } => {
                let Appended { positions, before, dropped } = mailboxes.append(mailbox, mail, claim);
                StoreReply::Appended { positions, before, dropped }
            }
            // No other node reads or writes here, so nothing lingers.
            StoreRequest::ReadMail { mailbox, after, entries_max, .. } => {
                let (entries, next) = mailboxes.read(&mailbox, after, entries_max, now.unix_ns);
                StoreReply::Mail { entries, next }
            }
            StoreRequest::RemoveMail { mailbox, positions, .. } => {
                mailboxes.remove(&mailbox, &positions);
                StoreReply::Done
            }
            StoreRequest::BeginMail { mailbox, positions } => {
                mailboxes.begin(&mailbox, &positions);
                StoreReply::Done
            }
            // Nobody asks it of memory: the user's home knows what is awaited, and the home of a bucket counts.
            StoreRequest::TrackAck { .. } | StoreRequest::Acknowledge { .. } | StoreRequest::CountRequest { .. } => {
                StoreReply::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TenantId;

    #[test]
    fn a_fresh_store_is_empty_and_forgetting_the_unknown_is_done() {
        let mut store = Store::memory(MailboxLimits { entries_max: 1 });
        assert!(
            matches!(store.handle(Now::default(), StoreRequest::LoadTemplates), StoreReply::Templates(all) if all.is_empty())
        );
        let forget = StoreRequest::DeleteTemplate { tenant: TenantId::default_tenant(), id: Box::from("hello") };
        assert!(matches!(store.handle(Now::default(), forget), StoreReply::Done));
    }
}
