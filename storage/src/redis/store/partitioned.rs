//! The store in a Redis Cluster: one store for each partition, each over a link of its own.
//!
//! A partition is in one slot, so its link speaks to one server at a time and follows the slot. What a store promises is
//! promised of a mailbox, and a mailbox is in one partition: nothing has to agree among them. One master that is away is the
//! trouble of its partitions alone. Templates are in the first.
use crate::backend::Backend;
use crate::figures::StoreFigures;
use crate::link::wants::Wants;
use crate::redis::partitions::{PARTITIONS, partition_of, prefix_of};
use crate::redis::store::{RedisAcks, RedisQueue, RedisStore, RedisStoreConfig};
use protocol::clock::Now;
use protocol::store::{MailboxKey, StoreReply, StoreRequest, StoreTicket};
use std::sync::Arc;

/// One shard's store in a Redis Cluster.
pub struct PartitionedStore {
    partitions: Vec<RedisStore>,
}

/// How many partitions a store of this configuration has, and links: one, if there is nothing but templates.
pub fn partitions(config: &RedisStoreConfig) -> usize {
    if config.queue.is_some() || config.acks.is_some() { PARTITIONS } else { 1 }
}

impl PartitionedStore {
    /// A store that begins to connect at its first turn, with figures for each of its [`partitions`]: the sum of what
    /// they count is right. The prefixes of the configuration get tags; its [`crate::redis::topology::scout::Located`]
    /// tells where each partition is. `wake` as with [`RedisStore::new`].
    pub fn new(
        config: &RedisStoreConfig,
        figures: &[Arc<StoreFigures>],
        seed: u64,
        wake: &Arc<dyn Fn() + Send + Sync>,
    ) -> PartitionedStore {
        let partition = |(nth, figures): (usize, &Arc<StoreFigures>)| {
            // Links that come back together must not come back in step.
            let seed = seed.wrapping_add((nth as u64) << 16);
            RedisStore::new(partition_config(config, nth), Arc::clone(figures), seed, Arc::clone(wake))
        };
        PartitionedStore { partitions: figures.iter().take(partitions(config)).enumerate().map(partition).collect() }
    }

    fn partition(&self, mailbox: &MailboxKey) -> usize {
        partition_of(&mailbox.tenant, &mailbox.user).min(self.partitions.len().saturating_sub(1))
    }
}

fn partition_config(config: &RedisStoreConfig, nth: usize) -> RedisStoreConfig {
    let mut link = config.link.clone();
    // Every prefix has the same tag, and so the same slot.
    link.located = link.located.map(|located| located.at(prefix_of("", nth).as_bytes()));
    let queue =
        config.queue.as_ref().map(|queue| RedisQueue { prefix: prefix_of(&queue.prefix, nth), ..queue.clone() });
    let acks = config.acks.as_ref().map(|acks| RedisAcks { prefix: prefix_of(&acks.prefix, nth), ..acks.clone() });
    let templates = config.templates.as_ref().filter(|_| nth == 0).map(|prefix| prefix_of(prefix, nth));
    RedisStoreConfig { link, templates, queue, acks, chores: config.chores }
}

impl Backend for PartitionedStore {
    fn submit(&mut self, now: Now, ticket: StoreTicket, request: StoreRequest) {
        let nth = match &request {
            StoreRequest::AppendMail { mailbox, .. }
            | StoreRequest::ReadMail { mailbox, .. }
            | StoreRequest::BeginMail { mailbox, .. }
            | StoreRequest::RemoveMail { mailbox, .. }
            | StoreRequest::TrackAck { mailbox, .. }
            | StoreRequest::Acknowledge { mailbox, .. } => self.partition(mailbox),
            // The last is refused there: a counter has a link of its own.
            StoreRequest::PutTemplate { .. }
            | StoreRequest::DeleteTemplate { .. }
            | StoreRequest::LoadTemplates
            | StoreRequest::CountRequest { .. } => 0,
        };
        self.partitions[nth].submit(now, ticket, request);
    }

    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        self.partitions.iter_mut().for_each(|partition| partition.take_replies(out));
    }

    fn links(&self) -> usize {
        self.partitions.len()
    }

    fn turn(&mut self, link: usize, now: Now, readable: bool, writable: bool) -> Wants {
        self.partitions[link].turn(0, now, readable, writable)
    }

    fn owes(&self) -> bool {
        self.partitions.iter().any(RedisStore::owes)
    }
}
