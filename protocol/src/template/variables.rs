//! What placeholders stand for: a publisher's `variables`, looked at once and then only looked up.
use crate::json::{self, Json};
use crate::notification::Payload;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// A send's `variables`.
///
/// The text is kept once and compact; an index into it finds values by name. Something else than an object is
/// remembered as such, because the original tells the caller only when a template is rendered.
#[derive(Clone, Debug, PartialEq)]
pub struct Variables(Option<Index>);

#[derive(Clone, Debug, PartialEq)]
struct Index {
    text: Payload,
    root: Node,
}

/// A value's place in the text, and its own members if it is an object.
#[derive(Clone, Debug, PartialEq)]
struct Node {
    text: Range<usize>,
    members: BTreeMap<Box<str>, Node>,
}

impl Default for Variables {
    /// No variables at all: every placeholder stays.
    fn default() -> Variables {
        Variables::from_json(None)
    }
}

impl Variables {
    /// Takes the field's value; absent is an empty object.
    pub fn from_json(value: Option<Json<'_>>) -> Variables {
        match value {
            None => Variables(Some(Index::new(json::assembled("{}".to_owned())))),
            Some(value) if value.is_object() => Variables(Some(Index::new(value.payload()))),
            Some(_) => Variables(None),
        }
    }

    /// Whether they were an object, or absent.
    pub fn is_object(&self) -> bool {
        self.0.is_some()
    }

    /// The text that replaces `{{name}}`: a variable of exactly this name, else the names between the dots walked
    /// through nested objects (C-15). A string stands for itself, `null` for nothing, everything else for its compact
    /// JSON text with numbers as given.
    pub(super) fn replacement(&self, name: &str) -> Option<Cow<'_, str>> {
        let index = self.0.as_ref()?;
        let members = &index.root.members;
        let node = members.get(name).or_else(|| {
            let mut steps = name.split('.');
            let first = members.get(steps.next()?)?;
            steps.try_fold(first, |node, step| node.members.get(step))
        })?;
        let value = index.text.as_str().get(node.text.clone())?;
        Some(match value.as_bytes().first() {
            Some(b'"') => json::decode_string(value),
            Some(b'n') => Cow::Borrowed(""),
            _ => Cow::Borrowed(value),
        })
    }
}

impl Index {
    fn new(text: Payload) -> Index {
        let (root, _) = index(text.as_str(), 0);
        Index { text, root }
    }
}

/// Indexes the value that starts at `start` of compact text and says where it ends. One pass over the text however
/// deeply it nests; the recursion is as deep as [`crate::limits::JSON_DEPTH_MAX`].
fn index(text: &str, start: usize) -> (Node, usize) {
    let bytes = text.as_bytes();
    let mut members = BTreeMap::new();
    let mut end = start;
    match bytes.get(start) {
        Some(b'"') => end = json::string_end(bytes, start),
        Some(b'{') => {
            end += 1;
            while bytes.get(end) == Some(&b'"') {
                let key_end = json::string_end(bytes, end);
                let (member, member_end) = index(text, key_end + 1);
                // A repeated name means its last value, as in the original.
                members.insert(json::decode_string(&text[end..key_end]).into(), member);
                end = if bytes.get(member_end) == Some(&b',') { member_end + 1 } else { member_end };
            }
            end += 1;
        }
        Some(b'[') => end = array_end(bytes, start),
        _ => end += memchr::memchr3(b',', b'}', b']', bytes.get(start..).unwrap_or_default()).unwrap_or(0),
    }
    (Node { text: start..end, members }, end)
}

/// One past the bracket that closes the array at `start`. What is inside cannot be named, so it is not indexed.
fn array_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = json::string_end(bytes, at);
                continue;
            }
            b'[' => depth += 1,
            b']' if depth == 1 => return at + 1,
            b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: &str) -> Variables {
        Variables::from_json(Some(Json::parse(text.as_bytes()).unwrap()))
    }

    #[test]
    fn names_are_found_literally_or_through_nested_objects() {
        let given = variables(
            r#" { "s" : "a\"b" , "n": 1.50, "t": true, "z": null, "e": {}, "l": [ 1, ["x]", {"y": 2}] ],
                  "o": {"p": {"q": "deep"}, "r": "r"}, "a.b": "literal", "a": {"b": "walked", "c": -0 },
                  "d": 1, "\u0064": 2, "": "nameless" } "#,
        );
        let rows = [
            ("s", Some("a\"b")),
            ("n", Some("1.50")),
            ("t", Some("true")),
            ("z", Some("")),
            ("e", Some("{}")),
            ("l", Some(r#"[1,["x]",{"y":2}]]"#)),
            ("o", Some(r#"{"p":{"q":"deep"},"r":"r"}"#)),
            ("o.p.q", Some("deep")),
            ("o.p", Some(r#"{"q":"deep"}"#)),
            ("o.r", Some("r")),
            ("a.b", Some("literal")),
            ("a.c", Some("-0")),
            ("d", Some("2")),
            ("", Some("nameless")),
            ("o.x", None),
            ("o.r.x", None),
            ("l.0", None),
            ("x", None),
            ("o.", None),
        ];
        for (name, replacement) in rows {
            assert_eq!(given.replacement(name).as_deref(), replacement, "{name}");
        }
    }

    #[test]
    fn only_objects_are_variables() {
        for text in ["null", "[]", "1", "\"x\""] {
            assert!(!variables(text).is_object(), "{text}");
        }
        assert!(variables("{}").is_object());
        assert_eq!(Variables::default(), variables(" { } "));
    }

    #[test]
    fn the_deepest_variables_are_walked() {
        let depth = crate::limits::JSON_DEPTH_MAX;
        let text = r#"{"a":"#.repeat(depth) + "7" + &"}".repeat(depth);
        assert_eq!(variables(&text).replacement(&vec!["a"; depth].join(".")).as_deref(), Some("7"));
    }
}
