//! One attempt to reach a server: through all addresses of its name; only when the last one failed it is a failure.
use crate::link::socket;
use crate::link::unreached::Unreached;
use rustix::fd::OwnedFd;
use std::net::SocketAddr;

/// Where an attempt is.
pub(crate) struct Attempt {
    /// The address that is tried.
    pub(crate) address: SocketAddr,
    /// Those not tried, the next one last.
    remaining: Vec<SocketAddr>,
    /// For this address: a fair share of what is left, so that one that swallows packets leaves time for the others.
    pub(crate) address_deadline_us: u64,
    /// For all of them.
    pub(crate) deadline_us: u64,
}

impl Attempt {
    /// Tries the first of `addresses`, and those after it while they fail at once. The socket's connect is under way.
    pub(crate) fn begin(
        now_us: u64,
        deadline_us: u64,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<(OwnedFd, Attempt), Unreached> {
        addresses.reverse();
        connect(now_us, deadline_us, addresses, Unreached::Resolve("the name has no address".to_owned()))
    }

    /// Tries the next address; if there is none, the attempt ends with the trouble of the last one.
    pub(crate) fn next<T: From<Unreached>>(self, now_us: u64, trouble: T) -> Result<(OwnedFd, Attempt), T> {
        connect(now_us, self.deadline_us, self.remaining, trouble)
    }
}

fn connect<T: From<Unreached>>(
    now_us: u64,
    deadline_us: u64,
    mut remaining: Vec<SocketAddr>,
    mut trouble: T,
) -> Result<(OwnedFd, Attempt), T> {
    while let Some(address) = remaining.pop() {
        match socket::connect(address) {
            Err(errno) => trouble = Unreached::Connect { address, errno }.into(),
            Ok(socket) => {
                let share_us = deadline_us.saturating_sub(now_us) / (remaining.len() as u64 + 1);
                let address_deadline_us = now_us.saturating_add(share_us);
                return Ok((socket, Attempt { address, remaining, address_deadline_us, deadline_us }));
            }
        }
    }
    Err(trouble)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn each_address_gets_a_fair_share_of_what_is_left() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect::<Vec<_>>();
        let (_socket, attempt) = Attempt::begin(100, 1_100, addresses.clone()).unwrap();
        assert_eq!((attempt.address, attempt.address_deadline_us), (addresses[0], 600));
        let (_socket, attempt) = attempt.next(600, Unreached::Closed).unwrap();
        assert_eq!((attempt.address, attempt.address_deadline_us), (addresses[1], 1_100));
        assert!(matches!(attempt.next(1_100, Unreached::Closed), Err(Unreached::Closed)));
    }

    #[test]
    fn a_name_without_an_address_is_not_resolved() {
        assert!(matches!(Attempt::begin(0, 1, Vec::new()), Err(Unreached::Resolve(_))));
    }
}
