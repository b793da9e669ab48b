//! An HTTP/1 client over a plain socket: what is sent is exactly what the test says, what comes back is kept as it came.
use super::DEADLINE;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};

/// One connection, with what was read beyond the last answer.
#[derive(Debug)]
pub(crate) struct Connection<S = TcpStream> {
    pub(crate) stream: S,
    ahead: Vec<u8>,
}

/// An answer. Header names are lower-cased, values as they came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header that stands once; `None` when it is absent.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "{name} stands twice in {:?}", self.headers);
        first
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("bodies are UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Asserts a refusal: the status, and exactly the body `{"error":{"code":…,"message":…}}` (contract §1.6, C-5).
    /// Returns the message.
    #[track_caller]
    pub(crate) fn refusal(&self, status: u16, code: &str) -> String {
        assert_eq!((self.status, self.header("content-type")), (status, Some("application/json")), "{self:?}");
        let json = self.json();
        let message = json["error"]["message"].as_str().unwrap_or_else(|| panic!("no message in {json}")).to_owned();
        let code_text = serde_json::to_string(code).expect("text is JSON");
        let message_text = serde_json::to_string(&message).expect("text is JSON");
        assert_eq!(self.text(), format!(r#"{{"error":{{"code":{code_text},"message":{message_text}}}}}"#));
        message
    }

    /// Asserts a refusal whose code the contract leaves open: status, JSON, the shape of §1.6.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) {
        let code = self.json()["error"]["code"].as_str().unwrap_or_else(|| panic!("no code in {self:?}")).to_owned();
        self.refusal(status, &code);
    }

    /// Asserts 200 and returns the JSON.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

impl Connection {
    pub(crate) fn open(port: u16) -> Connection {
        Connection::over(TcpStream::connect(("127.0.0.1", port)).expect("the server accepts"))
    }

    /// From this address of loopback: for whoever tells clients apart by it.
    pub(crate) fn open_from(address: Ipv4Addr, port: u16) -> Connection {
        use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddrV4::new(address, 0)).expect("all of 127/8 is ours");
        connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).expect("the server accepts");
        Connection::over(TcpStream::from(socket))
    }

    /// Over a socket that is open, in either role.
    pub(crate) fn over(stream: TcpStream) -> Connection {
        stream.set_nodelay(true).expect("a fresh socket takes options");
        stream.set_read_timeout(Some(DEADLINE)).expect("a fresh socket takes options");
        stream.set_write_timeout(Some(DEADLINE)).expect("a fresh socket takes options");
        Connection::on(stream)
    }

    /// Ends our half.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }
}

impl<S: Read + Write> Connection<S> {
    /// Over anything that brings its own deadlines.
    pub(crate) fn on(stream: S) -> Connection<S> {
        Connection { stream, ahead: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
        self.stream.flush().expect("the server reads");
    }

    /// More bytes into `ahead`; false at the end.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(read) => {
                self.ahead.extend_from_slice(&chunk[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing more came ({error}); so far: {:?}", String::from_utf8_lossy(&self.ahead)),
        }
    }

    /// Exactly `len` bytes.
    #[track_caller]
    pub(crate) fn read_exact(&mut self, len: usize) -> Vec<u8> {
        while self.ahead.len() < len {
            assert!(self.fill(), "ended after {:?}", String::from_utf8_lossy(&self.ahead));
        }
        self.ahead.drain(..len).collect()
    }

    /// Up to and with `end`; `None` when the connection ended before a first byte came.
    pub(crate) fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.ahead[searched..].windows(end.len()).position(|window| window == end) {
                return Some(self.ahead.drain(..searched + at + end.len()).collect());
            }
            searched = self.ahead.len().saturating_sub(end.len() - 1);
            if !self.fill() {
                assert!(self.ahead.is_empty(), "cut off after {:?}", String::from_utf8_lossy(&self.ahead));
                return None;
            }
        }
    }

    /// Everything until the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.ahead)
    }

    /// Status line and headers.
    #[track_caller]
    pub(crate) fn read_head(&mut self) -> Response {
        let head = self.read_until(b"\r\n\r\n").expect("closed without an answer");
        let head = String::from_utf8(head).expect("heads are text");
        let mut lines = head.trim_end().split("\r\n");
        let mut status_line = lines.next().expect("a status line").splitn(3, ' ');
        let version = status_line.next().expect("a version").to_owned();
        let status =
            status_line.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("status in {head}"));
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a header without colon: {line}"));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        Response { version, status, headers, body: Vec::new() }
    }

    /// A whole answer to anything but HEAD.
    #[track_caller]
    pub(crate) fn read(&mut self) -> Response {
        let mut response = self.read_head();
        if response.status < 200 || matches!(response.status, 204 | 304) {
            return response;
        }
        response.body = if response.header("transfer-encoding") == Some("chunked") {
            let mut body = Vec::new();
            while let Some(chunk) = self.read_chunk() {
                body.extend_from_slice(&chunk);
            }
            body
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().expect("content-length is a number");
            self.read_exact(length)
        } else {
            self.read_to_end()
        };
        response
    }

    /// One chunk of a chunked body; `None` at the last.
    #[track_caller]
    pub(crate) fn read_chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.read_until(b"\r\n").expect("a chunked body ends with its last chunk");
        let line = std::str::from_utf8(&line).expect("chunk sizes are text");
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
        let mut chunk = self.read_exact(size + 2);
        assert_eq!(chunk.split_off(size), b"\r\n");
        (size > 0).then_some(chunk)
    }

    /// Asserts that the server ends the connection and says nothing more.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }
}

/// The bytes of a request with a body (and its length) unless `body` is `None`.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut out = format!("{method} {path} HTTP/1.1\r\nHost: ara.test\r\n").into_bytes();
    for (name, value) in headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(body) = body {
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            out.extend_from_slice(b"Content-Type: application/json\r\n");
        }
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(body);
    } else {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// One request on a connection of its own.
#[track_caller]
pub(crate) fn call(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Response {
    let mut connection = Connection::open(port);
    connection.send(request(method, path, headers, body));
    if method == "HEAD" { connection.read_head() } else { connection.read() }
}
