//! Mailboxes over a link to a real redis-server, for the tests of them.
#![allow(dead_code, reason = "each test binary uses its part")]

use crate::common::RedisServer;
use crate::redis_commands_driver::{CommandDriver, Submit, Told};
use protocol::clock::Now;
use protocol::cluster::wire::Claim;
use protocol::ids::{NotificationId, TenantId, uuid_v7};
use protocol::store::{Mail, Position};
use protocol::stream::StreamSeq;
use storage::redis::mailbox::page::{Enqueued, MailboxStats, Page, Removed};
use storage::redis::mailbox::{Mailboxes, Removal, SCRIPTS};

/// Mailboxes over a link, with time that only the test lets pass.
pub(crate) struct Post<'s> {
    pub(crate) server: &'s RedisServer,
    pub(crate) driver: CommandDriver,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) tenant: TenantId,
    pub(crate) now: Now,
    /// What the next notification says.
    pub(crate) number: u64,
    /// What lingers and is not older is read, too.
    pub(crate) lingering_ms: u64,
}

/// What a page gives: the number and the `seq` of each entry; 0 if it is not ours.
pub(crate) type Seen = Vec<(u64, u64)>;

impl<'s> Post<'s> {
    pub(crate) fn new(server: &'s RedisServer, entries_max: u32, ttl_seconds: u32) -> Post<'s> {
        let driver = CommandDriver::healthy(server, &SCRIPTS);
        let mailboxes = Mailboxes::new("ara:queue", entries_max, ttl_seconds);
        // A whole millisecond, so that mail ends at whole milliseconds, too.
        let now = Now { mono_us: 0, unix_ns: driver.now().unix_ms() * 1_000_000 };
        Post { server, driver, mailboxes, tenant: TenantId::default_tenant(), now, number: 1, lingering_ms: 0 }
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.now.unix_ns += ms * 1_000_000;
    }

    pub(crate) fn put(&mut self, user: &str) -> Enqueued {
        self.put_with(user, None)
    }

    pub(crate) fn put_with(&mut self, user: &str, ttl_seconds: Option<u64>) -> Enqueued {
        let mail = self.mail(ttl_seconds.unwrap_or(u64::MAX));
        self.put_all(user, &[mail])
    }

    /// The next notification, with a claim.
    pub(crate) fn claim(&mut self, user: &str, claim: Claim) -> Enqueued {
        let mail = [self.mail(u64::MAX)];
        let Post { driver, mailboxes, tenant, now, .. } = self;
        let submit = |submit: &mut Submit<'_>| {
            mailboxes.enqueue(tenant, user, &mail, Some(claim), *now, submit).expect("there is mail")
        };
        driver.ask(submit, |reply| Enqueued::read(reply).expect("its shape"))
    }

    pub(crate) fn put_all(&mut self, user: &str, mail: &[Mail]) -> Enqueued {
        let Post { driver, mailboxes, tenant, now, .. } = self;
        let submit =
            |submit: &mut Submit<'_>| mailboxes.enqueue(tenant, user, mail, None, *now, submit).expect("there is mail");
        driver.ask(submit, |reply| Enqueued::read(reply).expect("its shape"))
    }

    /// The next notification.
    pub(crate) fn mail(&mut self, ttl_seconds: u64) -> Mail {
        let number = self.number;
        self.number += 1;
        let ttl_seconds = ttl_seconds.min(self.mailboxes.ttl_seconds().into());
        Mail {
            id: NotificationId(uuid_v7(number, [0; 10])),
            event: event(number).into_bytes().into(),
            queued_at_unix_ns: self.now.unix_ns,
            expires_at_unix_ns: self.now.unix_ns + ttl_seconds * 1_000_000_000,
            attempts: 0,
            stream: StreamSeq { epoch: 7, seq: number },
        }
    }

    /// What is submitted for an enqueue, without waiting.
    pub(crate) fn submit_put(&mut self, user: &str) {
        let mail = self.mail(u64::MAX);
        let Post { driver, mailboxes, tenant, now, .. } = self;
        let submit = |command: storage::redis::commands::Command<'_>| driver.submit(command).expect("there is room");
        mailboxes.enqueue(tenant, user, &[mail], None, *now, submit).expect("there is mail");
    }

    pub(crate) fn page<T>(
        &mut self,
        user: &str,
        behind: Option<Position>,
        count: u32,
        read: impl FnOnce(Page) -> T,
    ) -> T {
        let Post { driver, mailboxes, tenant, now, lingering_ms, .. } = self;
        let ttl_seconds = mailboxes.ttl_seconds();
        driver.ask(
            |submit| mailboxes.read(tenant, user, behind, count, *lingering_ms, submit),
            |reply| read(Page::read(reply, *now, ttl_seconds).expect("its shape")),
        )
    }

    /// All entries, over as many pages as it takes.
    pub(crate) fn all(&mut self, user: &str) -> Seen {
        let (mut all, mut behind) = (Vec::new(), None);
        loop {
            behind = self.page(user, behind, 7, |page| {
                all.extend(page.entries.iter().map(|entry| (number(&entry.mail.event), entry.mail.stream.seq)));
                page.next
            });
            if behind.is_none() {
                return all;
            }
        }
    }

    pub(crate) fn remove(&mut self, user: &str, ids: &[Position], why: Removal) -> Removed {
        let Post { driver, mailboxes, tenant, .. } = self;
        driver.ask(
            |submit| mailboxes.remove(tenant, user, ids, why, submit).expect("there are ids"),
            |reply| Removed::read(reply).expect("its shape"),
        )
    }

    pub(crate) fn due(&mut self) -> Vec<String> {
        let Post { driver, mailboxes, now, .. } = self;
        driver.ask(
            |submit| mailboxes.due(*now, 100, submit),
            |reply| reply.items().expect("a list").map(|item| item.text().expect("a text").to_owned()).collect(),
        )
    }

    pub(crate) fn sweep(&mut self, scoped: &str) -> Removed {
        let Post { driver, mailboxes, now, .. } = self;
        driver.ask(
            |submit| mailboxes.sweep(scoped.as_bytes(), *now, submit),
            |reply| Removed::read(reply).expect("its shape"),
        )
    }

    pub(crate) fn stats(&mut self) -> MailboxStats {
        let Post { driver, mailboxes, .. } = self;
        driver.ask(|submit| mailboxes.stats(submit), |reply| MailboxStats::read(reply).expect("its shape"))
    }

    /// A plain command over a connection of its own.
    pub(crate) fn raw(&self, words: &[&str]) -> String {
        let mut other = CommandDriver::healthy(self.server, &[]);
        match other.command(words) {
            Told::Done(shown) => shown,
            told => panic!("{words:?}: {told:?}"),
        }
    }
}

pub(crate) fn event(number: u64) -> String {
    format!("{{\"payload\": {number}}}")
}

pub(crate) fn number(event: &[u8]) -> u64 {
    let event = std::str::from_utf8(event).unwrap();
    event.strip_prefix("{\"payload\": ").and_then(|rest| rest.strip_suffix('}')).unwrap().parse().unwrap()
}
