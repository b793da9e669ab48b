//! Requests as commands.
use crate::postgres::command::Command;
use crate::postgres::store::PostgresStoreConfig;
use crate::postgres::store::job::What;
use crate::postgres::store::mail::{self, Appending, Page, ReadMail};
use crate::postgres::store::statements::{ACKNOWLEDGE, BEGIN, TRACK};
use crate::postgres::store::templates::{self, Templates};
use protocol::clock::Now;
use protocol::store::{AckVerdict, MailboxKey, StoreReply, StoreRequest};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What becomes of a request.
pub(super) enum Plan {
    /// A command, in the order of its number.
    Ask { order: u64, command: Command, what: What },
    /// Nothing to ask.
    Answer(StoreReply),
}

/// All templates are in one order: two changes of one template must not change places.
const TEMPLATES: u64 = 0;

pub(super) fn plan(config: &PostgresStoreConfig, now: Now, request: StoreRequest) -> Plan {
    let timeout_ms = config.command_timeout_ms;
    let ask = |order, command, what| Plan::Ask { order, command, what };
    if !is_sayable(&request) {
        return Plan::Answer(StoreReply::Failed);
    }
    match request {
        StoreRequest::PutTemplate { tenant, template } if config.templates => {
            ask(TEMPLATES, templates::put(&tenant, &template, timeout_ms), What::PutTemplate)
        }
        StoreRequest::DeleteTemplate { tenant, id } if config.templates => {
            ask(TEMPLATES, templates::delete(&tenant, &id, timeout_ms), What::DeleteTemplate)
        }
        StoreRequest::LoadTemplates if config.templates => {
            ask(TEMPLATES, templates::load(timeout_ms), What::LoadTemplates(Templates::default()))
        }
        StoreRequest::AppendMail { mail, .. } if mail.is_empty() && config.queue.is_some() => {
            Plan::Answer(StoreReply::Appended { positions: Vec::new(), before: None, dropped: 0 })
        }
        StoreRequest::AppendMail { mailbox, mail, claim } => match config.queue {
            Some(queue) => {
                let entries_max = queue.entries_max.max(1) as usize;
                let (command, appending) = Appending::begin(&mailbox, &mail, claim, entries_max, now, timeout_ms);
                ask(order(&mailbox), command, What::Append(appending))
            }
            None => Plan::Answer(StoreReply::Failed),
        },
        StoreRequest::ReadMail { mailbox, after, entries_max, lingering_ms } if config.queue.is_some() => {
            let order = order(&mailbox);
            let request = ReadMail { mailbox, after, entries_max, lingering_ms, unix_ns: now.unix_ns };
            let command = request.command(true, timeout_ms);
            ask(order, command, What::Read { request, page: Page::default(), changes: true })
        }
        StoreRequest::BeginMail { mailbox, positions } if config.queue.is_some() => {
            let command = mail::ids(mail::about(&BEGIN, &mailbox, timeout_ms), &positions);
            ask(order(&mailbox), command, What::Begin)
        }
        StoreRequest::RemoveMail { mailbox, positions, lingers } => match config.queue {
            Some(queue) => {
                let lingering_max = lingers.then_some(queue.entries_max.max(1) as usize);
                let command = mail::remove(&mailbox, &positions, lingering_max, timeout_ms);
                ask(order(&mailbox), command, What::Remove)
            }
            None => Plan::Answer(StoreReply::Failed),
        },
        StoreRequest::TrackAck { mailbox, id, connection } => match config.acks {
            Some(acks) => {
                let timeout_ns = u64::from(acks.timeout_seconds) * 1_000_000_000;
                let command = mail::about(&TRACK, &mailbox, timeout_ms)
                    .uuid(id.0.into_bytes())
                    .uuid(connection.0.into_bytes())
                    .timestamp(now.unix_ns)
                    .timestamp(now.unix_ns.saturating_add(timeout_ns));
                ask(order(&mailbox), command, What::Track)
            }
            None => Plan::Answer(StoreReply::Failed),
        },
        StoreRequest::Acknowledge { mailbox, id, is_kept } if config.acks.is_some() => {
            let command = mail::about(&ACKNOWLEDGE, &mailbox, timeout_ms)
                .uuid(id.0.into_bytes())
                .timestamp(now.unix_ns)
                .boolean(is_kept);
            ask(order(&mailbox), command, What::Acknowledge(AckVerdict::NotPending))
        }
        // This store does not keep it.
        _ => Plan::Answer(StoreReply::Failed),
    }
}

/// Whether names can be kept: the server's text knows no character 0. The door lets none through; events and templates
/// are JSON, where it is written in others.
fn is_sayable(request: &StoreRequest) -> bool {
    match request {
        StoreRequest::AppendMail { mailbox, .. }
        | StoreRequest::ReadMail { mailbox, .. }
        | StoreRequest::BeginMail { mailbox, .. }
        | StoreRequest::RemoveMail { mailbox, .. }
        | StoreRequest::TrackAck { mailbox, .. }
        | StoreRequest::Acknowledge { mailbox, .. } => !mailbox.user.contains('\0'),
        StoreRequest::PutTemplate { template, .. } => !template.id.contains('\0'),
        StoreRequest::DeleteTemplate { id, .. } => !id.contains('\0'),
        StoreRequest::LoadTemplates | StoreRequest::CountRequest { .. } => true,
    }
}

/// The same for all requests about one mailbox.
pub(super) fn order(mailbox: &MailboxKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    mailbox.hash(&mut hasher);
    hasher.finish()
}
