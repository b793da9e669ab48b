//! Limits of users and tenants that hold for several nodes together.
use super::Cluster;
use crate::client::ClientId;
use crate::seeds::for_each_seed;
use protocol::cluster::ClusterEvent;
use shards::config::ShardConfig;
use shards::tenant_limits::{TenantLimits, TenantRules};

const OF_USER: usize = 3;
const OF_TENANT: usize = 7;

fn limited(config: &mut ShardConfig) {
    config.connections_per_user_max = OF_USER;
    config.tenancy = true;
    let default_limits = TenantLimits { connections_max: OF_TENANT, ..TenantLimits::default() };
    config.tenant_rules = Some(TenantRules { default_limits, ..TenantRules::default() });
}

/// Somebody who asked for a stream.
struct Asker {
    node: usize,
    client: ClientId,
    user: String,
    is_sse: bool,
}

impl Asker {
    fn is_in(&self, cluster: &Cluster) -> bool {
        let client = &cluster.nodes[self.node].world.clients[self.client];
        let answer: &[u8] = if self.is_sse { b"event: connected" } else { b"HTTP/1.1 101" };
        client.place.is_some() && !client.hang_up && client.has_heard(answer) && !self.is_refused(cluster)
    }

    fn is_refused(&self, cluster: &Cluster) -> bool {
        let client = &cluster.nodes[self.node].world.clients[self.client];
        client.has_heard(b"CONNECTION_LIMIT")
    }
}

fn ask(cluster: &mut Cluster, user: &str) -> Asker {
    let (node, is_sse) = (cluster.any(), cluster.rng.bool());
    let world = &mut cluster.nodes[node].world;
    let client = if is_sse { world.sse(user, "a") } else { world.websocket(user) };
    Asker { node, client, user: user.to_owned(), is_sse }
}

/// Whoever connects where and when: at no moment are there more than there may be, and when nothing moves whoever was
/// refused had no room.
fn limits_hold(seed: u64) {
    let mut cluster = Cluster::new(seed, 2 + seed as usize % 2, limited);
    cluster.slowness_percent = cluster.rng.u8(0..60);
    let mut askers: Vec<Asker> = Vec::new();
    // Who was answered at each moment. An answer may be the beginning of a refusal: that is known at the end.
    let mut moments: Vec<Vec<usize>> = Vec::new();
    for _ in 0..40 {
        let user = format!("u{}", cluster.rng.u8(0..4));
        if cluster.rng.u8(0..3) > 0 {
            let asker = ask(&mut cluster, &user);
            askers.push(asker);
        } else if !askers.is_empty() {
            let Asker { node, client, .. } = askers[cluster.rng.usize(0..askers.len())];
            cluster.nodes[node].world.clients[client].hang_up = true;
        }
        for _ in 0..cluster.rng.u8(0..12) {
            cluster.step();
            moments.push((0..askers.len()).filter(|at| askers[*at].is_in(&cluster)).collect());
        }
    }
    cluster.settle();
    for moment in moments {
        let there = moment.into_iter().map(|at| &askers[at]).filter(|asker| !asker.is_refused(&cluster));
        within_limits(seed, &there.map(|asker| asker.user.as_str()).collect::<Vec<_>>());
    }
    for user in (0..4).map(|n| format!("u{n}")) {
        let there = |cluster: &Cluster, askers: &[Asker]| {
            let of_user = askers.iter().filter(|asker| asker.user == user && asker.is_in(cluster)).count();
            (of_user, askers.iter().filter(|asker| asker.is_in(cluster)).count())
        };
        let (of_user, of_tenant) = there(&cluster, &askers);
        let asker = ask(&mut cluster, &user);
        cluster.settle();
        let has_room = of_user < OF_USER && of_tenant < OF_TENANT;
        assert_eq!((asker.is_in(&cluster), asker.is_refused(&cluster)), (has_room, !has_room), "seed {seed}: {user}");
        askers.push(asker);
    }
    for node in &cluster.nodes {
        let refused = node.world.metrics.sum(|shard| shard.admissions_by_own_counts.get());
        assert_eq!(refused, 0, "seed {seed}: Redis was there");
        node.world.check_at_rest();
    }
    // Everybody goes, and nothing is left of them.
    for Asker { node, client, .. } in &askers {
        cluster.nodes[*node].world.clients[*client].hang_up = true;
    }
    cluster.settle();
    assert!(cluster.admitted.values().all(|admitted| admitted.is_empty()), "seed {seed}: {:?}", cluster.admitted);
    assert!(cluster.nodes.iter().all(|node| node.sessions.is_empty() && node.watched.is_empty()), "seed {seed}");
}

fn within_limits(seed: u64, users: &[&str]) {
    assert!(users.len() <= OF_TENANT, "seed {seed}: {users:?}");
    for user in users {
        let of_user = users.iter().filter(|other| *other == user).count();
        assert!(of_user <= OF_USER, "seed {seed}: {users:?}");
    }
}

#[test]
fn no_interleaving_of_connects_exceeds_the_limits_of_the_cluster() {
    for_each_seed(150, limits_hold);
}

#[test]
fn who_is_refused_by_the_cluster_hears_it_as_from_one_node() {
    let mut cluster = Cluster::new(1, 2, limited);
    for _ in 0..OF_USER {
        cluster.nodes[0].world.websocket("ana");
    }
    cluster.settle();
    let world = &mut cluster.nodes[1].world;
    let (ws, sse) = (world.websocket("ana"), world.sse("ana", "a"));
    cluster.settle();
    let world = &cluster.nodes[1].world;
    let refusal = r#"{"type":"error","code":"CONNECTION_LIMIT","message":"User ana connection limit exceeded (3/3)"}"#;
    assert!(world.clients[ws].text().starts_with("HTTP/1.1 101"), "{}", world.clients[ws].text());
    assert_eq!(world.clients[ws].messages(), [refusal]);
    assert_eq!(world.clients[ws].close_code(), Some(1008));
    assert!(world.clients[sse].text().starts_with("HTTP/1.1 429"), "{}", world.clients[sse].text());
    for n in 0..OF_TENANT - OF_USER {
        cluster.nodes[1].world.websocket(&format!("user-{n}"));
    }
    cluster.settle();
    let late = cluster.nodes[0].world.websocket("bo");
    cluster.settle();
    let refusal =
        r#"{"type":"error","code":"CONNECTION_LIMIT","message":"Tenant default connection limit exceeded (7/7)"}"#;
    assert_eq!(cluster.nodes[0].world.clients[late].messages(), [refusal]);
}

/// Without Redis a node knows its own counts, and with it again the cluster knows those.
#[test]
fn a_node_without_redis_decides_by_its_own_counts() {
    let mut cluster = Cluster::new(2, 2, limited);
    for _ in 0..OF_USER {
        cluster.nodes[0].world.websocket("ana");
    }
    cluster.settle();
    cluster.cut(1);
    let clients: Vec<ClientId> = (0..OF_USER + 1).map(|_| cluster.nodes[1].world.websocket("ana")).collect();
    cluster.settle();
    let world = &cluster.nodes[1].world;
    let heard = |words: &[u8]| clients.iter().filter(|client| world.clients[**client].has_heard(words)).count();
    assert_eq!((heard(b"HTTP/1.1 101"), heard(b"CONNECTION_LIMIT")), (OF_USER + 1, 1));
    assert_eq!(world.metrics.sum(|shard| shard.admissions_by_own_counts.get()), OF_USER as u64);
    cluster.heal(1);
    cluster.tell(1, ClusterEvent::RefreshSessions);
    let late = cluster.nodes[0].world.websocket("ana");
    cluster.settle();
    let text = cluster.nodes[0].world.clients[late].text();
    assert!(text.contains("limit exceeded (3/3)"), "the node's own count is first: {text}");
    for client in cluster.nodes[0].world.user_clients("ana") {
        cluster.nodes[0].world.clients[client].hang_up = true;
    }
    cluster.settle();
    let late = cluster.nodes[0].world.websocket("ana");
    cluster.settle();
    let text = cluster.nodes[0].world.clients[late].text();
    assert!(text.contains("limit exceeded (3/3)"), "the other node's are known: {text}");
}

/// Redis that says nothing keeps nobody waiting for ever.
#[test]
fn who_waits_too_long_for_the_cluster_is_let_in() {
    let mut cluster = Cluster::new(3, 1, limited);
    let world = &mut cluster.nodes[0].world;
    let ana = world.websocket("ana");
    world.settle();
    assert!(world.clients[ana].from_server.is_empty());
    world.pass_ms(1_100);
    assert!(world.clients[ana].has_heard(b"HTTP/1.1 101"));
    assert_eq!(world.metrics.sum(|shard| shard.admissions_by_own_counts.get()), 1);
    // The word comes too late for anything.
    cluster.settle();
    assert!(!cluster.nodes[0].world.clients[ana].has_heard(b"CONNECTION_LIMIT"));
}
