//! Accepting: one listener per shard on the same address, the kernel spreads the connects (`SO_REUSEPORT`).
use super::poller::{Poller, Token};
use protocol::limits::{LISTEN_BACKLOG, SOCKET_SEND_BUFFER_BYTES};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, acceptfrom_with, bind, getsockname,
    ipproto, listen, recv, send, shutdown, socket_with, sockopt,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// How long a listener rests when the process or the system has run out of descriptors or memory. The connects wait in
/// the backlog meanwhile; asking at once again would only burn the core that could close something.
const PAUSE_US: u64 = 100_000;

/// What a connect hears when the node is full; written to a socket that is closed right after.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json\r\n\
    content-length: 80\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\
    \r\n\
    {\"error\":{\"code\":\"OVERLOADED\",\"message\":\"Too many connections, please retry\"}}\r\n";

/// A bound, listening, non-blocking socket.
#[derive(Debug)]
pub struct ListenerFd(OwnedFd);

impl ListenerFd {
    /// Binds and listens, with room for [`LISTEN_BACKLOG`] connects. Any number of them may share an address; for port
    /// 0 bind one, then the others to its [`ListenerFd::local_address`].
    ///
    /// # Errors
    /// What the system says: the address is taken by a program that does not share it, is not ours, or needs
    /// privileges.
    pub fn bind(address: SocketAddr) -> io::Result<ListenerFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        // Whoever is accepted here has the same, so it costs no connect anything.
        sockopt::set_socket_send_buffer_size(&socket, SOCKET_SEND_BUFFER_BYTES)?;
        bind(&socket, &address)?;
        listen(&socket, LISTEN_BACKLOG)?;
        Ok(ListenerFd(socket))
    }

    /// Where it listens, with the port the system chose.
    ///
    /// # Errors
    /// What the system says; never for a bound socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::try_from(getsockname(&self.0)?)?)
    }
}

/// What came of one attempt to accept.
#[derive(Debug)]
pub(super) enum Accepted {
    /// Somebody is here: non-blocking, without Nagle's delay.
    Socket(OwnedFd, IpAddr),
    /// Nobody waits, or nothing can be accepted before the pause is over.
    Nobody,
    /// Somebody left between connect and accept: try the next.
    Gone,
}

/// A listener in a shard's epoll set.
#[derive(Debug)]
pub(super) struct Listener {
    listener: ListenerFd,
    /// Connects may be waiting.
    ready: bool,
    /// Out of the epoll set until then, on `Now::mono_us`.
    paused_until_us: Option<u64>,
}

impl Listener {
    /// Puts it into the set.
    ///
    /// # Errors
    /// When the kernel has no memory or the user no watches left.
    pub(super) fn new(listener: ListenerFd, poller: &Poller) -> io::Result<Listener> {
        poller.add(&listener.0, Token::Listener, EventFlags::IN)?;
        Ok(Listener { listener, ready: false, paused_until_us: None })
    }

    /// The epoll set says that connects wait.
    pub(super) fn note_ready(&mut self) {
        self.ready = true;
    }

    /// Whether an attempt is worth it; ends a pause that is over.
    pub(super) fn is_ready(&mut self, now_us: u64, poller: &Poller) -> bool {
        if self.paused_until_us.is_some_and(|until_us| until_us <= now_us) {
            match poller.add(&self.listener.0, Token::Listener, EventFlags::IN) {
                Ok(()) => self.paused_until_us = None,
                // No memory for a watch: the system is still in need.
                Err(_) => self.paused_until_us = Some(now_us + PAUSE_US),
            }
        }
        self.ready && self.paused_until_us.is_none()
    }

    /// When a pause ends.
    pub(super) fn wake_at_us(&self) -> Option<u64> {
        self.paused_until_us
    }

    /// Takes one connect.
    pub(super) fn accept(&mut self, now_us: u64, poller: &Poller) -> Accepted {
        match acceptfrom_with(&self.listener.0, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok((socket, peer)) => {
                // A socket that does not take it is slower, not wrong.
                let _ = sockopt::set_tcp_nodelay(&socket, true);
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                // An IPv4 peer of an IPv6 socket is an IPv4 peer, for whoever compares it with a list.
                let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip().to_canonical());
                Accepted::Socket(socket, peer)
            }
            Err(Errno::AGAIN) => {
                self.ready = false;
                Accepted::Nobody
            }
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                self.pause(error, now_us, poller);
                Accepted::Nobody
            }
            // ECONNABORTED and the errors of the network that accept(2) hands on belong to the connect that is lost.
            Err(_) => Accepted::Gone,
        }
    }

    fn pause(&mut self, error: Errno, now_us: u64, poller: &Poller) {
        tracing::warn!(%error, pause_ms = PAUSE_US / 1_000, "cannot accept, the listener rests");
        // Level-triggered, it would keep the shard awake; it is in the set, so this cannot fail.
        let _ = poller.remove(&self.listener.0);
        self.ready = false;
        self.paused_until_us = Some(now_us + PAUSE_US);
    }
}

/// Tells a peer that the node is full, as far as that is possible without waiting, and closes.
pub(super) fn refuse(socket: OwnedFd) {
    // What has arrived is read, because closing over unread bytes resets the connection and the peer would not see the
    // answer. All of it is best effort: a fresh socket has room for 200 bytes.
    let mut request = [0u8; 4096];
    let _ = recv(&socket, &mut request, RecvFlags::DONTWAIT);
    let _ = send(&socket, REFUSAL, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    let _ = shutdown(&socket, Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn listening(address: &str) -> (Listener, Poller, SocketAddr) {
        let poller = Poller::new().unwrap();
        let listener = ListenerFd::bind(address.parse().unwrap()).unwrap();
        let address = listener.local_address().unwrap();
        (Listener::new(listener, &poller).unwrap(), poller, address)
    }

    #[test]
    fn accepts_until_nobody_waits() {
        for (address, peer) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let (mut listener, poller, bound) = listening(address);
            assert!(!listener.is_ready(0, &poller));
            let connect_to = SocketAddr::new(peer.parse().unwrap(), bound.port());
            let _client = TcpStream::connect(connect_to).unwrap();
            let mut events = Vec::new();
            poller.poll(&mut events);
            assert_eq!(events.len(), 1);
            listener.note_ready();
            assert!(listener.is_ready(0, &poller));
            let Accepted::Socket(socket, from) = listener.accept(0, &poller) else { panic!("nobody came") };
            assert_eq!(from, connect_to.ip());
            assert!(sockopt::tcp_nodelay(&socket).unwrap());
            assert!(matches!(listener.accept(0, &poller), Accepted::Nobody));
            assert!(!listener.is_ready(0, &poller));
        }
    }

    #[test]
    fn shards_share_an_address() {
        let first = ListenerFd::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = ListenerFd::bind(first.local_address().unwrap()).unwrap();
        assert_eq!(first.local_address().unwrap(), second.local_address().unwrap());
    }

    #[test]
    fn a_resting_listener_comes_back() {
        let (mut listener, poller, bound) = listening("127.0.0.1:0");
        listener.note_ready();
        listener.pause(Errno::MFILE, 1_000, &poller);
        let _client = TcpStream::connect(bound).unwrap();
        let mut events = Vec::new();
        poller.poll(&mut events);
        assert!(events.is_empty());
        assert_eq!(listener.wake_at_us(), Some(1_000 + PAUSE_US));
        assert!(!listener.is_ready(PAUSE_US, &poller));
        assert!(!listener.is_ready(1_000 + PAUSE_US, &poller), "back in the set, which has not spoken yet");
        poller.poll(&mut events);
        assert_eq!(events.len(), 1);
        listener.note_ready();
        assert!(matches!(listener.accept(0, &poller), Accepted::Socket(..)));
    }

    #[test]
    fn a_refused_peer_reads_a_whole_answer() {
        let (mut listener, poller, bound) = listening("127.0.0.1:0");
        let mut client = TcpStream::connect(bound).unwrap();
        client.write_all(b"GET /ws HTTP/1.1\r\n\r\n").unwrap();
        let Accepted::Socket(socket, _) = listener.accept(0, &poller) else { panic!("nobody came") };
        refuse(socket);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{} in {head}", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["error"]["code"], "OVERLOADED");
    }
}
