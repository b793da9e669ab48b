//! A Redis Cluster of the test's own: three masters, each with a replica.
use super::process::{Port, await_that};
use super::redis::Redis;

/// Masters, the first of the nodes; the replica of each stands as many places behind it.
pub(crate) const MASTERS: usize = 3;
const SLOTS: [(&str, &str); MASTERS] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

/// Nodes on ports of their own, without persistence.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<Redis>,
    _bus_ports: Vec<Port>,
}

impl RedisCluster {
    /// Starts it and waits until it is whole and every replica in step.
    pub(crate) fn start() -> RedisCluster {
        RedisCluster::with(&[])
    }

    /// The same with these settings on top.
    pub(crate) fn with(settings: &[&str]) -> RedisCluster {
        let bus_ports: Vec<Port> = (0..2 * MASTERS).map(|_| Port::free()).collect();
        let start = |bus_port: &Port| {
            let bus_port = bus_port.number.to_string();
            let mode = ["--cluster-enabled", "yes", "--cluster-port", &bus_port, "--cluster-node-timeout", "1000"];
            let more = ["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
            Redis::with(&[&mode[..], &more, settings].concat(), None)
        };
        let nodes: Vec<Redis> = bus_ports.iter().map(start).collect();
        for (node, (from, to)) in nodes.iter().zip(SLOTS) {
            node.cli(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
        }
        for node in &nodes[1..] {
            let (port, bus_port) = (nodes[0].port.to_string(), bus_ports[0].number.to_string());
            node.cli(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus_port]);
        }
        for node in &nodes {
            await_that("every node to know every other", || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let has_all = info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384");
                (has_all && speaks_to_all(node)).then_some(())
            });
        }
        let cluster = RedisCluster { nodes, _bus_ports: bus_ports };
        for nth in 0..MASTERS {
            let id = cluster.nodes[nth].cli(&["CLUSTER", "MYID"]);
            cluster.nodes[nth + MASTERS].cli(&["CLUSTER", "REPLICATE", id.trim()]);
        }
        for nth in 0..MASTERS {
            cluster.await_in_step(nth);
            let id = cluster.nodes[nth].cli(&["CLUSTER", "MYID"]);
            for node in &cluster.nodes {
                await_that("every node to know the replica", || {
                    let replicas = node.cli(&["CLUSTER", "REPLICAS", id.trim()]);
                    (replicas.lines().filter(|line| !line.is_empty()).count() == 1).then_some(())
                });
            }
        }
        cluster
    }

    /// Names two of the nodes; the service learns of the others.
    pub(crate) fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port, self.nodes[2].port)
    }

    /// Waits until the replica of a master has everything that this has.
    pub(crate) fn await_in_step(&self, nth: usize) {
        await_that("the replica to be in step", || {
            let field = |node: &Redis, name: &str| {
                let info = node.cli(&["INFO", "replication"]);
                info.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            let replica = &self.nodes[nth + MASTERS];
            let is_linked = field(replica, "master_link_status:").as_deref() == Some("up");
            let has = field(replica, "slave_repl_offset:");
            (is_linked && has.is_some() && has == field(&self.nodes[nth], "master_repl_offset:")).then_some(())
        });
    }

    /// Waits until the replica of a master has taken its place, and the others agree.
    pub(crate) fn await_promoted(&self, nth: usize) {
        await_that("the replica to be the master", || {
            let role = self.nodes[nth + MASTERS].cli(&["ROLE"]);
            let info = self.nodes[(nth + 1) % MASTERS].cli(&["CLUSTER", "INFO"]);
            (role.starts_with("master") && info.contains("cluster_state:ok")).then_some(())
        });
    }

    /// Everything under these keys, on all masters, by their names.
    pub(crate) fn keys(&self, pattern: &str) -> Vec<String> {
        let of = |node: &Redis| node.cli(&["KEYS", pattern]).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut keys: Vec<String> = self.nodes[..MASTERS].iter().flat_map(of).collect();
        keys.sort();
        keys
    }
}

/// Whether a node has met all and has a link to each: a publication goes to those alone.
fn speaks_to_all(node: &Redis) -> bool {
    let nodes = node.cli(&["CLUSTER", "NODES"]);
    let has_met = |line: &str| line.contains(" connected") && !line.contains("handshake");
    nodes.lines().filter(|line| has_met(line)).count() == 2 * MASTERS
}
