//! Messages of Redis.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::publish::redis(bytes));
