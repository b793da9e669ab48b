//! Acknowledgements (contract §9, C-9, C-12), where a store keeps them.
use crate::bench::{ACK_TIMEOUT_MS, Bench, FIGURES_INTERVAL_MS, Kind, Settings, Store, id, mailbox, mailbox_of};
use protocol::ids::{ConnectionId, uuid_v7};
use protocol::store::{AckVerdict, MailboxKey, StoreReply, StoreRequest};
use std::sync::Arc;

rows! {
    on_servers:
        what_is_tracked_is_acknowledged_once,
        every_recipient_acknowledges_for_himself,
        late_is_late_unless_the_mail_was_kept,
        what_nobody_acknowledges_is_given_up_and_counted,
        what_is_awaited_outlives_the_store,
}

fn connection(number: u64) -> ConnectionId {
    ConnectionId(uuid_v7(number, [1; 10]))
}

fn track(store: &mut Store, of: &Arc<MailboxKey>, number: u64) {
    let request = StoreRequest::TrackAck { mailbox: Arc::clone(of), id: id(number), connection: connection(1) };
    assert!(matches!(store.ask(request), StoreReply::Done));
}

fn acknowledge(store: &mut Store, of: &Arc<MailboxKey>, number: u64, is_kept: bool) -> AckVerdict {
    match store.ask(StoreRequest::Acknowledge { mailbox: Arc::clone(of), id: id(number), is_kept }) {
        StoreReply::Acknowledged(verdict) => verdict,
        other => panic!("{other:?}"),
    }
}

/// Pending, tracked, acknowledged and expired.
fn until_figures(store: &mut Store, expected: [u64; 4]) {
    store.skip_ms(FIGURES_INTERVAL_MS);
    store.until(&format!("pending, tracked, acked and expired are {expected:?}"), |d| {
        let acks = &d.figures.acks;
        [&acks.pending, &acks.tracked, &acks.acked, &acks.expired].map(|figure| figure.get()) == expected
    });
}

fn what_is_tracked_is_acknowledged_once(kind: Kind) {
    let mut bench = Bench::new(kind);
    let (store, ana) = (&mut bench.store, mailbox("ana"));
    assert_eq!(acknowledge(store, &ana, 1, true), AckVerdict::NotPending, "nobody knows it");
    track(store, &ana, 1);
    track(store, &ana, 1);
    until_figures(store, [1, 1, 0, 0]);
    assert_eq!(acknowledge(store, &mailbox("bob"), 1, true), AckVerdict::NotPending, "it is not his");
    assert_eq!(acknowledge(store, &mailbox_of("acme", "ana"), 1, true), AckVerdict::NotPending, "nor hers");
    assert_eq!(acknowledge(store, &ana, 2, true), AckVerdict::NotPending);
    assert_eq!(acknowledge(store, &ana, 1, false), AckVerdict::Done);
    assert_eq!(acknowledge(store, &ana, 1, false), AckVerdict::NotPending);
    track(store, &ana, 1);
    assert_eq!(acknowledge(store, &ana, 1, true), AckVerdict::Done, "sent again, awaited again");
    until_figures(store, [0, 2, 2, 0]);
}

fn every_recipient_acknowledges_for_himself(kind: Kind) {
    let mut bench = Bench::new(kind);
    let store = &mut bench.store;
    let everybody = [mailbox("ana"), mailbox("bob"), mailbox_of("acme", "ana"), mailbox("")];
    for of in &everybody {
        track(store, of, 1);
    }
    until_figures(store, [4, 4, 0, 0]);
    // The first is neither first nor last to acknowledge.
    for at in [2, 0, 3, 1] {
        assert_eq!(acknowledge(store, &everybody[at], 1, false), AckVerdict::Done, "{at}");
        assert_eq!(acknowledge(store, &everybody[at], 1, false), AckVerdict::NotPending, "{at}");
    }
    until_figures(store, [0, 4, 4, 0]);
}

fn late_is_late_unless_the_mail_was_kept(kind: Kind) {
    let mut bench = Bench::new(kind);
    let (store, ana) = (&mut bench.store, mailbox("ana"));
    for number in 1..=3 {
        track(store, &ana, number);
    }
    store.skip_ms(ACK_TIMEOUT_MS + 2_000);
    assert_eq!(acknowledge(store, &ana, 1, false), AckVerdict::Late);
    assert_eq!(acknowledge(store, &ana, 1, false), AckVerdict::NotPending);
    assert_eq!(acknowledge(store, &ana, 2, true), AckVerdict::Done);
    track(store, &ana, 3);
    assert_eq!(acknowledge(store, &ana, 3, false), AckVerdict::Done, "its time began anew");
    until_figures(store, [0, 3, 2, 1]);
}

fn what_nobody_acknowledges_is_given_up_and_counted(kind: Kind) {
    let mut bench = Bench::with(kind, Settings { sweep_interval_ms: 1_000, ..Settings::default() });
    let store = &mut bench.store;
    track(store, &mailbox("ana"), 1);
    track(store, &mailbox("bob"), 1);
    track(store, &mailbox("bob"), 2);
    assert_eq!(acknowledge(store, &mailbox("bob"), 2, false), AckVerdict::Done);
    store.skip_ms(ACK_TIMEOUT_MS + 2_000);
    until_figures(store, [0, 3, 1, 2]);
    assert_eq!(acknowledge(store, &mailbox("ana"), 1, true), AckVerdict::NotPending);
}

fn what_is_awaited_outlives_the_store(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    track(&mut bench.store, &ana, 1);
    track(&mut bench.store, &ana, 2);
    assert_eq!(acknowledge(&mut bench.store, &ana, 2, false), AckVerdict::Done);
    let mut next = bench.open();
    until_figures(&mut next, [1, 2, 1, 0]);
    assert_eq!(acknowledge(&mut next, &ana, 1, false), AckVerdict::Done);
    assert_eq!(acknowledge(&mut next, &ana, 2, false), AckVerdict::NotPending);
    until_figures(&mut next, [0, 2, 2, 0]);
}
