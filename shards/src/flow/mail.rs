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
use crate::conn::live::Intake;
use crate::conn::outbox::{Delivery, MailTag};
use crate::effect::{Effect, Effects};
use crate::flow::deliver::Overflow;
use crate::key::ConnKey;
use crate::mesh::message::ReplyTo;
use crate::shard::Shard;
use crate::tables::mail::{Job, Retry, UserMail, Wait};
use protocol::clock::Now;
use protocol::frame::Frame;
use protocol::limits;
use protocol::notification::{Priority, Publication, Target};
use protocol::publish::receipt::Receipt;
use protocol::store::{Entry, Mail, MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use protocol::stream::StreamSeq;
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
        reply: Option<ReplyTo>,
        effects: &mut Effects,
    ) {
        let job = self.mailroom.next_number();
        self.mailroom.jobs.insert(job, Job { reply, tally: Receipt::default(), missing: 1 });
        match (&publication.target, users) {
            (Target::User(name), _) => self.keep_mail_of(now, publication, name, job, effects),
            (Target::Users(names), Some(indices)) => {
                for name in indices.iter().filter_map(|index| names.get(*index as usize)) {
                    self.keep_mail_of(now, publication, name, job, effects);
                }
            }
            _ => debug_assert!(false, "mail goes to users"),
        }
        self.job_progressed(now, job, |_| {}, effects);
    }

    fn keep_mail_of(&mut self, now: Now, publication: &Arc<Publication>, name: &str, job: u64, effects: &mut Effects) {
        let key = self.mailbox_of(publication, name);
        let (current, behind) = self.connections_of_mailbox(&key);
        if self.config.ack.is_some() {
            let delivery = Rc::new(Delivery { publication: Arc::clone(publication), mail: None });
            let mail = self.mail(now, publication, u32::from(!current.is_empty()));
            return self.append(now, key, vec![mail], vec![delivery], Some(job), effects);
        }
        let delivery = Rc::new(Delivery { publication: Arc::clone(publication), mail: Some(MailTag::default()) });
        let mut took = 0;
        let mut missed = !behind.is_empty() || self.is_retried(&key);
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
            let mail = self.mail(now, publication, u32::from(took > 0));
            self.append(now, key, vec![mail], Vec::new(), Some(job), effects);
        }
        if let Some(job) = self.mailroom.jobs.get_mut(&job) {
            job.tally.delivered_to += took;
        }
    }

    /// The key of a user's mailbox; the one that the user's connections share, if there are any.
    fn mailbox_of(&self, publication: &Publication, name: &str) -> Arc<MailboxKey> {
        let found = self.tenants.find(publication.tenant.as_str()).and_then(|tenant| self.users.find(tenant, name));
        match found.and_then(|at| self.users.get(at)).and_then(|user| user.mail.as_ref()) {
            Some(mail) => Arc::clone(&mail.key),
            None => Arc::new(MailboxKey { tenant: publication.tenant.clone(), user: name.into() }),
        }
    }

    /// A user's connections: those that are up to date, and those that are behind.
    fn connections_of_mailbox(&self, key: &MailboxKey) -> (Vec<ConnKey>, Vec<ConnKey>) {
        let found = self.tenants.find(key.tenant.as_str()).and_then(|tenant| self.users.find(tenant, &key.user));
        let slots = found.and_then(|at| self.users.get(at)).map_or(&[][..], |user| &user.connections);
        let keys = slots.iter().filter_map(|slot| self.connections.key_at(*slot));
        keys.partition(|key| self.live(*key).is_some_and(|live| matches!(live.intake, Intake::UpToDate)))
    }

    fn mail(&self, now: Now, publication: &Publication, attempts: u32) -> Mail {
        let ttl_ns = self.config.queue.map_or(0, |queue| queue.ttl_ms.saturating_mul(1_000_000));
        let own_ns = publication.expires_at_us.map(|at_us| at_us.saturating_sub(now.mono_us).saturating_mul(1_000));
        Mail {
            id: publication.id,
            event: publication.frame.event().into(),
            queued_at_unix_ns: now.unix_ns,
            expires_at_unix_ns: now.unix_ns.saturating_add(own_ns.map_or(ttl_ns, |own_ns| own_ns.min(ttl_ns))),
            attempts,
            stream: StreamSeq::default(),
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
        if self.is_retried(&key) {
            return self.append_failed(now, key, mail, deliveries, job, effects);
        }
        let stay = self.user_mail(&key).map(|mail| {
            mail.appending += 1;
            mail.stay
        });
        let ticket = self.mailroom.next_number();
        let request = StoreRequest::AppendMail { mailbox: Arc::clone(&key), mail: mail.clone() };
        self.mailroom.waits.insert(ticket, Wait::Append { key, mail, deliveries, job, stay });
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
            (Wait::Append { key, mail, deliveries, job, .. }, StoreReply::Appended { positions, dropped }) => {
                self.metrics().queue_enqueued.add(positions.len() as u64);
                self.metrics().queue_dropped.add(dropped);
                self.appended(now, &key, &mail, &deliveries, &positions, job, effects);
            }
            (Wait::Append { key, mut mail, deliveries, job, .. }, reply) => {
                // Kept, perhaps: if it is tried again and then comes twice, the second says so.
                if matches!(reply, StoreReply::Unknown) {
                    mail.iter_mut().for_each(|mail| mail.attempts += 1);
                }
                self.append_failed(now, key, mail, deliveries, job, effects);
            }
            (Wait::Read { connection }, StoreReply::Mail { entries, next }) => {
                self.read(now, connection, &entries, next, effects);
            }
            // The connection stays behind; the mailbox is read again.
            (Wait::Read { connection }, _) => {
                if let Some(live) = self.live_mut(connection)
                    && let Intake::Behind { reading, .. } = &mut live.intake
                {
                    *reading = false;
                    self.schedule(connection, now.mono_ms() + limits::STORE_RETRY_MS);
                }
            }
            (Wait::Remove, _) => {}
        }
        None
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
            let kept = Rc::new(Delivery { publication: Arc::clone(&delivery.publication), mail: Some(tag) });
            for connection in current {
                if self.push_mail(now, connection, &kept) {
                    took += 1;
                    self.track(now, connection, mail.id, Some(*position));
                } else {
                    self.fall_behind(now, connection, effects);
                }
            }
        }
        if self.config.ack.is_some()
            && let Some(mail) = self.user_mail(key)
        {
            mail.youngest = positions.last().copied().max(mail.youngest);
        }
        // Whoever waits for the end of the mailbox has something to read again.
        for connection in self.connections_of_mailbox(key).1 {
            self.read_on(now, connection, effects);
        }
        let queued = mail.len() as u64;
        self.job_of(
            now,
            job,
            |tally| {
                tally.delivered_to += took;
                tally.queued += queued;
            },
            effects,
        );
    }

    /// Mail could not be kept. Whoever waits is told; what came by Redis is tried again.
    fn append_failed(
        &mut self,
        now: Now,
        key: Arc<MailboxKey>,
        mail: Vec<Mail>,
        deliveries: Vec<Rc<Delivery>>,
        job: Option<u64>,
        effects: &mut Effects,
    ) {
        let is_told = job.and_then(|job| self.mailroom.jobs.get(&job)).is_some_and(|job| job.reply.is_some());
        let lost = mail.len() as u64;
        // What somebody took was answered as delivered; another device still has a claim to it.
        let is_owed = !is_told || mail.iter().any(|mail| mail.attempts > 0) && self.config.ack.is_none();
        if is_owed && self.mailroom.retries.len() < limits::STORE_RETRIES_MAX {
            if self.mailroom.retries.is_empty() {
                self.mailroom.retry_at_ms = now.mono_ms() + limits::STORE_RETRY_MS;
            }
            self.mailroom.retries.push_back(Retry { key, mail, deliveries });
        } else {
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

    fn is_retried(&self, key: &MailboxKey) -> bool {
        self.mailroom.retries.iter().any(|retry| *retry.key == *key)
    }

    /// Tries again what could not be kept.
    pub(crate) fn retry_mail(&mut self, now: Now, effects: &mut Effects) {
        if self.mailroom.retries.is_empty() || now.mono_ms() < self.mailroom.retry_at_ms {
            return;
        }
        for Retry { key, mail, deliveries } in std::mem::take(&mut self.mailroom.retries) {
            self.append(now, key, mail, deliveries, None, effects);
        }
    }

    fn job_of(&mut self, now: Now, job: Option<u64>, count: impl FnOnce(&mut Receipt), effects: &mut Effects) {
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
    fn push_mail(&mut self, now: Now, key: ConnKey, delivery: &Rc<Delivery>) -> bool {
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
            live.intake = Intake::Behind { after: None, reading: false, overdue_ms: None };
            self.read_on(now, key, effects);
        }
    }

    /// A full outbox: mail waits in the mailbox from here on, in order, what had not begun to go out included.
    fn fall_behind(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(live) = self.live(key) else { return };
        let Some(user) = self.users.get(live.user) else { return };
        let Some(mail) = &user.mail else { return };
        let (mailbox, youngest) = (Arc::clone(&mail.key), mail.youngest);
        if let Some(live) = self.live_mut(key) {
            live.intake = Intake::Behind { after: youngest, reading: false, overdue_ms: None };
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

    /// Takes mail that stands in no mailbox out of a connection's outbox and keeps it, in order.
    fn put_back(&mut self, now: Now, key: ConnKey, mailbox: Arc<MailboxKey>, why: PutBack, effects: &mut Effects) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let transport = connection.reads().0;
        let Some(outbox) = connection.outbox.as_deref_mut() else { return };
        let before = outbox.frame_bytes();
        let taken = outbox.take_unkept(transport, why == PutBack::Gone);
        let bytes = before as i64 - outbox.frame_bytes() as i64;
        self.metrics().outbox_bytes.add(-bytes);
        let mail: Vec<Mail> = taken
            .iter()
            .filter_map(|delivery| {
                let elsewhere =
                    Rc::strong_count(delivery) > 1 || delivery.mail.as_ref().is_some_and(|tag| tag.written.get());
                (why == PutBack::Behind || !elsewhere)
                    .then(|| self.mail(now, &delivery.publication, u32::from(elsewhere)))
            })
            .collect();
        if !mail.is_empty() {
            self.append(now, mailbox, mail, Vec::new(), None, effects);
        }
    }

    /// Reads the next page, if the connection is behind and has room.
    pub(crate) fn read_on(&mut self, _now: Now, key: ConnKey, effects: &mut Effects) {
        let waiting = self.connections.get(key).and_then(|connection| connection.outbox.as_ref());
        if waiting.is_some_and(|outbox| outbox.frame_bytes() > limits::CATCH_UP_BYTES) {
            return;
        }
        let Some(live) = self.live_mut(key) else { return };
        let Intake::Behind { after, reading, .. } = &mut live.intake else { return };
        if std::mem::replace(reading, true) {
            return;
        }
        let (after, user) = (*after, live.user);
        let Some(mail) = self.users.get(user).and_then(|user| user.mail.as_ref()) else { return };
        let request =
            StoreRequest::ReadMail { mailbox: Arc::clone(&mail.key), after, entries_max: limits::CATCH_UP_ENTRIES };
        let ticket = self.mailroom.next_number();
        self.mailroom.waits.insert(ticket, Wait::Read { connection: key });
        effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
    }

    /// A page of the mailbox has come.
    fn read(&mut self, now: Now, key: ConnKey, entries: &[Entry], next: Option<Position>, effects: &mut Effects) {
        let timeout_ms = self.config.ack.map(|ack| ack.timeout_ms);
        let Some(live) = self.live(key) else { return };
        let Intake::Behind { after, overdue_ms, .. } = live.intake else { return };
        let (mut after, user) = (after, live.user);
        let mut room = true;
        for entry in entries {
            let sent_at_ms = self.users.get(user).and_then(|user| user.mail.as_ref()?.sent_at_ms(entry.mail.id));
            // A redelivery passes over what was delivered a moment ago.
            let fresh = overdue_ms.zip(sent_at_ms).is_some_and(|(overdue_ms, at_ms)| at_ms > overdue_ms);
            if !fresh {
                let delivery = self.replayed(now, entry);
                if !self.push_mail(now, key, &delivery) {
                    room = false;
                    break;
                }
                self.metrics().queue_replayed.add(1);
                if entry.mail.attempts > 1 {
                    self.metrics().redelivered.add(1);
                }
                if timeout_ms.is_some() {
                    self.track(now, key, entry.mail.id, Some(entry.position));
                }
            }
            after = Some(entry.position);
        }
        if room && next.is_some() {
            after = next;
        }
        let is_end = next.is_none();
        let mut is_current = is_end && room;
        if let Some(mail) = self.users.get_mut(user).and_then(|user| user.mail.as_mut()) {
            mail.youngest = mail.youngest.max(after);
            // In the second class what is on its way to the mailbox is not delivered when it arrives: it is read.
            let (appending, mailbox) = (mail.appending, Arc::clone(&mail.key));
            is_current &= self.config.ack.is_some() || appending == 0 && !self.is_retried(&mailbox);
        }
        if is_current && let Some(overdue_ms) = overdue_ms {
            self.forget_gone(user, overdue_ms);
        }
        if let Some(live) = self.live_mut(key) {
            live.intake = match is_current {
                true => Intake::UpToDate,
                false => Intake::Behind { after, reading: false, overdue_ms },
            };
        }
        if !is_end || !room {
            self.read_on(now, key, effects);
        }
    }

    fn replayed(&self, now: Now, entry: &Entry) -> Rc<Delivery> {
        let Mail { id, event, expires_at_unix_ns, attempts, .. } = &entry.mail;
        let publication = Publication {
            id: *id,
            tenant: protocol::ids::TenantId::default_tenant(),
            target: Target::User("".into()),
            audience: None,
            priority: Priority::Normal,
            expires_at_us: Some(now.mono_us + expires_at_unix_ns.saturating_sub(now.unix_ns) / 1_000),
            accepted_at_us: now.mono_us,
            frame: Frame::replay(*id, event, *attempts),
        };
        let tag = MailTag::kept_at(entry.position);
        Rc::new(Delivery { publication: Arc::new(publication), mail: Some(tag) })
    }

    /// Mail went out over a socket: in the second class that is what it was kept for.
    pub(crate) fn mail_written(&mut self, now: Now, key: ConnKey, written: &[Rc<Delivery>], effects: &mut Effects) {
        let mut positions = Vec::new();
        for tag in written.iter().filter_map(|delivery| delivery.mail.as_ref()) {
            tag.written.set(true);
            positions.extend(tag.position);
        }
        if self.config.ack.is_none()
            && !positions.is_empty()
            && let Some(mailbox) = self.mailbox_at(key)
        {
            self.remove_mail(mailbox, positions, effects);
        }
        self.read_on(now, key, effects);
    }

    pub(crate) fn remove_mail(&mut self, mailbox: Arc<MailboxKey>, positions: Vec<Position>, effects: &mut Effects) {
        let ticket = self.mailroom.next_number();
        self.mailroom.waits.insert(ticket, Wait::Remove);
        let request = StoreRequest::RemoveMail { mailbox, positions };
        effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
    }

    pub(crate) fn user_mail(&mut self, key: &MailboxKey) -> Option<&mut UserMail> {
        let tenant = self.tenants.find(key.tenant.as_str())?;
        let at = self.users.find(tenant, &key.user)?;
        self.users.get_mut(at)?.mail.as_deref_mut()
    }
}
