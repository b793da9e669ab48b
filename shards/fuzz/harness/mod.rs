//! Two worlds: one shard with two connections, and a node of two with a store (`events`). Of the first:
//! one shard with two connections: a peer that sends anything, and one beside it that behaves and must not notice.
//!
//! The sockets are imaginary, the clock is virtual. What happens when is drawn from the first two bytes of the input,
//! the rest is what the peer sends; so a seed of the corpus is a stream that one can read behind two digits.
mod events;
mod output;
mod world;

pub use events::{Happened, shard_events};
pub use output::Heard;
pub use world::token;

use world::World;

/// Runs one input from the accepted socket to the empty shard and tells what the peer heard; panics when something does
/// not hold.
pub fn connection_bytes(input: &[u8]) -> Heard {
    let (schedule, stream) = input.split_at(input.len().min(2));
    let schedule = schedule.iter().fold(0_u64, |seed, byte| seed << 8 | u64::from(*byte));
    let mut world = World::new(schedule);
    world.feed(stream);
    let heard = world.come_to_rest();
    world.check_neighbour();
    world.empty();
    heard
}
