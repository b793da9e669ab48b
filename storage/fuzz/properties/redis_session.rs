//! A subscription at a server that says anything.
use super::{PASSWORD, assert_harmless, cuts, pour};
use storage::redis::session::{Event, Session, SessionError};
use storage::redis::url::RedisUrl;

pub fn session(bytes: &[u8]) {
    let Some((mode, said)) = bytes.split_first() else { return };
    let whole = hear(*mode, said, || usize::MAX);
    assert_eq!(whole, hear(*mode, said, cuts(bytes)), "whole and cut");
}

fn hear(mode: u8, mut said: &[u8], mut cut: impl FnMut() -> usize) -> Vec<String> {
    let url = match mode % 4 {
        0 => "redis://h".to_owned(),
        1 => format!("redis://:{PASSWORD}@h"),
        2 => format!("redis://ara:{PASSWORD}@h/3"),
        _ => "redis://h/1".to_owned(),
    };
    let url = RedisUrl::parse(&url).expect("a valid URL");
    let channels: Vec<String> =
        ["news", "user:*", "room-[ab]"][..usize::from(mode / 4 % 4)].iter().map(|&n| n.into()).collect();
    let mut session = Session::new(&url, &channels);
    for (bit, subscribe, name) in
        [(16, true, "user:1"), (32, true, "forbidden"), (64, false, "user:1"), (128, true, "n*")]
    {
        if mode & bit != 0 {
            session.change(subscribe, &[name.as_bytes()]);
        }
    }
    session.ping();
    session.sent(session.output().len());
    let mut heard = Vec::new();
    loop {
        loop {
            match session.next_event() {
                Ok(Some(event)) => {
                    if let Event::ServerError { text, .. } | Event::ChangeRefused { text, .. } = &event {
                        assert_harmless(text, matches!(mode % 4, 1 | 2));
                    }
                    heard.push(format!("{event:?}"));
                }
                Ok(None) => break,
                // Of bytes that are no reply, one may say "too long" before the other sees that they are none at all.
                Err(SessionError::Malformed(_) | SessionError::TooLarge { .. }) => {
                    heard.push("no reply".to_owned());
                    return heard;
                }
                Err(error) => {
                    heard.push(error.to_string());
                    return heard;
                }
            }
        }
        if said.is_empty() {
            return heard;
        }
        let taken = pour(&mut said, session.room(), cut());
        session.filled(taken);
    }
}
