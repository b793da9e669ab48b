//! Which message of Redis this is, so that many nodes that read it keep it once.
use crate::clock::Now;
use crate::limits;
use sha2::{Digest, Sha256};
use std::fmt;
use std::hash::{Hash, Hasher};

/// Names one repetition of one message of Redis: every node that reads the message makes the same claim of it, and the
/// store takes a claim once.
///
/// The hash is the first half of a SHA-256 over the length of the Redis channel (eight bytes, little-endian), the
/// channel and the payload: the same on every machine and in every build. Two of n different messages share it with a
/// probability of n² / 2¹²⁹ (for 10¹² messages 10⁻¹⁵); then the second would pass for kept already. Whoever makes a
/// collision on purpose, at 2⁶⁴ steps, has made both messages, and loses one of his own.
///
/// A node counts equal messages as long as it remembers them, so one that has just begun, or heard too much else meanwhile,
/// counts from 0 again. That is why it also says since when at most the message is there: what was claimed before was
/// another message, whatever its number.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Of the Redis channel and the payload.
    pub hash: u128,
    /// Which of equal messages, from 0.
    pub nth: u32,
    /// The message was published after this moment of this process's monotonic clock, in microseconds; 0 when nothing is
    /// known. Each node has its own: it is not on the wire, and claims are equal without it.
    pub after_us: u64,
    /// Since when this process has read without a break what is published to Redis, on the same clock; 0 means ever since.
    /// Not on the wire either.
    pub reads_since_us: u64,
}

impl PartialEq for Claim {
    fn eq(&self, other: &Claim) -> bool {
        (self.hash, self.nth) == (other.hash, other.nth)
    }
}

impl Eq for Claim {}

impl Hash for Claim {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.hash, self.nth).hash(state);
    }
}

impl Claim {
    /// That of the `nth` message with this hash, of which it is not known since when it is there.
    pub fn new(hash: u128, nth: u32) -> Claim {
        Claim { hash, nth, after_us: 0, reads_since_us: 0 }
    }

    /// How old the message is at most, in milliseconds, and not more than `most_ms`, which is said when nothing is known.
    pub fn age_ms(&self, now: Now, most_ms: u64) -> u64 {
        match self.after_us {
            0 => most_ms,
            after_us => {
                (now.mono_us.saturating_sub(after_us).div_ceil(1_000) + limits::CLAIM_AGE_MARGIN_MS).min(most_ms)
            }
        }
    }

    /// That of the `nth` message with this payload on this Redis channel.
    pub fn of(channel: &[u8], payload: &[u8], nth: u32) -> Claim {
        let digest = Sha256::new()
            .chain_update((channel.len() as u64).to_le_bytes())
            .chain_update(channel)
            .chain_update(payload)
            .finalize();
        Claim::new(digest.iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte)), nth)
    }

    /// Reads what [`fmt::Display`] writes, and nothing else.
    pub fn parse(text: &str) -> Option<Claim> {
        let (hash, nth) = text.split_once('-')?;
        let claim = Claim::new(u128::from_str_radix(hash, 16).ok()?, nth.parse().ok()?);
        (claim.to_string() == text).then_some(claim)
    }
}

/// The hash in 32 hexadecimal digits, `-`, and which of equal messages.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{}", self.hash, self.nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_the_same_for_ever() {
        // printf '\2\0\0\0\0\0\0\0c1{}' | sha256sum
        assert_eq!(Claim::of(b"c1", b"{}", 7).to_string(), "4da37882c577f191f52e11f15e44bf43-7");
    }

    #[test]
    fn channel_payload_and_repetition_tell_claims_apart() {
        let claims = [
            Claim::of(b"ab", b"c", 0),
            Claim::of(b"a", b"bc", 0),
            Claim::of(b"", b"abc", 0),
            Claim::of(b"abc", b"", 0),
            Claim::of(b"abc", b"", 1),
        ];
        for (at, claim) in claims.iter().enumerate() {
            assert!(!claims[..at].contains(claim));
            assert_eq!(Claim::parse(&claim.to_string()), Some(*claim));
        }
    }

    #[test]
    fn a_message_is_as_old_as_can_be_and_never_older_than_is_asked_for() {
        let now = Now { mono_us: 5_000_000, unix_ns: 0 };
        let margin_ms = limits::CLAIM_AGE_MARGIN_MS;
        for (after_us, most_ms, age_ms) in [
            (4_999_999, 60_000, 1 + margin_ms),
            (4_000_000, 60_000, 1_000 + margin_ms),
            (6_000_000, 60_000, margin_ms),
            (4_000_000, 1_500, 1_500),
            (0, 60_000, 60_000),
        ] {
            assert_eq!(Claim { after_us, ..Claim::new(1, 1) }.age_ms(now, most_ms), age_ms, "{after_us}");
        }
    }

    #[test]
    fn only_its_own_spelling_is_a_claim() {
        let zeros = "0".repeat(32);
        let rows =
            ["", "-", "0-0", &zeros, &format!("{zeros}-"), &format!("{zeros}-00"), &format!("{zeros}-4294967296")];
        for text in rows {
            assert_eq!(Claim::parse(text), None, "{text}");
        }
        assert_eq!(Claim::parse(&format!("{}-0", "A".repeat(32))), None);
        assert_eq!(Claim::parse(&format!("+{}-0", "0".repeat(31))), None);
        assert_eq!(Claim::parse(&format!("{zeros}-4294967295")), Some(Claim::new(0, u32::MAX)));
    }
}
