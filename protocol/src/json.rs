//! JSON text: kept exactly (C-2), written once. The only module that names `serde_json` for text of strangers.
use crate::limits;
use crate::notification::Payload;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Why a text is not taken as a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactError {
    /// Deeper than [`limits::JSON_DEPTH_MAX`].
    TooDeep,
}

/// Drops insignificant white space from *valid* JSON text and checks its depth; `depth_outside` is how many values
/// already enclose it. Key order, number text and duplicate keys stay (C-2).
pub fn compact(valid: &str, depth_outside: usize) -> Result<Payload, CompactError> {
    let (payload, depth) = squeeze(valid);
    if depth > 0 && depth_outside + depth > limits::JSON_DEPTH_MAX {
        return Err(CompactError::TooDeep);
    }
    Ok(payload)
}

/// A payload of text that this crate put together from compact pieces.
pub(crate) fn assembled(compact: String) -> Payload {
    debug_assert!(!compact.contains('\n'), "a raw newline would end the SSE data line");
    Payload(compact.into_boxed_str())
}

/// The text without insignificant white space, and how many arrays and objects its deepest value is nested in.
fn squeeze(valid: &str) -> (Payload, usize) {
    let bytes = valid.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at);
                out.extend_from_slice(&bytes[at..end]);
                at = end;
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => {}
            byte => {
                match byte {
                    b'{' | b'[' => {
                        depth += 1;
                        deepest = deepest.max(depth);
                    }
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                out.push(byte);
            }
        }
        at += 1;
    }
    // Only whole ASCII white-space bytes outside of strings were dropped, so the text is still UTF-8.
    (Payload(String::from_utf8(out).unwrap_or_default().into_boxed_str()), deepest)
}

/// Whether *valid* JSON text nests deeper than so many arrays and objects.
pub(crate) fn is_deeper(valid: &[u8], depth_max: usize) -> bool {
    // Hardly any text has so many brackets at all, and to count them is quick.
    if valid.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= depth_max {
        return false;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < valid.len() {
        match valid[at] {
            b'"' => {
                at = string_end(valid, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > depth_max {
            return true;
        }
        at += 1;
    }
    false
}

/// One past the closing quote of the string that starts at `start`.
pub(crate) fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        at = (at + 2).min(bytes.len());
    }
    bytes.len()
}

/// Why bytes are not taken as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextError {
    /// Not one JSON value in UTF-8; what is wrong and where, without a piece of the text.
    Syntax(String),
    /// Deeper than [`limits::JSON_DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextError::Syntax(what) => f.write_str(what),
            TextError::TooDeep => f.write_str("recursion limit exceeded"),
        }
    }
}

/// Why an object's fields could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldsError {
    /// The value is not an object.
    NotAnObject,
    /// A known key stands there twice.
    Duplicate(&'static str),
}

/// One JSON value whose text was checked as a whole: grammar, UTF-8, depth and surrogate pairs. Everything taken from
/// it is therefore checked, too, and only its shape can still surprise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// Checks bytes that should be one JSON value with nothing but white space around it. A number may be of any
    /// size, for it is never turned into one (C-2); half a surrogate pair is refused, for many readers refuse it.
    pub fn parse(bytes: &'a [u8]) -> Result<Json<'a>, TextError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| TextError::Syntax(format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
        check_lexemes(text.as_bytes())?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| TextError::Syntax(error.to_string()))?;
        Ok(Json(text.trim_matches([' ', '\t', '\r', '\n'])))
    }

    /// The text as it came.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Whether this is an object.
    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// The decoded text of a string.
    pub fn string(self) -> Option<Cow<'a, str>> {
        self.0.starts_with('"').then(|| decode_string(self.0))
    }

    /// `true` or `false`.
    pub fn boolean(self) -> Option<bool> {
        self.0.parse().ok()
    }

    /// A number written as an integer of 0..=4294967295.
    pub fn unsigned(self) -> Option<u32> {
        self.0.parse().ok()
    }

    /// The values of an array.
    pub fn elements(self) -> Option<Vec<Json<'a>>> {
        let elements: Vec<&RawValue> = serde_json::from_str(self.0).ok()?;
        Some(elements.into_iter().map(|element| Json(element.get())).collect())
    }

    /// The known fields of an object, each at the index of its name; unknown ones are ignored (contract §1.6).
    pub fn fields<const N: usize>(self, known: &[&'static str; N]) -> Result<[Option<Json<'a>>; N], FieldsError> {
        if !self.is_object() {
            return Err(FieldsError::NotAnObject);
        }
        let mut deserializer = serde_json::Deserializer::from_str(self.0);
        // The text is a checked object, so the visitor below cannot fail.
        deserializer.deserialize_map(Fields { known }).unwrap_or(Err(FieldsError::NotAnObject))
    }

    /// A value of one of our own small types, which says itself what it takes.
    pub fn decode<T: DeserializeOwned>(self) -> Option<T> {
        serde_json::from_str(self.0).ok()
    }

    /// The value kept as a payload.
    pub fn payload(self) -> Payload {
        squeeze(self.0).0
    }
}

/// Walks an object once and keeps the raw text of the known fields.
struct Fields<'k, const N: usize> {
    known: &'k [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for Fields<'_, N> {
    type Value = Result<[Option<Json<'de>>; N], FieldsError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        let mut duplicate = None;
        while let Some(key) = map.next_key::<&RawValue>()? {
            let key = Json(key.get()).string().unwrap_or_default();
            match self.known.iter().position(|known| *known == key) {
                Some(index) => {
                    let value: &RawValue = map.next_value()?;
                    if found[index].replace(Json(value.get())).is_some() {
                        duplicate = duplicate.or(Some(FieldsError::Duplicate(self.known[index])));
                    }
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(duplicate.map_or(Ok(found), Err))
    }
}

/// What the grammar check does not look at: depth, and surrogate pairs in escapes (RFC 8259 §8.2).
fn check_lexemes(bytes: &[u8]) -> Result<(), TextError> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at);
                check_surrogates(&bytes[at..end], at)?;
                at = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > limits::JSON_DEPTH_MAX {
                    return Err(TextError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Every `\uD800`–`\uDBFF` of a string must be followed by a `\uDC00`–`\uDFFF`, which may not stand alone.
fn check_surrogates(string: &[u8], offset: usize) -> Result<(), TextError> {
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', &string[at..]) {
        at += found;
        match escaped_unit(&string[at..]) {
            Some(0xd800..=0xdbff) => {
                if !matches!(escaped_unit(&string[at + 6..]), Some(0xdc00..=0xdfff)) {
                    return Err(TextError::Syntax(format!("lone surrogate in hex escape at byte {}", offset + at)));
                }
                at += 12;
            }
            Some(0xdc00..=0xdfff) => {
                return Err(TextError::Syntax(format!("lone surrogate in hex escape at byte {}", offset + at)));
            }
            _ => at = (at + 2).min(string.len()),
        }
    }
    Ok(())
}

/// The UTF-16 unit of a `\uXXXX` at the start of `bytes`.
fn escaped_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.get(..6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0_u16, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
}

/// The text of a checked JSON string, quotes included in `string`.
pub(crate) fn decode_string(string: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', string.as_bytes()).is_none() {
        return Cow::Borrowed(string.get(1..string.len().saturating_sub(1)).unwrap_or_default());
    }
    // Checked text has only escapes that decode.
    Cow::Owned(serde_json::from_str(string).unwrap_or_default())
}

/// Appends `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    write_value(out, text);
}

/// Appends a value's compact JSON text.
pub fn write_value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    // Writing to a `Vec` cannot fail, and none of our types has a map with non-string keys.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_kept_but_for_white_space() {
        let rows = [
            (r#" { "b" : 1.50 , "a" : [ 1e3 , -0 ] } "#, r#"{"b":1.50,"a":[1e3,-0]}"#),
            ("{\"k\": \"a b\\\" \\\\\",\n\t\"k\": 2}", "{\"k\":\"a b\\\" \\\\\",\"k\":2}"),
            ("null", "null"),
            (r#""訊 息""#, r#""訊 息""#),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
        ];
        for (given, kept) in rows {
            assert_eq!(compact(given, 0).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn depth_is_bounded_and_counts_what_encloses_it() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(compact(&nested(127), 0).is_ok());
        assert_eq!(compact(&nested(128), 0), Err(CompactError::TooDeep));
        assert_eq!(compact(&nested(127), 1), Err(CompactError::TooDeep));
        assert!(compact(r#""[[[[""#, 127).is_ok(), "brackets in strings are text");
        let rows =
            [("[[1],[2],{}]", 2), (r#"["[[\"[",["]"]]"#, 2), (r#"{"a":{"b":[{}]}}"#, 4), (r#""[[""#, 0), ("7", 0)];
        for (text, depth) in rows {
            assert!(
                !is_deeper(text.as_bytes(), depth) && (depth == 0 || is_deeper(text.as_bytes(), depth - 1)),
                "{text}"
            );
        }
    }

    fn json(text: &str) -> Json<'_> {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn text_is_checked_as_a_whole() {
        let refused: [&[u8]; 12] = [
            b"",
            b"  ",
            b"{",
            b"{} {}",
            b"{\"a\":}",
            b"nul",
            b"01",
            b"\"\xff\"",
            b"\"a\nb\"",
            br#""\ud800""#,
            br#""\ud800\u0041""#,
            br#"{"\udc00":1}"#,
        ];
        for bytes in refused {
            let refusal = Json::parse(bytes);
            assert!(matches!(refusal, Err(TextError::Syntax(_))), "{}: {refusal:?}", bytes.escape_ascii());
        }
        for text in [r#"" \ud83d\ude00 \\ud800 ""#, " 1e999 ", "[-0.0]", "\t{\"a\":1,\"a\":2}\r\n"] {
            assert_eq!(json(text).as_str(), text.trim());
        }
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(Json::parse(nested(127).as_bytes()).is_ok());
        assert_eq!(Json::parse(nested(128).as_bytes()), Err(TextError::TooDeep));
        assert_eq!(Json::parse("[".repeat(60_000).as_bytes()), Err(TextError::TooDeep));
    }

    #[test]
    fn fields_are_found_once_and_unknown_ones_ignored() {
        let body = json(r#" { "x": {"a": 9}, "\u0061" : [ 1 ] , "b":null, "x": 1 } "#);
        let [a, b, c] = body.fields(&["a", "b", "c"]).unwrap();
        assert_eq!(a.unwrap().as_str(), "[ 1 ]");
        assert!(b.unwrap().is_null());
        assert_eq!(c, None);
        assert_eq!(body.fields(&["x"]), Err(FieldsError::Duplicate("x")));
        assert_eq!(json("[1]").fields(&["x"]), Err(FieldsError::NotAnObject));
    }

    #[test]
    fn values_are_read_strictly() {
        assert_eq!(json(r#""a\"\u00e9\ud83d\ude00/\/""#).string().unwrap(), "a\"é😀//");
        assert_eq!(json(r#""plain""#).string().unwrap(), "plain");
        assert_eq!(json("1").string(), None);
        assert_eq!(json("4294967295").unsigned(), Some(u32::MAX));
        for number in ["4294967296", "-1", "-0", "1.0", "1e2", "\"1\"", "null"] {
            assert_eq!(json(number).unsigned(), None, "{number}");
        }
        assert_eq!(json("true").boolean(), Some(true));
        assert_eq!(json("1").boolean(), None);
        let elements = json(r#"[ "a" , [2], {} ]"#).elements().unwrap();
        assert_eq!(elements.iter().map(|element| element.as_str()).collect::<Vec<_>>(), [r#""a""#, "[2]", "{}"]);
        assert_eq!(json("{}").elements(), None);
    }
}
