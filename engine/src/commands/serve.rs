//! Without a command: serve.
use super::Failure;
use crate::boot::{self, ServeError, ServeOptions};
use crate::config::{Settings, Sources};
use crate::logging;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Loads the settings, starts logging, serves.
///
/// # Errors
/// The settings are not usable, or the node could not start.
pub fn run(sources: &Sources) -> Result<(), Failure> {
    let loaded = Settings::load(sources).map_err(|problems| Failure::of_configuration(&problems))?;
    logging::start(&loaded.settings.log).map_err(Failure::new)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    ensure_free(&loaded.settings.server.host, loaded.settings.server.port).map_err(Failure::new)?;
    boot::serve(loaded.settings, ServeOptions::default()).map_err(Failure::new)
}

/// Sees to it that nobody listens there yet.
///
/// Shards share their port (`SO_REUSEPORT`), and so a second service started by mistake would share it, too, and take
/// half of the connections. A bind that does not share is refused where somebody listens.
///
/// # Errors
/// The address is taken, or is none of this machine.
pub fn ensure_free(host: &str, port: u16) -> Result<(), ServeError> {
    let address = boot::resolve(host, port)?;
    match bind_alone(address) {
        Ok(_) => Ok(()),
        Err(error) => Err(ServeError::Listen { address: address.to_string(), error }),
    }
}

/// A socket that is bound and does not listen: whoever connects while it is there is refused and may try again, while a
/// listener would take the connect and cut it off when it goes.
fn bind_alone(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::TCP))?;
    // Connections of the run before, which the kernel keeps for a minute, do not make the address taken.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_taken_port_is_told_of_before_anything_starts() {
        for host in ["127.0.0.1", "::1", "[::1]"] {
            let taken = TcpListener::bind((host.trim_matches(['[', ']']), 0)).unwrap();
            let address = taken.local_addr().unwrap();
            let error = ensure_free(host, address.port()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
            drop(taken);
            ensure_free(host, address.port()).unwrap();
        }
    }

    #[test]
    fn the_shards_own_way_to_share_a_port_does_not_pass() {
        let taken = shards::reactor::ListenerFd::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = taken.local_address().unwrap().port();
        assert!(ensure_free("127.0.0.1", port).is_err());
        assert!(ensure_free("0.0.0.0", port).is_err());
    }

    #[test]
    fn nobody_is_let_in_while_the_address_is_tried() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = bind_alone(address.parse().unwrap()).unwrap();
            let bound = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
            let error = TcpStream::connect(bound).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{bound}");
        }
    }

    #[test]
    fn an_address_of_nobody_is_refused() {
        assert!(ensure_free("192.0.2.1", 1).is_err());
    }
}
