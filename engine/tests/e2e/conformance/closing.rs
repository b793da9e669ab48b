//! Section 7: how connections end.
use super::{CLOSE, CONTINUATION, Case, FIN, TEXT, close, frame, ping, text};

const HELLO: &str = "Hello World!";
/// Codes that may travel (RFC 6455 §7.4), and codes that may not.
const GOOD: [u16; 13] = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
const BAD: [u16; 9] = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
/// Undefined by RFC 6455, so a suite takes anything; here a code that nobody may use breaks the protocol.
const BEYOND: [u16; 2] = [5000, 65_535];

pub(super) fn all() -> Vec<Case> {
    let normal = || close(1000, b"");
    // What comes behind a Close is nobody's concern any more.
    let then = |number: &str, after: Vec<u8>| Case::new(number).say([normal(), after].concat()).answered(Some(1000));
    let long = vec![b'#'; 256 * 1024];
    let not_utf8 = ["κ\u{1f79}σμε".as_bytes(), &[0xed, 0xa0, 0x80], b"edited"].concat();
    let mut cases = vec![
        Case::new("7.1.1").say(text(HELLO)).hear_text(HELLO),
        then("7.1.2", frame(FIN | CLOSE, b"")),
        then("7.1.3", ping(b"")),
        then("7.1.4", text(HELLO)),
        Case::new("7.1.5")
            .say([frame(TEXT, b"fragment1"), normal(), frame(FIN | CONTINUATION, b"fragment2")].concat())
            .answered(Some(1000)),
        // A suite takes it when the Close overtakes the messages before it; here it does not.
        Case::new("7.1.6")
            .say([text(&long), text(HELLO), normal(), ping(b"")].concat())
            .hear_text(long)
            .hear_text(HELLO)
            .answered(Some(1000)),
        Case::new("7.3.1").say(frame(FIN | CLOSE, b"")).answered(None),
        Case::new("7.3.2").say(frame(FIN | CLOSE, b"a")).failed(1002),
        Case::new("7.3.3").say(normal()).answered(Some(1000)),
        Case::new("7.3.4").say(close(1000, HELLO.as_bytes())).answered(Some(1000)),
        Case::new("7.3.5").say(close(1000, &[b'*'; 123])).answered(Some(1000)),
        Case::new("7.3.6").say(close(1000, &[b'*'; 124])).failed(1002),
        Case::new("7.5.1").say(close(1000, &not_utf8)).failed(1007),
    ];
    cases.extend(
        (1..).zip(GOOD).map(|(at, code)| Case::new(format!("7.7.{at}")).say(close(code, b"")).answered(Some(code))),
    );
    let refused =
        |group: &str, at: usize, code: u16| Case::new(format!("7.{group}.{at}")).say(close(code, b"")).failed(1002);
    cases.extend((1..).zip(BAD).map(|(at, code)| refused("9", at, code)));
    cases.extend((1..).zip(BEYOND).map(|(at, code)| refused("13", at, code)));
    cases
}
