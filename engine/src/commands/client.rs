//! A small HTTP client for asking one's own service: one request, one answer, bounded in time and size.
use super::Failure;
use crate::config::Sources;
use crate::config::layers::Values;
use rustls::ClientConnection;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};
use storage::link::tls::{Tls, TlsError, Trust};

/// An answer longer than this is not from our service.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port`.
    pub authority: String,
    /// From the slash on; empty when the URL had none.
    pub path: String,
    /// Whom to take for it when it speaks TLS; `None` is plain text.
    pub tls: Option<Trust>,
}

impl Address {
    /// Reads `http://host[:port][/path]` or `https://…`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(url: &str) -> Result<Address, Failure> {
        let (rest, tls, port) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (rest, None, ":80"),
            (_, Some(rest)) => (rest, Some(Trust::AuthorityAndName), ":443"),
            _ => return Err(Failure(format!("{url:?} must start with http:// or https://"))),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host_end = authority.rfind(']').map_or(0, |at| at + 1);
        let is_bad = |c: char| c.is_control() || c.is_whitespace() || c == '@';
        if authority.is_empty() || authority.contains(is_bad) || path.contains(is_bad) {
            return Err(Failure(format!("{url:?} must be http://host:port/path")));
        }
        let port = if authority[host_end..].contains(':') { "" } else { port };
        Ok(Address { authority: format!("{authority}{port}"), path: path.to_owned(), tls })
    }

    /// The service that runs with these settings on this machine.
    pub fn of_own_service(sources: &Sources) -> Address {
        let values = Values::resolve(sources, &mut Vec::new(), &mut Vec::new());
        let port = values.text("SERVER_PORT").unwrap_or("8081");
        // A service that listens everywhere is asked over loopback; one that listens on one address, there.
        let authority = match values.text("SERVER_HOST").unwrap_or_default() {
            "" | "0.0.0.0" => format!("127.0.0.1:{port}"),
            "::" | "[::]" => format!("[::1]:{port}"),
            host if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        };
        // Whoever listens on this machine's own port, as without TLS: its certificate names it for the world, and not for
        // loopback.
        let tls = values.text("TLS_CERT").map(|_| Trust::Anyone);
        Address { authority, path: String::new(), tls }
    }

    /// The part of the authority that a certificate would name.
    fn host(&self) -> &str {
        let host = self.authority.rfind(':').map_or(&*self.authority, |at| &self.authority[..at]);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body, as text.
    pub body: String,
}

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// `GET`, `POST`.
    pub method: &'a str,
    /// From the slash on.
    pub path: &'a str,
    /// Whole lines, each ending in CRLF; whoever makes them checks their values with [`is_header_value`].
    pub headers: &'a str,
    /// May be empty.
    pub body: &'a [u8],
    /// From the first connect to the last byte of the answer.
    pub patience: Duration,
}

/// Asks once.
///
/// # Errors
/// Nobody answers in time, or not in HTTP/1.1.
pub fn ask(address: &Address, question: Question<'_>) -> Result<Answer, Failure> {
    exchange(address, question).map_err(|error| Failure(format!("{}: {error}", address.authority)))
}

/// Whether a text may stand in a header (RFC 9110 §5.5), so that it cannot add headers of its own.
pub fn is_header_value(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte) || byte >= 0x80)
}

fn exchange(address: &Address, question: Question<'_>) -> std::io::Result<Answer> {
    let Question { method, path, headers, body, patience } = question;
    let until = Instant::now() + patience;
    // Its time limits are set here; what goes over it may be encrypted.
    let socket = connect(&address.authority, until)?;
    socket.set_write_timeout(Some(left(until)?))?;
    socket.set_read_timeout(Some(left(until)?))?;
    let mut stream: Box<dyn Stream> = match address.tls {
        None => Box::new(socket.try_clone()?),
        Some(trust) => {
            let tls = begin_tls(address.host(), trust).map_err(|failure| bad(&failure.0))?;
            Box::new(rustls::StreamOwned::new(tls, socket.try_clone()?))
        }
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        address.authority,
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 8 * 1024];
    loop {
        if let Some(answer) = read_answer(&answer, false)? {
            return Ok(answer);
        }
        socket.set_read_timeout(Some(left(until)?))?;
        let count = match stream.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        };
        answer.extend_from_slice(&buffer[..count]);
        if count == 0 || answer.len() as u64 > ANSWER_BYTES_MAX {
            return read_answer(&answer, true)?.ok_or_else(|| bad("the answer broke off"));
        }
    }
}

/// TLS with this host. No setting of a command names a file of authorities: it knows those of the machine.
fn begin_tls(host: &str, trust: Trust) -> Result<ClientConnection, Failure> {
    let Tls { config, name } = Tls::new(host, trust, None).map_err(|error| match error {
        TlsError::Name => Failure(format!("{host:?} is no name that a certificate could have")),
        TlsError::NoSystemRoots => {
            Failure("this machine knows no certificate authorities (install ca-certificates)".to_owned())
        }
        error => Failure::new(error),
    })?;
    ClientConnection::new(config, name).map_err(Failure::new)
}

/// A socket, encrypted or not.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

fn connect(authority: &str, until: Instant) -> std::io::Result<TcpStream> {
    let mut failure = bad("the name has no address");
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left(until)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The answer, once it is whole: by its length, or by the end of the stream when it has none.
fn read_answer(bytes: &[u8], ended: bool) -> std::io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(bad(&format!("the answer is not HTTP: {error}"))),
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let body = &bytes[head_bytes..];
    let body = match length {
        Some(length) if body.len() < length => return Ok(None),
        Some(length) => &body[..length],
        None if !ended => return Ok(None),
        None => body,
    };
    let status = response.code.unwrap_or_default();
    Ok(Some(Answer { status, body: String::from_utf8_lossy(body).into_owned() }))
}

fn left(until: Instant) -> std::io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

fn too_late() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time")
}

fn bad(text: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A service that gives one answer and hands back what it was asked.
    pub(crate) fn service(answer: &'static str) -> (Address, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            let mut buffer = [0; 1024];
            loop {
                let count = stream.read(&mut buffer).unwrap();
                text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
                let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    body.len() >= length.parse::<usize>().unwrap()
                });
                if whole || count == 0 {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).unwrap();
            text
        });
        (Address { authority, path: String::new(), tls: None }, asked)
    }

    #[test]
    fn addresses_are_read() {
        let rows = [
            ("http://localhost", Some(("localhost:80", ""))),
            ("http://localhost:8081/health", Some(("localhost:8081", "/health"))),
            ("http://[::1]:8081/a/b?c=d", Some(("[::1]:8081", "/a/b?c=d"))),
            ("http://[::1]", Some(("[::1]:80", ""))),
            ("https://localhost", Some(("localhost:443", ""))),
            ("https://[::1]:8443/a", Some(("[::1]:8443", "/a"))),
            ("ftp://localhost", None),
            ("localhost:8081", None),
            ("http://", None),
            ("http:///health", None),
            ("http://user:hunter2@host/", None),
            ("http://host/a b\r\nx: y", None),
        ];
        for (url, expected) in rows {
            let read = Address::parse(url).ok();
            let read = read.as_ref().map(|address| (&*address.authority, &*address.path));
            assert_eq!(read, expected, "{url}");
        }
        for (url, tls, host) in [
            ("http://localhost", None, "localhost"),
            ("https://ara.example/health", Some(Trust::AuthorityAndName), "ara.example"),
            ("https://[::1]:8443", Some(Trust::AuthorityAndName), "::1"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.tls, address.host()), (tls, host));
        }
    }

    #[test]
    fn ones_own_service_is_asked_where_it_listens() {
        let rows: &[(&[(&str, &str)], &str)] = &[
            (&[], "127.0.0.1:8081"),
            (&[("SERVER_PORT", "9000")], "127.0.0.1:9000"),
            (&[("SERVER_HOST", "10.0.0.5")], "10.0.0.5:8081"),
            (&[("SERVER_HOST", "::")], "[::1]:8081"),
            (&[("SERVER_HOST", "fd00::1")], "[fd00::1]:8081"),
        ];
        let encrypted = Sources::from_environment([("TLS_CERT", "ara.pem"), ("TLS_KEY", "ara.key")]);
        assert_eq!(Address::of_own_service(&encrypted).tls, Some(Trust::Anyone));
        for (pairs, authority) in rows {
            let sources = Sources::from_environment(pairs.iter().copied());
            let address = Address::of_own_service(&sources);
            assert_eq!((&*address.authority, address.tls), (*authority, None));
        }
    }

    #[test]
    fn an_answer_ends_by_its_length_or_with_the_stream() {
        let answer = |status, body: &str| Some(Answer { status, body: body.to_owned() });
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more";
        assert_eq!(read_answer(whole, false).unwrap(), answer(200, "hi"));
        assert_eq!(read_answer(&whole[..30], false).unwrap(), None);
        let endless = b"HTTP/1.1 503 Busy\r\n\r\nlater";
        assert_eq!(read_answer(endless, false).unwrap(), None);
        assert_eq!(read_answer(endless, true).unwrap(), answer(503, "later"));
        assert!(read_answer(b"SSH-2.0-OpenSSH\r\n", false).is_err());
    }

    #[test]
    fn a_service_is_asked_and_answers() {
        let (address, asked) = service("HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nno.");
        let question =
            Question { method: "POST", path: "/x", headers: "x-api-key: k\r\n", body: b"{}", patience: PATIENCE };
        let answer = ask(&address, question).unwrap();
        assert_eq!(answer, Answer { status: 404, body: "no.".to_owned() });
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("POST /x HTTP/1.1\r\nhost: 127.0.0.1:"), "{asked}");
        assert!(asked.ends_with("content-length: 2\r\nx-api-key: k\r\n\r\n{}"), "{asked}");
    }

    #[test]
    fn an_answer_that_breaks_off_is_a_failure() {
        let (address, asked) = service("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi");
        let question = Question { method: "GET", path: "/", headers: "", body: b"", patience: PATIENCE };
        assert!(ask(&address, question).is_err());
        asked.join().unwrap();
    }
}
