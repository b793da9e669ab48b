//! Connections whose bytes are encrypted on their way to the socket.
//!
//! What was encrypted has to go out as it is, so it has left the outbox; but until the socket takes it, it is not written.
//! Mail in it counts as begun: it is put back when the connection is lost, and goes on otherwise.
use crate::conn::Phase;
use crate::conn::outbox::Delivery;
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::Shard;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::clock::Now;
use protocol::limits;
use std::rc::Rc;

/// Mail of blocked connections that is encrypted: of each no more than fits one write.
#[derive(Debug, Default)]
pub(crate) struct SealedMail(HashMap<ConnKey, Vec<Rc<Delivery>>, RandomState>);

impl SealedMail {
    /// What waits for one connection's socket, oldest first.
    pub(crate) fn of(&self, key: ConnKey) -> &[Rc<Delivery>] {
        // Empty without TLS, and with it while nobody is slow: not even hashed.
        if self.0.is_empty() {
            return &[];
        }
        self.0.get(&key).map_or(&[], Vec::as_slice)
    }

    fn hold(&mut self, key: ConnKey, mail: Vec<Rc<Delivery>>) {
        mail.iter().filter_map(|delivery| delivery.mail.as_ref()).for_each(|tag| tag.sealed_for.update(|n| n + 1));
        self.0.entry(key).or_default().extend(mail);
    }

    /// All of it, as it goes out or goes with its connection.
    fn take(&mut self, key: ConnKey) -> Vec<Rc<Delivery>> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mail = self.0.remove(&key).unwrap_or_default();
        mail.iter().filter_map(|delivery| delivery.mail.as_ref()).for_each(|tag| tag.sealed_for.update(|n| n - 1));
        mail
    }

    /// Whoever had a claim to it has it back.
    pub(crate) fn forget(&mut self, key: ConnKey) {
        drop(self.take(key));
    }

    /// Takes all of it, and hands out what stands in no mailbox: the connection is gone.
    pub(crate) fn take_unkept(&mut self, key: ConnKey) -> Vec<Rc<Delivery>> {
        let mut mail = self.take(key);
        mail.retain(|delivery| delivery.mail.as_ref().is_some_and(|tag| !tag.kept.get()));
        mail
    }
}

impl Shard {
    /// The connection begins with a handshake that the shard does not see, and that must be over in time.
    pub fn await_greeting(&mut self, now: Now, key: ConnKey) {
        self.expect_head_until(key, now.mono_ms() + limits::TLS_HANDSHAKE_DEADLINE_MS);
    }

    /// The handshake is over.
    pub fn greeted(&mut self, now: Now, key: ConnKey) {
        self.expect_head_until(key, now.mono_ms() + limits::HTTP_IDLE_DEADLINE_MS);
    }

    fn expect_head_until(&mut self, key: ConnKey, deadline_ms: u64) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Phase::Http(http) = &mut connection.phase
            && http.is_idle()
        {
            http.deadline_ms = deadline_ms;
            self.schedule(key, deadline_ms);
        }
    }

    /// As [`Shard::written`], for bytes that were encrypted, while the socket took not all of the ciphertext. Nothing more is
    /// shown until [`Shard::unsealed`] says that all of it is out.
    pub fn sealed(&mut self, now: Now, key: ConnKey, len: usize, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.sealed = true;
        self.written(now, key, len, true, effects);
    }

    /// Instead of [`Shard::output`] and [`Shard::written`] while ciphertext waits: the socket took some more of it (`moved`),
    /// or all that was left.
    pub fn unsealed(&mut self, now: Now, key: ConnKey, moved: bool, is_all: bool, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.dirty = false;
        if moved && let Some(outbox) = &mut connection.outbox {
            outbox.waiting_since_us = now.mono_us;
        }
        if is_all && std::mem::take(&mut connection.sealed) {
            let mail = self.sealed_mail.take(key);
            if !mail.is_empty() {
                self.mail_written(now, key, &mail, effects);
            }
        }
        self.written(now, key, 0, !is_all, effects);
    }

    /// A write took this mail out of the outbox.
    pub(crate) fn mail_taken(&mut self, now: Now, key: ConnKey, mail: Vec<Rc<Delivery>>, effects: &mut Effects) {
        if mail.is_empty() || !self.connections.get(key).is_some_and(|connection| connection.sealed) {
            return self.mail_written(now, key, &mail, effects);
        }
        self.sealed_mail.hold(key, mail);
        self.read_on(now, key, effects);
    }
}
