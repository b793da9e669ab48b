use super::*;
use protocol::frame::{EventName, Frame};
use protocol::ids::{NotificationId, TenantId};
use protocol::notification::{Priority, Publication, Target};
use protocol::stream::{Places, StreamSeq};

/// Long after everything began.
const NOW_MS: u64 = 100_000;
const WAIT_MS: u64 = limits::CLUSTER_CLAIM_WAIT_MS;
const RETRY_MS: u64 = limits::CLUSTER_CLAIM_RETRY_MS;
const EVER: u64 = 0;
const NOTHING: [u32; 0] = [];

/// A shard of a node, and the mailbox's user.
struct Desk {
    claims: PendingClaims,
    now_ms: u64,
    under_way: Vec<(u32, Turn, Box<ClaimedMail>)>,
}

impl Desk {
    fn new() -> Desk {
        Desk { claims: PendingClaims::default(), now_ms: NOW_MS, under_way: Vec::new() }
    }

    fn wait(&mut self, user: &str, n: u32, read_ms: u64, reads_since_us: u64, is_named: bool) {
        self.claims.wait(piece(user, n, read_ms, reads_since_us), is_named).expect("there is room");
    }

    /// What the store is asked for at this time: the numbers.
    fn asked(&mut self, now_ms: u64) -> Vec<u32> {
        self.now_ms = now_ms;
        let begun = self.under_way.len();
        while let Some((turn, mail)) = self.claims.next(now_ms) {
            self.under_way.push((turn.claim.nth, turn, mail));
        }
        self.claims.check(self.under_way.len());
        self.under_way[begun..].iter().map(|(n, ..)| *n).collect()
    }

    fn take(&mut self, n: u32) -> (Turn, ClaimedMail) {
        let at = self.under_way.iter().position(|(nth, ..)| *nth == n).expect("it was asked for");
        let (_, turn, mail) = self.under_way.remove(at);
        (turn, *mail)
    }

    fn keeps(&mut self, n: u32) {
        let (turn, mail) = self.take(n);
        self.claims.succeeded(self.now_ms, &mail.key, turn);
        self.claims.check(self.under_way.len());
    }

    fn fails(&mut self, now_ms: u64, n: u32) -> bool {
        let (turn, ClaimedMail { key, mail, delivery, .. }) = self.take(n);
        let is_elsewhere = self.claims.failed(now_ms, &key, mail, delivery, turn);
        self.claims.check(self.under_way.len());
        is_elsewhere
    }
}

/// Another has read for as long as it is there, and this node since then.
fn readers(own_since_us: Option<u64>) -> Readers {
    Readers { own_since_us, others_since_us: Some(50_000_000) }
}

fn claim(user: &str, n: u32) -> Claim {
    Claim::of(b"c", user.as_bytes(), n)
}

fn piece(user: &str, n: u32, read_ms: u64, reads_since_us: u64) -> Box<ClaimedMail> {
    let tenant = TenantId::default_tenant();
    let mail = Mail {
        id: NotificationId::NIL,
        event: (*b"{}").into(),
        queued_at_unix_ns: 0,
        expires_at_unix_ns: u64::MAX,
        attempts: 0,
        stream: StreamSeq::default(),
    };
    let publication = Publication {
        id: NotificationId::NIL,
        tenant: tenant.clone(),
        target: Target::User(user.into()),
        audience: None,
        priority: Priority::Normal,
        expires_at_us: None,
        accepted_at_us: 0,
        frame: Frame::new(EventName::Message, None, b"{}"),
    };
    let delivery = Rc::new(Delivery::new(Arc::new(publication), Places::One(StreamSeq::default()), None));
    let key = Arc::new(MailboxKey { tenant, user: user.into() });
    Box::new(ClaimedMail {
        claim: Claim { reads_since_us, ..claim(user, n) },
        key,
        mail,
        delivery,
        read_ms,
        has_failed: false,
    })
}

#[test]
fn who_is_named_asks_at_once_and_who_is_not_when_no_word_comes() {
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, EVER, true);
    desk.wait("ana", 2, NOW_MS, EVER, true);
    desk.wait("bo", 3, NOW_MS, EVER, false);
    desk.wait("bo", 4, NOW_MS + 1, EVER, false);
    desk.wait("bo", 5, NOW_MS + 2, EVER, false);
    assert_eq!(desk.asked(NOW_MS), [1, 2]);
    assert!(desk.claims.stored(claim("bo", 4)) && !desk.claims.stored(claim("bo", 6)));
    assert_eq!((desk.claims.len(), desk.claims.due_ms()), (2, Some(NOW_MS + WAIT_MS)));
    assert_eq!(desk.asked(NOW_MS + WAIT_MS - 1), NOTHING);
    assert_eq!(desk.asked(NOW_MS + WAIT_MS), [3]);
    assert_eq!(desk.asked(NOW_MS + WAIT_MS + 2), [5]);
    [1, 2, 3, 5].into_iter().for_each(|n| desk.keeps(n));
    assert!(desk.claims.is_settled() && desk.claims.lines.is_empty());
}

#[test]
fn what_failed_is_tried_alone_and_before_what_is_newer() {
    let mut desk = Desk::new();
    (1..4).for_each(|n| desk.wait("ana", n, NOW_MS, EVER, true));
    assert_eq!(desk.asked(NOW_MS), [1, 2, 3]);
    // The answers come in any order.
    desk.fails(NOW_MS, 2);
    desk.wait("ana", 4, NOW_MS, EVER, true);
    desk.wait("bo", 9, NOW_MS, EVER, true);
    assert_eq!(desk.asked(NOW_MS + RETRY_MS), [9], "two are under way");
    desk.fails(NOW_MS + 1, 1);
    desk.keeps(3);
    assert_eq!(desk.asked(NOW_MS + RETRY_MS), NOTHING);
    assert_eq!(desk.asked(NOW_MS + 1 + RETRY_MS), [1]);
    desk.keeps(1);
    assert_eq!(desk.asked(NOW_MS + 1 + RETRY_MS), [2, 4], "the store is well");
}

#[test]
fn while_nothing_succeeds_one_line_is_tried_at_a_time() {
    let users = ["ana", "bo", "cy"];
    let mut desk = Desk::new();
    users.iter().zip(1..).for_each(|(user, n)| desk.wait(user, n, NOW_MS, EVER, true));
    assert_eq!(desk.asked(NOW_MS), [1, 2, 3]);
    (1..4).for_each(|n| _ = desk.fails(NOW_MS, n));
    assert_eq!((desk.asked(NOW_MS + RETRY_MS), desk.claims.due_ms()), (vec![1], None));
    desk.fails(NOW_MS + RETRY_MS, 1);
    assert_eq!(desk.asked(NOW_MS + 2 * RETRY_MS - 1), NOTHING);
    assert_eq!(desk.asked(NOW_MS + 2 * RETRY_MS), [2], "another one");
    desk.keeps(2);
    assert_eq!(desk.asked(NOW_MS + 2 * RETRY_MS), [3, 1], "whoever waits for longest");
}

#[test]
fn what_failed_before_a_break_is_left_to_who_waited_for_its_word() {
    let again_us = (NOW_MS + 1_000) * 1_000;
    let settled_ms = NOW_MS + 1_000 + limits::CLUSTER_CLAIM_SETTLE_MS;
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, EVER, true);
    desk.wait("bo", 2, NOW_MS, EVER, false);
    assert_eq!(desk.asked(NOW_MS), [1]);
    desk.fails(NOW_MS, 1);
    desk.claims.name(NOW_MS, readers(None), |_| true);
    assert_eq!(desk.asked(NOW_MS + RETRY_MS), [2], "it waited for another's");
    desk.fails(NOW_MS + RETRY_MS, 2);
    desk.claims.name(NOW_MS + 1_000, readers(Some(again_us)), |_| true);
    assert_eq!(desk.asked(NOW_MS + 1_000), [2]);
    desk.keeps(2);
    assert_eq!(desk.asked(settled_ms - 1), NOTHING);
    assert_eq!(desk.asked(settled_ms), [1]);
}

#[test]
fn who_stops_waits_for_no_word() {
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, EVER, false);
    desk.wait("bo", 2, NOW_MS, EVER, false);
    desk.wait("cy", 3, NOW_MS, EVER, true);
    assert_eq!(desk.asked(NOW_MS), [3]);
    desk.fails(NOW_MS, 3);
    let young_us = NOW_MS * 1_000;
    desk.wait("di", 4, NOW_MS, young_us, false);
    desk.claims.hurry();
    assert_eq!(desk.asked(NOW_MS), [1, 2]);
    desk.keeps(1);
    assert_eq!(desk.asked(NOW_MS + RETRY_MS), [3], "it failed before a break");
    assert_eq!(desk.asked(NOW_MS + limits::CLUSTER_CLAIM_SETTLE_MS), [4], "others may hold what is older");
}

#[test]
fn what_another_keeps_while_the_store_is_asked_is_not_asked_for_again() {
    let mut desk = Desk::new();
    (1..3).for_each(|n| desk.wait("ana", n, NOW_MS, EVER, true));
    assert_eq!(desk.asked(NOW_MS), [1, 2]);
    assert!(!desk.claims.stored(claim("ana", 1)), "it does not wait");
    assert!(desk.fails(NOW_MS, 1) && !desk.fails(NOW_MS, 2));
    desk.wait("ana", 3, NOW_MS, EVER, true);
    assert!(desk.claims.stored(claim("ana", 2)), "it waits again");
    assert_eq!(desk.asked(NOW_MS + RETRY_MS), [3]);
}

#[test]
fn who_has_just_begun_to_read_lets_others_ask_before() {
    let since_us = (NOW_MS - 100) * 1_000;
    let settled_ms = NOW_MS - 100 + limits::CLUSTER_CLAIM_SETTLE_MS;
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, since_us, true);
    desk.wait("bo", 2, NOW_MS, since_us, false);
    assert_eq!(desk.asked(settled_ms - 1), NOTHING);
    assert_eq!(desk.asked(settled_ms), [1]);
    assert_eq!(desk.asked(settled_ms + limits::CLUSTER_CLAIM_YIELD_MS - 1), NOTHING);
    assert_eq!(desk.asked(settled_ms + limits::CLUSTER_CLAIM_YIELD_MS), [2]);
    assert!(desk.under_way.iter().all(|(_, turn, _)| !turn.may_repeat));
}

#[test]
fn who_is_named_in_anothers_place_asks_for_the_whole_line() {
    let mut desk = Desk::new();
    (1..3).for_each(|n| desk.wait("ana", n, NOW_MS, EVER, false));
    desk.wait("bo", 3, NOW_MS, EVER, false);
    desk.claims.name(NOW_MS, readers(Some(EVER)), |key| *key.user == *"ana");
    assert_eq!(desk.asked(NOW_MS), [1, 2]);
    desk.claims.name(NOW_MS, readers(Some(EVER)), |_| true);
    assert_eq!(desk.asked(NOW_MS), [3]);
}

#[test]
fn what_was_read_before_a_break_is_left_to_who_has_read_for_longer() {
    let since_us = |ms: u64| (NOW_MS - ms) * 1_000;
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, since_us(90_000), false);
    desk.wait("bo", 2, NOW_MS, since_us(10_000), false);
    desk.claims.name(NOW_MS, readers(Some(since_us(1))), |_| false);
    assert_eq!(desk.asked(NOW_MS), [1]);
    assert_eq!(desk.asked(NOW_MS + WAIT_MS), [2]);
}

#[test]
fn what_was_read_before_a_break_may_be_a_repetition() {
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, 1, false);
    desk.claims.name(NOW_MS, readers(None), |_| true);
    assert_eq!(desk.asked(NOW_MS), [1]);
    desk.wait("ana", 2, NOW_MS, 2, true);
    assert_eq!(desk.asked(NOW_MS), [2]);
    assert_eq!(desk.under_way.iter().map(|(_, turn, _)| turn.may_repeat).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn at_the_bound_the_oldest_goes_before_its_time() {
    let mut desk = Desk::new();
    let max = limits::CLUSTER_CLAIMS_WAITING_MAX as u32;
    (1..=max).for_each(|n| desk.wait("bo", n, NOW_MS + u64::from(n), EVER, false));
    let more = || piece("cy", max + 1, NOW_MS, EVER);
    assert!(desk.claims.wait(more(), false).is_err());
    let mut early = || desk.claims.next_early(NOW_MS).map(|(turn, _)| turn.claim.nth);
    assert_eq!([early(), early()], [Some(1), Some(2)], "in order");
    assert!(desk.claims.wait(more(), false).is_ok());
}

#[test]
fn at_the_bound_nobody_waits_for_what_the_store_fails_to_keep_for_others() {
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, EVER, true);
    assert_eq!(desk.asked(NOW_MS), [1]);
    desk.fails(NOW_MS, 1);
    let max = limits::CLUSTER_CLAIMS_WAITING_MAX as u32;
    (2..=max).for_each(|n| desk.wait("ana", n, NOW_MS, EVER, true));
    assert!(desk.claims.wait(piece("ana", max + 1, NOW_MS, EVER), true).is_err());
    assert!(desk.claims.wait(piece("bo", max + 1, NOW_MS, EVER), false).is_err(), "it would wait for another's word");
    assert!(desk.claims.next_early(NOW_MS).is_none());
    desk.wait("cy", max + 1, NOW_MS, EVER, true);
    assert_eq!(desk.asked(NOW_MS), [max + 1]);
    desk.wait("cy", max + 2, NOW_MS, EVER, true);
    assert_eq!(desk.asked(NOW_MS), [max + 2]);
    desk.fails(NOW_MS, max + 2);
    assert!(desk.claims.wait(piece("cy", max + 3, NOW_MS, EVER), true).is_err());
}

#[test]
fn of_a_store_that_is_silent_nothing_more_is_asked() {
    let late_ms = NOW_MS + limits::CLUSTER_CLAIM_AHEAD_MS + 1;
    let mut desk = Desk::new();
    (1..3).for_each(|n| desk.wait("ana", n, NOW_MS, EVER, true));
    assert_eq!(desk.asked(NOW_MS), [1, 2]);
    desk.wait("ana", 3, late_ms, EVER, true);
    desk.wait("bo", 4, late_ms, EVER, true);
    assert_eq!(desk.asked(late_ms), [4], "another mailbox");
    desk.claims.name(late_ms, readers(Some(EVER)), |_| true);
    assert_eq!(desk.asked(late_ms), NOTHING);
    desk.keeps(1);
    assert_eq!(desk.asked(late_ms), [3], "it goes on");
}

#[test]
fn what_fails_while_the_store_does_other_things_is_tried_less_and_less() {
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, EVER, true);
    let (mut now_ms, mut rests) = (NOW_MS, Vec::new());
    for n in 2..8 {
        desk.wait("bo", n, now_ms, EVER, true);
        assert_eq!(desk.asked(now_ms), [1, n]);
        desk.keeps(n);
        desk.fails(now_ms, 1);
        desk.wait("cy", n + 10, now_ms, EVER, true);
        assert_eq!(desk.asked(now_ms), [n + 10]);
        desk.keeps(n + 10);
        let due_ms = desk.claims.due_ms().expect("it is tried again");
        rests.push(due_ms - now_ms);
        now_ms = due_ms;
    }
    assert_eq!(rests, [250, 500, 1_000, 2_000, 2_000, 2_000]);
}

#[test]
fn while_one_break_follows_another_what_failed_waits_for_so_long_and_no_longer() {
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, EVER, true);
    assert_eq!(desk.asked(NOW_MS), [1]);
    desk.fails(NOW_MS, 1);
    let end_ms = NOW_MS + limits::CLUSTER_CLAIM_YIELD_MAX_MS;
    for now_ms in (NOW_MS..end_ms).step_by(2_000) {
        desk.claims.name(now_ms, readers(None), |_| true);
        desk.claims.name(now_ms + 1_000, readers(Some(1_000 * (now_ms + 1_000))), |_| true);
        assert_eq!(desk.asked(now_ms + 1_000), NOTHING);
    }
    assert_eq!(desk.asked(end_ms - 1), NOTHING);
    assert_eq!(desk.asked(end_ms), [1]);
}

#[test]
fn a_break_is_known_by_what_is_read_after_it() {
    let again_us = (NOW_MS + 10) * 1_000;
    let mut desk = Desk::new();
    desk.wait("ana", 1, NOW_MS, EVER, true);
    desk.wait("bo", 2, NOW_MS, EVER, false);
    assert_eq!(desk.asked(NOW_MS), [1]);
    desk.fails(NOW_MS, 1);
    desk.wait("cy", 3, NOW_MS + 20, again_us, true);
    assert_eq!(desk.asked(NOW_MS + 20), [2], "it waited for a word");
    let settled_ms = NOW_MS + 10 + limits::CLUSTER_CLAIM_SETTLE_MS;
    desk.keeps(2);
    assert_eq!(desk.asked(settled_ms - 1), NOTHING);
    assert_eq!(desk.asked(settled_ms), [1, 3]);
}

#[test]
fn the_same_claim_waits_once() {
    let mut desk = Desk::new();
    (0..2).for_each(|_| desk.wait("ana", 1, NOW_MS, EVER, false));
    assert_eq!((desk.claims.len(), desk.asked(NOW_MS + WAIT_MS)), (1, vec![1]));
}

#[test]
fn what_others_have_kept_is_remembered_for_a_while() {
    let mut claims = PendingClaims::default();
    let claim = |nth| Claim::new(1, nth);
    for nth in 0..=limits::CLUSTER_CLAIMS_REMEMBERED_MAX as u32 {
        assert!(!claims.stored(claim(nth)), "it did not wait");
    }
    assert!(!claims.is_stored(claim(0)) && claims.is_stored(claim(1)));
    assert_eq!(claims.elsewhere.len(), limits::CLUSTER_CLAIMS_REMEMBERED_MAX);
}
