//! Identity: who connects (JWT), who may publish (API key).
pub mod api_key;
pub mod channels;
pub mod revocation;
pub mod token;
