//! The finder against real sentinels and a real cluster, which each test starts for itself and loses servers of.
mod common;
mod redis_topology_driver;

use redis_topology_driver::{FinderDriver, Guarded, Kind, Server, config, texts};
use storage::redis::topology::finder::WATCHING;
use storage::redis::topology::node::Node;
use storage::redis::topology::slots::{Redirect, SLOTS, slot_of};

#[test]
fn sentinels_tell_of_a_new_master_as_soon_as_the_old_one_is_lost() {
    let mut guarded = Guarded::start();
    let mut driver = FinderDriver::new(config(&guarded.url(&[0])));
    let [old, new] = [guarded.servers[0].node(), guarded.servers[1].node()];
    driver.until_master(&old);
    let url = driver.finder.master_url().unwrap();
    assert_eq!(url.to_string(), format!("redis://:***@{old}/1"));
    driver.until("the sentinels know each other", |_| guarded.is_complete());
    // The one that was configured tells of the others; they are asked and watched when it is gone.
    driver.finder.refresh();
    driver.until("the other sentinels are learned", |driver| driver.finder.servers().len() == 3);
    let changes = driver.finder.changes();
    driver.until("a sentinel is watched", |driver| driver.wants[WATCHING].read);
    guarded.servers[0].kill();
    // Nobody tells the finder but the sentinel.
    driver.until_master(&new);
    assert!(driver.finder.changes() >= changes + 2, "it was doubted in between");
    guarded.sentinels[0].kill();
    driver.finder.invalidate();
    assert_eq!(driver.finder.current(), None);
    driver.until_master(&new);
    driver.until("another sentinel is watched", |driver| driver.wants[WATCHING].read);
    assert_eq!(driver.finder.last_miss(), None);
}

#[test]
fn a_watched_sentinel_answers_pings_and_is_replaced_when_it_is_gone() {
    let mut guarded = Guarded::start();
    let mut driver = FinderDriver::new(config(&guarded.url(&[0, 1, 2])));
    let watched = |driver: &FinderDriver| driver.wants[WATCHING].socket.filter(|_| driver.wants[WATCHING].read);
    driver.until("a sentinel is watched", |driver| watched(driver).is_some());
    // Until its subscription stands.
    let long_us = driver.wants[WATCHING].wake_at_us;
    driver.until("it has answered", |driver| driver.wants[WATCHING].wake_at_us > long_us);
    let socket = watched(&driver);
    for _ in 0..3 {
        driver.skip_ms(240_000);
        let pinged_us = driver.wants[WATCHING].wake_at_us;
        driver.until("the PING is answered", |driver| driver.wants[WATCHING].wake_at_us > pinged_us);
    }
    assert_eq!(watched(&driver), socket);
    for sentinel in &mut guarded.sentinels[..2] {
        sentinel.kill();
    }
    driver.finder.invalidate();
    driver.until_master(&guarded.servers[0].node());
    driver.until("the third is watched", |driver| watched(driver).is_some());
}

#[test]
fn wrong_passwords_and_unknown_names_are_said_to_be_that() {
    let guarded = Guarded::start();
    let right = guarded.url(&[0, 1]);
    let rows = [
        (right.replace("our-master", "their-master"), "check the name"),
        (right.replace("watch-word", "hunter2"), "WRONGPASS in answer to AUTH"),
        (right.replace("?sentinel_password=watch-word", ""), "NOAUTH"),
        (right.replace("pass-word", "hunter2"), "WRONGPASS in answer to AUTH"),
        (right.replace(":pass-word@", ""), "NOAUTH"),
    ];
    for (url, shown) in rows {
        let mut driver = FinderDriver::new(config(&url));
        driver.until("the round is over", |driver| driver.finder.last_miss().is_some());
        let miss = driver.finder.last_miss().unwrap().to_string();
        assert!(miss.contains(shown) && !miss.contains("hunter2"), "{url}: {miss}");
        assert_eq!(driver.finder.current(), None);
    }
}

/// Three masters with a third of the slots each.
fn cluster() -> Vec<Server> {
    let nodes: Vec<Server> = (0..3).map(|_| Server::start(&Kind::ClusterNode)).collect();
    for (node, (from, to)) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        node.must(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
    }
    for node in &nodes[1..] {
        meet(node, &nodes[0]);
    }
    nodes
}

fn meet(node: &Server, other: &Server) {
    node.must(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), &other.bus_port.to_string()]);
}

/// Whether a node has heard of the other three and of all their slots.
fn knows_all(node: &Server) -> bool {
    let info = texts(&node.ask(None, &["CLUSTER", "INFO"]))[0].clone();
    ["cluster_state:ok", "cluster_known_nodes:4", "cluster_slots_assigned:16384"].iter().all(|line| info.contains(line))
}

fn is_whole(driver: &FinderDriver) -> bool {
    driver.table().is_some_and(|table| table.covered() == SLOTS)
}

#[test]
fn a_cluster_is_learned_from_any_node_and_a_lost_master_is_replaced() {
    let mut nodes = cluster();
    let replica = Server::start(&Kind::ClusterNode);
    meet(&replica, &nodes[0]);
    let mut driver = FinderDriver::new(config(&format!("redis-cluster://{}", nodes[1].node())));
    driver.until("all slots have a master", |driver| {
        driver.finder.refresh();
        is_whole(driver) && nodes.iter().chain([&replica]).all(knows_all)
    });
    assert_eq!(driver.table().unwrap().masters().len(), 3);
    let key = b"{user1000}.following";
    let slot = slot_of(key);
    let told = texts(&nodes[0].ask(None, &["CLUSTER", "KEYSLOT", "{user1000}.following"]));
    assert_eq!(told, [slot.to_string()]);
    for (key, server) in [("foo", 2), ("hello", 0)] {
        assert_eq!(driver.table().unwrap().owner_of_key(key.as_bytes()), Some(&nodes[server].node()), "{key}");
    }
    // MOVED as a real server says it.
    let asked = nodes[0].node();
    let moved = texts(&nodes[0].ask(None, &["GET", "foo"]))[0].clone();
    let redirect = Redirect::parse(moved.as_bytes(), &asked);
    assert_eq!(redirect, Some(Redirect::Moved { slot: slot_of(b"foo"), node: nodes[2].node() }));
    let changes = driver.finder.changes();
    driver.finder.redirected(&redirect.unwrap());
    assert_eq!(driver.finder.changes(), changes, "that was known");
    // The master of the seed's own slots is lost, its replica follows.
    let id = texts(&nodes[1].ask(None, &["CLUSTER", "MYID"]))[0].clone();
    driver.until("the replica may follow", |_| texts(&replica.ask(None, &["CLUSTER", "REPLICATE", &id])) == ["OK"]);
    driver.until("the others know of the replica, and it is in step", |_| {
        let told = texts(&nodes[0].ask(None, &["CLUSTER", "REPLICAS", &id]));
        let link = texts(&replica.ask(None, &["INFO", "replication"]));
        told.len() == 1 && told[0].contains(&replica.port.to_string()) && link[0].contains("master_link_status:up")
    });
    nodes[1].kill();
    let lost = nodes[1].node();
    driver.until("the replica is the master of its slots", |driver| {
        // As the link does that lost its connection.
        driver.finder.refresh();
        driver.table().is_some_and(|table| table.owner(6_000) == Some(&replica.node()))
    });
    assert!(!driver.table().unwrap().masters().contains(&lost));
    assert!(is_whole(&driver));
}

#[test]
fn a_node_alone_is_where_it_was_asked_and_one_without_a_cluster_refuses() {
    let alone = Server::start(&Kind::ClusterNode);
    let url = format!("redis-cluster://localhost:{}", alone.port);
    let mut driver = FinderDriver::new(config(&url));
    driver.until("it knows no slots", |driver| driver.finder.last_miss().is_some());
    assert!(driver.finder.last_miss().unwrap().to_string().contains("no slots"));
    alone.must(&["CLUSTER", "ADDSLOTSRANGE", "0", "9", "11", "16383"]);
    driver.until("it knows its slots", |driver| driver.table().is_some());
    let table = driver.table().unwrap();
    let asked = Node { host: "localhost".to_owned(), port: alone.port };
    assert_eq!((table.owner(9), table.owner(10), table.owner(11)), (Some(&asked), None, Some(&asked)));
    assert_eq!(driver.finder.url_of(&asked).to_string(), format!("redis://{asked}"));
    let single = Server::start(&Kind::Redis(Vec::new()));
    let mut driver = FinderDriver::new(config(&format!("redis-cluster://{}", single.node())));
    driver.until("it refuses", |driver| driver.finder.last_miss().is_some());
    assert!(driver.finder.last_miss().unwrap().to_string().contains("cluster support disabled"));
}
