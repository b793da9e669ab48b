//! Whatever a peer sends, however it is cut, and however slowly it reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    shards_fuzz::connection_bytes(input);
});
