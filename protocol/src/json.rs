//! JSON text: kept exactly (C-2), written once. The only module that names `serde_json` for text of strangers.
use crate::limits;
use crate::notification::Payload;
use serde::Serialize;

/// Why a text is not taken as a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactError {
    /// Deeper than [`limits::JSON_DEPTH_MAX`].
    TooDeep,
}

/// Drops insignificant white space from *valid* JSON text and checks its depth; `depth_outside` is how many values
/// already enclose it. Key order, number text and duplicate keys stay (C-2).
pub fn compact(valid: &str, depth_outside: usize) -> Result<Payload, CompactError> {
    let bytes = valid.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut depth = depth_outside;
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
                        if depth > limits::JSON_DEPTH_MAX {
                            return Err(CompactError::TooDeep);
                        }
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
    Ok(Payload(String::from_utf8(out).unwrap_or_default().into_boxed_str()))
}

/// One past the closing quote of the string that starts at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
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
    }
}
