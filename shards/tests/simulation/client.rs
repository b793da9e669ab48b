//! A client at the end of an imaginary socket: what it said, what it heard.
use shards::key::ConnKey;

pub(crate) type ClientId = usize;

/// One client.
pub(crate) struct Client {
    /// The shard and key its socket has there; none while it travels or after it was closed.
    pub(crate) place: Option<(usize, ConnKey)>,
    pub(crate) to_server: Vec<u8>,
    pub(crate) from_server: Vec<u8>,
    /// Whether its socket takes output.
    pub(crate) reads: bool,
    /// How many bytes its socket still takes; without a number, as many as there are.
    pub(crate) credit: Option<usize>,
    pub(crate) blocked: bool,
    /// The server does not read it now.
    pub(crate) is_deaf: bool,
    /// It closes its side after what it has said.
    pub(crate) hang_up: bool,
    pub(crate) said_eof: bool,
    /// It is gone without a word; its socket tells that at the next event.
    pub(crate) reset: bool,
    /// What the rim has encrypted and its socket has not taken; lost with the socket.
    pub(crate) sealed: Vec<u8>,
    /// The server has sent FIN or closed.
    pub(crate) ended: bool,
}

impl Client {
    pub(crate) fn new(shard: usize, key: ConnKey) -> Client {
        Client {
            place: Some((shard, key)),
            to_server: Vec::new(),
            from_server: Vec::new(),
            reads: true,
            credit: None,
            blocked: false,
            is_deaf: false,
            hang_up: false,
            said_eof: false,
            reset: false,
            sealed: Vec::new(),
            ended: false,
        }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.to_server.extend_from_slice(bytes.as_ref());
    }

    /// Sends a masked text frame.
    pub(crate) fn say(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    /// Sends a masked frame with this first byte.
    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) {
        let mask = [0x11, 0x22, 0x33, 0x44];
        self.to_server.push(first);
        match payload.len() {
            len @ 0..=125 => self.to_server.push(0x80 | len as u8),
            len => {
                self.to_server.push(0x80 | 126);
                self.to_server.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        self.to_server.extend_from_slice(&mask);
        self.to_server.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    }

    /// Everything it heard, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.from_server).into_owned()
    }

    /// How often these bytes stand in what it heard.
    pub(crate) fn count(&self, words: &[u8]) -> usize {
        self.from_server.windows(words.len()).filter(|window| *window == words).count()
    }

    pub(crate) fn has_heard(&self, words: &[u8]) -> bool {
        self.from_server.windows(words.len()).any(|window| window == words)
    }

    /// The frames after the response head: first byte and payload.
    pub(crate) fn frames(&self) -> Vec<(u8, String)> {
        let head = self.from_server.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
        let (mut bytes, mut frames) = (&self.from_server[head..], Vec::new());
        while bytes.len() >= 2 {
            let (len, start) = match bytes[1] {
                126 if bytes.len() >= 4 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
                127 if bytes.len() >= 10 => (u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize, 10),
                len => (usize::from(len), 2),
            };
            assert!(bytes.len() >= start + len, "a frame was cut: {:?}", String::from_utf8_lossy(bytes));
            frames.push((bytes[0], String::from_utf8_lossy(&bytes[start..start + len]).into_owned()));
            bytes = &bytes[start + len..];
        }
        assert!(bytes.is_empty(), "a frame was cut: {bytes:?}");
        frames
    }

    /// The code of the Close frame, if its last frame is one.
    pub(crate) fn close_code(&self) -> Option<u16> {
        let bytes = &self.from_server;
        let at = bytes.len().checked_sub(4)?;
        (bytes[at..at + 2] == [0x88, 2]).then(|| u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]))
    }

    /// The texts of its WebSocket messages.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.frames().into_iter().filter(|(first, _)| *first == 0x81).map(|(_, text)| text).collect()
    }

    /// The payloads of the notifications it heard, in order, over either transport.
    pub(crate) fn payloads(&self) -> Vec<String> {
        let text = self.text();
        let payload = |part: &str| part.split(r#","metadata":"#).next().unwrap_or_default().to_owned();
        text.split(r#""payload":"#).skip(1).filter(|part| part.contains(r#","metadata":"#)).map(payload).collect()
    }
}
