//! One trial: a store, a server, publishers and users, something that happens to them, and the books in the end.
use super::books::{Account, Books, Class, Outcome};
use super::crowd::{Crowd, Habit};
use super::publisher::Publisher;
use super::stage::{Curtain, Stage};
use crate::support::backend::Backend;
use crate::support::process::await_that;
use crate::support::raise_file_limit;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::token;
use crate::support::ws::Ws;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A Redis whose answers can be relied on when it is killed: without an append-only file a restart begins with nothing,
/// and with a lazy one (`everysec`) a confirmed append may not have left the process's buffers. PostgreSQL does as much
/// by default.
pub(super) fn durable_redis() -> Backend {
    Backend::Redis(Redis::with(&["--appendonly", "yes", "--appendfsync", "always"], None))
}

/// Who takes part.
#[derive(Debug)]
pub(super) struct Cast {
    /// The habit of each user; the number is the place.
    pub(super) habits: Vec<Habit>,
    /// Which users share a publisher, and how long each waits between two publishes.
    pub(super) publishers: Vec<(Vec<usize>, Duration)>,
    /// Threads for the users.
    pub(super) crowds: usize,
}

/// What is going on while something happens to it.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) backend: Backend,
    pub(super) service: Service,
    pub(super) class: Class,
    pub(super) seed: u64,
    /// When the server was killed.
    pub(super) deaths: Vec<Instant>,
    /// Whether the store was away meanwhile.
    store_was_away: bool,
}

/// What a trial leaves behind.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) trial: Trial,
    pub(super) books: Books,
}

impl Trial {
    pub(super) fn begin(backend: Backend, class: Class) -> Trial {
        raise_file_limit();
        let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| token::now() ^ u64::from(std::process::id()) << 20);
        eprintln!("{} {class:?}: CHAOS_SEED={seed}", backend.name());
        let url = backend.url();
        let mut settings = vec![
            ("QUEUE_ENABLED", "true"),
            ("QUEUE_BACKEND", backend.name()),
            ("QUEUE_MAX_SIZE_PER_USER", "100000"),
            ("ACK_BACKEND", backend.name()),
            // What was read and not acknowledged comes again soon.
            ("ACK_TIMEOUT_SECONDS", "3"),
            // Silent connections stay open until the server notices; they take nobody's place.
            ("WEBSOCKET_MAX_CONNECTIONS_PER_USER", "0"),
            // A link comes back soon.
            ("REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS", "1"),
            ("REDIS_BACKOFF_INITIAL_DELAY_MS", "10"),
            ("REDIS_BACKOFF_MAX_DELAY_MS", "100"),
        ];
        if class == Class::Acknowledged {
            settings.push(("ACK_ENABLED", "true"));
        }
        match backend {
            Backend::Memory => {}
            Backend::Redis(_) => settings.push(("REDIS_URL", &url)),
            Backend::Postgres(_) => settings.push(("DATABASE_URL", &url)),
        }
        let service = Service::start(&settings);
        let trial = Trial { service, class, seed, deaths: Vec::new(), store_was_away: false, backend };
        await_that("the store to be at hand", || trial.is_whole().then_some(()));
        trial
    }

    /// Whether `/health` calls the store well. That it answers at all is asserted.
    pub(super) fn is_whole(&self) -> bool {
        let health = self.service.health();
        assert!(health["status"] == "healthy" || health["status"] == "degraded", "{health}");
        match self.backend {
            Backend::Memory => true,
            Backend::Redis(_) => health["status"] == "healthy" && health["redis"]["connected"] == true,
            Backend::Postgres(_) => health["postgres"]["connected"] == true,
        }
    }

    /// Has everybody do what they do; `happens` is the run, and when it returns everybody gathers, hears a last word,
    /// and the books are checked.
    pub(super) fn run(mut self, cast: &Cast, happens: impl FnOnce(&mut Trial)) -> Remains {
        let (class, seed) = (self.class, self.seed);
        let stage = Stage::new(self.service.port, class == Class::Acknowledged);
        let numbered: Vec<(usize, Habit)> = cast.habits.iter().copied().enumerate().collect();
        let steady = cast.habits.iter().filter(|habit| **habit == Habit::Stays).count();
        let everybody = numbered.len();
        let mut accounts: BTreeMap<usize, Account> = BTreeMap::new();
        std::thread::scope(|scope| {
            let stage = &stage;
            let _curtain = Curtain(stage);
            let users: Vec<_> = numbered
                .chunks(everybody.div_ceil(cast.crowds))
                .zip(seed..)
                .map(|(users, seed)| scope.spawn(move || Crowd::new(stage, users, seed).live()))
                .collect();
            await_that("those who stay to be there", || {
                (self.service.health()["connections"]["unique_users"].as_u64() >= Some(steady as u64)).then_some(())
            });
            let publishers: Vec<_> = cast
                .publishers
                .iter()
                .map(|(users, pace)| {
                    let publisher = Publisher::new(stage, users.iter().copied());
                    scope.spawn(move || publisher.publish(*pace, everybody))
                })
                .collect();
            happens(&mut self);
            let gathers = Instant::now();
            stage.gather();
            let published: Vec<_> = publishers.into_iter().map(|thread| thread.join()).collect();
            let last_words = gathers.elapsed();
            // Whatever happened to a publisher: the users go home.
            stage.await_last_words();
            for users in users {
                accounts.extend(users.join().expect("users do not fail"));
            }
            eprintln!("last words were accepted after {last_words:?}, heard after {:?}", gathers.elapsed());
            for (user, publishes) in published.into_iter().flat_map(|one| one.expect("publishers do not fail")) {
                accounts.get_mut(&user).expect("one of the users").publishes = publishes;
            }
        });
        let books = Books(accounts);
        eprintln!("{} {class:?}: {}", self.backend.name(), books.figures());
        books.check(class, &self.deaths, seed);
        // Nothing excuses this one: everybody was there and stayed.
        let deaf: Vec<_> =
            books.0.iter().filter(|(_, account)| !account.has_heard_the_last()).map(|(user, _)| user).collect();
        assert!(deaf.is_empty(), "seed {seed}: the last word came too late or never to users {deaf:?}");
        if class == Class::Acknowledged {
            self.nothing_is_left(&books);
        }
        Remains { trial: self, books }
    }

    /// Asserts that everything that was acknowledged is forgotten: who comes again hears only what is new. An
    /// acknowledgement that was given while the store was away may not have reached it; then its mail may come once more
    /// and says that it does.
    fn nothing_is_left(&self, books: &Books) {
        for (user, account) in books.0.iter().take(50) {
            let name = format!("u{user}");
            let mut ws = Ws::connect(self.service.port, &token::of(&name));
            let n = account.publishes.len();
            let body = format!(r#"{{"target_user_id":"{name}","event_type":"e","payload":{n}}}"#);
            let path = "/api/v1/notifications/send";
            let receipt = crate::support::http::call(self.service.port, "POST", path, &[], Some(body.as_bytes())).ok();
            assert_eq!(receipt["success"], true, "{receipt}");
            loop {
                let heard = ws.notification();
                if heard["payload"] == n {
                    break;
                }
                let is_repeated = heard["metadata"]["attempt"].as_u64() >= Some(2);
                let seed = self.seed;
                assert!(
                    is_repeated && self.store_was_away,
                    "seed {seed}: {name} had acknowledged everything and heard {heard}"
                );
            }
        }
    }

    /// Kills the store, leaves it dead for a while, and starts it on its data.
    pub(super) fn kill_store(&mut self, dead: Duration) -> Range<Instant> {
        let begun = Instant::now();
        self.store_was_away = true;
        match &mut self.backend {
            Backend::Memory => {}
            Backend::Redis(redis) => redis.kill(),
            Backend::Postgres(postgres) => postgres.kill(),
        }
        self.look_on(begun, dead);
        let fault = begun..Instant::now();
        self.backend.restart();
        fault
    }

    /// Holds the store for a while and lets it go on.
    pub(super) fn hold_store(&mut self, held: Duration) -> Range<Instant> {
        let begun = Instant::now();
        self.store_was_away = true;
        self.signal_store(Signal::STOP);
        self.look_on(begun, held);
        let fault = begun..Instant::now();
        self.signal_store(Signal::CONT);
        fault
    }

    fn signal_store(&self, signal: Signal) {
        match &self.backend {
            Backend::Memory => {}
            Backend::Redis(redis) => redis.signal(signal),
            Backend::Postgres(postgres) => postgres.signal(signal),
        }
    }

    /// Asks `/health` over and over while the fault lasts. The fault is not over before each was answered, so one that
    /// waits for the store waits in vain. At some moment it must have told the truth.
    fn look_on(&self, begun: Instant, lasts: Duration) {
        let (mut asked, mut told) = (0, 0);
        while begun.elapsed() < lasts {
            asked += 1;
            told += usize::from(!self.is_whole());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        eprintln!("/health was asked {asked} times during the fault and told of it {told} times");
        let is_memory = matches!(self.backend, Backend::Memory);
        assert!(told > 0 || is_memory, "/health never told of the fault: {}", self.service.health());
    }
}

/// Lets this much time pass: for a run that lasts, not for something to happen.
pub(super) fn pass(time: Duration) {
    let over = Instant::now() + time;
    while let Some(rest) = over.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
        std::thread::park_timeout(rest);
    }
}

impl Remains {
    /// Asserts that everything published to these users during the fault was taken at once: live delivery goes on.
    #[track_caller]
    pub(super) fn live_went_on(&self, users: impl IntoIterator<Item = usize>, fault: &Range<Instant>) {
        let mut count = 0;
        for user in users {
            for (n, publish) in self.books.0[&user].publishes.iter().enumerate() {
                if fault.contains(&publish.sent) {
                    count += 1;
                    let outcome = publish.outcome;
                    let live = matches!(outcome, Outcome::Accepted { delivered_to: 1.., .. });
                    assert!(live, "seed {}: {n} to u{user}, who was there: {outcome:?}", self.trial.seed);
                }
            }
        }
        eprintln!("{count} publishes to those who stayed were delivered while the store was away");
        assert!(count > 0, "nothing was published meanwhile");
    }
}
