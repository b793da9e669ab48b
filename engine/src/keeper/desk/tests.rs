use super::*;
use protocol::ids::{NotificationId, TenantId};
use protocol::store::MailboxKey;
use shards::guest::Submission;
use shards::metrics::NodeMetrics;
use std::sync::Arc;
use storage::link::wants::Wants as LinkWants;
use storage::memory::mailboxes::MailboxLimits;

/// What a backend was asked, and what it is to say.
#[derive(Default)]
struct Script {
    asked: Vec<StoreTicket>,
    turned: Vec<(usize, bool, bool)>,
    answers: Vec<(StoreTicket, StoreReply)>,
    owes: bool,
}

struct Puppet(Rc<RefCell<Script>>, usize);

impl Backend for Puppet {
    fn submit(&mut self, _now: Now, ticket: StoreTicket, _request: StoreRequest) {
        self.0.borrow_mut().asked.push(ticket);
    }
    fn take_replies(&mut self, out: &mut Vec<(StoreTicket, StoreReply)>) {
        out.append(&mut self.0.borrow_mut().answers);
    }
    fn links(&self) -> usize {
        self.1
    }
    fn turn(&mut self, link: usize, _now: Now, readable: bool, writable: bool) -> LinkWants {
        self.0.borrow_mut().turned.push((link, readable, writable));
        LinkWants { socket: Some((7, 1)), read: true, write: true, wake_at_us: Some(link as u64), again: false }
    }
    fn owes(&self) -> bool {
        self.0.borrow().owes
    }
}

struct NoPort;

impl Port for NoPort {
    fn publish(&mut self, _submission: Submission) {}
    fn congested(&self) -> bool {
        false
    }
}

type Shared = Rc<RefCell<Script>>;

/// A door with backends that keep these things over so many links.
fn door<const N: usize>(backends: [(bool, bool, usize); N]) -> (StoreSeat, [Shared; N]) {
    let scripts: [Shared; N] = std::array::from_fn(|_| Shared::default());
    let made = backends.iter().zip(&scripts).map(|((mail, acks, links), script)| {
        let backend: Box<dyn Backend> = Box::new(Puppet(Rc::clone(script), *links));
        (Keeps { mail: *mail, acks: *acks, counts: false }, backend)
    });
    let memory = Memory::new(ShardId(0), MailboxLimits { entries_max: 5 }, 1_000_000, Arc::new(NodeMetrics::new(1, 1)));
    (open(memory, made.collect()), scripts)
}

fn mailbox() -> Arc<MailboxKey> {
    Arc::new(MailboxKey { tenant: TenantId::default_tenant(), user: "ana".into() })
}

/// One request of each kind; the fourth is an acknowledgement.
fn ask(seat: &mut StoreSeat) {
    let requests = [
        StoreRequest::LoadTemplates,
        StoreRequest::ReadMail { mailbox: mailbox(), after: None, entries_max: 1, lingering_ms: 0 },
        StoreRequest::DeleteTemplate { tenant: TenantId::default_tenant(), id: "t".into() },
        StoreRequest::Acknowledge { mailbox: mailbox(), id: NotificationId::NIL, is_kept: false },
    ];
    for (request, number) in requests.into_iter().zip(1..) {
        seat.port.submit(Now::default(), ShardId(0), StoreTicket(number), request);
    }
}

fn replies(seat: &mut StoreSeat) -> Vec<(u64, String)> {
    let mut out = Vec::new();
    seat.port.take_replies(Now::default(), &mut out);
    out.into_iter().map(|(ticket, reply)| (ticket.0, format!("{reply:?}"))).collect()
}

fn numbers(script: &Shared) -> Vec<u64> {
    script.borrow().asked.iter().map(|ticket| ticket.0).collect()
}

#[test]
fn each_request_goes_where_such_things_are_kept() {
    let (mut seat, [both]) = door([(true, true, 1)]);
    ask(&mut seat);
    assert_eq!(numbers(&both), [1, 2, 3, 4]);

    let (mut seat, [mail, acks]) = door([(true, false, 1), (false, true, 2)]);
    assert_eq!(seat.links.len(), 3);
    ask(&mut seat);
    assert_eq!((numbers(&mail), numbers(&acks)), (vec![1, 2, 3], vec![4]));
    assert_eq!(replies(&mut seat), []);
    mail.borrow_mut().answers.push((StoreTicket(2), StoreReply::Done));
    acks.borrow_mut().answers.push((StoreTicket(4), StoreReply::Unknown));
    assert_eq!(replies(&mut seat), [(2, "Done".to_owned()), (4, "Unknown".to_owned())]);
}

#[test]
fn memory_answers_at_once_what_no_backend_keeps() {
    let (mut seat, []) = door([]);
    assert!(seat.links.is_empty());
    ask(&mut seat);
    let said = replies(&mut seat);
    assert_eq!(said[0], (1, "Templates([])".to_owned()));
    assert_eq!(said[3], (4, "Failed".to_owned()), "nobody keeps acknowledgements");

    let (mut seat, [acks]) = door([(false, true, 1)]);
    ask(&mut seat);
    assert_eq!((numbers(&acks), replies(&mut seat).len()), (vec![4], 3));
}

#[test]
fn a_link_is_turned_as_itself_and_serves_on_while_the_node_stops() {
    let (mut seat, [script]) = door([(true, false, 2)]);
    let ready = Ready { read: true, write: false };
    let wants = seat.links[1].turn(Now::default(), ready, &mut NoPort);
    assert_eq!(script.borrow().turned, [(1, true, false)]);
    assert_eq!(wants, Wants { socket: Some((7, 1)), read: true, write: true, wake_at_us: Some(1), again: false });
    assert!(!seat.links[1].owes());

    script.borrow_mut().owes = true;
    seat.links[1].stop();
    assert!(seat.links[1].owes());
    assert_eq!(seat.links[1].turn(Now::default(), ready, &mut NoPort), wants, "somebody waits for an answer");
    script.borrow_mut().owes = false;
    assert_eq!(seat.links[1].turn(Now::default(), ready, &mut NoPort), Wants::default(), "nobody waits");
}
