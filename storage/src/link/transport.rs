//! How bytes go to and fro, plain or encrypted: a socket, and rustls over the same socket once both sides agreed.
use crate::link::socket::{self, Transfer};
use crate::link::tls::Tls;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustls::ClientConnection;
use std::io::{self, Read, Write};

/// Reads from the socket in one call of [`Transport::receive`]: whoever sends records with nothing in them cannot hold
/// the thread.
const RECORD_READS_MAX: usize = 64;

/// Why no more bytes go.
#[derive(Debug)]
pub(crate) enum TransportError {
    /// The socket failed.
    Io(Errno),
    /// The encryption failed: nobody agreed on it, or somebody meddled with it.
    Tls(rustls::Error),
}

/// A connected socket, or one whose connect is under way.
pub(crate) struct Transport {
    socket: OwnedFd,
    tls: Option<Box<ClientConnection>>,
}

impl Transport {
    pub(crate) fn new(socket: OwnedFd) -> Transport {
        Transport { socket, tls: None }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Begins TLS: from here on everything goes through it, what is given before the handshake is over waits in it.
    pub(crate) fn encrypt(&mut self, tls: &Tls) -> Result<(), TransportError> {
        let connection = ClientConnection::new(tls.config.clone(), tls.name.clone()).map_err(TransportError::Tls)?;
        self.tls = Some(Box::new(connection));
        Ok(())
    }

    /// Reads what is there, at most `room`. [`Transfer::Bytes`] of less than the room means that there was no more.
    pub(crate) fn receive(&mut self, room: &mut [u8]) -> Result<Transfer, TransportError> {
        let Some(tls) = &mut self.tls else { return socket::receive(&self.socket, room).map_err(TransportError::Io) };
        let mut bytes = 0;
        for _ in 0..RECORD_READS_MAX {
            match tls.reader().read(&mut room[bytes..]) {
                Ok(0) => return Ok(if bytes == 0 { Transfer::Closed } else { Transfer::Bytes(bytes) }),
                Ok(more) => bytes += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Whoever ends without saying so in TLS may have been cut off: the same for us, who count answers.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && bytes == 0 => {
                    return Ok(Transfer::Closed);
                }
                Err(_) => return Ok(Transfer::Bytes(bytes)),
            }
            if bytes == room.len() {
                return Ok(Transfer::Bytes(bytes));
            }
            match tls.read_tls(&mut Plain(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if bytes > 0 => break,
                Err(error) => return Err(TransportError::Io(errno(&error))),
            }
            if let Err(error) = tls.process_new_packets() {
                // The other side may want to know why; if it cannot be told, so be it.
                let _ = tls.write_tls(&mut Plain(&self.socket));
                return Err(TransportError::Tls(error));
            }
        }
        Ok(if bytes == 0 { Transfer::Blocked } else { Transfer::Bytes(bytes) })
    }

    /// Writes what can be written of `bytes`. With TLS, bytes that are taken may still wait: see
    /// [`Transport::flush`].
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<Transfer, TransportError> {
        let Some(tls) = &mut self.tls else { return socket::send(&self.socket, bytes).map_err(TransportError::Io) };
        // Bounded by rustls: it takes no more than 64 KiB that are not written.
        let taken = tls.writer().write(bytes).map_err(|error| TransportError::Io(errno(&error)))?;
        self.flush()?;
        Ok(if taken == 0 { Transfer::Blocked } else { Transfer::Bytes(taken) })
    }

    /// Writes what waits in TLS. Returns whether all of it went.
    pub(crate) fn flush(&mut self) -> Result<bool, TransportError> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        while tls.wants_write() {
            match tls.write_tls(&mut Plain(&self.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(TransportError::Io(errno(&error))),
            }
        }
        Ok(true)
    }

    /// Whether something waits to be written.
    pub(crate) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Says in TLS that nothing follows, as far as the socket takes it.
    pub(crate) fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        // The socket is closed next, whatever comes of it.
        let _ = self.flush();
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The socket as rustls wants it.
struct Plain<'a>(&'a OwnedFd);

fn result(transfer: Result<Transfer, Errno>) -> io::Result<usize> {
    match transfer {
        Ok(Transfer::Bytes(bytes)) => Ok(bytes),
        Ok(Transfer::Closed) => Ok(0),
        Ok(Transfer::Blocked) => Err(io::ErrorKind::WouldBlock.into()),
        Err(errno) => Err(errno.into()),
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        result(socket::receive(self.0, room))
    }
}

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        result(socket::send(self.0, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
