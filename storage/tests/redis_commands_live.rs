//! The command link against a real redis-server, which each test starts for itself.
mod common;
mod redis_commands_driver;

use common::{RedisServer, free_port};
use redis_commands_driver::{CommandDriver, Told, config, done};
use storage::breaker::{BreakerConfig, BreakerState};
use storage::redis::commands::answer::RefusalCode;
use storage::redis::commands::event::NotTaken;
use storage::redis::commands::script::Script;
use storage::redis::commands::status::{Operation, OperationResult};
use storage::redis::commands::{Command, Words};
use storage::redis::status::{FeedErrorKind, LinkState};

static APPEND: Script = Script::new("append", "return redis.call('RPUSH', KEYS[1], ARGV[1])");
static SHIFT: Script = Script::new("shift", "return redis.call('LPOP', KEYS[1])");
static WRITE: Script = Script::new("write", "redis.call('SET', KEYS[1], ARGV[1]) return redis.status_reply('OK')");

#[test]
fn ten_thousand_pipelined_commands_are_answered_in_order() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::new(config(&server.url(), &[]));
    for n in 0..10_000 {
        driver.say(&["ECHO", &format!("{n:0100}")]);
    }
    for (n, (ticket, told)) in driver.answers().into_iter().enumerate() {
        assert_eq!((ticket, told), (n as u64 + 1, done(&format!("\"{n:0100}\""))));
    }
    let status = driver.status();
    assert_eq!(status.count(Operation::Other, OperationResult::Done), 10_000);
    assert_eq!((status.latencies[Operation::Other as usize].count(), status.unanswered), (10_000, 0));
}

#[test]
fn replies_of_every_shape_come_as_they_are() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    let long = "x".repeat(1_000_000);
    let rows: [(&[&str], Told); 8] = [
        (&["SET", "k", "v"], done("OK")),
        (&["GET", "k"], done("\"v\"")),
        (&["GET", "none"], done("(nil)")),
        (&["INCR", "n"], done("1")),
        (&["LRANGE", "none", "0", "-1"], done("[]")),
        (&["XADD", "s", "1-1", "data", "a"], done("\"1-1\"")),
        (&["XRANGE", "s", "-", "+"], done("[[\"1-1\", [\"data\", \"a\"]]]")),
        (&["ECHO", &long], done(&format!("\"{long}\""))),
    ];
    for (words, told) in rows {
        assert_eq!(driver.command(words), told, "{:?}", words[0]);
    }
    let deep = driver.command(&["EVAL", "return {{{{1}}}}", "0"]);
    assert_eq!(deep, done("[[[[1]]]]"));
    assert_eq!(driver.command(&["EVAL", "return {{{{{1}}}}}", "0"]), Told::Unknown, "too deep: the link is dropped");
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Protocol));
    assert_eq!(driver.command(&["GET", "k"]), done("\"v\""));
}

#[test]
fn a_server_killed_in_the_middle_leaves_each_command_answered_once_and_is_found_again() {
    let mut server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    for n in 0..5_000 {
        driver.say(&["RPUSH", "list", &n.to_string()]);
    }
    driver.until("some are answered", |d| !d.told.is_empty());
    server.hold();
    for n in 5_000..6_000 {
        driver.say(&["RPUSH", "list", &n.to_string()]);
    }
    driver.turn(false, false);
    server.kill();
    let told = driver.answers();
    let tickets: Vec<u64> = told.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(tickets, (1..=6_000).collect::<Vec<_>>(), "each once, in order");
    let mut kinds: Vec<bool> = told.iter().map(|(_, told)| matches!(told, Told::Done(_))).collect();
    kinds.dedup();
    assert_eq!(kinds, [true, false], "what is done comes before what is not known");
    assert!(!told[5_000..].iter().any(|(_, told)| matches!(told, Told::Done(_))), "it stood still by then");
    server.restart();
    driver.until_healthy(2);
    assert_eq!(driver.command(&["RPUSH", "list", "again"]), done("1"));
}

#[test]
fn a_server_that_stands_still_is_late_and_its_commands_unknown() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    assert_eq!(driver.command(&["SET", "k", "before"]), done("OK"));
    server.hold();
    driver.say(&["SET", "k", "during"]);
    driver.say(&["GET", "k"]);
    driver.turn(false, true);
    driver.skip_ms(119_000);
    assert!(driver.told.is_empty());
    driver.skip_ms(2_000);
    assert_eq!(std::mem::take(&mut driver.told), [(2, Told::Unknown), (3, Told::Unknown)]);
    let status = driver.status();
    assert_eq!((status.link, status.last_error), (LinkState::Reconnecting, Some(FeedErrorKind::Silent)));
    assert_eq!((status.failures, status.count(Operation::Other, OperationResult::Unknown)), (1, 2));
    // The kernel still takes a connection for it, but nobody answers the greeting: what waits has a time of its own.
    driver.say(&["GET", "k"]);
    driver.until("it greets again", |d| d.wants.socket.is_some() && !d.wants.write);
    driver.skip_ms(119_500);
    assert!(driver.told.is_empty() && driver.status().reconnections == 1);
    driver.say(&["GET", "k"]);
    driver.skip_ms(1_000);
    driver.until("both were told", |d| d.told.len() == 2);
    assert_eq!(std::mem::take(&mut driver.told), [(4, Told::NotSent), (5, Told::NotSent)]);
    server.release();
    driver.until_healthy(2);
    assert_eq!(driver.command(&["GET", "k"]), done("\"during\""), "unknown is not undone");
}

#[test]
fn an_owner_that_stood_still_reads_before_it_judges() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    driver.say(&["PING"]);
    driver.turn(false, true);
    while !driver.wait().0 {}
    driver.skip_ms(3_600_000);
    assert_eq!(driver.answers(), [(1, done("PONG"))]);
    assert_eq!((driver.status().reconnections, driver.status().last_error), (1, None));
}

#[test]
fn a_quiet_link_is_kept_alive_by_pings_and_given_up_without_an_answer() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    for _ in 0..3 {
        driver.skip_ms(130_000);
        driver.until("the pong came", |d| d.wants.wake_at_us > Some(d.now().mono_us) && !d.wants.again);
        assert_eq!(driver.command(&["GET", "k"]), done("(nil)"));
    }
    assert_eq!((driver.status().reconnections, driver.status().last_error), (1, None));
    server.hold();
    driver.skip_ms(130_000);
    driver.skip_ms(130_000);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Silent));
    server.release();
    driver.until_healthy(2);
}

#[test]
fn a_killed_connection_is_made_anew() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    server.client().must(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    driver.until_healthy(2);
    assert_eq!(driver.status().last_error, Some(FeedErrorKind::Closed));
    assert_eq!(driver.command(&["PING"]), done("PONG"));
}

#[test]
fn user_password_and_database_are_spoken_as_the_url_encodes_them() {
    let server = RedisServer::start();
    let mut client = server.client();
    client.must(&["ACL", "SETUSER", "ara:1", "on", ">p@ss/w?rd #% é", "~*", "&*", "+@all"]);
    client.must(&["CONFIG", "SET", "requirepass", "default secret"]);
    let port = server.port;
    let rows = [
        (format!("redis://ara%3A1:p%40ss%2Fw%3Frd%20%23%25%20%C3%A9@127.0.0.1:{port}/3"), "\"ara:1\"", "db=3"),
        (format!("redis://:default%20secret@localhost:{port}"), "\"default\"", "db=0"),
    ];
    for (url, user, database) in rows {
        let mut driver = CommandDriver::new(config(&url, &[&WRITE]));
        assert_eq!(driver.command(&["ACL", "WHOAMI"]), done(user), "{url}");
        let Told::Done(info) = driver.command(&["CLIENT", "INFO"]) else { panic!("CLIENT INFO is answered") };
        assert!(info.contains(database), "{info}");
    }
}

#[test]
fn a_refused_greeting_is_named_and_tried_again_without_opening_the_breaker() {
    let server = RedisServer::start();
    let mut client = server.client();
    client.must(&["ACL", "SETUSER", "mute", "on", ">pw", "~*", "&*", "-@all"]);
    let port = server.port;
    let rows = [
        (format!("redis://ara:wrong@127.0.0.1:{port}"), FeedErrorKind::Auth),
        (format!("redis://mute:pw@127.0.0.1:{port}"), FeedErrorKind::Auth),
        (format!("redis://127.0.0.1:{port}/16"), FeedErrorKind::Database),
    ];
    for (url, kind) in rows {
        let mut settings = config(&url, &[&WRITE]);
        settings.breaker.failure_threshold = 2;
        let mut driver = CommandDriver::new(settings);
        assert_eq!(driver.command(&["PING"]), Told::NotSent, "{url}");
        driver.until("it was tried again and again", |d| d.status().attempts > 4);
        let status = driver.status();
        assert_eq!((status.last_error, status.failures), (Some(kind), 0), "{url}");
        assert_eq!((status.link, status.breaker), (LinkState::Reconnecting, BreakerState::Closed), "{url}");
    }
    client.must(&["CONFIG", "SET", "requirepass", "secret"]);
    let mut driver = CommandDriver::new(config(&server.url(), &[]));
    driver.until("the missing password is noticed", |d| d.status().last_error == Some(FeedErrorKind::Auth));
    client.must(&["CONFIG", "SET", "requirepass", ""]);
    driver.until_healthy(1);
}

#[test]
fn a_user_without_the_right_to_a_command_is_refused_that_command_alone() {
    let server = RedisServer::start();
    server.client().must(&["ACL", "SETUSER", "ara", "on", ">pw", "~own:*", "&*", "+@all"]);
    let mut driver = CommandDriver::new(config(&format!("redis://ara:pw@127.0.0.1:{}", server.port), &[&WRITE]));
    assert_eq!(driver.command(&["SET", "other", "x"]), Told::Refused(RefusalCode::NoPerm));
    driver.run(&WRITE, &["other"], &["x"]);
    assert_eq!(driver.answers()[0].1, Told::Refused(RefusalCode::NoPerm));
    assert_eq!(driver.command(&["SET", "own:1", "x"]), done("OK"));
    assert_eq!((driver.status().ends, driver.status().failures), (0, 0));
}

#[test]
fn scripts_that_were_flushed_are_loaded_again_and_keep_their_order() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[&APPEND, &SHIFT]);
    let mut client = server.client();
    for round in 0..5 {
        for n in 0..500 {
            driver.run(&APPEND, &["list"], &[&format!("{round}-{n}")]);
            if n % 50 == 25 {
                client.must(&["SCRIPT", "FLUSH"]);
                driver.turn(true, true);
            }
        }
        for _ in 0..500 {
            driver.run(&SHIFT, &["list"], &[]);
        }
        let answers = driver.answers();
        assert_eq!(answers.len(), 1_000);
        for (n, (_, told)) in answers.iter().filter(|(_, told)| format!("{told:?}").contains('-')).enumerate() {
            assert_eq!(*told, done(&format!("\"{round}-{n}\"")));
        }
        assert_eq!(driver.command(&["LLEN", "list"]), done("0"));
    }
    assert_eq!(driver.status().ends, 0);
}

#[test]
fn a_script_nobody_announced_is_loaded_when_it_is_missed() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    driver.run(&WRITE, &["k"], &["v"]);
    driver.say(&["GET", "k"]);
    assert_eq!(driver.answers().len(), 2);
    assert_eq!(driver.command(&["GET", "k"]), done("\"v\""));
}

#[test]
fn a_full_server_refuses_writes_and_takes_deletions() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[&WRITE]);
    assert_eq!(driver.command(&["SET", "k", "v"]), done("OK"));
    let mut client = server.client();
    client.must(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    client.must(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = Told::Refused(RefusalCode::OutOfMemory);
    assert_eq!(driver.command(&["SET", "k2", "v"]), full);
    driver.run(&WRITE, &["k2"], &["v"]);
    assert_eq!(driver.answers()[0].1, full);
    assert_eq!(driver.command(&["DEL", "k"]), done("1"));
    // A link that is made now, with its scripts, works as far as the server does.
    let mut other = CommandDriver::healthy(&server, &[&WRITE, &APPEND]);
    assert_eq!(other.command(&["GET", "k"]), done("(nil)"));
    client.must(&["CONFIG", "SET", "maxmemory", "0"]);
    other.run(&WRITE, &["k2"], &["v"]);
    assert_eq!(other.answers()[0].1, done("OK"));
    assert_eq!((driver.status().ends, driver.status().failures, other.status().ends), (0, 0, 0));
}

#[test]
fn a_demoted_master_is_left_until_there_is_one_again() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[&WRITE]);
    let mut client = server.client();
    client.must(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    driver.say(&["SET", "k", "v"]);
    driver.say(&["GET", "k"]);
    driver.run(&WRITE, &["k"], &["v"]);
    let told = driver.answers();
    let refused = Told::Refused(RefusalCode::ReadOnly);
    assert_eq!(
        told.iter().map(|(_, told)| told.clone()).collect::<Vec<_>>(),
        [refused.clone(), done("(nil)"), refused]
    );
    driver.until_healthy(2);
    let status = driver.status();
    assert_eq!((status.last_error, status.failures), (Some(FeedErrorKind::Refused), 0));
    client.must(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(driver.command(&["SET", "k", "v"]), done("OK"));
}

#[test]
fn a_commands_own_fault_is_told_and_counts_for_nothing_else() {
    let server = RedisServer::start();
    let mut settings = config(&server.url(), &[&APPEND]);
    settings.breaker.failure_threshold = 1;
    let mut driver = CommandDriver::new(settings);
    assert_eq!(driver.command(&["SET", "k", "v"]), done("OK"));
    for _ in 0..3 {
        driver.run(&APPEND, &["k"], &["x"]);
        let Told::Failed(text) = driver.answers().remove(0).1 else { panic!("a text is no list") };
        assert!(text.contains("WRONGTYPE"), "{text}");
        let Told::Failed(text) = driver.command(&["NOSUCH", "private"]) else { panic!("there is none") };
        assert!(text.contains("unknown command") && !text.contains("private"), "{text}");
    }
    let status = driver.status();
    assert_eq!((status.link, status.breaker, status.failures), (LinkState::Healthy, BreakerState::Closed, 0));
    assert_eq!(status.count(Operation::Other, OperationResult::Failed), 6);
}

#[test]
fn while_the_breaker_is_open_nothing_is_taken_and_it_closes_when_the_server_proved_itself() {
    let mut server = RedisServer::absent();
    let mut settings = config(&server.url(), &[]);
    settings.breaker = BreakerConfig { failure_threshold: 3, success_threshold: 4, reset_timeout_ms: 60_000 };
    let mut driver = CommandDriver::new(settings);
    driver.say(&["GET", "k"]);
    driver.until("the breaker opens", |d| d.status().link == LinkState::CircuitOpen);
    assert_eq!(std::mem::take(&mut driver.told), [(1, Told::NotSent)]);
    let words = Words::Plain(&[b"GET", b"k"]);
    let refused = driver.submit(Command { operation: Operation::QueueRead, words });
    assert_eq!(refused, Err(NotTaken::Unavailable));
    let status = driver.status();
    assert_eq!(status.count(Operation::QueueRead, OperationResult::Unavailable), 1);
    assert_eq!((status.breaker, status.failures), (BreakerState::Open, 3));
    server.restart();
    driver.skip_ms(61_000);
    driver.until("the breaker closes", |d| d.status().breaker == BreakerState::Closed);
    assert_eq!(driver.command(&["GET", "k"]), done("(nil)"));
    assert_eq!((driver.status().link, driver.status().reconnections), (LinkState::Healthy, 1));
}

#[test]
fn commands_wait_for_a_server_that_comes_in_time_within_the_bounds() {
    let mut server = RedisServer::start();
    let mut settings = config(&format!("redis://localhost:{}", server.port), &[]);
    settings.bounds.commands_max = 3;
    let mut driver = CommandDriver::new(settings);
    for n in 0..3 {
        driver.say(&["ECHO", &n.to_string()]);
    }
    let words = Words::Plain(&[b"PING"]);
    let full = driver.submit(Command { operation: Operation::Other, words });
    assert!(matches!(full, Err(NotTaken::Full { commands: 3, .. })), "{full:?}");
    let echoed = [(1, done("\"0\"")), (2, done("\"1\"")), (3, done("\"2\""))];
    assert_eq!(driver.answers(), echoed);
    server.kill();
    driver.until("the loss is noticed", |d| d.status().ends > 0);
    assert_eq!(driver.status().count(Operation::Other, OperationResult::Full), 1);
}

#[test]
fn a_stopped_link_answers_what_is_open_and_takes_nothing_more() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    server.hold();
    driver.say(&["SET", "k", "v"]);
    driver.turn(false, true);
    driver.say(&["SET", "k", "w"]);
    let mut told = Vec::new();
    driver.link.stop(&mut |ticket, outcome| told.push(format!("{} {outcome:?}", ticket.0)));
    assert_eq!(told, ["1 Unknown", "2 NotSent"]);
    driver.turn(true, true);
    assert_eq!(driver.wants, storage::redis::commands::link::CommandWants::default());
    let words = Words::Plain(&[b"PING"]);
    assert_eq!(driver.submit(Command { operation: Operation::Other, words }), Err(NotTaken::Unavailable));
    server.release();
}

#[test]
fn a_server_that_runs_somebodys_script_is_busy_and_not_lost() {
    let server = RedisServer::start();
    let mut driver = CommandDriver::healthy(&server, &[]);
    let mut client = server.client();
    client.must(&["CONFIG", "SET", "busy-reply-threshold", "1"]);
    client.send(&["EVAL", "while redis.call('EXISTS', 'stop') == 0 do end return 1", "0"]);
    while driver.command(&["GET", "k"]) != Told::Refused(RefusalCode::Busy) {}
    assert_eq!(driver.command(&["SCRIPT", "KILL"]), done("OK"));
    // The script is killed at its next look at the clock.
    while driver.command(&["GET", "k"]) != done("(nil)") {}
    assert_eq!((driver.status().ends, driver.status().failures), (0, 0));
}
