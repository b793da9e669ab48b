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
//! for a word goes at once, and what the store has failed later: who waited for this node's word has that, too, and may have
//! what this node takes for kept.
use crate::conn::outbox::Delivery;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use protocol::cluster::wire::Claim;
use protocol::limits;
use protocol::store::{Mail, MailboxKey};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// One piece of it, for one mailbox.
#[derive(Debug)]
pub struct ClaimedMail {
    /// Of the message and the mailbox.
    pub claim: Claim,
    /// Whose.
    pub key: Arc<MailboxKey>,
    /// What.
    pub mail: Mail,
    /// To be delivered if this node keeps it.
    pub delivery: Rc<Delivery>,
    /// When it was read, in milliseconds on the monotonic clock.
    pub read_ms: u64,
    /// The store was asked in time, and failed it.
    pub has_failed: bool,
}

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

/// What of a line the store was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub claim: Claim,
    /// Its place.
    number: u64,
    read_ms: u64,
    has_failed: bool,
    /// This node has missed something since it was read, maybe the store's whole memory and the word of a node that had kept it:
    /// if it is kept now it may be heard again.
    pub may_repeat: bool,
}

#[derive(Debug, Default)]
struct Line {
    /// By the order in which they came.
    waiting: BTreeMap<u64, Box<ClaimedMail>>,
    under_way: usize,
    is_named: bool,
    failed: Option<Failed>,
    /// Where it stands in one of the two lists of lines.
    stands: Option<(List, (u64, u64))>,
}

/// The store has failed something of the line.
#[derive(Debug)]
struct Failed {
    /// Not before this time.
    again_ms: u64,
    /// What is being tried.
    tried: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Open,
    Failed,
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
    /// Until when what the store failed before a break is left to those who waited for this node's word.
    yields_until_ms: u64,
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
    /// passed over. Given back when [`limits::CLUSTER_CLAIMS_WAITING_MAX`] wait.
    ///
    /// # Errors
    /// The mail.
    pub fn wait(&mut self, mail: Box<ClaimedMail>, is_named: bool) -> Result<(), Box<ClaimedMail>> {
        self.reads(mail.read_ms, Some(mail.claim.reads_since_us));
        if self.places.len() >= limits::CLUSTER_CLAIMS_WAITING_MAX {
            return Err(mail);
        }
        if !self.places.contains_key(&mail.claim) {
            self.last_number += 1;
            self.put(mail, self.last_number, |line| line.is_named = is_named);
        }
        Ok(())
    }

    fn put(&mut self, mail: Box<ClaimedMail>, number: u64, change: impl FnOnce(&mut Line)) {
        let key = Arc::clone(&mail.key);
        self.places.insert(mail.claim, (Arc::clone(&key), number));
        let line = self.lines.entry(Arc::clone(&key)).or_default();
        line.waiting.insert(number, mail);
        change(line);
        self.place(&key);
    }

    /// What the store is to be asked for now, if anything is.
    pub fn next(&mut self, now_ms: u64) -> Option<(Turn, Box<ClaimedMail>)> {
        let is_due = |lines: &Lines| {
            let ((due_ms, _), key) = lines.first_key_value()?;
            (*due_ms <= now_ms).then(|| Arc::clone(key))
        };
        let failed = is_due(&self.failed).filter(|_| self.probe_ms <= now_ms);
        if failed.is_some() && self.probe_ms > 0 {
            // Its answer says when the next.
            self.probe_ms = u64::MAX;
        }
        let key = failed.or_else(|| is_due(&self.open))?;
        self.begin(&key)
    }

    /// The same, before its time: what has waited longest for another node.
    pub fn next_early(&mut self) -> Option<(Turn, Box<ClaimedMail>)> {
        let key = self.open.first_key_value().map(|(_, key)| Arc::clone(key))?;
        self.begin(&key)
    }

    fn begin(&mut self, key: &Arc<MailboxKey>) -> Option<(Turn, Box<ClaimedMail>)> {
        let line = self.lines.get_mut(key)?;
        let (number, mail) = line.waiting.pop_first()?;
        line.under_way += 1;
        if let Some(failed) = &mut line.failed {
            failed.tried = Some(number);
        }
        self.places.remove(&mail.claim);
        self.place(key);
        let may_repeat = self.readers.own_since_us != Some(mail.claim.reads_since_us);
        Some((Turn { claim: mail.claim, number, read_ms: mail.read_ms, has_failed: mail.has_failed, may_repeat }, mail))
    }

    /// The store has kept it, now or before.
    pub fn succeeded(&mut self, key: &Arc<MailboxKey>, turn: Turn) {
        self.probe_ms = 0;
        if let Some(line) = self.lines.get_mut(key) {
            line.under_way -= 1;
            line.failed.take_if(|failed| failed.tried == Some(turn.number));
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
        let again_ms = now_ms + limits::CLUSTER_CLAIM_RETRY_MS;
        self.probe_ms = again_ms;
        let fail = |line: &mut Line| {
            line.under_way -= 1;
            line.failed = Some(Failed { again_ms, tried: None });
        };
        let is_elsewhere = self.is_stored(claim);
        if is_elsewhere {
            self.lines.get_mut(key).into_iter().for_each(fail);
            self.place(key);
        } else {
            // At the bound one more for each that was under way: the store has its own.
            let key = Arc::clone(key);
            self.put(Box::new(ClaimedMail { claim, key, mail, delivery, read_ms, has_failed }), number, fail);
        }
        is_elsewhere
    }

    /// Another node has kept it. Whether it waited here.
    pub fn stored(&mut self, claim: Claim) -> bool {
        if let Some((key, number)) = self.places.remove(&claim) {
            if let Some(line) = self.lines.get_mut(&key) {
                line.waiting.remove(&number);
            }
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

    fn reads(&mut self, now_ms: u64, since_us: Option<u64>) {
        if std::mem::replace(&mut self.readers.own_since_us, since_us) != since_us {
            self.yields_until_ms = match since_us {
                Some(since_us) => settled_ms(since_us),
                None => now_ms + limits::CLUSTER_CLAIM_YIELD_MAX_MS,
            };
        }
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
    fn turn_ms(&self, line: &Line, first: &ClaimedMail) -> u64 {
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
            false => line.is_named,
        };
        match is_named {
            true => settled_ms,
            false => (first.read_ms + limits::CLUSTER_CLAIM_WAIT_MS).max(settled_ms + limits::CLUSTER_CLAIM_YIELD_MS),
        }
    }

    /// Puts a line where it belongs by what is first in it.
    fn place(&mut self, key: &Arc<MailboxKey>) {
        let Some(line) = self.lines.get_mut(key) else { return };
        match line.stands.take() {
            Some((List::Open, at)) => _ = self.open.remove(&at),
            Some((List::Failed, at)) => _ = self.failed.remove(&at),
            None => {}
        }
        let Some(line) = self.lines.get(key) else { return };
        let Some((number, first)) = line.waiting.first_key_value() else {
            if line.under_way == 0 {
                self.lines.remove(key);
            }
            return;
        };
        let due_ms = self.turn_ms(line, first);
        let (list, at) = match &line.failed {
            Some(_) if line.under_way > 0 => return,
            Some(failed) => (List::Failed, (due_ms.max(failed.again_ms), *number)),
            None => (List::Open, (due_ms, *number)),
        };
        match list {
            List::Open => &mut self.open,
            List::Failed => &mut self.failed,
        }
        .insert(at, Arc::clone(key));
        if let Some(line) = self.lines.get_mut(key) {
            line.stands = Some((list, at));
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
        assert_eq!(self.lines.values().map(|line| line.under_way).sum::<usize>(), under_way, "claims under way");
        assert_eq!(self.lines.values().map(|line| line.waiting.len()).sum::<usize>(), self.places.len(), "claims");
        let stand = self.lines.values().filter(|line| line.stands.is_some()).count();
        assert_eq!(stand, self.open.len() + self.failed.len(), "lines of claims");
        for line in self.lines.values().filter(|line| line.stands.is_none()) {
            assert!(line.under_way > 0 && (line.waiting.is_empty() || line.failed.is_some()), "a line nobody looks at");
        }
    }
}

#[cfg(test)]
mod tests;
