//! The API key of publishers (contract §1.3).
use subtle::ConstantTimeEq;

/// Whether a caller's key is the expected one, in a time that tells only whether the lengths agree. An empty expected
/// key is no key, so nothing matches it.
pub fn matches(expected: &[u8], given: &[u8]) -> bool {
    !expected.is_empty() && bool::from(expected.ct_eq(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_matches() {
        assert!(matches(b"0123456789012345", b"0123456789012345"));
        for given in [&b""[..], b"0123456789012344", b"012345678901234", b"01234567890123456", b"123456789012345"] {
            assert!(!matches(b"0123456789012345", given));
        }
        assert!(!matches(b"", b""), "an empty key is unset, not a password of nothing");
    }
}
