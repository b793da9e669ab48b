//! The system calls of a link, all of them non-blocking.
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::net::SocketAddr;

/// What a read or a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing can be done before the socket is ready again.
    Blocked,
    /// The other side closed; only of a read.
    Closed,
}

/// Begins to connect. The socket is writable when that is over; [`connected`] then tells how it went.
pub(crate) fn connect(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Small commands must not wait for the acknowledgement of earlier ones. Without it they would, nothing worse.
    let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
    match rustix::net::connect(&socket, &address) {
        // An interrupted connect goes on by itself.
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// How a connect that is over went.
pub(crate) fn connected(socket: impl AsFd) -> Result<(), Errno> {
    rustix::net::sockopt::socket_error(socket)?
}

/// Reads once.
pub(crate) fn receive(socket: impl AsFd, room: &mut [u8]) -> Result<Transfer, Errno> {
    transfer(rustix::net::recv(socket, room, RecvFlags::empty()).map(|(_, bytes)| bytes))
}

/// Looks whether the connection still stands, without taking a byte.
pub(crate) fn peek(socket: impl AsFd) -> Result<Transfer, Errno> {
    transfer(rustix::net::recv(socket, &mut [0_u8; 1], RecvFlags::PEEK).map(|(_, bytes)| bytes))
}

/// Writes once.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> Result<Transfer, Errno> {
    transfer(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL))
}

fn transfer(result: Result<usize, Errno>) -> Result<Transfer, Errno> {
    match result {
        Ok(0) => Ok(Transfer::Closed),
        Ok(bytes) => Ok(Transfer::Bytes(bytes)),
        // The caller comes again, as it does for a socket that is not ready.
        Err(Errno::AGAIN | Errno::INTR) => Ok(Transfer::Blocked),
        Err(error) => Err(error),
    }
}
