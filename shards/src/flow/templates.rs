//! Templates: read from the shard's own copy; written through the line's owner, who asks the store first and then tells
//! every shard. The writer is answered when all of them have it, so the next send on any shard finds it.
use super::answer::refusal;
use crate::conn::http::Request;
use crate::effect::{Effect, Effects};
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::{
    Answer, Message, Question, ReplyTo, TemplateAct, TemplateChange, TemplateVerdict, TemplateWrite,
};
use crate::shard::Shard;
use crate::tables::gathers::GatherKind;
use crate::tables::placement;
use crate::tables::templates::Loading;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::clock::Now;
use protocol::cluster::wire::ParcelKind;
use protocol::http::error::ApiError;
use protocol::http::response::JSON;
use protocol::limits;
use protocol::publish::receipt::Receipt;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use protocol::template::{self, TemplateError};
use std::sync::Arc;

/// Writes that wait for the store, at the line's owner.
#[derive(Default)]
pub(crate) struct TemplateWrites {
    waiting: HashMap<u64, (ReplyTo, Arc<TemplateChange>), RandomState>,
    /// The last one given. Even, so that it never meets mail's.
    tickets: u64,
}

impl TemplateWrites {
    /// Whether the store has answered all of them.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Shard {
    // --- At the start ------------------------------------------------------------------------------------------------

    /// Asks for the templates that were kept before this process began.
    pub(crate) fn load_templates(&mut self, now: Now, effects: &mut Effects) {
        if let Loading::Due(at_ms) = self.templates.loading()
            && now.mono_ms() >= at_ms
        {
            self.template_writes.tickets += 2;
            let ticket = self.template_writes.tickets;
            self.templates.ask(ticket);
            effects.push(Effect::Store { ticket: StoreTicket(ticket), request: StoreRequest::LoadTemplates });
        }
        if let Loading::Due(at_ms) = self.templates.reading_again()
            && now.mono_ms() >= at_ms
            && self.templates.loading() == Loading::Done
        {
            self.template_writes.tickets += 2;
            let ticket = self.template_writes.tickets;
            self.templates.ask_once_more(ticket);
            effects.push(Effect::Store { ticket: StoreTicket(ticket), request: StoreRequest::LoadTemplates });
        }
    }

    fn templates_read_again(&mut self, now: Now, reply: StoreReply) {
        let is_done = match reply {
            StoreReply::Templates(templates) => self.templates.replace(templates),
            _ => false,
        };
        if !is_done {
            self.templates.outdated(now.mono_ms() + limits::STORE_RETRY_MS);
        }
    }

    fn templates_loaded(&mut self, now: Now, reply: StoreReply) {
        match reply {
            StoreReply::Templates(templates) if !self.templates.is_outdated() => self.templates.load(templates),
            _ => self.templates.ask_again(now.mono_ms() + limits::STORE_RETRY_MS),
        }
    }

    // --- At the shard that was asked ---------------------------------------------------------------------------------

    pub(crate) fn serve_template_list(&mut self, now: Now, key: ConnKey, request: Request, effects: &mut Effects) {
        let mut body = Vec::with_capacity(256);
        let list: Vec<&template::Template> =
            self.templates.list(&request.tenant).into_iter().map(|template| &**template).collect();
        template::write_list(&mut body, &list);
        self.respond(now, key, request, 200, Some(JSON), &body, effects);
    }

    pub(crate) fn serve_template(&mut self, now: Now, key: ConnKey, request: Request, id: &str, effects: &mut Effects) {
        let found = self.templates.get(&request.tenant, id).cloned();
        match found {
            Some(template) => {
                let mut body = Vec::with_capacity(256);
                template.write(&mut body);
                self.respond(now, key, request, 200, Some(JSON), &body, effects);
            }
            None => self.respond_error(now, key, request, ApiError::template_not_found(id), effects),
        }
    }

    pub(crate) fn serve_template_create(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        body: &[u8],
        effects: &mut Effects,
    ) {
        match template::parse_create(body, now.unix_ns) {
            Ok(template) => {
                let id = template.id.clone();
                self.send_write(now, key, request, id, TemplateAct::Create(Arc::new(template)), 201, effects);
            }
            Err(error) => self.respond_error(now, key, *request, template_error(error), effects),
        }
    }

    pub(crate) fn serve_template_update(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        id: &str,
        body: &[u8],
        effects: &mut Effects,
    ) {
        match template::parse_update(body) {
            Ok(update) => {
                self.send_write(now, key, request, id.into(), TemplateAct::Update(Arc::new(update)), 200, effects);
            }
            Err(error) => self.respond_error(now, key, *request, template_error(error), effects),
        }
    }

    pub(crate) fn serve_template_delete(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        id: &str,
        effects: &mut Effects,
    ) {
        self.send_write(now, key, request, id.into(), TemplateAct::Delete, 204, effects);
    }

    #[expect(clippy::too_many_arguments, reason = "one request, spelled out")]
    fn send_write(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        id: Box<str>,
        act: TemplateAct,
        status: u16,
        effects: &mut Effects,
    ) {
        let tenant = request.tenant.clone();
        let owner = placement::line(tenant.as_str(), self.shards);
        let kind = GatherKind::Template { id: id.clone(), status, verdict: None };
        let write = TemplateWrite { tenant, id, act, unix_ns: now.unix_ns };
        self.ask_one(now, key, request, kind, owner, Question::Template(Box::new(write)), effects);
    }

    // --- At the line's owner -----------------------------------------------------------------------------------------

    /// Checks a write against what is kept and sends it to the store.
    pub(crate) fn write_template(&mut self, now: Now, reply: ReplyTo, write: TemplateWrite, effects: &mut Effects) {
        let TemplateWrite { tenant, id, act, unix_ns } = write;
        let verdict = |verdict| Answer::Template(verdict);
        if self.templates.loading() != Loading::Done {
            return self.send_answer(now, reply, verdict(TemplateVerdict::Loading), effects);
        }
        let is_waiting = |(_, change): &(ReplyTo, Arc<TemplateChange>)| change.tenant == tenant && change.id == id;
        if self.template_writes.waiting.values().any(is_waiting) {
            return self.send_answer(now, reply, verdict(TemplateVerdict::Unavailable), effects);
        }
        let kept = self.templates.get(&tenant, &id);
        let (request, template) = match act {
            TemplateAct::Create(_) if kept.is_some() => {
                return self.send_answer(now, reply, verdict(TemplateVerdict::Exists), effects);
            }
            TemplateAct::Create(_) if self.templates.len_of(&tenant) >= limits::TEMPLATES_PER_TENANT_MAX => {
                return self.send_answer(now, reply, verdict(TemplateVerdict::Full), effects);
            }
            TemplateAct::Create(template) => {
                (StoreRequest::PutTemplate { tenant: tenant.clone(), template: Arc::clone(&template) }, Some(template))
            }
            TemplateAct::Update(_) | TemplateAct::Delete if kept.is_none() => {
                return self.send_answer(now, reply, verdict(TemplateVerdict::NotFound), effects);
            }
            TemplateAct::Update(update) => match kept.map(|kept| kept.updated(&update, unix_ns)) {
                Some(Ok(template)) => {
                    let template = Arc::new(template);
                    let request = StoreRequest::PutTemplate { tenant: tenant.clone(), template: Arc::clone(&template) };
                    (request, Some(template))
                }
                Some(Err(error)) => {
                    return self.send_answer(now, reply, verdict(TemplateVerdict::Invalid(error)), effects);
                }
                None => return,
            },
            TemplateAct::Delete => (StoreRequest::DeleteTemplate { tenant: tenant.clone(), id: id.clone() }, None),
        };
        self.template_writes.tickets += 2;
        let ticket = self.template_writes.tickets;
        let change = Arc::new(TemplateChange { tenant, id, template });
        self.template_writes.waiting.insert(ticket, (reply, change));
        effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
    }

    /// The store has it, or not: every shard is told, or the writer.
    pub(crate) fn template_stored(&mut self, now: Now, ticket: StoreTicket, stored: StoreReply, effects: &mut Effects) {
        if self.templates.loading() == Loading::Asked(ticket.0) {
            return self.templates_loaded(now, stored);
        }
        if self.templates.reading_again() == Loading::Asked(ticket.0) {
            return self.templates_read_again(now, stored);
        }
        let Some((reply, change)) = self.template_writes.waiting.remove(&ticket.0) else { return };
        if !matches!(stored, StoreReply::Done) {
            return self.send_answer(now, reply, Answer::Template(TemplateVerdict::Unavailable), effects);
        }
        self.templates.set(&change.tenant, &change.id, change.template.clone());
        for shard in (0..self.shards).map(|shard| ShardId(shard as u8)).filter(|shard| *shard != self.me) {
            let message = Message::Template { change: Arc::clone(&change), reply: Some(reply) };
            effects.push(Effect::Send { to: shard, message });
        }
        if self.config.cluster.is_some() && self.config.templates_kept {
            let kind = ParcelKind::Template { tenant: change.tenant.clone(), id: change.id.clone() };
            self.send_parcel(None, kind, effects);
        }
        let template = change.template.clone();
        let verdict = TemplateVerdict::Done { template, parts: self.shards as u32 - 1 };
        self.send_answer(now, reply, Answer::Template(verdict), effects);
    }

    // --- At every other shard ----------------------------------------------------------------------------------------

    /// Keeps the change and says so.
    pub(crate) fn template_changed(
        &mut self,
        now: Now,
        change: &TemplateChange,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        self.templates.set(&change.tenant, &change.id, change.template.clone());
        self.report(now, reply, Receipt::default(), effects);
    }
}

/// The answer to a write.
pub(crate) fn answer(body: &mut Vec<u8>, id: &str, verdict: Option<TemplateVerdict>) -> Result<(), ApiError> {
    match verdict {
        Some(TemplateVerdict::Done { template, .. }) => {
            if let Some(template) = template {
                template.write(body);
            }
            Ok(())
        }
        Some(TemplateVerdict::Exists) => Err(ApiError::template_exists(id)),
        Some(TemplateVerdict::NotFound) => Err(ApiError::template_not_found(id)),
        Some(TemplateVerdict::Invalid(error)) => Err(template_error(error)),
        Some(TemplateVerdict::Full) => {
            let max = limits::TEMPLATES_PER_TENANT_MAX;
            Err(ApiError::validation(format!("A tenant may have {max} templates; delete some first")))
        }
        Some(TemplateVerdict::Loading) => Err(templates_load()),
        Some(TemplateVerdict::Unavailable) | None => {
            let message = "The template could not be kept now; read it back before you try again";
            Err(ApiError { message: message.into(), ..ApiError::overloaded() })
        }
    }
}

/// Nobody is told that a template does not exist before it is known which do.
pub(crate) fn templates_load() -> ApiError {
    ApiError { message: "The templates are still being loaded, please retry".into(), ..ApiError::overloaded() }
}

fn template_error(error: TemplateError) -> ApiError {
    refusal(error.status(), error.code(), error.to_string())
}
