//! What Redis says to one user, as long as nobody is known to have kept it: in the order of Redis.
use crate::conn::outbox::Delivery;
use protocol::cluster::wire::Claim;
use protocol::limits;
use protocol::store::{Mail, MailboxKey};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// One piece of mail, for one mailbox.
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

/// What of a line the store was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub claim: Claim,
    /// This node has missed something since it was read, maybe the store's whole memory and the word of a node that had kept it:
    /// if it is kept now it may be heard again.
    pub may_repeat: bool,
    /// Its place.
    pub(super) number: u64,
    pub(super) read_ms: u64,
    pub(super) has_failed: bool,
}

/// The line of one mailbox. It is there while something waits or is under way.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// By the order in which they came.
    waiting: BTreeMap<u64, Box<ClaimedMail>>,
    under_way: usize,
    /// When the store was asked for the first of what is under way, or answered something of it.
    moved_ms: u64,
    failed: Option<Failed>,
    /// This node is the one to keep what is for this mailbox.
    pub(super) is_named: bool,
    /// Where it stands in the lists of lines.
    pub(super) stands: Option<(List, (u64, u64))>,
}

/// The store has failed something of the line.
#[derive(Debug)]
struct Failed {
    /// Not before this time.
    again_ms: u64,
    /// For how long it rests.
    rest_ms: u64,
    /// What is being tried.
    tried: Option<u64>,
}

/// The lists of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Open,
    Failed,
}

/// What a line waits for.
pub(super) enum Stand {
    /// Nothing is in it any more.
    Over,
    /// An answer of the store.
    Answer,
    /// The turn of its first, which has this number.
    Turn(List, u64),
}

impl Line {
    pub(super) fn put(&mut self, number: u64, mail: Box<ClaimedMail>) {
        self.waiting.insert(number, mail);
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    pub(super) fn first(&self) -> Option<&ClaimedMail> {
        self.waiting.first_key_value().map(|(_, mail)| &**mail)
    }

    /// When it may be tried again that has failed.
    pub(super) fn again_ms(&self) -> u64 {
        self.failed.as_ref().map_or(0, |failed| failed.again_ms)
    }

    pub(super) fn stand(&self) -> Stand {
        match (self.waiting.first_key_value(), &self.failed) {
            (None, _) if self.under_way == 0 => Stand::Over,
            (None, _) => Stand::Answer,
            (Some(_), Some(_)) if self.under_way > 0 => Stand::Answer,
            (Some((number, _)), Some(_)) => Stand::Turn(List::Failed, *number),
            (Some((number, _)), None) => Stand::Turn(List::Open, *number),
        }
    }

    /// Whether what comes now could be asked for at once.
    pub(super) fn is_free(&self, now_ms: u64) -> bool {
        self.waiting.is_empty() && self.failed.is_none() && !self.is_slow(now_ms)
    }

    /// Whether the store has been silent for too long to be asked for more: what it does not take in time is told one by one.
    pub(super) fn is_slow(&self, now_ms: u64) -> bool {
        self.under_way > 0 && now_ms > self.moved_ms + limits::CLUSTER_CLAIM_AHEAD_MS
    }

    /// The store is asked for the first.
    pub(super) fn begin(&mut self, now_ms: u64) -> Option<(u64, Box<ClaimedMail>)> {
        let (number, mail) = self.waiting.pop_first()?;
        if self.under_way == 0 {
            self.moved_ms = now_ms;
        }
        self.under_way += 1;
        if let Some(failed) = &mut self.failed {
            failed.tried = Some(number);
        }
        Some((number, mail))
    }

    pub(super) fn succeeded(&mut self, now_ms: u64, number: u64) {
        self.answered(now_ms);
        self.failed.take_if(|failed| failed.tried == Some(number));
    }

    /// `alone`: the store does other things meanwhile. Then the line rests twice as long from one time to the next.
    pub(super) fn failed(&mut self, now_ms: u64, alone: bool) {
        self.answered(now_ms);
        let rest_ms = match &self.failed {
            Some(failed) if alone => (2 * failed.rest_ms).min(limits::CLUSTER_CLAIM_RETRY_MAX_MS),
            Some(failed) => failed.rest_ms,
            None => limits::CLUSTER_CLAIM_RETRY_MS,
        };
        self.failed = Some(Failed { again_ms: now_ms + rest_ms, rest_ms, tried: None });
    }

    fn answered(&mut self, now_ms: u64) {
        self.under_way -= 1;
        self.moved_ms = now_ms;
    }

    /// How many wait, and how many the store was asked for.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.waiting.len(), self.under_way)
    }
}
