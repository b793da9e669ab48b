//! What the rim does in a process: input, lanes, stores and sockets move, in an order drawn from the seed.
use super::{Parcel, World};
use crate::client::{Client, ClientId};
use protocol::clock::Now;
use shards::effect::Effect;
use shards::key::{ConnKey, ShardId};
use shards::shard::{Ended, Shard};

impl World {
    /// One round: every source of events gets a chance, in random order. False when nothing was left to do.
    pub(crate) fn step(&mut self) -> bool {
        let mut moved = false;
        self.now_us += self.rng.u64(0..200);
        let is_there = |id: &ClientId| self.clients[*id].place.is_some();
        let mut clients: Vec<ClientId> = (0..self.clients.len()).filter(is_there).collect();
        self.rng.shuffle(&mut clients);
        for id in clients {
            moved |= self.move_input(id);
        }
        let count = self.shards.len();
        let mut lanes: Vec<(usize, usize)> = (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).collect();
        self.rng.shuffle(&mut lanes);
        for (from, to) in lanes {
            // A lane may stand still for a while, but keeps its order.
            let parcels = self.rng.usize(0..4);
            for _ in 0..parcels {
                let Some(parcel) = self.lanes[from][to].pop_front() else { break };
                moved = true;
                self.deliver(from, to, parcel);
            }
        }
        for shard in 0..count {
            if self.dirty[shard].is_empty() {
                self.call(shard, |shard, now, effects| moved |= shard.work(now, effects));
            }
            moved |= self.flush(shard);
            let unix_ns = self.now().unix_ns;
            if let Some((ticket, reply)) = self.stores[shard].answer(&mut self.rng, unix_ns) {
                self.call(shard, |shard, now, effects| shard.stored(now, ticket, reply, effects));
                moved = true;
            }
            moved |= !self.stores[shard].is_idle();
        }
        moved || self.lanes.iter().flatten().any(|lane| !lane.is_empty())
    }

    /// Brings everything a client has said to its shard in one read; nothing else moves.
    pub(crate) fn feed(&mut self, id: ClientId) {
        let (shard, key) = self.clients[id].place.expect("a client that is there");
        let mut bytes = std::mem::take(&mut self.clients[id].to_server);
        self.call(shard, |shard, now, effects| shard.received(now, key, &mut bytes, effects));
    }

    /// Takes the next parcel of one lane; nothing else moves.
    pub(crate) fn carry(&mut self, from: usize, to: usize) {
        let parcel = self.lanes[from][to].pop_front().expect("a parcel on the lane");
        self.deliver(from, to, parcel);
    }

    /// One shard's turn at its fan-outs; nothing else moves.
    pub(crate) fn turn(&mut self, shard: usize) {
        self.call(shard, |shard, now, effects| {
            shard.work(now, effects);
        });
    }

    /// Whether a shard has something to write.
    pub(crate) fn has_output(&mut self, at: usize) -> bool {
        let mut newly_dirty = Vec::new();
        self.shards[at].take_dirty(&mut newly_dirty);
        self.dirty[at].extend(newly_dirty);
        !self.dirty[at].is_empty()
    }

    /// One write to every connection of a shard that has something; nothing else moves.
    pub(crate) fn flush_all(&mut self, at: usize) {
        self.has_output(at);
        for key in std::mem::take(&mut self.dirty[at]) {
            self.write_whole(at, key);
        }
    }

    fn move_input(&mut self, id: ClientId) -> bool {
        let client = &mut self.clients[id];
        let Some((shard, key)) = client.place else { return false };
        if client.reset {
            self.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
            return true;
        }
        if client.is_deaf {
            return false;
        }
        if client.to_server.is_empty() {
            if client.hang_up && !client.said_eof {
                client.said_eof = true;
                self.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
                return true;
            }
            return false;
        }
        let len = self.rng.usize(1..=client.to_server.len());
        let mut bytes: Vec<u8> = client.to_server.drain(..len).collect();
        self.call(shard, |shard, now, effects| shard.received(now, key, &mut bytes, effects));
        true
    }

    fn deliver(&mut self, from: usize, to: usize, parcel: Parcel) {
        match parcel {
            Parcel::Message(message) => {
                self.call(to, |shard, now, effects| shard.message(now, ShardId(from as u8), message, effects));
            }
            Parcel::Socket(id, mut arrival) => {
                let mut effects = Vec::new();
                let (now, mut rest) = (self.now(), std::mem::take(&mut arrival.rest));
                let key = self.shards[to].arrived(now, arrival, &mut effects);
                self.sockets.insert((to as u8, key), id);
                self.clients[id].place = Some((to, key));
                // A socket that is new to its shard is read.
                self.clients[id].is_deaf = false;
                self.carry_out(to, effects);
                if !rest.is_empty() {
                    self.call(to, |shard, now, effects| shard.received(now, key, &mut rest, effects));
                }
            }
        }
    }

    /// Writes what is dirty; sockets take as much as the seed says, and not every turn comes to all of them.
    fn flush(&mut self, at: usize) -> bool {
        // Sockets that were full take bytes again at some later time.
        let takes = |client: &Client| client.blocked && client.reads && client.credit != Some(0);
        for id in 0..self.clients.len() {
            let client = &mut self.clients[id];
            if let Some((shard, key)) = client.place
                && shard == at
                && takes(client)
            {
                client.blocked = false;
                self.call(at, |shard, now, _| shard.writable(now, key));
            }
        }
        let moved = self.has_output(at);
        let writes = if self.rng.u8(0..4) == 0 { self.rng.usize(1..4) } else { self.dirty[at].len() };
        for _ in 0..writes {
            let Some(key) = self.dirty[at].pop_front() else { break };
            self.write(at, key);
        }
        moved
    }

    fn write(&mut self, at: usize, key: ConnKey) {
        let now = self.now();
        let Some(id) = self.sockets.get(&(at as u8, key)).copied() else { return };
        let was_sealed = !self.clients[id].sealed.is_empty();
        let shown = match was_sealed {
            true => std::mem::take(&mut self.clients[id].sealed),
            false => self.shards[at].output(now, key).to_vec(),
        };
        if self.watches {
            let waiting = self.shards[at].waiting(key);
            let seen = self.seen.entry(id).or_default();
            waiting.into_iter().for_each(|place| {
                if !seen.contains(&place) {
                    seen.push(place)
                }
            });
        }
        let picks_little = self.cuts && self.rng.u8(0..8) == 0;
        let little = self.rng.usize(0..=shown.len());
        let client = &mut self.clients[id];
        if client.reset && !shown.is_empty() {
            return self.call(at, |shard, now, effects| shard.ended(now, key, Ended::Reset, effects));
        }
        let mut takes = if picks_little { little } else { shown.len() };
        takes = takes.min(client.credit.unwrap_or(usize::MAX)).min(if client.reads { usize::MAX } else { 0 });
        client.credit = client.credit.map(|credit| credit - takes);
        client.from_server.extend_from_slice(&shown[..takes]);
        let blocked = takes < shown.len();
        client.blocked = blocked;
        if self.encrypts && blocked {
            client.sealed = shown[takes..].to_vec();
        }
        let (len, encrypts) = (shown.len(), self.encrypts);
        self.call(at, |shard, now, effects| match (was_sealed, encrypts && blocked) {
            (true, _) => shard.unsealed(now, key, takes > 0, !blocked, effects),
            (false, true) => shard.sealed(now, key, len, effects),
            (false, false) => shard.written(now, key, takes, blocked, effects),
        });
    }

    /// As [`World::write`], to a socket that takes all it may.
    fn write_whole(&mut self, at: usize, key: ConnKey) {
        self.cuts = false;
        self.write(at, key);
        self.cuts = true;
    }

    pub(crate) fn call(&mut self, at: usize, act: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>)) {
        let (mut effects, now) = (Vec::new(), self.now());
        act(&mut self.shards[at], now, &mut effects);
        if self.checks {
            self.shards[at].check();
        }
        self.carry_out(at, effects);
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => {
                    assert_ne!(to.index(), at, "seed {}: a shard does not write to itself", self.seed);
                    self.lanes[at][to.index()].push_back(Parcel::Message(message));
                }
                Effect::HandOver { key, to, arrival } => {
                    let id = self.sockets.remove(&(at as u8, key)).expect("a socket that exists");
                    self.clients[id].place = None;
                    self.lanes[at][to.index()].push_back(Parcel::Socket(id, arrival));
                }
                Effect::Shutdown(key) => {
                    if let Some(id) = self.sockets.get(&(at as u8, key)) {
                        assert!(self.clients[*id].sealed.is_empty(), "seed {}: FIN before what was said", self.seed);
                        self.clients[*id].ended = true;
                    }
                }
                Effect::Close(key) => {
                    let id = self.sockets.remove(&(at as u8, key)).expect("a socket that exists");
                    self.clients[id].place = None;
                    self.clients[id].ended = true;
                }
                Effect::Read { key, on } => {
                    if let Some(id) = self.sockets.get(&(at as u8, key)) {
                        self.clients[*id].is_deaf = !on;
                    }
                }
                Effect::Store { ticket, request } => self.stores[at].submit(ticket, request),
                Effect::Cluster(request) => {
                    assert_eq!(self.bridge, Some(at), "seed {}: only the bridge shard says {request:?}", self.seed);
                    self.to_bridge.push_back(*request);
                }
            }
        }
    }
}
