//! User mail that must not be lost (design: delivery classes).
//!
//! | queue | ack | promise |
//! |---|---|---|
//! | off | any | live only: see `deliver` |
//! | on | off | **kept until written**: what no socket took goes into the mailbox |
//! | on | on | **kept until acknowledged**: into the mailbox first, delivered when that is confirmed |
//!
//! A connection is *up to date* or *behind*. It begins behind, reads its user's mailbox page by page, and is up to date when a
//! reading finds the end: the store answers about one mailbox in the order it was asked, so nothing can lie between the end
//! that was read and what is delivered next. A connection whose outbox is full falls behind again.
//!
//! Where other nodes write to the same mailboxes both classes keep first, and this order is not enough: see `cluster/hints`.
use crate::conn::live::Intake;
use crate::conn::outbox::{Delivery, MailTag};
use crate::effect::{Effect, Effects};
use crate::flow::deliver::{Overflow, users_here};
use crate::key::ConnKey;
use crate::mesh::message::ReplyTo;
use crate::shard::Shard;
use crate::tables::claims::Turn;
use crate::tables::mail::{Job, UserMail, Wait};
use crate::tables::retries::Retry;
use crate::tables::streams::StreamKind;
use protocol::clock::Now;
use protocol::ids::NotificationId;
use protocol::limits;
use protocol::notification::Publication;
use protocol::publish::receipt::Receipt;
use protocol::store::{Mail, MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use protocol::stream::{Places, StreamSeq};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Why mail is taken out of an outbox again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutBack {
    /// The outbox is full; the connection will read the mailbox.
    Behind,
    /// The connection ends, what has begun to go out still goes. What somebody else took, or will, is not kept.
    Leaving,
    /// The connection is gone, with what had begun. As [`PutBack::Leaving`] otherwise.
    Gone,
}

impl Shard {
    // --- In ----------------------------------------------------------------------------------------------------------

    /// Mail for one user or several: kept as the class promises, delivered, counted.
    pub(crate) fn keep_mail(
        &mut self,
        now: Now,
        publication: &Arc<Publication>,
        users: Option<&[u32]>,
        is_ours: bool,
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        let job = self.mailroom.next_number();
        self.mailroom.jobs.insert(job, Job { reply, tally: Receipt::default(), missing: 1 });
        for name in users_here(publication, users) {
            self.keep_mail_of(now, publication, name, is_ours, job, effects);
        }
        self.job_progressed(now, job, |_| {}, effects);
    }

    fn keep_mail_of(
        &mut self,
        now: Now,
        publication: &Arc<Publication>,
        name: &str,
        is_ours: bool,
        job: u64,
        effects: &mut Effects,
    ) {
        let key = self.mailbox_of(publication, name);
        // Mailboxes that are not shared: the node that took it keeps it for whoever is nowhere.
        if !is_ours && self.user_mail(&key).is_none() {
            return;
        }
        let place = self.streams.next(now, StreamKind::User, &publication.tenant, name);
        let places = Places::One(place);
        let (current, behind) = self.connections_of_mailbox(&key);
        if self.keeps_first() {
            let delivery = Rc::new(Delivery::new(Arc::clone(publication), places, None));
            let mail = self.mail(now, publication, place, u32::from(!current.is_empty()));
            return self.append(now, key, vec![mail], vec![delivery], Some(job), effects);
        }
        let mail = Some(Box::default());
        let delivery = Rc::new(Delivery::new(Arc::clone(publication), places, mail));
        let mut took = 0;
        let mut missed = !behind.is_empty() || self.mailroom.retries.holds(&key);
        for connection in current {
            if self.push_mail(now, connection, &delivery) {
                took += 1;
            } else {
                missed = true;
                self.fall_behind(now, connection, effects);
            }
        }
        if took == 0 || missed {
            if let Some(tag) = &delivery.mail {
                tag.kept.set(true);
            }
            let mail = self.mail(now, publication, place, u32::from(took > 0));
            self.append(now, key, vec![mail], Vec::new(), Some(job), effects);
        }
        if let Some(job) = self.mailroom.jobs.get_mut(&job) {
            job.tally.delivered_to += took;
        }
    }

    /// The key of a user's mailbox; the one that the user's connections share, if there are any.
    pub(crate) fn mailbox_of(&self, publication: &Publication, name: &str) -> Arc<MailboxKey> {
        let found = self.tenants.find(publication.tenant.as_str()).and_then(|tenant| self.users.find(tenant, name));
        match found.and_then(|at| self.users.get(at)).and_then(|user| user.mail.as_ref()) {
            Some(mail) => Arc::clone(&mail.key),
            None => Arc::new(MailboxKey { tenant: publication.tenant.clone(), user: name.into() }),
        }
    }

    /// A user's connections: those that are up to date, and those that are behind.
    pub(crate) fn connections_of_mailbox(&self, key: &MailboxKey) -> (Vec<ConnKey>, Vec<ConnKey>) {
        let found = self.tenants.find(key.tenant.as_str()).and_then(|tenant| self.users.find(tenant, &key.user));
        let slots = found.and_then(|at| self.users.get(at)).map_or(&[][..], |user| &user.connections);
        let keys = slots.iter().filter_map(|slot| self.connections.key_at(*slot));
        keys.partition(|key| self.live(*key).is_some_and(|live| matches!(live.intake, Intake::UpToDate)))
    }

    /// Whether mail is delivered when it is known to be kept, and not before: while it is to be acknowledged, and where other
    /// nodes hear of it.
    pub(crate) fn keeps_first(&self) -> bool {
        self.config.ack.is_some() || self.shares_mail()
    }

    pub(crate) fn mail(&self, now: Now, publication: &Publication, stream: StreamSeq, attempts: u32) -> Mail {
        let ttl_ns = self.config.queue.map_or(0, |queue| queue.ttl_ms.saturating_mul(1_000_000));
        let own_ns = publication.expires_at_us.map(|at_us| at_us.saturating_sub(now.mono_us).saturating_mul(1_000));
        Mail {
            id: publication.id,
            event: publication.frame.event().into(),
            queued_at_unix_ns: now.unix_ns,
            expires_at_unix_ns: now.unix_ns.saturating_add(own_ns.map_or(ttl_ns, |own_ns| own_ns.min(ttl_ns))),
            attempts,
            stream,
        }
    }

    fn append(
        &mut self,
        now: Now,
        key: Arc<MailboxKey>,
        mail: Vec<Mail>,
        deliveries: Vec<Rc<Delivery>>,
        job: Option<u64>,
        effects: &mut Effects,
    ) {
        if let Some(job) = job.and_then(|job| self.mailroom.jobs.get_mut(&job)) {
            job.missing += 1;
        }
        // What waits to be tried again for this mailbox is older.
        if self.mailroom.retries.holds(&key) {
            return self.append_failed(now, Retry { key, mail, deliveries }, job, effects);
        }
        self.ask_append(Retry { key, mail, deliveries }, job, false, None, effects);
    }

    pub(crate) fn ask_append(
        &mut self,
        what: Retry,
        job: Option<u64>,
        is_retry: bool,
        turn: Option<Turn>,
        effects: &mut Effects,
    ) {
        let Retry { key, mail, deliveries } = what;
        let stay = self.user_mail(&key).map(|mail| {
            mail.appending += 1;
            mail.stay
        });
        let ticket = self.mailroom.next_number();
        let claim = turn.map(|turn| turn.claim);
        let request = StoreRequest::AppendMail { mailbox: Arc::clone(&key), mail: mail.clone(), claim };
        self.mailroom.waits.insert(ticket, Wait::Append { key, mail, deliveries, job, stay, turn, is_retry });
        self.settle_congestion();
        effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
    }

    // --- The store's answers -----------------------------------------------------------------------------------------

    /// The store answers. False when the ticket is no mail's.
    pub(crate) fn mail_stored(
        &mut self,
        now: Now,
        ticket: StoreTicket,
        reply: StoreReply,
        effects: &mut Effects,
    ) -> Option<StoreReply> {
        let Some(wait) = self.mailroom.waits.remove(&ticket.0) else { return Some(reply) };
        self.settle_congestion();
        if let Wait::Append { key, stay: Some(stay), .. } = &wait
            && let Some(mail) = self.user_mail(key)
            && mail.stay == *stay
        {
            mail.appending -= 1;
        }
        match (wait, reply) {
            (
                Wait::Append { key, mail, deliveries, job, turn, is_retry, .. },
                StoreReply::Appended { positions, before, dropped },
            ) => {
                if is_retry {
                    self.mailroom.retry_pace.succeeded();
                    self.mailroom.retries.kept(&key, &mail);
                }
                self.metrics().queue_enqueued.add(positions.len() as u64);
                self.metrics().queue_dropped.add(dropped);
                self.place_begun(now, &key, &mail, &positions, effects);
                if self.shares_mail() {
                    let may_repeat = turn.is_some_and(|turn| turn.may_repeat);
                    self.appended_for_all(now, &key, &mail, &deliveries, &positions, before, job, may_repeat, effects);
                    if let Some(turn) = turn {
                        self.claimed(now, &key, turn, !positions.is_empty(), before, effects);
                    }
                } else {
                    self.appended(now, &key, &mail, &deliveries, &positions, job, effects);
                }
                self.retry_mail(now, effects);
            }
            (Wait::Append { key, mail, deliveries, turn: Some(turn), .. }, _) => {
                self.claim_failed(now, &key, mail, deliveries, turn, effects);
            }
            (Wait::Append { key, mut mail, deliveries, job, is_retry, .. }, reply) => {
                // Kept, perhaps: if it is tried again and then comes twice, the second says so.
                if matches!(reply, StoreReply::Unknown) {
                    mail.iter_mut().for_each(|mail| mail.attempts += 1);
                }
                let what = Retry { key: Arc::clone(&key), mail, deliveries };
                if is_retry {
                    self.mailroom.retry_pace.failed(now.mono_ms());
                    self.mailroom.retries.failed(what);
                    self.retry_mail(now, effects);
                } else {
                    self.append_failed(now, what, job, effects);
                    self.read_on_all(now, &key, effects);
                }
            }
            (Wait::Read { connection, asked }, StoreReply::Mail { entries, next }) => {
                self.mailroom.read_pace.succeeded();
                self.read(now, connection, &entries, next, asked, effects);
                self.read_in_turn(now, effects);
            }
            // The connection stays behind; its mailbox is read again when its turn comes.
            (Wait::Read { connection, .. }, _) => {
                self.mailroom.read_pace.failed(now.mono_ms());
                self.mailroom.readers.push_back(connection);
                self.read_in_turn(now, effects);
            }
            (Wait::Remove { key }, reply) => self.removed(now, &key, &reply, effects),
            (Wait::Note, reply) => self.ack_noted(&reply),
            (Wait::Verdict { connection, id }, reply) => self.ack_decided(now, connection, id, &reply),
        }
        self.note_deliveries(effects);
        None
    }

    /// Mail that was kept while a part of it was out already: now it is known where it stands, and forgotten if the rest went
    /// out meanwhile.
    fn place_begun(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        mail: &[Mail],
        positions: &[Position],
        effects: &mut Effects,
    ) {
        if self.mailroom.begun.is_empty() {
            return;
        }
        for (mail, position) in mail.iter().zip(positions) {
            if let Some(delivery) = self.mailroom.begun.remove(&mail.id)
                && let Some(tag) = &delivery.mail
            {
                tag.position.set(Some(*position));
                if tag.written.get() {
                    self.remove_mail(now, key, [*position], effects);
                }
            }
        }
    }

    /// Mail is kept: in the third class it is delivered now.
    #[expect(clippy::too_many_arguments, reason = "one answer, spelled out")]
    fn appended(
        &mut self,
        now: Now,
        key: &Arc<MailboxKey>,
        mail: &[Mail],
        deliveries: &[Rc<Delivery>],
        positions: &[Position],
        job: Option<u64>,
        effects: &mut Effects,
    ) {
        let mut took = 0;
        for ((mail, delivery), position) in mail.iter().zip(deliveries).zip(positions) {
            let (current, _) = self.connections_of_mailbox(key);
            let tag = MailTag::kept_at(*position);
            let (publication, places) = (Arc::clone(&delivery.publication), delivery.places.clone());
            let kept = Rc::new(Delivery::new(publication, places, Some(Box::new(tag))));
            for connection in current {
                // Who was behind when it was asked and is not any more: kept as never delivered, it is read, which counts.
                if mail.attempts > 0 && self.push_mail(now, connection, &kept) {
                    took += 1;
                    self.track(now, connection, mail.id, Some(*position));
                } else {
                    self.fall_behind(now, connection, effects);
                }
            }
        }
        if self.keeps_first()
            && let Some(mail) = self.user_mail(key)
        {
            mail.youngest = positions.last().copied().max(mail.youngest);
        }
        self.read_on_all(now, key, effects);
        let queued = mail.len() as u64;
        self.job_kept(now, job, took, queued, effects);
    }

    /// Mail could not be kept. Whoever waits is told; what nobody is told about is tried again.
    fn append_failed(&mut self, now: Now, what: Retry, job: Option<u64>, effects: &mut Effects) {
        let is_told = job.and_then(|job| self.mailroom.jobs.get(&job)).is_some_and(|job| job.reply.is_some());
        let lost = what.mail.len() as u64;
        // What somebody took was answered as delivered; another device still has a claim to it.
        let is_owed = !is_told || what.mail.iter().any(|mail| mail.attempts > 0) && !self.keeps_first();
        if self.mailroom.retries.is_empty() {
            self.mailroom.retry_pace.rest(now.mono_ms());
        }
        let ids: Vec<NotificationId> = match self.mailroom.begun.is_empty() {
            true => Vec::new(),
            false => what.mail.iter().map(|mail| mail.id).collect(),
        };
        if !is_owed || self.mailroom.retries.add(what).is_err() {
            ids.iter().for_each(|id| drop(self.mailroom.begun.remove(id)));
            self.metrics().queue_refused.add(lost);
        }
        self.job_of(now, job, |tally| tally.unkept += lost, effects);
    }

    /// A store that does not keep up holds the publishers of the whole node back, like a lane that is full.
    fn settle_congestion(&mut self) {
        let waits = self.mailroom.waits.len();
        let is_congested = match self.mailroom.is_congested {
            true => waits > limits::STORE_WAITS_MAX / 2,
            false => waits > limits::STORE_WAITS_MAX,
        };
        if is_congested != std::mem::replace(&mut self.mailroom.is_congested, is_congested) {
            match is_congested {
                true => self.node.congested_lanes.fetch_add(1, Relaxed),
                false => self.node.congested_lanes.fetch_sub(1, Relaxed),
            };
        }
    }

    /// Tries again what could not be kept, as far as the store's state suggests.
    pub(crate) fn retry_mail(&mut self, now: Now, effects: &mut Effects) {
        while self.mailroom.retry_pace.has_room(now.mono_ms())
            && let Some(what) = self.mailroom.retries.begin()
        {
            self.mailroom.retry_pace.begin();
            self.ask_append(what, None, true, None, effects);
        }
    }

    /// So much of a job was kept, and so many connections took it.
    pub(crate) fn job_kept(&mut self, now: Now, job: Option<u64>, took: u64, queued: u64, effects: &mut Effects) {
        let count = |tally: &mut Receipt| {
            tally.delivered_to += took;
            tally.queued += queued;
        };
        self.job_of(now, job, count, effects);
    }

    pub(crate) fn job_of(
        &mut self,
        now: Now,
        job: Option<u64>,
        count: impl FnOnce(&mut Receipt),
        effects: &mut Effects,
    ) {
        if let Some(job) = job {
            self.job_progressed(now, job, count, effects);
        }
    }

    fn job_progressed(&mut self, now: Now, number: u64, count: impl FnOnce(&mut Receipt), effects: &mut Effects) {
        let Some(job) = self.mailroom.jobs.get_mut(&number) else { return };
        count(&mut job.tally);
        job.missing -= 1;
        if job.missing == 0
            && let Some(job) = self.mailroom.jobs.remove(&number)
        {
            self.report(now, job.reply, job.tally, effects);
        }
    }

    // --- Out ---------------------------------------------------------------------------------------------------------

    /// Queues one piece of mail to one connection. False when its outbox is full.
    pub(crate) fn push_mail(&mut self, now: Now, key: ConnKey, delivery: &Rc<Delivery>) -> bool {
        let Some(live) = self.live(key) else { return false };
        let (tenant, mut tally) = (live.tenant, Receipt::default());
        self.deliver_to(now, delivery, tenant, std::iter::once(key.slot), None, &mut tally, Overflow::IsKept);
        tally.delivered_to == 1
    }

    /// A new connection begins behind.
    pub(crate) fn begin_intake(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        if self.config.queue.is_none() {
            return;
        }
        if let Some(live) = self.live_mut(key) {
            live.intake = Intake::behind(None);
            self.read_on(now, key, effects);
        }
    }

    /// A full outbox: mail waits in the mailbox from here on, in order, what had not begun to go out included.
    pub(crate) fn fall_behind(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(live) = self.live(key) else { return };
        let Some(user) = self.users.get(live.user) else { return };
        let Some(mail) = &user.mail else { return };
        let (mailbox, youngest) = (Arc::clone(&mail.key), mail.youngest);
        if let Some(live) = self.live_mut(key) {
            live.intake = Intake::behind(youngest);
        }
        self.put_back(now, key, mailbox, PutBack::Behind, effects);
    }

    /// The mailbox of a connection's user, while mail is kept.
    pub(crate) fn mailbox_at(&self, key: ConnKey) -> Option<Arc<MailboxKey>> {
        self.config.queue?;
        match self.live(key) {
            Some(live) => Some(Arc::clone(&self.users.get(live.user)?.mail.as_ref()?.key)),
            None => self.connections.get(key)?.closing_mailbox(),
        }
    }

    /// Puts back what a connection will not take.
    pub(crate) fn rescue_mail(&mut self, now: Now, key: ConnKey, why: PutBack, effects: &mut Effects) {
        if let Some(mailbox) = self.mailbox_at(key) {
            self.put_back(now, key, mailbox, why, effects);
        }
    }

    /// Whether a connection has a part of this notification, or will have it whatever comes.
    pub(crate) fn has_begun(&self, key: ConnKey, id: NotificationId) -> bool {
        let outbox = self.connections.get(key).and_then(|connection| connection.outbox.as_ref());
        let begun = outbox.and_then(|outbox| outbox.begun());
        self.sealed_mail.of(key).iter().chain(begun).any(|delivery| delivery.publication.id == id)
    }

    /// Takes mail that stands in no mailbox out of a connection's outbox and keeps it, in order.
    fn put_back(&mut self, now: Now, key: ConnKey, mailbox: Arc<MailboxKey>, why: PutBack, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let transport = connection.reads().0;
        let Some(outbox) = connection.outbox.as_deref_mut() else { return };
        let before = outbox.frame_bytes();
        let mut begun = self.sealed_mail.of(key).to_vec();
        begun.extend(outbox.begun().cloned());
        let is_reordered = outbox.is_reordered();
        let mut taken = if why == PutBack::Gone { self.sealed_mail.take_unkept(key) } else { Vec::new() };
        taken.extend(outbox.take_unkept(transport, why == PutBack::Gone));
        let bytes = before as i64 - outbox.frame_bytes() as i64;
        self.outbox_room_bytes -= outbox.take_freed();
        self.metrics().outbox_bytes.add(-bytes);
        // What has begun to go out goes on, and is kept in front of the rest all the same: should its end not be taken, it
        // comes again in its place. It is forgotten when it is out.
        let begun_alone = |delivery: &Rc<Delivery>| {
            let is_last = |tag: &MailTag| delivery.waits_in() + tag.sealed_for.get() == 1;
            delivery.mail.as_deref().is_some_and(|tag| !tag.kept.get() && !tag.written.get() && is_last(tag))
        };
        begun.retain(|delivery| why != PutBack::Gone && begun_alone(delivery));
        let mut mail = Vec::with_capacity(taken.len() + begun.len());
        for delivery in begun {
            mail.push(self.mail(now, &delivery.publication, delivery.places.one(), 1));
            if let Some(tag) = &delivery.mail {
                tag.kept.set(true);
            }
            self.mailroom.begun.insert(delivery.publication.id, delivery);
        }
        mail.extend(taken.iter().filter_map(|delivery| {
            let is_taken = |tag: &MailTag| tag.sealed_for.get() > 0 || tag.written.get();
            let elsewhere = delivery.waits_in() > 0 || delivery.mail.as_deref().is_some_and(is_taken);
            (why == PutBack::Behind || !elsewhere)
                .then(|| self.mail(now, &delivery.publication, delivery.places.one(), u32::from(elsewhere)))
        }));
        if is_reordered {
            // A mailbox is in the order of acceptance (decision 11).
            mail.sort_by_key(|mail| mail.stream);
        }
        if !mail.is_empty() {
            self.append(now, mailbox, mail, Vec::new(), None, effects);
        }
    }

    /// Mail went out over a socket: in the second class that is what it was kept for.
    pub(crate) fn mail_written(&mut self, now: Now, key: ConnKey, written: &[Rc<Delivery>], effects: &mut Effects) {
        let mut positions = Vec::new();
        for tag in written.iter().filter_map(|delivery| delivery.mail.as_deref()) {
            tag.written.set(true);
            positions.extend(tag.position.get());
        }
        if self.config.ack.is_none()
            && !positions.is_empty()
            && let Some(mailbox) = self.mailbox_at(key)
        {
            self.remove_mail(now, &mailbox, positions, effects);
        }
        self.read_on(now, key, effects);
    }

    pub(crate) fn user_mail(&mut self, key: &MailboxKey) -> Option<&mut UserMail> {
        let tenant = self.tenants.find(key.tenant.as_str())?;
        let at = self.users.find(tenant, &key.user)?;
        self.users.get_mut(at)?.mail.as_deref_mut()
    }
}
