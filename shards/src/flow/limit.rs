//! Rate limits (contract §10, decision 10): who asks is counted before anything else is looked at.
//!
//! A bucket has a home, the shard `hash(identity)`. A request on another shard waits for the home's word: its head stays
//! unread in the connection's tail, the connection is not read, and the shard goes on with others. Where nodes share their
//! counts (`RATELIMIT_BACKEND=redis`) the shard asks its own link, and the home only while that does not answer. A refusal is
//! remembered until there is a token again, so that a flood of one client asks nobody.
//!
//! Messages of a WebSocket are counted in the connection itself.
use crate::config::RateLimitRules;
use crate::conn::Phase;
use crate::conn::http::HttpStage;
use crate::conn::live::Live;
use crate::effect::{Effect, Effects};
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::Message;
use crate::metrics::LimitedKind;
use crate::shard::Shard;
use crate::tables::buckets::{Buckets, Verdict};
use crate::tables::placement;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::auth::api_key;
use protocol::client::command::Command;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::http::Method;
use protocol::http::client_address::client_address;
use protocol::http::error::ApiError;
use protocol::http::head::RequestHead;
use protocol::http::route;
use protocol::limits;
use protocol::rate_limit::{Bucket, Identity, LimitKind, Quota, Rate};
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use std::net::IpAddr;

/// What a shard knows about limits: the buckets whose home it is, and who waits for a word from elsewhere.
pub(crate) struct Limiter {
    requests: Buckets,
    connects: Buckets,
    /// Refusals of other places, until there is a token again.
    refusals: HashMap<(LimitKind, Identity), Verdict, RandomState>,
    /// Who waits for the store, by the ticket. One request of a connection at most.
    asked: HashMap<u64, ConnKey, RandomState>,
}

impl Limiter {
    pub(crate) fn new(rules: &RateLimitRules) -> Limiter {
        Limiter {
            requests: Buckets::new(LimitKind::Http, rules.requests, rules.sweep_interval_ms),
            connects: Buckets::new(LimitKind::Connect, rules.connects, rules.sweep_interval_ms),
            refusals: HashMap::default(),
            asked: HashMap::default(),
        }
    }

    /// When the next sweep is due.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        [self.requests.due_ms(), self.connects.due_ms()].into_iter().flatten().min()
    }

    fn count(&mut self, now: Now, kind: LimitKind, identity: Identity) -> Verdict {
        match kind {
            LimitKind::Http => self.requests.count(now, identity),
            LimitKind::Connect => self.connects.count(now, identity),
        }
    }

    /// A refusal that still holds.
    fn refusal(&mut self, now: Now, kind: LimitKind, identity: Identity) -> Option<Verdict> {
        let verdict = *self.refusals.get(&(kind, identity))?;
        if matches!(verdict, Verdict::Refused { until_us, .. } if now.mono_us < until_us) {
            return Some(verdict);
        }
        self.refusals.remove(&(kind, identity));
        None
    }

    fn remember(&mut self, kind: LimitKind, identity: Identity, verdict: Verdict) {
        if matches!(verdict, Verdict::Refused { .. }) {
            if self.refusals.len() >= limits::RATE_LIMIT_REFUSALS_MAX {
                self.refusals.clear();
            }
            self.refusals.insert((kind, identity), verdict);
        }
    }
}

/// Whether a request may go on.
pub(super) enum Passage {
    /// It is not limited, or it was counted.
    Open,
    /// It is answered so.
    Refused(ApiError),
    /// It is being counted elsewhere; its head comes again.
    Waits,
}

impl Shard {
    /// Counts a request whose head is whole: once, before it is looked at any further. What is left is told by every answer
    /// to it.
    pub(super) fn limit(&mut self, now: Now, key: ConnKey, head: &RequestHead<'_>, effects: &mut Effects) -> Passage {
        if self.limiter.is_none() || head.method == Method::Options {
            return Passage::Open;
        }
        let Some(kind) = route::limit(head.path) else { return Passage::Open };
        let Some(http) = self.http_mut(key) else { return Passage::Open };
        let (peer, verdict) = (http.peer, http.verdict.take());
        let verdict = match verdict {
            Some(verdict) => verdict,
            None => {
                let identity = self.identity(kind, head, peer);
                match self.count(now, key, kind, identity, effects) {
                    Some(verdict) => verdict,
                    None => return Passage::Waits,
                }
            }
        };
        let (quota, passage) = match verdict {
            Verdict::Passes(quota) => (quota, Passage::Open),
            Verdict::Refused { quota, .. } => (quota, Passage::Refused(ApiError::rate_limited(kind.period_seconds()))),
        };
        self.metrics().limited(kind.into(), matches!(passage, Passage::Open)).add(1);
        if let Some(http) = self.http_mut(key) {
            http.quota = Some(quota);
        }
        passage
    }

    /// The right API key, or else the client's address: nothing that a stranger could choose (C-6). Connects are always
    /// counted by address.
    fn identity(&self, kind: LimitKind, head: &RequestHead<'_>, peer: IpAddr) -> Identity {
        let has_key = || match (&self.config.api_key, head.api_key) {
            (Some(expected), Some(given)) => api_key::matches(expected, given),
            _ => false,
        };
        match kind {
            LimitKind::Http if has_key() => Identity::ApiKey,
            _ => Identity::of(self.client_address(head, peer)),
        }
    }

    /// Who sent a request (C-10).
    pub(super) fn client_address(&self, head: &RequestHead<'_>, peer: IpAddr) -> IpAddr {
        client_address(peer, &self.config.trusted_proxies, head.real_ip, &head.forwarded_for)
    }

    /// The word of whoever counts this identity; `None` when it has to be waited for.
    fn count(
        &mut self,
        now: Now,
        key: ConnKey,
        kind: LimitKind,
        identity: Identity,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        if let Some(refusal) = self.limiter.as_mut()?.refusal(now, kind, identity) {
            return Some(refusal);
        }
        if !self.config.rate_limits.is_some_and(|rules| rules.is_shared) {
            return self.count_at_home(now, key, kind, identity, effects);
        }
        let ticket = self.mailroom.next_number();
        self.limiter.as_mut()?.asked.insert(ticket, key);
        let request = StoreRequest::CountRequest { kind, identity };
        effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
        self.await_count(now, key, kind, identity);
        None
    }

    fn count_at_home(
        &mut self,
        now: Now,
        key: ConnKey,
        kind: LimitKind,
        identity: Identity,
        effects: &mut Effects,
    ) -> Option<Verdict> {
        let home = placement::buckets(identity, self.shards);
        if home == self.me {
            return Some(self.limiter.as_mut()?.count(now, kind, identity));
        }
        effects.push(Effect::Send { to: home, message: Message::Count { connection: key, kind, identity } });
        self.await_count(now, key, kind, identity);
        None
    }

    fn await_count(&mut self, now: Now, key: ConnKey, kind: LimitKind, identity: Identity) {
        let Some(http) = self.http_mut(key) else { return };
        http.stage = HttpStage::Counting(kind, identity);
        http.whole_at_us.get_or_insert(now.mono_us);
    }

    /// Another shard asks the home.
    pub(crate) fn count_for(
        &mut self,
        now: Now,
        from: ShardId,
        connection: ConnKey,
        kind: LimitKind,
        identity: Identity,
        effects: &mut Effects,
    ) {
        let Some(limiter) = &mut self.limiter else { return };
        let verdict = limiter.count(now, kind, identity);
        effects.push(Effect::Send { to: from, message: Message::Counted { connection, verdict } });
    }

    /// The word has come: the request goes on with it.
    pub(crate) fn counted(&mut self, now: Now, key: ConnKey, verdict: Verdict, effects: &mut Effects) {
        let Some((kind, identity)) = self.counting(key) else { return };
        if let Some(limiter) = &mut self.limiter {
            limiter.remember(kind, identity, verdict);
        }
        if let Some(http) = self.http_mut(key) {
            (http.stage, http.verdict) = (HttpStage::Head, Some(verdict));
        }
        self.resume(now, key, effects);
    }

    /// The store's word, if it is one about a count. Where it has none the home counts: for this node alone, and until the
    /// store answers again.
    pub(crate) fn limit_stored(
        &mut self,
        now: Now,
        ticket: StoreTicket,
        reply: StoreReply,
        effects: &mut Effects,
    ) -> Option<StoreReply> {
        let Some(key) = self.limiter.as_mut().and_then(|limiter| limiter.asked.remove(&ticket.0)) else {
            return Some(reply);
        };
        let (kind, identity) = self.counting(key)?;
        let verdict = match reply {
            StoreReply::Counted { count, ends_unix_ms } => Some(self.window_verdict(now, kind, count, ends_unix_ms)),
            _ => {
                self.metrics().limit_fallbacks.add(1);
                self.count_at_home(now, key, kind, identity, effects)
            }
        };
        if let Some(verdict) = verdict {
            self.counted(now, key, verdict, effects);
        }
        None
    }

    /// What a count in a fixed window comes to (contract §10.4).
    fn window_verdict(&self, now: Now, kind: LimitKind, count: u64, ends_unix_ms: u64) -> Verdict {
        let limit = self.config.rate_limits.map_or(0, |rules| match kind {
            LimitKind::Http => rules.requests.tokens(),
            LimitKind::Connect => rules.connects.tokens(),
        });
        let quota = |remaining| Quota { limit, remaining, reset_unix_ms: ends_unix_ms };
        match u64::from(limit).checked_sub(count) {
            Some(remaining) => Verdict::Passes(quota(remaining as u32)),
            None => {
                // Whatever the clock says: a window is no longer than its period.
                let ms = ends_unix_ms.saturating_sub(now.unix_ms()).min(kind.period_ms());
                Verdict::Refused { quota: quota(0), until_us: now.mono_us + ms * 1_000 }
            }
        }
    }

    fn counting(&self, key: ConnKey) -> Option<(LimitKind, Identity)> {
        match &self.connections.get(key)?.phase {
            Phase::Http(http) => match http.stage {
                HttpStage::Counting(kind, identity) => Some((kind, identity)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Forgets idle buckets, when it is time.
    pub(crate) fn sweep_buckets(&mut self, now: Now) {
        let Some(limiter) = &mut self.limiter else { return };
        limiter.requests.sweep(now);
        limiter.connects.sweep(now);
        let held = limiter.requests.len() + limiter.connects.len();
        self.metrics().limit_buckets.set(held as i64);
    }

    // --- Messages ----------------------------------------------------------------------------------------------------

    /// Whether a WebSocket client may say this. One that is over its limit is told once, until something of it passes
    /// again, so that it never hears more than it may say; what it says meanwhile is dropped.
    ///
    /// Texts, binary messages and pings count. Pongs and Closes do not: they answer us, or end it all. Nor does an
    /// acknowledgement that is awaited: there are no more of them than deliveries, and one that is dropped brings the
    /// notification again.
    pub(super) fn may_say(&mut self, now: Now, key: ConnKey, command: Option<&Command>) -> bool {
        let Some(rate) = self.config.rate_limits.and_then(|rules| rules.messages) else { return true };
        if let Some(Command::Ack { notification_id }) = command
            && let Some(live) = self.live(key)
            && let Some(mail) = self.users.get(live.user).and_then(|user| user.mail.as_ref())
            && mail.sent_at_ms(*notification_id).is_some()
        {
            return true;
        }
        let Some(live) = self.live_mut(key) else { return true };
        let (may, is_told) = (live.messages.take(&rate, now.mono_us).is_ok(), live.is_told);
        live.is_told = !may;
        self.metrics().limited(LimitedKind::Message, may).add(1);
        if !may && !is_told {
            let message = format!("Too many messages, at most {} per second", rate.tokens());
            self.say(now, key, |out| event::write_error(out, ErrorCode::RateLimited, &message));
        }
        may
    }
}

impl Live {
    /// The messages that a new connection may send.
    pub(crate) fn messages_at(rules: Option<&RateLimitRules>, now: Now) -> Bucket {
        const UNLIMITED: Rate = Rate::per_second(1, 1);
        Bucket::full(rules.and_then(|rules| rules.messages.as_ref()).unwrap_or(&UNLIMITED), now.mono_us)
    }
}
