//! Every parser, given inputs that are almost right: the seeds of the fuzz targets, damaged some ten thousand times.
//! What must hold stands in `fuzz/properties/`, so that a fuzzer with feedback asks the same.
//!
//! A failure names its seed and shows its input; in a file, the input is one for `cargo fuzz run <name> <file>`, too.
#[path = "../fuzz/damaged.rs"]
mod damaged;
#[path = "../fuzz/mutate.rs"]
#[expect(unreachable_pub, reason = "shared with the shards' tests")]
mod mutate;
#[path = "../fuzz/properties/mod.rs"]
#[expect(unreachable_pub, reason = "a library for the fuzz targets")]
mod properties;

damaged::damaged! {
    properties::ALL:
    client_command: 20_000,
    cluster_parcel: 20_000,
    cluster_topic: 20_000,
    frame: 10_000,
    http_body: 20_000,
    http_head: 20_000,
    json: 20_000,
    publish_bodies: 20_000,
    redis_payload: 20_000,
    route: 20_000,
    template: 20_000,
    token: 12_000,
    ws_decoder: 20_000,
}
