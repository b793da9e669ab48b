//! PostgreSQL's words, cut and whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| storage_fuzz::postgres::session(bytes));
