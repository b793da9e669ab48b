//! Queues that are served in turn, one for each tenant: who has much waiting does not make the others wait for all of it.
use std::collections::VecDeque;

/// The queues of a shard's tenants for one kind of work. Order is kept within a queue; among the queues that have
/// something, each gives up to a quantum and then stands behind the others. One that is alone is not interrupted.
#[derive(Debug)]
pub struct Turns<T> {
    /// By the number of whom they belong to; they stay when they are empty, for there are as many as tenants.
    queues: Vec<Queue<T>>,
    /// The queues that have something; the first one's turn it is.
    order: VecDeque<u32>,
    /// What the first one may still give.
    left: usize,
    quantum: usize,
    len: usize,
    /// Entries whose room an empty queue may keep.
    room_max: usize,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<T>,
    /// It stands in the order of turns.
    stands: bool,
}

impl<T> Turns<T> {
    /// Nothing waits. A turn is worth `quantum`; an empty queue keeps room for `room_max` entries.
    pub fn new(quantum: usize, room_max: usize) -> Turns<T> {
        Turns { queues: Vec::new(), order: VecDeque::new(), left: quantum, quantum, len: 0, room_max }
    }

    /// Puts something behind what waits in this queue.
    pub fn push(&mut self, queue: u32, item: T) {
        let waiting = self.queue(queue);
        let before = waiting.len();
        waiting.push_back(item);
        self.added(queue, before);
    }

    /// A queue, to put things behind what waits in it; to be followed by [`Turns::added`].
    pub fn queue(&mut self, queue: u32) -> &mut VecDeque<T> {
        if queue as usize >= self.queues.len() {
            self.queues.resize_with(queue as usize + 1, || Queue { waiting: VecDeque::new(), stands: false });
        }
        &mut self.queues[queue as usize].waiting
    }

    /// Things were put into a queue in which so many were `before`.
    pub fn added(&mut self, queue: u32, before: usize) {
        let Queue { waiting, stands } = &mut self.queues[queue as usize];
        self.len += waiting.len() - before;
        if !waiting.is_empty() && !std::mem::replace(stands, true) {
            self.order.push_back(queue);
        }
    }

    /// Takes the next, and whose it is, at the price of one. `None` when nothing waits.
    pub fn pop(&mut self) -> Option<(u32, T)> {
        let queue = *self.order.front()?;
        let waiting = &mut self.queues[queue as usize].waiting;
        let item = waiting.pop_front()?;
        self.len = self.len.saturating_sub(1);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || waiting.is_empty() {
            self.next_turn(queue);
        }
        Some((queue, item))
    }

    /// Takes all there is, in the order of turns.
    pub fn pop_all(&mut self, out: &mut Vec<T>) {
        while let Some(queue) = self.order.front().copied() {
            let waiting = &mut self.queues[queue as usize].waiting;
            let taken = waiting.len().min(self.left);
            out.extend(waiting.drain(..taken));
            self.len = self.len.saturating_sub(taken);
            self.next_turn(queue);
        }
    }

    /// Takes the next, whose it is, and what it may cost. To be followed by [`Turns::put_back`], if something of it is left,
    /// and by [`Turns::spend`].
    pub fn take(&mut self) -> Option<(u32, T, usize)> {
        let queue = *self.order.front()?;
        let item = self.queues[queue as usize].waiting.pop_front()?;
        // Who was put in and never told of, because of a panic, does not count.
        self.len = self.len.saturating_sub(1);
        let may_cost = if self.order.len() == 1 { usize::MAX } else { self.left };
        Some((queue, item, may_cost))
    }

    /// What was taken is not through: it goes on first when its queue has its turn again.
    pub fn put_back(&mut self, queue: u32, item: T) {
        self.queues[queue as usize].waiting.push_front(item);
        self.len += 1;
    }

    /// What was taken from the first queue cost so much.
    pub fn spend(&mut self, queue: u32, cost: usize) {
        debug_assert_eq!(self.order.front(), Some(&queue), "not its turn");
        self.left = self.left.saturating_sub(cost);
        if self.left == 0 || self.queues[queue as usize].waiting.is_empty() {
            self.next_turn(queue);
        }
    }

    /// The first queue has given its quantum, or all it had.
    #[cold]
    fn next_turn(&mut self, queue: u32) {
        let Queue { waiting, stands } = &mut self.queues[queue as usize];
        *stands = !waiting.is_empty();
        if waiting.is_empty() && waiting.capacity() > self.room_max {
            *waiting = VecDeque::new();
        }
        self.order.pop_front();
        if *stands {
            self.order.push_back(queue);
        }
        self.left = self.quantum;
    }

    /// Takes the first of one queue, out of turn, if `which` says so.
    pub fn take_from(&mut self, queue: u32, which: impl FnOnce(&T) -> bool) -> Option<T> {
        let Queue { waiting, stands } = self.queues.get_mut(queue as usize)?;
        if !which(waiting.front()?) {
            return None;
        }
        let item = waiting.pop_front()?;
        self.len = self.len.saturating_sub(1);
        if waiting.is_empty()
            && let Some(at) = self.order.iter().position(|other| *other == queue)
        {
            self.order.remove(at);
            *stands = false;
            if at == 0 {
                self.left = self.quantum;
            }
        }
        Some(item)
    }

    /// What waits in one queue.
    pub fn waiting(&self, queue: u32) -> usize {
        self.queues.get(queue as usize).map_or(0, |queue| queue.waiting.len())
    }

    /// What waits in all of them.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The queues that have something, in the order of their turns.
    pub fn queues(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied()
    }

    /// Panics when the sums are not those of what waits.
    pub fn check(&self) {
        assert_eq!(self.len, self.queues.iter().map(|queue| queue.waiting.len()).sum::<usize>());
        for (queue, Queue { waiting, stands: is_said }) in self.queues.iter().enumerate() {
            assert_eq!(*is_said, !waiting.is_empty(), "queue {queue}");
            let stands = self.order.iter().filter(|other| **other as usize == queue).count();
            assert_eq!(stands, usize::from(!waiting.is_empty()), "queue {queue} of {:?}", self.order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(turns: &mut Turns<u32>, count: usize) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| turns.pop()).take(count).collect()
    }

    #[test]
    fn who_has_little_waits_for_one_quantum_of_who_has_much() {
        let mut turns = Turns::new(3, 8);
        (0..100).for_each(|n| turns.push(7, n));
        assert_eq!(taken(&mut turns, 5), (0..5).map(|n| (7, n)).collect::<Vec<_>>(), "alone it goes on");
        turns.push(2, 0);
        turns.push(2, 1);
        turns.check();
        // What it gave alone is given.
        assert_eq!(taken(&mut turns, 7), [(7, 5), (2, 0), (2, 1), (7, 6), (7, 7), (7, 8), (7, 9)]);
        turns.check();
    }

    #[test]
    fn each_gives_a_quantum_in_turn_and_keeps_its_order() {
        let mut turns = Turns::new(2, 8);
        for n in 0..4 {
            for queue in 0..3 {
                turns.push(queue, n);
            }
        }
        let expected = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 3)];
        let mut all = Turns::new(2, 8);
        for (queue, n) in (0..4).flat_map(|n| (0..3).map(move |queue| (queue, n))) {
            all.push(queue, (queue, n));
        }
        assert_eq!(taken(&mut turns, 99), expected);
        assert!(turns.is_empty() && turns.queues().next().is_none());
        let mut out = Vec::new();
        all.pop_all(&mut out);
        assert_eq!(out, expected);
        all.check();
    }

    #[test]
    fn what_is_not_through_goes_on_when_it_is_its_turn_again() {
        let mut turns = Turns::new(10, 8);
        turns.push(0, 1);
        turns.push(1, 2);
        assert_eq!(turns.take(), Some((0, 1, 10)));
        turns.put_back(0, 1);
        turns.spend(0, 10);
        assert_eq!(turns.take(), Some((1, 2, 10)));
        turns.spend(1, 1);
        assert_eq!(turns.take(), Some((0, 1, usize::MAX)));
        turns.spend(0, 1);
        turns.check();
        assert!(turns.is_empty());
    }

    #[test]
    fn out_of_turn_the_first_of_a_queue_may_be_taken() {
        let mut turns = Turns::new(1, 8);
        turns.push(0, 1);
        turns.push(1, 2);
        assert_eq!(turns.take_from(0, |first| *first == 9), None);
        assert_eq!(turns.take_from(0, |first| *first == 1), Some(1));
        turns.check();
        assert_eq!(turns.pop(), Some((1, 2)));
        assert_eq!(turns.take_from(5, |_| true), None);
    }
}
