//! Names and ids, checked once where they enter and trusted from then on.
use crate::limits;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The tenant everybody belongs to while tenancy is off, and who names none while it is on.
pub const DEFAULT_TENANT: &str = "default";

/// A tenant's name. Cheap to clone; the shards' tables hold an index instead.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// The tenant `default`.
    pub fn default_tenant() -> TenantId {
        TenantId(Arc::from(DEFAULT_TENANT))
    }

    /// Checks a caller's text: blanks around it are trimmed, then 1..=64 bytes of letters, digits, `-`, `_`, `.`
    /// (contract §0.3, C-8: never `:`).
    pub fn parse(text: &str) -> Option<TenantId> {
        let text = text.trim();
        is_name(text, limits::TENANT_ID_BYTES_MAX).then(|| TenantId(Arc::from(text)))
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the tenant `default`.
    pub fn is_default(&self) -> bool {
        &*self.0 == DEFAULT_TENANT
    }
}

impl From<&TenantId> for TenantId {
    fn from(tenant: &TenantId) -> TenantId {
        tenant.clone()
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a client may subscribe to a channel of this name: 1..=64 bytes of Unicode letters and digits, `-`, `_`,
/// `.` (contract §3.6).
pub fn is_channel_name(name: &str) -> bool {
    is_name(name, limits::CHANNEL_NAME_BYTES_MAX)
}

/// Whether a user id fits every backend: the seed's columns hold 255 characters, and PostgreSQL's text no character 0.
/// The empty id is accepted, as in the original.
pub fn is_user_id(id: &str) -> bool {
    let fits = id.len() <= limits::USER_ID_CHARS_MAX || id.chars().count() <= limits::USER_ID_CHARS_MAX;
    fits && !id.contains('\0')
}

/// Whether a node may be called this: 1..=128 bytes without `:`, white space and control characters. The colon is what
/// keeps a node's topic apart from those of users and channels.
pub fn is_server_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= limits::SERVER_ID_BYTES_MAX
        && !id.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control())
}

fn is_name(text: &str, bytes_max: usize) -> bool {
    !text.is_empty()
        && text.len() <= bytes_max
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A notification's id: UUIDv7, so ids sort by the time they were given (C-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NotificationId(pub Uuid);

/// A connection's public id, also UUIDv7: what `connected` tells an SSE client and cluster sessions are named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub Uuid);

/// UUIDv7 from a wall-clock millisecond and 80 random bits; the version and variant bits are set here.
pub fn uuid_v7(unix_ms: u64, random: [u8; 10]) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid()
}

impl NotificationId {
    /// The id in batch results of items that were never sent (contract §1.8).
    pub const NIL: NotificationId = NotificationId(Uuid::nil());

    /// Appends the lower-case hyphenated form.
    pub fn write(self, out: &mut Vec<u8>) {
        write_uuid(out, self.0);
    }
}

impl ConnectionId {
    /// Appends the lower-case hyphenated form.
    pub fn write(self, out: &mut Vec<u8>) {
        write_uuid(out, self.0);
    }
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn write_uuid(out: &mut Vec<u8>, uuid: Uuid) {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(uuid.hyphenated().encode_lower(&mut text).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_names_are_counted_in_bytes_and_may_be_of_any_script() {
        let rows = [
            ("orders", true),
            ("v1.events_a-b", true),
            ("订单", true),
            ("", false),
            ("a b", false),
            ("acme:orders", false),
            ("a/b", false),
        ];
        for (name, fits) in rows {
            assert_eq!(is_channel_name(name), fits, "{name:?}");
        }
        assert!(is_channel_name(&"x".repeat(64)));
        assert!(!is_channel_name(&"x".repeat(65)));
        assert!(!is_channel_name(&"订".repeat(22)), "66 bytes though 22 characters");
    }

    #[test]
    fn tenants_are_trimmed_and_checked() {
        assert_eq!(TenantId::parse(" acme ").unwrap().as_str(), "acme");
        assert_eq!(TenantId::parse("a:b"), None);
        assert_eq!(TenantId::parse("  "), None);
        assert!(TenantId::parse("default").unwrap().is_default());
    }

    #[test]
    fn ids_are_version_7_and_sort_by_time() {
        let (early, late) = (uuid_v7(1_000, [0xff; 10]), uuid_v7(1_001, [0; 10]));
        assert_eq!(early.get_version_num(), 7);
        assert!(early < late);
        let mut text = Vec::new();
        NotificationId(late).write(&mut text);
        assert_eq!(text, late.to_string().as_bytes());
    }

    #[test]
    fn server_ids_are_one_word_without_a_colon() {
        for id in ["notification-1", "ara-0f", "n2.example_org", "節點", "{n}", "user"] {
            assert!(is_server_id(id), "{id:?}");
        }
        for id in ["", "n:1", "user:default:u1", "n 1", "n\n", "n\u{7f}", "n\u{a0}"] {
            assert!(!is_server_id(id), "{id:?}");
        }
        assert!(is_server_id(&"n".repeat(128)) && !is_server_id(&"n".repeat(129)));
    }

    #[test]
    fn user_ids_are_counted_in_characters() {
        assert!(is_user_id(""));
        assert!(is_user_id(&"订".repeat(255)));
        assert!(!is_user_id(&"x".repeat(256)));
        assert!(is_user_id("a\u{1}b\n") && !is_user_id("a\0b"), "PostgreSQL keeps no character 0");
    }
}
