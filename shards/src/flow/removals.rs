//! Forgetting mail that was written (second class) or acknowledged (third): gathered by mailbox, so that a client that
//! acknowledges a hundred notifications costs a few requests and not a hundred, and asked again until it is done.
use crate::effect::{Effect, Effects};
use crate::shard::Shard;
use crate::tables::mail::Wait;
use protocol::clock::Now;
use protocol::store::{MailboxKey, Position, StoreReply, StoreRequest, StoreTicket};
use std::sync::Arc;

impl Shard {
    /// Mail that its mailbox need not keep any longer.
    pub(crate) fn remove_mail(
        &mut self,
        now: Now,
        mailbox: &Arc<MailboxKey>,
        positions: impl IntoIterator<Item = Position>,
        effects: &mut Effects,
    ) {
        let refused = self.mailroom.removals.add(mailbox, positions);
        self.metrics().removals_refused.add(refused as u64);
        self.remove_in_turn(now, effects);
    }

    /// Asks for as many removals as the store's state suggests.
    pub(crate) fn remove_in_turn(&mut self, now: Now, effects: &mut Effects) {
        while self.mailroom.removal_pace.has_room(now.mono_ms())
            && let Some((mailbox, positions)) = self.mailroom.removals.begin()
        {
            self.mailroom.removal_pace.begin();
            let ticket = self.mailroom.next_number();
            self.mailroom.waits.insert(ticket, Wait::Remove { key: Arc::clone(&mailbox) });
            let request = StoreRequest::RemoveMail { mailbox, positions, lingers: self.is_read_elsewhere() };
            effects.push(Effect::Store { ticket: StoreTicket(ticket), request });
        }
    }

    /// The store has forgotten what one request named, or not.
    pub(crate) fn removed(&mut self, now: Now, key: &Arc<MailboxKey>, reply: &StoreReply, effects: &mut Effects) {
        match reply {
            StoreReply::Done => {
                self.mailroom.removal_pace.succeeded();
                self.mailroom.removals.done(key);
            }
            _ => {
                self.mailroom.removal_pace.failed(now.mono_ms());
                self.mailroom.removals.failed(key);
            }
        }
        self.remove_in_turn(now, effects);
    }
}
