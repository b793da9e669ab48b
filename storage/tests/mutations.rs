//! Every conversation with a store, with servers that are almost right: the seeds of the fuzz targets, damaged some
//! ten thousand times. What must hold stands in `fuzz/properties/`, so that a fuzzer with feedback asks the same.
//!
//! A failure names its seed and shows its input; in a file, the input is one for `cargo fuzz run <name> <file>`, too.
#[path = "../../protocol/fuzz/damaged.rs"]
mod damaged;
#[path = "../../protocol/fuzz/mutate.rs"]
#[expect(unreachable_pub, reason = "shared with the parsers' tests")]
mod mutate;
#[path = "../fuzz/properties/mod.rs"]
#[expect(unreachable_pub, reason = "a library for the fuzz targets")]
mod properties;

damaged::damaged! {
    properties::ALL:
    kept_records: 20_000,
    postgres_session: 10_000,
    redis_commands: 10_000,
    redis_session: 10_000,
    redis_topology: 10_000,
    urls: 20_000,
}
