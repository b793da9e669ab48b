//! One connection of a feed, from its connect to its end: the socket, the session over it, and their clocks.
//!
//! A link only tells why it ended; what follows is the feed's to decide.
use crate::backoff::Backoff;
use crate::breaker::{Admission, Breaker, BreakerState};
use crate::link::attempt::Attempt;
use crate::link::socket::{self, Transfer};
use crate::link::tls::Tls;
use crate::link::transport::Transport;
use crate::link::unreached::Unreached;
use crate::redis::feed::{FeedConfig, FeedTiming, Heard};
use crate::redis::session::{Event, Session, Step};
use crate::redis::status::FeedStatus;
use crate::redis::trouble::{self, Trouble};

/// A way to the server and what goes over it.
pub(super) struct Link {
    pub(super) transport: Transport,
    pub(super) stage: Stage,
    pub(super) session: Session,
    /// The socket took less than it was given; wait until it is writable.
    pub(super) write_blocked: bool,
    /// The last read filled the buffer.
    pub(super) more: bool,
}

pub(super) enum Stage {
    /// The connect is under way.
    Connecting(Attempt),
    /// Our first words are on their way; not all names are confirmed.
    Greeting(Attempt),
    Live {
        heard_us: u64,
        pinged_us: Option<u64>,
    },
}

/// How one step of a turn ended.
pub(super) enum Flow {
    /// Nothing more to do before something happens.
    Rest,
    /// The phase changed; look at it at once.
    Go,
}

/// What the caller said about the socket.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) paused: bool,
}

impl Stage {
    /// Moves the clocks of what must be read.
    pub(super) fn shift(&mut self, by_us: u64) {
        match self {
            // Connecting needs no reading.
            Stage::Connecting(_) => {}
            Stage::Greeting(attempt) => {
                attempt.address_deadline_us = attempt.address_deadline_us.saturating_add(by_us);
                attempt.deadline_us = attempt.deadline_us.saturating_add(by_us);
            }
            Stage::Live { heard_us, pinged_us } => {
                *heard_us = heard_us.saturating_add(by_us);
                *pinged_us = pinged_us.map(|us| us.saturating_add(by_us));
            }
        }
    }

    /// When something must be done if nothing comes: give up, or send a PING.
    pub(super) fn deadline_us(&self, timing: &FeedTiming) -> u64 {
        let interval_us = timing.ping_interval_ms.saturating_mul(1_000);
        match self {
            Stage::Connecting(attempt) | Stage::Greeting(attempt) => attempt.address_deadline_us,
            Stage::Live { heard_us, pinged_us: None } => heard_us.saturating_add(interval_us),
            // Counted from the PING, too: a process that was stopped for a while asks before it judges.
            Stage::Live { heard_us, pinged_us: Some(pinged_us) } => {
                heard_us.saturating_add(interval_us.saturating_mul(2)).max(pinged_us.saturating_add(interval_us))
            }
        }
    }
}

impl Link {
    /// A link whose connect is under way.
    pub(super) fn new(transport: Transport, stage: Stage, session: Session) -> Link {
        Link { transport, stage, session, write_blocked: false, more: false }
    }

    /// Looks how the connect went, when it is over.
    pub(super) fn finish_connect(
        &mut self,
        deadline_us: u64,
        now_us: u64,
        ready: Ready,
        tls: Option<&Tls>,
    ) -> Result<Flow, Trouble> {
        let Stage::Connecting(attempt) = &self.stage else { return Ok(Flow::Rest) };
        let address = attempt.address;
        if ready.writable {
            let socket = self.transport.socket();
            socket::connected(socket).map_err(|errno| Unreached::Connect { address, errno })?;
            if let Some(tls) = tls {
                self.transport.encrypt(tls)?;
            }
            // `replace` needs a value for the moment in between; the clocks of a live link begin at zero.
            let connecting = std::mem::replace(&mut self.stage, Stage::Live { heard_us: 0, pinged_us: None });
            if let Stage::Connecting(attempt) = connecting {
                self.stage = Stage::Greeting(attempt);
            }
            return Ok(Flow::Go);
        }
        match now_us >= deadline_us {
            true => Err(Unreached::ConnectDeadline { address }.into()),
            false => Ok(Flow::Rest),
        }
    }
}

/// What a link needs of its feed during a turn.
pub(super) struct LinkTurn<'a> {
    pub(super) breaker: &'a mut Breaker,
    pub(super) backoff: &'a mut Backoff,
    pub(super) config: &'a FeedConfig,
    pub(super) status: &'a FeedStatus,
    pub(super) now_us: u64,
}

impl LinkTurn<'_> {
    pub(super) fn run(
        &mut self,
        link: &mut Link,
        ready: Ready,
        on_heard: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Flow, Trouble> {
        link.write_blocked &= !ready.writable;
        let written = self.write(link);
        if written.is_err() && !ready.paused {
            // A server that closed may have said why before.
            self.read(link, on_heard)?;
        }
        written?;
        if ready.paused {
            // A reset shows even to those who do not want to read; unlooked-at it would be reported without end.
            if ready.readable && socket::peek(link.transport.socket()).map_err(Unreached::Io)? == Transfer::Closed {
                return Err(Unreached::Closed.into());
            }
            return Ok(Flow::Rest);
        }
        let due = self.now_us >= link.stage.deadline_us(&self.config.timing);
        // Nobody is given up before what may have come was read: the owner itself may have been late.
        if ready.readable || link.more || due {
            self.read(link, on_heard)?;
        }
        self.keep_deadlines(link)?;
        self.write(link)?;
        Ok(Flow::Rest)
    }

    fn write(&mut self, link: &mut Link) -> Result<(), Trouble> {
        while !link.write_blocked && !link.session.output().is_empty() {
            match link.transport.send(link.session.output())? {
                Transfer::Bytes(bytes) => link.session.sent(bytes),
                Transfer::Blocked | Transfer::Closed => link.write_blocked = true,
            }
        }
        if !link.write_blocked {
            link.write_blocked = !link.transport.flush()?;
        }
        Ok(())
    }

    fn read(&mut self, link: &mut Link, on_heard: &mut dyn FnMut(Heard<'_>)) -> Result<(), Trouble> {
        let room = link.session.room();
        let room_bytes = room.len();
        let transfer = link.transport.receive(room)?;
        link.more = transfer == Transfer::Bytes(room_bytes);
        match transfer {
            Transfer::Blocked => return Ok(()),
            Transfer::Closed => return Err(Unreached::Closed.into()),
            Transfer::Bytes(bytes) => link.session.filled(bytes),
        }
        if let Stage::Live { heard_us, pinged_us } = &mut link.stage {
            *heard_us = self.now_us;
            *pinged_us = None;
        }
        let mut messages = 0;
        let ended = self.hear(link, &mut |heard| {
            messages += u64::from(matches!(heard, Heard::Message { .. }));
            on_heard(heard);
        });
        self.status.received(messages);
        ended
    }

    /// Takes every event there is.
    fn hear(&mut self, link: &mut Link, on_heard: &mut dyn FnMut(Heard<'_>)) -> Result<(), Trouble> {
        let Link { session, stage, .. } = link;
        let mut prove = false;
        while let Some(event) = session.next_event().map_err(Trouble::Session)? {
            match event {
                Event::Message { channel, payload } => on_heard(Heard::Message { channel, payload }),
                Event::Changed { subscribed, name } => on_heard(Heard::Changed { subscribed, name }),
                Event::ChangeRefused { text, .. } if trouble::is_of_slot(&text) => {
                    return Err(Trouble::Server { step: Step::Listen, text });
                }
                Event::ChangeRefused { names, text } => on_heard(Heard::Refused { names, text: &text }),
                Event::Subscribed { .. } => {}
                Event::Ready => {
                    *stage = Stage::Live { heard_us: self.now_us, pinged_us: None };
                    prove |= self.proved();
                    self.backoff.reset();
                    self.status.connected(self.now_us);
                    tracing::info!(
                        server = %self.config.url,
                        purpose = self.config.purpose,
                        channels = self.config.channels.len(),
                        "Redis subscription is up"
                    );
                }
                Event::Pong if self.breaker.state() == BreakerState::HalfOpen => prove |= self.proved(),
                Event::Pong => {}
                Event::SlotLost => return Err(Trouble::SlotLost),
                Event::ServerError { step, text } => return Err(Trouble::Server { step, text }),
            }
        }
        if prove {
            self.ping(session, stage);
        }
        Ok(())
    }

    /// Tells the breaker that the server is there. A subscription connects once and then just lives, so whether the
    /// breaker wants more proof is the answer; a PING brings it.
    fn proved(&mut self) -> bool {
        self.breaker.succeed();
        self.status.set_breaker(self.breaker);
        self.breaker.state() == BreakerState::HalfOpen && self.breaker.admit(self.now_us) == Admission::Granted
    }

    fn ping(&self, session: &mut Session, stage: &mut Stage) {
        session.ping();
        if let Stage::Live { pinged_us, .. } = stage {
            *pinged_us = Some(self.now_us);
        }
    }

    fn keep_deadlines(&mut self, link: &mut Link) -> Result<(), Trouble> {
        if self.now_us < link.stage.deadline_us(&self.config.timing) {
            return Ok(());
        }
        let Link { session, stage, .. } = link;
        match stage {
            Stage::Connecting(attempt) => Err(Unreached::ConnectDeadline { address: attempt.address }.into()),
            Stage::Greeting(attempt) => {
                Err(Trouble::GreetingDeadline { address: attempt.address, step: session.step() })
            }
            Stage::Live { pinged_us: Some(_), heard_us } => {
                Err(Trouble::Silent { ms: self.now_us.saturating_sub(*heard_us) / 1_000 })
            }
            Stage::Live { pinged_us: None, .. } => {
                self.ping(session, stage);
                Ok(())
            }
        }
    }
}
