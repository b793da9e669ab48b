//! Publishing: what backends send us and what they get back.
pub mod batch;
pub(crate) mod body;
pub mod receipt;
pub mod redis;
pub mod request;
