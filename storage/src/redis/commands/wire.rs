//! Where the bytes of a command link go to and come from: the one place that knows what carries them.
//!
//! Today it is a bare TCP socket. A layer of encryption belongs here and nowhere else: the session above asks for room
//! and gives output, the link turns on readiness, and neither sees more of the socket than these calls.
use crate::link::socket::{self, Transfer};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::net::SocketAddr;

/// One connection of a command link, made or being made.
pub(super) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Begins to connect; writable when that is over.
    pub(super) fn connect(address: SocketAddr) -> Result<Wire, Errno> {
        Ok(Wire { socket: socket::connect(address)? })
    }

    /// How the connect went, when it is over.
    pub(super) fn connected(&self) -> Result<(), Errno> {
        socket::connected(&self.socket)
    }

    /// Reads once.
    pub(super) fn receive(&mut self, room: &mut [u8]) -> Result<Transfer, Errno> {
        socket::receive(&self.socket, room)
    }

    /// Writes once.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<Transfer, Errno> {
        socket::send(&self.socket, bytes)
    }

    /// What to watch.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// What to watch, borrowed.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
