//! Connect, warm-up, measured, drain: the course of a run, driven by the first thread.
use crate::args::{Args, Command, CommonArgs, DoorArg, DoorArgs, IdleArgs, RunArgs, VerifyArg};
use crate::arrival::Arrival;
use crate::error::LoadError;
use crate::machine;
use crate::payload::Stationery;
use crate::process::{Process, Usage};
use crate::publisher::redis::{RedisDoor, RedisUrl};
use crate::publisher::rest::RestDoor;
use crate::publisher::{Door, Publisher};
use crate::replay;
use crate::report::{Findings, Report, Span};
use crate::scenario::{Audience, Plan};
use crate::token::Signer;
use crate::worker::{Harvest, Scene, Shared, VERIFY_ONE_IN, Worker};
use std::sync::atomic::Ordering;

/// Longest single wait, so that deadlines are seen.
const WAIT_US_MAX: u64 = 10_000;
/// Wait between two looks at the window when flat out.
const WINDOW_WAIT_US: u64 = 50;
/// So long before a publish is due the waiting ends and the loop spins: about what a sleeping core takes to run again.
const WAKE_LEAD_US: u64 = 50;
/// Above this rate there is no lead. The core hardly sleeps then, and spinning must not become most of what it does.
const WAKE_LEAD_RATE_MAX: f64 = 5_000.0;
/// How long clients that stopped reading read on at the end.
const SLOW_READ_US: u64 = 500_000;
/// Longest phase that may be asked for, in seconds.
pub(crate) const PHASE_SECONDS_MAX: f64 = 6.0 * 3_600.0;
/// Publishes in a second, at most.
const RATE_MAX: f64 = 10_000_000.0;

/// Makes the run the flags describe.
pub fn run(args: &Args) -> Result<Report, LoadError> {
    match &args.command {
        Command::Run(args) => run_load(args),
        Command::Replay(args) => replay::run(args),
        Command::Idle(args) => run_idle(args),
    }
}

fn run_load(args: &RunArgs) -> Result<Report, LoadError> {
    let figures = args.profile.map(|profile| profile.figures());
    let clients = args.common.clients.or(figures.map(|figures| figures.clients)).unwrap_or(100);
    let ramp = figures.map(|figures| clients.div_ceil(figures.ramp_seconds));
    let connect_rate = args.common.connect_rate.or(ramp).unwrap_or(0);
    let rate = args.rate.or(figures.map(|figures| figures.rate)).unwrap_or(100.0);
    let seconds = args.seconds.or(figures.map(|figures| figures.seconds)).unwrap_or(10.0);
    within("--rate", rate, RATE_MAX)?;
    for (flag, value) in
        [("--seconds", seconds), ("--warm-up", args.warm_up), ("--drain-deadline", args.drain_deadline)]
    {
        within(flag, value, PHASE_SECONDS_MAX)?;
    }
    let mut audience = Audience::new(&args.common, clients)?;
    audience.slow_percent = args.slow_percent;
    let plan = Plan::new(args, &audience)?;
    let publishers = plan.publishers;
    let scene = scene(&args.common, audience, plan, args.door.size as usize, connect_rate)?;
    conduct(&args.common, &scene, |stage| {
        stage.connect()?;
        stage.settle()?;
        let Stage { worker, shared, span, .. } = stage;
        worker.employ(employ(&args.common, &args.door, &scene, 1)?)?;
        let start_us = machine::now_us();
        let measured_from_us = start_us + micros(args.warm_up);
        let measured_until_us = measured_from_us + micros(seconds);
        shared.measured_until_us.store(measured_until_us, Ordering::Relaxed);
        shared.measured_from_us.store(measured_from_us, Ordering::Relaxed);
        worker.schedule(|index| Arrival::new(rate, index, publishers, start_us));
        let pace = match rate {
            ..=0.0 => Pace::FlatOut { window: args.window },
            ..=WAKE_LEAD_RATE_MAX => Pace::Rate { lead_us: WAKE_LEAD_US },
            _ => Pace::Rate { lead_us: 0 },
        };
        publish_until(worker, measured_from_us, pace)?;
        span.begin();
        publish_until(worker, measured_until_us, pace)?;
        span.end();
        span.overdue = worker.overdue(measured_until_us);
        let drained = drain(worker, shared, micros(args.drain_deadline))?;
        span.drain_us = machine::now_us() - measured_until_us;
        if !drained {
            span.unanswered = worker.under_way() as u64;
        }
        rest(worker, args.common.linger_ms * 1_000)?;
        if scene.audience.slow_clients() == 0 {
            return Ok(());
        }
        shared.slow_read_on.store(true, Ordering::Relaxed);
        rest(worker, SLOW_READ_US)
    })
    .map(|findings| Report::of_load(args, rate, &scene, findings))
}

fn run_idle(args: &IdleArgs) -> Result<Report, LoadError> {
    within("--hold", args.hold, PHASE_SECONDS_MAX)?;
    let audience = Audience::new(&args.common, args.common.clients.unwrap_or(1_000))?;
    let scene = scene(&args.common, audience, Plan::silent(), 1, args.common.connect_rate.unwrap_or(0))?;
    conduct(&args.common, &scene, |stage| {
        stage.connect()?;
        stage.settle()?;
        stage.span.begin();
        rest(&mut stage.worker, micros(args.hold))?;
        stage.span.end();
        Ok(())
    })
    .map(|findings| Report::of_idle(args, &scene, findings))
}

/// Refuses a figure that no run can have.
pub(crate) fn within(flag: &str, value: f64, max: f64) -> Result<(), LoadError> {
    if (0.0..=max).contains(&value) {
        return Ok(());
    }
    Err(LoadError::Plan(format!("{flag} must be between 0 and {max}")))
}

pub(crate) fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// What every thread is to know.
pub(crate) fn scene(
    args: &CommonArgs,
    audience: Audience,
    plan: Plan,
    size: usize,
    connect_rate: u32,
) -> Result<Scene, LoadError> {
    if let Some(tenant) = &args.tenant
        && protocol::ids::TenantId::parse(tenant).is_none()
    {
        return Err(LoadError::Plan(format!("--tenant: {tenant:?} is not a tenant's name")));
    }
    let run = format!("{:08x}", fastrand::u32(..));
    Ok(Scene {
        audience,
        plan,
        stationery: Stationery::new(&run, size),
        run,
        signer: Signer::new(args, machine::unix_seconds()),
        verify_one_in: match args.verify {
            VerifyArg::Scan => 0,
            VerifyArg::Sample => VERIFY_ONE_IN,
            VerifyArg::Full => 1,
        },
        connect_rate,
        connecting_max: args.connecting,
        threads: args.threads,
        acks: false,
    })
}

/// The first thread of a run, and what it has at hand.
pub(crate) struct Stage<'a> {
    /// Its clients, and all publishers.
    pub(crate) worker: Worker<'a>,
    /// What it shares with the others.
    pub(crate) shared: &'a Shared,
    /// The measured phase.
    pub(crate) span: Span<'a>,
    /// What is found on the way.
    pub(crate) findings: &'a mut Findings,
    /// Reads the server's process.
    pub(crate) usage: &'a dyn Fn() -> Option<Usage>,
    args: &'a CommonArgs,
    wanted: u64,
}

impl Stage<'_> {
    /// Lets all threads connect their clients, and waits until everybody can receive.
    pub(crate) fn connect(&mut self) -> Result<(), LoadError> {
        self.findings.before = (self.usage)();
        let start_us = machine::now_us();
        self.shared.connect_from_us.store(start_us, Ordering::Relaxed);
        let deadline_us = start_us + self.args.connect_deadline * 1_000_000;
        while self.shared.open.load(Ordering::Relaxed) < self.wanted {
            if self.shared.failed.load(Ordering::Relaxed) > 0 || machine::now_us() > deadline_us {
                let open = self.shared.open.load(Ordering::Relaxed);
                let reasons = std::mem::take(&mut self.worker.tally.troubles);
                return Err(LoadError::Connect { open, wanted: self.wanted, reasons });
            }
            self.worker.connect()?;
            self.worker.turn(500)?;
        }
        self.findings.connect_span_us = machine::now_us() - start_us;
        Ok(())
    }

    /// Only listens for the time that `--linger-ms` names, and reads the server then.
    pub(crate) fn settle(&mut self) -> Result<(), LoadError> {
        rest(&mut self.worker, self.args.linger_ms * 1_000)?;
        self.findings.connected = (self.usage)();
        Ok(())
    }
}

/// Makes the threads, lets `course` go its way on the first one, and gathers what was found.
pub(crate) fn conduct(
    args: &CommonArgs,
    scene: &Scene,
    course: impl FnOnce(&mut Stage) -> Result<(), LoadError>,
) -> Result<Findings, LoadError> {
    let wanted = u64::from(scene.audience.clients);
    machine::raise_descriptors(wanted + u64::from(scene.plan.publishers) + u64::from(scene.threads))?;
    let process = args.server_pid.map(Process::new);
    let usage = || process.and_then(Process::usage);
    if process.is_some() && usage().is_none() {
        return Err(LoadError::Plan("--server-pid: there is no such process".to_owned()));
    }
    let shared = Shared::new(scene.threads);
    let cpu_of = |thread: u32| args.cpu.get(thread as usize % args.cpu.len().max(1)).copied();
    let mut findings = Findings::default();
    let outcome = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..scene.threads)
            .map(|index| {
                let shared = &shared;
                let cpu = cpu_of(index);
                scope.spawn(move || {
                    machine::pin(cpu)?;
                    Worker::new(index, scene, shared)?.listen()
                })
            })
            .collect();
        let first = first_thread(args, scene, &shared, cpu_of(0), &usage, &mut findings, course);
        shared.stop.store(true, Ordering::Relaxed);
        let others = threads.into_iter().map(|thread| {
            // A panic of a listening thread is ours: pass it on.
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let others: Result<Vec<Harvest>, LoadError> = others.collect();
        let mut harvests = vec![first?];
        harvests.extend(others?);
        Ok(harvests)
    })?;
    findings.gather(outcome);
    Ok(findings)
}

fn first_thread(
    args: &CommonArgs,
    scene: &Scene,
    shared: &Shared,
    cpu: Option<usize>,
    usage: &dyn Fn() -> Option<Usage>,
    findings: &mut Findings,
    course: impl FnOnce(&mut Stage) -> Result<(), LoadError>,
) -> Result<Harvest, LoadError> {
    machine::pin(cpu)?;
    let wanted = u64::from(scene.audience.clients);
    let worker = Worker::new(0, scene, shared)?;
    let mut stage = Stage { worker, shared, span: Span::new(usage), findings, usage, args, wanted };
    course(&mut stage)?;
    let Stage { worker, span, findings, .. } = stage;
    findings.span = span.measured();
    findings.after = usage();
    Ok(worker.finish())
}

/// The publishers, connected. `rest_pipeline` is what a REST publisher has under way unless `--pipeline` says otherwise.
pub(crate) fn employ(
    args: &CommonArgs,
    door: &DoorArgs,
    scene: &Scene,
    rest_pipeline: usize,
) -> Result<Vec<Publisher>, LoadError> {
    let tenant = args.tenant.as_deref();
    let url = match door.publish {
        DoorArg::Redis => Some(RedisUrl::parse(&door.redis_url, args.allow_remote)?),
        DoorArg::Rest => None,
    };
    let make = |index: u32| {
        let deck = scene.plan.deck(index);
        let (target, way, pipeline) = match &url {
            Some(url) => {
                (url.address, Door::Redis(RedisDoor::new(&scene.plan, &scene.audience, index, url, tenant)), 128)
            }
            None => {
                let target = scene.audience.target_of(index);
                let host = target.to_string();
                let key = door.api_key.as_deref();
                let rest = RestDoor::new(&scene.plan, &scene.audience, index, &host, key, tenant);
                (target, Door::Rest(rest), rest_pipeline)
            }
        };
        let pipeline = door.pipeline.map_or(pipeline, |pipeline| pipeline as usize);
        Publisher::connect(target, way, deck, pipeline, scene.plan.quota(index))
    };
    (0..scene.plan.publishers).map(make).collect()
}

/// What makes a publish due.
#[derive(Clone, Copy)]
enum Pace {
    /// Its schedule; the loop is awake so long before.
    Rate { lead_us: u64 },
    /// Room in the window.
    FlatOut { window: u64 },
}

/// Publishes by the schedule, or within the window, until the time has come.
fn publish_until(worker: &mut Worker, until_us: u64, pace: Pace) -> Result<(), LoadError> {
    loop {
        let now_us = machine::now_us();
        if now_us >= until_us {
            return Ok(());
        }
        let wait_us = match pace {
            Pace::FlatOut { window } => {
                let written = worker.publish(worker.window_room(window))?;
                if written > 0 { 0 } else { WINDOW_WAIT_US }
            }
            Pace::Rate { lead_us } => {
                worker.publish(u64::MAX)?;
                let due_us = worker.next_due_us().unwrap_or(u64::MAX).min(until_us);
                due_us.saturating_sub(machine::now_us() + lead_us).min(WAIT_US_MAX)
            }
        };
        worker.turn(wait_us)?;
    }
}

/// Waits until everything expected has come and every publish is answered; `false` when the deadline passed first.
fn drain(worker: &mut Worker, shared: &Shared, deadline_us: u64) -> Result<bool, LoadError> {
    let deadline_us = machine::now_us() + deadline_us;
    while worker.under_way() > 0 || (shared.received() as i64) < worker.outbox.expected {
        if machine::now_us() > deadline_us {
            return Ok(false);
        }
        // What was written but still waits for the socket leaves in the turn.
        worker.turn(1_000)?;
    }
    Ok(true)
}

/// Only listens for a while.
pub(crate) fn rest(worker: &mut Worker, duration_us: u64) -> Result<(), LoadError> {
    let until_us = machine::now_us() + duration_us;
    loop {
        let now_us = machine::now_us();
        if now_us >= until_us {
            return Ok(());
        }
        worker.turn((until_us - now_us).min(WAIT_US_MAX))?;
    }
}
