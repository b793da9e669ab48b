//! What every link to a server has in common, whichever language it speaks: where the server is (`address`,
//! `resolver`, `attempt`), how bytes go to and fro (`socket`, `transport`, [`tls`]), what may keep it from being
//! reached (`unreached`), how the link stands ([`state`]), and when it is to be turned again ([`wants`]).
pub(crate) mod address;
pub(crate) mod attempt;
pub(crate) mod resolver;
pub(crate) mod socket;
pub mod state;
pub mod tls;
pub(crate) mod transport;
pub(crate) mod unreached;
pub mod wants;
