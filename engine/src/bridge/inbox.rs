//! What comes in over topics, turned into events for the shard. No socket.
//!
//! Of topics in a Redis Cluster it is told in which partition they are; `None` is where nodes meet.
use super::fences::Fences;
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

/// From the first partition that is listened to again to the word that some are.
const RESUMED_WAIT_US: u64 = 100_000;

/// Somebody waits for a topic.
struct Waiting {
    partition: Option<usize>,
    topic: Topic,
    shard: u8,
    serial: u32,
}

impl Waiting {
    fn over(self) -> ClusterEvent {
        let Waiting { topic, shard, serial, .. } = self;
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
    fences: Fences,
    /// Room for what they let pass.
    passed: Vec<Parcel>,
    /// Somebody came or went since the shard was told.
    pub(super) has_other_members: bool,
    /// When it is told that partitions are listened to again.
    resumed_due_us: Option<u64>,
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
            fences: Fences::default(),
            passed: Vec::new(),
            has_other_members: true,
            resumed_due_us: None,
            figures,
            complained_at_us: None,
            is_twin_told: false,
        }
    }

    /// Somebody waits until a topic is listened to.
    pub(super) fn wait(&mut self, name: &[u8], partition: Option<usize>, topic: Topic, shard: u8, serial: u32) {
        let one = Waiting { partition, topic, shard, serial };
        match self.waiting.get_mut(name) {
            Some(waiting) => waiting.push(one),
            None => _ = self.waiting.insert(name.into(), vec![one]),
        }
    }

    /// A topic is listened to.
    pub(super) fn watching(&mut self, name: &[u8]) {
        self.events.extend(self.waiting.remove(name).into_iter().flatten().map(Waiting::over));
    }

    /// Topics are listened to, of a partition or where nodes meet.
    pub(super) fn up(&mut self, partition: Option<usize>) {
        if let Some(nth) = partition {
            self.fences.up(nth);
        }
    }

    /// Nobody is to wait for what is there.
    pub(super) fn over(&mut self, partition: Option<usize>) {
        let is_there = |waiting: &[Waiting]| waiting.first().is_some_and(|one| one.partition == partition);
        let over = self.waiting.extract_if(|_, waiting| is_there(waiting)).flat_map(|(_, waiting)| waiting);
        self.events.extend(over.map(Waiting::over));
    }

    /// Nothing is listened to there any more.
    pub(super) fn down(&mut self, partition: Option<usize>) {
        self.over(partition);
        if let Some(nth) = partition {
            self.fences.down(nth, &mut self.passed);
            self.pass();
        }
    }

    /// Everything there is listened to again after a time in which something may have been missed. Partitions come back
    /// several at a time, and whatever was missed is read for all of them together.
    pub(super) fn resumed(&mut self, now: Now, partition: Option<usize>) {
        match partition {
            Some(_) => _ = self.resumed_due_us.get_or_insert(now.mono_us + RESUMED_WAIT_US),
            None => self.events.push(ClusterEvent::Resumed),
        }
    }

    /// When [`Inbox::tick`] has something to do.
    pub(super) fn due_us(&self) -> Option<u64> {
        self.fences.due_us().into_iter().chain(self.resumed_due_us).min()
    }

    /// Waits no longer for what has not come in time.
    pub(super) fn tick(&mut self, now: Now) {
        if self.resumed_due_us.take_if(|due_us| *due_us <= now.mono_us).is_some() {
            self.events.push(ClusterEvent::Resumed);
        }
        self.fences.tick(now, &mut self.passed);
        self.pass();
    }

    fn pass(&mut self) {
        let mut passed = std::mem::take(&mut self.passed);
        passed.drain(..).for_each(|parcel| self.take(parcel));
        self.passed = passed;
    }

    /// Somebody said something.
    pub(super) fn heard(&mut self, now: Now, partition: Option<usize>, payload: &[u8]) {
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
            return self.echo(now, partition, &parcel);
        }
        if !parcel.is_for(&self.server_id) {
            return;
        }
        let Parcel { from_server, to_server, kind } = parcel;
        match kind {
            ParcelKind::Bundle(all) => all.into_iter().for_each(|one| {
                let (from_server, to_server) = (from_server.clone(), to_server.clone());
                self.heard_one(now, partition, Parcel { from_server, to_server, kind: one.into() });
            }),
            kind => self.heard_one(now, partition, Parcel { from_server, to_server, kind }),
        }
    }

    /// Another node said it to this one.
    fn heard_one(&mut self, now: Now, partition: Option<usize>, parcel: Parcel) {
        add(&self.figures.received, 1);
        match (parcel.kind, partition) {
            (ParcelKind::Hello(hello), _) => self.has_other_members |= self.members.hello(now, hello),
            (kind, Some(nth)) => {
                self.fences.heard(now, nth, Parcel { kind, ..parcel }, &mut self.passed);
                self.pass();
            }
            (kind, None) => self.take(Parcel { kind, ..parcel }),
        }
    }

    /// What is no `hello`, in its turn.
    fn take(&mut self, parcel: Parcel) {
        let event = match parcel.kind {
            ParcelKind::Bye => {
                self.has_other_members |= self.members.bye(&parcel.from_server);
                return;
            }
            ParcelKind::Hello(_) | ParcelKind::Canary(_) | ParcelKind::Fence { .. } | ParcelKind::Bundle(_) => return,
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
    fn echo(&mut self, now: Now, partition: Option<usize>, parcel: &Parcel) {
        if let Some(ticket) = parcel.ticket() {
            self.events.push(match parcel.kind {
                ParcelKind::Question { .. } => ClusterEvent::Answer { ticket, sessions: Vec::new() },
                _ => ClusterEvent::Receipt { ticket, receipt: Receipt::default() },
            });
        }
        match &parcel.kind {
            ParcelKind::Canary(_) => self.figures.came_back(now, partition),
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
    use protocol::cluster::wire::{Bundled, Published};
    use protocol::ids::{NotificationId, TenantId};
    use protocol::notification::{Priority, Target};
    use protocol::stream::StreamSeq;

    fn inbox() -> (Inbox, Arc<BridgeFigures>) {
        let figures = Arc::new(BridgeFigures::new(0));
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

    fn published(ticket: Option<GatherTicket>) -> Published {
        Published {
            id: NotificationId::NIL,
            tenant: TenantId::default_tenant(),
            priority: Priority::Normal,
            expires_at_unix_ms: None,
            stream: StreamSeq::default(),
            ticket,
            message: format!(r#"{{"type":"notification","id":"{}","metadata":{{}}}}"#, NotificationId::NIL).into(),
        }
    }

    #[test]
    fn what_is_not_for_us_is_passed_over_and_the_rest_is_told_apart() {
        let (mut inbox, figures) = inbox();
        let now = Now { mono_us: 1, unix_ns: 1 };
        let ticket = GatherTicket { shard: 1, slot: 2, generation: 3 };
        let template = || ParcelKind::Template { tenant: TenantId::default_tenant(), id: "t".into() };
        inbox.heard(now, None, &said("n1", None, template()));
        inbox.heard(now, None, &said("n2", Some("n3"), template()));
        inbox.heard(now, None, &said("n2", None, ParcelKind::Canary(1)));
        inbox.heard(now, None, b"{");
        assert_eq!((shown(&mut inbox).len(), figures.flows(now)), (0, false));
        inbox.heard(now, None, &said("n1", Some("n1"), ParcelKind::Canary(1)));
        assert!(figures.flows(now));
        inbox.heard(now, None, &said("n2", Some("n1"), template()));
        inbox.heard(now, None, &said("n2", Some("n1"), ParcelKind::Receipt { ticket, receipt: Receipt::default() }));
        let told = shown(&mut inbox);
        assert!(told[0].starts_with("Parcel(") && told[1].starts_with("Receipt {"), "{told:?}");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_bundle_is_as_good_as_what_is_in_it() {
        let (mut inbox, figures) = inbox();
        let target = || Target::Channel("c".into());
        let bundle = |server_id: &str| {
            let one = || Bundled { target: target(), audience: None, published: published(None) };
            said(server_id, None, ParcelKind::Bundle(vec![one(), one()]))
        };
        inbox.heard(Now::default(), None, &bundle("n1"));
        assert_eq!(shown(&mut inbox).len(), 0, "its own");
        inbox.heard(Now::default(), None, &bundle("n2"));
        let one = ParcelKind::Publication { target: target(), audience: None, published: published(None) };
        inbox.heard(Now::default(), None, &said("n2", None, one));
        let told = shown(&mut inbox);
        assert!(told.len() == 3 && told.iter().all(|one| *one == told[0]), "{told:?}");
        assert_eq!(figures.received_notifications.load(std::sync::atomic::Ordering::Relaxed), 3);
    }

    #[test]
    fn what_this_node_published_itself_comes_back_as_a_receipt_without_counts() {
        let (mut inbox, _) = inbox();
        let now = Now { mono_us: 1, unix_ns: 1 };
        let ticket = GatherTicket { shard: 1, slot: 2, generation: 3 };
        let (tenant, user) = (TenantId::default_tenant(), "ana".into());
        inbox.heard(now, None, &said("n1", None, ParcelKind::Question { ticket, tenant, user }));
        let [ClusterEvent::Answer { ticket: of, sessions }] = &inbox.events[..] else { panic!("{:?}", inbox.events) };
        assert_eq!((*of, sessions.len()), (ticket, 0));
        inbox.events.clear();
        let publication = |ticket| ParcelKind::Publication {
            target: Target::Broadcast,
            audience: None,
            published: published(ticket),
        };
        inbox.heard(now, None, &said("n1", None, publication(Some(ticket))));
        let [ClusterEvent::Receipt { ticket: of, receipt }] = &inbox.events[..] else { panic!("{:?}", inbox.events) };
        assert_eq!((*of, *receipt), (ticket, Receipt::default()));
        inbox.events.clear();
        inbox.heard(now, None, &said("n1", None, publication(None)));
        assert!(inbox.events.is_empty(), "nobody waits for it");
    }

    #[test]
    fn whoever_waits_for_a_topic_is_told_of_it_or_of_the_loss() {
        let (mut inbox, _) = inbox();
        let topic = |name: &str| Topic::User(TenantId::default_tenant(), name.into());
        inbox.wait(b"a", None, topic("a"), 1, 7);
        inbox.wait(b"b", None, topic("b"), 2, 8);
        inbox.watching(b"a");
        inbox.watching(b"a");
        assert_eq!(shown(&mut inbox).len(), 1);
        inbox.down(None);
        assert!(shown(&mut inbox)[0].contains("shard: 2, serial: 8"));
    }

    #[test]
    fn partitions_that_come_back_together_are_told_of_once() {
        let (mut inbox, _) = inbox();
        let at = |ms: u64| Now { mono_us: ms * 1_000, unix_ns: 0 };
        inbox.resumed(at(0), Some(3));
        inbox.resumed(at(50), Some(4));
        inbox.tick(at(99));
        assert_eq!((shown(&mut inbox).len(), inbox.due_us()), (0, Some(100_000)));
        inbox.tick(at(100));
        assert_eq!((shown(&mut inbox), inbox.due_us()), (vec!["Resumed".to_owned()], None));
        inbox.resumed(at(100), None);
        assert_eq!(shown(&mut inbox), ["Resumed"]);
    }

    #[test]
    fn what_is_said_to_several_partitions_is_one_event_when_it_is_complete() {
        let (mut inbox, _) = inbox();
        let now = Now::default();
        let id = protocol::ids::NotificationId(protocol::ids::uuid_v7(1, [0; 10]));
        let fence = said("n2", None, ParcelKind::Fence { id, partitions: vec![3, 4] });
        let message = format!(r#"{{"type":"notification","id":"{}","payload":1,"metadata":{{}}}}"#, id.0);
        let published = protocol::cluster::wire::Published {
            id,
            tenant: TenantId::default_tenant(),
            priority: protocol::notification::Priority::Normal,
            expires_at_unix_ms: None,
            stream: protocol::stream::StreamSeq::default(),
            ticket: None,
            message: message.into(),
        };
        let target = protocol::notification::Target::Channels(["a".into(), "b".into()].into());
        let publication = said("n2", None, ParcelKind::Publication { target, audience: None, published });
        (3..5).for_each(|nth| inbox.up(Some(nth)));
        inbox.heard(now, Some(3), &fence);
        inbox.heard(now, Some(3), &publication);
        assert_eq!(shown(&mut inbox).len(), 0);
        inbox.heard(now, Some(4), &fence);
        let events = shown(&mut inbox);
        assert!(matches!(&events[..], [event] if event.contains("Publication")), "{events:?}");
        // The other partition is lost with its fence.
        inbox.heard(now, Some(3), &fence);
        inbox.heard(now, Some(3), &publication);
        inbox.down(Some(4));
        assert_eq!(shown(&mut inbox).len(), 1);
    }
}
