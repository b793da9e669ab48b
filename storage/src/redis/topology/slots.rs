//! Which master of a Redis Cluster has a key: its hash slot, and the table from slots to masters.
//!
//! Follows the Redis Cluster specification; the reply of `CLUSTER SLOTS` is read as Redis 3 to 7 give it, whatever each
//! version says of a node beyond its host and port.
use crate::redis::commands::reply::{Items, Reply};
use crate::redis::topology::node::Node;
use protocol::limits;
use std::fmt;

/// Slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// No master: a hole.
const NOBODY: u16 = u16::MAX;
// An index of a master is never taken for a hole.
const _: () = assert!(limits::REDIS_CLUSTER_MASTERS_MAX < NOBODY as usize);

/// CRC-16/XMODEM of a byte, shifted: polynomial 0x1021, no reflection.
const CRC: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The hash slot of a key, below [`SLOTS`].
pub fn slot_of(key: &[u8]) -> u16 {
    let crc = |crc: u16, byte: &u8| (crc << 8) ^ CRC[usize::from((crc >> 8) as u8 ^ byte)];
    hashed(key).iter().fold(0, crc) % SLOTS
}

/// What stands between the first `{` and the next `}`, if anything does; else the whole key.
fn hashed(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let tag = &key[open + 1..];
    match tag.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(bytes) => &tag[..bytes],
    }
}

/// Why a reply is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotsError {
    /// It is of another shape than that of `CLUSTER SLOTS`.
    Shape,
    /// A range is none, or two of them overlap.
    Ranges,
    /// More masters than [`limits::REDIS_CLUSTER_MASTERS_MAX`].
    TooManyMasters,
}

impl fmt::Display for SlotsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape => f.write_str("the answer is not that of CLUSTER SLOTS"),
            Self::Ranges => f.write_str("the answer to CLUSTER SLOTS has ranges that are none or overlap"),
            Self::TooManyMasters => {
                write!(f, "the cluster has more than {} masters", limits::REDIS_CLUSTER_MASTERS_MAX)
            }
        }
    }
}

impl std::error::Error for SlotsError {}

/// The master of each slot; 32 KiB and the names.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotTable {
    masters: Vec<Node>,
    /// An index of `masters`, or [`NOBODY`].
    owners: Box<[u16; SLOTS as usize]>,
}

impl SlotTable {
    /// Of a cluster of which nothing is known.
    fn empty() -> SlotTable {
        SlotTable { masters: Vec::new(), owners: Box::new([NOBODY; SLOTS as usize]) }
    }

    /// From the reply of `CLUSTER SLOTS` that `asked` gave.
    ///
    /// A master without a host is at the host that was asked, with a port of its own. One whose host cannot be (Redis 7
    /// says `?` for a name that was not set) leaves a hole, as slots that nobody has do.
    ///
    /// # Errors
    /// [`SlotsError`]: nothing of the reply is to be believed.
    pub fn from_reply(reply: Reply<'_>, asked: &Node) -> Result<SlotTable, SlotsError> {
        let mut table = SlotTable::empty();
        for range in reply.items().ok_or(SlotsError::Shape)? {
            let mut words = range.items().ok_or(SlotsError::Shape)?;
            let (from, to) = (slot(&mut words)?, slot(&mut words)?);
            let mut master = words.next().and_then(Reply::items).ok_or(SlotsError::Shape)?;
            let host = master.next().ok_or(SlotsError::Shape)?;
            let port = master.next().and_then(Reply::unsigned).ok_or(SlotsError::Shape)?;
            let port = u16::try_from(port).map_err(|_| SlotsError::Shape)?;
            if from > to {
                return Err(SlotsError::Ranges);
            }
            let host = match host.is_null() {
                true => "",
                false => host.text().ok_or(SlotsError::Shape)?,
            };
            let Some(node) = Node::new(or_asked(host, asked), port) else { continue };
            let owner = table.owner_number(node)?;
            for place in &mut table.owners[usize::from(from)..=usize::from(to)] {
                if *place != NOBODY {
                    return Err(SlotsError::Ranges);
                }
                *place = owner;
            }
        }
        Ok(table)
    }

    /// Who has a slot; `None` for a hole, and for what is no slot.
    pub fn owner(&self, slot: u16) -> Option<&Node> {
        self.masters.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    /// Who has a key.
    pub fn owner_of_key(&self, key: &[u8]) -> Option<&Node> {
        self.owner(slot_of(key))
    }

    /// All masters that were told of, each once, in that order.
    pub fn masters(&self) -> &[Node] {
        &self.masters
    }

    /// Slots that somebody has; [`SLOTS`] when the cluster is whole.
    pub fn covered(&self) -> u16 {
        self.owners.iter().filter(|owner| **owner != NOBODY).count() as u16
    }

    /// A server said MOVED: one slot has another master until the whole table is asked for again.
    pub(super) fn moved(&mut self, slot: u16, node: &Node) {
        let Some(place) = self.owners.get(usize::from(slot)).copied() else { return };
        if self.masters.get(usize::from(place)).is_some_and(|owner| owner == node) {
            return;
        }
        // A table that is full learns nothing by the way.
        if let Ok(owner) = self.owner_number(node.clone()) {
            self.owners[usize::from(slot)] = owner;
        }
    }

    fn owner_number(&mut self, node: Node) -> Result<u16, SlotsError> {
        let at = match self.masters.iter().position(|known| *known == node) {
            Some(at) => at,
            None if self.masters.len() == limits::REDIS_CLUSTER_MASTERS_MAX => return Err(SlotsError::TooManyMasters),
            None => {
                self.masters.push(node);
                self.masters.len() - 1
            }
        };
        u16::try_from(at).map_err(|_| SlotsError::TooManyMasters)
    }
}

/// Ranges and their masters, on one line.
impl fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut from, mut comma) = (0, "");
        f.write_str("SlotTable(")?;
        for run in self.owners.chunk_by(|a, b| a == b) {
            let to = from + run.len();
            if let Some(master) = self.masters.get(usize::from(run[0])) {
                write!(f, "{comma}{from}-{} {master}", to - 1)?;
                comma = ", ";
            }
            from = to;
        }
        f.write_str(")")
    }
}

fn slot(words: &mut Items<'_>) -> Result<u16, SlotsError> {
    let number = words.next().and_then(Reply::unsigned).ok_or(SlotsError::Shape)?;
    u16::try_from(number).ok().filter(|slot| *slot < SLOTS).ok_or(SlotsError::Ranges)
}

/// The rule for a server that does not know its own name.
fn or_asked<'a>(host: &'a str, asked: &'a Node) -> &'a str {
    if host.is_empty() { &asked.host } else { host }
}

/// A server's word that the key is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// The slot has another master, for good.
    Moved {
        /// Below [`SLOTS`].
        slot: u16,
        /// Its master.
        node: Node,
    },
    /// This one command is to be asked there, after `ASKING`; the table stays as it is.
    Ask {
        /// Below [`SLOTS`].
        slot: u16,
        /// Who is taking the slot over.
        node: Node,
    },
}

impl Redirect {
    /// From the text of an error without its `-`; `asked` is who gave it. `None` if it is another error, or nonsense.
    pub fn parse(error: &[u8], asked: &Node) -> Option<Redirect> {
        let mut words = std::str::from_utf8(error).ok()?.split(' ');
        let (code, slot, address) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        // An IPv6 address stands there without brackets.
        let (host, port) = address.rsplit_once(':')?;
        let node = Node::from_words(or_asked(host, asked), port)?;
        let slot = slot.bytes().all(|byte| byte.is_ascii_digit()).then(|| slot.parse().ok()).flatten();
        let slot = slot.filter(|slot| *slot < SLOTS)?;
        match code {
            "MOVED" => Some(Redirect::Moved { slot, node }),
            "ASK" => Some(Redirect::Ask { slot, node }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::commands::reply::Decoder;

    fn asked() -> Node {
        Node { host: "seed".to_owned(), port: 7000 }
    }

    fn table(reply: &str) -> Result<SlotTable, SlotsError> {
        let mut decoder = Decoder::default();
        let end = decoder.decode(reply.as_bytes()).expect("RESP2").expect("a whole reply");
        assert_eq!(end, reply.len(), "{reply:?}");
        SlotTable::from_reply(decoder.reply(reply.as_bytes()), &asked())
    }

    /// One range with one master, as Redis 6.2 tells it; the host is raw RESP.
    fn range(from: i64, to: i64, host: &str, port: i64) -> String {
        format!("*3\r\n:{from}\r\n:{to}\r\n*3\r\n{host}\r\n:{port}\r\n$1\r\ni\r\n")
    }

    #[test]
    fn the_slot_is_that_of_the_specification() {
        let rows: [(&[u8], u16); 6] = [
            (b"123456789", 0x31c3),
            (b"", 0),
            (b"foo", 12_182),
            (b"{foo}.bar", 12_182),
            (b"x{foo}{bar}", 12_182),
            (b"user1000", slot_of(b"{user1000}.following")),
        ];
        for (key, slot) in rows {
            assert_eq!(slot_of(key), slot, "{}", key.escape_ascii());
        }
        assert_eq!(hashed(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hashed(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hashed(b"foo{bar"), b"foo{bar");
        assert_eq!(hashed(b"}foo{b}"), b"b");
    }

    #[test]
    fn a_table_is_read_as_old_and_new_servers_tell_it() {
        let old = format!("*2\r\n{}{}", range(0, 99, "$1\r\na", 1), range(100, 16_383, "$3\r\n::1", 2));
        let new = "*2\r\n\
            *4\r\n:0\r\n:99\r\n*4\r\n$1\r\na\r\n:1\r\n$1\r\ni\r\n*2\r\n$8\r\nhostname\r\n$1\r\nh\r\n*4\r\n$1\r\nr\r\n:9\r\n$1\r\nj\r\n*0\r\n\
            *3\r\n:100\r\n:16383\r\n*4\r\n$3\r\n::1\r\n:2\r\n$1\r\nk\r\n*0\r\n";
        for reply in [&old, new] {
            let table = table(reply).unwrap();
            assert_eq!(format!("{table:?}"), "SlotTable(0-99 a:1, 100-16383 [::1]:2)");
            assert_eq!((table.covered(), table.masters().len()), (SLOTS, 2));
            assert_eq!(table.owner(99).unwrap().port, 1);
            assert_eq!(table.owner_of_key(b"foo").unwrap().port, 2);
            assert_eq!(table.owner(SLOTS), None);
        }
    }

    #[test]
    fn holes_are_holes_and_nameless_masters_are_where_they_were_asked() {
        let ranges = [
            range(0, 0, "$-1", 1),
            range(2, 2, "$0\r\n", 2),
            range(4, 5, "$1\r\n?", 3),
            range(6, 6, "$1\r\nb", 0),
            range(16_383, 16_383, "$-1", 1),
        ];
        let told = table(&format!("*5\r\n{}", ranges.concat())).unwrap();
        assert_eq!(format!("{told:?}"), "SlotTable(0-0 seed:1, 2-2 seed:2, 16383-16383 seed:1)");
        assert_eq!((told.covered(), told.owner(1), told.owner(4)), (3, None, None));
        assert_eq!(table("*0\r\n").unwrap(), SlotTable::empty());
    }

    #[test]
    fn what_is_no_table_is_refused_whole() {
        let many: String =
            (0..=limits::REDIS_CLUSTER_MASTERS_MAX as i64).map(|n| range(n, n, "$1\r\na", n + 1)).collect();
        let many = format!("*{}\r\n{many}", limits::REDIS_CLUSTER_MASTERS_MAX + 1);
        let one = |range: String| format!("*1\r\n{range}");
        let rows = [
            ("+OK\r\n".to_owned(), SlotsError::Shape),
            ("*-1\r\n".to_owned(), SlotsError::Shape),
            ("*1\r\n:1\r\n".to_owned(), SlotsError::Shape),
            ("*1\r\n*0\r\n".to_owned(), SlotsError::Shape),
            ("*1\r\n*2\r\n:0\r\n:1\r\n".to_owned(), SlotsError::Shape),
            ("*1\r\n*3\r\n:0\r\n:1\r\n*0\r\n".to_owned(), SlotsError::Shape),
            ("*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n".to_owned(), SlotsError::Shape),
            ("*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n*0\r\n:1\r\n".to_owned(), SlotsError::Shape),
            (one(range(0, 1, "$1\r\n\u{1}", 70_000)), SlotsError::Shape),
            (one(range(-1, 1, "$1\r\na", 1)), SlotsError::Shape),
            (one(range(0, 16_384, "$1\r\na", 1)), SlotsError::Ranges),
            (one(range(0, i64::MAX, "$1\r\na", 1)), SlotsError::Ranges),
            (one(range(2, 1, "$1\r\na", 1)), SlotsError::Ranges),
            (format!("*2\r\n{}{}", range(0, 5, "$1\r\na", 1), range(5, 6, "$1\r\nb", 1)), SlotsError::Ranges),
            (many, SlotsError::TooManyMasters),
        ];
        for (reply, error) in rows {
            assert_eq!(table(&reply), Err(error), "{reply:?}");
        }
    }

    #[test]
    fn redirections_are_told_from_other_errors() {
        let rows = [
            ("MOVED 3999 127.0.0.1:6381", Some("Moved 3999 127.0.0.1:6381")),
            ("MOVED 0 ::1:7", Some("Moved 0 [::1]:7")),
            ("MOVED 16383 :7", Some("Moved 16383 seed:7")),
            ("ASK 1 h.example:7", Some("Ask 1 h.example:7")),
            ("ASK 1 :7", Some("Ask 1 seed:7")),
            ("MOVED 16384 a:7", None),
            ("MOVED -1 a:7", None),
            ("MOVED +1 a:7", None),
            ("MOVED 1 a:0", None),
            ("MOVED 1 a:65536", None),
            ("MOVED 1 a", None),
            ("MOVED 1 ?:7", None),
            ("MOVED 1 a:7 b", None),
            ("MOVED 1", None),
            ("MOVED", None),
            ("moved 1 a:7", None),
            ("ERR MOVED 1 a:7", None),
            ("CLUSTERDOWN Hash slot not served", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let shown = Redirect::parse(text.as_bytes(), &asked()).map(|redirect| match redirect {
                Redirect::Moved { slot, node } => format!("Moved {slot} {node}"),
                Redirect::Ask { slot, node } => format!("Ask {slot} {node}"),
            });
            assert_eq!(shown.as_deref(), expected, "{text}");
        }
        assert_eq!(Redirect::parse(b"MOVED 1 \xff:7", &asked()), None);
    }

    #[test]
    fn one_slot_moves_and_the_bound_holds() {
        let mut table = table(&format!("*1\r\n{}", range(0, 9, "$1\r\na", 1))).unwrap();
        let node = |port| Node { host: "b".to_owned(), port };
        table.moved(3, &node(2));
        table.moved(SLOTS, &node(2));
        assert_eq!(format!("{table:?}"), "SlotTable(0-2 a:1, 3-3 b:2, 4-9 a:1)");
        for port in 1..=2_000 {
            table.moved(4, &node(port));
        }
        assert_eq!(table.masters().len(), limits::REDIS_CLUSTER_MASTERS_MAX);
    }
}
