//! Publishing: what backends send us and what they get back.
pub mod batch;
pub mod receipt;
pub mod redis;
pub mod request;
