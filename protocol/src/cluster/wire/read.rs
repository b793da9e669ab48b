//! Bytes to parcels. They come from a Redis that others may write to, so nothing is taken on trust.
use super::{Bundled, Claim, Hello, Parcel, ParcelError, ParcelKind, Plain, Published};
use crate::auth::revocation::{Revocation, Revoked};
use crate::cluster::GatherTicket;
use crate::frame::EventName;
use crate::ids::{self, ConnectionId, NotificationId, TenantId};
use crate::json::{Json, TextError};
use crate::limits;
use crate::notification::Target;
use crate::publish::body;
use crate::publish::receipt::{Receipt, SessionRow};
use crate::store::Position;
use crate::stream::StreamSeq;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::sync::Arc;
use uuid::Uuid;

type Field<'a> = Option<Json<'a>>;

/// The keys of contract §12.2.
struct Outside<'a> {
    user: Cow<'a, str>,
    tenant: Cow<'a, str>,
    payload: Cow<'a, str>,
    from_server: Cow<'a, str>,
}

pub(super) fn parcel(bytes: &[u8]) -> Result<Parcel, ParcelError> {
    if bytes.len() > limits::CLUSTER_PARCEL_BYTES_MAX {
        return Err(ParcelError::TooLong { bytes: bytes.len() });
    }
    let json = Json::parse(bytes).map_err(|error| match error {
        TextError::TooDeep => ParcelError::TooDeep,
        TextError::Syntax(_) => ParcelError::NotJson,
    })?;
    let [user, tenant, connection, payload, from_server, to_server, ara] = json
        .fields(&["user_id", "tenant_id", "connection_id", "payload", "from_server", "to_server", "ara"])
        .map_err(|_| ParcelError::BadShape("parcel"))?;
    let outside = Outside {
        user: text(user, "user_id")?,
        tenant: text(tenant, "tenant_id")?,
        payload: text(payload, "payload")?,
        from_server: text(from_server, "from_server")?,
    };
    optional_text(connection, "connection_id")?;
    let mut to_server = optional_text(to_server, "to_server")?;
    if to_server.as_ref().is_some_and(|server_id| server_id.len() > limits::SERVER_ID_BYTES_MAX) {
        return Err(ParcelError::BadShape("to_server"));
    }
    let is_sender = match ara {
        Some(_) => ids::is_server_id(&outside.from_server),
        None => outside.from_server.len() <= limits::SERVER_ID_BYTES_MAX,
    };
    if !is_sender {
        return Err(ParcelError::BadShape("from_server"));
    }
    let kind = match ara {
        Some(ara) => {
            to_server = to_server.filter(|server_id| !server_id.is_empty());
            outside.kind(ara)?
        }
        None => ParcelKind::Plain(outside.plain()?),
    };
    Ok(Parcel { from_server: boxed(&outside.from_server), to_server: to_server.as_deref().map(boxed), kind })
}

impl Outside<'_> {
    fn kind(&self, ara: Json<'_>) -> Result<ParcelKind, ParcelError> {
        let [kind] = inside(ara, &["kind"])?;
        Ok(match &*text(kind, "ara.kind")? {
            kind @ ("user" | "users" | "channel" | "channels" | "broadcast") => {
                let Bundled { target, audience, published } = self.publication(ara, kind)?;
                ParcelKind::Publication { target, audience, published }
            }
            "hint" => self.hint(ara)?,
            "receipt" => receipt(ara)?,
            "hello" => ParcelKind::Hello(self.hello(ara)?),
            "bye" => ParcelKind::Bye,
            "stored" => stored(ara)?,
            "template" => {
                let [id] = inside(ara, &["id"])?;
                let id = text(id, "id")?;
                if id.len() > limits::TEMPLATE_ID_BYTES_MAX {
                    return Err(ParcelError::BadShape("id"));
                }
                ParcelKind::Template { tenant: self.tenant()?, id: boxed(&id) }
            }
            "canary" => {
                let [number] = inside(ara, &["number"])?;
                ParcelKind::Canary(required(number, "number")?)
            }
            "question" => {
                let [ticket] = inside(ara, &["gather"])?;
                ParcelKind::Question { ticket: required_gather(ticket)?, tenant: self.tenant()?, user: self.user()? }
            }
            "answer" => self.answer(ara)?,
            "disconnect" => {
                let [ticket] = inside(ara, &["gather"])?;
                ParcelKind::Disconnect { ticket: required_gather(ticket)?, tenant: self.tenant()?, user: self.user()? }
            }
            "revoked" => self.revoked(ara)?,
            "fence" => fence(ara)?,
            "bundle" => {
                let [all] = inside(ara, &["publications"])?;
                let all = elements(all, "publications", limits::CLUSTER_BUNDLE_PUBLICATIONS_MAX)?;
                ParcelKind::Bundle(all.into_iter().map(|one| self.bundled(one)).collect::<Result<_, _>>()?)
            }
            _ => return Err(ParcelError::UnknownKind),
        })
    }

    fn tenant(&self) -> Result<TenantId, ParcelError> {
        let tenant = TenantId::parse(&self.tenant).filter(|tenant| tenant.as_str() == self.tenant);
        tenant.ok_or(ParcelError::BadShape("tenant_id"))
    }

    fn user(&self) -> Result<Box<str>, ParcelError> {
        if ids::is_user_id(&self.user) { Ok(boxed(&self.user)) } else { Err(ParcelError::BadShape("user_id")) }
    }

    fn published(&self, ara: Json<'_>) -> Result<Published, ParcelError> {
        let [priority, expires_at, stream, ticket] =
            inside(ara, &["priority", "expires_at_unix_ms", "stream", "gather"])?;
        let (epoch, seq) = optional(stream, "stream")?.unwrap_or_default();
        Ok(Published {
            id: notification_id(&self.payload)?,
            tenant: self.tenant()?,
            priority: required(priority, "priority")?,
            expires_at_unix_ms: optional(expires_at, "expires_at_unix_ms")?,
            stream: StreamSeq { epoch, seq },
            ticket: gather(ticket)?,
            message: boxed(&self.payload),
        })
    }

    /// A publication of one of the five kinds.
    fn publication(&self, ara: Json<'_>, kind: &str) -> Result<Bundled, ParcelError> {
        let [users, channel, channels, audience] = inside(ara, &["users", "channel", "channels", "audience"])?;
        let target = match kind {
            "user" => Target::User(self.user()?),
            "users" => {
                let users = texts(users, "users", limits::PUBLISH_USERS_MAX)?;
                if !users.iter().all(|user| ids::is_user_id(user)) {
                    return Err(ParcelError::BadShape("users"));
                }
                Target::Users(body::unique(users))
            }
            "channel" => Target::Channel(boxed(&text(channel, "channel")?)),
            "channels" => Target::Channels(body::unique(texts(channels, "channels", limits::PUBLISH_CHANNELS_MAX)?)),
            "broadcast" => Target::Broadcast,
            _ => return Err(ParcelError::UnknownKind),
        };
        if audience.is_some() && target != Target::Broadcast {
            return Err(ParcelError::BadShape("audience"));
        }
        let audience = optional(audience, "audience")?;
        Ok(Bundled { target, audience, published: self.published(ara)? })
    }

    /// One of a bundle: the sender is that of the bundle.
    fn bundled(&self, one: Json<'_>) -> Result<Bundled, ParcelError> {
        let fields = one.fields(&["kind", "tenant_id", "user_id", "message"]);
        let [kind, tenant, user, message] = fields.map_err(|_| ParcelError::BadShape("publications"))?;
        let (kind, message) = (text(kind, "kind")?, message.map_or("", Json::as_str));
        let outside = Outside {
            user: if kind == "user" { text(user, "user_id")? } else { Cow::default() },
            tenant: text(tenant, "tenant_id")?,
            payload: message.into(),
            from_server: Cow::Borrowed(&self.from_server),
        };
        let bundled = outside.publication(one, &kind)?;
        let Published { stream, ticket, .. } = bundled.published;
        if stream != StreamSeq::default() || ticket.is_some() {
            return Err(ParcelError::BadShape("publications"));
        }
        Ok(bundled)
    }

    fn hint(&self, ara: Json<'_>) -> Result<ParcelKind, ParcelError> {
        let [position, before, attempt] = inside(ara, &["position", "before", "attempt"])?;
        let (first, second) = required(position, "position")?;
        Ok(ParcelKind::Hint {
            user: self.user()?,
            published: self.published(ara)?,
            position: Position(first, second),
            before: optional(before, "before")?.map(|(first, second)| Position(first, second)),
            attempt: required(attempt, "attempt")?,
        })
    }

    fn hello(&self, ara: Json<'_>) -> Result<Hello, ParcelError> {
        let [connections, users, started, reading, first, version] =
            inside(ara, &["connections", "users", "started_unix_ms", "reading_ms", "first_read", "version"])?;
        let first_read = match optional_text(first, "first_read")? {
            Some(text) => Some(Claim::parse(&text).ok_or(ParcelError::BadShape("first_read"))?),
            None => None,
        };
        let version = text(version, "version")?;
        if version.len() > limits::CLUSTER_VERSION_BYTES_MAX || version.contains(char::is_control) {
            return Err(ParcelError::BadShape("version"));
        }
        Ok(Hello {
            server_id: boxed(&self.from_server),
            connections: required(connections, "connections")?,
            users: required(users, "users")?,
            started_unix_ms: required(started, "started_unix_ms")?,
            reading_ms: optional(reading, "reading_ms")?,
            first_read,
            version: boxed(&version),
        })
    }

    fn answer(&self, ara: Json<'_>) -> Result<ParcelKind, ParcelError> {
        let [ticket, sessions] = inside(ara, &["gather", "sessions"])?;
        let sessions = elements(sessions, "sessions", limits::CLUSTER_SESSIONS_MAX)?;
        Ok(ParcelKind::Answer {
            ticket: required_gather(ticket)?,
            tenant: self.tenant()?,
            user: self.user()?,
            sessions: sessions.into_iter().map(|session| self.session(session)).collect::<Result<_, _>>()?,
        })
    }

    fn session(&self, session: Json<'_>) -> Result<SessionRow, ParcelError> {
        let [connection, connected_at, channels] = session
            .fields(&["connection_id", "connected_at", "channels"])
            .map_err(|_| ParcelError::BadShape("sessions"))?;
        let connection = text(connection, "sessions.connection_id")?;
        let channels = texts(channels, "sessions.channels", usize::MAX)?;
        Ok(SessionRow {
            connection_id: ConnectionId(uuid(&connection).ok_or(ParcelError::BadShape("sessions.connection_id"))?),
            server_id: boxed(&self.from_server),
            connected_at_unix_s: required(connected_at, "sessions.connected_at")?,
            channels: channels.iter().map(|channel| boxed(channel)).collect(),
        })
    }

    fn revoked(&self, ara: Json<'_>) -> Result<ParcelKind, ParcelError> {
        let [id, before, until, ticket] = inside(ara, &["jti", "before", "until", "gather"])?;
        let revoked = match id {
            Some(id) if before.is_none() => Revoked::Token { id: boxed(&text(Some(id), "jti")?) },
            Some(_) => return Err(ParcelError::BadShape("before")),
            None => Revoked::User { user: self.user()?, before_unix_s: required(before, "before")? },
        };
        let revocation = Revocation { tenant: self.tenant()?, revoked, until_unix_s: required(until, "until")? };
        let revocation = Arc::new(revocation.checked().ok_or(ParcelError::BadShape("jti"))?);
        Ok(ParcelKind::Revoked { revocation, ticket: gather(ticket)? })
    }

    fn plain(&self) -> Result<Plain, ParcelError> {
        let json = Json::parse(self.payload.as_bytes()).map_err(|_| ParcelError::BadMessage)?;
        let [kind, id] = json.fields(&["type", "id"]).map_err(|_| ParcelError::BadMessage)?;
        let event = match &*text(kind, "type").map_err(|_| ParcelError::BadMessage)? {
            "notification" => EventName::Notification,
            "heartbeat" => EventName::Heartbeat,
            "error" => EventName::Error,
            "subscribed" | "unsubscribed" | "pong" | "acked" | "shutdown" => EventName::Message,
            _ => return Err(ParcelError::BadMessage),
        };
        let id = match event {
            EventName::Notification => {
                let id = id.and_then(Json::string).and_then(|id| Uuid::try_parse(&id).ok());
                Some(NotificationId(id.ok_or(ParcelError::BadMessage)?))
            }
            _ => None,
        };
        let message = boxed(json.payload().as_str());
        Ok(Plain { tenant: self.tenant()?, user: self.user()?, event, id, message })
    }
}

fn receipt(ara: Json<'_>) -> Result<ParcelKind, ParcelError> {
    let [ticket, delivered_to, failed, queued, unkept] =
        inside(ara, &["gather", "delivered_to", "failed", "queued", "unkept"])?;
    let receipt = Receipt {
        delivered_to: required(delivered_to, "delivered_to")?,
        failed: required(failed, "failed")?,
        queued: required(queued, "queued")?,
        unkept: required(unkept, "unkept")?,
    };
    Ok(ParcelKind::Receipt { ticket: required_gather(ticket)?, receipt })
}

fn fence(ara: Json<'_>) -> Result<ParcelKind, ParcelError> {
    let [id, partitions] = inside(ara, &["id", "partitions"])?;
    let id = uuid(&text(id, "id")?).ok_or(ParcelError::BadShape("id"))?;
    let partitions: Vec<u8> = elements(partitions, "partitions", limits::CLUSTER_PARTITIONS_MAX)?
        .into_iter()
        .map(|nth| required(Some(nth), "partitions"))
        .collect::<Result<_, _>>()?;
    let is_one = |nth: &u8| usize::from(*nth) < limits::CLUSTER_PARTITIONS_MAX;
    if !partitions.iter().all(is_one) {
        return Err(ParcelError::BadShape("partitions"));
    }
    Ok(ParcelKind::Fence { id: NotificationId(id), partitions })
}

fn stored(ara: Json<'_>) -> Result<ParcelKind, ParcelError> {
    let [claims] = inside(ara, &["claims"])?;
    let claims = texts(claims, "claims", limits::CLUSTER_CLAIMS_MAX)?;
    let claims: Option<Vec<Claim>> = claims.iter().map(|claim| Claim::parse(claim)).collect();
    Ok(ParcelKind::Stored(claims.ok_or(ParcelError::BadShape("claims"))?))
}

/// The id of a notification message. The message must begin and end as [`crate::frame::Frame::notification`] makes it,
/// for frames and mailboxes cut it there, and clients must get JSON on one line.
fn notification_id(message: &str) -> Result<NotificationId, ParcelError> {
    let id = || {
        let rest = message.strip_prefix(r#"{"type":"notification","id":""#)?;
        let (id, rest) = rest.split_at_checked(36)?;
        let is_whole = rest.starts_with("\",") && rest.ends_with("}}") && !rest.contains(['\n', '\r']);
        if is_whole { uuid(id) } else { None }
    };
    let id = id().ok_or(ParcelError::BadMessage)?;
    Json::parse(message.as_bytes()).map_err(|_| ParcelError::BadMessage)?;
    Ok(NotificationId(id))
}

/// A UUID as we write it: lower case, with hyphens.
fn uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(uuid)
}

fn boxed(text: &str) -> Box<str> {
    Box::from(text)
}

fn inside<'a, const N: usize>(ara: Json<'a>, known: &[&'static str; N]) -> Result<[Field<'a>; N], ParcelError> {
    ara.fields(known).map_err(|_| ParcelError::BadShape("ara"))
}

fn text<'a>(field: Field<'a>, name: &'static str) -> Result<Cow<'a, str>, ParcelError> {
    field.and_then(Json::string).ok_or(ParcelError::BadShape(name))
}

/// A string; absent and `null` are none.
fn optional_text<'a>(field: Field<'a>, name: &'static str) -> Result<Option<Cow<'a, str>>, ParcelError> {
    field.filter(|json| !json.is_null()).map(|json| text(Some(json), name)).transpose()
}

fn required<T: DeserializeOwned>(field: Field<'_>, name: &'static str) -> Result<T, ParcelError> {
    field.and_then(Json::decode).ok_or(ParcelError::BadShape(name))
}

/// Absent is none; `null` is not absent.
fn optional<T: DeserializeOwned>(field: Field<'_>, name: &'static str) -> Result<Option<T>, ParcelError> {
    field.map(|json| required(Some(json), name)).transpose()
}

fn gather(field: Field<'_>) -> Result<Option<GatherTicket>, ParcelError> {
    let parts: Option<(u8, u32, u32)> = optional(field, "gather")?;
    Ok(parts.map(|(shard, slot, generation)| GatherTicket { shard, slot, generation }))
}

fn required_gather(field: Field<'_>) -> Result<GatherTicket, ParcelError> {
    gather(field)?.ok_or(ParcelError::BadShape("gather"))
}

fn elements<'a>(field: Field<'a>, name: &'static str, len_max: usize) -> Result<Vec<Json<'a>>, ParcelError> {
    let elements = field.and_then(Json::elements).ok_or(ParcelError::BadShape(name))?;
    if elements.len() > len_max { Err(ParcelError::TooMany(name)) } else { Ok(elements) }
}

fn texts<'a>(field: Field<'a>, name: &'static str, len_max: usize) -> Result<Vec<Cow<'a, str>>, ParcelError> {
    let texts = elements(field, name, len_max)?.into_iter().map(Json::string).collect::<Option<_>>();
    texts.ok_or(ParcelError::BadShape(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str =
        r#"{"type":"notification","id":"550e8400-e29b-41d4-a716-446655440000","payload":1,"metadata":{}}"#;

    fn label(text: &str) -> &'static str {
        match parcel(text.as_bytes()) {
            Ok(_) => "taken",
            Err(error) => {
                assert!(!error.to_string().contains("s3cret"), "{error}");
                error.label()
            }
        }
    }

    /// A parcel of a user `u1` of `acme` with this message and this inside of `ara`.
    fn with(message: &str, ara: &str) -> String {
        let message = serde_json::to_string(message).unwrap();
        format!(r#"{{"user_id":"u1","tenant_id":"acme","payload":{message},"from_server":"n1","ara":{{{ara}}}}}"#)
    }

    #[test]
    fn the_outside_is_that_of_the_contract() {
        let taken = r#"{"user_id":"u1","tenant_id":"acme","connection_id":null,"payload":"{\"type\":\"pong\"}","from_server":"n:1","to_server":null}"#;
        assert_eq!(label(taken), "taken");
        let changed = |from: &str, to: &str| {
            assert!(taken.contains(from), "{from}");
            taken.replacen(from, to, 1)
        };
        let rows = [
            ("s3cret".to_owned(), "not_json"),
            (format!("{taken} s3cret"), "not_json"),
            ("[".repeat(200), "too_deep"),
            (" ".repeat(limits::CLUSTER_PARCEL_BYTES_MAX + 1), "too_long"),
            ("[]".to_owned(), "bad_shape"),
            ("{}".to_owned(), "bad_shape"),
            (changed(r#""user_id":"u1","#, ""), "bad_shape"),
            (changed(r#""u1""#, "7"), "bad_shape"),
            (changed(r#""u1""#, r#""u1","user_id":"u1""#), "bad_shape"),
            (changed("u1", &"u".repeat(256)), "bad_shape"),
            (changed(r#""acme""#, "null"), "bad_shape"),
            (changed("acme", "ac:me"), "bad_shape"),
            (changed("acme", " acme"), "bad_shape"),
            (changed(r#""connection_id":null"#, r#""connection_id":1"#), "bad_shape"),
            (changed(r#""n:1""#, "null"), "bad_shape"),
            (changed("n:1", &"n".repeat(129)), "bad_shape"),
            (changed(r#""to_server":null"#, r#""to_server":1"#), "bad_shape"),
            (changed(r#""to_server":null"#, &format!(r#""to_server":"{}""#, "n".repeat(129))), "bad_shape"),
            (changed(r#""to_server":null"#, r#""ara":null"#), "bad_shape"),
            (changed("n:1\"", r#"n:1","ara":{"kind":"bye"}"#), "bad_shape"),
            (changed(r#""{\"type\":\"pong\"}""#, r#"{"type":"pong"}"#), "bad_shape"),
        ];
        for (text, expected) in rows {
            assert_eq!(label(&text), expected, "{:.200}", text);
        }
    }

    #[test]
    fn a_plain_payload_is_a_server_message() {
        let plain = |message: &str| {
            let message = serde_json::to_string(message).unwrap();
            label(&format!(r#"{{"user_id":"u1","tenant_id":"acme","payload":{message},"from_server":"n1"}}"#))
        };
        assert_eq!(plain(MESSAGE), "taken");
        let rows = [
            "",
            "s3cret",
            "[]",
            "{}",
            r#"{"type":"s3cret"}"#,
            r#"{"type":"Pong"}"#,
            r#"{"type":1}"#,
            r#"{"type":"pong","type":"pong"}"#,
            r#"{"type":"connected","connection_id":"550e8400-e29b-41d4-a716-446655440000"}"#,
            r#"{"type":"notification"}"#,
            r#"{"type":"notification","id":"s3cret"}"#,
            r#"{"type":"pong","x":"\ud800"}"#,
        ];
        for message in rows {
            assert_eq!(plain(message), "bad_message", "{message}");
        }
    }

    #[test]
    fn a_publication_has_a_message_of_ours() {
        let publication = |message: &str| label(&with(message, r#""kind":"user","priority":"Low""#));
        assert_eq!(publication(MESSAGE), "taken");
        let rows = [
            String::new(),
            r#"{"type":"pong"}"#.to_owned(),
            MESSAGE.replacen("550e", "550E", 1),
            MESSAGE.replacen("550e8400-", "550e8400", 1),
            MESSAGE.replacen("550e8400-e29b-", "550e8400-é9b-", 1),
            MESSAGE.replacen(":1", ":\n1", 1),
            MESSAGE.replacen(":1", ":\r1", 1),
            MESSAGE.replacen(":1", ":s3cret", 1),
            MESSAGE.replacen("{}}", "{}} ", 1),
            MESSAGE.replacen("{}}", "1}", 1),
            MESSAGE.replacen(r#","payload":1"#, r#"}{"payload":1"#, 1),
            MESSAGE[..60].to_owned(),
        ];
        for message in rows {
            assert_eq!(publication(&message), "bad_message", "{message}");
        }
    }

    #[test]
    fn the_inside_is_read_strictly() {
        let ticket = r#""gather":[1,2,3]"#;
        let counts = r#""delivered_to":1,"failed":0,"queued":0,"unkept":0"#;
        let session = r#"{"connection_id":"550e8400-e29b-41d4-a716-446655440000","connected_at":1,"channels":["a"]}"#;
        let many = |n: usize, item: &str| vec![item; n].join(",");
        let rows = [
            (String::new(), "bad_shape"),
            (r#""kind":7"#.to_owned(), "bad_shape"),
            (r#""kind":"bye","kind":"bye""#.to_owned(), "bad_shape"),
            (r#""kind":"s3cret""#.to_owned(), "unknown_kind"),
            (r#""kind":"user""#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"s3cret""#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":null"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","gather":null"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","gather":[1,2]"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","gather":[1,2,3,4]"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","gather":[256,2,3]"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","gather":[1,2,4294967296]"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","gather":{"shard":1}"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","stream":[1,-1]"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","stream":[1,18446744073709551616]"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","expires_at_unix_ms":1.0"#.to_owned(), "bad_shape"),
            (r#""kind":"user","priority":"Low","audience":{"type":"All"}"#.to_owned(), "bad_shape"),
            (r#""kind":"broadcast","priority":"Low","audience":{"type":"s3cret"}"#.to_owned(), "bad_shape"),
            (r#""kind":"broadcast","priority":"Low","audience":null"#.to_owned(), "bad_shape"),
            (r#""kind":"users","priority":"Low""#.to_owned(), "bad_shape"),
            (r#""kind":"users","priority":"Low","users":"u1""#.to_owned(), "bad_shape"),
            (r#""kind":"users","priority":"Low","users":["u1",2]"#.to_owned(), "bad_shape"),
            (format!(r#""kind":"users","priority":"Low","users":["{}"]"#, "u".repeat(256)), "bad_shape"),
            (
                format!(r#""kind":"users","priority":"Low","users":[{}]"#, many(limits::PUBLISH_USERS_MAX + 1, "\"\"")),
                "too_many",
            ),
            (r#""kind":"channel","priority":"Low","channel":["a"]"#.to_owned(), "bad_shape"),
            (format!(r#""kind":"channels","priority":"Low","channels":[{}]"#, many(101, "\"\"")), "too_many"),
            (r#""kind":"hint","priority":"Low","attempt":1"#.to_owned(), "bad_shape"),
            (r#""kind":"hint","priority":"Low","position":[1,2]"#.to_owned(), "bad_shape"),
            (r#""kind":"hint","priority":"Low","position":[1,2],"before":null,"attempt":1"#.to_owned(), "bad_shape"),
            (r#""kind":"hint","priority":"Low","position":[1,2],"attempt":1"#.to_owned(), "taken"),
            (format!(r#""kind":"receipt",{counts}"#), "bad_shape"),
            (format!(r#""kind":"receipt",{ticket},"delivered_to":1"#), "bad_shape"),
            (format!(r#""kind":"receipt",{ticket},{counts}"#), "taken"),
            (r#""kind":"hello","connections":1,"users":1,"started_unix_ms":1"#.to_owned(), "bad_shape"),
            (r#""kind":"hello","connections":1,"users":1,"started_unix_ms":1,"version":"\n""#.to_owned(), "bad_shape"),
            (
                format!(
                    r#""kind":"hello","connections":1,"users":1,"started_unix_ms":1,"version":"{}""#,
                    "1".repeat(65)
                ),
                "bad_shape",
            ),
            (r#""kind":"stored","claims":["s3cret"]"#.to_owned(), "bad_shape"),
            (format!(r#""kind":"stored","claims":[{}]"#, many(limits::CLUSTER_CLAIMS_MAX + 1, "\"\"")), "too_many"),
            (r#""kind":"template""#.to_owned(), "bad_shape"),
            (format!(r#""kind":"template","id":"{}""#, "t".repeat(131)), "bad_shape"),
            (r#""kind":"canary","number":"1""#.to_owned(), "bad_shape"),
            (r#""kind":"question""#.to_owned(), "bad_shape"),
            (r#""kind":"disconnect""#.to_owned(), "bad_shape"),
            (format!(r#""kind":"disconnect",{ticket}"#), "taken"),
            (r#""kind":"revoked","until":1"#.to_owned(), "bad_shape"),
            (r#""kind":"revoked","before":1"#.to_owned(), "bad_shape"),
            (r#""kind":"revoked","before":-1,"until":1"#.to_owned(), "bad_shape"),
            (r#""kind":"revoked","jti":"a","before":1,"until":1"#.to_owned(), "bad_shape"),
            (r#""kind":"revoked","jti":1,"until":1"#.to_owned(), "bad_shape"),
            (format!(r#""kind":"revoked","jti":"{}","until":1"#, "x".repeat(257)), "bad_shape"),
            (r#""kind":"revoked","jti":"a","until":1,"gather":null"#.to_owned(), "bad_shape"),
            (r#""kind":"revoked","jti":"a","until":1"#.to_owned(), "taken"),
            (format!(r#""kind":"revoked","before":1,"until":1,{ticket}"#), "taken"),
            (format!(r#""kind":"answer",{ticket}"#), "bad_shape"),
            (format!(r#""kind":"answer",{ticket},"sessions":[{{}}]"#), "bad_shape"),
            (
                format!(r#""kind":"answer",{ticket},"sessions":[{}]"#, session.replacen("550e", "s3cret", 1)),
                "bad_shape",
            ),
            (format!(r#""kind":"answer",{ticket},"sessions":[{session}]"#), "taken"),
            (
                format!(r#""kind":"answer",{ticket},"sessions":[{}]"#, many(limits::CLUSTER_SESSIONS_MAX + 1, "1")),
                "too_many",
            ),
        ];
        for (ara, expected) in rows {
            assert_eq!(label(&with(MESSAGE, &ara)), expected, "{:.200}", ara);
        }
        let one = |kind: &str, more: &str| {
            format!(
                r#"{{"kind":"{kind}","tenant_id":"acme","user_id":"u1","priority":"Low"{more},"message":{MESSAGE}}}"#
            )
        };
        let rows = [
            ("1".to_owned(), "bad_shape"),
            ("[1]".to_owned(), "bad_shape"),
            (format!("[{},{}]", one("user", ""), one("channel", r#","channel":"c""#)), "taken"),
            (format!("[{}]", one("users", "")), "bad_shape"),
            (format!("[{}]", one("channel", "")), "bad_shape"),
            (format!("[{}]", one("hint", "")), "unknown_kind"),
            (format!("[{}]", one("bundle", r#","publications":[]"#)), "unknown_kind"),
            (format!("[{}]", one("user", r#","stream":[1,2]"#)), "bad_shape"),
            (format!("[{}]", one("user", r#","gather":[1,2,3]"#)), "bad_shape"),
            (format!("[{}]", one("user", r#","audience":{"type":"All"}"#)), "bad_shape"),
            (format!("[{}]", one("user", "").replacen("u1", &"u".repeat(256), 1)), "bad_shape"),
            (format!("[{}]", one("user", "").replacen("user_id", "user", 1)), "bad_shape"),
            (format!("[{}]", one("user", "").replacen("acme", "a:me", 1)), "bad_shape"),
            (format!("[{}]", one("user", "").replacen(MESSAGE, "{}", 1)), "bad_message"),
            (format!("[{}]", one("user", "").replacen(MESSAGE, &MESSAGE.replacen(":1", ":\n1", 1), 1)), "bad_message"),
            (format!("[{}]", many(limits::CLUSTER_BUNDLE_PUBLICATIONS_MAX + 1, "1")), "too_many"),
        ];
        for (publications, expected) in rows {
            let ara = format!(r#""kind":"bundle","publications":{publications}"#);
            assert_eq!(label(&with("", &ara)), expected, "{:.200}", ara);
        }
    }

    #[test]
    fn a_recipient_named_twice_is_one() {
        let text = with(MESSAGE, r#""kind":"users","priority":"Low","users":["a","b","a"]"#);
        let ParcelKind::Publication { target, .. } = parcel(text.as_bytes()).unwrap().kind else { panic!("{text}") };
        assert_eq!(target, Target::Users(["a".into(), "b".into()].into()));
    }
}
