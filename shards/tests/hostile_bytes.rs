//! A shard and a peer that sends anything: requests, upgrades and frames, right, damaged and made up, cut anywhere, read
//! slowly or not at all. The shard does not panic, its counters return to zero, what the peer hears is whole, and the
//! connection beside it does not notice.
//!
//! What must hold stands in `fuzz/harness/`, so that a fuzzer with feedback asks the same. A failure names its seed and
//! shows its input; in a file, the input is one for `cargo fuzz run connection_bytes <file>`, too.
#[path = "../fuzz/harness/mod.rs"]
#[expect(unreachable_pub, reason = "a library for the fuzz target")]
mod harness;
#[path = "../../protocol/fuzz/mutate.rs"]
#[expect(unreachable_pub, reason = "shared with the parsers' tests")]
mod mutate;

use fastrand::Rng;
use harness::{Happened, Heard, connection_bytes, shard_events};
use mutate::{Mutator, assert_holds, seeds};

/// How often each thing came up, so that a generator gone dull fails the test.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    websockets: usize,
    event_streams: usize,
    messages: usize,
    normal: usize,
    protocol_errors: usize,
    too_big: usize,
    expired: usize,
    slow: usize,
    refused: usize,
}

impl Seen {
    fn note(&mut self, heard: &Heard) {
        self.answers += heard.answers;
        self.websockets += usize::from(heard.is_websocket);
        self.event_streams += usize::from(heard.is_sse);
        self.messages += heard.messages;
        match heard.close_code {
            Some(1000) => self.normal += 1,
            Some(1002 | 1007) => self.protocol_errors += 1,
            Some(1008) => self.refused += 1,
            Some(1009) => self.too_big += 1,
            Some(4001) => self.expired += 1,
            Some(4008) => self.slow += 1,
            _ => {}
        }
    }
}

fn run(seed: u64, input: &[u8], seen: &mut Seen) {
    assert_holds("connection_bytes", seed, input, || seen.note(&connection_bytes(input)));
}

#[test]
fn seeds_are_heard_and_damaged_ones_do_no_harm() {
    let (seeds, mut seen) = (seeds("connection_bytes"), Seen::default());
    // Under many schedules: the first two bytes.
    for seed in 0..40 {
        for stream in &seeds {
            run(seed, &[&[0, seed as u8], &stream[2..]].concat(), &mut seen);
        }
    }
    assert!(seen.answers > 100 && seen.websockets > 40 && seen.event_streams > 40 && seen.messages > 300, "{seen:?}");
    for seed in 0..2_000 {
        let input = Mutator::with_seed(seed).mutated(&seeds);
        run(seed, &input, &mut seen);
    }
}

#[test]
fn noise_does_no_harm() {
    let mut seen = Seen::default();
    for seed in 0..500 {
        let mut rng = Rng::with_seed(seed);
        let len = rng.usize(0..600);
        let noise: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
        run(seed, &noise, &mut seen);
    }
    assert_eq!((seen.websockets, seen.event_streams), (0, 0), "{seen:?}");
}

#[test]
fn right_and_wrong_talk_does_no_harm() {
    let mut seen = Seen::default();
    for seed in 0..2_000 {
        let mut talker = Talker { mutator: Mutator::with_seed(seed) };
        let input = talker.talk();
        run(seed, &input, &mut seen);
    }
    assert!(seen.answers > 500 && seen.websockets > 500 && seen.event_streams > 200, "{seen:?}");
    assert!(seen.messages > 2_000 && seen.normal > 50 && seen.protocol_errors > 100, "{seen:?}");
    assert!(seen.too_big > 5 && seen.expired > 5 && seen.slow > 0 && seen.refused > 5, "{seen:?}");
}

#[test]
fn events_in_any_order_leave_the_tables_in_agreement() {
    let (seeds, mut all) = (seeds("shard_events"), Happened::default());
    let mut run = |seed: u64, input: &[u8]| {
        assert_holds("shard_events", seed, input, || {
            let Happened { events, streams, asked, written, handed_over } = shard_events(input);
            all.events += events;
            all.streams += streams;
            all.asked += asked;
            all.written += written;
            all.handed_over += handed_over;
        });
    };
    for (at, seed) in seeds.iter().enumerate() {
        run(at as u64, seed);
    }
    for seed in 0..900 {
        run(seed, &Mutator::with_seed(seed).mutated(&seeds));
    }
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let program: Vec<u8> = (0..rng.usize(0..1_200)).map(|_| rng.u8(..)).collect();
        run(seed, &program);
    }
    assert!(all.events > 30_000 && all.streams > 600 && all.asked > 1_500, "{all:?}");
    assert!(all.written > 300_000 && all.handed_over > 300, "{all:?}");
}

/// A client that mostly knows how to talk.
struct Talker {
    mutator: Mutator,
}

impl Talker {
    /// An input: the schedule, some requests, perhaps an upgrade, and frames or requests behind it. Damaged is at most
    /// what comes before the upgrade or what comes behind it, so that most upgrades succeed.
    fn talk(&mut self) -> Vec<u8> {
        let mut out = vec![self.rng().u8(..), self.rng().u8(..)];
        for _ in 0..[0, 0, 0, 1, 2, 5][self.rng().usize(0..6)] {
            let request = self.request();
            out.extend(self.perhaps_damaged(request, 12));
        }
        let seconds = if self.rng().u8(0..6) == 0 { 3 } else { 100_000 };
        let user = if self.rng().u8(0..16) == 0 { "neighbour" } else { "u" };
        let token = harness::token(user, seconds);
        match self.rng().u8(0..8) {
            0..=4 => {
                out.extend_from_slice(upgrade(&token).as_bytes());
                let mut frames = Vec::new();
                for _ in 0..self.rng().usize(0..12) {
                    self.write_said(&mut frames);
                }
                out.extend(self.perhaps_damaged(frames, 3));
            }
            5 | 6 => {
                let (version, channels) = (self.rng().u8(0..2), ["", "&channels=orders", "&channels=orders,c,c"]);
                let channels = channels[self.rng().usize(0..3)];
                let request = format!("GET /sse?token={token}{channels} HTTP/1.{version}\r\nhost: h\r\n\r\nand more");
                out.extend_from_slice(request.as_bytes());
            }
            _ => {}
        }
        out
    }

    fn rng(&mut self) -> &mut Rng {
        &mut self.mutator.rng
    }

    fn perhaps_damaged(&mut self, bytes: Vec<u8>, one_of: u8) -> Vec<u8> {
        if self.rng().u8(0..one_of) == 0 { self.mutator.mutated(&[bytes]) } else { bytes }
    }

    fn request(&mut self) -> Vec<u8> {
        let json = "content-type: application/json\r\nx-api-key: key\r\nx-tenant-id: default\r\n";
        let get =
            |path: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-api-key: key\r\nx-tenant-id: default\r\n\r\n");
        let post = |path: &str, body: &str| {
            let len = body.len();
            format!("POST {path} HTTP/1.1\r\nhost: h\r\n{json}content-length: {len}\r\n\r\n{body}")
        };
        let event = r#""event_type":"e","payload":{"a":[1,2]}"#;
        let text = match self.rng().u8(0..14) {
            0 => get("/health"),
            1 => get("/nowhere"),
            2 => get("/api/v1/channels"),
            3 => get("/api/v1/users/neighbour/subscriptions"),
            4 => get("/api/v1/templates"),
            5 => "HEAD /stats HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(),
            6 => "OPTIONS /api/v1/channels HTTP/1.1\r\nhost: h\r\norigin: https://a.example\r\n\r\n".to_owned(),
            7 => post("/api/v1/notifications/send", &format!(r#"{{"target_user_id":"u",{event}}}"#)),
            8 => post("/api/v1/notifications/broadcast", &format!("{{{event}}}")),
            9 => post("/api/v1/notifications/channel", &format!(r#"{{"channel":"orders",{event}}}"#)),
            10 => {
                let item = format!(r#"{{"target":{{"type":"user","value":"u"}},{event}}}"#);
                let body = format!(r#"{{"notifications":[{item},{item}],"options":{{"stop_on_error":true}}}}"#);
                post("/api/v1/notifications/batch", &body)
            }
            11 => post("/api/v1/templates", r#"{"id":"t","name":"n","event_type":"e","payload_template":"{{a}}"}"#),
            12 => format!(
                "PUT /api/v1/templates/t HTTP/1.1\r\nhost: h\r\n{json}transfer-encoding: chunked\r\n\r\n\
                 6\r\n{{\"ttl\"\r\n3\r\n:5}}\r\n0\r\n\r\n"
            ),
            _ => format!(
                "POST /api/v1/notifications/send HTTP/1.1\r\nhost: h\r\n{json}content-length: 5\r\nexpect: 100-continue\r\n\r\n[1,2]"
            ),
        };
        text.into_bytes()
    }

    /// Appends one frame, or one message in two.
    fn write_said(&mut self, out: &mut Vec<u8>) {
        let commands = [
            r#"{"type":"Subscribe","payload":{"channels":["orders","訂單"]}}"#,
            r#"{"type":"Subscribe","payload":{"channels":["a","b","c","d","e","f","a b",""]}}"#,
            r#"{"type":"Unsubscribe","payload":{"channels":["orders","nowhere"]}}"#,
            r#"{"type":"Ping"}"#,
            r#"{"type":"Ack","payload":{"notification_id":"01890000-0000-7000-8000-000000000001"}}"#,
            "not a command",
        ];
        let command = commands[self.rng().usize(0..commands.len())].as_bytes();
        let mask = self.rng().u32(..).to_be_bytes();
        match self.rng().u8(0..40) {
            0..=23 => write_frame(out, 0x81, command, mask),
            24..=27 => {
                let (first, second) = command.split_at(self.rng().usize(0..command.len()));
                write_frame(out, 0x01, first, mask);
                write_frame(out, 0x89, b"between", mask);
                write_frame(out, 0x80, second, mask);
            }
            28..=30 => write_frame(out, 0x89, &[b'x'; 125], mask),
            31 | 32 => write_frame(out, 0x8a, b"", mask),
            33 => write_frame(out, 0x82, &[0; 300], mask),
            34 => write_frame(out, 0x81, &vec![b' '; 65_536], mask),
            35 => write_frame(out, 0x81, &vec![b' '; 65_537], mask),
            36 | 37 => write_frame(out, 0x88, &[0x03, 0xe8], mask),
            38 => write_frame(out, 0x88, b"", mask),
            // A flood: more pongs than a control lane holds before it stops reading.
            _ => (0..1_100).for_each(|_| write_frame(out, 0x89, &[b'p'; 125], mask)),
        }
    }
}

fn upgrade(token: &str) -> String {
    format!(
        "GET /ws?token={token} HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

fn write_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(first);
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=65_535 => {
            out.push(0xfe);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xff);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}
