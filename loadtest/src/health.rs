//! What the server's `/health` says of its mailboxes (contract §1.9).
use crate::error::LoadError;
use serde::Deserialize;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest we wait for the connect and for each piece of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest answer we take.
const ANSWER_BYTES_MAX: u64 = 64 * 1_024;

#[derive(Deserialize)]
struct Health {
    queue: Queue,
}

#[derive(Deserialize)]
struct Queue {
    enabled: bool,
    total_messages: u64,
}

/// Notifications the server keeps. Blocking: it is asked between the phases.
pub fn kept(target: SocketAddr) -> Result<u64, LoadError> {
    let answer = ask(target).map_err(|error| LoadError::Health(format!("{target}: {error}")))?;
    read(&answer).map_err(|reason| LoadError::Health(format!("{target}: {reason}")))
}

fn ask(target: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&target, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn read(answer: &[u8]) -> Result<u64, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = response.parse(answer).map_err(|error| format!("answer head: {error}"))?;
    let httparse::Status::Complete(head) = head else { return Err("half an answer".to_owned()) };
    if response.code != Some(200) {
        return Err(format!("status {} where 200 was expected", response.code.unwrap_or(0)));
    }
    let health: Health = serde_json::from_slice(&answer[head..]).map_err(|error| error.to_string())?;
    if !health.queue.enabled {
        return Err("the queue is off: a server keeps mail with QUEUE_ENABLED=true".to_owned());
    }
    Ok(health.queue.total_messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_or_it_is_said_why_not() {
        let answer = |status: &str, queue: &str| {
            let text =
                format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\n{{\"status\":\"healthy\",\"queue\":{queue}}}");
            read(text.as_bytes())
        };
        assert_eq!(answer("200 OK", r#"{"enabled":true,"backend":"memory","total_messages":7}"#), Ok(7));
        for (status, queue, why) in [
            ("200 OK", r#"{"enabled":false,"total_messages":0}"#, "QUEUE_ENABLED"),
            ("200 OK", r#"{"enabled":true}"#, "total_messages"),
            ("503 Busy", r#"{"enabled":true,"total_messages":0}"#, "503"),
        ] {
            assert!(answer(status, queue).unwrap_err().contains(why), "{why}");
        }
        assert!(read(b"HTTP/1.1 200").is_err());
    }
}
