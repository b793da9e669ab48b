//! A head that is cut anywhere is the beginning of a head, or already comes to what the whole comes to.
#![no_main]
use libfuzzer_sys::fuzz_target;
use protocol::http::head::{HeadStatus, parse};

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let part = parse(&bytes[..usize::from(cut).min(bytes.len())]);
    if part != Ok(HeadStatus::Partial) {
        assert_eq!(part, parse(bytes));
    }
});
