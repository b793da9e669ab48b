//! Links to Redis that are encrypted: whom they take for the server, with certificates made for the test.
mod common;
mod redis_commands_driver;

use common::{Driver, RedisServer, config as feed_config, free_port, pairs};
use redis_commands_driver::{CommandDriver, config, done};
use std::path::Path;
use std::process::Command as Process;
use storage::breaker::BreakerState;
use storage::redis::commands::link::CommandConfig;
use storage::redis::status::FeedErrorKind;
use storage::redis::url::RedisUrl;

fn openssl(folder: &Path, arguments: &str) {
    let done = Process::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let done = done.expect("these tests need openssl; deploy/install-test-deps.sh");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A server that is `localhost` by the word of an authority of its own, whose certificate lies in `ca.pem`, and its port
/// for encrypted links. A second authority, `other.pem`, does not know it.
fn server() -> (RedisServer, u16) {
    let (mut server, tls_port) = (RedisServer::absent(), free_port());
    let folder = server.directory.clone();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        openssl(
            &folder,
            &format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -days 30 -subj /CN={authority}"),
        );
    }
    openssl(&folder, &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        &folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.crt -extfile names",
    );
    let file = |name: &str| folder.join(name).display().to_string();
    let settings = [
        ("--tls-port", tls_port.to_string()),
        ("--tls-cert-file", file("server.crt")),
        ("--tls-key-file", file("server.key")),
        ("--tls-ca-cert-file", file("ca.pem")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    server.settings = settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
    server.restart();
    (server, tls_port)
}

fn url(server: &RedisServer, host: &str, port: u16, authority: &str) -> String {
    format!("rediss://{host}:{port}?ssl_ca={}", server.directory.join(authority).display())
}

#[test]
fn a_server_is_taken_for_whom_its_authority_vouches_by_its_name() {
    let (server, port) = server();
    let mut driver = CommandDriver::new(config(&url(&server, "localhost", port, "ca.pem"), &[]));
    assert_eq!(driver.command(&["PING"]), done("PONG"));
    let long = "x".repeat(3_000_000);
    assert_eq!(driver.command(&["ECHO", &long]), done(&format!("\"{long}\"")));
    for number in 0..10_000 {
        driver.say(&["ECHO", &number.to_string()]);
    }
    assert_eq!(driver.answers().last().map(|(_, told)| told.clone()), Some(done("\"9999\"")));
    let refused = [url(&server, "127.0.0.1", port, "ca.pem"), url(&server, "localhost", port, "other.pem")];
    for url in refused {
        let mut settings = config(&url, &[]);
        settings.breaker.failure_threshold = 1;
        let mut driver = CommandDriver::new(settings);
        driver.until("it was tried twice", |d| d.status().ends >= 2);
        assert_eq!(driver.status().last_error, Some(FeedErrorKind::Tls), "{url}");
        assert_eq!(driver.status().breaker, BreakerState::Closed, "{url}: the server is there");
    }
}

#[test]
fn an_encrypted_link_is_lost_and_found_like_any_other() {
    let (mut server, port) = server();
    let mut driver = CommandDriver::new(config(&url(&server, "localhost", port, "ca.pem"), &[]));
    driver.until_healthy(1);
    server.hold();
    driver.say(&["SET", "k", "v"]);
    driver.turn(false, true);
    driver.skip_ms(121_000);
    assert_eq!(std::mem::take(&mut driver.told).len(), 1);
    server.release();
    driver.until_healthy(2);
    assert_eq!(driver.command(&["SET", "k", "w"]), done("OK"));
    server.kill();
    driver.until("the loss is noticed", |d| d.status().ends >= 2);
    server.restart();
    driver.until_healthy(3);
    assert_eq!(driver.command(&["GET", "k"]), done("(nil)"));
}

#[test]
fn a_subscription_is_encrypted_too_and_may_pause() {
    let (server, port) = server();
    let mut driver = Driver::new(feed_config(&url(&server, "localhost", port, "ca.pem"), &["a"]));
    driver.until_healthy(1);
    let mut client = server.client();
    client.must(&["PUBLISH", "a", "1"]);
    assert_eq!(driver.hear(1), pairs(&[("a", b"1")]));
    driver.paused = true;
    let long = "x".repeat(200_000);
    for _ in 0..20 {
        client.must(&["PUBLISH", "a", &long]);
    }
    for _ in 0..5 {
        driver.step();
    }
    assert!(driver.heard.is_empty());
    driver.paused = false;
    assert!(driver.hear(20).iter().all(|(_, payload)| payload.len() == long.len()));
    let mut stranger = Driver::new(feed_config(&url(&server, "localhost", port, "other.pem"), &["a"]));
    stranger.until("it was refused", |d| d.status().ends >= 2);
    assert_eq!(stranger.status().last_error, Some(FeedErrorKind::Tls));
}

#[test]
fn a_file_that_is_no_certificate_is_told_at_the_start() {
    let error = CommandConfig::new(RedisUrl::parse("rediss://h?ssl_ca=/no/such.pem").unwrap(), &[]).unwrap_err();
    assert!(error.to_string().contains("/no/such.pem"), "{error}");
}
