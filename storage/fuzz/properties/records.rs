//! What lies in a store: mail and templates that we wrote, or somebody else.
use protocol::clock::Now;
use protocol::frame::Frame;
use protocol::json::Json;
use protocol::template;
use storage::redis::commands::Ticket;
use storage::redis::commands::event::{Answer, Bounds, Event};
use storage::redis::commands::session::CommandSession;
use storage::redis::commands::status::Operation;
use storage::redis::commands::{Command, Words};
use storage::redis::mailbox::page::Page;
use storage::redis::url::RedisUrl;

/// An entry of a mailbox that is read is fit for clients, over either transport; a template that is read says the same
/// when it is written again. The input is the text of either.
pub fn kept(text: &[u8]) {
    page_of(text);
    if let Some(kept) = template::parse_kept(text) {
        let mut again = Vec::new();
        kept.write(&mut again);
        assert_eq!(template::parse_kept(&again), Some(kept), "{}", again.escape_ascii());
    }
}

/// The text as the only entry of a page, with a mark of ours and without.
fn page_of(text: &[u8]) {
    for mark in ["0:0:1767330000000000000:1", "7:9:1:4294967295", ""] {
        let mut said = b"+id=1 addr=a\r\n+PONG\r\n".to_vec();
        let words: [&[u8]; 5] = [b"1767323045000", b"", b"1767323045000-0", mark.as_bytes(), text];
        said.extend_from_slice(b"*5\r\n");
        for (at, word) in words.into_iter().enumerate() {
            if at == 1 {
                said.extend_from_slice(b":1\r\n");
                continue;
            }
            said.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            said.extend_from_slice(word);
            said.extend_from_slice(b"\r\n");
        }
        let page = answered(&said).expect("a page");
        check_page(&page);
        let entries = page.entries.len() + page.expired.len() + page.undecodable.len();
        assert_eq!(entries, 1, "it is one of the three");
    }
}

/// A command's answer, read as a page.
fn answered(mut said: &[u8]) -> Option<Page> {
    let url = RedisUrl::parse("redis://h").expect("a valid URL");
    let mut session = CommandSession::new(url, &[], Bounds { commands_max: 8, bytes_max: 4_096 });
    session.begin();
    let command = Command { operation: Operation::Other, words: Words::Plain(&[b"READ"]) };
    session.push(1, 1_000, Ticket(1), command).expect("there is room");
    let now = Now { mono_us: 1, unix_ns: 1_767_323_045_123_456_789 };
    loop {
        session.sent(session.output().len());
        match session.next_event().expect("a server that answers") {
            Some(Event::Answered { answer: Answer::Done(reply), .. }) => {
                return Page::read(reply, now, 86_400).ok().map(Page::fit_for_clients);
            }
            Some(_) => {}
            None if said.is_empty() => return None,
            None => {
                let taken = super::pour(&mut said, session.room(), usize::MAX);
                session.filled(taken);
            }
        }
    }
}

/// What is delivered of it is JSON, one line of it, and says how often it was tried where that is said.
pub fn check_page(page: &Page) {
    for entry in &page.entries {
        for attempt in [1, 2, u32::MAX] {
            let frame = Frame::replay(entry.mail.id, &entry.mail.event, attempt);
            let told = || String::from_utf8_lossy(frame.json()).into_owned();
            assert!(!frame.json().contains(&b'\n') && !frame.json().contains(&b'\r'), "two lines: {}", told());
            let json = Json::parse(frame.json()).unwrap_or_else(|error| panic!("{error:?}: {}", told()));
            let [kind, id, metadata] =
                json.fields(&["type", "id", "metadata"]).unwrap_or_else(|_| panic!("{}", told()));
            assert_eq!(kind.and_then(Json::string).as_deref(), Some("notification"), "{}", told());
            let named = id.and_then(Json::string).and_then(|id| uuid::Uuid::try_parse(&id).ok());
            assert_eq!(named, Some(entry.mail.id.0), "{}", told());
            let [tried] = metadata.expect("metadata").fields(&["attempt"]).unwrap_or_else(|_| panic!("{}", told()));
            if attempt > 1 {
                assert_eq!(tried.and_then(Json::unsigned), Some(attempt), "{}", told());
            }
        }
    }
}
