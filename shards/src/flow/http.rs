//! HTTP on a connection: heads, bodies, answers, one request after the other.
use crate::conn::Phase;
use crate::conn::http::{HttpStage, Request};
use crate::effect::{Effect, Effects};
use crate::key::ConnKey;
use crate::shard::{Arrival, Shard, Step};
use crate::tables::placement;
use protocol::auth::api_key;
use protocol::clock::Now;
use protocol::http::body::{BodyDecoder, BodyError, BodyFraming};
use protocol::http::error::ApiError;
use protocol::http::head::{self, HeadStatus, RequestHead};
use protocol::http::response::Responder;
use protocol::http::route::{self, QueryValue, ROUTE_LABELS, Route, RouteMatch};
use protocol::http::{Method, Version};
use protocol::ids::{self, TenantId};
use protocol::limits;
use protocol::ws::handshake::{self, Offer};
use std::borrow::Cow;
use std::sync::Arc;

/// An error of the contract's table that has no constructor of its own.
pub(crate) fn api_error(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError { status, code, message: message.into(), allow: None, retry_after_seconds: None }
}

impl Shard {
    /// Goes one step on in the request stream of a connection.
    pub(crate) fn http_step(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) -> Step {
        let Some(connection) = self.connections.get_mut(key) else { return Step::Gone };
        if !connection.wants_input() {
            return Step::Wait;
        }
        let Phase::Http(http) = &mut connection.phase else { return Step::Wait };
        match &mut http.stage {
            // Empty lines before a head are nothing (RFC 9112 §2.2): they neither begin one nor wait for it.
            HttpStage::Head if *bytes == *b"\r" => Step::Wait,
            HttpStage::Head if bytes.starts_with(b"\n") => Step::Used(1),
            HttpStage::Head if bytes.starts_with(b"\r\n") => Step::Used(2),
            HttpStage::Head => match head::parse(bytes) {
                Ok(HeadStatus::Partial) => {
                    if !std::mem::replace(&mut http.head_begun, true) {
                        http.deadline_ms = now.mono_ms() + limits::HTTP_HEAD_DEADLINE_MS;
                        let deadline_ms = http.deadline_ms;
                        self.schedule(key, deadline_ms);
                    }
                    Step::Wait
                }
                Ok(HeadStatus::Complete { head, len }) => {
                    self.begin_request(now, key, &head, &bytes[len..], len, effects)
                }
                Err(error) => {
                    let error = ApiError {
                        status: error.status(),
                        code: error.code(),
                        message: error.message(),
                        allow: None,
                        retry_after_seconds: None,
                    };
                    let request = Request::unreadable(now, error);
                    self.respond_and_close(now, key, request, effects);
                    Step::Used(bytes.len())
                }
            },
            HttpStage::Body(_, decoder, body) => {
                let progress = decoder.decode(bytes, body);
                self.body_progressed(now, key, progress, bytes.len(), effects)
            }
            HttpStage::Awaiting(_) | HttpStage::Batch(..) => Step::Wait,
        }
    }

    /// A whole head. Streams leave HTTP here; other requests go on to their body.
    fn begin_request(
        &mut self,
        now: Now,
        key: ConnKey,
        head: &RequestHead<'_>,
        rest: &[u8],
        len: usize,
        effects: &mut Effects,
    ) -> Step {
        if let Some(http) = self.http_mut(key) {
            http.head_begun = false;
        }
        let found = route::route(head.method, head.path);
        let label = match &found {
            RouteMatch::Found(route) => route.label_index(),
            _ => ROUTE_LABELS.len() - 1,
        };
        let mut request = Request {
            route: Err(api_error(404, "NOT_FOUND", "No such path")),
            label,
            version: head.version,
            keep_alive: head.keep_alive && !self.stopping,
            head_only: head.method == Method::Head,
            origin: head.origin.map(Box::from),
            tenant: TenantId::default_tenant(),
            is_json: head::is_json(head.content_type),
            started_us: now.mono_us,
        };
        if head.method == Method::Options {
            return self.answer_options(now, key, head, request, len, effects);
        }
        request.route = match found {
            RouteMatch::Found(route @ (Route::WebSocket | Route::Sse)) if head.method == Method::Get => {
                return match self.admit_stream(now, head, &route) {
                    Ok(mut arrival) => {
                        let peer = match self.connections.get(key).map(|connection| &connection.phase) {
                            Some(Phase::Http(http)) => http.peer,
                            _ => return Step::Gone,
                        };
                        arrival.peer = peer;
                        self.count_request(now, &request, if route == Route::WebSocket { 101 } else { 200 });
                        self.bring_home(now, key, arrival, rest, len, effects)
                    }
                    Err((error, version_header)) => {
                        request.route = Err(error);
                        self.respond_stream_refusal(now, key, request, version_header, effects);
                        Step::Used(len + rest.len())
                    }
                };
            }
            RouteMatch::Found(route) => self.authorize(head, route.is_protected(), &mut request).map(|()| route),
            RouteMatch::MethodNotAllowed { allow, protected } => {
                Err(match self.authorize(head, protected, &mut request) {
                    Ok(()) => {
                        ApiError { allow: Some(allow), ..api_error(405, "METHOD_NOT_ALLOWED", "Method not allowed") }
                    }
                    Err(error) => ApiError { allow: Some(allow), ..error },
                })
            }
            RouteMatch::NotFound => Err(api_error(404, "NOT_FOUND", "No such path")),
        };
        if request.route.is_err() && head.expect_continue && head.framing != BodyFraming::None {
            // The body was not sent yet and is not wanted: answer instead of `100 Continue`.
            self.respond_and_close(now, key, request, effects);
            return Step::Used(len + rest.len());
        }
        let bytes_max = match &request.route {
            Ok(route) if route.reads_body() => route.body_bytes_max(),
            _ => limits::HTTP_DISCARD_BYTES_MAX,
        };
        match BodyDecoder::new(head.framing, bytes_max) {
            Ok(decoder) if !matches!(head.framing, BodyFraming::None | BodyFraming::Length(0)) => {
                if head.expect_continue && head.version == Version::Http11 {
                    self.write_control(now, key, Responder::write_continue);
                }
                let deadline_ms = now.mono_ms() + limits::HTTP_BODY_DEADLINE_MS;
                if let Some(http) = self.http_mut(key) {
                    http.stage = HttpStage::Body(Box::new(request), decoder, Vec::new());
                    http.deadline_ms = deadline_ms;
                    self.schedule(key, deadline_ms);
                }
            }
            Ok(_) => self.complete_request(now, key, Box::new(request), Vec::new(), effects),
            Err(error) => {
                request.route = Err(body_error(&error));
                self.respond_and_close(now, key, request, effects);
                return Step::Used(len + rest.len());
            }
        }
        Step::Used(len)
    }

    fn body_progressed(
        &mut self,
        now: Now,
        key: ConnKey,
        progress: Result<protocol::http::body::BodyProgress, BodyError>,
        available: usize,
        effects: &mut Effects,
    ) -> Step {
        let Some(http) = self.http_mut(key) else { return Step::Gone };
        let HttpStage::Body(request, _, body) = &mut http.stage else { return Step::Wait };
        match progress {
            Ok(progress) => {
                if request.route.is_err() {
                    body.clear();
                }
                if progress.done
                    && let HttpStage::Body(request, _, body) = std::mem::replace(&mut http.stage, HttpStage::Head)
                {
                    self.complete_request(now, key, request, body, effects);
                    return Step::Used(progress.consumed);
                }
                if progress.consumed == 0 { Step::Wait } else { Step::Used(progress.consumed) }
            }
            Err(error) => {
                if let HttpStage::Body(mut request, ..) = std::mem::replace(&mut http.stage, HttpStage::Head) {
                    if request.route.is_ok() {
                        request.route = Err(body_error(&error));
                    }
                    self.respond_and_close(now, key, *request, effects);
                }
                Step::Used(available)
            }
        }
    }

    fn complete_request(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        body: Vec<u8>,
        effects: &mut Effects,
    ) {
        if let Some(http) = self.http_mut(key) {
            http.deadline_ms = now.mono_ms() + limits::HTTP_IDLE_DEADLINE_MS;
        }
        match &request.route {
            Ok(route) if route.reads_body() && !request.is_json => {
                let error =
                    api_error(415, "UNSUPPORTED_MEDIA_TYPE", "Expected request with `Content-Type: application/json`");
                self.respond_error(now, key, *request, error, effects);
            }
            Ok(route) => {
                let route = route.clone();
                self.serve(now, key, request, route, &body, effects);
            }
            Err(error) => {
                let error = error.clone();
                self.respond_error(now, key, *request, error, effects);
            }
        }
    }

    /// API key and tenant header (contract §1.2, §1.3, C-8).
    fn authorize(&self, head: &RequestHead<'_>, protected: bool, request: &mut Request) -> Result<(), ApiError> {
        if !protected {
            return Ok(());
        }
        match &self.config.api_key {
            Some(expected) if !head.api_key.is_some_and(|given| api_key::matches(expected, given)) => {
                return Err(api_error(401, "UNAUTHORIZED", "Missing or wrong X-API-Key"));
            }
            None if self.config.production => {
                return Err(api_error(
                    503,
                    "OVERLOADED",
                    "The API is closed: API_KEY is not set and RUN_MODE is production",
                ));
            }
            Some(_) | None => {}
        }
        if self.config.tenancy {
            request.tenant = head
                .tenant
                .and_then(TenantId::parse)
                .ok_or_else(|| api_error(400, "BAD_REQUEST", "X-Tenant-ID is missing or malformed"))?;
        }
        Ok(())
    }

    fn answer_options(
        &mut self,
        now: Now,
        key: ConnKey,
        head: &RequestHead<'_>,
        request: Request,
        len: usize,
        effects: &mut Effects,
    ) -> Step {
        let allow = route::allow(head.path);
        let without_body = head.framing == BodyFraming::None;
        let request = Request { keep_alive: request.keep_alive && without_body, ..request };
        self.count_request(now, &request, 200);
        self.respond_with(now, key, &request, |responder, out| responder.write_options(out, allow));
        self.answered(now, key, &request, effects);
        Step::Used(len)
    }

    // --- Streams -----------------------------------------------------------------------------------------------------

    /// Handshake, token, channels, in the order of contract §3.1. The flag asks for the header that names our version.
    fn admit_stream(
        &mut self,
        now: Now,
        head: &RequestHead<'_>,
        route: &Route,
    ) -> Result<Box<Arrival>, (ApiError, bool)> {
        use crate::conn::outbox::Transport;
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
                (api_error(error.status(), "BAD_REQUEST", error.message()), error.wants_version_header())
            })?;
            Some(accept)
        } else {
            None
        };
        let bad = |message: &'static str| (api_error(400, "BAD_REQUEST", message), false);
        let token = match route::query_value(head.query, "token") {
            QueryValue::One(token) => Some(token),
            QueryValue::Absent => head.authorization.and_then(|value| value.strip_prefix("Bearer ")).map(Cow::Borrowed),
            QueryValue::Repeated => return Err(bad("Failed to deserialize query string: duplicate field `token`")),
            QueryValue::Invalid => return Err(bad("Failed to deserialize query string: bad percent-encoding")),
        };
        let unauthorized = |message: &'static str| (api_error(401, "UNAUTHORIZED", message), false);
        let token = token.ok_or_else(|| unauthorized("Missing authentication token"))?;
        let claims = self.config.verifier.verify(&token, now.unix_seconds()).map_err(|error| {
            tracing::debug!(reason = %error, "token refused");
            unauthorized("Invalid token")
        })?;
        let tenant = match (&claims.tenant, self.config.tenancy) {
            (Some(tenant), true) => TenantId::parse(tenant).ok_or_else(|| unauthorized("Invalid token"))?,
            _ => TenantId::default_tenant(),
        };
        let channels = match route::query_value(head.query, "channels") {
            _ if *route == Route::WebSocket => Vec::new(),
            QueryValue::Absent => Vec::new(),
            QueryValue::One(list) => {
                self.stream_channels(&list).map_err(|message| (api_error(400, "VALIDATION_ERROR", message), false))?
            }
            QueryValue::Repeated => return Err(bad("Failed to deserialize query string: duplicate field `channels`")),
            QueryValue::Invalid => return Err(bad("Failed to deserialize query string: bad percent-encoding")),
        };
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
            rest: Vec::new(),
        }))
    }

    /// `?channels=a,b` (C-16): all of them or none.
    fn stream_channels(&self, list: &str) -> Result<Vec<Box<str>>, String> {
        let mut channels: Vec<Box<str>> = Vec::new();
        for name in list.split(',').filter(|name| !name.is_empty()) {
            if !ids::is_channel_name(name) {
                return Err(format!("Invalid channel name: {}", name.chars().take(64).collect::<String>()));
            }
            if !channels.iter().any(|held| &**held == name) {
                channels.push(name.into());
            }
        }
        let max = match self.config.subscriptions_max {
            0 => limits::SSE_CHANNELS_MAX,
            max => max.min(limits::SSE_CHANNELS_MAX),
        };
        if channels.len() > max {
            return Err(format!("Subscription limit exceeded ({}/{max})", channels.len()));
        }
        Ok(channels)
    }

    /// To the user's home: here, or by hand-over of the socket.
    fn bring_home(
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
            let request = Request::unreadable(
                now,
                api_error(400, "BAD_REQUEST", "A stream cannot follow an unread answer on the same connection"),
            );
            self.respond_and_close(now, key, request, effects);
            return Step::Used(len + rest.len());
        }
        arrival.rest = rest.to_vec();
        self.connections.remove(key);
        self.metrics().handed_over.add(1);
        effects.push(Effect::HandOver { key, to: home, arrival });
        Step::Gone
    }

    fn respond_stream_refusal(
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
                let mut body = Vec::new();
                error.write_body(&mut body, production);
                let extra = [("sec-websocket-version", "13")];
                responder.write(out, error.status, Some(protocol::http::response::JSON), &extra, &body);
            } else {
                responder.write_error(out, &error, production);
            }
        });
        self.finish(now, key, effects);
    }

    // --- Answers -----------------------------------------------------------------------------------------------------

    /// Writes an answer; the connection goes on with the next request, or ends.
    #[expect(clippy::too_many_arguments, reason = "one answer, spelled out")]
    pub(crate) fn respond(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Request,
        status: u16,
        content_type: Option<&str>,
        body: &[u8],
        effects: &mut Effects,
    ) {
        self.count_request(now, &request, status);
        self.respond_with(now, key, &request, |responder, out| responder.write(out, status, content_type, &[], body));
        self.answered(now, key, &request, effects);
    }

    /// As [`Shard::respond`], with an error body.
    pub(crate) fn respond_error(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Request,
        error: ApiError,
        effects: &mut Effects,
    ) {
        self.count_request(now, &request, error.status);
        let production = self.config.production;
        self.respond_with(now, key, &request, |responder, out| responder.write_error(out, &error, production));
        self.answered(now, key, &request, effects);
    }

    /// The request's own error, and the end of the connection: what follows on it cannot be trusted or is not wanted.
    fn respond_and_close(&mut self, now: Now, key: ConnKey, mut request: Request, effects: &mut Effects) {
        request.keep_alive = false;
        if let Err(error) = &request.route {
            let error = error.clone();
            self.respond_error(now, key, request, error, effects);
        }
    }

    /// A head or body that did not come in time.
    pub(crate) fn request_timed_out(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let request = Request::unreadable(now, api_error(408, "BAD_REQUEST", "The request took too long to arrive"));
        self.respond_and_close(now, key, request, effects);
    }

    fn answered(&mut self, now: Now, key: ConnKey, request: &Request, effects: &mut Effects) {
        let deadline_ms = now.mono_ms() + limits::HTTP_IDLE_DEADLINE_MS;
        let Some(http) = self.http_mut(key) else { return };
        http.stage = HttpStage::Head;
        http.deadline_ms = deadline_ms;
        if !request.keep_alive || self.stopping {
            self.finish(now, key, effects);
        }
    }

    fn respond_with(
        &mut self,
        now: Now,
        key: ConnKey,
        request: &Request,
        write: impl FnOnce(&Responder<'_>, &mut Vec<u8>),
    ) {
        let date = self.date(now);
        let config = Arc::clone(&self.config);
        let responder = Responder {
            version: request.version,
            keep_alive: request.keep_alive && !self.stopping,
            head_only: request.head_only,
            date: &date,
            cors: &config.cors,
            origin: request.origin.as_deref(),
        };
        self.write_control(now, key, |out| write(&responder, out));
    }

    fn count_request(&self, now: Now, request: &Request, status: u16) {
        let metrics = self.metrics();
        let label = request.label.min(metrics.http_requests.len().saturating_sub(1));
        if let Some(counters) = metrics.http_requests.get(label) {
            counters[usize::from(status / 100).min(5)].add(1);
        }
        if let Some(latency) = metrics.http_latency_seconds.get(label) {
            latency.observe(now.mono_us.saturating_sub(request.started_us) as f64 / 1e6);
        }
    }

    pub(crate) fn http_mut(&mut self, key: ConnKey) -> Option<&mut crate::conn::http::HttpState> {
        match &mut self.connections.get_mut(key)?.phase {
            Phase::Http(http) => Some(http),
            _ => None,
        }
    }
}

impl Request {
    /// Stands for a request that could not be read; it gets this answer and the connection ends.
    pub(crate) fn unreadable(now: Now, error: ApiError) -> Request {
        Request {
            route: Err(error),
            label: ROUTE_LABELS.len() - 1,
            version: Version::Http11,
            keep_alive: false,
            head_only: false,
            origin: None,
            tenant: TenantId::default_tenant(),
            is_json: false,
            started_us: now.mono_us,
        }
    }
}

fn body_error(error: &BodyError) -> ApiError {
    match error {
        BodyError::TooLarge { bytes_max } => api_error(
            413,
            "PAYLOAD_TOO_LARGE",
            format!("Failed to buffer the request body: length limit exceeded ({bytes_max} bytes)"),
        ),
        BodyError::Malformed(reason) => api_error(400, "BAD_REQUEST", *reason),
    }
}
