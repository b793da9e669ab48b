//! Connections that a caller of the API ends: all of a user, or those of tokens that hold no longer.
//!
//! | who | does |
//! |---|---|
//! | any shard | reads the request, and gathers how many connections ended |
//! | the keeper: the bridge shard, or shard 0 of a node that is alone | decides whether there is room for one more revocation; tells every shard and the other nodes |
//! | every shard | holds it, and ends its connections with such a token |
//!
//! A connection registers at its home, where the revocation either stands already, and it is refused, or comes later, and
//! finds it: nothing slips between.
use super::answer::body_refusal;
use crate::conn::http::Request;
use crate::effect::{Effect, Effects};
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::{Answer, Message, Question, ReplyTo};
use crate::shard::Shard;
use crate::tables::gathers::{Ending, GatherKind};
use crate::tables::placement;
use protocol::auth::revocation::{Revocation, Revoked};
use protocol::auth::token::Claims;
use protocol::clock::Now;
use protocol::cluster::GatherTicket;
use protocol::cluster::wire::ParcelKind;
use protocol::http::error::ApiError;
use protocol::ids::{self, TenantId};
use protocol::limits;
use protocol::publish::receipt::Receipt;
use protocol::ws::close::CloseCode;
use std::sync::Arc;

impl Shard {
    /// Whether somebody has revoked a token.
    pub(crate) fn is_revoked(&self, tenant: &TenantId, claims: &Claims) -> bool {
        let issued_at_unix_s = claims.issued_at_unix_s.unwrap_or(0);
        self.revocations.hit(tenant.as_str(), &claims.user, claims.id.as_deref(), issued_at_unix_s)
    }

    // --- A user ------------------------------------------------------------------------------------------------------

    /// `POST /api/v1/users/{user_id}/disconnect`: the user may come back at once.
    pub(super) fn serve_disconnect(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        user: Box<str>,
        effects: &mut Effects,
    ) {
        let tenant = request.tenant.clone();
        if !ids::is_user_id(&user) {
            let message = format!("user_id exceeds maximum of {} characters", limits::USER_ID_CHARS_MAX);
            return self.respond_error(now, key, *request, ApiError::validation(message), effects);
        }
        let home = placement::home(tenant.as_str(), &user, self.shards);
        let gather = self.park(now, key, request, Some(1), GatherKind::ending(Ending::User(user.clone())));
        if self.config.cluster.is_some() {
            self.expect_parcels(gather, 1);
            let ticket = self.ticket(gather);
            let kind = ParcelKind::Disconnect { ticket, tenant: tenant.clone(), user: user.clone() };
            // To everybody, and not to the user's topic: this node leaves that at the same moment, and Redis might count it or
            // not. And a node that has yet to listen to the topic is told, too.
            self.send_parcel(None, kind, effects);
        }
        self.ask(now, home, gather, Question::Disconnect(tenant, user), effects);
    }

    /// At home: ends all connections of a user; how many.
    pub(crate) fn disconnect(&mut self, now: Now, tenant: &TenantId, user: &str, effects: &mut Effects) -> Receipt {
        let keys = self.connections_of(tenant, user).iter().filter_map(|slot| self.connections.key_at(*slot));
        let keys: Vec<ConnKey> = keys.collect();
        for key in &keys {
            self.metrics().disconnected.add(1);
            self.close_live(now, *key, CloseCode::NORMAL, effects);
        }
        ended(keys.len())
    }

    // --- Tokens ------------------------------------------------------------------------------------------------------

    /// `POST /api/v1/tokens/revoke`.
    pub(super) fn serve_revoke(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        body: &[u8],
        effects: &mut Effects,
    ) {
        let revocation = match Revocation::parse(body, request.tenant.clone(), now) {
            Ok(revocation) => Arc::new(revocation),
            Err(error) => return self.respond_error(now, key, *request, body_refusal(&error), effects),
        };
        let ending = Ending::Tokens { until_unix_s: revocation.until_unix_s, is_full: false };
        let gather = self.park(now, key, request, None, GatherKind::ending(ending));
        self.ask(now, self.keeper(), gather, Question::Revoke(revocation), effects);
    }

    /// The shard that decides about revocations: they come and go in one order.
    fn keeper(&self) -> ShardId {
        self.config.cluster.map_or(ShardId(0), |rules| rules.bridge)
    }

    /// At the keeper: a revocation of this node's own. What there is no room for is refused, and told.
    pub(crate) fn revoke(&mut self, now: Now, reply: ReplyTo, revocation: Arc<Revocation>, effects: &mut Effects) {
        if !self.has_room_for(now, &revocation) {
            return self.send_answer(now, reply, Answer::RevocationsFull, effects);
        }
        let is_clustered = self.config.cluster.is_some();
        let (gather, parts, parcels) = (reply.gather, self.shards as u32, u32::from(is_clustered));
        match reply.shard == self.me {
            true => self.gather_expects(now, gather, parts, parcels, effects),
            false => {
                effects.push(Effect::Send { to: reply.shard, message: Message::Expect { gather, parts, parcels } })
            }
        }
        if is_clustered {
            let ticket = GatherTicket { shard: reply.shard.0, slot: gather.slot, generation: gather.generation };
            let kind = ParcelKind::Revoked { revocation: Arc::clone(&revocation), ticket: Some(ticket) };
            self.send_parcel(None, kind, effects);
        }
        self.revoke_everywhere(now, Arc::new([revocation]), Some(reply), effects);
    }

    /// At the keeper: revocations of other nodes. They have answered for them, so they are not refused here, up to a bound
    /// that only a stranger can reach.
    pub(crate) fn revoked_elsewhere(
        &mut self,
        now: Now,
        mut revocations: Vec<Arc<Revocation>>,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        let now_unix_s = now.unix_seconds();
        revocations.retain(|one| one.until_unix_s > now_unix_s && !self.revocations.covers(one));
        let all = revocations.len();
        let room = (2 * self.revocations_max).saturating_sub(self.revocations.len());
        if all > room {
            revocations.truncate(room);
            tracing::error!(
                refused = all - room,
                "Redis names more revocations than {} could be: some are not held here; is anybody else writing there?",
                2 * self.revocations_max
            );
        }
        if reply.is_some() || !revocations.is_empty() {
            self.revoke_everywhere(now, revocations.into(), reply, effects);
        }
    }

    /// Whether one more may be held, once those are forgotten whose time is over.
    fn has_room_for(&mut self, now: Now, revocation: &Revocation) -> bool {
        if self.revocations.len() >= self.revocations_max {
            self.revocations.sweep(now.mono_ms(), now.unix_seconds());
        }
        self.revocations.len() < self.revocations_max || self.revocations.holds_about(revocation)
    }

    fn revoke_everywhere(
        &mut self,
        now: Now,
        page: Arc<[Arc<Revocation>]>,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        for shard in (0..self.shards).filter(|shard| *shard != self.me.index()) {
            let message = Message::Revoke { page: Arc::clone(&page), reply };
            effects.push(Effect::Send { to: ShardId(shard as u8), message });
        }
        self.revoked(now, &page, reply, effects);
    }

    /// On every shard: these hold no longer.
    pub(crate) fn revoked(
        &mut self,
        now: Now,
        page: &[Arc<Revocation>],
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        let mut closed = 0;
        for revocation in page {
            // Who came after it was held first was refused, so what is said again finds nobody.
            if self.revocations.hold(revocation, now.mono_ms()) {
                for key in self.connections_hit(revocation) {
                    self.metrics().token_revoked.add(1);
                    self.cut_off(now, key, effects);
                    closed += 1;
                }
            }
        }
        self.count_revocations();
        self.report(now, reply, ended(closed), effects);
    }

    /// Live connections whose token is revoked.
    fn connections_hit(&self, revocation: &Revocation) -> Vec<ConnKey> {
        let Some(tenant) = self.tenants.find(revocation.tenant.as_str()) else { return Vec::new() };
        let slots = match &revocation.revoked {
            Revoked::User { user, .. } => self.connections_of(&revocation.tenant, user).to_vec(),
            Revoked::Token { id } => self.token_ids.candidates(tenant, id),
        };
        let is_hit = |key: &ConnKey| {
            self.live(*key).is_some_and(|live| {
                let user = self.users.get(live.user).map_or("", |user| &user.name);
                live.tenant == tenant && revocation.hits(user, live.token_id(), live.issued_at_unix_s)
            })
        };
        slots.into_iter().filter_map(|slot| self.connections.key_at(slot)).filter(is_hit).collect()
    }

    /// Ends a connection whose holder is not to have what waits for it.
    fn cut_off(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        if let Some((transport, decoder)) = self.unregister(now, key, effects) {
            self.drop_frames(key, transport);
            self.start_closing(now, key, transport, decoder, CloseCode::REVOKED, effects);
        }
    }

    /// Forgets those whose time is over.
    pub(crate) fn revocations_due(&mut self, now: Now) {
        if self.revocations.due_ms().is_some_and(|at_ms| now.mono_ms() >= at_ms) {
            self.revocations.sweep(now.mono_ms(), now.unix_seconds());
            self.count_revocations();
        }
    }

    fn count_revocations(&self) {
        if self.keeper() == self.me {
            self.metrics().revocations.set(self.revocations.len() as i64);
        }
    }
}

/// So many connections, in the form in which counts travel.
fn ended(connections: usize) -> Receipt {
    Receipt { delivered_to: connections as u64, ..Receipt::default() }
}
