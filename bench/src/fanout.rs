//! What a delivery costs inside one shard: a publish to everybody, its fan-out into the outboxes, and each outbox
//! assembled and taken as written. No sockets, no mesh: beside this stand the system calls of `ceiling`.
use crate::codec::{content, token, verifier};
use crate::sampler::{self, Args, Row};
use crate::table::Table;
use crate::{BenchError, trying};
use protocol::clock::Now;
use protocol::http::cors::Cors;
use protocol::http::route::ROUTE_LABELS;
use protocol::ids::TenantId;
use protocol::notification::{Content, Source, Target};
use shards::config::ShardConfig;
use shards::effect::Effects;
use shards::guest::Submission;
use shards::host::NoPages;
use shards::key::{ConnKey, ShardId};
use shards::metrics::NodeMetrics;
use shards::shard::Shard;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// 2026-01-02T03:04:05Z, where the tokens are valid.
const UNIX_NS: u64 = 1_767_323_045_000_000_000;

/// Measures the rows that were asked for.
///
/// # Errors
/// A client was not registered.
pub fn run(args: &Args) -> Result<Table, BenchError> {
    Ok(sampler::measure("fanout: one delivery", rows()?, args))
}

/// Every row.
///
/// # Errors
/// A client was not registered.
pub fn rows() -> Result<Vec<Row>, BenchError> {
    Ok(vec![
        row("1,000 connections, a publish at a time", 1_000, 1)?,
        row("1,000 connections, ten publishes at a time", 1_000, 10)?,
        row("10,000 connections, a publish at a time", 10_000, 1)?,
    ])
}

/// `publishes` to `connections`, written out together.
fn row(name: &'static str, connections: u32, publishes: u32) -> Result<Row, BenchError> {
    let mut room = Room::new(connections)?;
    Ok(Row::of_units(name, u64::from(connections) * u64::from(publishes), move || {
        (0..publishes).for_each(|_| room.publish());
        black_box(room.flush());
    }))
}

/// A shard and the clients in it.
struct Room {
    shard: Shard,
    content: Content,
    effects: Effects,
    dirty: Vec<ConnKey>,
    now: Now,
}

impl Room {
    /// With so many users, each with one WebSocket.
    fn new(connections: u32) -> Result<Room, BenchError> {
        let config = ShardConfig {
            production: true,
            cors: Cors::none(),
            ..ShardConfig::plain("bench", verifier().ok_or_else(|| BenchError("no verifier".to_owned()))?)
        };
        let metrics = Arc::new(NodeMetrics::new(1, ROUTE_LABELS.len()));
        let shard = Shard::new(ShardId(0), 1, Arc::new(config), Arc::clone(&metrics), Arc::new(NoPages), 1);
        let content = content().ok_or_else(|| BenchError("no content".to_owned()))?;
        let now = Now { mono_us: 1_000_000, unix_ns: UNIX_NS };
        let mut room = Room { shard, content, effects: Effects::default(), dirty: Vec::new(), now };
        for client in 0..connections {
            room.connect(&format!("user-{client:06}"))?;
        }
        room.flush();
        let registered = metrics.sum(|shard| shard.connections_ws.get());
        if registered == u64::from(connections) {
            return Ok(room);
        }
        Err(BenchError(format!("{registered} of {connections} clients were registered")))
    }

    fn connect(&mut self, user: &str) -> Result<(), BenchError> {
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let key = self.shard.accepted(self.now, peer).ok_or("no room").map_err(trying("connect"))?;
        let mut request = format!(
            "GET /ws?token={} HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            token(user)
        )
        .into_bytes();
        self.shard.received(self.now, key, &mut request, &mut self.effects);
        Ok(())
    }

    /// One notification to everybody, into every outbox.
    fn publish(&mut self) {
        self.now.mono_us += 1;
        self.now.unix_ns += 1_000;
        let submission = Submission {
            tenant: TenantId::default_tenant(),
            target: Target::Broadcast,
            content: self.content.clone(),
            claim: None,
            source: Source::Http,
        };
        self.shard.publish(self.now, submission, &mut self.effects);
        while self.shard.work(self.now, &mut self.effects) {}
    }

    /// Writes out everything, to sockets that take it all; answers the bytes.
    fn flush(&mut self) -> usize {
        let mut bytes = 0;
        loop {
            self.shard.take_dirty(&mut self.dirty);
            if self.dirty.is_empty() {
                break;
            }
            for key in self.dirty.drain(..) {
                let len = self.shard.output(self.now, key).len();
                bytes += len;
                self.shard.written(self.now, key, len, false, &mut self.effects);
            }
        }
        self.shard.flushed_all();
        // One shard alone asks nobody for anything.
        self.effects.clear();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_written_every_publish() {
        let mut room = Room::new(50).unwrap();
        room.publish();
        let one = room.flush();
        assert!((50 * 280..50 * 340).contains(&one), "{one} bytes of frames of about 300");
        (0..10).for_each(|_| room.publish());
        assert_eq!(room.flush(), one * 10);
        assert_eq!(room.flush(), 0);
    }

    #[test]
    fn every_row_runs() {
        rows().unwrap().into_iter().for_each(|mut row| (row.call)());
    }
}
