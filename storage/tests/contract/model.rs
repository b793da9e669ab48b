//! What one mailbox may hold, as far as its answers tell.
//!
//! The model keeps every world that agrees with what was answered. What was done makes one step in each world, what
//! failed makes none, what is unknown makes each world two. An answer that no world agrees with breaks a promise.
use protocol::store::{Entry, Position, StoreReply};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What was asked of the mailbox. Mail is known by its number, which grows.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Keep these.
    Append(Vec<u64>),
    /// Everything, on one page.
    Read,
    /// Forget these.
    Remove(Vec<u64>),
}

/// Numbers, and how often each was given, oldest first.
type World = Vec<(u64, u32)>;

/// What may be so.
#[derive(Debug)]
pub(crate) struct Model {
    entries_max: usize,
    worlds: BTreeSet<World>,
    positions: BTreeMap<u64, Position>,
    asked: VecDeque<(u64, Asked)>,
}

impl Model {
    /// An empty mailbox.
    pub(crate) fn new(entries_max: usize) -> Model {
        let worlds = BTreeSet::from([World::new()]);
        Model { entries_max, worlds, positions: BTreeMap::new(), asked: VecDeque::new() }
    }

    /// How many requests are not answered.
    pub(crate) fn outstanding(&self) -> usize {
        self.asked.len()
    }

    /// How many worlds there are.
    pub(crate) fn worlds(&self) -> usize {
        self.worlds.len()
    }

    /// What is there, if that is certain.
    pub(crate) fn held(&self) -> Option<&World> {
        self.worlds.first().filter(|_| self.worlds.len() == 1)
    }

    pub(crate) fn ask(&mut self, ticket: u64, asked: Asked) {
        self.asked.push_back((ticket, asked));
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// The promise that it breaks.
    pub(crate) fn tell(&mut self, ticket: u64, reply: &StoreReply) -> Result<(), String> {
        let (first, asked) = self.asked.pop_front().ok_or("answered though nothing was asked")?;
        if first != ticket {
            return Err(format!("{ticket} was answered before {first}: {reply:?}"));
        }
        let mut after = BTreeSet::new();
        for world in &self.worlds {
            let (acted, dropped) = self.act(world, &asked);
            match reply {
                StoreReply::Failed => {
                    after.insert(world.clone());
                }
                StoreReply::Unknown => after.extend([world.clone(), acted]),
                reply if agrees(&asked, &acted, dropped, reply) => {
                    after.insert(acted);
                }
                _ => {}
            }
        }
        if after.is_empty() {
            return Err(format!("{asked:?} was answered {} in {:?}", in_words(reply), self.worlds));
        }
        self.worlds = after;
        match (&asked, reply) {
            (Asked::Append(numbers), StoreReply::Appended { positions, .. }) => {
                numbers.iter().zip(positions).try_for_each(|(number, position)| self.stands(*number, *position))
            }
            (_, StoreReply::Mail { entries, .. }) => {
                entries.iter().try_for_each(|entry| self.stands(entry.mail.stream.seq, entry.position))
            }
            _ => Ok(()),
        }
    }

    /// What is there when it was done, and how many of the oldest had to go.
    fn act(&self, world: &World, asked: &Asked) -> (World, u64) {
        let mut world = world.clone();
        match asked {
            Asked::Append(numbers) => world.extend(numbers.iter().map(|number| (*number, 0))),
            Asked::Read => world.iter_mut().for_each(|(_, attempts)| *attempts += 1),
            Asked::Remove(numbers) => world.retain(|(number, _)| !numbers.contains(number)),
        }
        let dropped = world.len().saturating_sub(self.entries_max);
        world.drain(..dropped);
        (world, dropped as u64)
    }

    /// A position is for ever, and a later entry has a greater one.
    fn stands(&mut self, number: u64, position: Position) -> Result<(), String> {
        let before = self.positions.range(..number).next_back().is_none_or(|(_, before)| *before < position);
        let behind = self.positions.range(number + 1..).next().is_none_or(|(_, behind)| position < *behind);
        let known = *self.positions.entry(number).or_insert(position);
        match before && behind && known == position {
            true => Ok(()),
            false => Err(format!("{number} stands at {position:?}, not in its place {known:?}: {:?}", self.positions)),
        }
    }
}

fn agrees(asked: &Asked, world: &World, dropped: u64, reply: &StoreReply) -> bool {
    match (asked, reply) {
        (Asked::Append(numbers), StoreReply::Appended { positions, dropped: told, .. }) => {
            positions.len() == numbers.len() && dropped == *told
        }
        (Asked::Read, StoreReply::Mail { entries, next: None }) => seen(entries) == *world,
        (Asked::Remove(_), StoreReply::Done) => true,
        _ => false,
    }
}

fn seen(entries: &[Entry]) -> World {
    entries.iter().map(|entry| (entry.mail.stream.seq, entry.mail.attempts)).collect()
}

fn in_words(reply: &StoreReply) -> String {
    match reply {
        StoreReply::Mail { entries, next } => format!("{:?}, next {next:?}", seen(entries)),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::mail;

    fn appended(positions: &[u64], dropped: u64) -> StoreReply {
        StoreReply::Appended { positions: positions.iter().map(|at| Position(*at, 0)).collect(), before: None, dropped }
    }

    /// Number, which is its position, too, and how often it was given.
    fn page(seen: &[(u64, u32)]) -> StoreReply {
        let entry = |(number, attempts): &(u64, u32)| {
            let mut mail = mail(*number);
            mail.attempts = *attempts;
            Entry::standing(Position(*number, 0), mail)
        };
        StoreReply::Mail { entries: seen.iter().map(entry).collect(), next: None }
    }

    /// Asks all at once, and then takes the answers; `None` if all is well.
    fn broken(conversation: &Conversation) -> Option<usize> {
        let mut model = Model::new(3);
        for (ticket, (asked, _)) in (0..).zip(conversation) {
            model.ask(ticket, asked.clone());
        }
        let mut answers = (0..).zip(conversation);
        answers.position(|(ticket, (_, reply))| model.tell(ticket, reply).is_err())
    }

    fn append(numbers: &[u64]) -> Asked {
        Asked::Append(numbers.to_vec())
    }

    fn remove(numbers: &[u64]) -> Asked {
        Asked::Remove(numbers.to_vec())
    }

    type Conversation = [(Asked, StoreReply)];

    #[test]
    fn a_store_that_keeps_its_promises_is_believed() {
        let rows: [&Conversation; 5] = [
            &[(append(&[1, 2]), appended(&[1, 2], 0)), (Asked::Read, page(&[(1, 1), (2, 1)]))],
            &[(append(&[1, 2]), appended(&[1, 2], 0)), (append(&[3, 4]), appended(&[3, 4], 1))],
            &[(append(&[1]), StoreReply::Failed), (Asked::Read, page(&[]))],
            &[(append(&[1]), StoreReply::Unknown), (Asked::Read, page(&[(1, 1)])), (Asked::Read, page(&[(1, 2)]))],
            &[
                (append(&[1]), appended(&[1], 0)),
                (Asked::Read, StoreReply::Unknown),
                (remove(&[1]), StoreReply::Unknown),
                (Asked::Read, page(&[(1, 2)])),
                (remove(&[1]), StoreReply::Done),
                (Asked::Read, page(&[])),
            ],
        ];
        for row in rows {
            assert_eq!(broken(row), None, "{row:?}");
        }
    }

    #[test]
    fn a_store_that_breaks_one_is_found_out() {
        let kept = || (append(&[1, 2]), appended(&[1, 2], 0));
        let rows: [(&str, usize, &Conversation); 15] = [
            ("lost", 1, &[kept(), (Asked::Read, page(&[(2, 1)]))]),
            ("twice", 1, &[kept(), (Asked::Read, page(&[(1, 1), (2, 1), (2, 1)]))]),
            ("out of order", 1, &[kept(), (Asked::Read, page(&[(2, 1), (1, 1)]))]),
            ("failed and there", 1, &[(append(&[1]), StoreReply::Failed), (Asked::Read, page(&[(1, 1)]))]),
            (
                "removed and there",
                2,
                &[kept(), (remove(&[1]), StoreReply::Done), (Asked::Read, page(&[(1, 1), (2, 1)]))],
            ),
            ("not removed and gone", 2, &[kept(), (remove(&[1]), StoreReply::Failed), (Asked::Read, page(&[(2, 1)]))]),
            ("half of it", 1, &[(append(&[1, 2]), StoreReply::Unknown), (Asked::Read, page(&[(1, 1)]))]),
            (
                "done after what followed",
                2,
                &[
                    (append(&[1]), StoreReply::Unknown),
                    (append(&[2]), appended(&[2], 0)),
                    (Asked::Read, page(&[(2, 1), (1, 1)])),
                ],
            ),
            (
                "done when it was over",
                2,
                &[(append(&[1]), StoreReply::Unknown), (Asked::Read, page(&[])), (Asked::Read, page(&[(1, 1)]))],
            ),
            (
                "an attempt not counted",
                2,
                &[kept(), (Asked::Read, page(&[(1, 1), (2, 1)])), (Asked::Read, page(&[(1, 1), (2, 2)]))],
            ),
            ("dropped and not told", 1, &[kept(), (append(&[3, 4]), appended(&[3, 4], 0))]),
            ("told and not dropped", 1, &[kept(), (append(&[3]), appended(&[3], 1))]),
            ("a position not given", 0, &[(append(&[1, 2]), appended(&[1], 0))]),
            ("a position that is not later", 1, &[kept(), (append(&[3]), appended(&[2], 0))]),
            ("an answer to something else", 0, &[(remove(&[1]), appended(&[1], 0))]),
        ];
        for (what, at, row) in rows {
            assert_eq!(broken(row), Some(at), "{what}");
        }
    }

    #[test]
    fn an_answer_out_of_turn_or_a_second_one_is_found_out() {
        let mut model = Model::new(3);
        model.ask(1, Asked::Read);
        model.ask(2, Asked::Read);
        assert!(model.tell(2, &StoreReply::Failed).is_err());
        let mut model = Model::new(3);
        model.ask(1, Asked::Read);
        assert!(model.tell(1, &StoreReply::Failed).is_ok());
        assert!(model.tell(1, &StoreReply::Failed).is_err());
    }
}
