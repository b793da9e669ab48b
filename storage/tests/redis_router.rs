//! Topics that come and go, against a real redis-server, which each test starts for itself.
mod common;

use common::{PATIENCE, RedisServer, config, since_epoch_ns};
use protocol::clock::Now;
use redis_protocol::resp2::types::OwnedFrame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::Arc;
use std::time::Instant;
use storage::link::wants::Wants;
use storage::redis::feed::FeedTiming;
use storage::redis::router::{Router, RouterEvent, Watch};
use storage::redis::status::FeedStatus;

/// Turns one router, as a shard would.
struct Scene {
    router: Router,
    wants: Wants,
    started: Instant,
    heard: Vec<String>,
}

impl Scene {
    fn new(url: &str) -> Scene {
        let mut settings = config(url, &["everybody"]);
        settings.timing = FeedTiming { connect_deadline_ms: 1_000, ping_interval_ms: 500 };
        let wake = Box::new(|| ());
        let router = Router::new(settings, 100_000, Arc::new(FeedStatus::new()), 7, wake).unwrap();
        Scene { router, wants: Wants { again: true, ..Wants::default() }, started: Instant::now(), heard: Vec::new() }
    }

    fn turn(&mut self, readable: bool, writable: bool) {
        let now = Now { mono_us: self.started.elapsed().as_micros() as u64, unix_ns: since_epoch_ns() };
        let heard = &mut self.heard;
        self.wants = self.router.turn(now, readable, writable, false, &mut |event| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            heard.push(match event {
                RouterEvent::Up => "up".to_owned(),
                RouterEvent::Message { topic, payload } => format!("{}={}", text(topic), text(payload)),
                RouterEvent::Watching(topic) => format!("watching {}", text(topic)),
                RouterEvent::Resumed => "resumed".to_owned(),
                RouterEvent::Down => "down".to_owned(),
            });
        });
    }

    fn step(&mut self) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.wants.read);
        flags.set(PollFlags::OUT, self.wants.write);
        let timeout = Timespec { tv_sec: 0, tv_nsec: if self.wants.again { 0 } else { 5_000_000 } };
        let socket = self.router.socket().filter(|_| self.wants.socket.is_some());
        let mut fds: Vec<_> = socket.iter().map(|socket| PollFd::from_borrowed_fd(*socket, flags)).collect();
        poll(&mut fds, Some(&timeout)).unwrap();
        let events = fds.first().map_or(PollFlags::empty(), |fd| fd.revents());
        let broken = events.intersects(PollFlags::ERR | PollFlags::HUP);
        drop(fds);
        self.turn(broken || events.contains(PollFlags::IN), broken || events.contains(PollFlags::OUT));
    }

    /// Turns until this was heard, and takes what was heard up to there.
    fn hear(&mut self, last: &str) -> Vec<String> {
        let begun = Instant::now();
        loop {
            if let Some(at) = self.heard.iter().position(|heard| heard == last) {
                return self.heard.drain(..=at).collect();
            }
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {last}: {:?}", self.heard);
            self.step();
        }
    }
}

#[test]
fn topics_are_heard_from_their_confirmation_to_their_end() {
    let server = RedisServer::start();
    let mut scene = Scene::new(&server.url());
    assert_eq!(scene.router.watch(b"early"), Watch::Later);
    assert_eq!(scene.hear("resumed"), ["up", "watching early", "resumed"]);
    assert_eq!(scene.router.watch(b"late"), Watch::Later);
    scene.hear("watching late");
    let mut client = server.client();
    for topic in ["everybody", "early", "late"] {
        client.publish(topic, b"1");
        scene.hear(&format!("{topic}=1"));
    }
    scene.router.unwatch(b"late");
    // Leaving is not told; what Redis counts is.
    let begun = Instant::now();
    while client.command(&["PUBLISH", "late", "2"]) != OwnedFrame::Integer(0) {
        assert!(begun.elapsed() < PATIENCE);
        scene.step();
    }
    while scene.router.topics() > 1 {
        assert!(begun.elapsed() < PATIENCE);
        scene.step();
    }
}

#[test]
fn after_each_loss_thousands_of_topics_are_listened_to_again() {
    let mut server = RedisServer::start();
    let mut scene = Scene::new(&server.url());
    for n in 0..20_000 {
        scene.router.watch(format!("user:{n}").as_bytes());
    }
    scene.hear("resumed");
    let check = |scene: &mut Scene, server: &RedisServer, round: &str| {
        for n in [0, 9_999, 19_999] {
            server.client().publish(&format!("user:{n}"), round.as_bytes());
            scene.hear(&format!("user:{n}={round}"));
        }
    };
    check(&mut scene, &server, "first");
    server.client().must(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    scene.hear("down");
    scene.hear("resumed");
    check(&mut scene, &server, "killed connection");
    server.kill();
    scene.hear("down");
    assert_eq!(scene.router.watch(b"meanwhile"), Watch::Later);
    assert!(!scene.router.listens(b"user:0"));
    server.restart();
    scene.hear("resumed");
    check(&mut scene, &server, "restarted server");
    server.client().publish("meanwhile", b"1");
    scene.hear("meanwhile=1");
    server.hold();
    scene.hear("down");
    server.release();
    scene.hear("resumed");
    check(&mut scene, &server, "server that stood still");
}

#[test]
fn a_topic_that_the_server_forbids_holds_up_nobody() {
    let server = RedisServer::start();
    let mut client = server.client();
    client.must(&["ACL", "SETUSER", "ara", "on", ">pw", "resetchannels", "&everybody", "&ours:*", "+@all"]);
    let mut scene = Scene::new(&format!("redis://ara:pw@127.0.0.1:{}", server.port));
    scene.hear("resumed");
    scene.router.watch(b"theirs");
    scene.hear("watching theirs");
    scene.router.watch(b"ours:1");
    scene.hear("watching ours:1");
    client.publish("ours:1", b"1");
    scene.hear("ours:1=1");
}
