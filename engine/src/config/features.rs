//! Features that can be switched on, and which of them this version does.
use super::settings::Settings;

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

    /// Whether it is asked for and this version does it: what pages may claim.
    pub fn is_on(self, settings: &Settings) -> bool {
        self.is_asked_for(settings) && self.regret().is_none()
    }

    /// What to tell somebody who asks for it, while this version does not do it.
    fn regret(self) -> Option<&'static str> {
        match self {
            Feature::Queue | Feature::Ack | Feature::RateLimit | Feature::Cluster | Feature::TenantLimits => None,
            Feature::Telemetry => Some("OTEL_ENABLED: this version does not export traces"),
        }
    }
}

/// A sentence for each feature that was asked for and that this version does not do yet.
pub fn unbuilt_features(settings: &Settings) -> impl Iterator<Item = &'static str> {
    FEATURES.into_iter().filter(|feature| feature.is_asked_for(settings)).filter_map(Feature::regret)
}
