//! What an answer tells of a limit: `x-ratelimit-*` (contract §10.1).

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The number of the setting, not the burst.
    pub limit: u32,
    /// What is left.
    pub remaining: u32,
    /// Milliseconds since the Unix epoch: one period after the last request that passed; of a window that nodes share,
    /// its end.
    pub reset_unix_ms: u64,
}

impl Quota {
    /// Appends the three header lines.
    pub fn write(&self, out: &mut Vec<u8>) {
        let numbers = [
            (&b"x-ratelimit-limit: "[..], u64::from(self.limit)),
            (b"x-ratelimit-remaining: ", u64::from(self.remaining)),
            (b"x-ratelimit-reset: ", self.reset_unix_ms),
        ];
        for (name, number) in numbers {
            out.extend_from_slice(name);
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lines() {
        let mut out = Vec::new();
        Quota { limit: 100, remaining: 0, reset_unix_ms: 1_767_323_046_123 }.write(&mut out);
        let expected = "x-ratelimit-limit: 100\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1767323046123\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
