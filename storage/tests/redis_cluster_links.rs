//! A subscription that takes any master of a real Redis Cluster, which the test starts for itself.
mod common;

use common::Driver;
use common::cluster::Cluster;
use storage::redis::topology::scout::Located;

#[test]
fn a_subscription_goes_to_another_master_when_its_own_is_lost_and_nobody_follows() {
    let mut cluster = Cluster::durable();
    let owner = Cluster::owner("news");
    let mut config = common::config("redis://nowhere.invalid:1", &["news", "of:*"]);
    config.url = cluster.url.clone();
    config.located = Some(Located::anywhere(&cluster.whereabouts, b"news"));
    let mut feed = Driver::new(config);
    feed.until_healthy(1);
    cluster.nodes[owner].client().publish("news", b"said where it listens");
    assert_eq!(feed.hear(1), common::pairs(&[("news", b"said where it listens")]));
    // The bus carries it; nobody is counted where it was said.
    let others = [(owner + 1) % 3, (owner + 2) % 3];
    cluster.nodes[others[0]].client().must(&["PUBLISH", "of:all", "said elsewhere"]);
    assert_eq!(feed.hear(1), common::pairs(&[("of:all", b"said elsewhere")]));

    cluster.nodes[owner].kill();
    feed.until_healthy(2);
    for other in others {
        cluster.nodes[other].client().must(&["PUBLISH", "news", "after the loss"]);
        assert_eq!(feed.hear(1), common::pairs(&[("news", b"after the loss")]));
    }
    // What is there keeps its subscription when the other is back.
    cluster.nodes[owner].restart();
    common::cluster::until("it is back", || {
        format!("{:?}", cluster.nodes[owner].client().command(&["CLUSTER", "INFO"])).contains("BulkString")
    });
    assert_eq!(feed.status().reconnections, 2);
}
