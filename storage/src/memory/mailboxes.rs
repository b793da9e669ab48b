//! Mailboxes in memory: lost with the process, bounded per user.
use protocol::cluster::wire::Claim;
use protocol::store::{Entry, Mail, MailboxKey, Position};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Bounds of every mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// `QUEUE_MAX_SIZE_PER_USER`; 0 still keeps one (contract §8.5).
    pub entries_max: usize,
}

/// What happened to the mailboxes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxCounts {
    /// Entries kept now.
    pub entries: u64,
    /// Mailboxes that hold something now.
    pub mailboxes: u64,
    /// Memory of the entries kept now, their events and what it takes to keep them, in bytes.
    pub bytes: u64,
    /// Entries ever taken in.
    pub enqueued: u64,
    /// Entries whose time was over.
    pub expired: u64,
    /// Entries that had to go for younger ones.
    pub dropped: u64,
}

/// Every mailbox of the users of one shard.
#[derive(Debug)]
pub struct MemoryMailboxes {
    mailboxes: HashMap<Arc<MailboxKey>, VecDeque<Entry>>,
    limits: MailboxLimits,
    last_position: u64,
    claims: Claims,
    counts: MailboxCounts,
}

/// What an append came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where each stands; none when the claim was taken before.
    pub positions: Vec<Position>,
    /// The entry that stood last before these.
    pub before: Option<Position>,
    /// How many of the oldest had to go.
    pub dropped: u64,
}

/// Claims taken, at most [`CLAIMS_REMEMBERED_MAX`]; the oldest are forgotten.
#[derive(Debug, Default)]
struct Claims {
    taken: HashSet<(Arc<MailboxKey>, Claim)>,
    oldest_first: VecDeque<(Arc<MailboxKey>, Claim)>,
}

impl Claims {
    /// False when it was taken before.
    fn take(&mut self, mailbox: &Arc<MailboxKey>, claim: Claim) -> bool {
        let claim = (Arc::clone(mailbox), claim);
        if !self.taken.insert(claim.clone()) {
            return false;
        }
        self.oldest_first.push_back(claim);
        if self.oldest_first.len() > CLAIMS_REMEMBERED_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.taken.remove(&oldest);
        }
        true
    }
}

/// Many times what one process is asked in the seconds within which the same mail may be claimed again.
const CLAIMS_REMEMBERED_MAX: usize = 65_536;

impl MemoryMailboxes {
    /// Empty.
    pub fn new(limits: MailboxLimits) -> MemoryMailboxes {
        MemoryMailboxes {
            mailboxes: HashMap::new(),
            limits,
            last_position: 0,
            claims: Claims::default(),
            counts: MailboxCounts::default(),
        }
    }

    /// Keeps mail behind what is there, unless its claim was taken before.
    pub fn append(&mut self, mailbox: Arc<MailboxKey>, mail: Vec<Mail>, claim: Option<Claim>) -> Appended {
        let before = self.mailboxes.get(&mailbox).and_then(|entries| entries.back()).map(|entry| entry.position);
        if claim.is_some_and(|claim| !self.claims.take(&mailbox, claim)) {
            return Appended { positions: Vec::new(), before, dropped: 0 };
        }
        if mail.is_empty() {
            // An empty mailbox takes no room.
            return Appended { positions: Vec::new(), before, dropped: 0 };
        }
        let entries = self.mailboxes.entry(mailbox).or_default();
        let was_empty = entries.is_empty();
        let mut positions = Vec::with_capacity(mail.len());
        for mail in mail {
            self.last_position += 1;
            let position = Position(self.last_position, 0);
            positions.push(position);
            self.counts.bytes += bytes_of(&mail);
            entries.push_back(Entry::standing(position, mail));
        }
        let dropped = entries.len().saturating_sub(self.limits.entries_max.max(1));
        self.counts.bytes -= entries.drain(..dropped).map(|entry| bytes_of(&entry.mail)).sum::<u64>();
        self.counts.mailboxes += u64::from(was_empty && !entries.is_empty());
        self.counts.enqueued += positions.len() as u64;
        self.counts.dropped += dropped as u64;
        self.counts.entries = self.counts.entries + positions.len() as u64 - dropped as u64;
        Appended { positions, before, dropped: dropped as u64 }
    }

    /// The oldest entries behind a position, and where to go on unless that was the end. Reading begins a delivery.
    pub fn read(
        &mut self,
        mailbox: &MailboxKey,
        after: Option<Position>,
        entries_max: usize,
        unix_ns: u64,
    ) -> (Vec<Entry>, Option<Position>) {
        self.expire_one(mailbox, unix_ns);
        let Some(kept) = self.mailboxes.get_mut(mailbox) else { return (Vec::new(), None) };
        let start = after.map_or(0, |after| kept.partition_point(|entry| entry.position <= after));
        let end = kept.len().min(start + entries_max);
        for entry in kept.range_mut(start..end) {
            entry.mail.attempts += 1;
        }
        let entries: Vec<Entry> = kept.range(start..end).cloned().collect();
        let next = entries.last().map(|entry| entry.position).filter(|_| end < kept.len());
        (entries, next)
    }

    /// A delivery of these begins.
    pub fn begin(&mut self, mailbox: &MailboxKey, positions: &[Position]) {
        let entries = self.mailboxes.get_mut(mailbox).into_iter().flatten();
        for entry in entries.filter(|entry| positions.contains(&entry.position)) {
            entry.mail.attempts = entry.mail.attempts.saturating_add(1);
        }
    }

    /// Forgets entries.
    pub fn remove(&mut self, mailbox: &MailboxKey, positions: &[Position]) {
        self.retain(mailbox, |entry| !positions.contains(&entry.position));
    }

    /// Drops what has expired, everywhere; a mailbox whose user never returns must not be kept for ever.
    pub fn sweep(&mut self, unix_ns: u64) {
        let keys: Vec<_> = self.mailboxes.keys().cloned().collect();
        for mailbox in keys {
            self.expire_one(&mailbox, unix_ns);
        }
    }

    /// What happened so far.
    pub fn counts(&self) -> MailboxCounts {
        self.counts
    }

    fn expire_one(&mut self, mailbox: &MailboxKey, unix_ns: u64) {
        let gone = self.retain(mailbox, |entry| entry.mail.expires_at_unix_ns > unix_ns);
        self.counts.expired += gone;
    }

    fn retain(&mut self, mailbox: &MailboxKey, mut keep: impl FnMut(&Entry) -> bool) -> u64 {
        let Some(entries) = self.mailboxes.get_mut(mailbox) else { return 0 };
        let (before, mut bytes) = (entries.len(), 0);
        entries.retain(|entry| {
            let keeps = keep(entry);
            bytes += if keeps { 0 } else { bytes_of(&entry.mail) };
            keeps
        });
        self.counts.bytes -= bytes;
        let gone = (before - entries.len()) as u64;
        if entries.is_empty() {
            self.mailboxes.remove(mailbox);
            self.counts.mailboxes -= 1;
        }
        self.counts.entries -= gone;
        gone
    }
}

fn bytes_of(mail: &Mail) -> u64 {
    (mail.event.len() + size_of::<Entry>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::{NotificationId, TenantId, uuid_v7};
    use protocol::stream::StreamSeq;

    fn key(user: &str) -> Arc<MailboxKey> {
        Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: user.into() })
    }

    fn mail(n: u64, expires_at_unix_ns: u64) -> Mail {
        let id = NotificationId(uuid_v7(n, [0; 10]));
        Mail {
            id,
            event: Arc::from(n.to_string().as_bytes()),
            queued_at_unix_ns: n,
            expires_at_unix_ns,
            attempts: 0,
            stream: StreamSeq::default(),
        }
    }

    fn texts(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.mail.event).into_owned()).collect()
    }

    #[test]
    fn a_full_mailbox_lets_its_oldest_go() {
        let mut mailboxes = MemoryMailboxes::new(MailboxLimits { entries_max: 3 });
        let appended = mailboxes.append(key("ana"), (1..=5).map(|n| mail(n, 100)).collect(), None);
        assert_eq!((appended.positions.len(), appended.before, appended.dropped), (5, None, 2));
        let next = mailboxes.append(key("ana"), vec![mail(6, 100)], None);
        assert_eq!(next.before, appended.positions.last().copied());
        assert_eq!(texts(&mailboxes.read(&key("ana"), None, 10, 0).0), ["4", "5", "6"]);
        assert_eq!(mailboxes.counts().entries, 3);
    }

    #[test]
    fn pages_follow_each_other_and_say_when_they_end() {
        let mut mailboxes = MemoryMailboxes::new(MailboxLimits { entries_max: 10 });
        mailboxes.append(key("ana"), (1..=5).map(|n| mail(n, 100)).collect(), None);
        let (first, next) = mailboxes.read(&key("ana"), None, 2, 0);
        assert_eq!((texts(&first), next), (vec!["1".into(), "2".into()], Some(first[1].position)));
        let (rest, next) = mailboxes.read(&key("ana"), next, 9, 0);
        assert_eq!((texts(&rest), next), (vec!["3".into(), "4".into(), "5".into()], None));
        let again = mailboxes.read(&key("ana"), None, 1, 0).0;
        assert_eq!(again[0].mail.attempts, 2, "the second reading begins a second delivery");
    }

    #[test]
    fn a_claim_is_taken_once_for_a_mailbox_and_remembered_for_a_while() {
        let mut mailboxes = MemoryMailboxes::new(MailboxLimits { entries_max: 10 });
        let claim = |hash| Some(Claim::new(hash, 0));
        let mut kept = |user, hash| mailboxes.append(key(user), vec![mail(1, 100)], claim(hash)).positions.len();
        assert_eq!([kept("ana", 0), kept("ana", 0), kept("bo", 0), kept("ana", 1)], [1, 0, 1, 1]);
        for hash in 2..CLAIMS_REMEMBERED_MAX as u128 {
            kept("ana", hash);
        }
        assert_eq!([kept("bo", 0), kept("ana", 0)], [0, 1], "the oldest is forgotten");
        assert_eq!(mailboxes.claims.taken.len(), CLAIMS_REMEMBERED_MAX);
    }

    #[test]
    fn what_is_removed_or_expired_is_gone_and_an_empty_mailbox_takes_no_room() {
        let mut mailboxes = MemoryMailboxes::new(MailboxLimits { entries_max: 10 });
        let mail = vec![mail(1, 100), mail(2, 50), mail(3, 100)];
        let positions = mailboxes.append(key("ana"), mail, None).positions;
        mailboxes.remove(&key("ana"), &positions[..1]);
        mailboxes.sweep(60);
        assert_eq!(texts(&mailboxes.read(&key("ana"), None, 9, 60).0), ["3"]);
        mailboxes.remove(&key("ana"), &positions);
        assert_eq!(mailboxes.append(key("bob"), Vec::new(), None).positions, []);
        mailboxes.remove(&key("bob"), &positions);
        let counts = mailboxes.counts();
        assert_eq!((counts.entries, counts.mailboxes, counts.expired, counts.enqueued), (0, 0, 1, 3));
        assert_eq!((counts.bytes, mailboxes.mailboxes.len()), (0, 0));
    }
}
