//! One shard's door to what is kept: mail and templates in one place, acknowledgements in the same or in another.
//!
//! The port and the links share one object on the shard's thread. The port takes requests and gives answers out; the
//! links are guests of the shard's reactor and do the talking.
use super::memory::Memory;
use protocol::clock::Now;
use protocol::store::{StoreReply, StoreRequest, StoreTicket};
use shards::guest::{Guest, Port, Ready, Wants};
use shards::host::StorePort;
use shards::key::ShardId;
use shards::reactor::StoreSeat;
use std::cell::RefCell;
use std::rc::Rc;
use storage::backend::Backend;

/// What a store behind links is asked to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keeps {
    /// Mail and templates.
    pub(crate) mail: bool,
    /// Acknowledgements.
    pub(crate) acks: bool,
    /// Counts of requests.
    pub(crate) counts: bool,
}

/// Makes a shard's door. What no backend keeps is kept in memory. Of two backends that keep the same the first has it.
pub(crate) fn open(memory: Memory, backends: Vec<(Keeps, Box<dyn Backend>)>) -> StoreSeat {
    let place = |keeps: fn(&Keeps) -> bool| {
        backends.iter().position(|(what, _)| keeps(what)).map_or(Place::Memory, Place::Backend)
    };
    let (mail, acks) = (place(|keeps| keeps.mail), place(|keeps| keeps.acks));
    let counts = place(|keeps| keeps.counts);
    let backends: Vec<_> = backends.into_iter().map(|(_, backend)| backend).collect();
    let seats: Vec<_> = backends.iter().map(|backend| backend.links()).enumerate().collect();
    let desk = Rc::new(RefCell::new(Desk { mail, acks, counts, memory, backends, replies: Vec::new() }));
    let links = seats.into_iter().flat_map(|(backend, links)| (0..links).map(move |link| (backend, link)));
    let links = links.map(|(backend, link)| {
        let desk = Rc::clone(&desk);
        Box::new(StoreLink { desk, backend, link, stopping: false }) as Box<dyn Guest>
    });
    StoreSeat { links: links.collect(), port: Box::new(Door(desk)) }
}

/// Where something is kept.
#[derive(Clone, Copy)]
enum Place {
    Memory,
    /// By its number among [`Desk::backends`].
    Backend(usize),
}

struct Desk {
    mail: Place,
    acks: Place,
    counts: Place,
    memory: Memory,
    backends: Vec<Box<dyn Backend>>,
    /// Of memory, until they are asked for.
    replies: Vec<(StoreTicket, StoreReply)>,
}

struct Door(Rc<RefCell<Desk>>);

impl StorePort for Door {
    fn submit(&mut self, now: Now, _shard: ShardId, ticket: StoreTicket, request: StoreRequest) {
        let desk = &mut *self.0.borrow_mut();
        let place = match &request {
            StoreRequest::CountRequest { .. } => desk.counts,
            StoreRequest::TrackAck { .. } | StoreRequest::Acknowledge { .. } => desk.acks,
            StoreRequest::PutTemplate { .. }
            | StoreRequest::DeleteTemplate { .. }
            | StoreRequest::LoadTemplates
            | StoreRequest::AppendMail { .. }
            | StoreRequest::ReadMail { .. }
            | StoreRequest::BeginMail { .. }
            | StoreRequest::RemoveMail { .. } => desk.mail,
        };
        match place {
            Place::Memory => desk.replies.push((ticket, desk.memory.handle(now, request))),
            Place::Backend(backend) => desk.backends[backend].submit(now, ticket, request),
        }
    }

    fn take_replies(&mut self, now: Now, out: &mut Vec<(StoreTicket, StoreReply)>) {
        let desk = &mut *self.0.borrow_mut();
        out.append(&mut desk.replies);
        for backend in &mut desk.backends {
            backend.take_replies(out);
        }
        desk.memory.tick(now);
    }
}

/// One link of a store, as a guest of its shard.
struct StoreLink {
    desk: Rc<RefCell<Desk>>,
    /// Its number among [`Desk::backends`].
    backend: usize,
    /// Its number among the backend's links.
    link: usize,
    stopping: bool,
}

impl Guest for StoreLink {
    fn turn(&mut self, now: Now, ready: Ready, _port: &mut dyn Port) -> Wants {
        let backend = &mut self.desk.borrow_mut().backends[self.backend];
        let wants = backend.turn(self.link, now, ready.read, ready.write);
        if self.stopping && !backend.owes() {
            // What it is busy with is its own affair, and no reason for a node to stay. A request wakes it again.
            return Wants::default();
        }
        Wants {
            socket: wants.socket,
            read: wants.read,
            write: wants.write,
            wake_at_us: wants.wake_at_us,
            again: wants.again,
        }
    }

    fn stop(&mut self) {
        // It serves on: what clients that are being sent away did not take goes back into their mailboxes.
        self.stopping = true;
    }

    fn owes(&self) -> bool {
        self.desk.borrow().backends[self.backend].owes()
    }
}

#[cfg(test)]
mod tests;
