//! Links that follow the master: against real sentinels, which the test starts for itself.
mod common;
mod redis_commands_driver;
mod redis_topology_driver;

use common::Driver;
use redis_commands_driver::{CommandDriver, Told, done};
use redis_topology_driver::Guarded;
use storage::redis::topology::finder::FinderConfig;
use storage::redis::topology::node::Node;
use storage::redis::topology::scout::{Located, Whereabouts};
use storage::redis::topology::url::RedisAddress;

#[test]
fn a_fail_over_is_followed_by_subscriptions_and_commands() {
    let mut guarded = Guarded::start();
    let address = RedisAddress::parse(&guarded.url(&[0, 1, 2])).unwrap();
    // Nobody connects to this place, but with this login.
    let url = address.url_of(&Node { host: "nowhere.invalid".to_owned(), port: 1 });
    let whereabouts = Whereabouts::look(FinderConfig::new(address), 7).unwrap();
    let located = Some(Located::new(&whereabouts, b""));
    let mut feed_config = common::config("redis://nowhere.invalid:1", &["news"]);
    (feed_config.url, feed_config.located) = (url.clone(), located.clone());
    let mut feed = Driver::new(feed_config);
    let mut command_config = redis_commands_driver::config("redis://nowhere.invalid:1", &[]);
    (command_config.url, command_config.located) = (url, located);
    let mut commands = CommandDriver::new(command_config);
    feed.until_healthy(1);
    commands.until_healthy(1);
    assert_eq!(commands.command(&["PUBLISH", "news", "from the first master"]), done("1"));
    assert_eq!(feed.hear(1), common::pairs(&[("news", b"from the first master")]));
    feed.until("the sentinels know each other", |_| guarded.is_complete());

    guarded.servers[0].kill();
    feed.until_healthy(2);
    commands.until_healthy(2);
    let new = guarded.servers[1].node();
    let told = commands.command(&["ROLE"]);
    assert!(matches!(&told, Told::Done(role) if role.contains("\"master\"")), "{new}: {told:?}");
    assert_eq!(commands.command(&["PUBLISH", "news", "from the second"]), done("1"));
    assert_eq!(feed.hear(1), common::pairs(&[("news", b"from the second")]));
    whereabouts.stop();
}
