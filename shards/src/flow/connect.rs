//! A client comes home: limits, tables, response head, first message.
use super::answer::Dialect;
use crate::conn::Phase;
use crate::conn::live::{Intake, Live, Welcome};
use crate::conn::outbox::Transport;
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::{Arrival, Shard};
use crate::tables::mail::UserMail;
use crate::tables::users::User;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::frame::EventName;
use protocol::http::error::ApiError;
use protocol::http::response::Responder;
use protocol::ids::ConnectionId;
use protocol::limits;
use protocol::sse;
use protocol::store::MailboxKey;
use protocol::ws::close::CloseCode;
use protocol::ws::decoder::Decoder;
use protocol::ws::encoder::{Opcode, write_frame};
use std::sync::atomic::Ordering::Relaxed;

impl Shard {
    /// Registers a client whose token was good, on its user's home. From here on nothing published to it is missed.
    pub(crate) fn register(&mut self, now: Now, key: ConnKey, arrival: Box<Arrival>, effects: &mut Effects) {
        if self.stopping {
            return self.refuse(now, key, &arrival, &ApiError::overloaded(), effects);
        }
        let tenant = self.tenants.intern(&arrival.tenant);
        let held_by_user = self
            .users
            .find(tenant, &arrival.claims.user)
            .and_then(|at| self.users.get(at))
            .map_or(0, |user| user.connections.len());
        if let Err(refusal) = self.admit(held_by_user, &arrival.claims.user) {
            self.metrics().refused.add(1);
            return self.refuse_over_limit(now, key, &arrival, &refusal, effects);
        }
        self.settle_fanout(now, tenant, effects);
        let Arrival { transport, tenant: tenant_id, claims, accept, version, origin, channels, .. } = *arrival;
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
            expires_at_unix_s: match claims.expires_at_unix_s {
                // Accepted within the leeway: it ends with the leeway.
                past if past <= now.unix_seconds() => past + limits::TOKEN_LEEWAY_SECONDS,
                ahead => ahead,
            },
            opened_at_unix_s: now.unix_seconds(),
            opened_at_ms: now.mono_ms(),
            heard_at_ms: now.mono_ms(),
            heartbeat_at_ms: now.mono_ms() + first_ms,
            decoder: Decoder::new(),
            transport,
            held: transport.is_sse(),
            intake: Intake::UpToDate,
            pending: None,
        };
        let metrics = self.metrics();
        metrics.opened.add(1);
        metrics.connections_per_user.observe(f64::from(user_position + 1));
        if transport.is_sse() { &metrics.connections_sse } else { &metrics.connections_ws }.add(1);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Live(Box::new(live));
        }
        let welcome = Welcome { accept, version, origin, channels };
        self.session_changed(key);
        if self.config.cluster.is_some() && self.awaits_others(now, key, is_first, effects) {
            self.hold(key, welcome);
        } else {
            self.welcome(now, key, welcome, effects);
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
        let dialect = Dialect { version: *version, keep_alive: true, head_only: false, origin: origin.as_deref() };
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

    /// The limits of contract §3.2, in its order. On success the connection is counted on the node.
    fn admit(&self, held_by_user: usize, user: &str) -> Result<(), String> {
        let (all_max, user_max) = (self.config.connections_max, self.config.connections_per_user_max);
        let admitted = self.node.admitted.fetch_add(1, Relaxed) as usize;
        let refusal = if all_max != 0 && admitted >= all_max {
            format!("Total connection limit exceeded ({admitted}/{all_max})")
        } else if user_max != 0 && held_by_user >= user_max {
            format!("User {user} connection limit exceeded ({held_by_user}/{user_max})")
        } else {
            return Ok(());
        };
        self.node.admitted.fetch_sub(1, Relaxed);
        Err(refusal)
    }

    /// WebSocket: 101, one `error` frame, Close 1008. SSE: 429 (contract §3.2, §4).
    fn refuse_over_limit(&mut self, now: Now, key: ConnKey, arrival: &Arrival, refusal: &str, effects: &mut Effects) {
        let Some(accept) = &arrival.accept else {
            return self.refuse(now, key, arrival, &ApiError::connection_limit(refusal), effects);
        };
        self.answer_arrival(now, key, arrival, |responder, out| {
            responder.write_switching(out, accept);
            let mut json = Vec::new();
            event::write_error(&mut json, ErrorCode::ConnectionLimit, refusal);
            write_frame(out, Opcode::Text, &json);
        });
        self.start_closing(now, key, arrival.transport, Decoder::new(), CloseCode::POLICY, effects);
    }

    /// An answer instead of a stream.
    fn refuse(&mut self, now: Now, key: ConnKey, arrival: &Arrival, error: &ApiError, effects: &mut Effects) {
        let production = self.config.production;
        self.answer_arrival(now, key, arrival, |responder, out| responder.write_error(out, error, production));
        self.finish(now, key, effects);
    }

    fn answer_arrival(
        &mut self,
        now: Now,
        key: ConnKey,
        arrival: &Arrival,
        write: impl FnOnce(&Responder<'_>, &mut Vec<u8>),
    ) {
        let origin = arrival.origin.as_deref();
        let dialect = Dialect { version: arrival.version, keep_alive: false, head_only: false, origin };
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
