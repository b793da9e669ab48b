//! Whether messages flow through Redis: a canary goes out by one link and must come back by the other. A socket that
//! looks fine proves nothing.
use protocol::clock::Now;
use protocol::limits;
use shards::guest::{Guest, Port, Ready, Wants};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use storage::redis::commands::answer::{Outcome, RefusalCode};
use storage::redis::commands::link::{CommandConfig, CommandLink};
use storage::redis::commands::status::{CommandStatus, Operation};
use storage::redis::commands::{Command, Ticket, Words};

/// What the channels of the ingest's canaries begin with; the server id follows.
const CHANNEL_PREFIX: &str = "ara:canary:";

/// The state of one way out and back, written on its shard, read by any thread.
#[derive(Debug, Default)]
pub struct Flow {
    /// When the last canary came back, plus one; 0 is never.
    back_us: AtomicU64,
    /// How many came back.
    heard: AtomicU64,
    /// The server lets nobody send or hear canaries: nothing can be said.
    is_forbidden: AtomicBool,
}

impl Flow {
    /// One came back.
    pub(crate) fn came_back(&self, now: Now) {
        self.back_us.store(now.mono_us + 1, Relaxed);
        self.heard.store(self.heard.load(Relaxed) + 1, Relaxed);
    }

    /// None can be sent or heard.
    pub(crate) fn forbid(&self) -> bool {
        !self.is_forbidden.swap(true, Relaxed)
    }

    /// How many came back.
    pub fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    /// Since the last one came back, in milliseconds; `None` before the first.
    pub fn age_ms(&self, now: Now) -> Option<u64> {
        let back_us = self.back_us.load(Relaxed).checked_sub(1)?;
        Some(now.mono_us.saturating_sub(back_us) / 1_000)
    }

    /// Whether messages flow; `None` if the server does not let it be known.
    pub fn flows(&self, now: Now) -> Option<bool> {
        if self.is_forbidden.load(Relaxed) {
            return None;
        }
        Some(self.age_ms(now).is_some_and(|age_ms| age_ms <= limits::CANARY_AGE_MS_MAX))
    }
}

/// The channel of a node's canaries for its ingest.
pub(crate) fn channel(server_id: &str) -> String {
    format!("{CHANNEL_PREFIX}{server_id}")
}

/// Whether somebody's canary was heard there, which a pattern may do: it is no publish.
pub(crate) fn is_channel(channel: &[u8]) -> bool {
    channel.starts_with(CHANNEL_PREFIX.as_bytes())
}

/// Sends the canaries that the ingest is to hear.
pub(crate) struct Sender {
    link: CommandLink,
    status: Arc<CommandStatus>,
    channel: Vec<u8>,
    flow: Arc<Flow>,
    due_us: u64,
    is_stopped: bool,
}

impl Sender {
    /// A sender to the channel of this node, which the ingest with the same flow listens to.
    pub(crate) fn new(
        config: CommandConfig,
        server_id: &str,
        flow: Arc<Flow>,
        seed: u64,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Sender {
        let status = Arc::new(CommandStatus::new());
        let link = CommandLink::new(config, Arc::clone(&status), seed, wake);
        Sender { link, status, channel: channel(server_id).into_bytes(), flow, due_us: 0, is_stopped: false }
    }
}

impl Guest for Sender {
    fn turn(&mut self, now: Now, ready: Ready, _port: &mut dyn Port) -> Wants {
        if self.is_stopped {
            return Wants::default();
        }
        if now.mono_us >= self.due_us {
            self.due_us = now.mono_us + limits::CANARY_INTERVAL_MS * 1_000;
            // One at a time: whoever does not answer gets no more of them.
            if self.link.unanswered() == 0 && self.status.link() == storage::link::state::LinkState::Healthy {
                // Whoever hears it knows since when at most the next messages are there.
                let sent_us = now.mono_us.to_string();
                let words: [&[u8]; 3] = [b"PUBLISH", &self.channel, sent_us.as_bytes()];
                let command = Command { operation: Operation::Other, words: Words::Plain(&words) };
                // One that is not taken does not come back, which is what is to be known.
                let _ = self.link.submit(now, Ticket(0), command);
            }
        }
        let flow = &self.flow;
        let wants = self.link.turn(now, ready.read, ready.write, &mut |_, outcome| {
            if let Outcome::Refused(refusal) = outcome
                && refusal.code == RefusalCode::NoPerm
                && flow.forbid()
            {
                tracing::warn!(
                    cause = refusal.text,
                    "the user of REDIS_URL may not publish to ara:canary:*, so whether messages come in can only be \
                     told from the link"
                );
            }
        });
        let wake_at_us = wants.wake_at_us.map_or(self.due_us, |wake_at_us| wake_at_us.min(self.due_us));
        Wants {
            socket: wants.socket,
            read: wants.read,
            write: wants.write,
            wake_at_us: Some(wake_at_us),
            again: wants.again,
        }
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.link.stop(&mut |_, _| ());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_flow_while_canaries_come_back() {
        let flow = Flow::default();
        let at = |ms: u64| Now { mono_us: ms * 1_000, unix_ns: 0 };
        assert_eq!((flow.flows(at(0)), flow.age_ms(at(0))), (Some(false), None));
        flow.came_back(at(0));
        assert_eq!((flow.flows(at(1_800)), flow.age_ms(at(1_800))), (Some(true), Some(1_800)));
        assert_eq!(flow.flows(at(1_801)), Some(false));
        assert!(flow.forbid());
        assert!(!flow.forbid(), "said once");
        assert_eq!(flow.flows(at(0)), None);
    }

    #[test]
    fn canaries_are_told_from_publishes() {
        assert!(is_channel(channel("n1").as_bytes()));
        assert!(!is_channel(b"notification:user:1"));
    }
}
