//! Revoked tokens in Redis, for nodes that start later or were cut off; those that listen are told by their topic.
//!
//! | key | type | what | expires after |
//! |---|---|---|---|
//! | `{prefix}:revoked` | sorted set | what is revoked ([`Revocation::write_member`]), by the time it is kept until, Unix seconds | [`limits::REVOCATION_SECONDS_MAX`] from the last write |
//!
//! One set and not a key for each: a node that starts reads it in pages, and not the whole of a Redis that others use, too.
//! The prefix is that of sessions, and so is what holds for a Redis Cluster.
use crate::redis::commands::reply::Reply;
use crate::redis::commands::status::Operation;
use crate::redis::commands::{Command, Words};
use crate::redis::mailbox::page::{UnexpectedReply, read_items};
use protocol::auth::revocation::Revocation;
use protocol::limits;

/// The commands about one cluster's revocations.
#[derive(Clone, Debug)]
pub struct Revocations {
    key: Vec<u8>,
}

/// A page of what is kept.
#[derive(Debug, Default)]
pub struct Page {
    /// Where to go on; `0` when that was all.
    pub cursor: u64,
    /// What stood on it.
    pub revocations: Vec<Revocation>,
    /// Members that nobody of us wrote.
    pub unreadable: u64,
}

impl Revocations {
    /// Under `CLUSTER_SESSION_PREFIX`.
    pub fn new(prefix: &str) -> Revocations {
        Revocations { key: format!("{prefix}:revoked").into_bytes() }
    }

    /// Keeps some, at most [`limits::REVOCATION_PAGE`]. One that is kept already is kept for the longer of the two times.
    pub fn keep<'a, R>(
        &self,
        revocations: impl Iterator<Item = &'a Revocation>,
        submit: impl FnOnce(Command<'_>) -> R,
    ) -> R {
        let (mut members, mut scores) = (Vec::new(), Vec::new());
        for revocation in revocations {
            let mut member = Vec::with_capacity(64);
            revocation.write_member(&mut member);
            members.push(member);
            scores.push(revocation.until_unix_s.to_string());
        }
        let mut words: Vec<&[u8]> = vec![b"ZADD", &self.key, b"GT"];
        for (score, member) in scores.iter().zip(&members) {
            words.extend([score.as_bytes(), member]);
        }
        plain(&words, submit)
    }

    /// No longer keeps one, for another says more.
    pub fn drop<R>(&self, revocation: &Revocation, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let mut member = Vec::with_capacity(64);
        revocation.write_member(&mut member);
        plain(&[b"ZREM", &self.key, &member], submit)
    }

    /// Forgets those whose time is over.
    pub fn sweep<R>(&self, now_unix_s: u64, submit: impl FnOnce(Command<'_>) -> R) -> R {
        plain(&[b"ZREMRANGEBYSCORE", &self.key, b"-inf", now_unix_s.to_string().as_bytes()], submit)
    }

    /// Lets the set outlive the last of what can stand in it.
    pub fn outlive<R>(&self, submit: impl FnOnce(Command<'_>) -> R) -> R {
        plain(&[b"EXPIRE", &self.key, limits::REVOCATION_SECONDS_MAX.to_string().as_bytes()], submit)
    }

    /// Asks for a page from a cursor on, `0` for the first; answered with [`Page`].
    pub fn page<R>(&self, cursor: u64, submit: impl FnOnce(Command<'_>) -> R) -> R {
        let (cursor, count) = (cursor.to_string(), limits::REVOCATION_PAGE.to_string());
        plain(&[b"ZSCAN", &self.key, cursor.as_bytes(), b"COUNT", count.as_bytes()], submit)
    }
}

impl Page {
    /// Reads the answer to [`Revocations::page`].
    ///
    /// # Errors
    /// [`UnexpectedReply`].
    pub fn read(reply: Reply<'_>) -> Result<Page, UnexpectedReply> {
        read_items(reply, |items| {
            let cursor = items.next()?.text()?.parse().ok()?;
            let mut page = Page { cursor, ..Page::default() };
            let mut rows = items.next()?.items()?;
            while let Some(member) = rows.next() {
                let score: f64 = rows.next()?.text()?.parse().ok()?;
                match Revocation::parse_member(member.bytes()?, score as u64) {
                    Some(revocation) => page.revocations.push(revocation),
                    None => page.unreadable += 1,
                }
            }
            Some(page)
        })
    }
}

fn plain<R>(words: &[&[u8]], submit: impl FnOnce(Command<'_>) -> R) -> R {
    submit(Command { operation: Operation::ClusterSession, words: Words::Plain(words) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::auth::revocation::Revoked;
    use protocol::ids::TenantId;

    fn said(command: Command<'_>) -> String {
        let Words::Plain(words) = command.words else { panic!("a plain command") };
        words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn commands_have_their_words() {
        let revocations = Revocations::new("ara:cluster:sessions");
        let token = Revocation {
            tenant: TenantId::default_tenant(),
            revoked: Revoked::Token { id: "t".into() },
            until_unix_s: 9,
        };
        let revoked = Revoked::User { user: "ana".into(), before_unix_s: 7 };
        let user = Revocation { revoked, until_unix_s: 10, ..token.clone() };
        assert_eq!(
            revocations.keep([&token, &user].into_iter(), said),
            concat!(
                r#"ZADD ara:cluster:sessions:revoked GT 9 {"tenant_id":"default","jti":"t"}"#,
                r#" 10 {"tenant_id":"default","user_id":"ana","before":7}"#
            )
        );
        assert_eq!(
            revocations.drop(&token, said),
            r#"ZREM ara:cluster:sessions:revoked {"tenant_id":"default","jti":"t"}"#
        );
        assert_eq!(revocations.sweep(5, said), "ZREMRANGEBYSCORE ara:cluster:sessions:revoked -inf 5");
        assert_eq!(revocations.outlive(said), "EXPIRE ara:cluster:sessions:revoked 2592000");
        assert_eq!(revocations.page(3, said), "ZSCAN ara:cluster:sessions:revoked 3 COUNT 256");
    }
}
