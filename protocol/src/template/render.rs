//! Rendering: one pass over the strings and keys of a template's payload (contract §7, C-15).
use super::Variables;
use crate::json;
use crate::limits;
use crate::notification::Payload;
use std::fmt;

/// Why a template could not be rendered: 400 `VALIDATION_ERROR`, the publisher's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderError {
    /// `variables` is there but no object.
    NotAnObject,
    /// The result exceeds [`limits::RENDERED_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RenderError::NotAnObject => f.write_str("Variable substitution failed: Variables must be an object"),
            RenderError::TooLong => {
                write!(
                    f,
                    "Variable substitution failed: Payload exceeds maximum of {} bytes",
                    limits::RENDERED_BYTES_MAX
                )
            }
        }
    }
}

impl std::error::Error for RenderError {}

/// Replaces every known `{{name}}` in the strings and keys of `template`; the rest stays to the byte.
pub(super) fn render(template: &Payload, variables: &Variables) -> Result<Payload, RenderError> {
    if !variables.is_object() {
        return Err(RenderError::NotAnObject);
    }
    let mut out = Vec::with_capacity(template.as_str().len());
    let mut rest = template.as_str();
    while let Some(start) = memchr::memchr(b'"', rest.as_bytes()) {
        let end = json::string_end(rest.as_bytes(), start);
        out.extend_from_slice(&rest.as_bytes()[..start]);
        let string = &rest[start..end];
        match substitute(string, variables)? {
            Some(text) => json::write_string(&mut out, &text),
            None => out.extend_from_slice(string.as_bytes()),
        }
        check_length(out.len())?;
        rest = &rest[end..];
    }
    out.extend_from_slice(rest.as_bytes());
    check_length(out.len())?;
    // Pieces of UTF-8 text, cut at ASCII quotes, with encoded strings between them.
    Ok(json::assembled(String::from_utf8(out).unwrap_or_default()))
}

/// The decoded and substituted text of a JSON string, or none when nothing in it is to be replaced.
///
/// A placeholder ends at the first `}}` and begins at the last `{{` before it, which finds exactly what replacing
/// literal `{{name}}` texts finds, in one pass: what was put in is never looked at again (W-31).
fn substitute(string: &str, variables: &Variables) -> Result<Option<String>, RenderError> {
    // An escape may spell a brace, so only a string without either is surely plain.
    if memchr::memchr2(b'{', b'\\', string.as_bytes()).is_none() {
        return Ok(None);
    }
    let text = json::decode_string(string);
    let mut out = String::new();
    let (mut kept, mut at) = (0, 0);
    while let Some(inside) = text[at..].find("}}") {
        let close = at + inside;
        if let Some(open) = text[at..close].rfind("{{").map(|open| at + open)
            && let Some(replacement) = variables.replacement(&text[open + 2..close])
        {
            out.push_str(&text[kept..open]);
            check_length(out.len() + replacement.len())?;
            out.push_str(&replacement);
            kept = close + 2;
        }
        at = close + 2;
    }
    if kept == 0 {
        return Ok(None);
    }
    out.push_str(&text[kept..]);
    Ok(Some(out))
}

fn check_length(bytes: usize) -> Result<(), RenderError> {
    if bytes > limits::RENDERED_BYTES_MAX { Err(RenderError::TooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Json;

    fn variables(text: &str) -> Variables {
        Variables::from_json(Some(Json::parse(text.as_bytes()).unwrap()))
    }

    fn rendered(template: &str, given: &str) -> Result<String, RenderError> {
        let template = Json::parse(template.as_bytes()).unwrap().payload();
        let payload = render(&template, &variables(given))?;
        assert!(Json::parse(payload.as_str().as_bytes()).is_ok(), "{payload:?}");
        Ok(payload.as_str().to_owned())
    }

    #[test]
    fn placeholders_are_replaced_everywhere_in_one_pass() {
        let given = r#"{"a":"A","b":"{{a}}","n":1.50,"t":false,"z":null,"o":{"k":[1, 2]},"q":"\"\n\\"}"#;
        let rows = [
            (r#"{"x":"Hi {{a}}!","n":7,"l":[true,null,"{{n}}"]}"#, r#"{"x":"Hi A!","n":7,"l":[true,null,"1.50"]}"#),
            (r#"{"{{a}}":{"k{{n}}":1}}"#, r#"{"A":{"k1.50":1}}"#),
            (r#""{{a}}{{a}}""#, r#""AA""#),
            (r#""{{b}}""#, r#""{{a}}""#),
            (r#""[{{z}}] {{t}}""#, r#""[] false""#),
            (r#""{{o}} {{o.k}}""#, r#""{\"k\":[1,2]} [1,2]""#),
            (r#""{{q}}""#, r#""\"\n\\""#),
            (r#""{{missing}} {{ a }} {{a""#, r#""{{missing}} {{ a }} {{a""#),
            (r#""{{{a}}} }}{{a}} {{ {{a}}""#, r#""{A} }}A {{ A""#),
            (r#""{{x}} {{a}} {{y}}""#, r#""{{x}} A {{y}}""#),
            (r#""\u007b\u007ba\u007d}""#, r#""A""#),
            (r#""caf\u00e9 \/ {{a}} \ud83d\ude00""#, r#""café / A 😀""#),
            (r#""caf\u00e9 \/ {{x}}""#, r#""caf\u00e9 \/ {{x}}""#),
            ("1.50", "1.50"),
            ("null", "null"),
            (r#"["\"{{a}}\\", "{{a}}"]"#, r#"["\"A\\","A"]"#),
        ];
        for (template, expected) in rows {
            assert_eq!(rendered(template, given).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn variables_must_be_an_object() {
        for given in ["null", "[]", "\"x\""] {
            let error = rendered("1", given).unwrap_err();
            assert_eq!(error.to_string(), "Variable substitution failed: Variables must be an object");
        }
    }

    #[test]
    fn the_result_is_bounded() {
        let given = format!(r#"{{"a":"{}"}}"#, "x".repeat(1024));
        let fits = format!("\"{}\"", "{{a}}".repeat(1023));
        assert_eq!(rendered(&fits, &given).unwrap().len(), 1023 * 1024 + 2);
        let bursts = format!("\"{}\"", "{{a}}".repeat(1024));
        assert_eq!(rendered(&bursts, &given), Err(RenderError::TooLong));
        let many = format!("[{}]", vec![r#""{{a}}""#; 1024].join(","));
        assert_eq!(rendered(&many, &given), Err(RenderError::TooLong));
    }

    #[test]
    fn hostile_braces_cost_one_pass() {
        let braces = format!("\"{}\"", "{".repeat(1 << 19));
        assert_eq!(rendered(&braces, "{}").unwrap(), braces);
        let pairs = format!("\"{}\"", "{{}}".repeat(1 << 17));
        assert_eq!(rendered(&pairs, "{}").unwrap(), pairs);
    }
}
