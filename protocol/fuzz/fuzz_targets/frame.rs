//! Notifications of any content, as clients read them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::frame::frame(bytes));
