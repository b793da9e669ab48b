//! Streams of client frames, against tungstenite.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::websocket::decoder(bytes));
