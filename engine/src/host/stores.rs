//! The stores behind links as the pages tell of them: sums and the worst over the shards, read from any thread.
use crate::config::settings::Backend;
use std::sync::Arc;
use storage::breaker::BreakerState;
use storage::figures::StoreFigures;
use storage::link::state::LinkState;

/// How a store is, the better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreState {
    /// Every shard reaches it, and it does what it is asked.
    Healthy,
    /// It is there and refuses to work: read-only, out of memory, no permission.
    Refusing,
    /// A shard has no link.
    Reconnecting,
    /// A shard has no link and does not try: its circuit is open.
    CircuitOpen,
}

impl StoreState {
    /// Whether promises can be kept.
    pub fn is_well(self) -> bool {
        self == StoreState::Healthy
    }

    /// The word of `/health`.
    pub fn as_str(self) -> &'static str {
        match self {
            StoreState::Healthy => LinkState::Healthy.as_str(),
            StoreState::Refusing => "refusing",
            StoreState::Reconnecting => LinkState::Reconnecting.as_str(),
            StoreState::CircuitOpen => LinkState::CircuitOpen.as_str(),
        }
    }
}

/// One store behind links.
#[derive(Debug)]
pub struct StoreView {
    backend: Backend,
    /// Of each shard.
    links: usize,
    /// By shard.
    figures: Vec<Arc<StoreFigures>>,
}

impl StoreView {
    /// A store that every shard reaches over so many links, with the figures that the shards write.
    pub fn new(backend: Backend, links: usize, figures: Vec<Arc<StoreFigures>>) -> StoreView {
        StoreView { backend, links, figures }
    }

    /// Which it is.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Links of the node, up or not.
    pub fn links(&self) -> usize {
        self.links * self.figures.len()
    }

    /// By shard.
    pub fn figures(&self) -> impl Iterator<Item = &StoreFigures> {
        self.figures.iter().map(Arc::as_ref)
    }

    /// Of all shards. Totals of the backend itself stand at one shard, so that the sum is right for them, too.
    pub fn sum(&self, of: impl Fn(&StoreFigures) -> u64) -> u64 {
        self.figures().map(of).sum()
    }

    /// The worst of the shards'.
    pub fn state(&self) -> StoreState {
        let state = |figures: &StoreFigures| match figures.link() {
            LinkState::Healthy if figures.is_well() => StoreState::Healthy,
            LinkState::Healthy => StoreState::Refusing,
            LinkState::Reconnecting => StoreState::Reconnecting,
            LinkState::CircuitOpen => StoreState::CircuitOpen,
        };
        self.figures().map(state).max().unwrap_or(StoreState::Reconnecting)
    }

    /// The worst of the shards': the one that lets the least pass.
    pub fn breaker(&self) -> BreakerState {
        let passes = |state: &BreakerState| match state {
            BreakerState::Closed => 2,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 0,
        };
        self.figures().map(StoreFigures::breaker).min_by_key(passes).unwrap_or(BreakerState::Closed)
    }

    /// Links that have nothing to do, as far as it shows: those of shards that have one, less the requests under way.
    pub fn links_idle(&self) -> usize {
        let idle = |figures: &StoreFigures| match figures.link() {
            LinkState::Healthy => self.links.saturating_sub(figures.outstanding.get() as usize),
            LinkState::Reconnecting | LinkState::CircuitOpen => 0,
        };
        self.figures().map(idle).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_shard_speaks_for_all() {
        let figures: Vec<_> = (0..2).map(|_| Arc::new(StoreFigures::new("redis"))).collect();
        let view = StoreView::new(Backend::Redis, 3, figures.clone());
        assert_eq!((view.state(), view.links(), view.links_idle()), (StoreState::Reconnecting, 6, 0));
        figures[0].set_link(LinkState::Healthy, BreakerState::Closed);
        figures[0].outstanding.set(1);
        assert_eq!((view.state(), view.links_idle()), (StoreState::Reconnecting, 2));
        figures[1].set_link(LinkState::CircuitOpen, BreakerState::Open);
        assert_eq!((view.state(), view.breaker()), (StoreState::CircuitOpen, BreakerState::Open));
        figures[1].set_link(LinkState::Healthy, BreakerState::HalfOpen);
        assert_eq!((view.state(), view.breaker()), (StoreState::Healthy, BreakerState::HalfOpen));
        figures[0].set_refused(true);
        assert_eq!(view.state(), StoreState::Refusing);
    }
}
