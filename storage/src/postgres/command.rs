//! What is asked of the server: a prepared statement with its values, or a script.
use bytes::{BufMut, BytesMut};
use postgres_protocol::types;

// Object ids of the types that arrays are made of (PostgreSQL, `pg_type.dat`).
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const TIMESTAMPTZ: u32 = 1184;
const JSONB: u32 = 3802;

/// A statement that is prepared once on each connection, at its first use there.
///
/// What must happen together is one statement, by `WITH` where need be: nobody promises that a command's neighbours are
/// in its transaction, or that they are not.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its name on the server: not empty, and no two statements of a link share one.
    pub name: &'static str,
    /// Its text, with `$1`, `$2`, …; what a value is must follow from the text, by a cast where need be.
    pub sql: &'static str,
}

/// One command, ready to be submitted.
#[derive(Clone, Debug)]
pub struct Command {
    pub(super) what: What,
    pub(super) company: Company,
    timeout_ms: u32,
    /// All values, one after the other.
    values: BytesMut,
    ends: Vec<Value>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Statement(&'static Statement),
    Script(&'static str),
}

/// With what a command may share its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// With nothing.
    None,
    /// With nothing, and this key is locked before.
    Locked(i64),
    /// With other commands of this kind; the keys of all are locked before the first.
    Shared(i64),
}

impl Company {
    pub(super) fn key(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Locked(key) | Self::Shared(key) => Some(key),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Value {
    /// 0 is text, 1 is binary.
    format: i16,
    /// Where it ends in `values`; `None` is NULL.
    end: Option<usize>,
}

impl Command {
    /// A prepared statement; its values are to follow in the order of `$1`, `$2`, … Rows come in binary form. It fails
    /// when it is not answered within `timeout_ms` from its submission.
    pub fn new(statement: &'static Statement, timeout_ms: u32) -> Command {
        Command::of(What::Statement(statement), timeout_ms)
    }

    /// Statements that are done one after the other as one transaction, with neither values nor preparation; for
    /// changes of the schema. It must not hold BEGIN or COMMIT. Rows come in text form, of all statements.
    pub fn script(sql: &'static str, timeout_ms: u32) -> Command {
        Command::of(What::Script(sql), timeout_ms)
    }

    fn of(what: What, timeout_ms: u32) -> Command {
        Command { what, company: Company::None, timeout_ms, values: BytesMut::new(), ends: Vec::new() }
    }

    /// Whoever has the same key, on any link of any node, is done before or after this one, not meanwhile; see
    /// [`crate::postgres::link::LinkConfig::guard`]. Not for a script.
    #[must_use]
    pub fn locked(mut self, key: i64) -> Command {
        self.company = Company::Locked(key);
        self
    }

    /// The same, and it may be in one transaction with its neighbours that may, too: they share one commit. It is done
    /// and answered as if it was alone.
    #[must_use]
    pub fn shared(mut self, key: i64) -> Command {
        self.company = Company::Shared(key);
        self
    }

    /// A `text`, `varchar` or `json` value.
    #[must_use]
    pub fn text(self, value: &str) -> Command {
        self.binary(|out| types::text_to_sql(value, out))
    }

    /// A value of any type, in the form a person would write it between quotes.
    #[must_use]
    pub fn literal(self, value: &str) -> Command {
        self.value(0, |out| types::text_to_sql(value, out))
    }

    /// A `bytea` value.
    #[must_use]
    pub fn bytes(self, value: &[u8]) -> Command {
        self.binary(|out| types::bytea_to_sql(value, out))
    }

    /// A `jsonb` value: the text of a JSON value.
    #[must_use]
    pub fn jsonb(self, value: &[u8]) -> Command {
        // The binary form is a version, 1, and the text.
        self.binary(|out| {
            out.extend_from_slice(&[1]);
            out.extend_from_slice(value);
        })
    }

    /// A `bool` value.
    #[must_use]
    pub fn boolean(self, value: bool) -> Command {
        self.binary(|out| types::bool_to_sql(value, out))
    }

    /// An `int4` value.
    #[must_use]
    pub fn int4(self, value: i32) -> Command {
        self.binary(|out| types::int4_to_sql(value, out))
    }

    /// An `int8` value.
    #[must_use]
    pub fn int8(self, value: i64) -> Command {
        self.binary(|out| types::int8_to_sql(value, out))
    }

    /// A `uuid` value.
    #[must_use]
    pub fn uuid(self, value: [u8; 16]) -> Command {
        self.binary(|out| types::uuid_to_sql(value, out))
    }

    /// A `timestamptz` value, in nanoseconds since the Unix epoch; the server keeps microseconds.
    #[must_use]
    pub fn timestamp(self, unix_ns: u64) -> Command {
        self.binary(|out| types::timestamp_to_sql(timestamp_us(unix_ns), out))
    }

    /// An `int8[]` value.
    #[must_use]
    pub fn int8_array(self, values: impl ExactSizeIterator<Item = i64>) -> Command {
        self.array(INT8, values, types::int8_to_sql)
    }

    /// An `int4[]` value.
    #[must_use]
    pub fn int4_array(self, values: impl ExactSizeIterator<Item = i32>) -> Command {
        self.array(INT4, values, types::int4_to_sql)
    }

    /// A `text[]` value.
    #[must_use]
    pub fn text_array<'a>(self, values: impl ExactSizeIterator<Item = &'a [u8]>) -> Command {
        self.array(TEXT, values, |value, out| out.extend_from_slice(value))
    }

    /// A `jsonb[]` value: texts of JSON values.
    #[must_use]
    pub fn jsonb_array<'a>(self, values: impl ExactSizeIterator<Item = &'a [u8]>) -> Command {
        self.array(JSONB, values, |value, out| {
            out.extend_from_slice(&[1]);
            out.extend_from_slice(value);
        })
    }

    /// A `timestamptz[]` value; see [`Command::timestamp`].
    #[must_use]
    pub fn timestamp_array(self, unix_ns: impl ExactSizeIterator<Item = u64>) -> Command {
        self.array(TIMESTAMPTZ, unix_ns, |unix_ns, out| types::timestamp_to_sql(timestamp_us(unix_ns), out))
    }

    /// The binary form of an array of one dimension without NULLs. An element is under 2 GiB, as all of the command is.
    fn array<T>(
        self,
        element: u32,
        values: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(T, &mut BytesMut),
    ) -> Command {
        self.binary(|out| {
            let has_nulls = 0;
            out.put_i32(1);
            out.put_i32(has_nulls);
            out.put_u32(element);
            out.put_i32(values.len() as i32);
            let first_index = 1;
            out.put_i32(first_index);
            for value in values {
                let at = out.len();
                out.put_i32(0);
                write(value, out);
                let bytes = (out.len() - at - 4) as i32;
                out[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
            }
        })
    }

    /// NULL.
    #[must_use]
    pub fn null(mut self) -> Command {
        self.ends.push(Value { format: 1, end: None });
        self
    }

    fn binary(self, write: impl FnOnce(&mut BytesMut)) -> Command {
        self.value(1, write)
    }

    fn value(mut self, format: i16, write: impl FnOnce(&mut BytesMut)) -> Command {
        write(&mut self.values);
        self.ends.push(Value { format, end: Some(self.values.len()) });
        self
    }

    pub(super) fn formats(&self) -> impl Iterator<Item = i16> + '_ {
        self.ends.iter().map(|value| value.format)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = Option<&[u8]>> + '_ {
        let mut start = 0;
        self.ends.iter().map(move |value| {
            let end = value.end?;
            let bytes = &self.values[start..end];
            start = end;
            Some(bytes)
        })
    }

    /// How long it may take from its submission until it is answered.
    pub fn timeout_ms(&self) -> u32 {
        self.timeout_ms
    }

    /// Gives it less time: some has gone by before it was submitted.
    pub(super) fn set_timeout_ms(&mut self, timeout_ms: u32) {
        self.timeout_ms = timeout_ms;
    }

    /// About what it takes while it waits.
    pub fn bytes_held(&self) -> usize {
        size_of::<Command>() + self.values.len() + self.ends.len() * size_of::<Value>()
    }
}

/// Seconds from the Unix epoch to PostgreSQL's, the year 2000.
const EPOCH_SECONDS: i64 = 946_684_800;

/// PostgreSQL's microseconds.
fn timestamp_us(unix_ns: u64) -> i64 {
    // A `u64` of nanoseconds is under 2^54 microseconds.
    (unix_ns / 1_000) as i64 - EPOCH_SECONDS * 1_000_000
}

/// One row of an answer: borrowed, to be taken apart at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The columns as they came: each a length of four bytes, -1 for NULL, and the value. Checked by `new`.
    bytes: &'a [u8],
}

impl<'a> Row<'a> {
    /// A DataRow's columns, or `None` if they are not `count` whole ones.
    pub(super) fn new(count: u16, bytes: &'a [u8]) -> Option<Row<'a>> {
        let mut columns = Columns { rest: bytes };
        for _ in 0..count {
            columns.next()?;
        }
        columns.rest.is_empty().then_some(Row { bytes })
    }

    /// The columns in order; NULL is `None`.
    pub fn columns(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        Columns { rest: self.bytes }
    }

    /// A column's bytes, counted from 0; `None` if it is NULL or not there.
    pub fn bytes(&self, column: usize) -> Option<&'a [u8]> {
        self.columns().nth(column).flatten()
    }

    /// A column as text, if it is.
    pub fn text(&self, column: usize) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(column)?).ok()
    }

    /// An `int4` column in binary form.
    pub fn int4(&self, column: usize) -> Option<i32> {
        types::int4_from_sql(self.bytes(column)?).ok()
    }

    /// An `int8` column in binary form.
    pub fn int8(&self, column: usize) -> Option<i64> {
        types::int8_from_sql(self.bytes(column)?).ok()
    }

    /// A `bool` column in binary form.
    pub fn boolean(&self, column: usize) -> Option<bool> {
        types::bool_from_sql(self.bytes(column)?).ok()
    }

    /// A `uuid` column in binary form.
    pub fn uuid(&self, column: usize) -> Option<[u8; 16]> {
        types::uuid_from_sql(self.bytes(column)?).ok()
    }

    /// The JSON text of a `jsonb` column in binary form.
    pub fn jsonb(&self, column: usize) -> Option<&'a [u8]> {
        match self.bytes(column)? {
            [1, text @ ..] => Some(text),
            _ => None,
        }
    }

    /// A `timestamptz` column in binary form, in nanoseconds since the Unix epoch; `None` also if it lies before it or
    /// after the year 2554, as `infinity` does.
    pub fn timestamp(&self, column: usize) -> Option<u64> {
        let us = types::timestamp_from_sql(self.bytes(column)?).ok()?;
        u64::try_from(us.checked_add(EPOCH_SECONDS * 1_000_000)?).ok()?.checked_mul(1_000)
    }
}

struct Columns<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Columns<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATEMENT: Statement = Statement { name: "s", sql: "" };

    #[test]
    fn values_keep_their_order_form_and_absence() {
        let command =
            Command::new(&STATEMENT, 1).text("é").null().int4(-2).literal("7").text("").jsonb(b"{}").boolean(true);
        let values: Vec<_> = command.values().collect();
        let expected: [Option<&[u8]>; 7] = [
            Some("é".as_bytes()),
            None,
            Some(&[255, 255, 255, 254]),
            Some(b"7"),
            Some(b""),
            Some(b"\x01{}"),
            Some(&[1]),
        ];
        assert_eq!(values, expected);
        assert_eq!(command.formats().collect::<Vec<_>>(), [1, 1, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn arrays_say_what_they_hold() {
        let command = Command::new(&STATEMENT, 1).int8_array([1, 2].into_iter()).jsonb_array([&b"{}"[..]].into_iter());
        let expected: [&[u8]; 2] = [
            b"\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\x02\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x02",
            b"\0\0\0\x01\0\0\0\0\0\0\x0e\xda\0\0\0\x01\0\0\0\x01\0\0\0\x03\x01{}",
        ];
        assert_eq!(command.values().collect::<Vec<_>>(), expected.map(Some));
    }

    #[test]
    fn times_are_counted_from_the_year_2000() {
        let rows = [(946_684_800_000_000_000, 0), (946_684_800_000_001_999, 1), (0, -946_684_800_000_000)];
        for (unix_ns, us) in rows {
            assert_eq!(timestamp_us(unix_ns), us);
            let column = [&[0, 0, 0, 8][..], &i64::to_be_bytes(us)].concat();
            assert_eq!(Row::new(1, &column).unwrap().timestamp(0), Some(unix_ns / 1_000 * 1_000));
        }
        for us in [i64::MAX, i64::MIN, -946_684_800_000_001] {
            let column = [&[0, 0, 0, 8][..], &i64::to_be_bytes(us)].concat();
            assert_eq!(Row::new(1, &column).unwrap().timestamp(0), None, "{us}");
        }
    }

    #[test]
    fn rows_are_whole_or_none() {
        let bytes = b"\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0\0\0\0\x04\0\0\0\x07";
        let row = Row::new(4, bytes).unwrap();
        assert_eq!(row.columns().collect::<Vec<_>>(), [Some(&b"ab"[..]), None, Some(b""), Some(b"\0\0\0\x07")]);
        assert_eq!((row.text(0), row.bytes(1), row.text(2), row.int4(3)), (Some("ab"), None, Some(""), Some(7)));
        assert_eq!((row.int8(3), row.uuid(3), row.bytes(4), row.jsonb(0)), (None, None, None, None));
        assert_eq!(Row::new(3, bytes), None);
        assert_eq!(Row::new(5, bytes), None);
        assert_eq!(Row::new(1, b"\x7f\xff\xff\xffab"), None);
        assert_eq!(Row::new(1, b"\0\0"), None);
        assert!(Row::new(0, b"").is_some());
        for cut in 1..bytes.len() {
            assert_eq!(Row::new(4, &bytes[..cut]), None, "cut at {cut}");
        }
    }
}
