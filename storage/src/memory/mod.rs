//! The embedded backend: plain maps of the process, gone with it.
pub mod mailboxes;
pub mod templates;
