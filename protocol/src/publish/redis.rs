//! Publishes that arrive over Redis pub/sub (contract §6). The JSON decides where they go, not the Redis channel.
use crate::ids::{self, TenantId};
use crate::json::{Json, TextError};
use crate::limits;
use crate::notification::{Content, Target};
use crate::publish::body;
use std::fmt;

/// A publish that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisPublish {
    /// To whom.
    pub target: Target,
    /// What; never with an audience.
    pub content: Content,
    /// Whose, if the message says so: a well-formed tenant name without blanks around it.
    pub tenant: Option<Box<str>>,
}

/// Why a message is skipped. Nobody waits for an answer, so this ends in a counter and a log line, and neither may
/// hold a piece of the payload (C-17, W-35).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisError {
    /// Longer than [`limits::REDIS_PAYLOAD_BYTES_MAX`].
    TooLong {
        /// Bytes that came.
        bytes: usize,
    },
    /// Not one JSON value in UTF-8.
    NotJson,
    /// Nested deeper than [`limits::JSON_DEPTH_MAX`].
    TooDeep,
    /// A field is missing, ill-typed or doubled; its name.
    BadShape(&'static str),
    /// `type` is a string, but none of the five.
    UnknownType,
    /// `target` does not suit the `type`, or names a user nobody can be.
    BadTarget,
}

impl RedisError {
    /// The label of metrics and log lines.
    pub fn label(&self) -> &'static str {
        match self {
            RedisError::TooLong { .. } => "too_long",
            RedisError::NotJson => "not_json",
            RedisError::TooDeep => "too_deep",
            RedisError::BadShape(_) => "bad_shape",
            RedisError::UnknownType => "unknown_type",
            RedisError::BadTarget => "bad_target",
        }
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedisError::TooLong { bytes } => {
                write!(f, "message of {bytes} bytes exceeds the maximum of {}", limits::REDIS_PAYLOAD_BYTES_MAX)
            }
            RedisError::NotJson => f.write_str("message is not JSON"),
            RedisError::TooDeep => write!(f, "message is nested deeper than {} levels", limits::JSON_DEPTH_MAX),
            RedisError::BadShape(field) => write!(f, "message lacks `{field}`, or has it doubled or ill-typed"),
            RedisError::UnknownType => {
                f.write_str("`type` is none of `user`, `users`, `broadcast`, `channel`, `channels`")
            }
            RedisError::BadTarget => f.write_str("`target` does not suit `type`"),
        }
    }
}

impl std::error::Error for RedisError {}

/// Takes one message.
pub fn parse_redis(payload: &[u8]) -> Result<RedisPublish, RedisError> {
    if payload.len() > limits::REDIS_PAYLOAD_BYTES_MAX {
        return Err(RedisError::TooLong { bytes: payload.len() });
    }
    let message = Json::parse(payload).map_err(|error| match error {
        TextError::TooDeep => RedisError::TooDeep,
        TextError::Syntax(_) => RedisError::NotJson,
    })?;
    let [kind, target, event, tenant] =
        message.fields(&["type", "target", "event", "tenant_id"]).map_err(|_| RedisError::BadShape("message"))?;
    let kind = kind.and_then(Json::string).ok_or(RedisError::BadShape("type"))?;
    let content = parse_event(event)?;
    let tenant = parse_tenant(tenant)?;
    let target = parse_target(&kind, target.filter(|target| !target.is_null()))?;
    Ok(RedisPublish { target, content, tenant })
}

/// `null` is as good as absent for `ttl` and `correlation_id`, but not for `priority`.
fn parse_event(event: Option<Json<'_>>) -> Result<Content, RedisError> {
    let [event_type, payload, priority, ttl, correlation_id] = event
        .and_then(|event| event.fields(&["event_type", "payload", "priority", "ttl", "correlation_id"]).ok())
        .ok_or(RedisError::BadShape("event"))?;
    if priority.is_some_and(Json::is_null) {
        return Err(RedisError::BadShape("event.priority"));
    }
    let bad = |field| move |_| RedisError::BadShape(field);
    Ok(Content {
        event_type: body::text(event_type, "event_type").map_err(bad("event.event_type"))?,
        payload: payload.ok_or(RedisError::BadShape("event.payload"))?.payload(),
        priority: body::priority(priority, "priority").map_err(bad("event.priority"))?.unwrap_or_default(),
        ttl: body::seconds(ttl, "ttl").map_err(bad("event.ttl"))?,
        correlation_id: body::optional_text(correlation_id, "correlation_id").map_err(bad("event.correlation_id"))?,
        audience: None,
    })
}

/// A name that no tenant can have (C-8) could only reach somebody by accident.
fn parse_tenant(tenant: Option<Json<'_>>) -> Result<Option<Box<str>>, RedisError> {
    let bad = RedisError::BadShape("tenant_id");
    let Some(name) = body::optional_text(tenant, "tenant_id").map_err(|_| bad)? else { return Ok(None) };
    match TenantId::parse(&name) {
        Some(tenant) if tenant.as_str() == &*name => Ok(Some(name)),
        _ => Err(bad),
    }
}

fn parse_target(kind: &str, target: Option<Json<'_>>) -> Result<Target, RedisError> {
    let one = || target.and_then(Json::string).map(|one| Box::from(&*one)).ok_or(RedisError::BadTarget);
    let many = || match target {
        Some(target) => match target.string() {
            Some(one) => Ok(vec![one]),
            None => body::texts(target, "target").map_err(|_| RedisError::BadTarget),
        },
        None => Err(RedisError::BadTarget),
    };
    let target = match kind {
        "user" => Target::User(one()?),
        "users" => Target::Users(body::unique(many()?)),
        "broadcast" => Target::Broadcast,
        "channel" => Target::Channel(one()?),
        "channels" => Target::Channels(body::unique(many()?)),
        _ => return Err(RedisError::UnknownType),
    };
    let bearable = match &target {
        Target::User(user) => ids::is_user_id(user),
        Target::Users(users) => users.iter().all(|user| ids::is_user_id(user)),
        _ => true,
    };
    if bearable { Ok(target) } else { Err(RedisError::BadTarget) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::Priority;

    fn message(kind: &str, target: &str) -> Result<Target, &'static str> {
        let text = format!(r#"{{"type":"{kind}","target":{target},"event":{{"event_type":"e","payload":null}}}}"#);
        parse_redis(text.as_bytes()).map(|publish| publish.target).map_err(|error| error.label())
    }

    #[test]
    fn a_message_of_the_guide_is_understood() {
        let publish = parse_redis(
            br#"{"type":"user","target":"u1","tenant_id":"acme","id":"x","audience":"x",
                 "event":{"event_type":"order.created","payload":{"b": 1.50, "a": 2},"priority":"High","ttl":60,
                          "correlation_id":"c","source":"php"}}"#,
        )
        .unwrap();
        assert_eq!(publish.target, Target::User("u1".into()));
        assert_eq!(publish.tenant.as_deref(), Some("acme"));
        assert_eq!(publish.content.payload.as_str(), r#"{"b":1.50,"a":2}"#);
        assert_eq!((publish.content.priority, publish.content.ttl), (Priority::High, Some(60)));
        assert_eq!(publish.content.correlation_id.as_deref(), Some("c"));

        let bare = br#"{"type":"broadcast","tenant_id":null,"event":{"event_type":"","payload":null,"ttl":null}}"#;
        let bare = parse_redis(bare).unwrap();
        assert_eq!((bare.target, bare.tenant, bare.content.priority), (Target::Broadcast, None, Priority::Normal));
    }

    #[test]
    fn the_target_suits_the_type() {
        let users = Target::Users(["a".into(), "b".into()].into());
        let channels = Target::Channels(["a".into(), "b".into()].into());
        let rows = [
            ("user", r#""a""#, Ok(Target::User("a".into()))),
            ("user", r#"["a"]"#, Err("bad_target")),
            ("user", "null", Err("bad_target")),
            ("users", r#""a""#, Ok(Target::Users(["a".into()].into()))),
            ("users", r#"["a","b","a"]"#, Ok(users)),
            ("users", "[1]", Err("bad_target")),
            ("users", "null", Err("bad_target")),
            ("broadcast", r#""a""#, Ok(Target::Broadcast)),
            ("broadcast", r#"["a"]"#, Ok(Target::Broadcast)),
            ("channel", r#""a b""#, Ok(Target::Channel("a b".into()))),
            ("channel", r#"["a"]"#, Err("bad_target")),
            ("channels", r#"["a","b","b"]"#, Ok(channels)),
            ("channels", "{}", Err("bad_target")),
            ("User", r#""a""#, Err("unknown_type")),
            ("", r#""a""#, Err("unknown_type")),
        ];
        for (kind, target, expected) in rows {
            assert_eq!(message(kind, target), expected, "{kind} {target}");
        }
        assert_eq!(message("user", &format!("\"{}\"", "x".repeat(256))), Err("bad_target"));
        // Such mail could never be kept in PostgreSQL, and would be tried again for ever.
        assert_eq!(message("user", r#""a\u0000""#), Err("bad_target"));
        assert_eq!(message("users", r#"["a","a\u0000"]"#), Err("bad_target"));
    }

    #[test]
    fn everything_else_is_skipped_and_never_quoted() {
        let deep = "[".repeat(126) + "1" + &"]".repeat(126);
        let rows = [
            ("s3cret".to_owned(), "not_json"),
            (r#"{"type":"user"} s3cret"#.to_owned(), "not_json"),
            ("x".repeat(limits::REDIS_PAYLOAD_BYTES_MAX + 1), "too_long"),
            (format!(r#"{{"type":"broadcast","event":{{"event_type":"e","payload":{deep}}}}}"#), "too_deep"),
            (r#"["s3cret"]"#.to_owned(), "bad_shape"),
            (r#"{"event":{"event_type":"s3cret","payload":1}}"#.to_owned(), "bad_shape"),
            (r#"{"type":7,"event":{"event_type":"s3cret","payload":1}}"#.to_owned(), "bad_shape"),
            (
                r#"{"type":"broadcast","type":"broadcast","event":{"event_type":"e","payload":1}}"#.to_owned(),
                "bad_shape",
            ),
            (r#"{"type":"broadcast"}"#.to_owned(), "bad_shape"),
            (r#"{"type":"broadcast","event":"s3cret"}"#.to_owned(), "bad_shape"),
            (r#"{"type":"broadcast","event":{"payload":"s3cret"}}"#.to_owned(), "bad_shape"),
            (r#"{"type":"broadcast","event":{"event_type":"s3cret"}}"#.to_owned(), "bad_shape"),
            (r#"{"type":"broadcast","event":{"event_type":"e","payload":1,"priority":null}}"#.to_owned(), "bad_shape"),
            (
                r#"{"type":"broadcast","event":{"event_type":"e","payload":1,"priority":"high"}}"#.to_owned(),
                "bad_shape",
            ),
            (r#"{"type":"broadcast","event":{"event_type":"e","payload":1,"ttl":"s3cret"}}"#.to_owned(), "bad_shape"),
            (
                r#"{"type":"broadcast","tenant_id":"a:b","event":{"event_type":"e","payload":1}}"#.to_owned(),
                "bad_shape",
            ),
            (r#"{"type":"broadcast","tenant_id":" a","event":{"event_type":"e","payload":1}}"#.to_owned(), "bad_shape"),
            (r#"{"type":"broadcast","tenant_id":7,"event":{"event_type":"e","payload":1}}"#.to_owned(), "bad_shape"),
            (r#"{"type":"s3cret","event":{"event_type":"e","payload":1}}"#.to_owned(), "unknown_type"),
        ];
        for (text, label) in rows {
            let error = parse_redis(text.as_bytes()).unwrap_err();
            assert_eq!(error.label(), label, "{:.80}", text);
            assert!(!error.to_string().contains("s3cret"));
        }
        assert_eq!(parse_redis(b"\xff").unwrap_err(), RedisError::NotJson);
    }
}
