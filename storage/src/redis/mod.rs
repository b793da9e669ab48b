//! The Redis link: where to ([`url`]), what is said ([`session`]), who keeps it up ([`feed`]), how it does
//! ([`status`]).
pub mod feed;
mod link;
mod reply;
pub mod session;
pub mod status;
mod trouble;
pub mod url;
