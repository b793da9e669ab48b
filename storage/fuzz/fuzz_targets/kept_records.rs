//! Mail and templates as they lie in a store.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| storage_fuzz::records::kept(bytes));
