//! A thousand users come and go at random for a minute and acknowledge what they read: nothing is lost.
use super::books::Class;
use super::crowd::Habit;
use super::trial::{Cast, Trial, durable_redis, pass};
use crate::support::backend::Backend;
use std::time::Duration;

const USERS: usize = 1_000;
const PUBLISHERS: usize = 10;
const LASTS: Duration = Duration::from_secs(60);

fn a_thousand_come_and_go(backend: Backend, lasts: Duration) {
    // Five hundred publishes a second; each user there or away for one to five seconds at a time.
    let publishers = (0..PUBLISHERS)
        .map(|first| ((first..USERS).step_by(PUBLISHERS).collect(), Duration::from_millis(20)))
        .collect();
    let cast = Cast { habits: vec![Habit::Flaps { ms_max: 5_000 }; USERS], publishers, crowds: 4 };
    Trial::begin(backend, Class::Acknowledged).run(&cast, |_| pass(lasts));
}

#[test]
fn a_thousand_come_and_go_with_memory() {
    a_thousand_come_and_go(Backend::Memory, LASTS / 4);
}

#[test]
fn a_thousand_come_and_go_with_redis() {
    a_thousand_come_and_go(durable_redis(), LASTS);
}

#[test]
fn a_thousand_come_and_go_with_postgres() {
    a_thousand_come_and_go(Backend::postgres(), LASTS);
}
