//! What a mailbox answers, read where it lies.
use crate::redis::commands::reply::{Items, Reply};
use protocol::ids::NotificationId;
use protocol::json::Json;
use std::fmt;
use uuid::Uuid;

/// The name of an entry in its stream: the server's time and a number within the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix milliseconds by the server's clock, unless another writer chose otherwise.
    pub ms: u64,
    /// Within the millisecond.
    pub seq: u64,
}

impl StreamId {
    fn parse(text: &[u8]) -> Option<StreamId> {
        let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(StreamId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
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

/// What putting a notification into a mailbox came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// The entry.
    pub id: StreamId,
    /// Of the mailbox.
    pub epoch: u64,
    /// Of the entry: one more than that of the entry before.
    pub seq: u64,
    /// Entries now.
    pub depth: u64,
    /// Entries that had to go for it.
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
            Some(Enqueued {
                id: StreamId::parse(items.next()?.bytes()?)?,
                epoch: number(items.next()?)?,
                seq: number(items.next()?)?,
                depth: number(items.next()?)?,
                dropped: number(items.next()?)?,
                expired: number(items.next()?)?,
            })
        })
    }
}

/// What taking entries out, or sweeping, came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Entries that are gone because of it.
    pub removed: u64,
    /// Entries that are left. With none left, nothing is kept but the epoch and the seq.
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

/// One entry of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name: what to remove it by.
    pub stream_id: StreamId,
    /// Its place in the mailbox's stream; an entry of another writer has none.
    pub seq: Option<u64>,
    /// The notification.
    pub id: NotificationId,
    /// The event object of contract §5, byte for byte as it was stored.
    pub event: &'a str,
    /// When it was stored, RFC 3339.
    pub queued_at: &'a str,
    /// How often it was sent before it was stored.
    pub attempts: u32,
}

/// A page of a mailbox, oldest entry first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<'a> {
    /// Of the mailbox; none if there is nothing, or only entries of another writer.
    pub epoch: Option<u64>,
    /// Of the newest entry that was ever stored in this epoch.
    pub newest_seq: u64,
    /// What is to be delivered.
    pub entries: Vec<Entry<'a>>,
    /// Expired, to be removed as such.
    pub expired: Vec<StreamId>,
    /// Not in the form of contract §8.3, or longer than what is read; to be removed as such.
    pub undecodable: Vec<StreamId>,
    /// Behind which entry to go on; none if this was the last page.
    pub next: Option<StreamId>,
}

impl<'a> Page<'a> {
    /// Reads the answer to a read. An entry is expired when the time of its mark has come, `now_unix_ms`; one without a
    /// mark when it is as old as `ttl_seconds`, or as its own `ttl`, by the server's clock.
    ///
    /// # Errors
    /// [`UnexpectedReply`] of the whole; an entry that cannot be read is no error.
    pub fn read(reply: Reply<'a>, now_unix_ms: u64, ttl_seconds: u32) -> Result<Page<'a>, UnexpectedReply> {
        read_items(reply, |items| {
            let mut page = Page {
                epoch: number(items.next()?),
                newest_seq: number(items.next()?).unwrap_or(0),
                ..Page::default()
            };
            let server_ms = number(items.next()?)?;
            let more = items.next()?.integer()? == 1;
            let mut last = None;
            while let Some(id) = items.next() {
                let stream_id = StreamId::parse(id.bytes()?)?;
                let mark = items.next()?.text().and_then(parse_mark);
                let data = items.next()?.bytes();
                last = Some(stream_id);
                let Some(entry) = data.and_then(Stored::parse) else {
                    page.undecodable.push(stream_id);
                    continue;
                };
                let expired = match mark {
                    Some((_, expires_unix_ms)) => expires_unix_ms <= now_unix_ms,
                    None => {
                        let ttl_seconds = entry.ttl().map_or(ttl_seconds, |ttl| ttl.min(ttl_seconds));
                        server_ms.saturating_sub(stream_id.ms) >= u64::from(ttl_seconds) * 1_000
                    }
                };
                if expired {
                    page.expired.push(stream_id);
                    continue;
                }
                let Stored { id, event, queued_at, attempts } = entry;
                let (seq, event) = (mark.map(|(seq, _)| seq), event.as_str());
                page.entries.push(Entry { stream_id, seq, id, event, queued_at, attempts });
            }
            page.next = last.filter(|_| more);
            Some(page)
        })
    }
}

/// The value of `data`.
struct Stored<'a> {
    id: NotificationId,
    event: Json<'a>,
    queued_at: &'a str,
    attempts: u32,
}

impl<'a> Stored<'a> {
    /// Unknown keys are ignored, `stream_id` among them.
    fn parse(data: &'a [u8]) -> Option<Stored<'a>> {
        let fields = Json::parse(data).ok()?.fields(&["id", "event", "queued_at", "attempts"]).ok()?;
        let [Some(id), Some(event), Some(queued_at), attempts] = fields else { return None };
        let queued_at = queued_at.as_str().strip_prefix('"')?.strip_suffix('"')?;
        if !event.is_object() || queued_at.contains('\\') {
            return None;
        }
        let attempts = match attempts {
            Some(attempts) => attempts.unsigned()?,
            None => 0,
        };
        Some(Stored { id: NotificationId(Uuid::try_parse(&id.string()?).ok()?), event, queued_at, attempts })
    }

    /// `event.metadata.ttl`
    fn ttl(&self) -> Option<u32> {
        let [metadata] = self.event.fields(&["metadata"]).ok()?;
        let [ttl] = metadata?.fields(&["ttl"]).ok()?;
        ttl?.unsigned()
    }
}

/// `seq:expires`
fn parse_mark(mark: &str) -> Option<(u64, u64)> {
    let (seq, expires_unix_ms) = mark.split_once(':')?;
    Some((seq.parse().ok()?, expires_unix_ms.parse().ok()?))
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

    const ID: &str = "0190a000-0000-7000-8000-000000000001";

    fn stored(event: &str) -> String {
        format!(r#"{{"id":"{ID}","event":{event},"queued_at":"2026-01-02T03:04:05.123456789Z","attempts":0}}"#)
    }

    /// A page with these entries: stream id, mark and data; `None` is nil.
    fn page_text(entries: &[(&str, Option<&str>, Option<&str>)]) -> String {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let optional = |text: &Option<&str>| text.map_or("$-1\r\n".to_owned(), bulk);
        let mut text = format!("*{}\r\n{}{}{}:1\r\n", 4 + 3 * entries.len(), bulk("7"), bulk("42"), bulk("100000"));
        for (id, mark, data) in entries {
            text += &(bulk(id) + &optional(mark) + &optional(data));
        }
        text
    }

    fn check(text: &str, read: impl FnOnce(Result<Page<'_>, UnexpectedReply>)) {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(text.as_bytes()), Ok(Some(text.len())));
        read(Page::read(decoder.reply(text.as_bytes()), 100_000, 60));
    }

    #[test]
    fn entries_are_sorted_into_what_to_deliver_what_expired_and_what_nobody_can_read() {
        let good = stored(r#"{"payload": 1.0}"#);
        let own_ttl = stored(r#"{"metadata":{"ttl":5}}"#);
        let extra = good.replace("\"attempts\":0", "\"attempts\":3,\"stream_id\":\"1-1\"");
        let text = page_text(&[
            ("1-0", Some("40:100001"), Some(&good)),
            ("2-0", Some("41:100000"), Some(&good)),
            ("3-0", Some("42:200000"), Some("no JSON")),
            ("4-0", Some("43:200000"), None),
            ("40000-0", None, Some(&good)),
            ("40001-7", None, Some(&extra)),
            ("95000-0", None, Some(&own_ttl)),
            ("95001-0", Some("damaged"), Some(&own_ttl)),
        ]);
        check(&text, |page| {
            let page = page.unwrap();
            assert_eq!((page.epoch, page.newest_seq), (Some(7), 42));
            let named = |ids: &[StreamId]| ids.iter().map(StreamId::to_string).collect::<Vec<_>>();
            let delivered: Vec<StreamId> = page.entries.iter().map(|entry| entry.stream_id).collect();
            assert_eq!(named(&delivered), ["1-0", "40001-7", "95001-0"]);
            assert_eq!(named(&page.expired), ["2-0", "40000-0", "95000-0"]);
            assert_eq!(named(&page.undecodable), ["3-0", "4-0"]);
            assert_eq!(page.next, Some(StreamId { ms: 95_001, seq: 0 }));
            let first = page.entries[0];
            assert_eq!((first.seq, first.id.to_string().as_str(), first.attempts), (Some(40), ID, 0));
            assert_eq!((first.event, first.queued_at), (r#"{"payload": 1.0}"#, "2026-01-02T03:04:05.123456789Z"));
            assert_eq!((page.entries[1].seq, page.entries[1].attempts), (None, 3));
        });
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
        let short = page_text(&[("1-0", None, None)]).replace("*7\r\n", "*6\r\n").replace("$-1\r\n$-1\r\n", "$-1\r\n");
        for text in ["+OK\r\n", "*0\r\n", "*1\r\n:1\r\n", short.as_str(), &page_text(&[("one", None, None)])] {
            check(text, |page| assert_eq!(page, Err(UnexpectedReply), "{text:?}"));
        }
    }
}
