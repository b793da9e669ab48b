//! Mail that every node has read from Redis and one of them keeps: what waits here, a line for each mailbox, and what others have
//! kept before it was read here.
//!
//! A line is in the order of Redis, and the store is asked in that order, whatever the first of it waits for:
//!
//! * **its turn**: this node is the one to keep it, or the word of the one that is has not come in time. Then the whole line is
//!   asked for, one behind the other, as far as the turn of each has come;
//! * **the store**: it has failed something. That is put back at its place, and tried alone; the others go when it has succeeded.
//!   While nothing succeeds, one of all lines is tried at a time.
//!
//! Where the reading of a node broke, words of others may be lost, and what they had kept with the store's memory. So what waits
//! for a word goes at once, unless another has read for longer, and what the store has failed later: who waited for this node's
//! word has that, too, and may have what this node takes for kept.
mod line;

use crate::conn::outbox::Delivery;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
pub use line::{ClaimedMail, Turn};
use line::{Line, List, Stand};
use protocol::cluster::wire::Claim;
use protocol::limits;
use protocol::store::{Mail, MailboxKey};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// From when on a node keeps mail that has read since then without a break, in milliseconds on the monotonic clock.
pub(super) fn settled_ms(reads_since_us: u64) -> u64 {
    match reads_since_us {
        0 => 0,
        since_us => since_us.div_ceil(1_000).saturating_add(limits::CLUSTER_CLAIM_SETTLE_MS),
    }
}

/// Since when what is published to Redis is read without a break, on the monotonic clock; none who does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// By this node.
    pub own_since_us: Option<u64>,
    /// By that of the others which has read for longest.
    pub others_since_us: Option<u64>,
}

/// Lines by when they have something to do, and the number of their first.
type Lines = BTreeMap<(u64, u64), Arc<MailboxKey>>;

/// The table of one shard.
#[derive(Debug, Default)]
pub struct PendingClaims {
    lines: HashMap<Arc<MailboxKey>, Line, RandomState>,
    open: Lines,
    failed: Lines,
    /// Where it waits.
    places: HashMap<Claim, (Arc<MailboxKey>, u64), RandomState>,
    last_number: u64,
    readers: Readers,
    /// Until when what the store failed before a break is left to those who waited for this node's word, and the latest that this
    /// can be while one break follows another.
    yields_until_ms: u64,
    yields_at_most_ms: u64,
    /// No word is waited for any more.
    is_hurried: bool,
    /// The store fails: when one line may be tried.
    probe_ms: u64,
    elsewhere: HashSet<Claim, RandomState>,
    oldest_first: VecDeque<Claim>,
    /// Kept here and not yet told to the others.
    pub to_tell: Vec<Claim>,
}

impl PendingClaims {
    /// Puts it at the end of its line; `is_named`: this node is the one to keep what is for this mailbox. What waits already is
    /// passed over. What can be asked for at once is always taken; else it is given back when
    /// [`limits::CLUSTER_CLAIMS_WAITING_MAX`] wait.
    ///
    /// # Errors
    /// The mail.
    pub fn wait(&mut self, mail: Box<ClaimedMail>, is_named: bool) -> Result<(), Box<ClaimedMail>> {
        let now_ms = mail.read_ms;
        self.reads(now_ms, Some(mail.claim.reads_since_us));
        if self.places.contains_key(&mail.claim) {
            return Ok(());
        }
        if self.places.len() >= limits::CLUSTER_CLAIMS_WAITING_MAX {
            let is_free = self.lines.get(&mail.key).is_none_or(|line| line.is_free(now_ms));
            if !is_free || self.turn_ms(is_named, &mail) > now_ms {
                return Err(mail);
            }
        }
        self.last_number += 1;
        self.put(mail, self.last_number, |line| line.is_named = is_named);
        Ok(())
    }

    fn put(&mut self, mail: Box<ClaimedMail>, number: u64, change: impl FnOnce(&mut Line)) {
        let key = Arc::clone(&mail.key);
        self.places.insert(mail.claim, (Arc::clone(&key), number));
        let line = self.lines.entry(Arc::clone(&key)).or_default();
        line.put(number, mail);
        change(line);
        self.place(&key);
    }

    /// What the store is to be asked for now, if anything is.
    pub fn next(&mut self, now_ms: u64) -> Option<(Turn, Box<ClaimedMail>)> {
        if self.probe_ms <= now_ms
            && let Some(key) = first_due(&self.failed, now_ms)
        {
            if self.probe_ms > 0 {
                // Its answer says when the next.
                self.probe_ms = u64::MAX;
            }
            return self.begin(now_ms, &key);
        }
        while let Some(key) = first_due(&self.open, now_ms) {
            if !self.lines.get(&key).is_some_and(|line| line.is_slow(now_ms)) {
                return self.begin(now_ms, &key);
            }
            // Its place is looked for again when the store answers.
            self.leave(&key);
        }
        None
    }

    /// The same, before its time: what has waited longest for another node.
    pub fn next_early(&mut self, now_ms: u64) -> Option<(Turn, Box<ClaimedMail>)> {
        let key = self.open.first_key_value().map(|(_, key)| Arc::clone(key))?;
        self.begin(now_ms, &key)
    }

    fn begin(&mut self, now_ms: u64, key: &Arc<MailboxKey>) -> Option<(Turn, Box<ClaimedMail>)> {
        let (number, mail) = self.lines.get_mut(key)?.begin(now_ms)?;
        self.places.remove(&mail.claim);
        self.place(key);
        let (claim, read_ms, has_failed) = (mail.claim, mail.read_ms, mail.has_failed);
        let may_repeat = self.readers.own_since_us != Some(claim.reads_since_us);
        Some((Turn { claim, may_repeat, number, read_ms, has_failed }, mail))
    }

    /// The store has kept it, now or before.
    pub fn succeeded(&mut self, now_ms: u64, key: &Arc<MailboxKey>, turn: Turn) {
        self.probe_ms = 0;
        if let Some(line) = self.lines.get_mut(key) {
            line.succeeded(now_ms, turn.number);
            self.place(key);
        }
    }

    /// The store has not kept it, or nobody knows: the claim makes it safe to ask again. Whether another node has kept it.
    pub fn failed(
        &mut self,
        now_ms: u64,
        key: &Arc<MailboxKey>,
        mail: Mail,
        delivery: Rc<Delivery>,
        turn: Turn,
    ) -> bool {
        let Turn { claim, number, read_ms, .. } = turn;
        let has_failed = turn.has_failed || !turn.may_repeat;
        let alone = std::mem::replace(&mut self.probe_ms, now_ms + limits::CLUSTER_CLAIM_RETRY_MS) == 0;
        let is_elsewhere = self.is_stored(claim);
        if is_elsewhere || self.places.contains_key(&claim) {
            self.lines.get_mut(key).into_iter().for_each(|line| line.failed(now_ms, alone));
            self.place(key);
        } else {
            // At the bound one more for each that was under way: the store has its own.
            let key = Arc::clone(key);
            let mail = ClaimedMail { claim, key, mail, delivery, read_ms, has_failed };
            self.put(Box::new(mail), number, |line| line.failed(now_ms, alone));
        }
        is_elsewhere
    }

    /// Another node has kept it. Whether it waited here.
    pub fn stored(&mut self, claim: Claim) -> bool {
        if let Some((key, number)) = self.places.remove(&claim) {
            self.lines.get_mut(&key).into_iter().for_each(|line| line.remove(number));
            self.place(&key);
            return true;
        }
        if self.elsewhere.insert(claim) {
            self.oldest_first.push_back(claim);
            if self.oldest_first.len() > limits::CLUSTER_CLAIMS_REMEMBERED_MAX
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.elsewhere.remove(&oldest);
            }
        }
        false
    }

    /// Whether another node is known to have kept it.
    pub fn is_stored(&self, claim: Claim) -> bool {
        self.elsewhere.contains(&claim)
    }

    /// Others read, or this node from another moment on: whether it is named for each mailbox. Looks at every line.
    pub fn name(&mut self, now_ms: u64, readers: Readers, is_named: impl Fn(&MailboxKey) -> bool) {
        self.reads(now_ms, readers.own_since_us);
        self.readers = readers;
        for (key, line) in &mut self.lines {
            line.is_named = is_named(key);
        }
        self.place_all();
    }

    /// This node reads since then, or does not.
    fn reads(&mut self, now_ms: u64, since_us: Option<u64>) {
        if std::mem::replace(&mut self.readers.own_since_us, since_us) == since_us {
            return;
        }
        if self.yields_until_ms <= now_ms {
            self.yields_at_most_ms = now_ms + limits::CLUSTER_CLAIM_YIELD_MAX_MS;
        }
        self.yields_until_ms = since_us.map_or(u64::MAX, settled_ms).min(self.yields_at_most_ms);
        self.place_all();
    }

    /// The node stops: it waits for nobody's word.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
        self.place_all();
    }

    fn place_all(&mut self) {
        let keys: Vec<Arc<MailboxKey>> = self.lines.keys().cloned().collect();
        keys.iter().for_each(|key| self.place(key));
    }

    /// When the store may be asked to keep what is first in a line.
    fn turn_ms(&self, is_named: bool, first: &ClaimedMail) -> u64 {
        let since_us = first.claim.reads_since_us;
        // What this node has not read, as it began later, others have asked for by then.
        let settled_ms = settled_ms(since_us);
        let is_over = self.readers.own_since_us != Some(since_us);
        if self.is_hurried {
            return settled_ms;
        }
        if is_over && first.has_failed {
            return self.yields_until_ms.max(settled_ms);
        }
        let is_named = match is_over {
            // Nobody else has read it who is named now, unless he has read for longer.
            true => self.readers.others_since_us.is_none_or(|others_us| since_us < others_us),
            false => is_named,
        };
        match is_named {
            true => settled_ms,
            false => (first.read_ms + limits::CLUSTER_CLAIM_WAIT_MS).max(settled_ms + limits::CLUSTER_CLAIM_YIELD_MS),
        }
    }

    /// Puts a line where it belongs by what is first in it.
    fn place(&mut self, key: &Arc<MailboxKey>) {
        self.leave(key);
        let Some(line) = self.lines.get(key) else { return };
        let (list, number) = match line.stand() {
            Stand::Over => return drop(self.lines.remove(key)),
            Stand::Answer => return,
            Stand::Turn(list, number) => (list, number),
        };
        let turn_ms = line.first().map_or(0, |first| self.turn_ms(line.is_named, first));
        let at = (turn_ms.max(line.again_ms()), number);
        self.list(list).insert(at, Arc::clone(key));
        if let Some(line) = self.lines.get_mut(key) {
            line.stands = Some((list, at));
        }
    }

    fn leave(&mut self, key: &Arc<MailboxKey>) {
        if let Some((list, at)) = self.lines.get_mut(key).and_then(|line| line.stands.take()) {
            self.list(list).remove(&at);
        }
    }

    fn list(&mut self, list: List) -> &mut Lines {
        match list {
            List::Open => &mut self.open,
            List::Failed => &mut self.failed,
        }
    }

    /// When [`PendingClaims::next`] has something, in milliseconds on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        let first_ms = |lines: &Lines| lines.first_key_value().map(|((due_ms, _), _)| *due_ms);
        let failed_ms = first_ms(&self.failed).map(|due_ms| due_ms.max(self.probe_ms));
        first_ms(&self.open).into_iter().chain(failed_ms.filter(|due_ms| *due_ms != u64::MAX)).min()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether nothing waits and everything was told.
    pub fn is_settled(&self) -> bool {
        self.places.is_empty() && self.to_tell.is_empty()
    }

    /// Panics when a line would never be looked at again, or what is counted is not what is there; `under_way` is what the
    /// store was asked for.
    pub fn check(&self, under_way: usize) {
        let counts = self.lines.values().map(Line::counts);
        assert_eq!(counts.clone().map(|(_, under_way)| under_way).sum::<usize>(), under_way, "claims under way");
        assert_eq!(counts.map(|(waiting, _)| waiting).sum::<usize>(), self.places.len(), "claims that wait");
        let stand = self.lines.values().filter(|line| line.stands.is_some()).count();
        assert_eq!(stand, self.open.len() + self.failed.len(), "lines of claims");
        for line in self.lines.values().filter(|line| line.stands.is_none()) {
            assert!(line.counts().1 > 0, "a line nobody looks at");
        }
    }
}

fn first_due(lines: &Lines, now_ms: u64) -> Option<Arc<MailboxKey>> {
    let ((due_ms, _), key) = lines.first_key_value()?;
    (*due_ms <= now_ms).then(|| Arc::clone(key))
}

#[cfg(test)]
mod tests;
