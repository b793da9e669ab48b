//! A Redis master, its replica and three sentinels that put the replica in its place when it dies.
use super::process::{self, Folder, Port, Process, await_that};
use super::redis::Redis;
use std::process::Command;

/// What the sentinels call it.
const MASTER: &str = "ours";

/// All of them.
#[derive(Debug)]
pub(crate) struct Guarded {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    sentinels: Vec<(Process, Port, Folder)>,
}

impl Guarded {
    /// Running, and known to each other.
    pub(crate) fn start() -> Guarded {
        let master = Redis::with(&["--repl-diskless-sync-delay", "0"], None);
        let replica = Redis::with(&["--replicaof", "127.0.0.1", &master.port.to_string()], None);
        let sentinels = (0..3).map(|_| sentinel(master.port)).collect();
        let guarded = Guarded { master, replica, sentinels };
        await_that("the sentinels to know each other", || {
            let knows = |port: &Port| {
                let told = ask(port.number, &["SENTINEL", "MASTER", MASTER]);
                let value = |name: &str| told.lines().skip_while(|line| *line != name).nth(1).map(str::to_owned);
                value("num-slaves").as_deref() == Some("1") && value("num-other-sentinels").as_deref() == Some("2")
            };
            guarded.sentinels.iter().all(|(_, port, _)| knows(port)).then_some(())
        });
        await_that("the replica to follow", || {
            guarded.replica.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        guarded
    }

    /// `REDIS_URL` of whoever follows the master.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.sentinels.iter().map(|(_, port, _)| format!("127.0.0.1:{}", port.number)).collect();
        format!("redis+sentinel://{}/{MASTER}", hosts.join(","))
    }
}

fn sentinel(master: u16) -> (Process, Port, Folder) {
    let (port, home) = (Port::free(), Folder::new("sentinel"));
    let lines = [
        format!("port {}", port.number),
        "bind 127.0.0.1".to_owned(),
        format!("sentinel monitor {MASTER} 127.0.0.1 {master} 2"),
        format!("sentinel down-after-milliseconds {MASTER} 500"),
        format!("sentinel failover-timeout {MASTER} 3000"),
    ];
    let file = home.write("sentinel.conf", &(lines.join("\n") + "\n"));
    let mut command = Command::new(process::tool("redis-server"));
    let process = Process::spawn(command.current_dir(home.path()).arg(file).arg("--sentinel"));
    process.await_output("Sentinel ID is");
    (process, port, home)
}

fn ask(port: u16, words: &[&str]) -> String {
    let mut command = Command::new(process::tool("redis-cli"));
    process::run(command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(words)).1
}
