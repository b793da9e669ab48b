//! The five single sends of the REST API (contract §1.7, §1.8): bodies in, requests out.
use crate::json::Json;
use crate::limits;
use crate::notification::{Audience, Content, Priority, Target};
use crate::publish::body::{self, Fault};
use crate::template::Variables;

pub use crate::publish::body::BodyError;

/// What a publish says, before a template is looked up.
#[derive(Clone, Debug, PartialEq)]
pub enum ContentSource {
    /// Said outright.
    Direct(Content),
    /// To be rendered.
    Template {
        /// The template's id within the caller's tenant.
        template_id: Box<str>,
        /// What its placeholders stand for.
        variables: Variables,
        /// In place of the template's default.
        priority: Option<Priority>,
        /// Seconds, in place of the template's default.
        ttl: Option<u32>,
        /// Echoed in the metadata.
        correlation_id: Option<Box<str>>,
        /// Only from broadcasts; echoed in the metadata.
        audience: Option<Audience>,
    },
}

/// One publish: to whom, and what.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishRequest {
    /// To whom.
    pub target: Target,
    /// What.
    pub content: ContentSource,
}

/// `POST /notifications/send`: one user, of any id up to [`limits::USER_ID_CHARS_MAX`] characters.
pub fn parse_send(body: &[u8]) -> Result<PublishRequest, BodyError> {
    parse(body, "target_user_id", |user| {
        let user = body::text(user, "target_user_id")?;
        body::check_user_id(&user, "target_user_id")?;
        Ok((Target::User(user), None))
    })
}

/// `POST /notifications/send-to-users`: up to [`limits::PUBLISH_USERS_MAX`] users, counted as sent, kept once each.
pub fn parse_send_to_users(body: &[u8]) -> Result<PublishRequest, BodyError> {
    parse(body, "target_user_ids", |users| {
        let users = body::texts(body::required(users, "target_user_ids")?, "target_user_ids")?;
        check_count(users.len(), limits::PUBLISH_USERS_MAX, "target_user_ids")?;
        Ok((Target::Users(body::users(users, "target_user_ids")?), None))
    })
}

/// `POST /notifications/broadcast`: everybody of the tenant, perhaps narrowed to an audience.
pub fn parse_broadcast(body: &[u8]) -> Result<PublishRequest, BodyError> {
    parse(body, "audience", |audience| Ok((Target::Broadcast, parse_audience(audience)?)))
}

/// `POST /notifications/channel`: one channel. Its name is not checked: one that nobody can subscribe to has no
/// subscribers.
pub fn parse_channel(body: &[u8]) -> Result<PublishRequest, BodyError> {
    parse(body, "channel", |channel| Ok((Target::Channel(body::text(channel, "channel")?), None)))
}

/// `POST /notifications/channels`: up to [`limits::PUBLISH_CHANNELS_MAX`] channels, counted as sent, kept once each.
pub fn parse_channels(body: &[u8]) -> Result<PublishRequest, BodyError> {
    parse(body, "channels", |channels| {
        let channels = body::texts(body::required(channels, "channels")?, "channels")?;
        check_count(channels.len(), limits::PUBLISH_CHANNELS_MAX, "channels")?;
        Ok((Target::Channels(body::unique(channels)), None))
    })
}

/// The whole body: shape before bounds, as the original answers.
fn parse(
    body: &[u8],
    route_field: &'static str,
    target: impl FnOnce(Option<Json<'_>>) -> Result<(Target, Option<Audience>), Fault>,
) -> Result<PublishRequest, BodyError> {
    let fields = Json::parse(body)?.fields(&body::send_fields(route_field)).map_err(Fault::from)?;
    let target = target(fields[7]);
    let (target, audience) = match target {
        // A body of the wrong shape is that first, even if a bound is exceeded as well.
        Err(Fault::Invalid(what)) => {
            body::content(&fields, None)?;
            return Err(Fault::Invalid(what).into());
        }
        target => target?,
    };
    Ok(PublishRequest { target, content: body::content(&fields, audience)? })
}

fn parse_audience(value: Option<Json<'_>>) -> Result<Option<Audience>, Fault> {
    match value {
        Some(value) if !value.is_null() => {
            let audience = if value.is_object() { value.decode() } else { None };
            audience.map(Some).ok_or_else(|| {
                Fault::not("audience", r#"null, {"type":"All"} or a `type` of `Roles`, `Users`, `Channels` with an array of strings as `value`"#)
            })
        }
        _ => Ok(None),
    }
}

fn check_count(given: usize, bound: usize, field: &str) -> Result<(), Fault> {
    if given <= bound {
        return Ok(());
    }
    Err(Fault::Invalid(format!("{field} exceeds maximum of {bound} (got {given})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(body: &str) -> Content {
        match parse_send(body.as_bytes()).unwrap().content {
            ContentSource::Direct(content) => content,
            other => panic!("not direct: {other:?}"),
        }
    }

    fn status(parsed: Result<PublishRequest, BodyError>) -> u16 {
        parsed.map_or_else(|error| error.status(), |_| 200)
    }

    #[test]
    fn a_direct_send_is_kept_as_given() {
        let request = parse_send(
            br#" {"target_user_id":"u1","event_type":"order.created","payload":{ "b" : 1.50, "a": 1e3, "a": 2 },
                 "priority":"High","ttl":3600,"correlation_id":"req-1","source":"k6"} "#,
        )
        .unwrap();
        assert_eq!(request.target, Target::User("u1".into()));
        let ContentSource::Direct(content) = request.content else { panic!("not direct") };
        assert_eq!(&*content.event_type, "order.created");
        assert_eq!(content.payload.as_str(), r#"{"b":1.50,"a":1e3,"a":2}"#);
        assert_eq!((content.priority, content.ttl), (Priority::High, Some(3600)));
        assert_eq!(content.correlation_id.as_deref(), Some("req-1"));
        assert_eq!(content.audience, None);
    }

    #[test]
    fn what_may_be_absent_has_defaults() {
        let content = direct(
            r#"{"target_user_id":"","event_type":"","payload":null,"priority":null,"ttl":null,"correlation_id":null}"#,
        );
        assert_eq!(content.payload.as_str(), "null");
        assert_eq!((content.priority, content.ttl, content.correlation_id), (Priority::Normal, None, None));
    }

    #[test]
    fn refusals_tell_syntax_from_shape_from_bounds() {
        let rows = [
            ("", 400),
            ("{", 400),
            (r#"{"target_user_id":"u","event_type":"e","payload":1}x"#, 400),
            (r#"{"target_user_id":5,"event_type":"e","payload":}"#, 400),
            ("[]", 422),
            (r#""u""#, 422),
            (r#"["e",1]"#, 422),
            (r#"{"event_type":"e","payload":1}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e"}"#, 422),
            (r#"{"target_user_id":"u","payload":1}"#, 422),
            (r#"{"target_user_id":"u","event_type":5,"payload":1}"#, 422),
            (r#"{"target_user_id":5,"event_type":"e","payload":1}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"priority":"high"}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"ttl":-1}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"ttl":1.0}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"ttl":4294967296}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"correlation_id":7}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"payload":2}"#, 422),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"channel":5,"channel":6}"#, 200),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"audience":"nonsense"}"#, 200),
            (r#"{"target_user_id":"u","event_type":"e","payload":1,"template_id":7}"#, 200),
        ];
        for (body, expected) in rows {
            assert_eq!(status(parse_send(body.as_bytes())), expected, "{body}");
        }
        assert_eq!(status(parse_send(b"{\"target_user_id\":\"\xff\",\"event_type\":\"e\",\"payload\":1}")), 400);
    }

    #[test]
    fn refusals_are_short_and_quote_no_payload() {
        let secret = "s3cret".repeat(10_000);
        for body in [
            format!(r#"{{"target_user_id":"u","event_type":"e","payload":"{secret}","ttl":"{secret}"}}"#),
            format!(r#"{{"target_user_id":"u","event_type":"e","payload":"{secret}","priority":"{secret}"}}"#),
            format!(r#"{{"target_user_id":"{secret}","event_type":"e","payload":"{secret}"}}"#),
            format!(r#"{{"target_user_id":"u","payload":"{secret}","x":{secret}}}"#),
            format!(r#""{secret}""#),
        ] {
            let error = parse_send(body.as_bytes()).unwrap_err();
            assert!(error.message().len() <= 300, "{} bytes", error.message().len());
            assert!(!error.message().contains("s3cret"), "{error}");
        }
        assert_eq!(
            parse_send(br#"{"event_type":"e","payload":1}"#).unwrap_err().message(),
            "Failed to deserialize the JSON body into the target type: missing field `target_user_id`"
        );
        assert_eq!(
            parse_send(b"{\n1").unwrap_err().message(),
            "Failed to parse the request body as JSON: key must be a string at line 2 column 1"
        );
    }

    #[test]
    fn depth_counts_the_outer_object_and_unknown_fields() {
        let body = |field: &str, n: usize| {
            let (open, close) = ("[".repeat(n), "]".repeat(n));
            format!(r#"{{"target_user_id":"u","event_type":"e","payload":1,"{field}":{open}{close}}}"#)
        };
        for field in ["x", "variables"] {
            assert_eq!(status(parse_send(body(field, 126).as_bytes())), 200);
            let error = parse_send(body(field, 127).as_bytes()).unwrap_err();
            assert_eq!(error.message(), "Failed to parse the request body as JSON: recursion limit exceeded");
        }
    }

    #[test]
    fn a_template_wins_over_direct_fields() {
        let request = parse_send(
            br#"{"target_user_id":"u","template_id":"t1","event_type":5,"payload":{},"variables":{"a":1},"priority":"Low"}"#,
        )
        .unwrap();
        let ContentSource::Template { template_id, priority, ttl, variables, .. } = request.content else {
            panic!("not a template")
        };
        assert_eq!((&*template_id, priority, ttl), ("t1", Some(Priority::Low), None));
        assert_ne!(variables, Variables::default());
        // A `template_id` that is no string is no template mode, so the direct fields are asked for.
        assert_eq!(status(parse_send(br#"{"target_user_id":"u","template_id":null,"variables":{}}"#)), 422);
    }

    #[test]
    fn users_are_counted_as_sent_and_kept_once() {
        let body = |ids: &str| format!(r#"{{"target_user_ids":[{ids}],"event_type":"e","payload":1}}"#);
        let target = |ids: &str| parse_send_to_users(body(ids).as_bytes()).unwrap().target;
        assert_eq!(target(""), Target::Users([].into()));
        assert_eq!(target(r#""b","a","b","\u0061""#), Target::Users(["b".into(), "a".into()].into()));
        let many = |n: usize| vec![r#""u""#; n].join(",");
        assert_eq!(target(&many(10_000)), Target::Users(["u".into()].into()));
        assert_eq!(
            parse_send_to_users(body(&many(10_001)).as_bytes()),
            Err(BodyError::Invalid("target_user_ids exceeds maximum of 10000 (got 10001)".to_owned()))
        );
        assert_eq!(status(parse_send_to_users(body("1").as_bytes())), 422);
        let long = format!(r#""ok","{}""#, "x".repeat(256));
        assert_eq!(
            parse_send_to_users(body(&long).as_bytes()).unwrap_err().message(),
            "target_user_ids[1] exceeds maximum of 255 characters (got 256)"
        );
        assert_eq!(
            parse_send_to_users(body(r#""ok","a\u0000""#).as_bytes()).unwrap_err().message(),
            "target_user_ids[1] contains the character U+0000"
        );
        // The wrong shape is told before the exceeded bound.
        let both = format!(r#"{{"target_user_ids":[{}],"event_type":"e"}}"#, many(10_001));
        assert_eq!(status(parse_send_to_users(both.as_bytes())), 422);
    }

    #[test]
    fn channels_are_counted_as_sent_and_kept_once() {
        let body = |names: &str| format!(r#"{{"channels":[{names}],"event_type":"e","payload":1}}"#);
        let request = parse_channels(body(r#""b","a b","b""#).as_bytes()).unwrap();
        assert_eq!(request.target, Target::Channels(["b".into(), "a b".into()].into()));
        let many = vec![r#""c""#; 101].join(",");
        assert_eq!(
            parse_channels(body(&many).as_bytes()).unwrap_err().message(),
            "channels exceeds maximum of 100 (got 101)"
        );
        let one = parse_channel(br#"{"channel":"a:b","event_type":"e","payload":1}"#).unwrap();
        assert_eq!(one.target, Target::Channel("a:b".into()));
        assert_eq!(status(parse_channel(br#"{"channel":null,"event_type":"e","payload":1}"#)), 422);
    }

    #[test]
    fn a_broadcast_may_have_an_audience() {
        let parse = |audience: &str| {
            let body = format!(r#"{{"event_type":"e","payload":1,"audience":{audience}}}"#);
            parse_broadcast(body.as_bytes()).map(|request| match request.content {
                ContentSource::Direct(content) => content.audience,
                other => panic!("not direct: {other:?}"),
            })
        };
        assert_eq!(parse("null"), Ok(None));
        assert_eq!(parse(r#"{"type":"All"}"#), Ok(Some(Audience::All)));
        assert_eq!(parse(r#"{"value":["admin"],"type":"Roles"}"#), Ok(Some(Audience::Roles(vec!["admin".into()]))));
        for wrong in [r#""All""#, r#"{"type":"roles","value":[]}"#, r#"{"type":"Users"}"#, r#"["Roles",["a"]]"#, "{}"] {
            assert_eq!(parse(wrong).unwrap_err().status(), 422, "{wrong}");
        }
        let bare = parse_broadcast(br#"{"event_type":"e","payload":1}"#).unwrap();
        assert_eq!(bare.target, Target::Broadcast);
    }
}
