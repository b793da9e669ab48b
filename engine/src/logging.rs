//! Log lines on stdout: for people or as JSON, with UTC times. `RUST_LOG` and `LOG_FORMAT` govern them.
use crate::config::settings::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Starts logging for the whole process.
///
/// # Errors
/// Something else of this process has already started it.
pub fn start(settings: &LogSettings) -> Result<(), TryInitError> {
    // Colours are for eyes: never into files and pipes, and not where somebody asked for none (no-color.org).
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty());
    // The configuration took the filter only because it parses.
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_target(true);
    match settings.format {
        LogFormat::Human => lines.finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
}
