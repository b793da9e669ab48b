//! Parcels of other nodes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| protocol_fuzz::cluster::parcel(bytes));
