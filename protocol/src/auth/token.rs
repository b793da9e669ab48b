//! (being written)

/// Checks tokens.
pub struct Verifier;
