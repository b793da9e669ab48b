//! The echo of `examples/ws-echo`, in this process, and every case a conformance suite has for it.
#[path = "e2e/conformance/mod.rs"]
mod conformance;
#[path = "../examples/ws-echo/echo.rs"]
mod echo;

use conformance::{SECTIONS, run, section};
use std::collections::BTreeSet;
use std::net::TcpListener;

/// Goes through a section, each case over a connection of its own.
fn asked(number: u8) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || echo::listen(&listener));
    for case in section(number) {
        run(&case, port, "/", |said| said);
    }
}

macro_rules! sections {
    ($($name:ident: $number:literal,)*) => { $(#[test] fn $name() { asked($number); })* };
}

sections! {
    lengths_1: 1,
    pings_and_pongs_2: 2,
    reserved_bits_3: 3,
    reserved_opcodes_4: 4,
    fragments_5: 5,
    utf_8_6: 6,
    closing_7: 7,
    long_messages_and_many_9: 9,
    fragmented_by_the_sender_10: 10,
}

#[test]
fn all_301_cases_are_asked_once() {
    let mut numbers = BTreeSet::new();
    for (number, cases) in SECTIONS {
        let asked = section(number);
        assert_eq!(asked.len(), cases, "of section {number}");
        numbers.extend(asked.into_iter().map(|case| case.number));
    }
    assert_eq!(numbers.len(), 301, "a number was given twice");
}
