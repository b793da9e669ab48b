//! The books: exact at rest, and there after a restart.
use crate::bench::{Bench, FIGURES_INTERVAL_MS, Kind, Settings, mailbox, mails};
use storage::figures::{Figure, StoreOperation};

rows! {
    everywhere:
        figures_are_exact_at_rest;
    on_servers:
        figures_outlive_the_store,
        what_was_asked_is_counted_once_by_what_it_was,
}

fn figures_are_exact_at_rest(kind: Kind) {
    let mut bench = Bench::with(kind, Settings { entries_max: 5, ..Settings::default() });
    bench.store.until_mail_figures([0, 0, 0, 0, 0]);
    let (anas, _) = bench.store.append(&mailbox("ana"), mails(1..=4));
    let (bobs, _) = bench.store.append(&mailbox("bob"), mails(1..=7));
    bench.store.until_mail_figures([2, 9, 11, 2, 0]);
    bench.store.remove(&mailbox("ana"), &anas);
    bench.store.remove(&mailbox("bob"), &bobs[5..]);
    bench.store.until_mail_figures([1, 3, 11, 2, 0]);
    bench.store.append(&mailbox("ana"), mails(5..=5));
    bench.store.until_mail_figures([2, 4, 12, 2, 0]);
}

fn figures_outlive_the_store(kind: Kind) {
    let mut bench = Bench::with(kind, Settings { entries_max: 3, ..Settings::default() });
    let ana = mailbox("ana");
    let (positions, _) = bench.store.append(&ana, mails(1..=3));
    bench.store.remove(&ana, &positions[..1]);
    let mut short = mails(4..=6);
    short[2].expires_at_unix_ns = short[2].queued_at_unix_ns + 5_000_000_000;
    bench.store.append(&ana, short);
    bench.store.skip_ms(6_000);
    assert_eq!(bench.store.numbers(&ana), [4, 5]);
    let expected = [1, 2, 6, 2, 1];
    bench.store.until_mail_figures(expected);
    let mut next = bench.open();
    next.until_mail_figures(expected);
    assert_eq!(next.figures.mail.delivered.get(), 1);
    drop(bench.store);
    next.append(&ana, mails(7..=7));
    next.until_mail_figures([1, 3, 7, 2, 1]);
}

fn what_was_asked_is_counted_once_by_what_it_was(kind: Kind) {
    let mut bench = Bench::new(kind);
    let ana = mailbox("ana");
    for number in 1..=3 {
        bench.store.append(&ana, mails(number..=number));
    }
    let (entries, _) = bench.store.read(&ana, None, 9);
    bench.store.remove(&ana, &[entries[0].position]);
    bench.store.skip_ms(FIGURES_INTERVAL_MS);
    let count = |operation: StoreOperation| {
        let figures = &bench.store.figures.operations[operation as usize];
        let timed = figures.latency.iter().map(Figure::get).sum::<u64>();
        (figures.results.each_ref().map(Figure::get), timed)
    };
    assert_eq!(count(StoreOperation::Append), ([3, 0, 0], 3));
    assert_eq!(count(StoreOperation::Read), ([1, 0, 0], 1));
    assert_eq!(count(StoreOperation::Remove), ([1, 0, 0], 1));
    assert_eq!(count(StoreOperation::Acknowledge), ([0, 0, 0], 0));
    assert_eq!(bench.store.figures.outstanding.get(), 0);
}
