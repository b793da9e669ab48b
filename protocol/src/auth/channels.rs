//! Which channels a token lets its holder subscribe to: the claim `channels`.
use crate::ids;
use crate::limits;

/// The channels of a token that names some. Exact names, and `prefix.*` for every name that goes on behind `prefix.`;
/// `orders.*` is not `orders`, and there is no pattern for everything: that is a token without the claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRules {
    /// As the token writes them, sorted, each once. A name has no `*`, so the two kinds cannot be mixed up.
    sorted: Box<[Box<str>]>,
}

impl ChannelRules {
    /// Checks what a token says. `None`: more than [`limits::TOKEN_CHANNELS_MAX`], or one that is neither a channel's name
    /// nor such a name followed by `.*`.
    pub fn new(mut patterns: Vec<Box<str>>) -> Option<ChannelRules> {
        let is_pattern = |text: &str| ids::is_channel_name(text.strip_suffix(".*").unwrap_or(text));
        if patterns.len() > limits::TOKEN_CHANNELS_MAX || !patterns.iter().all(|pattern| is_pattern(pattern)) {
            return None;
        }
        patterns.sort_unstable();
        patterns.dedup();
        Some(ChannelRules { sorted: patterns.into_boxed_slice() })
    }

    /// Whether a channel of this name may be subscribed to. A few comparisons for each dot in the name.
    pub fn allow(&self, name: &str) -> bool {
        let is_exact = self.sorted.binary_search_by(|pattern| (**pattern).cmp(name)).is_ok();
        is_exact || name.match_indices('.').any(|(dot, _)| dot + 1 < name.len() && self.has_prefix(&name[..=dot]))
    }

    /// Whether there is this prefix, dot included, followed by `*`.
    fn has_prefix(&self, prefix: &str) -> bool {
        let wanted = || prefix.bytes().chain([b'*']);
        self.sorted.binary_search_by(|pattern| pattern.bytes().cmp(wanted())).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(patterns: &[&str]) -> Option<ChannelRules> {
        ChannelRules::new(patterns.iter().map(|&pattern| pattern.into()).collect())
    }

    #[test]
    fn exact_names_and_prefixes_are_let_in_and_nothing_else() {
        let some = rules(&["orders", "news.*", "a.b.*", "news.*", "订单.*", "x..*"]).unwrap();
        let rows = [
            ("orders", true),
            ("orders.eu", false),
            ("order", false),
            ("Orders", false),
            ("news", false),
            ("news.", false),
            ("news.x", true),
            ("news.x.y", true),
            ("newsx", false),
            ("newsroom.x", false),
            ("a.b.c", true),
            ("a.b", false),
            ("a.c", false),
            ("订单.上海", true),
            ("订单", false),
            ("x..y", true),
            ("x.y", false),
            (".", false),
            ("", false),
        ];
        for (name, allowed) in rows {
            assert_eq!(some.allow(name), allowed, "{name:?}");
        }
        let none = rules(&[]).unwrap();
        assert!(!none.allow("orders") && !none.allow("a.b"));
    }

    #[test]
    fn what_is_no_pattern_is_no_rule() {
        let long = "x".repeat(65);
        let longest = format!("{}.*", "x".repeat(64));
        for pattern in ["", "*", ".*", "a*", "a.*.b", "*.a", "a.**", "a b", "acme:orders", "a.*.*", &long] {
            assert_eq!(rules(&[pattern]), None, "{pattern:?}");
        }
        assert!(rules(&[&longest]).is_some());
        let many = |count: usize| (0..count).map(|n| n.to_string().into()).collect();
        assert!(ChannelRules::new(many(limits::TOKEN_CHANNELS_MAX)).is_some());
        assert_eq!(ChannelRules::new(many(limits::TOKEN_CHANNELS_MAX + 1)), None);
    }
}
