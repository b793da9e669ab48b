//! The server under test, as a process.
use super::DEADLINE;
use super::http::{self, Connection, Response};
use super::process::{Folder, Port, Process};
use super::sse::Sse;
use super::token;
use super::ws::Ws;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// A running server on loopback with an empty environment but for its settings, in an empty folder.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) port: u16,
    key: Option<String>,
    _port: Port,
    _home: Folder,
}

/// Whether a server answers at this port: what a balancer asks before it sends clients.
pub(crate) fn answers(port: u16) -> bool {
    let mut answer = Vec::new();
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: ara.test\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut answer)
    });
    asked.is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
}

/// The binary with nothing in its environment.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ara-notification-service"));
    command.env_clear();
    command
}

impl Server {
    /// With defaults: development, two shards, nobody answering at `REDIS_URL`.
    pub(crate) fn start() -> Server {
        Server::with(&[])
    }

    /// With these settings on top.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Server {
        Server::launch(&[], settings)
    }

    /// With arguments, too.
    pub(crate) fn launch(arguments: &[&str], settings: &[(&str, &str)]) -> Server {
        Server::launch_in(Folder::new("server"), arguments, settings)
    }

    /// With this text in `config/default.toml`.
    pub(crate) fn with_file(text: &str, settings: &[(&str, &str)]) -> Server {
        let home = Folder::new("server");
        std::fs::create_dir(home.path().join("config")).expect("the folder is new");
        home.write("config/default.toml", text);
        Server::launch_in(home, &[], settings)
    }

    fn launch_in(home: Folder, arguments: &[&str], settings: &[(&str, &str)]) -> Server {
        let port = Port::free();
        let mut command = binary();
        command
            .args(arguments)
            .current_dir(home.path())
            .env("JWT_SECRET", token::SECRET)
            .env("SERVER_HOST", "127.0.0.1")
            .env("SERVER_PORT", port.number.to_string())
            .env("REDIS_URL", "redis://127.0.0.1:1")
            .env("SHARDS", "2")
            .envs(settings.iter().copied());
        let mut process = Process::spawn(&mut command);
        while !answers(port.number) {
            if let Some(status) = process.ended() {
                panic!("the server did not start: {status}\n{}", process.output());
            }
            process.await_any_output(Duration::from_millis(5));
        }
        let key = settings.iter().find(|(name, _)| *name == "API_KEY").map(|(_, key)| (*key).to_owned());
        Server { process, port: port.number, key, _port: port, _home: home }
    }

    /// A connection that has said nothing yet.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.port)
    }

    /// One request with the server's API key.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        let headers: Vec<_> = self.key.iter().map(|key| ("X-API-Key", key.as_str())).collect();
        http::call(self.port, method, path, &headers, body.map(str::as_bytes))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.call("GET", path, None)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Response {
        self.call("POST", path, Some(body))
    }

    /// `POST /api/v1/notifications/{kind}`, which must answer 200.
    #[track_caller]
    pub(crate) fn publish(&self, kind: &str, body: &str) -> Value {
        self.post(&format!("/api/v1/notifications/{kind}"), body).ok()
    }

    /// Sends `payload` to a user; must answer 200.
    #[track_caller]
    pub(crate) fn send(&self, user: &str, payload: &str) -> Value {
        let user = serde_json::to_string(user).expect("text is JSON");
        self.publish("send", &format!(r#"{{"target_user_id":{user},"event_type":"test","payload":{payload}}}"#))
    }

    /// A WebSocket of this user.
    #[track_caller]
    pub(crate) fn ws(&self, user: &str) -> Ws {
        Ws::connect(self.port, &token::of(user))
    }

    /// An SSE stream of this user, past its `connected` event.
    #[track_caller]
    pub(crate) fn sse(&self, user: &str) -> Sse {
        Sse::connect(self.port, &format!("/sse?token={}", token::of(user)))
    }

    /// Asserts that nothing waits on `ws`, a connection of `user`: the next thing it hears is a notification sent now.
    /// What was published before and acknowledged to its publisher would stand before it.
    #[track_caller]
    pub(crate) fn nothing_waits(&self, user: &str, ws: &mut Ws) {
        let receipt = self.send(user, r#""sentinel""#);
        let heard = ws.notification();
        assert_eq!(heard["id"], receipt["notification_id"], "an uninvited notification: {heard}");
    }

    /// Asserts that the server still does its job: a newcomer connects and is reached.
    #[track_caller]
    pub(crate) fn still_delivers(&self) {
        let mut ws = self.ws("newcomer");
        self.nothing_waits("newcomer", &mut ws);
    }

    /// Resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("VmRSS is a number")
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.process.signal(rustix::process::Signal::TERM);
    }

    /// Waits for the end.
    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        self.process.await_exit()
    }
}
