use super::*;
use crate::redis::commands::Words;
use crate::redis::commands::status::Operation;

static ONE: Script = Script::new("one", "return 1");
static TWO: Script = Script::new("two", "return 2");

const BOUNDS: Bounds = Bounds { commands_max: 8, bytes_max: 2_000 };

/// What a server says about us.
const WHO: &str = "$36\r\nid=7 addr=127.0.0.1:4242 laddr=x db\n\r\n";

fn session(url: &str, scripts: &[&'static Script]) -> CommandSession {
    CommandSession::new(RedisUrl::parse(url).unwrap(), scripts, BOUNDS)
}

/// A session whose greeting is over.
fn greeted(scripts: &[&'static Script]) -> CommandSession {
    let mut session = session("redis://h", scripts);
    session.begin();
    said(&mut session);
    assert!(hear(&mut session, WHO).is_empty());
    for script in scripts {
        assert!(hear(&mut session, &format!("$40\r\n{}\r\n", script.sha1())).is_empty());
    }
    assert_eq!(hear(&mut session, "+PONG\r\n"), ["ready"]);
    session
}

fn ask(session: &mut CommandSession, ticket: u64, words: Words<'_>) -> Result<(), NotTaken> {
    session.push(ticket, ticket + 100, Ticket(ticket), Command { operation: Operation::Other, words })
}

fn get(session: &mut CommandSession, ticket: u64) {
    ask(session, ticket, Words::Plain(&[b"GET", ticket.to_string().as_bytes()])).unwrap();
}

fn run(session: &mut CommandSession, ticket: u64, script: &'static Script) {
    ask(session, ticket, Words::Script { script, keys: &[], arguments: &[ticket.to_string().as_bytes()] }).unwrap();
}

/// Sends what is to be sent, and shows it on one line without the lengths and the SHA-1s.
fn said(session: &mut CommandSession) -> String {
    let output = String::from_utf8(session.output().to_vec()).unwrap();
    session.sent(output.len());
    let words = output.split("\r\n").filter(|word| !word.starts_with(['*', '$']) && !word.is_empty());
    words.map(|word| if word.len() == 40 { "sha1" } else { word }).collect::<Vec<_>>().join(" ")
}

fn hear(session: &mut CommandSession, text: &str) -> Vec<String> {
    try_hear(session, text).unwrap()
}

fn try_hear(session: &mut CommandSession, text: &str) -> Result<Vec<String>, SessionError> {
    let room = session.room();
    room[..text.len()].copy_from_slice(text.as_bytes());
    session.filled(text.len());
    let mut heard = Vec::new();
    while let Some(event) = session.next_event()? {
        heard.push(match event {
            Event::Ready => "ready".to_owned(),
            Event::Pong => "pong".to_owned(),
            Event::NotLoaded { script, text } => format!("not loaded {}: {text}", script.name()),
            Event::NotFenced { text } => format!("not fenced: {text}"),
            Event::Overtaken { ask } => format!("{} overtaken", ask.ticket.0),
            Event::Elsewhere { text } => format!("elsewhere: {text}"),
            Event::GreetingRefused { step, text } => format!("refused {step:?}: {text}"),
            Event::Answered { ask, answer } => match answer {
                Answer::Done(reply) => format!("{} {reply:?}", ask.ticket.0),
                Answer::Refused(refusal) => format!("{} refused {:?}", ask.ticket.0, refusal.code),
                Answer::Failed(failure) => format!("{} failed: {failure}", ask.ticket.0),
            },
        });
    }
    Ok(heard)
}

fn ended(session: &mut CommandSession) -> Vec<(u64, Fate)> {
    let mut fates = Vec::new();
    session.end(|ask, fate| fates.push((ask.ticket.0, fate)));
    fates
}

#[test]
fn the_greeting_comes_first_and_commands_follow_it() {
    let mut session = session("redis://ara:p%40ss@h/3", &[&ONE]);
    get(&mut session, 1);
    assert_eq!(said(&mut session), "", "there is no connection");
    session.begin();
    get(&mut session, 2);
    assert_eq!(said(&mut session), "AUTH ara p@ss SELECT 3 CLIENT INFO SCRIPT LOAD return 1 PING");
    assert_eq!(session.step(), Step::Auth);
    assert!(hear(&mut session, "+OK\r\n").is_empty());
    assert_eq!(session.step(), Step::Select);
    assert!(hear(&mut session, "+OK\r\n").is_empty());
    assert!(hear(&mut session, WHO).is_empty());
    assert!(hear(&mut session, "$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n").is_empty());
    assert_eq!((session.step(), said(&mut session)), (Step::Hello, String::new()));
    assert_eq!(hear(&mut session, "+PONG\r\n"), ["ready"]);
    assert_eq!((session.step(), said(&mut session)), (Step::Talk, "GET 1 GET 2".to_owned()));
    assert_eq!(hear(&mut session, "$1\r\na\r\n$-1\r\n"), ["1 \"a\"", "2 (nil)"]);
    assert_eq!((session.commands(), session.bytes()), (0, 0));
}

#[test]
fn a_refused_greeting_hears_nothing_else_and_keeps_what_waits() {
    let rows = [
        ("redis://:pw@h", "-WRONGPASS no pw\r\n+PONG\r\n", "refused Auth: WRONGPASS no ***"),
        ("redis://h/16", "-ERR DB index is out of range\r\n+PONG\r\n", "refused Select: ERR DB index is out of range"),
        (
            "redis://h",
            "-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n",
            "refused Hello: NOAUTH Authentication required.",
        ),
        (
            "redis://h",
            "-LOADING Redis is loading\r\n-LOADING Redis is loading\r\n",
            "refused Hello: LOADING Redis is loading",
        ),
    ];
    for (url, answers, heard) in rows {
        let mut session = session(url, &[]);
        get(&mut session, 1);
        session.begin();
        said(&mut session);
        assert_eq!(hear(&mut session, answers), [heard]);
        assert_eq!(said(&mut session), "");
        session.begin();
        assert!(said(&mut session).ends_with("PING"));
        assert_eq!(ended(&mut session), [(1, Fate::NotSent)]);
    }
}

#[test]
fn a_script_that_is_not_taken_does_not_keep_commands_from_flowing() {
    let mut session = session("redis://h", &[&ONE]);
    session.begin();
    said(&mut session);
    let heard = hear(&mut session, "-NOPERM no client\r\n-NOPERM no script\r\n+PONG\r\n");
    assert_eq!(heard, ["not fenced: NOPERM no client", "not loaded one: NOPERM no script", "ready"]);
    run(&mut session, 1, &ONE);
    said(&mut session);
    assert!(hear(&mut session, "-NOSCRIPT No matching script.\r\n").is_empty());
    assert_eq!(said(&mut session), "SCRIPT LOAD return 1 EVALSHA sha1 0 1");
    let heard = hear(&mut session, "-NOPERM no script\r\n-NOSCRIPT No matching script.\r\n");
    assert_eq!(heard, ["not loaded one: NOPERM no script", "1 refused NoScript"], "once is enough");
    get(&mut session, 2);
    assert_eq!(said(&mut session), "GET 2");
}

#[test]
fn scripts_that_somebody_flushes_again_and_again_are_loaded_so_often_and_no_oftener() {
    let mut session = greeted(&[&ONE]);
    run(&mut session, 1, &ONE);
    said(&mut session);
    for _ in 0..limits::REDIS_RELOADS_MAX {
        assert!(hear(&mut session, "-NOSCRIPT No\r\n").is_empty());
        assert_eq!(said(&mut session), "SCRIPT LOAD return 1 EVALSHA sha1 0 1");
        assert!(hear(&mut session, &format!("$40\r\n{}\r\n", ONE.sha1())).is_empty());
    }
    assert_eq!(hear(&mut session, "-NOSCRIPT No\r\n"), ["1 refused NoScript"]);
}

#[test]
fn answers_are_told_apart_by_whose_doing_they_are() {
    let mut session = greeted(&[]);
    for ticket in 1..=4 {
        get(&mut session, ticket);
    }
    said(&mut session);
    let heard = hear(&mut session, ":7\r\n-OOM no room\r\n-WRONGTYPE Operation\r\n*1\r\n-ERR inside\r\n");
    assert_eq!(heard, ["1 7", "2 refused OutOfMemory", "3 failed: WRONGTYPE Operation", "4 [(error) ERR inside]"]);
}

#[test]
fn lost_scripts_are_loaded_and_what_needs_them_keeps_its_order() {
    let mut session = greeted(&[&ONE]);
    run(&mut session, 1, &ONE);
    run(&mut session, 2, &TWO);
    get(&mut session, 3);
    said(&mut session);
    run(&mut session, 4, &ONE);
    // The first refusal comes while 4 is not even sent.
    assert!(hear(&mut session, "-NOSCRIPT No\r\n").is_empty());
    run(&mut session, 5, &ONE);
    get(&mut session, 6);
    assert_eq!(said(&mut session), "EVALSHA sha1 0 4", "5 and 6 wait");
    assert_eq!(hear(&mut session, "-NOSCRIPT No\r\n$1\r\nx\r\n-NOSCRIPT No\r\n"), ["3 \"x\""]);
    let again = "EVALSHA sha1 0 1 EVALSHA sha1 0 2 EVALSHA sha1 0 4 EVALSHA sha1 0 5 GET 6";
    assert_eq!(said(&mut session), format!("SCRIPT LOAD return 1 SCRIPT LOAD return 2 {again}"));
    let loaded = format!("$40\r\n{}\r\n$40\r\n{}\r\n", ONE.sha1(), TWO.sha1());
    assert_eq!(
        hear(&mut session, &format!("{loaded}:1\r\n:2\r\n:1\r\n:1\r\n$-1\r\n")),
        ["1 1", "2 2", "4 1", "5 1", "6 (nil)"]
    );
    assert_eq!((session.commands(), session.bytes()), (0, 0));
}

#[test]
fn bounds_hold_for_what_is_sent_what_waits_and_what_is_sent_again() {
    let mut session = greeted(&[&ONE]);
    for ticket in 0..8 {
        get(&mut session, ticket);
    }
    let full = ask(&mut session, 9, Words::Plain(&[b"PING"])).unwrap_err();
    assert!(matches!(full, NotTaken::Full { commands: 8, .. }), "{full}");
    said(&mut session);
    hear(&mut session, ":0\r\n");
    get(&mut session, 9);
    assert!(ask(&mut session, 10, Words::Plain(&[b"PING"])).is_err());

    let mut session = greeted(&[]);
    let long = [b'x'; 1_000];
    ask(&mut session, 1, Words::Plain(&[b"SET", b"k", &long])).unwrap();
    let full = ask(&mut session, 2, Words::Plain(&[b"SET", b"k", &long])).unwrap_err();
    assert!(matches!(full, NotTaken::Full { commands: 1, bytes: 1_001.. }), "{full}");
    let huge = vec![b'x'; limits::REDIS_COMMAND_BYTES_MAX];
    let huge = ask(&mut session, 2, Words::Plain(&[b"SET", b"k", &huge])).unwrap_err();
    assert!(matches!(huge, NotTaken::TooLarge { .. }), "{huge}");
    assert_eq!(session.commands(), 1);
}

#[test]
fn at_the_end_only_what_left_wholly_is_unknown() {
    let mut session = greeted(&[&ONE]);
    run(&mut session, 1, &ONE);
    run(&mut session, 2, &ONE);
    said(&mut session);
    hear(&mut session, ":1\r\n");
    let before = session.output().len();
    get(&mut session, 3);
    let bytes = session.output().len() - before;
    get(&mut session, 4);
    session.sent(bytes);
    get(&mut session, 5);
    let mut cut = greeted(&[]);
    get(&mut cut, 1);
    cut.sent(cut.output().len() - 1);
    assert_eq!(ended(&mut cut), [(1, Fate::NotSent)], "a server does not execute what it has not wholly");
    let fates = [(2, Fate::Unknown), (3, Fate::Unknown), (4, Fate::NotSent), (5, Fate::NotSent)];
    assert_eq!(ended(&mut session), fates);

    let mut session = greeted(&[&ONE]);
    run(&mut session, 1, &ONE);
    get(&mut session, 2);
    said(&mut session);
    hear(&mut session, "-NOSCRIPT No\r\n");
    get(&mut session, 3);
    assert_eq!(ended(&mut session), [(2, Fate::Unknown), (1, Fate::NotSent), (3, Fate::NotSent)]);
    assert_eq!((session.commands(), session.bytes(), ended(&mut session).len()), (0, 0, 0));
}

#[test]
fn the_session_before_is_ended_when_its_last_commands_may_still_be_executed() {
    let mut session = greeted(&[]);
    get(&mut session, 1);
    said(&mut session);
    assert_eq!(ended(&mut session), [(1, Fate::Unknown)]);
    let kill = "CLIENT INFO CLIENT KILL ID 7 ADDR 127.0.0.1:4242 PING";
    for _ in 0..2 {
        // A greeting that fails does not take the fence down.
        session.begin();
        assert_eq!(said(&mut session), kill);
        assert!(hear(&mut session, &WHO.replace("id=7", "id=8")).is_empty());
        assert!(ended(&mut session).is_empty());
    }
    session.begin();
    get(&mut session, 2);
    assert_eq!(said(&mut session), kill);
    assert!(hear(&mut session, &WHO.replace("id=7", "id=9")).is_empty());
    assert!(hear(&mut session, ":1\r\n").is_empty());
    assert_eq!((said(&mut session).as_str(), hear(&mut session, "+PONG\r\n")), ("", vec!["ready".to_owned()]));
    assert_eq!(said(&mut session), "GET 2");
    hear(&mut session, "$-1\r\n");
    assert!(ended(&mut session).is_empty());
    session.begin();
    assert_eq!(said(&mut session), "CLIENT INFO PING", "everything was answered");
    hear(&mut session, WHO);
    hear(&mut session, "+PONG\r\n");
    get(&mut session, 3);
    said(&mut session);
    ended(&mut session);
    session.begin();
    said(&mut session);
    hear(&mut session, WHO);
    let heard = hear(&mut session, "-NOPERM no kill\r\n+PONG\r\n");
    assert_eq!(heard, ["not fenced: NOPERM no kill", "ready"]);
}

#[test]
fn what_waits_expires_in_its_order_and_is_never_sent() {
    let mut session = session("redis://h", &[]);
    get(&mut session, 1);
    get(&mut session, 2);
    get(&mut session, 3);
    assert_eq!(session.waiting_deadline_us(), Some(101));
    assert!(session.expire(100).is_none());
    assert_eq!(session.expire(102).map(|ask| ask.ticket), Some(Ticket(1)));
    assert_eq!(session.expire(102).map(|ask| ask.ticket), Some(Ticket(2)));
    assert!(session.expire(102).is_none());
    session.begin();
    said(&mut session);
    assert_eq!(session.answer_deadline_us(), Some(u64::MAX), "the greeting has a clock of its own");
    hear(&mut session, WHO);
    hear(&mut session, "+PONG\r\n");
    assert_eq!(said(&mut session), "GET 3");
    assert_eq!((session.answer_deadline_us(), session.waiting_deadline_us()), (Some(103), None));
}

#[test]
fn a_closed_session_hears_out_what_is_on_its_way() {
    let mut session = greeted(&[]);
    get(&mut session, 1);
    said(&mut session);
    session.close();
    get(&mut session, 2);
    assert_eq!((said(&mut session), session.is_quiet()), (String::new(), false));
    assert_eq!(hear(&mut session, ":1\r\n"), ["1 1"]);
    assert!(session.is_quiet());
    assert_eq!(ended(&mut session), [(2, Fate::NotSent)]);
}

#[test]
fn what_a_server_without_the_slot_refused_goes_first_to_the_next_one() {
    let mut session = greeted(&[]);
    session.follow_slots();
    (1..=4).for_each(|ticket| get(&mut session, ticket));
    said(&mut session);
    let moved = "MOVED 7 127.0.0.1:7001";
    let heard = hear(&mut session, &format!(":1\r\n-{moved}\r\n-WRONGTYPE no\r\n"));
    assert_eq!(heard, ["1 1", &format!("elsewhere: {moved}"), "3 failed: WRONGTYPE no"]);
    session.close();
    get(&mut session, 5);
    assert_eq!((said(&mut session), session.is_quiet(), session.commands()), (String::new(), false, 3));
    hear(&mut session, "-TRYAGAIN Multiple keys request during rehashing of slot\r\n");
    assert!(session.is_quiet());
    session.pause();
    get(&mut session, 6);
    session.begin();
    said(&mut session);
    hear(&mut session, WHO);
    hear(&mut session, "+PONG\r\n");
    assert_eq!(said(&mut session), "GET 2 GET 4 GET 5 GET 6");
    assert_eq!(hear(&mut session, ":2\r\n:4\r\n:5\r\n:6\r\n"), ["2 2", "4 4", "5 5", "6 6"]);
    assert_eq!((session.commands(), session.bytes()), (0, 0));
}

#[test]
fn what_was_overtaken_by_a_command_about_the_same_is_not_executed_any_more() {
    let mut session = greeted(&[]);
    session.follow_slots();
    let say = |session: &mut CommandSession, ticket, words: &[&[u8]]| {
        let command = Command { operation: Operation::Other, words: Words::Plain(words) };
        session.push(0, 100, Ticket(ticket), command).unwrap();
    };
    say(&mut session, 1, &[b"RPUSH", b"a", b"1"]);
    say(&mut session, 2, &[b"RPUSH", b"b", b"1"]);
    say(&mut session, 3, &[b"RPUSH", b"a", b"2"]);
    say(&mut session, 4, &[b"LLEN", b"a"]);
    said(&mut session);
    let again = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
    let heard = hear(&mut session, &format!("{again}{again}{again}:0\r\n"));
    assert_eq!(heard[3..], ["1 overtaken", "3 overtaken", "4 0"]);
    session.close();
    assert_eq!(session.commands(), 1);
    session.pause();
    session.begin();
    said(&mut session);
    hear(&mut session, WHO);
    hear(&mut session, "+PONG\r\n");
    assert_eq!(said(&mut session), "RPUSH b 1");
}

#[test]
fn what_a_server_without_the_slot_refused_was_not_sent_when_the_link_ends_in_between() {
    let mut session = greeted(&[]);
    session.follow_slots();
    (1..=2).for_each(|ticket| get(&mut session, ticket));
    said(&mut session);
    hear(&mut session, "-MOVED 7 127.0.0.1:7001\r\n");
    session.close();
    get(&mut session, 3);
    assert_eq!(ended(&mut session), [(2, Fate::Unknown), (1, Fate::NotSent), (3, Fate::NotSent)]);
}

#[test]
fn who_knows_of_no_slots_is_refused() {
    let mut session = greeted(&[]);
    get(&mut session, 1);
    said(&mut session);
    assert_eq!(hear(&mut session, "-MOVED 7 127.0.0.1:7001\r\n"), ["1 refused Moved"]);
}

#[test]
fn what_nobody_asked_for_ends_the_session() {
    let error = try_hear(&mut greeted(&[]), "+OK\r\n").unwrap_err();
    assert_eq!(error, SessionError::Unexpected("nothing was asked"));
    assert!(matches!(try_hear(&mut greeted(&[]), "HTTP/1.1 400\r\n"), Err(SessionError::Reply(_))));
    let mut early = greeted(&[]);
    get(&mut early, 1);
    let error = try_hear(&mut early, ":1\r\n").unwrap_err();
    assert_eq!(error, SessionError::Unexpected("the command is not sent yet"));
    let mut wrong = session("redis://h", &[&ONE]);
    wrong.begin();
    said(&mut wrong);
    hear(&mut wrong, WHO);
    assert!(try_hear(&mut wrong, "$2\r\nno\r\n").is_err(), "not the SHA-1");
}

#[test]
fn thousands_of_commands_leave_no_room_behind() {
    let bounds = Bounds { commands_max: 20_000, bytes_max: 100_000_000 };
    let mut session = CommandSession::new(RedisUrl::parse("redis://h").unwrap(), &[], bounds);
    session.begin();
    said(&mut session);
    hear(&mut session, WHO);
    hear(&mut session, "+PONG\r\n");
    for ticket in 0..20_000 {
        get(&mut session, ticket);
    }
    said(&mut session);
    let mut next = 0;
    while next < 20_000 {
        let answers: String = (next..next + 1_000).map(|n| format!(":{n}\r\n")).collect();
        for line in hear(&mut session, &answers) {
            assert_eq!(line, format!("{next} {next}"));
            next += 1;
        }
    }
    assert_eq!((session.bytes(), session.output.capacity()), (0, 0), "a large buffer is given back");
}
