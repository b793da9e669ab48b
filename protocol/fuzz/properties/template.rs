//! Templates: made, changed, answered, rendered.
use super::{AT_NS, assert_telling};
use protocol::json::{self, Json};
use protocol::limits;
use protocol::notification::Payload;
use protocol::template::{Template, TemplateError, Variables, parse_create, parse_update};
use serde_json::Value;

/// One body is read as a new template, as a change of one, and as the payload and the variables of one.
pub fn template(body: &[u8]) {
    match parse_create(body, AT_NS) {
        Ok(template) => {
            check_answer(&template);
            check_rendering(&template, body);
        }
        Err(error) => check_error(&error),
    }
    let base = parse_create(
        br#"{"id":"t:1","name":"n","event_type":"e","payload_template":{"{{a}}":["{{a.b}} {{c}}"]},"ttl":5}"#,
        AT_NS,
    )
    .expect("a plain template");
    match parse_update(body) {
        Ok(update) => match base.updated(&update, AT_NS + 1) {
            Ok(updated) => {
                assert_eq!((&updated.id, updated.created_at_ns, updated.updated_at_ns), (&base.id, AT_NS, AT_NS + 1));
                check_answer(&updated);
            }
            Err(error) => check_error(&error),
        },
        Err(error) => check_error(&error),
    }
    check_rendering(&base, body);
    if let Ok(json) = Json::parse(body) {
        check_rendering(&Template { payload_template: json.payload(), ..base }, body);
    }
}

fn check_error(error: &TemplateError) {
    assert!(matches!(error.status(), 400 | 422));
    assert_telling(error.code(), 20);
    assert_telling(&error.to_string(), 300);
}

/// What is answered is what is kept: sent back, it makes the same template.
fn check_answer(template: &Template) {
    let mut answer = Vec::new();
    template.write(&mut answer);
    assert!(!answer.contains(&b'\n'));
    let again = parse_create(&answer, template.created_at_ns).expect("our own answer");
    assert_eq!(again, Template { updated_at_ns: template.created_at_ns, ..template.clone() });
}

/// Renders with the body's own `variables`, or with the body itself, if it is some JSON at all.
fn check_rendering(template: &Template, body: &[u8]) {
    let text = template.payload_template.as_str();
    let none = template.render(&Variables::default()).expect("nothing grows without variables");
    assert_eq!(none.as_str(), text, "no variables, no change");
    let Ok(json) = Json::parse(body) else { return };
    let [inner] = json.fields(&["variables"]).unwrap_or([None]);
    let given = inner.unwrap_or(json);
    let variables = Variables::from_json(Some(given));
    assert_eq!(variables.is_object(), given.is_object());
    match template.render(&variables) {
        Ok(rendered) => check_rendered(&template.payload_template, given, &rendered),
        Err(error) => assert_telling(&error.to_string(), 120),
    }
}

fn check_rendered(template: &Payload, variables: Json<'_>, rendered: &Payload) {
    let text = rendered.as_str();
    assert!(text.len() <= limits::RENDERED_BYTES_MAX && !text.contains(['\n', '\r']));
    let parsed = Json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(json::compact(parsed.as_str(), 0).expect("as deep as before").as_str(), text);
    let read = |text: &str| serde_json::from_str::<Value>(text);
    // Doubled keys make one value of two templates; they are kept, so only without them the values agree.
    if let (Ok(template), Ok(variables), Ok(rendered)) = (read(template.as_str()), read(variables.as_str()), read(text))
        && let Some(expected) = substituted(&template, &variables)
    {
        assert_eq!(rendered, expected);
    }
}

/// The slow way: every placeholder that is spelled out, replaced by hand. None where a key is replaced or a number
/// would have to keep its text, which values do not tell.
fn substituted(template: &Value, variables: &Value) -> Option<Value> {
    Some(match template {
        Value::String(text) => Value::String(substituted_text(text, variables)?),
        Value::Array(values) => {
            Value::Array(values.iter().map(|value| substituted(value, variables)).collect::<Option<_>>()?)
        }
        Value::Object(members) => {
            let mut out = serde_json::Map::new();
            for (key, value) in members {
                if substituted_text(key, variables)? != *key {
                    return None;
                }
                out.insert(key.clone(), substituted(value, variables)?);
            }
            Value::Object(out)
        }
        other => other.clone(),
    })
}

fn substituted_text(text: &str, variables: &Value) -> Option<String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(close) = rest.find("}}") {
        let placeholder = rest[..close].rfind("{{");
        let value = placeholder.and_then(|open| looked_up(variables, &rest[open + 2..close]));
        match (placeholder, value) {
            (Some(open), Some(value)) => {
                out.push_str(&rest[..open]);
                match value {
                    Value::String(text) => out.push_str(text),
                    Value::Null => {}
                    Value::Bool(truth) => out.push_str(&truth.to_string()),
                    _ => return None,
                }
            }
            _ => out.push_str(&rest[..close + 2]),
        }
        rest = &rest[close + 2..];
    }
    out.push_str(rest);
    Some(out)
}

fn looked_up<'a>(variables: &'a Value, name: &str) -> Option<&'a Value> {
    variables.get(name).or_else(|| name.split('.').try_fold(variables, |value, step| value.as_object()?.get(step)))
}
