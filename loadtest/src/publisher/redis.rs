//! Publishes by Redis PUBLISH (contract §6), in RESP2 written by hand.
use super::{Answer, Reply};
use crate::error::LoadError;
use crate::payload::{EVENT_TYPE, Stationery, write_number};
use crate::scenario::{self, Aim, Audience, Plan};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

/// Longest answer line we take.
const LINE_BYTES_MAX: usize = 4 * 1_024;

/// `redis://[user:password@]host:port[/db]`.
pub struct RedisUrl {
    /// Where it listens.
    pub address: SocketAddr,
    login: Vec<u8>,
}

impl RedisUrl {
    /// Reads the text; refuses what is not on this machine unless that is meant.
    pub fn parse(text: &str, allow_remote: bool) -> Result<RedisUrl, LoadError> {
        let wrong = || LoadError::Plan("--redis-url: redis://[user:password@]host:port[/db] is expected".to_owned());
        let rest = text.strip_prefix("redis://").ok_or_else(wrong)?;
        let (credentials, place) = rest.rsplit_once('@').map_or((None, rest), |(who, place)| (Some(who), place));
        let (host, database) = place.split_once('/').unwrap_or((place, ""));
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:6379") };
        let mut login = Vec::new();
        if let Some((user, password)) = credentials.map(|text| text.split_once(':').unwrap_or(("", text))) {
            let words: Vec<&[u8]> = [&b"AUTH"[..], user.as_bytes(), password.as_bytes()]
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect();
            write_command(&mut login, &words);
        }
        if !database.is_empty() {
            database.parse::<u32>().map_err(|_| wrong())?;
            write_command(&mut login, &[b"SELECT", database.as_bytes()]);
        }
        write_command(&mut login, &[b"PING"]);
        Ok(RedisUrl { address: scenario::resolve(&host, allow_remote)?, login })
    }
}

/// Writes commands.
pub struct RedisDoor {
    forms: Vec<Option<Form>>,
    login: Vec<u8>,
    body: Vec<u8>,
}

struct Form {
    /// `PUBLISH` and the Redis channel, up to the length of the payload.
    head: Vec<u8>,
    /// Up to the event's payload.
    body: Vec<u8>,
    source_bytes: usize,
}

impl RedisDoor {
    /// Prepares the commands of one publisher.
    pub fn new(plan: &Plan, audience: &Audience, publisher: u32, url: &RedisUrl, tenant: Option<&str>) -> RedisDoor {
        let tenant = tenant.map_or(String::new(), |tenant| format!(r#""tenant_id":"{tenant}","#));
        let form = |aim: Aim| {
            // The routing is the JSON's; the Redis channel must only be one the server listens to by default.
            let (redis_channel, r#type, target) = match aim {
                Aim::User(client) => {
                    let user = audience.user(client);
                    (format!("notification:user:{user}"), "user", serde_json::json!(user))
                }
                Aim::Users(group) => {
                    let users: Vec<String> =
                        plan.clients_of_group(group, audience).map(|client| audience.user(client)).collect();
                    ("notification:broadcast".to_owned(), "users", serde_json::json!(users))
                }
                Aim::Channel(channel) => {
                    let channel = audience.channel(channel);
                    (format!("notification:channel:{channel}"), "channel", serde_json::json!(channel))
                }
                Aim::Channels(set) => {
                    let channels: Vec<String> =
                        plan.channels_of_set(set, audience).map(|channel| audience.channel(channel)).collect();
                    (format!("notification:channel:{}", audience.channel(set)), "channels", serde_json::json!(channels))
                }
                Aim::Broadcast => ("notification:broadcast".to_owned(), "broadcast", serde_json::Value::Null),
            };
            let length = redis_channel.len();
            Form {
                head: format!("*3\r\n$7\r\nPUBLISH\r\n${length}\r\n{redis_channel}\r\n$").into_bytes(),
                body: format!(
                    r#"{{"type":"{type}","target":{target},{tenant}"event":{{"event_type":"{EVENT_TYPE}","payload":"#
                )
                .into_bytes(),
                source_bytes: "redis:".len() + length,
            }
        };
        let forms = plan.streams.iter().map(|stream| (stream.publisher == publisher).then(|| form(stream.aim)));
        RedisDoor { forms: forms.collect(), login: url.login.clone(), body: Vec::new() }
    }

    /// Appends one command.
    pub fn write(&mut self, out: &mut Vec<u8>, stationery: &Stationery, stream: u32, seq: u64, sent_us: u64) {
        // The deck deals a publisher its own streams only, and each of those has a form.
        let Some(form) = self.forms.get(stream as usize).and_then(Option::as_ref) else { return };
        self.body.clear();
        self.body.extend_from_slice(&form.body);
        stationery.write(&mut self.body, form.source_bytes, stream, seq, sent_us);
        self.body.extend_from_slice(b"}}");
        out.extend_from_slice(&form.head);
        write_number(out, self.body.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out.extend_from_slice(b"\r\n");
    }

    /// What is said on a new connection.
    pub fn login(&self) -> &[u8] {
        &self.login
    }
}

fn write_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.push(b'*');
    write_number(out, words.len() as u64);
    for word in words {
        out.extend_from_slice(b"\r\n$");
        write_number(out, word.len() as u64);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
}

/// Sends the login and reads one status line for each of its commands. Blocking: it happens between the phases.
pub fn greet(stream: &TcpStream, login: &[u8]) -> io::Result<()> {
    let mut writer = stream;
    writer.write_all(login)?;
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    // The last command is a PING, so its answer ends the login whatever came before.
    while line != "+PONG\r\n" {
        line.clear();
        if lines.read_line(&mut line)? == 0 || line.starts_with('-') {
            return Err(io::Error::other(format!("login: {}", line.trim_end())));
        }
    }
    Ok(())
}

/// Reads the answer at the start of `bytes`: the number of Redis clients that heard it.
pub fn read(bytes: &[u8]) -> Reply {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() > LINE_BYTES_MAX { Err("an endless answer".to_owned()) } else { Ok(None) };
    };
    let line = String::from_utf8_lossy(&bytes[..end]);
    let line = line.trim_end();
    let answer = match line.strip_prefix(':').map(str::parse::<u64>) {
        Some(Ok(0)) => Answer::Refused("no server is subscribed to the Redis channel".to_owned()),
        Some(Ok(count)) => Answer::Accepted(count),
        _ => Answer::Refused(line.to_owned()),
    };
    Ok(Some((answer, end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_logins() {
        let login = |text: &str| {
            let url = RedisUrl::parse(text, false).unwrap();
            (url.address.port(), String::from_utf8(url.login).unwrap())
        };
        let ping = "*1\r\n$4\r\nPING\r\n";
        assert_eq!(login("redis://127.0.0.1"), (6379, ping.to_owned()));
        let auth = "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$3\r\np@w\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n";
        assert_eq!(login("redis://u:p@w@127.0.0.1:7/2"), (7, format!("{auth}{ping}")));
        assert_eq!(login("redis://:p@127.0.0.1:7").1, format!("*2\r\n$4\r\nAUTH\r\n$1\r\np\r\n{ping}"));
        assert!(RedisUrl::parse("http://127.0.0.1", false).is_err());
        assert!(RedisUrl::parse("redis://192.0.2.1:1", false).is_err());
    }

    #[test]
    fn answers_are_read_one_by_one() {
        assert_eq!(read(b":2\r\n:1\r\n"), Ok(Some((Answer::Accepted(2), 4))));
        assert!(matches!(read(b":0\r\n"), Ok(Some((Answer::Refused(_), 4)))));
        assert!(matches!(read(b"-NOAUTH no\r\n"), Ok(Some((Answer::Refused(_), 12)))));
        assert_eq!(read(b":2\r"), Ok(None));
    }
}
