//! The promises of the architecture that a compiler does not keep: which crate may know which, what the pure parts must
//! never name, what lies at the top of the repository, and that the documents point to things that exist.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every arrow between our crates. A new one is a decision and starts here.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("shards", &["protocol"]),
    ("storage", &["protocol"]),
    ("engine", &["protocol", "shards", "storage"]),
    ("bench", &["protocol", "shards", "storage"]),
    // A black box: it must not share the server's bugs.
    ("loadtest", &["protocol"]),
];

/// What the repository shows at its top, besides dotfiles and `target`.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "bench",
    "deploy",
    "docs",
    "engine",
    "loadtest",
    "protocol",
    "shards",
    "storage",
];

/// Names that bring sockets, threads, clocks, locks or the machine into a place that must be a pure function of its
/// input: it could no longer be run by a seed. `std::net::IpAddr` is a value and fine.
const IMPURE: &[&str] = &[
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::ToSocketAddrs",
    "std::os::unix::net",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::io::stdout",
    "std::io::stderr",
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Mutex",
    "RwLock",
    "Condvar",
    "thread::spawn",
    "env::var",
    "monoio::",
    "rustix::",
    "println!",
];

fn root() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    engine.parent().expect("engine is a member of the workspace").to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(path: &Path) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below `folder` that `wanted` likes, in order.
fn files(folder: &Path, wanted: &impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn crates_know_only_whom_they_may() {
    let root = root();
    let members = manifest(&root.join("Cargo.toml"))["workspace"]["members"].as_array().expect("a list").clone();
    let members: Vec<_> = members.iter().map(|member| member.as_str().expect("a name")).collect();
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    assert_eq!(members.iter().copied().collect::<BTreeSet<_>>(), allowed.keys().copied().collect());
    for member in members {
        let manifest = manifest(&root.join(member).join("Cargo.toml"));
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
            for name in dependencies.keys().filter(|name| allowed.contains_key(name.as_str())) {
                assert!(allowed[member].contains(&name.as_str()), "{member} may not know {name} ({table})");
            }
        }
    }
}

#[test]
fn nobody_brings_another_runtime() {
    let lock = manifest(&root().join("Cargo.lock"));
    for package in lock["package"].as_array().expect("a list") {
        let name = package["name"].as_str().expect("a name");
        assert!(name != "tokio" && !name.starts_with("tokio-"), "{name} is in Cargo.lock");
    }
}

#[test]
fn protocol_is_pure() {
    let banned: Vec<_> = IMPURE.iter().copied().chain(["tracing::"]).collect();
    assert_names_none_of(&root().join("protocol/src"), &banned, &|_| true);
}

#[test]
fn a_shard_is_pure_but_for_its_rim() {
    // The reactor and the mesh are the rim: sockets, clocks and the lanes between threads. The rest runs by a seed.
    let source = root().join("shards/src");
    let is_rim = |path: &Path| {
        let inner = path.strip_prefix(&source).expect("a file below it");
        ["reactor", "mesh"].iter().any(|rim| inner.starts_with(rim) || inner == Path::new(&format!("{rim}.rs")))
    };
    assert_names_none_of(&source, IMPURE, &|path| !is_rim(path));
}

#[track_caller]
fn assert_names_none_of(folder: &Path, banned: &[&str], wanted: &impl Fn(&Path) -> bool) {
    let is_code = |path: &Path| {
        path.extension().is_some_and(|extension| extension == "rs")
            && path.file_stem().is_some_and(|stem| stem != "tests")
    };
    let sources = files(folder, &|path| is_code(path) && wanted(path));
    assert!(!sources.is_empty(), "no sources in {}", folder.display());
    for path in sources {
        let code = shipped_code(&read(&path));
        let mut named: Vec<String> = code.lines().map(str::to_owned).collect();
        named.extend(used_paths(&code));
        for name in banned {
            if let Some(line) = named.iter().find(|line| line.contains(name)) {
                panic!("{} names {name}: {}", path.display(), line.trim());
            }
        }
    }
}

/// A source without comments and without the test module at its end: tests may look at the machine.
fn shipped_code(source: &str) -> String {
    let mut code = String::new();
    for line in source.lines() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        let line = match line.find("//") {
            // Not inside a text, such as an address.
            Some(at) if line[..at].matches('"').count() % 2 == 0 => &line[..at],
            _ => line,
        };
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// Every path that `use` brings in, groups taken apart: `use std::{fs, io}` names `std::fs`, too.
fn used_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for statement in code.split(';') {
        let Some(at) = statement.rfind("use ") else { continue };
        let tree: String = statement[at + 4..].split_whitespace().collect();
        expand("", &tree, &mut paths);
    }
    paths
}

fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        paths.push(format!("{prefix}{tree}::"));
        return;
    };
    let prefix = format!("{prefix}{}", &tree[..open]);
    let inner = tree[open + 1..].strip_suffix('}').unwrap_or(&tree[open + 1..]);
    let (mut depth, mut start) = (0, 0);
    for (at, byte) in inner.bytes().chain([b',']).enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                expand(&prefix, &inner[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
}

#[test]
fn groups_of_names_are_seen_through() {
    let paths = used_paths("use std::{fs, sync::{Arc, Mutex as Lock}, io};\nuse a::b;");
    let expected = ["std::fs::", "std::sync::Arc::", "std::sync::MutexasLock::", "std::io::", "a::b::"];
    assert_eq!(paths, expected);
    assert_eq!(
        shipped_code("a(); // std::fs\nlet b = \"redis://c\";\n#[cfg(test)]\nmod d;\n"),
        "a(); \nlet b = \"redis://c\";\n"
    );
}

#[test]
fn tables_of_names_that_strangers_choose_are_seeded() {
    // A hash that everybody can compute lets a stranger choose names that all fall into one bucket. These need the same
    // answer everywhere and are no tables: which shard is a user's home, which node keeps a piece of mail, which lock of
    // PostgreSQL is a mailbox's, which commands speak of one key (two keys taken for one cost a command, told as not done),
    // which tenant is held back (another of the same mark would be with it).
    let known = [
        "shards/src/pressure.rs",
        "shards/src/tables/placement.rs",
        "shards/src/tables/rendezvous.rs",
        "storage/src/postgres/store/requests.rs",
        "storage/src/redis/commands/mod.rs",
    ];
    let unseeded = ["FixedState", "BuildHasherDefault", "DefaultHasher::new", "FxHash", "Fnv"];
    let root = root();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for member in ["protocol/src", "shards/src", "storage/src", "engine/src"] {
        for path in files(&root.join(member), &|path| path.extension().is_some_and(|extension| extension == "rs")) {
            let code = shipped_code(&read(&path));
            let inner = path.strip_prefix(&root).expect("a file below it").to_string_lossy().into_owned();
            let Some(named) = unseeded.iter().find(|name| code.contains(**name)) else { continue };
            let place = known.iter().find(|known| **known == inner);
            seen.insert(place.unwrap_or_else(|| panic!("{inner} hashes by {named}")));
        }
    }
    assert_eq!(seen.len(), known.len(), "one of them hashes differently now; these do not: {seen:?}");
}

#[test]
fn the_top_shows_the_architecture() {
    let entries = std::fs::read_dir(root()).expect("the repository can be read");
    let shown: BTreeSet<String> = entries
        .map(|entry| entry.expect("the repository can be read").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target" && name != "LICENSE")
        .collect();
    assert_eq!(shown, TOP.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn documents_point_to_what_exists() {
    let root = root();
    let mut documents = files(&root.join("docs"), &|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.push(root.join("README.md"));
    for document in documents {
        for path in paths_in(&read(&document)) {
            assert!(root.join(&path).exists(), "{} names {path}, which does not exist", document.display());
        }
    }
}

/// Texts in backticks that begin like a path of this repository. Of a pattern, the folder before it.
fn paths_in(document: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for text in document.split('`').skip(1).step_by(2) {
        let text = text.split_whitespace().next().unwrap_or_default();
        let begins_at_the_top = TOP.iter().any(|top| {
            let rest = text.strip_prefix(top);
            rest.is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && top.contains('.')))
        });
        let is_hidden = [".ci/", ".config/", ".github/"].iter().any(|hidden| text.starts_with(hidden));
        if !begins_at_the_top && !is_hidden {
            continue;
        }
        let fixed = match text.find(['*', '{', '<', '…']) {
            Some(at) => text[..at].rfind('/').map_or("", |slash| &text[..slash]),
            None => text.split(':').next().unwrap_or_default(),
        };
        paths.push(fixed.to_owned());
    }
    paths
}

#[test]
fn paths_are_found_in_prose() {
    let text = "Run `deploy/test.sh now`, see `engine/tests/e2e/*.rs`, `Cargo.toml`, not `engine` or `/health`; `protocol/src/lib.rs:7`.";
    assert_eq!(paths_in(text), ["deploy/test.sh", "engine/tests/e2e", "Cargo.toml", "protocol/src/lib.rs"]);
}
