//! The Redis subscription as a guest of one shard: what comes in over it is published from that shard's own turn.
use crate::bridge::canary::{self, Flow};
use crate::bridge::reading::Reading;
use protocol::clock::Now;
use protocol::ids::TenantId;
use protocol::notification::{Source, Target};
use protocol::publish::redis::parse_redis;
use shards::guest::{Guest, Port, Ready, Submission, Wants};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use storage::redis::feed::{Feed, Heard};
use storage::redis::status::{FeedSnapshot, LinkState};

/// Lines about bad payloads, at most one in this time: a publisher that sends nothing else must not fill the log.
const COMPLAINT_INTERVAL_US: u64 = 1_000_000;

/// The subscription on its shard.
pub(crate) struct Ingress {
    feed: Feed,
    reading: Arc<Reading>,
    outage: Outage,
    /// Where this node's canaries come back.
    canary_channel: String,
    flow: Arc<Flow>,
    /// The subscription to that channel was asked for on this link.
    is_canary_asked: bool,
    tenancy: bool,
    invalid: Arc<AtomicU64>,
    complained_at_us: Option<u64>,
    /// Bad payloads since the last line about one.
    unsaid: u64,
}

impl Ingress {
    /// A guest around a feed and what is known of what it reads. Bad payloads are counted in `invalid`, the canaries of this
    /// node are told to `flow`.
    pub(crate) fn new(
        feed: Feed,
        reading: Arc<Reading>,
        server_id: &str,
        flow: Arc<Flow>,
        tenancy: bool,
        invalid: Arc<AtomicU64>,
    ) -> Ingress {
        Ingress {
            feed,
            reading,
            outage: Outage::default(),
            canary_channel: canary::channel(server_id),
            flow,
            is_canary_asked: false,
            tenancy,
            invalid,
            complained_at_us: None,
            unsaid: 0,
        }
    }
}

impl Guest for Ingress {
    fn turn(&mut self, now: Now, ready: Ready, port: &mut dyn Port) -> Wants {
        let paused = port.congested();
        let Ingress {
            feed,
            reading,
            outage,
            canary_channel,
            flow,
            is_canary_asked,
            tenancy,
            invalid,
            complained_at_us,
            unsaid,
        } = self;
        let mut publish = |channel: &[u8], payload: &[u8]| match submission(channel, payload, *tenancy) {
            Ok(mut submission) => {
                if matches!(submission.target, Target::User(_) | Target::Users(_)) {
                    submission.claim = reading.claim(now, channel, payload);
                }
                port.publish(submission);
            }
            Err(reason) => {
                invalid.store(invalid.load(Relaxed) + 1, Relaxed);
                *unsaid += 1;
                if complained_at_us.is_none_or(|at_us| now.mono_us >= at_us + COMPLAINT_INTERVAL_US) {
                    let channel: String = String::from_utf8_lossy(channel).chars().take(128).collect();
                    tracing::warn!(
                        channel,
                        reason,
                        bytes = payload.len(),
                        skipped = *unsaid,
                        "a Redis payload is no publish"
                    );
                    *complained_at_us = Some(now.mono_us);
                    *unsaid = 0;
                }
            }
        };
        let wants = feed.turn(now, ready.read, ready.write, paused, &mut |heard| match heard {
            Heard::Message { channel, payload } if channel == canary_channel.as_bytes() => {
                flow.came_back(now);
                let sent_us = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
                if let Some(sent_us) = sent_us {
                    reading.canary(now, sent_us);
                }
            }
            // Of another node, heard by a pattern.
            Heard::Message { channel, .. } if canary::is_channel(channel) => {}
            Heard::Message { channel, payload } => publish(channel, payload),
            Heard::Refused { text, .. } if flow.forbid() => tracing::warn!(
                cause = text,
                "the user of REDIS_URL may not subscribe to ara:canary:*, so whether messages come in can only be told \
                 from the link"
            ),
            Heard::Refused { .. } | Heard::Changed { .. } => {}
        });
        // A server that does not let us have this one name must not cost the others, so it is asked for behind them.
        let is_up = feed.is_up();
        let asks_now = is_up && !*is_canary_asked;
        if asks_now {
            feed.change(true, &[canary_channel.as_bytes()]);
        }
        *is_canary_asked = is_up;
        if outage.begins(&reading.status().snapshot()) {
            tracing::warn!(
                "without Redis REST, WebSocket and SSE serve as before; nothing can come in by Redis until it is back, \
                 and what is published there meanwhile is not kept for this node"
            );
        }
        // While it is paused nothing tells it when the node has caught up, so it looks again soon.
        let look_again_us = paused.then(|| now.mono_us + 5_000);
        let wake_at_us = [wants.wake_at_us, look_again_us].into_iter().flatten().min();
        Wants { socket: wants.socket, read: wants.read, write: wants.write, wake_at_us, again: wants.again || asks_now }
    }

    fn stop(&mut self) {
        // A link that ends because the node does is no outage.
        self.outage.is_told = true;
        self.feed.stop();
    }
}

/// The time without a subscription. Each failed attempt has its line in the log; what they all mean is said once.
#[derive(Default)]
struct Outage {
    is_told: bool,
}

impl Outage {
    /// Whether this is the first that is seen of it. Not being subscribed yet is none before an attempt has failed.
    fn begins(&mut self, link: &FeedSnapshot) -> bool {
        if link.link == LinkState::Healthy {
            self.is_told = false;
            return false;
        }
        link.ends > 0 && !std::mem::replace(&mut self.is_told, true)
    }
}

/// A payload as a publish. `tenant_id` counts only while tenancy is on: without it there is one tenant, `default`. With it no
/// name has a `:` (C-8).
fn submission(channel: &[u8], payload: &[u8], tenancy: bool) -> Result<Submission, &'static str> {
    let publish = parse_redis(payload).map_err(|error| error.label())?;
    let tenant = match &publish.tenant {
        Some(tenant) if tenancy => TenantId::parse(tenant).ok_or("bad_shape")?,
        _ => TenantId::default_tenant(),
    };
    if tenancy && publish.target.has_colon() {
        return Err("bad_target");
    }
    let source = Source::Redis(String::from_utf8_lossy(channel).into());
    Ok(Submission { tenant, target: publish.target, content: publish.content, source, claim: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::redis::status::FeedStatus;

    const PAYLOAD: &[u8] =
        br#"{"type":"user","target":"ana","tenant_id":"acme","event":{"event_type":"e","payload":1}}"#;

    #[test]
    fn a_tenant_counts_only_with_tenancy() {
        let with = submission(b"notification:user:ana", PAYLOAD, true).unwrap();
        assert_eq!((with.tenant.as_str(), with.target), ("acme", Target::User("ana".into())));
        let without = submission(b"notification:user:ana", PAYLOAD, false).unwrap();
        assert!(without.tenant.is_default());
        assert_eq!(without.source, Source::Redis("notification:user:ana".into()));
    }

    #[test]
    fn a_name_with_a_prefix_is_none_while_tenants_are_kept_apart() {
        let rows = [
            (r#""type":"user","target":"acme:ana""#, true),
            (r#""type":"users","target":["ana","acme:ana"]"#, true),
            (r#""type":"channel","target":"acme:orders""#, true),
            (r#""type":"channels","target":["a:b"]"#, true),
            (r#""type":"broadcast""#, false),
        ];
        for (target, is_refused) in rows {
            let payload = format!(r#"{{{target},"event":{{"event_type":"e:e","payload":1}}}}"#);
            let refused = submission(b"c", payload.as_bytes(), true).err();
            assert_eq!(refused, is_refused.then_some("bad_target"), "{target}");
            assert!(submission(b"c", payload.as_bytes(), false).is_ok(), "{target}");
        }
    }

    #[test]
    fn an_outage_is_told_once_and_the_next_one_again() {
        let mut outage = Outage::default();
        let mut told = |link, ends| outage.begins(&FeedSnapshot { link, ends, ..FeedStatus::new().snapshot() });
        use LinkState::{CircuitOpen, Healthy, Reconnecting};
        assert!(!told(Reconnecting, 0), "the first attempt is under way");
        assert!(told(Reconnecting, 1));
        assert!(!told(Reconnecting, 2) && !told(CircuitOpen, 5) && !told(Reconnecting, 5));
        assert!(!told(Healthy, 5));
        assert!(told(Reconnecting, 6));
        assert!(!told(CircuitOpen, 7));
    }

    #[test]
    fn what_is_no_publish_has_a_reason_and_no_echo() {
        assert_eq!(submission(b"c", b"{", false).unwrap_err(), "not_json");
    }
}
