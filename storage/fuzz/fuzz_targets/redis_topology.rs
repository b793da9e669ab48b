//! Answers to where Redis is, cut and whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| storage_fuzz::redis_topology::answers(bytes));
