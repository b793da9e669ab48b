//! Addresses of stores.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| storage_fuzz::urls::urls(bytes));
