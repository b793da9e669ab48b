//! What was said and is not answered: its bytes, and whose answers are due.
use crate::redis::commands::event::Ask;
use crate::redis::commands::script::Script;
use crate::redis::commands::session::queue::Queue;
use std::collections::VecDeque;

/// Bytes that are answered and lie before what is not, above which they are thrown away.
const ANSWERED_BYTES_MAX: usize = 64 * 1024;
/// Room that an empty buffer keeps.
const ROOM_KEPT: usize = 256 * 1024;

/// Bytes for the server, kept until they are answered.
#[derive(Default)]
pub(super) struct Output {
    /// Those before `answered` are of no use any more, those before `sent` are on their way.
    bytes: Vec<u8>,
    answered: usize,
    sent: usize,
    /// Whose answers are due, in the order of the bytes.
    expected: VecDeque<Expected>,
}

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) due: Due,
    pub(super) bytes: usize,
    pub(super) deadline_us: u64,
}

/// What an answer is due to.
#[derive(Debug)]
pub(super) enum Due {
    Auth,
    Select,
    Who,
    Fence,
    Load(&'static Script),
    Hello,
    Ping,
    Command(Ask),
}

impl Output {
    /// Says what `write` appends.
    pub(super) fn say(&mut self, due: Due, deadline_us: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let bytes = self.bytes.len() - before;
        self.expected.push_back(Expected { due, bytes, deadline_us });
    }

    /// Says a command. `asked` is given its bytes, which only the writing tells.
    pub(super) fn say_command(&mut self, write: impl FnOnce(&mut Vec<u8>), asked: impl FnOnce(usize) -> Ask) {
        let before = self.bytes.len();
        write(&mut self.bytes);
        let ask = asked(self.bytes.len() - before);
        self.expect_command(ask);
    }

    /// Says commands that waited.
    pub(super) fn append(&mut self, queue: Queue) {
        self.bytes.extend_from_slice(queue.bytes());
        queue.asks.into_iter().for_each(|ask| self.expect_command(ask));
    }

    fn expect_command(&mut self, ask: Ask) {
        let (bytes, deadline_us) = (ask.bytes, ask.deadline_us);
        self.expected.push_back(Expected { due: Due::Command(ask), bytes, deadline_us });
    }

    /// What is to be sent.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The first `bytes` of [`Output::unsent`] are on their way.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = (self.sent + bytes).min(self.bytes.len());
    }

    /// Bytes that are not answered.
    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len() - self.answered
    }

    /// Whose answer is due next.
    pub(super) fn first(&self) -> Option<&Expected> {
        self.expected.front()
    }

    /// Whether all of what an answer is due to next is on its way.
    pub(super) fn is_first_sent(&self) -> bool {
        self.first().is_some_and(|expected| self.answered + expected.bytes <= self.sent)
    }

    /// Takes out whose answer is due next; its bytes stay until [`Output::answered`].
    pub(super) fn pop(&mut self) -> Option<Expected> {
        self.expected.pop_front()
    }

    /// The first bytes that are not answered.
    pub(super) fn first_bytes(&self, bytes: usize) -> &[u8] {
        &self.bytes[self.answered..self.answered + bytes]
    }

    /// The first bytes are answered.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.answered += bytes;
        if self.answered == self.bytes.len() {
            if self.bytes.capacity() > ROOM_KEPT {
                self.bytes = Vec::new();
            }
            self.bytes.clear();
            (self.answered, self.sent) = (0, 0);
        } else if self.answered > ANSWERED_BYTES_MAX && self.answered > self.bytes.len() / 2 {
            self.bytes.drain(..self.answered);
            self.sent -= self.answered;
            self.answered = 0;
        }
    }

    /// No answer is due any more.
    pub(super) fn expect_nothing(&mut self) {
        self.expected.clear();
    }

    /// Whether no answer is due.
    pub(super) fn is_quiet(&self) -> bool {
        self.expected.is_empty()
    }

    /// Whether no command's answer is due.
    pub(super) fn is_idle(&self) -> bool {
        !self.expected.iter().any(|expected| matches!(expected.due, Due::Command(_)))
    }

    /// The commands whose answers are due.
    pub(super) fn commands_mut(&mut self) -> impl Iterator<Item = &mut Ask> {
        self.expected.iter_mut().filter_map(|expected| match &mut expected.due {
            Due::Command(ask) => Some(ask),
            _ => None,
        })
    }

    /// Each command whose answer is due, and whether all of it is on its way.
    pub(super) fn into_commands(self) -> impl Iterator<Item = (Ask, bool)> {
        let Output { mut answered, sent, expected, .. } = self;
        expected.into_iter().filter_map(move |Expected { due, bytes, .. }| {
            answered += bytes;
            match due {
                Due::Command(ask) => Some((ask, answered <= sent)),
                _ => None,
            }
        })
    }

    /// Room it holds.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}
