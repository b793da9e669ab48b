//! The rim of a shard: the only place with sockets, clocks and waiting.
//!
//! | part | what it is |
//! |---|---|
//! | [`run`] | a shard's life on its thread, from its [`ShardSeat`] to the stop |
//! | `turn` | the loop: one turn after another, each step with a budget |
//! | `acts` | carries out effects; keeps a panic with its connection |
//! | `sockets`, `listener` | the connections' descriptors; accepting and refusing |
//! | `tls` | between sockets and shard where clients speak TLS |
//! | `guests`, `descriptor` | links to other servers in the shard's epoll set |
//! | `poller`, `park`, `driver` | the epoll set; sleeping on it; what the sleep is built on |
//! | [`StopSignal`], [`clock`], [`nofile`] | the end, the time, the file-descriptor limit |
//!
//! Connections have no task and no operation of the runtime: every socket stands in the shard's own level-triggered
//! epoll set and is read and written by direct calls that never block. The runtime is asked for one thing: to sleep
//! until that set is ready.
mod acts;
pub mod clock;
mod descriptor;
mod driver;
mod guests;
mod listener;
pub mod nofile;
mod park;
mod poller;
mod sockets;
#[cfg(test)]
mod stand_in;
mod stop;
#[cfg(test)]
mod tests;
mod tls;
mod turn;

pub use driver::DriverKind;
pub use listener::ListenerFd;
pub use stop::StopSignal;
pub use tls::{Session, TlsSource};

// The tests of this module drive a small shard of their own, with the same methods.
#[cfg(not(test))]
use crate::shard::Shard;
#[cfg(test)]
use stand_in::Shard;

use crate::guest::Guest;
use crate::host::{ClusterPort, StorePort};
use crate::key::ShardId;
use crate::mesh::{Bell, MeshPort};
use crate::metrics::NodeMetrics;
use guests::{GUESTS_MAX, GuestSeat};
use listener::Listener;
use park::{Bed, Timer};
use poller::{Poller, Token};
use rustix::event::epoll::EventFlags;
use rustix::thread::{CpuSet, sched_setaffinity};
use sockets::Sockets;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::{fmt, io};
use tls::Secure;
use turn::{Reactor, Scratch};

/// Makes a guest, on its shard's thread. Its helper threads ring the bell when they have left something for it.
pub type MakeGuest = Box<dyn FnOnce(Bell) -> Box<dyn Guest> + Send>;
/// Makes a shard's door to the store with the links behind it, on its shard's thread. Helper threads ring the bell when
/// they have left something.
pub type MakeStore = Box<dyn FnOnce(Bell) -> StoreSeat + Send>;

/// A shard's store.
pub struct StoreSeat {
    /// Where it is asked.
    pub port: Box<dyn StorePort>,
    /// Its links, which live on the shard like other guests and have a turn whenever the port was asked.
    pub links: Vec<Box<dyn Guest>>,
}

/// Makes the bridge shard's door to other nodes with the links behind it, on that shard's thread.
pub type MakeCluster = Box<dyn FnOnce(Bell) -> ClusterSeat + Send>;

/// The bridge to other nodes.
pub struct ClusterSeat {
    /// Where it is asked, and tells.
    pub port: Box<dyn ClusterPort>,
    /// Its links, which live on the shard like other guests and have a turn whenever the port was asked.
    pub links: Vec<Box<dyn Guest>>,
}

/// Everything a shard needs to live on a thread.
pub struct ShardSeat {
    /// Which shard.
    pub id: ShardId,
    /// The core it is pinned to; `None` leaves that to the kernel.
    pub cpu: Option<usize>,
    /// Where it accepts; the shards of a node share one address.
    pub listener: ListenerFd,
    /// What its clients are encrypted with; `None` serves plain text.
    pub tls: Option<Arc<TlsSource>>,
    /// Its place in the mesh.
    pub mesh: MeshPort,
    /// Links that live on this shard; 256 at most, with those of the store.
    pub guests: Vec<MakeGuest>,
    /// Its door to the store.
    pub store: MakeStore,
    /// The bridge to other nodes, on the shard that has it.
    pub cluster: Option<MakeCluster>,
    /// Ends it.
    pub stop: Arc<StopSignal>,
    /// Its figures.
    pub metrics: Arc<NodeMetrics>,
    /// Called once on the shard's thread when everything is set up, before its first turn, with what it sleeps on.
    pub ready: Box<dyn FnOnce(DriverKind) + Send>,
}

/// Why a shard could not begin. After that it does not fail: it ends the process or is told to stop.
#[derive(Debug)]
pub enum ReactorError {
    /// No runtime, epoll set or timer: the process has no file descriptors left, or the system no memory. Raise
    /// `RLIMIT_NOFILE`.
    Setup {
        /// What was being made.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// More guests than a shard seats.
    TooManyGuests {
        /// How many there are.
        guests: usize,
        /// How many there may be.
        guests_max: usize,
    },
}

impl fmt::Display for ReactorError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReactorError::Setup { what, error } => write!(out, "cannot make the shard's {what}: {error}"),
            ReactorError::TooManyGuests { guests, guests_max } => {
                write!(out, "{guests} links on one shard, {guests_max} are possible")
            }
        }
    }
}

impl std::error::Error for ReactorError {}

/// Names what could not be made.
fn setup<T>(what: &'static str, made: io::Result<T>) -> Result<T, ReactorError> {
    made.map_err(|error| ReactorError::Setup { what, error })
}

/// Lives a shard's life on the calling thread: pins it, sets everything up, turns until [`StopSignal::raise`] and the
/// end of the last connection, or [`protocol::limits::SHUTDOWN_DEADLINE_MS`] after the signal.
///
/// A panic while one connection is served closes that connection. Any other ends the process (`abort`), because half a
/// shard would be worse than none.
///
/// # Errors
/// When it could not begin.
pub fn run(seat: ShardSeat, make_shard: impl FnOnce() -> Shard) -> Result<(), ReactorError> {
    run_on(seat, make_shard, true)
}

/// [`run`], with epoll forced when `uring` is off.
fn run_on(seat: ShardSeat, make_shard: impl FnOnce() -> Shard, uring: bool) -> Result<(), ReactorError> {
    let id = seat.id;
    match catch_unwind(AssertUnwindSafe(|| live(seat, make_shard, uring))) {
        Ok(result) => result,
        Err(panic) => {
            let message = acts::panic_message(&*panic);
            tracing::error!(shard = id.0, message, "the shard panicked, the process ends");
            std::process::abort()
        }
    }
}

fn live(seat: ShardSeat, make_shard: impl FnOnce() -> Shard, uring: bool) -> Result<(), ReactorError> {
    let ShardSeat { id, cpu, listener, tls, mesh, guests, store, cluster, stop, metrics, ready } = seat;
    if let Some(cpu) = cpu {
        pin(id, cpu);
    }
    let (mut runtime, driver) = setup("runtime", driver::build(uring))?;
    runtime.block_on(async move {
        let poller = setup("epoll set", Poller::new())?;
        let timer = setup("timer", Timer::new(&poller))?;
        let bed = setup("wait", Bed::new(&poller))?;
        let bell = mesh.bell();
        setup("bell", poller.add(&bell, Token::Bell, EventFlags::IN))?;
        let listener = setup("listener", Listener::new(listener, &poller))?;
        let StoreSeat { port: store, links } = store(bell.clone());
        let guests = guests.into_iter().map(|make| (make(bell.clone()), false));
        let (cluster, cluster_links) = match cluster.map(|make| make(bell.clone())) {
            Some(ClusterSeat { port, links }) => (Some(port), links),
            None => (None, Vec::new()),
        };
        let guests: Vec<_> = guests.chain(links.into_iter().chain(cluster_links).map(|link| (link, true))).collect();
        if guests.len() > GUESTS_MAX {
            return Err(ReactorError::TooManyGuests { guests: guests.len(), guests_max: GUESTS_MAX });
        }
        let guests = guests.into_iter().enumerate();
        // At most 256, so an index fits a byte.
        let guests = guests.map(|(index, (guest, is_store))| GuestSeat::new(index as u8, guest, is_store)).collect();
        let mut reactor = Reactor {
            id,
            shard: make_shard(),
            mesh,
            store,
            cluster,
            store_asked: false,
            node_metrics: metrics,
            stop,
            poller,
            timer,
            bell,
            listener: Some(listener),
            sockets: Sockets::default(),
            secure: tls.map(|source| Box::new(Secure::new(source))),
            guests,
            now: clock::now(),
            progress: false,
            effects: Vec::new(),
            scratch: Scratch::default(),
            leaving: None,
        };
        tracing::info!(shard = id.0, cpu, driver = driver.as_str(), "shard is up");
        ready(driver);
        reactor.run(&bed).await;
        Ok(())
    })
}

/// Pins the calling thread. A core that is not ours to use (a container's share) leaves the choice to the kernel.
fn pin(id: ShardId, cpu: usize) {
    let mut cpus = CpuSet::new();
    let pinned = match cpu < CpuSet::MAX_CPU {
        true => {
            cpus.set(cpu);
            sched_setaffinity(None, &cpus).map_err(io::Error::from)
        }
        false => Err(io::ErrorKind::InvalidInput.into()),
    };
    if let Err(error) = pinned {
        tracing::warn!(shard = id.0, cpu, %error, "cannot pin the shard to its core, the kernel places it");
    }
}
