//! The reactor's acts on a connection that is encrypted.
//!
//! A write is one `send` of one piece of ciphertext. What the socket does not take of it cannot be taken back, for what was
//! encrypted must go out as it is; it waits in the session, and the shard hears ([`Shard::sealed`]) that these bytes left the
//! outbox but not the machine. Nothing more is encrypted until all of it is out. So a slow reader costs one write's worth
//! beside its outbox, and mail that is lost with a connection is lost in the outbox's sense: it goes back to its mailbox.
//!
//! [`Shard::sealed`]: crate::shard::Shard::sealed
use super::super::acts::contain;
use super::super::sockets::{Read, Written};
use super::super::turn::Reactor;
use super::session::{Received, Session};
use crate::key::ConnKey;
use crate::shard::Ended;
use protocol::limits::TLS_PENDING_BYTES_MAX;
use rustls::HandshakeKind;
use std::os::fd::OwnedFd;

/// What a client hears that begins an HTTP request where TLS was expected; the connection ends with it.
pub(super) const PLAIN_REFUSAL: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: application/json\r\n\
    content-length: 91\r\n\
    connection: close\r\n\
    \r\n\
    {\"error\":{\"code\":\"BAD_REQUEST\",\"message\":\"This port speaks TLS, use https:// or wss://\"}}\r\n";

/// What a connect hears when the node is full: the alert `internal_error` (RFC 8446 §6.2), before any handshake.
pub(in crate::reactor) const FULL_REFUSAL: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

impl Reactor {
    /// TLS for a socket that was just accepted; `Err` when there can be none.
    pub(in crate::reactor) fn new_session(&mut self) -> Result<Option<Box<Session>>, ()> {
        match self.secure.as_deref_mut().map(super::Secure::session).transpose() {
            Ok(session) => Ok(session),
            Err(error) => {
                tracing::error!(%error, "TLS cannot begin with the configuration it has");
                Err(())
            }
        }
    }

    /// Puts a socket's session beside it. What it brought along is seen to.
    pub(in crate::reactor) fn seat_session(&mut self, key: ConnKey, session: Box<Session>) {
        let Some(secure) = self.secure.as_deref_mut() else { return };
        if !session.pending().is_empty() {
            self.sockets.await_room(&self.poller, key);
        }
        secure.insert(key, session);
    }

    /// After an arrival: the peer may have said that nothing follows, before anybody here could hear it.
    pub(in crate::reactor) fn heed_closed(&mut self, key: ConnKey) {
        let is_closed = self.secure.as_deref_mut().and_then(|secure| secure.get(key)).is_some_and(|s| s.peer_closed);
        if is_closed {
            self.sockets.end_reads(&self.poller, key);
            self.on_connection(key, |shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
        }
    }

    /// The read that `serve` makes, of a socket with a session.
    pub(in crate::reactor) fn read_secure(&mut self, key: ConnKey, is_broken: bool) {
        let Some(secure) = self.secure.as_deref_mut() else { return };
        let Some(session) = secure.get(key) else { return };
        let is_handshaking = session.is_handshaking();
        let mut readable = std::mem::take(&mut self.scratch.readable);
        let held = session.held().len();
        readable[..held].copy_from_slice(session.held());
        if is_handshaking && secure.handshakes_left == 0 {
            // The epoll set tells it again.
            self.progress = true;
        } else {
            match self.sockets.read(&self.poller, key, &mut readable[held..]) {
                Some(Read::Bytes(len)) => self.receive(key, &mut readable[..held + len]),
                read => self.heed_no_bytes(key, read, is_broken),
            }
        }
        self.scratch.readable = readable;
    }

    fn receive(&mut self, key: ConnKey, bytes: &mut [u8]) {
        let now = self.now;
        let Some(secure) = self.secure.as_deref_mut() else { return };
        let (mut plain, mut cipher) = (std::mem::take(&mut secure.plain), std::mem::take(&mut secure.cipher));
        plain.clear();
        cipher.clear();
        let Some(session) = secure.get(key) else { return };
        let refusal = session.is_plain_http(bytes).then_some(PLAIN_REFUSAL);
        let received = contain(&mut self.shard, now, key, &mut self.effects, |_, _| {
            session.receive(bytes, &mut plain, &mut cipher)
        });
        match received {
            None => self.forget(key),
            Some(Received { failed: Some(error), .. }) => {
                self.metrics().tls_failed.add(1);
                tracing::debug!(%error, "a client's TLS failed");
                // As far as the socket takes it: the connection is at its end.
                let _ = self.sockets.write(&self.poller, key, refusal.unwrap_or(cipher.bytes()));
                self.sockets.shutdown(key);
                self.break_off(key);
            }
            Some(received) => {
                if received.was_costly {
                    secure.handshakes_left = secure.handshakes_left.saturating_sub(1);
                }
                self.received_secure(key, &received, &mut plain, cipher.bytes());
            }
        }
        if let Some(secure) = self.secure.as_deref_mut() {
            (secure.plain, secure.cipher) = (plain, cipher);
        }
    }

    fn received_secure(&mut self, key: ConnKey, received: &Received, plain: &mut [u8], cipher: &[u8]) {
        self.progress = true;
        if !cipher.is_empty() {
            self.send_own(key, cipher);
        }
        if let Some(kind) = received.greeted {
            self.metrics().tls_handshakes.add(1);
            self.metrics().tls_resumed.add(u64::from(kind == HandshakeKind::Resumed));
            self.on_connection(key, |shard, now, _| shard.greeted(now, key));
        }
        if !plain.is_empty() {
            self.on_connection(key, |shard, now, effects| shard.received(now, key, plain, effects));
        }
        if received.closed {
            self.heed_closed(key);
        }
    }

    /// Sends what TLS itself has to say, behind what waits.
    fn send_own(&mut self, key: ConnKey, cipher: &[u8]) {
        let Some(session) = self.secure.as_deref_mut().and_then(|secure| secure.get(key)) else { return };
        let sent = match session.pending() {
            [] => match self.sockets.write(&self.poller, key, cipher) {
                Some(Written::Bytes(sent)) => sent,
                Some(Written::Broken) => return self.break_off(key),
                None => return,
            },
            _ => 0,
        };
        session.keep(&cipher[sent..]);
        if session.pending().len() > TLS_PENDING_BYTES_MAX {
            self.break_off(key);
        }
    }

    /// As `write`.
    pub(in crate::reactor) fn write_secure(&mut self, key: ConnKey) -> Option<usize> {
        let session = self.secure.as_deref_mut().and_then(|secure| secure.get(key))?;
        if !session.pending().is_empty() {
            return self.write_pending(key);
        }
        let now = self.now;
        let Reactor { shard, sockets, poller, effects, secure, .. } = self;
        let secure = secure.as_deref_mut()?;
        let mut cipher = std::mem::take(&mut secure.cipher);
        cipher.clear();
        let session = secure.get(key)?;
        let sealed = contain(shard, now, key, effects, |shard, _| match shard.output(now, key) {
            [] => Ok(0),
            bytes => session.seal(bytes, &mut cipher),
        });
        let written = match sealed {
            None => {
                self.forget(key);
                None
            }
            Some(Err(_)) => {
                self.break_off(key);
                None
            }
            Some(Ok(0)) => {
                self.on_connection(key, |shard, now, effects| shard.written(now, key, 0, false, effects));
                None
            }
            Some(Ok(len)) => match sockets.write(poller, key, cipher.bytes()) {
                Some(Written::Bytes(sent)) => {
                    let rest = &cipher.bytes()[sent..];
                    session.keep(rest);
                    let is_through = rest.is_empty();
                    self.on_connection(key, |shard, now, effects| match is_through {
                        true => shard.written(now, key, len, false, effects),
                        false => shard.sealed(now, key, len, effects),
                    });
                    Some(sent)
                }
                Some(Written::Broken) => {
                    self.break_off(key);
                    Some(0)
                }
                // Closed, or broken and told: the shard knows.
                None => None,
            },
        };
        if let Some(secure) = self.secure.as_deref_mut() {
            secure.cipher = cipher;
        }
        written
    }

    /// Goes on with ciphertext that waits; what is new comes behind it, in a later turn.
    fn write_pending(&mut self, key: ConnKey) -> Option<usize> {
        let session = self.secure.as_deref_mut()?.get(key)?;
        match self.sockets.write(&self.poller, key, session.pending())? {
            Written::Broken => {
                self.break_off(key);
                Some(0)
            }
            Written::Bytes(sent) => {
                let is_through = session.advance(sent);
                if is_through && std::mem::take(&mut session.fin_waits) {
                    self.sockets.shutdown(key);
                }
                self.on_connection(key, |shard, now, effects| shard.unsealed(now, key, sent > 0, is_through, effects));
                Some(sent)
            }
        }
    }

    /// As `Sockets::shutdown`, with the word that nothing follows before it.
    pub(in crate::reactor) fn shutdown_secure(&mut self, key: ConnKey) {
        let Some(secure) = self.secure.as_deref_mut() else { return self.sockets.shutdown(key) };
        let mut cipher = std::mem::take(&mut secure.cipher);
        cipher.clear();
        let Some(session) = secure.get(key) else { return };
        // Who has no session yet hears FIN only.
        let _ = session.say_closed(&mut cipher);
        let sent = match session.pending() {
            [] => match self.sockets.write(&self.poller, key, cipher.bytes()) {
                Some(Written::Bytes(sent)) => sent,
                // The epoll set tells how it ended.
                Some(Written::Broken) | None => cipher.bytes().len(),
            },
            _ => 0,
        };
        session.keep(&cipher.bytes()[sent..]);
        if session.pending().is_empty() {
            self.sockets.shutdown(key);
        } else {
            session.fin_waits = true;
        }
        secure.cipher = cipher;
    }

    /// The socket will be closed. Who has said that nothing follows hears the same, as far as the socket takes it.
    pub(in crate::reactor) fn end_session(&mut self, key: ConnKey) {
        let Some(secure) = self.secure.as_deref_mut() else { return };
        let Some(mut session) = secure.take(key) else { return };
        secure.cipher.clear();
        if session.peer_closed && session.pending().is_empty() && session.say_closed(&mut secure.cipher).is_ok() {
            let _ = self.sockets.write(&self.poller, key, secure.cipher.bytes());
        }
    }

    /// A connection leaves: its socket, and its session with it.
    pub(in crate::reactor) fn take_stream(&mut self, key: ConnKey) -> Option<(OwnedFd, Option<Box<Session>>)> {
        let socket = self.sockets.take(&self.poller, key)?;
        Some((socket, self.secure.as_deref_mut().and_then(|secure| secure.take(key))))
    }
}
