//! Answers to commands, cut and whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| storage_fuzz::redis_commands::session(bytes));
