//! What only a replay has: how long storing took, the backlog, and emptying the mailboxes.
use super::{Findings, Percentiles, Report, Span, above, distribution, not_taken};
use crate::args::ReplayArgs;
use crate::scenario::Audience;
use crate::worker::Scene;
use serde::Serialize;

/// When what happened.
#[derive(Clone, Debug, Default)]
pub struct ReplayTimes {
    store_seconds: f64,
    store_cpu_seconds: Option<f64>,
    /// Notifications without an answer when storing was over.
    pub unanswered: u64,
    /// What `/health` counted before the first publish, when it was asked.
    pub kept_before: Option<u64>,
    /// What `/health` counted wrongly after the last publish.
    pub uncounted: Option<String>,
    /// When clients were let in, on the monotonic clock.
    pub opened_us: u64,
    /// When `/health` counted no more than before the run.
    pub emptied_us: Option<u64>,
    /// What it counted beyond that when the deadline passed.
    pub left: u64,
}

impl ReplayTimes {
    /// Everything is stored: ends the span that storing was.
    pub fn end_storing(&mut self, span: &mut Span) {
        span.end();
        let measured = span.measured();
        self.store_seconds = measured.seconds;
        self.store_cpu_seconds = measured.server_cpu_seconds;
    }
}

/// The figures of a replay.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayFigures {
    /// From the first publish until everything was stored.
    pub store_seconds: f64,
    /// Notifications stored in a second.
    pub stored_per_second: f64,
    /// The server's CPU while storing.
    pub store_cpu_seconds: Option<f64>,
    /// From the first connect until the last client had everything.
    pub seconds: f64,
    /// Messages a second over that time.
    pub messages_per_second: f64,
    /// Clients that had everything, and the time from each one's connect.
    pub complete: Percentiles,
    /// Acknowledgements sent.
    pub acks: u64,
    /// Of these, answered `acked`.
    pub acked: u64,
    /// From the first connect until the last `acked`.
    pub acked_seconds: Option<f64>,
    /// From the first connect until `/health` counted no more than before the run; exact to how often it counts.
    pub emptied_seconds: Option<f64>,
    /// What it counted beyond that when the deadline passed.
    pub left: u64,
}

impl ReplayFigures {
    fn of(findings: &Findings) -> ReplayFigures {
        let (times, tally) = (&findings.replay, &findings.tally);
        let since_opened = |at_us: u64| at_us.saturating_sub(times.opened_us) as f64 / 1e6;
        let per_second = |count: u64, seconds: f64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        // Without a last one the phase is over when its deadline passed.
        let complete = tally.backlog_us.len() == tally.connect_us.len();
        let seconds = if complete { since_opened(tally.backlog_done_us) } else { findings.span.seconds };
        let stored = findings.published - findings.publish.refused;
        ReplayFigures {
            store_seconds: times.store_seconds,
            stored_per_second: per_second(stored, times.store_seconds),
            store_cpu_seconds: times.store_cpu_seconds,
            seconds,
            messages_per_second: per_second(tally.received, seconds),
            complete: Percentiles::of(&tally.backlog_us),
            acks: tally.acks,
            acked: tally.acked,
            acked_seconds: (tally.acked > 0).then(|| since_opened(tally.acked_us)),
            emptied_seconds: times.emptied_us.map(since_opened),
            left: times.left,
        }
    }

    /// The rows of the table that people read.
    pub(super) fn rows(&self, report: &Report, row: &mut dyn FnMut(&str, String)) {
        row("stored", format!("{} of {}", report.published - report.publish.refused, report.published));
        row("stored/s", format!("{:.0} ({:.3} s)", self.stored_per_second, self.store_seconds));
        if let Some(seconds) = self.store_cpu_seconds {
            row("server CPU while storing", format!("{seconds:.2} s"));
        }
        row("publish answered", distribution(&report.publish.answer));
        row("refused", report.publish.refused.to_string());
        row("replayed", format!("{} of {}", report.received, report.expected));
        row("all had everything after", format!("{:.3} s", self.seconds));
        row("replayed/s", format!("{:.0}", self.messages_per_second));
        row("user's last message after", distribution(&self.complete));
        if let Some(seconds) = self.acked_seconds {
            row("acknowledged", format!("{} of {}, the last after {seconds:.3} s", self.acked, self.acks));
        }
        if let Some(seconds) = self.emptied_seconds {
            row("mailboxes empty after", format!("{seconds:.3} s, as /health tells"));
        }
    }
}

impl Report {
    /// The report of `replay`.
    pub fn of_replay(args: &ReplayArgs, scene: &Scene, findings: Findings) -> Report {
        let Audience { clients, transport, .. } = &scene.audience;
        let title = format!(
            "{} messages for each of {clients} {transport:?} clients by {:?}, {} bytes, {} publishers{}",
            args.messages,
            args.door.publish,
            args.door.size,
            scene.plan.publishers,
            if args.ack { ", acknowledged" } else { "" },
        );
        let figures = ReplayFigures::of(&findings);
        let times = findings.replay.clone();
        let refusals = findings.refusals.clone();
        let mut report = Report::new("replay", title, scene, findings);
        let failures = &mut report.failures;
        let unpublished = u64::from(*clients) * u64::from(args.messages) - report.published;
        if unpublished > 0 {
            failures.push(format!("{unpublished} notifications were not published within the deadline"));
        }
        not_taken(report.publish.refused, &refusals, times.unanswered, failures);
        failures.extend(times.uncounted);
        if figures.acked < figures.acks {
            failures.push(format!("{} acknowledgements were not answered", figures.acks - figures.acked));
        }
        if figures.left > 0 {
            failures.push(format!("{} notifications were not removed from their mailboxes", figures.left));
        }
        above("p95 of the users' times", figures.complete.p95_us, args.p95_ms, failures);
        above("p99 of the users' times", figures.complete.p99_us, args.p99_ms, failures);
        let rates = [
            ("stored notifications/s", figures.stored_per_second, args.min_stored),
            ("replayed messages/s", figures.messages_per_second, args.min_rate),
        ];
        for (what, rate, limit) in rates {
            if let Some(limit) = limit
                && rate < limit
            {
                failures.push(format!("{rate:.0} {what} are fewer than {limit}"));
            }
        }
        report.replay = Some(figures);
        report
    }
}
