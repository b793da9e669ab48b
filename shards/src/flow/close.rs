//! How connections end: unregistered at once, so that nothing new is queued; then written out; then FIN; then closed.
use crate::conn::Phase;
use crate::conn::live::{Closing, Live, Stage};
use crate::conn::outbox::Transport;
use crate::effect::{Effect, Effects};
use crate::flow::mail::PutBack;
use crate::key::ConnKey;
use crate::shard::Shard;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::cluster::Topic;
use protocol::frame::EventName;
use protocol::limits;
use protocol::sse;
use protocol::ws::close::CloseCode;
use protocol::ws::decoder::Decoder;
use protocol::ws::encoder::{Opcode, write_close, write_frame};
use std::sync::atomic::Ordering::Relaxed;

impl Shard {
    /// Ends a live connection: what waits goes out, then Close with `code` (SSE: the end of the body).
    pub(crate) fn close_live(&mut self, now: Now, key: ConnKey, code: CloseCode, effects: &mut Effects) {
        if let Some((transport, decoder)) = self.unregister(now, key, effects) {
            self.start_closing(now, key, transport, decoder, code, effects);
        }
    }

    /// As [`Shard::close_live`], for a client that broke the protocol: Close at once, with a reason.
    pub(crate) fn close_with_reason(
        &mut self,
        now: Now,
        key: ConnKey,
        code: CloseCode,
        reason: &str,
        effects: &mut Effects,
    ) {
        let Some((transport, _)) = self.unregister(now, key, effects) else { return };
        self.drop_frames(key, transport);
        self.write_control(now, key, |out| write_close(out, code, reason));
        self.finish(now, key, effects);
    }

    /// Takes a live connection out of every table; its transport and decoder, for what is left of its life.
    pub(crate) fn unregister(&mut self, now: Now, key: ConnKey, effects: &mut Effects) -> Option<(Transport, Decoder)> {
        let tenant = self.live(key)?.tenant;
        self.settle_fanout(now, tenant, effects);
        self.write_held_head(now, key);
        self.session_ended(key, effects);
        self.forget_token_id(key);
        let mailbox = self.mailbox_at(key);
        if !self.stopping {
            self.rescue_mail(now, key, PutBack::Leaving, effects);
        }
        while let Some(last) = self.live(key).and_then(|live| live.subscriptions.len().checked_sub(1)) {
            self.remove_subscription(now, key, last, effects);
        }
        let connection = self.connections.get_mut(key)?;
        let flush_by_ms = connection.flush_by_ms(now.mono_ms());
        let closing = Closing {
            transport: connection.reads().0,
            stage: Stage::Finishing,
            deadline_ms: now.mono_ms() + limits::WS_CLOSE_DEADLINE_MS,
            patience_ms: limits::WS_CLOSE_DEADLINE_MS,
            flush_by_ms,
            decoder: Decoder::new(),
            mailbox,
        };
        let Phase::Live(live) = std::mem::replace(&mut connection.phase, Phase::Closing(Box::new(closing))) else {
            return None;
        };
        let Live { tenant, tenant_position, user, user_position, transport, decoder, opened_at_ms, .. } = *live;
        self.leave_tenant(tenant, tenant_position);
        self.leave_user(user, user_position, effects);
        self.leave_node(tenant);
        let metrics = self.metrics();
        metrics.closed.add(1);
        metrics.connection_duration_seconds.observe((now.mono_ms() - opened_at_ms) as f64 / 1e3);
        if transport.is_sse() { &metrics.connections_sse } else { &metrics.connections_ws }.add(-1);
        self.schedule(key, now.mono_ms() + limits::WS_CLOSE_DEADLINE_MS);
        Some((transport, decoder))
    }

    /// Off the counts that all shards have in common.
    fn leave_node(&self, tenant: u32) {
        self.node.admitted.fetch_sub(1, Relaxed);
        if let Some(allowance) = &self.tenants.get(tenant).allowance {
            allowance.connections.fetch_sub(1, Relaxed);
        }
    }

    fn leave_tenant(&mut self, tenant: u32, position: u32) {
        let members = &mut self.tenants.get_mut(tenant).members;
        members.swap_remove(position as usize);
        if let Some(moved) = members.get(position as usize).copied()
            && let Some((_, connection)) = self.connections.at_mut(moved)
            && let Phase::Live(live) = &mut connection.phase
        {
            live.tenant_position = position;
        }
    }

    fn leave_user(&mut self, at: u32, position: u32, effects: &mut Effects) {
        let Some(user) = self.users.get_mut(at) else { return };
        user.connections.swap_remove(position as usize);
        let (moved, tenant) = (user.connections.get(position as usize).copied(), user.tenant);
        if user.connections.is_empty() {
            if let Some(gone) = self.users.remove(at) {
                if let Some(mail) = gone.mail {
                    self.forget_user_mail(&mail);
                }
                if self.config.cluster.is_some() {
                    self.unwatch(Topic::User(self.tenants.get(tenant).name.clone(), gone.name), effects);
                }
            }
            self.metrics().users.add(-1);
            self.tenants.get_mut(tenant).users -= 1;
        }
        if let Some(moved) = moved
            && let Some((_, connection)) = self.connections.at_mut(moved)
            && let Phase::Live(live) = &mut connection.phase
        {
            live.user_position = position;
        }
    }

    /// Flush, then Close with `code`, then await the client's.
    pub(crate) fn start_closing(
        &mut self,
        now: Now,
        key: ConnKey,
        transport: Transport,
        decoder: Decoder,
        code: CloseCode,
        effects: &mut Effects,
    ) {
        let deadline_ms = now.mono_ms() + limits::WS_CLOSE_DEADLINE_MS;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (patience_ms, mailbox) = (limits::WS_CLOSE_DEADLINE_MS, connection.closing_mailbox());
        let (stage, flush_by_ms) = (Stage::Flushing(code), connection.flush_by_ms(now.mono_ms()));
        let closing = Closing { transport, stage, deadline_ms, patience_ms, flush_by_ms, decoder, mailbox };
        connection.phase = Phase::Closing(Box::new(closing));
        let is_flushed = connection.is_flushed();
        self.schedule(key, deadline_ms);
        if is_flushed {
            self.flushed(now, key, effects);
        }
        // Input that waited for something else may hold the client's own Close.
        self.resume(now, key, effects);
    }

    /// Only what is already queued goes out; then FIN.
    pub(crate) fn finish(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let stopping = self.stopping;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let patience_ms = match &connection.phase {
            Phase::Http(_) if !stopping => limits::HTTP_WRITE_DEADLINE_MS,
            _ => limits::WS_CLOSE_DEADLINE_MS,
        };
        let (transport, deadline_ms) = (connection.reads().0, now.mono_ms() + patience_ms);
        let (decoder, mailbox) = (Decoder::new(), connection.closing_mailbox());
        let (stage, flush_by_ms) = (Stage::Finishing, connection.flush_by_ms(now.mono_ms()));
        let closing = Closing { transport, stage, deadline_ms, patience_ms, flush_by_ms, decoder, mailbox };
        connection.phase = Phase::Closing(Box::new(closing));
        connection.tail = Vec::new();
        let is_flushed = connection.is_flushed();
        self.schedule(key, deadline_ms);
        if is_flushed {
            self.flushed(now, key, effects);
        }
        self.settle_reading(key, effects);
    }

    /// Everything that waited for this connection is out: the next stage of its end, if it is ending.
    pub(crate) fn flushed(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let eof = connection.eof;
        let Phase::Closing(closing) = &mut connection.phase else { return };
        let transport = closing.transport;
        match closing.stage {
            Stage::Flushing(code) if transport == Transport::WebSocket => {
                closing.stage = Stage::AwaitingClose;
                closing.deadline_ms = now.mono_ms() + limits::WS_CLOSE_DEADLINE_MS;
                self.write_control(now, key, |out| write_close(out, code, ""));
            }
            Stage::Flushing(code) => {
                closing.stage = Stage::Finishing;
                let (chunked, words) = (transport == Transport::SseChunked, last_words(code));
                if !chunked && words.is_none() {
                    return self.flushed(now, key, effects);
                }
                self.write_control(now, key, |out| {
                    if let Some((code, message)) = words {
                        let mut json = Vec::with_capacity(64);
                        event::write_stream_error(&mut json, code, message);
                        sse::write_block(out, EventName::Error, &json, chunked);
                    }
                    sse::write_end(out, chunked);
                });
            }
            Stage::AwaitingClose | Stage::Finishing if eof => self.drop_connection(now, key, effects),
            Stage::AwaitingClose => {}
            Stage::Finishing => {
                closing.stage = Stage::Lingering;
                closing.deadline_ms = now.mono_ms() + limits::CLOSE_LINGER_MS;
                let deadline_ms = closing.deadline_ms;
                effects.push(Effect::Shutdown(key));
                self.schedule(key, deadline_ms);
            }
            Stage::Lingering => {}
        }
    }

    /// The socket is gone, or has to go now.
    pub(crate) fn drop_connection(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let transport = match self.connections.get(key) {
            Some(connection) => connection.reads().0,
            None => return,
        };
        self.rescue_mail(now, key, PutBack::Gone, effects);
        self.sealed_mail.forget(key);
        self.drop_frames(key, transport);
        self.unregister(now, key, effects);
        if let Some(connection) = self.connections.remove(key) {
            if let Some(mut outbox) = connection.outbox {
                self.metrics().outbox_bytes.add(-((outbox.frame_bytes() + outbox.control_bytes()) as i64));
                outbox.clear();
                self.outbox_room_bytes -= outbox.take_freed();
            }
            self.node.sockets.fetch_sub(1, Relaxed);
            effects.push(Effect::Close(key));
        }
    }

    /// The control lane has room again: input that waited for it goes on.
    pub(crate) fn resume_if_relieved(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        if self.connections.get(key).is_some_and(|connection| connection.deaf && connection.wants_input()) {
            self.resume(now, key, effects);
        }
    }

    // --- The end of the node -----------------------------------------------------------------------------------------

    /// The node stops: every client is told at once when to come back, each another time; what waits is written; then
    /// Close 1001, or the end of the body. Answers under way are still given.
    pub fn stop(&mut self, now: Now, effects: &mut Effects) {
        self.stopping = true;
        self.claim_all(now, effects);
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            match &connection.phase {
                Phase::Live(live) => {
                    let transport = live.transport;
                    let reconnect_after_seconds = self.rng.u32(limits::RECONNECT_AFTER_SECONDS);
                    let mut json = Vec::with_capacity(96);
                    self.write_held_head(now, key);
                    event::write_shutdown(&mut json, "Server shutting down", reconnect_after_seconds);
                    if let Some(live) = self.live_mut(key) {
                        live.held = false;
                    }
                    self.write_control(now, key, |out| match transport {
                        Transport::WebSocket => write_frame(out, Opcode::Text, &json),
                        _ => sse::write_block(out, EventName::Message, &json, transport == Transport::SseChunked),
                    });
                    self.close_live(now, key, CloseCode::GOING_AWAY, effects);
                }
                Phase::Http(http) if http.is_idle() && (connection.tail.is_empty() || connection.wants_input()) => {
                    self.finish(now, key, effects);
                }
                Phase::Http(_) | Phase::Closing(_) => {}
            }
        }
    }

    /// After `stop`: whether every connection is gone, and every mail that was to be kept is kept or refused: nothing is
    /// lost with this shard. While the store is down that may be never; the rim has a deadline.
    pub fn stopped(&self) -> bool {
        let owes_nodes = self.config.cluster.is_some() && !(self.gathers.is_empty() && self.claims.is_settled());
        self.connections.is_empty() && self.mailroom.is_settled() && self.template_writes.is_settled() && !owes_nodes
    }
}

/// What an SSE stream ends with, where a WebSocket has the code of its Close frame: only what the client should know before it
/// comes back by itself.
fn last_words(code: CloseCode) -> Option<(ErrorCode, &'static str)> {
    match code {
        CloseCode::NORMAL => Some((ErrorCode::Disconnected, "Disconnected by the server's API")),
        CloseCode::TOKEN_EXPIRED => Some((ErrorCode::TokenExpired, "Token has expired")),
        CloseCode::REVOKED => Some((ErrorCode::TokenRevoked, "Token has been revoked")),
        _ => None,
    }
}
