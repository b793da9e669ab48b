//! A reader of event streams, over chunked HTTP/1.1 and over HTTP/1.0 alike.
use super::http::{Connection, Response};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// One event, its fields as the EventSource algorithm reads them; `text` is the block as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) text: String,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Sse<S = TcpStream> {
    pub(crate) head: Response,
    /// The first event.
    pub(crate) connected: Event,
    /// The last `retry:` line, in an event or between two.
    pub(crate) retry: Option<String>,
    connection: Connection<S>,
    chunked: bool,
    ahead: String,
}

impl Sse {
    /// Opens by HTTP/1.1 and reads the `connected` event.
    #[track_caller]
    pub(crate) fn connect(port: u16, path: &str) -> Sse {
        Sse::open(port, &format!("GET {path} HTTP/1.1\r\nHost: ara.test\r\nAccept: text/event-stream\r\n\r\n"))
    }

    /// Opens with these request bytes, which must be accepted.
    #[track_caller]
    pub(crate) fn open(port: u16, request: &str) -> Sse {
        Sse::open_over(Connection::open(port), request)
    }
}

impl<S: Read + Write> Sse<S> {
    /// The same over a connection that has said nothing yet.
    #[track_caller]
    pub(crate) fn open_over(mut connection: Connection<S>, request: &str) -> Sse<S> {
        connection.send(request);
        let head = connection.read_head();
        assert_eq!(head.status, 200, "{head:?}");
        let chunked = head.header("transfer-encoding") == Some("chunked");
        let mut sse = Sse { head, connected: Event::default(), retry: None, connection, chunked, ahead: String::new() };
        sse.connected = sse.event().expect("a first event");
        sse
    }

    /// The next event, comments aside; `None` at an orderly end of the stream.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Option<Event> {
        loop {
            let text = self.block()?;
            let mut event = Event { text: text.clone(), ..Event::default() };
            for line in text.trim_end_matches('\n').split('\n') {
                match line.split_once(": ") {
                    _ if line.starts_with(':') => {}
                    Some(("id", value)) => event.id = Some(value.to_owned()),
                    Some(("event", value)) => event.name = Some(value.to_owned()),
                    Some(("data", value)) => event.data = Some(value.to_owned()),
                    Some(("retry", value)) => self.retry = Some(value.to_owned()),
                    _ => panic!("not a line of an event stream: {line:?} in {text:?}"),
                }
            }
            if event.data.is_some() {
                return Some(event);
            }
        }
    }

    /// The next event, heartbeats aside; `None` at the end.
    #[track_caller]
    pub(crate) fn hear(&mut self) -> Option<Event> {
        loop {
            let event = self.event()?;
            if event.name.as_deref() != Some("heartbeat") {
                return Some(event);
            }
        }
    }

    /// The data of the next event, which must be a notification.
    #[track_caller]
    pub(crate) fn notification_text(&mut self) -> String {
        let event = self.hear().expect("the stream goes on");
        assert_eq!(event.name.as_deref(), Some("notification"), "{event:?}");
        event.data.expect("events have data")
    }

    /// The same, parsed.
    #[track_caller]
    pub(crate) fn notification(&mut self) -> Value {
        serde_json::from_str(&self.notification_text()).expect("notifications are JSON")
    }

    /// One block up to its blank line.
    #[track_caller]
    fn block(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.ahead.find("\n\n") {
                return Some(self.ahead.drain(..at + 2).collect());
            }
            let more = if self.chunked { self.connection.read_chunk() } else { self.connection.read_until(b"\n\n") };
            match more {
                Some(bytes) => self.ahead.push_str(std::str::from_utf8(&bytes).expect("event streams are UTF-8")),
                None => {
                    assert!(self.ahead.is_empty(), "the stream was cut inside {:?}", self.ahead);
                    return None;
                }
            }
        }
    }
}
