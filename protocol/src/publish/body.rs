//! What the bodies of publishers have in common: how a refusal reads, and the fields of every send.
use crate::ids;
use crate::json::{FieldsError, Json, TextError};
use crate::limits;
use crate::notification::{Audience, Content, Priority};
use crate::publish::request::ContentSource;
use crate::template::Variables;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

/// A refusal's text never grows beyond this, whatever was sent.
const MESSAGE_BYTES_MAX: usize = 300;

/// Why a body was refused (contract §1.6): always the publisher's doing, so sending it again is of no use.
///
/// The texts are at most 300 bytes and never hold a piece of a payload (C-17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// Not JSON, not UTF-8, empty, followed by something, or nested too deeply: 400.
    Syntax(String),
    /// JSON of the wrong shape: a field missing, ill-typed or doubled: 422.
    Shape(String),
    /// The right shape, but a bound is exceeded: 400.
    Invalid(String),
}

impl BodyError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            BodyError::Syntax(_) | BodyError::Invalid(_) => 400,
            BodyError::Shape(_) => 422,
        }
    }

    /// The code of the error body (contract §1.6, C-5).
    pub fn code(&self) -> &'static str {
        match self {
            BodyError::Syntax(_) => "BAD_REQUEST",
            BodyError::Shape(_) => "UNPROCESSABLE",
            BodyError::Invalid(_) => "VALIDATION_ERROR",
        }
    }

    /// The message of the error body.
    pub fn message(&self) -> &str {
        match self {
            BodyError::Syntax(text) | BodyError::Shape(text) | BodyError::Invalid(text) => text,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for BodyError {}

impl From<TextError> for BodyError {
    fn from(error: TextError) -> BodyError {
        BodyError::Syntax(bounded(format!("Failed to parse the request body as JSON: {error}")))
    }
}

impl From<Fault> for BodyError {
    fn from(fault: Fault) -> BodyError {
        match fault {
            Fault::Shape(what) => {
                BodyError::Shape(bounded(format!("Failed to deserialize the JSON body into the target type: {what}")))
            }
            Fault::Invalid(what) => BodyError::Invalid(bounded(what)),
        }
    }
}

fn bounded(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// What is wrong with a value, before it is known which body it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Missing, ill-typed or doubled.
    Shape(String),
    /// Beyond a bound.
    Invalid(String),
}

impl Fault {
    pub(crate) fn missing(field: &str) -> Fault {
        Fault::Shape(format!("missing field `{field}`"))
    }

    pub(crate) fn not(field: &str, expected: &str) -> Fault {
        Fault::Shape(format!("`{field}` must be {expected}"))
    }

    /// The same fault, said of the `index`-th value of a list.
    pub(crate) fn inside(self, list: &str, index: usize) -> Fault {
        match self {
            Fault::Shape(what) => Fault::Shape(format!("{list}[{index}]: {what}")),
            Fault::Invalid(what) => Fault::Invalid(format!("{list}[{index}]: {what}")),
        }
    }
}

impl From<FieldsError> for Fault {
    fn from(error: FieldsError) -> Fault {
        Fault::Shape(match error {
            FieldsError::NotAnObject => "expected an object".to_owned(),
            FieldsError::Duplicate(field) => format!("duplicate field `{field}`"),
        })
    }
}

/// A field that must be there.
pub(crate) fn required<'a>(value: Option<Json<'a>>, field: &str) -> Result<Json<'a>, Fault> {
    value.ok_or_else(|| Fault::missing(field))
}

/// A field that must be there and be a string.
pub(crate) fn text(value: Option<Json<'_>>, field: &str) -> Result<Box<str>, Fault> {
    let text = required(value, field)?.string().ok_or_else(|| Fault::not(field, "a string"))?;
    Ok(text.into_owned().into_boxed_str())
}

/// A string; absent and `null` are none.
pub(crate) fn optional_text(value: Option<Json<'_>>, field: &str) -> Result<Option<Box<str>>, Fault> {
    match value {
        Some(value) if !value.is_null() => text(Some(value), field).map(Some),
        _ => Ok(None),
    }
}

/// One of the four priorities, spelled exactly; absent and `null` are none.
pub(crate) fn priority(value: Option<Json<'_>>, field: &str) -> Result<Option<Priority>, Fault> {
    match value {
        Some(value) if !value.is_null() => value
            .decode()
            .map(Some)
            .ok_or_else(|| Fault::not(field, "one of `Low`, `Normal`, `High`, `Critical` or null")),
        _ => Ok(None),
    }
}

/// Whole seconds; absent and `null` are none.
pub(crate) fn seconds(value: Option<Json<'_>>, field: &str) -> Result<Option<u32>, Fault> {
    match value {
        Some(value) if !value.is_null() => {
            value.unsigned().map(Some).ok_or_else(|| Fault::not(field, "an integer of 0..=4294967295 or null"))
        }
        _ => Ok(None),
    }
}

/// The strings of an array.
pub(crate) fn texts<'a>(value: Json<'a>, field: &str) -> Result<Vec<Cow<'a, str>>, Fault> {
    value
        .elements()
        .and_then(|elements| elements.into_iter().map(Json::string).collect())
        .ok_or_else(|| Fault::not(field, "an array of strings"))
}

/// Each text once, at its first place: a repeated recipient is one recipient (W-29).
pub(crate) fn unique(texts: Vec<Cow<'_, str>>) -> Box<[Box<str>]> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::with_capacity(texts.len());
    for text in texts {
        if !seen.contains(&text) {
            kept.push(Box::from(&*text));
            seen.insert(text);
        }
    }
    kept.into_boxed_slice()
}

/// A user id must fit every backend.
pub(crate) fn check_user_id(id: &str, field: &str) -> Result<(), Fault> {
    if ids::is_user_id(id) {
        return Ok(());
    }
    if id.contains('\0') {
        return Err(Fault::Invalid(format!("{field} contains the character U+0000")));
    }
    let (given, bound) = (id.chars().count(), limits::USER_ID_CHARS_MAX);
    Err(Fault::Invalid(format!("{field} exceeds maximum of {bound} characters (got {given})")))
}

/// Users of a list, each once and each of a bearable length.
pub(crate) fn users(users: Vec<Cow<'_, str>>, field: &str) -> Result<Box<[Box<str>]>, Fault> {
    if let Some(index) = users.iter().position(|user| !ids::is_user_id(user)) {
        check_user_id(&users[index], &format!("{field}[{index}]"))?;
    }
    Ok(unique(users))
}

/// The seven fields of every send (contract §1.7), then the one that its route adds.
pub(crate) const fn send_fields(route_field: &'static str) -> [&'static str; 8] {
    ["event_type", "payload", "template_id", "variables", "priority", "ttl", "correlation_id", route_field]
}

/// The content of a send: by template if `template_id` is a string, whatever else is there (contract §1.7).
pub(crate) fn content(fields: &[Option<Json<'_>>; 8], audience: Option<Audience>) -> Result<ContentSource, Fault> {
    let [event_type, payload, template_id, variables, priority_field, ttl, correlation_id, _] = *fields;
    let priority = priority(priority_field, "priority")?;
    let ttl = seconds(ttl, "ttl")?;
    let correlation_id = optional_text(correlation_id, "correlation_id")?;
    if let Some(template_id) = template_id.and_then(Json::string) {
        return Ok(ContentSource::Template {
            template_id: Box::from(&*template_id),
            variables: Variables::from_json(variables),
            priority,
            ttl,
            correlation_id,
            audience,
        });
    }
    Ok(ContentSource::Direct(Content {
        event_type: text(event_type, "event_type")?,
        payload: required(payload, "payload")?.payload(),
        priority: priority.unwrap_or_default(),
        ttl,
        correlation_id,
        audience,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{batch, redis, request};
    use crate::template;

    const SAMPLES: [&str; 5] = [
        r#"{"target_user_id":"u\u00e9","event_type":"e","payload":{"b":[1.50,"\ud83d\ude00"],"a":null},"ttl":1,"priority":"Low"}"#,
        r#"{"target_user_ids":["a","b"],"template_id":"t","variables":{"a":{"b":[1,{"c":"x"}]},"d":"\"{{a}}\""}}"#,
        r#"{"notifications":[{"target":{"type":"users","value":["a"]},"event_type":"e","payload":1}],"options":{"deduplicate":true}}"#,
        r#"{"type":"channels","target":["a"],"tenant_id":"t","event":{"event_type":"e","payload":[[]],"correlation_id":"c"}}"#,
        r#"{"id":"t","name":"n","event_type":"e","payload_template":{"{{a.b}}":"\u007b{d}} {{a}}","k":7},"default_ttl":5}"#,
    ];

    /// Whatever comes in, no parser panics, no refusal is long, and what is taken is JSON again.
    #[test]
    fn damaged_bodies_are_refused_or_understood() {
        let mut random = fastrand::Rng::with_seed(7);
        let is_json = |payload: &str| assert!(Json::parse(payload.as_bytes()).is_ok(), "{payload}");
        let mut taken = 0;
        for round in 0..10_000 {
            let mut body = SAMPLES[round % SAMPLES.len()].as_bytes().to_vec();
            for _ in 0..random.usize(0..4) {
                let at = random.usize(0..body.len());
                match random.u8(0..3) {
                    0 => body[at] = *random.choice(br#"{}[]",:\u0eE-. ntf"#).unwrap_or(&0xff),
                    1 => drop(body.drain(at..(at + random.usize(1..6)).min(body.len() - 1).max(at))),
                    _ => body.insert(at, *random.choice(br#"{}[]",:\1 "#).unwrap_or(&0x80)),
                }
            }
            let parsers = [
                request::parse_send,
                request::parse_send_to_users,
                request::parse_broadcast,
                request::parse_channel,
                request::parse_channels,
            ];
            for parse in parsers {
                match parse(&body) {
                    Ok(request) => {
                        taken += 1;
                        if let ContentSource::Direct(content) = &request.content {
                            is_json(content.payload.as_str());
                        }
                    }
                    Err(error) => assert!(error.message().len() <= MESSAGE_BYTES_MAX),
                }
            }
            if let Ok(batch) = batch::parse_batch(&body) {
                taken += 1;
                assert_eq!(batch.duplicates().len(), batch.items.len());
            }
            if let Ok(publish) = redis::parse_redis(&body) {
                taken += 1;
                is_json(publish.content.payload.as_str());
            }
            if let Ok(template) = template::parse_create(&body, 0) {
                taken += 1;
                let variables = Json::parse(br#"{"a":{"b":[1]},"d":"\"}"}"#).ok();
                let rendered = template.render(&Variables::from_json(variables));
                is_json(rendered.as_ref().map_or("?", |payload| payload.as_str()));
            }
        }
        assert!(taken > 500, "the samples are mostly left whole: {taken}");
    }
}
