//! What a client may say, and what we may say to it.
pub mod command;
pub mod event;
