//! SIGTERM and SIGINT: the first begins the graceful stop, the second ends the process at once. SIGHUP: files that may
//! change while the service runs are read again.
use shards::reactor::StopSignal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::thread;

/// Watches on a thread of its own. Without `reload` SIGHUP ends the process, as when a terminal closes.
///
/// # Errors
/// The handlers could not be set.
pub(crate) fn watch(stop: Arc<StopSignal>, reload: Option<Box<dyn Fn() + Send>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    if reload.is_some() {
        signals.add_signal(SIGHUP)?;
    }
    let watch = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                reload.iter().for_each(|reload| reload());
            } else if stop.is_raised() {
                tracing::warn!(signal, "ended at once");
                std::process::exit(128 + signal);
            } else {
                tracing::info!(signal, "stopping: every client is told; a second signal ends at once");
                stop.raise();
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}
