use super::*;

fn session(url: &str, channels: &[&str]) -> Session {
    let channels: Vec<String> = channels.iter().map(|name| (*name).to_owned()).collect();
    Session::new(&RedisUrl::parse(url).unwrap(), &channels)
}

/// Feeds bytes, as many at a time as there is room for, and writes down what is heard.
fn hear(session: &mut Session, mut bytes: &[u8]) -> Result<Vec<String>, SessionError> {
    let mut heard = Vec::new();
    loop {
        while let Some(event) = session.next_event()? {
            heard.push(format!("{event:?}"));
        }
        if bytes.is_empty() {
            return Ok(heard);
        }
        let room = session.room();
        let taken = room.len().min(bytes.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        session.filled(taken);
        bytes = &bytes[taken..];
    }
}

fn message(channel: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("*3\r\n$7\r\nmessage\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
    [head.as_bytes(), payload, b"\r\n"].concat()
}

#[test]
fn the_first_words_name_who_where_and_what() {
    let session = session("redis://ara:pw@h/3", &["a", "b*", "c", "d?", "e[x]"]);
    let said = String::from_utf8(session.output().to_vec()).unwrap().replace("\r\n", " ");
    assert_eq!(
        said,
        "*3 $4 AUTH $3 ara $2 pw *2 $6 SELECT $1 3 *3 $9 SUBSCRIBE $1 a $1 c *4 $10 PSUBSCRIBE $2 b* $2 d? $4 e[x] "
    );
}

#[test]
fn a_password_alone_and_a_user_alone_both_authenticate() {
    let said = |url| String::from_utf8(session(url, &["a"]).output().to_vec()).unwrap();
    assert!(said("redis://:pw@h").starts_with("*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$9\r\nSUBSCRIBE"));
    assert!(said("redis://ara@h").starts_with("*3\r\n$4\r\nAUTH\r\n$3\r\nara\r\n$0\r\n\r\n*2\r\n$9\r\nSUBSCRIBE"));
    assert!(said("redis://h").starts_with("*2\r\n$9\r\nSUBSCRIBE"));
}

#[test]
fn thousands_of_names_go_in_pieces_and_all_must_be_confirmed() {
    let names: Vec<String> = (0..1_000).map(|n| format!("channel-{n}")).collect();
    let mut session = Session::new(&RedisUrl::parse("redis://h").unwrap(), &names);
    let said = String::from_utf8(session.output().to_vec()).unwrap();
    assert_eq!(said.matches("SUBSCRIBE").count(), 4);
    for name in &names {
        assert_eq!(session.step(), Step::Subscribe);
        let confirmation = format!("*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:1\r\n", name.len());
        hear(&mut session, confirmation.as_bytes()).unwrap();
    }
    assert_eq!(session.step(), Step::Listen);
}

#[test]
fn a_partial_write_keeps_the_rest() {
    let mut session = session("redis://h", &["a"]);
    let whole = session.output().to_vec();
    session.sent(5);
    assert_eq!(session.output(), &whole[5..]);
    session.ping();
    session.sent(whole.len() - 5);
    assert_eq!(session.output(), b"*1\r\n$4\r\nPING\r\n");
    session.sent(14);
    assert_eq!(session.output(), b"");
}

#[test]
fn messages_may_come_between_the_confirmations() {
    let mut session = session("redis://h", &["a", "b*"]);
    let heard = hear(
        &mut session,
        b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0\r\n\r\n\
          *3\r\n$10\r\npsubscribe\r\n$2\r\nb*\r\n:2\r\n*4\r\n$8\r\npmessage\r\n$2\r\nb*\r\n$2\r\nb1\r\n$1\r\n\n\r\n",
    );
    let expected = [
        Event::Subscribed { count: 1 },
        Event::Message { channel: b"a", payload: b"" },
        Event::Subscribed { count: 2 },
        Event::Ready,
        Event::Message { channel: b"b1", payload: b"\n" },
    ];
    assert_eq!(heard.unwrap(), expected.map(|event| format!("{event:?}")));
}

#[test]
fn names_come_and_go_in_order_and_a_refusal_ends_only_its_own() {
    let mut session = session("redis://h", &["a"]);
    hear(&mut session, b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").unwrap();
    session.sent(usize::MAX);
    session.change(true, &[b"b", b"c"]);
    session.change(true, &[b"d"]);
    session.change(false, &[b"b"]);
    let said = String::from_utf8(session.output().to_vec()).unwrap().replace("\r\n", " ");
    assert_eq!(said, "*3 $9 SUBSCRIBE $1 b $1 c *2 $9 SUBSCRIBE $1 d *2 $11 UNSUBSCRIBE $1 b ");
    let heard = hear(
        &mut session,
        b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:3\r\n-NOPERM no\r\n\
          *3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:2\r\n",
    );
    let expected = [
        Event::Changed { subscribed: true, name: b"b" },
        Event::Changed { subscribed: true, name: b"c" },
        Event::ChangeRefused { names: 1, text: "NOPERM no".to_owned() },
        Event::Changed { subscribed: false, name: b"b" },
    ];
    assert_eq!(heard.unwrap(), expected.map(|event| format!("{event:?}")));
    let unasked = b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n";
    assert_eq!(hear(&mut session, unasked), Err(SessionError::Unexpected("a confirmation")));
}

#[test]
fn topics_of_a_slot_are_listened_to_in_their_own_words_until_the_server_takes_them_away() {
    let url = RedisUrl::parse("redis://h").unwrap();
    let mut session = Session::with(&url, &["{1}a*".to_owned()], PubSub::Sharded);
    let said = |session: &mut Session| {
        let said = String::from_utf8(session.output().to_vec()).unwrap().replace("\r\n", " ");
        session.sent(session.output().len());
        said
    };
    assert_eq!(said(&mut session), "*2 $10 SSUBSCRIBE $5 {1}a* ");
    let confirmed = |kind: &str, name: &str| format!("*3\r\n${}\r\n{kind}\r\n$4\r\n{name}\r\n:1\r\n", kind.len());
    let first = confirmed("ssubscribe", "{1}a*").replace("$4", "$5");
    assert_eq!(hear(&mut session, first.as_bytes()).unwrap(), ["Subscribed { count: 1 }", "Ready"]);
    session.change(true, &[b"{1}b"]);
    session.change(false, &[b"{1}b"]);
    assert_eq!(said(&mut session), "*2 $10 SSUBSCRIBE $4 {1}b *2 $12 SUNSUBSCRIBE $4 {1}b ");
    let rows = [
        (confirmed("ssubscribe", "{1}b"), Event::Changed { subscribed: true, name: b"{1}b" }),
        (
            "*3\r\n$8\r\nsmessage\r\n$4\r\n{1}b\r\n$1\r\nx\r\n".to_owned(),
            Event::Message { channel: b"{1}b", payload: b"x" },
        ),
        (confirmed("sunsubscribe", "{1}b"), Event::Changed { subscribed: false, name: b"{1}b" }),
        (confirmed("sunsubscribe", "{1}a"), Event::SlotLost),
    ];
    for (bytes, event) in rows {
        assert_eq!(hear(&mut session, bytes.as_bytes()).unwrap(), [format!("{event:?}")]);
    }
    // Nothing counts any more.
    assert_eq!(hear(&mut session, confirmed("sunsubscribe", "{1}b").as_bytes()).unwrap(), [""; 0]);
}

#[test]
fn the_longest_message_passes_and_leaves_no_room_behind() {
    let mut session = session("redis://h", &[]);
    let payload = vec![b'x'; limits::REDIS_REPLY_BYTES_MAX - 64];
    let heard = hear(&mut session, &message("a", &payload)).unwrap();
    assert_eq!(heard.len(), 2, "ready and the message");
    assert_eq!(session.room().len(), limits::READ_BYTES_MAX);
    assert_eq!(session.input.len(), limits::READ_BYTES_MAX);
}

#[test]
fn what_is_longer_than_the_bound_ends_the_session_and_never_allocates_what_it_claims() {
    let mut claimed = session("redis://h", &[]);
    let error = hear(&mut claimed, b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1000000000\r\n").unwrap_err();
    assert_eq!(error, SessionError::TooLarge { bytes: 1_000_000_000 });
    assert!(claimed.input.capacity() <= 2 * limits::READ_BYTES_MAX);

    let mut grown = session("redis://h", &[]);
    let endless = [&b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4194304\r\n"[..], &vec![b'x'; 5 << 20]].concat();
    assert!(hear(&mut grown, &endless).is_err());
}

#[test]
fn answers_out_of_turn_end_the_session() {
    let rows = [
        "+OK\r\n",
        "+QUEUED\r\n",
        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
        "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
        "*3\r\n$8\r\nwhatever\r\n$1\r\na\r\n$1\r\nb\r\n",
        "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n:1\r\n",
        "*2\r\n$7\r\nmessage\r\n$1\r\na\r\n",
        "*1\r\n:1\r\n",
    ];
    for text in rows {
        let mut session = session("redis://h", &[]);
        let error = hear(&mut session, text.as_bytes()).expect_err(text);
        assert_eq!(session.next_event(), Err(error), "it stays the answer");
    }
}

#[test]
fn after_a_refusal_nothing_counts_any_more() {
    let mut session = session("redis://ara:wrong@h", &["a"]);
    let said = b"-WRONGPASS no\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage";
    let heard = hear(&mut session, said).unwrap();
    assert_eq!(heard, ["ServerError { step: Auth, text: \"WRONGPASS no\" }"]);
    assert_eq!(session.step(), Step::Auth);
}

#[test]
fn error_texts_are_short_printable_and_without_the_password() {
    let mut session = session("redis://:hunter2@h", &["a"]);
    let text = format!("-ERR no hunter2 here\u{7}{}\r\n", "x".repeat(1_000));
    let heard = hear(&mut session, text.as_bytes()).unwrap();
    assert!(heard[0].starts_with("ServerError { step: Auth, text: \"ERR no *** here xxx"), "{heard:?}");
    assert!(heard[0].len() < 250);
}
