//! Answers over HTTP: written into the control lane, counted, and what becomes of the connection afterwards.
use crate::conn::http::{HttpStage, Request};
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::Shard;
use protocol::clock::Now;
use protocol::http::Version;
use protocol::http::error::ApiError;
use protocol::http::response::Responder;
use protocol::limits;
use protocol::publish::request::BodyError;
use protocol::rate_limit::Quota;
use std::borrow::Cow;
use std::sync::Arc;

/// For errors that name their status and code themselves.
pub(crate) fn refusal(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
    ApiError { status, code, ..ApiError::bad_request(message) }
}

/// A body that is not what its route wants.
pub(crate) fn body_refusal(error: &BodyError) -> ApiError {
    refusal(error.status(), error.code(), error.to_string())
}

/// How a peer is answered.
pub(super) struct Dialect<'a> {
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    /// Without a body.
    pub(super) head_only: bool,
    /// For CORS.
    pub(super) origin: Option<&'a str>,
    /// What is left of its limit.
    pub(super) quota: Option<Quota>,
}

impl Shard {
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
    pub(super) fn respond_and_close(&mut self, now: Now, key: ConnKey, mut request: Request, effects: &mut Effects) {
        request.keep_alive = false;
        if let Err(error) = &request.route {
            let error = error.clone();
            self.respond_error(now, key, request, error, effects);
        }
    }

    pub(super) fn answered(&mut self, now: Now, key: ConnKey, request: &Request, effects: &mut Effects) {
        let deadline_ms = now.mono_ms() + limits::HTTP_IDLE_DEADLINE_MS;
        let Some(http) = self.http_mut(key) else { return };
        http.stage = HttpStage::Head;
        http.quota = None;
        http.deadline_ms = deadline_ms;
        if !request.keep_alive || self.stopping {
            self.finish(now, key, effects);
        }
    }

    pub(super) fn respond_with(
        &mut self,
        now: Now,
        key: ConnKey,
        request: &Request,
        write: impl FnOnce(&Responder<'_>, &mut Vec<u8>),
    ) {
        let keep_alive = request.keep_alive && !self.stopping;
        let (version, head_only, origin) = (request.version, request.head_only, request.origin.as_deref());
        let quota = self.http_mut(key).and_then(|http| http.quota);
        self.write_answer(now, key, Dialect { version, keep_alive, head_only, origin, quota }, write);
    }

    /// Writes a head, and perhaps a body, in the peer's dialect.
    pub(super) fn write_answer(
        &mut self,
        now: Now,
        key: ConnKey,
        dialect: Dialect<'_>,
        write: impl FnOnce(&Responder<'_>, &mut Vec<u8>),
    ) {
        let Dialect { version, keep_alive, head_only, origin, quota } = dialect;
        let (date, config) = (self.date(now), Arc::clone(&self.config));
        let responder = Responder { version, keep_alive, head_only, date: &date, cors: &config.cors, origin, quota };
        self.write_control(now, key, |out| write(&responder, out));
    }

    pub(super) fn count_request(&self, now: Now, request: &Request, status: u16) {
        let metrics = self.metrics();
        let label = request.label.min(metrics.http_requests.len().saturating_sub(1));
        if let Some(counters) = metrics.http_requests.get(label) {
            counters[usize::from(status / 100).min(5)].add(1);
        }
        if let Some(latency) = metrics.http_latency_seconds.get(label) {
            latency.observe(now.mono_us.saturating_sub(request.started_us) as f64 / 1e6);
        }
    }
}
