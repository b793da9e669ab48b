//! The subscription at a sentinel that tells of a fail-over at once. No sockets, no time.
use crate::redis::commands::reply::Reply;
use crate::redis::topology::inquiry::{InquiryError, login_refusal, refusal};
use crate::redis::topology::node::Node;
use crate::redis::topology::talk::Talk;
use crate::redis::topology::url::Login;

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The subscription stands: what happens from now on is told.
    Watching,
    /// Our master is another server now, or so this sentinel says. `None` if it does not say which.
    Switched(Option<Node>),
    /// A PING was answered, or another master switched.
    Alive,
    /// The sentinel does not want us; its words, cut and without what might be secret.
    Refused(String),
}

/// The conversation of one subscription, from its first byte.
#[derive(Debug)]
pub struct Watch {
    talk: Talk,
    master_name: String,
    /// The login is not answered.
    login: bool,
}

impl Watch {
    /// Says at once who we are and what we want to hear.
    pub fn new(master_name: &str, login: &Login) -> Watch {
        let mut talk = Talk::default();
        let login = talk.say_login(login);
        talk.say(&[b"SUBSCRIBE", b"+switch-master"]);
        Watch { talk, master_name: master_name.to_owned(), login }
    }

    /// What goes over the connection.
    pub fn talk(&mut self) -> &mut Talk {
        &mut self.talk
    }

    /// The same, to look at.
    pub(super) fn peek(&self) -> &Talk {
        &self.talk
    }

    /// Asks whether the sentinel is still there.
    pub fn ping(&mut self) {
        self.talk.say(&[b"PING"]);
    }

    /// What came next; `None` when all was taken.
    ///
    /// # Errors
    /// [`InquiryError`]: what came is no subscription.
    pub fn heard(&mut self) -> Result<Option<Heard>, InquiryError> {
        loop {
            let Some(reply) = self.talk.reply().map_err(InquiryError::Reply)? else { return Ok(None) };
            if std::mem::take(&mut self.login) {
                match reply.error() {
                    None => continue,
                    Some(text) => return Ok(Some(Heard::Refused(login_refusal(text)))),
                }
            }
            if let Some(text) = reply.error() {
                return Ok(Some(Heard::Refused(refusal(text))));
            }
            return message(reply, &self.master_name).map(Some);
        }
    }
}

fn message(reply: Reply<'_>, master_name: &str) -> Result<Heard, InquiryError> {
    const NONE: InquiryError = InquiryError::Shape("what the sentinel says is no message of a subscription");
    // A PING before the subscription stands is answered plainly.
    if reply.bytes() == Some(b"PONG") {
        return Ok(Heard::Alive);
    }
    let mut words = reply.items().ok_or(NONE)?;
    match words.next().and_then(Reply::bytes).ok_or(NONE)? {
        b"subscribe" => Ok(Heard::Watching),
        b"pong" => Ok(Heard::Alive),
        // The one channel that was subscribed to.
        b"message" => Ok(switched(words.nth(1).and_then(Reply::text).ok_or(NONE)?, master_name)),
        _ => Err(NONE),
    }
}

/// `name old-host old-port new-host new-port`.
fn switched(text: &str, master_name: &str) -> Heard {
    let mut words = text.split(' ');
    match words.next() == Some(master_name) {
        false => Heard::Alive,
        true => {
            let node = words.nth(2).zip(words.next()).and_then(|(host, port)| Node::from_words(host, port));
            Heard::Switched(node)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(watch: &mut Watch, said: &str) -> Result<Option<Heard>, InquiryError> {
        watch.talk().room()[..said.len()].copy_from_slice(said.as_bytes());
        watch.talk().filled(said.len());
        watch.heard()
    }

    fn message(text: &str) -> String {
        format!("*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n${}\r\n{text}\r\n", text.len())
    }

    #[test]
    fn a_switch_of_our_master_is_told_and_no_others() {
        let new = |host: &str, port| Some(Node { host: host.to_owned(), port });
        let rows = [
            ("*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n".to_owned(), Heard::Watching),
            (message("m 10.0.0.1 6379 10.0.0.2 6380"), Heard::Switched(new("10.0.0.2", 6380))),
            (message("m ::1 6379 ::2 6380"), Heard::Switched(new("::2", 6380))),
            (message("mm 10.0.0.1 6379 10.0.0.2 6380"), Heard::Alive),
            (message("m"), Heard::Switched(None)),
            (message("m a 1 b x"), Heard::Switched(None)),
            (message(""), Heard::Alive),
            ("*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_owned(), Heard::Alive),
            ("+PONG\r\n".to_owned(), Heard::Alive),
            ("-NOPERM no\r\n".to_owned(), Heard::Refused("NOPERM no".to_owned())),
        ];
        for (said, expected) in rows {
            let mut watch = Watch::new("m", &Login::default());
            assert_eq!(heard(&mut watch, &said), Ok(Some(expected)), "{said:?}");
            assert_eq!(watch.heard(), Ok(None));
        }
        for said in ["+OK\r\n", ":1\r\n", "*0\r\n", "*1\r\n:1\r\n", "*1\r\n$7\r\nmessage\r\n", "*-1\r\n", "x"] {
            let mut watch = Watch::new("m", &Login::default());
            assert!(heard(&mut watch, said).is_err(), "{said:?}");
        }
    }

    #[test]
    fn a_login_comes_first_and_is_not_repeated() {
        let login = Login { user: None, password: Some(b"hunter2".to_vec()) };
        let mut watch = Watch::new("m", &login);
        assert_eq!(heard(&mut watch, "+OK\r\n"), Ok(None));
        assert_eq!(heard(&mut watch, "*1\r\n$4\r\npong\r\n"), Ok(Some(Heard::Alive)));
        let mut watch = Watch::new("m", &login);
        let refused = heard(&mut watch, "-ERR unknown command 'AUTH', with args: 'hunter2'\r\n");
        assert_eq!(refused, Ok(Some(Heard::Refused("ERR in answer to AUTH".to_owned()))));
    }
}
