//! Sections 1 to 5: lengths, pings and pongs, reserved bits, reserved opcodes, fragments.
use super::{BINARY, CONTINUATION, Case, FIN, PING, PONG, TEXT, binary, close, frame, ping, text};

const HELLO: &str = "Hello, world!";
/// No text: binary messages and pings may carry it.
const BYTES: &[u8] = &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
/// Where the length takes another form, and a message in many writes.
const LENGTHS: [(usize, usize); 8] = [
    (0, usize::MAX),
    (125, usize::MAX),
    (126, usize::MAX),
    (127, usize::MAX),
    (128, usize::MAX),
    (65_535, usize::MAX),
    (65_536, usize::MAX),
    (65_536, 997),
];

/// 1.1 and 1.2.
pub(super) fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, (len, piece)) in (1..).zip(LENGTHS) {
        let payload = vec![b'*'; len];
        cases.push(Case::new(format!("1.1.{at}")).say_in_pieces(text(&payload), piece).hear_text(payload));
        let payload = vec![0xfe; len];
        cases.push(Case::new(format!("1.2.{at}")).say_in_pieces(binary(&payload), piece).hear_binary(payload));
    }
    cases
}

/// 2.
pub(super) fn pings() -> Vec<Case> {
    let full = [0xfe; 125];
    let asked = |number: &str, payload: &[u8]| Case::new(number).say(ping(payload)).hear_pong(payload);
    let ten: Vec<String> = (0..10).map(|n| format!("payload-{n}")).collect();
    let ten_pings: Vec<u8> = ten.iter().flat_map(ping).collect();
    let ten_pongs = |case: Case| ten.iter().fold(case, |case, payload| case.hear_pong(payload.as_bytes()));
    vec![
        asked("2.1", b""),
        asked("2.2", HELLO.as_bytes()),
        asked("2.3", BYTES),
        asked("2.4", &full),
        Case::new("2.5").say(ping([0xfe; 126])).failed(1002),
        Case::new("2.6").say_in_pieces(ping(full), 1).hear_pong(full),
        Case::new("2.7").say([frame(FIN | PONG, b""), close(1000, b"")].concat()).answered(Some(1000)),
        Case::new("2.8").say([frame(FIN | PONG, b"nobody asked"), close(1000, b"")].concat()).answered(Some(1000)),
        Case::new("2.9").say([frame(FIN | PONG, b"nobody asked"), ping("asked")].concat()).hear_pong("asked"),
        ten_pongs(Case::new("2.10").say(ten_pings.clone())),
        ten_pongs(Case::new("2.11").say_in_pieces(ten_pings, 1)),
    ]
}

/// A good message, something wrong, a ping: the message is answered, the ping is not.
fn good_wrong_ping(number: &str, wrong: Vec<u8>, piece: usize) -> Case {
    let said = [text(HELLO), wrong, ping(b"")].concat();
    Case::new(number).say_in_pieces(said, piece).hear_text(HELLO).failed(1002)
}

/// 3.
pub(super) fn reserved_bits() -> Vec<Case> {
    let with = |rsv: u8, opcode: u8, payload: &[u8]| frame(FIN | rsv << 4 | opcode, payload);
    let hello = HELLO.as_bytes();
    vec![
        Case::new("3.1").say(with(1, TEXT, hello)).failed(1002),
        good_wrong_ping("3.2", with(2, TEXT, hello), usize::MAX),
        // The ping may come to a connection that is failed already, and find it gone.
        Case::new("3.3").say_each(vec![text(HELLO), with(3, TEXT, hello)]).hear_text(HELLO).failed(1002),
        good_wrong_ping("3.4", with(4, TEXT, hello), 1),
        Case::new("3.5").say(with(5, BINARY, BYTES)).failed(1002),
        Case::new("3.6").say(with(6, BINARY, hello)).failed(1002),
        Case::new("3.7").say(with(7, 8, b"")).failed(1002),
    ]
}

/// 4.1 and 4.2.
pub(super) fn reserved_opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (group, opcodes) in [(1, 3..=7_u8), (2, 11..=15)] {
        for (at, opcode) in (1..).zip(opcodes) {
            let number = format!("4.{group}.{at}");
            let payload = if at % 2 == 0 { HELLO } else { "" };
            let wrong = frame(FIN | opcode, payload.as_bytes());
            cases.push(match at {
                1 | 2 => Case::new(number).say(wrong).failed(1002),
                3 | 4 => good_wrong_ping(&number, wrong, usize::MAX),
                _ => good_wrong_ping(&number, frame(FIN | opcode, HELLO.as_bytes()), 1),
            });
        }
    }
    cases
}

/// 5.
pub(super) fn fragments() -> Vec<Case> {
    let (one, two) = (frame(TEXT, b"fragment1"), frame(FIN | CONTINUATION, b"fragment2"));
    let both = "fragment1fragment2";
    let in_one = [one.clone(), two.clone()].concat();
    let with_ping = [one.clone(), ping("between"), two.clone()].concat();
    let continued = |fin: u8| frame(fin | CONTINUATION, b"nothing to continue");
    // The second frame of these finds the connection failed already, or gone; it is said all the same.
    let nothing_to_continue = |number: &str, fin: u8, piece: usize| {
        Case::new(number).say_in_pieces([continued(fin), text(HELLO)].concat(), piece).failed(1002)
    };
    let twice = |number: &str, fin: u8| {
        let round = [
            frame(fin | CONTINUATION, b"fragment1"),
            frame(TEXT, b"fragment2"),
            frame(FIN | CONTINUATION, b"fragment3"),
        ];
        Case::new(number).say(round.concat().repeat(2)).failed(1002)
    };
    let five: Vec<Vec<u8>> = (1..=5).map(|n| format!("fragment{n}").into_bytes()).collect();
    let part = |n: usize| {
        let (first, fin) = (if n == 0 { TEXT } else { CONTINUATION }, if n == 4 { FIN } else { 0 });
        frame(first | fin, &five[n])
    };
    let (begin, rest) = (vec![part(0), part(1), ping("pongme 1!")], vec![part(2), part(3), ping("pongme 2!"), part(4)]);
    vec![
        Case::new("5.1").say([frame(PING, b"fragment1"), two.clone()].concat()).failed(1002),
        Case::new("5.2").say([frame(PONG, b"fragment1"), two.clone()].concat()).failed(1002),
        Case::new("5.3").say(in_one.clone()).hear_text(both),
        Case::new("5.4").say_each(vec![one.clone(), two.clone()]).hear_text(both),
        Case::new("5.5").say_in_pieces(in_one, 1).hear_text(both),
        Case::new("5.6").say(with_ping.clone()).hear_pong("between").hear_text(both),
        Case::new("5.7").say_each(vec![one.clone(), ping("between"), two.clone()]).hear_pong("between").hear_text(both),
        Case::new("5.8").say_in_pieces(with_ping, 1).hear_pong("between").hear_text(both),
        nothing_to_continue("5.9", FIN, usize::MAX),
        Case::new("5.10").say_each(vec![continued(FIN)]).failed(1002),
        nothing_to_continue("5.11", FIN, 1),
        nothing_to_continue("5.12", 0, usize::MAX),
        Case::new("5.13").say_each(vec![continued(0)]).failed(1002),
        nothing_to_continue("5.14", 0, 1),
        Case::new("5.15")
            .say([one.clone(), two.clone(), frame(CONTINUATION, b"fragment3"), text("fragment4")].concat())
            .hear_text(both)
            .failed(1002),
        twice("5.16", 0),
        twice("5.17", FIN),
        Case::new("5.18").say([one, text("fragment2")].concat()).failed(1002),
        // The first ping is answered before the message's end is even said.
        Case::new("5.19")
            .say(begin.concat())
            .hear_pong("pongme 1!")
            .say(rest.concat())
            .hear_pong("pongme 2!")
            .hear_text(five.concat()),
        Case::new("5.20")
            .say_each(begin)
            .hear_pong("pongme 1!")
            .say_each(rest)
            .hear_pong("pongme 2!")
            .hear_text(five.concat()),
    ]
}
