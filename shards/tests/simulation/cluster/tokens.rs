//! Users who are disconnected, and tokens that are revoked, on every node.
use super::Cluster;
use crate::client::ClientId;
use protocol::auth::token::MintClaims;

/// Ana at a node, by a token of this name.
fn ana(cluster: &mut Cluster, node: usize, jti: &str) -> ClientId {
    let world = &mut cluster.nodes[node].world;
    let token = world.sign(MintClaims { sub: "ana".into(), jti: Some(jti.into()), ..MintClaims::default() });
    let client = world.websocket_as(&token);
    cluster.settle();
    client
}

fn post(cluster: &mut Cluster, node: usize, path: &str, body: &str) -> String {
    let backend = cluster.nodes[node].world.dial();
    cluster.nodes[node].world.post(backend, path, body);
    cluster.settle();
    // Who waits for a node that is silent waits no longer than this.
    if cluster.nodes[node].world.clients[backend].from_server.is_empty() {
        cluster.pass_ms(2_500);
    }
    cluster.nodes[node].world.clients[backend].text()
}

fn close_code(cluster: &Cluster, node: usize, client: ClientId) -> Option<u16> {
    cluster.nodes[node].world.clients[client].close_code()
}

#[test]
fn a_user_is_disconnected_on_every_node_and_all_are_counted() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3, |_| {});
        cluster.meet();
        let clients = [0, 1, 1].map(|node| (node, ana(&mut cluster, node, "x")));
        for (asked, local) in [(1, 2), (1, 0)] {
            let counts = format!(r#""disconnected":{},"disconnected_local":{local}}}"#, if local > 0 { 3 } else { 0 });
            let answer = post(&mut cluster, asked, "/api/v1/users/ana/disconnect", "");
            assert!(answer.ends_with(&counts), "seed {seed}: {answer}");
        }
        for (node, client) in clients {
            assert_eq!(close_code(&cluster, node, client), Some(1000), "seed {seed}");
        }
    }
}

#[test]
fn a_token_is_revoked_on_every_node() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3, |_| {});
        cluster.meet();
        let hit = [0, 1, 2].map(|node| (node, ana(&mut cluster, node, "one")));
        let stays = ana(&mut cluster, 2, "two");
        let answer = post(&mut cluster, 1, "/api/v1/tokens/revoke", r#"{"jti":"one"}"#);
        assert!(answer.ends_with(r#""disconnected":3,"disconnected_local":1}"#), "seed {seed}: {answer}");
        for (node, client) in hit {
            assert_eq!(close_code(&cluster, node, client), Some(4002), "seed {seed}");
            let again = ana(&mut cluster, node, "one");
            let text = cluster.nodes[node].world.clients[again].text();
            assert!(text.starts_with("HTTP/1.1 401"), "seed {seed}: {text}");
        }
        assert_eq!(close_code(&cluster, 2, stays), None);
        let answer = post(&mut cluster, 0, "/api/v1/tokens/revoke", r#"{"user_id":"ana"}"#);
        assert!(answer.ends_with(r#""disconnected":1,"disconnected_local":0}"#), "seed {seed}: {answer}");
        assert_eq!(close_code(&cluster, 2, stays), Some(4002), "seed {seed}");
    }
}

#[test]
fn a_node_that_was_cut_off_is_told_when_it_is_back_and_says_so_when_it_cannot_tell_others() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 2, |_| {});
        cluster.meet();
        let (here, there) = (ana(&mut cluster, 0, "one"), ana(&mut cluster, 1, "one"));
        cluster.cut(1);
        let answer = post(&mut cluster, 0, "/api/v1/tokens/revoke", r#"{"jti":"one"}"#);
        assert!(answer.ends_with(r#""disconnected":1,"disconnected_local":1}"#), "seed {seed}: {answer}");
        assert_eq!(close_code(&cluster, 0, here), Some(4002), "seed {seed}");
        assert_eq!(close_code(&cluster, 1, there), None, "seed {seed}: nobody could tell");
        let cut_off = ana(&mut cluster, 1, "two");
        for (path, body) in [("tokens/revoke", r#"{"jti":"two"}"#), ("users/bo/disconnect", "")] {
            let answer = post(&mut cluster, 1, &format!("/api/v1/{path}"), body);
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("CLUSTER_ERROR"), "seed {seed}: {answer}");
        }
        assert_eq!(close_code(&cluster, 1, cut_off), Some(4002), "seed {seed}: done here");
        cluster.heal(1);
        cluster.settle();
        assert_eq!(close_code(&cluster, 1, there), Some(4002), "seed {seed}");
    }
}
