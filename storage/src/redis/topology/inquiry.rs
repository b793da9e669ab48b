//! One question to one server, and what it answered. No sockets, no time.
use crate::redis::commands::reply::{Reply, ReplyError};
use crate::redis::topology::node::Node;
use crate::redis::topology::slots::{SlotTable, SlotsError};
use crate::redis::topology::talk::Talk;
use crate::redis::topology::url::Login;
use protocol::limits;
use std::fmt;

/// Bytes of a refusal that are kept for the log.
const REFUSAL_BYTES_MAX: usize = 200;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A sentinel: where is the master of this name, and who are the other sentinels?
    Master {
        /// What the sentinels call it.
        name: String,
    },
    /// A server that is said to be a master: are you?
    Role,
    /// A node of a cluster: who has which slots?
    Slots,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Master`].
    Master {
        /// Where it is said to be.
        node: Node,
        /// The other sentinels, at most [`limits::REDIS_SEEDS_KNOWN_MAX`]; none if they were not told.
        sentinels: Vec<Node>,
    },
    /// To [`Question::Master`]: this sentinel watches over no master of that name. To [`Question::Slots`]: nobody has
    /// any slot.
    NotKnown,
    /// To [`Question::Role`].
    Role {
        /// Or a replica, or a sentinel.
        master: bool,
    },
    /// To [`Question::Slots`].
    Slots(SlotTable),
    /// The server does not answer us; its words, cut and without what might be secret.
    Refused(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InquiryError {
    /// What came is no reply.
    Reply(ReplyError),
    /// It is a reply, but not to this.
    Shape(&'static str),
    /// It is no table of slots.
    Slots(SlotsError),
}

impl fmt::Display for InquiryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(error) => error.fmt(f),
            Self::Shape(what) => f.write_str(what),
            Self::Slots(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for InquiryError {}

/// Which reply comes next.
#[derive(Debug)]
enum Next {
    Login,
    Main,
    /// After the master of a name: the other sentinels.
    Sentinels(Node),
    Nothing,
}

/// The conversation about one [`Question`], from its first byte.
#[derive(Debug)]
pub struct Inquiry {
    talk: Talk,
    question: Question,
    asked: Node,
    next: Next,
}

impl Inquiry {
    /// Says at once who we are and what we want to know: one round trip for all.
    pub fn new(question: Question, asked: Node, login: &Login) -> Inquiry {
        let mut talk = Talk::default();
        let next = if talk.say_login(login) { Next::Login } else { Next::Main };
        match &question {
            Question::Master { name } => {
                talk.say(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()]);
                talk.say(&[b"SENTINEL", b"SENTINELS", name.as_bytes()]);
            }
            Question::Role => talk.say(&[b"ROLE"]),
            Question::Slots => talk.say(&[b"CLUSTER", b"SLOTS"]),
        }
        Inquiry { talk, question, asked, next }
    }

    /// What goes over the connection.
    pub fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    /// The same, to look at.
    pub(super) fn peek(&self) -> &Talk {
        &self.talk
    }

    /// Whom it asks.
    pub fn asked(&self) -> &Node {
        &self.asked
    }

    /// The answer, once and when it is whole. The connection is of no use afterwards.
    ///
    /// # Errors
    /// [`InquiryError`]; the connection is of no use either.
    pub fn answer(&mut self) -> Result<Option<Answer>, InquiryError> {
        loop {
            if matches!(self.next, Next::Nothing) {
                return Ok(None);
            }
            let Some(reply) = self.talk.reply().map_err(InquiryError::Reply)? else { return Ok(None) };
            let answer = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::Nothing => return Ok(None),
                Next::Login => match reply.error() {
                    None => {
                        self.next = Next::Main;
                        continue;
                    }
                    Some(text) => Answer::Refused(login_refusal(text)),
                },
                Next::Main => match (reply.error(), &self.question) {
                    (Some(text), _) => Answer::Refused(refusal(text)),
                    (None, Question::Role) => Answer::Role { master: is_master(reply)? },
                    (None, Question::Slots) => {
                        let table = SlotTable::from_reply(reply, &self.asked).map_err(InquiryError::Slots)?;
                        if table.covered() == 0 { Answer::NotKnown } else { Answer::Slots(table) }
                    }
                    (None, Question::Master { .. }) if reply.is_null() => Answer::NotKnown,
                    (None, Question::Master { .. }) => {
                        self.next = Next::Sentinels(master_address(reply)?);
                        continue;
                    }
                },
                // A user who may not ask for the others still knows the master.
                Next::Sentinels(node) => Answer::Master { node, sentinels: others(reply) },
            };
            return Ok(Some(answer));
        }
    }
}

/// The two words of an address.
fn master_address(reply: Reply<'_>) -> Result<Node, InquiryError> {
    let mut words = reply.items().ok_or(InquiryError::Shape("the sentinel's answer is no address"))?;
    let node = match (words.next().and_then(Reply::text), words.next().and_then(Reply::text), words.next()) {
        (Some(host), Some(port), None) => Node::from_words(host, port),
        _ => None,
    };
    node.ok_or(InquiryError::Shape("the sentinel's answer is no address"))
}

fn is_master(reply: Reply<'_>) -> Result<bool, InquiryError> {
    let role = reply.items().and_then(|mut words| words.next()?.bytes());
    role.map(|role| role == b"master").ok_or(InquiryError::Shape("the answer to ROLE names no role"))
}

/// Names and values in turn, one list for each sentinel; what is not understood is left aside.
fn others(reply: Reply<'_>) -> Vec<Node> {
    let one = |sentinel: Reply<'_>| {
        let (mut host, mut port) = (None, None);
        let mut words = sentinel.items()?;
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            match name.bytes() {
                Some(b"ip") => host = value.text(),
                Some(b"port") => port = value.text(),
                _ => {}
            }
        }
        Node::from_words(host?, port?)
    };
    reply.items().into_iter().flatten().filter_map(one).take(limits::REDIS_SEEDS_KNOWN_MAX).collect()
}

/// A server's refusal, fit for the log.
pub(super) fn refusal(text: &[u8]) -> String {
    text[..text.len().min(REFUSAL_BYTES_MAX)].escape_ascii().to_string()
}

/// Of a login only the code: a server that does not know the command quotes what followed it.
pub(super) fn login_refusal(text: &[u8]) -> String {
    let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
    match code.iter().all(u8::is_ascii_uppercase) && code.len() <= 20 {
        true => format!("{} in answer to AUTH", code.escape_ascii()),
        false => "an error in answer to AUTH".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n";

    fn answer(question: Question, login: &Login, said: &str) -> Result<Option<Answer>, InquiryError> {
        let asked = Node { host: "h".to_owned(), port: 1 };
        let mut inquiry = Inquiry::new(question, asked, login);
        inquiry.talk().room()[..said.len()].copy_from_slice(said.as_bytes());
        inquiry.talk().filled(said.len());
        inquiry.answer()
    }

    fn master() -> Question {
        Question::Master { name: "m".to_owned() }
    }

    fn node(port: u16) -> Node {
        Node { host: "127.0.0.1".to_owned(), port }
    }

    #[test]
    fn a_sentinel_knows_the_master_and_the_others() {
        let other = "*6\r\n$4\r\nname\r\n$1\r\nx\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$1\r\n7\r\n";
        let broken = "*3\r\n$2\r\nip\r\n$1\r\n?\r\n$4\r\nport\r\n";
        let known = |sentinels| Answer::Master { node: node(6379), sentinels };
        let rows = [
            (format!("{ADDRESS}*1\r\n{other}"), Some(known(vec![node(7)]))),
            (format!("{ADDRESS}*4\r\n{broken}:1\r\n{other}*0\r\n"), Some(known(vec![node(7)]))),
            (format!("{ADDRESS}-NOPERM no\r\n"), Some(known(Vec::new()))),
            (ADDRESS.to_owned(), None),
            ("*-1\r\n".to_owned(), Some(Answer::NotKnown)),
            ("$-1\r\n".to_owned(), Some(Answer::NotKnown)),
            (
                "-NOAUTH Authentication required.\r\n".to_owned(),
                Some(Answer::Refused("NOAUTH Authentication required.".to_owned())),
            ),
        ];
        for (said, expected) in rows {
            assert_eq!(answer(master(), &Login::default(), &said), Ok(expected), "{said:?}");
        }
        for said in [
            "+OK\r\n",
            "*0\r\n",
            "*1\r\n$1\r\na\r\n",
            "*2\r\n$1\r\n?\r\n$1\r\n1\r\n",
            "*3\r\n$1\r\na\r\n$1\r\n1\r\n:1\r\n",
        ] {
            assert!(matches!(answer(master(), &Login::default(), said), Err(InquiryError::Shape(_))), "{said:?}");
        }
    }

    #[test]
    fn more_sentinels_than_the_bound_are_left_aside() {
        let mut said = format!("{ADDRESS}*80\r\n");
        for port in 1..=80 {
            said += &format!("*4\r\n$2\r\nip\r\n$1\r\na\r\n$4\r\nport\r\n$2\r\n{port:02}\r\n");
        }
        let Ok(Some(Answer::Master { sentinels, .. })) = answer(master(), &Login::default(), &said) else {
            panic!("it is an answer");
        };
        assert_eq!(sentinels.len(), limits::REDIS_SEEDS_KNOWN_MAX);
    }

    #[test]
    fn a_role_is_that_of_a_master_or_not() {
        let rows = [
            ("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n", true),
            ("*5\r\n$5\r\nslave\r\n$1\r\na\r\n:1\r\n$7\r\nconnect\r\n:-1\r\n", false),
            ("*2\r\n$8\r\nsentinel\r\n*1\r\n$1\r\nm\r\n", false),
        ];
        for (said, master) in rows {
            let expected = Answer::Role { master };
            assert_eq!(answer(Question::Role, &Login::default(), said), Ok(Some(expected)), "{said:?}");
        }
        assert!(answer(Question::Role, &Login::default(), "*0\r\n").is_err());
        let loading = answer(Question::Role, &Login::default(), "-LOADING wait\r\n");
        assert_eq!(loading, Ok(Some(Answer::Refused("LOADING wait".to_owned()))));
    }

    #[test]
    fn a_login_that_is_refused_is_not_repeated() {
        let login = Login { user: None, password: Some(b"hunter2".to_vec()) };
        let rows = [
            ("-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n", "ERR in answer to AUTH"),
            ("-WRONGPASS no\r\n", "WRONGPASS in answer to AUTH"),
            ("-hunter2\r\n", "an error in answer to AUTH"),
        ];
        for (said, shown) in rows {
            let refused = answer(Question::Role, &login, said);
            assert_eq!(refused, Ok(Some(Answer::Refused(shown.to_owned()))), "{said:?}");
        }
        let let_in = answer(Question::Role, &login, "+OK\r\n*1\r\n$6\r\nmaster\r\n");
        assert_eq!(let_in, Ok(Some(Answer::Role { master: true })));
    }

    #[test]
    fn a_cluster_without_slots_is_not_known() {
        assert_eq!(answer(Question::Slots, &Login::default(), "*0\r\n"), Ok(Some(Answer::NotKnown)));
        let said = "*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n$-1\r\n:7\r\n";
        let Ok(Some(Answer::Slots(table))) = answer(Question::Slots, &Login::default(), said) else {
            panic!("it is a table");
        };
        assert_eq!(format!("{table:?}"), "SlotTable(0-9 h:7)");
        assert!(matches!(answer(Question::Slots, &Login::default(), ":1\r\n"), Err(InquiryError::Slots(_))));
    }
}
