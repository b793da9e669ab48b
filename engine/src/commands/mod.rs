//! What the binary can be asked to do: one file each.
pub mod check_config;
pub mod client;
pub mod dev;
pub mod healthcheck;
pub mod publish;
pub mod serve;
pub mod token;

use crate::args::{Args, Command, HealthcheckArgs};
use crate::config::{Problem, Sources};
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Does what was asked; the exit code says whether it went well (0) or not (1).
pub fn run(args: Args) -> ExitCode {
    let sources = Sources::of_this_process();
    let done = match args.command {
        _ if args.healthcheck => healthcheck::run(&sources, &HealthcheckArgs::default()),
        None => serve::run(&sources),
        Some(Command::Dev(args)) => dev::run(&sources, &args),
        Some(Command::Token(args)) => token::run(&sources, &args),
        Some(Command::CheckConfig) => check_config::run(&sources),
        Some(Command::Healthcheck(args)) => healthcheck::run(&sources, &args),
        Some(Command::Publish(args)) => publish::run(&sources, &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(text)) => {
            // Nobody left to tell if stderr is gone; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "Error: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command did not do its work, in words for the one who gave it.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl Failure {
    /// From anything that can say what is wrong.
    pub fn new(text: impl Display) -> Failure {
        Failure(text.to_string())
    }

    /// The list of everything that is wrong with the settings.
    pub fn of_configuration(problems: &[Problem]) -> Failure {
        let bullets: String = problems.iter().map(|problem| format!("\n  - {problem}")).collect();
        Failure(format!("Configuration validation failed:{bullets}"))
    }
}

/// Prints to stdout. A reader that went away (`| head`) is no failure worth a panic, which `println!` would make of it.
pub fn print(text: impl Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}
