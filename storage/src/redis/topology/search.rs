//! Whom to ask next, and what to make of the answers: the order of Redis' guidelines for clients. No sockets, no time.
//!
//! A round asks one server after the other until one answer holds. A sentinel's answer holds when the server it names
//! says itself, asked by ROLE, that it is the master: a sentinel that was cut off names one that is not any more.
use crate::redis::topology::inquiry::{Answer, Question};
use crate::redis::topology::node::Node;
use crate::redis::topology::slots::SlotTable;
use crate::redis::topology::url::RedisAddress;
use protocol::limits;
use std::fmt;

/// Where Redis is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// The one server, or the master of the moment.
    Master(Node),
    /// A cluster's masters.
    Slots(SlotTable),
}

/// Why a server's answer does not hold; of a round, the one that says most, which is the last in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Miss {
    /// It was not reached, or did not answer in time.
    Unreached(String),
    /// It was reached and knows no master of that name, or no slots.
    NotKnown,
    /// A sentinel named a master that was not reached: probably the moment before a fail-over.
    MasterUnreached(String),
    /// A sentinel named a master that is none: probably the moment of a fail-over.
    NotMaster(String),
    /// What it said is no answer.
    Broken(String),
    /// It does not answer us; its words.
    Refused(String),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(cause) => write!(f, "no server of REDIS_URL answers: {cause}"),
            Self::NotKnown => f.write_str(
                "the servers of REDIS_URL answer, but know no such master, or no slots of a cluster; check the name",
            ),
            Self::MasterUnreached(cause) => write!(f, "the sentinels name a master that was not reached: {cause}"),
            Self::NotMaster(node) => write!(f, "the sentinels name {node}, which is no master"),
            Self::Broken(cause) => write!(f, "a server of REDIS_URL gave no answer that makes sense: {cause}"),
            Self::Refused(text) => write!(f, "a server of REDIS_URL refused; check users and passwords: {text}"),
        }
    }
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask a server; then [`Search::heard`] or [`Search::missed`].
    Ask {
        /// Whom.
        node: Node,
        /// What.
        question: Question,
    },
    /// The round is over: this holds.
    Found(Where),
    /// The round is over, and nothing holds.
    Missed(Miss),
}

/// One round after the other.
#[derive(Debug)]
pub struct Search {
    kind: Kind,
    /// Whom to ask, the one that answered last first.
    known: Vec<Node>,
    /// How many of them are configured: those are never forgotten.
    configured: Vec<Node>,
    /// How many of `known` were asked in this round.
    asked: usize,
    /// A master that was named and is being asked.
    named: Option<Named>,
    /// Masters that were named in this round and did not hold: nobody waits for the same one twice.
    refuted: Vec<Node>,
    miss: Option<Miss>,
}

#[derive(Debug)]
enum Kind {
    Single(Node),
    Sentinel { name: String },
    Cluster,
}

#[derive(Debug)]
struct Named {
    master: Node,
    by: Node,
    sentinels: Vec<Node>,
}

impl Search {
    /// Nothing is known yet but what is configured.
    pub fn new(address: &RedisAddress) -> Search {
        let (kind, configured) = match address {
            RedisAddress::Single(url) => (Kind::Single(Node { host: url.host.clone(), port: url.port }), Vec::new()),
            RedisAddress::Sentinel(url) => (Kind::Sentinel { name: url.master_name.clone() }, url.sentinels.clone()),
            RedisAddress::Cluster(url) => (Kind::Cluster, url.nodes.clone()),
        };
        Search { kind, known: configured.clone(), configured, asked: 0, named: None, refuted: Vec::new(), miss: None }
    }

    /// Mixes the order of those that are asked first, so that a fleet does not begin with the same one.
    pub fn shuffle(&mut self, rng: &mut fastrand::Rng) {
        rng.shuffle(&mut self.known);
    }

    /// Begins a round; one that is under way is forgotten.
    pub fn begin(&mut self) -> Step {
        (self.asked, self.named, self.miss) = (0, None, None);
        self.refuted.clear();
        self.next()
    }

    /// The server that was to be asked answered.
    pub fn heard(&mut self, answer: Answer) -> Step {
        match (answer, self.named.take()) {
            (Answer::Role { master: true }, Some(named)) => {
                self.learn(&named.by, named.sentinels);
                Step::Found(Where::Master(named.master))
            }
            (Answer::Role { master: false }, Some(named)) => {
                let miss = Miss::NotMaster(named.master.to_string());
                self.refute(named.master, miss)
            }
            (Answer::Refused(text), Some(named)) => {
                let miss = Miss::Refused(format!("{}: {text}", named.master));
                self.refute(named.master, miss)
            }
            (Answer::Master { node, .. }, None) if self.refuted.contains(&node) => self.next(),
            (Answer::Master { node, sentinels }, None) => {
                let Some(by) = self.asked.checked_sub(1).and_then(|at| self.known.get(at)).cloned() else {
                    return self.next();
                };
                self.named = Some(Named { master: node.clone(), by, sentinels });
                Step::Ask { node, question: Question::Role }
            }
            (Answer::Slots(table), None) => {
                if let Some(by) = self.asked.checked_sub(1).and_then(|at| self.known.get(at)).cloned() {
                    self.learn(&by, table.masters().to_vec());
                }
                Step::Found(Where::Slots(table))
            }
            (Answer::NotKnown, None) => self.note(Miss::NotKnown),
            (Answer::Refused(text), None) => self.note(Miss::Refused(text)),
            // What was not asked; the inquiry gives no such answer.
            (_, _) => self.note(Miss::Broken("an answer to another question".to_owned())),
        }
    }

    /// The server that was to be asked was not reached ([`Miss::Unreached`]), or said nonsense ([`Miss::Broken`]).
    pub fn missed(&mut self, miss: Miss) -> Step {
        match (miss, self.named.take()) {
            (Miss::Unreached(cause), Some(named)) => {
                let miss = Miss::MasterUnreached(format!("{}: {cause}", named.master));
                self.refute(named.master, miss)
            }
            (miss, Some(named)) => self.refute(named.master, miss),
            (miss, None) => self.note(miss),
        }
    }

    /// All that can be asked, the one that answered last first; at most [`limits::REDIS_SEEDS_KNOWN_MAX`].
    pub fn known(&self) -> &[Node] {
        &self.known
    }

    /// One at most for each that is known.
    fn refute(&mut self, master: Node, miss: Miss) -> Step {
        self.refuted.push(master);
        self.note(miss)
    }

    fn note(&mut self, miss: Miss) -> Step {
        self.miss = self.miss.take().max(Some(miss));
        self.next()
    }

    fn next(&mut self) -> Step {
        let question = match &self.kind {
            Kind::Single(node) => return Step::Found(Where::Master(node.clone())),
            Kind::Sentinel { name } => Question::Master { name: name.clone() },
            Kind::Cluster => Question::Slots,
        };
        match self.known.get(self.asked) {
            Some(node) => {
                self.asked += 1;
                Step::Ask { node: node.clone(), question }
            }
            None => Step::Missed(self.miss.take().unwrap_or(Miss::NotKnown)),
        }
    }

    /// The one that answered, then the configured, then those it told of; who is told of no more is forgotten.
    fn learn(&mut self, answered: &Node, told: Vec<Node>) {
        let mut known = vec![answered.clone()];
        for node in self.configured.iter().chain(&told) {
            if known.len() == limits::REDIS_SEEDS_KNOWN_MAX {
                break;
            }
            if !known.iter().any(|other| other.is(node)) {
                known.push(node.clone());
            }
        }
        self.known = known;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        let (host, port) = text.split_once(':').unwrap();
        Node::from_words(host, port).unwrap()
    }

    fn search(url: &str) -> Search {
        Search::new(&RedisAddress::parse(url).unwrap())
    }

    fn master(text: &str, sentinels: &[&str]) -> Answer {
        Answer::Master { node: node(text), sentinels: sentinels.iter().map(|text| node(text)).collect() }
    }

    /// In short, what is to be done.
    fn shown(step: Step) -> String {
        match step {
            Step::Ask { node, question: Question::Role } => format!("role {node}"),
            Step::Ask { node, question: Question::Master { name } } => format!("{name} {node}"),
            Step::Ask { node, question: Question::Slots } => format!("slots {node}"),
            Step::Found(place) => format!("{place:?}"),
            Step::Missed(miss) => format!("missed: {miss}"),
        }
    }

    fn unreached() -> Miss {
        Miss::Unreached("gone".to_owned())
    }

    const YES: Answer = Answer::Role { master: true };

    #[test]
    fn one_server_is_where_it_is() {
        let mut search = search("redis://h:7/2");
        assert_eq!(search.begin(), Step::Found(Where::Master(node("h:7"))));
        assert_eq!(search.known(), []);
    }

    #[test]
    fn a_master_is_believed_when_it_says_so_itself() {
        let mut search = search("redis+sentinel://a:1,b:2/m");
        assert_eq!(shown(search.begin()), "m a:1");
        assert_eq!(shown(search.heard(master("old:9", &[]))), "role old:9");
        assert_eq!(shown(search.heard(Answer::Role { master: false })), "m b:2");
        assert_eq!(shown(search.heard(master("new:9", &["c:3", "A:1"]))), "role new:9");
        assert_eq!(search.heard(YES), Step::Found(Where::Master(node("new:9"))));
        assert_eq!(search.known(), [node("b:2"), node("a:1"), node("c:3")], "the one that knew it comes first");
        assert_eq!(shown(search.begin()), "m b:2");
    }

    #[test]
    fn a_master_that_did_not_hold_is_not_asked_again_in_the_same_round() {
        let mut search = search("redis+sentinel://a:1,b:2,c:3/m");
        search.begin();
        assert_eq!(shown(search.heard(master("old:9", &[]))), "role old:9");
        assert_eq!(shown(search.missed(unreached())), "m b:2");
        assert_eq!(shown(search.heard(master("old:9", &[]))), "m c:3");
        assert_eq!(shown(search.heard(master("new:9", &[]))), "role new:9");
        assert!(shown(search.heard(Answer::Role { master: false })).contains("new:9, which is no master"));
        assert_eq!(shown(search.begin()), "m a:1");
        assert_eq!(shown(search.heard(master("old:9", &[]))), "role old:9", "the next round asks anew");
    }

    #[test]
    fn a_learned_sentinel_helps_and_is_forgotten_when_nobody_tells_of_it() {
        let mut search = search("redis+sentinel://a:1/m");
        search.begin();
        search.heard(master("r:9", &["b:2"]));
        search.heard(YES);
        assert_eq!(shown(search.begin()), "m a:1");
        assert_eq!(shown(search.missed(unreached())), "m b:2");
        search.heard(master("r:9", &[]));
        search.heard(YES);
        assert_eq!(search.known(), [node("b:2"), node("a:1")]);
        search.begin();
        assert_eq!(shown(search.missed(unreached())), "m a:1");
        search.heard(master("r:9", &[]));
        search.heard(YES);
        assert_eq!(search.known(), [node("a:1")]);
    }

    #[test]
    fn a_round_in_vain_says_what_tells_most() {
        /// Lets a search miss, and what is then said.
        type Row = (fn(&mut Search) -> Step, &'static str);
        let misses: [Row; 6] = [
            (|search| search.missed(unreached()), "no server of REDIS_URL answers: gone"),
            (|search| search.heard(Answer::NotKnown), "know no such master"),
            (
                |search| {
                    search.heard(master("r:9", &[]));
                    search.missed(unreached())
                },
                "not reached: r:9: gone",
            ),
            (
                |search| {
                    search.heard(master("q:9", &[]));
                    search.heard(Answer::Role { master: false })
                },
                "name q:9, which is no master",
            ),
            (|search| search.missed(Miss::Broken("x".to_owned())), "no answer that makes sense: x"),
            (|search| search.heard(Answer::Refused("NOAUTH".to_owned())), "NOAUTH"),
        ];
        // They stand in the order of what they tell.
        for (at, (less, _)) in misses.iter().enumerate() {
            for (more, text) in &misses[at + 1..] {
                for [first, second] in [[less, more], [more, less]] {
                    let mut search = search("redis+sentinel://a:1,b:2/m");
                    search.begin();
                    first(&mut search);
                    let step = shown(second(&mut search));
                    assert!(step.contains(text), "{step} says less than {text}");
                }
            }
        }
    }

    #[test]
    fn the_bound_holds_and_the_configured_stay() {
        let mut search = search("redis+sentinel://a:1,b:2/m");
        search.begin();
        let told: Vec<String> = (1..=200).map(|port| format!("t:{port}")).collect();
        search.heard(master("r:9", &told.iter().map(String::as_str).collect::<Vec<_>>()));
        search.heard(YES);
        assert_eq!(search.known().len(), limits::REDIS_SEEDS_KNOWN_MAX);
        assert_eq!(search.known()[..2], [node("a:1"), node("b:2")]);
    }

    #[test]
    fn an_answer_to_another_question_is_no_answer() {
        let mut search = search("redis-cluster://a:1");
        assert_eq!(shown(search.begin()), "slots a:1");
        assert!(shown(search.heard(YES)).contains("another question"));
    }
}
