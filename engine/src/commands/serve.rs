//! Without a command: serve.
use super::Failure;
use crate::boot::{self, ServeError, ServeOptions};
use crate::config::{Settings, Sources};
use crate::logging;
use std::net::{TcpListener, ToSocketAddrs};

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
/// half of the connections. A plain bind refuses that.
///
/// # Errors
/// The address is taken, or is none of this machine.
pub fn ensure_free(host: &str, port: u16) -> Result<(), ServeError> {
    let address = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let free = address.to_socket_addrs().and_then(|addresses| TcpListener::bind(&*addresses.collect::<Vec<_>>()));
    match free {
        Ok(_) => Ok(()),
        Err(error) => Err(ServeError::Listen { address, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_of_before_anything_starts() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = ensure_free("127.0.0.1", port).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{error}");
    }

    #[test]
    fn an_address_of_nobody_is_refused() {
        assert!(ensure_free("192.0.2.1", 1).is_err());
    }
}
