//! The language between a shard and the bridge to other nodes; [`wire`], what nodes say to each other over Redis; and
//! [`Topic`], where they say it.
mod topic;
pub mod wire;

use crate::auth::revocation::Revocation;
use crate::ids::{ConnectionId, TenantId};
use crate::json;
use crate::notification::Publication;
use crate::publish::receipt::{Receipt, SessionRow};
use std::sync::Arc;
pub use topic::Topic;
use wire::{Hello, Parcel};

/// Names one publish or question of one node until its receipts or answers are in: which shard counts, and its gather.
/// Opaque to other nodes, which hand it back; the node checks what comes back like anything else that came from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatherTicket {
    /// The shard that answers the publisher.
    pub shard: u8,
    /// Slot of its gather.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
}

/// Names a connection that waits for its admission: which shard asked, and its key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdmissionTicket {
    /// The home of its user.
    pub shard: u8,
    /// Slot of the connection.
    pub slot: u32,
    /// Generation of that slot.
    pub generation: u32,
}

/// A connection that its own node would admit, and that the cluster may have no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionRequest {
    /// Comes back.
    pub ticket: AdmissionTicket,
    /// Public id.
    pub connection: ConnectionId,
    /// Whose client.
    pub tenant: TenantId,
    /// Which user.
    pub user: Box<str>,
    /// Connections that the tenant may have in the whole cluster; 0 is unlimited.
    pub connections_max: usize,
    /// Connections that the user may have in the whole cluster; 0 is unlimited.
    pub connections_per_user_max: usize,
}

/// What the cluster says to a connection. The counts are those that were found, this one not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is room, and it has its place.
    Granted,
    /// The user has so many already.
    UserIsFull(u64),
    /// The tenant has so many already.
    TenantIsFull(u64),
    /// Redis cannot be asked: the node's own counts decide.
    Unknown,
}

/// A connection as other nodes may know it (contract §12.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Public id.
    pub connection: ConnectionId,
    /// Whose client.
    pub tenant: TenantId,
    /// Which user.
    pub user: Box<str>,
    /// When it registered, Unix seconds.
    pub connected_at_unix_s: u64,
    /// What it is subscribed to, bare names.
    pub channels: Vec<Box<str>>,
}

impl Session {
    /// Appends the JSON that is kept under the connection's key (contract §12.1).
    pub fn write(&self, out: &mut Vec<u8>, server_id: &str) {
        out.extend_from_slice(br#"{"connection_id":""#);
        self.connection.write(out);
        out.extend_from_slice(br#"","user_id":"#);
        json::write_string(out, &self.user);
        out.extend_from_slice(br#","tenant_id":"#);
        json::write_string(out, self.tenant.as_str());
        out.extend_from_slice(br#","server_id":"#);
        json::write_string(out, server_id);
        out.extend_from_slice(br#","connected_at":"#);
        out.extend_from_slice(itoa::Buffer::new().format(self.connected_at_unix_s).as_bytes());
        out.extend_from_slice(br#","channels":"#);
        json::write_value(out, &self.channels);
        out.push(b'}');
    }
}

/// What a shard asks of the bridge. Asked over the mesh by every shard but the bridge itself.
#[derive(Clone, Debug)]
pub enum ClusterRequest {
    /// Listen to a topic; answered with [`ClusterEvent::Watching`], at once when Redis is away.
    Watch {
        /// Which.
        topic: Topic,
        /// Who asked; comes back.
        shard: u8,
        /// Which of the shard's; comes back. An answer to a watch that was given up meanwhile is recognised by it, so it
        /// does not matter whether one comes.
        serial: u32,
    },
    /// Listen no more.
    Unwatch {
        /// Which.
        topic: Topic,
    },
    /// Send a parcel to every other node that listens; answered with [`ClusterEvent::Sent`] when it has a ticket
    /// ([`Parcel::ticket`]).
    Send {
        /// To whom.
        topic: Topic,
        /// What.
        parcel: Arc<Parcel>,
    },
    /// As [`ClusterRequest::Send`], while the shards were told that no other node is there ([`ClusterEvent::Alone`]): for one
    /// that begins in this moment, and nobody waits to hear who got it.
    Publish(Arc<Publication>),
    /// Whether the cluster has room for a connection; answered with [`ClusterEvent::Admitted`], at once when Redis is away.
    Admit(Box<AdmissionRequest>),
    /// A connection is new, or has other channels than before.
    SessionChanged(Box<Session>),
    /// A connection is gone.
    SessionEnded {
        /// As it was.
        session: Box<Session>,
        /// The user has no other connection on this node.
        is_last: bool,
    },
    /// A page of the connections that are open now: their keys are written again, so that they outlive their TTL and come
    /// back after a loss of Redis.
    SessionPage(Vec<Session>),
}

/// What the bridge tells.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    /// The topic is listened to, or Redis is away and it will be when it is back.
    Watching {
        /// Which.
        topic: Topic,
        /// Who asked.
        shard: u8,
        /// Which of the shard's.
        serial: u32,
    },
    /// What the cluster says to a connection that waits to be admitted.
    Admitted {
        /// Of the request.
        ticket: AdmissionTicket,
        /// What became of it.
        admission: Admission,
    },
    /// A parcel has come from another node, for this one ([`Parcel::is_for`]).
    Parcel(Box<Parcel>),
    /// A parcel is with Redis: so many nodes got it, each of which answers, this one included. `None`: it could not be sent, or nobody knows.
    Sent {
        /// Of the parcel.
        ticket: GatherTicket,
        /// Nodes that answer.
        nodes: Option<u32>,
    },
    /// Another node handled a parcel of ours.
    Receipt {
        /// Of the parcel.
        ticket: GatherTicket,
        /// Its counts.
        receipt: Receipt,
    },
    /// Another node tells its sessions of a user we asked for; it is silent if it has none.
    Answer {
        /// Of the question.
        ticket: GatherTicket,
        /// At most [`crate::limits::CLUSTER_SESSIONS_MAX`].
        sessions: Vec<SessionRow>,
    },
    /// The topics are listened to again after a time in which parcels may have been missed.
    Resumed,
    /// Who is there, said again each second.
    Members {
        /// As they are known now, this node included, in order of their server ids. What they said of time is true now.
        all: Arc<[Hello]>,
        /// Since when this node has read without a break what is published to Redis, on [`crate::clock::Now::mono_us`].
        reads_since_us: Option<u64>,
        /// Of all that read it, none is known to have begun before this node.
        is_first: bool,
    },
    /// Whether nobody else was heard of for so long that publishers need not wait for what others say: parcels go out all the
    /// same, as others may begin at any moment.
    Alone(bool),
    /// Time to write the keys of all connections again.
    RefreshSessions,
    /// Revocations that Redis keeps; this node may have missed them.
    Revoked(Vec<Arc<Revocation>>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_session_has_the_bytes_of_the_contract() {
        let session = Session {
            connection: ConnectionId(Uuid::nil()),
            tenant: TenantId::default_tenant(),
            user: "u\"1".into(),
            connected_at_unix_s: 1_767_323_045,
            channels: vec!["orders".into(), "訂單".into()],
        };
        let mut out = Vec::new();
        session.write(&mut out, "n2");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"connection_id":"00000000-0000-0000-0000-000000000000","user_id":"u\"1","tenant_id":"default","#,
                r#""server_id":"n2","connected_at":1767323045,"channels":["orders","訂單"]}"#
            )
        );
    }
}
