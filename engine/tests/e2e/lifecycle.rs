//! How the process starts, stops and is spoken to by its operator (contract §15, §16; design §9).
use crate::support::http::{call, request};
use crate::support::process::{Folder, Port, Process, await_that, run, tool};
use crate::support::server::{Server, answers, binary};
use crate::support::token;
use crate::support::ws::{RawWs, Ws, frame, op};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::process::Command;

/// Runs the binary with arguments and settings to its end.
fn run_binary(arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let home = Folder::new("cli");
    let (status, printed) = run(binary().current_dir(home.path()).args(arguments).envs(settings.iter().copied()));
    (status.code(), printed)
}

/// Asserts that `text` is the shutdown message of contract §3.5, its advice between 1 and 10 seconds.
#[track_caller]
fn assert_shutdown(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let seconds = value["reconnect_after_seconds"].as_u64().unwrap_or_else(|| panic!("{text}"));
    assert!((1..=10).contains(&seconds), "{text}");
    assert_eq!(
        text,
        format!(r#"{{"type":"shutdown","reason":"Server shutting down","reconnect_after_seconds":{seconds}}}"#)
    );
}

#[test]
fn a_stop_is_told_to_everybody_and_leaves_nothing_unsent() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        let mut clients: Vec<Ws> = (0..20).map(|n| server.ws(&format!("u{n}"))).collect();
        let mut stream = server.sse("listener");
        let mut old = crate::support::sse::Sse::open(
            server.port,
            &format!("GET /sse?token={} HTTP/1.0\r\n\r\n", token::of("old")),
        );
        // Kept alive and silent: nobody to wait for.
        let mut idle = server.connect();
        idle.send(request("GET", "/health", &[], None));
        assert_eq!(idle.read().status, 200);

        assert_eq!(server.publish("broadcast", r#"{"event_type":"e","payload":"last"}"#)["delivered_to"], 22);
        server.process.signal(signal);
        for client in &mut clients {
            assert_eq!(client.payload(), "last");
            assert_shutdown(&client.hear());
            assert_eq!(client.await_close(), Some(1001));
        }
        for stream in [&mut stream, &mut old] {
            assert_eq!(stream.notification()["payload"], "last");
            let event = stream.hear().expect("the notice");
            assert_eq!(event.name.as_deref(), Some("message"));
            assert_shutdown(&event.data.expect("the notice has data"));
            assert_eq!(stream.hear(), None, "an orderly end");
        }
        idle.expect_end();
        assert_eq!(server.await_exit().code(), Some(0));
    }
}

#[test]
fn a_stop_does_not_wait_for_clients_that_do_not_answer() {
    let mut server = Server::start();
    let mut silent = RawWs::connect(server.port, &token::of("silent"));
    let mut deaf = RawWs::connect(server.port, &token::of("deaf"));
    deaf.send(frame(op::FIN | op::TEXT, br#"{"type":"Subscribe","payload":{"channels":["feed"]}}"#));
    deaf.read();
    let body = format!(r#"{{"channel":"feed","event_type":"e","payload":"{}"}}"#, "x".repeat(60_000));
    // More than the sockets hold, less than the outbox: something is still unsent when the stop comes.
    for _ in 0..60 {
        server.publish("channel", &body);
    }
    let mut half = server.connect();
    half.send("POST /api/v1/notifications/send HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    server.terminate();
    let (first, text) = silent.read();
    assert_eq!(first, op::FIN | op::TEXT);
    assert_shutdown(std::str::from_utf8(&text).expect("texts are UTF-8"));
    let (first, close) = silent.read();
    assert_eq!((first, close.get(..2)), (op::FIN | op::CLOSE, Some(&1001_u16.to_be_bytes()[..])));
    assert_eq!(server.await_exit().code(), Some(0));
    drop((silent, deaf, half));
}

#[test]
fn a_second_signal_ends_at_once() {
    for (first, second, code) in [(Signal::TERM, Signal::TERM, 143), (Signal::TERM, Signal::INT, 130)] {
        let mut server = Server::start();
        // It neither reads what waits for it nor answers the Close: the first signal alone would wait for it.
        let mut deaf = RawWs::connect(server.port, &token::of("deaf"));
        deaf.send(frame(op::FIN | op::TEXT, br#"{"type":"Ping"}"#));
        deaf.read();
        let body = format!(r#"{{"event_type":"e","payload":"{}"}}"#, "x".repeat(60_000));
        for _ in 0..60 {
            assert_eq!(server.publish("broadcast", &body)["delivered_to"], 1);
        }
        server.process.signal(first);
        server.process.await_output("a second signal ends at once");
        server.process.signal(second);
        let status = server.await_exit();
        assert_eq!(status.code(), Some(code), "{status}");
        assert!(!server.process.output().contains("stopped"), "the node went through its whole stop");
        drop(deaf);
    }
}

#[test]
fn every_problem_of_the_settings_is_listed_at_once() {
    let bad = [
        ("SERVER_PORT", "0"),
        ("REDIS_URL", "http://localhost"),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "0"),
        ("WEBSOCKET_MAX_CONNECTIONS", "many"),
        ("JWT_ALGORITHM", "ROT13"),
        ("QUEUE_BACKEND", "paper"),
        ("SHARDS", "0"),
        ("SERVER_TRUSTED_PROXIES", "everybody"),
    ];
    for arguments in [&[][..], &["check-config"]] {
        let (code, printed) = run_binary(arguments, &bad);
        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("Error: Configuration validation failed:"), "{printed}");
        for (name, _) in bad {
            assert!(printed.contains(name), "{name} is not named in\n{printed}");
        }
    }
    let (code, printed) = run_binary(&[], &[]);
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("JWT_SECRET"), "{printed}");
}

#[test]
fn an_idle_timeout_shorter_than_the_heartbeat_is_refused() {
    let (code, printed) = run_binary(
        &["check-config"],
        &[
            ("JWT_SECRET", token::SECRET),
            ("WEBSOCKET_HEARTBEAT_INTERVAL", "30"),
            ("WEBSOCKET_CONNECTION_TIMEOUT", "30"),
        ],
    );
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("WEBSOCKET_CONNECTION_TIMEOUT"), "{printed}");
}

#[test]
fn a_taken_port_and_a_bad_host_stop_the_start() {
    let server = Server::start();
    let taken = server.port.to_string();
    let here = [("JWT_SECRET", token::SECRET), ("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", taken.as_str())];
    let (code, printed) = run_binary(&[], &here);
    assert_eq!(code, Some(1), "{printed}");
    let free = Port::free();
    let nowhere =
        [("JWT_SECRET", token::SECRET), ("SERVER_HOST", "host.invalid"), ("SERVER_PORT", &free.number.to_string())];
    let (code, printed) = run_binary(&[], &nowhere);
    assert_eq!(code, Some(1), "{printed}");
    server.still_delivers();
}

#[test]
fn a_short_secret_is_warned_of_and_serves() {
    let home = Folder::new("short");
    let port = Port::free();
    let number = port.number.to_string();
    let mut command = binary();
    command.current_dir(home.path());
    command.envs([
        ("JWT_SECRET", "your-jwt-secret-here"),
        ("SERVER_HOST", "127.0.0.1"),
        ("SERVER_PORT", number.as_str()),
    ]);
    let process = Process::spawn(command.env("REDIS_URL", "redis://127.0.0.1:1"));
    process.await_output("JWT_SECRET");
    await_that("the server", || answers(port.number).then_some(()));
    let claims = json!({"sub": "ana", "exp": token::now() + 60});
    let mut ws =
        Ws::connect(port.number, &token::sign_with(&claims, jsonwebtoken::Algorithm::HS256, "your-jwt-secret-here"));
    ws.ask(r#"{"type":"Ping"}"#, r#"{"type":"pong"}"#);
    assert!(!process.output().contains("your-jwt-secret-here"), "the secret is in the log");
}

#[test]
fn check_config_shows_what_holds_and_no_secret() {
    let home = Folder::new("layers");
    std::fs::create_dir(home.path().join("config")).expect("the folder is ours");
    home.write(
        "config/default.toml",
        "[server]\nport = 1001\nhost = '10.0.0.1'\n[websocket]\nheartbeat_interval = 11\n",
    );
    home.write("config/staging.toml", "[websocket]\nheartbeat_interval = 12\n");
    home.write(".env", "SERVER_PORT=1002\nAPI_KEY=from-dot-env-0123456789\nWEBSOCKET_MAX_CONNECTIONS=77\n");
    let (status, printed) = run(binary().current_dir(home.path()).arg("check-config").envs([
        ("JWT_SECRET", token::SECRET),
        ("RUN_MODE", "staging"),
        ("WEBSOCKET_MAX_CONNECTIONS", "78"),
        ("REDIS_URL", "redis://ara:hush@redis:6379/2"),
    ]));
    assert!(status.success(), "{printed}");
    for (name, value) in [
        ("SERVER_PORT", "1002"),
        ("SERVER_HOST", "10.0.0.1"),
        ("WEBSOCKET_HEARTBEAT_INTERVAL", "12"),
        ("WEBSOCKET_MAX_CONNECTIONS", "78"),
        ("WEBSOCKET_CONNECTION_TIMEOUT", "120"),
        ("REDIS_URL", "redis:6379/2"),
    ] {
        let shown = printed.lines().any(|line| line.contains(name) && line.contains(value));
        assert!(shown, "{name} is not shown as {value} in\n{printed}");
    }
    for secret in [token::SECRET, "from-dot-env-0123456789", "hush"] {
        assert!(!printed.contains(secret), "{secret} is shown in\n{printed}");
    }
}

#[test]
fn check_config_says_what_is_kept_where_and_hides_the_way_there() {
    let settings = [
        ("JWT_SECRET", token::SECRET),
        ("QUEUE_ENABLED", "true"),
        ("QUEUE_BACKEND", "postgres"),
        ("ACK_ENABLED", "true"),
        ("ACK_BACKEND", "redis"),
        ("DATABASE_URL", "postgres://ara:hunter2@db/ara"),
    ];
    let (code, printed) = run_binary(&["check-config"], &settings);
    assert_eq!(code, Some(0), "{printed}");
    let kept = "Kept: templates in postgres, mail in postgres, acknowledgements in redis";
    assert!(printed.lines().any(|line| line == kept), "{printed}");
    assert!(printed.contains("postgres://ara:***@db/ara") && !printed.contains("hunter2"), "{printed}");

    let bad = [&settings[..5], &[("DATABASE_URL", "postgres://ara:hunter2@db:none/ara")]].concat();
    for arguments in [&[][..], &["check-config"]] {
        let (code, printed) = run_binary(arguments, &bad);
        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("DATABASE_URL=") && printed.contains("its port"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}

#[test]
fn help_and_version_are_there() {
    let (code, help) = run_binary(&["--help"], &[]);
    assert_eq!(code, Some(0));
    for word in ["dev", "token", "check-config", "healthcheck", "publish", "JWT_SECRET", "REDIS_URL", "SERVER_PORT"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    assert_eq!(run_binary(&["--version"], &[]), (Some(0), "ara-notification-service 1.0.0\n".to_owned()));
    let (code, printed) = run_binary(&["--no-such-option"], &[]);
    assert!(code.is_some_and(|code| code != 0), "{printed}");
}

#[test]
fn token_prints_a_token_that_opens_the_door() {
    let server = Server::start();
    let (code, printed) = run_binary(&["token", "--user", "ana", "--role", "admin"], &[("JWT_SECRET", token::SECRET)]);
    assert_eq!(code, Some(0), "{printed}");
    let mut ws = Ws::connect(server.port, printed.trim());
    let receipt =
        server.publish("broadcast", r#"{"event_type":"e","payload":1,"audience":{"type":"Roles","value":["admin"]}}"#);
    assert_eq!(receipt["delivered_to"], 1);
    assert_eq!(ws.payload(), 1);
    assert_eq!(run_binary(&["token", "--user", "ana"], &[]).0, Some(1), "without a secret there is none");
}

#[test]
fn healthcheck_says_by_its_exit_code_whether_somebody_answers() {
    let server = Server::start();
    let port = server.port.to_string();
    let at = [("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", port.as_str())];
    for arguments in [&["healthcheck"][..], &["--healthcheck"]] {
        let (code, printed) = run_binary(arguments, &at);
        assert_eq!(code, Some(0), "{printed}");
    }
    let url = format!("http://127.0.0.1:{port}/health");
    assert_eq!(run_binary(&["healthcheck", "--url", &url], &[]).0, Some(0));
    drop(server);
    assert_eq!(run_binary(&["healthcheck"], &at).0, Some(1));
}

#[test]
fn publish_sends_through_a_running_service() {
    let server = Server::with(&[("API_KEY", "a-key-of-the-tests")]);
    let port = server.port.to_string();
    let at = [("SERVER_HOST", "127.0.0.1"), ("SERVER_PORT", port.as_str()), ("API_KEY", "a-key-of-the-tests")];
    let mut ws = server.ws("ana");
    ws.subscribe(&["orders"]);
    for target in [&["--user", "ana"][..], &["--channel", "orders"], &["--broadcast"]] {
        let content = ["--event-type", "order.created", "--payload", r#"{"amount":1.50}"#];
        let arguments: Vec<_> = [&["publish"][..], target, &content].concat();
        let (code, printed) = run_binary(&arguments, &at);
        assert_eq!(code, Some(0), "{printed}");
        let receipt: Value =
            serde_json::from_str(printed.trim()).unwrap_or_else(|error| panic!("{error} in {printed}"));
        assert_eq!(receipt["delivered_to"], 1);
        let heard = ws.hear();
        assert!(heard.contains(r#""event_type":"order.created","payload":{"amount":1.50}"#), "{heard}");
    }
    let (code, printed) = run_binary(&["publish", "--broadcast", "--event-type", "e", "--payload", "1"], &at[..2]);
    assert_eq!(code, Some(1), "without the key: {printed}");
    let (code, printed) = run_binary(&["publish", "--broadcast", "--event-type", "e", "--payload", "no json"], &at);
    assert_eq!(code, Some(1), "{printed}");
}

/// The shell commands that begin with `curl` in a text, lines that end in a backslash joined.
fn curl_commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.find("curl ").map(|at| &line[at..]))
        .flat_map(|commands| commands.split("; "))
        .map(|command| command.trim().to_owned())
        .collect()
}

fn shell(command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {command}"));
    shell
}

#[test]
fn dev_prints_commands_that_work() {
    tool("curl");
    let port = Port::free();
    let number = port.number.to_string();
    let home = Folder::new("dev");
    // Nothing is set: dev needs nothing.
    let mut process = Process::spawn(binary().current_dir(home.path()).args(["dev", "--port", &number]));
    process.await_output("/metrics");
    assert!(process.ended().is_none());
    let commands = curl_commands(&process.output());
    assert!(commands.len() >= 4, "{commands:?}");
    let (listen, others): (Vec<_>, Vec<_>) = commands.iter().partition(|command| command.contains("curl -N"));
    assert_eq!(listen.len(), 1, "{commands:?}");
    let listener = Process::spawn(&mut shell(listen[0]));
    listener.await_output("event: connected");
    let mut sent = 0;
    for command in others {
        let command = command.replacen("curl ", "curl --silent --show-error --fail-with-body ", 1);
        let (status, printed) = run(&mut shell(&command));
        assert!(status.success(), "{command}: {printed}");
        if command.contains("/api/v1/notifications/") {
            assert!(printed.contains(r#""delivered_to":1,"#), "{command}: {printed}");
            sent += 1;
        }
    }
    assert!(sent > 0, "{commands:?}");
    await_that("the listener to show what was sent", || {
        (listener.output().matches("event: notification").count() == sent).then_some(())
    });
    assert_eq!(call(port.number, "GET", "/health", &[], None).ok()["status"], "healthy");
    process.signal(Signal::INT);
    assert_eq!(process.await_exit().code(), Some(0));
}

#[test]
fn the_limit_of_open_files_is_raised_at_start() {
    let server = Server::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process.pid())).expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("Linux tells it");
    let numbers: Vec<_> =
        line.split_whitespace().filter(|word| word.parse::<u64>().is_ok() || *word == "unlimited").collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
}

#[test]
fn every_setting_and_every_metric_is_documented() {
    let (_, help) = run_binary(&["--help"], &[]);
    let operations = include_str!("../../../docs/OPERATIONS.md");
    let is_setting = |word: &&str| {
        *word == "SHARDS" || (word.contains('_') && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
    };
    let settings: Vec<_> = help.lines().filter_map(|line| line.split_whitespace().next()).filter(is_setting).collect();
    assert!(settings.len() > 50, "{settings:?}");
    let missing: Vec<_> = settings.into_iter().filter(|name| !operations.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/OPERATIONS.md: {missing:?}");

    let metrics = Server::start().get("/metrics");
    let documented = include_str!("../../../docs/METRICS.md");
    let families = metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<_> = families.filter(|name| !documented.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/METRICS.md: {missing:?}");
}
