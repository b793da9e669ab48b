//! Listening to topics that come and go, thousands of them, over one subscription link.
//!
//! | module | what it is | touches sockets |
//! |---|---|---|
//! | this | [`Router`]: a [`Feed`] whose names change while it runs | yes |
//! | `partitioned` | [`PartitionedRouter`]: a router and a link for commands for each partition of a Redis Cluster | yes |
//! | `topics` | which names are wanted, said and confirmed | no |
//!
//! **Promise.** [`Watch::Listening`] and [`RouterEvent::Watching`] mean that Redis has confirmed the topic: what is
//! published there from then on comes, for as long as the link lasts. After a loss all topics that are still wanted are
//! asked for again, in pieces of bounded size; [`RouterEvent::Resumed`] tells when every one of them is confirmed.
//! Topics that are asked for meanwhile go before them.
mod partitioned;
mod topics;

use crate::link::wants::Wants;
use crate::redis::feed::{Feed, FeedConfig, FeedError, Heard};
use crate::redis::session::PubSub;
use crate::redis::status::FeedStatus;
pub use partitioned::{PartitionFigures, PartitionedRouter, PartitionedRouterConfig, Walk};
use protocol::clock::Now;
use protocol::limits;
use rustix::fd::BorrowedFd;
use std::sync::Arc;
pub use topics::{Cursor, Watch};
use topics::{Told, Topics};

/// What a router tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterEvent<'a> {
    /// The link is up: the names of its configuration are listened to, those of before are asked for again.
    Up,
    /// Somebody published.
    Message {
        /// To which topic.
        topic: &'a [u8],
        /// What, byte for byte.
        payload: &'a [u8],
    },
    /// A topic for which [`Router::watch`] said [`Watch::Later`] is listened to, or the server does not let us.
    Watching(&'a [u8]),
    /// Everything that was wanted when the link came up is listened to.
    Resumed,
    /// The link is lost: nothing is listened to.
    Down,
}

/// One subscription link and its topics.
pub struct Router {
    feed: Feed,
    topics: Topics,
    is_up: bool,
    /// Of the last link that was up.
    pubsub: Option<PubSub>,
    /// The server refused a topic on this link, and that was said.
    is_refusal_told: bool,
}

impl Router {
    /// A router that begins to connect at its first turn. The names of the configuration are always listened to; there
    /// must be one. `wake` is called on the name lookup's thread and must make the owner turn the router soon.
    ///
    /// # Errors
    /// [`FeedError`] if the settings cannot work. A server that is not there is no error.
    pub fn new(
        config: FeedConfig,
        topics_max: usize,
        status: Arc<FeedStatus>,
        seed: u64,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Result<Router, FeedError> {
        let feed = Feed::new(config, status, seed, wake)?;
        Ok(Router { feed, topics: Topics::new(topics_max), is_up: false, pubsub: None, is_refusal_told: false })
    }

    /// Listens to a topic. Without a link it is remembered.
    pub fn watch(&mut self, topic: &[u8]) -> Watch {
        self.topics.watch(topic)
    }

    /// Listens no more; what is on its way may still come.
    pub fn unwatch(&mut self, topic: &[u8]) {
        self.topics.unwatch(topic);
    }

    /// Whether the topic is listened to, or was asked for on this link: as Redis counts when it is published to.
    pub fn listens(&self, topic: &[u8]) -> bool {
        self.topics.listens(topic)
    }

    /// Whether the topic is wanted, or being left.
    pub fn knows(&self, topic: &[u8]) -> bool {
        self.topics.knows(topic)
    }

    /// How it listens, or did before it lost its link; `None` until it was up once. What is published to its topics has to
    /// be published in the same way.
    pub fn pubsub(&self) -> Option<PubSub> {
        self.pubsub
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Topics that are wanted, and those that are being left.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Shows the wanted topics in pages of so many. A topic that stays is shown at least once between [`Cursor::new`] and
    /// the end, which is told by `false`.
    pub fn page(&self, cursor: &mut Cursor, count: usize, show: impl FnMut(&[u8])) -> bool {
        self.topics.page(cursor, count, show)
    }

    /// Does what can be done now, as [`Feed::turn`].
    pub fn turn(
        &mut self,
        now: Now,
        readable: bool,
        writable: bool,
        paused: bool,
        on_event: &mut dyn FnMut(RouterEvent<'_>),
    ) -> Wants {
        self.say(on_event);
        let Router { feed, topics, is_refusal_told, .. } = self;
        let mut is_out_of_turn = false;
        let mut wants = feed.turn(now, readable, writable, paused, &mut |heard| match heard {
            Heard::Message { channel, payload } => on_event(RouterEvent::Message { topic: channel, payload }),
            Heard::Changed { subscribed, name } => {
                is_out_of_turn |= !topics.confirmed(subscribed, name, &mut |told| tell(told, on_event));
            }
            Heard::Refused { names, text } => {
                if !std::mem::replace(is_refusal_told, true) {
                    tracing::error!(
                        cause = text,
                        "Redis does not let this node listen to a topic of the cluster; what others publish there does \
                         not reach its clients. The user of REDIS_URL needs every channel under CLUSTER_ROUTING_CHANNEL"
                    );
                }
                topics.refused(names, &mut |told| tell(told, on_event));
            }
        });
        if is_out_of_turn {
            self.feed.lose(now);
            wants.again = true;
        }
        let is_up = self.feed.is_up();
        match (std::mem::replace(&mut self.is_up, is_up), is_up) {
            (false, true) => {
                self.is_refusal_told = false;
                self.pubsub = Some(self.feed.pubsub());
                self.topics.up();
                on_event(RouterEvent::Up);
            }
            (true, false) => {
                self.topics.down();
                on_event(RouterEvent::Down);
            }
            _ => {}
        }
        wants.again |= self.is_up && self.topics.has_more(limits::CLUSTER_TOPICS_ASKED_MAX);
        wants
    }

    /// The socket of [`Wants::socket`].
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.feed.socket()
    }

    /// Closes the link for good; later turns want nothing.
    pub fn stop(&mut self) {
        self.feed.stop();
    }

    /// Says what is to be said, as far as the bound of what is not confirmed lets it.
    fn say(&mut self, on_event: &mut dyn FnMut(RouterEvent<'_>)) {
        if !self.is_up {
            return;
        }
        let Router { feed, topics, .. } = self;
        while let Some((subscribe, names)) =
            topics.next_batch(limits::CLUSTER_TOPICS_ASKED_MAX, &mut |told| tell(told, on_event))
        {
            let names: Vec<&[u8]> = names.iter().map(|name| &**name).collect();
            feed.change(subscribe, &names);
        }
    }
}

fn tell(told: Told<'_>, on_event: &mut dyn FnMut(RouterEvent<'_>)) {
    match told {
        Told::Watching(name) => on_event(RouterEvent::Watching(name)),
        Told::Resumed => on_event(RouterEvent::Resumed),
    }
}
