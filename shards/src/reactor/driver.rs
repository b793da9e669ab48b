//! Which kernel interface the shard sleeps on: io_uring, or epoll where a container forbids it.
use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use std::io;

/// Entries of the ring. A shard has one wait in flight and no other operation; this is monoio's minimum.
const RING_ENTRIES: u32 = 256;

/// The runtime of a shard.
pub(super) type Runtime = FusionRuntime<IoUringDriver, LegacyDriver>;

/// What a shard sleeps on. Sockets are served by the shard's own epoll set either way, so figures are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// A ring of its own.
    IoUring,
    /// Plain epoll: io_uring is missing, forbidden, or switched off with `MONOIO_FORCE_LEGACY_DRIVER=1`.
    Epoll,
}

impl DriverKind {
    /// For logs and figures: `io_uring` or `epoll`.
    pub fn as_str(self) -> &'static str {
        match self {
            DriverKind::IoUring => "io_uring",
            DriverKind::Epoll => "epoll",
        }
    }
}

/// Builds the runtime, on the thread that will run it: a ring with `single_issuer` belongs to its maker.
///
/// io_uring is tried with its flags (Linux 6.0), then without, then epoll. `uring` off goes to epoll at once.
/// `MONOIO_FORCE_LEGACY_DRIVER` is read by monoio's own detection, once a process.
///
/// # Errors
/// When not even an epoll set can be made: no file descriptor is left.
pub(super) fn build(uring: bool) -> io::Result<(Runtime, DriverKind)> {
    if uring && monoio::utils::detect_uring() {
        // Not `defer_taskrun`: completions would then wait until this thread asks for them, which a busy shard does
        // seldom.
        let mut flagged = io_uring::IoUring::builder();
        flagged.setup_coop_taskrun().setup_single_issuer();
        for builder in [flagged, io_uring::IoUring::builder()] {
            match RuntimeBuilder::<IoUringDriver>::new().uring_builder(builder).with_entries(RING_ENTRIES).build() {
                Ok(runtime) => return Ok((runtime.into(), DriverKind::IoUring)),
                Err(error) => tracing::debug!(%error, "the kernel refuses this kind of ring"),
            }
        }
    }
    let runtime = RuntimeBuilder::<LegacyDriver>::new().with_entries(RING_ENTRIES).build()?;
    Ok((runtime.into(), DriverKind::Epoll))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_always_found() {
        let (mut runtime, kind) = build(true).unwrap();
        assert_eq!(runtime.block_on(async { 7 }), 7);
        assert_eq!(kind == DriverKind::IoUring, monoio::utils::detect_uring());
        drop(runtime);
        let (mut runtime, kind) = build(false).unwrap();
        assert_eq!(runtime.block_on(async { 7 }), 7);
        assert_eq!(kind, DriverKind::Epoll);
    }
}
