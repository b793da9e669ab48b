//! The bridge shard's door to other nodes, and the two links behind it.
//!
//! The port and the links share one object on the shard's thread. The port takes requests and gives events out; the
//! links are guests of the shard's reactor and do the talking. In a Redis Cluster there are more of them: `partitions`.
mod outgoing;
pub(super) mod partitions;
mod revoked;

use super::bundles::Bundles;
use super::figures::{BridgeFigures, add};
use super::gate::Gate;
use super::inbox::Inbox;
use super::ledger::Ledger;
use super::register::Register;
use partitions::Partitions;
use protocol::auth::revocation::Revocation;
use protocol::clock::Now;
use protocol::cluster::wire::{Hello, Parcel, ParcelKind};
use protocol::cluster::{
    Admission, AdmissionRequest, AdmissionTicket, ClusterEvent, ClusterRequest, GatherTicket, Topic,
};
use protocol::limits;
use shards::guest::{Guest, Port, Ready, Wants};
use shards::host::ClusterPort;
use shards::metrics::NodeMetrics;
use shards::reactor::ClusterSeat;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use storage::link::state::LinkState;
use storage::link::wants::Wants as LinkWants;
use storage::redis::admissions;
use storage::redis::commands::answer::Outcome;
use storage::redis::commands::link::CommandLink;
use storage::redis::commands::{Command, Ticket};
use storage::redis::revocations::Revocations;
use storage::redis::router::{Router, RouterEvent, Watch};
use storage::redis::sessions::{Joining, Sessions, Swept};

/// Topics of one step of the walk that writes their keys again.
const WALK_PAGE: usize = 256;
/// Commands that are not answered, above which the walk waits.
const WALK_COMMANDS_MAX: usize = 1_024;
/// Nobody waits for the answer to a command of this name.
const NOBODY: Ticket = Ticket(0);

/// What a bridge is made of.
pub(super) struct BridgeParts {
    pub(super) server_id: Box<str>,
    /// `CLUSTER_ROUTING_CHANNEL`
    pub(super) route: Box<str>,
    /// Its configuration names the topics of everybody and of this node.
    pub(super) router: Router,
    pub(super) commands: CommandLink,
    /// In a Redis Cluster.
    pub(super) partitions: Option<Partitions>,
    pub(super) sessions: Sessions,
    pub(super) revocations: Revocations,
    pub(super) gate: Gate,
    pub(super) session_ttl_seconds: u64,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) figures: Arc<BridgeFigures>,
}

/// Makes the door and the links behind it.
pub(super) fn open(parts: BridgeParts, now: Now) -> ClusterSeat {
    let bridge = Rc::new(RefCell::new(Bridge::new(parts, now)));
    let mut links: Vec<Box<dyn Guest>> =
        vec![Box::new(RouterGuest(Rc::clone(&bridge))), Box::new(CommandGuest(Rc::clone(&bridge)))];
    links.extend(partitions::guests(&bridge));
    ClusterSeat { port: Box::new(Door(bridge)), links }
}

/// What a command was for.
enum Asked {
    /// A parcel whose sender wants to know how many got it, or that is not to be lost. Redis counts this node, too, if it
    /// listens when the parcel gets there, which nobody here can know: then the parcel comes back, and that is its receipt.
    Parcel {
        ticket: Option<GatherTicket>,
        hint: Option<Hint>,
    },
    /// Whether there is room for a connection.
    Admission(AdmissionTicket),
    Users,
    Sweep,
    /// A revocation is to be kept; its parcel follows, if it has a ticket.
    Kept {
        ticket: Option<GatherTicket>,
        revocation: Arc<Revocation>,
    },
    /// A page of revocations.
    Revocations,
}

/// A hint and its topic.
type Hint = (Topic, Arc<Parcel>);

struct Bridge {
    server_id: Box<str>,
    route: Box<str>,
    router: Router,
    commands: CommandLink,
    partitions: Option<Partitions>,
    sessions: Sessions,
    revocations: Revocations,
    ledger: Ledger,
    /// Parcels about what was not kept; until they are answered.
    unkept: Vec<GatherTicket>,
    gate: Gate,
    metrics: Arc<NodeMetrics>,
    figures: Arc<BridgeFigures>,
    inbox: Inbox,
    bundles: Bundles,
    register: Register,
    /// Commands whose answer tells something; as many as the link takes.
    asked: HashMap<u64, Asked>,
    next_ticket: u64,
    /// The last hint of each user that Redis was not given, or perhaps not.
    unsent: HashMap<Topic, Arc<Parcel>>,
    hello_due_us: u64,
    canary_due_us: u64,
    canaries: u64,
    sweep_cursor: u64,
    /// How often the link for commands came up, as far as it was noticed.
    connections_seen: u64,
    /// Room for the name of a topic and for a parcel.
    name: Vec<u8>,
    payload: Vec<u8>,
    /// Since when everything is listened to.
    listening_us: Option<u64>,
    /// What the shards were told of this node's being alone.
    is_alone: bool,
    /// How long a node that fell silent may still come back.
    session_ttl_us: u64,
    is_full_told: bool,
    is_stopping: bool,
}

impl Bridge {
    fn new(parts: BridgeParts, now: Now) -> Bridge {
        let BridgeParts {
            server_id,
            route,
            router,
            commands,
            partitions,
            sessions,
            revocations,
            gate,
            session_ttl_seconds,
            metrics,
            figures,
        } = parts;
        Bridge {
            inbox: Inbox::new(server_id.clone(), now.unix_ms(), Arc::clone(&figures)),
            bundles: Bundles::new(&server_id, figures.partitions.len()),
            register: Register::new(session_ttl_seconds),
            server_id,
            route,
            router,
            commands,
            partitions,
            sessions,
            revocations,
            ledger: Ledger::new(),
            unkept: Vec::new(),
            gate,
            metrics,
            figures,
            asked: HashMap::new(),
            next_ticket: 1,
            unsent: HashMap::new(),
            hello_due_us: 0,
            canary_due_us: 0,
            canaries: 0,
            sweep_cursor: 0,
            connections_seen: 0,
            name: Vec::new(),
            payload: Vec::new(),
            listening_us: None,
            is_alone: false,
            session_ttl_us: session_ttl_seconds.saturating_mul(1_000_000),
            is_full_told: false,
            is_stopping: false,
        }
    }

    /// Whether Redis takes commands.
    fn is_there(&self) -> bool {
        self.figures.commands.link() == LinkState::Healthy
    }

    fn request(&mut self, now: Now, request: ClusterRequest) {
        match request {
            ClusterRequest::Watch { topic, shard, serial } => self.watch(now, topic, shard, serial),
            ClusterRequest::Unwatch { topic } => self.unwatch(now, topic),
            ClusterRequest::Send { topic, parcel } => self.send(now, topic, parcel),
            ClusterRequest::Publish(publication) => self.send_publication(now, &publication),
            ClusterRequest::SessionChanged(session) => {
                let Bridge { sessions, commands, .. } = self;
                if has_room(commands) {
                    // What is not taken comes with the next refresh.
                    let _ = sessions.open(&session, |command| commands.submit(now, NOBODY, command));
                }
            }
            ClusterRequest::Admit(request) => self.ask_admission(now, &request),
            ClusterRequest::SessionEnded { session, .. } => {
                let Bridge { sessions, gate, commands, .. } = self;
                // What is not taken expires. Room for others goes before the books.
                gate.give_back(&session, |command| commands.submit(now, NOBODY, command));
                let _ = sessions.close(session.connection, |command| commands.submit(now, NOBODY, command));
            }
            ClusterRequest::SessionPage(page) => {
                let Bridge { sessions, gate, commands, figures, .. } = self;
                gate.hold(&page, |command| commands.submit(now, NOBODY, command));
                for session in &page {
                    if !has_room(commands) {
                        break;
                    }
                    if sessions.open(session, |command| commands.submit(now, NOBODY, command)).is_ok() {
                        add(&figures.refreshed, 1);
                    }
                }
            }
        }
    }

    /// Whether the cluster has room for a connection. Where Redis cannot be asked, the node's own counts decide.
    fn ask_admission(&mut self, now: Now, request: &AdmissionRequest) {
        let is_asked = self.is_there() && {
            let name = self.asks(Asked::Admission(request.ticket));
            let Bridge { gate, commands, asked, .. } = self;
            let taken = gate.admissions.ask(request, |command| commands.submit(now, name, command)).is_ok();
            if !taken {
                asked.remove(&name.0);
            }
            taken
        };
        if !is_asked {
            self.gate.own_counts_decide();
            let (ticket, admission) = (request.ticket, Admission::Unknown);
            self.inbox.events.push(ClusterEvent::Admitted { ticket, admission });
        }
    }

    fn watch(&mut self, now: Now, topic: Topic, shard: u8, serial: u32) {
        self.register.joined(&topic);
        let Bridge { sessions, commands, .. } = self;
        if has_room(commands) {
            join(sessions, commands, now, &topic, Joining::First);
        }
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        let partition = self.partition(&topic);
        self.write_name(partition, &topic, &mut name);
        let is_ours = matches!(&topic, Topic::Everybody | Topic::Node(_));
        let (watch, is_up) = match (&mut self.partitions, partition) {
            _ if is_ours => (Watch::Listening, true),
            (Some(partitions), Some(nth)) => (partitions.router.watch(nth, &name), partitions.router.is_up(nth)),
            _ => (self.router.watch(&name), self.router.is_up()),
        };
        match watch {
            Watch::Later if is_up => self.inbox.wait(&name, partition, topic, shard, serial),
            watch => {
                if watch == Watch::TooMany && !std::mem::replace(&mut self.is_full_told, true) {
                    tracing::error!(
                        topics_max = limits::CLUSTER_TOPICS_MAX,
                        "this node has more users and channels than it can listen to; what other nodes publish to the \
                         others does not reach them here"
                    );
                }
                self.inbox.events.push(ClusterEvent::Watching { topic, shard, serial });
            }
        }
        self.name = name;
    }

    fn unwatch(&mut self, now: Now, topic: Topic) {
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        let partition = self.partition(&topic);
        self.write_name(partition, &topic, &mut name);
        match (&mut self.partitions, partition) {
            (Some(partitions), Some(nth)) => partitions.router.unwatch(nth, &name),
            _ => self.router.unwatch(&name),
        }
        // Whoever still waits for it is told, as nobody else will.
        self.inbox.watching(&name);
        self.name = name;
        let Bridge { sessions, commands, .. } = self;
        if !leave(sessions, commands, now, &topic) {
            self.register.owe(topic);
        }
    }

    fn asks(&mut self, asked: Asked) -> Ticket {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.asked.insert(ticket, asked);
        Ticket(ticket)
    }

    /// A parcel of the bridge's own.
    fn say(&mut self, now: Now, topic: &Topic, to_server: Option<Box<str>>, kind: ParcelKind) {
        let parcel = Parcel { from_server: self.server_id.clone(), to_server, kind };
        self.publish(now, topic, &parcel, None, None);
    }

    fn hello(&self) -> Hello {
        Hello {
            server_id: self.server_id.clone(),
            connections: self.metrics.sum(|shard| shard.connections_ws.get() + shard.connections_sse.get()),
            users: self.metrics.sum(|shard| shard.users.get()),
            started_unix_ms: self.inbox.started_unix_ms,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Does what is due.
    fn tick(&mut self, now: Now) {
        let is_there = self.is_there() && !self.is_stopping;
        if now.mono_us >= self.canary_due_us {
            self.canary_due_us = now.mono_us + limits::CANARY_INTERVAL_MS * 1_000;
            if is_there {
                self.canaries += 1;
                let own = self.server_id.clone();
                self.say(now, &Topic::Node(own.clone()), Some(own), ParcelKind::Canary(self.canaries));
            }
        }
        let is_time = now.mono_us >= self.hello_due_us;
        if is_time {
            self.hello_due_us = now.mono_us + limits::CLUSTER_HELLO_INTERVAL_MS * 1_000;
            if is_there {
                self.say_hello(now);
            }
        }
        self.inbox.has_other_members |= self.inbox.members.expire(now);
        if std::mem::take(&mut self.inbox.has_other_members) || is_time {
            let members = self.inbox.members.with(self.hello());
            self.figures.members.store(members.len() as u64, Relaxed);
            self.figures.connections.store(members.iter().map(|hello| hello.connections).sum(), Relaxed);
            self.inbox.events.push(ClusterEvent::Members(members));
        }
        let is_alone = self.hears_nobody(now);
        if std::mem::replace(&mut self.is_alone, is_alone) != is_alone {
            self.inbox.events.push(ClusterEvent::Alone(is_alone));
        }
        if is_there && self.register.begins(now) {
            // Whatever was missed though no link broke.
            self.ledger.forget(now.unix_seconds());
            self.ledger.owe_untold();
            self.ledger.missed();
            self.inbox.events.push(ClusterEvent::RefreshSessions);
        }
        if is_there {
            self.walk(now);
            self.tend_revocations(now);
        }
    }

    /// Whether no other node can be there: one that begins says hello before it lets a client in, and is heard, as Redis
    /// carries what this node says to itself; those that were there before would have said hello long since.
    fn hears_nobody(&self, now: Now) -> bool {
        let silence_us = limits::CLUSTER_MEMBER_SILENCE_MS * 1_000;
        self.inbox.members.is_alone()
            && self.listening_us.is_some_and(|since_us| now.mono_us >= since_us + silence_us)
            && self.figures.flows(now)
    }

    /// Once a second: this node is there, and what one node does for all.
    fn say_hello(&mut self, now: Now) {
        self.ledger.retry();
        let hello = self.hello();
        let connections = hello.connections;
        self.say(now, &Topic::Everybody, None, ParcelKind::Hello(hello));
        let users = self.asks(Asked::Users);
        let sweep = self.inbox.members.is_first(&self.server_id).then(|| self.asks(Asked::Sweep));
        let Bridge { sessions, commands, asked, sweep_cursor, .. } = self;
        // What is not taken is asked again in a second.
        let _ = sessions.count(connections, |command| commands.submit(now, NOBODY, command));
        if sessions.users(|command| commands.submit(now, users, command)).is_err() {
            asked.remove(&users.0);
        }
        if let Some(sweep) = sweep
            && sessions.sweep(*sweep_cursor, |command| commands.submit(now, sweep, command)).is_err()
        {
            asked.remove(&sweep.0);
        }
    }

    /// Writes the keys of some topics again.
    fn walk(&mut self, now: Now) {
        let Bridge { register, router, partitions, commands, sessions, route, .. } = self;
        while let Some(walks) = &mut register.walk {
            if commands.unanswered() >= WALK_COMMANDS_MAX {
                return;
            }
            let mut again = |route: &str, name: &[u8]| {
                if let Some(topic) = Topic::parse(route, name) {
                    join(sessions, commands, now, &topic, Joining::Again);
                }
            };
            let goes_on = match partitions {
                Some(Partitions { router, routes, .. }) => {
                    router.page(&mut walks.partitions, WALK_PAGE, |nth, name| again(&routes[nth], name))
                }
                None => router.page(&mut walks.meeting, WALK_PAGE, |name| again(route, name)),
            };
            if !goes_on {
                register.walk = None;
            }
        }
    }

    /// The link for commands is up again: Redis may have lost everything.
    fn commands_are_up(&mut self, now: Now) {
        (self.hello_due_us, self.canary_due_us) = (now.mono_us, now.mono_us);
        self.ledger.up(now.unix_seconds());
        self.gate.up();
        let owed = self.register.up(now);
        let Bridge { sessions, commands, .. } = self;
        for topic in owed {
            leave(sessions, commands, now, &topic);
        }
        self.send_hints_again(now, None);
    }

    fn turn_commands(&mut self, now: Now, ready: Ready) -> Wants {
        self.tick(now);
        self.send_due_bundle(now, None);
        let Bridge { commands, asked, inbox, figures, sweep_cursor, unsent, unkept, ledger, gate, .. } = self;
        let wants = commands.turn(now, ready.read, ready.write, &mut |ticket, outcome| {
            match (asked.remove(&ticket.0), outcome) {
                (Some(Asked::Parcel { ticket, hint }), outcome) => {
                    outgoing::parcel_answered(inbox, figures, unsent, unkept, ticket, hint, outcome);
                }
                (Some(Asked::Admission(ticket)), outcome) => {
                    let admission = match outcome {
                        Outcome::Done(reply) => admissions::read(reply).unwrap_or(Admission::Unknown),
                        _ => Admission::Unknown,
                    };
                    if admission == Admission::Unknown {
                        gate.own_counts_decide();
                    }
                    inbox.events.push(ClusterEvent::Admitted { ticket, admission });
                }
                (Some(Asked::Users), Outcome::Done(reply)) => {
                    figures.users.store(reply.unsigned().unwrap_or(0), Relaxed);
                }
                (Some(Asked::Sweep), Outcome::Done(reply)) => {
                    // An answer of another shape begins the walk anew.
                    *sweep_cursor = Swept::read(reply).map_or(0, |swept| swept.cursor);
                }
                (Some(Asked::Kept { revocation, .. }), Outcome::Done(_)) => ledger.told(&revocation),
                // Its parcel is answered behind it, on the same link.
                (Some(Asked::Kept { ticket, .. }), _) => unkept.extend(ticket),
                (Some(Asked::Revocations), outcome) => inbox.events.extend(revoked::read(ledger, now, outcome)),
                _ => {}
            }
        });
        let mut again = wants.again;
        let connections = self.figures.commands.connections();
        if std::mem::replace(&mut self.connections_seen, connections) != connections {
            self.commands_are_up(now);
            again = true;
        }
        let due_us = self.hello_due_us.min(self.canary_due_us).min(match self.register.walk {
            // The next answers make room.
            Some(_) => now.mono_us + 5_000,
            None if self.is_there() && self.ledger.has_work() => now.mono_us + 5_000,
            None => self.register.due_us().max(now.mono_us + 1_000),
        });
        let wants = as_guest(wants);
        let wake_at_us = [wants.wake_at_us, Some(due_us), self.bundles.due_us(None)].into_iter().flatten().min();
        match self.is_stopping && self.commands.unanswered() == 0 {
            // What it is busy with is its own affair, and no reason for a node to stay. A request wakes it again.
            true => Wants::default(),
            false => Wants { wake_at_us, again, ..wants },
        }
    }

    fn turn_router(&mut self, now: Now, ready: Ready, paused: bool) -> Wants {
        let Bridge { router, inbox, bundles, ledger, listening_us, is_alone, route, .. } = self;
        let wants = router.turn(now, ready.read, ready.write, paused, &mut |event| match event {
            // The topic of everybody is listened to from here on: what was revoked before is kept.
            RouterEvent::Up => ledger.missed(),
            // Who is alone has published that himself, and nobody waits for it.
            RouterEvent::Message { topic, .. }
                if *is_alone && inbox.members.is_alone() && Topic::is_of_clients(route, topic) => {}
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
        // Somebody is there: that is said with the hello, not a moment later.
        if self.is_alone && !self.inbox.members.is_alone() {
            self.is_alone = false;
            self.send_bundles(now);
            self.inbox.events.push(ClusterEvent::Alone(false));
        }
        self.listened(now, as_guest(wants), paused)
    }

    fn stop(&mut self, now: Now) {
        if !std::mem::replace(&mut self.is_stopping, true) && self.is_there() {
            self.send_bundles(now);
            self.say(now, &Topic::Everybody, None, ParcelKind::Bye);
            let Bridge { sessions, commands, .. } = self;
            // If it is not taken, the key expires.
            let _ = sessions.leave(|command| commands.submit(now, NOBODY, command));
        }
    }
}

/// Whether the keys of sessions may go before parcels that are still to come.
fn has_room(commands: &CommandLink) -> bool {
    commands.unanswered() < limits::CLUSTER_SESSION_COMMANDS_MAX
}

/// Writes the keys of a user or a channel; what is not taken comes with the next refresh.
fn join(sessions: &Sessions, commands: &mut CommandLink, now: Now, topic: &Topic, joining: Joining) {
    let submit = |command: Command<'_>| commands.submit(now, NOBODY, command).is_ok();
    match topic {
        Topic::User(tenant, user) => _ = sessions.join_user(tenant, user, joining, submit),
        Topic::Channel(tenant, channel) => _ = sessions.join_channel(tenant, channel, joining, submit),
        Topic::Everybody | Topic::Node(_) => {}
    }
}

/// Takes this node out of the keys of a user or a channel. Whether Redis is told.
fn leave(sessions: &Sessions, commands: &mut CommandLink, now: Now, topic: &Topic) -> bool {
    let submit = |command: Command<'_>| commands.submit(now, NOBODY, command).is_ok();
    match topic {
        Topic::User(tenant, user) => sessions.leave_user(tenant, user, submit),
        Topic::Channel(tenant, channel) => sessions.leave_channel(tenant, channel, submit),
        Topic::Everybody | Topic::Node(_) => true,
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

struct Door(Rc<RefCell<Bridge>>);

impl ClusterPort for Door {
    fn submit(&mut self, now: Now, request: ClusterRequest) {
        self.0.borrow_mut().request(now, request);
    }

    fn take_events(&mut self, _now: Now, out: &mut Vec<ClusterEvent>) {
        out.append(&mut self.0.borrow_mut().inbox.events);
    }
}

/// The subscription, as a guest of its shard.
struct RouterGuest(Rc<RefCell<Bridge>>);

impl Guest for RouterGuest {
    fn turn(&mut self, now: Now, ready: Ready, port: &mut dyn Port) -> Wants {
        self.0.borrow_mut().turn_router(now, ready, port.congested())
    }

    fn stop(&mut self) {}
}

/// The link for commands, as a guest of its shard.
struct CommandGuest(Rc<RefCell<Bridge>>);

impl Guest for CommandGuest {
    fn turn(&mut self, now: Now, ready: Ready, _port: &mut dyn Port) -> Wants {
        self.0.borrow_mut().turn_commands(now, ready)
    }

    fn stop(&mut self) {
        self.0.borrow_mut().stop(shards::reactor::clock::now());
    }

    fn owes(&self) -> bool {
        self.0.borrow().commands.unanswered() > 0
    }
}
