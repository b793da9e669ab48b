//! What a home knows of its users' mail while they are online: what was delivered and not yet acknowledged.
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::ids::{ConnectionId, NotificationId};
use protocol::limits;
use protocol::store::{Mail, MailboxKey, Position};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::conn::outbox::Delivery;
use crate::key::ConnKey;
use crate::mesh::message::ReplyTo;
use crate::tables::claims::Turn;
use crate::tables::pace::Pace;
use crate::tables::removals::Removals;
use crate::tables::retries::Retries;
use protocol::publish::receipt::Receipt;

/// A delivered notification whose acknowledgement is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Of the notification.
    pub id: NotificationId,
    /// Where it stands in the mailbox; `None` when it is tracked but not kept.
    pub position: Option<Position>,
    /// When it was last delivered.
    pub sent_at_ms: u64,
}

/// The mail of one online user.
#[derive(Debug)]
pub struct UserMail {
    /// The user's mailbox.
    pub key: Arc<MailboxKey>,
    /// Tells this stay of the user from the next.
    pub stay: u64,
    /// Appends on their way to the store: until they are answered, what is accepted next is younger than something that
    /// no connection has.
    pub appending: u32,
    /// The youngest entry known to be kept. A connection that is up to date has everything up to here.
    pub youngest: Option<Position>,
    /// The youngest entry that was heard of, from whatever node. A page that was asked for before may end ahead of it.
    pub heard_of: Option<Position>,
    /// Oldest first.
    awaited: VecDeque<Awaited>,
    /// Acknowledged lately, and by which connections: another device's own first acknowledgement is good, too (C-12).
    acknowledged: VecDeque<(NotificationId, Vec<ConnKey>)>,
}

/// How an acknowledgement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The first for this notification: it may be forgotten. When it had been delivered, and where it stands.
    First(Awaited),
    /// The first by this connection, after another one's.
    Again,
    /// This connection's second.
    Invalid,
    /// Not awaited here: unknown, somebody else's, too late, or delivered by another process.
    Unknown,
}

impl UserMail {
    /// Nothing delivered yet.
    pub fn new(key: Arc<MailboxKey>, stay: u64) -> UserMail {
        UserMail {
            key,
            stay,
            appending: 0,
            youngest: None,
            heard_of: None,
            awaited: VecDeque::new(),
            acknowledged: VecDeque::new(),
        }
    }

    /// A delivery to one of the user's connections. True when it is a new one; false when it only repeats. The oldest
    /// falls out above [`limits::ACKS_AWAITED_MAX`]; what is kept comes back with the next reading of the mailbox.
    pub fn sent(&mut self, id: NotificationId, position: Option<Position>, now_ms: u64) -> Sent {
        // Repetitions are among the youngest, or come in order from a reading of the whole mailbox.
        if let Some(awaited) = self.awaited.iter_mut().rev().find(|awaited| awaited.id == id) {
            awaited.sent_at_ms = now_ms;
            return Sent::Repeated;
        }
        self.awaited.push_back(Awaited { id, position, sent_at_ms: now_ms });
        if self.awaited.len() > limits::ACKS_AWAITED_MAX {
            self.awaited.pop_front();
            return Sent::Displacing;
        }
        Sent::New
    }

    /// Takes an acknowledgement. With `late_after_ms`, one that comes later than that after the delivery is invalid.
    pub fn acknowledge(&mut self, id: NotificationId, by: ConnKey) -> Acknowledged {
        if let Some(at) = self.awaited.iter().position(|awaited| awaited.id == id)
            && let Some(awaited) = self.awaited.remove(at)
        {
            self.remember(id, by);
            return Acknowledged::First(awaited);
        }
        match self.acknowledged.iter_mut().find(|(known, _)| *known == id) {
            Some((_, connections)) if !connections.contains(&by) => {
                connections.push(by);
                Acknowledged::Again
            }
            Some(_) => Acknowledged::Invalid,
            None => Acknowledged::Unknown,
        }
    }

    /// It was acknowledged, here or by the word of the store: another device's own first acknowledgement is good, too.
    pub fn remember(&mut self, id: NotificationId, by: ConnKey) {
        self.acknowledged.push_back((id, vec![by]));
        if self.acknowledged.len() > limits::ACKS_REMEMBERED_MAX {
            self.acknowledged.pop_front();
        }
    }

    /// When the oldest awaited was delivered.
    pub fn oldest_sent_ms(&self) -> Option<u64> {
        self.awaited.iter().filter(|awaited| awaited.position.is_some()).map(|awaited| awaited.sent_at_ms).min()
    }

    /// When this one was last delivered.
    pub fn sent_at_ms(&self, id: NotificationId) -> Option<u64> {
        self.awaited.iter().find(|awaited| awaited.id == id).map(|awaited| awaited.sent_at_ms)
    }

    /// Forgets what is tracked but not kept and was delivered before; how many.
    pub fn expire(&mut self, before_ms: u64) -> usize {
        let len = self.awaited.len();
        self.awaited.retain(|awaited| awaited.position.is_some() || awaited.sent_at_ms >= before_ms);
        len - self.awaited.len()
    }

    /// Forgets what should be kept and was last delivered at this time or before; how many.
    pub fn forget_gone(&mut self, sent_until_ms: u64) -> usize {
        let len = self.awaited.len();
        self.awaited.retain(|awaited| awaited.position.is_none() || awaited.sent_at_ms > sent_until_ms);
        len - self.awaited.len()
    }

    /// How many are awaited, and how many of them are tracked only.
    pub fn awaited_len(&self) -> (usize, usize) {
        (self.awaited.len(), self.awaited.iter().filter(|awaited| awaited.position.is_none()).count())
    }
}

/// What a delivery meant to the tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// First delivery of it that this home knows of.
    New,
    /// As `New`, and the oldest had to go.
    Displacing,
    /// Known already.
    Repeated,
}

/// One part of a publish at a home: it is reported when every recipient's mail is kept or refused.
#[derive(Debug)]
pub struct Job {
    /// Who counts.
    pub reply: Option<ReplyTo>,
    /// So far.
    pub tally: Receipt,
    /// Answers of the store that are still to come; one more while recipients are still being looked at.
    pub missing: u32,
}

/// How much of a mailbox the page of a reading can be trusted to show, where other nodes write to it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The youngest entry that had been heard of: it is in what was asked for, or gone.
    pub heard_of: Option<Position>,
    /// Something may have been missed since: what was asked for is not all.
    pub is_stale: bool,
    /// For how long the connection had been here, in milliseconds.
    pub here_ms: u64,
}

/// What a shard waits for from the store.
#[derive(Debug)]
pub enum Wait {
    /// Mail is being kept.
    Append {
        /// Whose.
        key: Arc<MailboxKey>,
        /// What, in case it has to be tried again.
        mail: Vec<Mail>,
        /// To be delivered once it is kept, one for each.
        deliveries: Vec<Rc<Delivery>>,
        /// Who counts.
        job: Option<u64>,
        /// During which stay of the user it was asked; none when the user was away.
        stay: Option<u64>,
        /// Every node asks for it, and one is done.
        turn: Option<Turn>,
        /// It is not tried for the first time.
        is_retry: bool,
    },
    /// A connection reads its backlog.
    Read {
        /// Which.
        connection: ConnKey,
        /// How much of the mailbox could be known when it was asked for.
        asked: Asked,
    },
    /// Written or acknowledged mail is being forgotten; until that is done it is asked again.
    Remove {
        /// Whose.
        key: Arc<MailboxKey>,
    },
    /// A delivery is noted, or an acknowledgement of what this home awaited: nobody waits for the answer.
    Note,
    /// An acknowledgement of what this home does not await: the store decides.
    Verdict {
        /// Who is told.
        connection: ConnKey,
        /// What was acknowledged.
        id: NotificationId,
    },
}

/// Something that is recorded elsewhere, too (`ACK_BACKEND`).
#[derive(Debug)]
pub enum Note {
    /// A delivery to a connection whose acknowledgement is awaited.
    Sent(Arc<MailboxKey>, NotificationId, ConnectionId),
    /// An acknowledgement; whether the mail was kept for it.
    Acknowledged(Arc<MailboxKey>, NotificationId, bool),
    /// A delivery of what stands in the mailbox and was not read from there.
    Begun(Arc<MailboxKey>, Position),
}

/// Everything a shard waits for, and what waits to be tried again.
pub struct Mailroom {
    /// By ticket.
    pub waits: HashMap<u64, Wait, RandomState>,
    /// By number.
    pub jobs: HashMap<u64, Job, RandomState>,
    /// Appends that failed and that nobody was told about.
    pub retries: Retries,
    /// How they are tried again.
    pub retry_pace: Pace,
    /// Connections that wait for their turn to read their mailbox; some of them may be gone.
    pub readers: VecDeque<ConnKey>,
    /// How mailboxes are read.
    pub read_pace: Pace,
    /// Mail that is being kept while a connection has a part of it.
    pub begun: HashMap<NotificationId, Rc<Delivery>, RandomState>,
    /// Mail that is to be forgotten.
    pub removals: Removals,
    /// How it is.
    pub removal_pace: Pace,
    /// Deliveries and acknowledgements that are to be noted, in order.
    pub notes: VecDeque<Note>,
    /// Notes that are on their way.
    pub notes_under_way: usize,
    /// The last ticket or number given.
    pub last: u64,
    /// The node was told that this shard's store does not keep up.
    pub is_congested: bool,
}

impl Default for Mailroom {
    fn default() -> Mailroom {
        Mailroom {
            waits: HashMap::default(),
            jobs: HashMap::default(),
            retries: Retries::default(),
            retry_pace: Pace::new(limits::STORE_RETRIES_UNDER_WAY_MAX),
            readers: VecDeque::new(),
            read_pace: Pace::new(limits::STORE_READS_UNDER_WAY_MAX),
            begun: HashMap::default(),
            removals: Removals::default(),
            removal_pace: Pace::new(limits::STORE_REMOVALS_UNDER_WAY_MAX),
            notes: VecDeque::new(),
            notes_under_way: 0,
            last: 0,
            is_congested: false,
        }
    }
}

impl Mailroom {
    /// A fresh ticket or number. Odd, so that it never meets a template's.
    pub fn next_number(&mut self) -> u64 {
        self.last += 2;
        self.last | 1
    }

    /// Whether the store was asked for nothing that it has not answered, readings aside, and nothing waits to be tried
    /// again: nothing would be lost with this shard.
    pub fn is_settled(&self) -> bool {
        self.waits.len() == self.read_pace.under_way()
            && self.retries.is_empty()
            && self.removals.is_empty()
            && self.notes.is_empty()
    }

    /// When something waits to be asked again, in milliseconds on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        let retries = self.retries.is_waiting().then(|| self.retry_pace.due_ms());
        let reads = (!self.readers.is_empty()).then(|| self.read_pace.due_ms());
        let removals = self.removals.is_waiting().then(|| self.removal_pace.due_ms());
        [retries, reads, removals].into_iter().flatten().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::{TenantId, uuid_v7};

    fn id(n: u64) -> NotificationId {
        NotificationId(uuid_v7(n, [0; 10]))
    }

    fn phone() -> ConnKey {
        ConnKey { slot: 1, generation: 1 }
    }

    fn laptop() -> ConnKey {
        ConnKey { slot: 2, generation: 1 }
    }

    fn mail() -> UserMail {
        UserMail::new(Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: "ana".into() }), 1)
    }

    #[test]
    fn each_device_may_acknowledge_once_and_the_first_counts() {
        let mut mail = mail();
        assert_eq!(mail.sent(id(1), None, 10), Sent::New);
        assert_eq!(mail.sent(id(1), None, 11), Sent::Repeated, "the second device");
        assert!(matches!(mail.acknowledge(id(1), phone()), Acknowledged::First(_)));
        assert_eq!(mail.acknowledge(id(1), phone()), Acknowledged::Invalid);
        assert_eq!(mail.acknowledge(id(1), laptop()), Acknowledged::Again);
        assert_eq!(mail.acknowledge(id(1), laptop()), Acknowledged::Invalid);
        assert_eq!(mail.acknowledge(id(2), laptop()), Acknowledged::Unknown);
    }

    #[test]
    fn only_what_is_not_kept_expires() {
        let mut mail = mail();
        mail.sent(id(1), None, 10);
        mail.sent(id(2), Some(Position(2, 0)), 10);
        assert_eq!(mail.expire(11), 1);
        assert_eq!((mail.awaited_len(), mail.oldest_sent_ms()), ((1, 0), Some(10)));
    }
}
