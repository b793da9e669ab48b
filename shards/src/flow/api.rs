//! What each route of the API does once its request is whole.
use super::answer::body_refusal;
use super::templates::templates_load;
use crate::conn::http::{HttpStage, Request};
use crate::effect::Effects;
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::{GatherId, Question, ReplyTo};
use crate::shard::Shard;
use crate::tables::gathers::{Ending, GatherKind};
use crate::tables::placement;
use crate::tables::templates::Loading;
use protocol::auth::revocation::{self, Disconnected};
use protocol::clock::Now;
use protocol::cluster::wire::ParcelKind;
use protocol::http::error::ApiError;
use protocol::http::response::{JSON, METRICS_TEXT};
use protocol::http::route::Route;
use protocol::ids::{NotificationId, TenantId};
use protocol::notification::{Content, Source, Target};
use protocol::publish::receipt::{self, Receipt, TenantStats};
use protocol::publish::request::{self, BodyError, ContentSource, PublishRequest};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Shard {
    /// Serves one request: answers at once, or parks it until the other shards have said their part.
    pub(crate) fn serve(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        route: Route,
        body: &[u8],
        effects: &mut Effects,
    ) {
        let tenant = request.tenant.clone();
        let host = Arc::clone(&self.host);
        match route {
            Route::Health => self.respond(now, key, *request, 200, Some(JSON), &host.health(now), effects),
            // Whoever answers at all is alive.
            Route::Live => self.respond(now, key, *request, 200, Some(JSON), br#"{"status":"live"}"#, effects),
            Route::Ready => {
                let (is_ready, page) = host.ready(now);
                self.respond(now, key, *request, if is_ready { 200 } else { 503 }, Some(JSON), &page, effects);
            }
            Route::Stats => self.respond(now, key, *request, 200, Some(JSON), &host.stats(now), effects),
            Route::Metrics => self.respond(now, key, *request, 200, Some(METRICS_TEXT), &host.metrics(now), effects),
            Route::ClusterStatus if self.config.tenancy => {
                let kind = GatherKind::TenantStatus(tenant.clone(), None);
                self.ask_all(now, key, request, kind, Question::Tenants(Some(tenant)), effects);
            }
            Route::ClusterStatus => {
                self.respond(now, key, *request, 200, Some(JSON), &host.cluster_status(now), effects);
            }
            Route::Send => self.serve_publish(now, key, request, request::parse_send(body), effects),
            Route::SendToUsers => self.serve_publish(now, key, request, request::parse_send_to_users(body), effects),
            Route::Broadcast => self.serve_publish(now, key, request, request::parse_broadcast(body), effects),
            Route::Channel => self.serve_publish(now, key, request, request::parse_channel(body), effects),
            Route::Channels => self.serve_publish(now, key, request, request::parse_channels(body), effects),
            Route::Batch => self.serve_batch(now, key, request, body, effects),
            Route::ChannelList => {
                let kind = GatherKind::Channels(BTreeMap::new());
                self.ask_all(now, key, request, kind, Question::Channels(tenant), effects);
            }
            Route::ChannelDetail(name) => {
                let name: Box<str> = name.into();
                let kind = GatherKind::Channel(name.clone(), 0);
                self.ask_all(now, key, request, kind, Question::Channel(tenant, name), effects);
            }
            Route::UserSubscriptions(user) => {
                let user: Box<str> = user.into();
                let home = placement::home(tenant.as_str(), &user, self.shards);
                let kind = GatherKind::UserSubscriptions(user.clone(), 0, Vec::new());
                self.ask_one(now, key, request, kind, home, Question::UserSubscriptions(tenant, user), effects);
            }
            Route::UserDisconnect(user) => self.serve_disconnect(now, key, request, user.into(), effects),
            Route::TokenRevoke => self.serve_revoke(now, key, request, body, effects),
            Route::ClusterUser(user) => {
                let user: Box<str> = user.into();
                let home = placement::home(tenant.as_str(), &user, self.shards);
                let kind = GatherKind::UserSessions { user: user.clone(), rows: Vec::new(), is_blind: false };
                let gather = self.park(now, key, request, Some(1), kind);
                if self.config.cluster.is_some() {
                    self.ask_others(gather, &tenant, &user, effects);
                }
                self.ask(now, home, gather, Question::UserSessions(tenant, user), effects);
            }
            Route::TenantList => {
                let one = self.config.tenancy.then_some(tenant);
                let kind = GatherKind::Tenants(BTreeMap::new());
                self.ask_all(now, key, request, kind, Question::Tenants(one), effects);
            }
            Route::TenantDetail(id) => match self.tenant_for(&tenant, &id) {
                Ok(asked) => {
                    let kind = GatherKind::Tenant(asked.clone(), None);
                    self.ask_all(now, key, request, kind, Question::Tenants(Some(asked)), effects);
                }
                Err(error) => self.respond_error(now, key, *request, error, effects),
            },
            Route::TemplateList
            | Route::TemplateGet(_)
            | Route::TemplateCreate
            | Route::TemplatePut(_)
            | Route::TemplateDelete(_)
                if self.templates.loading() != Loading::Done =>
            {
                self.respond_error(now, key, *request, templates_load(), effects);
            }
            Route::TemplateList => self.serve_template_list(now, key, *request, effects),
            Route::TemplateGet(id) => self.serve_template(now, key, *request, &id, effects),
            Route::TemplateCreate => self.serve_template_create(now, key, request, body, effects),
            Route::TemplatePut(id) => self.serve_template_update(now, key, request, &id, body, effects),
            Route::TemplateDelete(id) => self.serve_template_delete(now, key, request, &id, effects),
            // GET leaves HTTP at its head; what comes here is HEAD, which has no stream to show.
            Route::WebSocket | Route::Sse => {
                self.respond_error(now, key, *request, ApiError::method_not_allowed("GET"), effects);
            }
        }
    }

    /// In a cluster, the node whose figures an answer has.
    fn covered(&self) -> Option<&str> {
        self.config.cluster.map(|_| &*self.config.server_id)
    }

    fn unknown_tenant(&self, id: &str) -> ApiError {
        let error = ApiError::tenant_not_found(id);
        match self.covered() {
            Some(server_id) => ApiError { message: format!("{} on node '{server_id}'", error.message).into(), ..error },
            None => error,
        }
    }

    fn tenant_for(&self, caller: &TenantId, id: &str) -> Result<TenantId, ApiError> {
        let asked = TenantId::parse(id).filter(|asked| asked.as_str() == id);
        let asked = asked.ok_or_else(|| ApiError::tenant_not_found(id))?;
        if self.config.tenancy && asked != *caller {
            return Err(ApiError::tenant_access_denied());
        }
        Ok(asked)
    }

    // --- Publishing --------------------------------------------------------------------------------------------------

    fn serve_publish(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        parsed: Result<PublishRequest, BodyError>,
        effects: &mut Effects,
    ) {
        let prepared = parsed.map_err(|error| body_refusal(&error)).and_then(|publish| {
            self.refuse_if_congested(&request.tenant)?;
            self.refuse_colons(&publish.target)?;
            let content = self.content(&request.tenant, publish.content)?;
            Ok((publish.target, content))
        });
        let (target, content) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.respond_error(now, key, *request, error, effects),
        };
        let tenant = request.tenant.clone();
        match self.accept(now, tenant, target, &content, &Source::Http) {
            Some(publication) => {
                let is_mail = matches!(publication.target, Target::User(_) | Target::Users(_));
                let is_kept = is_mail && self.config.queue.is_some();
                let (id, tally) = (publication.id, Receipt::default());
                let kind = GatherKind::Publish { id, unix_ns: now.unix_ns, is_kept, tally, elsewhere: 0 };
                let gather = self.park(now, key, request, None, kind);
                self.dispatch(now, publication, Some(gather), effects);
                self.answer_if_complete(now, gather, effects);
            }
            None => {
                let id = NotificationId(self.new_uuid(now));
                let mut body = Vec::with_capacity(200);
                let delivered_local = self.config.cluster.map(|_| 0);
                receipt::write_cluster_receipt(&mut body, id, Receipt::default(), delivered_local, now.unix_ns);
                self.respond(now, key, *request, 200, Some(JSON), &body, effects);
            }
        }
    }

    /// Renders a template if one is named (contract §1.7).
    pub(super) fn content(&self, tenant: &TenantId, source: ContentSource) -> Result<Content, ApiError> {
        match source {
            ContentSource::Direct(content) => Ok(content),
            ContentSource::Template { template_id, variables, priority, ttl, correlation_id, audience } => {
                if self.templates.loading() != Loading::Done {
                    return Err(templates_load());
                }
                let template = self
                    .templates
                    .get(tenant, &template_id)
                    .ok_or_else(|| ApiError::validation(format!("Template not found: {template_id}")))?;
                let payload = template.render(&variables).map_err(|error| ApiError::validation(error.to_string()))?;
                Ok(Content {
                    event_type: template.event_type.clone(),
                    payload,
                    priority: priority.unwrap_or(template.default_priority),
                    ttl: ttl.or(template.default_ttl),
                    correlation_id,
                    audience,
                })
            }
        }
    }

    /// While tenants are kept apart no name that a caller gives has a `:` (C-8).
    pub(super) fn refuse_colons(&self, target: &Target) -> Result<(), ApiError> {
        match self.config.tenancy && target.has_colon() {
            true => Err(ApiError::colon_in_name()),
            false => Ok(()),
        }
    }

    /// Refuses a publish while the node, or what this tenant has published, is more than can be delivered.
    pub(super) fn refuse_if_congested(&self, tenant: &TenantId) -> Result<(), ApiError> {
        let is_held_back = self.node.held_back.holds(tenant);
        if !is_held_back && !self.congested() {
            return Ok(());
        }
        self.metrics().overloaded.add(1);
        Err(if is_held_back { ApiError::held_back() } else { ApiError::overloaded() })
    }

    // --- Waiting for others ------------------------------------------------------------------------------------------

    /// Parks a request until its gather is complete.
    pub(crate) fn park(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        parts: Option<u32>,
        kind: GatherKind,
    ) -> GatherId {
        if let Some(http) = self.http_mut(key) {
            http.stage = HttpStage::Awaiting(request);
        }
        self.open_gather(now, key, parts, kind)
    }

    fn ask_all(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        kind: GatherKind,
        question: Question,
        effects: &mut Effects,
    ) {
        let gather = self.park(now, key, request, Some(self.shards as u32), kind);
        for shard in 0..self.shards {
            self.ask(now, ShardId(shard as u8), gather, question.clone(), effects);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one request, spelled out")]
    pub(crate) fn ask_one(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        kind: GatherKind,
        shard: ShardId,
        question: Question,
        effects: &mut Effects,
    ) {
        let parts = (!matches!(kind, GatherKind::Template { .. })).then_some(1);
        let gather = self.park(now, key, request, parts, kind);
        self.ask(now, shard, gather, question, effects);
    }

    pub(super) fn ask(
        &mut self,
        now: Now,
        shard: ShardId,
        gather: GatherId,
        question: Question,
        effects: &mut Effects,
    ) {
        let reply = ReplyTo { shard: self.me, gather };
        if shard == self.me {
            self.asked(now, reply, question, effects);
        } else {
            let message = crate::mesh::message::Message::Ask { reply, question: Box::new(question) };
            effects.push(crate::effect::Effect::Send { to: shard, message });
        }
    }

    /// Gives a gather's answer to the request that waits for it; `is_late` when some part did not come in time.
    pub(crate) fn answer_request(
        &mut self,
        now: Now,
        key: ConnKey,
        kind: GatherKind,
        is_late: bool,
        effects: &mut Effects,
    ) {
        if let GatherKind::BatchItem { index, id, tally, elsewhere } = kind {
            return self.item_answered(now, key, index, id, tally, elsewhere, effects);
        }
        if let GatherKind::Parcel { from, ticket, tally } = kind {
            return self.send_parcel(Some(from), ParcelKind::Receipt { ticket, receipt: tally }, effects);
        }
        let Some(http) = self.http_mut(key) else { return };
        if !matches!(http.stage, HttpStage::Awaiting(_)) {
            return;
        }
        let HttpStage::Awaiting(request) = std::mem::replace(&mut http.stage, HttpStage::Head) else { return };
        let mut body = Vec::with_capacity(256);
        let mut status = 200;
        let verdict = match kind {
            GatherKind::Publish { tally, .. } if !tally.is_success() && tally.unkept > 0 => {
                Err(ApiError::queue("The mailbox of no recipient could be written; nothing was delivered or kept"))
            }
            GatherKind::Publish { is_kept: true, tally, .. } if is_late && !tally.is_success() => {
                Err(ApiError::queue("The mailbox was not written in time; it may still be, do not count on either"))
            }
            GatherKind::Publish { id, unix_ns, tally, elsewhere, .. } => {
                let delivered_local = self.config.cluster.map(|_| tally.delivered_to.saturating_sub(elsewhere));
                receipt::write_cluster_receipt(&mut body, id, tally, delivered_local, unix_ns);
                Ok(())
            }
            GatherKind::Ending { which: Ending::Tokens { is_full: true, .. }, .. } => Err(ApiError::revocations_full()),
            GatherKind::Ending { is_unsure: true, .. } => Err(ApiError::cluster(
                "Done on this node, but another may not have been told; repeat the call until it is answered otherwise",
            )),
            GatherKind::Ending { which, tally, elsewhere, unconfirmed, .. } => {
                let all = tally.delivered_to;
                let local = self.config.cluster.map(|_| all.saturating_sub(elsewhere));
                let disconnected = Disconnected { all, local, unconfirmed };
                match which {
                    Ending::User(user) => revocation::write_disconnected(&mut body, &user, disconnected),
                    Ending::Tokens { until_unix_s, .. } => {
                        revocation::write_revoked(&mut body, until_unix_s, disconnected);
                    }
                }
                Ok(())
            }
            GatherKind::Channels(rows) => {
                let rows: Vec<(&str, u64)> = rows.iter().map(|(name, subscribers)| (&**name, *subscribers)).collect();
                receipt::write_channels(&mut body, &rows);
                Ok(())
            }
            GatherKind::Channel(name, 0) => Err(ApiError::channel_not_found(&name)),
            GatherKind::Channel(name, subscribers) => {
                receipt::write_channel(&mut body, &name, subscribers);
                Ok(())
            }
            GatherKind::UserSubscriptions(user, 0, _) => Err(ApiError::user_not_connected(&user)),
            GatherKind::UserSubscriptions(user, connections, names) => {
                let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                receipt::write_user_subscriptions(&mut body, &user, connections, &names);
                Ok(())
            }
            GatherKind::UserSessions { user, rows, is_blind } => {
                // Without Redis nobody knows (contract §1.8), and a part is not told as if it were all.
                receipt::write_cluster_user(&mut body, &user, if is_blind { &[] } else { &rows });
                Ok(())
            }
            GatherKind::Tenants(rows) => {
                let rows: Vec<(&str, TenantStats)> = rows
                    .iter()
                    .filter(|(_, row)| row.connections > 0)
                    .map(|(tenant, row)| (tenant.as_str(), row.stats()))
                    .collect();
                receipt::write_tenants(&mut body, self.config.tenancy, &rows, self.covered());
                Ok(())
            }
            GatherKind::Tenant(tenant, row) => match row {
                Some(row) if row.connections_ever > 0 => {
                    let users = row.users;
                    receipt::write_tenant(&mut body, tenant.as_str(), row.stats(), users, self.covered());
                    Ok(())
                }
                _ => Err(self.unknown_tenant(tenant.as_str())),
            },
            GatherKind::TenantStatus(tenant, row) => {
                let (connections, users) = row.map_or((0, 0), |row| (row.connections, row.users));
                let (server_id, is_clustered) = (&self.config.server_id, self.config.cluster.is_some());
                receipt::write_tenant_status(&mut body, tenant.as_str(), server_id, is_clustered, connections, users);
                Ok(())
            }
            GatherKind::Template { id, status: success, verdict } => {
                status = success;
                super::templates::answer(&mut body, &id, verdict)
            }
            GatherKind::BatchItem { .. } | GatherKind::Parcel { .. } => Ok(()),
        };
        match verdict {
            Ok(()) if status == 204 => self.respond(now, key, *request, 204, None, &[], effects),
            Ok(()) => self.respond(now, key, *request, status, Some(JSON), &body, effects),
            Err(error) => self.respond_error(now, key, *request, error, effects),
        }
        self.resume(now, key, effects);
    }
}
