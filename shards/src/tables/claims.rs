//! Mail that every node has read from Redis and one of them keeps: what waits for another node's word, and what others have
//! kept before it was read here.
use crate::conn::outbox::Delivery;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use protocol::cluster::wire::Claim;
use protocol::limits;
use protocol::store::{Mail, MailboxKey};
use std::collections::VecDeque;
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
}

/// The table of one shard.
#[derive(Debug, Default)]
pub struct PendingClaims {
    waiting: HashMap<Claim, Box<ClaimedMail>, RandomState>,
    /// How many of them are for a mailbox.
    of_mailbox: HashMap<Arc<MailboxKey>, u32, RandomState>,
    /// All are given the same time, so they are due in the order they came.
    due: VecDeque<(u64, Claim)>,
    elsewhere: HashSet<Claim, RandomState>,
    oldest_first: VecDeque<Claim>,
    /// Kept here and not yet told to the others.
    pub to_tell: Vec<Claim>,
}

impl PendingClaims {
    /// Waits, [`limits::CLUSTER_CLAIM_WAIT_MS`] at most. Given back when too much does.
    pub fn wait(&mut self, now_ms: u64, mail: Box<ClaimedMail>) -> Result<(), Box<ClaimedMail>> {
        if self.due.len() >= limits::CLUSTER_CLAIMS_WAITING_MAX {
            return Err(mail);
        }
        self.due.push_back((now_ms + limits::CLUSTER_CLAIM_WAIT_MS, mail.claim));
        *self.of_mailbox.entry(Arc::clone(&mail.key)).or_default() += 1;
        if let Some(same) = self.waiting.insert(mail.claim, mail) {
            self.waits_no_more(&same.key);
        }
        Ok(())
    }

    fn take(&mut self, claim: Claim) -> Option<Box<ClaimedMail>> {
        let mail = self.waiting.remove(&claim)?;
        self.waits_no_more(&mail.key);
        Some(mail)
    }

    fn waits_no_more(&mut self, key: &Arc<MailboxKey>) {
        if let Some(count) = self.of_mailbox.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.of_mailbox.remove(key);
            }
        }
    }

    /// Whether something waits for this mailbox: what is newer comes behind it.
    pub fn holds(&self, key: &MailboxKey) -> bool {
        self.of_mailbox.contains_key(key)
    }

    /// All that waits for this mailbox, in order. Looks at everything that waits.
    pub fn take_of(&mut self, key: &MailboxKey) -> Vec<Box<ClaimedMail>> {
        let is_of = |claim: &Claim| self.waiting.get(claim).is_some_and(|mail| *mail.key == *key);
        let claims: Vec<Claim> = self.due.iter().map(|(_, claim)| *claim).filter(is_of).collect();
        let taken: Vec<_> = claims.into_iter().filter_map(|claim| self.take(claim)).collect();
        self.due.retain(|(_, claim)| self.waiting.contains_key(claim));
        taken
    }

    /// Another node has kept it. For which mailbox it waited here, if it did.
    pub fn stored(&mut self, claim: Claim) -> Option<Arc<MailboxKey>> {
        if let Some(mail) = self.take(claim) {
            return Some(mail.key);
        }
        if self.elsewhere.insert(claim) {
            self.oldest_first.push_back(claim);
            if self.oldest_first.len() > limits::CLUSTER_CLAIMS_REMEMBERED_MAX
                && let Some(oldest) = self.oldest_first.pop_front()
            {
                self.elsewhere.remove(&oldest);
            }
        }
        None
    }

    /// Whether another node is known to have kept it.
    pub fn is_stored(&self, claim: Claim) -> bool {
        self.elsewhere.contains(&claim)
    }

    /// What has waited long enough.
    pub fn take_due(&mut self, now_ms: u64) -> Option<Box<ClaimedMail>> {
        loop {
            self.due.front().filter(|(at_ms, _)| *at_ms <= now_ms)?;
            let (_, claim) = self.due.pop_front()?;
            if let Some(mail) = self.take(claim) {
                return Some(mail);
            }
        }
    }

    /// When [`PendingClaims::take_due`] has something to do, in milliseconds on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.front().map(|(at_ms, _)| *at_ms)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing waits and everything was told.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.to_tell.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_kept_is_remembered_for_a_while() {
        let mut claims = PendingClaims::default();
        let claim = |nth| Claim::new(1, nth);
        for nth in 0..=limits::CLUSTER_CLAIMS_REMEMBERED_MAX as u32 {
            assert!(claims.stored(claim(nth)).is_none(), "it did not wait");
        }
        assert!(!claims.is_stored(claim(0)) && claims.is_stored(claim(1)));
        assert_eq!(claims.elsewhere.len(), limits::CLUSTER_CLAIMS_REMEMBERED_MAX);
    }
}
