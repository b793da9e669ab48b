//! What a client says in a text message (contract §3.4).
use crate::ids::NotificationId;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use uuid::Uuid;

/// Bytes of a [`CommandError`]'s text: it goes back to the client, who must not be able to make it long.
pub const COMMAND_ERROR_BYTES_MAX: usize = 200;

/// A client's wish. Names are as the client wrote them, neither checked nor deduplicated: replies speak of every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To hear channels.
    Subscribe {
        /// In the client's order; may be empty.
        channels: Vec<Box<str>>,
    },
    /// To hear channels no longer.
    Unsubscribe {
        /// In the client's order; may be empty.
        channels: Vec<Box<str>>,
    },
    /// To hear `pong`.
    Ping,
    /// A notification has arrived.
    Ack {
        /// Which.
        notification_id: NotificationId,
    },
    /// To go on with another token.
    Refresh {
        /// As the client wrote it; whoever verifies it bounds it.
        token: Secret,
    },
}

/// A text that no log line may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Box<str>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why a text is no command; the client's doing. Holds the message of `INVALID_MESSAGE`, at most
/// [`COMMAND_ERROR_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError(pub String);

impl CommandError {
    fn new(text: impl fmt::Display) -> CommandError {
        const CUT: &str = "…";
        let mut text = text.to_string();
        if text.len() > COMMAND_ERROR_BYTES_MAX {
            let mut end = COMMAND_ERROR_BYTES_MAX - CUT.len();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(CUT);
        }
        CommandError(text)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CommandError {}

/// The outer object. The payload stays text until the type is known, so the keys may come in any order and what is
/// ignored is only skipped: serde_json skips without recursion and without a limit, and stops at 128 levels where it
/// does recurse.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Channels {
    channels: Vec<Box<str>>,
}

#[derive(Deserialize)]
struct Receipt<'a> {
    #[serde(borrow)]
    notification_id: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Renewal {
    token: Box<str>,
}

/// Reads one command. The text is bounded by [`crate::limits::WS_MESSAGE_BYTES_MAX`], so what it holds is, too.
pub fn parse(text: &str) -> Result<Command, CommandError> {
    let envelope: Envelope<'_> = object(text, "message")?;
    let payload = envelope.payload.map(RawValue::get);
    let required = || payload.ok_or_else(|| CommandError::new("missing field `payload`"));
    match &*envelope.kind {
        "Subscribe" => Ok(Command::Subscribe { channels: channels(required()?)? }),
        "Unsubscribe" => Ok(Command::Unsubscribe { channels: channels(required()?)? }),
        "Ping" => match payload {
            Some(payload) if !payload.starts_with('{') => Err(CommandError::new("payload of `Ping` must be absent")),
            _ => Ok(Command::Ping),
        },
        "Ack" => {
            let receipt: Receipt<'_> = object(required()?, "payload")?;
            let uuid = Uuid::try_parse(&receipt.notification_id)
                .map_err(|error| CommandError::new(format_args!("notification_id is not a UUID: {error}")))?;
            Ok(Command::Ack { notification_id: NotificationId(uuid) })
        }
        "Refresh" => {
            // What the parser says of a wrong value may quote it.
            let renewal: Result<Renewal, _> = object(required()?, "payload");
            let Renewal { token } = renewal
                .map_err(|_| CommandError::new("payload of `Refresh` must be an object with a string `token`"))?;
            Ok(Command::Refresh { token: Secret(token) })
        }
        unknown => Err(CommandError::new(format_args!(
            "unknown type, expected one of `Subscribe`, `Unsubscribe`, `Ping`, `Ack`, `Refresh`: `{unknown}`"
        ))),
    }
}

fn channels(payload: &str) -> Result<Vec<Box<str>>, CommandError> {
    object::<Channels>(payload, "payload").map(|payload| payload.channels)
}

/// Reads an object. Without the look at its first byte an array of the fields' values would pass for one.
fn object<'a, T: Deserialize<'a>>(text: &'a str, what: &str) -> Result<T, CommandError> {
    let value = serde_json::from_str(text).map_err(CommandError::new);
    if value.is_ok() && !text.trim_start().starts_with('{') {
        return Err(CommandError::new(format_args!("{what} must be an object")));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    #[test]
    fn commands_are_understood_in_any_key_order_with_anything_beside() {
        let rows = [
            (
                r#"{"type":"Subscribe","payload":{"channels":["orders","v1.events","orders"]}}"#,
                Command::Subscribe { channels: names(&["orders", "v1.events", "orders"]) },
            ),
            (
                r#" { "payload" : { "x" : 1, "channels" : [ "a b", "" ] } , "y" : [], "type" : "Unsubscribe" } "#,
                Command::Unsubscribe { channels: names(&["a b", ""]) },
            ),
            (r#"{"type":"Subscribe","payload":{"channels":[]}}"#, Command::Subscribe { channels: names(&[]) }),
            (
                r#"{"type":"Subscribe","payload":{"channels":["\u8a02\u55ae","订单"]}}"#,
                Command::Subscribe { channels: names(&["訂單", "订单"]) },
            ),
            (r#"{"type":"Ping"}"#, Command::Ping),
            (r#"{"type":"\u0050ing","payload":null}"#, Command::Ping),
            (r#"{"payload":{},"type":"Ping"}"#, Command::Ping),
            (r#"{"type":"Ping","payload": { } ,"id":7}"#, Command::Ping),
            (
                r#"{"payload":{"x":1,"token":"a.b\u002ec"},"type":"Refresh"}"#,
                Command::Refresh { token: Secret("a.b.c".into()) },
            ),
        ];
        for (text, command) in rows {
            assert_eq!(parse(text), Ok(command), "{text}");
        }
    }

    #[test]
    fn a_uuid_is_read_in_every_form() {
        let upper = ID.to_uppercase();
        let simple = ID.replace('-', "");
        let braced = format!("{{{ID}}}");
        let urn = format!("urn:uuid:{ID}");
        for form in [ID, &upper, &simple, &simple.to_uppercase(), &braced, &urn] {
            let text = format!(r#"{{"type":"Ack","payload":{{"notification_id":"{form}"}}}}"#);
            let Ok(Command::Ack { notification_id }) = parse(&text) else { panic!("{text}") };
            assert_eq!(notification_id.to_string(), ID);
        }
    }

    #[test]
    fn what_is_no_command_is_refused_with_words() {
        let rows = [
            ("", "EOF"),
            ("hello", "expected"),
            ("{", "EOF"),
            ("{}", "missing field `type`"),
            ("null", "invalid type: null"),
            (r#"{"type":"Ping"} x"#, "trailing characters"),
            (r#"{"type":"ping"}"#, "unknown type"),
            (r#"{"type":1}"#, "invalid type"),
            (r#"{"type":"Ping","type":"Ping"}"#, "duplicate field `type`"),
            (r#"["Ping",null]"#, "message must be an object"),
            (r#"{"type":"Ping","payload":1}"#, "payload of `Ping` must be absent"),
            (r#"{"type":"Ping","payload":[]}"#, "payload of `Ping` must be absent"),
            (r#"{"type":"Subscribe"}"#, "missing field `payload`"),
            (r#"{"type":"Subscribe","payload":null}"#, "missing field `payload`"),
            (r#"{"type":"Subscribe","payload":{}}"#, "missing field `channels`"),
            (r#"{"type":"Subscribe","payload":[["a"]]}"#, "payload must be an object"),
            (r#"{"type":"Subscribe","channels":["a"]}"#, "missing field `payload`"),
            (r#"{"type":"Subscribe","payload":{"channels":"a"}}"#, "invalid type: string"),
            (r#"{"type":"Subscribe","payload":{"channels":[1]}}"#, "invalid type: integer"),
            (r#"{"type":"Subscribe","payload":{"channels":["\ud800"]}}"#, "hex escape"),
            (r#"{"type":"Ack","payload":{}}"#, "missing field `notification_id`"),
            (r#"{"type":"Ack","payload":{"notification_id":"x"}}"#, "notification_id is not a UUID"),
            (r#"{"type":"Ack","payload":{"notification_id":null}}"#, "invalid type: null"),
            (r#"{"type":"Refresh"}"#, "missing field `payload`"),
            (r#"{"type":"Refresh","payload":{}}"#, "must be an object with a string `token`"),
            (r#"{"type":"Refresh","payload":["a.b.c"]}"#, "must be an object with a string `token`"),
        ];
        for (text, words) in rows {
            let error = parse(text).expect_err(text);
            assert!(error.0.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_token_is_shown_to_nobody() {
        let command = parse(r#"{"type":"Refresh","payload":{"token":"s3cret"}}"#).unwrap();
        assert!(!format!("{command:?}").contains("s3cret"));
        for payload in [r#""s3cret""#, r#"{"token":{"s3cret":1}}"#, r#"{"token":["s3cret"]}"#, r#"{"token":"s3cret"}x"#]
        {
            let error = parse(&format!(r#"{{"type":"Refresh","payload":{payload}}}"#)).unwrap_err();
            assert!(!error.0.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn words_stay_short_whatever_was_said() {
        let long = "訊".repeat(20_000);
        let rows = [
            format!(r#"{{"type":"{long}"}}"#),
            format!(r#"{{"type":"Subscribe","payload":{{"channels":"{long}"}}}}"#),
            format!(r#"{{"type":"Ack","payload":{{"notification_id":"{long}"}}}}"#),
        ];
        for text in rows {
            let error = parse(&text).unwrap_err();
            assert!(error.0.len() <= COMMAND_ERROR_BYTES_MAX, "{}", error.0.len());
        }
    }

    #[test]
    fn nesting_never_costs_the_stack() {
        let deep = "[".repeat(32_000) + &"]".repeat(32_000);
        assert_eq!(parse(&format!(r#"{{"x":{deep},"type":"Ping"}}"#)), Ok(Command::Ping));
        assert_eq!(parse(&format!(r#"{{"type":"Ping","payload":{{"x":{deep}}}}}"#)), Ok(Command::Ping));
        let rows = [
            format!(r#"{{"type":{deep}}}"#),
            format!(r#"{{"type":"Subscribe","payload":{deep}}}"#),
            format!(r#"{{"type":"Subscribe","payload":{{"channels":{deep}}}}}"#),
            "[".repeat(65_536),
            r#"{"x":"#.repeat(13_000),
        ];
        for text in rows {
            assert!(parse(&text).is_err());
        }
    }
}
