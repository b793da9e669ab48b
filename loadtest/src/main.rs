//! `ara-loadtest`: see the crate's documentation and `--help`.
use clap::Parser;
use loadtest::args::Args;
use std::process::ExitCode;

/// 0: every check held. 1: something was lost, doubled, out of order, refused, or a threshold was missed.
/// 2: the run could not be made.
fn main() -> ExitCode {
    let args = Args::parse();
    match loadtest::run(&args) {
        Ok(report) => {
            print!("{}", report.table());
            if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("ara-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}
