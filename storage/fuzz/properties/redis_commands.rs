//! Commands at a server that answers anything, over two connections one after the other.
use super::{PASSWORD, assert_harmless, cuts, pour};
use protocol::clock::Now;
use std::collections::BTreeMap;
use storage::redis::acks::{AckStats, Acknowledged, Overdue};
use storage::redis::commands::event::{Answer, Bounds, Event, Fate};
use storage::redis::commands::reply::Reply;
use storage::redis::commands::script::Script;
use storage::redis::commands::session::CommandSession;
use storage::redis::commands::status::Operation;
use storage::redis::commands::{Command, Ticket, Words};
use storage::redis::mailbox::page::{Enqueued, MailboxStats, Page, Removed};
use storage::redis::sessions::Swept;
use storage::redis::topology::node::Node;
use storage::redis::topology::slots::{Redirect, SlotTable};
use storage::redis::url::RedisUrl;

const COMMANDS: u64 = 6;
/// What is said when an answer came before its question was sent. A server that answers whole what was never said is
/// told so sooner than one that answers in pieces, between which we had time to say it.
const TOO_SOON: &str = "the command is not sent yet";

static ONE: Script = Script::new("one", "return 1");
static TWO: Script = Script::new("two", "return 2");

pub fn session(bytes: &[u8]) {
    let Some((mode, said)) = bytes.split_first() else { return };
    let (whole, torn) = (talk(*mode, said, || usize::MAX), talk(*mode, said, cuts(bytes)));
    match whole.last() {
        Some(last) if last.contains(TOO_SOON) => {
            assert!(torn.starts_with(&whole[..whole.len() - 1]), "whole: {whole:?}\ncut: {torn:?}");
        }
        _ => assert_eq!(whole, torn, "whole and cut"),
    }
}

/// Everything heard up to the first error. Every command has come to exactly one end by then.
fn talk(mode: u8, said: &[u8], mut cut: impl FnMut() -> usize) -> Vec<String> {
    let url = match mode % 4 {
        0 => "redis://h".to_owned(),
        1 => format!("redis://:{PASSWORD}@h"),
        2 => format!("redis://ara:{PASSWORD}@h/3"),
        _ => "redis://h/1".to_owned(),
    };
    let scripts: &[&Script] = if mode & 4 == 0 { &[&ONE] } else { &[] };
    let url = RedisUrl::parse(&url).expect("a valid URL");
    let mut session = CommandSession::new(url, scripts, Bounds { commands_max: 8, bytes_max: 4_096 });
    // How often each came to an end.
    let mut ends: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut heard, mut next) = (Vec::new(), 0);
    let connections = if mode & 8 == 0 { vec![said] } else { <[_; 2]>::from(said.split_at(said.len() / 2)).to_vec() };
    for said in connections {
        session.begin();
        for _ in 0..COMMANDS / 2 {
            if push(&mut session, next) {
                ends.insert(next, 0);
            }
            next += 1;
        }
        let has_password = matches!(mode % 4, 1 | 2);
        let error = hear(&mut session, said, &mut cut, &mut heard, &mut ends, has_password);
        session.end(|ask, fate| {
            *ends.entry(ask.ticket.0).or_default() += 1;
            // An unsent command has no fate to be unknown.
            assert!(matches!(fate, Fate::Unknown | Fate::NotSent));
        });
        assert_eq!((session.commands(), session.bytes()), (0, 0), "something of an ended connection is left");
        assert!(ends.values().all(|count| *count == 1), "ends of commands: {ends:?}");
        if let Some(error) = error {
            heard.push(error);
            break;
        }
    }
    heard
}

fn push(session: &mut CommandSession, ticket: u64) -> bool {
    let words = match ticket % 3 {
        0 => Words::Plain(&[b"XLEN", b"key"]),
        1 => Words::Script { script: &ONE, keys: &[b"key"], arguments: &[b"1", b"2"] },
        _ => Words::Script { script: &TWO, keys: &[], arguments: &[] },
    };
    session.push(1, 1_000, Ticket(ticket), Command { operation: Operation::Other, words }).is_ok()
}

/// The error that ends it, if one does.
fn hear(
    session: &mut CommandSession,
    mut said: &[u8],
    cut: &mut impl FnMut() -> usize,
    heard: &mut Vec<String>,
    ends: &mut BTreeMap<u64, u32>,
    has_password: bool,
) -> Option<String> {
    loop {
        loop {
            session.sent(session.output().len());
            let event = match session.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => return Some(error.to_string()),
            };
            heard.push(match event {
                Event::Answered { ask, answer } => {
                    *ends.get_mut(&ask.ticket.0).expect("it was asked") += 1;
                    match answer {
                        Answer::Done(reply) => format!("{:?} {}", ask.ticket, read_as_everything(reply)),
                        Answer::Refused(refusal) => {
                            assert_harmless(&refusal.text, has_password);
                            format!("{:?} {refusal:?}", ask.ticket)
                        }
                        Answer::Failed(failure) => {
                            assert_harmless(&failure.text, has_password);
                            format!("{:?} {failure:?}", ask.ticket)
                        }
                    }
                }
                event => {
                    if let Event::NotLoaded { text, .. }
                    | Event::NotFenced { text }
                    | Event::GreetingRefused { text, .. } = &event
                    {
                        assert_harmless(text, has_password);
                    }
                    format!("{event:?}")
                }
            });
            assert!(session.commands() <= 8 && heard.len() < 1_000_000);
        }
        if said.is_empty() {
            return None;
        }
        let taken = pour(&mut said, session.room(), cut());
        session.filled(taken);
    }
}

/// A reply, taken for each thing that is ever asked for: it is that, or it is not, and nobody panics.
fn read_as_everything(reply: Reply<'_>) -> String {
    let now = Now { mono_us: 1, unix_ns: 1_767_323_045_123_456_789 };
    let asked = Node { host: "seed.example".to_owned(), port: 7_000 };
    let page = Page::read(reply, now, 60);
    if let Ok(page) = &page {
        super::records::check_page(&page.clone().fit_for_clients());
    }
    let slots = SlotTable::from_reply(reply, &asked);
    if let Ok(table) = &slots {
        assert!(
            table.covered() <= 16_384
                && (0..16_384).filter(|slot| table.owner(*slot).is_some()).count() == usize::from(table.covered())
        );
    }
    let redirect = reply.bytes().and_then(|bytes| Redirect::parse(bytes, &asked));
    format!(
        "{page:?} {slots:?} {redirect:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        Enqueued::read(reply),
        Removed::read(reply),
        MailboxStats::read(reply),
        Acknowledged::read(reply),
        Overdue::read(reply),
        AckStats::read(reply),
        Swept::read(reply),
        (reply.integer(), reply.unsigned(), reply.text(), reply.is_null()),
    )
}
