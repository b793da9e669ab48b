//! Requests counted together with other nodes: fixed windows in Redis (contract §10.4).
//!
//! | key | type | what | expires after |
//! |---|---|---|---|
//! | `{prefix}:{kind}:{identifier}:{window}` | string | requests in the window | the window's length |
//!
//! `{kind}` is `http` or `ws`, so that requests and connects of one address are two counts; `{identifier}` is that of
//! [`Identity::write`], which does not tell the API key; `{window}` is the node's wall clock divided by the window's
//! length. One key for each command, so a Redis Cluster can keep them under a prefix with a hash tag.
//!
//! **Never waits for a Redis that is away.** Only a link that works is asked, and a count that does not come within
//! [`protocol::limits::RATE_LIMIT_REDIS_TIMEOUT_MS`] is given up together with the link: whoever asked counts by itself.
use crate::backend::Backend;
use crate::link::state::LinkState;
use crate::link::wants::Wants;
use crate::redis::commands::answer::Outcome;
use crate::redis::commands::link::{CommandConfig, CommandLink};
use crate::redis::commands::script::Script;
use crate::redis::commands::status::{CommandStatus, Operation};
use crate::redis::commands::{Command, Ticket, Words};
use crate::redis::mailbox::page::number;
use protocol::clock::Now;
use protocol::rate_limit::{Identity, LimitKind};
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static COUNT: Script = Script::new("limit_count", include_str!("scripts/limit_count.lua"));

/// What a counter needs to know.
#[derive(Clone, Debug)]
pub struct RedisCounterConfig {
    /// The link; its scripts are the counter's to set.
    pub link: CommandConfig,
    /// `RATELIMIT_REDIS_PREFIX`
    pub prefix: String,
    /// [`protocol::rate_limit::identity::key_name`] of `API_KEY`; empty without one.
    pub key_name: String,
    /// Shared by all counters of a node.
    pub outage: Arc<Outage>,
}

/// Whether a node's shards count by themselves: said once, by the first that has to, and taken back by the last that no
/// longer does.
#[derive(Debug, Default)]
pub struct Outage(AtomicUsize);

impl Outage {
    fn begins(&self, reason: &str) {
        if self.0.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(
                reason,
                "requests cannot be counted in Redis; until they can, this node applies its rate limits alone"
            );
        }
    }

    fn ends(&self) {
        if self.0.fetch_sub(1, Relaxed) == 1 {
            tracing::info!("requests are counted in Redis, together with other nodes");
        }
    }
}

/// One shard's counter: one pipelined link of its own, so that a count given up late takes nobody's mail with it.
pub struct RedisCounter {
    link: CommandLink,
    status: Arc<CommandStatus>,
    prefix: String,
    key_name: String,
    outage: Arc<Outage>,
    /// The connection of the link by which it was out of service; `None` while it is not.
    out_since: Option<u64>,
    /// What is asked, with the end of its window.
    asked: HashMap<u64, (StoreTicket, u64)>,
    last: u64,
    replies: Vec<(StoreTicket, StoreReply)>,
}

impl RedisCounter {
    /// A counter that begins to connect at its first turn. `wake` is called on the name lookup's thread and must make the
    /// owner turn the link soon.
    pub fn new(config: RedisCounterConfig, seed: u64, wake: Arc<dyn Fn() + Send + Sync>) -> RedisCounter {
        let RedisCounterConfig { mut link, prefix, key_name, outage } = config;
        link.scripts = vec![&COUNT];
        let status = Arc::new(CommandStatus::new());
        RedisCounter {
            link: CommandLink::new(link, Arc::clone(&status), seed, wake),
            status,
            prefix,
            key_name,
            outage,
            out_since: None,
            asked: HashMap::new(),
            last: 0,
            replies: Vec::new(),
        }
    }

    fn count(&mut self, now: Now, ticket: StoreTicket, kind: LimitKind, identity: Identity) -> bool {
        if self.status.link() != LinkState::Healthy {
            return false;
        }
        let window = now.unix_ms() / kind.period_ms();
        let mut key = format!("{}:{}:", self.prefix, kind.as_str()).into_bytes();
        identity.write(&mut key, &self.key_name);
        key.extend_from_slice(format!(":{window}").as_bytes());
        let seconds = kind.period_seconds().to_string();
        let words = Words::Script { script: &COUNT, keys: &[&key], arguments: &[seconds.as_bytes()] };
        self.last += 1;
        let taken = self.link.submit(now, Ticket(self.last), Command { operation: Operation::Other, words }).is_ok();
        if taken {
            self.asked.insert(self.last, (ticket, (window + 1) * kind.period_ms()));
        }
        taken
    }
}

impl Backend for RedisCounter {
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest) {
        let taken = match request {
            StoreRequest::CountRequest { kind, identity } => self.count(now, ticket, kind, identity),
            _ => false,
        };
        if !taken {
            self.replies.push((ticket, StoreReply::Failed));
            note_outage(&mut self.out_since, &self.outage, &self.status, "there is no link");
        }
    }

    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.append(&mut self.replies);
    }

    fn links(&self) -> usize {
        1
    }

    fn turn(&mut self, _link: usize, now: Now, readable: bool, writable: bool) -> Wants {
        let RedisCounter { link, status, asked, replies, out_since, outage, .. } = self;
        let wants = link.turn(now, readable, writable, &mut |ticket, outcome| {
            let Some((ticket, ends_unix_ms)) = asked.remove(&ticket.0) else { return };
            let count = match &outcome {
                Outcome::Done(reply) => number(*reply).ok_or("its answer is no number"),
                Outcome::Refused(refusal) => Err(refusal.text.as_str()),
                Outcome::Failed(failure) => Err(failure.text.as_str()),
                Outcome::Unknown | Outcome::NotSent => Err("there is no answer"),
            };
            replies.push((
                ticket,
                match count {
                    Ok(count) => {
                        if out_since.take().is_some() {
                            outage.ends();
                        }
                        StoreReply::Counted { count, ends_unix_ms }
                    }
                    Err(reason) => {
                        note_outage(out_since, outage, status, reason);
                        // A second count by whoever asked does no harm.
                        StoreReply::Failed
                    }
                },
            ));
        });
        // A shard that nobody asks any more must not keep the outage up: a new link speaks for itself.
        if out_since.is_some_and(|connections| self.status.connections() > connections) {
            self.out_since = None;
            self.outage.ends();
        }
        wants
    }

    fn owes(&self) -> bool {
        !self.asked.is_empty()
    }
}

fn note_outage(out_since: &mut Option<u64>, outage: &Outage, status: &CommandStatus, reason: &str) {
    if out_since.is_none() {
        *out_since = Some(status.connections());
        outage.begins(reason);
    }
}
