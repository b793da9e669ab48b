//! The mesh: N×N lanes between the shards of a node, and one bell per shard.
//!
//! | part | what it is |
//! |---|---|
//! | [`MeshPort`] | a shard's place in the mesh: a lane to and from every shard |
//! | [`Envelope`] | what a lane carries: a message, or a socket on its way home |
//! | [`Bell`] | wakes a shard that sleeps |
//! | [`message`] | what shards say to each other |
//!
//! Sending never blocks and never spins. Order is kept per lane, from a shard to a shard; lanes among each other have
//! none. A sender rings only a shard that sleeps, and once a turn, in [`MeshPort::ring_bells`]; a shard that wants to
//! sleep says so first ([`MeshPort::doze`]) and looks once more. A consumer that has made room in a lane whose producer
//! holds an overflow wakes that producer the same way.
mod bell;
mod lane;
pub mod message;

pub use bell::Bell;

use crate::key::ShardId;
use crate::metrics::NodeMetrics;
use crate::reactor::Session;
use crate::shard::Arrival;
use lane::{Inlet, Outlet, lane, lane_messages};
use message::Message;
use protocol::limits::SHARDS_MAX;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Messages taken from one lane before the next has its turn.
const LANE_SHARE: usize = 256;

// A set of shards is one machine word pair, and a shard's number one byte.
const _: () = assert!(SHARDS_MAX <= u128::BITS as usize);

/// What a lane carries.
#[derive(Debug)]
pub enum Envelope {
    /// From one state machine to another.
    Message(Message),
    /// A socket on its way to its user's home. It travels as an owned value: dropped on the way, it closes.
    Socket {
        /// Non-blocking, in no epoll set.
        socket: OwnedFd,
        /// Its TLS, where clients speak it.
        session: Option<Box<Session>>,
        /// Who comes.
        arrival: Box<Arrival>,
    },
}

// A ring's memory is this times its capacity, and a push is a copy of it.
const _: () = assert!(size_of::<Envelope>() <= 72);

/// Makes the ports of a node.
#[derive(Debug)]
pub struct Mesh;

impl Mesh {
    /// One port per shard, in order; each goes to its shard's thread. `T` is [`Envelope`] but in tests.
    ///
    /// # Errors
    /// When the process has no file descriptors left for the bells.
    ///
    /// # Panics
    /// With more than [`SHARDS_MAX`] shards, or fewer blocks of metrics than shards.
    #[expect(clippy::new_ret_no_self, reason = "a mesh exists only as its ports")]
    pub fn new<T>(shards: usize, metrics: &Arc<NodeMetrics>) -> io::Result<Vec<MeshPort<T>>> {
        assert!(shards <= SHARDS_MAX, "{shards} shards are more than {SHARDS_MAX}");
        assert!(shards <= metrics.shards.len(), "{shards} shards, metrics for {}", metrics.shards.len());
        let bells: Arc<[Bell]> = (0..shards).map(|_| Bell::new()).collect::<io::Result<_>>()?;
        let mut inlets: Vec<Vec<Inlet<T>>> = (0..shards).map(|_| Vec::with_capacity(shards)).collect();
        let mut outlets = Vec::with_capacity(shards);
        for _from in 0..shards {
            let mut of_producer = Vec::with_capacity(shards);
            for of_consumer in &mut inlets {
                let (outlet, inlet) = lane(lane_messages(shards));
                of_producer.push(outlet);
                of_consumer.push(inlet);
            }
            outlets.push(of_producer);
        }
        let ends = outlets.into_iter().zip(inlets).enumerate();
        Ok(ends
            .map(|(index, (outlets, inlets))| MeshPort {
                // Below `SHARDS_MAX`, so it fits.
                id: ShardId(index as u8),
                outlets,
                inlets,
                bells: bells.clone(),
                metrics: metrics.clone(),
                sent: 0,
                sent_to: 0,
                taken_from: 0,
                overflowing: 0,
                next_inlet: 0,
                left_of_share: LANE_SHARE,
            })
            .collect())
    }
}

/// A shard's place in the mesh, on that shard only.
pub struct MeshPort<T = Envelope> {
    id: ShardId,
    outlets: Vec<Outlet<T>>,
    inlets: Vec<Inlet<T>>,
    bells: Arc<[Bell]>,
    metrics: Arc<NodeMetrics>,
    /// Sent since the bells were rung last.
    sent: u64,
    /// Shards sent to since the bells were rung last, one bit each.
    sent_to: u128,
    /// Shards taken from since the bells were rung last, one bit each.
    taken_from: u128,
    /// Lanes with an overflow, one bit each.
    overflowing: u128,
    next_inlet: usize,
    left_of_share: usize,
}

impl<T> MeshPort<T> {
    /// Whose place it is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// This shard's bell, for whoever must wake it.
    pub fn bell(&self) -> Bell {
        self.bells[self.id.index()].clone()
    }

    /// Sends, behind everything sent to that shard before. Never blocks; the bell rings in [`MeshPort::ring_bells`].
    /// A shard may send to itself.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn send(&mut self, to: ShardId, envelope: T) {
        self.outlets[to.index()].push(envelope);
        self.sent += 1;
        self.sent_to |= bit(to.index());
        if self.outlets[to.index()].waiting() > 0 {
            self.overflowing |= bit(to.index());
            self.note_congestion(to.index());
        }
    }

    /// The next envelope and who sent it; lanes take turns. `None` when all are empty. To be bounded by the caller.
    pub fn take(&mut self) -> Option<(ShardId, T)> {
        for _ in 0..=self.inlets.len() {
            if self.left_of_share > 0
                && let Some(envelope) = self.inlets[self.next_inlet].pop()
            {
                self.left_of_share -= 1;
                self.taken_from |= bit(self.next_inlet);
                return Some((ShardId(self.next_inlet as u8), envelope));
            }
            self.next_inlet = (self.next_inlet + 1) % self.inlets.len();
            self.left_of_share = LANE_SHARE;
        }
        None
    }

    /// Hands over at most `budget` envelopes and says how many. For an act that needs the port itself, see
    /// [`MeshPort::take`].
    pub fn drain(&mut self, budget: usize, mut act: impl FnMut(ShardId, T)) -> usize {
        let mut taken = 0;
        while taken < budget
            && let Some((from, envelope)) = self.take()
        {
            act(from, envelope);
            taken += 1;
        }
        taken
    }

    /// Once a turn, after the last send: moves overflows on, and wakes the sleepers among those who were sent to and
    /// those who wait for room that was made.
    pub fn ring_bells(&mut self) {
        for to in shards_of(self.overflowing) {
            self.outlets[to].flush();
            self.sent_to |= bit(to);
            if self.outlets[to].waiting() == 0 {
                self.overflowing &= !bit(to);
            }
            self.note_congestion(to);
        }
        if self.sent_to | self.taken_from == 0 {
            return;
        }
        fence(Ordering::SeqCst);
        for to in shards_of(self.sent_to) {
            self.bells[to].ring_sleeper();
        }
        for from in shards_of(self.taken_from) {
            if self.inlets[from].producer_waits() {
                self.bells[from].ring_sleeper();
            }
        }
        let mine = &self.metrics.shards[self.id.index()];
        mine.mesh_sent.add(self.sent);
        mine.mesh_overflow.set(shards_of(self.overflowing).map(|to| self.outlets[to].waiting() as i64).sum());
        (self.sent, self.sent_to, self.taken_from) = (0, 0, 0);
    }

    /// Says that this shard is about to sleep, and looks once more. True when it may: from now on others ring. False
    /// when there is something to take, or room for what waits.
    pub fn doze(&self) -> bool {
        let bell = &self.bells[self.id.index()];
        bell.fall_asleep();
        let nothing_came = self.inlets.iter().all(Inlet::is_empty);
        let no_room = shards_of(self.overflowing).all(|to| !self.outlets[to].can_flush());
        if nothing_came && no_room {
            return true;
        }
        bell.wake();
        false
    }

    /// Says that this shard is awake: others need not ring.
    pub fn rise(&self) {
        self.bells[self.id.index()].wake();
    }

    fn note_congestion(&mut self, to: usize) {
        match self.outlets[to].congestion_change() {
            Some(true) => self.metrics.congested_lanes.fetch_add(1, Ordering::Relaxed),
            Some(false) => self.metrics.congested_lanes.fetch_sub(1, Ordering::Relaxed),
            None => return,
        };
    }
}

fn bit(shard: usize) -> u128 {
    1 << shard
}

fn shards_of(mut set: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let shard = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(shard)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::limits::LANE_OVERFLOW_CONGESTED;

    fn mesh(shards: usize) -> (Vec<MeshPort<u32>>, Arc<NodeMetrics>) {
        let metrics = Arc::new(NodeMetrics::new(shards, 0));
        (Mesh::new(shards, &metrics).unwrap(), metrics)
    }

    fn taken(port: &mut MeshPort<u32>, budget: usize) -> Vec<(u8, u32)> {
        let mut taken = Vec::new();
        port.drain(budget, |from, n| taken.push((from.0, n)));
        taken
    }

    #[test]
    fn everybody_reaches_everybody() {
        let (mut ports, _) = mesh(3);
        for (from, port) in ports.iter_mut().enumerate() {
            for to in 0..3 {
                port.send(ShardId(to), 10 * from as u32 + u32::from(to));
            }
        }
        assert_eq!(taken(&mut ports[0], 9), [(0, 0), (1, 10), (2, 20)]);
        assert_eq!(taken(&mut ports[1], 9), [(0, 1), (1, 11), (2, 21)]);
        assert_eq!(taken(&mut ports[2], 9), [(0, 2), (1, 12), (2, 22)]);
        assert_eq!(taken(&mut ports[2], 9), []);
    }

    #[test]
    fn a_flood_from_one_shard_does_not_hide_another() {
        let (mut ports, _) = mesh(3);
        for n in 0..4000 {
            ports[0].send(ShardId(2), n);
        }
        ports[1].send(ShardId(2), 7);
        let taken = taken(&mut ports[2], 1024);
        assert_eq!(taken.len(), 1024);
        assert_eq!(taken[LANE_SHARE], (1, 7));
    }

    #[test]
    fn a_shard_sleeps_only_when_nothing_waits() {
        let (mut ports, _) = mesh(2);
        assert!(ports[1].doze());
        ports[1].rise();
        ports[0].send(ShardId(1), 1);
        assert!(!ports[1].doze(), "something came");
        taken(&mut ports[1], 9);
        assert!(ports[1].doze());
        // Now the producer: it sleeps on a full lane, but not beside room.
        for n in 0..5000 {
            ports[0].send(ShardId(1), n);
        }
        assert!(ports[0].doze(), "no room: the consumer will ring");
        taken(&mut ports[1], 1);
        assert!(!ports[0].doze());
    }

    #[test]
    fn congestion_is_counted_once_per_lane_and_taken_back() {
        let (mut ports, metrics) = mesh(2);
        let congested = || metrics.congested_lanes.load(Ordering::Relaxed);
        let flood = 4096 + LANE_OVERFLOW_CONGESTED as u32 + 1;
        for n in 0..flood {
            ports[0].send(ShardId(1), n);
        }
        assert_eq!(congested(), 1);
        ports[0].ring_bells();
        assert_eq!(metrics.shards[0].mesh_overflow.get(), LANE_OVERFLOW_CONGESTED as u64 + 1);
        for n in 0..flood {
            ports[1].send(ShardId(0), n);
        }
        assert_eq!(congested(), 2);
        let mut heard = Vec::new();
        while heard.len() < flood as usize {
            heard.extend(taken(&mut ports[1], 1024).into_iter().map(|(_, n)| n));
            ports[0].ring_bells();
        }
        assert_eq!(heard, (0..flood).collect::<Vec<_>>());
        assert_eq!(congested(), 1);
        assert_eq!(metrics.shards[0].mesh_overflow.get(), 0);
        assert_eq!(metrics.shards[0].mesh_sent.get(), u64::from(flood));
    }
}
