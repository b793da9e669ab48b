//! What waits to be written to one connection.
//!
//! Two lanes. *Control* is bytes of the connection's own (responses, pongs, replies, closes); it goes before waiting
//! frames but never into the middle of one. *Frames* are shared deliveries in order. Publishing only queues; the rim
//! writes once per turn what [`Outbox::assemble`] shows.
use protocol::limits;
use protocol::notification::Publication;
use protocol::store::Position;
use protocol::stream::Places;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// A publication on one shard: the one atomic count per shard is taken when this is made, the counts per connection are
/// plain.
#[derive(Debug)]
pub struct Delivery {
    /// Shared with the other shards.
    pub publication: Arc<Publication>,
    /// Where it stands: in the user's mail, in its channels, among the tenant's broadcasts.
    pub places: Places,
    /// Set for user mail that is kept until it is written or acknowledged. Boxed: a delivery without one is looked at by each
    /// connection that it goes to, and is one cache line.
    pub mail: Option<Box<MailTag>>,
}

// With the two counts of its `Rc`.
const _: () = assert!(size_of::<Delivery>() + 2 * size_of::<usize>() <= 64, "a delivery is one cache line");

/// What is known of a piece of mail while it waits in outboxes.
#[derive(Debug, Default)]
pub struct MailTag {
    /// Where it stands in the mailbox, if that is known.
    pub position: Cell<Option<Position>>,
    /// Whether it stands in the mailbox, or is on its way there.
    pub kept: Cell<bool>,
    /// Whether some socket took it.
    pub written: Cell<bool>,
    /// Outboxes it waits in.
    pub waits_in: Cell<u32>,
    /// Connections for which it is encrypted and whose sockets have not taken it yet.
    pub sealed_for: Cell<u32>,
}

impl MailTag {
    /// Mail that was read from its mailbox, or has just been put there.
    pub fn kept_at(position: Position) -> MailTag {
        MailTag { position: Cell::new(Some(position)), kept: Cell::new(true), ..MailTag::default() }
    }
}

impl Delivery {
    /// It left an outbox.
    fn let_go(&self) {
        if let Some(mail) = &self.mail {
            mail.waits_in.set(mail.waits_in.get() - 1);
        }
    }
}

/// Which bytes of a frame a connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 6455 frames.
    WebSocket,
    /// SSE blocks in HTTP/1.1 chunks.
    SseChunked,
    /// SSE blocks bare, for HTTP/1.0.
    SseBare,
}

impl Transport {
    /// The bytes of a delivery on this transport.
    pub fn bytes(self, delivery: &Delivery) -> &[u8] {
        let frame = &delivery.publication.frame;
        match self {
            Transport::WebSocket => frame.websocket(),
            Transport::SseChunked => frame.sse_chunk(),
            Transport::SseBare => frame.sse_block(),
        }
    }

    /// Whether this is an SSE stream.
    pub fn is_sse(self) -> bool {
        self != Transport::WebSocket
    }
}

/// The outbox was full; nothing was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Room in the control lane that is not worth giving back, or making.
const CONTROL_ROOM_BYTES: usize = 4_096;

/// The outbox of one connection. It exists only while something waits; empty ones go back to the shard's pool.
#[derive(Debug, Default)]
pub struct Outbox {
    control: Vec<u8>,
    control_sent: usize,
    frames: VecDeque<Rc<Delivery>>,
    /// Bytes of the first frame that are already out.
    head_sent: usize,
    /// Bytes of all frames, the first one's sent part included.
    frame_bytes: usize,
    /// Whether some frame may expire while it waits.
    expiring: bool,
    /// Since when output waits without the socket taking a byte.
    pub waiting_since_us: u64,
}

impl Outbox {
    /// Queues a shared frame; its bytes are `len` on the connection's transport.
    pub fn push(&mut self, delivery: &Rc<Delivery>, len: usize) -> Result<(), Full> {
        if self.frame_bytes + len > limits::OUTBOX_BYTES_MAX || self.frames.len() >= limits::OUTBOX_FRAMES_MAX {
            return Err(Full);
        }
        if let Some(mail) = &delivery.mail {
            mail.waits_in.set(mail.waits_in.get() + 1);
        }
        self.frame_bytes += len;
        self.expiring |= delivery.publication.expires_at_us.is_some();
        self.frames.push_back(Rc::clone(delivery));
        Ok(())
    }

    /// The control lane, to append to.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Control bytes that wait.
    pub fn control_bytes(&self) -> usize {
        self.control.len() - self.control_sent
    }

    /// Frame bytes that wait.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes - self.head_sent
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.control_bytes() == 0
    }

    /// Drops every frame that has not begun to go out; how many.
    pub fn drop_frames(&mut self, transport: Transport) -> usize {
        let begun = usize::from(self.head_sent > 0);
        let dropped = self.frames.len() - begun;
        self.frames.drain(begun..).for_each(|delivery| delivery.let_go());
        self.frame_bytes = self.frames.iter().map(|delivery| transport.bytes(delivery).len()).sum();
        dropped
    }

    /// The frame that has begun to go out and has not ended.
    pub fn begun(&self) -> Option<&Rc<Delivery>> {
        self.frames.front().filter(|_| self.head_sent > 0)
    }

    /// Takes out the mail that stands in no mailbox, in order; `is_end` also what has begun to go out, because nobody will
    /// read its end.
    pub fn take_unkept(&mut self, transport: Transport, is_end: bool) -> Vec<Rc<Delivery>> {
        let (mut taken, mut begun, mut bytes) = (Vec::new(), self.head_sent > 0 && !is_end, 0);
        let is_unkept = |delivery: &Rc<Delivery>| delivery.mail.as_ref().is_some_and(|mail| !mail.kept.get());
        if is_end && self.frames.front().is_some_and(is_unkept) {
            self.head_sent = 0;
        }
        self.frames.retain(|delivery| {
            let keep = std::mem::take(&mut begun) || !is_unkept(delivery);
            if keep {
                bytes += transport.bytes(delivery).len();
            } else {
                delivery.let_go();
                taken.push(Rc::clone(delivery));
            }
            keep
        });
        self.frame_bytes = bytes;
        taken
    }

    /// Drops frames whose time to live is over, except one that has begun to go out; how many.
    pub fn drop_expired(&mut self, now_us: u64, transport: Transport) -> usize {
        if !self.expiring {
            return 0;
        }
        let (before, mut begun, mut bytes, mut expiring) = (self.frames.len(), self.head_sent > 0, 0, false);
        self.frames.retain(|delivery| {
            let expires_at_us = delivery.publication.expires_at_us;
            let keep = std::mem::take(&mut begun) || expires_at_us.is_none_or(|at| at > now_us);
            if keep {
                bytes += transport.bytes(delivery).len();
                expiring |= expires_at_us.is_some();
            } else {
                delivery.let_go();
            }
            keep
        });
        self.frame_bytes = bytes;
        self.expiring = expiring;
        before - self.frames.len()
    }

    /// Shows what to write next: the rest of a frame that has begun, then control, then frames (unless `held`), up to
    /// [`limits::WRITE_BYTES_MAX`]; a frame or control text larger than that is shown as it is.
    pub fn assemble<'a>(&'a self, transport: Transport, held: bool, scratch: &'a mut Assembly) -> &'a [u8] {
        let control = &self.control[self.control_sent..];
        if self.head_sent == 0 && control.is_empty() {
            return if held { &[] } else { self.assemble_run(transport, scratch) };
        }
        if self.head_sent == 0 && (self.frames.is_empty() || held || control.len() >= limits::WRITE_BYTES_MAX) {
            return control;
        }
        scratch.forget_run();
        let mut frames = self.frames.iter();
        if self.head_sent > 0 {
            let Some(head) = frames.next() else { return control };
            let rest = &transport.bytes(head)[self.head_sent..];
            if rest.len() + control.len() > limits::WRITE_BYTES_MAX {
                return rest;
            }
            scratch.bytes.extend_from_slice(rest);
        }
        scratch.bytes.extend_from_slice(control);
        if !held {
            for delivery in frames {
                let frame = transport.bytes(delivery);
                if scratch.bytes.len() + frame.len() > limits::WRITE_BYTES_MAX {
                    break;
                }
                scratch.bytes.extend_from_slice(frame);
            }
        }
        &scratch.bytes
    }

    /// Frames only. The normal case of a busy channel: the run that the connection before had, so its bytes stand ready.
    fn assemble_run<'a>(&'a self, transport: Transport, scratch: &'a mut Assembly) -> &'a [u8] {
        let Some(first) = self.frames.front() else { return &[] };
        let first_bytes = transport.bytes(first);
        if self.frames.len() == 1 || first_bytes.len() >= limits::WRITE_BYTES_MAX {
            return first_bytes;
        }
        if !scratch.holds(transport, &self.frames) {
            scratch.forget_run();
            scratch.transport = Some(transport);
            for delivery in &self.frames {
                let frame = transport.bytes(delivery);
                if scratch.bytes.len() + frame.len() > limits::WRITE_BYTES_MAX {
                    break;
                }
                scratch.bytes.extend_from_slice(frame);
                scratch.run.push(Rc::clone(delivery));
            }
            scratch.of_frames = self.frames.len();
        }
        &scratch.bytes
    }

    /// `len` bytes of what [`Outbox::assemble`] showed went out; mail that is through goes into `mail`.
    pub fn advance(&mut self, mut len: usize, transport: Transport, mail: &mut Vec<Rc<Delivery>>) {
        if self.head_sent > 0 {
            len = self.advance_head(len, transport, mail);
        }
        let control = len.min(self.control_bytes());
        self.control_sent += control;
        len -= control;
        if self.control_sent == self.control.len() {
            self.control.clear();
            self.control_sent = 0;
            if self.control.capacity() > CONTROL_ROOM_BYTES {
                self.control = Vec::new();
            }
        } else if self.control_sent > CONTROL_ROOM_BYTES && self.control_sent * 2 > self.control.len() {
            // A client that never takes the last byte of it must not make it grow for ever.
            self.control.drain(..self.control_sent);
            self.control_sent = 0;
        }
        while len > 0 && !self.frames.is_empty() {
            len = self.advance_head(len, transport, mail);
        }
        debug_assert_eq!(len, 0, "more was written than was shown");
    }

    fn advance_head(&mut self, len: usize, transport: Transport, mail: &mut Vec<Rc<Delivery>>) -> usize {
        let Some(head) = self.frames.front() else { return len };
        let whole = transport.bytes(head).len();
        let rest = whole - self.head_sent;
        if len < rest {
            self.head_sent += len;
            return 0;
        }
        if let Some(through) = self.frames.pop_front()
            && through.mail.is_some()
        {
            through.let_go();
            mail.push(through);
        }
        self.frame_bytes -= whole;
        self.head_sent = 0;
        len - rest
    }

    /// Frames that wait, one that has begun included.
    pub fn frames_len(&self) -> usize {
        self.frames.len()
    }

    /// The frames that wait, oldest first.
    pub fn frames(&self) -> impl Iterator<Item = &Delivery> {
        self.frames.iter().map(|delivery| &**delivery)
    }

    /// The first waiting frame's acceptance time, for the delivery latency.
    pub fn oldest_accepted_us(&self) -> Option<u64> {
        self.frames.front().map(|delivery| delivery.publication.accepted_at_us)
    }

    /// Panics when the sums are not those of what waits.
    pub fn check(&self, transport: Transport) {
        let bytes: usize = self.frames.iter().map(|delivery| transport.bytes(delivery).len()).sum();
        assert_eq!(self.frame_bytes, bytes, "bytes of {} frames", self.frames.len());
        assert!(
            self.head_sent == 0 || self.frames.front().is_some_and(|head| self.head_sent < transport.bytes(head).len())
        );
        assert!(self.control_sent <= self.control.len());
    }

    /// What it occupies, empty or not, without the frames.
    pub fn room_bytes(&self) -> usize {
        size_of::<Outbox>() + self.control.capacity() + self.frames.capacity() * size_of::<Rc<Delivery>>()
    }

    /// Whether keeping this empty outbox in the pool costs next to nothing.
    pub fn is_small(&self) -> bool {
        self.control.capacity() <= CONTROL_ROOM_BYTES && self.frames.capacity() <= 256
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.frames.iter().for_each(|delivery| delivery.let_go());
    }
}

/// One shard's scratch for assembled writes, and which run of frames it holds.
#[derive(Debug, Default)]
pub struct Assembly {
    bytes: Vec<u8>,
    run: Vec<Rc<Delivery>>,
    /// Frames in the outbox the run was taken from: a longer one would show more.
    of_frames: usize,
    transport: Option<Transport>,
}

impl Assembly {
    fn holds(&self, transport: Transport, frames: &VecDeque<Rc<Delivery>>) -> bool {
        self.transport == Some(transport)
            && self.of_frames == frames.len()
            && self.run.iter().zip(frames).all(|(held, wanted)| {
                // A publish to several users is one delivery each, of the same bytes.
                Rc::ptr_eq(held, wanted) || Arc::ptr_eq(&held.publication, &wanted.publication)
            })
    }

    /// Lets go of the run; called at the end of a turn so that no delivery outlives it here.
    pub fn forget_run(&mut self) {
        self.bytes.clear();
        self.run.clear();
        self.transport = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::frame::{EventName, Frame};
    use protocol::ids::{NotificationId, TenantId};
    use protocol::notification::{Priority, Target};
    use protocol::stream::StreamSeq;

    fn delivery(text: &str, expires_at_us: Option<u64>) -> Rc<Delivery> {
        let frame = Frame::new(EventName::Notification, None, text.as_bytes());
        let publication = Publication {
            id: NotificationId::NIL,
            tenant: TenantId::default_tenant(),
            target: Target::Broadcast,
            audience: None,
            priority: Priority::Normal,
            expires_at_us,
            accepted_at_us: 0,
            frame,
        };
        let places = Places::One(StreamSeq::default());
        Rc::new(Delivery { publication: Arc::new(publication), places, mail: None })
    }

    fn push(outbox: &mut Outbox, delivery: &Rc<Delivery>) {
        outbox.push(delivery, Transport::WebSocket.bytes(delivery).len()).unwrap();
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
}
