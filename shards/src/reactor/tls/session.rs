//! TLS of one connection, as a function of bytes: no socket in here.
//!
//! An idle session holds keys and no buffer. What comes is decrypted out of the shard's one receive buffer, and only a record
//! that is not whole is kept; what goes is encrypted into the shard's one scratch, and only what the socket did not take is
//! kept.
use protocol::limits::{TLS_INPUT_BYTES_MAX, WRITE_BYTES_MAX};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, WriteTraffic};
use rustls::{HandshakeKind, ServerConfig};
use std::fmt;
use std::sync::Arc;

/// Room in front of the bytes of a write: records of 16 KiB and what each adds, and a change of keys before them.
const SEAL_ROOM_BYTES: usize = WRITE_BYTES_MAX + 1_024;

/// Ciphertext on its way out: a buffer that keeps its room.
#[derive(Debug, Default)]
pub(crate) struct Ciphertext {
    room: Vec<u8>,
    len: usize,
}

impl Ciphertext {
    /// What stands in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }

    /// Forgets it; the room stays.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    fn free(&mut self, bytes: usize) -> &mut [u8] {
        if self.room.len() < self.len + bytes {
            self.room.resize(self.len + bytes, 0);
        }
        &mut self.room[self.len..]
    }

    /// Appends what `write` puts into the free room; once more with the room it asks for.
    fn append<E>(
        &mut self,
        room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
        required: impl Fn(&E) -> Option<usize>,
    ) -> Result<(), E> {
        let written = match write(self.free(room)) {
            Err(error) => match required(&error) {
                Some(bytes) => write(self.free(bytes))?,
                None => return Err(error),
            },
            Ok(written) => written,
        };
        self.len += written;
        Ok(())
    }
}

/// Nothing can be encrypted: the keys are used up, or the session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// What came of bytes from the peer, besides plaintext and ciphertext.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The session is over: nobody agreed on one, or somebody meddled. What there is to say about it stands in the
    /// ciphertext.
    pub(crate) failed: Option<rustls::Error>,
    /// The handshake came to its end with these bytes; how it went.
    pub(crate) greeted: Option<HandshakeKind>,
    /// The peer has said that nothing follows.
    pub(crate) closed: bool,
    /// Work was done that costs about a thousand times more than a record.
    pub(crate) was_costly: bool,
}

/// One connection's TLS. It travels with its socket from shard to shard.
pub struct Session {
    tls: UnbufferedServerConnection,
    /// The beginning of a record, or of a message of the handshake; empty, and without room, most of the time.
    pub(super) incoming: Vec<u8>,
    /// Ciphertext that the socket has not taken, from `gone` on; empty, and without room, most of the time.
    pub(super) outgoing: Vec<u8>,
    gone: usize,
    /// Bytes came before.
    has_begun: bool,
    /// FIN goes out behind what is outgoing.
    pub(crate) fin_waits: bool,
    /// The peer has said that nothing follows; travels with the session, for whoever has not been told.
    pub(crate) peer_closed: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (incoming, outgoing) = (self.incoming.len(), self.pending().len());
        out.debug_struct("Session").field("incoming", &incoming).field("outgoing", &outgoing).finish_non_exhaustive()
    }
}

impl Session {
    /// One that waits for the peer to begin.
    ///
    /// # Errors
    /// The configuration makes no sense.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Session, rustls::Error> {
        Ok(Session {
            tls: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            gone: 0,
            has_begun: false,
            fin_waits: false,
            peer_closed: false,
        })
    }

    /// Whether both sides have not agreed yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// What has to stand in front of the next bytes for [`Session::receive`].
    pub(crate) fn held(&self) -> &[u8] {
        &self.incoming
    }

    /// Whether nothing has come yet, and the first of `bytes` begins no TLS but might begin an HTTP request.
    pub(crate) fn is_plain_http(&self, bytes: &[u8]) -> bool {
        !self.has_begun && bytes.first().is_some_and(u8::is_ascii_uppercase)
    }

    /// Decrypts: `bytes` begin with what [`Session::held`] showed. Plaintext goes behind what stands in `plain`, and what must
    /// be answered on this level behind what stands in `cipher`.
    pub(crate) fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>, cipher: &mut Ciphertext) -> Received {
        let (mut received, mut at) = (Received::default(), 0);
        let (was_handshaking, mut has_spoken) = (self.tls.is_handshaking(), false);
        self.has_begun = true;
        loop {
            let status = self.tls.process_tls_records(&mut bytes[at..]);
            let mut discard = status.discard;
            match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    has_spoken = true;
                    if encode(data, cipher).is_err() {
                        received.failed = Some(rustls::Error::General("a message was encoded twice".to_owned()));
                        break;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => (received.closed, self.peer_closed) = (true, true),
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    at += discard;
                    break;
                }
                Ok(_) => {
                    received.failed = Some(rustls::Error::General("early data, which was not offered".to_owned()));
                    break;
                }
                Err(error) => {
                    received.failed = Some(error);
                    break;
                }
            }
            at += discard;
        }
        // The answer to a client's first words; what ends a handshake is cheap.
        received.was_costly = has_spoken && self.tls.is_handshaking();
        let is_open = received.failed.is_none() && !self.peer_closed;
        let rest = if is_open { &bytes[at..] } else { &[] };
        if rest.len() > TLS_INPUT_BYTES_MAX {
            received.failed = Some(rustls::Error::General("a message of the handshake is too long".to_owned()));
        }
        self.hold(at, bytes.len(), is_open, bytes);
        if received.failed.is_some() {
            self.last_words(cipher);
        } else if was_handshaking && !self.tls.is_handshaking() {
            received.greeted = Some(self.tls.handshake_kind().unwrap_or(HandshakeKind::Full));
        }
        received
    }

    /// Keeps the rest of `bytes` for the next time.
    fn hold(&mut self, from: usize, to: usize, is_open: bool, bytes: &[u8]) {
        if !is_open || from == to {
            self.incoming = Vec::new();
            return;
        }
        self.incoming.clear();
        self.incoming.extend_from_slice(&bytes[from..to]);
    }

    /// The alert that says why, after a failure.
    fn last_words(&mut self, cipher: &mut Ciphertext) {
        while self.tls.wants_write() {
            match self.tls.process_tls_records(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    if encode(data, cipher).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Encrypts the first of `plain`, [`WRITE_BYTES_MAX`] at most, behind what stands in `cipher`; how many bytes.
    ///
    /// # Errors
    /// Nothing can be encrypted any more.
    pub(crate) fn seal(&mut self, plain: &[u8], cipher: &mut Ciphertext) -> Result<usize, Exhausted> {
        let plain = &plain[..plain.len().min(WRITE_BYTES_MAX)];
        self.with_traffic(cipher, |traffic, cipher| {
            cipher
                .append(plain.len() + SEAL_ROOM_BYTES - WRITE_BYTES_MAX, |room| traffic.encrypt(plain, room), required)
                .map_err(|_| Exhausted)
        })?;
        Ok(plain.len())
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// There is no session to say it in.
    pub(crate) fn say_closed(&mut self, cipher: &mut Ciphertext) -> Result<(), Exhausted> {
        if self.tls.is_handshaking() {
            return Err(Exhausted);
        }
        self.with_traffic(cipher, |traffic, cipher| {
            cipher.append(64, |room| traffic.queue_close_notify(room), required).map_err(|_| Exhausted)
        })
    }

    /// Comes to where plaintext may be encrypted. What rustls wants to say before goes before.
    fn with_traffic(
        &mut self,
        cipher: &mut Ciphertext,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut Ciphertext) -> Result<(), Exhausted>,
    ) -> Result<(), Exhausted> {
        let mut incoming = std::mem::take(&mut self.incoming);
        let mut act = Some(act);
        let mut at = 0;
        let result = loop {
            let status = self.tls.process_tls_records(&mut incoming[at..]);
            at += status.discard;
            match status.state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    break act.take().map_or(Err(Exhausted), |act| act(&mut traffic, cipher));
                }
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    if encode(data, cipher).is_err() {
                        break Err(Exhausted);
                    }
                }
                Ok(ConnectionState::TransmitTlsData(mut data)) => {
                    if let Some(mut traffic) = data.may_encrypt_app_data() {
                        let result = act.take().map_or(Err(Exhausted), |act| act(&mut traffic, cipher));
                        data.done();
                        break result;
                    }
                    data.done();
                }
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                _ => break Err(Exhausted),
            }
        };
        if at > 0 {
            incoming.drain(..at);
        }
        self.incoming = incoming;
        result
    }

    /// Ciphertext that the socket has not taken.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.outgoing[self.gone..]
    }

    /// Keeps ciphertext for later, behind what waits.
    pub(crate) fn keep(&mut self, cipher: &[u8]) {
        self.outgoing.extend_from_slice(cipher);
    }

    /// The socket took `bytes` of what is pending. True when nothing is any more.
    pub(crate) fn advance(&mut self, bytes: usize) -> bool {
        self.gone += bytes;
        if self.gone < self.outgoing.len() {
            return false;
        }
        (self.outgoing, self.gone) = (Vec::new(), 0);
        true
    }
}

fn encode(mut data: EncodeTlsData<'_, ServerConnectionData>, cipher: &mut Ciphertext) -> Result<(), EncodeError> {
    cipher.append(
        4_096,
        |room| data.encode(room),
        |error| match error {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        },
    )
}

fn required(error: &EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}
