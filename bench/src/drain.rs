//! The receiving process of the ceiling: connects, reads with epoll and one big buffer, counts.
//!
//! A process of its own, not a thread: both ends of ten thousand connections would not fit the usual limit of
//! descriptors of one process.
use crate::{BenchError, machine, trying};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use std::net::TcpStream;

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1_024;
/// Events of one wait.
const EVENTS: usize = 1_024;

/// Flags of the receiving process.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the writer listens on 127.0.0.1.
    #[arg(long)]
    pub port: u16,
    /// Connections to make.
    #[arg(long)]
    pub connections: usize,
    /// Core to run on.
    #[arg(long)]
    pub cpu: usize,
}

/// What was received until all connections had ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drained {
    /// Bytes.
    pub bytes: u64,
    /// Reads that brought some.
    pub reads: u64,
    /// CPU of the receiving thread, in nanoseconds.
    pub cpu_ns: u64,
}

/// Receives until the writer closes, and prints the counts as JSON.
pub fn run(args: &Args) -> Result<(), BenchError> {
    machine::pin(args.cpu)?;
    machine::raise_descriptors(args.connections as u64 + 32)?;
    let mut streams = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        streams.push(TcpStream::connect(("127.0.0.1", args.port)).map_err(trying("connect"))?);
    }
    let drained = drain(streams)?;
    println!("{}", serde_json::to_string(&drained).map_err(trying("JSON"))?);
    Ok(())
}

fn drain(streams: Vec<TcpStream>) -> Result<Drained, BenchError> {
    let poller = epoll::create(CreateFlags::CLOEXEC).map_err(trying("epoll"))?;
    let mut open: Vec<Option<TcpStream>> = Vec::with_capacity(streams.len());
    for (index, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true).map_err(trying("non-blocking"))?;
        epoll::add(&poller, stream.as_fd(), EventData::new_u64(index as u64), EventFlags::IN)
            .map_err(trying("epoll"))?;
        open.push(Some(stream));
    }
    let mut left = open.len();
    let mut drained = Drained::default();
    let mut buffer = vec![0u8; READ_BYTES];
    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    while left > 0 {
        events.clear();
        match epoll::wait(&poller, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(trying("epoll wait")(error)),
        }
        for event in &events {
            let slot = &mut open[event.data.u64() as usize];
            let Some(stream) = slot else { continue };
            match rustix::net::recv(&*stream, &mut buffer[..], RecvFlags::empty()) {
                Ok((0, _)) => {
                    *slot = None;
                    left -= 1;
                }
                Ok((bytes, _)) => {
                    drained.bytes += bytes as u64;
                    drained.reads += 1;
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(trying("receive")(error)),
            }
        }
    }
    drained.cpu_ns = machine::thread_cpu_ns();
    Ok(drained)
}
