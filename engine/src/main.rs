//! The notification service: one binary that serves, and that helps those who run it.
use clap::Parser;
use engine::args::Args;
use std::process::ExitCode;

fn main() -> ExitCode {
    engine::commands::run(Args::parse())
}
