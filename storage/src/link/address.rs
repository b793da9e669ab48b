//! The address part of a URL: `host[:port]`.
use std::net::Ipv6Addr;

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressError {
    /// The host is empty.
    NoHost,
    /// The host has characters that no host has, or an address in brackets is none.
    BadHost,
    /// The port is no number from 1 to 65535.
    BadPort,
}

/// Takes `host`, `host:port`, `[v6]` or `[v6]:port` apart; an IPv6 address comes without its brackets.
pub(crate) fn parse(address: &str, port_default: u16) -> Result<(&str, u16), AddressError> {
    let (host, port) = split(address)?;
    let port = match port {
        "" => port_default,
        digits => {
            let port = number(digits).and_then(|number| u16::try_from(number).ok());
            port.filter(|port| *port != 0).ok_or(AddressError::BadPort)?
        }
    };
    Ok((host, port))
}

/// Decimal digits only: `u32::from_str` alone would take a sign.
pub(crate) fn number(digits: &str) -> Option<u32> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The port is empty if there is none.
fn split(address: &str) -> Result<(&str, &str), AddressError> {
    if let Some(bracketed) = address.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').ok_or(AddressError::BadHost)?;
        host.parse::<Ipv6Addr>().map_err(|_| AddressError::BadHost)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, port)),
            None if after.is_empty() => Ok((host, "")),
            None => Err(AddressError::BadHost),
        };
    }
    let (host, port) = address.split_once(':').unwrap_or((address, ""));
    if port.contains(':') {
        return Err(AddressError::BadHost);
    }
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    // The resolver takes any script; what it must not get are blanks, control characters and marks of a broken URL.
    let fits = host.len() <= 253 && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if fits { Ok((host, port)) } else { Err(AddressError::BadHost) }
}
