//! The mesh under real threads: nothing is lost, each lane keeps its order, and whoever sleeps is woken.
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shards::key::ShardId;
use shards::mesh::{Bell, Mesh, MeshPort};
use shards::metrics::NodeMetrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So long a shard may sleep with nobody ringing before the test says that a ring was lost. A verdict, not a wait: a
/// mesh that works never comes near it.
const LOST_RING: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

fn sleep_until_rung(bell: &Bell, who: ShardId) {
    let rung = poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&LOST_RING)).unwrap();
    assert_eq!(rung, 1, "shard {} was never woken", who.0);
}

/// What a shard does in a test: sends `burst` numbered messages a turn to every shard until `messages` are sent to
/// each, takes what comes, and sleeps whenever it has nothing to do.
struct Worker {
    port: MeshPort<u64>,
    shards: usize,
    messages: u64,
    burst: u64,
    budget: usize,
    unfinished: Arc<AtomicUsize>,
    bells: Vec<Bell>,
}

impl Worker {
    fn run(mut self) {
        let mut sent = 0;
        let mut expected = vec![0u64; self.shards];
        let mut finished = false;
        while self.unfinished.load(Ordering::SeqCst) > 0 {
            let burst = self.burst.min(self.messages - sent);
            for to in 0..self.shards {
                for n in sent..sent + burst {
                    self.port.send(ShardId(to as u8), n);
                }
            }
            sent += burst;
            let taken = self.port.drain(self.budget, |from, n| {
                assert_eq!(n, expected[from.index()], "from shard {}", from.0);
                expected[from.index()] += 1;
            });
            self.port.ring_bells();
            if !finished && expected.iter().all(|heard| *heard == self.messages) {
                finished = true;
                if self.unfinished.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.bells.iter().for_each(Bell::ring);
                }
            }
            if burst == 0 && taken == 0 && self.port.doze() {
                let bell = self.port.bell();
                sleep_until_rung(&bell, self.port.id());
                bell.hush();
                self.port.rise();
            }
        }
        assert!(expected.iter().all(|heard| *heard == self.messages), "{expected:?} of {}", self.messages);
    }
}

fn storm(shards: usize, messages: u64, burst: u64, budget: usize) {
    let metrics = Arc::new(NodeMetrics::new(shards, 0));
    let ports: Vec<MeshPort<u64>> = Mesh::new(shards, &metrics).unwrap();
    let bells: Vec<Bell> = ports.iter().map(MeshPort::bell).collect();
    let unfinished = Arc::new(AtomicUsize::new(shards));
    let threads: Vec<_> = ports
        .into_iter()
        .map(|port| {
            let (bells, unfinished) = (bells.clone(), unfinished.clone());
            let worker = Worker { port, shards, messages, burst, budget, unfinished, bells };
            std::thread::spawn(move || worker.run())
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(metrics.congested_lanes.load(Ordering::Relaxed), 0);
    assert_eq!(metrics.sum(|shard| shard.mesh_overflow.get()), 0);
    assert_eq!(metrics.sum(|shard| shard.mesh_sent.get()), (shards * shards) as u64 * messages);
}

#[test]
fn small_bursts_with_much_sleep() {
    storm(3, 30_000, 1, 1024);
}

#[test]
fn floods_go_through_the_overflow_and_nothing_is_lost() {
    storm(4, 60_000, 20_000, 1024);
}

#[test]
fn a_slow_consumer_wakes_the_producer_that_waits_for_room() {
    storm(2, 40_000, 40_000, 3);
}

#[test]
fn many_shards_on_few_cores() {
    storm(24, 3_000, 500, 256);
}

/// Two shards that only ever answer each other: each sleeps before every message, so every wake-up counts.
#[test]
fn a_rally_never_stops() {
    const RALLY: u64 = 50_000;
    let metrics = Arc::new(NodeMetrics::new(2, 0));
    let ports: Vec<MeshPort<u64>> = Mesh::new(2, &metrics).unwrap();
    let players: Vec<_> = ports
        .into_iter()
        .map(|mut port| {
            std::thread::spawn(move || {
                let other = ShardId(1 - port.id().0);
                let mut ball = (port.id().0 == 0).then_some(0);
                loop {
                    if let Some(hits) = ball.take() {
                        port.send(other, hits);
                        port.ring_bells();
                        if hits >= RALLY {
                            return;
                        }
                    }
                    port.drain(1, |_, hits| ball = Some(hits + 1));
                    match ball {
                        Some(hits) if hits > RALLY => return,
                        Some(_) => {}
                        None if port.doze() => {
                            let bell = port.bell();
                            sleep_until_rung(&bell, port.id());
                            bell.hush();
                            port.rise();
                        }
                        None => {}
                    }
                }
            })
        })
        .collect();
    for player in players {
        player.join().unwrap();
    }
}
