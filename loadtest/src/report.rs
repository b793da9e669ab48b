//! What a run found: for people a table, for programs JSON, for the shell an exit code.
pub mod replay;

use self::replay::{ReplayFigures, ReplayTimes};
use crate::args::{IdleArgs, RunArgs};
use crate::machine;
use crate::process::Usage;
use crate::verify::Tally;
use crate::worker::{Harvest, Scene};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::fmt::Write as _;

/// A rate was held when not more than this part of its publishes was never written.
const OVERDUE_PART_MAX: f64 = 0.01;
/// Publishes due in the last moments of the measured phase may be behind one that has no answer yet.
const OVERDUE_SECONDS_MAX: f64 = 0.05;
/// Above this use of its own cores the generator itself may be what was measured.
const GENERATOR_BUSY_MAX: f64 = 0.95;

/// The measured phase, timed from both sides.
pub struct Span<'a> {
    usage: &'a dyn Fn() -> Option<Usage>,
    begun: Option<Mark>,
    ended: Option<Mark>,
    /// Publishes due and never written.
    pub overdue: u64,
    /// From the end of the measured phase until all had come.
    pub drain_us: u64,
    /// Publishes without an answer when the drain's deadline passed.
    pub unanswered: u64,
}

#[derive(Clone, Copy)]
struct Mark {
    at_us: u64,
    own_cpu_us: u64,
    server: Option<Usage>,
}

impl<'a> Span<'a> {
    /// Not begun yet.
    pub fn new(usage: &'a dyn Fn() -> Option<Usage>) -> Span<'a> {
        Span { usage, begun: None, ended: None, overdue: 0, drain_us: 0, unanswered: 0 }
    }

    fn mark(&self) -> Option<Mark> {
        Some(Mark { at_us: machine::now_us(), own_cpu_us: machine::cpu_us(), server: (self.usage)() })
    }

    /// The measured phase begins.
    pub fn begin(&mut self) {
        self.begun = self.mark();
    }

    /// It ends.
    pub fn end(&mut self) {
        self.ended = self.mark();
    }

    /// What it cost.
    pub fn measured(&self) -> Measured {
        let (Some(begun), Some(ended)) = (self.begun, self.ended) else { return Measured::default() };
        let server = begun.server.zip(ended.server);
        Measured {
            seconds: (ended.at_us - begun.at_us) as f64 / 1e6,
            own_cpu_seconds: (ended.own_cpu_us - begun.own_cpu_us) as f64 / 1e6,
            server_cpu_seconds: server.map(|(begun, ended)| ended.cpu_us.saturating_sub(begun.cpu_us) as f64 / 1e6),
            overdue: self.overdue,
            drain_us: self.drain_us,
            unanswered: self.unanswered,
        }
    }
}

/// The measured phase in figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// How long it was.
    pub seconds: f64,
    /// The generator's CPU.
    pub own_cpu_seconds: f64,
    /// The server's CPU, when its process is known.
    pub server_cpu_seconds: Option<f64>,
    overdue: u64,
    drain_us: u64,
    unanswered: u64,
}

/// Everything the threads brought back.
#[derive(Debug, Default)]
pub struct Findings {
    /// The server before the first connect.
    pub before: Option<Usage>,
    /// The server with everybody connected.
    pub connected: Option<Usage>,
    /// The server at the end.
    pub after: Option<Usage>,
    /// From the first connect until the last client could receive.
    pub connect_span_us: u64,
    /// The measured phase.
    pub span: Measured,
    /// The phases of a replay.
    pub replay: ReplayTimes,
    tally: Tally,
    open: u64,
    lost: u64,
    published: u64,
    expected: u64,
    publish: PublishFigures,
    refusals: Vec<String>,
}

impl Findings {
    /// Adds up the threads; the first one's publishers tell what was to be received.
    pub fn gather(&mut self, threads: Vec<Harvest>) {
        if let Some(first) = threads.first() {
            let outbox = &first.outbox;
            self.lost = threads.iter().map(|thread| thread.lost(&outbox.published, &outbox.refused)).sum();
            self.published = outbox.written;
            self.expected = outbox.expected.max(0) as u64;
            self.publish = PublishFigures {
                answered: outbox.answered,
                accepted_measured: outbox.answered_measured,
                refused: outbox.refusals,
                delivered_to: outbox.delivered_to,
                answer: Percentiles::of(&outbox.answer_us),
                lateness: Percentiles::of(&outbox.lateness_us),
            };
            self.refusals = outbox.troubles.clone();
        }
        self.open = threads.iter().map(|thread| thread.open).sum();
        threads.into_iter().for_each(|thread| self.tally.merge(thread.tally));
    }
}

/// A latency distribution, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Percentiles {
    /// How many were recorded.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 95 %.
    pub p95_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// Worst.
    pub max_us: u64,
}

impl Percentiles {
    /// The percentiles of what was recorded.
    pub fn of(histogram: &Histogram<u64>) -> Percentiles {
        Percentiles {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p95_us: histogram.value_at_quantile(0.95),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }
}

/// The publishers' side.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PublishFigures {
    /// Answers to publishes.
    pub answered: u64,
    /// Taken notifications that were due in the measured phase.
    pub accepted_measured: u64,
    /// Notifications not taken.
    pub refused: u64,
    /// Sum of what the answers named: deliveries (in a replay mailboxes) by REST, Redis clients by Redis.
    pub delivered_to: u64,
    /// From the time a publish was due until its answer.
    pub answer: Percentiles,
    /// From the time a publish was due until it was written: the generator's own part.
    pub lateness: Percentiles,
}

/// A run's result.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `run`, `replay` or `idle`.
    pub scenario: &'static str,
    /// What was asked for, in one line.
    pub title: String,
    /// The run's name, as in its payloads.
    pub run: String,
    /// Clients.
    pub clients: u32,
    /// Of these, still receiving at the end.
    pub open_at_end: u64,
    /// Clients connected in a second.
    pub connects_per_second: f64,
    /// From the start of a connect until the client can receive.
    pub connect: Percentiles,
    /// Length of the measured phase (or of the hold).
    pub seconds: f64,
    /// Notifications published in all phases; a batch has several.
    pub published: u64,
    /// Deliveries they were to bring.
    pub expected: u64,
    /// Messages received, each counted once.
    pub received: u64,
    /// Of these, in the measured phase.
    pub received_measured: u64,
    /// Deliveries a second in the measured phase.
    pub deliveries_per_second: f64,
    /// Bytes read from the clients' sockets.
    pub bytes: u64,
    /// From the time a publish was due until a client read it.
    pub latency: Percentiles,
    /// The publishers' side.
    pub publish: PublishFigures,
    /// Never arrived.
    pub lost: u64,
    /// Arrived more than once.
    pub duplicates: u64,
    /// Arrived out of order.
    pub disordered: u64,
    /// Arrived where they did not belong.
    pub strays: u64,
    /// Notifications of somebody else.
    pub foreign: u64,
    /// Wrong by the full check, or not of the contract.
    pub malformed: u64,
    /// Messages the full check read.
    pub verified: u64,
    /// `error` messages.
    pub errors: u64,
    /// Connections the server ended, where that was not to be expected.
    pub closed: u64,
    /// Clients that stopped reading.
    pub slow_clients: u32,
    /// Of these, closed by the server for it.
    pub slow_closed: u64,
    /// Of these, told why by a Close frame with 4008; the others' frame was behind what they did not read.
    pub slow_closed_4008: u64,
    /// Heartbeats and pings.
    pub heartbeats: u64,
    /// From the end of publishing until everything had come.
    pub drain_seconds: f64,
    /// The generator's CPU in the measured phase, as a part of its threads' time.
    pub generator_busy: f64,
    /// The server, when its process is known.
    pub server: Option<ServerFigures>,
    /// What only a replay has.
    pub replay: Option<ReplayFigures>,
    /// What to know when reading the figures.
    pub warnings: Vec<String>,
    /// Why the run failed; empty when it did not.
    pub failures: Vec<String>,
}

/// The server's side.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ServerFigures {
    /// Resident before the first connect.
    pub rss_before_bytes: u64,
    /// Resident with everybody connected.
    pub rss_connected_bytes: u64,
    /// Resident at the end.
    pub rss_end_bytes: u64,
    /// What one connection added.
    pub rss_per_connection_bytes: f64,
    /// CPU in the measured phase.
    pub cpu_seconds: f64,
    /// CPU for a million deliveries of the measured phase.
    pub cpu_seconds_per_million_deliveries: Option<f64>,
}

impl Report {
    /// The report of `run`.
    pub fn of_load(args: &RunArgs, rate: f64, scene: &Scene, findings: Findings) -> Report {
        let pace = if rate > 0.0 { format!("{rate}/s") } else { format!("flat out, window {}", args.window) };
        let aim = match scene.plan.batch_size {
            Some(size) => format!("Batch of {size}"),
            None => format!("{:?}", args.aim),
        };
        let title = format!(
            "{} {:?} clients, {} channels, {aim} by {:?}, {pace}, {} bytes, {} publishers",
            scene.audience.clients,
            scene.audience.transport,
            scene.audience.channels,
            args.door.publish,
            args.door.size,
            scene.plan.publishers,
        );
        let due = rate * findings.span.seconds;
        let overdue = findings.span.overdue;
        let unanswered = findings.span.unanswered;
        let refusals = findings.refusals.clone();
        let mut report = Report::new("run", title, scene, findings);
        let failures = &mut report.failures;
        if rate > 0.0 && overdue as f64 > due * OVERDUE_PART_MAX + rate * OVERDUE_SECONDS_MAX {
            failures.push(format!("the rate was not held: {overdue} publishes that were due were never written"));
        }
        not_taken(report.publish.refused, &refusals, unanswered, failures);
        if report.received_measured == 0 {
            failures.push("nothing arrived in the measured phase".to_owned());
        }
        let latency = report.latency;
        above("p95", latency.p95_us, args.p95_ms, failures);
        above("p99", latency.p99_us, args.p99_ms, failures);
        if let Some(limit) = args.min_rate
            && report.deliveries_per_second < limit
        {
            failures.push(format!("{:.0} deliveries/s are fewer than {limit}", report.deliveries_per_second));
        }
        report
    }

    /// The report of `idle`.
    pub fn of_idle(args: &IdleArgs, scene: &Scene, findings: Findings) -> Report {
        let transport = scene.audience.transport;
        let title = format!("{} idle {transport:?} clients, held {} s", scene.audience.clients, args.hold);
        Report::new("idle", title, scene, findings)
    }

    fn new(scenario: &'static str, title: String, scene: &Scene, findings: Findings) -> Report {
        let Findings { span, tally, .. } = &findings;
        let clients = scene.audience.clients;
        let per_second = |count: u64| if span.seconds > 0.0 { count as f64 / span.seconds } else { 0.0 };
        let generator_busy = span.own_cpu_seconds / (span.seconds * f64::from(scene.threads)).max(f64::MIN_POSITIVE);
        let server = findings.before.zip(findings.connected).zip(findings.after).map(|((before, connected), end)| {
            let grown = connected.rss_bytes as f64 - before.rss_bytes as f64;
            let cpu_seconds = span.server_cpu_seconds.unwrap_or(0.0);
            let millions = tally.received_measured as f64 / 1e6;
            ServerFigures {
                rss_before_bytes: before.rss_bytes,
                rss_connected_bytes: connected.rss_bytes,
                rss_end_bytes: end.rss_bytes,
                rss_per_connection_bytes: grown / f64::from(clients),
                cpu_seconds,
                cpu_seconds_per_million_deliveries: (millions > 0.0).then(|| cpu_seconds / millions),
            }
        });
        let mut report = Report {
            scenario,
            title,
            run: scene.run.clone(),
            clients,
            open_at_end: findings.open,
            connects_per_second: f64::from(clients) * 1e6 / findings.connect_span_us.max(1) as f64,
            connect: Percentiles::of(&tally.connect_us),
            seconds: span.seconds,
            published: findings.published,
            expected: findings.expected,
            received: tally.received,
            received_measured: tally.received_measured,
            deliveries_per_second: per_second(tally.received_measured),
            bytes: tally.bytes,
            latency: Percentiles::of(&tally.latency_us),
            publish: findings.publish,
            lost: findings.lost,
            duplicates: tally.duplicates,
            disordered: tally.late,
            strays: tally.strays,
            foreign: tally.foreign,
            malformed: tally.malformed,
            verified: tally.verified,
            errors: tally.errors,
            closed: tally.closed,
            slow_clients: scene.audience.slow_clients(),
            slow_closed: tally.slow_closed,
            slow_closed_4008: tally.slow_closed_4008,
            heartbeats: tally.heartbeats,
            drain_seconds: span.drain_us as f64 / 1e6,
            generator_busy,
            server,
            replay: None,
            warnings: tally.troubles.clone(),
            failures: Vec::new(),
        };
        if generator_busy > GENERATOR_BUSY_MAX {
            report.warnings.push(format!(
                "the generator used {:.0} % of its threads: it may be what was measured",
                generator_busy * 100.0
            ));
        }
        let checks = [
            (report.lost, "messages were lost"),
            (report.duplicates, "messages came twice"),
            (report.disordered, "messages came out of order"),
            (report.strays, "messages came to clients they were not for"),
            (report.malformed, "messages were wrong"),
            (report.errors, "error messages came"),
            (report.closed, "connections were closed by the server"),
        ];
        report.failures = checks.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        report
    }

    /// The report for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<28} {value}");
        };
        row("scenario", format!("{}: {}", self.scenario, self.title));
        row("clients open at the end", format!("{} of {}", self.open_at_end, self.clients));
        row("connects/s", format!("{:.0}", self.connects_per_second));
        row("connect", distribution(&self.connect));
        row("measured", format!("{:.3} s", self.seconds));
        if let Some(replay) = &self.replay {
            replay.rows(self, &mut row);
        }
        if self.scenario == "run" {
            row("published", format!("{} ({} taken while measured)", self.published, self.publish.accepted_measured));
            row("received", format!("{} of {}", self.received, self.expected));
            row("deliveries/s", format!("{:.0}", self.deliveries_per_second));
            row("latency", distribution(&self.latency));
            row("publish answered", distribution(&self.publish.answer));
            row("publish written late by", distribution(&self.publish.lateness));
            row("answers' delivered_to", self.publish.delivered_to.to_string());
            row("refused", self.publish.refused.to_string());
            row("drain", format!("{:.3} s", self.drain_seconds));
        }
        row("lost", self.lost.to_string());
        row("duplicates", self.duplicates.to_string());
        row("out of order", self.disordered.to_string());
        row("strays / foreign", format!("{} / {}", self.strays, self.foreign));
        row("malformed", format!("{} ({} messages fully read)", self.malformed, self.verified));
        row("errors / closed", format!("{} / {}", self.errors, self.closed));
        if self.slow_clients > 0 {
            row(
                "slow clients",
                format!("{}, {} closed, {} with 4008", self.slow_clients, self.slow_closed, self.slow_closed_4008),
            );
        }
        row("heartbeats", self.heartbeats.to_string());
        row("generator busy", format!("{:.0} %", self.generator_busy * 100.0));
        if let Some(server) = &self.server {
            let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
            row(
                "server RSS",
                format!(
                    "{:.1} MiB before, {:.1} connected, {:.1} at the end",
                    mib(server.rss_before_bytes),
                    mib(server.rss_connected_bytes),
                    mib(server.rss_end_bytes)
                ),
            );
            // A replay empties mailboxes while it connects, so that the difference would be of both.
            if self.replay.is_none() {
                row("server RSS per connection", format!("{:.0} bytes", server.rss_per_connection_bytes));
            }
            row("server CPU", format!("{:.2} s", server.cpu_seconds));
            if let Some(figure) = server.cpu_seconds_per_million_deliveries {
                row("server CPU per 1M deliveries", format!("{figure:.3} s"));
            }
        }
        self.warnings.iter().for_each(|text| row("note", text.clone()));
        self.failures.iter().for_each(|text| row("FAILED", text.clone()));
        row("result", if self.failures.is_empty() { "passed".to_owned() } else { "failed".to_owned() });
        out
    }
}

/// A percentile that is above its limit fails the run.
fn above(name: &str, us: u64, limit_ms: Option<f64>, failures: &mut Vec<String>) {
    if let Some(limit_ms) = limit_ms
        && us as f64 > limit_ms * 1e3
    {
        failures.push(format!("{name} {:.3} ms is above {limit_ms} ms", us as f64 / 1e3));
    }
}

/// Notifications the server did not take, or did not answer.
fn not_taken(refused: u64, refusals: &[String], unanswered: u64, failures: &mut Vec<String>) {
    if refused > 0 {
        failures.push(format!("{refused} notifications were refused: {}", refusals.join("; ")));
    }
    if unanswered > 0 {
        failures.push(format!("{unanswered} notifications were never answered"));
    }
}

fn distribution(figures: &Percentiles) -> String {
    if figures.count == 0 {
        return "-".to_owned();
    }
    let ms = |us: u64| us as f64 / 1e3;
    format!(
        "p50 {:.3}  p90 {:.3}  p95 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3} ms ({})",
        ms(figures.p50_us),
        ms(figures.p90_us),
        ms(figures.p95_us),
        ms(figures.p99_us),
        ms(figures.p999_us),
        ms(figures.max_us),
        figures.count
    )
}
