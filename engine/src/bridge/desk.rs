//! The bridge shard's door to other nodes, and the two links behind it.
//!
//! The port and the links share one object on the shard's thread. The port takes requests and gives events out; the
//! links are guests of the shard's reactor and do the talking. In a Redis Cluster there are more of them: `partitions`.
//!
//! | part | what it is |
//! |---|---|
//! | `guests` | the door, and the turns of the links |
//! | `links` | the links, and which of them leads to a topic |
//! | `partitions` | users and channels in a Redis Cluster |
//! | `duties` | what is done again and again |
//! | `outgoing` | parcels on their way out |
//! | `answers` | what Redis was asked, and what comes of its answers |
//! | `keys` | what is in Redis beside topics: sessions, and their number |
//! | `revoked` | and revocations |
mod answers;
mod duties;
mod guests;
pub(super) mod keys;
pub(super) mod links;
mod outgoing;
pub(super) mod partitions;
mod revoked;

use super::bundles::Bundles;
use super::figures::BridgeFigures;
use super::inbox::Inbox;
use super::reading::Reading;
use answers::Answers;
use duties::Duties;
pub(super) use guests::open;
use keys::Keys;
use links::Links;
use protocol::clock::Now;
use protocol::cluster::wire::{Parcel, ParcelKind};
use protocol::cluster::{ClusterEvent, ClusterRequest, Topic};
use protocol::limits;
use shards::metrics::NodeMetrics;
use std::sync::Arc;
use storage::link::state::LinkState;
use storage::redis::router::Watch;

pub(super) struct Bridge {
    server_id: Box<str>,
    links: Links,
    keys: Keys,
    metrics: Arc<NodeMetrics>,
    figures: Arc<BridgeFigures>,
    reading: Arc<Reading>,
    inbox: Inbox,
    bundles: Bundles,
    answers: Answers,
    duties: Duties,
    /// Room for the name of a topic and for a parcel.
    name: Vec<u8>,
    payload: Vec<u8>,
    /// Since when everything is listened to.
    listening_us: Option<u64>,
    /// What the shards were told of this node's being alone.
    is_alone: bool,
    is_full_told: bool,
    is_stopping: bool,
}

impl Bridge {
    pub(super) fn new(
        server_id: Box<str>,
        links: Links,
        keys: Keys,
        metrics: Arc<NodeMetrics>,
        figures: Arc<BridgeFigures>,
        reading: Arc<Reading>,
        now: Now,
    ) -> Bridge {
        Bridge {
            inbox: Inbox::new(server_id.clone(), now.unix_ms(), Arc::clone(&figures)),
            bundles: Bundles::new(&server_id, figures.partitions.len()),
            server_id,
            links,
            keys,
            metrics,
            figures,
            reading,
            answers: Answers::default(),
            duties: Duties::default(),
            name: Vec::new(),
            payload: Vec::new(),
            listening_us: None,
            is_alone: false,
            is_full_told: false,
            is_stopping: false,
        }
    }

    /// Whether Redis takes commands.
    fn is_there(&self) -> bool {
        self.figures.commands.link() == LinkState::Healthy
    }

    /// Whether Redis takes what is said in a place.
    fn is_there_in(&self, partition: Option<usize>) -> bool {
        match (&self.links.partitions, partition) {
            (Some(partitions), Some(nth)) => partitions.router.is_there(nth),
            _ => self.is_there(),
        }
    }

    fn request(&mut self, now: Now, request: ClusterRequest) {
        match request {
            ClusterRequest::Watch { topic, shard, serial } => self.watch(now, topic, shard, serial),
            ClusterRequest::Unwatch { topic } => self.unwatch(now, topic),
            ClusterRequest::Send { topic, parcel } => self.send(now, topic, parcel),
            ClusterRequest::Publish(publication) => self.send_publication(now, &publication),
            ClusterRequest::SessionChanged(session) => self.session_changed(now, &session),
            ClusterRequest::Admit(request) => self.ask_admission(now, &request),
            ClusterRequest::SessionEnded { session, .. } => self.session_ended(now, &session),
            ClusterRequest::SessionPage(page) => self.sessions_are_there(now, &page),
        }
    }

    fn watch(&mut self, now: Now, topic: Topic, shard: u8, serial: u32) {
        self.join(now, &topic);
        let partition = self.links.partition(&topic);
        self.links.write_name(partition, &topic, &mut self.name);
        let is_ours = matches!(&topic, Topic::Everybody | Topic::Node(_));
        let (watch, is_up) = match is_ours {
            true => (Watch::Listening, true),
            false => self.links.watch(partition, &self.name),
        };
        if watch == Watch::Later && (is_up || self.figures.begins(partition)) {
            return self.inbox.wait(&self.name, partition, topic, shard, serial);
        }
        if watch == Watch::TooMany && !std::mem::replace(&mut self.is_full_told, true) {
            tracing::error!(
                topics_max = limits::CLUSTER_TOPICS_MAX,
                "this node has more users and channels than it can listen to; what other nodes publish to the \
                 others does not reach them here"
            );
        }
        self.inbox.events.push(ClusterEvent::Watching { topic, shard, serial });
    }

    fn unwatch(&mut self, now: Now, topic: Topic) {
        let partition = self.links.partition(&topic);
        self.links.write_name(partition, &topic, &mut self.name);
        self.links.unwatch(partition, &self.name);
        // Whoever still waits for it is told, as nobody else will.
        self.inbox.watching(&self.name);
        self.leave(now, topic);
    }

    /// A parcel of the bridge's own, for everybody.
    fn say(&mut self, now: Now, kind: ParcelKind) {
        let parcel = Parcel { from_server: self.server_id.clone(), to_server: None, kind };
        self.publish(now, &Topic::Everybody, &parcel, None, None);
    }

    fn stop(&mut self, now: Now) {
        if !std::mem::replace(&mut self.is_stopping, true) && self.is_there() {
            self.send_bundles(now);
            self.say(now, ParcelKind::Bye);
            // If it is not taken, the key expires.
            self.keys.sessions.leave(|command| self.links.tell(now, command));
        }
    }
}
