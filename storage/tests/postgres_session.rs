//! The session as a conversation: what a server says is written here by hand, in any order a server could choose.
use storage::postgres::command::{Command, Statement};
use storage::postgres::session::{Event, IN_FLIGHT_MAX, Session, SessionError, Step};
use storage::postgres::url::PostgresUrl;

const PUT: Statement = Statement { name: "put", sql: "INSERT INTO t VALUES ($1)" };
const TAKE: Statement = Statement { name: "take", sql: "DELETE FROM t RETURNING v" };

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn auth(code: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), rest].concat())
}

fn failure(severity: &str, code: &str, text: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0").as_bytes())
}

fn row(value: &[u8]) -> Vec<u8> {
    message(b'D', &[&[0, 1][..], &(value.len() as u32).to_be_bytes(), value].concat())
}

fn done(tag: &str) -> Vec<u8> {
    [message(b'2', b""), message(b'C', format!("{tag}\0").as_bytes()), ready()].concat()
}

fn prepared() -> Vec<u8> {
    message(b'1', b"")
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn session(url: &str) -> Session {
    Session::new(&PostgresUrl::parse(url).unwrap())
}

/// What the session has to say, which is taken as sent.
fn said(session: &mut Session) -> Vec<u8> {
    let said = session.output().to_vec();
    session.sent(said.len());
    said
}

/// Feeds bytes, as many at a time as there is room for, and writes down what is heard.
fn hear(session: &mut Session, mut bytes: &[u8]) -> Result<Vec<String>, SessionError> {
    let mut heard = Vec::new();
    loop {
        while let Some(event) = session.next_event()? {
            heard.push(match event {
                Event::Row { place: 0, row } => format!("row {}", row.text(0).unwrap_or("?")),
                Event::Row { place, row } => format!("row {} of {place}", row.text(0).unwrap_or("?")),
                Event::Done { rows } => format!("done {rows}"),
                Event::Failed(error) => format!("failed {error}"),
                Event::RolledBack { culprit, error } => format!("rolled back by {culprit:?}: {error}"),
                Event::Refused(error) => format!("refused {error}"),
                Event::Gone(error) => format!("gone {error}"),
                Event::Notice(notice) => format!("notice {notice}"),
                Event::Encrypt => "encrypt".to_owned(),
                Event::Ready => "ready".to_owned(),
                Event::Pong => "pong".to_owned(),
            });
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

/// A session that was let in without proof.
fn live() -> Session {
    let mut session = session("postgres://ara@h/d?sslmode=disable");
    let welcome = [auth(0, b""), message(b'S', b"server_version\x0015.9\0"), message(b'K', &[0; 8]), ready()].concat();
    assert_eq!(hear(&mut session, &welcome).unwrap(), ["ready"]);
    assert_eq!((session.step(), session.settings().version.as_str()), (Step::Live, "15.9"));
    said(&mut session);
    session
}

fn put(value: &str) -> Command {
    Command::new(&PUT, 1_000).text(value)
}

fn count(said: &[u8], needle: &[u8]) -> usize {
    said.windows(needle.len()).filter(|window| *window == needle).count()
}

#[test]
fn the_first_words_say_who_and_where() {
    let mut plain = session("postgres://ara:pw@h/d?sslmode=disable&application_name=x");
    assert_eq!(
        said(&mut plain),
        b"\0\0\0\x45\0\x03\0\0user\0ara\0database\0d\0application_name\0x\0client_encoding\0UTF8\0\0"
    );
    for mode in ["prefer", "require", "verify-ca", "verify-full"] {
        let mut session = session(&format!("postgres://ara:pw@h/d?sslmode={mode}"));
        assert_eq!(said(&mut session), b"\0\0\0\x08\x04\xd2\x16\x2f", "{mode}");
        assert_eq!(hear(&mut session, b"S").unwrap(), ["encrypt"]);
        assert_eq!((session.step(), session.output()), (Step::Handshake, &b""[..]));
        session.encrypted();
        assert!(said(&mut session).starts_with(b"\0\0\0\x5c\0\x03\0\0user\0ara\0"), "{mode}");
    }
}

#[test]
fn a_server_without_tls_is_taken_only_where_that_is_allowed() {
    let mut lenient = session("postgres://ara@h/d");
    said(&mut lenient);
    assert_eq!(hear(&mut lenient, b"N").unwrap(), [""; 0]);
    assert!(said(&mut lenient).windows(4).any(|window| window == b"user"));
    for mode in ["require", "verify-ca", "verify-full"] {
        let mut strict = session(&format!("postgres://ara@h/d?sslmode={mode}"));
        said(&mut strict);
        assert_eq!(hear(&mut strict, b"N"), Err(SessionError::NoTls), "{mode}");
        assert_eq!(said(&mut strict), b"", "not a word goes out in plain");
    }
}

#[test]
fn what_follows_the_answer_to_the_request_for_tls_is_not_read() {
    let mut session = session("postgres://ara@h/d?sslmode=require");
    assert_eq!(session.room().len(), 1);
    session.room()[0] = b'S';
    session.filled(1);
    assert_eq!(session.next_event(), Ok(Some(Event::Encrypt)));
    assert!(session.room().len() > 1);
}

#[test]
fn passwords_are_proven_as_the_server_asks() {
    let mut clear = session("postgres://ara:pw@h/d?sslmode=disable");
    said(&mut clear);
    hear(&mut clear, &auth(3, b"")).unwrap();
    assert_eq!(said(&mut clear), message(b'p', b"pw\0"));
    let mut md5 = session("postgres://md5_user:password@h/d?sslmode=disable");
    said(&mut md5);
    hear(&mut md5, &auth(5, &[0x2a, 0x3d, 0x8f, 0xe0])).unwrap();
    assert_eq!(said(&mut md5), message(b'p', b"md562af4dd09bbb41884907a838a3233294\0"));
    let mut scram = session("postgres://ara:pw@h/d?sslmode=disable");
    said(&mut scram);
    hear(&mut scram, &auth(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")).unwrap();
    let words = said(&mut scram);
    assert_eq!((count(&words, b"SCRAM-SHA-256\0"), count(&words, b"n,,n=,r=")), (1, 1));
}

#[test]
fn a_server_that_does_not_prove_itself_is_left() {
    let begun = || {
        let mut session = session("postgres://ara:pw@h/d?sslmode=disable");
        hear(&mut session, &auth(10, b"SCRAM-SHA-256\0\0")).unwrap();
        session
    };
    let rows: [(&str, Vec<u8>); 6] = [
        ("let in at once", auth(0, b"")),
        ("a nonce that is not ours", auth(11, b"r=hunter,s=QSXCR+Q6sek8bf92,i=4096")),
        ("no message of SCRAM", auth(11, b"\xff")),
        ("an end before its time", auth(12, b"v=AAAA")),
        ("another proof", auth(11, b"")),
        ("no beginning", auth(10, b"nothing")),
    ];
    for (what, bytes) in rows {
        let heard = hear(&mut begun(), &bytes);
        assert!(matches!(heard, Err(SessionError::Login(_))), "{what}: {heard:?}");
    }
    let mut unasked = session("postgres://ara:pw@h/d?sslmode=disable");
    assert!(hear(&mut unasked, &auth(11, b"r=x,s=eA==,i=1")).is_err());
}

#[test]
fn proofs_we_do_not_have_are_named() {
    let rows = [
        ("ara", auth(3, b""), "no"),
        ("ara", auth(5, &[1; 4]), "none"),
        ("ara", auth(10, b"SCRAM-SHA-256\0\0"), "none"),
        ("ara:pw", auth(2, b""), "Kerberos"),
        ("ara:pw", auth(7, b""), "GSSAPI"),
        ("ara:pw", auth(9, b""), "SSPI"),
        ("ara:pw", auth(10, b"OAUTHBEARER\0\0"), "SASL"),
    ];
    for (who, bytes, named) in rows {
        let mut session = session(&format!("postgres://{who}@h/d?sslmode=disable"));
        let error = hear(&mut session, &bytes).unwrap_err();
        assert!(matches!(error, SessionError::Login(_)), "{error:?}");
        assert!(error.to_string().contains(named) && !error.to_string().contains("pw"), "{error}");
    }
}

#[test]
fn a_refused_login_is_the_end() {
    let mut session = session("postgres://ara:pw@h/d?sslmode=disable");
    let bytes = [failure("FATAL", "28P01", "password authentication failed"), ready(), row(b"x")].concat();
    assert_eq!(hear(&mut session, &bytes).unwrap(), ["refused password authentication failed (SQLSTATE 28P01)"]);
    assert!(!session.takes_commands());
}

#[test]
fn a_statement_is_prepared_once() {
    let mut session = live();
    for value in ["a", "b", "c"] {
        session.command(&put(value)).unwrap();
    }
    let words = said(&mut session);
    assert_eq!((count(&words, b"INSERT INTO"), count(&words, b"S\0\0\0\x04")), (1, 3), "each has a Sync of its own");
    let answers = [prepared(), done("INSERT 0 1"), done("INSERT 0 1"), done("INSERT 0 1")].concat();
    assert_eq!(hear(&mut session, &answers).unwrap(), ["done 1", "done 1", "done 1"]);
    session.command(&put("d")).unwrap();
    session.command(&Command::new(&TAKE, 1)).unwrap();
    let words = said(&mut session);
    assert_eq!((count(&words, b"INSERT INTO"), count(&words, b"DELETE FROM")), (0, 1));
    let rows = [prepared(), message(b'2', b""), row(b"x"), row(b"y"), message(b'C', b"DELETE 2\0"), ready()].concat();
    let heard = hear(&mut session, &[done("INSERT 0 1"), rows].concat()).unwrap();
    assert_eq!(heard, ["done 1", "row x", "row y", "done 2"]);
    assert_eq!(session.in_flight(), 0);
}

#[test]
fn a_failure_is_not_its_neighbours() {
    let mut session = live();
    for value in ["a", "b", "c"] {
        session.command(&put(value)).unwrap();
    }
    let refused = [message(b'2', b""), failure("ERROR", "23505", "twice"), ready()].concat();
    let heard = hear(&mut session, &[prepared(), done("INSERT 0 1"), refused, done("INSERT 0 1")].concat()).unwrap();
    assert_eq!(heard, ["done 1", "failed twice (SQLSTATE 23505)", "done 1"]);
}

#[test]
fn a_command_is_done_when_it_is_committed() {
    let mut session = live();
    session.command(&put("a")).unwrap();
    let before = [prepared(), message(b'2', b""), message(b'C', b"INSERT 0 1\0")].concat();
    assert_eq!(hear(&mut session, &before).unwrap(), [""; 0]);
    // A constraint that is checked at the end of the transaction.
    let heard = hear(&mut session, &[failure("ERROR", "23503", "late"), ready()].concat()).unwrap();
    assert_eq!(heard, ["failed late (SQLSTATE 23503)"]);
}

/// Says them as one transaction.
fn together(session: &mut Session, commands: &[Command]) {
    for command in commands {
        session.begin(command).unwrap();
    }
    session.finish();
}

#[test]
fn several_commands_are_one_transaction_and_done_when_it_is() {
    let mut session = live();
    together(&mut session, &[put("a"), Command::new(&TAKE, 1), put("b")]);
    session.command(&put("c")).unwrap();
    let words = said(&mut session);
    assert_eq!((count(&words, b"INSERT INTO"), count(&words, b"S\0\0\0\x04")), (1, 2));
    let end = |tag: &str| message(b'C', format!("{tag}\0").as_bytes());
    let first = [prepared(), message(b'2', b""), end("INSERT 0 1")].concat();
    assert_eq!(hear(&mut session, &first).unwrap(), [""; 0], "said to be done, and not committed");
    let second = [prepared(), message(b'2', b""), row(b"x"), row(b"y"), end("DELETE 2")].concat();
    assert_eq!(hear(&mut session, &second).unwrap(), ["row x of 1", "row y of 1"]);
    let third = [message(b'2', b""), end("INSERT 0 1")].concat();
    assert_eq!(hear(&mut session, &third).unwrap(), [""; 0]);
    assert_eq!(hear(&mut session, &ready()).unwrap(), ["done 1", "done 2", "done 1"]);
    assert_eq!(session.in_flight(), 1);
    assert_eq!(hear(&mut session, &done("INSERT 0 1")).unwrap(), ["done 1"]);
    session.finish();
    assert_eq!(said(&mut session), b"", "nothing was begun");
}

#[test]
fn a_transaction_fails_as_a_whole_and_says_who_failed() {
    let mut session = live();
    let end = || [message(b'2', b""), message(b'C', b"INSERT 0 1\0")].concat();
    together(&mut session, &[put("a"), put("b"), Command::new(&TAKE, 1)]);
    said(&mut session);
    let twice = failure("ERROR", "23505", "twice");
    let heard = hear(&mut session, &[prepared(), end(), message(b'2', b""), twice, ready()].concat()).unwrap();
    assert_eq!(heard, ["rolled back by Some(1): twice (SQLSTATE 23505)"]);
    assert_eq!(session.in_flight(), 0);
    // What was skipped was not prepared; what was prepared stays so.
    together(&mut session, &[put("a"), Command::new(&TAKE, 1)]);
    let words = said(&mut session);
    assert_eq!((count(&words, b"INSERT INTO"), count(&words, b"DELETE FROM")), (0, 1));
    let taken = [prepared(), message(b'2', b""), message(b'C', b"DELETE 0\0")].concat();
    let late = failure("ERROR", "23503", "late");
    let heard = hear(&mut session, &[end(), taken.clone(), late.clone(), ready()].concat()).unwrap();
    assert_eq!(heard, ["rolled back by None: late (SQLSTATE 23503)"], "the commit failed");
    together(&mut session, &[put("a")]);
    assert_eq!(hear(&mut session, &[end(), late, ready()].concat()).unwrap(), ["failed late (SQLSTATE 23503)"]);
    together(&mut session, &[put("a"), put("b")]);
    assert!(hear(&mut session, &[end(), ready()].concat()).is_err(), "the second was not answered");
}

#[test]
fn who_relied_on_a_failed_preparation_is_told_why_and_the_next_tries_again() {
    let mut session = live();
    session.command(&put("a")).unwrap();
    session.command(&put("b")).unwrap();
    said(&mut session);
    let missing = [failure("ERROR", "42P01", "no table"), ready()].concat();
    assert_eq!(hear(&mut session, &missing).unwrap(), ["failed no table (SQLSTATE 42P01)"]);
    // Prepared again while the second one is still under way.
    session.command(&put("c")).unwrap();
    assert_eq!(count(&said(&mut session), b"INSERT INTO"), 1);
    let unknown = [failure("ERROR", "26000", "no such statement"), ready()].concat();
    assert_eq!(hear(&mut session, &unknown).unwrap(), ["failed no table (SQLSTATE 42P01)"]);
    assert_eq!(hear(&mut session, &[prepared(), done("INSERT 0 1")].concat()).unwrap(), ["done 1"]);
    session.command(&put("d")).unwrap();
    assert_eq!(count(&said(&mut session), b"INSERT INTO"), 0);
}

#[test]
fn a_statement_the_server_forgot_is_prepared_again() {
    let mut session = live();
    session.command(&put("a")).unwrap();
    hear(&mut session, &[prepared(), done("INSERT 0 1")].concat()).unwrap();
    session.command(&put("b")).unwrap();
    session.command(&put("c")).unwrap();
    said(&mut session);
    let unknown = [failure("ERROR", "26000", "no such statement"), ready()].concat();
    assert_eq!(hear(&mut session, &unknown).unwrap(), ["failed no such statement (SQLSTATE 26000)"]);
    session.command(&put("d")).unwrap();
    assert_eq!(count(&said(&mut session), b"INSERT INTO"), 1);
    assert_eq!(hear(&mut session, &unknown).unwrap(), ["failed no such statement (SQLSTATE 26000)"]);
    session.command(&put("e")).unwrap();
    assert_eq!(count(&said(&mut session), b"INSERT INTO"), 0, "asked once");
    let heard = hear(&mut session, &[prepared(), done("INSERT 0 1"), done("INSERT 0 1")].concat()).unwrap();
    assert_eq!(heard, ["done 1", "done 1"]);
}

#[test]
fn a_preparation_outlives_the_failure_of_its_command() {
    let mut session = live();
    session.command(&put("a")).unwrap();
    let refused = [prepared(), failure("ERROR", "22P02", "bad value"), ready()].concat();
    assert_eq!(hear(&mut session, &refused).unwrap(), ["failed bad value (SQLSTATE 22P02)"]);
    said(&mut session);
    session.command(&put("b")).unwrap();
    assert_eq!(count(&said(&mut session), b"INSERT INTO"), 0);
}

#[test]
fn pings_scripts_and_notices_have_their_place() {
    let mut session = live();
    session.ping();
    session.command(&Command::script("SELECT 1; SELECT 2", 1)).unwrap();
    session.ping();
    assert!(said(&mut session).ends_with(b"SELECT 1; SELECT 2\0S\0\0\0\x04"));
    let notice = message(b'N', b"SNOTICE\0VNOTICE\0C42P07\0Mskipping\0\0");
    let script = [
        message(b'T', b"\0\0"),
        row(b"1"),
        message(b'C', b"SELECT 1\0"),
        notice.clone(),
        message(b'T', b"\0\0"),
        row(b"2"),
        message(b'C', b"SELECT 1\0"),
        ready(),
    ]
    .concat();
    let heard = hear(&mut session, &[notice, ready(), script, ready()].concat()).unwrap();
    let skipping = "notice skipping (SQLSTATE 42P07)";
    assert_eq!(heard, [skipping, "pong", "row 1", skipping, "row 2", "done 1", "pong"]);
}

#[test]
fn settings_are_followed() {
    let mut session = live();
    assert!(!session.settings().read_only);
    let changed = [
        message(b'S', b"in_hot_standby\0on\0"),
        message(b'S', b"default_transaction_read_only\0on\0"),
        message(b'S', format!("server_version\0{}\0", "x".repeat(1_000)).as_bytes()),
    ];
    hear(&mut session, &changed.concat()).unwrap();
    let settings = session.settings();
    assert!(settings.in_hot_standby && settings.read_only && settings.version.len() == 64);
}

#[test]
fn a_good_bye_is_the_end() {
    let mut session = live();
    session.command(&put("a")).unwrap();
    let bytes = [failure("FATAL", "57P01", "terminating"), row(b"x")].concat();
    assert_eq!(hear(&mut session, &bytes).unwrap(), ["gone terminating (SQLSTATE 57P01)"]);
    assert_eq!(session.in_flight(), 1, "it may or may not have happened");
}

#[test]
fn answers_out_of_turn_end_the_session() {
    let rows: [(&str, Vec<u8>); 12] = [
        ("a row", row(b"x")),
        ("ready", ready()),
        ("an end", message(b'C', b"SELECT 1\0")),
        ("an error", failure("ERROR", "42P01", "x")),
        ("a preparation", prepared()),
        ("a proof", auth(3, b"")),
        ("a copy", message(b'G', b"\0\0\0")),
        ("a copy", message(b'H', b"\0\0\0")),
        ("an open transaction", message(b'Z', b"T")),
        ("a failed transaction", message(b'Z', b"E")),
        ("no message", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a huge one", b"D\x7f\xff\xff\xff".to_vec()),
    ];
    for (what, bytes) in rows {
        assert!(hear(&mut live(), &bytes).is_err(), "{what}");
    }
    let asked = || {
        let mut session = live();
        session.command(&put("a")).unwrap();
        session
    };
    let end = || message(b'C', b"SELECT 1\0");
    let rows: [(&str, Vec<u8>); 5] = [
        ("ready without an answer", [prepared(), ready()].concat()),
        ("prepared twice is once too often", [prepared(), done("INSERT 0 1"), prepared()].concat()),
        ("a row behind the end", [prepared(), end(), row(b"x")].concat()),
        ("an end behind an error", [failure("ERROR", "42P01", "x"), end()].concat()),
        ("still in a transaction", [prepared(), end(), message(b'Z', b"T")].concat()),
    ];
    for (what, bytes) in rows {
        assert!(hear(&mut asked(), &bytes).is_err(), "{what}");
    }
}

#[test]
fn nothing_big_is_taken_from_a_stranger() {
    let mut stranger = session("postgres://ara@h/d?sslmode=disable");
    assert_eq!(hear(&mut stranger, b"E\0\x01\0\0"), Err(SessionError::TooLarge { bytes: 65_537 }));
    let mut friend = live();
    friend.command(&put("a")).unwrap();
    let long = "x".repeat(1_000_000);
    let heard = hear(&mut friend, &[prepared(), row(long.as_bytes()), done("SELECT 1")].concat()).unwrap();
    assert_eq!((heard[0].len(), heard[1].as_str()), (1_000_004, "done 1"));
}

#[test]
fn room_for_commands_is_bounded() {
    let mut session = live();
    let mut taken = 0;
    while session.takes_commands() {
        session.command(&put("a")).unwrap();
        said(&mut session);
        taken += 1;
    }
    assert_eq!(taken, IN_FLIGHT_MAX);
    hear(&mut session, &[prepared(), done("INSERT 0 1")].concat()).unwrap();
    assert!(session.takes_commands());
    session.command(&put(&"x".repeat(100_000))).unwrap();
    hear(&mut session, &done("INSERT 0 1")).unwrap();
    assert!(!session.takes_commands(), "what was said waits to be sent");
    said(&mut session);
    assert!(session.takes_commands());
}

#[test]
fn the_place_of_a_command_tells_whether_it_was_sent() {
    let mut session = live();
    let first = session.command(&put("a")).unwrap();
    let second = session.command(&put("b")).unwrap();
    assert_eq!(session.sent_total(), first, "all that was said before is sent");
    session.sent((second - first) as usize);
    assert_eq!(session.sent_total(), second);
    session.sent(1);
    assert!(session.sent_total() > second);
}
