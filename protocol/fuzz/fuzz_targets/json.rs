//! JSON text, checked and compacted.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::json::json(bytes));
