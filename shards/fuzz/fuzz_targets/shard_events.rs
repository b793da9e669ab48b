//! Events of a node in any order: sockets, lanes, time, publishes, answers of the store.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    shards_fuzz::shard_events(input);
});
