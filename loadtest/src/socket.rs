//! Non-blocking TCP sockets.
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connections from one loopback address to one target. The default range has 28,000 ephemeral ports; the kernel tries every
/// second one first, and once those are taken each search walks through all of them. A run and what the run before left
/// in TIME_WAIT stay below that together.
pub const PORTS_PER_SOURCE: u32 = 5_000;

/// Receive buffer of a client that will not read, in bytes: the less the system keeps for it, the sooner it is slow.
const SLOW_BUFFER_BYTES: usize = 4_096;
/// The same once it reads on: through a narrow one it would take seconds to see its end.
const READ_ON_BUFFER_BYTES: usize = 1_024 * 1_024;

/// Starts a connect. `index`, the client's number among those of the target, spreads many clients over the loopback
/// addresses 127.0.0.1, 127.0.0.2, ... where the target is one, too (of those IPv6 has only one).
pub fn connect(target: SocketAddr, index: u32, is_slow: bool) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if is_slow {
        sockopt::set_socket_recv_buffer_size(&socket, SLOW_BUFFER_BYTES)?;
    }
    let source = index / PORTS_PER_SOURCE;
    if source > 0 && matches!(target.ip(), IpAddr::V4(ip) if ip.is_loopback()) {
        let address = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + source);
        // Not SO_REUSEADDR: for a port of its own choice the kernel would only search half of the range.
        rustix::net::bind(&socket, &SocketAddr::from((address, 0)))?;
    }
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Widens the receive buffer of a slow client that reads on, as far as the system allows.
pub fn widen(socket: &OwnedFd) {
    // Refused, it only reads on more slowly.
    let _ = sockopt::set_socket_recv_buffer_size(socket, READ_ON_BUFFER_BYTES);
}

/// What one read or write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes.
    Bytes(usize),
    /// Nothing can be moved now.
    Later,
    /// The peer closed.
    Ended,
    /// The connection failed.
    Failed(Errno),
}

/// Reads once.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Moved {
    match rustix::net::recv(socket, buffer, RecvFlags::empty()) {
        Ok((0, _)) => Moved::Ended,
        Ok((bytes, _)) => Moved::Bytes(bytes),
        Err(Errno::AGAIN | Errno::INTR) => Moved::Later,
        Err(error) => Moved::Failed(error),
    }
}

/// Writes once.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> Moved {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
        Ok(bytes) => Moved::Bytes(bytes),
        Err(Errno::AGAIN | Errno::INTR) => Moved::Later,
        Err(error) => Moved::Failed(error),
    }
}

/// The outcome of a connect once the socket is writable.
pub fn connected(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(socket)?
}

/// Output that did not leave yet.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Where to append.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether all of it left.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Writes what the socket takes. `Moved::Later` when some is left, `Moved::Bytes(0)` when nothing is.
    pub fn flush(&mut self, socket: &OwnedFd) -> Moved {
        while !self.is_empty() {
            match send(socket, &self.bytes[self.sent..]) {
                Moved::Bytes(bytes) => self.sent += bytes,
                other => return other,
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Moved::Bytes(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn many_clients_come_from_several_loopback_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        for (number, source) in
            [(0, "127.0.0.1"), (PORTS_PER_SOURCE, "127.0.0.2"), (9_999, "127.0.0.2"), (999_999, "127.0.0.200")]
        {
            let socket = connect(target, number, false).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), source);
            assert_eq!(connected(&socket), Ok(()));
        }
    }
}
