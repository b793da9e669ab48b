//! The bodies of the five sends and of the batch.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::publish::bodies(bytes));
