//! A tiny server in the test's own process: enough of the contract for the generator, and faults on demand.
mod mail;
mod wire;

use mail::Mail;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket};
use wire::{notification, read_command, read_request, user_of};

/// The secret it checks tokens with.
pub(crate) const SECRET: &str = "a-secret-of-thirty-two-characters";

/// What goes wrong, at the delivery of number 10 of a stream to the client `load-user-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Lose,
    Double,
    Swap,
    Misroute,
    Damage,
    Refuse,
    Hangup,
    /// The Close frame of a slow consumer.
    TooSlow,
    /// The Close frame of a server that blames itself: 1011.
    Collapse,
    /// A receipt that names no delivery, though there was one.
    Miscount,
    /// An acknowledgement that is not answered.
    Mute,
    /// An acknowledgement that is answered, and removes nothing.
    Cling,
}

struct Subscriber {
    stream: TcpStream,
    is_sse: bool,
    channels: Vec<String>,
    held: Option<String>,
}

impl Subscriber {
    fn send(&mut self, text: &str) {
        let mut bytes = Vec::new();
        if self.is_sse {
            let event = match text.contains(r#""type":"notification""#) {
                true => format!("event: notification\ndata: {text}\n\n"),
                false => format!("event: connected\ndata: {text}\n\n"),
            };
            bytes.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        } else {
            protocol::ws::encoder::write_frame(&mut bytes, protocol::ws::encoder::Opcode::Text, text.as_bytes());
        }
        // A subscriber that is gone is not this test's business.
        let _ = self.stream.write_all(&bytes);
    }

    /// Sends one notification, and what goes wrong with it; answers whether the subscriber is gone.
    fn deliver(&mut self, text: &str, fault: Fault) -> bool {
        match fault {
            Fault::None | Fault::Refuse | Fault::Misroute | Fault::Miscount | Fault::Mute | Fault::Cling => {
                self.send(text);
            }
            Fault::Lose => {}
            Fault::Double => (0..2).for_each(|_| self.send(text)),
            Fault::Swap => self.held = Some(text.to_owned()),
            Fault::Damage => {
                let damaged = text.replacen(r#""pad":""#, r#""pad":"y"#, 1);
                assert_ne!(damaged, text, "nothing was damaged");
                self.send(&damaged);
            }
            Fault::Hangup => self.stream.shutdown(std::net::Shutdown::Both).unwrap(),
            Fault::TooSlow | Fault::Collapse => {
                self.close(if fault == Fault::TooSlow { 4008 } else { 1011 });
                return true;
            }
        }
        if fault == Fault::None
            && let Some(held) = self.held.take()
        {
            self.send(&held);
        }
        false
    }

    /// A Close frame, then the end.
    fn close(&mut self, code: u16) {
        let mut bytes = Vec::new();
        protocol::ws::encoder::write_frame(&mut bytes, protocol::ws::encoder::Opcode::Close, &code.to_be_bytes());
        self.stream.write_all(&bytes).unwrap();
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
}

/// The server; its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct StandIn {
    /// HTTP, WebSocket and SSE.
    pub(crate) address: SocketAddr,
    /// What speaks Redis.
    pub(crate) redis: SocketAddr,
    subscribers: Arc<Mutex<HashMap<String, Subscriber>>>,
    mail: Arc<Mail>,
    /// Mail goes when it is acknowledged, not when it is sent.
    acks: bool,
    fault: Fault,
}

impl StandIn {
    pub(crate) fn start(fault: Fault) -> StandIn {
        StandIn::serve(fault, false)
    }

    /// One that keeps mail until it is acknowledged.
    pub(crate) fn with_acks(fault: Fault) -> StandIn {
        StandIn::serve(fault, true)
    }

    fn serve(fault: Fault, acks: bool) -> StandIn {
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let redis = TcpListener::bind("127.0.0.1:0").unwrap();
        let stand_in = StandIn {
            address: http.local_addr().unwrap(),
            redis: redis.local_addr().unwrap(),
            subscribers: Arc::default(),
            mail: Arc::default(),
            acks,
            fault,
        };
        for (listener, serve) in [(http, StandIn::serve_http as fn(&StandIn, TcpStream)), (redis, StandIn::serve_redis)]
        {
            let stand_in = stand_in.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let (stand_in, stream) = (stand_in.clone(), stream.unwrap());
                    thread::spawn(move || serve(&stand_in, stream));
                }
            });
        }
        stand_in
    }

    fn serve_http(&self, stream: TcpStream) {
        let mut start = [0; 8];
        while stream.peek(&mut start).is_ok_and(|bytes| (1..start.len()).contains(&bytes)) {}
        match &start {
            b"GET /ws?" => self.serve_websocket(stream),
            b"GET /sse" => self.serve_sse(stream),
            b"GET /hea" => self.serve_health(stream),
            _ => self.serve_publisher(stream),
        }
    }

    fn serve_health(&self, mut stream: TcpStream) {
        read_request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
        let answer = self.mail.health().to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all((head + &answer).as_bytes()).unwrap();
    }

    /// Lets a subscriber in, with the mail that was kept for its user.
    fn enter(&self, user: &str, mut subscriber: Subscriber) {
        let mut subscribers = self.subscribers.lock().unwrap();
        for text in self.mail.of(user, !self.acks) {
            subscriber.deliver(&text, self.fault_of(&text, user));
        }
        subscribers.insert(user.to_owned(), subscriber);
    }

    fn fault_of(&self, text: &str, user: &str) -> Fault {
        let strikes = text.contains(r#""seq":10,"#) && user == "load-user-1";
        if strikes { self.fault } else { Fault::None }
    }

    /// The answer to an acknowledgement.
    fn acknowledge(&self, user: &str, command: &Value) -> Option<Value> {
        assert!(self.acks, "this server tracks no acknowledgements");
        let id = command["payload"]["notification_id"].as_str().unwrap();
        let strikes = user == "load-user-1" && id.ends_with("-00000000000a");
        if !(strikes && self.fault == Fault::Cling) {
            self.mail.acknowledge(user, id);
        }
        (!(strikes && self.fault == Fault::Mute)).then(|| json!({"type": "acked", "notification_id": id}))
    }

    fn serve_websocket(&self, stream: TcpStream) {
        let mut user = None;
        #[allow(clippy::result_large_err)]
        let note = |request: &Request, response: Response| {
            user = user_of(&request.uri().to_string());
            Ok(response)
        };
        let mut websocket: WebSocket<TcpStream> = tungstenite::accept_hdr(stream, note).unwrap();
        let user = user.expect("a token that is right");
        let subscriber = Subscriber {
            stream: websocket.get_ref().try_clone().unwrap(),
            is_sse: false,
            channels: Vec::new(),
            held: None,
        };
        self.enter(&user, subscriber);
        while let Ok(message) = websocket.read() {
            let Message::Text(text) = message else { continue };
            let command: Value = serde_json::from_str(&text).unwrap();
            let acked = if command["type"] == "Ack" { Some(self.acknowledge(&user, &command)) } else { None };
            let mut subscribers = self.subscribers.lock().unwrap();
            let subscriber = subscribers.get_mut(&user).unwrap();
            let reply = match (command["type"].as_str(), acked) {
                (_, Some(Some(acked))) => acked,
                (_, Some(None)) => continue,
                (Some("Subscribe"), None) => {
                    let channels = command["payload"]["channels"].clone();
                    subscriber.channels = serde_json::from_value(channels.clone()).unwrap();
                    json!({"type": "subscribed", "payload": channels})
                }
                _ => json!({"type": "pong"}),
            };
            subscriber.send(&reply.to_string());
        }
    }

    fn serve_sse(&self, mut stream: TcpStream) {
        let (request, _) = read_request(&mut BufReader::new(stream.try_clone().unwrap())).unwrap();
        let query = request.split(' ').nth(1).unwrap().to_owned();
        let channels = query.split_once("&channels=").map_or("", |(_, names)| names);
        let user = user_of(query.split('&').next().unwrap()).expect("a token that is right");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .unwrap();
        let channels = channels.split(',').map(str::to_owned).collect();
        let mut subscriber = Subscriber { stream, is_sse: true, channels, held: None };
        subscriber.send(r#"{"type":"connected","connection_id":"1"}"#);
        self.enter(&user, subscriber);
    }

    fn serve_publisher(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some((head, body)) = read_request(&mut reader) {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let body: Value = serde_json::from_slice(&body).unwrap();
            if path.ends_with("/batch") {
                let answer = self.to_batch(&body["notifications"]).to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                stream.write_all((head + &answer).as_bytes()).unwrap();
                continue;
            }
            let refused = self.fault == Fault::Refuse && body["payload"]["seq"] == 10;
            let (status, answer) = if refused {
                ("503 Service Unavailable", json!({"error": {"code": "OVERLOADED", "message": "later"}}))
            } else {
                let count = match path.rsplit('/').next().unwrap() {
                    "send" => self.to_users(&body["payload"], "http-api", &json!([body["target_user_id"]])),
                    "send-to-users" => self.to_users(&body["payload"], "http-api", &body["target_user_ids"]),
                    "channel" => self.to_channels(&body["payload"], "http-api", &json!([body["channel"]])),
                    "channels" => self.to_channels(&body["payload"], "http-api", &body["channels"]),
                    _ => self.to(&body["payload"], "http-api", |_, _| true),
                };
                let miscounts = self.fault == Fault::Miscount && body["payload"]["seq"] == 10;
                let kept = path.ends_with("/send") && count == 0 && !miscounts;
                ("200 OK", json!({"success": true, "delivered_to": count, "failed": 0, "queued": u8::from(kept)}))
            };
            let answer = answer.to_string();
            let length = answer.len();
            stream
                .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{answer}").as_bytes())
                .unwrap();
        }
    }

    fn serve_redis(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(words) = read_command(&mut reader) {
            if words[0] == "PING" {
                stream.write_all(b"+PONG\r\n").unwrap();
                continue;
            }
            let message: Value = serde_json::from_str(&words[2]).unwrap();
            let source = format!("redis:{}", words[1]);
            let payload = &message["event"]["payload"];
            match message["type"].as_str().unwrap() {
                "user" => self.to_users(payload, &source, &json!([message["target"]])),
                "users" => self.to_users(payload, &source, &message["target"]),
                "channel" => self.to_channels(payload, &source, &json!([message["target"]])),
                "channels" => self.to_channels(payload, &source, &message["target"]),
                _ => self.to(payload, &source, |_, _| true),
            };
            stream.write_all(b":1\r\n").unwrap();
        }
    }

    /// Sends each of a batch to its user; answers the receipts of contract §1.8.
    fn to_batch(&self, notifications: &Value) -> Value {
        let mut results = Vec::new();
        let mut delivered = 0;
        for (index, item) in notifications.as_array().unwrap().iter().enumerate() {
            assert_eq!(item["target"]["type"], "user");
            let miscounts = self.fault == Fault::Miscount && item["payload"]["seq"] == 10;
            let count = self.to_users(&item["payload"], "http-api", &json!([item["target"]["value"]]));
            let count = if miscounts { 0 } else { count };
            delivered += count;
            results
                .push(json!({"index": index, "notification_id": uuid::Uuid::nil().to_string(), "delivered_to": count,
                                "failed": 0, "success": count > 0}));
        }
        let (total, succeeded) = (results.len(), delivered);
        json!({"batch_id": uuid::Uuid::nil().to_string(), "results": results, "timestamp": "2026-01-02T03:04:05Z",
               "summary": {"total": total, "succeeded": succeeded, "failed": total - succeeded, "skipped": 0,
                           "total_delivered": delivered}})
    }

    fn to_users(&self, payload: &Value, source: &str, users: &Value) -> usize {
        let users: Vec<String> = serde_json::from_value(users.clone()).unwrap();
        let count = self.to(payload, source, |user, _| users.iter().any(|wanted| wanted == user));
        let subscribers = self.subscribers.lock().unwrap();
        for user in users.iter().filter(|user| !subscribers.contains_key(*user)) {
            self.mail.keep(user, &notification(payload, source));
        }
        count
    }

    fn to_channels(&self, payload: &Value, source: &str, channels: &Value) -> usize {
        let channels: Vec<String> = serde_json::from_value(channels.clone()).unwrap();
        self.to(payload, source, |_, own| own.iter().any(|channel| channels.contains(channel)))
    }

    fn to(&self, payload: &Value, source: &str, wanted: impl Fn(&str, &[String]) -> bool) -> usize {
        let text = notification(payload, source);
        let tenth = text.contains(r#""seq":10,"#);
        let mut subscribers = self.subscribers.lock().unwrap();
        let mut count = 0;
        let mut closed = None;
        for (user, subscriber) in subscribers.iter_mut() {
            if !wanted(user, &subscriber.channels) {
                continue;
            }
            count += 1;
            if subscriber.deliver(&text, self.fault_of(&text, user)) {
                closed = Some(user.clone());
            }
        }
        if let Some(user) = closed {
            subscribers.remove(&user);
        }
        if tenth
            && self.fault == Fault::Misroute
            && let Some(other) = subscribers.get_mut("load-user-0")
            && !wanted("load-user-0", &other.channels)
        {
            other.send(&text);
        }
        count
    }
}
