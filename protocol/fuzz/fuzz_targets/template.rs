//! Templates: made, changed, answered, rendered.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::template::template(bytes));
