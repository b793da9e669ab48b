use super::*;
use protocol::frame::{EventName, Frame};
use protocol::ids::{NotificationId, TenantId};
use protocol::notification::{Priority, Target};
use protocol::stream::StreamSeq;

fn delivery(text: &str, expires_at_us: Option<u64>) -> Rc<Delivery> {
    delivery_of(Priority::Normal, text, expires_at_us)
}

fn delivery_of(priority: Priority, text: &str, expires_at_us: Option<u64>) -> Rc<Delivery> {
    let frame = Frame::new(EventName::Notification, None, text.as_bytes());
    let publication = Publication {
        id: NotificationId::NIL,
        tenant: TenantId::default_tenant(),
        target: Target::Broadcast,
        audience: None,
        priority,
        expires_at_us,
        accepted_at_us: 0,
        frame,
    };
    let places = Places::One(StreamSeq::default());
    Rc::new(Delivery::new(Arc::new(publication), places, None))
}

fn push(outbox: &mut Outbox, delivery: &Rc<Delivery>) {
    outbox.push(delivery, Transport::WebSocket.bytes(delivery).len()).unwrap();
    delivery.entered(1);
}

/// Writes the outbox dry in pieces of at most `piece` bytes; control is appended after the first piece.
fn drain(outbox: &mut Outbox, piece: usize, mut control: &[u8]) -> Vec<u8> {
    let (mut out, mut scratch) = (Vec::new(), Assembly::default());
    loop {
        let shown = outbox.assemble(Transport::WebSocket, false, &mut scratch);
        let len = shown.len().min(piece);
        out.extend_from_slice(&shown[..len]);
        if len == 0 {
            return out;
        }
        outbox.advance(len, Transport::WebSocket, &mut Vec::new());
        outbox.control().extend_from_slice(std::mem::take(&mut control));
    }
}

#[test]
fn control_goes_ahead_but_never_into_a_frame() {
    let frames = [delivery("one", None), delivery("two", None)];
    for piece in 1..40 {
        let mut outbox = Outbox::default();
        frames.iter().for_each(|frame| push(&mut outbox, frame));
        let text = drain(&mut outbox, piece, b"<pong>");
        let expected: &[u8] = match piece {
            1..5 => b"\x81\x03one<pong>\x81\x03two",
            5..10 if piece == 5 => b"\x81\x03one<pong>\x81\x03two",
            5..10 => b"\x81\x03one\x81\x03two<pong>",
            _ => b"\x81\x03one\x81\x03two<pong>",
        };
        assert_eq!(text, expected, "in pieces of {piece}");
        assert!(outbox.is_empty() && outbox.frame_bytes() == 0);
    }
}

#[test]
fn equal_runs_share_one_assembly_and_others_do_not() {
    let (one, two, three) = (delivery("one", None), delivery("two", None), delivery("three", None));
    let (mut a, mut b, mut c) = (Outbox::default(), Outbox::default(), Outbox::default());
    for (outbox, list) in [(&mut a, [&one, &two]), (&mut b, [&one, &two]), (&mut c, [&one, &three])] {
        list.into_iter().for_each(|frame| push(outbox, frame));
    }
    let mut scratch = Assembly::default();
    assert_eq!(a.assemble(Transport::WebSocket, false, &mut scratch), b"\x81\x03one\x81\x03two");
    assert!(scratch.holds(Transport::WebSocket, &b.frames));
    assert!(!scratch.holds(Transport::SseBare, &b.frames));
    assert_eq!(c.assemble(Transport::WebSocket, false, &mut scratch), b"\x81\x03one\x81\x05three");
}

#[test]
fn what_has_begun_is_finished_and_the_rest_may_expire_or_be_dropped() {
    let frames = [delivery("one", Some(10)), delivery("two", Some(10)), delivery("six", Some(90))];
    let mut outbox = Outbox::default();
    frames.iter().for_each(|frame| push(&mut outbox, frame));
    outbox.advance(1, Transport::WebSocket, &mut Vec::new());
    assert_eq!(outbox.drop_expired(50, Transport::WebSocket), 1, "two is over, one has begun");
    assert_eq!(outbox.drop_frames(Transport::WebSocket), 1);
    assert_eq!(drain(&mut outbox, 64, b""), b"\x03one");
}

#[test]
fn the_bound_is_in_bytes_and_nothing_is_queued_above_it() {
    let big = delivery(&"x".repeat(1_000_000), None);
    let mut outbox = Outbox::default();
    let len = Transport::WebSocket.bytes(&big).len();
    let taken = (0..10).take_while(|_| outbox.push(&big, len).is_ok()).count();
    big.entered(taken);
    assert_eq!(taken, limits::OUTBOX_BYTES_MAX / len);
    assert_eq!(outbox.frame_bytes(), taken * len);
}

#[test]
fn a_reader_that_always_leaves_a_byte_does_not_make_control_grow() {
    let mut outbox = Outbox::default();
    outbox.control().push(b'x');
    for _ in 0..1_000 {
        outbox.control().extend_from_slice(&[b'x'; 1_000]);
        outbox.advance(1_000, Transport::WebSocket, &mut Vec::new());
        assert_eq!(outbox.control_bytes(), 1);
    }
    assert!(outbox.control.capacity() < 32 * 1_024, "{}", outbox.control.capacity());
}

#[test]
fn a_held_connection_shows_control_only() {
    let mut outbox = Outbox::default();
    push(&mut outbox, &delivery("one", None));
    outbox.control().extend_from_slice(b"head");
    let mut scratch = Assembly::default();
    assert_eq!(outbox.assemble(Transport::SseBare, true, &mut scratch), b"head");
}

fn texts(outbox: &Outbox) -> Vec<String> {
    outbox.frames().map(|delivery| String::from_utf8_lossy(delivery.publication.frame.json()).into_owned()).collect()
}

#[test]
fn without_a_backlog_nothing_is_reordered() {
    let mut outbox = Outbox::default();
    for (priority, text) in [(Priority::Low, "a"), (Priority::Critical, "b"), (Priority::Normal, "c")] {
        push(&mut outbox, &delivery_of(priority, text, None));
    }
    assert_eq!(texts(&outbox), ["a", "b", "c"]);
    assert_eq!(drain(&mut outbox, 99, b""), b"\x81\x01a\x81\x01b\x81\x01c");
}

#[test]
fn in_a_backlog_urgent_frames_go_first_and_each_class_keeps_its_order() {
    let mut outbox = Outbox::default();
    let frames = [
        (Priority::Low, "begun"),
        (Priority::Normal, "n1"),
        (Priority::High, "h1"),
        (Priority::Low, "n2"),
        (Priority::Critical, "h2"),
    ];
    frames.iter().for_each(|(priority, text)| push(&mut outbox, &delivery_of(*priority, text, None)));
    outbox.advance(3, Transport::WebSocket, &mut Vec::new());
    outbox.note_backlog();
    assert_eq!(texts(&outbox), ["begun", "h1", "h2", "n1", "n2"]);
    for (priority, text) in [(Priority::Normal, "n3"), (Priority::High, "h3")] {
        push(&mut outbox, &delivery_of(priority, text, None));
    }
    assert_eq!(texts(&outbox), ["begun", "h1", "h2", "h3", "n1", "n2", "n3"]);
    outbox.take_freed();
    outbox.check(Transport::WebSocket);
    drain(&mut outbox, 5, b"");
    for (priority, text) in [(Priority::Normal, "n4"), (Priority::High, "h4")] {
        push(&mut outbox, &delivery_of(priority, text, None));
    }
    assert_eq!(texts(&outbox), ["n4", "h4"], "what waited is through: no backlog any more");
}

#[test]
fn what_an_outbox_lets_go_is_freed_once_though_many_hold_it() {
    let shared = delivery("shared", None);
    let (mut a, mut b) = (Outbox::default(), Outbox::default());
    [&mut a, &mut b].into_iter().for_each(|outbox| push(outbox, &shared));
    a.drop_frames(Transport::WebSocket);
    assert_eq!(a.take_freed(), ENTRY_ROOM_BYTES);
    drain(&mut b, 99, b"");
    assert_eq!((b.take_freed(), b.take_freed()), (ENTRY_ROOM_BYTES + shared.room_bytes(), 0));
    assert_eq!(shared.waits_in(), 0);
}

/// The frames in what a client heard: the number that begins each text, and where it begins.
fn heard(written: &[u8]) -> Vec<(usize, usize)> {
    let (mut at, mut frames) = (0, Vec::new());
    while at < written.len() {
        let (start, len) = match written[at + 1] {
            126 => (4, usize::from(u16::from_be_bytes([written[at + 2], written[at + 3]]))),
            127 => (10, u64::from_be_bytes(written[at + 2..at + 10].try_into().unwrap()) as usize),
            len => (2, usize::from(len)),
        };
        let text = std::str::from_utf8(&written[at + start..at + start + len]).unwrap();
        frames.push((text.split(':').next().unwrap().parse().unwrap(), at));
        at += start + len;
    }
    frames
}

/// Whatever is pushed, taken and dropped: order is kept in each class, and once a write has left an urgent frame behind no
/// ordinary frame begins before it.
#[test]
fn an_urgent_frame_waits_behind_what_was_begun_or_assembled_and_nothing_else() {
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut outbox, mut scratch, mut written) = (Outbox::default(), Assembly::default(), Vec::new());
        // Of each frame: whether it is urgent, and how much had been written when it was left behind for the first time.
        let mut sent: Vec<(bool, Option<usize>)> = Vec::new();
        for _ in 0..rng.usize(1..60) {
            for _ in 0..rng.usize(0..6) {
                let is_urgent = rng.u8(0..3) == 0;
                let [a, b] =
                    if is_urgent { [Priority::High, Priority::Critical] } else { [Priority::Low, Priority::Normal] };
                let priority = if rng.bool() { a } else { b };
                let pad = if rng.u8(0..20) == 0 { limits::WRITE_BYTES_MAX } else { rng.usize(0..200) };
                let text = format!("{}:{}", sent.len(), "x".repeat(pad));
                let expires_at_us = (rng.u8(0..10) == 0).then(|| rng.u64(0..100));
                push(&mut outbox, &delivery_of(priority, &text, expires_at_us));
                sent.push((is_urgent, None));
            }
            if rng.u8(0..6) == 0 {
                outbox.drop_expired(rng.u64(0..100), Transport::WebSocket);
            }
            let shown = outbox.assemble(Transport::WebSocket, false, &mut scratch);
            let takes = if rng.bool() { shown.len() } else { rng.usize(0..=shown.len()) };
            written.extend_from_slice(&shown[..takes]);
            scratch.forget_run();
            outbox.advance(takes, Transport::WebSocket, &mut Vec::new());
            if !outbox.is_empty() {
                outbox.note_backlog();
            }
            let begun = usize::from(outbox.begun().is_some());
            for text in &texts(&outbox)[begun..] {
                let n: usize = text.split(':').next().unwrap().parse().unwrap();
                sent[n].1.get_or_insert(written.len());
            }
            outbox.take_freed();
            outbox.check(Transport::WebSocket);
        }
        written.extend(drain(&mut outbox, usize::MAX, b""));
        let order = heard(&written);
        for urgent in [false, true] {
            let class: Vec<usize> = order.iter().map(|(n, _)| *n).filter(|n| sent[*n].0 == urgent).collect();
            assert!(class.is_sorted(), "seed {seed}: {class:?}");
        }
        for (at, (n, _)) in order.iter().enumerate() {
            let (true, Some(left_at)) = sent[*n] else { continue };
            let overtaking = order[..at].iter().find(|(other, began)| !sent[*other].0 && *began >= left_at);
            assert_eq!(overtaking, None, "seed {seed}: began before {n}, which was left behind at {left_at}");
        }
    }
}
