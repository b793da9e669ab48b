//! Acknowledgements: awaited once per user and notification, given by any device, once each (C-12).
//!
//! What is kept is forgotten when it is acknowledged, and read from the mailbox again when it is not in time; what is only
//! tracked expires.
use crate::conn::live::Intake;
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::Shard;
use crate::tables::mail::{Acknowledged, Sent, UserMail};
use crate::tables::users::UserIndex;
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::ids::NotificationId;
use protocol::limits;
use protocol::store::Position;
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
        self.schedule(key, now.mono_ms() + ack.timeout_ms);
    }

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
                if let Some(position) = awaited.position {
                    self.remove_mail(mailbox, vec![position], effects);
                }
                !is_late
            }
            Acknowledged::Again => true,
            Acknowledged::Invalid => false,
        };
        if is_good {
            self.say(now, key, |out| event::write_acked(out, id));
        } else {
            let message = format!("Unknown or invalid notification: {id}");
            self.say(now, key, |out| event::write_error(out, ErrorCode::InvalidAck, &message));
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
            self.metrics().ack_expired.add(expired);
            self.metrics().ack_pending.add(-(expired as i64));
            if is_due
                && is_up_to_date
                && may_acknowledge
                && let Some(live) = self.live_mut(key)
            {
                live.intake = Intake::Behind { after: None, reading: false, overdue_ms: Some(before_ms) };
            }
        }
        self.read_on(now, key, effects);
    }

    /// The whole mailbox was read for what was overdue: what is overdue still is kept no longer, because it expired there or
    /// had to go for younger mail. Nobody will deliver it again, so nobody waits for it.
    pub(crate) fn forget_gone(&mut self, user: UserIndex, overdue_ms: u64) {
        let Some(mail) = self.users.get_mut(user).and_then(|user| user.mail.as_mut()) else { return };
        let gone = mail.forget_gone(overdue_ms);
        self.metrics().ack_expired.add(gone as u64);
        self.metrics().ack_pending.add(-(gone as i64));
    }

    /// When [`Shard::mail_due`] has something to do, in milliseconds on the monotonic clock.
    pub(crate) fn mail_due_at_ms(&self, now: Now, key: ConnKey) -> Option<u64> {
        let live = self.live(key)?;
        let mail = self.users.get(live.user)?.mail.as_ref()?;
        let retry = matches!(live.intake, Intake::Behind { reading: false, .. })
            .then(|| now.mono_ms() + limits::STORE_RETRY_MS);
        let ack = self.config.ack.filter(|_| !live.transport.is_sse());
        let redelivery = ack.and_then(|ack| Some(mail.oldest_sent_ms()? + ack.timeout_ms));
        [retry, redelivery].into_iter().flatten().min()
    }

    /// A user's last connection went: what was awaited comes again with the next one, or has expired.
    pub(crate) fn forget_user_mail(&mut self, mail: &UserMail) {
        let (awaited, tracked_only) = mail.awaited_len();
        self.metrics().ack_pending.add(-(awaited as i64));
        self.metrics().ack_expired.add(tracked_only as u64);
    }
}
