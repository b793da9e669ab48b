//! What every link to a server has in common, whichever language it speaks: where the server is (`address`,
//! `resolver`, `attempt`), how bytes go to and fro (`socket`), what may keep it from being reached (`unreached`), and
//! how the link stands ([`state`]).
pub(crate) mod address;
pub(crate) mod attempt;
pub(crate) mod resolver;
pub(crate) mod socket;
pub mod state;
pub(crate) mod unreached;
