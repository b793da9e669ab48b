//! Randomness from the kernel, for names and secrets made up at start.
use std::fs::File;
use std::io::{self, Read};

/// `N` bytes of `/dev/urandom`.
///
/// # Errors
/// The device is missing or unreadable, as in a container without `/dev`.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// `2 * N` hexadecimal digits.
///
/// # Errors
/// As [`bytes`].
pub fn hex<const N: usize>() -> io::Result<String> {
    Ok(bytes::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The name of a node that was given none: `ara-` and 32 hexadecimal digits (contract §12.3).
///
/// # Errors
/// As [`bytes`].
pub fn server_id() -> io::Result<String> {
    Ok(format!("ara-{}", hex::<16>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_has_the_contracts_form_and_differs_every_time() {
        let (one, other) = (server_id().unwrap(), server_id().unwrap());
        assert_eq!(one.len(), 36);
        assert!(one.strip_prefix("ara-").unwrap().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }
}
