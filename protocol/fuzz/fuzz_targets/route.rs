//! Request targets: paths and queries.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::route::route_and_query(bytes));
