//! Mail under faults (contract §8, §9; `docs/decisions/0006`, `docs/decisions/0007`): the store is killed or held, the
//! server is killed or stopped, users come and go in every way. [`books`] says what is promised and checks it.

mod books;
mod client;
mod crowd;
mod faults;
mod publisher;
mod stage;
mod storm;
mod trial;
