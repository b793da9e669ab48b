//! Mail that could not be kept yet and that nobody was told about, by mailbox, in the order it came.
use crate::conn::outbox::Delivery;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::limits;
use protocol::store::{Mail, MailboxKey};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// Mail of one mailbox that is to be kept, oldest first.
#[derive(Debug)]
pub struct Retry {
    /// Whose.
    pub key: Arc<MailboxKey>,
    /// What.
    pub mail: Vec<Mail>,
    /// To be delivered once it is kept: one for each, or none at all.
    pub deliveries: Vec<Rc<Delivery>>,
}

/// What waits for one mailbox. While some of it is on its way to the store the rest stays behind that.
#[derive(Debug, Default)]
struct Line {
    mail: VecDeque<Mail>,
    deliveries: VecDeque<Rc<Delivery>>,
    is_under_way: bool,
}

/// The buffer of one shard. Mailboxes take turns; of one mailbox only one request is under way, so its order holds.
#[derive(Debug, Default)]
pub struct Retries {
    lines: HashMap<Arc<MailboxKey>, Line, RandomState>,
    /// Mailboxes of which nothing is under way.
    turns: VecDeque<Arc<MailboxKey>>,
    len: usize,
    bytes: usize,
}

impl Retries {
    /// Whether mail for this mailbox waits or is under way: what comes now is younger.
    pub fn holds(&self, key: &MailboxKey) -> bool {
        !self.lines.is_empty() && self.lines.contains_key(key)
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether some mailbox could be tried now.
    pub fn is_waiting(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Takes mail in, behind what is there. Above [`limits::STORE_RETRIES_MAX`] or [`limits::STORE_RETRY_BYTES_MAX`] it is
    /// given back; what is taken in at the bound may go above it, by one outbox at most.
    pub fn add(&mut self, retry: Retry) -> Result<(), Retry> {
        if self.len >= limits::STORE_RETRIES_MAX || self.bytes >= limits::STORE_RETRY_BYTES_MAX {
            return Err(retry);
        }
        let Retry { key, mail, deliveries } = retry;
        self.len += mail.len();
        self.bytes += bytes_of(&mail);
        if !self.lines.contains_key(&key) {
            self.turns.push_back(Arc::clone(&key));
        }
        let line = self.lines.entry(key).or_default();
        line.mail.extend(mail);
        line.deliveries.extend(deliveries);
        Ok(())
    }

    /// What to try next: the oldest of the mailbox whose turn it is.
    pub fn begin(&mut self) -> Option<Retry> {
        let key = self.turns.pop_front()?;
        let line = self.lines.get_mut(&key)?;
        line.is_under_way = true;
        let mail: Vec<Mail> = line.mail.drain(..line.mail.len().min(limits::STORE_RETRY_MAIL)).collect();
        let deliveries = line.deliveries.drain(..line.deliveries.len().min(mail.len())).collect();
        Some(Retry { key, mail, deliveries })
    }

    /// What was under way is kept.
    pub fn kept(&mut self, key: &Arc<MailboxKey>, mail: &[Mail]) {
        self.len -= mail.len();
        self.bytes -= bytes_of(mail);
        match self.lines.get_mut(key) {
            Some(line) if !line.mail.is_empty() => {
                line.is_under_way = false;
                // It has just shown that it can be written.
                self.turns.push_front(Arc::clone(key));
            }
            _ => drop(self.lines.remove(key)),
        }
    }

    /// What was under way was not kept, or perhaps: it waits again, ahead of what came since.
    pub fn failed(&mut self, retry: Retry) {
        let Retry { key, mail, deliveries } = retry;
        self.turns.push_back(Arc::clone(&key));
        let line = self.lines.entry(key).or_default();
        line.is_under_way = false;
        mail.into_iter().rev().for_each(|mail| line.mail.push_front(mail));
        deliveries.into_iter().rev().for_each(|delivery| line.deliveries.push_front(delivery));
    }

    /// Panics when what is counted is not what is there; `under_way` is the mail that the store was asked to keep.
    pub fn check(&self, under_way: usize) {
        let waiting: usize = self.lines.values().map(|line| line.mail.len()).sum();
        assert_eq!(self.len, waiting + under_way, "mail that waits to be tried again");
        let idle = self.lines.values().filter(|line| !line.is_under_way).count();
        assert_eq!(self.turns.len(), idle, "a mailbox that is never tried again");
    }
}

fn bytes_of(mail: &[Mail]) -> usize {
    mail.iter().map(|mail| mail.event.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::{NotificationId, TenantId};
    use protocol::stream::StreamSeq;

    fn key(user: &str) -> Arc<MailboxKey> {
        Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: user.into() })
    }

    fn mail(n: u64) -> Mail {
        Mail {
            id: NotificationId::NIL,
            event: (*b"{}").into(),
            queued_at_unix_ns: n,
            expires_at_unix_ns: u64::MAX,
            attempts: 0,
            stream: StreamSeq::default(),
        }
    }

    fn retry(user: &str, numbers: std::ops::Range<u64>) -> Retry {
        Retry { key: key(user), mail: numbers.map(mail).collect(), deliveries: Vec::new() }
    }

    fn numbers(retry: &Retry) -> Vec<u64> {
        retry.mail.iter().map(|mail| mail.queued_at_unix_ns).collect()
    }

    #[test]
    fn a_mailbox_keeps_its_order_and_mailboxes_take_turns() {
        let mut retries = Retries::default();
        for part in [retry("ana", 0..2), retry("bo", 0..1), retry("ana", 2..3)] {
            retries.add(part).unwrap();
        }
        let ana = retries.begin().unwrap();
        assert_eq!(numbers(&ana), [0, 1, 2], "one request for all of a mailbox");
        retries.add(retry("ana", 3..4)).unwrap();
        let bo = retries.begin().unwrap();
        assert_eq!((&*bo.key.user, retries.is_waiting()), ("bo", false), "nothing overtakes what is under way");
        retries.failed(ana);
        retries.kept(&bo.key, &bo.mail);
        assert!(retries.holds(&key("ana")) && !retries.holds(&key("bo")));
        let ana = retries.begin().unwrap();
        assert_eq!(numbers(&ana), [0, 1, 2, 3]);
        retries.kept(&ana.key, &ana.mail);
        assert!(retries.is_empty());
        retries.check(0);
    }

    #[test]
    fn what_is_above_the_bound_is_given_back() {
        let mut retries = Retries::default();
        let max = limits::STORE_RETRIES_MAX as u64;
        retries.add(retry("ana", 0..max)).unwrap();
        assert!(retries.add(retry("bo", 0..1)).is_err());
        let first = retries.begin().unwrap();
        assert_eq!(first.mail.len(), limits::STORE_RETRY_MAIL, "a request has a bound, too");
        retries.check(first.mail.len());
        retries.kept(&first.key, &first.mail);
        assert!(retries.add(retry("bo", 0..1)).is_ok());
    }
}
