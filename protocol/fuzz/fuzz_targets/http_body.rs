//! A body that is cut anywhere comes to the same bytes, the same end, or the same refusal as one that came whole.
#![no_main]
use libfuzzer_sys::fuzz_target;
use protocol::http::body::{BodyDecoder, BodyError, BodyFraming};

const BODY_BYTES_MAX: usize = 4_096;

fn fed(framing: BodyFraming, pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), BodyError> {
    let mut decoder = BodyDecoder::new(framing, BODY_BYTES_MAX)?;
    let (mut body, mut consumed, mut done) = (Vec::new(), 0, false);
    for piece in pieces {
        let progress = decoder.decode(piece, &mut body)?;
        consumed += progress.consumed;
        done = progress.done;
    }
    assert!(body.len() <= BODY_BYTES_MAX && body.len() <= consumed);
    Ok((body, consumed, done))
}

fuzz_target!(|input: (Option<u16>, u16, &[u8])| {
    let (length, cut, bytes) = input;
    let framing = length.map_or(BodyFraming::Chunked, |length| BodyFraming::Length(length.into()));
    let (first, second) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(fed(framing, &[first, second]), fed(framing, &[bytes]));
});
