//! A Lua script that the server keeps and runs by the SHA-1 of its text.
use sha1::{Digest, Sha1};
use std::fmt;
use std::sync::OnceLock;

/// A script of ours: `static`s, so that a command names one by reference. Its SHA-1 is computed at the first use.
pub struct Script {
    name: &'static str,
    body: &'static str,
    sha1: OnceLock<String>,
}

impl Script {
    /// A script under a name for the log.
    pub const fn new(name: &'static str, body: &'static str) -> Script {
        Script { name, body, sha1: OnceLock::new() }
    }

    /// Its name for the log.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its text.
    pub fn body(&self) -> &'static str {
        self.body
    }

    /// The SHA-1 of its text, 40 lower-case hexadecimal digits: how EVALSHA names it. No secret depends on it.
    pub fn sha1(&self) -> &str {
        self.sha1.get_or_init(|| Sha1::digest(self.body).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl PartialEq for Script {
    /// The same text is the same script.
    fn eq(&self, other: &Script) -> bool {
        std::ptr::eq(self, other) || self.body == other.body
    }
}

impl Eq for Script {}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_text_is_its_sha1() {
        // What `SCRIPT LOAD "return 1"` answers.
        assert_eq!(Script::new("one", "return 1").sha1(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(Script::new("none", "").sha1(), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    }
}
