//! What is said over one connection: commands to bytes, bytes to replies. No sockets, no time.
use crate::redis::commands;
use crate::redis::commands::reply::{Decoder, Reply, ReplyError};
use crate::redis::topology::url::Login;
use protocol::limits;

/// Bytes that a read may bring at least.
const ROOM_BYTES: usize = 4 * 1024;

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Talk {
    output: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// Bytes of `input` that have come; what follows them is room.
    filled: usize,
    /// Bytes at the start of `input` that are the reply that was shown last.
    shown: usize,
    decoder: Decoder,
}

impl Talk {
    /// Appends a command.
    pub(super) fn say(&mut self, words: &[&[u8]]) {
        commands::encode(&mut self.output, &[words]);
    }

    /// Says who we are; whether there is anything to say, which is then answered.
    pub(super) fn say_login(&mut self, login: &Login) -> bool {
        match (&login.user, &login.password) {
            (None, None) => return false,
            (None, Some(password)) => self.say(&[b"AUTH", password]),
            (Some(user), password) => self.say(&[b"AUTH", user, password.as_deref().unwrap_or_default()]),
        }
        true
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So much of [`Talk::output`] was sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// Where to put what comes. Take every reply first: what is not taken fills the room, up to
    /// [`limits::REDIS_TOPOLOGY_REPLY_BYTES_MAX`] and one read more.
    pub fn room(&mut self) -> &mut [u8] {
        self.forget();
        if self.input.len() - self.filled < ROOM_BYTES {
            // Doubled, so that a large reply is not copied for each of its pieces.
            self.input.resize((self.filled * 2).max(ROOM_BYTES * 2), 0);
        }
        &mut self.input[self.filled..]
    }

    /// So many bytes were put into [`Talk::room`].
    pub fn filled(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// The next whole reply.
    pub(super) fn reply(&mut self) -> Result<Option<Reply<'_>>, ReplyError> {
        self.forget();
        let input = &self.input[..self.filled];
        let Some(bytes) = self.decoder.decode(input)? else {
            return match self.filled > limits::REDIS_TOPOLOGY_REPLY_BYTES_MAX {
                true => Err(ReplyError::TooLarge { bytes: self.filled }),
                false => Ok(None),
            };
        };
        self.shown = bytes;
        Ok(Some(self.decoder.reply(input)))
    }

    /// Drops the reply that was shown.
    fn forget(&mut self) {
        if self.shown > 0 {
            self.input.copy_within(self.shown..self.filled, 0);
            self.filled -= self.shown;
            self.shown = 0;
            self.decoder.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(talk: &mut Talk, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = talk.room();
            let taken = room.len().min(bytes.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            talk.filled(taken);
            bytes = &bytes[taken..];
        }
    }

    #[test]
    fn who_we_are_is_said_as_the_server_takes_it() {
        let rows = [
            (None, None, ""),
            (None, Some("p"), "*2\r\n$4\r\nAUTH\r\n$1\r\np\r\n"),
            (Some("u"), Some("p"), "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n"),
            (Some("u"), None, "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$0\r\n\r\n"),
        ];
        for (user, password, said) in rows {
            let mut talk = Talk::default();
            let login = Login { user: user.map(Vec::from), password: password.map(Vec::from) };
            assert_eq!(talk.say_login(&login), !said.is_empty());
            assert_eq!(talk.output(), said.as_bytes());
            talk.sent(said.len());
            assert_eq!(talk.output(), b"");
        }
    }

    #[test]
    fn replies_come_one_after_the_other_and_leave_nothing() {
        let mut talk = Talk::default();
        hear(&mut talk, b"+OK\r\n:7\r\n$1");
        assert_eq!(talk.reply().unwrap().unwrap().text(), Some("OK"));
        assert_eq!(talk.reply().unwrap().unwrap().integer(), Some(7));
        assert!(talk.reply().unwrap().is_none());
        hear(&mut talk, b"\r\nx\r\n");
        assert_eq!(talk.reply().unwrap().unwrap().text(), Some("x"));
        assert!(talk.reply().unwrap().is_none());
        assert_eq!(talk.filled, 0);
    }

    #[test]
    fn a_reply_over_the_bound_is_refused_while_it_comes() {
        let mut talk = Talk::default();
        hear(&mut talk, b"$3000000\r\n");
        let chunk = [b'x'; 4_096];
        let error = loop {
            match talk.reply() {
                Ok(reply) => assert!(reply.is_none()),
                Err(error) => break error,
            }
            hear(&mut talk, &chunk);
        };
        assert!(matches!(error, ReplyError::TooLarge { .. }));
        assert!(talk.input.len() <= limits::REDIS_TOPOLOGY_REPLY_BYTES_MAX * 2 + 3 * ROOM_BYTES);
    }
}
