//! What shards say to each other.

/// One message of the mesh; small, shared things by `Arc`.
#[derive(Debug)]
pub enum Message {
    /// (being written)
    Nothing,
}
