//! The PostgreSQL client.
//!
//! | module | what it is | touches sockets |
//! |---|---|---|
//! | [`url`] | `DATABASE_URL`, taken apart and never printed with its password | no |
//! | [`command`] | what is asked: a prepared statement with its values, or a script; and the rows that come back | no |
//! | [`session`] | protocol 3.0: commands to bytes, bytes to events | no |
//! | [`error`] | what the server says when something is wrong, and what follows | no |
pub mod command;
pub mod error;
mod login;
pub mod session;
pub mod url;
pub mod wire;
