//! One core's state machine.
//!
//! The rim calls in this order, once a turn, and carries out the [`Effects`] after every call:
//! accepted/arrived, received/ended, message, stored, tick, work; then for each key of [`Shard::take_dirty`] it writes
//! what [`Shard::output`] shows and tells [`Shard::written`], also when nothing was shown or nothing went out.
use crate::config::ShardConfig;
use crate::effect::Effects;
use crate::guest::Submission;
use crate::host::Host;
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::Message;
use crate::metrics::NodeMetrics;
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreTicket};
use std::net::IpAddr;
use std::sync::Arc;

/// Somebody who has shown a good token and is brought to the home shard of the user, with the bytes that came after the
/// request head.
#[derive(Debug)]
pub struct Arrival {}

/// How a peer's output ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// FIN: it sends no more, but may still read.
    Eof,
    /// Reset or any socket error: nothing can be sent either.
    Reset,
}

/// One core's world.
pub struct Shard {}

impl Shard {
    /// An empty shard. `seed` feeds ids and jitter.
    pub fn new(
        _id: ShardId,
        _shards: usize,
        _config: Arc<ShardConfig>,
        _metrics: Arc<NodeMetrics>,
        _host: Arc<dyn Host>,
        _seed: u64,
    ) -> Shard {
        Shard {}
    }

    /// A socket was accepted. `None` when the node is full: the rim answers 503 and closes it.
    pub fn accepted(&mut self, _now: Now, _peer: IpAddr) -> Option<ConnKey> {
        None
    }

    /// A socket was handed over by the shard that accepted it. The rim puts the socket under the key.
    pub fn arrived(&mut self, _now: Now, _arrival: Box<Arrival>, _effects: &mut Effects) -> ConnKey {
        ConnKey { slot: 0, generation: 0 }
    }

    /// Bytes from the peer; the shard may scribble on them (WebSocket payloads are unmasked in place).
    pub fn received(&mut self, _now: Now, _key: ConnKey, _bytes: &mut [u8], _effects: &mut Effects) {}

    /// The peer's output ended.
    pub fn ended(&mut self, _now: Now, _key: ConnKey, _how: Ended, _effects: &mut Effects) {}

    /// From another shard.
    pub fn message(&mut self, _now: Now, _from: ShardId, _message: Message, _effects: &mut Effects) {}

    /// From the store.
    pub fn stored(&mut self, _now: Now, _ticket: StoreTicket, _reply: StoreReply, _effects: &mut Effects) {}

    /// From a guest.
    pub fn publish(&mut self, _now: Now, _submission: Submission, _effects: &mut Effects) {}

    /// Whether new publishes are refused right now.
    pub fn congested(&self) -> bool {
        false
    }

    /// Whether the shard has so many fan-outs waiting that the rim should leave the lanes alone this turn.
    pub fn saturated(&self) -> bool {
        false
    }

    /// Fires what is due.
    pub fn tick(&mut self, _now: Now, _effects: &mut Effects) {}

    /// Goes on with fan-outs, within the turn's budget. True when more remains.
    pub fn work(&mut self, _now: Now, _effects: &mut Effects) -> bool {
        false
    }

    /// When `tick` is next needed, on [`Now::mono_us`].
    pub fn next_deadline_us(&self) -> Option<u64> {
        None
    }

    /// Moves the connections that have something to write into `out`; each stands there once.
    pub fn take_dirty(&mut self, _out: &mut Vec<ConnKey>) {}

    /// What to write to this connection now: at most [`protocol::limits::WRITE_BYTES_MAX`] assembled bytes, or one
    /// large frame. Empty when there is nothing.
    pub fn output(&mut self, _now: Now, _key: ConnKey) -> &[u8] {
        &[]
    }

    /// `len` bytes of the last [`Shard::output`] went out. A connection that has more is dirty again, unless `blocked`:
    /// then the rim waits until the socket is writable and calls [`Shard::writable`].
    pub fn written(&mut self, _now: Now, _key: ConnKey, _len: usize, _blocked: bool, _effects: &mut Effects) {}

    /// A blocked socket takes bytes again.
    pub fn writable(&mut self, _now: Now, _key: ConnKey) {}

    /// End of the flush: lets go of shared frames.
    pub fn flushed_all(&mut self) {}

    /// A panic came out of `received`, `ended`, `output`, `written` or `writable` for this connection: forget it without
    /// trusting what it holds. The rim closes the socket afterwards, asked or not.
    pub fn poisoned(&mut self, _now: Now, _key: ConnKey, _effects: &mut Effects) {}

    /// The node stops: tell every client, refuse newcomers, then close as outboxes empty.
    pub fn stop(&mut self, _now: Now, _effects: &mut Effects) {}

    /// After `stop`: whether every connection is gone.
    pub fn stopped(&self) -> bool {
        true
    }
}
