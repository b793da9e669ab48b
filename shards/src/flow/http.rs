//! HTTP on a connection: heads and bodies, one request after the other.
use crate::conn::Phase;
use crate::conn::http::{HttpStage, Request};
use crate::effect::Effects;
use crate::flow::limit::Passage;
use crate::key::ConnKey;
use crate::shard::{Shard, Step};
use protocol::auth::api_key;
use protocol::clock::Now;
use protocol::http::body::{BodyDecoder, BodyError, BodyFraming};
use protocol::http::error::ApiError;
use protocol::http::head::{self, HeadStatus, RequestHead};
use protocol::http::response::Responder;
use protocol::http::route::{self, ROUTE_LABELS, Route, RouteMatch};
use protocol::http::{Method, Version};
use protocol::ids::TenantId;
use protocol::limits;

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
                    let request = Request::unreadable(now, error.into());
                    self.respond_and_close(now, key, request, effects);
                    Step::Used(bytes.len())
                }
            },
            HttpStage::Body(_, decoder, body) => {
                let progress = decoder.decode(bytes, body);
                self.body_progressed(now, key, progress, bytes.len(), effects)
            }
            HttpStage::Counting(..) | HttpStage::Awaiting(_) | HttpStage::Batch(..) => Step::Wait,
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
        let limited = match self.limit(now, key, head, effects) {
            Passage::Open => None,
            Passage::Refused(error) => Some(error),
            Passage::Waits => return Step::Wait,
        };
        let mut started_us = now.mono_us;
        if let Some(http) = self.http_mut(key) {
            http.head_begun = false;
            started_us = http.whole_at_us.take().unwrap_or(started_us);
        }
        let found = route::route(head.method, head.path);
        let label = match &found {
            RouteMatch::Found(route) => route.label_index(),
            _ => ROUTE_LABELS.len() - 1,
        };
        let mut request = Request {
            route: Err(ApiError::not_found()),
            label,
            version: head.version,
            keep_alive: head.keep_alive && !self.stopping,
            head_only: head.method == Method::Head,
            origin: head.origin.map(Box::from),
            tenant: TenantId::default_tenant(),
            is_json: head::is_json(head.content_type),
            started_us,
        };
        if head.method == Method::Options {
            return self.answer_options(now, key, head, request, len, effects);
        }
        let is_limited = limited.is_some();
        if let Some(error) = limited {
            request.route = Err(error);
            if matches!(&found, RouteMatch::Found(Route::WebSocket | Route::Sse)) {
                self.respond_and_close(now, key, request, effects);
                return Step::Used(len + rest.len());
            }
        }
        request.route = match found {
            _ if is_limited => request.route,
            RouteMatch::Found(route @ (Route::WebSocket | Route::Sse)) if head.method == Method::Get => {
                return match self.admit_stream(now, head, &route) {
                    Ok(mut arrival) => {
                        let Some(http) = self.http_mut(key) else { return Step::Gone };
                        (arrival.peer, arrival.quota) = (http.peer, http.quota);
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
                    Ok(()) => ApiError::method_not_allowed(allow),
                    Err(error) => ApiError { allow: Some(allow), ..error },
                })
            }
            RouteMatch::NotFound => Err(ApiError::not_found()),
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
                request.route = Err(error.into());
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
                        request.route = Err(error.into());
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
                self.respond_error(now, key, *request, ApiError::unsupported_media_type(), effects);
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
                return Err(ApiError::unauthorized());
            }
            None if self.config.production => {
                return Err(ApiError::api_key_not_configured());
            }
            Some(_) | None => {}
        }
        if self.config.tenancy {
            request.tenant = head.tenant.and_then(TenantId::parse).ok_or_else(ApiError::tenant_required)?;
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

    /// A head or body that did not come in time.
    pub(crate) fn request_timed_out(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let request = Request::unreadable(now, ApiError::request_timeout());
        self.respond_and_close(now, key, request, effects);
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
