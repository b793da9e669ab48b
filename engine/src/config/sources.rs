//! Where settings come from: the environment, `.env` and the files under `config/`, read but not yet understood.
use super::problem::{Problem, Warning};
use super::variables;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A text with the name people know it by.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// `config/default.toml` and the like.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// Everything that [`super::Settings::load`] reads; with equal sources it gives equal settings.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The process environment: every variable whose name and value are UTF-8.
    pub environment: BTreeMap<String, String>,
    /// `.env`: below the environment, above the files.
    pub dotenv: BTreeMap<String, String>,
    /// TOML files, the later ones win.
    pub files: Vec<SourceFile>,
    /// Cores this process may use: the default of `SHARDS`.
    pub cores: usize,
    /// How to read a key file that a setting names.
    pub read_file: fn(&Path) -> io::Result<Vec<u8>>,
    /// What could not be read.
    pub problems: Vec<Problem>,
    /// What was left alone.
    pub warnings: Vec<Warning>,
}

/// Formats that the original took and we do not.
const OTHER_EXTENSIONS: &[&str] = &["json", "yaml", "yml", "ini", "ron", "json5"];

impl Sources {
    /// An environment and nothing else.
    pub fn from_environment<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Sources {
        Sources {
            environment: pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            dotenv: BTreeMap::new(),
            files: Vec::new(),
            cores: 1,
            read_file: |path| std::fs::read(path),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// This process's environment and the files of its working directory.
    pub fn of_this_process() -> Sources {
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let mut sources = Sources::gather(std::env::vars_os(), &directory);
        sources.cores = std::thread::available_parallelism().map_or(1, usize::from);
        sources
    }

    /// An environment and the files of a directory; `.env` may also stand in one of its parents. Nothing is fatal here:
    /// what cannot be read becomes a problem among the others.
    pub fn gather(environment: impl IntoIterator<Item = (OsString, OsString)>, directory: &Path) -> Sources {
        let mut sources = Sources::from_environment([]);
        sources.take_environment(environment);
        sources.take_dotenv(directory);
        let run_mode = sources.lookup("RUN_MODE").unwrap_or("development").to_owned();
        let mut stems = vec!["default".to_owned()];
        // A mode that is no file name is a problem that `load` tells about; it must not become a path before that.
        if super::rule::Rule::FileStem.check(&run_mode).is_ok() && run_mode != "default" {
            stems.push(run_mode);
        }
        for stem in stems {
            sources.take_config(directory, &stem);
        }
        sources
    }

    /// What the environment, or else `.env`, says about a name; nothing and blank are the same.
    pub fn lookup(&self, name: &str) -> Option<&str> {
        let said = |map: &'_ BTreeMap<String, String>| map.get(name).is_some_and(|text| !text.trim().is_empty());
        let map = if said(&self.environment) { &self.environment } else { &self.dotenv };
        map.get(name).map(String::as_str).filter(|text| !text.trim().is_empty())
    }

    fn take_environment(&mut self, environment: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in environment {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    self.environment.insert(name, value);
                }
                Err(_) if variables::find(&name).is_some() => {
                    self.problems.push(Problem::new(name, "its value is not UTF-8"));
                }
                Err(_) => {}
            }
        }
    }

    fn take_dotenv(&mut self, directory: &Path) {
        let Some(path) = directory.ancestors().map(|parent| parent.join(".env")).find(|path| path.is_file()) else {
            return;
        };
        let name = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => return self.problems.push(Problem::new(name, format!("cannot be read: {error}"))),
        };
        for pair in dotenvy::from_read_iter(text.trim_start_matches('\u{feff}').as_bytes()) {
            match pair {
                Ok((key, value)) => {
                    self.dotenv.entry(key).or_insert(value);
                }
                // The library's message repeats the line, and with it perhaps a secret.
                Err(_) => {
                    let rule = format!("a line is not NAME=value, after {} good ones", self.dotenv.len());
                    return self.problems.push(Problem::new(name, rule));
                }
            }
        }
    }

    fn take_config(&mut self, directory: &Path, stem: &str) {
        let name = format!("config/{stem}.toml");
        match std::fs::read_to_string(directory.join(&name)) {
            Ok(text) => self.files.push(SourceFile { name, text }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.problems.push(Problem::new(name, format!("cannot be read: {error}"))),
        }
        for extension in OTHER_EXTENSIONS {
            let other = format!("config/{stem}.{extension}");
            if directory.join(&other).is_file() {
                self.warnings.push(Warning(format!("{other}: not read, configuration files are TOML here")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    /// A directory of its own for each test, gone afterwards.
    struct Directory(PathBuf);

    impl Directory {
        fn new(files: &[(&str, &str)]) -> Directory {
            let name = format!("ara-sources-{}", crate::random::hex::<8>().unwrap());
            let directory = Directory(std::env::temp_dir().join(name));
            for (path, text) in files {
                let path = directory.0.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            directory
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    #[test]
    fn the_run_mode_names_the_second_file() {
        let directory = Directory::new(&[
            ("config/default.toml", "a"),
            ("config/staging.toml", "b"),
            ("config/production.toml", "c"),
        ]);
        let sources = Sources::gather(environment(&[("RUN_MODE", "staging")]), &directory.0);
        let names: Vec<&str> = sources.files.iter().map(|file| &*file.name).collect();
        assert_eq!(names, ["config/default.toml", "config/staging.toml"]);
    }

    #[test]
    fn a_run_mode_cannot_leave_the_directory() {
        let directory = Directory::new(&[("config/x.toml", ""), ("secret.toml", "")]);
        let sources = Sources::gather(environment(&[("RUN_MODE", "../secret")]), &directory.0);
        assert!(sources.files.is_empty());
    }

    #[test]
    fn dotenv_is_found_above_and_does_not_override() {
        let directory = Directory::new(&[
            (".env", "\u{feff}RUN_MODE=staging\nSERVER_PORT=1\nexport API_KEY='a b'\n# a remark\n"),
            ("deep/er/config/staging.toml", ""),
        ]);
        let sources = Sources::gather(environment(&[("SERVER_PORT", "2")]), &directory.0.join("deep/er"));
        assert_eq!(sources.lookup("SERVER_PORT"), Some("2"));
        assert_eq!(sources.lookup("API_KEY"), Some("a b"));
        assert_eq!(sources.files.len(), 1);
        assert_eq!(sources.problems, []);
    }

    #[test]
    fn a_bad_line_of_dotenv_is_a_problem_that_does_not_repeat_it() {
        let directory = Directory::new(&[(".env", "A=1\nhunter2 'secret\n")]);
        let sources = Sources::gather([], &directory.0);
        assert_eq!(sources.problems.len(), 1);
        assert!(!sources.problems[0].to_string().contains("hunter2"));
    }

    #[test]
    fn a_blank_variable_leaves_the_word_to_the_next_layer() {
        let directory = Directory::new(&[(".env", "API_KEY=from-dotenv")]);
        let sources = Sources::gather(environment(&[("API_KEY", " ")]), &directory.0);
        assert_eq!(sources.lookup("API_KEY"), Some("from-dotenv"));
    }

    #[test]
    fn other_formats_are_named_in_a_warning() {
        let directory = Directory::new(&[("config/default.yaml", "server: {}")]);
        let sources = Sources::gather([], &directory.0);
        assert_eq!(sources.warnings.len(), 1);
        assert!(sources.warnings[0].0.starts_with("config/default.yaml"));
    }

    #[test]
    fn only_our_own_variables_must_be_utf_8() {
        let broken = || OsString::from_vec(vec![0xff]);
        let directory = Directory::new(&[("x", "")]);
        let pairs = [(OsString::from("API_KEY"), broken()), (OsString::from("OTHER"), broken())];
        let sources = Sources::gather(pairs, &directory.0);
        assert_eq!(sources.problems, [Problem::new("API_KEY", "its value is not UTF-8")]);
    }
}
