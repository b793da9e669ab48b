//! A PostgreSQL server of the test's own, and psql to speak to it.
use super::process::{Folder, Port, Process, await_that, run};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const MISSING: &str = "these tests need PostgreSQL 14 or newer; deploy/install-test-deps.sh installs it";

/// A server on a loopback port of its own that it keeps over restarts. It refuses to run as root, so a test that does
/// runs it as the user that Debian's package made.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) port: u16,
    process: Option<Process>,
    _port: Port,
    home: Folder,
}

impl Postgres {
    /// One that lets the superuser in without proof.
    pub(crate) fn start() -> Postgres {
        let mut postgres = Postgres::absent();
        postgres.restart();
        postgres
    }

    /// A place where a server will be.
    pub(crate) fn absent() -> Postgres {
        let port = Port::free();
        let postgres = Postgres { port: port.number, process: None, _port: port, home: Folder::new("postgres") };
        if let Some((uid, gid)) = server_user() {
            chown(postgres.home.path(), Some(uid), Some(gid)).expect("root may give it away");
        }
        let mut initdb = postgres.program("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]);
        let (status, printed) = run(initdb.arg("-D").arg(postgres.data()));
        assert!(status.success(), "{MISSING}: {printed}");
        // In this order: the superuser as he comes, everybody else by password.
        let access = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(postgres.data().join("pg_hba.conf"), access).expect("the folder is there");
        postgres
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A program of the server's, to run as whoever the server runs as. It dies with the test.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some((uid, gid)) = server_user() {
            command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        }
        command.arg(programs().join(name)).current_dir(self.home.path());
        command
    }

    /// Starts it, again or for the first time. Right after a kill the machine may still hold what the last one had.
    pub(crate) fn restart(&mut self) {
        let process = await_that("PostgreSQL to start", || {
            let mut command = self.program("postgres");
            command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
            for setting in [
                "listen_addresses=127.0.0.1",
                "unix_socket_directories=",
                "fsync=off",
                "shared_buffers=8MB",
                "max_connections=40",
                "autovacuum=off",
                "logging_collector=off",
                "log_destination=stderr",
                "lc_messages=C",
            ] {
                command.args(["-c", setting]);
            }
            let mut process = Process::spawn(&mut command);
            loop {
                if process.output().contains("database system is ready to accept connections") {
                    return Some(process);
                }
                if process.ended().is_some() {
                    return None;
                }
                process.await_any_output(Duration::from_millis(5));
            }
        });
        self.process = Some(process);
    }

    /// Kills it and all its processes as a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The first one first: it would take the death of another for a crash, and tell the rest.
            let children = children_of(process.pid());
            process.kill();
            for pid in children {
                // It may have followed its parent already.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// SIGSTOP holds it and all its processes: connections stand, nothing is answered. SIGCONT lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        process.signal(signal);
        for pid in children_of(process.pid()) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    /// `who` is `user[:password]`.
    pub(crate) fn url(&self, who: &str) -> String {
        format!("postgres://{who}@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Has psql do this as the superuser and returns what it prints: rows as lines, columns joined by `|`.
    #[track_caller]
    pub(crate) fn psql(&self, sql: &str) -> String {
        let mut psql = Command::new(programs().join("psql"));
        psql.env_clear().args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        let (status, printed) = run(psql.args(["-d", "postgres", "-p", &self.port.to_string(), "-c", sql]));
        assert!(status.success(), "{sql}: {printed}");
        printed.trim_end().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
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

fn children_of(parent: u32) -> Vec<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}
