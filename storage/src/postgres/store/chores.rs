//! What a store does unasked: it makes its tables, sweeps, asks for the figures, and looks whether a server that refuses
//! to write still does.
use crate::backend::Chores;
use crate::postgres::command::{Command, Statement};
use crate::postgres::error::SqlState;
use crate::postgres::schema::{self, Changes};
use crate::postgres::store::PostgresStoreConfig;
use crate::postgres::store::job::What;
use crate::postgres::store::statements::{
    ACK_FIGURES, MAIL_FIGURES, PROBE, SWEEP_ACKS, SWEEP_CLAIMS, SWEEP_LATELY, SWEEP_MAIL, SWEEPS,
};
use protocol::clock::Now;
use protocol::limits;

/// Whether the tables are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// They are to be made then.
    Missing {
        at_us: u64,
    },
    /// The script is under way.
    Asked,
    There,
}

/// Something to do again and again. `None`: it is under way.
#[derive(Clone, Copy, Debug)]
struct Timer {
    at_us: Option<u64>,
    interval_us: u64,
}

impl Timer {
    fn every(interval_ms: u64) -> Timer {
        // At the first turn, and then in its interval, at least a millisecond.
        Timer { at_us: Some(0), interval_us: interval_ms.max(1).saturating_mul(1_000) }
    }

    fn take_due(&mut self, now_us: u64) -> bool {
        self.at_us.take_if(|at_us| *at_us <= now_us).is_some()
    }

    fn again(&mut self, now_us: u64) {
        self.at_us = Some(now_us.saturating_add(self.interval_us));
    }
}

/// When to do what.
#[derive(Debug)]
pub(super) struct Rota {
    pub(super) tables: Tables,
    sweep_mail: Option<Timer>,
    sweep_acks: Option<Timer>,
    sweep_claims: Option<Timer>,
    sweep_lately: Option<Timer>,
    mail_figures: Option<Timer>,
    ack_figures: Option<Timer>,
    probe: Timer,
    /// The server is there and refuses to write.
    pub(super) is_refused: bool,
    /// Why the tables could not be made the last time; said once.
    last_refusal: Option<SqlState>,
}

impl Rota {
    pub(super) fn new(config: &PostgresStoreConfig) -> Rota {
        let chore = |on: bool, interval_ms: fn(&Chores) -> u64| {
            config.chores.as_ref().filter(|_| on).map(|chores| Timer::every(interval_ms(chores)))
        };
        let (queue, acks) = (config.queue.is_some(), config.acks.is_some());
        Rota {
            tables: Tables::Missing { at_us: 0 },
            sweep_mail: chore(queue, |chores| chores.queue_interval_ms),
            sweep_acks: chore(acks, |chores| chores.ack_interval_ms),
            sweep_claims: chore(queue, |chores| chores.queue_interval_ms),
            sweep_lately: chore(queue, |chores| chores.queue_interval_ms.min(limits::STORE_LINGER_MS)),
            mail_figures: chore(queue, |chores| chores.figures_interval_ms),
            ack_figures: chore(acks, |chores| chores.figures_interval_ms),
            probe: Timer::every(limits::POSTGRES_PROBE_INTERVAL_MS),
            is_refused: false,
            last_refusal: None,
        }
    }

    /// What is due now. It is under way until [`Rota::ended`].
    pub(super) fn due(&mut self, now: Now) -> Vec<(Command, What)> {
        let mut due = Vec::new();
        match self.tables {
            Tables::Missing { at_us } if at_us <= now.mono_us => {
                self.tables = Tables::Asked;
                let script = schema::command(limits::POSTGRES_SCHEMA_DEADLINE_MS);
                due.push((script, What::Schema(Changes::default())));
            }
            Tables::Missing { .. } | Tables::Asked => {}
            Tables::There => {
                let chore = |statement: &'static Statement| Command::new(statement, limits::POSTGRES_CHORE_DEADLINE_MS);
                let rows_max = i64::from(limits::POSTGRES_SWEEP_ROWS_MAX);
                let sweep = |statement: &'static Statement| {
                    chore(statement).locked(SWEEPS).timestamp(now.unix_ns).int8(rows_max)
                };
                let is_due = |timer: &mut Option<Timer>| timer.as_mut().is_some_and(|t| t.take_due(now.mono_us));
                if is_due(&mut self.sweep_mail) {
                    due.push((sweep(&SWEEP_MAIL), What::SweepMail { rows: 0 }));
                }
                if is_due(&mut self.sweep_acks) {
                    due.push((sweep(&SWEEP_ACKS), What::SweepAcks { rows: 0 }));
                }
                if is_due(&mut self.sweep_claims) {
                    let kept_seconds = i64::from(limits::POSTGRES_CLAIM_KEPT_SECONDS);
                    let sweep = chore(&SWEEP_CLAIMS).locked(SWEEPS).int8(kept_seconds).int8(rows_max);
                    due.push((sweep, What::SweepClaims { rows: 0 }));
                }
                if is_due(&mut self.sweep_lately) {
                    let linger_ms = limits::STORE_LINGER_MS as i64;
                    let sweep = chore(&SWEEP_LATELY).locked(SWEEPS).int8(linger_ms).int8(rows_max);
                    due.push((sweep, What::SweepLately { rows: 0 }));
                }
                if is_due(&mut self.mail_figures) {
                    due.push((chore(&MAIL_FIGURES), What::MailFigures([0; 7])));
                }
                if is_due(&mut self.ack_figures) {
                    due.push((chore(&ACK_FIGURES), What::AckFigures([0; 5])));
                }
                if self.is_refused && self.probe.take_due(now.mono_us) {
                    due.push((chore(&PROBE), What::Probe));
                }
            }
        }
        due
    }

    /// Something of the store's own has ended; `is_done` unless it failed.
    pub(super) fn ended(&mut self, now_us: u64, what: &What, is_done: bool) {
        let again = |timer: &mut Option<Timer>, has_more: bool| {
            if let Some(timer) = timer {
                timer.again(now_us);
                // A sweep that took all it may take goes on at once.
                timer.at_us = if has_more { Some(now_us) } else { timer.at_us };
            }
        };
        let is_full = |rows: u64| is_done && rows >= u64::from(limits::POSTGRES_SWEEP_ROWS_MAX);
        match what {
            What::Schema(_) if is_done => self.tables = Tables::There,
            What::Schema(_) => {
                self.tables = Tables::Missing { at_us: now_us + limits::POSTGRES_SCHEMA_RETRY_MS * 1_000 };
            }
            What::SweepMail { rows } => again(&mut self.sweep_mail, is_full(*rows)),
            What::SweepAcks { rows } => again(&mut self.sweep_acks, is_full(*rows)),
            What::SweepClaims { rows } => again(&mut self.sweep_claims, is_full(*rows)),
            What::SweepLately { rows } => again(&mut self.sweep_lately, is_full(*rows)),
            What::MailFigures(_) => again(&mut self.mail_figures, false),
            What::AckFigures(_) => again(&mut self.ack_figures, false),
            What::Probe => self.probe.again(now_us),
            _ => {}
        }
    }

    /// Somebody took the tables away.
    pub(super) fn tables_are_gone(&mut self, now_us: u64) {
        if self.tables == Tables::There {
            self.tables = Tables::Missing { at_us: now_us };
        }
    }

    /// Whether this is another reason than the last time.
    pub(super) fn is_news(&mut self, refusal: Option<SqlState>) -> bool {
        std::mem::replace(&mut self.last_refusal, refusal) != refusal && refusal.is_some()
    }

    /// When something is due.
    pub(super) fn wake_at_us(&self) -> Option<u64> {
        match self.tables {
            Tables::Missing { at_us } => Some(at_us),
            Tables::Asked => None,
            Tables::There => {
                let sweeps = [self.sweep_mail, self.sweep_acks, self.sweep_claims, self.sweep_lately];
                let figures = [self.mail_figures, self.ack_figures];
                let probe = Some(self.probe).filter(|_| self.is_refused);
                sweeps.into_iter().chain(figures).chain([probe]).flatten().filter_map(|timer| timer.at_us).min()
            }
        }
    }
}
