//! What the store waits for: one command each, and what it will mean when it is answered.
use crate::figures::{StoreFigures, StoreOperation};
use crate::postgres::command::Row;
use crate::postgres::reply::Reply;
use crate::postgres::schema::Changes;
use crate::postgres::store::mail::{Appending, Page, ReadMail};
use crate::postgres::store::templates::Templates;
use protocol::store::{AckVerdict, StoreReply, StoreTicket};

/// A command that is under way.
#[derive(Debug)]
pub(super) struct Job {
    /// Whose request it answers; none where the store asks for itself.
    pub(super) ticket: Option<StoreTicket>,
    pub(super) begun_us: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Append(Appending),
    Read {
        request: ReadMail,
        page: Page,
        /// The server may change what it reads.
        changes: bool,
    },
    Begin,
    Remove,
    Discard,
    Track,
    Acknowledge(AckVerdict),
    PutTemplate,
    DeleteTemplate,
    LoadTemplates(Templates),
    Schema(Changes),
    SweepMail {
        rows: u64,
    },
    SweepAcks {
        rows: u64,
    },
    SweepClaims {
        rows: u64,
    },
    SweepLately {
        rows: u64,
    },
    MailFigures([u64; 7]),
    AckFigures([u64; 5]),
    Probe,
}

impl What {
    /// Under which word it is counted; making the tables is not.
    pub(super) fn operation(&self) -> Option<StoreOperation> {
        Some(match self {
            Self::Append(_) => StoreOperation::Append,
            Self::Read { .. } => StoreOperation::Read,
            Self::Begin => StoreOperation::Begin,
            Self::Remove | Self::Discard => StoreOperation::Remove,
            Self::Track => StoreOperation::Track,
            Self::Acknowledge(_) => StoreOperation::Acknowledge,
            Self::PutTemplate | Self::DeleteTemplate | Self::LoadTemplates(_) => StoreOperation::Template,
            Self::SweepMail { .. } | Self::SweepAcks { .. } => StoreOperation::Sweep,
            Self::SweepClaims { .. } | Self::SweepLately { .. } => StoreOperation::Sweep,
            Self::MailFigures(_) | Self::AckFigures(_) | Self::Probe => StoreOperation::Stats,
            Self::Schema(_) => return None,
        })
    }

    /// Whether a server that takes no changes refuses it.
    pub(super) fn changes(&self) -> bool {
        match self {
            Self::Read { changes, .. } => *changes,
            Self::LoadTemplates(_) | Self::MailFigures(_) | Self::AckFigures(_) | Self::Schema(_) => false,
            _ => true,
        }
    }

    /// It is done once more: what was heard does not count.
    pub(super) fn again(&mut self) {
        match self {
            Self::Append(appending) => appending.again(),
            Self::Read { page, .. } => *page = Page::default(),
            Self::Acknowledge(verdict) => *verdict = AckVerdict::NotPending,
            Self::LoadTemplates(templates) => *templates = Templates::default(),
            _ => {}
        }
    }

    pub(super) fn heard_row(&mut self, row: &Row<'_>) {
        match self {
            Self::Append(appending) => appending.heard_row(row),
            Self::Read { page, .. } => page.heard_row(row),
            Self::Acknowledge(verdict) => {
                *verdict = if row.boolean(0) == Some(true) { AckVerdict::Done } else { AckVerdict::Late };
            }
            Self::LoadTemplates(templates) => templates.heard_row(row),
            Self::Schema(changes) => changes.hear(&Reply::Row(*row)),
            Self::SweepMail { rows }
            | Self::SweepAcks { rows }
            | Self::SweepClaims { rows }
            | Self::SweepLately { rows } => *rows = count(row, 0),
            Self::MailFigures(figures) => *figures = std::array::from_fn(|column| count(row, column)),
            Self::AckFigures(figures) => *figures = std::array::from_fn(|column| count(row, column)),
            _ => {}
        }
    }

    /// The answer to whoever asked, now that it is done; `rows` were changed or handed out.
    pub(super) fn reply(self, rows: u64) -> StoreReply {
        match self {
            Self::Append(appending) => appending.reply(),
            Self::Read { page, .. } => page.reply(),
            Self::Acknowledge(verdict) => StoreReply::Acknowledged(verdict),
            Self::LoadTemplates(templates) => StoreReply::Templates(templates.all()),
            // The tenant has as many as it may have.
            Self::PutTemplate if rows == 0 => StoreReply::Failed,
            _ => StoreReply::Done,
        }
    }
}

fn count(row: &Row<'_>, column: usize) -> u64 {
    row.int8(column).and_then(|count| count.try_into().ok()).unwrap_or(0)
}

/// Notes the figures of mail, in the order of their statement.
pub(super) fn note_mail(figures: &StoreFigures, [users, depth, enqueued, dropped, expired, delivered, bad]: [u64; 7]) {
    let mail = &figures.mail;
    mail.users.set(users);
    mail.depth.set(depth);
    mail.enqueued.set(enqueued);
    mail.dropped.set(dropped);
    mail.expired.set(expired);
    mail.delivered.set(delivered);
    mail.undecodable.set(bad);
}

/// Notes the figures of acknowledgements, in the order of their statement.
pub(super) fn note_acks(figures: &StoreFigures, [pending, tracked, acked, expired, latency_ms]: [u64; 5]) {
    let acks = &figures.acks;
    acks.pending.set(pending);
    acks.tracked.set(tracked);
    acks.acked.set(acked);
    acks.expired.set(expired);
    acks.latency_ms.set(latency_ms);
}
