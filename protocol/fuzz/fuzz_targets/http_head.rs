//! Request heads, cut and whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::http::head(bytes));
