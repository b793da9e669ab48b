//! What holds of every conversation with Redis and PostgreSQL, whatever the other side says: no panic, bounded room, the
//! same heard however the bytes are cut, and no secret in a word for the log. One function per conversation.
//!
//! The first bytes of an input choose who is asked and what; the rest is what the server says, so that a seed is a
//! transcript that one can read.
//!
//! libFuzzer calls them from `fuzz_targets/`; `storage/tests/mutations.rs` calls them from the ordinary test run.
pub mod postgres;
pub mod records;
pub mod redis_commands;
pub mod redis_session;
pub mod redis_topology;
pub mod urls;

/// A property and the folder of its seeds in `corpus/`.
pub type Property = (&'static str, fn(&[u8]));

/// All of them, by the names of their fuzz targets.
pub const ALL: [Property; 6] = [
    ("kept_records", records::kept),
    ("postgres_session", postgres::session),
    ("redis_commands", redis_commands::session),
    ("redis_session", redis_session::session),
    ("redis_topology", redis_topology::answers),
    ("urls", urls::urls),
];

/// The password in every conversation; it must not be heard again.
pub const PASSWORD: &str = "s3cr3t";

/// A source of cuts that the bytes decide: the same input is always cut in the same way.
pub fn rng_of(bytes: &[u8]) -> fastrand::Rng {
    // FNV-1a.
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    fastrand::Rng::with_seed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, hash))
}

/// How long the next piece is: one byte at a time for some inputs, a few for others.
pub fn cuts(bytes: &[u8]) -> impl FnMut() -> usize {
    let mut rng = rng_of(bytes);
    let bytes_max = [1, 7, 40, 700][rng.usize(0..4)];
    move || rng.usize(1..=bytes_max)
}

/// Puts the next piece of `said` into `room` and tells how long it was.
pub fn pour(said: &mut &[u8], room: &mut [u8], piece: usize) -> usize {
    assert!(!room.is_empty(), "there is always room after all events were taken");
    let taken = piece.clamp(1, said.len().min(room.len()));
    room[..taken].copy_from_slice(&said[..taken]);
    *said = &said[taken..];
    taken
}

/// Words for the log: without our password, if we have one in this conversation, and without what would end a line.
#[track_caller]
pub fn assert_harmless(words: &str, has_password: bool) {
    assert!(!has_password || !words.contains(PASSWORD), "the password in {words:?}");
    assert!(!words.contains(char::is_control), "a control character in {words:?}");
}
