//! What comes in over topics, turned into events for the shard. No socket.
use super::figures::{BridgeFigures, add};
use super::members::Members;
use protocol::auth::revocation::Revocation;
use protocol::clock::Now;
use protocol::cluster::wire::{Hello, Parcel, ParcelKind};
use protocol::cluster::{ClusterEvent, Topic};
use protocol::publish::receipt::Receipt;
use std::collections::HashMap;
use std::sync::Arc;

/// Lines about parcels nobody can read, at most one in this time.
const COMPLAINT_INTERVAL_US: u64 = 1_000_000;

/// Somebody waits for a topic.
struct Waiting {
    topic: Topic,
    shard: u8,
    serial: u32,
}

impl Waiting {
    fn over(self) -> ClusterEvent {
        let Waiting { topic, shard, serial } = self;
        ClusterEvent::Watching { topic, shard, serial }
    }
}

/// Who waits for which topic, who is alive, and what the shard is to be told.
pub(super) struct Inbox {
    server_id: Box<str>,
    /// When this process started, by the wall clock, in milliseconds.
    pub(super) started_unix_ms: u64,
    /// Until they are asked for.
    pub(super) events: Vec<ClusterEvent>,
    /// Of them, what was revoked.
    pub(super) revoked: Vec<Arc<Revocation>>,
    /// By the name of the topic; as many as topics are being asked for.
    waiting: HashMap<Box<[u8]>, Vec<Waiting>>,
    pub(super) members: Members,
    /// Somebody came or went since the shard was told.
    pub(super) has_other_members: bool,
    figures: Arc<BridgeFigures>,
    complained_at_us: Option<u64>,
    is_twin_told: bool,
}

impl Inbox {
    pub(super) fn new(server_id: Box<str>, started_unix_ms: u64, figures: Arc<BridgeFigures>) -> Inbox {
        Inbox {
            server_id,
            started_unix_ms,
            events: Vec::new(),
            revoked: Vec::new(),
            waiting: HashMap::new(),
            members: Members::default(),
            has_other_members: true,
            figures,
            complained_at_us: None,
            is_twin_told: false,
        }
    }

    /// Somebody waits until a topic is listened to.
    pub(super) fn wait(&mut self, name: &[u8], topic: Topic, shard: u8, serial: u32) {
        let one = Waiting { topic, shard, serial };
        match self.waiting.get_mut(name) {
            Some(waiting) => waiting.push(one),
            None => _ = self.waiting.insert(name.into(), vec![one]),
        }
    }

    /// A topic is listened to.
    pub(super) fn watching(&mut self, name: &[u8]) {
        self.events.extend(self.waiting.remove(name).into_iter().flatten().map(Waiting::over));
    }

    /// Nothing is listened to, and nobody is to wait for it.
    pub(super) fn down(&mut self) {
        self.events.extend(self.waiting.drain().flat_map(|(_, waiting)| waiting).map(Waiting::over));
    }

    /// Somebody said something.
    pub(super) fn heard(&mut self, now: Now, payload: &[u8]) {
        let parcel = match Parcel::decode(payload) {
            Ok(parcel) => parcel,
            Err(error) => {
                self.figures.refuse(&error);
                if self.complained_at_us.is_none_or(|at_us| now.mono_us >= at_us + COMPLAINT_INTERVAL_US) {
                    self.complained_at_us = Some(now.mono_us);
                    tracing::warn!(cause = %error, bytes = payload.len(), "what another node said is passed over");
                }
                return;
            }
        };
        if *parcel.from_server == *self.server_id {
            return self.echo(now, &parcel);
        }
        if !parcel.is_for(&self.server_id) {
            return;
        }
        add(&self.figures.received, 1);
        let event = match parcel.kind {
            ParcelKind::Hello(hello) => {
                self.has_other_members |= self.members.hello(now, hello);
                return;
            }
            ParcelKind::Bye => {
                self.has_other_members |= self.members.bye(&parcel.from_server);
                return;
            }
            ParcelKind::Canary(_) => return,
            ParcelKind::Receipt { ticket, receipt } => ClusterEvent::Receipt { ticket, receipt },
            ParcelKind::Answer { ticket, sessions, .. } => ClusterEvent::Answer { ticket, sessions },
            kind => {
                if let ParcelKind::Revoked { revocation, .. } = &kind {
                    self.revoked.push(Arc::clone(revocation));
                }
                if is_notification(&kind) {
                    add(&self.figures.received_notifications, 1);
                }
                ClusterEvent::Parcel(Box::new(Parcel { kind, ..parcel }))
            }
        };
        self.events.push(event);
    }

    /// What this node said itself comes back, or a node of the same name said it. Redis counted this node among those that it
    /// sent the parcel to: its own shards have it already, so there is nothing to add.
    fn echo(&mut self, now: Now, parcel: &Parcel) {
        if let Some(ticket) = parcel.ticket() {
            self.events.push(match parcel.kind {
                ParcelKind::Question { .. } => ClusterEvent::Answer { ticket, sessions: Vec::new() },
                _ => ClusterEvent::Receipt { ticket, receipt: Receipt::default() },
            });
        }
        match &parcel.kind {
            ParcelKind::Canary(_) => self.figures.flow.came_back(now),
            ParcelKind::Hello(Hello { started_unix_ms, .. })
                if *started_unix_ms != self.started_unix_ms && !std::mem::replace(&mut self.is_twin_told, true) =>
            {
                tracing::error!(
                    server_id = &*self.server_id,
                    "another node says hello under this node's CLUSTER_SERVER_ID: what the two send does not reach each \
                     other's clients; give each node an id of its own"
                );
            }
            _ => {}
        }
    }
}

/// Whether a parcel carries something for clients.
pub(super) fn is_notification(kind: &ParcelKind) -> bool {
    matches!(kind, ParcelKind::Publication { .. } | ParcelKind::Hint { .. } | ParcelKind::Plain(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::cluster::GatherTicket;
    use protocol::cluster::wire::Published;
    use protocol::ids::{NotificationId, TenantId};
    use protocol::notification::{Priority, Target};
    use protocol::stream::StreamSeq;

    fn inbox() -> (Inbox, Arc<BridgeFigures>) {
        let figures = Arc::new(BridgeFigures::new());
        (Inbox::new("n1".into(), 5, Arc::clone(&figures)), figures)
    }

    fn said(from: &str, to: Option<&str>, kind: ParcelKind) -> Vec<u8> {
        let mut out = Vec::new();
        Parcel { from_server: from.into(), to_server: to.map(Into::into), kind }.encode(&mut out).unwrap();
        out
    }

    fn shown(inbox: &mut Inbox) -> Vec<String> {
        std::mem::take(&mut inbox.events).iter().map(|event| format!("{event:?}")).collect()
    }

    #[test]
    fn what_is_not_for_us_is_passed_over_and_the_rest_is_told_apart() {
        let (mut inbox, figures) = inbox();
        let now = Now { mono_us: 1, unix_ns: 1 };
        let ticket = GatherTicket { shard: 1, slot: 2, generation: 3 };
        let template = || ParcelKind::Template { tenant: TenantId::default_tenant(), id: "t".into() };
        inbox.heard(now, &said("n1", None, template()));
        inbox.heard(now, &said("n2", Some("n3"), template()));
        inbox.heard(now, &said("n2", None, ParcelKind::Canary(1)));
        inbox.heard(now, b"{");
        assert_eq!((shown(&mut inbox).len(), figures.flows(now)), (0, false));
        inbox.heard(now, &said("n1", Some("n1"), ParcelKind::Canary(1)));
        assert!(figures.flows(now));
        inbox.heard(now, &said("n2", Some("n1"), template()));
        inbox.heard(now, &said("n2", Some("n1"), ParcelKind::Receipt { ticket, receipt: Receipt::default() }));
        let told = shown(&mut inbox);
        assert!(told[0].starts_with("Parcel(") && told[1].starts_with("Receipt {"), "{told:?}");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn what_this_node_published_itself_comes_back_as_a_receipt_without_counts() {
        let (mut inbox, _) = inbox();
        let now = Now { mono_us: 1, unix_ns: 1 };
        let ticket = GatherTicket { shard: 1, slot: 2, generation: 3 };
        let (tenant, user) = (TenantId::default_tenant(), "ana".into());
        inbox.heard(now, &said("n1", None, ParcelKind::Question { ticket, tenant, user }));
        let [ClusterEvent::Answer { ticket: of, sessions }] = &inbox.events[..] else { panic!("{:?}", inbox.events) };
        assert_eq!((*of, sessions.len()), (ticket, 0));
        inbox.events.clear();
        let published = |ticket| Published {
            id: NotificationId::NIL,
            tenant: TenantId::default_tenant(),
            priority: Priority::Normal,
            expires_at_unix_ms: None,
            stream: StreamSeq::default(),
            ticket,
            message: format!(r#"{{"type":"notification","id":"{}","metadata":{{}}}}"#, NotificationId::NIL).into(),
        };
        let publication = |ticket| ParcelKind::Publication {
            target: Target::Broadcast,
            audience: None,
            published: published(ticket),
        };
        inbox.heard(now, &said("n1", None, publication(Some(ticket))));
        let [ClusterEvent::Receipt { ticket: of, receipt }] = &inbox.events[..] else { panic!("{:?}", inbox.events) };
        assert_eq!((*of, *receipt), (ticket, Receipt::default()));
        inbox.events.clear();
        inbox.heard(now, &said("n1", None, publication(None)));
        assert!(inbox.events.is_empty(), "nobody waits for it");
    }

    #[test]
    fn whoever_waits_for_a_topic_is_told_of_it_or_of_the_loss() {
        let (mut inbox, _) = inbox();
        let topic = |name: &str| Topic::User(TenantId::default_tenant(), name.into());
        inbox.wait(b"a", topic("a"), 1, 7);
        inbox.wait(b"b", topic("b"), 2, 8);
        inbox.watching(b"a");
        inbox.watching(b"a");
        assert_eq!(shown(&mut inbox).len(), 1);
        inbox.down();
        assert!(shown(&mut inbox)[0].contains("shard: 2, serial: 8"));
    }
}
