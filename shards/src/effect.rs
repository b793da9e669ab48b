//! What a shard asks its rim to do. Pushed in order; the rim carries them out in that order before the next event.
use crate::key::{ConnKey, ShardId};
use crate::mesh::message::Message;
use crate::shard::Arrival;
use protocol::cluster::ClusterRequest;
use protocol::store::{StoreRequest, StoreTicket};

/// One act of the rim.
#[derive(Debug)]
pub enum Effect {
    /// Tell another shard.
    Send {
        /// Never the shard itself.
        to: ShardId,
        /// What to say.
        message: Message,
    },
    /// Take this connection's socket off this shard and bring it to its user's home. The slot is already free.
    HandOver {
        /// The connection it was here.
        key: ConnKey,
        /// The user's home.
        to: ShardId,
        /// Who comes, and what was already read.
        arrival: Box<Arrival>,
    },
    /// Send FIN: no more output, input is still read.
    Shutdown(ConnKey),
    /// Close the socket. The slot is already free.
    Close(ConnKey),
    /// Whether to read from this socket. New sockets are read.
    Read {
        /// Which socket.
        key: ConnKey,
        /// Off while an answer is awaited or the peer does not take its output.
        on: bool,
    },
    /// Ask the store; the answer comes back as `Shard::stored`.
    Store {
        /// Comes back with the answer.
        ticket: StoreTicket,
        /// What to do.
        request: StoreRequest,
    },
    /// Ask the bridge to other nodes; on the bridge shard only. What comes of it is told by `Shard::cluster`.
    Cluster(Box<ClusterRequest>),
}

/// Effects in order, reused from turn to turn.
pub type Effects = Vec<Effect>;
