//! Sentinels, servers and nodes of a cluster that answer anything to the questions where Redis is.
use super::{PASSWORD, assert_harmless, cuts, pour};
use protocol::limits;
use storage::redis::topology::inquiry::{Answer, Inquiry, Question};
use storage::redis::topology::node::Node;
use storage::redis::topology::slots::Redirect;
use storage::redis::topology::url::Login;
use storage::redis::topology::watch::{Heard, Watch};

pub fn answers(bytes: &[u8]) {
    let Some((mode, said)) = bytes.split_first() else { return };
    let whole = hear(*mode, said, || usize::MAX);
    assert_eq!(whole, hear(*mode, said, cuts(bytes)), "whole and cut");
    if let Some(Redirect::Moved { slot, node } | Redirect::Ask { slot, node }) = Redirect::parse(said, &asked()) {
        assert!(slot < 16_384);
        check(&node);
    }
}

fn asked() -> Node {
    Node { host: "seed.example".to_owned(), port: 7_000 }
}

fn check(node: &Node) {
    assert!(!node.host.is_empty() && node.port > 0 && !node.host.contains(char::is_control), "{node:?}");
}

fn hear(mode: u8, said: &[u8], cut: impl FnMut() -> usize) -> Vec<String> {
    let login = match mode / 4 % 3 {
        0 => Login::default(),
        1 => Login { user: None, password: Some(PASSWORD.into()) },
        _ => Login { user: Some(b"ara".to_vec()), password: Some(PASSWORD.into()) },
    };
    match mode % 4 {
        0 => inquire(Question::Master { name: "our-master".to_owned() }, &login, said, cut),
        1 => inquire(Question::Role, &login, said, cut),
        2 => inquire(Question::Slots, &login, said, cut),
        _ => watch(&login, said, cut),
    }
}

fn inquire(question: Question, login: &Login, mut said: &[u8], mut cut: impl FnMut() -> usize) -> Vec<String> {
    let mut inquiry = Inquiry::new(question, asked(), login);
    loop {
        match inquiry.answer() {
            Ok(None) if said.is_empty() => return Vec::new(),
            Ok(None) => {
                let talk = inquiry.talk();
                let taken = pour(&mut said, talk.room(), cut());
                talk.filled(taken);
            }
            Ok(Some(answer)) => {
                match &answer {
                    Answer::Refused(text) => assert_harmless(text, login.password.is_some()),
                    Answer::Master { node, sentinels } => {
                        assert!(sentinels.len() <= limits::REDIS_SEEDS_KNOWN_MAX);
                        sentinels.iter().chain([node]).for_each(check);
                    }
                    Answer::Slots(table) => {
                        assert!(table.masters().len() <= limits::REDIS_CLUSTER_MASTERS_MAX);
                        table.masters().iter().for_each(check);
                    }
                    Answer::NotKnown | Answer::Role { .. } => {}
                }
                return vec![format!("{answer:?}")];
            }
            Err(error) => return vec![error.to_string()],
        }
    }
}

fn watch(login: &Login, mut said: &[u8], mut cut: impl FnMut() -> usize) -> Vec<String> {
    let (mut watch, mut heard) = (Watch::new("our-master", login), Vec::new());
    loop {
        match watch.heard() {
            Ok(None) if said.is_empty() => return heard,
            Ok(None) => {
                let talk = watch.talk();
                let taken = pour(&mut said, talk.room(), cut());
                talk.filled(taken);
            }
            Ok(Some(word)) => {
                match &word {
                    Heard::Refused(text) => assert_harmless(text, login.password.is_some()),
                    Heard::Switched(Some(node)) => check(node),
                    Heard::Switched(None) | Heard::Watching | Heard::Alive => {}
                }
                heard.push(format!("{word:?}"));
            }
            Err(error) => {
                heard.push(error.to_string());
                return heard;
            }
        }
    }
}
