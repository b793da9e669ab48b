//! A WebSocket echo over the service's own codec, for conformance suites that want one:
//!
//! ```bash
//! cargo run --release --example ws-echo -- 127.0.0.1:9001
//! ```
mod echo;

use std::net::TcpListener;
use std::process::ExitCode;

fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = match TcpListener::bind(&address) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {address}: {error}; give another address, such as 127.0.0.1:9002");
            return ExitCode::FAILURE;
        }
    };
    println!("echoing WebSocket messages on ws://{address}");
    echo::listen(&listener);
    ExitCode::SUCCESS
}
