//! Commands that wait to be sent over one link, and the deadlines of all commands.
use crate::postgres::command::{Command, Company};
use crate::postgres::reply::{Full, Ticket};
use protocol::limits;
use std::collections::VecDeque;

/// Commands that wait. More are refused.
pub const QUEUE_COMMANDS_MAX: usize = 8_192;
/// Bytes of commands that wait. More are refused; one alone is always taken.
pub const QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// First in, first out; bounded in number and in bytes.
#[derive(Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The last so many came since the last [`Queue::stamp`].
    fresh: usize,
    soonest: Soonest,
}

/// A command that waits.
pub(super) struct Entry {
    pub(super) ticket: Ticket,
    pub(super) command: Command,
    /// Set by [`Queue::stamp`].
    pub(super) deadline_us: u64,
    /// How often it was taken back because of a conflict with others, though it was alone.
    pub(super) conflicts: u32,
    /// What is behind it does not share its transaction.
    pub(super) is_last: bool,
}

impl Queue {
    pub(super) fn push(&mut self, ticket: Ticket, command: Command) -> Result<(), Full> {
        let bytes = command.bytes_held();
        let is_full = self.entries.len() >= QUEUE_COMMANDS_MAX || self.bytes + bytes > QUEUE_BYTES_MAX;
        if is_full && !self.entries.is_empty() {
            return Err(Full);
        }
        self.bytes += bytes;
        self.fresh += 1;
        self.entries.push_back(Entry { ticket, command, deadline_us: u64::MAX, conflicts: 0, is_last: false });
        Ok(())
    }

    /// Starts the clocks of those that came since the last time.
    pub(super) fn stamp(&mut self, now_us: u64) {
        let known = self.entries.len() - self.fresh;
        for entry in self.entries.iter_mut().skip(known) {
            entry.deadline_us = now_us.saturating_add(u64::from(entry.command.timeout_ms()) * 1_000);
            self.soonest.add(entry.deadline_us);
        }
        self.fresh = 0;
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.command.bytes_held();
        // Only a command that was never stamped can be the last of the fresh ones.
        self.fresh = self.fresh.min(self.entries.len());
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
            self.soonest = Soonest::default();
        }
        Some(entry)
    }

    /// Whether the next one may be in one transaction with others.
    pub(super) fn next_company(&self) -> Option<Company> {
        Some(self.entries.front()?.command.company)
    }

    /// Takes those that go in the next transaction together, one at least: the bounds are
    /// [`limits::POSTGRES_BATCH_COMMANDS_MAX`] and [`limits::POSTGRES_BATCH_BYTES_MAX`].
    pub(super) fn pop_batch(&mut self) -> Vec<Entry> {
        let mut batch: Vec<Entry> = self.pop().into_iter().collect();
        let mut bytes: usize = batch.iter().map(|entry| entry.command.bytes_held()).sum();
        while let (Some(last), Some(next)) = (batch.last(), self.entries.front()) {
            bytes += next.command.bytes_held();
            let shares = |entry: &Entry| matches!(entry.command.company, Company::Shared(_));
            let fits = batch.len() < limits::POSTGRES_BATCH_COMMANDS_MAX && bytes <= limits::POSTGRES_BATCH_BYTES_MAX;
            if last.is_last || !fits || !shares(last) || !shares(next) {
                break;
            }
            batch.extend(self.pop());
        }
        batch
    }

    /// Puts one that was taken back before all others, however many there are.
    pub(super) fn push_front(&mut self, entry: Entry) {
        self.bytes += entry.command.bytes_held();
        self.soonest.add(entry.deadline_us);
        self.entries.push_front(entry);
    }

    /// Takes out those whose time is over.
    pub(super) fn expire(&mut self, now_us: u64, on_late: &mut dyn FnMut(Ticket)) {
        if !self.soonest.may_be_over(now_us) {
            return;
        }
        let bytes = &mut self.bytes;
        self.entries.retain(|entry| {
            let is_late = entry.deadline_us <= now_us;
            if is_late {
                *bytes -= entry.command.bytes_held();
                on_late(entry.ticket);
            }
            !is_late
        });
        self.fresh = self.fresh.min(self.entries.len());
        self.soonest.set(self.entries.iter().map(|entry| entry.deadline_us));
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// When to look at the deadlines again.
    pub(super) fn wake_at_us(&self) -> Option<u64> {
        self.soonest.at_us()
    }
}

/// The soonest of many deadlines, or a time before it: those that were met are forgotten late, which costs a look and
/// never a deadline.
#[derive(Clone, Copy)]
pub(super) struct Soonest {
    at_us: u64,
}

impl Default for Soonest {
    fn default() -> Self {
        Soonest { at_us: u64::MAX }
    }
}

impl Soonest {
    pub(super) fn add(&mut self, deadline_us: u64) {
        self.at_us = self.at_us.min(deadline_us);
    }

    pub(super) fn set(&mut self, deadlines_us: impl Iterator<Item = u64>) {
        self.at_us = deadlines_us.min().unwrap_or(u64::MAX);
    }

    pub(super) fn may_be_over(&self, now_us: u64) -> bool {
        self.at_us <= now_us
    }

    pub(super) fn at_us(&self) -> Option<u64> {
        (self.at_us != u64::MAX).then_some(self.at_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::command::Statement;

    const STATEMENT: Statement = Statement { name: "s", sql: "" };

    fn push(queue: &mut Queue, number: u64, timeout_ms: u32, bytes: usize) -> Result<(), Full> {
        let command = Command::new(&STATEMENT, timeout_ms).bytes(&vec![0; bytes]);
        queue.push(Ticket { number, order: None }, command)
    }

    fn late(queue: &mut Queue, now_us: u64) -> Vec<u64> {
        let mut late = Vec::new();
        queue.expire(now_us, &mut |ticket| late.push(ticket.number));
        late
    }

    #[test]
    fn it_is_bounded_in_number_and_in_bytes_and_takes_one_always() {
        let mut queue = Queue::default();
        assert!(push(&mut queue, 0, 1, QUEUE_BYTES_MAX + 1).is_ok());
        assert_eq!(push(&mut queue, 1, 1, 0), Err(Full));
        queue.pop().unwrap();
        for number in 0..QUEUE_COMMANDS_MAX as u64 {
            assert!(push(&mut queue, number, 1, 0).is_ok(), "{number}");
        }
        assert_eq!(push(&mut queue, 1, 1, 0), Err(Full));
        while queue.pop().is_some() {}
        assert_eq!((queue.bytes, queue.len()), (0, 0));
    }

    #[test]
    fn clocks_start_with_the_turn_and_each_command_has_its_own() {
        let mut queue = Queue::default();
        push(&mut queue, 1, 10, 5).unwrap();
        push(&mut queue, 2, 2, 5).unwrap();
        assert_eq!(queue.wake_at_us(), None);
        queue.stamp(1_000);
        push(&mut queue, 3, 1, 5).unwrap();
        assert_eq!(queue.wake_at_us(), Some(3_000));
        assert_eq!(late(&mut queue, 2_999), [0; 0]);
        assert_eq!(late(&mut queue, 3_000), [2]);
        queue.stamp(5_000);
        assert_eq!(queue.wake_at_us(), Some(6_000));
        assert_eq!(late(&mut queue, 60_000), [1, 3]);
        assert_eq!((queue.bytes, queue.wake_at_us()), (0, None));
    }
}
