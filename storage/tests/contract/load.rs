//! A steady load of appends, readings and removals over many mailboxes, each watched by a model.
use crate::bench::{Store, mail, mailbox};
use crate::common::PATIENCE;
use crate::model::{Asked, Model};
use protocol::store::{MailboxKey, Position, StoreReply, StoreRequest};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::backend::Backend;

/// Mailboxes under load.
const MAILBOXES: usize = 50;
/// Requests about one mailbox that are not answered, at most.
const OUTSTANDING_MAX: usize = 3;
/// Beyond so many worlds nothing but a reading is asked.
const WORLDS_MAX: usize = 8;

/// The load and what it has seen.
pub(crate) struct Load {
    rng: fastrand::Rng,
    watched: Vec<Watched>,
    asked: HashMap<u64, usize>,
    /// What was answered: done, failed, unknown.
    pub(crate) told: [u64; 3],
}

/// A mailbox and its model.
struct Watched {
    key: Arc<MailboxKey>,
    model: Model,
    last_number: u64,
    /// What the last reading gave.
    seen: Vec<(u64, Position)>,
    /// Mail was kept since somebody asked.
    works: bool,
}

impl Load {
    /// The seed is printed: what a test that failed had.
    pub(crate) fn new(seed: u64, entries_max: usize) -> Load {
        println!("seed {seed}");
        let watched = |user| Watched {
            key: mailbox(&format!("u{user}")),
            model: Model::new(entries_max),
            last_number: 0,
            seen: Vec::new(),
            works: false,
        };
        let rng = fastrand::Rng::with_seed(seed);
        Load { rng, watched: (0..MAILBOXES).map(watched).collect(), asked: HashMap::new(), told: [0; 3] }
    }

    /// Asks a little and takes what was answered.
    pub(crate) fn step(&mut self, store: &mut Store) {
        for _ in 0..MAILBOXES / 2 {
            let at = self.rng.usize(..MAILBOXES);
            if self.watched[at].model.outstanding() < OUTSTANDING_MAX {
                self.ask(store, at);
            }
        }
        store.turn(&[]);
        store.step();
        self.listen(store);
    }

    /// Goes on until so many more requests were done.
    pub(crate) fn until_done(&mut self, store: &mut Store, more: u64) {
        let (until, begun) = (self.told[0] + more, Instant::now());
        while self.told[0] < until {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {more} are done: {:?}", store.figures);
            self.step(store);
        }
    }

    /// Goes on while a fault lasts.
    pub(crate) fn during(&mut self, store: &mut Store, duration: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < duration {
            self.step(store);
        }
    }

    /// Goes on until every mailbox keeps mail again.
    pub(crate) fn until_all_work(&mut self, store: &mut Store) {
        self.watched.iter_mut().for_each(|watched| watched.works = false);
        let begun = Instant::now();
        while !self.watched.iter().all(|watched| watched.works) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until all work again: {:?}", store.figures);
            self.step(store);
        }
    }

    /// Asks nothing more, waits for the last answers, and reads every mailbox once. Returns how many mailboxes hold
    /// something, and how much all of them hold.
    pub(crate) fn finish(&mut self, store: &mut Store) -> (u64, u64) {
        self.quiet(store);
        for at in 0..MAILBOXES {
            let begun = Instant::now();
            let held = loop {
                let before = self.told[0];
                self.submit(store, at, Asked::Read);
                store.turn(&[]);
                self.quiet(store);
                if self.told[0] > before {
                    break self.watched[at].model.held().expect("a reading leaves no doubt").len();
                }
                assert!(begun.elapsed() < PATIENCE, "waited in vain for a reading: {:?}", store.figures);
            };
            assert_eq!(held, self.watched[at].seen.len());
        }
        let sizes = self.watched.iter().map(|watched| watched.seen.len() as u64);
        (sizes.clone().filter(|size| *size > 0).count() as u64, sizes.sum())
    }

    fn quiet(&mut self, store: &mut Store) {
        let begun = Instant::now();
        while !self.asked.is_empty() {
            assert!(begun.elapsed() < PATIENCE, "these were never answered: {:?}", self.asked);
            store.step();
            self.listen(store);
        }
        assert!(!store.store.owes());
    }

    fn ask(&mut self, store: &mut Store, at: usize) {
        let watched = &mut self.watched[at];
        let asked = match self.rng.u8(..10) {
            _ if watched.model.worlds() > WORLDS_MAX => Asked::Read,
            0..5 => {
                let first = watched.last_number + 1;
                watched.last_number += self.rng.u64(1..=3);
                Asked::Append((first..=watched.last_number).collect())
            }
            // Removing nothing asks nobody, and is answered at once.
            8.. if !watched.seen.is_empty() => {
                let some = self.rng.usize(1..=3);
                Asked::Remove(watched.seen.iter().take(some).map(|(number, _)| *number).collect())
            }
            _ => Asked::Read,
        };
        self.submit(store, at, asked);
    }

    fn submit(&mut self, store: &mut Store, at: usize, asked: Asked) {
        let watched = &mut self.watched[at];
        let mailbox = Arc::clone(&watched.key);
        let request = match &asked {
            Asked::Append(numbers) => StoreRequest::AppendMail {
                mailbox,
                mail: numbers.iter().map(|number| mail(*number)).collect(),
                claim: None,
            },
            Asked::Read => StoreRequest::ReadMail { mailbox, after: None, entries_max: 100, lingering_ms: 0 },
            Asked::Remove(numbers) => {
                let seen = watched.seen.iter().filter(|(number, _)| numbers.contains(number));
                StoreRequest::RemoveMail {
                    mailbox,
                    positions: seen.map(|(_, position)| *position).collect(),
                    lingers: false,
                }
            }
        };
        let ticket = store.submit(request);
        watched.model.ask(ticket, asked);
        self.asked.insert(ticket, at);
    }

    fn listen(&mut self, store: &mut Store) {
        for (ticket, reply) in store.replies.drain(..) {
            let at = self.asked.remove(&ticket).unwrap_or_else(|| panic!("{ticket} was answered twice: {reply:?}"));
            let watched = &mut self.watched[at];
            if let Err(promise) = watched.model.tell(ticket, &reply) {
                panic!("a promise to {} is broken: {promise}", watched.key.user);
            }
            match reply {
                StoreReply::Failed => self.told[1] += 1,
                StoreReply::Unknown => self.told[2] += 1,
                reply => {
                    self.told[0] += 1;
                    watched.works |= matches!(reply, StoreReply::Appended { .. });
                    if let StoreReply::Mail { entries, .. } = reply {
                        watched.seen = entries.iter().map(|entry| (entry.mail.stream.seq, entry.position)).collect();
                    }
                }
            }
        }
    }
}
