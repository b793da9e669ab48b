//! Which layer has the last word on each setting, and what nobody understands.
use super::problem::{Problem, Warning, mask};
use super::rule;
use super::sources::Sources;
use super::variables::{self, PREFIXES, Secrecy, VARIABLES, Variable};
use std::collections::BTreeMap;
use std::fmt;
use toml::{Table, Value};

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: the built-in default.
    Default,
    /// A file, by name.
    File(String),
    /// `.env`.
    Dotenv,
    /// The process environment.
    Environment,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(name) => f.write_str(name),
            Origin::Dotenv => f.write_str(".env"),
            Origin::Environment => f.write_str("environment"),
        }
    }
}

/// The last word on one setting.
#[derive(Clone, Debug)]
struct Word {
    text: Option<String>,
    origin: Origin,
}

/// The last word on every setting. Every text in it keeps its rule: one that does not was replaced by the default and
/// reported, so that the other problems can be found, too.
#[derive(Clone, Debug)]
pub struct Values {
    words: BTreeMap<&'static str, Word>,
    /// `[tenant.tenant_overrides]` of all files: tenant, key, value; the later file wins.
    pub(super) overrides: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Values {
    /// Puts the layers on top of each other. `problems` and `warnings` gain what was wrong with them.
    pub fn resolve(sources: &Sources, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) -> Values {
        problems.extend(sources.problems.iter().cloned());
        warnings.extend(sources.warnings.iter().cloned());
        let mut values = Values { words: BTreeMap::new(), overrides: BTreeMap::new() };
        for variable in VARIABLES {
            let text = variable.default.map(str::to_owned);
            values.words.insert(variable.name, Word { text, origin: Origin::Default });
        }
        for file in &sources.files {
            match file.text.parse::<Table>() {
                Ok(table) => values.take_file(&file.name, &table, problems, warnings),
                Err(error) => problems.push(bad_toml(&file.name, &file.text, &error)),
            }
        }
        values.take_variables(&sources.dotenv, &Origin::Dotenv, problems);
        values.take_variables(&sources.environment, &Origin::Environment, problems);
        warn_of_unknown_variables(sources, warnings);
        values
    }

    /// The text of a setting; `None` when it is unset.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.words.get(name)?.text.as_deref()
    }

    /// Who had the last word on a setting.
    pub fn origin(&self, name: &str) -> &Origin {
        self.words.get(name).map_or(&Origin::Default, |word| &word.origin)
    }

    /// What may be shown of a setting, or `None` when it is unset.
    pub fn shown(&self, variable: &Variable) -> Option<String> {
        self.text(variable.name).map(|text| mask(text, variable.secrecy))
    }

    fn take_variables(&mut self, map: &BTreeMap<String, String>, origin: &Origin, problems: &mut Vec<Problem>) {
        for variable in VARIABLES {
            // The name itself comes last, so that it wins over its synonyms.
            for name in variable.synonyms.iter().rev().chain([&variable.name]) {
                if let Some(text) = map.get(*name) {
                    self.take(variable, name, text, origin, problems);
                }
            }
        }
    }

    /// Takes one layer's word. A blank text says nothing, so the layer below keeps the word.
    fn take(&mut self, variable: &Variable, place: &str, text: &str, origin: &Origin, problems: &mut Vec<Problem>) {
        // A secret is taken to the letter; elsewhere blanks around a value are accidents.
        let text = if variable.secrecy == Secrecy::Secret { text } else { text.trim() };
        if text.trim().is_empty() {
            return;
        }
        match variable.rule.check(text) {
            Ok(()) => {
                let word = Word { text: Some(text.to_owned()), origin: origin.clone() };
                self.words.insert(variable.name, word);
            }
            Err(rule) => problems.push(Problem::with_value(place, text, variable.secrecy, rule)),
        }
    }

    fn take_file(&mut self, file: &str, table: &Table, problems: &mut Vec<Problem>, warnings: &mut Vec<Warning>) {
        let mut leaves = Vec::new();
        flatten(table, String::new(), &mut leaves);
        for (path, value) in leaves {
            let place = format!("{file}: {path}");
            if value.as_table().is_some_and(Table::is_empty) && (is_section(&path) || path.starts_with("tenant.")) {
                continue;
            }
            if let Some(rest) = path.strip_prefix("tenant.tenant_overrides.") {
                self.take_override(rest, &place, value, problems, warnings);
                continue;
            }
            let Some(variable) = VARIABLES.iter().find(|variable| variable.paths.contains(&path.as_str())) else {
                if is_section(&path) {
                    problems.push(Problem::new(place, "must be a table of settings"));
                } else {
                    warnings.push(Warning(format!("{place}: unknown key, not read")));
                }
                continue;
            };
            match text_of(variable, value) {
                Ok(text) => self.take(variable, &place, &text, &Origin::File(file.to_owned()), problems),
                Err(rule) => problems.push(Problem::new(place, rule)),
            }
        }
    }

    fn take_override(
        &mut self,
        rest: &str,
        place: &str,
        value: &Value,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Warning>,
    ) {
        // A tenant's name may hold dots, a limit's name does not.
        let Some((tenant, key)) = rest.rsplit_once('.') else {
            return problems.push(Problem::new(place, "must be a table of limits"));
        };
        let key_is_known =
            matches!(key, "max_connections" | "max_connections_per_user" | "max_subscriptions_per_connection");
        if !key_is_known {
            return warnings.push(Warning(format!("{place}: unknown key, not read")));
        }
        let tenant_is_good = protocol::ids::TenantId::parse(tenant).is_some_and(|id| id.as_str() == tenant);
        if !tenant_is_good {
            return problems
                .push(Problem::new(place, "a tenant's name is 1 to 64 bytes of letters, digits, -, _ and ."));
        }
        match value.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| *n <= u64::from(u32::MAX)) {
            Some(limit) => {
                self.overrides.entry(tenant.to_owned()).or_default().insert(key.to_owned(), limit);
            }
            None => problems.push(Problem::new(place, format!("must be a whole number from 0 to {}", u32::MAX))),
        }
    }
}

/// All leaves of a table with their dotted paths; an empty table is a leaf.
fn flatten<'a>(table: &'a Table, prefix: String, leaves: &mut Vec<(String, &'a Value)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, path, leaves),
            _ => leaves.push((path, value)),
        }
    }
}

/// Whether a path is the beginning of known ones, and so must be a table.
fn is_section(path: &str) -> bool {
    let prefix = format!("{path}.");
    VARIABLES.iter().flat_map(|variable| variable.paths).any(|known| known.starts_with(&prefix))
}

/// A TOML value as the text that the environment would hold.
fn text_of(variable: &Variable, value: &Value) -> Result<String, String> {
    let is_list = matches!(variable.rule, rule::Rule::List | rule::Rule::Networks);
    match value {
        Value::String(text) => Ok(text.clone()),
        // `0123` and `1e3` are not the secrets that their writer meant; nothing is guessed.
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) if variable.secrecy == Secrecy::Secret => {
            Err("is a secret and must be quoted: a number or true/false without quotes is not kept to the letter"
                .to_owned())
        }
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(flag) => Ok(flag.to_string()),
        Value::Array(items) if is_list => items
            .iter()
            .map(|item| match item.as_str() {
                Some(text) if !text.contains(',') => Ok(text),
                _ => Err("must be a comma-separated text, or an array of texts without commas".to_owned()),
            })
            .collect::<Result<Vec<&str>, String>>()
            .map(|items| items.join(",")),
        Value::Table(_) => Err("must be a value, not a table".to_owned()),
        Value::Array(_) | Value::Datetime(_) => Err("must be a text, a number or true/false".to_owned()),
    }
}

/// Says where a file stops being TOML, without repeating it: the line may hold a secret.
fn bad_toml(name: &str, text: &str, error: &toml::de::Error) -> Problem {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before.map(|before| before.matches('\n').count() + 1) {
        Some(line) => Problem::new(format!("{name}, line {line}"), format!("is not TOML: {}", error.message())),
        None => Problem::new(name, format!("is not TOML: {}", error.message())),
    }
}

/// One warning for all names that look like ours and are not.
fn warn_of_unknown_variables(sources: &Sources, warnings: &mut Vec<Warning>) {
    let unknown: Vec<&str> = sources
        .environment
        .iter()
        .chain(&sources.dotenv)
        .filter(|(name, value)| {
            PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                && variables::find(name).is_none()
                && !is_service_link(name, value)
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if !unknown.is_empty() {
        warnings.push(Warning(format!("unknown variables, not read: {}", unknown.join(", "))));
    }
}

/// Whether an orchestrator put it there to tell of another service, as Kubernetes does for a service named `redis`.
fn is_service_link(name: &str, value: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_TCP")
        || name.contains("_UDP")
        || (name.ends_with("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://")))
}

#[cfg(test)]
mod tests {
    use super::super::sources::SourceFile;
    use super::*;

    fn resolve(environment: &[(&str, &str)], files: &[&str]) -> (Values, Vec<String>, Vec<String>) {
        let mut sources = Sources::from_environment(environment.iter().copied());
        for (number, text) in files.iter().enumerate() {
            sources.files.push(SourceFile { name: format!("{number}.toml"), text: (*text).to_owned() });
        }
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let values = Values::resolve(&sources, &mut problems, &mut warnings);
        let text = |problem: &Problem| problem.to_string();
        (values, problems.iter().map(text).collect(), warnings.into_iter().map(|warning| warning.0).collect())
    }

    #[test]
    fn the_later_layer_has_the_last_word() {
        let files = ["[server]\nport = 1\nhost = 'a'", "[server]\nport = 2\n"];
        let (values, problems, _) = resolve(&[("SERVER_HOST", "b")], &files);
        assert_eq!(problems, [""; 0]);
        assert_eq!(values.text("SERVER_PORT"), Some("2"));
        assert_eq!(values.origin("SERVER_PORT"), &Origin::File("1.toml".to_owned()));
        assert_eq!(values.text("SERVER_HOST"), Some("b"));
        assert_eq!(values.text("REDIS_URL"), Some("redis://localhost:6379"));
    }

    #[test]
    fn a_name_wins_over_its_synonym() {
        let (values, ..) = resolve(&[("JWT_PUBLICKEY", "a"), ("JWT_PUBLIC_KEY", "b")], &[]);
        assert_eq!(values.text("JWT_PUBLICKEY"), Some("a"));
        let (values, ..) = resolve(&[("JWT_PUBLIC_KEY", "b")], &[]);
        assert_eq!(values.text("JWT_PUBLICKEY"), Some("b"));
    }

    #[test]
    fn secrets_are_taken_to_the_letter_or_not_at_all() {
        let (values, ..) = resolve(&[("API_KEY", "0123456789012345 ")], &[]);
        assert_eq!(values.text("API_KEY"), Some("0123456789012345 "));
        let (values, problems, _) = resolve(&[], &["[api]\nkey = 123456789012345"]);
        assert_eq!(values.text("API_KEY"), None);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("0.toml: api.key: ") && problems[0].contains("quoted"), "{problems:?}");
        assert!(!problems[0].contains("1234"), "{problems:?}");
    }

    #[test]
    fn lists_may_be_texts_or_arrays() {
        for written in ["'a,b'", "['a', 'b']"] {
            let (values, ..) = resolve(&[], &[&format!("redis.channels = {written}")]);
            assert_eq!(values.text("REDIS_CHANNELS"), Some("a,b"));
        }
        let (_, problems, _) = resolve(&[], &["redis.channels = ['a,b', 1]"]);
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn unknown_keys_and_names_are_told_of_and_not_read() {
        let environment = [
            ("WEBSOCKET_HEARTBEAT", "1"),
            ("QUEUE_SIZE", "1"),
            ("HOME", "/"),
            ("QUEUE", "x"),
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ];
        let (_, problems, warnings) = resolve(&environment, &["[server]\nprot = 1\n[colour]\nred = 1"]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(
            warnings,
            [
                "0.toml: colour.red: unknown key, not read",
                "0.toml: server.prot: unknown key, not read",
                "unknown variables, not read: QUEUE_SIZE, WEBSOCKET_HEARTBEAT",
            ]
        );
    }

    #[test]
    fn a_file_of_another_shape_is_a_problem() {
        let rows = [
            ("server = 1", "0.toml: server: must be a table of settings"),
            ("server.port = { a = 1 }\n[x", "0.toml, line 2: is not TOML"),
            ("server.port = 1979-05-27", "0.toml: server.port: must be a text, a number or true/false"),
            ("server.port = [1]", "0.toml: server.port: must be a text, a number or true/false"),
            ("server.port = 70000", "0.toml: server.port=\"70000\": must be a whole number from 1 to 65535"),
        ];
        for (text, expected) in rows {
            let (_, problems, _) = resolve(&[], &[text]);
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{text}: {problems:?}");
        }
    }

    #[test]
    fn an_empty_section_says_nothing() {
        let text = "[server]\n[redis.backoff]\n[tenant.tenant_overrides.acme]\n";
        let (values, problems, warnings) = resolve(&[], &[text]);
        assert!(problems.is_empty() && warnings.is_empty() && values.overrides.is_empty());
    }

    #[test]
    fn broken_toml_is_not_repeated() {
        let (_, problems, _) = resolve(&[], &["[jwt]\nsecret = hunter2"]);
        assert_eq!(problems.len(), 1);
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }

    #[test]
    fn both_spellings_of_nested_redis_keys_are_read() {
        let nested = "[redis.circuit_breaker]\nfailure_threshold = 7";
        let flat = "[redis]\ncircuit_breaker_failure_threshold = 7";
        for text in [nested, flat] {
            let (values, problems, warnings) = resolve(&[], &[text]);
            assert_eq!(values.text("REDIS_CIRCUIT_BREAKER_FAILURE_THRESHOLD"), Some("7"));
            assert!(problems.is_empty() && warnings.is_empty());
        }
    }
}
