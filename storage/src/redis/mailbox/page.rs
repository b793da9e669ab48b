//! What a mailbox answers, read where it lies.
use crate::event;
use crate::redis::commands::reply::{Items, Reply};
use protocol::clock::{self, Now};
use protocol::ids::NotificationId;
use protocol::json::Json;
use protocol::store::{Age, Entry, Mail, Position};
use protocol::stream::StreamSeq;
use std::borrow::Cow;
use std::fmt;
use uuid::Uuid;

/// A position as Redis names it: the server's milliseconds and a number within them.
pub fn stream_id(position: Position) -> String {
    format!("{}-{}", position.0, position.1)
}

fn parse_stream_id(text: &[u8]) -> Option<Position> {
    let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some(Position(ms.parse().ok()?, seq.parse().ok()?))
}

/// A script answered in a shape it does not have: other than ours, or a script of ours with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnexpectedReply;

impl fmt::Display for UnexpectedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis answered a script in an unexpected shape")
    }
}

impl std::error::Error for UnexpectedReply {}

/// What putting mail into a mailbox came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// Where each stands; none if the claim was taken before.
    pub positions: Vec<Position>,
    /// The entry that was put in last before these, if it stands or lingers.
    pub before: Option<Position>,
    /// Entries that had to go for them.
    pub dropped: u64,
    /// Entries that were found expired.
    pub expired: u64,
}

impl Enqueued {
    /// Reads the answer to an enqueue.
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<Enqueued, UnexpectedReply> {
        read_items(reply, |items| {
            let (dropped, expired) = (number(items.next()?)?, number(items.next()?)?);
            let before = items.next()?;
            let before = if before.is_null() { None } else { Some(parse_stream_id(before.bytes()?)?) };
            let positions = items.map(|id| parse_stream_id(id.bytes()?)).collect::<Option<_>>()?;
            Some(Enqueued { positions, before, dropped, expired })
        })
    }
}

/// What taking entries out, or sweeping, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Entries that are gone because of it.
    pub removed: u64,
    /// Entries that are left. With none left, nothing is kept.
    pub depth: u64,
}

impl Removed {
    /// Reads the answer to a removal or a sweep.
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<Removed, UnexpectedReply> {
        read_items(reply, |items| Some(Removed { removed: number(items.next()?)?, depth: number(items.next()?)? }))
    }
}

/// The figures of all mailboxes; the totals count from the first use of the prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxStats {
    /// Mailboxes with entries, those whose stream has just expired and was not swept yet included.
    pub users: u64,
    /// Entries.
    pub depth: u64,
    /// Ever put in.
    pub enqueued: u64,
    /// Ever taken out because the mailbox was full.
    pub dropped: u64,
    /// Ever expired.
    pub expired: u64,
    /// Ever taken out after delivery or acknowledgement.
    pub delivered: u64,
    /// Ever taken out because nobody could read them.
    pub undecodable: u64,
}

impl MailboxStats {
    /// Reads the answer to a question for the figures. A figure that is not there, or below zero, is 0.
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<MailboxStats, UnexpectedReply> {
        read_items(reply, |items| {
            let mut next = || items.next().map(|item| number(item).unwrap_or(0));
            Some(MailboxStats {
                users: next()?,
                depth: next()?,
                enqueued: next()?,
                dropped: next()?,
                expired: next()?,
                delivered: next()?,
                undecodable: next()?,
            })
        })
    }
}

/// A page of a mailbox, oldest entry first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// What is to be delivered.
    pub entries: Vec<Entry>,
    /// Expired, to be removed as such.
    pub expired: Vec<Position>,
    /// Not in the form of contract §8.3, or longer than what is read; to be removed as such.
    pub undecodable: Vec<Position>,
    /// Behind which entry to go on; none if this was the last page.
    pub next: Option<Position>,
}

impl Page {
    /// Reads the answer to a read. An entry is expired when the time of its mark has come; one without a mark when it is
    /// as old as `ttl_seconds`, or as its own `ttl`, by the server's clock. What lingers and is not to be delivered is left out:
    /// there is nothing to remove.
    ///
    /// # Errors
    /// [`UnexpectedReply`] of the whole; an entry that cannot be read is no error.
    pub fn read(reply: Reply<'_>, now: Now, ttl_seconds: u32) -> Result<Page, UnexpectedReply> {
        read_items(reply, |items| {
            let mut page = Page::default();
            let server_ms = number(items.next()?)?;
            let more = items.next()?.integer()? == 1;
            let mut last = None;
            while let Some(id) = items.next() {
                let id = id.bytes()?;
                let (id, is_gone) = id.strip_prefix(b"-").map_or((id, false), |id| (id, true));
                let position = parse_stream_id(id)?;
                let mark = items.next()?.text().and_then(Mark::parse);
                let data = items.next()?.bytes();
                last = Some(position);
                let Some(stored) = data.and_then(Stored::parse) else {
                    page.undecodable.extend((!is_gone).then_some(position));
                    continue;
                };
                let mark = mark.unwrap_or_else(|| {
                    let ttl_seconds = stored.ttl().map_or(ttl_seconds, |ttl| ttl.min(ttl_seconds));
                    let left_ms = position.0.saturating_add(u64::from(ttl_seconds) * 1_000).saturating_sub(server_ms);
                    let expires_at_unix_ns = now.unix_ns.saturating_add(left_ms.saturating_mul(1_000_000));
                    let attempts = stored.attempts.saturating_add(u32::from(!is_gone));
                    Mark { stream: StreamSeq::default(), expires_at_unix_ns, attempts }
                });
                if mark.expires_at_unix_ns <= now.unix_ns {
                    page.expired.extend((!is_gone).then_some(position));
                    continue;
                }
                let mail = Mail {
                    id: stored.id,
                    event: stored.event.as_str().as_bytes().into(),
                    queued_at_unix_ns: stored.queued_at_unix_ns.unwrap_or(position.0.saturating_mul(1_000_000)),
                    expires_at_unix_ns: mark.expires_at_unix_ns,
                    attempts: mark.attempts,
                    stream: mark.stream,
                };
                page.entries.push(Entry {
                    position,
                    mail,
                    age: Age::of(server_ms.saturating_sub(position.0), 0),
                    is_gone,
                });
            }
            page.next = last.filter(|_| more);
            Some(page)
        })
    }

    /// Leaves among the entries what clients can be given. An event that another writer put there in a form of its own is
    /// put into that of contract §5, so that no text of a stranger ends a line of an event stream; one that is none, or
    /// another one than its entry says, is undecodable; what lingers is left out for that.
    #[must_use]
    pub fn fit_for_clients(mut self) -> Page {
        let undecodable = &mut self.undecodable;
        self.entries.retain_mut(|entry| {
            let in_form = event::read(&entry.mail.event).filter(|(id, _)| *id == entry.mail.id);
            let Some((_, event)) = in_form else {
                undecodable.extend((!entry.is_gone).then_some(entry.position));
                return false;
            };
            if let Cow::Owned(event) = event {
                entry.mail.event = event.into();
            }
            true
        });
        self
    }
}

/// The value of `data`.
struct Stored<'a> {
    id: NotificationId,
    event: Json<'a>,
    /// `None` if another writer wrote a time that is none.
    queued_at_unix_ns: Option<u64>,
    attempts: u32,
}

impl<'a> Stored<'a> {
    /// Unknown keys are ignored, `stream_id` among them.
    fn parse(data: &'a [u8]) -> Option<Stored<'a>> {
        let fields = Json::parse(data).ok()?.fields(&["id", "event", "queued_at", "attempts"]).ok()?;
        let [Some(id), Some(event), Some(queued_at), attempts] = fields else { return None };
        let queued_at_unix_ns = clock::parse_rfc3339(&queued_at.string()?);
        if !event.is_object() {
            return None;
        }
        let attempts = match attempts {
            Some(attempts) => attempts.unsigned()?,
            None => 0,
        };
        Some(Stored { id: NotificationId(Uuid::try_parse(&id.string()?).ok()?), event, queued_at_unix_ns, attempts })
    }

    /// `event.metadata.ttl`
    fn ttl(&self) -> Option<u32> {
        let [metadata] = self.event.fields(&["metadata"]).ok()?;
        let [ttl] = metadata?.fields(&["ttl"]).ok()?;
        ttl?.unsigned()
    }
}

/// What stands beside an entry of ours, with this delivery counted.
struct Mark {
    stream: StreamSeq,
    expires_at_unix_ns: u64,
    attempts: u32,
}

impl Mark {
    /// `epoch:seq:expires:deliveries`
    fn parse(text: &str) -> Option<Mark> {
        let mut numbers = text.split(':').map(|number| number.parse::<u64>().ok());
        let (epoch, seq, expires_at_unix_ns) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let attempts = u32::try_from(numbers.next()??).unwrap_or(u32::MAX);
        numbers.next().is_none().then_some(Mark { stream: StreamSeq { epoch, seq }, expires_at_unix_ns, attempts })
    }
}

/// A number, as itself or as decimal text.
pub(crate) fn number(reply: Reply<'_>) -> Option<u64> {
    reply.unsigned().or_else(|| reply.text()?.parse().ok())
}

pub(crate) fn read_items<'a, T>(
    reply: Reply<'a>,
    read: impl FnOnce(&mut Items<'a>) -> Option<T>,
) -> Result<T, UnexpectedReply> {
    reply.items().and_then(|mut items| read(&mut items)).ok_or(UnexpectedReply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::commands::reply::Decoder;
    use std::sync::Arc;

    const ID: &str = "0190a000-0000-7000-8000-000000000001";

    fn stored(event: &str) -> String {
        format!(r#"{{"id":"{ID}","event":{event},"queued_at":"2026-01-02T03:04:05.123456789Z","attempts":0}}"#)
    }

    /// A page with these entries: stream id, mark and data; `None` is nil.
    fn page_text(entries: &[(&str, Option<&str>, Option<&str>)]) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let optional = |text: &Option<&str>| text.map_or("$-1\r\n".to_owned(), bulk);
        let mut text = format!("*{}\r\n{}:1\r\n", 2 + 3 * entries.len(), bulk("100000"));
        for (id, mark, data) in entries {
            text += &(bulk(id) + &optional(mark) + &optional(data));
        }
        text
    }

    /// Our clock is a second behind the server's.
    fn read(text: &str) -> Result<Page, UnexpectedReply> {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(text.as_bytes()), Ok(Some(text.len())));
        Page::read(decoder.reply(text.as_bytes()), Now { mono_us: 0, unix_ns: 99_000_000_000 }, 60)
    }

    #[test]
    fn entries_are_sorted_into_what_to_deliver_what_expired_and_what_nobody_can_read() {
        let good = stored(r#"{"payload": 1.0}"#);
        let own_ttl = stored(r#"{"metadata":{"ttl":5}}"#);
        let extra = good.replace("\"attempts\":0", "\"attempts\":3,\"stream_id\":\"1-1\"").replace("2026", "once");
        let page = read(&page_text(&[
            ("1-0", Some("7:40:99000000001:2"), Some(&good)),
            ("2-0", Some("7:41:99000000000:1"), Some(&good)),
            ("3-0", Some("7:42:200000000000:1"), Some("no JSON")),
            ("4-0", Some("7:43:200000000000:1"), None),
            ("40000-0", None, Some(&good)),
            ("40001-7", None, Some(&extra)),
            ("95000-0", None, Some(&own_ttl)),
            ("95001-0", Some("7:44:200000000000:1:"), Some(&own_ttl)),
        ]));
        let page = page.unwrap();
        let delivered: Vec<Position> = page.entries.iter().map(|entry| entry.position).collect();
        assert_eq!(delivered, [Position(1, 0), Position(40_001, 7), Position(95_001, 0)]);
        assert_eq!(page.expired, [Position(2, 0), Position(40_000, 0), Position(95_000, 0)]);
        assert_eq!(page.undecodable, [Position(3, 0), Position(4, 0)]);
        assert_eq!(page.next, Some(Position(95_001, 0)));
        let first = Mail {
            id: NotificationId(ID.parse().unwrap()),
            event: Arc::from(&br#"{"payload": 1.0}"#[..]),
            queued_at_unix_ns: 1_767_323_045_123_456_789,
            expires_at_unix_ns: 99_000_000_001,
            attempts: 2,
            stream: StreamSeq { epoch: 7, seq: 40 },
        };
        assert_eq!(page.entries[0].mail, first);
        let anothers = Mail {
            queued_at_unix_ns: 40_001_000_000,
            expires_at_unix_ns: 99_001_000_000,
            attempts: 4,
            stream: StreamSeq::default(),
            ..first
        };
        assert_eq!(page.entries[1].mail, anothers);
        assert_eq!(page.entries[2].mail.attempts, 1, "a damaged mark is none");
    }

    #[test]
    fn what_lingers_is_flagged_or_left_out_and_never_to_be_removed() {
        let good = stored(r#"{"payload": 1.0}"#);
        let page = read(&page_text(&[
            ("-1-0", Some("7:40:99000000000:1"), Some(&good)),
            ("-2-0", Some("7:41:200000000000:1"), Some("no JSON")),
            ("-3-0", Some("7:42:200000000000:1"), None),
            ("90000-0", Some("7:43:200000000000:1"), Some(&good)),
            ("-90001-0", Some("7:44:200000000000:1"), Some(&good)),
            ("-100001-0", None, Some(&good)),
            ("-100002-0", None, None),
        ]));
        let page = page.unwrap();
        let show = |e: &Entry| (e.position, e.mail.attempts, e.age.most_ms - 1, e.is_gone);
        let expected = [
            (Position(90_000, 0), 1, 10_000, false),
            (Position(90_001, 0), 1, 9_999, true),
            (Position(100_001, 0), 0, 0, true),
        ];
        assert_eq!(page.entries.iter().map(show).collect::<Vec<_>>(), expected);
        assert_eq!((page.expired.len(), page.undecodable.len(), page.next), (0, 0, Some(Position(100_002, 0))));
        let page = page.fit_for_clients();
        assert_eq!((page.entries.len(), page.undecodable), (0, vec![Position(90_000, 0)]), "these events are none");
    }

    #[test]
    fn what_clients_are_given_is_an_event_on_one_line() {
        let event = |id: &str| {
            format!(
                r#"{{"id":"{id}","occurred_at":"t","event_type":"e","payload":1,"metadata":{{"source":"s","priority":"Low"}}}}"#
            )
        };
        let good = stored(&event(ID));
        let others = stored(&event(ID).replace(",\"payload", ",\n\n\"payload"));
        let (none, anothers) = (stored("{}"), stored(&event("0190a000-0000-7000-8000-000000000002")));
        let mark = Some("7:40:200000000000:1");
        let entries = [&good, &others, &none, &anothers].map(|data| ("1-0", mark, Some(data.as_str())));
        let page = read(&page_text(&entries)).unwrap().fit_for_clients();
        let events: Vec<&[u8]> = page.entries.iter().map(|entry| &*entry.mail.event).collect();
        assert_eq!(events, [event(ID).as_bytes(); 2]);
        assert_eq!(page.undecodable.len(), 2);
    }

    #[test]
    fn what_is_not_in_the_form_of_the_contract_is_not_read() {
        let good = stored("{}");
        let rows = [
            good.replace("{}", "[]"),
            good.replace(ID, "nobody"),
            good.replace("\"attempts\":0", "\"attempts\":-1"),
            good.replace("\"queued_at\":\"2026-01-02T03:04:05.123456789Z\"", "\"queued_at\":1"),
            good.replace("\"event\":{},", ""),
            good.replace("\"attempts\":0", "\"id\":1"),
            "[]".to_owned(),
            String::new(),
        ];
        for data in rows {
            assert!(Stored::parse(data.as_bytes()).is_none(), "{data}");
        }
        assert!(Stored::parse(good.as_bytes()).is_some());
        assert!(Stored::parse(good.replace(",\"attempts\":0", "").as_bytes()).is_some());
    }

    #[test]
    fn a_reply_of_another_shape_is_told() {
        let short = page_text(&[("1-0", None, None)]).replace("*5\r\n", "*4\r\n").replace("$-1\r\n$-1\r\n", "$-1\r\n");
        for text in ["+OK\r\n", "*0\r\n", "*1\r\n:1\r\n", short.as_str(), &page_text(&[("one", None, None)])] {
            assert_eq!(read(text), Err(UnexpectedReply), "{text:?}");
        }
    }
}
