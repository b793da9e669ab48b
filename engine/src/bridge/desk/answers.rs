//! What Redis was asked and has yet to answer, and what comes of its answers.
use super::keys::Keys;
use super::revoked;
use crate::bridge::figures::BridgeFigures;
use crate::bridge::inbox::Inbox;
use protocol::auth::revocation::Revocation;
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind};
use protocol::cluster::{Admission, AdmissionTicket, ClusterEvent, GatherTicket, Topic};
use protocol::limits;
use protocol::store::Position;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use storage::redis::admissions;
use storage::redis::commands::Ticket;
use storage::redis::commands::answer::Outcome;
use storage::redis::sessions::Swept;

/// What a command was for.
pub(super) enum Asked {
    /// A parcel whose sender wants to know how many got it, or that is not to be lost. Redis counts this node, too, if it
    /// listens when the parcel gets there, which nobody here can know: then the parcel comes back, and that is its receipt.
    Parcel {
        ticket: Option<GatherTicket>,
        hint: Option<Hint>,
    },
    /// Whether there is room for a connection.
    Admission(AdmissionTicket),
    Users,
    Sweep,
    /// A revocation is to be kept; its parcel follows, if it has a ticket.
    Kept {
        ticket: Option<GatherTicket>,
        revocation: Arc<Revocation>,
    },
    /// A page of revocations.
    Revocations,
}

/// A hint and its topic.
pub(super) type Hint = (Topic, Arc<Parcel>);

#[derive(Default)]
pub(super) struct Answers {
    /// Commands whose answer tells something; as many as the links take.
    asked: HashMap<u64, Asked>,
    last_ticket: u64,
    /// The last hint of each user that Redis was not given, or perhaps not.
    unsent: HashMap<Topic, Arc<Parcel>>,
    /// Parcels about what was not kept; until they are answered.
    unkept: Vec<GatherTicket>,
    /// Where the sweep goes on.
    pub(super) sweep_cursor: u64,
}

impl Answers {
    /// The name of a command whose answer is waited for; if no link takes it, [`Answers::forget`] it.
    pub(super) fn wait_for(&mut self, asked: Asked) -> Ticket {
        self.last_ticket += 1;
        self.asked.insert(self.last_ticket, asked);
        Ticket(self.last_ticket)
    }

    /// No answer will come.
    pub(super) fn forget(&mut self, ticket: Ticket) -> Option<Asked> {
        self.asked.remove(&ticket.0)
    }

    /// A revocation is kept, or not, but no parcel with a ticket follows.
    pub(super) fn drop_ticket(&mut self, kept: Ticket) {
        if let Some(Asked::Kept { ticket, .. }) = self.asked.get_mut(&kept.0) {
            *ticket = None;
        }
    }

    /// Keeps a hint until it can be sent: the last one of a user is enough, whoever gets it reads what is before. That a link did
    /// not send it may be told after what came later was not taken.
    pub(super) fn keep(&mut self, hint: Option<Hint>) {
        let Some((topic, parcel)) = hint else { return };
        let has_place = match self.unsent.get(&topic) {
            Some(kept) => position_of(kept) < position_of(&parcel),
            None => self.unsent.len() < limits::CLUSTER_HINTS_UNSENT_MAX,
        };
        if has_place {
            self.unsent.insert(topic, parcel);
        }
    }

    /// Takes the hints that were kept for some topics.
    pub(super) fn take_unsent(&mut self, is_meant: impl Fn(&Topic) -> bool) -> Vec<Hint> {
        self.unsent.extract_if(|topic, _| is_meant(topic)).collect()
    }

    /// Redis said what became of a command, or nobody knows.
    pub(super) fn answered(
        &mut self,
        now: Now,
        ticket: Ticket,
        outcome: Outcome<'_>,
        keys: &mut Keys,
        inbox: &mut Inbox,
        figures: &BridgeFigures,
    ) {
        match (self.forget(ticket), outcome) {
            (Some(Asked::Parcel { ticket, hint }), outcome) => {
                let nodes = self.parcel_answered(ticket, hint, outcome, figures);
                inbox.events.extend(ticket.map(|ticket| ClusterEvent::Sent { ticket, nodes }));
            }
            (Some(Asked::Admission(ticket)), outcome) => {
                let admission = match outcome {
                    Outcome::Done(reply) => admissions::read(reply).unwrap_or(Admission::Unknown),
                    _ => Admission::Unknown,
                };
                if admission == Admission::Unknown {
                    keys.gate.own_counts_decide();
                }
                inbox.events.push(ClusterEvent::Admitted { ticket, admission });
            }
            (Some(Asked::Users), Outcome::Done(reply)) => {
                figures.users.store(reply.unsigned().unwrap_or(0), Relaxed);
            }
            (Some(Asked::Sweep), Outcome::Done(reply)) => {
                // An answer of another shape begins the walk anew.
                self.sweep_cursor = Swept::read(reply).map_or(0, |swept| swept.cursor);
            }
            (Some(Asked::Kept { revocation, .. }), Outcome::Done(_)) => keys.ledger.told(&revocation),
            // Its parcel is answered behind it, on the same link.
            (Some(Asked::Kept { ticket, .. }), _) => self.unkept.extend(ticket),
            (Some(Asked::Revocations), outcome) => inbox.events.extend(revoked::read(&mut keys.ledger, now, outcome)),
            _ => {}
        }
    }

    /// How many nodes got a parcel; `None` where nobody knows, or what it is about was not kept.
    fn parcel_answered(
        &mut self,
        ticket: Option<GatherTicket>,
        hint: Option<Hint>,
        outcome: Outcome<'_>,
        figures: &BridgeFigures,
    ) -> Option<u32> {
        let count = match outcome {
            Outcome::Done(reply) => reply.unsigned(),
            _ => {
                figures.not_sent();
                self.keep(hint);
                None
            }
        };
        if let Some(at) = self.unkept.iter().position(|unkept| Some(*unkept) == ticket) {
            self.unkept.swap_remove(at);
            return None;
        }
        count.and_then(|count| u32::try_from(count).ok())
    }
}

fn position_of(parcel: &Parcel) -> Option<Position> {
    match parcel.kind {
        ParcelKind::Hint { position, .. } => Some(position),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::cluster::wire::Published;
    use protocol::ids::{NotificationId, TenantId};
    use protocol::notification::Priority;
    use protocol::stream::StreamSeq;

    fn hint(user: &str, position: u64) -> Option<Hint> {
        let tenant = TenantId::default_tenant();
        let published = Published {
            id: NotificationId::NIL,
            tenant: tenant.clone(),
            priority: Priority::Normal,
            expires_at_unix_ms: None,
            stream: StreamSeq::default(),
            ticket: None,
            message: "".into(),
        };
        let position = Position(position, 0);
        let kind = ParcelKind::Hint { user: user.into(), published, position, before: None, attempt: 1 };
        let parcel = Parcel { from_server: "n1".into(), to_server: None, kind };
        Some((Topic::User(tenant, user.into()), Arc::new(parcel)))
    }

    #[test]
    fn the_youngest_hint_of_a_user_is_kept_whichever_is_given_back_first() {
        let mut answers = Answers::default();
        // What is taken while its place is moved is told as not sent when its time is over; what is newer was not taken.
        for (user, position) in [("ana", 2), ("ben", 1), ("ana", 1), ("ben", 2)] {
            answers.keep(hint(user, position));
        }
        for user in ["ana", "ben"] {
            let of_user = Topic::User(TenantId::default_tenant(), user.into());
            assert_eq!(answers.take_unsent(|topic| *topic == of_user).pop(), hint(user, 2));
        }
    }
}
