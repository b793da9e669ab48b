//! What a store promises, said once and asked of each: memory, Redis, Redis Cluster and PostgreSQL.
//!
//! | module | what it asks |
//! |---|---|
//! | `mail` | order, pages, exact bytes, deliveries, bounds, expiry, removal, whose mail it is |
//! | `acks` | acknowledgements, where they are kept |
//! | `templates` | templates, for this store and the next |
//! | `figures` | the books: exact at rest, and there after a restart |
//! | `faults` | servers that are killed, held, restarted and thrown off their links in the middle of a load |
//! | `load`, `model` | that load, and what must be so whatever becomes of it |
//! | `bench`, `memory`, `partitioned` | a server and a store of a test's own; memory as if it stood behind links; partitions as one |
//!
//! A row that needs what memory does not have, a second store on the same mail, is asked of the servers only.
#[path = "../common/mod.rs"]
mod common;

mod bench;
mod memory;
#[macro_use]
mod rows;

mod acks;
mod faults;
mod figures;
mod load;
mod mail;
mod model;
mod partitioned;
mod templates;
