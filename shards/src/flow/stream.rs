//! From a request to a stream: handshake, token, channels, and the way home.
use super::answer::refusal;
use crate::conn::http::Request;
use crate::conn::outbox::Transport;
use crate::effect::{Effect, Effects};
use crate::key::ConnKey;
use crate::shard::{Arrival, Shard, Step};
use crate::tables::placement;
use protocol::auth::token::Claims;
use protocol::clock::Now;
use protocol::http::error::ApiError;
use protocol::http::head::RequestHead;
use protocol::http::route::{self, QueryValue, Route};
use protocol::http::{Method, Version};
use protocol::ids::{self, TenantId};
use protocol::limits;
use protocol::ws::handshake::{self, Offer};
use std::borrow::Cow;

impl Shard {
    /// Handshake, token, channels, in the order of contract §3.1. The flag asks for the header that names our version.
    pub(super) fn admit_stream(
        &mut self,
        now: Now,
        head: &RequestHead<'_>,
        route: &Route,
    ) -> Result<Box<Arrival>, (ApiError, bool)> {
        if self.stopping {
            return Err((ApiError::overloaded(), false));
        }
        let accept = if *route == Route::WebSocket {
            let offer = Offer {
                is_get_http11: head.method == Method::Get && head.version == Version::Http11,
                connection_upgrade: head.upgrade.connection_upgrade,
                upgrade_websocket: head.upgrade.upgrade_websocket,
                version: head.upgrade.version,
                key: head.upgrade.key,
            };
            let accept = handshake::accept(&offer).map_err(|error| {
                (refusal(error.status(), "BAD_REQUEST", error.message()), error.wants_version_header())
            })?;
            Some(accept)
        } else {
            None
        };
        let bad = |message: &'static str| (ApiError::bad_request(message), false);
        let token = match route::query_value(head.query, "token") {
            QueryValue::One(token) => Some(token),
            QueryValue::Absent => head.authorization.and_then(|value| value.strip_prefix("Bearer ")).map(Cow::Borrowed),
            QueryValue::Repeated => return Err(bad("Failed to deserialize query string: duplicate field `token`")),
            QueryValue::Invalid => return Err(bad("Failed to deserialize query string: bad percent-encoding")),
        };
        let token = token.ok_or_else(|| (ApiError::token_missing(), false))?;
        let invalid = || (ApiError::token_invalid(), false);
        let claims = self.config.verifier.verify(&token, now.unix_seconds()).map_err(|error| {
            tracing::debug!(reason = %error, "token refused");
            invalid()
        })?;
        let tenant = self.tenant_of(&claims).ok_or_else(invalid)?;
        // A user of `default` could otherwise be taken for another tenant's where names stand in stored keys (C-8).
        if self.config.tenancy && claims.user.contains(':') {
            tracing::debug!(reason = "colon in sub", "token refused");
            return Err(invalid());
        }
        let channels = match route::query_value(head.query, "channels") {
            _ if *route == Route::WebSocket => Vec::new(),
            QueryValue::Absent => Vec::new(),
            QueryValue::One(list) => {
                self.stream_channels(&tenant, &list).map_err(|message| (ApiError::validation(message), false))?
            }
            QueryValue::Repeated => return Err(bad("Failed to deserialize query string: duplicate field `channels`")),
            QueryValue::Invalid => return Err(bad("Failed to deserialize query string: bad percent-encoding")),
        };
        if let Some(rules) = &claims.channels
            && let Some(forbidden) = channels.iter().find(|name| !rules.allow(name))
        {
            return Err((ApiError::channel_forbidden(forbidden), false));
        }
        let transport = match (*route == Route::WebSocket, head.version) {
            (true, _) => Transport::WebSocket,
            (false, Version::Http11) => Transport::SseChunked,
            (false, Version::Http10) => Transport::SseBare,
        };
        Ok(Box::new(Arrival {
            transport,
            tenant,
            claims,
            accept,
            version: head.version,
            origin: head.origin.map(Box::from),
            channels,
            peer: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            quota: None,
            rest: Vec::new(),
        }))
    }

    /// Whose user a token speaks of.
    pub(super) fn tenant_of(&self, claims: &Claims) -> Option<TenantId> {
        match (&claims.tenant, self.config.tenancy) {
            (Some(tenant), true) => TenantId::parse(tenant),
            _ => Some(TenantId::default_tenant()),
        }
    }

    /// `?channels=a,b` (C-16): all of them or none.
    fn stream_channels(&self, tenant: &TenantId, list: &str) -> Result<Vec<Box<str>>, String> {
        let mut channels: Vec<Box<str>> = Vec::new();
        for name in list.split(',').filter(|name| !name.is_empty()) {
            if !ids::is_channel_name(name) {
                return Err(format!("Invalid channel name: {}", name.chars().take(64).collect::<String>()));
            }
            if !channels.iter().any(|held| &**held == name) {
                channels.push(name.into());
            }
        }
        let max = match self.config.limits_of(tenant).subscriptions_max {
            0 => limits::SSE_CHANNELS_MAX,
            max => max.min(limits::SSE_CHANNELS_MAX),
        };
        if channels.len() > max {
            return Err(format!("Subscription limit exceeded ({}/{max})", channels.len()));
        }
        Ok(channels)
    }

    /// To the user's home: here, or by hand-over of the socket.
    pub(super) fn bring_home(
        &mut self,
        now: Now,
        key: ConnKey,
        mut arrival: Box<Arrival>,
        rest: &[u8],
        len: usize,
        effects: &mut Effects,
    ) -> Step {
        let home = placement::home(arrival.tenant.as_str(), &arrival.claims.user, self.shards);
        if home == self.me {
            self.register(now, key, arrival, effects);
            return Step::Used(len);
        }
        // Answers to earlier, pipelined requests that are still unwritten cannot travel: a client that mixes them with an
        // upgrade on one connection is told so.
        if self.connections.get(key).is_some_and(|connection| !connection.is_flushed()) {
            let message = "A stream cannot follow an unread answer on the same connection";
            let request = Request::unreadable(now, ApiError::bad_request(message));
            self.respond_and_close(now, key, request, effects);
            return Step::Used(len + rest.len());
        }
        arrival.rest = rest.to_vec();
        self.connections.remove(key);
        self.metrics().handed_over.add(1);
        effects.push(Effect::HandOver { key, to: home, arrival });
        Step::Gone
    }

    pub(super) fn respond_stream_refusal(
        &mut self,
        now: Now,
        key: ConnKey,
        mut request: Request,
        version_header: bool,
        effects: &mut Effects,
    ) {
        request.keep_alive = false;
        let Err(error) = &request.route else { return };
        let error = error.clone();
        self.count_request(now, &request, error.status);
        let production = self.config.production;
        self.respond_with(now, key, &request, |responder, out| {
            if version_header {
                // RFC 6455 §4.4, RFC 9110 §15.5.22 and §7.8.
                let extra = [("upgrade", "websocket"), ("sec-websocket-version", "13")];
                responder.write_error_with(out, &error, production, &extra);
            } else {
                responder.write_error(out, &error, production);
            }
        });
        self.finish(now, key, effects);
    }
}
