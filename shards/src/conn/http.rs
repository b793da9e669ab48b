//! HTTP on one connection: one request at a time, in order; pipelined ones wait in the tail.
use crate::tables::buckets::Verdict;
use protocol::http::Version;
use protocol::http::body::BodyDecoder;
use protocol::http::error::ApiError;
use protocol::http::route::Route;
use protocol::ids::TenantId;
use protocol::rate_limit::{Identity, LimitKind, Quota};
use std::collections::VecDeque;
use std::net::IpAddr;

use protocol::publish::receipt::ItemOutcome;
use protocol::publish::request::PublishRequest;

/// The HTTP side of a connection; gone once it becomes a stream.
#[derive(Debug)]
pub struct HttpState {
    /// The socket's peer.
    pub peer: IpAddr,
    /// What is happening.
    pub stage: HttpStage,
    /// A part of a head has come, and the deadline is its.
    pub head_begun: bool,
    /// What the limits said of the head that comes next; taken by it.
    pub verdict: Option<Verdict>,
    /// When the head that waits to be counted was whole; taken by it, too.
    pub whole_at_us: Option<u64>,
    /// What is left of the limit that the request at hand met: every answer to it says so.
    pub quota: Option<Quota>,
    /// It ends then: no head, no body, or nobody reading the answer.
    pub deadline_ms: u64,
}

/// Where in a request the connection is.
#[derive(Debug)]
pub enum HttpStage {
    /// Between requests, or inside a head.
    Head,
    /// A head is whole and waits, unread, until it is counted elsewhere.
    Counting(LimitKind, Identity),
    /// Inside a body.
    Body(Box<Request>, BodyDecoder, Vec<u8>),
    /// The answer waits for other shards.
    Awaiting(Box<Request>),
    /// A batch is being worked through.
    Batch(Box<Request>, Box<Batch>),
}

/// What is kept of a head while its body comes and its answer is made.
#[derive(Debug)]
pub struct Request {
    /// What is asked; or the answer it will get once its body is out of the way.
    pub route: Result<Route, ApiError>,
    /// The route's index in the metrics.
    pub label: usize,
    /// Dialect of the answer.
    pub version: Version,
    /// Whether the connection goes on afterwards.
    pub keep_alive: bool,
    /// HEAD: no body.
    pub head_only: bool,
    /// For CORS.
    pub origin: Option<Box<str>>,
    /// Whose request.
    pub tenant: TenantId,
    /// Whether the body claims to be JSON.
    pub is_json: bool,
    /// When its head was complete.
    pub started_us: u64,
}

/// A batch under way.
#[derive(Debug)]
pub struct Batch {
    /// Of the batch.
    pub id: uuid::Uuid,
    /// All items.
    pub total: usize,
    /// What became of them; `None` while under way.
    pub outcomes: Vec<Option<ItemOutcome>>,
    /// Items not yet begun, with their index; only with `stop_on_error` does one wait for the one before.
    pub waiting: VecDeque<(usize, PublishRequest, bool)>,
    /// Items under way.
    pub under_way: usize,
    /// Items are just being begun: whoever does that looks after the batch.
    pub is_beginning: bool,
    /// Stop after the first that reaches nobody.
    pub stop_on_error: bool,
}

impl HttpState {
    /// A socket of this peer that has said nothing.
    pub fn new(peer: IpAddr, deadline_ms: u64) -> HttpState {
        HttpState {
            peer,
            stage: HttpStage::Head,
            head_begun: false,
            verdict: None,
            whole_at_us: None,
            quota: None,
            deadline_ms,
        }
    }

    /// Between requests; what may still wait in the connection's tail has not been looked at.
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, HttpStage::Head) && !self.head_begun
    }
}
