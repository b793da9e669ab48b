//! A PostgreSQL server of the test's own, and psql to speak to it.
#[path = "../../../../storage/tests/common/postgres/installed.rs"]
mod installed;

use super::process::{Folder, Port, Process, await_that, run};
use installed::{MISSING, READY, children_of};
use rustix::process::{Signal, kill_process};
use std::time::Duration;

/// A server on a loopback port of its own that it keeps over restarts.
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
        let (status, printed) = run(&mut installed::initdb(postgres.home.path()));
        assert!(status.success(), "{MISSING}: {printed}");
        // In this order: the superuser as he comes, everybody else by password.
        let access = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(installed::data(postgres.home.path()).join("pg_hba.conf"), access).expect("the folder is there");
        postgres
    }

    /// Starts it, again or for the first time. Right after a kill the machine may still hold what the last one had.
    pub(crate) fn restart(&mut self) {
        let process = await_that("PostgreSQL to start", || {
            let mut process = Process::spawn(&mut installed::postgres(self.home.path(), self.port, &[]));
            loop {
                if process.output().contains(READY) {
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
        let (status, printed) = run(&mut installed::psql(self.port, sql));
        assert!(status.success(), "{sql}: {printed}");
        printed.trim_end().to_owned()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}
