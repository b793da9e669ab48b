//! Tokens, and what one could be signed around.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::token::token(bytes));
