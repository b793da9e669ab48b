//! What a subscription says, cut and whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| storage_fuzz::redis_session::session(bytes));
