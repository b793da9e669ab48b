//! Names to addresses, on a thread of its own: the system's lookup blocks, for seconds when a name server is gone.
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Addresses of one name that are tried; more are left aside.
pub(crate) const ADDRESSES_MAX: usize = 16;

/// Rings whoever turns the feed; called on the lookup's thread.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// At most one lookup at a time: one that hangs is waited for, not joined by a second.
pub(crate) struct Resolver {
    wake: Wake,
    pending: Option<flume::Receiver<io::Result<Vec<SocketAddr>>>>,
}

/// How a lookup stands.
pub(crate) enum Lookup {
    /// Its thread is at it; [`Wake`] rings when it is done.
    Pending,
    /// It is done. The list is not empty.
    Done(io::Result<Vec<SocketAddr>>),
}

impl Resolver {
    pub(crate) fn new(wake: Wake) -> Resolver {
        Resolver { wake, pending: None }
    }

    /// Starts a lookup, or waits on for one that a former attempt left hanging. An address needs no lookup.
    pub(crate) fn start(&mut self, host: &str, port: u16) -> Lookup {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Lookup::Done(Ok(vec![SocketAddr::new(address, port)]));
        }
        // An answer that came in between is as old as the attempt that asked for it.
        if let Some(pending) = &self.pending
            && matches!(pending.try_recv(), Err(flume::TryRecvError::Empty))
        {
            return Lookup::Pending;
        }
        let (answer, pending) = flume::bounded(1);
        let (host, wake) = (host.to_owned(), Arc::clone(&self.wake));
        let thread = std::thread::Builder::new().name("ara-resolver".to_owned()).spawn(move || {
            let addresses = (host.as_str(), port).to_socket_addrs().and_then(collect);
            // Nobody waits any more after a stop: then nobody is to be woken either.
            if answer.send(addresses).is_ok() {
                wake();
            }
        });
        match thread {
            Ok(_detached) => {
                self.pending = Some(pending);
                Lookup::Pending
            }
            Err(error) => Lookup::Done(Err(error)),
        }
    }

    /// Asks for the answer.
    pub(crate) fn poll(&mut self) -> Lookup {
        let Some(pending) = &self.pending else {
            return Lookup::Done(Err(io::Error::other("no lookup was started")));
        };
        let answer = match pending.try_recv() {
            Ok(answer) => answer,
            Err(flume::TryRecvError::Empty) => return Lookup::Pending,
            Err(flume::TryRecvError::Disconnected) => Err(io::Error::other("the lookup's thread ended early")),
        };
        self.pending = None;
        Lookup::Done(answer)
    }

    /// Forgets a lookup; its thread ends by itself and wakes nobody.
    pub(crate) fn stop(&mut self) {
        self.pending = None;
    }
}

/// Each address once, in the system's order.
fn collect(found: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in found {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(io::Error::other("the name has no address")),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_thread() {
        for (host, shown) in [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7")] {
            let mut resolver = Resolver::new(Arc::new(|| panic!("nobody is to be woken")));
            match resolver.start(host, 7) {
                Lookup::Done(Ok(addresses)) => assert_eq!(addresses, [shown.parse::<SocketAddr>().unwrap()]),
                _ => panic!("{host} is an address"),
            }
        }
    }

    #[test]
    fn a_name_is_looked_up_and_rings_when_it_is_done() {
        let (bell, rung) = flume::unbounded();
        let mut resolver = Resolver::new(Arc::new(move || bell.send(()).unwrap()));
        assert!(matches!(resolver.start("localhost", 7), Lookup::Pending));
        rung.recv().unwrap();
        match resolver.poll() {
            Lookup::Done(Ok(addresses)) => assert!(addresses.iter().all(|address| address.ip().is_loopback())),
            _ => panic!("localhost is known everywhere"),
        }
    }

    #[test]
    fn an_address_is_tried_once_and_not_too_many_of_them() {
        let address = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
        let found = (0..100).flat_map(|n| [address(n), address(n)]);
        assert_eq!(collect(found).unwrap(), (0..16).map(address).collect::<Vec<_>>());
        assert!(collect(std::iter::empty()).is_err());
    }
}
