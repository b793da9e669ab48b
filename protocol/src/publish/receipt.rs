//! What publishers get back, byte for byte (contract §1.7, §1.8).
use crate::clock;
use crate::ids::{ConnectionId, NotificationId};
use crate::json;
use std::ops::{Add, AddAssign};
use uuid::Uuid;

/// What became of one publish.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Connections whose outbox took it, in the whole cluster.
    pub delivered_to: u64,
    /// Connections that refused it.
    pub failed: u64,
    /// Mailboxes that stored it.
    pub queued: u64,
    /// Mailboxes that should have stored it and could not. Not told in numbers: when nobody got it, the answer is 503.
    pub unkept: u64,
}

impl Receipt {
    /// Whether at least one connection took it or at least one mailbox stored it (C-4).
    pub fn is_success(self) -> bool {
        self.delivered_to > 0 || self.queued > 0
    }
}

impl Add for Receipt {
    type Output = Receipt;

    fn add(self, other: Receipt) -> Receipt {
        Receipt {
            delivered_to: self.delivered_to.saturating_add(other.delivered_to),
            failed: self.failed.saturating_add(other.failed),
            queued: self.queued.saturating_add(other.queued),
            unkept: self.unkept.saturating_add(other.unkept),
        }
    }
}

impl AddAssign for Receipt {
    fn add_assign(&mut self, other: Receipt) {
        *self = *self + other;
    }
}

/// The answer to a single send.
pub fn write_receipt(out: &mut Vec<u8>, id: NotificationId, receipt: Receipt, unix_ns: u64) {
    write_cluster_receipt(out, id, receipt, None, unix_ns);
}

/// The answer to a single send in cluster mode, where `delivered_local` counts the connections of this node (C-4).
pub fn write_cluster_receipt(
    out: &mut Vec<u8>,
    id: NotificationId,
    receipt: Receipt,
    delivered_local: Option<u64>,
    unix_ns: u64,
) {
    out.extend_from_slice(br#"{"success":"#);
    json::write_value(out, &receipt.is_success());
    out.extend_from_slice(br#","notification_id":""#);
    id.write(out);
    out.push(b'"');
    write_number(out, "delivered_to", receipt.delivered_to);
    write_number(out, "failed", receipt.failed);
    write_number(out, "queued", receipt.queued);
    if let Some(delivered_local) = delivered_local {
        write_number(out, "delivered_local", delivered_local);
    }
    write_timestamp_and_end(out, unix_ns);
}

/// What became of one item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// It was sent, whether or not somebody got it.
    Sent {
        /// Given at acceptance.
        id: NotificationId,
        /// Who got it.
        receipt: Receipt,
        /// In a cluster, connections of this node among those that did (C-4).
        delivered_local: Option<u64>,
    },
    /// An earlier twin was sent in its place.
    Skipped,
    /// An earlier item failed under `stop_on_error`.
    StoppedEarly,
    /// It could not be sent; the text of its `error` as it stands, `Validation error: ` included where it is due.
    Failed(String),
}

impl ItemOutcome {
    fn is_success(&self) -> bool {
        match self {
            ItemOutcome::Sent { receipt, .. } => receipt.is_success(),
            ItemOutcome::Skipped => true,
            ItemOutcome::StoppedEarly | ItemOutcome::Failed(_) => false,
        }
    }

    fn is_skipped(&self) -> bool {
        matches!(self, ItemOutcome::Skipped | ItemOutcome::StoppedEarly)
    }

    fn error(&self) -> Option<&str> {
        match self {
            ItemOutcome::Failed(error) => Some(error),
            ItemOutcome::StoppedEarly => Some("Skipped due to stop_on_error"),
            ItemOutcome::Sent { .. } | ItemOutcome::Skipped => None,
        }
    }

    fn sent(&self) -> (NotificationId, Receipt) {
        match self {
            ItemOutcome::Sent { id, receipt, .. } => (*id, *receipt),
            _ => (NotificationId::NIL, Receipt::default()),
        }
    }
}

/// The answer to a batch of `total` items. `outcomes` are those of the first items and may be fewer, for a batch that
/// stops at a template error says nothing of the rest.
pub fn write_batch(out: &mut Vec<u8>, batch_id: Uuid, outcomes: &[ItemOutcome], total: usize, unix_ns: u64) {
    out.extend_from_slice(br#"{"batch_id":""#);
    out.extend_from_slice(batch_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    out.extend_from_slice(br#"","results":["#);
    let (mut succeeded, mut failed, mut skipped) = (0_u64, 0_u64, 0_u64);
    let mut sum = Receipt::default();
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_item(out, index, outcome);
        match (outcome.is_skipped(), outcome.is_success()) {
            (true, _) => skipped += 1,
            (false, true) => succeeded += 1,
            (false, false) => failed += 1,
        }
        sum += outcome.sent().1;
    }
    out.extend_from_slice(br#"],"summary":{"total":"#);
    json::write_value(out, &total);
    write_number(out, "succeeded", succeeded);
    write_number(out, "failed", failed);
    write_number(out, "skipped", skipped);
    write_number(out, "total_delivered", sum.delivered_to);
    out.push(b'}');
    write_timestamp_and_end(out, unix_ns);
}

fn write_item(out: &mut Vec<u8>, index: usize, outcome: &ItemOutcome) {
    let (id, receipt) = outcome.sent();
    out.extend_from_slice(br#"{"index":"#);
    json::write_value(out, &index);
    out.extend_from_slice(br#","notification_id":""#);
    id.write(out);
    out.push(b'"');
    write_number(out, "delivered_to", receipt.delivered_to);
    write_number(out, "failed", receipt.failed);
    if receipt.queued > 0 {
        write_number(out, "queued", receipt.queued);
    }
    if let ItemOutcome::Sent { delivered_local: Some(delivered_local), .. } = outcome {
        write_number(out, "delivered_local", *delivered_local);
    }
    out.extend_from_slice(br#","success":"#);
    json::write_value(out, &outcome.is_success());
    if let Some(error) = outcome.error() {
        out.extend_from_slice(br#","error":"#);
        json::write_string(out, error);
    }
    if outcome.is_skipped() {
        out.extend_from_slice(br#","skipped":true"#);
    }
    out.push(b'}');
}

/// `GET /channels`: names with their subscribing connections.
pub fn write_channels(out: &mut Vec<u8>, rows: &[(&str, u64)]) {
    out.extend_from_slice(br#"{"channels":"#);
    write_list(out, rows, |out, (name, count)| write_channel(out, name, *count));
    write_number(out, "total_channels", rows.len() as u64);
    out.push(b'}');
}

/// `GET /channels/{name}`.
pub fn write_channel(out: &mut Vec<u8>, name: &str, count: u64) {
    out.extend_from_slice(br#"{"name":"#);
    json::write_string(out, name);
    write_number(out, "subscriber_count", count);
    out.push(b'}');
}

/// `GET /users/{user_id}/subscriptions`: the union over the user's connections.
pub fn write_user_subscriptions(out: &mut Vec<u8>, user: &str, connections: u64, subscriptions: &[&str]) {
    out.extend_from_slice(br#"{"user_id":"#);
    json::write_string(out, user);
    write_number(out, "connection_count", connections);
    out.extend_from_slice(br#","subscriptions":"#);
    json::write_value(out, subscriptions);
    out.push(b'}');
}

/// A session of a user somewhere in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// The connection's public id.
    pub connection_id: ConnectionId,
    /// The node it is on.
    pub server_id: Box<str>,
    /// Seconds since the Unix epoch.
    pub connected_at_unix_s: u64,
    /// Its subscriptions, bare names.
    pub channels: Vec<Box<str>>,
}

/// `GET /cluster/users/{user_id}`.
pub fn write_cluster_user(out: &mut Vec<u8>, user: &str, sessions: &[SessionRow]) {
    out.extend_from_slice(br#"{"user_id":"#);
    json::write_string(out, user);
    out.extend_from_slice(br#","found":"#);
    json::write_value(out, &!sessions.is_empty());
    out.extend_from_slice(br#","sessions":"#);
    write_list(out, sessions, |out, session| {
        out.extend_from_slice(br#"{"connection_id":""#);
        session.connection_id.write(out);
        out.extend_from_slice(br#"","server_id":"#);
        json::write_string(out, &session.server_id);
        write_number(out, "connected_at", session.connected_at_unix_s);
        out.extend_from_slice(br#","channels":"#);
        json::write_value(out, &session.channels);
        out.push(b'}');
    });
    out.push(b'}');
}

/// The four counters of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantStats {
    /// Connections now.
    pub active_connections: u64,
    /// Connections ever.
    pub total_connections: u64,
    /// Notifications accepted.
    pub messages_sent: u64,
    /// Deliveries to connections.
    pub messages_delivered: u64,
}

/// `GET /tenants`. In a cluster `covers` names the node whose figures these are.
pub fn write_tenants(out: &mut Vec<u8>, enabled: bool, rows: &[(&str, TenantStats)], covers: Option<&str>) {
    out.extend_from_slice(br#"{"enabled":"#);
    json::write_value(out, &enabled);
    out.extend_from_slice(br#","tenants":"#);
    write_list(out, rows, |out, (id, stats)| {
        write_tenant_start(out, id, *stats);
        out.push(b'}');
    });
    write_number(out, "total", rows.len() as u64);
    write_covered(out, covers);
    out.push(b'}');
}

/// `GET /tenants/{tenant_id}`: distinct `users` now; `covers` as in [`write_tenants`].
pub fn write_tenant(out: &mut Vec<u8>, id: &str, stats: TenantStats, users: u64, covers: Option<&str>) {
    write_tenant_start(out, id, stats);
    out.extend_from_slice(br#","connection_stats":{"total_connections":"#);
    json::write_value(out, &stats.active_connections);
    write_number(out, "unique_users", users);
    out.push(b'}');
    write_covered(out, covers);
    out.push(b'}');
}

fn write_covered(out: &mut Vec<u8>, covers: Option<&str>) {
    if let Some(server_id) = covers {
        out.extend_from_slice(br#","scope":"node","server_id":"#);
        json::write_string(out, server_id);
    }
}

/// `GET /cluster/status` while tenants are kept apart: the caller's own figures on this node. Those of all tenants are
/// nobody's to see here, and those of other nodes are not known by tenant.
pub fn write_tenant_status(
    out: &mut Vec<u8>,
    id: &str,
    server_id: &str,
    is_clustered: bool,
    connections: u64,
    users: u64,
) {
    out.extend_from_slice(br#"{"enabled":"#);
    json::write_value(out, &is_clustered);
    out.extend_from_slice(br#","mode":"#);
    json::write_string(out, if is_clustered { "distributed" } else { "standalone" });
    out.extend_from_slice(br#","server_id":"#);
    json::write_string(out, server_id);
    out.extend_from_slice(br#","tenant_id":"#);
    json::write_string(out, id);
    write_number(out, "local_connections", connections);
    write_number(out, "local_users", users);
    out.push(b'}');
}

fn write_tenant_start(out: &mut Vec<u8>, id: &str, stats: TenantStats) {
    out.extend_from_slice(br#"{"tenant_id":"#);
    json::write_string(out, id);
    out.extend_from_slice(br#","stats":{"active_connections":"#);
    json::write_value(out, &stats.active_connections);
    write_number(out, "total_connections", stats.total_connections);
    write_number(out, "messages_sent", stats.messages_sent);
    write_number(out, "messages_delivered", stats.messages_delivered);
    out.push(b'}');
}

fn write_list<T>(out: &mut Vec<u8>, rows: &[T], write_row: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_row(out, row);
    }
    out.push(b']');
}

/// Appends `,"name":number`; `name` is one of ours and needs no escape.
fn write_number(out: &mut Vec<u8>, name: &str, number: u64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_timestamp_and_end(out: &mut Vec<u8>, unix_ns: u64) {
    out.extend_from_slice(br#","timestamp":""#);
    clock::write_rfc3339(out, unix_ns);
    out.extend_from_slice(br#""}"#);
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_NS: u64 = 1_767_323_045_123_456_789;
    const ID: NotificationId = NotificationId(Uuid::from_u128(0x6f96_19ff_8b86_4d01_b42d_00cf_4fc9_64ff));

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn receipts_have_the_bytes_of_the_contract() {
        let receipt = Receipt { delivered_to: 2, ..Receipt::default() };
        assert_eq!(
            written(|out| write_receipt(out, ID, receipt, AT_NS)),
            concat!(
                r#"{"success":true,"notification_id":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","delivered_to":2,"#,
                r#""failed":0,"queued":0,"timestamp":"2026-01-02T03:04:05.123456789Z"}"#
            )
        );
        let nobody = Receipt { failed: 3, ..Receipt::default() };
        assert!(written(|out| write_receipt(out, ID, nobody, AT_NS)).starts_with(r#"{"success":false,"#));
        let stored = nobody + Receipt { queued: 1, ..Receipt::default() };
        let text = written(|out| write_cluster_receipt(out, ID, stored, Some(0), AT_NS));
        assert!(text.starts_with(r#"{"success":true,"#), "{text}");
        assert!(text.contains(r#""delivered_to":0,"failed":3,"queued":1,"delivered_local":0,"timestamp""#), "{text}");
    }

    #[test]
    fn a_batch_is_answered_item_by_item() {
        let sent = |delivered_to, queued| ItemOutcome::Sent {
            id: ID,
            receipt: Receipt { delivered_to, queued, ..Receipt::default() },
            delivered_local: None,
        };
        let outcomes =
            [sent(1, 0), ItemOutcome::Skipped, ItemOutcome::Failed("Validation error: Template not found: x".into())];
        assert_eq!(
            written(|out| write_batch(out, Uuid::nil(), &outcomes, 3, AT_NS)),
            concat!(
                r#"{"batch_id":"00000000-0000-0000-0000-000000000000","#,
                r#""results":[{"index":0,"notification_id":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","delivered_to":1,"failed":0,"success":true},"#,
                r#"{"index":1,"notification_id":"00000000-0000-0000-0000-000000000000","delivered_to":0,"failed":0,"success":true,"skipped":true},"#,
                r#"{"index":2,"notification_id":"00000000-0000-0000-0000-000000000000","delivered_to":0,"failed":0,"success":false,"error":"Validation error: Template not found: x"}],"#,
                r#""summary":{"total":3,"succeeded":1,"failed":1,"skipped":1,"total_delivered":1},"#,
                r#""timestamp":"2026-01-02T03:04:05.123456789Z"}"#
            )
        );
        let receipt = Receipt { delivered_to: 3, ..Receipt::default() };
        let text = written(|out| {
            let outcomes = [ItemOutcome::Sent { id: ID, receipt, delivered_local: Some(1) }, ItemOutcome::Skipped];
            write_batch(out, Uuid::nil(), &outcomes, 2, AT_NS);
        });
        assert!(text.contains(r#""delivered_to":3,"failed":0,"delivered_local":1,"success":true},"#), "{text}");
        assert_eq!(text.matches("delivered_local").count(), 1, "{text}");
        let outcomes = [sent(0, 2), sent(0, 0), ItemOutcome::StoppedEarly];
        let text = written(|out| write_batch(out, Uuid::nil(), &outcomes, 5, AT_NS));
        assert!(text.contains(r#""delivered_to":0,"failed":0,"queued":2,"success":true}"#), "{text}");
        assert!(text.contains(r#""delivered_to":0,"failed":0,"success":false},"#), "{text}");
        assert!(text.contains(r#""success":false,"error":"Skipped due to stop_on_error","skipped":true}"#), "{text}");
        let summary = r#""summary":{"total":5,"succeeded":1,"failed":1,"skipped":1,"total_delivered":0}"#;
        assert!(text.contains(summary), "{text}");
    }

    #[test]
    fn lists_have_the_shapes_of_the_contract() {
        let stats =
            TenantStats { active_connections: 2, total_connections: 5, messages_sent: 9, messages_delivered: 14 };
        let counters =
            r#""stats":{"active_connections":2,"total_connections":5,"messages_sent":9,"messages_delivered":14}"#;
        let session = SessionRow {
            connection_id: ConnectionId(Uuid::nil()),
            server_id: "n2".into(),
            connected_at_unix_s: 1_767_323_045,
            channels: vec!["orders".into()],
        };
        let rows = [
            (
                written(|out| write_channels(out, &[("orders", 2), ("a\"b", 1)])),
                r#"{"channels":[{"name":"orders","subscriber_count":2},{"name":"a\"b","subscriber_count":1}],"total_channels":2}"#.to_owned(),
            ),
            (written(|out| write_channels(out, &[])), r#"{"channels":[],"total_channels":0}"#.to_owned()),
            (
                written(|out| write_user_subscriptions(out, "u1", 1, &["orders"])),
                r#"{"user_id":"u1","connection_count":1,"subscriptions":["orders"]}"#.to_owned(),
            ),
            (
                written(|out| write_cluster_user(out, "u1", std::slice::from_ref(&session))),
                r#"{"user_id":"u1","found":true,"sessions":[{"connection_id":"00000000-0000-0000-0000-000000000000","server_id":"n2","connected_at":1767323045,"channels":["orders"]}]}"#.to_owned(),
            ),
            (
                written(|out| write_cluster_user(out, "u1", &[])),
                r#"{"user_id":"u1","found":false,"sessions":[]}"#.to_owned(),
            ),
            (
                written(|out| write_tenants(out, true, &[("acme", stats)], None)),
                format!(r#"{{"enabled":true,"tenants":[{{"tenant_id":"acme",{counters}}}],"total":1}}"#),
            ),
            (
                written(|out| write_tenant(out, "acme", stats, 2, None)),
                format!(r#"{{"tenant_id":"acme",{counters},"connection_stats":{{"total_connections":2,"unique_users":2}}}}"#),
            ),
            (
                written(|out| write_tenants(out, true, &[], Some("n2"))),
                r#"{"enabled":true,"tenants":[],"total":0,"scope":"node","server_id":"n2"}"#.to_owned(),
            ),
            (
                written(|out| write_tenant(out, "acme", stats, 1, Some("n2"))),
                format!(r#"{{"tenant_id":"acme",{counters},"connection_stats":{{"total_connections":2,"unique_users":1}},"scope":"node","server_id":"n2"}}"#),
            ),
            (
                written(|out| write_tenant_status(out, "acme", "n2", true, 2, 1)),
                r#"{"enabled":true,"mode":"distributed","server_id":"n2","tenant_id":"acme","local_connections":2,"local_users":1}"#.to_owned(),
            ),
        ];
        for (written, expected) in rows {
            assert_eq!(written, expected);
        }
    }
}
