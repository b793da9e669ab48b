//! The PostgreSQL client: servers of version 14 and newer, over protocol 3.0.
//!
//! | module | what it is | touches sockets |
//! |---|---|---|
//! | [`url`] | `DATABASE_URL`, taken apart and never printed with its password | no |
//! | [`command`] | what is asked: a prepared statement with its values, or a script; and the rows that come back | no |
//! | [`reply`] | what becomes of a command: done, failed, unknown, not sent | no |
//! | [`session`] | protocol 3.0: commands to bytes, bytes to events | no |
//! | [`error`] | what the server says when something is wrong, and what follows | no |
//! | `fence` | nothing of a lost connection is done late | no |
//! | [`link`] | one connection that is always there: connects, proves, pipelines, reconnects for ever | yes |
//! | [`pool`] | a few links, with the commands of one user in order over one of them | yes |
//! | [`store`] | the store: mail, acknowledgements and templates in tables, over a pool | yes |
//! | [`schema`] | the tables, made and migrated by a script | no |
//! | [`queue`], [`wire`] | the bounds: what waits, and how large a message may be | no |
//! | [`status`] | how a link does, to be read from any thread | no |
//!
//! Whoever uses it needs a thread that turns the link, a clock, and something that waits for sockets:
//!
//! ```text
//! config = LinkConfig::new(PostgresUrl::parse(..)?, ..)?       at start; a server that is away is no error
//! link   = Link::new(config, status, seed, wake)
//! loop     link.submit(ticket, Command::new(&STATEMENT, timeout_ms).text(..).int8(..))
//!          wants = link.turn(now, readable, writable, |ticket, reply| ..)
//!          wait for wants.socket, wants.wake_at_us, or the wake callback
//! ```
pub mod command;
mod connection;
pub mod error;
mod fence;
pub mod link;
mod login;
pub mod pool;
pub mod queue;
pub mod reply;
pub mod schema;
pub mod session;
pub mod status;
pub mod store;
mod talk;
mod trouble;
pub mod url;
pub mod wire;
