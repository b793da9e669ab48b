//! Which topics are wanted, which of them were said to the server, and which it confirmed. No socket, no clock.
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Topics in one command.
const BATCH_MAX: usize = 256;

/// What became of the wish to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is listened to already.
    Listening,
    /// It will be: `Watching` tells when. Without a link that is after the next one is up, and not told one by one.
    Later,
    /// There are as many topics as may be. It is not listened to.
    TooMany,
}

/// What follows from something the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told<'a> {
    Watching(&'a [u8]),
    Resumed,
}

/// Where a walk over the topics is. Topics that come during the walk may be left out, for whoever walks knows of them;
/// none that stays is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(usize);

impl Cursor {
    /// Before the first page.
    #[expect(clippy::new_without_default, reason = "a walk is begun, not defaulted to")]
    pub fn new() -> Cursor {
        Cursor(usize::MAX)
    }
}

type Name = Rc<[u8]>;

/// See the module. The table is walked from its end: a removal puts the last topic into the gap, so one that was not
/// visited yet is never moved behind the walk.
pub(super) struct Topics {
    known: HashMap<Name, Topic>,
    order: Vec<Name>,
    topics_max: usize,
    /// Of the link; what was said on an earlier one does not count.
    link: u32,
    is_up: bool,
    /// Wishes that differ, or may differ, from what was said.
    queue: VecDeque<Name>,
    /// Said and not confirmed.
    asked: VecDeque<Asked>,
    /// Topics of before that are to be said again; `None` when all are.
    again: Option<usize>,
}

struct Topic {
    /// Its place in [`Topics::order`].
    at: usize,
    is_wanted: bool,
    /// The link that the rest is about.
    link: u32,
    is_queued: bool,
    /// What was said last.
    is_said: bool,
    /// How much of what was said is not confirmed.
    unconfirmed: u32,
}

enum Asked {
    Name(Name),
    /// All that was wanted when the link came up has been said before.
    End,
}

impl Topic {
    fn on(&mut self, link: u32) -> &mut Topic {
        if self.link != link {
            (self.link, self.is_queued, self.is_said, self.unconfirmed) = (link, false, false, 0);
        }
        self
    }
}

impl Topics {
    pub(super) fn new(topics_max: usize) -> Topics {
        Topics {
            known: HashMap::new(),
            order: Vec::new(),
            topics_max,
            link: 0,
            is_up: false,
            queue: VecDeque::new(),
            asked: VecDeque::new(),
            again: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it has the topic, wanted or being left.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        self.known.contains_key(name)
    }

    pub(super) fn listens(&self, name: &[u8]) -> bool {
        self.known.get(name).is_some_and(|topic| topic.link == self.link && topic.is_said)
    }

    pub(super) fn watch(&mut self, name: &[u8]) -> Watch {
        let link = self.link;
        if let Some(topic) = self.known.get_mut(name).map(|topic| topic.on(link)) {
            topic.is_wanted = true;
            return match (topic.is_said, topic.unconfirmed) {
                (true, 0) => Watch::Listening,
                (true, _) => Watch::Later,
                (false, _) => {
                    self.enqueue(name);
                    Watch::Later
                }
            };
        }
        if self.order.len() >= self.topics_max {
            return Watch::TooMany;
        }
        let name: Name = name.into();
        let at = self.order.len();
        let topic = Topic { at, is_wanted: true, link, is_queued: false, is_said: false, unconfirmed: 0 };
        self.order.push(Rc::clone(&name));
        self.known.insert(Rc::clone(&name), topic);
        self.enqueue(&name);
        Watch::Later
    }

    pub(super) fn unwatch(&mut self, name: &[u8]) {
        let link = self.link;
        let Some(topic) = self.known.get_mut(name).map(|topic| topic.on(link)) else { return };
        topic.is_wanted = false;
        match topic.is_said {
            true => self.enqueue(name),
            false => self.forget(name),
        }
    }

    pub(super) fn up(&mut self) {
        self.is_up = true;
        self.again = Some(self.order.len());
    }

    pub(super) fn down(&mut self) {
        self.is_up = false;
        self.link = self.link.wrapping_add(1);
        self.queue.clear();
        self.asked.clear();
        self.again = None;
    }

    /// Whether [`Topics::next_batch`] has something to do.
    pub(super) fn has_more(&self, asked_max: usize) -> bool {
        self.asked.len() < asked_max && (!self.queue.is_empty() || self.again.is_some())
    }

    /// What to say next, once the link is up: names to listen to, or to listen to no more.
    pub(super) fn next_batch(
        &mut self,
        asked_max: usize,
        on_told: &mut dyn FnMut(Told<'_>),
    ) -> Option<(bool, Vec<Name>)> {
        let mut kind = None;
        let mut names = Vec::new();
        while names.len() < BATCH_MAX && self.asked.len() < asked_max {
            let Some((name, is_new)) = self.next_name(on_told) else { break };
            let link = self.link;
            let Some(topic) = self.known.get_mut(&name).map(|topic| topic.on(link)) else { continue };
            topic.is_queued = false;
            if topic.is_wanted == topic.is_said {
                self.forget(&name);
                continue;
            }
            if *kind.get_or_insert(topic.is_wanted) != topic.is_wanted {
                // It begins the next command.
                topic.is_queued = true;
                debug_assert!(is_new, "topics of before are all of one kind");
                self.queue.push_front(name);
                break;
            }
            topic.is_said = topic.is_wanted;
            topic.unconfirmed += 1;
            self.asked.push_back(Asked::Name(Rc::clone(&name)));
            names.push(name);
        }
        kind.filter(|_| !names.is_empty()).map(|kind| (kind, names))
    }

    /// A wish of now, or a topic of before; the latter only if it is wanted and not said.
    fn next_name(&mut self, on_told: &mut dyn FnMut(Told<'_>)) -> Option<(Name, bool)> {
        if let Some(name) = self.queue.pop_front() {
            return Some((name, true));
        }
        let mut at = self.again?.min(self.order.len());
        while at > 0 {
            at -= 1;
            self.again = Some(at);
            let (link, name) = (self.link, Rc::clone(&self.order[at]));
            if let Some(topic) = self.known.get_mut(&name).map(|topic| topic.on(link))
                && !topic.is_said
            {
                match topic.is_wanted {
                    true => return Some((name, false)),
                    false => self.forget(&name),
                }
            }
        }
        self.again = None;
        self.asked.push_back(Asked::End);
        self.pass_end(on_told);
        None
    }

    /// The server confirmed a name. It does so in the order they were said.
    /// Whether it was its turn: a server that takes a topic away while others are being left confirms what nobody said.
    pub(super) fn confirmed(&mut self, subscribed: bool, name: &[u8], on_told: &mut dyn FnMut(Told<'_>)) -> bool {
        let is_its_turn = matches!(self.asked.front(), Some(Asked::Name(asked)) if **asked == *name);
        if is_its_turn {
            self.pop(subscribed, on_told);
        }
        is_its_turn
    }

    /// The server does not let us: as good as confirmed, for nobody can wait for it.
    pub(super) fn refused(&mut self, names: usize, on_told: &mut dyn FnMut(Told<'_>)) {
        for _ in 0..names {
            self.pop(true, on_told);
        }
    }

    fn pop(&mut self, subscribed: bool, on_told: &mut dyn FnMut(Told<'_>)) {
        if let Some(Asked::Name(name)) = self.asked.pop_front() {
            let link = self.link;
            if let Some(topic) = self.known.get_mut(&name).map(|topic| topic.on(link)) {
                topic.unconfirmed = topic.unconfirmed.saturating_sub(1);
                let is_over = topic.unconfirmed == 0;
                if subscribed && is_over && topic.is_said && topic.is_wanted {
                    on_told(Told::Watching(&name));
                }
            }
            self.forget(&name);
        }
        self.pass_end(on_told);
    }

    fn pass_end(&mut self, on_told: &mut dyn FnMut(Told<'_>)) {
        if matches!(self.asked.front(), Some(Asked::End)) {
            self.asked.pop_front();
            on_told(Told::Resumed);
        }
    }

    fn enqueue(&mut self, name: &[u8]) {
        if !self.is_up {
            return;
        }
        if let Some((name, topic)) = self.known.get_key_value(name)
            && !topic.is_queued
        {
            self.queue.push_back(Rc::clone(name));
        }
        if let Some(topic) = self.known.get_mut(name) {
            topic.is_queued = true;
        }
    }

    /// Lets go of a topic that nobody wants and the server knows nothing of.
    fn forget(&mut self, name: &[u8]) {
        let is_over = |topic: &Topic| !topic.is_wanted && !topic.is_said && !topic.is_queued && topic.unconfirmed == 0;
        if !self.known.get(name).is_some_and(is_over) {
            return;
        }
        if let Some(topic) = self.known.remove(name) {
            self.order.swap_remove(topic.at);
            if let Some(moved) = self.order.get(topic.at).and_then(|moved| self.known.get_mut(moved)) {
                moved.at = topic.at;
            }
        }
    }

    pub(super) fn page(&self, cursor: &mut Cursor, count: usize, mut show: impl FnMut(&[u8])) -> bool {
        let end = cursor.0.min(self.order.len());
        let start = end.saturating_sub(count);
        for name in &self.order[start..end] {
            if self.known.get(name).is_some_and(|topic| topic.is_wanted) {
                show(name);
            }
        }
        *cursor = Cursor(start);
        start > 0
    }
}

#[cfg(test)]
mod tests;
