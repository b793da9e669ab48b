//! The links of a bridge, and which of them leads to a topic. A place is where nodes meet, `None`, or a partition of a Redis
//! Cluster.
use super::partitions::Partitions;
use protocol::clock::Now;
use protocol::cluster::Topic;
use storage::redis::commands::link::CommandLink;
use storage::redis::commands::status::Operation;
use storage::redis::commands::{Command, Ticket, Words};
use storage::redis::partitions::partition_of;
use storage::redis::router::{Router, Watch};

/// Nobody waits for the answer to a command of this name.
pub(super) const NOBODY: Ticket = Ticket(0);

pub(crate) struct Links {
    /// `CLUSTER_ROUTING_CHANNEL`
    pub(crate) route: Box<str>,
    /// Its configuration names the topics of everybody and of this node.
    pub(crate) router: Router,
    pub(crate) commands: CommandLink,
    /// In a Redis Cluster.
    pub(crate) partitions: Option<Partitions>,
}

impl Links {
    /// The place of a topic.
    pub(super) fn partition(&self, topic: &Topic) -> Option<usize> {
        self.partitions.as_ref()?;
        match topic {
            Topic::User(tenant, name) | Topic::Channel(tenant, name) => Some(partition_of(tenant, name)),
            Topic::Everybody | Topic::Node(_) => None,
        }
    }

    /// Writes what a topic is called in a place, and nothing else, into `out`.
    pub(super) fn write_name(&self, partition: Option<usize>, topic: &Topic, out: &mut Vec<u8>) {
        let route = match (&self.partitions, partition) {
            (Some(partitions), Some(nth)) => &*partitions.routes[nth],
            _ => &*self.route,
        };
        out.clear();
        topic.write(out, route);
    }

    /// Listens to a topic of this name; with whether anything is listened to there.
    pub(super) fn watch(&mut self, partition: Option<usize>, name: &[u8]) -> (Watch, bool) {
        match (&mut self.partitions, partition) {
            (Some(Partitions { router, .. }), Some(nth)) => (router.watch(nth, name), router.is_up(nth)),
            _ => (self.router.watch(name), self.router.is_up()),
        }
    }

    /// Listens to it no longer.
    pub(super) fn unwatch(&mut self, partition: Option<usize>, name: &[u8]) {
        match (&mut self.partitions, partition) {
            (Some(partitions), Some(nth)) => partitions.router.unwatch(nth, name),
            _ => self.router.unwatch(name),
        }
    }

    /// Topics of users and channels that are listened to, everywhere.
    pub(super) fn topics(&self) -> usize {
        self.router.topics() + self.partitions.as_ref().map_or(0, |partitions| partitions.router.topics())
    }

    /// Gives the link of a place something to publish. Whether it took it.
    pub(super) fn publish(
        &mut self,
        now: Now,
        partition: Option<usize>,
        ticket: Ticket,
        name: &[u8],
        payload: &[u8],
    ) -> bool {
        if let (Some(partitions), Some(nth)) = (&mut self.partitions, partition) {
            return partitions.router.publish(now, nth, ticket, name, payload);
        }
        let words: [&[u8]; 3] = [b"PUBLISH", name, payload];
        self.ask(now, ticket, Command { operation: Operation::ClusterPublish, words: Words::Plain(&words) })
    }

    /// Gives Redis a command, where nodes meet. Whether it was taken, and will be answered.
    pub(super) fn ask(&mut self, now: Now, ticket: Ticket, command: Command<'_>) -> bool {
        self.commands.submit(now, ticket, command).is_ok()
    }

    /// The same where nobody waits for the answer.
    pub(super) fn tell(&mut self, now: Now, command: Command<'_>) -> bool {
        self.ask(now, NOBODY, command)
    }

    /// Commands that a place has not answered.
    pub(super) fn unanswered(&self, partition: Option<usize>) -> usize {
        match (&self.partitions, partition) {
            (Some(partitions), Some(nth)) => partitions.router.unanswered(nth),
            _ => self.commands.unanswered(),
        }
    }
}
