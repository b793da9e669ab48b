//! Where a server under test keeps mail, templates and acknowledgements.
use super::postgres::Postgres;
use super::redis::Redis;
use super::server::Server;

/// A backend of the test's own.
#[derive(Debug)]
pub(crate) enum Backend {
    Memory,
    Redis(Redis),
    Postgres(Postgres),
}

/// What makes a link come back soon: the pauses of a test are nobody's to sit out.
const IMPATIENT: [(&str, &str); 3] = [
    ("REDIS_CIRCUIT_BREAKER_RESET_TIMEOUT_SECONDS", "1"),
    ("REDIS_BACKOFF_INITIAL_DELAY_MS", "10"),
    ("REDIS_BACKOFF_MAX_DELAY_MS", "100"),
];

impl Backend {
    pub(crate) fn redis() -> Backend {
        Backend::Redis(Redis::start())
    }

    pub(crate) fn postgres() -> Backend {
        Backend::Postgres(Postgres::start())
    }

    /// A node with queue and these settings that keeps everything here.
    pub(crate) fn serve(&self, settings: &[(&str, &str)]) -> Server {
        self.serve_at(&self.url(), settings)
    }

    /// The same, with another word on how to get there.
    pub(crate) fn serve_at(&self, url: &str, settings: &[(&str, &str)]) -> Server {
        let backend = self.name();
        let mut all = vec![("QUEUE_ENABLED", "true"), ("QUEUE_BACKEND", backend), ("ACK_BACKEND", backend)];
        all.extend(IMPATIENT);
        match self {
            Backend::Memory => {}
            Backend::Redis(_) => all.push(("REDIS_URL", url)),
            Backend::Postgres(_) => all.push(("DATABASE_URL", url)),
        }
        all.extend(settings);
        Server::with(&all)
    }

    /// As the settings and `/health` call it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Backend::Memory => "memory",
            Backend::Redis(_) => "redis",
            Backend::Postgres(_) => "postgres",
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Backend::Memory => String::new(),
            Backend::Redis(redis) => redis.url(),
            Backend::Postgres(postgres) => postgres.url("postgres"),
        }
    }

    /// Starts the server, again or for the first time.
    pub(crate) fn restart(&mut self) {
        match self {
            Backend::Memory => {}
            Backend::Redis(redis) => redis.restart(),
            Backend::Postgres(postgres) => postgres.restart(),
        }
    }
}
