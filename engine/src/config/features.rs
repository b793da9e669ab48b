//! Features that can be switched on, and which of them this version does.
use super::settings::{Backend, Settings};

/// Something that an operator may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `QUEUE_ENABLED`.
    Queue,
    /// `ACK_ENABLED`.
    Ack,
    /// `RATELIMIT_ENABLED`.
    RateLimit,
    /// `CLUSTER_ENABLED`.
    Cluster,
    /// `OTEL_ENABLED`.
    Telemetry,
    /// `rediss://`.
    RedisTls,
    /// Per-tenant limits with `TENANT_ENABLED`.
    TenantLimits,
}

/// Asked for in vain in this version. Whoever builds one takes its line away: the warning goes, and `/health`, `/stats`
/// and `/api/v1/cluster/status` begin to tell of it.
const UNBUILT: &[Feature] = &[
    Feature::Queue,
    Feature::Ack,
    Feature::RateLimit,
    Feature::Cluster,
    Feature::Telemetry,
    Feature::RedisTls,
    Feature::TenantLimits,
];

impl Feature {
    /// Whether the settings ask for it.
    pub fn is_asked_for(self, settings: &Settings) -> bool {
        match self {
            Feature::Queue => settings.queue.enabled,
            Feature::Ack => settings.ack.enabled,
            Feature::RateLimit => settings.rate_limit.enabled,
            Feature::Cluster => settings.cluster.enabled,
            Feature::Telemetry => settings.otel.enabled,
            Feature::RedisTls => settings.redis.enabled && settings.redis.url.expose().starts_with("rediss://"),
            Feature::TenantLimits => settings.tenant.enabled,
        }
    }

    /// Whether it is asked for and this version does it: what pages may claim.
    pub fn is_on(self, settings: &Settings) -> bool {
        self.is_asked_for(settings) && !UNBUILT.contains(&self)
    }

    /// What to tell somebody who asks for it while it is unbuilt.
    fn regret(self, settings: &Settings) -> String {
        let kept_in = |backend: Backend| match backend {
            Backend::Memory => String::new(),
            other => format!(" (nor is anything kept in {})", other.as_str()),
        };
        match self {
            Feature::Queue => format!(
                "QUEUE_ENABLED: this version does not keep notifications for offline users{}; they reach connected \
                 clients only",
                kept_in(settings.queue.backend)
            ),
            Feature::Ack => {
                format!("ACK_ENABLED: this version does not track acknowledgements{}", kept_in(settings.ack.backend))
            }
            Feature::RateLimit => "RATELIMIT_ENABLED: this version does not limit requests; put a limit into the \
                                   proxy in front of it"
                .to_owned(),
            Feature::Cluster => "CLUSTER_ENABLED: this version runs as a single node; what is sent over HTTP to one \
                                 node does not reach clients of another, what is published to Redis does"
                .to_owned(),
            Feature::Telemetry => "OTEL_ENABLED: this version does not export traces".to_owned(),
            Feature::RedisTls => "REDIS_URL: this version does not speak TLS to Redis, a rediss:// address cannot be \
                                  connected to"
                .to_owned(),
            Feature::TenantLimits => "TENANT_ENABLED: tenants are kept apart, but this version does not enforce the \
                                      per-tenant limits TENANT_DEFAULT_MAX_* and tenant_overrides"
                .to_owned(),
        }
    }
}

/// A sentence for each feature that was asked for and that this version does not do yet.
pub fn unbuilt_features(settings: &Settings) -> Vec<String> {
    UNBUILT.iter().filter(|feature| feature.is_asked_for(settings)).map(|feature| feature.regret(settings)).collect()
}
