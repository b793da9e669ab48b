//! What waits to be written to one connection.
//!
//! Two lanes. *Control* is bytes of the connection's own (responses, pongs, replies, closes); it goes before waiting
//! frames but never into the middle of one. *Frames* are shared deliveries. Publishing only queues; the rim writes once
//! per turn what [`Outbox::assemble`] shows.
//!
//! Frames go out in the order they came, until a write leaves some of them: then the connection has a backlog, and until
//! nothing waits any more its urgent frames stand before the ordinary ones, in order within each (decision 11).
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
    /// Outboxes of this shard it waits in.
    waits_in: Cell<u32>,
    /// Of the publication, so that a connection need not look there.
    is_urgent: bool,
    may_expire: bool,
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
}

impl MailTag {
    /// Mail that was read from its mailbox, or has just been put there.
    pub fn kept_at(position: Position) -> MailTag {
        MailTag { position: Cell::new(Some(position)), kept: Cell::new(true), ..MailTag::default() }
    }
}

impl Delivery {
    /// One that waits nowhere yet.
    pub fn new(publication: Arc<Publication>, places: Places, mail: Option<Box<MailTag>>) -> Delivery {
        let (is_urgent, may_expire) = (publication.priority.is_urgent(), publication.expires_at_us.is_some());
        Delivery { publication, places, mail, waits_in: Cell::new(0), is_urgent, may_expire }
    }

    /// It was pushed into so many outboxes: memory that it occupies by that, in bytes.
    pub fn entered(&self, outboxes: usize) -> usize {
        if outboxes == 0 {
            return 0;
        }
        let room_bytes = if self.waits_in.get() == 0 { self.room_bytes() } else { 0 };
        self.waits_in.set(self.waits_in.get() + outboxes as u32);
        room_bytes + outboxes * ENTRY_ROOM_BYTES
    }

    /// Outboxes of this shard it waits in.
    pub fn waits_in(&self) -> u32 {
        self.waits_in.get()
    }

    /// Memory that it occupies while it waits anywhere, in bytes, about. The SSE form, which only some nodes make, comes on
    /// top.
    pub fn room_bytes(&self) -> usize {
        self.publication.frame.websocket().len() + DELIVERY_ROOM_BYTES
    }

    /// It left an outbox: memory that is free by that, in bytes.
    fn let_go(&self) -> usize {
        self.waits_in.set(self.waits_in.get() - 1);
        ENTRY_ROOM_BYTES + if self.waits_in.get() == 0 { self.room_bytes() } else { 0 }
    }
}

/// A publication and a delivery without the frame's bytes: the structs, their counts, the names of their target.
const DELIVERY_ROOM_BYTES: usize = 320;
/// A frame's place in a queue, with the room that a queue grows ahead.
pub const ENTRY_ROOM_BYTES: usize = 16;

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

// An outbox holds four MiB of frames, and control that is read no further above its bound: what is counted here in 32 bits
// fits them. With more than these 96 bytes, a connection that is delivered to costs a cache line more.
const _: () = assert!(size_of::<Outbox>() <= 96 && limits::OUTBOX_BYTES_MAX < u32::MAX as usize / 4);

/// The outbox of one connection. It exists only while something waits; empty ones go back to the shard's pool.
#[derive(Debug, Default)]
pub struct Outbox {
    control: Vec<u8>,
    control_sent: usize,
    frames: VecDeque<Rc<Delivery>>,
    /// Bytes of the first frame that are already out.
    head_sent: u32,
    /// Bytes of all frames, the first one's sent part included.
    frame_bytes: usize,
    /// Urgent frames among them.
    urgent: u32,
    /// Whether some frame may expire while it waits.
    expiring: bool,
    /// A write has left something, and something has waited ever since: urgent frames stand before the ordinary ones,
    /// behind what has begun to go out.
    backlog: bool,
    /// Memory that is free since [`Outbox::take_freed`] was asked, in bytes.
    freed_bytes: u32,
    /// Since when output waits without the socket taking a byte.
    pub waiting_since_us: u64,
}

impl Outbox {
    /// Queues a shared frame; its bytes are `len` on the connection's transport. Once it has been pushed wherever it goes,
    /// it is to be told: [`Delivery::entered`].
    pub fn push(&mut self, delivery: &Rc<Delivery>, len: usize) -> Result<(), Full> {
        if self.frame_bytes + len > limits::OUTBOX_BYTES_MAX || self.frames.len() >= limits::OUTBOX_FRAMES_MAX {
            return Err(Full);
        }
        self.frame_bytes += len;
        self.expiring |= delivery.may_expire;
        if delivery.is_urgent {
            self.push_urgent(delivery);
        } else {
            self.frames.push_back(Rc::clone(delivery));
        }
        Ok(())
    }

    /// Behind the urgent frames that wait. Moves at most the shorter part of the queue, [`limits::OUTBOX_FRAMES_MAX`]
    /// pointers in all.
    fn push_urgent(&mut self, delivery: &Rc<Delivery>) {
        let begun_before = self.begun().is_some_and(|begun| !begun.is_urgent);
        let at = if self.backlog { self.urgent as usize + usize::from(begun_before) } else { self.frames.len() };
        self.urgent += 1;
        self.frames.insert(at, Rc::clone(delivery));
    }

    /// A write has left something: from now on, until nothing waits, urgent frames go before ordinary ones.
    pub fn note_backlog(&mut self) {
        if std::mem::replace(&mut self.backlog, true) || self.urgent == 0 {
            return;
        }
        let begun = usize::from(self.head_sent > 0);
        self.frames.make_contiguous()[begun..].sort_by_key(|delivery| !delivery.is_urgent);
    }

    /// Whether urgent frames may stand before older ones.
    pub fn is_reordered(&self) -> bool {
        self.backlog && self.urgent > 0
    }

    /// Memory that is free since the last time, in bytes: frames that wait nowhere on this shard any more, and entries.
    pub fn take_freed(&mut self) -> usize {
        std::mem::take(&mut self.freed_bytes) as usize
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
        self.frame_bytes - self.head_sent as usize
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.control_bytes() == 0
    }

    /// Drops every frame that has not begun to go out; how many.
    pub fn drop_frames(&mut self, transport: Transport) -> usize {
        let mut begun = self.head_sent > 0;
        self.retain(transport, |_| std::mem::take(&mut begun), |_| {})
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        let freed = self.frames.drain(..).map(|delivery| delivery.let_go()).sum::<usize>() + self.control_bytes();
        self.freed_bytes += freed as u32;
        self.control.clear();
        (self.control_sent, self.head_sent, self.frame_bytes, self.urgent) = (0, 0, 0, 0);
        (self.expiring, self.backlog) = (false, false);
    }

    /// Keeps what `keeps` says, in order, and sums up anew; how many went, each of which is shown to `gone` first.
    fn retain(
        &mut self,
        transport: Transport,
        mut keeps: impl FnMut(&Rc<Delivery>) -> bool,
        mut gone: impl FnMut(&Rc<Delivery>),
    ) -> usize {
        let before = self.frames.len();
        let (mut bytes, mut urgent, mut expiring, mut freed) = (0, 0, false, 0);
        self.frames.retain(|delivery| {
            let keep = keeps(delivery);
            if keep {
                bytes += transport.bytes(delivery).len();
                urgent += u32::from(delivery.is_urgent);
                expiring |= delivery.may_expire;
            } else {
                freed += delivery.let_go();
                gone(delivery);
            }
            keep
        });
        (self.frame_bytes, self.urgent, self.expiring) = (bytes, urgent, expiring);
        self.freed_bytes += freed as u32;
        self.backlog &= !self.is_empty();
        before - self.frames.len()
    }

    /// The frame that has begun to go out and has not ended.
    pub fn begun(&self) -> Option<&Rc<Delivery>> {
        self.frames.front().filter(|_| self.head_sent > 0)
    }

    /// Takes out the mail that stands in no mailbox, as it stands here; `is_end` also what has begun to go out, because
    /// nobody will read its end.
    pub fn take_unkept(&mut self, transport: Transport, is_end: bool) -> Vec<Rc<Delivery>> {
        let (mut taken, mut begun) = (Vec::new(), self.head_sent > 0 && !is_end);
        let is_unkept = |delivery: &Rc<Delivery>| delivery.mail.as_ref().is_some_and(|mail| !mail.kept.get());
        if is_end && self.frames.front().is_some_and(is_unkept) {
            self.head_sent = 0;
        }
        let keeps = |delivery: &Rc<Delivery>| std::mem::take(&mut begun) || !is_unkept(delivery);
        self.retain(transport, keeps, |delivery| taken.push(Rc::clone(delivery)));
        taken
    }

    /// Drops frames whose time to live is over, except one that has begun to go out; how many.
    pub fn drop_expired(&mut self, now_us: u64, transport: Transport) -> usize {
        if !self.expiring {
            return 0;
        }
        let mut begun = self.head_sent > 0;
        let lasts = |delivery: &Rc<Delivery>| delivery.publication.expires_at_us.is_none_or(|at_us| at_us > now_us);
        self.retain(transport, |delivery| std::mem::take(&mut begun) || lasts(delivery), |_| {})
    }

    /// Whether mail waits that stands in no mailbox.
    pub fn has_unkept_mail(&self) -> bool {
        self.frames.iter().any(|delivery| delivery.mail.as_ref().is_some_and(|mail| !mail.kept.get()))
    }

    /// When the oldest frame was accepted that stands in no mailbox: what may not wait for ever.
    pub fn oldest_unkept_us(&self) -> Option<u64> {
        let is_unkept = |delivery: &&Rc<Delivery>| delivery.mail.as_ref().is_none_or(|mail| !mail.kept.get());
        self.frames.iter().filter(is_unkept).map(|delivery| delivery.publication.accepted_at_us).min()
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
            let rest = &transport.bytes(head)[self.head_sent as usize..];
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
        self.freed_bytes += control as u32;
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
        self.backlog &= !self.is_empty();
        debug_assert_eq!(len, 0, "more was written than was shown");
    }

    fn advance_head(&mut self, len: usize, transport: Transport, mail: &mut Vec<Rc<Delivery>>) -> usize {
        let Some(head) = self.frames.front() else { return len };
        let whole = transport.bytes(head).len();
        let rest = whole - self.head_sent as usize;
        if len < rest {
            self.head_sent += len as u32;
            return 0;
        }
        if let Some(through) = self.frames.pop_front() {
            self.freed_bytes += through.let_go() as u32;
            if self.urgent > 0 {
                self.urgent -= u32::from(through.is_urgent);
            }
            if through.mail.is_some() {
                mail.push(through);
            }
        }
        self.frame_bytes -= whole;
        self.head_sent = 0;
        len - rest
    }

    /// Frames that wait, one that has begun included.
    pub fn frames_len(&self) -> usize {
        self.frames.len()
    }

    /// The frames that wait, in the order they go out.
    pub fn frames(&self) -> impl Iterator<Item = &Delivery> {
        self.frames.iter().map(|delivery| &**delivery)
    }

    /// The first waiting frame's acceptance time, for the delivery latency.
    pub fn first_accepted_us(&self) -> Option<u64> {
        self.frames.front().map(|delivery| delivery.publication.accepted_at_us)
    }

    /// Panics when the sums are not those of what waits.
    pub fn check(&self, transport: Transport) {
        let bytes: usize = self.frames.iter().map(|delivery| transport.bytes(delivery).len()).sum();
        assert_eq!(self.frame_bytes, bytes, "bytes of {} frames", self.frames.len());
        assert!(
            self.head_sent == 0
                || self.frames.front().is_some_and(|head| (self.head_sent as usize) < transport.bytes(head).len())
        );
        assert!(self.control_sent <= self.control.len());
        let urgent = self.frames.iter().filter(|delivery| delivery.is_urgent).count();
        assert_eq!(self.urgent as usize, urgent, "urgent ones of {} frames", self.frames.len());
        assert!(self.backlog || self.head_sent == 0, "what has begun and has not ended is a backlog");
        let behind_begun = self.frames.iter().skip(usize::from(self.head_sent > 0));
        assert!(
            !self.backlog || behind_begun.is_sorted_by_key(|delivery| !delivery.is_urgent),
            "ordinary before urgent"
        );
        assert_eq!(self.freed_bytes, 0, "freed and not told");
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
        self.clear();
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
mod tests;
