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
    /// Per-tenant limits with `TENANT_ENABLED`.
    TenantLimits,
}

/// All of them.
const FEATURES: [Feature; 6] =
    [Feature::Queue, Feature::Ack, Feature::RateLimit, Feature::Cluster, Feature::Telemetry, Feature::TenantLimits];

impl Feature {
    /// Whether the settings ask for it.
    pub fn is_asked_for(self, settings: &Settings) -> bool {
        match self {
            Feature::Queue => settings.queue.enabled,
            Feature::Ack => settings.ack.enabled,
            Feature::RateLimit => settings.rate_limit.enabled,
            Feature::Cluster => settings.cluster.enabled,
            Feature::Telemetry => settings.otel.enabled,
            Feature::TenantLimits => settings.tenant.enabled,
        }
    }

    /// Whether this version does it as it is asked for. A backend that is not built is not replaced by another one.
    fn is_built(self, settings: &Settings) -> bool {
        match self {
            Feature::Queue => settings.queue.backend == Backend::Memory,
            Feature::Ack => settings.ack.backend == Backend::Memory,
            Feature::RateLimit | Feature::Cluster | Feature::Telemetry | Feature::TenantLimits => false,
        }
    }

    /// Whether it is asked for and this version does it: what pages may claim.
    pub fn is_on(self, settings: &Settings) -> bool {
        self.is_asked_for(settings) && self.is_built(settings)
    }

    /// What to tell somebody who asks for it while it is unbuilt.
    fn regret(self, settings: &Settings) -> String {
        match self {
            Feature::Queue => format!(
                "QUEUE_BACKEND: this version keeps notifications for offline users in memory only, not in {}; the queue \
                 is off",
                settings.queue.backend.as_str()
            ),
            Feature::Ack => format!(
                "ACK_BACKEND: this version tracks acknowledgements in memory only, not in {}; they are off",
                settings.ack.backend.as_str()
            ),
            Feature::RateLimit => "RATELIMIT_ENABLED: this version does not limit requests; put a limit into the \
                                   proxy in front of it"
                .to_owned(),
            Feature::Cluster => "CLUSTER_ENABLED: this version runs as a single node; what is sent over HTTP to one \
                                 node does not reach clients of another, what is published to Redis does"
                .to_owned(),
            Feature::Telemetry => "OTEL_ENABLED: this version does not export traces".to_owned(),
            Feature::TenantLimits => "TENANT_ENABLED: tenants are kept apart, but this version does not enforce the \
                                      per-tenant limits TENANT_DEFAULT_MAX_* and tenant_overrides"
                .to_owned(),
        }
    }
}

/// A sentence for each feature that was asked for and that this version does not do yet.
pub fn unbuilt_features(settings: &Settings) -> Vec<String> {
    let in_vain = |feature: &Feature| feature.is_asked_for(settings) && !feature.is_built(settings);
    FEATURES.into_iter().filter(in_vain).map(|feature| feature.regret(settings)).collect()
}
