//! The tables (contract §8.4, §9.4, C-9): one script from `storage/migrations`, which makes what is missing.
//!
//! It may run any number of times and from several nodes at once: they wait for one another by an advisory lock, and
//! all of it is one transaction. A role that may only read and write the tables runs it, too, once they are there.
use crate::postgres::command::{Command, Row};
use crate::postgres::reply::Reply;

/// Lines of changes that are kept; the script knows fewer.
const CHANGES_MAX: usize = 64;

/// All migrations, in order.
pub const SCRIPT: &str = concat!(
    include_str!("../../migrations/0000_begin.sql"),
    include_str!("../../migrations/0001_notification_queue.sql"),
    include_str!("../../migrations/0002_notification_acks.sql"),
    include_str!("../../migrations/0003_streams.sql"),
    include_str!("../../migrations/0004_store.sql"),
    include_str!("../../migrations/0005_claims.sql"),
    include_str!("../../migrations/0006_lingering.sql"),
    include_str!("../../migrations/9999_end.sql"),
);

/// The command that makes the tables. `timeout_ms` bounds it with the wait for other nodes, and for whoever else holds
/// the tables; given up, it may be submitted again.
pub fn command(timeout_ms: u32) -> Command {
    Command::script(SCRIPT, timeout_ms)
}

/// What the command changed, gathered from its replies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    lines: Vec<String>,
}

impl Changes {
    /// Takes a reply to [`command`]; when it is done, says in the log what was changed.
    pub fn hear(&mut self, reply: &Reply<'_>) {
        match reply {
            // Each statement of the script may bring one; the last of them counts.
            Reply::Row(row) => self.lines = lines(row),
            Reply::Done { .. } => {
                for change in &self.lines {
                    tracing::info!(change, "PostgreSQL schema changed");
                }
            }
            // A transaction: nothing was changed, or nobody knows.
            Reply::Again | Reply::Failed(_) | Reply::Unknown(_) | Reply::NotSent(_) => self.lines.clear(),
        }
    }

    /// A line for each; none if everything was there.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}

fn lines(row: &Row<'_>) -> Vec<String> {
    row.text(0).unwrap_or_default().lines().take(CHANGES_MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::reply::Cause;

    #[test]
    fn the_last_row_tells_the_changes_and_a_failure_tells_none() {
        let text = b"\0\0\0\x04a\nb\n";
        let mut changes = Changes::default();
        changes.hear(&Reply::Row(Row::new(1, b"\0\0\0\0").unwrap()));
        changes.hear(&Reply::Row(Row::new(1, text).unwrap()));
        changes.hear(&Reply::Done { rows: 1 });
        assert_eq!(changes.lines(), ["a", "b"]);
        changes.hear(&Reply::Unknown(Cause::Late));
        assert_eq!(changes.lines(), [""; 0]);
    }

    #[test]
    fn every_migration_is_in_the_script_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let all: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(all, SCRIPT);
        // The script is one transaction, which it must not end itself.
        for word in ["BEGIN;", "COMMIT", "ROLLBACK"] {
            assert!(!SCRIPT.contains(word), "{word}");
        }
    }
}
