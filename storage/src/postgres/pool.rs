//! A few links to one server: several commands are done at once, and those of one user one after the other.
use crate::link::wants::Wants;
use crate::postgres::command::Command;
use crate::postgres::link::{Link, LinkConfig};
use crate::postgres::reply::{Full, Reply, Ticket};
use crate::postgres::status::LinkStatus;
use protocol::clock::Now;
use rustix::fd::BorrowedFd;
use std::sync::Arc;

/// Links of one pool: a server's connections are few, and each shard has a pool.
pub const POOL_LINKS_MAX: usize = 64;

/// Links to one server, on one thread.
///
/// A command goes to the link that has the fewest to answer, of those that are up. A command with a [`Ticket::order`]
/// always goes over the link that its order says, whatever that link has to do and whether it is up, so that those of
/// one order stay in order. Across the end of that link, too: with [`LinkConfig::fences`] it takes no command before the
/// server has ended what the lost connection was doing.
pub struct Pool {
    links: Vec<Link>,
    statuses: Vec<Arc<LinkStatus>>,
}

impl Pool {
    /// A pool of `size` links, at least one and at most [`POOL_LINKS_MAX`], that begin to connect at their first turns.
    /// `wake` is called on a name lookup's thread and must make the owner turn all links soon.
    pub fn new(config: Arc<LinkConfig>, size: usize, seed: u64, wake: Arc<dyn Fn() + Send + Sync>) -> Pool {
        let size = size.clamp(1, POOL_LINKS_MAX);
        let statuses: Vec<_> = (0..size).map(|_| Arc::new(LinkStatus::new())).collect();
        let links = statuses.iter().zip(seed..).map(|(status, seed)| {
            // Different seeds: the links must not come back in step.
            Link::new(Arc::clone(&config), Arc::clone(status), seed, Arc::clone(&wake))
        });
        Pool { links: links.collect(), statuses }
    }

    /// Takes a command. Returns the link that is to be turned soon.
    ///
    /// # Errors
    /// [`Full`]: too many wait where it would have to go.
    pub fn submit(&mut self, ticket: Ticket, command: Command) -> Result<usize, Full> {
        let link = match ticket.order {
            // The remainder is below the number of links, which is at least one.
            Some(order) => (order % self.links.len() as u64) as usize,
            None => self.least_busy(),
        };
        self.links[link].submit(ticket, command)?;
        Ok(link)
    }

    /// Turns one link: see [`Link::turn`]. A link that is not there wants nothing.
    pub fn turn(
        &mut self,
        link: usize,
        now: Now,
        readable: bool,
        writable: bool,
        on_reply: &mut dyn FnMut(Ticket, Reply<'_>),
    ) -> Wants {
        match self.links.get_mut(link) {
            Some(link) => link.turn(now, readable, writable, on_reply),
            None => Wants::default(),
        }
    }

    /// Closes all links for good and answers what is not answered.
    pub fn stop(&mut self, on_reply: &mut dyn FnMut(Ticket, Reply<'_>)) {
        for link in &mut self.links {
            link.stop(on_reply);
        }
    }

    /// How many links there are; they are counted from 0.
    pub fn size(&self) -> usize {
        self.links.len()
    }

    /// The socket of a link's [`Wants::socket`].
    pub fn socket(&self, link: usize) -> Option<BorrowedFd<'_>> {
        self.links.get(link)?.socket()
    }

    /// How the links do, in their order; each may be read from any thread.
    pub fn statuses(&self) -> &[Arc<LinkStatus>] {
        &self.statuses
    }

    fn least_busy(&self) -> usize {
        let busy = |link: &Link| (!link.is_live(), link.outstanding());
        // There is at least one link.
        self.links.iter().enumerate().min_by_key(|(_, link)| busy(link)).map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::BackoffConfig;
    use crate::breaker::BreakerConfig;
    use crate::postgres::command::Statement;
    use crate::postgres::url::PostgresUrl;

    const STATEMENT: Statement = Statement { name: "s", sql: "SELECT 1" };

    fn pool(size: usize) -> Pool {
        let url = PostgresUrl::parse("postgres://127.0.0.1:1/x?sslmode=disable").unwrap();
        let config = LinkConfig::new(url, BreakerConfig::default(), BackoffConfig::default()).unwrap();
        Pool::new(Arc::new(config), size, 7, Arc::new(|| ()))
    }

    fn submit(pool: &mut Pool, number: u64, order: Option<u64>) -> usize {
        pool.submit(Ticket { number, order }, Command::new(&STATEMENT, 1)).unwrap()
    }

    #[test]
    fn the_least_busy_link_takes_it_and_an_order_has_its_link() {
        let mut pool = pool(3);
        let placed = [None, Some(1), Some(2), Some(1), Some(1), None, Some(3)].map(|order| submit(&mut pool, 0, order));
        assert_eq!(placed, [0, 1, 2, 1, 1, 0, 0]);
        let mut answered = 0;
        pool.stop(&mut |_, reply| {
            assert!(matches!(reply, Reply::NotSent(_)));
            answered += 1;
        });
        assert_eq!(answered, 7);
        assert_eq!(submit(&mut pool, 0, Some(u64::MAX)), 0, "the order says where, nothing else");
    }

    #[test]
    fn a_pool_has_a_link_at_least_and_not_too_many() {
        assert_eq!([0, 1, 7, 1_000].map(|size| pool(size).size()), [1, 1, 7, POOL_LINKS_MAX]);
        assert_eq!(pool(1).turn(5, Now::default(), true, true, &mut |_, _| ()), Wants::default());
    }
}
