//! User mail that every node reads from Redis, and one keeps. The node that all would name asks the store at once and says so;
//! the others ask when it does not. The store takes the claim once, so nobody's death loses the mail, and no disagreement about
//! who is alive keeps it twice. Each node asks in the order in which it has read, and one that has not read for long lets those
//! ask first who hold what it has missed: so mailboxes have the order of Redis.
use crate::conn::outbox::Delivery;
use crate::effect::Effects;
use crate::flow::deliver::users_here;
use crate::shard::Shard;
use crate::tables::claims::{ClaimedMail, Readers, Turn};
use crate::tables::retries::Retry;
use crate::tables::streams::StreamKind;
use protocol::clock::Now;
use protocol::cluster::wire::{Claim, ParcelKind};
use protocol::limits;
use protocol::notification::Publication;
use protocol::store::{Mail, MailboxKey, Position};
use protocol::stream::Places;
use std::rc::Rc;
use std::sync::Arc;

/// How many deliveries have begun of what may have been heard when another node kept it: one by that node, and one that whoever was
/// here takes for its own.
const BEGUN_BEFORE: u32 = 2;

impl Shard {
    /// At the home of the users: mail that every node has.
    pub(crate) fn keep_claimed(
        &mut self,
        now: Now,
        publication: &Arc<Publication>,
        users: Option<&[u32]>,
        claim: Claim,
        effects: &mut Effects,
    ) {
        for name in users_here(publication, users) {
            self.keep_claimed_of(now, publication, name, claim, effects);
        }
        self.claims_due(now, effects);
    }

    fn keep_claimed_of(
        &mut self,
        now: Now,
        publication: &Arc<Publication>,
        name: &str,
        claim: Claim,
        effects: &mut Effects,
    ) {
        let key = self.mailbox_of(publication, name);
        let claim = claim_of_mailbox(claim, &key);
        if self.claims.is_stored(claim) {
            return self.metrics().claims_stored_elsewhere.add(1);
        }
        let place = self.streams.next(now, StreamKind::User, &publication.tenant, name);
        let (current, _) = self.connections_of_mailbox(&key);
        let mail = self.mail(now, publication, place, u32::from(!current.is_empty()));
        let delivery = Rc::new(Delivery::new(Arc::clone(publication), Places::One(place), None));
        let is_named = self.rendezvous.names(now, &self.config.server_id, claim.reads_since_us, &key);
        let mail = Box::new(ClaimedMail { claim, key, mail, delivery, read_ms: now.mono_ms(), has_failed: false });
        if let Err(mail) = self.claims.wait(mail, is_named) {
            let is_room = self
                .claims
                .next_early(now.mono_ms())
                .map(|(turn, oldest)| self.claim(turn, *oldest, effects))
                .is_some();
            if !is_room || self.claims.wait(mail, is_named).is_err() {
                self.metrics().queue_refused.add(1);
            }
        }
    }

    fn claim(&mut self, turn: Turn, mail: ClaimedMail, effects: &mut Effects) {
        let ClaimedMail { key, mut mail, delivery, .. } = mail;
        if turn.may_repeat {
            mail.attempts += BEGUN_BEFORE;
        }
        let what = Retry { key, mail: vec![mail], deliveries: vec![delivery] };
        self.ask_append(what, None, false, Some(turn), effects);
    }

    /// The store has taken a claim; or had taken it before, if it is not ours, and this entry is the last that stands there or lingers.
    pub(crate) fn claimed(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        turn: Turn,
        is_ours: bool,
        last: Option<Position>,
        effects: &mut Effects,
    ) {
        self.claims.succeeded(now.mono_ms(), key, turn);
        self.claims_due(now, effects);
        if is_ours {
            self.metrics().claims_stored.add(1);
            return self.claims.to_tell.push(turn.claim);
        }
        self.metrics().claims_stored_elsewhere.add(1);
        // Whoever kept it tells of it, unless it died before.
        if let Some(last) = last
            && !self.unheard.wait(now.mono_ms(), key, last)
        {
            self.read_if_behind(now, key, last, effects);
        }
    }

    /// What another node has kept and not told of in time.
    pub(crate) fn read_unheard(&mut self, now: Now, effects: &mut Effects) {
        while let Some((key, last)) = self.unheard.take_due(now.mono_ms()) {
            self.read_if_behind(now, &key, last, effects);
        }
    }

    fn read_if_behind(&mut self, now: Now, key: &Arc<MailboxKey>, last: Position, effects: &mut Effects) {
        let youngest = self.user_mail(key).and_then(|mail| mail.youngest);
        if youngest < Some(last) {
            let (current, _) = self.connections_of_mailbox(key);
            self.read_from(now, current, youngest, effects);
        }
    }

    /// The store did not do it, or nobody knows.
    pub(crate) fn claim_failed(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        mail: Vec<Mail>,
        deliveries: Vec<Rc<Delivery>>,
        turn: Turn,
        effects: &mut Effects,
    ) {
        for (mut mail, delivery) in mail.into_iter().zip(deliveries) {
            mail.attempts = mail.attempts.saturating_sub(if turn.may_repeat { BEGUN_BEFORE } else { 0 });
            if self.claims.failed(now.mono_ms(), key, mail, delivery, turn) {
                self.metrics().claims_stored_elsewhere.add(1);
            }
        }
        self.claims_due(now, effects);
    }

    /// Asks the store for everything whose turn it is.
    pub(crate) fn claims_due(&mut self, now: Now, effects: &mut Effects) {
        while let Some((turn, mail)) = self.claims.next(now.mono_ms()) {
            self.claim(turn, *mail, effects);
        }
        self.metrics().claims_waiting.set(self.claims.len() as i64);
    }

    /// Other nodes are there than before, or they have read for longer: this one may be named in place of another.
    pub(super) fn meet_readers(&mut self, now: Now, reads_since_us: Option<u64>, effects: &mut Effects) {
        let own = &*self.config.server_id;
        let (rendezvous, since_us) = (&self.rendezvous, reads_since_us.unwrap_or(u64::MAX));
        let readers = Readers { own_since_us: reads_since_us, others_since_us: rendezvous.others_since_us() };
        self.claims.name(now.mono_ms(), readers, |key| rendezvous.names(now, own, since_us, key));
        self.claims_due(now, effects);
    }

    /// The node stops: it waits for nobody's word.
    pub(crate) fn claim_all(&mut self, now: Now, effects: &mut Effects) {
        self.claims.hurry();
        self.claims_due(now, effects);
    }

    /// What was kept in this turn the others need not keep.
    pub(crate) fn tell_stored(&mut self, effects: &mut Effects) {
        for claims in std::mem::take(&mut self.claims.to_tell).chunks(limits::CLUSTER_CLAIMS_MAX) {
            self.send_parcel(None, ParcelKind::Stored(claims.to_vec()), effects);
        }
    }

    /// Another node has kept these.
    pub(super) fn stored_elsewhere(&mut self, now: Now, claims: &[Claim], effects: &mut Effects) {
        let waited = claims.iter().filter(|claim| self.claims.stored(**claim)).count();
        self.metrics().claims_stored_elsewhere.add(waited as u64);
        self.claims_due(now, effects);
    }
}

/// A message for several users is kept in several mailboxes, each by its own claim.
fn claim_of_mailbox(claim: Claim, key: &MailboxKey) -> Claim {
    let name = format!("{}:{}", key.tenant.as_str(), key.user);
    Claim { hash: Claim::of(&claim.hash.to_le_bytes(), name.as_bytes(), claim.nth).hash, ..claim }
}
