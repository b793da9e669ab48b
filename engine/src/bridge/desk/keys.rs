//! What the cluster has in Redis beside topics: who is connected where, how many that are, and which tokens are revoked
//! (`revoked`). What is written here and not taken is written again before it expires.
use super::Bridge;
use super::answers::Asked;
use super::links::{Links, NOBODY};
use super::partitions::Partitions;
use crate::bridge::figures::add;
use crate::bridge::gate::Gate;
use crate::bridge::ledger::Ledger;
use crate::bridge::register::Register;
use protocol::clock::Now;
use protocol::cluster::{Admission, AdmissionRequest, ClusterEvent, Session, Topic};
use protocol::limits;
use shards::config::ShardConfig;
use std::sync::Arc;
use storage::redis::admissions::Admissions;
use storage::redis::commands::Command;
use storage::redis::commands::link::CommandLink;
use storage::redis::revocations::Revocations;
use storage::redis::sessions::{Joining, Sessions};

/// Topics of one step of the walk that writes their keys again.
const WALK_PAGE: usize = 256;
/// Commands that are not answered, above which the walk waits.
pub(super) const WALK_COMMANDS_MAX: usize = 1_024;

pub(crate) struct Keys {
    pub(super) sessions: Sessions,
    /// When they are written again.
    pub(super) register: Register,
    pub(super) revocations: Revocations,
    /// What of them is owed to Redis, and unread.
    pub(super) ledger: Ledger,
    pub(super) gate: Gate,
    /// How long a node that fell silent may still come back.
    pub(super) session_ttl_us: u64,
}

impl Keys {
    /// Keys that begin with `prefix`. Those of sessions expire unless they are written again.
    pub(crate) fn new(prefix: &str, session_ttl_seconds: u64, rules: Arc<ShardConfig>) -> Keys {
        Keys {
            sessions: Sessions::new(prefix, &rules.server_id, session_ttl_seconds),
            register: Register::new(session_ttl_seconds),
            revocations: Revocations::new(prefix),
            ledger: Ledger::new(),
            gate: Gate::new(Admissions::new(prefix, session_ttl_seconds), rules),
            session_ttl_us: session_ttl_seconds.saturating_mul(1_000_000),
        }
    }
}

impl Bridge {
    /// A session began, or changed.
    pub(super) fn session_changed(&mut self, now: Now, session: &Session) {
        if has_room(&self.links.commands) {
            // What is not taken comes with the next refresh.
            self.keys.sessions.open(session, |command| self.links.tell(now, command));
        }
    }

    /// A connection is gone. What is not taken expires. Room for others goes before the books.
    pub(super) fn session_ended(&mut self, now: Now, session: &Session) {
        self.keys.gate.give_back(session, |command| self.links.tell(now, command));
        self.keys.sessions.close(session.connection, |command| self.links.tell(now, command));
    }

    /// Sessions that are still there.
    pub(super) fn sessions_are_there(&mut self, now: Now, page: &[Session]) {
        self.keys.gate.hold(page, |command| self.links.tell(now, command));
        for session in page {
            if !has_room(&self.links.commands) {
                break;
            }
            if self.keys.sessions.open(session, |command| self.links.tell(now, command)) {
                add(&self.figures.refreshed, 1);
            }
        }
    }

    /// Whether the cluster has room for a connection. Where Redis cannot be asked, the node's own counts decide.
    pub(super) fn ask_admission(&mut self, now: Now, request: &AdmissionRequest) {
        let is_asked = self.is_there() && {
            let name = self.answers.wait_for(Asked::Admission(request.ticket));
            let is_taken = self.keys.gate.admissions.ask(request, |command| self.links.ask(now, name, command));
            if !is_taken {
                self.answers.forget(name);
            }
            is_taken
        };
        if !is_asked {
            self.keys.gate.own_counts_decide();
            let (ticket, admission) = (request.ticket, Admission::Unknown);
            self.inbox.events.push(ClusterEvent::Admitted { ticket, admission });
        }
    }

    /// Clients of a user or a channel are here.
    pub(super) fn join(&mut self, now: Now, topic: &Topic) {
        self.keys.register.joined(topic);
        if has_room(&self.links.commands) {
            join(&self.keys.sessions, &mut self.links.commands, now, topic, Joining::First);
        }
    }

    /// The last of them has gone.
    pub(super) fn leave(&mut self, now: Now, topic: Topic) {
        if !leave(&self.keys.sessions, &mut self.links.commands, now, &topic) {
            self.keys.register.owe(topic);
        }
    }

    /// Tells a Redis that is back of the topics that were left while it was away.
    pub(super) fn leave_owed(&mut self, now: Now) {
        for topic in self.keys.register.up(now) {
            leave(&self.keys.sessions, &mut self.links.commands, now, &topic);
        }
    }

    /// Writes the keys of some topics again.
    pub(super) fn walk(&mut self, now: Now) {
        let Bridge { keys: Keys { register, sessions, .. }, links, .. } = self;
        let Links { route, router, commands, partitions } = links;
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
