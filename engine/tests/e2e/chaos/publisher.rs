//! A backend that publishes to some users over one kept connection, one publish after the other.
use super::books::{Outcome, Publish};
use super::stage::Stage;
use crate::support::DEADLINE;
use crate::support::http::request;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long it waits before it dials again: the price of asking.
const RETRY: Duration = Duration::from_millis(10);

/// The connection and what it published, in order, to each user.
#[derive(Debug)]
pub(crate) struct Publisher<'a> {
    stage: &'a Stage,
    connection: Option<BufReader<TcpStream>>,
    published: BTreeMap<usize, Vec<Publish>>,
}

impl<'a> Publisher<'a> {
    pub(crate) fn new(stage: &'a Stage, users: impl IntoIterator<Item = usize>) -> Publisher<'a> {
        let published = users.into_iter().map(|user| (user, Vec::new())).collect();
        Publisher { stage, connection: None, published }
    }

    /// Publishes to the users in turn at this pace until the run ends, then a last word to each until it is accepted.
    pub(crate) fn publish(mut self, pace: Duration, gathering: usize) -> BTreeMap<usize, Vec<Publish>> {
        let users: Vec<usize> = self.published.keys().copied().collect();
        let mut due = Instant::now();
        for user in users.iter().cycle() {
            // A publisher that was held up does not make up for it.
            due = (due + pace).max(Instant::now());
            if !self.stage.pace(due) {
                break;
            }
            self.send(*user);
        }
        if !self.stage.await_gathered(gathering) {
            return self.published;
        }
        for user in users {
            let begun = Instant::now();
            while !matches!(self.send(user), Outcome::Accepted { .. }) {
                assert!(
                    begun.elapsed() < DEADLINE,
                    "u{user} cannot be sent to any more: {:?}",
                    self.published[&user].last()
                );
                std::thread::park_timeout(RETRY);
            }
            self.stage.last_word_was(user, self.published[&user].len() - 1);
        }
        self.published
    }

    fn send(&mut self, user: usize) -> Outcome {
        let n = self.published[&user].len();
        let body = format!(r#"{{"target_user_id":"u{user}","event_type":"e","payload":{n}}}"#);
        let bytes = request("POST", "/api/v1/notifications/send", &[], Some(body.as_bytes()));
        while self.connection.is_none() {
            self.connection = dial(self.stage.port).ok();
            if self.connection.is_none() {
                std::thread::park_timeout(RETRY);
            }
        }
        let sent = Instant::now();
        let outcome = match self.connection.as_mut().map(|connection| exchange(connection, &bytes)) {
            Some(Ok((status, keeps, body))) => {
                if !keeps {
                    self.connection = None;
                }
                understand(status, &body)
            }
            _ => {
                self.connection = None;
                let silent = sent.elapsed() >= DEADLINE;
                assert!(!silent, "a publish to u{user} was not answered at all");
                Outcome::Broken
            }
        };
        let publish = Publish { sent, answered: Instant::now(), outcome };
        self.published.get_mut(&user).expect("one of ours").push(publish);
        outcome
    }
}

fn dial(port: u16) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(BufReader::new(stream))
}

/// Status, whether the connection goes on, and body; an error when the connection breaks.
fn exchange(connection: &mut BufReader<TcpStream>, bytes: &[u8]) -> Result<(u16, bool, Vec<u8>)> {
    connection.get_mut().write_all(bytes)?;
    let (mut status, mut len, mut keeps, mut line) = (0, 0, true, String::new());
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = text.strip_prefix("http/1.1 ") {
            status = rest[..3].parse().expect("a status is a number");
        } else if let Some(value) = text.strip_prefix("content-length:") {
            len = value.trim().parse().expect("a length is a number");
        } else if text == "connection: close" {
            keeps = false;
        } else if text.is_empty() {
            break;
        }
    }
    let mut body = vec![0; len];
    connection.read_exact(&mut body)?;
    Ok((status, keeps, body))
}

fn understand(status: u16, body: &[u8]) -> Outcome {
    if status != 200 {
        return Outcome::Refused(status);
    }
    let receipt: Value = serde_json::from_slice(body).expect("receipts are JSON");
    if receipt["success"] != true {
        return Outcome::Refused(status);
    }
    let count = |key: &str| receipt[key].as_u64().unwrap_or_else(|| panic!("no {key} in {receipt}"));
    Outcome::Accepted { delivered_to: count("delivered_to"), queued: count("queued") }
}
