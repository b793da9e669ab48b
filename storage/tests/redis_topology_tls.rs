//! The finder over encrypted connections, with certificates made for the test.
mod common;
mod redis_commands_driver;
mod redis_topology_driver;

use redis_commands_driver::{CommandDriver, Told, done};
use redis_topology_driver::{FinderDriver, Kind, Server, config};
use std::path::{Path, PathBuf};
use std::process::Command;
use storage::redis::commands::answer::RefusalCode;
use storage::redis::topology::finder::FinderConfig;
use storage::redis::topology::node::Node;
use storage::redis::topology::scout::{Located, Whereabouts};
use storage::redis::topology::slots::SLOTS;
use storage::redis::topology::url::RedisAddress;

/// A directory that is removed when it goes out of scope.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let done = done.expect("these tests need openssl, which PostgreSQL's package brings; deploy/install-test-deps.sh");
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A server that is `127.0.0.1` by the word of `ca.pem`; `other.pem` does not know it.
fn certificates() -> Folder {
    let path = std::env::temp_dir().join(format!("ara-topology-certificates-{}", common::free_port()));
    std::fs::create_dir_all(&path).expect("a directory for the certificates");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        let request =
            format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -days 30 -subj /CN={authority}");
        openssl(&path, &request);
    }
    openssl(&path, &format!("req {key} -keyout server.key -out server.csr -subj /CN=redis"));
    std::fs::write(path.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").expect("names");
    openssl(
        &path,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.crt -extfile names",
    );
    Folder(path)
}

#[test]
fn an_encrypted_cluster_is_learned_and_one_that_nobody_vouches_for_is_not() {
    let folder = certificates();
    let node = Server::start(&Kind::EncryptedNode(folder.0.clone()));
    let with = |scheme: &str, host: &str, authority: &str| {
        let roots = Some(folder.0.join(authority));
        FinderDriver::new(FinderConfig { roots, ..config(&format!("{scheme}://{host}:{}", node.port)) })
    };
    let mut driver = with("rediss-cluster", "127.0.0.1", "ca.pem");
    driver.until("it answers that it has no slots", |driver| driver.finder.last_miss().is_some());
    let miss = driver.finder.last_miss().unwrap().to_string();
    assert!(miss.contains("no slots"), "{miss}");
    for (host, authority) in [("127.0.0.1", "other.pem"), ("localhost", "ca.pem")] {
        let mut driver = with("rediss-cluster", host, authority);
        driver.until("the round is over", |driver| driver.finder.last_miss().is_some());
        let miss = driver.finder.last_miss().unwrap().to_string();
        assert!(miss.contains("no encrypted connection"), "{host} by {authority}: {miss}");
    }
    give_slots(&folder.0, node.port);
    driver.until("the table is known", |driver| driver.table().is_some());
    let table = driver.table().unwrap();
    assert_eq!((table.covered(), table.masters()), (SLOTS, &[node.node()][..]));
    assert!(driver.finder.url_of(&node.node()).tls);
}

#[test]
fn commands_go_to_an_encrypted_cluster_that_the_url_vouches_for() {
    let folder = certificates();
    let node = Server::start(&Kind::EncryptedNode(folder.0.clone()));
    give_slots(&folder.0, node.port);
    let authority = folder.0.join("ca.pem");
    let address =
        RedisAddress::parse(&format!("rediss-cluster://127.0.0.1:{}?ssl_ca={}", node.port, authority.display()))
            .unwrap();
    let url = address.url_of(&Node { host: "nowhere.invalid".to_owned(), port: 1 });
    let whereabouts = Whereabouts::look(FinderConfig::new(address), 7).unwrap();
    let mut settings =
        redis_commands_driver::config(&format!("rediss://nowhere.invalid?ssl_ca={}", authority.display()), &[]);
    (settings.url, settings.located) = (url, Some(Located::new(&whereabouts, b"key")));
    let mut commands = CommandDriver::new(settings);
    commands.until_healthy(1);
    let begun = std::time::Instant::now();
    loop {
        match commands.command(&["SET", "key", "value"]) {
            // It has its slots and takes a moment to believe it.
            Told::Refused(RefusalCode::ClusterDown) => assert!(begun.elapsed() < common::PATIENCE),
            told => break assert_eq!(told, done("OK")),
        }
    }
    whereabouts.stop();
}

fn give_slots(folder: &Path, port: u16) {
    let words = format!("--tls --cacert ca.pem -p {port} CLUSTER ADDSLOTSRANGE 0 16383");
    let done = Command::new("redis-cli").args(words.split(' ')).current_dir(folder).output();
    let done = done.expect("these tests need redis-cli, which comes with redis-server");
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "OK", "{}", String::from_utf8_lossy(&done.stderr));
}
