//! Where users are, and templates that are written anywhere.
use super::Cluster;
use protocol::cluster::ClusterEvent;
use protocol::cluster::wire::Hello;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn the_bridge_knows_every_connection_and_its_channels_and_is_told_all_again() {
    let mut cluster = Cluster::new(1, 1, |_| {});
    let world = &mut cluster.nodes[0].world;
    let (ana, bo) = (world.websocket("ana"), world.sse("bo", "a,b"));
    for _ in 0..3 {
        world.clients[ana].say(r#"{"type":"Subscribe","payload":{"channels":["a"]}}"#);
    }
    cluster.settle();
    let told = |cluster: &Cluster| -> BTreeSet<(String, Vec<String>)> {
        let sessions = cluster.nodes[0].sessions.values();
        let names = |channels: &[Box<str>]| channels.iter().map(ToString::to_string).collect();
        sessions.map(|session| (session.user.to_string(), names(&session.channels))).collect()
    };
    let row = |user: &str, channels: &[&str]| (user.to_owned(), channels.iter().map(ToString::to_string).collect());
    assert_eq!(told(&cluster), BTreeSet::from([row("ana", &["a"]), row("bo", &["a", "b"])]));
    cluster.nodes[0].world.clients[ana].say(r#"{"type":"Unsubscribe","payload":{"channels":["a"]}}"#);
    cluster.settle();
    assert_eq!(told(&cluster), BTreeSet::from([row("ana", &[]), row("bo", &["a", "b"])]));
    cluster.nodes[0].world.clients[bo].hang_up = true;
    cluster.settle();
    assert_eq!(told(&cluster), BTreeSet::from([row("ana", &[])]));
    for n in 0..600 {
        cluster.nodes[0].world.websocket(&format!("user-{n}"));
    }
    cluster.settle();
    cluster.tell(0, ClusterEvent::RefreshSessions);
    let pages = &cluster.nodes[0].pages;
    assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 601);
    assert!(pages.iter().all(|page| page.len() <= 256));
}

#[test]
fn a_user_is_found_on_every_node() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 3, |_| {});
        for node in [0, 1, 1] {
            cluster.nodes[node].world.websocket("ana");
        }
        let backends = [0, 2].map(|node| (node, cluster.nodes[node].world.dial()));
        cluster.settle();
        for (node, backend) in backends {
            for user in ["ana", "nobody"] {
                cluster.nodes[node].world.get(backend, &format!("/api/v1/cluster/users/{user}"));
                cluster.settle();
            }
            let text = cluster.nodes[node].world.clients[backend].text();
            let on = |id: &str| text.matches(&format!(r#""server_id":"{id}""#)).count();
            assert_eq!([on("n0"), on("n1"), on("n2")], [1, 2, 0], "seed {seed}: {text}");
            assert!(text.contains(r#""user_id":"nobody","found":false"#), "seed {seed}: {text}");
        }
    }
}

#[test]
fn the_figures_of_the_cluster_are_those_of_its_members() {
    let mut cluster = Cluster::new(2, 1, |_| {});
    let hello = |id: &str, connections, users| Hello {
        server_id: id.into(),
        connections,
        users,
        started_unix_ms: 0,
        reading_ms: None,
        first_read: None,
        version: "1".into(),
    };
    cluster.tell(
        0,
        ClusterEvent::Members {
            all: Arc::new([hello("n0", 3, 2), hello("n1", 4, 4)]),
            reads_since_us: None,
            is_first: false,
        },
    );
    let metrics = &cluster.nodes[0].world.metrics;
    let figures = [&metrics.cluster_members, &metrics.cluster_connections, &metrics.cluster_users];
    assert_eq!(figures.map(|figure| figure.load(Relaxed)), [2, 7, 6]);
}

#[test]
fn a_template_that_is_written_on_one_node_is_rendered_on_the_others() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed, 2, |config| config.templates_kept = true);
        cluster.pass_ms(250);
        let backends = [0, 1].map(|node| cluster.nodes[node].world.dial());
        let template = r#"{"id":"t","name":"t","event_type":"e","payload_template":{"n":1}}"#;
        cluster.nodes[0].world.post(backends[0], "/api/v1/templates", template);
        cluster.settle();
        cluster.pass_ms(500);
        cluster.nodes[1].world.get(backends[1], "/api/v1/templates/t");
        cluster.settle();
        let text = cluster.nodes[1].world.clients[backends[1]].text();
        assert!(text.contains("200 OK") && text.contains(r#""n":1"#), "seed {seed}: {text}");
        let delete = "DELETE /api/v1/templates/t HTTP/1.1\r\nhost: world\r\n\r\n";
        cluster.nodes[1].world.clients[backends[1]].send(delete);
        cluster.settle();
        cluster.pass_ms(500);
        cluster.nodes[0].world.get(backends[0], "/api/v1/templates/t");
        cluster.settle();
        let text = cluster.nodes[0].world.clients[backends[0]].text();
        assert!(text.contains("404 Not Found"), "seed {seed}: {text}");
    }
}
