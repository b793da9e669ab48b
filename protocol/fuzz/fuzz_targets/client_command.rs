//! What a client says in a text message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::json::client_command(bytes));
