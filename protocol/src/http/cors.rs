//! (being written)

/// Which origins may call.
pub struct Cors;
