//! TLS for clients, at the rim: between a socket and its shard, which sees plaintext only (decision 12).
//!
//! | part | what it is |
//! |---|---|
//! | [`TlsSource`] | what new connections are encrypted with; the engine may change it at any time |
//! | `session` | TLS of one connection, bytes in, bytes out |
//! | `serve` | reading, writing, ending and handing over when there is a session in between |
//!
//! Without TLS a shard has no [`Secure`], and a plain connection costs neither a byte nor more than one branch a call.
mod serve;
mod session;
#[cfg(test)]
mod tests;

pub(super) use serve::FULL_REFUSAL;
pub use session::Session;

use crate::key::ConnKey;
use protocol::limits::TURN_HANDSHAKES_MAX;
use rustls::ServerConfig;
use session::Ciphertext;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What new connections of a node are encrypted with. Shards look at it when they accept: at a number, and at the lock only
/// when that has changed.
pub struct TlsSource {
    config: Mutex<Arc<ServerConfig>>,
    version: AtomicU64,
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TlsSource").field("version", &self.version).finish_non_exhaustive()
    }
}

impl TlsSource {
    /// Begins with this.
    pub fn new(config: Arc<ServerConfig>) -> TlsSource {
        TlsSource { config: Mutex::new(config), version: AtomicU64::new(0) }
    }

    /// From now on connects get this; those that are there keep what they have. From any thread.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        self.version.fetch_add(1, Ordering::Release);
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A shard's side of it.
pub(super) struct Secure {
    source: Arc<TlsSource>,
    version: u64,
    config: Arc<ServerConfig>,
    /// By slot, beside the socket; the generation tells whose.
    sessions: Vec<Option<(u32, Box<Session>)>>,
    /// Handshakes that this turn may still answer.
    handshakes_left: usize,
    plain: Vec<u8>,
    cipher: Ciphertext,
}

impl Secure {
    pub(super) fn new(source: Arc<TlsSource>) -> Secure {
        // The version first: a config that is newer than it says is fetched once more, an older one would stay.
        let (version, config) = (source.version(), source.config());
        Secure {
            source,
            version,
            config,
            sessions: Vec::new(),
            handshakes_left: TURN_HANDSHAKES_MAX,
            plain: Vec::new(),
            cipher: Ciphertext::default(),
        }
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.handshakes_left = TURN_HANDSHAKES_MAX;
    }

    /// TLS of a socket that was just accepted.
    pub(super) fn session(&mut self) -> Result<Box<Session>, rustls::Error> {
        let version = self.source.version();
        if version != self.version {
            (self.version, self.config) = (version, self.source.config());
        }
        Session::new(Arc::clone(&self.config)).map(Box::new)
    }

    pub(super) fn insert(&mut self, key: ConnKey, session: Box<Session>) {
        let slot = key.slot as usize;
        if slot >= self.sessions.len() {
            self.sessions.resize_with(slot + 1, || None);
        }
        self.sessions[slot] = Some((key.generation, session));
    }

    fn get(&mut self, key: ConnKey) -> Option<&mut Session> {
        let (generation, session) = self.sessions.get_mut(key.slot as usize)?.as_mut()?;
        (*generation == key.generation).then_some(session)
    }

    pub(super) fn take(&mut self, key: ConnKey) -> Option<Box<Session>> {
        let entry = self.sessions.get_mut(key.slot as usize)?;
        let (_, session) = entry.take_if(|(generation, _)| *generation == key.generation)?;
        Some(session)
    }
}
