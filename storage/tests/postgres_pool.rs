//! A pool against a real server: several commands at once, those of one user one after the other.
mod common;

use common::postgres::{PostgresServer, in_words, link_config, wait_for};
use protocol::clock::Now;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;
use storage::link::wants::Wants;
use storage::postgres::command::{Command, Statement};
use storage::postgres::pool::Pool;
use storage::postgres::reply::Ticket;

const LONG_MS: u32 = 600_000;
const APPEND: Statement = Statement {
    name: "append",
    sql: "WITH slept AS (SELECT pg_sleep($3::int4 / 1000.0)) INSERT INTO log (who, what) SELECT $1, $2 FROM slept",
};
/// Waits for a lock that only [`UNLOCK`] gives free: done only if both are under way at once.
const LOCKED: Statement = Statement { name: "locked", sql: "SELECT pg_advisory_xact_lock(7)::text" };

struct PoolDriver {
    pool: Pool,
    wants: Vec<Wants>,
    heard: Vec<(u64, String)>,
    bell: UnixStream,
    started: Instant,
}

impl PoolDriver {
    fn new(server: &PostgresServer, size: usize) -> PoolDriver {
        let (bell, ringer) = UnixStream::pair().unwrap();
        bell.set_nonblocking(true).unwrap();
        let wake = Arc::new(move || (&ringer).write_all(b"!").unwrap());
        let pool = Pool::new(Arc::new(link_config(&server.url())), size, 7, wake);
        let wants = vec![Wants { again: true, ..Wants::default() }; size];
        PoolDriver { pool, wants, heard: Vec::new(), bell, started: Instant::now() }
    }

    fn submit(&mut self, number: u64, order: Option<u64>, command: Command) -> usize {
        let link = self.pool.submit(Ticket { number, order }, command).unwrap();
        self.wants[link].again = true;
        link
    }

    fn step(&mut self) {
        let now = Now { mono_us: self.started.elapsed().as_micros() as u64, unix_ns: 0 };
        let links: Vec<_> = (0..self.pool.size()).map(|link| (self.pool.socket(link), self.wants[link])).collect();
        let ready = wait_for(&self.bell, &links, now.mono_us);
        let heard = &mut self.heard;
        for (link, (readable, writable)) in ready.into_iter().enumerate() {
            self.wants[link] = self.pool.turn(link, now, readable, writable, &mut |ticket, reply| {
                heard.push((ticket.number, in_words(&reply)));
            });
        }
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&PoolDriver) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < common::PATIENCE, "waited in vain until {what}: {:?}", self.heard.last());
            self.step();
        }
    }

    fn until_healthy(&mut self) {
        self.until("all links are up", |d| d.pool.statuses().iter().all(|status| status.snapshot().connections > 0));
    }
}

#[test]
fn the_commands_of_a_user_are_done_in_order_and_those_of_others_meanwhile() {
    let server = PostgresServer::start();
    server.psql("CREATE TABLE log (id bigserial, who text, what text)");
    let mut driver = PoolDriver::new(&server, 4);
    driver.until_healthy();
    for what in 0..50 {
        for who in 0..8_u64 {
            // The earlier ones take longer: over several links they would be overtaken.
            let slow_ms = if what < 5 { 10 - what * 2 } else { 0 };
            let command = Command::new(&APPEND, LONG_MS).text(&who.to_string()).text(&what.to_string()).int4(slow_ms);
            driver.submit(who * 100 + what as u64, Some(who), command);
        }
    }
    driver.until("all are done", |d| d.heard.len() == 400);
    assert!(driver.heard.iter().all(|(_, words)| words == "done 1"));
    for who in 0..8_u64 {
        let order = server.psql(&format!("SELECT string_agg(what, ',' ORDER BY id) FROM log WHERE who = '{who}'"));
        assert_eq!(order, (0..50).map(|what| what.to_string()).collect::<Vec<_>>().join(","), "user {who}");
        let heard: Vec<_> = driver.heard.iter().map(|(number, _)| *number).filter(|n| n / 100 == who).collect();
        assert_eq!(heard, (who * 100..who * 100 + 50).collect::<Vec<_>>());
    }
    let links: Vec<_> = driver.pool.statuses().iter().map(|status| status.snapshot().done).collect();
    assert_eq!(links, [100; 4], "two users on each");
}

#[test]
fn a_command_that_waits_holds_up_its_own_link_only() {
    let server = PostgresServer::start();
    let mut driver = PoolDriver::new(&server, 2);
    driver.until_healthy();
    const TAKE: &str = "SELECT pg_advisory_lock(7)";
    const GIVE: &str = "SELECT pg_advisory_unlock(7)";
    let holder = driver.submit(1, Some(1), Command::script(TAKE, LONG_MS));
    driver.until("the lock is taken", |d| d.heard.len() == 2);
    // The holder's link is busy with its own order, so the one that waits for it goes over the other link.
    let held = driver.submit(2, Some(1), Command::script("SELECT pg_sleep(0.1)", LONG_MS));
    let waiting = driver.submit(3, Some(2), Command::new(&LOCKED, LONG_MS));
    assert_eq!((held, waiting), (holder, 1 - holder));
    driver.submit(4, Some(1), Command::script(GIVE, LONG_MS));
    driver.until("all are done", |d| d.heard.iter().filter(|(_, words)| words.starts_with("done")).count() == 4);
    // The fourth is what the third waits for: behind it on one link it would have waited for ever. Which link is heard first when
    // both have answers says nothing.
    let ends = driver.heard.iter().filter(|(n, words)| *n != 3 && words.starts_with("done"));
    assert_eq!(ends.map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 4]);
}

#[test]
fn a_pool_comes_back_as_a_whole() {
    let mut server = PostgresServer::start();
    let mut driver = PoolDriver::new(&server, 3);
    driver.until_healthy();
    server.kill();
    driver.until("all links noticed", |d| d.pool.statuses().iter().all(|status| status.snapshot().ends > 0));
    server.restart();
    driver
        .until("all links are up again", |d| d.pool.statuses().iter().all(|status| status.snapshot().connections > 1));
    for number in 0..9 {
        driver.submit(number, None, Command::script("SELECT 1", LONG_MS));
    }
    driver.until("all are done", |d| d.heard.len() == 18);
    assert!(driver.pool.statuses().iter().all(|status| status.snapshot().done == 3), "shared evenly");
    driver.pool.stop(&mut |_, _| panic!("nothing was left"));
}
