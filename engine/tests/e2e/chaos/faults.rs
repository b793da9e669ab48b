//! The store dies or stands still, the server dies or stops; five hundred publishes a second go on.
use super::books::Class::{self, Acknowledged, Written};
use super::crowd::Habit;
use super::trial::{Cast, Trial, durable_redis, pass};
use crate::support::backend::Backend;
use std::ops::Range;
use std::time::{Duration, Instant};

const STEADY: Range<usize> = 0..12;
const FLAPPING: Range<usize> = 12..26;
const AWAY: Range<usize> = 26..36;

/// Time for things to go on before and after: users flap some ten times.
const A_WHILE: Duration = Duration::from_secs(3);

/// Twelve users who stay, fourteen who flap, ten who are away until the end. Some 240 publishes a second to the first, by
/// three connections, and 260 to the others, by one connection each: who waits for the store holds nobody else up.
fn cast() -> Cast {
    let habits = STEADY
        .map(|_| Habit::Stays)
        .chain(FLAPPING.map(|_| Habit::Flaps { ms_max: 500 }))
        .chain(AWAY.map(|_| Habit::Away))
        .collect();
    let to_steady = (0..3).map(|first| (STEADY.skip(first).step_by(3).collect(), Duration::from_micros(12_500)));
    let to_others = (FLAPPING.start..AWAY.end).map(|user| (vec![user], Duration::from_millis(92)));
    Cast { habits, publishers: to_steady.chain(to_others).collect(), crowds: 2 }
}

fn pause() {
    pass(A_WHILE);
}

/// The store is away for a while, in this way.
fn store_fault(backend: Backend, class: Class, fault: impl FnOnce(&mut Trial) -> Range<Instant>) {
    let mut while_away = None;
    let remains = Trial::begin(backend, class).run(&cast(), |trial| {
        pause();
        while_away = Some(fault(trial));
        pause();
    });
    if class == Written {
        // Nobody who is there needs the store. In the third class everything does.
        remains.live_went_on(STEADY, &while_away.expect("it happened"));
    }
}

fn store_is_killed(backend: Backend, class: Class) {
    store_fault(backend, class, |trial| trial.kill_store(Duration::from_secs(2)));
}

fn store_is_held(backend: Backend, class: Class) {
    store_fault(backend, class, |trial| trial.hold_store(Duration::from_secs(10)));
}

fn server_is_killed(backend: Backend, class: Class) {
    Trial::begin(backend, class).run(&cast(), |trial| {
        for _ in 0..2 {
            pause();
            trial.service.kill();
            trial.deaths.push(Instant::now());
            trial.service.restart();
        }
        pause();
    });
}

fn server_is_stopped(backend: Backend, class: Class) {
    Trial::begin(backend, class).run(&cast(), |trial| {
        for _ in 0..2 {
            pause();
            let begun = Instant::now();
            let status = trial.service.stop();
            assert_eq!(status.code(), Some(0), "an orderly end");
            // Contract §16.3: the bound after which an orchestrator kills.
            assert!(begun.elapsed() < Duration::from_secs(10), "the stop took {:?}", begun.elapsed());
            trial.service.restart();
        }
        pause();
    });
}

/// One test per fault, store and class.
macro_rules! faults {
    ($($name:ident: $fault:ident, $backend:expr, $class:expr;)*) => {$(
        #[test]
        fn $name() {
            $fault($backend, $class);
        }
    )*};
}

faults! {
    redis_is_killed_written: store_is_killed, durable_redis(), Written;
    redis_is_killed_acknowledged: store_is_killed, durable_redis(), Acknowledged;
    redis_is_held_written: store_is_held, durable_redis(), Written;
    redis_is_held_acknowledged: store_is_held, durable_redis(), Acknowledged;
    postgres_is_killed_written: store_is_killed, Backend::postgres(), Written;
    postgres_is_killed_acknowledged: store_is_killed, Backend::postgres(), Acknowledged;
    postgres_is_held_written: store_is_held, Backend::postgres(), Written;
    postgres_is_held_acknowledged: store_is_held, Backend::postgres(), Acknowledged;
    server_is_killed_redis_written: server_is_killed, durable_redis(), Written;
    server_is_killed_redis_acknowledged: server_is_killed, durable_redis(), Acknowledged;
    server_is_killed_postgres_written: server_is_killed, Backend::postgres(), Written;
    server_is_killed_postgres_acknowledged: server_is_killed, Backend::postgres(), Acknowledged;
    server_is_stopped_redis_written: server_is_stopped, durable_redis(), Written;
    server_is_stopped_redis_acknowledged: server_is_stopped, durable_redis(), Acknowledged;
    server_is_stopped_postgres_written: server_is_stopped, Backend::postgres(), Written;
    server_is_stopped_postgres_acknowledged: server_is_stopped, Backend::postgres(), Acknowledged;
}

/// Without any fault but the users' own: what is found here is not the store's doing.
#[test]
fn users_flap_with_memory_written() {
    Trial::begin(Backend::Memory, Written).run(&cast(), |_| pause());
}

#[test]
fn users_flap_with_memory_acknowledged() {
    Trial::begin(Backend::Memory, Acknowledged).run(&cast(), |_| pause());
}
