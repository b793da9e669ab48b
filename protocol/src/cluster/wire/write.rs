//! Parcels to bytes.
use super::{Bundled, Parcel, ParcelError, ParcelKind, Published};
use crate::auth::revocation::Revoked;
use crate::cluster::GatherTicket;
use crate::ids::TenantId;
use crate::json;
use crate::limits;
use crate::notification::{Audience, Priority, Target};
use crate::publish::receipt::{Receipt, SessionRow};
use crate::store::Position;
use crate::stream::StreamSeq;

/// Whether the receiver's bounds are kept.
pub(super) fn check_lists(kind: &ParcelKind) -> Result<(), ParcelError> {
    let (list, len, len_max) = match kind {
        ParcelKind::Publication { target: Target::Users(users), .. } => {
            ("users", users.len(), limits::PUBLISH_USERS_MAX)
        }
        ParcelKind::Publication { target: Target::Channels(channels), .. } => {
            ("channels", channels.len(), limits::PUBLISH_CHANNELS_MAX)
        }
        ParcelKind::Fence { partitions, .. } => ("partitions", partitions.len(), limits::CLUSTER_PARTITIONS_MAX),
        ParcelKind::Stored(claims) => ("claims", claims.len(), limits::CLUSTER_CLAIMS_MAX),
        ParcelKind::Answer { sessions, .. } => ("sessions", sessions.len(), limits::CLUSTER_SESSIONS_MAX),
        ParcelKind::Bundle(all) => ("publications", all.len(), limits::CLUSTER_BUNDLE_PUBLICATIONS_MAX),
        _ => return Ok(()),
    };
    if len > len_max { Err(ParcelError::TooMany(list)) } else { Ok(()) }
}

/// Appends the whole of a parcel.
pub(super) fn parcel(out: &mut Vec<u8>, parcel: &Parcel) {
    let [user, tenant, payload] = addressed(&parcel.kind);
    out.extend_from_slice(br#"{"user_id":"#);
    json::write_string(out, user);
    text(out, "tenant_id", tenant);
    out.extend_from_slice(br#","connection_id":null"#);
    text(out, "payload", payload);
    text(out, "from_server", &parcel.from_server);
    match &parcel.to_server {
        Some(server_id) => text(out, "to_server", server_id),
        None if is_deliverable(&parcel.kind) => out.extend_from_slice(br#","to_server":null"#),
        None => text(out, "to_server", ""),
    }
    if !matches!(parcel.kind, ParcelKind::Plain(_)) {
        out.extend_from_slice(br#","ara":{"kind":""#);
        out.extend_from_slice(kind_name(&parcel.kind).as_bytes());
        out.push(b'"');
        details(out, &parcel.kind);
        out.push(b'}');
    }
    out.push(b'}');
}

/// `user_id`, `tenant_id` and `payload`.
fn addressed(kind: &ParcelKind) -> [&str; 3] {
    match kind {
        ParcelKind::Publication { target: Target::User(user), published, .. }
        | ParcelKind::Hint { user, published, .. } => [user, published.tenant.as_str(), &published.message],
        ParcelKind::Publication { published, .. } => ["", published.tenant.as_str(), &published.message],
        ParcelKind::Plain(plain) => [&plain.user, plain.tenant.as_str(), &plain.message],
        ParcelKind::Question { tenant, user, .. }
        | ParcelKind::Answer { tenant, user, .. }
        | ParcelKind::Disconnect { tenant, user, .. } => [user, tenant.as_str(), ""],
        ParcelKind::Revoked { revocation, .. } => match &revocation.revoked {
            Revoked::User { user, .. } => [user, revocation.tenant.as_str(), ""],
            Revoked::Token { .. } => ["", revocation.tenant.as_str(), ""],
        },
        ParcelKind::Template { tenant, .. } => ["", tenant.as_str(), ""],
        ParcelKind::Receipt { .. }
        | ParcelKind::Hello(_)
        | ParcelKind::Bye
        | ParcelKind::Fence { .. }
        | ParcelKind::Bundle(_)
        | ParcelKind::Stored(_)
        | ParcelKind::Canary(_) => ["", "", ""],
    }
}

/// Whether a node of the original does the right thing with it.
fn is_deliverable(kind: &ParcelKind) -> bool {
    matches!(
        kind,
        ParcelKind::Publication { target: Target::User(_), .. } | ParcelKind::Hint { .. } | ParcelKind::Plain(_)
    )
}

fn kind_name(kind: &ParcelKind) -> &'static str {
    match kind {
        ParcelKind::Publication { target, .. } => target.kind().as_str(),
        ParcelKind::Hint { .. } => "hint",
        ParcelKind::Receipt { .. } => "receipt",
        ParcelKind::Hello(_) => "hello",
        ParcelKind::Bye => "bye",
        ParcelKind::Stored(_) => "stored",
        ParcelKind::Template { .. } => "template",
        ParcelKind::Canary(_) => "canary",
        ParcelKind::Question { .. } => "question",
        ParcelKind::Answer { .. } => "answer",
        ParcelKind::Disconnect { .. } => "disconnect",
        ParcelKind::Revoked { .. } => "revoked",
        ParcelKind::Fence { .. } => "fence",
        ParcelKind::Bundle(_) => "bundle",
        // Has no `ara`; see `parcel`.
        ParcelKind::Plain(_) => "",
    }
}

/// What stands in `ara` behind the kind.
fn details(out: &mut Vec<u8>, kind: &ParcelKind) {
    match kind {
        ParcelKind::Publication { target, audience, published } => {
            publication(out, published);
            recipients(out, target, audience.as_ref());
        }
        ParcelKind::Hint { published, position, before, attempt, .. } => {
            publication(out, published);
            place(out, "position", *position);
            if let Some(before) = before {
                place(out, "before", *before);
            }
            number(out, "attempt", u64::from(*attempt));
        }
        ParcelKind::Receipt { ticket, receipt: Receipt { delivered_to, failed, queued, unkept } } => {
            gather(out, *ticket);
            number(out, "delivered_to", *delivered_to);
            number(out, "failed", *failed);
            number(out, "queued", *queued);
            number(out, "unkept", *unkept);
        }
        ParcelKind::Hello(hello) => {
            number(out, "connections", hello.connections);
            number(out, "users", hello.users);
            number(out, "started_unix_ms", hello.started_unix_ms);
            if let Some(reading_ms) = hello.reading_ms {
                number(out, "reading_ms", reading_ms);
            }
            if let Some(claim) = hello.first_read {
                text(out, "first_read", &claim.to_string());
            }
            text(out, "version", &hello.version);
        }
        ParcelKind::Stored(claims) => {
            list(out, "claims", claims, |out, claim| json::write_string(out, &claim.to_string()));
        }
        ParcelKind::Template { id, .. } => text(out, "id", id),
        ParcelKind::Fence { id, partitions } => {
            out.extend_from_slice(br#","id":""#);
            id.write(out);
            out.push(b'"');
            list(out, "partitions", partitions, |out, nth| {
                out.extend_from_slice(itoa::Buffer::new().format(*nth).as_bytes());
            });
        }
        ParcelKind::Canary(canary) => number(out, "number", *canary),
        ParcelKind::Question { ticket, .. } | ParcelKind::Disconnect { ticket, .. } => gather(out, *ticket),
        ParcelKind::Revoked { revocation, ticket } => {
            match &revocation.revoked {
                Revoked::Token { id } => text(out, "jti", id),
                Revoked::User { before_unix_s, .. } => number(out, "before", *before_unix_s),
            }
            number(out, "until", revocation.until_unix_s);
            if let Some(ticket) = ticket {
                gather(out, *ticket);
            }
        }
        ParcelKind::Answer { ticket, sessions, .. } => {
            gather(out, *ticket);
            list(out, "sessions", sessions, session);
        }
        ParcelKind::Bundle(all) => list(out, "publications", all, |out, Bundled { target, audience, published }| {
            let Published { tenant, priority, expires_at_unix_ms, message, .. } = published;
            bundled(out, tenant, target, audience.as_ref(), *priority, *expires_at_unix_ms, message.as_bytes());
        }),
        ParcelKind::Bye | ParcelKind::Plain(_) => {}
    }
}

/// For whom a publication is, but for a user, who stands elsewhere.
fn recipients(out: &mut Vec<u8>, target: &Target, audience: Option<&Audience>) {
    match target {
        Target::User(_) => {}
        Target::Users(users) => value(out, "users", users),
        Target::Channel(channel) => text(out, "channel", channel),
        Target::Channels(channels) => value(out, "channels", channels),
        Target::Broadcast => {
            if let Some(audience) = audience {
                value(out, "audience", audience);
            }
        }
    }
}

/// A publication of a bundle. Its message is JSON, and stands there as it is.
pub(super) fn bundled(
    out: &mut Vec<u8>,
    tenant: &TenantId,
    target: &Target,
    audience: Option<&Audience>,
    priority: Priority,
    expires_at_unix_ms: Option<u64>,
    message: &[u8],
) {
    out.extend_from_slice(br#"{"kind":""#);
    out.extend_from_slice(target.kind().as_str().as_bytes());
    out.push(b'"');
    text(out, "tenant_id", tenant.as_str());
    if let Target::User(user) = target {
        text(out, "user_id", user);
    }
    urgency(out, priority, expires_at_unix_ms);
    recipients(out, target, audience);
    key(out, "message");
    out.extend_from_slice(message);
    out.push(b'}');
}

fn urgency(out: &mut Vec<u8>, priority: Priority, expires_at_unix_ms: Option<u64>) {
    text(out, "priority", priority.as_str());
    if let Some(at_unix_ms) = expires_at_unix_ms {
        number(out, "expires_at_unix_ms", at_unix_ms);
    }
}

fn publication(out: &mut Vec<u8>, published: &Published) {
    urgency(out, published.priority, published.expires_at_unix_ms);
    if published.stream != StreamSeq::default() {
        numbers(out, "stream", &[published.stream.epoch, published.stream.seq]);
    }
    if let Some(ticket) = published.ticket {
        gather(out, ticket);
    }
}

fn session(out: &mut Vec<u8>, session: &SessionRow) {
    out.extend_from_slice(br#"{"connection_id":""#);
    session.connection_id.write(out);
    out.push(b'"');
    number(out, "connected_at", session.connected_at_unix_s);
    value(out, "channels", &session.channels);
    out.push(b'}');
}

fn gather(out: &mut Vec<u8>, ticket: GatherTicket) {
    numbers(out, "gather", &[u64::from(ticket.shard), u64::from(ticket.slot), u64::from(ticket.generation)]);
}

fn place(out: &mut Vec<u8>, name: &str, position: Position) {
    numbers(out, name, &[position.0, position.1]);
}

fn numbers(out: &mut Vec<u8>, name: &str, numbers: &[u64]) {
    list(out, name, numbers, |out, number| out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()));
}

fn list<T>(out: &mut Vec<u8>, name: &str, items: &[T], write_item: impl Fn(&mut Vec<u8>, &T)) {
    key(out, name);
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_item(out, item);
    }
    out.push(b']');
}

fn number(out: &mut Vec<u8>, name: &str, number: u64) {
    key(out, name);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn text(out: &mut Vec<u8>, name: &str, text: &str) {
    key(out, name);
    json::write_string(out, text);
}

fn value(out: &mut Vec<u8>, name: &str, value: &impl serde::Serialize) {
    key(out, name);
    json::write_value(out, value);
}

/// Appends `,"name":`; `name` is one of ours and needs no escape.
fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}
