//! The server under test as something that dies and comes back at the same port with the same settings.
use super::process::{Folder, Port, Process};
use super::server::{answers, binary};
use super::{http, token};
use rustix::process::Signal;
use serde_json::Value;
use std::process::ExitStatus;
use std::time::Duration;

/// A server that keeps its port and folder over restarts.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) port: u16,
    settings: Vec<(String, String)>,
    /// The last one runs or was ended; those before tell what they printed when the test fails.
    lives: Vec<Process>,
    _port: Port,
    home: Folder,
}

impl Service {
    /// Two shards, nobody answering at `REDIS_URL`, and these settings on top.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Service {
        let port = Port::free();
        let mut service = Service {
            port: port.number,
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            lives: Vec::new(),
            _port: port,
            home: Folder::new("service"),
        };
        service.restart();
        service
    }

    /// Starts it, again or for the first time, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        let mut command = binary();
        command
            .current_dir(self.home.path())
            .env("JWT_SECRET", token::SECRET)
            .env("SERVER_HOST", "127.0.0.1")
            .env("SERVER_PORT", self.port.to_string())
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("SHARDS", "2")
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        let mut process = Process::spawn(&mut command);
        while !answers(self.port) {
            if let Some(status) = process.ended() {
                panic!("the server did not start: {status}\n{}", process.output());
            }
            process.await_any_output(Duration::from_millis(5));
        }
        self.lives.push(process);
    }

    fn process(&mut self) -> &mut Process {
        self.lives.last_mut().expect("it was started")
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process().kill();
    }

    /// Asks it to stop and waits for its end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.process().signal(Signal::TERM);
        self.process().await_exit()
    }

    /// What `/health` says, over a connection of its own.
    #[track_caller]
    pub(crate) fn health(&self) -> Value {
        http::call(self.port, "GET", "/health", &[], None).ok()
    }
}
