//! `check-config`: what holds, and what is wrong with it.
use super::{Failure, print};
use crate::config::{Settings, Sources, show};

/// Prints the effective settings and the warnings.
///
/// # Errors
/// The settings are not usable.
pub fn run(sources: &Sources) -> Result<(), Failure> {
    let loaded = Settings::load(sources).map_err(|problems| Failure::of_configuration(&problems))?;
    print(show::effective(&loaded).trim_end());
    print(format_args!("\nKept: {}", loaded.settings.kept()));
    for warning in &loaded.warnings {
        print(format_args!("Warning: {warning}"));
    }
    Ok(())
}
