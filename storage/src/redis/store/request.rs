//! A request that is not answered yet, and what its commands were sent for.
use crate::figures::{StoreOperation, StoreResult};
use crate::redis::store::templates::Load;
use protocol::clock::Now;
use protocol::store::{AckVerdict, MailboxKey, Position, StoreReply, StoreTicket};
use std::sync::Arc;

/// What a command was sent for.
#[derive(Debug)]
pub(super) enum What {
    /// A request, or a part of it.
    Part(StoreTicket),
    /// A page of mail.
    Page(StoreTicket, Arc<MailboxKey>),
    /// Some templates of all.
    Templates(StoreTicket),
    /// One of them, by its field.
    Template(StoreTicket, Vec<u8>),
    /// What was found of no use in a mailbox goes.
    Tidy,
    /// Whether the server takes a write.
    Probe,
    /// Which mailboxes are due; since when, in microseconds.
    Due(u64),
    /// One of them is swept.
    Sweep(u64),
    /// Acknowledgements are given up.
    Expire(u64),
    /// Figures of all mailboxes.
    MailFigures(u64),
    /// Figures of all acknowledgements.
    AckFigures(u64),
}

impl What {
    /// Under what it is counted, and since when it is asked, for what no shard waits for.
    pub(super) fn chore(&self) -> Option<(StoreOperation, u64)> {
        match self {
            What::Due(asked_us) | What::Sweep(asked_us) | What::Expire(asked_us) => {
                Some((StoreOperation::Sweep, *asked_us))
            }
            What::MailFigures(asked_us) | What::AckFigures(asked_us) => Some((StoreOperation::Stats, *asked_us)),
            What::Part(_) | What::Page(..) | What::Templates(_) | What::Template(..) | What::Tidy | What::Probe => None,
        }
    }
}

/// How far a request is.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) operation: StoreOperation,
    pub(super) asked_us: u64,
    /// Commands that are not answered.
    pub(super) left: usize,
    pub(super) done: bool,
    pub(super) failed: bool,
    pub(super) unknown: bool,
    pub(super) positions: Vec<Position>,
    pub(super) dropped: u64,
    pub(super) verdict: Option<AckVerdict>,
    /// The page that was asked for.
    pub(super) page: Option<StoreReply>,
    /// All templates, as far as they came.
    pub(super) load: Option<Load>,
}

impl Request {
    pub(super) fn new(operation: StoreOperation, now: Now) -> Request {
        Request {
            operation,
            asked_us: now.mono_us,
            left: 0,
            done: false,
            failed: false,
            unknown: false,
            positions: Vec::new(),
            dropped: 0,
            verdict: None,
            page: None,
            load: None,
        }
    }

    /// What it came to, when nothing is left of it.
    pub(super) fn reply(self) -> (StoreResult, StoreReply) {
        // Reading a part of the templates changes nothing, whatever became of the rest.
        if self.unknown || self.failed && self.done && self.load.is_none() {
            return (StoreResult::Unknown, StoreReply::Unknown);
        }
        if self.failed {
            return (StoreResult::Failed, StoreReply::Failed);
        }
        let reply = match (self.operation, self.page, self.verdict, self.load) {
            (StoreOperation::Append, ..) => {
                StoreReply::Appended { positions: self.positions, before: None, dropped: self.dropped }
            }
            (_, Some(page), ..) => page,
            (_, _, Some(verdict), _) => StoreReply::Acknowledged(verdict),
            (_, _, _, Some(load)) => StoreReply::Templates(load.all()),
            _ => StoreReply::Done,
        };
        (StoreResult::Ok, reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_several_commands_is_unknown_unless_they_agree() {
        let rows = [
            (true, false, false, "Done"),
            (false, true, false, "Failed"),
            (true, true, false, "Unknown"),
            (false, false, true, "Unknown"),
            (true, false, true, "Unknown"),
            (false, true, true, "Unknown"),
            (false, false, false, "Done"),
        ];
        for (done, failed, unknown, expected) in rows {
            let request = Request { done, failed, unknown, ..Request::new(StoreOperation::Remove, Now::default()) };
            assert_eq!(format!("{:?}", request.reply().1), expected, "{done} {failed} {unknown}");
        }
    }
}
