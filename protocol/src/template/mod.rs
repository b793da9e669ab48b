//! Templates: kept by a tenant, named by its sends (contract §7, C-15).
mod render;
mod variables;

pub use render::RenderError;
pub use variables::Variables;

use crate::clock;
use crate::json::{self, Json};
use crate::limits;
use crate::notification::{Payload, Priority};
use crate::publish::body::{self, Fault};
use crate::publish::request::BodyError;
use std::fmt;

/// A kept template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Bare id, unique in its tenant: 1..=130 bytes of letters, digits, `-`, `_`, `:`. A tenant's name has no `:`, so
    /// a store may join the two with one.
    pub id: Box<str>,
    /// For people: 1..=256 bytes.
    pub name: Box<str>,
    /// Of the notifications it makes: 1..=128 bytes. Not rendered.
    pub event_type: Box<str>,
    /// What is rendered, kept exactly.
    pub payload_template: Payload,
    /// When a send names none.
    pub default_priority: Priority,
    /// Seconds, when a send names none.
    pub default_ttl: Option<u32>,
    /// For people.
    pub description: Option<Box<str>>,
    /// Nanoseconds since the Unix epoch.
    pub created_at_ns: u64,
    /// Nanoseconds since the Unix epoch.
    pub updated_at_ns: u64,
}

/// Why a template was refused (contract §1.6): always the caller's doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// The body is no JSON (400) or has the wrong shape (422).
    Body(BodyError),
    /// The id is empty or longer than [`limits::TEMPLATE_ID_BYTES_MAX`]: 400.
    IdLength,
    /// The id has a character that ids do not have: 400.
    IdCharacters,
    /// The name is empty or longer than [`limits::TEMPLATE_NAME_BYTES_MAX`]: 400.
    NameLength,
    /// The event type is empty or longer than [`limits::TEMPLATE_EVENT_TYPE_BYTES_MAX`]: 400.
    EventTypeLength,
}

impl TemplateError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            TemplateError::Body(error) => error.status(),
            _ => 400,
        }
    }

    /// The code of the error body.
    pub fn code(&self) -> &'static str {
        match self {
            TemplateError::Body(error) => error.code(),
            TemplateError::IdLength | TemplateError::IdCharacters => "INVALID_ID",
            TemplateError::NameLength | TemplateError::EventTypeLength => "INVALID_TEMPLATE",
        }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use limits::{TEMPLATE_EVENT_TYPE_BYTES_MAX, TEMPLATE_ID_BYTES_MAX, TEMPLATE_NAME_BYTES_MAX};
        match self {
            TemplateError::Body(error) => error.fmt(f),
            TemplateError::IdLength => {
                write!(f, "Invalid template ID: ID must be 1-{TEMPLATE_ID_BYTES_MAX} characters")
            }
            TemplateError::IdCharacters => {
                f.write_str("Invalid template ID: ID must contain only alphanumeric, dash, underscore, or colon")
            }
            TemplateError::NameLength => {
                write!(f, "Invalid template: Name must be 1-{TEMPLATE_NAME_BYTES_MAX} characters")
            }
            TemplateError::EventTypeLength => {
                write!(f, "Invalid template: Event type must be 1-{TEMPLATE_EVENT_TYPE_BYTES_MAX} characters")
            }
        }
    }
}

impl std::error::Error for TemplateError {}

impl From<BodyError> for TemplateError {
    fn from(error: BodyError) -> TemplateError {
        TemplateError::Body(error)
    }
}

impl From<Fault> for TemplateError {
    fn from(fault: Fault) -> TemplateError {
        TemplateError::Body(fault.into())
    }
}

/// The fields a body may have. The last two are other names of the defaults, read only when those are absent (C-15).
const FIELDS: [&str; 9] = [
    "id",
    "name",
    "event_type",
    "payload_template",
    "description",
    "default_priority",
    "default_ttl",
    "priority",
    "ttl",
];

/// `POST /templates`: a whole template, made at `unix_ns`.
pub fn parse_create(body: &[u8], unix_ns: u64) -> Result<Template, TemplateError> {
    let fields = Json::parse(body).map_err(BodyError::from)?.fields(&FIELDS).map_err(Fault::from)?;
    let [id, name, event_type, payload_template, description, ..] = fields;
    let template = Template {
        id: body::text(id, "id")?,
        name: body::text(name, "name")?,
        event_type: body::text(event_type, "event_type")?,
        payload_template: body::required(payload_template, "payload_template")?.payload(),
        default_priority: default_priority(&fields)?.unwrap_or_default(),
        default_ttl: default_ttl(&fields)?.flatten(),
        description: body::optional_text(description, "description")?,
        created_at_ns: unix_ns,
        updated_at_ns: unix_ns,
    };
    template.check()?;
    Ok(template)
}

/// A template as a store kept it: what [`Template::write`] wrote, checked like one that is new. `None` for anything else;
/// whose doing that is, nobody knows.
pub fn parse_kept(text: &[u8]) -> Option<Template> {
    const KEPT: [&str; 9] = [
        "id",
        "name",
        "event_type",
        "payload_template",
        "default_priority",
        "default_ttl",
        "description",
        "created_at",
        "updated_at",
    ];
    let fields = Json::parse(text).ok()?.fields(&KEPT).ok()?;
    let [id, name, event_type, payload_template, default_priority, default_ttl, description, created_at, updated_at] =
        fields;
    let at_ns = |field: Option<Json<'_>>| clock::parse_rfc3339(&field?.string()?);
    let template = Template {
        id: body::text(id, "id").ok()?,
        name: body::text(name, "name").ok()?,
        event_type: body::text(event_type, "event_type").ok()?,
        payload_template: payload_template?.payload(),
        default_priority: body::priority(default_priority, "default_priority").ok()??,
        default_ttl: body::seconds(default_ttl, "default_ttl").ok()?,
        description: body::optional_text(description, "description").ok()?,
        created_at_ns: at_ns(created_at)?,
        updated_at_ns: at_ns(updated_at)?,
    };
    template.check().ok()?;
    Some(template)
}

/// What `PUT /templates/{id}` changes; what it does not name stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateUpdate {
    name: Option<Box<str>>,
    event_type: Option<Box<str>>,
    payload_template: Option<Payload>,
    default_priority: Option<Priority>,
    /// `Some(None)` clears it (W-30).
    default_ttl: Option<Option<u32>>,
    /// `Some(None)` clears it (W-30).
    description: Option<Option<Box<str>>>,
}

/// `PUT /templates/{id}`: any of the fields but `id`, which the path decides. `null` clears `default_ttl` and
/// `description` (W-30) and leaves the others, which cannot be absent, as they are.
pub fn parse_update(body: &[u8]) -> Result<TemplateUpdate, TemplateError> {
    let fields = Json::parse(body).map_err(BodyError::from)?.fields(&FIELDS).map_err(Fault::from)?;
    let [_, name, event_type, payload_template, description, ..] = fields;
    Ok(TemplateUpdate {
        name: body::optional_text(name, "name")?,
        event_type: body::optional_text(event_type, "event_type")?,
        payload_template: payload_template.filter(|value| !value.is_null()).map(Json::payload),
        default_priority: default_priority(&fields)?,
        default_ttl: default_ttl(&fields)?,
        description: match description {
            Some(_) => Some(body::optional_text(description, "description")?),
            None => None,
        },
    })
}

fn default_priority(fields: &[Option<Json<'_>>; 9]) -> Result<Option<Priority>, Fault> {
    match fields[5] {
        Some(value) => body::priority(Some(value), "default_priority"),
        None => body::priority(fields[7], "priority"),
    }
}

/// Absent is none, `null` is some none.
fn default_ttl(fields: &[Option<Json<'_>>; 9]) -> Result<Option<Option<u32>>, Fault> {
    match (fields[6], fields[8]) {
        (Some(value), _) => body::seconds(Some(value), "default_ttl").map(Some),
        (None, Some(value)) => body::seconds(Some(value), "ttl").map(Some),
        (None, None) => Ok(None),
    }
}

impl Template {
    /// The template with an update applied at `unix_ns`, checked as a whole; this one stays as it is.
    pub fn updated(&self, update: &TemplateUpdate, unix_ns: u64) -> Result<Template, TemplateError> {
        let update = update.clone();
        let template = Template {
            id: self.id.clone(),
            name: update.name.unwrap_or_else(|| self.name.clone()),
            event_type: update.event_type.unwrap_or_else(|| self.event_type.clone()),
            payload_template: update.payload_template.unwrap_or_else(|| self.payload_template.clone()),
            default_priority: update.default_priority.unwrap_or(self.default_priority),
            default_ttl: update.default_ttl.unwrap_or(self.default_ttl),
            description: update.description.unwrap_or_else(|| self.description.clone()),
            created_at_ns: self.created_at_ns,
            updated_at_ns: unix_ns,
        };
        template.check()?;
        Ok(template)
    }

    /// The payload with every known `{{name}}` replaced; the result is at most [`limits::RENDERED_BYTES_MAX`] long.
    pub fn render(&self, variables: &Variables) -> Result<Payload, RenderError> {
        render::render(&self.payload_template, variables)
    }

    /// Appends the response JSON of contract §7.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"id":"#);
        json::write_string(out, &self.id);
        out.extend_from_slice(br#","name":"#);
        json::write_string(out, &self.name);
        out.extend_from_slice(br#","event_type":"#);
        json::write_string(out, &self.event_type);
        out.extend_from_slice(br#","payload_template":"#);
        out.extend_from_slice(self.payload_template.as_str().as_bytes());
        out.extend_from_slice(br#","default_priority":"#);
        json::write_string(out, self.default_priority.as_str());
        if let Some(seconds) = self.default_ttl {
            out.extend_from_slice(br#","default_ttl":"#);
            json::write_value(out, &seconds);
        }
        if let Some(description) = &self.description {
            out.extend_from_slice(br#","description":"#);
            json::write_string(out, description);
        }
        out.extend_from_slice(br#","created_at":""#);
        clock::write_rfc3339(out, self.created_at_ns);
        out.extend_from_slice(br#"","updated_at":""#);
        clock::write_rfc3339(out, self.updated_at_ns);
        out.extend_from_slice(br#""}"#);
    }

    fn check(&self) -> Result<(), TemplateError> {
        let fits = |text: &str, bytes_max: usize| (1..=bytes_max).contains(&text.len());
        if !fits(&self.id, limits::TEMPLATE_ID_BYTES_MAX) {
            return Err(TemplateError::IdLength);
        }
        if !self.id.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ':')) {
            return Err(TemplateError::IdCharacters);
        }
        if !fits(&self.name, limits::TEMPLATE_NAME_BYTES_MAX) {
            return Err(TemplateError::NameLength);
        }
        if !fits(&self.event_type, limits::TEMPLATE_EVENT_TYPE_BYTES_MAX) {
            return Err(TemplateError::EventTypeLength);
        }
        Ok(())
    }
}

/// Appends the answer of `GET /templates`.
pub fn write_list(out: &mut Vec<u8>, templates: &[&Template]) {
    out.extend_from_slice(br#"{"templates":["#);
    for (index, template) in templates.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        template.write(out);
    }
    out.extend_from_slice(br#"],"total":"#);
    json::write_value(out, &templates.len());
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_NS: u64 = 1_767_323_045_123_456_789;

    fn create(body: &str) -> Result<Template, TemplateError> {
        parse_create(body.as_bytes(), AT_NS)
    }

    fn minimal() -> Template {
        create(r#"{"id":"t1","name":"Order","event_type":"order","payload_template":{"m":"Hi {{a}}","v":1.50}}"#)
            .unwrap()
    }

    fn written(template: &Template) -> String {
        let mut out = Vec::new();
        template.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_template_is_created_and_answered() {
        assert_eq!(
            written(&minimal()),
            concat!(
                r#"{"id":"t1","name":"Order","event_type":"order","payload_template":{"m":"Hi {{a}}","v":1.50},"#,
                r#""default_priority":"Normal","created_at":"2026-01-02T03:04:05.123456789Z","#,
                r#""updated_at":"2026-01-02T03:04:05.123456789Z"}"#
            )
        );
        let full = create(
            r#"{"id":"a:b-c_訂","name":"n","event_type":"e","payload_template":null,"priority":"High","ttl":60,"description":"d"}"#,
        )
        .unwrap();
        assert!(
            written(&full).contains(r#""default_priority":"High","default_ttl":60,"description":"d","created_at""#)
        );
        let mut list = Vec::new();
        write_list(&mut list, &[&minimal(), &full]);
        assert_eq!(
            list,
            format!(r#"{{"templates":[{},{}],"total":2}}"#, written(&minimal()), written(&full)).into_bytes()
        );
    }

    #[test]
    fn what_was_kept_is_the_same_template_again() {
        let full = create(
            r#"{"id":"a:b-c_訂","name":"n\u0000","event_type":"e","payload_template":{"b":1.50,"a":1e2},"priority":"High","ttl":60,"description":""}"#,
        )
        .unwrap();
        for template in [minimal(), Template { updated_at_ns: AT_NS + 1, ..full }] {
            assert_eq!(parse_kept(written(&template).as_bytes()), Some(template));
        }
        let good = written(&minimal());
        let rows = [
            String::new(),
            "[]".to_owned(),
            good.replace("\"t1\"", "\"t.1\""),
            good.replace("\"t1\"", "1"),
            good.replace("\"Normal\"", "\"normal\""),
            good.replace("\"default_priority\":\"Normal\",", ""),
            good.replace("\"created_at\"", "\"created\""),
            good.replace("2026-01-02", "2026-02-30"),
            good.replace("\"payload_template\"", "\"payload\""),
            good[..good.len() - 1].to_owned(),
        ];
        for text in rows {
            assert_eq!(parse_kept(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_long_names_win_over_their_aliases() {
        let template = create(
            r#"{"id":"t","name":"n","event_type":"e","payload_template":1,"default_priority":"Low","priority":"High","default_ttl":null,"ttl":5}"#,
        )
        .unwrap();
        assert_eq!((template.default_priority, template.default_ttl), (Priority::Low, None));
    }

    #[test]
    fn refusals_have_the_texts_of_the_contract() {
        let body = |id: &str, name: &str, event_type: &str| {
            format!(r#"{{"id":"{id}","name":"{name}","event_type":"{event_type}","payload_template":1}}"#)
        };
        let id_length = "Invalid template ID: ID must be 1-130 characters";
        let name_length = "Invalid template: Name must be 1-256 characters";
        let event_length = "Invalid template: Event type must be 1-128 characters";
        let rows = [
            (body("", "n", "e"), "INVALID_ID", id_length),
            (body(&"x".repeat(131), "n", "e"), "INVALID_ID", id_length),
            (
                body("a.b", "n", "e"),
                "INVALID_ID",
                "Invalid template ID: ID must contain only alphanumeric, dash, underscore, or colon",
            ),
            (body("t", "", "e"), "INVALID_TEMPLATE", name_length),
            (body("t", &"x".repeat(257), "e"), "INVALID_TEMPLATE", name_length),
            (body("t", "n", ""), "INVALID_TEMPLATE", event_length),
            (body("t", "n", &"x".repeat(129)), "INVALID_TEMPLATE", event_length),
        ];
        for (body, code, text) in rows {
            let error = create(&body).unwrap_err();
            assert_eq!((error.status(), error.code(), error.to_string().as_str()), (400, code, text));
        }
        assert!(create(&body(&"x".repeat(130), &"x".repeat(256), &"x".repeat(128))).is_ok());
        let statuses = [
            ("", 400),
            ("[]", 422),
            (r#"{"id":"t","name":"n","event_type":"e"}"#, 422),
            (r#"{"id":1,"name":"n","event_type":"e","payload_template":1}"#, 422),
            (r#"{"id":"t","id":"t","name":"n","event_type":"e","payload_template":1}"#, 422),
            (r#"{"id":"t","name":"n","event_type":"e","payload_template":1,"default_ttl":-1}"#, 422),
            (r#"{"id":"t","name":"n","event_type":"e","payload_template":1,"priority":"low"}"#, 422),
        ];
        for (body, status) in statuses {
            assert_eq!(create(body).unwrap_err().status(), status, "{body}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names_and_null_clears() {
        let before = create(
            r#"{"id":"t","name":"n","event_type":"e","payload_template":1,"default_priority":"Low","default_ttl":5,"description":"d"}"#,
        )
        .unwrap();
        let update = |body: &str| before.updated(&parse_update(body.as_bytes()).unwrap(), AT_NS + 1);

        let same = update(r#"{"id":"other","name":null,"payload_template":null,"default_priority":null}"#).unwrap();
        assert_eq!(same, Template { updated_at_ns: AT_NS + 1, ..before.clone() });

        let cleared = update(r#"{"default_ttl":null,"description":null}"#).unwrap();
        assert_eq!((cleared.default_ttl, cleared.description), (None, None));

        let changed =
            update(r#"{"name":"m","event_type":"f","payload_template":[ 2 ],"priority":"High","ttl":9}"#).unwrap();
        assert_eq!((&*changed.name, &*changed.event_type, changed.payload_template.as_str()), ("m", "f", "[2]"));
        assert_eq!((changed.default_priority, changed.default_ttl), (Priority::High, Some(9)));
        assert_eq!(changed.description.as_deref(), Some("d"));

        assert_eq!(update(r#"{"name":""}"#), Err(TemplateError::NameLength));
        assert_eq!(parse_update(br#"{"name":5}"#).unwrap_err().status(), 422);
        assert_eq!(parse_update(b"null").unwrap_err().status(), 422);
    }

    #[test]
    fn rendering_takes_the_payload_only() {
        let given = Json::parse(br#"{"a":"Ana"}"#).unwrap();
        assert_eq!(
            minimal().render(&Variables::from_json(Some(given))).unwrap().as_str(),
            r#"{"m":"Hi Ana","v":1.50}"#
        );
        assert_eq!(minimal().render(&Variables::default()).unwrap(), minimal().payload_template);
    }
}
