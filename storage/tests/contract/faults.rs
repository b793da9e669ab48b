//! Servers that are killed, held, restarted and thrown off their links in the middle of a load.
//!
//! Whatever becomes of the server, the model of every mailbox holds, each request is answered once and in its turn, the
//! store works again by itself, and the books are right at rest.
use crate::bench::{Bench, FIGURES_INTERVAL_MS, Kind, Server, Settings};
use crate::common::cluster::{Cluster, MASTERS};
use crate::common::since_epoch_ns;
use crate::load::Load;
use std::time::Duration;
use storage::figures::Figure;
use storage::redis::partitions::{PARTITIONS, prefix_of};

rows! {
    on_servers:
        a_load_without_a_fault_is_done_wholly,
        promises_are_kept_when_the_server_is_killed_and_comes_back,
        promises_are_kept_when_the_server_stands_still_beyond_the_timeout,
        promises_are_kept_when_the_server_is_restarted,
        promises_are_kept_when_somebody_closes_the_links,
}

const ENTRIES_MAX: u32 = 20;
const COMMAND_TIMEOUT_MS: u32 = 500;
/// Requests that are done before, between and after faults.
const REQUESTS: u64 = 1_000;

/// A load runs; the fault is done to it, in the middle; everything is looked at.
fn under_load(kind: Kind, command_timeout_ms: u32, fault: impl FnOnce(&mut Bench, &mut Load)) -> [u64; 3] {
    let mut bench = Bench::with(kind, Settings { entries_max: ENTRIES_MAX, command_timeout_ms, ..Settings::default() });
    let mut load = Load::new(since_epoch_ns(), ENTRIES_MAX as usize);
    load.until_done(&mut bench.store, REQUESTS);
    fault(&mut bench, &mut load);
    load.until_all_work(&mut bench.store);
    load.until_done(&mut bench.store, REQUESTS);
    let (users, depth) = load.finish(&mut bench.store);
    println!("done, failed, unknown: {:?}", load.told);
    assert!(bench.store.replies.is_empty());
    assert_eq!(bench.store.figures.outstanding.get(), 0);
    bench.store.skip_ms(FIGURES_INTERVAL_MS);
    bench.store.until(&format!("{users} mailboxes hold {depth} and the books agree"), |d| {
        let mail = &d.figures.mail;
        let gone = [&mail.dropped, &mail.expired, &mail.delivered, &mail.undecodable].map(Figure::get);
        let told = (mail.users.get(), mail.depth.get(), mail.enqueued.get());
        told == (users, depth, depth + gone.iter().sum::<u64>())
    });
    load.told
}

/// The fault, again and again, was one: links were lost and came back.
fn until_felt(bench: &mut Bench, load: &mut Load, connections: u64) {
    load.until_all_work(&mut bench.store);
    assert!(bench.store.figures.connections.get() > connections, "nobody noticed: {:?}", bench.store.figures);
}

fn a_load_without_a_fault_is_done_wholly(kind: Kind) {
    let told = under_load(kind, 600_000, |_, _| {});
    assert_eq!(told[1..], [0, 0], "failed and unknown");
}

fn promises_are_kept_when_the_server_is_killed_and_comes_back(kind: Kind) {
    under_load(kind, COMMAND_TIMEOUT_MS, |bench, load| {
        let connections = bench.store.figures.connections.get();
        load.step(&mut bench.store);
        match &mut bench.server {
            Server::None => panic!("this is asked of servers"),
            Server::Redis(server) => server.kill(),
            Server::RedisCluster(cluster) => cluster.nodes[1].kill(),
            Server::Postgres(server) => server.kill(),
        }
        load.during(&mut bench.store, Duration::from_secs(2));
        restart(&mut bench.server);
        until_felt(bench, load, connections);
    });
}

fn promises_are_kept_when_the_server_stands_still_beyond_the_timeout(kind: Kind) {
    under_load(kind, COMMAND_TIMEOUT_MS, |bench, load| {
        for _ in 0..2 {
            let connections = bench.store.figures.connections.get();
            match &bench.server {
                Server::None => panic!("this is asked of servers"),
                Server::Redis(server) => server.hold(),
                Server::RedisCluster(cluster) => cluster.nodes[1].hold(),
                Server::Postgres(server) => server.hold(),
            }
            load.during(&mut bench.store, Duration::from_millis(u64::from(COMMAND_TIMEOUT_MS) * 3));
            match &bench.server {
                Server::None => panic!("this is asked of servers"),
                Server::Redis(server) => server.release(),
                Server::RedisCluster(cluster) => cluster.nodes[1].release(),
                Server::Postgres(server) => server.release(),
            }
            until_felt(bench, load, connections);
        }
    });
}

fn promises_are_kept_when_the_server_is_restarted(kind: Kind) {
    under_load(kind, COMMAND_TIMEOUT_MS, |bench, load| {
        for _ in 0..2 {
            let connections = bench.store.figures.connections.get();
            load.step(&mut bench.store);
            match &mut bench.server {
                Server::None => panic!("this is asked of servers"),
                Server::Redis(server) => server.stop(),
                Server::RedisCluster(cluster) => cluster.nodes[1].stop(),
                Server::Postgres(server) => server.stop(),
            }
            load.step(&mut bench.store);
            restart(&mut bench.server);
            until_felt(bench, load, connections);
        }
    });
}

fn promises_are_kept_when_somebody_closes_the_links(kind: Kind) {
    under_load(kind, COMMAND_TIMEOUT_MS, |bench, load| {
        for _ in 0..10 {
            let connections = bench.store.figures.connections.get();
            load.step(&mut bench.store);
            match &bench.server {
                Server::None => panic!("this is asked of servers"),
                Server::Redis(server) => {
                    server.client().must(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                }
                Server::RedisCluster(cluster) => {
                    for node in &cluster.nodes {
                        node.client().must(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
                    }
                }
                Server::Postgres(server) => {
                    server.psql(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
                    );
                }
            }
            until_felt(bench, load, connections);
        }
    });
}

/// Redis has one thread for all: there a session cannot stand still alone.
#[test]
fn postgres_sessions_that_stood_still_do_nothing_behind_their_successors() {
    under_load(Kind::Postgres, COMMAND_TIMEOUT_MS, |bench, load| {
        for _ in 0..3 {
            let connections = bench.store.figures.connections.get();
            let Server::Postgres(server) = &bench.server else { panic!("this is asked of PostgreSQL") };
            let held = server.hold_sessions();
            load.during(&mut bench.store, Duration::from_millis(u64::from(COMMAND_TIMEOUT_MS) * 3));
            server.release_sessions(&held);
            until_felt(bench, load, connections);
        }
    });
}

/// Half of the partitions change their masters, all of their keys with them, and back.
#[test]
fn slots_that_move_to_other_masters_fail_nobody() {
    let told = under_load(Kind::RedisCluster, 600_000, |bench, load| {
        let connections = bench.store.figures.connections.get();
        for hop in 0..2 {
            for partition in (0..PARTITIONS).step_by(2) {
                let Server::RedisCluster(cluster) = &bench.server else { panic!("this is asked of a cluster") };
                let key = prefix_of("", partition);
                let (from, to) = (Cluster::owner(&key) + hop, Cluster::owner(&key) + hop + 1);
                let store = &mut bench.store;
                cluster.move_slot(&key, from % MASTERS, to % MASTERS, || load.step(store));
                load.until_all_work(store);
            }
        }
        until_felt(bench, load, connections + PARTITIONS as u64 / 2);
    });
    assert_eq!(told[1..], [0, 0], "failed and unknown");
}

fn restart(server: &mut Server) {
    match server {
        Server::None => panic!("this is asked of servers"),
        Server::Redis(server) => server.restart(),
        Server::RedisCluster(cluster) => cluster.nodes[1].restart(),
        Server::Postgres(server) => server.restart(),
    }
}
