//! A Redis server of the test's own, and two ways to speak to it: redis-cli, and a client of a few lines.
use super::DEADLINE;
use super::process::{self, Folder, Port, Process};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

/// A redis-server without persistence, on a port of its own that it keeps over restarts.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    process: Option<Process>,
    _port: Port,
    home: Folder,
}

impl Redis {
    pub(crate) fn start() -> Redis {
        Redis::with(&[], None)
    }

    /// With more arguments for redis-server; `password` is what [`Redis::client`] says to be let in as `default`.
    pub(crate) fn with(arguments: &[&str], password: Option<&str>) -> Redis {
        let mut redis = Redis::absent();
        redis.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        redis.password = password.map(str::to_owned);
        redis.restart();
        redis
    }

    /// A place where a Redis will be.
    pub(crate) fn absent() -> Redis {
        let port = Port::free();
        Redis {
            port: port.number,
            arguments: Vec::new(),
            password: None,
            process: None,
            _port: port,
            home: Folder::new("redis"),
        }
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// SIGSTOP holds it: connections stand, nothing is answered. SIGCONT lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Holds it: connections stand, nothing is answered.
    pub(crate) fn hold(&self) {
        self.process.as_ref().expect("it runs").signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        self.process.as_ref().expect("it runs").signal(rustix::process::Signal::CONT);
    }

    /// Starts it, again or for the first time.
    pub(crate) fn restart(&mut self) {
        let mut command = Command::new(process::tool("redis-server"));
        command
            .current_dir(self.home.path())
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(self.port.to_string())
            .args(&self.arguments);
        let process = Process::spawn(&mut command);
        process.await_output("Ready to accept connections");
        self.process = Some(process);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs redis-cli with these arguments.
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(process::tool("redis-cli"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(password) = &self.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        let (status, printed) = process::run(command.args(arguments));
        assert!(status.success(), "redis-cli {arguments:?}: {printed}");
        printed
    }

    /// A connection of our own.
    pub(crate) fn client(&self) -> Resp {
        let mut client = Resp::connect(self.port);
        if let Some(password) = &self.password {
            assert_eq!(client.call(&[b"AUTH", password.as_bytes()]), "OK");
        }
        client
    }

    /// Publishes and asserts that somebody was subscribed.
    #[track_caller]
    pub(crate) fn publish(&self, channel: &str, payload: &str) {
        self.client().publish(channel, payload.as_bytes());
    }

    /// Waits until `subscribers` connections hold each of the subscriptions. MONITOR tells when to look again.
    #[track_caller]
    pub(crate) fn await_subscriptions(&self, patterns: usize, channels: &[&str]) {
        let mut monitor = self.client();
        assert_eq!(monitor.call(&[b"MONITOR"]), "OK");
        let mut client = self.client();
        loop {
            let held: usize = client.call(&[b"PUBSUB", b"NUMPAT"]).parse().expect("NUMPAT is a number");
            let silent = channels.iter().any(|channel| {
                let answer = client.call(&[b"PUBSUB", b"NUMSUB", channel.as_bytes()]);
                answer.ends_with(" 0")
            });
            if held >= patterns && !silent {
                return;
            }
            while !monitor.reply().to_ascii_lowercase().contains("subscribe\"") {}
        }
    }

    /// Waits until the three default subscriptions of contract §6 are held.
    #[track_caller]
    pub(crate) fn await_default_subscriptions(&self) {
        self.await_subscriptions(2, &["notification:broadcast"]);
    }
}

/// A RESP2 connection.
#[derive(Debug)]
pub(crate) struct Resp(BufReader<TcpStream>);

impl Resp {
    pub(crate) fn connect(port: u16) -> Resp {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("Redis accepts");
        stream.set_nodelay(true).expect("a fresh socket takes options");
        stream.set_read_timeout(Some(DEADLINE)).expect("a fresh socket takes options");
        Resp(BufReader::new(stream))
    }

    /// Sends a command and returns its reply as text, arrays joined by spaces.
    #[track_caller]
    pub(crate) fn call(&mut self, command: &[&[u8]]) -> String {
        self.send(command);
        self.reply()
    }

    /// Sends a command; the reply is still to be read.
    pub(crate) fn send(&mut self, command: &[&[u8]]) {
        let mut out = format!("*{}\r\n", command.len()).into_bytes();
        for part in command {
            out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&out).expect("Redis reads");
    }

    /// Publishes and asserts that somebody was subscribed.
    #[track_caller]
    pub(crate) fn publish(&mut self, channel: &str, payload: &[u8]) {
        let receivers = self.call(&[b"PUBLISH", channel.as_bytes(), payload]);
        assert_ne!(receivers, "0", "nobody is subscribed to {channel}");
    }

    /// The next reply.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> String {
        let line = self.line();
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" | ":" => rest.to_owned(),
            "-" => panic!("Redis refuses: {rest}"),
            "$" if rest == "-1" => String::new(),
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().expect("a length") + 2];
                std::io::Read::read_exact(&mut self.0, &mut text).expect("Redis answers");
                text.truncate(text.len() - 2);
                String::from_utf8(text).expect("the tests ask for text")
            }
            "*" => {
                let count: usize = rest.parse().expect("a count");
                (0..count).map(|_| self.reply()).collect::<Vec<_>>().join(" ")
            }
            _ => panic!("not RESP2: {line:?}"),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("Redis answers");
        assert!(line.ends_with("\r\n"), "Redis hung up");
        line.truncate(line.len() - 2);
        line
    }
}
