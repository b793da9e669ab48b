//! WebSocket (RFC 6455): handshake, client frames in, server frames out. No extensions are negotiated.
pub mod close;
pub mod decoder;
pub mod encoder;
pub mod handshake;
mod header;
mod message;
