//! A crowd that listens by WebSocket and by SSE: whom a publish is for, and that everybody hears all that is theirs, once and
//! in the order of each line.
use super::sse::Sse;
use super::ws::Ws;
use serde_json::Value;
use std::collections::BTreeMap;
use std::thread::Scope;

/// Whom a publish is for. The indexes are of users or channels.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    User(usize),
    Users(Vec<usize>),
    Broadcast,
    Channel(usize),
    Channels(Vec<usize>),
}

/// A line has an order: what one publisher says to one user, to one channel, to everybody. Several channels at once are
/// a line of their own.
pub(crate) type Line = (usize, String);

/// What a listener hears or should hear: numbers per line.
pub(crate) type Heard = BTreeMap<Line, Vec<usize>>;

impl Target {
    /// Whether it is for a user who listens to these channels.
    pub(crate) fn reaches(&self, user: usize, channels: [usize; 2]) -> bool {
        match self {
            Target::User(one) => *one == user,
            Target::Users(several) => several.contains(&user),
            Target::Broadcast => true,
            Target::Channel(one) => channels.contains(one),
            Target::Channels(several) => several.iter().any(|channel| channels.contains(channel)),
        }
    }

    /// The line of its publisher that whoever hears it hears it on.
    pub(crate) fn line(&self) -> String {
        match self {
            Target::User(_) | Target::Users(_) => "user".to_owned(),
            Target::Broadcast => "broadcast".to_owned(),
            Target::Channel(channel) => format!("channel c{channel}"),
            Target::Channels(_) => "channels".to_owned(),
        }
    }
}

pub(crate) enum Listener {
    Ws(Box<Ws>),
    Stream(Box<Sse>),
}

impl Listener {
    /// What the next notification carries.
    pub(crate) fn payload(&mut self) -> Value {
        match self {
            Listener::Ws(ws) => ws.payload(),
            Listener::Stream(stream) => stream.notification()["payload"].take(),
        }
    }
}

/// What each user should hear of a plan: for each publisher, whom its publishes are for, in their order.
pub(crate) fn expected(
    users: usize,
    plan: &[Vec<Target>],
    reaches: impl Fn(&Target, usize) -> bool,
    line: impl Fn(usize, usize) -> Line,
) -> Vec<Heard> {
    let mut expected = vec![Heard::new(); users];
    for (publisher, targets) in plan.iter().enumerate() {
        for (n, target) in targets.iter().enumerate() {
            for (_, heard) in expected.iter_mut().enumerate().filter(|(user, _)| reaches(target, *user)) {
                heard.entry(line(publisher, n)).or_default().push(n);
            }
        }
    }
    expected
}

/// Has everybody hear what they should, while others publish. Four readers, one listener after the other: what waits
/// meanwhile is far below what an outbox holds. `hear` gives publisher and number of the next notification.
pub(crate) fn hear_all<'scope>(
    scope: &'scope Scope<'scope, '_>,
    listeners: &'scope mut [Listener],
    expected: &'scope [Heard],
    hear: fn(&mut Listener) -> (usize, usize),
    line: &'scope (impl Fn(usize, usize) -> Line + Sync),
    unordered: &'scope Line,
) {
    let quarter = listeners.len() / 4;
    for (part, (listeners, expected)) in listeners.chunks_mut(quarter).zip(expected.chunks(quarter)).enumerate() {
        scope.spawn(move || {
            for (index, (listener, expected)) in listeners.iter_mut().zip(expected).enumerate() {
                let mut heard = Heard::new();
                for _ in 0..expected.values().map(Vec::len).sum() {
                    let (publisher, n) = hear(listener);
                    heard.entry(line(publisher, n)).or_default().push(n);
                }
                if let Some(unordered) = heard.get_mut(unordered) {
                    unordered.sort_unstable();
                }
                assert_eq!(&heard, expected, "user {}", part * quarter + index);
            }
        });
    }
}
