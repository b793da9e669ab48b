//! PostgreSQL, or something that is not.
use super::{PASSWORD, cuts, pour};
use storage::postgres::command::{Command, Row, Statement};
use storage::postgres::session::{Event, SETTING_CHARS_MAX, Session, Step};
use storage::postgres::url::PostgresUrl;

const PUT: Statement = Statement { name: "put", sql: "INSERT INTO t (n, j) VALUES ($1, $2)" };
const GET: Statement = Statement { name: "get", sql: "SELECT n, j, NULL::text FROM t ORDER BY n" };
const LOST: Statement = Statement { name: "lost", sql: "SELECT * FROM lost" };

pub fn session(bytes: &[u8]) {
    let Some((mode, said)) = bytes.split_first() else { return };
    let whole = hear(*mode, said, || usize::MAX);
    assert_eq!(whole, hear(*mode, said, cuts(bytes)), "whole and cut");
}

/// Each is a transaction.
fn commands(mode: u8) -> Vec<Vec<Command>> {
    let put = |n| Command::new(&PUT, 1_000).int8(n).jsonb(b"{}");
    let get = || Command::new(&GET, 1_000);
    match mode / 8 % 3 {
        0 => vec![vec![get()], vec![put(1)], vec![get()]],
        1 => vec![vec![put(1), get(), put(2)], vec![get(), Command::new(&LOST, 1_000), put(4)], vec![get()]],
        _ => vec![vec![Command::script("SELECT 1; SELECT 2", 1_000)], vec![Command::new(&LOST, 1_000)], vec![get()]],
    }
}

fn hear(mode: u8, mut said: &[u8], mut cut: impl FnMut() -> usize) -> Vec<String> {
    let (user, more) = match mode % 4 {
        0 => ("ara".to_owned(), "?sslmode=disable"),
        1 => (format!("ara:{PASSWORD}"), "?sslmode=disable"),
        2 => (format!("ara:{PASSWORD}"), "?sslmode=require"),
        _ => (format!("ara:{PASSWORD}"), ""),
    };
    let url = format!("postgres://{user}@localhost/postgres{more}");
    let mut session = Session::new(&PostgresUrl::parse(&url).expect("a valid URL"));
    let mut heard = Vec::new();
    loop {
        loop {
            session.sent(session.output().len());
            let event = match session.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    heard.push(error.to_string());
                    return heard;
                }
            };
            let (is_ready, encrypts) = (event == Event::Ready, event == Event::Encrypt);
            if let Event::Row { row, .. } = &event {
                read_as_everything(row);
            }
            heard.push(format!("{event:?}"));
            if encrypts {
                assert_eq!(session.step(), Step::Handshake);
                session.encrypted();
            }
            if is_ready {
                for transaction in commands(mode) {
                    for command in &transaction {
                        match transaction.len() {
                            1 => session.command(command),
                            _ => session.begin(command),
                        }
                        .expect("nothing in it that cannot be said");
                    }
                    session.finish();
                }
                session.ping();
            }
            assert!(session.settings().version.chars().count() <= SETTING_CHARS_MAX);
            assert!(!heard.last().is_some_and(|words| words.contains(PASSWORD)), "{:?}", heard.last());
        }
        if said.is_empty() {
            return heard;
        }
        let taken = pour(&mut said, session.room(), cut());
        session.filled(taken);
    }
}

/// Every column, taken for each type that is ever asked for.
fn read_as_everything(row: &Row<'_>) {
    let columns = row.columns().count();
    for column in 0..columns + 1 {
        let bytes = row.bytes(column);
        assert!(bytes.is_none() || column < columns);
        let _ = (row.int4(column), row.int8(column), row.boolean(column), row.uuid(column), row.timestamp(column));
        assert!(row.text(column).is_none_or(|text| Some(text.as_bytes()) == bytes));
        assert!(row.jsonb(column).is_none_or(|jsonb| bytes.is_some_and(|bytes| bytes.ends_with(jsonb))));
    }
}
