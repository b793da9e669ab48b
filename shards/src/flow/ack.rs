//! Acknowledgements: awaited once per user and notification, given by any device, once each (C-12).
//!
//! What is kept is forgotten when it is acknowledged, and read from the mailbox again when it is not in time; what is only
//! tracked expires.
use crate::conn::live::{Intake, Overdue};
use crate::effect::{Effect, Effects};
use crate::key::ConnKey;
use crate::shard::Shard;
use crate::tables::mail::{Acknowledged, Note, Sent, UserMail, Wait};
use crate::tables::users::UserIndex;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::ids::NotificationId;
use protocol::limits;
use protocol::store::{AckVerdict, Position, StoreReply, StoreRequest, StoreTicket};
use std::sync::Arc;

impl Shard {
    /// A delivery whose acknowledgement is awaited.
    pub(crate) fn track(&mut self, now: Now, key: ConnKey, id: NotificationId, position: Option<Position>) {
        let Some(ack) = self.config.ack else { return };
        let Some(live) = self.live(key) else { return };
        let Some(mail) = self.users.get_mut(live.user).and_then(|user| user.mail.as_mut()) else { return };
        let sent = mail.sent(id, position, now.mono_ms());
        match sent {
            Sent::New => {
                self.metrics().ack_tracked.add(1);
                self.metrics().ack_pending.add(1);
            }
            Sent::Displacing => {
                self.metrics().ack_tracked.add(1);
                self.metrics().ack_expired.add(1);
            }
            Sent::Repeated => {}
        }
        if ack.is_recorded
            && let Some(live) = self.live(key)
            && let Some(mailbox) = self.users.get(live.user).and_then(|user| Some(Arc::clone(&user.mail.as_ref()?.key)))
        {
            let connection = live.id;
            self.add_note(Note::Sent(mailbox, id, connection));
        }
        self.schedule(key, now.mono_ms() + ack.timeout_ms);
    }

    // --- What is recorded elsewhere ----------------------------------------------------------------------------------

    /// What there is no room for is counted: its acknowledgement is good as long as this process lives, and another node does not
    /// say that it delivers it again.
    pub(crate) fn add_note(&mut self, note: Note) {
        match self.mailroom.notes.len() < limits::STORE_NOTES_MAX {
            true => self.mailroom.notes.push_back(note),
            false => self.metrics().ack_unrecorded.add(1),
        }
    }

    /// Notes what waits, in order, so many at a time: a broadcast to everybody must not fill the store's links.
    pub(crate) fn note_deliveries(&mut self, effects: &mut Effects) {
        while self.mailroom.notes_under_way < limits::STORE_NOTES_UNDER_WAY_MAX
            && let Some(note) = self.mailroom.notes.pop_front()
        {
            let request = match note {
                Note::Sent(mailbox, id, connection) => StoreRequest::TrackAck { mailbox, id, connection },
                Note::Acknowledged(mailbox, id, is_kept) => StoreRequest::Acknowledge { mailbox, id, is_kept },
                Note::Begun(mailbox, position) => StoreRequest::BeginMail { mailbox, positions: vec![position] },
            };
            self.mailroom.notes_under_way += 1;
            self.ask_about_ack(request, Wait::Note, effects);
        }
    }

    fn ask_about_ack(&mut self, request: StoreRequest, wait: Wait, effects: &mut Effects) {
        let ticket = self.mailroom.next_number();
        self.mailroom.waits.insert(ticket, wait);
        effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
    }

    pub(crate) fn ack_noted(&mut self, reply: &StoreReply) {
        self.mailroom.notes_under_way -= 1;
        if matches!(reply, StoreReply::Failed | StoreReply::Unknown) {
            self.metrics().ack_unrecorded.add(1);
        }
    }

    /// The store's word about what this home did not await.
    pub(crate) fn ack_decided(&mut self, now: Now, key: ConnKey, id: NotificationId, reply: &StoreReply) {
        match reply {
            StoreReply::Acknowledged(AckVerdict::Done) => {
                self.metrics().ack_received.add(1);
                if let Some(live) = self.live(key)
                    && let Some(mail) = self.users.get_mut(live.user).and_then(|user| user.mail.as_mut())
                {
                    mail.remember(id, key);
                }
                self.say(now, key, |out| event::write_acked(out, id));
            }
            StoreReply::Acknowledged(AckVerdict::Late | AckVerdict::NotPending) => self.refuse_ack(now, key, id),
            _ => {
                self.metrics().ack_unrecorded.add(1);
                self.refuse_ack_for_now(now, key, id);
            }
        }
    }

    fn refuse_ack(&mut self, now: Now, key: ConnKey, id: NotificationId) {
        let message = format!("Unknown or invalid notification: {id}");
        self.say(now, key, |out| event::write_error(out, ErrorCode::InvalidAck, &message));
    }

    fn refuse_ack_for_now(&mut self, now: Now, key: ConnKey, id: NotificationId) {
        let message = format!("The acknowledgement could not be recorded now, please repeat it: {id}");
        self.say(now, key, |out| event::write_error(out, ErrorCode::InvalidAck, &message));
    }

    // --- What clients say, and what is due ---------------------------------------------------------------------------

    /// A client acknowledges.
    pub(crate) fn acknowledge(&mut self, now: Now, key: ConnKey, id: NotificationId, effects: &mut Effects) {
        let Some(ack) = self.config.ack else { return };
        let Some(live) = self.live(key) else { return };
        let Some(mail) = self.users.get_mut(live.user).and_then(|user| user.mail.as_mut()) else { return };
        let verdict = mail.acknowledge(id, key);
        let mailbox = Arc::clone(&mail.key);
        let is_good = match verdict {
            Acknowledged::First(awaited) => {
                let waited_ms = now.mono_ms() - awaited.sent_at_ms;
                let is_late = awaited.position.is_none() && waited_ms > ack.timeout_ms;
                self.metrics().ack_pending.add(-1);
                if is_late {
                    self.metrics().ack_expired.add(1);
                } else {
                    self.metrics().ack_received.add(1);
                    self.metrics().ack_latency_seconds.observe(waited_ms as f64 / 1e3);
                }
                if ack.is_recorded {
                    let is_kept = awaited.position.is_some();
                    self.add_note(Note::Acknowledged(Arc::clone(&mailbox), id, is_kept));
                    self.note_deliveries(effects);
                }
                self.remove_mail(now, &mailbox, awaited.position, effects);
                !is_late
            }
            Acknowledged::Again => true,
            Acknowledged::Unknown if ack.is_recorded => {
                // Whoever invents ids must not be able to hold the publishers back.
                if self.mailroom.waits.len() >= limits::STORE_WAITS_MAX / 2 {
                    self.metrics().ack_unrecorded.add(1);
                    return self.refuse_ack_for_now(now, key, id);
                }
                let request = StoreRequest::Acknowledge { mailbox, id, is_kept: self.config.queue.is_some() };
                return self.ask_about_ack(request, Wait::Verdict { connection: key, id }, effects);
            }
            Acknowledged::Invalid | Acknowledged::Unknown => false,
        };
        match is_good {
            true => self.say(now, key, |out| event::write_acked(out, id)),
            false => self.refuse_ack(now, key, id),
        }
    }

    /// What a connection is due for: redelivery of what was not acknowledged in time, and another try to read.
    pub(crate) fn mail_due(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(live) = self.live(key) else { return };
        let (user, is_up_to_date) = (live.user, matches!(live.intake, Intake::UpToDate));
        let may_acknowledge = !live.transport.is_sse();
        if let Some(ack) = self.config.ack
            && let Some(mail) = self.users.get_mut(user).and_then(|user| user.mail.as_mut())
        {
            let before_ms = now.mono_ms().saturating_sub(ack.timeout_ms);
            let expired = mail.expire(before_ms) as u64;
            let is_due = mail.oldest_sent_ms().is_some_and(|at_ms| at_ms + ack.timeout_ms <= now.mono_ms());
            let had = mail.youngest.unwrap_or_default();
            self.metrics().ack_expired.add(expired);
            self.metrics().ack_pending.add(-(expired as i64));
            if is_due
                && is_up_to_date
                && may_acknowledge
                && let Some(live) = self.live_mut(key)
            {
                let overdue = Some(Overdue { sent_until_ms: before_ms, had });
                live.intake = Intake::Behind { after: None, reading: false, overdue };
            }
        }
        self.read_on(now, key, effects);
    }

    /// The whole mailbox was read for what was overdue: what is overdue still is kept no longer, because it expired there or
    /// had to go for younger mail. Nobody will deliver it again, so nobody waits for it.
    pub(crate) fn forget_gone(&mut self, user: UserIndex, sent_until_ms: u64) {
        let Some(mail) = self.users.get_mut(user).and_then(|user| user.mail.as_mut()) else { return };
        let gone = mail.forget_gone(sent_until_ms);
        self.metrics().ack_expired.add(gone as u64);
        self.metrics().ack_pending.add(-(gone as i64));
    }

    /// When [`Shard::mail_due`] has something to do, in milliseconds on the monotonic clock. Who is behind reads all of the
    /// mailbox anyway: it is looked at again when it is up to date.
    pub(crate) fn mail_due_at_ms(&self, key: ConnKey) -> Option<u64> {
        let live = self.live(key).filter(|live| matches!(live.intake, Intake::UpToDate))?;
        let mail = self.users.get(live.user)?.mail.as_ref()?;
        let ack = self.config.ack.filter(|_| !live.transport.is_sse())?;
        Some(mail.oldest_sent_ms()? + ack.timeout_ms)
    }

    /// A user's last connection went: what was awaited comes again with the next one, or has expired.
    pub(crate) fn forget_user_mail(&mut self, mail: &UserMail) {
        let (awaited, tracked_only) = mail.awaited_len();
        self.metrics().ack_pending.add(-(awaited as i64));
        self.metrics().ack_expired.add(tracked_only as u64);
    }
}
