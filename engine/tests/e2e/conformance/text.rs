//! Section 6: texts that are UTF-8, texts that are not, and how soon that is noticed.
use super::{CONTINUATION, Case, FIN, TEXT, fragments, frame, ping, text};

/// κόσμε, as the well-known stress test for UTF-8 decoders begins: its second letter is the one of three bytes.
const KOSME: &[u8] = "κ\u{1f79}σμε".as_bytes();
const UMLAUTS: &str = "Hello-µ@ßöäüàá-UTF-8!!";
/// A code point above U+10FFFF: its second byte is the first that cannot be.
const BEYOND: &[u8] = &[0xf4, 0x90, 0x80, 0x80];
const EDITED: &[u8] = b"edited";

pub(super) fn all() -> Vec<Case> {
    let mut cases = good_and_bad();
    for (group, texts) in (5..).zip(stress()) {
        for (at, payload) in (1..).zip(texts) {
            let case = Case::new(format!("6.{group}.{at}")).say(text(&payload));
            let is_text = std::str::from_utf8(&payload).is_ok();
            cases.push(if is_text { case.hear_text(payload) } else { case.failed(1007) });
        }
    }
    cases
}

/// 6.1 to 6.4.
fn good_and_bad() -> Vec<Case> {
    let empty = || frame(CONTINUATION, b"");
    let (split, by_byte) = (UMLAUTS.find('ü').unwrap_or(0), |payload: &[u8]| fragments(TEXT, payload, 1));
    let halves = [frame(TEXT, &UMLAUTS.as_bytes()[..split]), frame(FIN | CONTINUATION, &UMLAUTS.as_bytes()[split..])];
    let wrong = [KOSME, &[0xed, 0xa0, 0x80], EDITED].concat();
    // Of one frame, or fragment, only what lies before the first byte that cannot be, and that: the rest is never said,
    // so nothing but that byte can have told.
    let beyond = [KOSME, BEYOND, EDITED].concat();
    let first_wrong = KOSME.len() + 1;
    let chopped = frame(FIN | TEXT, &beyond);
    let header_bytes = chopped.len() - beyond.len();
    let (begun, up_to) = (header_bytes + KOSME.len(), header_bytes + first_wrong + 1);
    let accepted = |case: Case| case.say(ping("so far")).hear_pong("so far");
    vec![
        Case::new("6.1.1").say(text("")).hear_text(""),
        Case::new("6.1.2").say([frame(TEXT, b""), empty(), frame(FIN, b"")].concat()).hear_text(""),
        Case::new("6.1.3")
            .say([frame(TEXT, b""), frame(CONTINUATION, b"middle"), frame(FIN, b"")].concat())
            .hear_text("middle"),
        Case::new("6.2.1").say(text(UMLAUTS)).hear_text(UMLAUTS),
        Case::new("6.2.2").say(halves.concat()).hear_text(UMLAUTS),
        Case::new("6.2.3").say(by_byte(UMLAUTS.as_bytes()).concat()).hear_text(UMLAUTS),
        Case::new("6.2.4").say(by_byte(KOSME).concat()).hear_text(KOSME),
        Case::new("6.3.1").say(text(&wrong)).failed(1007),
        Case::new("6.3.2").say(by_byte(&wrong).concat()).failed(1007),
        accepted(Case::new("6.4.1").say(frame(TEXT, KOSME))).say(frame(CONTINUATION, BEYOND)).failed(1007),
        accepted(Case::new("6.4.2").say(frame(TEXT, &beyond[..first_wrong])))
            .say(frame(CONTINUATION, &beyond[first_wrong..=first_wrong]))
            .failed(1007),
        Case::new("6.4.3")
            .say_each(vec![chopped[..begun].to_vec(), chopped[begun..begun + BEYOND.len()].to_vec()])
            .failed(1007),
        Case::new("6.4.4")
            .say_each(vec![chopped[..up_to - 1].to_vec(), chopped[up_to - 1..up_to].to_vec()])
            .failed(1007),
    ]
}

/// 6.5 to 6.23: what Markus Kuhn's stress test asks of a decoder, group by group.
fn stress() -> Vec<Vec<Vec<u8>>> {
    /// The bytes a number would have if UTF-8 went on beyond four bytes, or need not be the shortest form.
    fn spelt(number: u32, len: usize) -> Vec<u8> {
        if len == 1 {
            return vec![number as u8];
        }
        let lead = 0xff_u8 << (8 - len);
        let bits = |at: usize| number >> (6 * (len - 1 - at));
        (0..len).map(|at| if at == 0 { lead | bits(0) as u8 } else { 0x80 | bits(at) as u8 & 0x3f }).collect()
    }
    let shortest = |point: u32| match point {
        0..=0x7f => spelt(point, 1),
        0x80..=0x7ff => spelt(point, 2),
        0x800..=0xffff => spelt(point, 3),
        _ => spelt(point, 4),
    };
    let each = |points: &[u32]| points.iter().map(|point| shortest(*point)).collect::<Vec<_>>();
    let in_every_form =
        |numbers: [u32; 5]| (2..).zip(numbers).map(|(len, number)| spelt(number, len)).collect::<Vec<_>>();
    // The first and the last number of every length; from five bytes on, and above U+10FFFF, they are no characters.
    let last = |len: usize| spelt(if len == 1 { 0x7f } else { (1 << (5 * len + 1)) - 1 }, len);
    let cut = |mut bytes: Vec<u8>| {
        bytes.pop();
        bytes
    };
    let incomplete: Vec<Vec<u8>> =
        (2..=6).map(|len| cut(spelt(0, len))).chain((2..=6).map(|len| cut(last(len)))).collect();
    let lonely = |leads: std::ops::Range<u8>| leads.flat_map(|lead| [lead, b' ']).collect::<Vec<u8>>();
    let (highs, lows) = ([0xd800, 0xdb7f, 0xdb80, 0xdbff], [0xdc00, 0xdfff]);
    let mut pairs = Vec::new();
    for high in highs {
        pairs.extend(lows.map(|low| [shortest(high), shortest(low)].concat()));
    }
    // U+FFFE and U+FFFF of every plane: no characters, but UTF-8 has bytes for them.
    let mut no_characters = each(&[0xfffe, 0xffff]);
    no_characters.extend((1..=16).flat_map(|plane| each(&[plane << 16 | 0xfffe, plane << 16 | 0xffff])));
    let hello = ["$", "¢", "€", "𤭢"].map(|character| format!("hello{character}world").into_bytes());
    vec![
        hello.into_iter().chain([KOSME.to_vec()]).collect(),
        (1..=KOSME.len()).map(|end| KOSME[..end].to_vec()).collect(),
        each(&[0, 0x80, 0x800, 0x1_0000]),
        vec![spelt(0x20_0000, 5), spelt(0x400_0000, 6)],
        each(&[0x7f, 0x7ff, 0xffff, 0x10_ffff]),
        (4..=6).map(last).collect(),
        each(&[0xd7ff, 0xe000, 0xfffd, 0x10_ffff, 0x11_0000]),
        [vec![0x80], vec![0xbf]]
            .into_iter()
            .chain((2..=6).map(|len| [0x80, 0xbf].into_iter().cycle().take(len).collect()))
            .chain([(0x80..0xbf).collect()])
            .collect(),
        [0xc0..0xdf, 0xe0..0xef, 0xf0..0xf7, 0xf8..0xfb, 0xfc..0xfd].map(lonely).to_vec(),
        incomplete.clone(),
        vec![incomplete.concat()],
        vec![vec![0xfe], vec![0xff], vec![0xfe, 0xfe, 0xff, 0xff]],
        in_every_form([0x2f; 5]),
        in_every_form([0x7f, 0x7ff, 0xffff, 0x1f_ffff, 0x3ff_ffff]),
        in_every_form([0; 5]),
        each(&[0xd800, 0xdb7f, 0xdb80, 0xdbff, 0xdc00, 0xdf80, 0xdfff]),
        pairs,
        no_characters,
        each(&[0xfff9, 0xfffa, 0xfffb, 0xfffc, 0xfffd, 0xfffe, 0xffff]),
    ]
}
