//! What became of a command, and whose doing it was if nothing did.
use crate::redis::commands::reply::Reply;
use std::fmt;

/// What became of a command: said once for each that was taken.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// It was executed; this is what it answered.
    Done(Reply<'a>),
    /// The server is not able, or does not want, to execute it now; nothing was changed. Later it may be.
    Refused(Refusal),
    /// The server says that the command itself is wrong, or that what is stored under its key is. It would fail again.
    Failed(Failure),
    /// The link ended, or the time was over, before the answer came: it may have been executed, or may still be.
    Unknown,
    /// It never left, or not wholly: it was not executed and will not be.
    NotSent,
}

/// Why a server that is there does not execute commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first word of what it said.
    pub code: RefusalCode,
    /// Its words, printable, without our password.
    pub text: String,
}

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The server's words, printable, without our password and without the arguments of the command.
    pub text: String,
}

/// The refusals that tell of the server's state and not of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// A password is wanted.
    NoAuth,
    /// The password is wrong.
    WrongPass,
    /// The user may not do this.
    NoPerm,
    /// The server reads its data set.
    Loading,
    /// It is a replica: the master is another now.
    ReadOnly,
    /// Its memory is full.
    OutOfMemory,
    /// It is a replica that has lost its master.
    MasterDown,
    /// A script of somebody runs and runs.
    Busy,
    /// The cluster has lost slots.
    ClusterDown,
    /// The slot moves, or is elsewhere. A link that knows of the cluster follows and does not tell.
    Moved,
    /// It cannot write its data to disk and takes no more.
    Misconfigured,
    /// Not enough replicas are there.
    NoReplicas,
    /// It does not keep the script, though it was just loaded.
    NoScript,
    /// It has as many connections as it may.
    TooManyClients,
}

impl RefusalCode {
    /// Every code with the word the server uses.
    const WORDS: [(&'static str, RefusalCode); 17] = [
        ("NOAUTH", RefusalCode::NoAuth),
        ("WRONGPASS", RefusalCode::WrongPass),
        ("NOPERM", RefusalCode::NoPerm),
        ("LOADING", RefusalCode::Loading),
        ("READONLY", RefusalCode::ReadOnly),
        ("OOM", RefusalCode::OutOfMemory),
        ("MASTERDOWN", RefusalCode::MasterDown),
        ("BUSY", RefusalCode::Busy),
        ("CLUSTERDOWN", RefusalCode::ClusterDown),
        ("MOVED", RefusalCode::Moved),
        ("ASK", RefusalCode::Moved),
        ("TRYAGAIN", RefusalCode::Moved),
        ("MISCONF", RefusalCode::Misconfigured),
        ("NOREPLICAS", RefusalCode::NoReplicas),
        ("NOSCRIPT", RefusalCode::NoScript),
        ("DENIED", RefusalCode::NoPerm),
        ("UNKILLABLE", RefusalCode::Busy),
    ];

    /// The code of an error that the server gave, or `None` if the command is at fault.
    ///
    /// Up to Redis 6.2 an error inside of a script comes wrapped: `ERR Error running script (call to f_…):
    /// @user_script:7: -OOM command not allowed …`.
    pub(crate) fn of(error: &[u8]) -> Option<RefusalCode> {
        let text = String::from_utf8_lossy(error);
        let known = |word: &str| {
            let mut words = RefusalCode::WORDS.iter();
            words.find(|(known, _)| *known == word).map(|(_, code)| *code)
        };
        if let Some(code) = text.split(' ').next().and_then(known) {
            return Some(code);
        }
        if text.starts_with("ERR max number of clients") {
            return Some(RefusalCode::TooManyClients);
        }
        // What a script calls is asked of the user's rights, too, and told without their word.
        if text.starts_with("ERR The user executing the script can't") {
            return Some(RefusalCode::NoPerm);
        }
        let script = text.strip_prefix("ERR Error running script")?;
        script.split(' ').find_map(|word| known(word.strip_prefix('-').unwrap_or(word)))
    }
}

impl Refusal {
    /// Whether an error says that the server does not have the command's slot, or not all of it: then it was not executed.
    /// What a script meets on its way is no such error, for it may have written before.
    pub(crate) fn is_of_slot(error: &[u8]) -> bool {
        let words: [&[u8]; 3] = [b"MOVED ", b"ASK ", b"TRYAGAIN "];
        words.iter().any(|word| error.starts_with(word)) && !error.windows(9).any(|text| text == b" script: ")
    }
}

impl Failure {
    /// Keeps what may be shown: where the server repeats arguments, they may be somebody's message (C-17).
    pub(crate) fn of(printable: String) -> Failure {
        let text = match printable.split_once(", with args beginning with:") {
            Some((before, _)) => before.to_owned(),
            None => printable,
        };
        Failure { text }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_state_is_told_from_a_commands_fault() {
        use RefusalCode::*;
        let rows = [
            ("NOAUTH Authentication required.", Some(NoAuth)),
            ("WRONGPASS invalid username-password pair", Some(WrongPass)),
            ("NOPERM this user has no permissions to run the 'evalsha' command", Some(NoPerm)),
            ("LOADING Redis is loading the dataset in memory", Some(Loading)),
            ("READONLY You can't write against a read only replica.", Some(ReadOnly)),
            ("OOM command not allowed when used memory > 'maxmemory'.", Some(OutOfMemory)),
            ("OOM", Some(OutOfMemory)),
            ("MASTERDOWN Link with MASTER is down", Some(MasterDown)),
            ("BUSY Redis is busy running a script.", Some(Busy)),
            ("CLUSTERDOWN The cluster is down", Some(ClusterDown)),
            ("MOVED 3999 127.0.0.1:6381", Some(Moved)),
            ("MISCONF Redis is configured to save RDB snapshots", Some(Misconfigured)),
            ("NOREPLICAS Not enough good replicas to write.", Some(NoReplicas)),
            ("ERR max number of clients reached", Some(TooManyClients)),
            ("ERR The user executing the script can't run this command or subcommand script: 1", Some(NoPerm)),
            (
                "ERR Error running script (call to f_0a): @user_script:3: @user_script: 3: -OOM command not allowed",
                Some(OutOfMemory),
            ),
            (
                "ERR Error running script (call to f_0a): @user_script:3: @user_script: 3: -READONLY You can't",
                Some(ReadOnly),
            ),
            ("ERR Error running script (call to f_0a): @user_script:3: WRONGTYPE Operation against a key", None),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
            ("ERR unknown command 'OOM'", None),
            ("OOMPH", None),
            ("", None),
        ];
        for (text, code) in rows {
            assert_eq!(RefusalCode::of(text.as_bytes()), code, "{text}");
        }
    }

    #[test]
    fn a_server_that_does_not_have_the_slot_is_told_from_a_script_that_met_it() {
        let rows: [(&str, bool); 7] = [
            ("MOVED 3999 127.0.0.1:6381", true),
            ("ASK 3999 127.0.0.1:6381", true),
            ("TRYAGAIN Multiple keys request during rehashing of slot", true),
            ("CLUSTERDOWN The cluster is down", false),
            ("MOVED 3999 127.0.0.1:6381 script: 0a, on @user_script:3.", false),
            ("ERR Error running script (call to f_0a): @user_script:3: -MOVED 1 a:1", false),
            ("READONLY You can't write against a read only replica.", false),
        ];
        for (text, expected) in rows {
            assert_eq!(Refusal::is_of_slot(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn arguments_are_not_repeated() {
        let said = "ERR unknown command 'FOO', with args beginning with: 'private' ".to_owned();
        assert_eq!(Failure::of(said).text, "ERR unknown command 'FOO'");
    }
}
