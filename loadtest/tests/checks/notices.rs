//! The generator against a server that keeps its promises, and against servers that break one each.
use crate::standin::{Fault, SECRET, StandIn};
use clap::Parser;
use loadtest::args::Args;
use loadtest::report::Report;

/// What a run has unless its own flags say otherwise.
const DEFAULTS: &str = "--clients 6 --rate 600 --warm-up 0.05 --seconds 0.2 --drain-deadline 5 --linger-ms 20 \
                        --publishers 2 --verify full";

fn run(server: &StandIn, flags: &str) -> Report {
    let target = server.address.to_string();
    let redis = format!("redis://{}", server.redis);
    let own: Vec<&str> = flags.split_ascii_whitespace().collect();
    let defaults: Vec<&str> = DEFAULTS.split_ascii_whitespace().collect();
    let defaults = defaults.chunks(2).filter(|pair| !own.contains(&pair[0])).flatten().copied();
    let base = ["ara-loadtest", "run", "--target", &target, "--secret", SECRET, "--redis-url", &redis];
    let args = Args::parse_from(base.into_iter().chain(defaults).chain(own.iter().copied()));
    let mut report = loadtest::run(&args).unwrap();
    // How busy the machine is that runs the tests is not what they are about.
    report.failures.retain(|failure| !failure.starts_with("the rate was not held"));
    report
}

/// Runs against an honest server and expects nothing to be found.
fn passes(flags: &str) -> Report {
    let report = run(&StandIn::start(Fault::None), flags);
    assert_eq!(report.failures, [""; 0], "{flags}\n{}", report.table());
    assert_eq!((report.lost, report.received), (0, report.expected), "{flags}");
    assert!(report.received > 0 && report.verified == report.received, "{flags}\n{}", report.table());
    assert_eq!(report.latency.count > 0, report.received_measured > 0);
    report
}

#[test]
fn an_honest_server_passes_by_every_door_to_every_aim() {
    for door in ["rest", "redis"] {
        for aim in ["user", "users", "channel", "channels", "broadcast", "mixed"] {
            passes(&format!("--publish {door} --aim {aim} --group 2 --channels 3 --channels-each 2"));
        }
    }
}

#[test]
fn every_transport_hears_the_same() {
    for transport in ["ws", "sse", "mixed"] {
        let report = passes(&format!("--transport {transport} --aim mixed --channels 2 --threads 2 --size 700"));
        assert_eq!(report.open_at_end, 6);
    }
}

#[test]
fn batches_are_published_and_their_receipts_checked() {
    // The rate counts requests; 200 a second with 5 notifications each.
    let report = passes("--aim batch --batch-size 5 --rate 200");
    assert_eq!(report.published, report.publish.answered * 5);
    assert_eq!(report.publish.delivered_to, report.expected);
    // More notifications than the publisher has users: some get several in one batch, still in order.
    passes("--aim batch --batch-size 10 --rate 0 --window 40 --pipeline 2");
    let report = run(&StandIn::start(Fault::Miscount), "--aim batch --batch-size 5 --rate 200");
    assert!(report.publish.refused > 0, "{}", report.table());
    assert!(report.failures[0].contains("the receipt says 0 deliveries where 1 was expected"), "{:?}", report.failures);
}

#[test]
fn clients_that_stop_reading_are_left_out() {
    // Of six clients the second, fourth and sixth.
    for flags in ["--transport ws", "--transport sse", "--aim broadcast", "--threads 2", "--rate 0 --window 8"] {
        let report = run(&StandIn::start(Fault::None), &format!("--slow-percent 50 {flags}"));
        assert_eq!(report.failures, [""; 0], "{flags}\n{}", report.table());
        assert_eq!((report.received, report.lost), (report.expected, 0), "{flags}");
        assert_eq!((report.slow_clients, report.slow_closed, report.open_at_end), (3, 0, 6), "{flags}");
        assert!(report.received > 0, "{flags}");
    }
    let report = run(&StandIn::start(Fault::TooSlow), "--slow-percent 50");
    assert_eq!(report.failures, [""; 0], "{}", report.table());
    assert_eq!((report.slow_closed, report.slow_closed_4008, report.closed), (1, 1, 0));
    let report = run(&StandIn::start(Fault::Hangup), "--slow-percent 50");
    assert_eq!(report.failures, [""; 0], "{}", report.table());
    assert_eq!((report.slow_closed, report.slow_closed_4008, report.closed), (1, 0, 0));
    // The server's own fault is no expected end, and being closed as slow is none for a client that reads.
    for (fault, flags) in [(Fault::Collapse, "--slow-percent 50"), (Fault::TooSlow, "--drain-deadline 0.1")] {
        let report = run(&StandIn::start(fault), flags);
        assert_eq!((report.closed, report.slow_closed), (1, 0), "{}", report.table());
        assert!(!report.failures.is_empty(), "{flags}");
    }
}

#[test]
fn flat_out_is_closed_by_what_arrives() {
    let report = passes("--rate 0 --window 8 --aim broadcast --pipeline 16");
    assert_eq!(report.expected, report.published * 6);
    passes("--rate 0 --window 8 --aim user --publish redis");
}

/// Runs against a server with one fault and expects it, and only it, to be found.
fn notices(fault: Fault, flags: &str, what: &str, count: impl Fn(&Report) -> u64) {
    let report = run(&StandIn::start(fault), flags);
    assert!(count(&report) > 0, "{fault:?} was not noticed\n{}", report.table());
    assert!(report.failures[0].contains(what), "{fault:?}: {:?}", report.failures);
    assert_eq!(report.failures.len(), 1, "{fault:?}: {:?}", report.failures);
}

#[test]
fn every_fault_is_noticed_and_told_apart() {
    for flags in ["--transport ws", "--transport sse", "--publish redis"] {
        let lossy = format!("{flags} --drain-deadline 0.1");
        notices(Fault::Lose, &lossy, "lost", |report| report.lost);
        notices(Fault::Double, flags, "twice", |report| report.duplicates);
        notices(Fault::Swap, flags, "out of order", |report| report.disordered);
        notices(Fault::Misroute, flags, "not for", |report| report.strays);
        notices(Fault::Damage, flags, "wrong", |report| report.malformed);
    }
    notices(Fault::Refuse, "", "refused", |report| report.publish.refused);
    let report = run(&StandIn::start(Fault::Hangup), "--drain-deadline 0.1");
    assert!(report.closed == 1 && report.lost > 0, "{}", report.table());
}

#[test]
fn thresholds_fail_the_run() {
    let server = StandIn::start(Fault::None);
    let report = run(&server, "--min-rate 1e9 --p95-ms 0 --p99-ms 0");
    assert_eq!(report.failures.len(), 3, "{:?}", report.failures);
}

#[test]
fn idle_connections_are_held_and_counted() {
    let server = StandIn::start(Fault::None);
    let target = server.address.to_string();
    let pid = std::process::id().to_string();
    let report = std::env::temp_dir().join(format!("ara-loadtest-idle-{pid}.json"));
    let args = Args::parse_from([
        "ara-loadtest",
        "idle",
        "--target",
        &target,
        "--secret",
        SECRET,
        "--clients",
        "20",
        "--hold",
        "0.05",
        "--linger-ms",
        "0",
        "--server-pid",
        &pid,
        "--json",
        report.to_str().unwrap(),
    ]);
    let found = loadtest::run(&args).unwrap();
    assert_eq!((found.open_at_end, found.failures.len()), (20, 0));
    assert!(found.server.is_some() && found.connect.count == 20);
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    std::fs::remove_file(&report).unwrap();
    assert_eq!(written["clients"], 20);
}

#[test]
fn a_wrong_secret_is_said_at_once() {
    let server = StandIn::start(Fault::None);
    let target = server.address.to_string();
    let args = Args::parse_from(["ara-loadtest", "idle", "--target", &target, "--secret", "wrong", "--clients", "1"]);
    let error = loadtest::run(&args).unwrap_err().to_string();
    assert!(error.starts_with("0 of 1 clients connected"), "{error}");
}
