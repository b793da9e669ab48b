//! What holds of every parser, whatever bytes it is given. One function per boundary: it takes the bytes as they are,
//! so that a seed of a corpus is a body, a head or a stream that one can read, and it panics when something does not
//! hold.
//!
//! libFuzzer calls them from `fuzz_targets/`; `protocol/tests/mutations.rs` calls them from the ordinary test run.
pub mod cluster;
pub mod frame;
mod hearing;
pub mod http;
pub mod json;
pub mod publish;
pub mod route;
pub mod template;
pub mod token;
pub mod websocket;

/// A property and the folder of its seeds in `corpus/`.
pub type Property = (&'static str, fn(&[u8]));

/// All of them, by the names of their fuzz targets.
pub const ALL: [Property; 13] = [
    ("client_command", json::client_command),
    ("cluster_parcel", cluster::parcel),
    ("cluster_topic", cluster::topic),
    ("frame", frame::frame),
    ("http_body", http::body),
    ("http_head", http::head),
    ("json", json::json),
    ("publish_bodies", publish::bodies),
    ("redis_payload", publish::redis),
    ("route", route::route_and_query),
    ("template", template::template),
    ("token", token::token),
    ("ws_decoder", websocket::decoder),
];

/// Nanoseconds since the Unix epoch: when everything here happens.
pub const AT_NS: u64 = 1_767_323_045_123_456_789;

/// A source of cuts and choices that the bytes decide: the same input is always looked at in the same way.
pub fn rng_of(bytes: &[u8]) -> fastrand::Rng {
    // FNV-1a.
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    fastrand::Rng::with_seed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash))
}

/// The bytes torn into pieces of random lengths; one byte at a time now and then, where that stays cheap.
pub fn torn<'a>(bytes: &'a [u8], rng: &mut fastrand::Rng) -> Vec<&'a [u8]> {
    let piece_max = match rng.u8(0..4) {
        0 if bytes.len() <= 256 => 1,
        1 => 8 + bytes.len() / 64,
        _ => bytes.len().max(1),
    };
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rng.usize(1..=piece_max.min(rest.len())));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// A text that goes to a stranger or into the log: short, of one line.
#[track_caller]
pub fn assert_telling(text: &str, bytes_max: usize) {
    assert!(!text.is_empty() && text.len() <= bytes_max, "{} bytes: {text:.400}", text.len());
    assert!(!text.contains(char::is_control), "a control character in {text:?}");
}
