//! Frames of clients: our decoder and tungstenite hear the same.
use super::hearing::{compare, ours};
use super::{assert_telling, rng_of, torn};

/// A stream of frames comes to the same messages and the same end whole, torn, and read by tungstenite, which may differ in
/// the ways of [`super::hearing`].
pub fn decoder(stream: &[u8]) {
    let mut rng = rng_of(stream);
    for bytes_max in [40, 65_536] {
        let whole = ours(&[stream], bytes_max);
        assert_eq!(ours(&torn(stream, &mut rng), bytes_max), whole, "torn and whole, at most {bytes_max} bytes");
        if let Some(error) = whole.refusal {
            assert!(matches!(error.close_code().0, 1002 | 1007 | 1009));
            assert_telling(error.reason(), 123);
            assert_telling(&error.to_string(), 123);
        }
        compare(stream, &[stream], &whole, bytes_max);
    }
}
