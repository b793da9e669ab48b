//! Topics in the partitions of a real Redis Cluster, which each test starts for itself.
mod common;

use common::cluster::{Cluster, MASTERS};
use common::{PATIENCE, since_epoch_ns};
use protocol::clock::Now;
use redis_protocol::resp2::types::OwnedFrame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Arc;
use std::time::Instant;
use storage::link::wants::Wants;
use storage::redis::commands::Ticket;
use storage::redis::commands::answer::Outcome;
use storage::redis::commands::link::CommandConfig;
use storage::redis::feed::FeedTiming;
use storage::redis::partitions::{PARTITIONS, prefix_of};
use storage::redis::router::{PartitionedRouter, PartitionedRouterConfig, RouterEvent, Walk, Watch};
use storage::redis::topology::scout::Located;

const ROUTE: &str = "route";

/// Turns all partitions, as a shard would.
struct Scene {
    router: PartitionedRouter,
    /// By partition: of the subscription, and of the link for commands.
    wants: Vec<[Wants; 2]>,
    started: Instant,
    heard: Vec<String>,
}

impl Scene {
    fn new(cluster: &Cluster, sharded: bool) -> Scene {
        let mut feed = common::config("redis://nowhere.invalid:1", &["replaced"]);
        feed.url = cluster.url.clone();
        feed.located = Some(Located::new(&cluster.whereabouts, b"replaced"));
        feed.timing = FeedTiming { connect_deadline_ms: 60_000, ping_interval_ms: 60_000 };
        feed.sharded = sharded;
        let mut commands = CommandConfig::new(cluster.url.clone(), &[]).unwrap();
        (commands.breaker, commands.backoff) = (feed.breaker, feed.backoff);
        commands.located = feed.located.clone();
        commands.timing.command_timeout_ms = 60_000;
        let config = PartitionedRouterConfig { feed, commands, route: ROUTE.to_owned(), topics_max: 64 };
        let figures: Vec<_> = (0..PARTITIONS).map(|_| Arc::default()).collect();
        let wake: Arc<dyn Fn() + Send + Sync> = Arc::new(|| ());
        let router = PartitionedRouter::new(&config, &[String::new()], &figures, 7, &wake).unwrap();
        let again = Wants { again: true, ..Wants::default() };
        Scene { router, wants: vec![[again; 2]; PARTITIONS], started: Instant::now(), heard: Vec::new() }
    }

    fn now(&self) -> Now {
        Now { mono_us: self.started.elapsed().as_micros() as u64, unix_ns: since_epoch_ns() }
    }

    /// Waits until a socket is ready, a moment at most, and gives everybody a turn.
    fn step(&mut self) {
        let mut fds = Vec::new();
        for (nth, wants) in self.wants.iter().enumerate() {
            for (socket, wants) in self.router.sockets(nth).into_iter().zip(wants) {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, wants.read);
                flags.set(PollFlags::OUT, wants.write);
                fds.extend(
                    socket.filter(|_| wants.socket.is_some()).map(|socket| PollFd::from_borrowed_fd(socket, flags)),
                );
            }
        }
        let timeout = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        poll(&mut fds, Some(&timeout)).unwrap();
        drop(fds);
        let now = self.now();
        let Scene { router, wants, heard, .. } = self;
        for (nth, wants) in wants.iter_mut().enumerate() {
            wants[0] = router.turn_router(nth, now, true, wants[0].write, false, &mut |event| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                heard.push(match event {
                    RouterEvent::Up => format!("{nth} up"),
                    RouterEvent::Message { topic, payload } => format!("{}={}", text(topic), text(payload)),
                    RouterEvent::Watching(topic) => format!("watching {}", text(topic)),
                    RouterEvent::Resumed => format!("{nth} resumed"),
                    RouterEvent::Down => format!("{nth} down"),
                });
            });
            wants[1] = router.turn_commands(nth, now, true, wants[1].write, &mut |ticket, outcome| {
                heard.push(match outcome {
                    Outcome::Done(reply) => format!("#{} heard by {:?}", ticket.0, reply.unsigned()),
                    Outcome::Refused(refusal) => format!("#{} refused: {}", ticket.0, refusal.text),
                    _ => format!("#{} unknown", ticket.0),
                });
            });
        }
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&Scene) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}: {:?}", self.heard);
            self.step();
        }
    }

    /// Turns until this was heard, once.
    fn hear(&mut self, wanted: &str) {
        self.until(wanted, |scene| scene.heard.iter().any(|heard| heard == wanted));
        let at = self.heard.iter().position(|heard| heard == wanted).unwrap();
        self.heard.remove(at);
    }

    /// Says something in a partition until it is heard: by one who listens where it is said.
    fn say(&mut self, nth: usize, topic: &str, payload: &str) {
        let ticket = Ticket(nth as u64);
        self.until("the partition to be there", |scene| scene.router.is_there(nth));
        let now = self.now();
        assert!(self.router.publish(now, nth, ticket, topic.as_bytes(), payload.as_bytes()));
        self.hear(&format!("{topic}={payload}"));
        self.hear(&format!("#{nth} heard by Some(1)"));
    }
}

fn topic(nth: usize) -> String {
    format!("{}:user:default:ana", prefix_of(ROUTE, nth))
}

/// Topics that are listened to at each master, by CHANNELS or SHARDCHANNELS.
fn counts(cluster: &Cluster, kind: &str) -> Vec<usize> {
    let count = |nth: usize| match cluster.nodes[nth].client().command(&["PUBSUB", kind, "*:user:*"]) {
        OwnedFrame::Array(names) => names.len(),
        other => panic!("no list: {other:?}"),
    };
    (0..MASTERS).map(count).collect()
}

/// Everything is said and heard in each partition, at the master of its slot.
fn all_is_heard(scene: &mut Scene, cluster: &Cluster, kind: &str, other: &str) {
    for nth in 0..PARTITIONS {
        scene.hear(&format!("{nth} resumed"));
        assert_eq!(scene.router.watch(nth, topic(nth).as_bytes()), Watch::Later);
        scene.hear(&format!("watching {}", topic(nth)));
        assert!(scene.router.listens(nth, topic(nth).as_bytes()));
        scene.say(nth, &topic(nth), "1");
        scene.say(nth, &prefix_of(ROUTE, nth), "2");
    }
    assert_eq!(counts(cluster, kind), [5, 6, 5]);
    assert_eq!(counts(cluster, other), [0; MASTERS]);
    assert_eq!(scene.router.topics(), PARTITIONS);
    let (mut walk, mut shown) = (Walk::new(), Vec::new());
    while scene.router.page(&mut walk, 3, |nth, name| shown.push((nth, String::from_utf8(name.to_vec()).unwrap()))) {}
    assert_eq!(shown, (0..PARTITIONS).map(|nth| (nth, topic(nth))).collect::<Vec<_>>());
    // The bound is of all of them together; what is there stays.
    for n in 0..64 - PARTITIONS {
        assert_eq!(
            scene.router.watch(n % PARTITIONS, format!("{}:{n}", topic(n % PARTITIONS)).as_bytes()),
            Watch::Later
        );
    }
    assert_eq!(scene.router.watch(3, b"one more"), Watch::TooMany);
    assert_eq!(scene.router.watch(3, topic(3).as_bytes()), Watch::Listening);
    scene.router.unwatch(3, topic(3).as_bytes());
    scene.until("the topic to be left", |_| counts(cluster, kind).iter().sum::<usize>() == 64 - 1);
}

#[test]
fn each_master_hears_of_its_own_partitions() {
    let cluster = Cluster::durable();
    all_is_heard(&mut Scene::new(&cluster, true), &cluster, "SHARDCHANNELS", "CHANNELS");
}

#[test]
fn servers_that_are_taken_for_old_ones_do_as_well() {
    let cluster = Cluster::durable();
    all_is_heard(&mut Scene::new(&cluster, false), &cluster, "CHANNELS", "SHARDCHANNELS");
}

#[test]
fn a_slot_that_moves_takes_its_topics_along() {
    const NTH: usize = 8;
    let cluster = Cluster::durable();
    let mut scene = Scene::new(&cluster, true);
    scene.hear(&format!("{NTH} resumed"));
    scene.router.watch(NTH, topic(NTH).as_bytes());
    scene.hear(&format!("watching {}", topic(NTH)));
    scene.say(NTH, &topic(NTH), "before");
    let from = Cluster::owner(&topic(NTH));
    let to = (from + 1) % MASTERS;
    let before = counts(&cluster, "SHARDCHANNELS");
    assert_eq!((before[from], before[to]), (1, 0));
    cluster.move_slot(&topic(NTH), from, to, || ());
    // The server says that it took the topics away; nothing else tells.
    scene.hear(&format!("{NTH} down"));
    scene.hear(&format!("{NTH} resumed"));
    assert_eq!(counts(&cluster, "SHARDCHANNELS")[to], 1, "all topics are at the new master");
    scene.say(NTH, &topic(NTH), "after");
    assert!(!scene.heard.iter().any(|heard| heard.ends_with("down")), "{:?}", scene.heard);
}
