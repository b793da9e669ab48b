//! Catching up: a connection that is behind reads its user's mailbox page by page, until it has all of it.
//!
//! Only so many readings are under way at once; the others stand in line. A store that fails is asked less (see
//! [`crate::tables::pace`]): ten thousand connections that are behind are no storm when it comes back.
//!
//! **What is gone.** Another connection of the user may have had what this one has yet to read, and then it stands in the mailbox
//! no longer. Where other nodes deliver from the same mailbox it lingers for a while, and goes to every connection that was here
//! when it was put in: so a publish reaches all of them, whichever node was first.
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
            return self.ask_page(now, key, effects);
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
                self.ask_page(now, key, effects);
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

    fn ask_page(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(live) = self.live(key) else { return };
        let Intake::Behind { after, .. } = live.intake else { return };
        let (user, here_ms) = (live.user, live.here_ms(now));
        let Some(mail) = self.users.get(user).and_then(|user| user.mail.as_ref()) else { return };
        let asked = Asked { heard_of: mail.heard_of, is_stale: false, here_ms };
        // Who has just come is told of what is gone, too, and passes over it: what comes next is known to stand right behind it.
        let lingering_ms = if self.reads_lingering(now) { limits::STORE_LINGER_MS } else { 0 };
        let (mailbox, entries_max) = (Arc::clone(&mail.key), limits::CATCH_UP_ENTRIES);
        let request = StoreRequest::ReadMail { mailbox, after, entries_max, lingering_ms };
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
        let Intake::Behind { after, overdue, .. } = live.intake else { return };
        let (mut after, user, here_ms) = (after, live.user, live.here_ms(now));
        let Some(mailbox) = self.mailbox_at(key) else { return };
        let mut room = true;
        for entry in entries {
            // What the store could not be made to forget yet is gone.
            let is_gone = entry.is_gone || self.mailroom.removals.holds(&mailbox, entry.position);
            let was_here = self.was_here(now, entry, asked.here_ms, here_ms);
            let has_had = overdue.is_some_and(|overdue| entry.position <= overdue.had);
            let is_done = is_gone && (has_had || was_here == WasHere::No);
            // What is half out comes to its end.
            if is_done || self.has_begun(key, entry.mail.id) {
                after = Some(entry.position);
                continue;
            }
            let sent_at_ms = self.users.get(user).and_then(|user| user.mail.as_ref()?.sent_at_ms(entry.mail.id));
            // A redelivery passes over what was delivered a moment ago; what this one never had is none.
            let is_recent = overdue.zip(sent_at_ms).is_some_and(|(overdue, at_ms)| at_ms > overdue.sent_until_ms);
            let fresh = has_had && is_recent;
            if !fresh {
                // A connection that was here and has not had it yet: this is the delivery that was begun when it was put in. Of
                // what may have been heard before it came, and is gone, nobody else counts.
                let begun = match was_here {
                    WasHere::Surely if !has_had => entry.mail.attempts.saturating_sub(u32::from(!entry.is_gone)),
                    WasHere::Perhaps if is_gone => entry.mail.attempts.max(2),
                    _ => entry.mail.attempts,
                };
                // What another node's reading did not count this home knows to have been delivered here.
                let attempts = begun.max(1 + u32::from(sent_at_ms.is_some()));
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
        if is_current && let Some(overdue) = overdue {
            self.forget_gone(user, overdue.sent_until_ms);
        }
        if let Some(live) = self.live_mut(key) {
            live.intake = match is_current {
                true => Intake::UpToDate,
                false => Intake::Behind { after, reading: false, overdue },
            };
        }
        if is_current {
            // Acknowledgements that came due while it was behind are seen to now.
            self.schedule_live(now, key);
        } else if goes_on {
            self.read_on(now, key, effects);
        }
    }

    /// What the store's clock says of it; the answer was under way for a while.
    fn was_here(&self, now: Now, entry: &Entry, asked_here_ms: u64, here_ms: u64) -> WasHere {
        match entry.age {
            _ if !self.reads_lingering(now) => WasHere::No,
            age if age.most_ms < asked_here_ms => WasHere::Surely,
            age if age.least_ms <= here_ms => WasHere::Perhaps,
            _ => WasHere::No,
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

/// Whether a connection was here when an entry was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WasHere {
    No,
    Perhaps,
    Surely,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClusterRules;
    use crate::flow::alone::alone_with;
    use crate::key::ShardId;
    use protocol::ids::{NotificationId, uuid_v7};
    use protocol::store::Age;
    use protocol::stream::StreamSeq;

    /// Put in so many milliseconds ago, by the store's clock.
    fn entry(ms_ago: u64, commit_ms: u64) -> Entry {
        let mail = Mail {
            id: NotificationId(uuid_v7(1, [0; 10])),
            event: Arc::from(&b"{}"[..]),
            queued_at_unix_ns: 0,
            expires_at_unix_ns: u64::MAX,
            attempts: 0,
            stream: StreamSeq::default(),
        };
        Entry { age: Age::of(ms_ago, commit_ms), is_gone: true, ..Entry::standing(Position(7, 0), mail) }
    }

    #[test]
    fn the_clock_of_the_store_says_who_was_here() {
        let mut shard = alone_with(|config| {
            config.cluster = Some(ClusterRules { bridge: ShardId(0), shares_mail: true });
        });
        use WasHere::{No, Perhaps, Surely};
        // How long ago it was put in; how long after its row others see it at most; for how long the connection had been here
        // when the page was asked for, and when it came.
        let rows = [
            (10, 0, 12, 20, Surely),
            (11, 0, 12, 20, Perhaps),
            (20, 0, 12, 20, Perhaps),
            (21, 0, 12, 20, Perhaps),
            (22, 0, 12, 20, No),
            (121, 100, 12, 20, Perhaps),
            (122, 100, 12, 20, No),
            (0, 0, 0, 0, Perhaps),
            (u64::MAX, 0, 12, 20, No),
        ];
        for (ms_ago, commit_ms, asked_here_ms, here_ms, expected) in rows {
            let entry = entry(ms_ago, commit_ms);
            let now = Now::default();
            assert_eq!(shard.was_here(now, &entry, asked_here_ms, here_ms), expected, "{ms_ago} {commit_ms}");
        }
        shard.alone_since_us = Some(0);
        let at = |ms| Now { mono_us: ms * 1_000, unix_ns: 0 };
        assert_eq!(
            shard.was_here(at(limits::STORE_LINGER_MS - 1), &entry(0, 0), 12, 20),
            Surely,
            "of who has just gone"
        );
        assert_eq!(
            shard.was_here(at(limits::STORE_LINGER_MS), &entry(0, 0), 12, 20),
            No,
            "nobody else delivers from here"
        );
    }
}
