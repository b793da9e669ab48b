//! Links that are encrypted: whom each `sslmode` takes for the server, with certificates made for the test.
mod common;

use common::postgres::{LinkDriver, PostgresServer};
use std::path::Path;
use std::process::Command as Process;
use storage::backoff::BackoffConfig;
use storage::breaker::{BreakerConfig, BreakerState};
use storage::postgres::command::{Command, Statement};
use storage::postgres::link::LinkConfig;
use storage::postgres::status::LinkErrorKind;
use storage::postgres::url::PostgresUrl;

const LONG_MS: u32 = 600_000;
const TLS: Statement =
    Statement { name: "tls", sql: "SELECT ssl::text, $1::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()" };

fn openssl(folder: &Path, arguments: &str) {
    let done = Process::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let done = done.expect("these tests need openssl, which PostgreSQL's package brings; deploy/install-test-deps.sh");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A server that is `localhost` by the word of an authority of its own, whose certificate lies in `ca.pem`. A second
/// authority, `other.pem`, does not know it.
fn server(hba: &str) -> PostgresServer {
    let mut server = PostgresServer::prepare();
    let folder = server.directory.clone();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        openssl(
            &folder,
            &format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -days 30 -subj /CN={authority}"),
        );
    }
    openssl(&folder, &format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    server.write("names", "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n");
    openssl(
        &folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.crt -extfile names",
    );
    for (from, to) in [("server.key", "data/server.key"), ("server.crt", "data/server.crt")] {
        std::fs::copy(folder.join(from), folder.join(to)).unwrap();
        server.give(&folder.join(to));
    }
    server.write("data/pg_hba.conf", hba);
    server.write("data/postgresql.auto.conf", "ssl = on\n");
    server.restart();
    server
}

fn url(server: &PostgresServer, who: &str, host: &str, parameters: &str) -> String {
    let url = format!("postgres://{who}@{host}:{}/postgres?{parameters}", server.port);
    url.replace("CA", &server.directory.join("ca.pem").display().to_string())
        .replace("OTHER", &server.directory.join("other.pem").display().to_string())
}

#[test]
fn each_mode_trusts_whom_it_says() {
    let server = server("hostssl all all 127.0.0.1/32 trust\n");
    let rows = [
        ("127.0.0.1", "sslmode=prefer", None),
        ("127.0.0.1", "sslmode=require", None),
        ("127.0.0.1", "sslmode=require&sslrootcert=CA", None),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=CA", None),
        ("localhost", "sslmode=verify-full&sslrootcert=CA", None),
        ("127.0.0.1", "sslmode=disable", Some(LinkErrorKind::Auth)),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=CA", Some(LinkErrorKind::Tls)),
        ("localhost", "sslmode=verify-full&sslrootcert=OTHER", Some(LinkErrorKind::Tls)),
        ("localhost", "sslmode=verify-ca&sslrootcert=OTHER", Some(LinkErrorKind::Tls)),
        ("localhost", "sslmode=require&sslrootcert=OTHER", Some(LinkErrorKind::Tls)),
        ("localhost", "sslmode=prefer&sslrootcert=OTHER", Some(LinkErrorKind::Tls)),
    ];
    for (host, parameters, refused) in rows {
        let url = url(&server, "postgres", host, parameters);
        let breaker = BreakerConfig { failure_threshold: 1, success_threshold: 1, reset_timeout_ms: 50 };
        let backoff = BackoffConfig { initial_ms: 10, max_ms: 50 };
        let config = LinkConfig::new(PostgresUrl::parse(&url).unwrap(), breaker, backoff).unwrap();
        let mut driver = LinkDriver::new(config);
        match refused {
            None => {
                assert_eq!(driver.ask(Command::new(&TLS, LONG_MS).text("x")), ["row true|x", "done 1"], "{parameters}");
                assert!(driver.status().encrypted, "{parameters}");
            }
            Some(kind) => {
                driver.until("it was tried twice", |d| d.status().ends >= 2);
                assert_eq!(driver.status().last_error, Some(kind), "{host} {parameters}");
                assert_eq!(driver.status().breaker, BreakerState::Closed, "{parameters}: the server is there");
            }
        }
    }
}

#[test]
fn an_encrypted_link_is_a_link() {
    let mut server = server("host all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n");
    server.psql("CREATE ROLE ara LOGIN PASSWORD 'pw'");
    let mut driver = LinkDriver::to(&url(&server, "ara:pw", "localhost", "sslmode=verify-full&sslrootcert=CA"));
    for number in 0..1_000 {
        driver.submit(number, Command::new(&TLS, LONG_MS).text(&number.to_string()));
    }
    let heard = driver.hear(1_000);
    let expected: Vec<_> = (0..1_000).flat_map(|n| [(n, format!("row true|{n}")), (n, "done 1".to_owned())]).collect();
    assert_eq!(heard, expected);
    let long = "x".repeat(1_000_000);
    for number in 0..3 {
        driver.submit(number, Command::new(&TLS, LONG_MS).text(&long));
    }
    let row = format!("row true|{long}");
    assert!(driver.hear(3).iter().filter(|(_, words)| *words == row).count() == 3);
    server.hold();
    driver.submit(1, Command::new(&TLS, 1_000).text("late"));
    driver.turn(false, true);
    driver.skip_ms(1_000);
    assert_eq!(driver.heard.pop_front(), Some((1, "unknown late".to_owned())));
    server.release();
    driver.until_healthy(2);
    server.kill();
    driver.until("it noticed", |d| d.status().ends >= 2);
    server.restart();
    driver.until_healthy(3);
    assert_eq!(driver.ask(Command::new(&TLS, LONG_MS).text("again")), ["row true|again", "done 1"]);
    driver.stop();
}

#[test]
fn a_file_that_is_no_certificate_is_told_at_the_start() {
    let url = PostgresUrl::parse("postgres://h/d?sslmode=verify-full&sslrootcert=/no/such.pem").unwrap();
    let error = LinkConfig::new(url, BreakerConfig::default(), BackoffConfig::default()).unwrap_err();
    assert!(error.to_string().contains("/no/such.pem"), "{error}");
}
