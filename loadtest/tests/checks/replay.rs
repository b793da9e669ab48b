//! Mail for users who are away, from a server that keeps it as it should, and from servers that fail once each.
use crate::standin::{Fault, SECRET, StandIn};
use clap::Parser;
use loadtest::args::Args;
use loadtest::error::LoadError;
use loadtest::report::Report;

/// Six users, 20 notifications each.
fn try_replay(server: &StandIn, flags: &str) -> Result<Report, LoadError> {
    let target = server.address.to_string();
    let redis = format!("redis://{}", server.redis);
    let base = ["ara-loadtest", "replay", "--target", &target, "--secret", SECRET, "--redis-url", &redis];
    let few = "--clients 6 --messages 20 --publishers 2 --linger-ms 20 --verify full";
    let args = base.into_iter().chain(few.split_ascii_whitespace()).chain(flags.split_ascii_whitespace());
    loadtest::run(&Args::parse_from(args))
}

fn replay(server: &StandIn, flags: &str) -> Report {
    try_replay(server, flags).unwrap()
}

/// Runs against an honest server and expects nothing to be found.
fn passes(server: &StandIn, flags: &str) -> Report {
    let report = replay(server, flags);
    assert_eq!(report.failures, [""; 0], "{flags}\n{}", report.table());
    assert_eq!((report.published, report.received, report.lost, report.verified), (120, 120, 0, 120), "{flags}");
    let figures = report.replay.as_ref().expect("a replay has figures of its own");
    assert_eq!((figures.complete.count, figures.left), (6, 0), "{flags}");
    assert!(figures.stored_per_second > 0.0 && figures.messages_per_second > 0.0, "{}", report.table());
    report
}

#[test]
fn what_was_kept_is_replayed_and_checked() {
    for flags in ["--transport ws", "--transport sse", "--transport mixed --threads 2", "--connect-rate 100"] {
        let report = passes(&StandIn::start(Fault::None), flags);
        assert_eq!((report.publish.answered, report.publish.delivered_to), (120, 120), "every receipt says: kept once");
        assert_eq!(report.replay.unwrap().acks, 0);
    }
    passes(&StandIn::start(Fault::None), "--publish redis");
    let figures = passes(&StandIn::start(Fault::None), "--until-empty").replay.unwrap();
    assert!(figures.emptied_seconds.is_some());
}

#[test]
fn what_is_received_is_acknowledged_until_nothing_is_kept() {
    for flags in ["--ack", "--ack --threads 2 --publish redis"] {
        let figures = passes(&StandIn::with_acks(Fault::None), flags).replay.unwrap();
        assert_eq!((figures.acks, figures.acked), (120, 120), "{flags}");
        assert!(figures.acked_seconds.is_some() && figures.emptied_seconds.is_some(), "{flags}");
    }
}

#[test]
fn mail_of_others_does_not_keep_a_run_from_its_end() {
    let server = StandIn::with_acks(Fault::None);
    passes(&server, "--user-prefix other- --ack");
    let kept = replay(&server, "--user-prefix third- --deadline 1");
    assert_eq!(kept.failures, [""; 0], "{}", kept.table());
    passes(&server, "--ack");
}

/// Runs against a server with one fault and expects it, and only it, to be found.
fn notices(server: &StandIn, flags: &str, what: &str) -> Report {
    let report = replay(server, flags);
    assert_eq!(report.failures.len(), 1, "{what}: {:?}\n{}", report.failures, report.table());
    assert!(report.failures[0].contains(what), "{what}: {:?}", report.failures);
    report
}

#[test]
fn a_replay_that_is_not_what_was_kept_is_noticed() {
    for flags in ["--transport ws", "--transport sse", "--publish redis"] {
        let lossy = format!("{flags} --deadline 0.3");
        let report = notices(&StandIn::start(Fault::Lose), &lossy, "1 messages were lost");
        assert_eq!(report.replay.unwrap().complete.count, 5);
        notices(&StandIn::start(Fault::Double), flags, "1 messages came twice");
        notices(&StandIn::start(Fault::Swap), flags, "1 messages came out of order");
        notices(&StandIn::start(Fault::Damage), flags, "wrong");
    }
}

#[test]
fn a_server_that_does_not_keep_what_it_took_is_noticed() {
    notices(&StandIn::start(Fault::Refuse), "", "were refused: stream");
    notices(&StandIn::start(Fault::Miscount), "", "does not say queued 1");
    notices(
        &StandIn::with_acks(Fault::Mute),
        "--ack --deadline 0.3 --count-deadline 0.3",
        "1 acknowledgements were not answered",
    );
    notices(
        &StandIn::with_acks(Fault::Cling),
        "--ack --deadline 0.3 --count-deadline 0.3",
        "1 notifications were not removed",
    );
    // Kept until acknowledged, and nobody acknowledges.
    notices(
        &StandIn::with_acks(Fault::None),
        "--until-empty --count-deadline 0.3",
        "120 notifications were not removed",
    );
}

#[test]
fn thresholds_fail_the_run() {
    let report = replay(&StandIn::start(Fault::None), "--min-stored 1e9 --min-rate 1e9 --p95-ms 0 --p99-ms 0");
    assert_eq!(report.failures.len(), 4, "{:?}", report.failures);
}

#[test]
fn the_report_for_programs_has_the_figures() {
    let file = std::env::temp_dir().join(format!("ara-loadtest-replay-{}.json", std::process::id()));
    passes(&StandIn::start(Fault::None), &format!("--json {}", file.display()));
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!((&written["scenario"], &written["replay"]["complete"]["count"]), (&"replay".into(), &6.into()));
}

#[test]
fn what_cannot_work_is_refused() {
    let error = try_replay(&StandIn::start(Fault::None), "--ack --transport mixed").unwrap_err();
    assert!(matches!(error, LoadError::Plan(_)), "{error}");
}
