//! Commands to Redis: a pipelined link of its own, beside the subscription and independent of it.
//!
//! | module | what it is | touches sockets |
//! |---|---|---|
//! | [`session`] | the conversation: commands to bytes, bytes to answers, in order | no |
//! | [`event`] | what a session takes and what it says about it | no |
//! | [`reply`] | one answer, bounded, read where it lies | no |
//! | [`answer`] | what became of a command, and whose doing it was | no |
//! | [`script`] | a Lua script and its SHA-1 | no |
//! | [`link`] | the connection that is always there: timeouts, back-off, breaker | yes |
//! | [`status`] | how it does, for any thread to read | no |
//!
//! What is said over it is another's to know: [`crate::redis::mailbox`] and [`crate::redis::acks`] are such words.
//!
//! **Promise.** Each command that was taken is answered once: executed, refused, failed, unknown, or not sent. Commands
//! are executed in the order they were taken, those that had to wait for their script included.
pub mod answer;
mod ended;
pub mod event;
pub mod link;
pub mod reply;
pub mod script;
pub mod session;
pub mod status;

use script::Script;
use status::Operation;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Names one command of one link until it is answered; the caller's to choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What is asked of the server. Borrows its words: they are encoded when the link takes it.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Under which label it is counted.
    pub operation: Operation,
    /// What to say.
    pub words: Words<'a>,
}

/// The words of a command. Any bytes may stand in them.
#[derive(Clone, Copy, Debug)]
pub enum Words<'a> {
    /// The command's name and its arguments. None that changes the conversation itself: no SUBSCRIBE, MONITOR, MULTI,
    /// AUTH, SELECT, CLIENT REPLY, RESET or QUIT.
    Plain(&'a [&'a [u8]]),
    /// A script with its keys and arguments.
    Script {
        /// Which.
        script: &'static Script,
        /// `KEYS`
        keys: &'a [&'a [u8]],
        /// `ARGV`
        arguments: &'a [&'a [u8]],
    },
}

impl Words<'_> {
    /// The script, if it is one.
    pub(crate) fn script(&self) -> Option<&'static Script> {
        match self {
            Words::Plain(_) => None,
            Words::Script { script, .. } => Some(script),
        }
    }

    /// What it is about: a hash of its first key, or of the word behind the name.
    pub(crate) fn subject(&self) -> u64 {
        let first = match self {
            Words::Plain(words) => words.get(1),
            Words::Script { keys, .. } => keys.first(),
        };
        let mut hasher = DefaultHasher::new();
        first.hash(&mut hasher);
        hasher.finish()
    }

    /// How many bytes [`Words::encode`] appends, at most a few more.
    pub(crate) fn bytes_max(&self) -> usize {
        // `$`, a length of at most 20 digits and two times CRLF.
        let words = |words: &[&[u8]]| words.iter().map(|word| word.len() + 25).sum::<usize>();
        64 + match self {
            Words::Plain(plain) => words(plain),
            Words::Script { keys, arguments, .. } => 128 + words(keys) + words(arguments),
        }
    }

    /// Appends the command as an array of texts, the only form a server takes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Words::Plain(words) => encode(out, &[words]),
            Words::Script { script, keys, arguments } => {
                let count = keys.len().to_string();
                encode(out, &[&[b"EVALSHA", script.sha1().as_bytes(), count.as_bytes()], keys, arguments]);
            }
        }
    }
}

/// Appends one command whose words come in several lists.
pub(crate) fn encode(out: &mut Vec<u8>, lists: &[&[&[u8]]]) {
    use std::io::Write as _;
    let words: usize = lists.iter().map(|list| list.len()).sum();
    // Writing to a list of bytes does not fail.
    let _ = write!(out, "*{words}\r\n");
    for word in lists.iter().copied().flatten() {
        let _ = write!(out, "${}\r\n", word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SCRIPT: Script = Script::new("one", "return 1");

    #[test]
    fn words_are_encoded_as_they_are_and_within_what_was_said() {
        let long = vec![b'x'; 100_000];
        let rows: [(Words<'_>, &[u8]); 3] = [
            (Words::Plain(&[b"SET", b"a\r\n", b"\xff\x00"]), b"*3\r\n$3\r\nSET\r\n$3\r\na\r\n\r\n$2\r\n\xff\x00\r\n"),
            (Words::Plain(&[b"PING", b""]), b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n"),
            (
                Words::Script { script: &SCRIPT, keys: &[b"k"], arguments: &[b"a", b"b"] },
                b"*6\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\nb\r\n",
            ),
        ];
        for (words, expected) in rows {
            let mut out = Vec::new();
            words.encode(&mut out);
            assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
            assert!(out.len() <= words.bytes_max());
        }
        let words = Words::Plain(&[b"SET", b"k", &long]);
        let mut out = Vec::new();
        words.encode(&mut out);
        assert!((long.len()..=words.bytes_max()).contains(&out.len()));
    }
}
