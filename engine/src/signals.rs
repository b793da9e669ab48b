//! SIGTERM and SIGINT: the first begins the graceful stop, the second ends the process at once.
use shards::reactor::StopSignal;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::thread;

/// Watches on a thread of its own.
///
/// # Errors
/// The handlers could not be set.
pub(crate) fn watch(stop: Arc<StopSignal>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let watch = move || {
        let mut signals = signals.forever();
        if let Some(signal) = signals.next() {
            tracing::info!(signal, "stopping: every client is told; a second signal ends at once");
            stop.raise();
        }
        if let Some(signal) = signals.next() {
            tracing::warn!(signal, "ended at once");
            std::process::exit(128 + signal);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}
