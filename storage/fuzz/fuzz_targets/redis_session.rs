//! A server that says anything: the session never panics, keeps its bound, and hears the same however the bytes are
//! cut.
#![no_main]
use libfuzzer_sys::fuzz_target;
use storage::redis::session::Session;
use storage::redis::url::RedisUrl;

/// What was heard, and the error that ended it.
fn hear(url: &RedisUrl, channels: &[String], mut bytes: &[u8], mut cut: impl FnMut() -> usize) -> Vec<String> {
    let mut session = Session::new(url, channels);
    let mut heard = Vec::new();
    loop {
        loop {
            match session.next_event() {
                Ok(Some(event)) => heard.push(format!("{event:?}")),
                Ok(None) => break,
                Err(error) => {
                    heard.push(format!("{error:?}"));
                    return heard;
                }
            }
        }
        if bytes.is_empty() {
            return heard;
        }
        let room = session.room();
        assert!(!room.is_empty(), "there is always room after all events were taken");
        let taken = cut().clamp(1, bytes.len().min(room.len()));
        room[..taken].copy_from_slice(&bytes[..taken]);
        session.filled(taken);
        bytes = &bytes[taken..];
    }
}

fuzz_target!(|data: (u8, u8, Vec<u8>)| {
    let (mode, step, said) = data;
    let url = ["redis://h", "redis://:secret@h", "redis://ara:secret@h/3", "redis://h/1"][usize::from(mode % 4)];
    let url = RedisUrl::parse(url).expect("a valid URL");
    let channels: Vec<String> = (0..mode / 64).map(|n| format!("channel-{n}")).collect();
    let whole = hear(&url, &channels, &said, || usize::MAX);
    assert!(!whole.iter().any(|line| line.starts_with("ServerError") && line.contains("secret")));
    assert_eq!(whole, hear(&url, &channels, &said, || usize::from(step)), "cut into pieces of {step}");
});
