//! A Redis Cluster of the test's own.
use super::{Client, PATIENCE, RedisServer, free_port};
use redis_protocol::resp2::types::OwnedFrame;
use std::time::Instant;
use storage::redis::topology::finder::{FinderConfig, FinderTiming};
use storage::redis::topology::node::Node;
use storage::redis::topology::scout::Whereabouts;
use storage::redis::topology::slots::{SLOTS, slot_of};
use storage::redis::topology::url::RedisAddress;
use storage::redis::url::RedisUrl;

/// Masters.
pub(crate) const MASTERS: usize = 3;

/// Three masters with a third of the slots each, and who knows where they are.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
    pub(crate) whereabouts: Whereabouts,
    /// Nobody is at its place, but it has the login.
    pub(crate) url: RedisUrl,
}

impl Cluster {
    /// They write everything down before they answer.
    pub(crate) fn durable() -> Cluster {
        let (mut nodes, mut bus_ports) = (Vec::new(), Vec::new());
        for _ in 0..MASTERS {
            let bus_port = free_port();
            let mut node = RedisServer::absent();
            let bus = bus_port.to_string();
            // Nobody is to be taken for lost because the machine is busy.
            let of_cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "60000", "--cluster-port", &bus];
            let durable = ["--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no"];
            let all = of_cluster.iter().chain(&durable);
            node.settings = all.map(|word| (*word).to_owned()).collect();
            node.restart();
            nodes.push(node);
            bus_ports.push(bus_port);
        }
        join(&nodes, &bus_ports);
        let address = format!("redis-cluster://127.0.0.1:{}", nodes[0].port);
        let address = RedisAddress::parse(&address).expect("a valid address");
        let url = address.url_of(&Node { host: "nowhere.invalid".to_owned(), port: 1 });
        let timing = FinderTiming { round_gap_ms: 10, ..FinderTiming::default() };
        let whereabouts = Whereabouts::look(FinderConfig { timing, ..FinderConfig::new(address) }, 7);
        let whereabouts = whereabouts.expect("the system has a thread left");
        Cluster { nodes, whereabouts, url }
    }

    /// What a node calls itself.
    pub(crate) fn id(&self, nth: usize) -> String {
        id_of(&self.nodes[nth])
    }

    /// Which node was given the slot of a key at the start.
    pub(crate) fn owner(key: &str) -> usize {
        usize::from(slot_of(key.as_bytes()) / (SLOTS / MASTERS as u16)).min(MASTERS - 1)
    }

    /// A connection to the first owner of a key.
    pub(crate) fn client_of(&self, key: &str) -> Client {
        self.nodes[Cluster::owner(key)].client()
    }

    /// Moves the slot of a key, and the keys in it, from one node to another, as resharding tools do. `meanwhile` is done
    /// between the steps: when some keys have moved, and when all have and the old owner says ASK.
    pub(crate) fn move_slot(&self, key: &str, from: usize, to: usize, mut meanwhile: impl FnMut()) {
        let slot = slot_of(key.as_bytes()).to_string();
        let (mut source, mut target) = (self.nodes[from].client(), self.nodes[to].client());
        let (source_id, target_id) = (self.id(from), self.id(to));
        target.must(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]);
        source.must(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]);
        loop {
            let OwnedFrame::Array(keys) = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "2"]) else {
                panic!("no list of keys")
            };
            if keys.is_empty() {
                break;
            }
            let port = self.nodes[to].port.to_string();
            let mut words = ["MIGRATE", "127.0.0.1", &port, "", "0", "60000", "KEYS"].map(str::to_owned).to_vec();
            words.extend(keys.into_iter().map(text));
            source.must(&words);
            meanwhile();
        }
        meanwhile();
        for client in [&mut target, &mut source] {
            client.must(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
        }
    }
}

/// Makes one of them.
fn join(nodes: &[RedisServer], bus_ports: &[u16]) {
    let third = SLOTS / MASTERS as u16;
    for (nth, node) in nodes.iter().enumerate() {
        let mut client = node.client();
        let from = third * nth as u16;
        let to = if nth + 1 == MASTERS { SLOTS - 1 } else { from + third - 1 };
        client.must(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
        if nth > 0 {
            let (port, bus_port) = (nodes[0].port.to_string(), bus_ports[0].to_string());
            client.must(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
        }
    }
    for node in nodes {
        until("every node to know every other, and all slots", || {
            let info = text(node.client().command(&["CLUSTER", "INFO"]));
            let has_all = info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384");
            has_all && speaks_to_all(node)
        });
    }
}

/// Whether a node has met all and has a link to each. A publication goes to those alone, and that all slots are known may
/// have come by the other's link.
fn speaks_to_all(node: &RedisServer) -> bool {
    let nodes = text(node.client().command(&["CLUSTER", "NODES"]));
    let has_met = |line: &str| line.contains(" connected") && !line.contains("handshake");
    nodes.lines().filter(|line| has_met(line)).count() == MASTERS
}

fn id_of(node: &RedisServer) -> String {
    text(node.client().command(&["CLUSTER", "MYID"]))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.whereabouts.stop();
    }
}

/// Asks until something holds: nodes of a cluster agree when they do.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

fn text(frame: OwnedFrame) -> String {
    match frame {
        OwnedFrame::BulkString(text) | OwnedFrame::SimpleString(text) => String::from_utf8_lossy(&text).into_owned(),
        other => panic!("no text: {other:?}"),
    }
}
