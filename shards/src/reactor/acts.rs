//! How a shard's effects are carried out, and how a panic stays with the connection it came from.
use super::Shard;
use super::tls::Session;
use super::turn::Reactor;
use crate::effect::{Effect, Effects};
use crate::key::{ConnKey, ShardId};
use crate::mesh::Envelope;
use crate::shard::{Arrival, Ended};
use protocol::clock::Now;
use std::any::Any;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;

/// Calls the shard for one connection. `None` after a panic: it was logged, and the shard has been told to forget the
/// connection.
///
/// The shard is looked at again after a panic, so this rests on `Shard::poisoned` not trusting what the connection
/// holds. A panic in there, or anywhere else, ends the process (`reactor::run`).
pub(super) fn contain<R>(
    shard: &mut Shard,
    now: Now,
    key: ConnKey,
    effects: &mut Effects,
    act: impl FnOnce(&mut Shard, &mut Effects) -> R,
) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(|| act(shard, effects))) {
        Ok(result) => Some(result),
        Err(panic) => {
            let message = panic_message(&*panic);
            tracing::error!(slot = key.slot, generation = key.generation, message, "a connection's event panicked");
            shard.poisoned(now, key, effects);
            None
        }
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

impl Reactor {
    /// Carries out what the last call asked for, in order.
    pub(super) fn carry_out(&mut self) {
        if self.effects.is_empty() {
            return;
        }
        self.progress = true;
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, message } => self.mesh.send(to, Envelope::Message(message)),
                Effect::HandOver { key, to, arrival } => self.hand_over(key, to, arrival),
                Effect::Shutdown(key) if self.secure.is_some() => self.shutdown_secure(key),
                Effect::Shutdown(key) => self.sockets.shutdown(key),
                Effect::Close(key) => self.close(key),
                Effect::Read { key, on } => self.sockets.set_reads(&self.poller, key, on),
                Effect::Store { ticket, request } => {
                    self.store_asked = true;
                    self.store.submit(self.now, self.id, ticket, request);
                }
                Effect::Cluster(request) => {
                    if let Some(cluster) = &mut self.cluster {
                        self.store_asked = true;
                        cluster.submit(self.now, *request);
                    }
                }
            }
        }
        self.effects = effects;
    }

    fn hand_over(&mut self, key: ConnKey, to: ShardId, arrival: Box<Arrival>) {
        // A socket that broke in this very turn has nobody behind it: the home is not told, as nobody comes.
        if let Some((socket, session)) = self.take_stream(key) {
            self.count_sockets();
            self.mesh.send(to, Envelope::Socket { socket, session, arrival });
        } else {
            self.node_metrics.sockets.fetch_sub(1, Relaxed);
        }
    }

    fn close(&mut self, key: ConnKey) {
        if self.secure.is_some() {
            self.end_session(key);
        }
        self.sockets.close(key);
        self.count_sockets();
    }

    fn count_sockets(&self) {
        self.metrics().sockets.set(self.sockets.open() as i64);
    }

    /// Puts a new connection's socket into the table, before the effects of its arrival are carried out. When it
    /// cannot be watched it is closed, and the shard hears that it was reset.
    pub(super) fn seat(&mut self, key: ConnKey, socket: OwnedFd, session: Option<Box<Session>>) {
        let seated = self.sockets.insert(&self.poller, key, socket);
        if let Some(session) = session {
            self.seat_session(key, session);
        }
        self.count_sockets();
        self.carry_out();
        if let Err(error) = seated {
            tracing::warn!(%error, "a socket cannot be watched and is closed");
            self.on_connection(key, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
        }
    }

    /// Calls the shard for one connection and carries out what it asks for; closes the connection if it panics.
    pub(super) fn on_connection(&mut self, key: ConnKey, act: impl FnOnce(&mut Shard, Now, &mut Effects)) {
        self.progress = true;
        let now = self.now;
        let done = contain(&mut self.shard, now, key, &mut self.effects, |shard, effects| act(shard, now, effects));
        match done {
            Some(()) => self.carry_out(),
            None => self.forget(key),
        }
    }

    /// After a panic was contained: closes the connection, whatever the shard asked for.
    pub(super) fn forget(&mut self, key: ConnKey) {
        self.carry_out();
        self.close(key);
    }

    /// Tells the shard, once, that a connection is lost.
    pub(super) fn break_off(&mut self, key: ConnKey) {
        if self.sockets.break_off(&self.poller, key) {
            self.on_connection(key, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
        }
    }
}
