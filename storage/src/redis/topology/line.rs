//! One connection at a time to one server after the other: lookup, connect, encryption, bytes to and fro.
//!
//! A line only tells that it ended; what follows is the finder's to decide.
use crate::link::attempt::Attempt;
use crate::link::resolver::{Lookup, Resolver, Wake};
use crate::link::socket::{self, Transfer};
use crate::link::tls::Tls;
use crate::link::transport::{Transport, TransportError};
use crate::link::unreached::Unreached;
use crate::link::wants::Wants;
use crate::redis::topology::node::Node;
use crate::redis::topology::talk::Talk;
use protocol::limits;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::SocketAddr;

/// What the caller says about a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// It can be read, or it broke.
    pub readable: bool,
    /// It can be written, or it broke.
    pub writable: bool,
}

/// Why a line ended.
#[derive(Debug)]
pub(super) enum Lost {
    Unreached(Unreached),
    /// No lookup more can be begun.
    Lookups,
    Tls(String),
}

impl From<Unreached> for Lost {
    fn from(unreached: Unreached) -> Lost {
        Lost::Unreached(unreached)
    }
}

impl From<TransportError> for Lost {
    fn from(error: TransportError) -> Lost {
        match error {
            TransportError::Io(errno) => Lost::Unreached(Unreached::Io(errno)),
            TransportError::Tls(error) => Lost::Tls(error.to_string()),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(unreached) => unreached.write(f, "REDIS_URL"),
            Self::Lookups => f.write_str("too many name lookups hang"),
            Self::Tls(cause) => write!(f, "no encrypted connection: {cause}"),
        }
    }
}

/// A line, in use or not.
pub(super) struct Line {
    wake: Wake,
    /// Lookups that hang, each with whom it is about: a line does not wait for one when it goes on to the next server.
    lookups: Vec<(Node, Resolver)>,
    phase: Phase,
    /// Number of the newest socket.
    generation: u32,
}

enum Phase {
    Idle,
    Resolving { node: Node, deadline_us: u64 },
    Connecting { node: Node, socket: OwnedFd, attempt: Attempt },
    Open(Open),
}

struct Open {
    transport: Transport,
    /// The last read filled the room.
    more: bool,
}

impl Line {
    pub(super) fn new(wake: Wake) -> Line {
        Line { wake, lookups: Vec::new(), phase: Phase::Idle, generation: 0 }
    }

    /// Leaves the server there was, and begins to connect to another; [`Line::turn`] tells how it goes.
    pub(super) fn dial(&mut self, now_us: u64, deadline_us: u64, node: Node) -> Result<(), Lost> {
        self.close();
        self.lookups.retain_mut(|(_, resolver)| matches!(resolver.poll(), Lookup::Pending));
        let at = match self.lookups.iter().position(|(hanging, _)| *hanging == node) {
            Some(at) => at,
            None if self.lookups.len() >= limits::REDIS_TOPOLOGY_LOOKUPS_MAX => return Err(Lost::Lookups),
            None => {
                self.lookups.push((node.clone(), Resolver::new(self.wake.clone())));
                self.lookups.len() - 1
            }
        };
        match self.lookups[at].1.start(&node.host, node.port) {
            Lookup::Pending => {
                self.phase = Phase::Resolving { node, deadline_us };
                Ok(())
            }
            Lookup::Done(answer) => {
                self.lookups.swap_remove(at);
                self.resolved(now_us, deadline_us, node, answer)
            }
        }
    }

    /// Closes what is open. A lookup that hangs stays known until it is done.
    pub(super) fn close(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.transport.close();
        }
        self.phase = Phase::Idle;
    }

    /// Does what can be done now: at most one read.
    pub(super) fn turn(&mut self, now_us: u64, ready: Ready, talk: &mut Talk, tls: Option<&Tls>) -> Result<(), Lost> {
        match &mut self.phase {
            Phase::Idle => Ok(()),
            Phase::Resolving { node, deadline_us } => {
                let Some(at) = self.lookups.iter().position(|(hanging, _)| hanging == node) else {
                    return Err(Lost::Lookups);
                };
                match self.lookups[at].1.poll() {
                    Lookup::Pending => Ok(()),
                    Lookup::Done(answer) => {
                        let (node, deadline_us) = (node.clone(), *deadline_us);
                        self.lookups.swap_remove(at);
                        self.resolved(now_us, deadline_us, node, answer)
                    }
                }
            }
            Phase::Connecting { .. } => self.connecting(now_us, ready, tls),
            Phase::Open(open) => {
                let written = open.write(talk);
                // A server that closed may have said why before.
                if ready.readable || open.more || written.is_err() {
                    open.read(talk)?;
                }
                written
            }
        }
    }

    /// When to turn it again, deadlines of the owner aside.
    pub(super) fn wants(&self, talk: &Talk) -> Wants {
        match &self.phase {
            Phase::Idle | Phase::Resolving { .. } => Wants::default(),
            Phase::Connecting { socket, attempt, .. } => Wants {
                socket: Some((socket.as_raw_fd(), self.generation)),
                write: true,
                wake_at_us: Some(attempt.address_deadline_us),
                ..Wants::default()
            },
            Phase::Open(Open { transport, more }) => Wants {
                socket: Some((transport.socket().as_raw_fd(), self.generation)),
                read: true,
                write: !talk.output().is_empty() || transport.wants_write(),
                wake_at_us: None,
                again: *more,
            },
        }
    }

    /// The socket of [`Wants::socket`].
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Idle | Phase::Resolving { .. } => None,
            Phase::Connecting { socket, .. } => Some(socket.as_fd()),
            Phase::Open(open) => Some(open.transport.socket()),
        }
    }

    fn resolved(
        &mut self,
        now_us: u64,
        deadline_us: u64,
        node: Node,
        answer: std::io::Result<Vec<SocketAddr>>,
    ) -> Result<(), Lost> {
        self.phase = Phase::Idle;
        let addresses = answer.map_err(|error| Unreached::Resolve(error.to_string()))?;
        let (socket, attempt) = Attempt::begin(now_us, deadline_us, addresses)?;
        self.generation = self.generation.wrapping_add(1);
        self.phase = Phase::Connecting { node, socket, attempt };
        Ok(())
    }

    fn connecting(&mut self, now_us: u64, ready: Ready, tls: Option<&Tls>) -> Result<(), Lost> {
        // `replace` needs a value for the moment in between.
        let Phase::Connecting { node, socket, attempt } = std::mem::replace(&mut self.phase, Phase::Idle) else {
            return Ok(());
        };
        let address = attempt.address;
        let unreached = match ready.writable {
            true => match socket::connected(&socket) {
                Ok(()) => {
                    let mut transport = Transport::new(socket);
                    if let Some(tls) = tls {
                        let name = ServerName::try_from(node.host)
                            .map_err(|_| Lost::Tls("the host is no name that a certificate could have".to_owned()))?;
                        transport.encrypt(&Tls { config: tls.config.clone(), name })?;
                    }
                    self.phase = Phase::Open(Open { transport, more: false });
                    return Ok(());
                }
                Err(errno) => Unreached::Connect { address, errno },
            },
            false if now_us >= attempt.address_deadline_us => Unreached::ConnectDeadline { address },
            false => {
                self.phase = Phase::Connecting { node, socket, attempt };
                return Ok(());
            }
        };
        let (socket, attempt) = attempt.next(now_us, unreached)?;
        self.generation = self.generation.wrapping_add(1);
        self.phase = Phase::Connecting { node, socket, attempt };
        Ok(())
    }

    /// Whether it is connected.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }
}

/// A time so many milliseconds from now.
pub(super) fn after(now_us: u64, ms: u64) -> u64 {
    now_us.saturating_add(ms.saturating_mul(1_000))
}

/// The same, but no later than at the deadline.
pub(super) fn until(wants: Wants, deadline_us: u64) -> Wants {
    Wants { wake_at_us: Some(wants.wake_at_us.map_or(deadline_us, |us| us.min(deadline_us))), ..wants }
}

impl Open {
    fn write(&mut self, talk: &mut Talk) -> Result<(), Lost> {
        if !self.transport.flush()? {
            return Ok(());
        }
        while !talk.output().is_empty() {
            match self.transport.send(talk.output())? {
                Transfer::Bytes(bytes) => talk.sent(bytes),
                Transfer::Blocked | Transfer::Closed => break,
            }
        }
        Ok(())
    }

    fn read(&mut self, talk: &mut Talk) -> Result<(), Lost> {
        let room = talk.room();
        let room_bytes = room.len();
        let transfer = self.transport.receive(room)?;
        self.more = transfer == Transfer::Bytes(room_bytes);
        match transfer {
            Transfer::Blocked => Ok(()),
            Transfer::Closed => Err(Unreached::Closed.into()),
            Transfer::Bytes(bytes) => {
                talk.filled(bytes);
                Ok(())
            }
        }
    }
}
