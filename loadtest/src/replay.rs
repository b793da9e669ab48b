//! Mail for users who are away: storing, connect, replay, and until the mailboxes are empty.
//!
//! Storing is timed until the last receipt, and each receipt must say that the notification is in one mailbox. What
//! goes in by Redis has no receipt: it is stored when `/health` counts it. A server may count now and then only, so what
//! is timed by `/health` is exact to that interval only.
use crate::args::{DoorArg, ReplayArgs, TransportArg};
use crate::error::LoadError;
use crate::health;
use crate::machine;
use crate::phases::{self, PHASE_SECONDS_MAX, Stage, micros};
use crate::report::{Report, Span};
use crate::scenario::{Audience, Plan};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

/// Requests a REST publisher has under way unless `--pipeline` says otherwise.
const REST_PIPELINE: usize = 16;
/// From one question to `/health` to the next.
const HEALTH_EVERY_US: u64 = 10_000;

/// Makes the run the flags describe.
pub fn run(args: &ReplayArgs) -> Result<Report, LoadError> {
    for (flag, value) in [("--deadline", args.deadline), ("--count-deadline", args.count_deadline)] {
        phases::within(flag, value, PHASE_SECONDS_MAX)?;
    }
    if args.ack && args.common.transport != TransportArg::Ws {
        return Err(LoadError::Plan("--ack needs --transport ws: an SSE client cannot acknowledge".to_owned()));
    }
    let clients = args.common.clients.unwrap_or(1_000);
    let audience = Audience::new(&args.common, clients)?;
    let plan = Plan::backlog(args.messages, args.door.publishers, &audience);
    let connect_rate = args.common.connect_rate.unwrap_or(0);
    let mut scene = phases::scene(&args.common, audience, plan, args.door.size as usize, connect_rate)?;
    scene.acks = args.ack;
    let target = scene.audience.target_of(0);
    phases::conduct(&args.common, &scene, |stage| {
        stage.worker.employ(phases::employ(&args.common, &args.door, &scene, REST_PIPELINE)?)?;
        store(stage, args, target)?;
        replay(stage, args, target)
    })
    .map(|findings| Report::of_replay(args, &scene, findings))
}

/// Publishes everything, and waits until it is stored.
fn store(stage: &mut Stage, args: &ReplayArgs, target: SocketAddr) -> Result<(), LoadError> {
    let counted = args.ack || args.until_empty || args.door.publish == DoorArg::Redis;
    let before = if counted { health::kept(target)? } else { 0 };
    let mut span = Span::new(stage.usage);
    span.begin();
    let start_us = machine::now_us();
    stage.shared.measured_until_us.store(u64::MAX, Ordering::Relaxed);
    stage.shared.measured_from_us.store(start_us, Ordering::Relaxed);
    let deadline_us = start_us + micros(args.deadline);
    while !stage.worker.is_done() && machine::now_us() < deadline_us {
        let written = stage.worker.publish(u64::MAX)?;
        stage.worker.turn(if written > 0 { 0 } else { 1_000 })?;
    }
    let times = &mut stage.findings.replay;
    times.unanswered = stage.worker.under_way() as u64;
    if args.door.publish == DoorArg::Rest {
        times.end_storing(&mut span);
    }
    if counted {
        // Not only to see that it is true: a count from before the last publish could be taken for empty mailboxes.
        let taken = stage.worker.outbox.written - stage.worker.outbox.refusals;
        let expected = before + taken;
        times.kept_before = Some(before);
        let deadline_us = match args.door.publish {
            DoorArg::Rest => machine::now_us() + micros(args.count_deadline),
            DoorArg::Redis => deadline_us,
        };
        let counted = await_kept(stage, target, deadline_us, |kept| kept >= expected)?;
        stage.findings.replay.uncounted =
            counted.map(|kept| format!("/health counts {kept} notifications where {expected} are kept"));
    }
    if args.door.publish == DoorArg::Redis {
        stage.findings.replay.end_storing(&mut span);
    }
    Ok(())
}

/// Connects everybody, and waits until everything has come and, if that is asked for, gone from the mailboxes.
fn replay(stage: &mut Stage, args: &ReplayArgs, target: SocketAddr) -> Result<(), LoadError> {
    let start_us = machine::now_us();
    stage.findings.replay.opened_us = start_us;
    stage.shared.measured_from_us.store(start_us, Ordering::Relaxed);
    stage.span.begin();
    stage.connect()?;
    let expected = stage.worker.outbox.expected.max(0) as u64;
    let deadline_us = start_us + micros(args.deadline);
    while stage.shared.received() < expected && machine::now_us() < deadline_us {
        stage.worker.turn(1_000)?;
    }
    stage.span.end();
    if args.ack {
        while stage.shared.acked() < stage.shared.received() && machine::now_us() < deadline_us {
            stage.worker.turn(1_000)?;
        }
    }
    if let Some(before) = stage.findings.replay.kept_before
        && (args.ack || args.until_empty)
    {
        let deadline_us = machine::now_us() + micros(args.count_deadline);
        let left = await_kept(stage, target, deadline_us, |kept| kept <= before)?;
        let times = &mut stage.findings.replay;
        times.emptied_us = left.is_none().then(machine::now_us);
        times.left = left.map_or(0, |kept| kept - before);
    }
    stage.settle()
}

/// Asks `/health` until the count is as it should be; answers the last one when the deadline passed first.
fn await_kept(
    stage: &mut Stage,
    target: SocketAddr,
    deadline_us: u64,
    holds: impl Fn(u64) -> bool,
) -> Result<Option<u64>, LoadError> {
    loop {
        let kept = health::kept(target)?;
        if holds(kept) {
            return Ok(None);
        }
        if machine::now_us() >= deadline_us {
            return Ok(Some(kept));
        }
        phases::rest(&mut stage.worker, HEALTH_EVERY_US)?;
    }
}
