//! A client comes home: limits, tables, response head, first message.
use super::answer::Dialect;
use super::refresh::end_of;
use crate::conn::Phase;
use crate::conn::live::{Awaits, Intake, Live, Permit, Welcome};
use crate::conn::outbox::Transport;
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::{Arrival, Shard};
use crate::tables::mail::UserMail;
use crate::tables::tenants::TenantIndex;
use crate::tables::users::User;
use crate::tenant_limits::Allowance;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::frame::EventName;
use protocol::http::Version;
use protocol::http::error::ApiError;
use protocol::http::response::Responder;
use protocol::ids::ConnectionId;
use protocol::rate_limit::Quota;
use protocol::sse;
use protocol::store::MailboxKey;
use protocol::ws::close::CloseCode;
use protocol::ws::decoder::Decoder;
use protocol::ws::encoder::{Opcode, write_frame};
use std::sync::atomic::Ordering::Relaxed;

/// Who is refused: how the answer has to be written.
pub(crate) struct Asker<'a> {
    /// The answer to the WebSocket key; an SSE client has none.
    accept: Option<&'a str>,
    version: Version,
    origin: Option<&'a str>,
    quota: Option<Quota>,
}

impl Asker<'_> {
    fn of(arrival: &Arrival) -> Asker<'_> {
        let Arrival { accept, version, origin, quota, .. } = arrival;
        Asker { accept: accept.as_deref(), version: *version, origin: origin.as_deref(), quota: *quota }
    }
}

impl Welcome {
    /// The client, as far as a refusal needs it.
    pub(crate) fn asker(&self) -> Asker<'_> {
        let Welcome { accept, version, origin, quota, .. } = self;
        Asker { accept: accept.as_deref(), version: *version, origin: origin.as_deref(), quota: *quota }
    }
}

/// The words of contract §3.2.
pub(crate) fn over_user_limit(user: &str, held: u64, max: usize) -> String {
    format!("User {user} connection limit exceeded ({held}/{max})")
}

/// Likewise.
pub(crate) fn over_tenant_limit(tenant: &str, held: u64, max: usize) -> String {
    format!("Tenant {tenant} connection limit exceeded ({held}/{max})")
}

impl Shard {
    /// Registers a client whose token was good, on its user's home. From here on nothing published to it is missed.
    pub(crate) fn register(&mut self, now: Now, key: ConnKey, arrival: Box<Arrival>, effects: &mut Effects) {
        if self.stopping {
            return self.refuse(now, key, &Asker::of(&arrival), &ApiError::overloaded(), effects);
        }
        if self.is_revoked(&arrival.tenant, &arrival.claims) {
            self.metrics().token_refused.add(1);
            return self.refuse(now, key, &Asker::of(&arrival), &ApiError::token_invalid(), effects);
        }
        let tenant = self.tenants.intern(&arrival.tenant);
        self.obtain_allowance(tenant);
        let held_by_user = self
            .users
            .find(tenant, &arrival.claims.user)
            .and_then(|at| self.users.get(at))
            .map_or(0, |user| user.connections.len());
        if let Err(refusal) = self.admit(tenant, held_by_user, &arrival.claims.user) {
            self.metrics().refused.add(1);
            return self.refuse_over_limit(now, key, &Asker::of(&arrival), &refusal, effects);
        }
        self.settle_fanout(now, tenant, effects);
        let Arrival { transport, tenant: tenant_id, claims, accept, version, origin, quota, channels, .. } = *arrival;
        let expires_at_unix_s = end_of(&claims, now);
        let is_first = held_by_user == 0;
        let user = match self.users.find(tenant, &claims.user) {
            Some(user) => user,
            None => {
                self.metrics().users.add(1);
                self.tenants.get_mut(tenant).users += 1;
                self.users.insert(User::new(tenant, claims.user))
            }
        };
        let mut user_position = 0;
        let keeps_mail = self.config.queue.is_some() || self.config.ack.is_some();
        if let Some(user) = self.users.get_mut(user) {
            if keeps_mail && user.mail.is_none() {
                let key = MailboxKey { tenant: tenant_id.clone(), user: user.name.clone() };
                user.mail = Some(Box::new(UserMail::new(std::sync::Arc::new(key), self.mailroom.next_number())));
            }
            user_position = user.connections.len() as u32;
            user.connections.push(key.slot);
        }
        let entry = self.tenants.get_mut(tenant);
        let tenant_position = entry.members.len() as u32;
        entry.members.push(key.slot);
        entry.connections_ever += 1;

        let id = ConnectionId(self.new_uuid(now));
        let interval_ms = self.config.heartbeat_interval_ms;
        // The first heartbeat falls somewhere in the second half of the interval, so that clients that came together do
        // not stay together.
        let first_ms = interval_ms - self.rng.u64(0..=interval_ms / 2);
        let live = Live {
            id,
            tenant,
            tenant_position,
            user,
            user_position,
            roles: claims.roles,
            subscriptions: Vec::new(),
            expires_at_unix_s,
            issued_at_unix_s: claims.issued_at_unix_s.unwrap_or(0),
            permit: Permit::of(claims.id, claims.channels),
            opened_at_unix_s: now.unix_seconds(),
            opened_at_ms: now.mono_ms(),
            heard_at_ms: now.mono_ms(),
            heartbeat_at_ms: now.mono_ms() + first_ms,
            decoder: Decoder::new(),
            transport,
            held: transport.is_sse(),
            intake: Intake::UpToDate,
            pending: None,
            messages: Live::messages_at(self.config.rate_limits.as_ref(), now),
            is_told: false,
        };
        let metrics = self.metrics();
        metrics.opened.add(1);
        metrics.connections_per_user.observe(f64::from(user_position + 1));
        if transport.is_sse() { &metrics.connections_sse } else { &metrics.connections_ws }.add(1);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Live(Box::new(live));
        }
        self.note_token_id(key);
        let mut awaits = Awaits::default();
        if self.config.cluster.is_some() {
            awaits.topic = self.awaits_others(now, key, is_first, effects);
            awaits.admission = self.awaits_admission(now, key, effects);
        }
        let welcome = Welcome { awaits, accept, version, origin, quota, channels };
        if !awaits.admission {
            self.session_changed(key);
        }
        if awaits == Awaits::default() {
            self.welcome(now, key, welcome, effects);
        } else {
            self.hold(key, welcome);
        }
        self.schedule_live(now, key);
    }

    /// What a client gets first, and what it begins with.
    pub(crate) fn welcome(&mut self, now: Now, key: ConnKey, welcome: Welcome, effects: &mut Effects) {
        self.write_head(now, key, &welcome);
        if welcome.accept.is_none() {
            self.subscribe(now, key, welcome.channels, true, effects);
        }
        self.begin_intake(now, key, effects);
    }

    /// The head of its answer.
    pub(crate) fn write_head(&mut self, now: Now, key: ConnKey, welcome: &Welcome) {
        let Welcome { accept, version, origin, .. } = welcome;
        let dialect =
            Dialect { version: *version, keep_alive: true, head_only: false, origin: origin.as_deref(), quota: None };
        self.write_answer(now, key, dialect, |responder, out| match accept {
            Some(accept) => responder.write_switching(out, accept),
            None => responder.write_stream_head(out),
        });
    }

    /// The first message of an SSE stream: its subscriptions, if any, are in force.
    pub(crate) fn open_stream(&mut self, now: Now, key: ConnKey) {
        let retry_ms = self.rng.u32(1_000..=5_000);
        let Some(live) = self.live_mut(key) else { return };
        live.held = false;
        let (id, chunked) = (live.id, live.transport == Transport::SseChunked);
        self.write_control(now, key, |out| {
            let mut json = Vec::with_capacity(80);
            event::write_connected(&mut json, id);
            sse::write_retry(out, retry_ms, chunked);
            sse::write_block(out, EventName::Connected, &json, chunked);
        });
    }

    /// What a tenant is held to, from its first connection here on: the only time that the node is asked.
    fn obtain_allowance(&mut self, tenant: TenantIndex) {
        let entry = self.tenants.get_mut(tenant);
        if entry.allowance.is_none() {
            let limits = self.config.limits_of(&entry.name);
            entry.allowance = Some(Allowance { limits, connections: self.host.tenant_connections(&entry.name) });
        }
    }

    /// The limits of contract §3.2 and §11 on this node. On success the connection is counted, and no count is touched by
    /// one that another limit refuses.
    fn admit(&self, tenant: TenantIndex, held_by_user: usize, user: &str) -> Result<(), String> {
        let all_max = self.config.connections_max;
        let is_full = |admitted: usize| all_max != 0 && admitted >= all_max;
        let all = |admitted: usize| format!("Total connection limit exceeded ({admitted}/{all_max})");
        let admitted = self.node.admitted.load(Relaxed) as usize;
        if is_full(admitted) {
            return Err(all(admitted));
        }
        let tenant = self.tenants.get(tenant);
        let Some(Allowance { limits, connections }) = &tenant.allowance else { return Ok(()) };
        let user_max = limits.connections_per_user_max;
        if user_max != 0 && held_by_user >= user_max {
            return Err(over_user_limit(user, held_by_user as u64, user_max));
        }
        let of_tenant = connections.fetch_add(1, Relaxed);
        let tenant_max = limits.connections_max;
        if tenant_max != 0 && of_tenant >= tenant_max as u64 {
            connections.fetch_sub(1, Relaxed);
            return Err(over_tenant_limit(tenant.name.as_str(), of_tenant, tenant_max));
        }
        let admitted = self.node.admitted.fetch_add(1, Relaxed) as usize;
        if is_full(admitted) {
            self.node.admitted.fetch_sub(1, Relaxed);
            connections.fetch_sub(1, Relaxed);
            return Err(all(admitted));
        }
        Ok(())
    }

    /// WebSocket: 101, one `error` frame, Close 1008. SSE: 429 (contract §3.2, §4).
    pub(crate) fn refuse_over_limit(
        &mut self,
        now: Now,
        key: ConnKey,
        asker: &Asker<'_>,
        refusal: &str,
        effects: &mut Effects,
    ) {
        let Some(accept) = asker.accept else {
            return self.refuse(now, key, asker, &ApiError::connection_limit(refusal), effects);
        };
        self.answer_asker(now, key, asker, |responder, out| {
            responder.write_switching(out, accept);
            let mut json = Vec::new();
            event::write_error(&mut json, ErrorCode::ConnectionLimit, refusal);
            write_frame(out, Opcode::Text, &json);
        });
        self.start_closing(now, key, Transport::WebSocket, Decoder::new(), CloseCode::POLICY, effects);
    }

    /// An answer instead of a stream.
    fn refuse(&mut self, now: Now, key: ConnKey, asker: &Asker<'_>, error: &ApiError, effects: &mut Effects) {
        let production = self.config.production;
        self.answer_asker(now, key, asker, |responder, out| responder.write_error(out, error, production));
        self.finish(now, key, effects);
    }

    fn answer_asker(
        &mut self,
        now: Now,
        key: ConnKey,
        asker: &Asker<'_>,
        write: impl FnOnce(&Responder<'_>, &mut Vec<u8>),
    ) {
        let Asker { version, origin, quota, .. } = *asker;
        let dialect = Dialect { version, keep_alive: false, head_only: false, origin, quota };
        self.write_answer(now, key, dialect, write);
    }

    pub(crate) fn live(&self, key: ConnKey) -> Option<&Live> {
        match &self.connections.get(key)?.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }

    pub(crate) fn live_mut(&mut self, key: ConnKey) -> Option<&mut Live> {
        match &mut self.connections.get_mut(key)?.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }

    /// Says something of the connection's own, ahead of waiting frames. `write` makes the JSON text.
    pub(crate) fn say(&mut self, now: Now, key: ConnKey, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(live) = self.live(key) else { return };
        let transport = live.transport;
        let mut json = Vec::with_capacity(64);
        write(&mut json);
        self.write_control(now, key, |out| match transport {
            Transport::WebSocket => write_frame(out, Opcode::Text, &json),
            _ => sse::write_block(out, EventName::Message, &json, transport == Transport::SseChunked),
        });
    }
}
