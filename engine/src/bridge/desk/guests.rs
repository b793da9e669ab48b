//! The door and the links, as a shard has them: a port, and guests that have turns.
use super::Bridge;
use protocol::clock::Now;
use protocol::cluster::{ClusterEvent, ClusterRequest};
use shards::guest::{Guest, Port, Ready, Wants};
use shards::host::ClusterPort;
use shards::reactor::ClusterSeat;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use storage::link::wants::Wants as LinkWants;
use storage::redis::router::RouterEvent;

/// The door, and the links behind it: two where nodes meet, and two of each partition.
pub(in crate::bridge) fn open(bridge: Bridge) -> ClusterSeat {
    let count = bridge.figures.partitions.len();
    let bridge = Rc::new(RefCell::new(bridge));
    let links_of = |partition| -> [Box<dyn Guest>; 2] {
        [
            Box::new(RouterGuest { bridge: Rc::clone(&bridge), partition }),
            Box::new(CommandGuest { bridge: Rc::clone(&bridge), partition }),
        ]
    };
    let links = std::iter::once(None).chain((0..count).map(Some)).flat_map(links_of).collect();
    ClusterSeat { port: Box::new(Door(bridge)), links }
}

struct Door(Rc<RefCell<Bridge>>);

impl ClusterPort for Door {
    fn submit(&mut self, now: Now, request: ClusterRequest) {
        self.0.borrow_mut().request(now, request);
    }

    fn take_events(&mut self, _now: Now, out: &mut Vec<ClusterEvent>) {
        out.append(&mut self.0.borrow_mut().inbox.events);
    }
}

/// The subscription of a place.
struct RouterGuest {
    bridge: Rc<RefCell<Bridge>>,
    partition: Option<usize>,
}

impl Guest for RouterGuest {
    fn turn(&mut self, now: Now, ready: Ready, port: &mut dyn Port) -> Wants {
        let mut bridge = self.bridge.borrow_mut();
        match self.partition {
            None => bridge.turn_router(now, ready, port.congested()),
            Some(nth) => bridge.turn_partition_router(now, nth, ready, port.congested()),
        }
    }

    fn stop(&mut self) {}
}

/// The link for commands of a place.
struct CommandGuest {
    bridge: Rc<RefCell<Bridge>>,
    partition: Option<usize>,
}

impl Guest for CommandGuest {
    fn turn(&mut self, now: Now, ready: Ready, _port: &mut dyn Port) -> Wants {
        let mut bridge = self.bridge.borrow_mut();
        match self.partition {
            None => bridge.turn_commands(now, ready),
            Some(nth) => bridge.turn_partition_commands(now, nth, ready),
        }
    }

    fn stop(&mut self) {
        // The desk stops with the link of the place where nodes meet.
        if self.partition.is_none() {
            self.bridge.borrow_mut().stop(shards::reactor::clock::now());
        }
    }

    fn owes(&self) -> bool {
        self.bridge.borrow().links.unanswered(self.partition) > 0
    }
}

impl Bridge {
    fn turn_router(&mut self, now: Now, ready: Ready, paused: bool) -> Wants {
        let Bridge { links, inbox, bundles, keys, listening_us, .. } = self;
        let wants = links.router.turn(now, ready.read, ready.write, paused, &mut |event| match event {
            // The topic of everybody is listened to from here on: what was revoked before is kept.
            RouterEvent::Up => keys.ledger.missed(),
            RouterEvent::Message { payload, .. } if bundles.is_own(payload) => {}
            RouterEvent::Message { payload, .. } => inbox.heard(now, None, payload),
            RouterEvent::Watching(name) => inbox.watching(name),
            RouterEvent::Resumed => {
                *listening_us = Some(now.mono_us);
                inbox.resumed(now, None);
            }
            RouterEvent::Down => {
                *listening_us = None;
                inbox.down(None);
            }
        });
        if !self.links.router.is_up() && !self.figures.begins(None) {
            self.inbox.over(None);
        }
        // Somebody is there: that is said with the hello, not a moment later.
        if self.is_alone && !self.inbox.members.is_alone() {
            self.is_alone = false;
            self.send_bundles(now);
            self.inbox.events.push(ClusterEvent::Alone(false));
        }
        self.listened(now, as_guest(wants), paused)
    }

    fn turn_partition_router(&mut self, now: Now, nth: usize, ready: Ready, paused: bool) -> Wants {
        let Bridge { links, inbox, bundles, .. } = self;
        let Some(partitions) = &mut links.partitions else { return Wants::default() };
        inbox.tick(now);
        let wants =
            partitions.router.turn_router(nth, now, ready.read, ready.write, paused, &mut |event| match event {
                RouterEvent::Up => inbox.up(Some(nth)),
                RouterEvent::Message { payload, .. } if bundles.is_own(payload) => {}
                RouterEvent::Message { payload, .. } => inbox.heard(now, Some(nth), payload),
                RouterEvent::Watching(name) => inbox.watching(name),
                RouterEvent::Resumed => inbox.resumed(now, Some(nth)),
                RouterEvent::Down => inbox.down(Some(nth)),
            });
        if !partitions.router.is_up(nth) && !self.figures.begins(Some(nth)) {
            inbox.over(Some(nth));
        }
        self.listened(now, as_guest(wants), paused)
    }

    /// After the turn of a subscription.
    fn listened(&mut self, now: Now, wants: Wants, paused: bool) -> Wants {
        for revocation in self.inbox.revoked.drain(..) {
            self.keys.ledger.add(&revocation, true);
        }
        self.figures.topics.store(self.links.topics() as u64, Relaxed);
        // While it is paused nothing tells it when the node has caught up, so it looks again soon.
        let look_again_us = paused.then(|| now.mono_us + 5_000);
        let wake_at_us = [wants.wake_at_us, look_again_us, self.inbox.due_us()].into_iter().flatten().min();
        match self.is_stopping {
            // It listens on, but keeps nobody from going.
            true => Wants { write: false, again: false, wake_at_us, ..wants },
            false => Wants { wake_at_us, ..wants },
        }
    }

    fn turn_commands(&mut self, now: Now, ready: Ready) -> Wants {
        self.tick(now);
        self.send_due_bundle(now, None);
        let Bridge { links, answers, keys, inbox, figures, .. } = self;
        let wants = links.commands.turn(now, ready.read, ready.write, &mut |ticket, outcome| {
            answers.answered(now, ticket, outcome, keys, inbox, figures);
        });
        let again = wants.again | self.notices_connection(now);
        self.commanded(None, Wants { again, ..as_guest(wants) }, self.due_us(now))
    }

    fn turn_partition_commands(&mut self, now: Now, nth: usize, ready: Ready) -> Wants {
        let due_us = self.tick_in(now, nth);
        self.send_due_bundle(now, Some(nth));
        let Bridge { links, answers, keys, inbox, figures, .. } = self;
        let Some(partitions) = &mut links.partitions else { return Wants::default() };
        let wants = partitions.router.turn_commands(nth, now, ready.read, ready.write, &mut |ticket, outcome| {
            answers.answered(now, ticket, outcome, keys, inbox, figures);
        });
        let again = wants.again | self.is_new_in(nth);
        self.commanded(Some(nth), Wants { again, ..as_guest(wants) }, due_us)
    }

    /// After the turn of a link for commands, where something is due then.
    fn commanded(&self, partition: Option<usize>, wants: Wants, due_us: u64) -> Wants {
        match self.is_stopping && self.links.unanswered(partition) == 0 {
            // What it is busy with is its own affair, and no reason for a node to stay. A request wakes it again.
            true => Wants::default(),
            false => {
                let due_us = [wants.wake_at_us, Some(due_us), self.bundles.due_us(partition)];
                Wants { wake_at_us: due_us.into_iter().flatten().min(), ..wants }
            }
        }
    }
}

fn as_guest(wants: LinkWants) -> Wants {
    Wants {
        socket: wants.socket,
        read: wants.read,
        write: wants.write,
        wake_at_us: wants.wake_at_us,
        again: wants.again,
    }
}
