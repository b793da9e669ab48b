//! Mail that was written or acknowledged and is to be forgotten: by mailbox, gathered while an earlier removal of the same
//! mailbox is under way, kept until the store says that it is done.
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::limits;
use protocol::store::{MailboxKey, Position};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// What of one mailbox is to be forgotten.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeSet<Position>,
    /// In order.
    under_way: Vec<Position>,
}

impl Line {
    fn holds(&self, position: Position) -> bool {
        self.waiting.contains(&position) || self.under_way.binary_search(&position).is_ok()
    }
}

/// The removals of one shard. Mailboxes take turns; of one mailbox one removal is under way.
#[derive(Debug, Default)]
pub struct Removals {
    lines: HashMap<Arc<MailboxKey>, Line, RandomState>,
    /// Mailboxes of which something waits and nothing is under way.
    turns: VecDeque<Arc<MailboxKey>>,
    len: usize,
}

impl Removals {
    /// Takes positions in; how many there was no room for: above [`limits::STORE_REMOVALS_MAX`] mail stays in the mailbox,
    /// and comes again and says so.
    pub fn add(&mut self, key: &Arc<MailboxKey>, positions: impl IntoIterator<Item = Position>) -> usize {
        let mut refused = 0;
        let line = self.lines.entry(Arc::clone(key)).or_default();
        let was_idle = line.waiting.is_empty() && line.under_way.is_empty();
        for position in positions {
            if line.holds(position) {
                continue;
            }
            if self.len >= limits::STORE_REMOVALS_MAX {
                refused += 1;
            } else {
                self.len += 1;
                line.waiting.insert(position);
            }
        }
        match line.waiting.is_empty() && line.under_way.is_empty() {
            true => drop(self.lines.remove(key)),
            false if was_idle => self.turns.push_back(Arc::clone(key)),
            false => {}
        }
        refused
    }

    /// Whether this entry is to be forgotten: whoever reads it passes over it.
    pub fn holds(&self, key: &MailboxKey, position: Position) -> bool {
        !self.lines.is_empty() && self.lines.get(key).is_some_and(|line| line.holds(position))
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether some mailbox could be asked for now.
    pub fn is_waiting(&self) -> bool {
        !self.turns.is_empty()
    }

    /// What to ask next, of the mailbox whose turn it is.
    pub fn begin(&mut self) -> Option<(Arc<MailboxKey>, Vec<Position>)> {
        let key = self.turns.pop_front()?;
        let line = self.lines.get_mut(&key)?;
        while line.under_way.len() < limits::STORE_REMOVAL_POSITIONS_MAX
            && let Some(position) = line.waiting.pop_first()
        {
            line.under_way.push(position);
        }
        Some((key, line.under_way.clone()))
    }

    /// What was under way is forgotten.
    pub fn done(&mut self, key: &Arc<MailboxKey>) {
        let Some(line) = self.lines.get_mut(key) else { return };
        self.len -= line.under_way.len();
        line.under_way.clear();
        match line.waiting.is_empty() {
            true => drop(self.lines.remove(key)),
            false => self.turns.push_back(Arc::clone(key)),
        }
    }

    /// What was under way was not forgotten, or perhaps: forgetting it twice does no harm.
    pub fn failed(&mut self, key: &Arc<MailboxKey>) {
        let Some(line) = self.lines.get_mut(key) else { return };
        line.waiting.extend(line.under_way.drain(..));
        self.turns.push_back(Arc::clone(key));
    }

    /// Panics when what is counted is not what is there.
    pub fn check(&self) {
        let held: usize = self.lines.values().map(|line| line.waiting.len() + line.under_way.len()).sum();
        assert_eq!(self.len, held, "mail that is to be forgotten");
        let idle = self.lines.values().filter(|line| line.under_way.is_empty()).count();
        assert_eq!(self.turns.len(), idle, "a mailbox that is never asked for");
        assert!(self.lines.values().all(|line| !line.waiting.is_empty() || !line.under_way.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TenantId;

    fn key(user: &str) -> Arc<MailboxKey> {
        Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: user.into() })
    }

    fn at(n: u64) -> Position {
        Position(n, 0)
    }

    #[test]
    fn what_comes_while_a_removal_is_under_way_goes_with_the_next_one() {
        let mut removals = Removals::default();
        removals.add(&key("ana"), [at(1)]);
        assert_eq!(removals.begin(), Some((key("ana"), vec![at(1)])));
        removals.add(&key("ana"), [at(3), at(2), at(1)]);
        removals.add(&key("bo"), [at(9)]);
        assert_eq!(removals.begin(), Some((key("bo"), vec![at(9)])), "one at a time of each mailbox");
        assert_eq!(removals.begin(), None);
        removals.failed(&key("ana"));
        assert!(removals.holds(&key("ana"), at(1)) && !removals.holds(&key("bo"), at(1)));
        removals.done(&key("bo"));
        assert_eq!(removals.begin(), Some((key("ana"), vec![at(1), at(2), at(3)])));
        removals.check();
        removals.done(&key("ana"));
        assert!(removals.is_empty());
        removals.check();
    }

    #[test]
    fn what_is_above_the_bound_stays_in_its_mailbox() {
        let mut removals = Removals::default();
        let max = limits::STORE_REMOVALS_MAX as u64;
        assert_eq!(removals.add(&key("ana"), (0..max).map(at)), 0);
        assert_eq!(removals.add(&key("bo"), [at(1), at(2)]), 2);
        assert_eq!(removals.add(&key("bo"), []), 0);
        let (ana, first) = removals.begin().unwrap();
        assert_eq!(first.len(), limits::STORE_REMOVAL_POSITIONS_MAX);
        removals.done(&ana);
        assert_eq!(removals.add(&key("bo"), [at(1), at(2)]), 0);
        removals.check();
    }
}
