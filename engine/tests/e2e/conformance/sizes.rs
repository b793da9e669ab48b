//! Sections 9 and 10: long messages, in one frame, in fragments and in many writes; and many messages, one at a time.
use super::{BINARY, Case, FIN, Heard, TEXT, fragments, frame};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const LENGTHS: [usize; 6] = [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB];
const FRAGMENT_BYTES: [usize; 9] = [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB];
const WRITE_BYTES: [usize; 6] = [64, 128, 256, 512, KIB, 2 * KIB];
const ROUND_TRIP_BYTES: [usize; 6] = [0, 16, 64, 256, KIB, 4 * KIB];
const ROUND_TRIPS: usize = 1_000;

/// 9. The groups are twins: texts, then bytes.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (twin, opcode) in [(0, TEXT), (1, BINARY)] {
        let mut add = |group: usize, at: usize, len: usize, shape: &dyn Fn(Case, Vec<u8>) -> Case| {
            cases.push(shape(Case::new(format!("9.{}.{at}", group + twin)), payload(opcode, len)));
        };
        let whole = |bytes: &[u8]| frame(FIN | opcode, bytes);
        for (at, len) in (1..).zip(LENGTHS) {
            add(1, at, len, &|case, bytes| case.say(whole(&bytes)).hear(heard(opcode, bytes)));
        }
        for (at, fragment) in (1..).zip(FRAGMENT_BYTES) {
            add(3, at, 4 * MIB, &|case, bytes| {
                case.say(fragments(opcode, &bytes, fragment).concat()).hear(heard(opcode, bytes))
            });
        }
        for (at, write) in (1..).zip(WRITE_BYTES) {
            add(5, at, MIB, &|case, bytes| case.say_in_pieces(whole(&bytes), write).hear(heard(opcode, bytes)));
        }
        for (at, len) in (1..).zip(ROUND_TRIP_BYTES) {
            add(7, at, len, &|case, bytes| {
                (0..ROUND_TRIPS).fold(case, |case, _| case.say(whole(&bytes)).hear(heard(opcode, bytes.clone())))
            });
        }
    }
    cases
}

/// 10.
pub(super) fn fragmented_by_the_sender() -> Vec<Case> {
    let text = vec![b'*'; 64 * KIB];
    let frames = fragments(TEXT, &text, 1_300);
    assert_eq!(frames.len(), 51);
    vec![Case::new("10.1.1").say_each(frames).hear_text(text)]
}

/// Bytes that show when something was lost, doubled or moved; of a text, characters that no fragment's length divides.
fn payload(opcode: u8, len: usize) -> Vec<u8> {
    if opcode == BINARY {
        return (0..len).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    }
    let mut bytes = "訊息 Ara 😀\n".repeat(len / 18 + 1).into_bytes();
    while bytes.len() > len || std::str::from_utf8(&bytes).is_err() {
        bytes.pop();
    }
    bytes.resize(len, b'*');
    bytes
}

fn heard(opcode: u8, bytes: Vec<u8>) -> Heard {
    if opcode == TEXT { Heard::Text(bytes) } else { Heard::Binary(bytes) }
}
