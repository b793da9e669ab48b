//! User mail that every node reads from Redis, and one keeps. The node that all would name asks the store at once and says so;
//! the others ask when it does not. The store takes the claim once, so nobody's death loses the mail, and no disagreement about
//! who is alive keeps it twice.
use crate::conn::outbox::Delivery;
use crate::effect::Effects;
use crate::flow::deliver::users_here;
use crate::shard::Shard;
use crate::tables::claims::ClaimedMail;
use crate::tables::retries::Retry;
use crate::tables::streams::StreamKind;
use foldhash::fast::FixedState;
use protocol::clock::Now;
use protocol::cluster::wire::{Claim, ParcelKind};
use protocol::limits;
use protocol::notification::Publication;
use protocol::store::{Mail, MailboxKey};
use protocol::stream::Places;
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;

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
        self.metrics().claims_waiting.set(self.claims.len() as i64);
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
        let delivery = Delivery::new(Arc::clone(publication), Places::One(place), None);
        // What waits for this mailbox is older: the store has failed it, and is asked again before anything newer.
        let is_named = self.is_named(&key) && !self.claims.holds(&key);
        let mail = Box::new(ClaimedMail { claim, key, mail, delivery: Rc::new(delivery) });
        if is_named {
            self.claim(*mail, effects);
        } else if let Err(mail) = self.claims.wait(now.mono_ms(), mail) {
            self.claim(*mail, effects);
        }
    }

    /// Whether this node is the one that all who know the same members name for a mailbox: one node appends what Redis says to
    /// a user, in Redis's order. One that knows of nobody names itself.
    fn is_named(&self, key: &MailboxKey) -> bool {
        let mailbox = (key.tenant.as_str(), &*key.user);
        let weight = |server_id: &str| FixedState::with_seed(0x636c_6169).hash_one((mailbox, server_id));
        let ours = (weight(&self.config.server_id), &*self.config.server_id);
        self.members.iter().all(|hello| (weight(&hello.server_id), &*hello.server_id) <= ours)
    }

    fn claim(&mut self, mail: ClaimedMail, effects: &mut Effects) {
        let ClaimedMail { claim, key, mail, delivery } = mail;
        let what = Retry { key, mail: vec![mail], deliveries: vec![delivery] };
        self.ask_append(what, None, false, Some(claim), effects);
    }

    /// The store has taken a claim, or had taken it before: then nobody may have told so, and who is connected here reads.
    pub(crate) fn claimed(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        claim: Option<Claim>,
        is_ours: bool,
        effects: &mut Effects,
    ) {
        let Some(claim) = claim else { return };
        self.claim_rest(key, effects);
        if is_ours {
            self.metrics().claims_stored.add(1);
            return self.claims.to_tell.push(claim);
        }
        self.metrics().claims_stored_elsewhere.add(1);
        let youngest = self.user_mail(key).and_then(|mail| mail.youngest);
        let (current, _) = self.connections_of_mailbox(key);
        self.read_from(now, current, youngest, effects);
    }

    /// The store keeps what is for this mailbox: here, where it is this node's to ask, nothing need wait any longer.
    fn claim_rest(&mut self, key: &Arc<MailboxKey>, effects: &mut Effects) {
        if self.claims.holds(key) && self.is_named(key) {
            for mail in self.claims.take_of(key) {
                self.claim(*mail, effects);
            }
            self.metrics().claims_waiting.set(self.claims.len() as i64);
        }
    }

    /// The store did not do it, or nobody knows: the claim makes it safe to ask again.
    pub(crate) fn claim_again(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        mail: Vec<Mail>,
        deliveries: Vec<Rc<Delivery>>,
        claim: Claim,
    ) {
        for (mail, delivery) in mail.into_iter().zip(deliveries) {
            let mail = Box::new(ClaimedMail { claim, key: Arc::clone(key), mail, delivery });
            if self.claims.wait(now.mono_ms(), mail).is_err() {
                self.metrics().queue_refused.add(1);
            }
        }
        self.metrics().claims_waiting.set(self.claims.len() as i64);
    }

    /// Nobody has said in time that it is kept.
    pub(crate) fn claims_due(&mut self, now: Now, effects: &mut Effects) {
        while let Some(mail) = self.claims.take_due(now.mono_ms()) {
            self.claim(*mail, effects);
            self.metrics().claims_waiting.set(self.claims.len() as i64);
        }
    }

    /// The node stops, or another is gone whose word was waited for: what waits is asked for before anything newer.
    pub(crate) fn claim_all(&mut self, effects: &mut Effects) {
        while let Some(mail) = self.claims.take_due(u64::MAX) {
            self.claim(*mail, effects);
        }
        self.metrics().claims_waiting.set(self.claims.len() as i64);
    }

    /// What was kept in this turn the others need not keep.
    pub(crate) fn tell_stored(&mut self, effects: &mut Effects) {
        for claims in std::mem::take(&mut self.claims.to_tell).chunks(limits::CLUSTER_CLAIMS_MAX) {
            self.send_parcel(None, ParcelKind::Stored(claims.to_vec()), effects);
        }
    }

    /// Another node has kept these.
    pub(super) fn stored_elsewhere(&mut self, claims: &[Claim], effects: &mut Effects) {
        for claim in claims {
            if let Some(key) = self.claims.stored(*claim) {
                self.metrics().claims_stored_elsewhere.add(1);
                self.claim_rest(&key, effects);
            }
        }
        self.metrics().claims_waiting.set(self.claims.len() as i64);
    }
}

/// A message for several users is kept in several mailboxes, each by its own claim.
fn claim_of_mailbox(claim: Claim, key: &MailboxKey) -> Claim {
    let name = format!("{}:{}", key.tenant.as_str(), key.user);
    Claim { after_us: claim.after_us, ..Claim::of(&claim.hash.to_le_bytes(), name.as_bytes(), claim.nth) }
}
