//! Catching up: a connection that is behind reads its user's mailbox page by page, until it has all of it.
//!
//! Only so many readings are under way at once; the others stand in line. A store that fails is asked less (see
//! [`crate::tables::pace`]): ten thousand connections that are behind are no storm when it comes back.
use crate::conn::live::Intake;
use crate::conn::outbox::{Delivery, MailTag};
use crate::effect::{Effect, Effects};
use crate::key::ConnKey;
use crate::shard::Shard;
use crate::tables::mail::{Asked, Wait};
use protocol::clock::Now;
use protocol::frame::Frame;
use protocol::limits;
use protocol::notification::{Priority, Publication, Target};
use protocol::store::{Entry, Mail, MailboxKey, Position, StoreRequest, StoreTicket};
use protocol::stream::Places;
use std::rc::Rc;
use std::sync::Arc;

impl Shard {
    /// Reads the next page, if the connection is behind and has room.
    pub(crate) fn read_on(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        if !self.has_room_to_read(key) {
            return;
        }
        let Some(live) = self.live_mut(key) else { return };
        let Intake::Behind { reading, .. } = &mut live.intake else { return };
        if std::mem::replace(reading, true) {
            return;
        }
        if self.mailroom.readers.is_empty() && self.mailroom.read_pace.has_room(now.mono_ms()) {
            return self.ask_page(key, effects);
        }
        self.mailroom.readers.push_back(key);
        if self.mailroom.readers.len() > 2 * self.connections.len() {
            let Shard { mailroom, connections, .. } = self;
            mailroom.readers.retain(|key| connections.get(*key).is_some());
        }
    }

    /// Every connection of a user that is behind: there is something to read, or nothing to wait for any more.
    pub(crate) fn read_on_all(&mut self, now: Now, key: &MailboxKey, effects: &mut Effects) {
        for connection in self.connections_of_mailbox(key).1 {
            self.read_on(now, connection, effects);
        }
    }

    /// Reads for those who wait for their turn.
    pub(crate) fn read_in_turn(&mut self, now: Now, effects: &mut Effects) {
        while self.mailroom.read_pace.has_room(now.mono_ms())
            && let Some(key) = self.mailroom.readers.pop_front()
        {
            let has_room = self.has_room_to_read(key);
            let Some(live) = self.live_mut(key) else { continue };
            let Intake::Behind { reading, .. } = &mut live.intake else { continue };
            if has_room {
                self.ask_page(key, effects);
            } else {
                *reading = false;
            }
        }
    }

    /// Whether so little waits for a connection that another page may come. While its socket is full none does: what it does
    /// not take waits where it is kept.
    pub(crate) fn has_room_to_read(&self, key: ConnKey) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        !connection.is_held()
            && !connection.blocked
            && connection.outbox.as_ref().is_none_or(|outbox| outbox.frame_bytes() <= limits::CATCH_UP_BYTES)
    }

    /// Whether its socket was filled since the page was asked for that comes now: no more of it than a page's worth.
    fn is_full_of_mail(&self, key: ConnKey) -> bool {
        self.connections.get(key).is_some_and(|connection| {
            let bytes = connection.outbox.as_ref().map_or(0, |outbox| outbox.frame_bytes());
            connection.blocked && bytes > limits::CATCH_UP_BYTES
        })
    }

    fn ask_page(&mut self, key: ConnKey, effects: &mut Effects) {
        let Some(live) = self.live(key) else { return };
        let Intake::Behind { after, .. } = live.intake else { return };
        let user = live.user;
        let Some(mail) = self.users.get(user).and_then(|user| user.mail.as_ref()) else { return };
        let asked = Asked { heard_of: mail.heard_of, is_stale: false };
        let request = StoreRequest::ReadMail {
            mailbox: Arc::clone(&mail.key),
            after,
            entries_max: limits::CATCH_UP_ENTRIES,
            lingering_ms: 0,
        };
        self.mailroom.read_pace.begin();
        let ticket = self.mailroom.next_number();
        self.mailroom.waits.insert(ticket, Wait::Read { connection: key, asked });
        effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
    }

    /// A page of the mailbox has come.
    pub(crate) fn read(
        &mut self,
        now: Now,
        key: ConnKey,
        entries: &[Entry],
        next: Option<Position>,
        asked: Asked,
        effects: &mut Effects,
    ) {
        let timeout_ms = self.config.ack.map(|ack| ack.timeout_ms);
        let Some(live) = self.live(key) else { return };
        let Intake::Behind { after, overdue_ms, .. } = live.intake else { return };
        let (mut after, user) = (after, live.user);
        let Some(mailbox) = self.mailbox_at(key) else { return };
        let mut room = true;
        for entry in entries {
            // What the store could not be made to forget yet is done with, and what is half out comes to its end.
            if self.mailroom.removals.holds(&mailbox, entry.position) || self.has_begun(key, entry.mail.id) {
                after = Some(entry.position);
                continue;
            }
            let sent_at_ms = self.users.get(user).and_then(|user| user.mail.as_ref()?.sent_at_ms(entry.mail.id));
            // A redelivery passes over what was delivered a moment ago.
            let fresh = overdue_ms.zip(sent_at_ms).is_some_and(|(overdue_ms, at_ms)| at_ms > overdue_ms);
            if !fresh {
                // What another node's reading did not count this home knows to have been delivered here.
                let attempts = entry.mail.attempts.max(1 + u32::from(sent_at_ms.is_some()));
                let delivery = self.replayed(now, entry, attempts);
                if self.is_full_of_mail(key) || !self.push_mail(now, key, &delivery) {
                    room = false;
                    break;
                }
                self.metrics().queue_replayed.add(1);
                if attempts > 1 {
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
        let mut goes_on = !is_end || !room;
        if self.shares_mail() {
            (is_current, after) = self.has_all(now, key, is_current, after, asked, effects);
            goes_on |= !is_current;
        } else if let Some(mail) = self.users.get_mut(user).and_then(|user| user.mail.as_mut()) {
            mail.youngest = mail.youngest.max(after);
            // In the second class what is on its way to the mailbox is not delivered when it arrives: it is read.
            let (appending, mailbox) = (mail.appending, Arc::clone(&mail.key));
            is_current &= self.config.ack.is_some() || appending == 0 && !self.mailroom.retries.holds(&mailbox);
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
        if is_current {
            // Acknowledgements that came due while it was behind are seen to now.
            self.schedule_live(now, key);
        } else if goes_on {
            self.read_on(now, key, effects);
        }
    }

    fn replayed(&self, now: Now, entry: &Entry, attempts: u32) -> Rc<Delivery> {
        let Mail { id, event, expires_at_unix_ns, stream, .. } = &entry.mail;
        let publication = Publication {
            id: *id,
            tenant: protocol::ids::TenantId::default_tenant(),
            target: Target::User("".into()),
            audience: None,
            priority: Priority::of_event(event),
            expires_at_us: Some(now.mono_us + expires_at_unix_ns.saturating_sub(now.unix_ns) / 1_000),
            accepted_at_us: now.mono_us,
            frame: Frame::replay(*id, event, attempts),
        };
        let tag = MailTag::kept_at(entry.position);
        Rc::new(Delivery::new(Arc::new(publication), Places::One(*stream), Some(Box::new(tag))))
    }
}
