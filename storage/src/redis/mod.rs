//! The Redis link: where to ([`url`]), what is said ([`session`]), who keeps it up ([`feed`]), how it does
//! ([`status`]).
pub mod feed;
mod link;
mod reply;
mod resolver;
pub mod session;
mod socket;
pub mod status;
mod trouble;
pub mod url;
