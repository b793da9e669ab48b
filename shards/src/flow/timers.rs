//! What is due: heartbeats, idle clients, tokens that expired, stalled output, slow requests, gathers.
use super::gather::GATHER_SLOT_BIT;
use crate::conn::Phase;
use crate::conn::http::HttpStage;
use crate::conn::outbox::Transport;
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::mesh::message::GatherId;
use crate::shard::Shard;
use crate::tables::templates::Loading;
use protocol::client::event;
use protocol::clock::Now;
use protocol::frame::EventName;
use protocol::limits;
use protocol::sse;
use protocol::ws::close::CloseCode;
use protocol::ws::encoder::{Opcode, write_frame};

impl Shard {
    /// When `tick` is next needed, on [`Now::mono_us`].
    pub fn next_deadline_us(&self) -> Option<u64> {
        let load_ms = match self.templates.loading() {
            Loading::Due(at_ms) => Some(at_ms),
            Loading::Asked(_) | Loading::Done => None,
        };
        let again_ms = match self.templates.reading_again() {
            Loading::Due(at_ms) => Some(at_ms),
            Loading::Asked(_) | Loading::Done => None,
        };
        let due = [
            again_ms,
            self.wheel.next_ms(),
            self.mailroom.due_ms(),
            load_ms,
            self.watches.due_ms(),
            self.admissions.due_ms(),
            self.claims.due_ms(),
            self.unheard.due_ms(),
            self.limiter.as_ref().and_then(|limiter| limiter.due_ms()),
            self.revocations.due_ms(),
        ];
        due.into_iter().flatten().min().map(|at_ms| at_ms * 1_000)
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Now, effects: &mut Effects) {
        self.load_templates(now, effects);
        self.retry_mail(now, effects);
        self.read_in_turn(now, effects);
        self.remove_in_turn(now, effects);
        self.watches_due(now, effects);
        self.admissions_due(now, effects);
        self.claims_due(now, effects);
        self.read_unheard(now, effects);
        self.sweep_buckets(now);
        self.revocations_due(now);
        let mut due = Vec::new();
        let Shard { wheel, connections, gathers, .. } = self;
        let expects = |key: ConnKey| match gather_id(key) {
            Some(id) => gathers.get(id).map_or(0, |gather| gather.tick),
            None => connections.get(key).map_or(0, |connection| connection.tick),
        };
        wheel.expire(now.mono_ms(), expects, &mut due);
        for key in due {
            match gather_id(key) {
                Some(id) => {
                    if let Some(gather) = self.gathers.get_mut(id) {
                        gather.tick = 0;
                        self.answer(now, id, effects);
                    }
                }
                None => {
                    // A key may stand in a bucket twice, for a deadline that went and came back: it is due once.
                    if let Some(connection) = self.connections.get_mut(key)
                        && self.wheel.is_over(connection.tick)
                    {
                        connection.tick = 0;
                        self.connection_due(now, key, effects);
                    }
                }
            }
        }
    }

    fn connection_due(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let now_ms = now.mono_ms();
        let Some(connection) = self.connections.get(key) else { return };
        let stalled = connection.blocked
            && connection.waiting_since_us().is_some_and(|at_us| now_ms >= at_us / 1_000 + limits::OUTBOX_STALL_MS);
        match &connection.phase {
            Phase::Http(_) if stalled => self.drop_connection(now, key, effects),
            Phase::Http(http) => {
                let (deadline_ms, is_idle) = (http.deadline_ms, http.is_idle());
                let is_answering =
                    matches!(http.stage, HttpStage::Counting(..) | HttpStage::Awaiting(_) | HttpStage::Batch(..));
                if is_answering || !connection.is_flushed() {
                    let since_us = connection.waiting_since_us().filter(|_| connection.blocked);
                    let since_ms = since_us.map_or(now_ms, |since_us| since_us / 1_000);
                    self.schedule(key, since_ms + limits::HTTP_WRITE_DEADLINE_MS);
                } else if now_ms < deadline_ms {
                    self.schedule(key, deadline_ms);
                } else if is_idle {
                    self.finish(now, key, effects);
                } else {
                    self.request_timed_out(now, key, effects);
                }
            }
            Phase::Live(_) if stalled => self.close_slow(now, key, effects),
            Phase::Live(_) if connection.blocked && self.is_aged(now, key) => self.output_aged(now, key, effects),
            Phase::Live(_) => self.live_due(now, key, effects),
            Phase::Closing(closing) => {
                let taken_at_ms = connection.waiting_since_us().map(|since_us| since_us / 1_000);
                let deadline_ms = taken_at_ms.map_or(0, |at_ms| at_ms + closing.patience_ms).max(closing.deadline_ms);
                let deadline_ms = deadline_ms.min(closing.flush_by_ms);
                if now_ms < deadline_ms {
                    self.schedule(key, deadline_ms);
                } else {
                    self.drop_connection(now, key, effects);
                }
            }
        }
    }

    fn live_due(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        if self.is_unadmitted(key) {
            return self.schedule(key, now.mono_ms() + limits::CLUSTER_ADMISSION_DEADLINE_MS / 4);
        }
        // Whatever it is told now comes behind its answer.
        self.let_in(now, key, effects);
        let now_ms = now.mono_ms();
        let timeout_ms = self.config.connection_timeout_ms;
        let interval_ms = self.config.heartbeat_interval_ms;
        let Some(live) = self.live_mut(key) else { return };
        let is_websocket = live.transport == Transport::WebSocket;
        if now.unix_seconds() >= live.expires_at_unix_s {
            self.metrics().token_expired.add(1);
            return self.close_live(now, key, CloseCode::TOKEN_EXPIRED, effects);
        }
        // An SSE client cannot be heard (D-13): only its socket tells when it is gone.
        if is_websocket && now_ms >= live.heard_at_ms + timeout_ms {
            self.metrics().heartbeat_timeouts.add(1);
            return self.close_live(now, key, CloseCode::GOING_AWAY, effects);
        }
        if now_ms >= live.heartbeat_at_ms {
            // By the clock, not by when the wheel came round; who missed a whole one has none to catch up on.
            live.heartbeat_at_ms = (live.heartbeat_at_ms + interval_ms).max(now_ms + interval_ms / 2);
            // A protocol ping keeps clients alive that only listen (C-14): a browser answers it by itself.
            let unheard = is_websocket && now_ms >= live.heard_at_ms + interval_ms / 2;
            let transport = live.transport;
            self.metrics().heartbeats.add(1);
            self.write_control(now, key, |out| match transport {
                Transport::WebSocket => {
                    write_frame(out, Opcode::Text, event::HEARTBEAT);
                    if unheard {
                        write_frame(out, Opcode::Ping, &[]);
                    }
                }
                _ => {
                    let chunked = transport == Transport::SseChunked;
                    sse::write_block(out, EventName::Heartbeat, event::HEARTBEAT, chunked);
                }
            });
        }
        if self.config.queue.is_some() || self.config.ack.is_some() {
            self.mail_due(now, key, effects);
        }
        self.schedule_live(now, key);
    }

    /// Enters a live connection for whatever is due first.
    pub(crate) fn schedule_live(&mut self, now: Now, key: ConnKey) {
        let timeout_ms = self.config.connection_timeout_ms;
        let Some(connection) = self.connections.get(key) else { return };
        let Phase::Live(live) = &connection.phase else { return };
        let expires_in_ms = (live.expires_at_unix_s.saturating_mul(1_000)).saturating_sub(now.unix_ms());
        // The wheel turns by the clock that nobody can set, the token by the one that people set.
        let look_in_ms = expires_in_ms.min(limits::TOKEN_LOOK_MS);
        let mut at_ms = live.heartbeat_at_ms.min(now.mono_ms().saturating_add(look_in_ms));
        if live.transport == Transport::WebSocket {
            at_ms = at_ms.min(live.heard_at_ms + timeout_ms);
        }
        if let Some(since_us) = connection.waiting_since_us().filter(|_| connection.blocked) {
            at_ms = at_ms.min(since_us / 1_000 + limits::OUTBOX_STALL_MS);
            let oldest_us = connection.outbox.as_ref().and_then(|outbox| outbox.oldest_unkept_us());
            at_ms = oldest_us.map_or(at_ms, |oldest_us| at_ms.min(oldest_us / 1_000 + limits::OUTBOX_AGE_MS));
        }
        if let Some(mail_at_ms) = self.mail_due_at_ms(key) {
            at_ms = at_ms.min(mail_at_ms);
        }
        self.schedule(key, at_ms);
    }
}

fn gather_id(key: ConnKey) -> Option<GatherId> {
    (key.slot & GATHER_SLOT_BIT != 0)
        .then_some(GatherId { slot: key.slot & !GATHER_SLOT_BIT, generation: key.generation })
}

#[cfg(test)]
mod tests {
    use crate::flow::alone::{alone, subscriber};
    use protocol::clock::Now;

    #[test]
    fn a_deadline_that_went_and_came_back_is_due_once() {
        let (mut shard, mut effects) = (alone(), Vec::new());
        let key = subscriber(&mut shard, &mut effects);
        let heartbeat_at_ms = shard.live(key).unwrap().heartbeat_at_ms;
        // As if its socket had been full for a while.
        shard.schedule(key, heartbeat_at_ms - 1_000);
        for ms in (0..600_000).step_by(50) {
            shard.tick(Now { mono_us: ms * 1_000, unix_ns: ms * 1_000_000 }, &mut effects);
            shard.check();
        }
        assert_eq!(shard.wheel.entries(key), 1);
    }

    #[test]
    fn heartbeats_keep_their_interval() {
        let (mut shard, mut effects) = (alone(), Vec::new());
        let key = subscriber(&mut shard, &mut effects);
        let first_ms = shard.live(key).unwrap().heartbeat_at_ms;
        for ms in (0..3_100_000).step_by(70) {
            shard.tick(Now { mono_us: ms * 1_000, unix_ns: ms * 1_000_000 }, &mut effects);
        }
        assert_eq!((shard.live(key).unwrap().heartbeat_at_ms - first_ms) % 30_000, 0);
        assert!(shard.metrics().heartbeats.get() >= 102);
    }
}
