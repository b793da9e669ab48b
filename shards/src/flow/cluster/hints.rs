//! Mail that is kept where every node finds it: whoever keeps an entry tells the user's other nodes in a *hint* which it is,
//! where it stands, and which entry stood before it.
//!
//! The mailbox is the order. All connections of a user here that are up to date have everything up to the same entry
//! (`UserMail::youngest`). What comes next, kept here or hinted at, is
//!
//! * **passed over**, if it stands there or before;
//! * **delivered**, if nothing stands between;
//! * **read**, if something does: whoever is up to date falls behind, and reads from there on.
//!
//! Who reads is up to date when the page that ends was asked for after the youngest entry that was heard of. A hint that is
//! lost is found with the next one, and all that a broken link may have lost by reading once when it is back: as long as it
//! stands there, or lingers (see `catch_up`).
use crate::conn::live::Intake;
use crate::conn::outbox::{Delivery, MailTag};
use crate::effect::{Effect, Effects};
use crate::key::ConnKey;
use crate::mesh::message::{Message, ReplyTo};
use crate::shard::Shard;
use crate::tables::mail::{Asked, Note, Wait};
use protocol::clock::Now;
use protocol::cluster::wire::{ParcelKind, Published};
use protocol::cluster::{GatherTicket, Topic};
use protocol::frame::Frame;
use protocol::notification::{Publication, Target};
use protocol::store::{Mail, MailboxKey, Position};
use protocol::stream::Places;
use std::rc::Rc;
use std::sync::Arc;

/// An entry of a mailbox, as whoever kept it tells of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) position: Position,
    /// What stood before it.
    pub(super) before: Option<Position>,
    /// It may have been heard already, when another kept it.
    pub(super) may_repeat: bool,
}

/// What became of an entry at a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Delivered(u64),
    PassedOver,
    Behind,
}

impl Shard {
    // --- What this node keeps ----------------------------------------------------------------------------------------

    /// Mail is kept: it is delivered here, and every other node of its user hears of it.
    #[expect(clippy::too_many_arguments, reason = "one answer, spelled out")]
    pub(crate) fn appended_for_all(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        mail: &[Mail],
        deliveries: &[Rc<Delivery>],
        positions: &[Position],
        mut before: Option<Position>,
        job: Option<u64>,
        may_repeat: bool,
        effects: &mut Effects,
    ) {
        let reply =
            job.and_then(|job| self.mailroom.jobs.get(&job)).and_then(|job| job.reply).filter(|_| !self.is_alone());
        let mut took = 0;
        for ((mail, delivery), position) in mail.iter().zip(deliveries).zip(positions) {
            let kept = Kept { position: *position, before, may_repeat };
            if let Taken::Delivered(connections @ 1..) = self.take_kept(now, key, delivery, kept, effects) {
                took += connections;
                if mail.attempts == 0 {
                    self.note_begun(key, *position);
                }
            }
            self.send_hint(now, key, delivery, kept, reply, effects);
            before = Some(*position);
        }
        self.read_on_all(now, key, effects);
        let queued = positions.len() as u64;
        self.job_kept(now, job, took, queued, effects);
    }

    fn send_hint(
        &mut self,
        now: Now,
        key: &MailboxKey,
        delivery: &Delivery,
        kept: Kept,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        let ticket = reply.map(|ReplyTo { shard, gather }| GatherTicket {
            shard: shard.0,
            slot: gather.slot,
            generation: gather.generation,
        });
        match reply {
            Some(reply) if reply.shard == self.me => self.expect_parcels(reply.gather, 1),
            Some(reply) => {
                let message = Message::Expect { gather: reply.gather, parts: 0, parcels: 1 };
                effects.push(Effect::Send { to: reply.shard, message });
            }
            None => {}
        }
        let published = Published::of(&delivery.publication, delivery.places.one(), ticket, now);
        let Kept { position, before, may_repeat } = kept;
        let attempt = 1 + u32::from(may_repeat);
        let kind = ParcelKind::Hint { user: key.user.clone(), published, position, before, attempt };
        self.send_parcel_to(Topic::User(key.tenant.clone(), key.user.clone()), None, kind, effects);
    }

    // --- What another node keeps -------------------------------------------------------------------------------------

    /// Another node has kept mail for a user; how many connections took it.
    pub(super) fn hinted(
        &mut self,
        now: Now,
        user: Box<str>,
        published: Published,
        kept: Kept,
        effects: &mut Effects,
    ) -> u64 {
        let key = Arc::new(MailboxKey { tenant: published.tenant.clone(), user: user.clone() });
        if self.config.queue.is_none() || !self.shares_mail() || self.user_mail(&key).is_none() {
            return 0;
        }
        let places = Places::One(published.stream);
        let publication = Arc::new(published.into_publication(Target::User(user), None, now));
        let delivery = Delivery::new(publication, places, None);
        let taken = self.take_kept(now, &key, &delivery, kept, effects);
        if matches!(taken, Taken::Delivered(1..)) {
            self.note_begun(&key, kept.position);
        }
        self.note_deliveries(effects);
        let metrics = self.metrics();
        match taken {
            Taken::Delivered(_) => metrics.hints_taken.add(1),
            Taken::PassedOver => metrics.hints_passed_over.add(1),
            Taken::Behind => metrics.hints_behind.add(1),
        }
        match taken {
            Taken::Delivered(connections) => connections,
            Taken::PassedOver | Taken::Behind => 0,
        }
    }

    // --- Both --------------------------------------------------------------------------------------------------------

    fn take_kept(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        delivery: &Delivery,
        kept: Kept,
        effects: &mut Effects,
    ) -> Taken {
        let Kept { position, before, may_repeat } = kept;
        let Some(mail) = self.user_mail(key) else { return Taken::PassedOver };
        mail.heard_of = mail.heard_of.max(Some(position));
        let has = mail.youngest;
        let (current, _) = self.connections_of_mailbox(key);
        if has >= Some(position) || current.is_empty() {
            return Taken::PassedOver;
        }
        if before > has {
            self.read_from(now, current, has, effects);
            return Taken::Behind;
        }
        let places = delivery.places.clone();
        let publication = match may_repeat {
            true => Arc::new(again(&delivery.publication)),
            false => Arc::clone(&delivery.publication),
        };
        let kept = Rc::new(Delivery::new(publication, places, Some(Box::new(MailTag::kept_at(position)))));
        let mut took = 0;
        for connection in current {
            if self.push_mail(now, connection, &kept) {
                took += 1;
                self.track(now, connection, kept.publication.id, Some(position));
            } else {
                self.fall_behind(now, connection, effects);
            }
        }
        if let Some(mail) = self.user_mail(key) {
            mail.youngest = Some(position);
        }
        Taken::Delivered(took)
    }

    /// The store does not know that it is delivered. It stays until it is acknowledged: whoever reads it by then, on whatever node,
    /// is to say that it comes again. What only has to be written is gone in a moment.
    fn note_begun(&mut self, key: &Arc<MailboxKey>, position: Position) {
        if self.config.ack.is_some() {
            self.add_note(Note::Begun(Arc::clone(key), position));
        }
    }

    /// These read what stands behind an entry that they have.
    pub(super) fn read_from(&mut self, now: Now, keys: Vec<ConnKey>, after: Option<Position>, effects: &mut Effects) {
        for key in keys {
            if let Some(live) = self.live_mut(key) {
                live.intake = Intake::behind(after);
            }
            self.read_on(now, key, effects);
        }
    }

    /// A connection has read a page, up to `after`. Whether it is up to date now, and up to where: at the end of the mailbox,
    /// unless something was heard of since that was asked for. What it has and others that are up to date have not they read.
    pub(crate) fn has_all(
        &mut self,
        now: Now,
        key: ConnKey,
        is_end: bool,
        after: Option<Position>,
        asked: Asked,
        effects: &mut Effects,
    ) -> (bool, Option<Position>) {
        let Some(user) = self.live(key).map(|live| live.user) else { return (false, after) };
        let Some(mail) = self.users.get_mut(user).and_then(|user| user.mail.as_mut()) else { return (false, after) };
        if !is_end {
            return (false, after);
        }
        let has = after.max(asked.heard_of);
        if asked.is_stale || mail.heard_of > has {
            return (false, has);
        }
        let others_have = mail.youngest;
        if has > others_have {
            mail.youngest = has;
            let mailbox = Arc::clone(&mail.key);
            let (current, _) = self.connections_of_mailbox(&mailbox);
            self.read_from(now, current, others_have, effects);
        }
        (true, has)
    }

    /// Something may have been missed: every connection with mail reads once, as many at a time as the store is asked for.
    pub(super) fn read_all_again(&mut self, now: Now, effects: &mut Effects) {
        if self.config.queue.is_none() || !self.shares_mail() {
            return;
        }
        for wait in self.mailroom.waits.values_mut() {
            if let Wait::Read { asked, .. } = wait {
                asked.is_stale = true;
            }
        }
        for key in self.connections.keys() {
            let Some(live) = self.live(key).filter(|live| live.intake == Intake::UpToDate) else { continue };
            let Some(mail) = self.users.get(live.user).and_then(|user| user.mail.as_ref()) else { continue };
            let youngest = mail.youngest;
            self.read_from(now, vec![key], youngest, effects);
        }
    }
}

/// The same publication, as one that was delivered before.
fn again(publication: &Publication) -> Publication {
    let Publication { id, tenant, target, audience, priority, expires_at_us, accepted_at_us, frame } = publication;
    Publication {
        id: *id,
        tenant: tenant.clone(),
        target: target.clone(),
        audience: audience.clone(),
        priority: *priority,
        expires_at_us: *expires_at_us,
        accepted_at_us: *accepted_at_us,
        frame: Frame::replay(*id, &frame.event(), 2),
    }
}
