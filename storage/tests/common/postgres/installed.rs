//! The PostgreSQL of this machine: its programs, ready to run, for whoever keeps a server in a folder. It refuses to run as
//! root, so a test that does runs it as the user that Debian's package made. The tests of `engine` include this file, too.
use rustix::process::Pid;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub(crate) const MISSING: &str = "these tests need PostgreSQL 14 or newer; deploy/install-test-deps.sh installs it";

/// What the server prints when it lets clients in, also as a standby.
pub(crate) const READY: &str = "database system is ready to accept ";

/// Makes the data of a server in a folder, which is given to it.
pub(crate) fn initdb(folder: &Path) -> Command {
    give(folder);
    let mut initdb = program(folder, "initdb");
    initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
    initdb.arg("-D").arg(data(folder));
    initdb
}

/// The server itself, on a loopback port, with settings of its own beside the usual, each `name=value`.
pub(crate) fn postgres(folder: &Path, port: u16, settings: &[String]) -> Command {
    let mut postgres = program(folder, "postgres");
    postgres.arg("-D").arg(data(folder)).args(["-p", &port.to_string()]);
    let usual = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off",
        "shared_buffers=8MB",
        "max_connections=40",
        "autovacuum=off",
        "max_wal_senders=0",
        "logging_collector=off",
        "log_destination=stderr",
        "lc_messages=C",
    ];
    for setting in usual.into_iter().chain(settings.iter().map(String::as_str)) {
        postgres.args(["-c", setting]);
    }
    postgres
}

/// Has a server do something, as the superuser; prints rows as lines, columns joined by `|`.
pub(crate) fn psql(port: u16, sql: &str) -> Command {
    let mut psql = Command::new(programs().join("psql"));
    psql.env_clear().args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
    psql.args(["-d", "postgres", "-p", &port.to_string(), "-c", sql]);
    psql
}

/// Where the data of a server is.
pub(crate) fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Gives a file or a folder to whoever the server runs as.
pub(crate) fn give(path: &Path) {
    if let Some((uid, gid)) = server_user() {
        chown(path, Some(uid), Some(gid)).expect("root may give it away");
    }
}

/// The processes that a server began.
pub(crate) fn children_of(parent: u32) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// A program of the server's, to run as whoever the server runs as. It dies with the test.
fn program(folder: &Path, name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = server_user() {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
    }
    command.arg(programs().join(name)).current_dir(folder).stdin(Stdio::null());
    command
}

/// Where the newest server is installed.
fn programs() -> PathBuf {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = installed.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((version, entry.path().join("bin")))
    });
    let newest = versions.filter(|(_, programs)| programs.join("postgres").exists()).max();
    newest.unwrap_or_else(|| panic!("{MISSING}: no postgres below /usr/lib/postgresql")).1
}

/// Whom the server runs as; `None` is whoever we are.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("a list of users");
    let user = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == "postgres");
    let user = user.unwrap_or_else(|| panic!("{MISSING}: there is no user postgres, and root may not run it"));
    Some((user[2].parse().expect("a number"), user[3].parse().expect("a number")))
}
