//! Topics in a Redis Cluster: a router and a link for commands for each partition, both at the master that has its slot.
//!
//! What is said in one partition keeps its order: it leaves over one link, passes one server, and comes over one link. Between
//! partitions there is none. A partition whose server is away is down alone.
//!
//! The names are the caller's; those of a partition carry its tag ([`prefix_of`]), so that they are in its slot.
use super::{Cursor, Router, RouterEvent, Watch};
use crate::link::state::LinkState;
use crate::link::wants::Wants;
use crate::redis::commands::link::{CommandConfig, CommandLink, OnReply};
use crate::redis::commands::status::{CommandStatus, Operation};
use crate::redis::commands::{Command, Ticket, Words};
use crate::redis::feed::{FeedConfig, FeedError};
use crate::redis::partitions::prefix_of;
use crate::redis::status::FeedStatus;
use protocol::clock::Now;
use rustix::fd::BorrowedFd;
use std::sync::Arc;

/// What every partition is made of.
#[derive(Clone, Debug)]
pub struct PartitionedRouterConfig {
    /// The subscription. Its names are given to each partition below its prefix; its place is moved to the partition's.
    /// [`FeedConfig::sharded`] is the caller's: without it all servers are taken for such as do not know it.
    pub feed: FeedConfig,
    /// The link for commands; its place likewise.
    pub commands: CommandConfig,
    /// What the names of topics begin with, before the tag.
    pub route: String,
    /// Topics of all partitions together.
    pub topics_max: usize,
}

/// How one partition does, for any thread to read.
#[derive(Debug, Default)]
pub struct PartitionFigures {
    /// Its subscription.
    pub router: Arc<FeedStatus>,
    /// Its link for commands.
    pub commands: Arc<CommandStatus>,
}

/// See the module.
pub struct PartitionedRouter {
    partitions: Vec<Partition>,
    topics_max: usize,
}

struct Partition {
    router: Router,
    commands: CommandLink,
    figures: Arc<PartitionFigures>,
}

/// Where a walk over the topics of all partitions is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    partition: usize,
    cursor: Cursor,
}

impl Walk {
    /// Before the first page.
    #[expect(clippy::new_without_default, reason = "a walk is begun, not defaulted to")]
    pub fn new() -> Walk {
        Walk { partition: 0, cursor: Cursor::new() }
    }
}

impl PartitionedRouter {
    /// As many partitions as there are figures; they begin to connect at their first turns. In each the names of
    /// `fixed` stand behind [`prefix_of`] the route, and are always listened to. `wake` as with [`Router::new`].
    ///
    /// # Errors
    /// [`FeedError`] if the settings cannot work.
    pub fn new(
        config: &PartitionedRouterConfig,
        fixed: &[String],
        figures: &[Arc<PartitionFigures>],
        seed: u64,
        wake: &Arc<dyn Fn() + Send + Sync>,
    ) -> Result<PartitionedRouter, FeedError> {
        let partition = |(nth, figures): (usize, &Arc<PartitionFigures>)| {
            let prefix = prefix_of(&config.route, nth);
            let (mut feed, mut commands) = (config.feed.clone(), config.commands.clone());
            feed.channels = fixed.iter().map(|name| format!("{prefix}{name}")).collect();
            feed.located = feed.located.map(|located| located.at(prefix.as_bytes()));
            commands.located = commands.located.map(|located| located.at(prefix.as_bytes()));
            // Links that come back together must not come back in step.
            let seed = seed.wrapping_add((nth as u64) << 16);
            let (ring, status) = (Arc::clone(wake), Arc::clone(&figures.router));
            let router = Router::new(feed, config.topics_max, status, seed, Box::new(move || ring()))?;
            let status = Arc::clone(&figures.commands);
            let commands = CommandLink::new(commands, status, seed.wrapping_add(1), Arc::clone(wake));
            Ok(Partition { router, commands, figures: Arc::clone(figures) })
        };
        let partitions = figures.iter().enumerate().map(partition).collect::<Result<_, FeedError>>()?;
        Ok(PartitionedRouter { partitions, topics_max: config.topics_max })
    }

    /// Listens to a topic of a partition, as [`Router::watch`]; the bound is of all partitions together.
    pub fn watch(&mut self, partition: usize, topic: &[u8]) -> Watch {
        let is_full = self.topics() >= self.topics_max;
        let router = &mut self.partitions[partition].router;
        if is_full && !router.knows(topic) {
            return Watch::TooMany;
        }
        router.watch(topic)
    }

    /// Listens no more; what is on its way may still come.
    pub fn unwatch(&mut self, partition: usize, topic: &[u8]) {
        self.partitions[partition].router.unwatch(topic);
    }

    /// As [`Router::listens`].
    pub fn listens(&self, partition: usize, topic: &[u8]) -> bool {
        self.partitions[partition].router.listens(topic)
    }

    /// Whether the partition's subscription is up.
    pub fn is_up(&self, partition: usize) -> bool {
        self.partitions[partition].router.is_up()
    }

    /// Whether the partition takes what is published: its link is up, and its server has said how it listens.
    pub fn is_there(&self, partition: usize) -> bool {
        let Partition { router, figures, .. } = &self.partitions[partition];
        figures.commands.link() == LinkState::Healthy && router.pubsub().is_some()
    }

    /// Publishes in the way in which nodes listen there. Whether it was taken; then it is answered with how many heard it.
    pub fn publish(&mut self, now: Now, partition: usize, ticket: Ticket, topic: &[u8], payload: &[u8]) -> bool {
        let Partition { router, commands, .. } = &mut self.partitions[partition];
        let Some(pubsub) = router.pubsub() else { return false };
        let words: [&[u8]; 3] = [pubsub.publish(), topic, payload];
        let command = Command { operation: Operation::ClusterPublish, words: Words::Plain(&words) };
        commands.submit(now, ticket, command).is_ok()
    }

    /// What was published in the partition and is not answered.
    pub fn unanswered(&self, partition: usize) -> usize {
        self.partitions[partition].commands.unanswered()
    }

    /// How often the partition's link for commands came up.
    pub fn connections(&self, partition: usize) -> u64 {
        self.partitions[partition].figures.commands.connections()
    }

    /// Topics of all partitions, as [`Router::topics`].
    pub fn topics(&self) -> usize {
        self.partitions.iter().map(|partition| partition.router.topics()).sum()
    }

    /// Shows the wanted topics in pages of at most so many, with their partition, as [`Router::page`].
    pub fn page(&self, walk: &mut Walk, count: usize, mut show: impl FnMut(usize, &[u8])) -> bool {
        let Some(partition) = self.partitions.get(walk.partition) else { return false };
        let nth = walk.partition;
        if !partition.router.page(&mut walk.cursor, count, |name| show(nth, name)) {
            *walk = Walk { partition: nth + 1, cursor: Cursor::new() };
        }
        walk.partition < self.partitions.len()
    }

    /// Gives the subscription of a partition a turn, as [`Router::turn`].
    pub fn turn_router(
        &mut self,
        partition: usize,
        now: Now,
        readable: bool,
        writable: bool,
        paused: bool,
        on_event: &mut dyn FnMut(RouterEvent<'_>),
    ) -> Wants {
        self.partitions[partition].router.turn(now, readable, writable, paused, on_event)
    }

    /// The sockets of a partition's two links, of [`Wants::socket`]: the subscription's first.
    pub fn sockets(&self, partition: usize) -> [Option<BorrowedFd<'_>>; 2] {
        let Partition { router, commands, .. } = &self.partitions[partition];
        [router.socket(), commands.socket()]
    }

    /// Gives the link for commands of a partition a turn, as [`CommandLink::turn`].
    pub fn turn_commands(
        &mut self,
        partition: usize,
        now: Now,
        readable: bool,
        writable: bool,
        on_reply: &mut OnReply<'_>,
    ) -> Wants {
        self.partitions[partition].commands.turn(now, readable, writable, on_reply)
    }
}
