//! The configuration for people: what holds and who said so, and what could be said.
use super::layers::Origin;
use super::load::Loaded;
use super::variables::{VARIABLES, Variable};
use std::fmt::Write as _;

/// One line for each setting: its value, masked as far as it is secret, and who said it.
pub fn effective(loaded: &Loaded) -> String {
    let mut out = String::new();
    for variable in VARIABLES {
        let value = match (variable.name, loaded.values.shown(variable)) {
            (_, Some(value)) => value,
            ("SHARDS", None) => loaded.settings.shards.to_string(),
            (_, None) => "(unset)".to_owned(),
        };
        // Writing to a `String` cannot fail.
        let _ = match loaded.values.origin(variable.name) {
            Origin::Default => writeln!(out, "{} = {value}", variable.name),
            origin => writeln!(out, "{} = {value}    # {origin}", variable.name),
        };
    }
    out
}

/// What `--help` says about settings.
pub fn help() -> String {
    let mut out = String::from(
        "Settings come from the environment, from .env, from config/{RUN_MODE}.toml and from config/default.toml; the \
         first\nthat says something has the word. JWT_SECRET is the only one that must be there. Keys of the files in \
         brackets.\n\n",
    );
    for variable in VARIABLES {
        let _ = writeln!(out, "  {}{}\n      {}{}", variable.name, path(variable), variable.doc, default(variable));
    }
    out
}

fn path(variable: &Variable) -> String {
    variable.paths.first().map_or(String::new(), |path| format!(" [{path}]"))
}

fn default(variable: &Variable) -> String {
    variable.default.map_or(String::new(), |default| format!(" (default: {default})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Settings, Sources};

    #[test]
    fn the_effective_configuration_shows_values_and_origins_but_no_secret() {
        let sources = Sources::from_environment([
            ("JWT_SECRET", "hunter2-hunter2-hunter2-hunter2-"),
            ("API_KEY", "hunter2-hunter2-"),
            ("REDIS_URL", "redis://:hunter2@redis:6379"),
            ("SERVER_PORT", "9000"),
        ]);
        let text = effective(&Settings::load(&sources).unwrap());
        for line in [
            "JWT_SECRET = ***    # environment",
            "API_KEY = ***    # environment",
            "REDIS_URL = redis://:***@redis:6379    # environment",
            "SERVER_PORT = 9000    # environment",
            "SERVER_HOST = 0.0.0.0",
            "SHARDS = 1",
            "JWT_ISSUER = (unset)",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("hunter2"));
        assert_eq!(text.lines().count(), VARIABLES.len());
    }

    #[test]
    fn help_names_every_variable() {
        let text = help();
        for variable in VARIABLES {
            assert!(text.contains(variable.name));
        }
    }
}
