//! A connection: what a shard keeps about one socket.
pub mod http;
pub mod live;
pub mod outbox;
pub mod pool;

use crate::tables::wheel::Tick;
use http::HttpState;
use live::{Closing, Live};
use outbox::Outbox;
use protocol::limits;

/// One connection's slot. Small and flat: an idle subscriber holds no buffer at all.
#[derive(Debug)]
pub struct Connection {
    /// What is spoken on it now.
    pub phase: Phase,
    /// What waits to be written; `None` while nothing does.
    pub outbox: Option<Box<Outbox>>,
    /// Input that could not be used yet: a part of a head or a frame, or what came while an answer is awaited.
    pub tail: Vec<u8>,
    /// The fan-out that last reached it: a publish to several channels reaches each connection once.
    pub stamp: u32,
    /// Where it stands in the wheel; 0 when it does not.
    pub tick: Tick,
    /// In the dirty list.
    pub dirty: bool,
    /// The socket takes no more; waits for the rim to say otherwise.
    pub blocked: bool,
    /// Bytes have left the outbox encrypted, and not the machine.
    pub sealed: bool,
    /// The rim was told not to read.
    pub deaf: bool,
    /// The peer has sent its FIN.
    pub eof: bool,
    /// Its input is being worked through: who is called from there leaves the rest of it alone.
    pub busy: bool,
}

const _: () = assert!(size_of::<Connection>() <= 64, "a connection's slot is one cache line");

/// What is spoken on a connection.
#[derive(Debug)]
pub enum Phase {
    /// HTTP requests, until one of them asks for a stream.
    Http(Box<HttpState>),
    /// A WebSocket or SSE client that is registered at its home.
    Live(Box<Live>),
    /// Nothing new: what waits is written, then it ends.
    Closing(Box<Closing>),
}

impl Connection {
    /// A fresh one.
    pub fn new(phase: Phase) -> Connection {
        Connection {
            phase,
            outbox: None,
            tail: Vec::new(),
            stamp: 0,
            tick: 0,
            dirty: false,
            blocked: false,
            sealed: false,
            deaf: false,
            eof: false,
            busy: false,
        }
    }

    /// Bytes that wait in the control lane.
    pub fn control_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.control_bytes())
    }

    /// Since when what waits for the socket makes no progress; `None` when nothing waits.
    pub fn waiting_since_us(&self) -> Option<u64> {
        self.outbox.as_deref().filter(|outbox| self.sealed || !outbox.is_empty()).map(|outbox| outbox.waiting_since_us)
    }

    /// When all that waits must be out if the connection ends now; of one that ends already, as it was told when its end
    /// began.
    pub fn flush_by_ms(&self, now_ms: u64) -> u64 {
        if let Phase::Closing(closing) = &self.phase {
            return closing.flush_by_ms;
        }
        let waiting_bytes = self.outbox.as_ref().map_or(0, |outbox| outbox.frame_bytes() + outbox.control_bytes());
        now_ms + limits::CLOSE_FLUSH_MS + waiting_bytes as u64 * 1_000 / limits::CLOSE_BYTES_PER_SECOND_MIN as u64
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        !self.sealed && self.outbox.as_ref().is_none_or(|outbox| outbox.is_empty())
    }
}

impl Connection {
    /// Whether its input may be used now.
    pub fn wants_input(&self) -> bool {
        if self.control_bytes() > limits::OUTBOX_CONTROL_BYTES_MAX {
            return false;
        }
        match &self.phase {
            Phase::Http(http) => matches!(http.stage, http::HttpStage::Head | http::HttpStage::Body(..)),
            Phase::Live(live) => live.pending.is_none(),
            Phase::Closing(_) => true,
        }
    }

    /// Which bytes it reads, and whether frames wait for its first message.
    pub fn reads(&self) -> (outbox::Transport, bool) {
        match &self.phase {
            Phase::Http(_) => (outbox::Transport::WebSocket, false),
            Phase::Live(live) => (live.transport, live.held),
            Phase::Closing(closing) => (closing.transport, false),
        }
    }
}

impl Connection {
    /// The registered client on it, if there is one.
    pub fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Live(live) => Some(live),
            _ => None,
        }
    }
}

impl Connection {
    /// Whether it is a client that was not answered yet, because other nodes have to hear of it.
    pub fn is_held(&self) -> bool {
        self.live().and_then(|live| live.pending.as_ref()).is_some_and(|pending| pending.welcome.is_some())
    }

    /// Where the mail of an ending connection goes that is not written in the end.
    pub fn closing_mailbox(&self) -> Option<std::sync::Arc<protocol::store::MailboxKey>> {
        match &self.phase {
            Phase::Closing(closing) => closing.mailbox.clone(),
            _ => None,
        }
    }
}
