//! The line over which a finder is subscribed at one sentinel, so that a fail-over is heard of at once.
use crate::backoff::{Backoff, BackoffConfig};
use crate::link::resolver::Wake;
use crate::link::tls::Tls;
use crate::link::wants::Wants;
use crate::redis::topology::finder::FinderTiming;
use crate::redis::topology::line::{Line, Ready, after, until};
use crate::redis::topology::node::Node;
use crate::redis::topology::url::SentinelUrl;
use crate::redis::topology::watch::{Heard, Watch};
use fastrand::Rng;
use rustix::fd::BorrowedFd;

/// Keeps one subscription up, at one sentinel after the other.
pub(super) struct Lookout {
    pub(super) line: Line,
    phase: Phase,
    backoff: Backoff,
    /// Which of the known sentinels is next; moves on when one was of no use.
    at: usize,
}

enum Phase {
    Resting { until_us: u64 },
    Node { watch: Box<Watch>, node: Node, clock: Clock },
}

/// What a sentinel has time for.
#[derive(Clone, Copy)]
enum Clock {
    /// To take us.
    Greeting { deadline_us: u64 },
    /// To say something, or to answer a PING.
    Live { heard_us: u64, pinged_us: Option<u64> },
}

/// What a turn needs to know of its finder.
pub(super) struct Around<'a> {
    pub(super) url: &'a SentinelUrl,
    /// The sentinels, the one that answered last first.
    pub(super) known: &'a [Node],
    pub(super) tls: Option<&'a Tls>,
    pub(super) timing: &'a FinderTiming,
    pub(super) rng: &'a mut Rng,
}

/// What a turn heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The subscription stands; what happened before was not told.
    pub(super) begun: bool,
    /// Our master is another.
    pub(super) switched: bool,
}

impl Lookout {
    pub(super) fn new(backoff: BackoffConfig, wake: Wake) -> Lookout {
        let phase = Phase::Resting { until_us: 0 };
        Lookout { line: Line::new(wake), phase, backoff: Backoff::new(backoff), at: 0 }
    }

    /// Does what can be done now: at most one read.
    pub(super) fn turn(&mut self, now_us: u64, mut ready: Ready, around: &mut Around<'_>) -> Told {
        let mut told = Told::default();
        if let Phase::Resting { until_us } = &self.phase {
            if now_us < *until_us || around.known.is_empty() {
                return told;
            }
            let node = around.known[self.at % around.known.len()].clone();
            let deadline_us = after(now_us, around.timing.node_deadline_ms);
            if let Err(lost) = self.line.dial(now_us, deadline_us, node.clone()) {
                self.ended(now_us, &node, &lost.to_string(), around.rng);
                return told;
            }
            let watch = Box::new(Watch::new(&around.url.master_name, &around.url.sentinel_login));
            self.phase = Phase::Node { watch, node, clock: Clock::Greeting { deadline_us } };
            // What was said is about the socket before.
            ready = Ready::default();
        }
        let Phase::Node { watch, node, clock } = &mut self.phase else { return told };
        // Nobody is given up before what may have come was read: the owner itself may have been late.
        ready.readable |= now_us >= clock.deadline_us(around.timing);
        let mut turned = self.line.turn(now_us, ready, watch.talk(), around.tls).map_err(|lost| lost.to_string());
        loop {
            match watch.heard() {
                Ok(None) => break,
                Ok(Some(Heard::Watching)) => told.begun = true,
                Ok(Some(Heard::Switched(_))) => told.switched = true,
                Ok(Some(Heard::Alive)) => {}
                Ok(Some(Heard::Refused(text))) => {
                    turned = Err(text);
                    break;
                }
                Err(error) => {
                    turned = Err(error.to_string());
                    break;
                }
            }
            *clock = Clock::Live { heard_us: now_us, pinged_us: None };
        }
        if turned.is_ok() && now_us >= clock.deadline_us(around.timing) {
            match clock {
                Clock::Live { heard_us: _, pinged_us: pinged_us @ None } => {
                    *pinged_us = Some(now_us);
                    watch.ping();
                    let flushed = self.line.turn(now_us, Ready::default(), watch.talk(), around.tls);
                    turned = flushed.map_err(|lost| lost.to_string());
                }
                Clock::Greeting { .. } | Clock::Live { pinged_us: Some(_), .. } => {
                    turned = Err("it does not answer".to_owned());
                }
            }
        }
        if told.begun {
            self.backoff.reset();
            self.at = 0;
        }
        if let Err(cause) = turned {
            let node = node.clone();
            self.ended(now_us, &node, &cause, around.rng);
        }
        told
    }

    /// When to turn it again.
    pub(super) fn wants(&self, timing: &FinderTiming) -> Wants {
        match &self.phase {
            Phase::Resting { until_us } => Wants { wake_at_us: Some(*until_us), ..Wants::default() },
            Phase::Node { watch, clock, .. } => until(self.line.wants(watch.peek()), clock.deadline_us(timing)),
        }
    }

    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.line.socket()
    }

    pub(super) fn stop(&mut self) {
        self.line.close();
        self.phase = Phase::Resting { until_us: u64::MAX };
    }

    fn ended(&mut self, now_us: u64, node: &Node, cause: &str, rng: &mut Rng) {
        tracing::info!(sentinel = %node, cause, "a sentinel is not watched any more; the next one is");
        self.line.close();
        // The one that answered last may be the one that is gone.
        self.at = self.at.wrapping_add(1);
        self.phase = Phase::Resting { until_us: now_us.saturating_add(self.backoff.next_delay_us(rng)) };
    }
}

impl Clock {
    fn deadline_us(self, timing: &FinderTiming) -> u64 {
        match self {
            Clock::Greeting { deadline_us } => deadline_us,
            Clock::Live { heard_us, pinged_us } => after(pinged_us.unwrap_or(heard_us), timing.ping_interval_ms),
        }
    }
}
