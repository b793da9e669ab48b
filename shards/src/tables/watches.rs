//! Topics that the bridge was asked to listen to, until it says that it does. Whoever waits for that is not answered before.
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::Membership;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use protocol::cluster::Topic;
use protocol::limits;
use std::collections::VecDeque;

/// Who waits.
#[derive(Debug, PartialEq, Eq)]
pub enum Waiter {
    /// A client of the user.
    Client(ConnKey),
    /// A shard with its first subscriber of the channel.
    Shard(ShardId, Box<Membership>),
}

/// A topic that is not listened to yet.
#[derive(Debug, Default)]
pub struct Watch {
    /// Tells it from an earlier one of the same topic.
    serial: u32,
    /// Nobody waits any longer, and something may have been missed.
    pub is_late: bool,
    /// Who is answered when it is.
    pub waiters: Vec<Waiter>,
}

/// The table of one shard: an entry for each topic it owns that is not listened to yet. It has at most as many as there are
/// users and channels on the shard.
#[derive(Debug, Default)]
pub struct Watches {
    asked: HashMap<Topic, Watch, RandomState>,
    /// All are given the same time, so they are due in the order they were asked.
    due: VecDeque<(u64, Topic, u32)>,
    serials: u32,
}

impl Watches {
    /// The bridge is about to be asked; the number of the watch.
    pub fn ask(&mut self, topic: &Topic, now_ms: u64) -> u32 {
        self.serials = self.serials.wrapping_add(1);
        let watch = Watch { serial: self.serials, ..Watch::default() };
        self.asked.insert(topic.clone(), watch);
        self.due.push_back((now_ms + limits::CLUSTER_WATCH_DEADLINE_MS, topic.clone(), self.serials));
        self.serials
    }

    /// Somebody has to wait for a topic, or is given back because it is listened to, or was waited for long enough.
    pub fn wait(&mut self, topic: &Topic, waiter: Waiter) -> Result<(), Waiter> {
        match self.asked.get_mut(topic) {
            Some(watch) if !watch.is_late => {
                watch.waiters.push(waiter);
                Ok(())
            }
            _ => Err(waiter),
        }
    }

    /// The bridge listens. `None` when that is no answer to the last time it was asked.
    pub fn confirm(&mut self, topic: &Topic, serial: u32) -> Option<Watch> {
        self.asked.get(topic).filter(|watch| watch.serial == serial)?;
        self.asked.remove(topic)
    }

    /// Nobody is there any more.
    pub fn forget(&mut self, topic: &Topic) {
        self.asked.remove(topic);
    }

    /// Those who have waited long enough for one topic; `None` when nobody else has.
    pub fn expire(&mut self, now_ms: u64) -> Option<Vec<Waiter>> {
        loop {
            self.due.front().filter(|(at_ms, ..)| *at_ms <= now_ms)?;
            let (_, topic, serial) = self.due.pop_front()?;
            if let Some(watch) = self.asked.get_mut(&topic).filter(|watch| watch.serial == serial) {
                watch.is_late = true;
                return Some(std::mem::take(&mut watch.waiters));
            }
        }
    }

    /// When [`Watches::expire`] has something to do, in milliseconds on the monotonic clock.
    pub fn due_ms(&self) -> Option<u64> {
        self.due.front().map(|(at_ms, ..)| *at_ms)
    }

    /// Topics that are not listened to yet.
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// Whether all are listened to.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(slot: u32) -> Waiter {
        Waiter::Client(ConnKey { slot, generation: 0 })
    }

    #[test]
    fn an_answer_to_an_earlier_watch_lets_nobody_in() {
        let mut watches = Watches::default();
        let first = watches.ask(&Topic::Everybody, 0);
        watches.wait(&Topic::Everybody, client(1)).unwrap();
        watches.forget(&Topic::Everybody);
        let second = watches.ask(&Topic::Everybody, 10);
        watches.wait(&Topic::Everybody, client(2)).unwrap();
        assert!(watches.confirm(&Topic::Everybody, first).is_none());
        assert_eq!(watches.confirm(&Topic::Everybody, second).unwrap().waiters, [client(2)]);
        assert_eq!(watches.wait(&Topic::Everybody, client(3)), Err(client(3)), "it is listened to");
    }

    #[test]
    fn who_has_waited_long_enough_goes_on_and_the_answer_says_that_it_was_late() {
        let mut watches = Watches::default();
        let serial = watches.ask(&Topic::Everybody, 0);
        watches.wait(&Topic::Everybody, client(1)).unwrap();
        let due_ms = watches.due_ms().unwrap();
        assert_eq!(watches.expire(due_ms - 1), None);
        assert_eq!(watches.expire(due_ms), Some(vec![client(1)]));
        assert_eq!((watches.expire(due_ms), watches.due_ms()), (None, None));
        assert_eq!(watches.wait(&Topic::Everybody, client(2)), Err(client(2)));
        assert!(watches.confirm(&Topic::Everybody, serial).unwrap().is_late);
        assert!(watches.is_empty());
    }
}
