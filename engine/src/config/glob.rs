//! Patterns of Redis channels, as the server matches them: `*`, `?`, `[set]` and `\` before a character.

/// Whether a pattern matches a name. Both are an operator's: the time is at most the product of their lengths.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and what it has swallowed so far.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match element(&pattern[p..], name[n]) {
            Some((len, true)) => (p, n) = (p + len, n + 1),
            _ if pattern.get(p) == Some(&b'*') => {
                star = Some((p, n));
                p += 1;
            }
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    (p, n) = (at + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The length of the first element of a pattern, and whether it stands for this byte; `None` at the end and for `*`.
fn element(pattern: &[u8], byte: u8) -> Option<(usize, bool)> {
    match *pattern {
        [] | [b'*', ..] => None,
        [b'?', ..] => Some((1, true)),
        [b'\\', escaped, ..] => Some((2, escaped == byte)),
        [b'[', ref rest @ ..] => {
            let is_negated = rest.first() == Some(&b'^');
            let mut at = usize::from(is_negated);
            let mut is_in = false;
            while at < rest.len() && rest[at] != b']' {
                match rest[at..] {
                    [b'\\', escaped, ..] => {
                        is_in |= escaped == byte;
                        at += 2;
                    }
                    [from, b'-', to, ..] => {
                        is_in |= (from.min(to)..=from.max(to)).contains(&byte);
                        at += 3;
                    }
                    [one, ..] => {
                        is_in |= one == byte;
                        at += 1;
                    }
                    [] => break,
                }
            }
            Some(((at + 2).min(pattern.len()), is_in != is_negated))
        }
        [literal, ..] => Some((1, literal == byte)),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_redis() {
        let rows = [
            ("*", "ara:cluster:route", true),
            ("ara:*", "ara:cluster:route:user:default:u", true),
            ("notification:user:*", "ara:cluster:route", false),
            ("ara:cluster:rout?", "ara:cluster:route", true),
            ("ara:cluster:rout?", "ara:cluster:route:n", false),
            ("*:route", "ara:cluster:route", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("[ab]ra", "ara", true),
            ("[^ab]ra", "ara", false),
            ("[a-c]ra", "bra", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[ab", "b", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in rows {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
