//! What must hold between any two calls: the tables agree with each other and with the figures, and no connection waits
//! for something that nobody will do. Costs a walk over everything; simulations call it, the rim does not.
use crate::conn::Phase;
use crate::conn::http::HttpStage;
use crate::conn::live::{Intake, Live};
use crate::conn::outbox::{ENTRY_ROOM_BYTES, Transport};
use crate::key::ConnKey;
use crate::shard::Shard;
use crate::tables::channels::Member;
use crate::tables::mail::Wait;
use protocol::ids::NotificationId;
use protocol::limits;
use protocol::stream::Places;
use std::collections::HashMap;

impl Shard {
    /// Panics with words when something that must hold does not.
    pub fn check(&self) {
        let [mut websockets, mut streams, mut subscriptions, mut waiting_bytes] = [0u64; 4];
        let mut named_tokens = 0;
        let (mut room_bytes, mut frames) = (0, HashMap::<_, (u32, usize)>::new());
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            let words = || format!("shard {} {key:?} {connection:?}", self.me.0);
            assert!(self.wheel.holds(key, connection.tick), "no deadline: {}", words());
            self.check_input(key);
            let (transport, held) = connection.reads();
            let is_sealed = connection.sealed && connection.outbox.is_some();
            assert!(is_sealed || self.sealed_mail.of(key).is_empty(), "mail that nobody sends: {}", words());
            if let Some(outbox) = &connection.outbox {
                outbox.check(transport);
                waiting_bytes += (outbox.frame_bytes() + outbox.control_bytes()) as u64;
                room_bytes += outbox.control_bytes() + outbox.frames_len() * ENTRY_ROOM_BYTES;
                for delivery in outbox.frames() {
                    let (waits_in, room_bytes) = frames.entry(std::ptr::from_ref(delivery)).or_default();
                    (*waits_in, *room_bytes) = (*waits_in + 1, delivery.room_bytes());
                    assert!(delivery.waits_in() >= *waits_in, "waits in more than it knows: {}", words());
                }
                let has_output = outbox.control_bytes() > 0 || !held && !outbox.is_empty();
                assert!(
                    !has_output || connection.dirty || connection.blocked,
                    "output that nobody writes: {}",
                    words()
                );
            }
            if let Phase::Live(live) = &connection.phase {
                self.check_intake(key, live);
                *if live.transport == Transport::WebSocket { &mut websockets } else { &mut streams } += 1;
                subscriptions += live.subscriptions.len() as u64;
                if let Some(id) = live.token_id() {
                    named_tokens += 1;
                    let slots = self.token_ids.candidates(live.tenant, id);
                    assert!(slots.contains(&key.slot), "not found by its token: {}", words());
                }
                let tenant = self.tenants.get(live.tenant);
                assert_eq!(tenant.members.get(live.tenant_position as usize), Some(&key.slot), "tenant: {}", words());
                let user = self.users.get(live.user).map(|user| user.connections.get(live.user_position as usize));
                assert_eq!(user, Some(Some(&key.slot)), "user: {}", words());
                for (at, held) in live.subscriptions.iter().enumerate() {
                    let members = self.channels.get(held.channel).map(|channel| &channel.members);
                    let member = members.and_then(|members| members.get(held.member as usize));
                    let expected = Member { slot: key.slot, subscription: at as u32 };
                    assert_eq!(member, Some(&expected), "subscription {at}: {}", words());
                }
            }
        }
        assert_eq!(self.token_ids.len(), named_tokens, "tokens with a name");
        room_bytes += frames.values().map(|(_, room_bytes)| room_bytes).sum::<usize>();
        assert_eq!(self.outbox_room_bytes, room_bytes, "memory of outboxes, told and counted");
        self.fanouts.check();
        self.dirty.check();
        let of_retry = |wait: &Wait| match wait {
            Wait::Append { mail, is_retry: true, .. } => mail.len(),
            _ => 0,
        };
        let claimed = |wait: &&Wait| matches!(wait, Wait::Append { turn: Some(_), .. });
        self.claims.check(self.mailroom.waits.values().filter(claimed).count());
        self.mailroom.removals.check();
        let notes = self.mailroom.waits.values().filter(|wait| matches!(wait, Wait::Note)).count();
        assert_eq!(self.mailroom.notes_under_way, notes, "notes under way");
        self.mailroom.retries.check(self.mailroom.waits.values().map(of_retry).sum());
        let members: usize = self.tenants.iter().map(|tenant| tenant.members.len()).sum();
        assert_eq!(members as u64, websockets + streams, "members of tenants");
        let users: u64 = self.tenants.iter().map(|tenant| tenant.users).sum();
        let subscribers: usize = self.channels.iter().map(|channel| channel.members.len()).sum();
        assert_eq!(subscribers as u64, subscriptions, "members of channels");
        assert!(self.channels.iter().all(|channel| !channel.members.is_empty()), "a channel without a subscriber");
        let metrics = self.metrics();
        let told = [
            metrics.connections_ws.get(),
            metrics.connections_sse.get(),
            metrics.subscriptions.get(),
            metrics.users.get(),
            metrics.channels.get(),
            metrics.outbox_bytes.get(),
        ];
        let counted = [websockets, streams, subscriptions, users, self.directory.len() as u64, waiting_bytes];
        assert_eq!(told, counted, "shard {}: figures told and counted", self.me.0);
    }

    /// Who is behind reads, stands in line, or waits for something that will make it read on.
    fn check_intake(&self, key: ConnKey, live: &Live) {
        let Intake::Behind { reading, .. } = live.intake else { return };
        if live.pending.as_ref().is_some_and(|pending| pending.welcome.is_some()) {
            return;
        }
        let room = &self.mailroom;
        if reading {
            let is_asked =
                room.waits.values().any(|wait| matches!(wait, Wait::Read { connection, .. } if *connection == key));
            assert!(is_asked || room.readers.contains(&key), "{key:?} is behind and nobody reads for it");
            return;
        }
        let mail = self.users.get(live.user).and_then(|user| user.mail.as_ref());
        let waits = mail.is_some_and(|mail| mail.appending > 0 || room.retries.holds(&mail.key));
        assert!(waits || !self.has_room_to_read(key), "{key:?} is behind and waits for nothing: {live:?}");
    }

    /// What waits for a connection: which notifications, and where they stand in their streams. For simulations.
    pub fn waiting(&self, key: ConnKey) -> Vec<(NotificationId, Places)> {
        let outbox = self.connections.get(key).and_then(|connection| connection.outbox.as_ref());
        let frames = outbox.into_iter().flat_map(|outbox| outbox.frames());
        frames.map(|delivery| (delivery.publication.id, delivery.places.clone())).collect()
    }

    /// Nobody is paused without a reason, and what is kept of the input is bounded.
    fn check_input(&self, key: ConnKey) {
        let Some(connection) = self.connections.get(key) else { return };
        let words = || format!("shard {} {key:?} {connection:?}", self.me.0);
        assert!(!(connection.deaf && connection.wants_input()), "paused for nothing: {}", words());
        let tail_bytes_max = limits::READ_BYTES_MAX + limits::WS_MESSAGE_BYTES_MAX + 14;
        assert!(connection.tail.len() <= tail_bytes_max, "{} bytes kept: {key:?}", connection.tail.len());
        let room_bytes = connection.tail.capacity();
        assert!(room_bytes <= (4 * connection.tail.len()).max(1_024), "{room_bytes} bytes of room: {}", words());
        match &connection.phase {
            Phase::Http(http) if matches!(http.stage, HttpStage::Awaiting(_) | HttpStage::Batch(..)) => {
                assert!(self.gathers.waits_for(key), "an answer that nobody makes: {}", words());
            }
            Phase::Http(http) if matches!(http.stage, HttpStage::Counting(..)) => {
                assert!(self.limiter.is_some() && !connection.tail.is_empty(), "nothing to count: {}", words());
            }
            Phase::Live(live) => {
                let decoder = format!("{:?}", live.decoder);
                assert!(!decoder.contains("is_whole: true"), "a message that was heard is kept: {}", words());
            }
            _ => {}
        }
    }
}
