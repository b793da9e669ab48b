//! `ara-bench`: see the crate's documentation and `--help`.
use bench::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.command {
        Command::Ceiling(ceiling) => bench::ceiling::run(ceiling),
        Command::Codec(args) => Ok(bench::codec::run(args)),
        Command::Fanout(args) => bench::fanout::run(args),
        Command::Drain(drain) => return finish(bench::drain::run(drain)),
    };
    finish(outcome.and_then(|table| {
        print!("{}", table.text());
        table.write_json(args.json.as_deref())
    }))
}

fn finish(outcome: Result<(), bench::BenchError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ara-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
