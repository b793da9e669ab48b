//! Refusals as clients read them: one JSON shape for all (contract §1.6, C-5).
use super::body::BodyError;
use super::head::HeadError;
use crate::json;
use std::borrow::Cow;

/// A refusal: what the status line, the headers and the body say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status, 400..=599.
    pub status: u16,
    /// The code that programs read.
    pub code: &'static str,
    /// What people read. Never a secret, a token or a whole payload (C-17).
    pub message: Cow<'static, str>,
    /// The `allow` header: methods the path knows, comma-separated. Only with 405.
    pub allow: Option<&'static str>,
    /// The `retry-after` header, in whole seconds. Only with 429 and 503.
    pub retry_after_seconds: Option<u32>,
}

impl ApiError {
    fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { status, code, message: message.into(), allow: None, retry_after_seconds: None }
    }

    /// 400 `BAD_REQUEST`.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(400, "BAD_REQUEST", message)
    }

    /// 400 `BAD_REQUEST` for a body that is no JSON; `detail` is the parser's, and appended to the original's prefix.
    pub fn json_syntax(detail: impl std::fmt::Display) -> ApiError {
        ApiError::bad_request(format!("Failed to parse the request body as JSON: {detail}"))
    }

    /// 400 `VALIDATION_ERROR`.
    pub fn validation(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(400, "VALIDATION_ERROR", message)
    }

    /// 400 `INVALID_ID`: a template id; `reason` is appended to the original's prefix.
    pub fn invalid_id(reason: impl std::fmt::Display) -> ApiError {
        ApiError::new(400, "INVALID_ID", format!("Invalid template ID: {reason}"))
    }

    /// 400 `INVALID_TEMPLATE`: a template's name or event type; `reason` is appended to the original's prefix.
    pub fn invalid_template(reason: impl std::fmt::Display) -> ApiError {
        ApiError::new(400, "INVALID_TEMPLATE", format!("Invalid template: {reason}"))
    }

    /// 400 `BAD_REQUEST`: tenancy is on and `X-Tenant-ID` is missing or malformed (C-8).
    pub fn tenant_required() -> ApiError {
        ApiError::bad_request("X-Tenant-ID is required: 1-64 bytes of letters, digits, dash, underscore or dot")
    }

    /// 400 `VALIDATION_ERROR`: tenancy is on, and a user or channel has a `:` in its name (C-8).
    pub fn colon_in_name() -> ApiError {
        ApiError::validation("User ids and channel names must not contain ':' while tenants are kept apart")
    }

    /// 401 `UNAUTHORIZED`: a protected route without the right `X-API-Key`.
    pub fn unauthorized() -> ApiError {
        ApiError::new(401, "UNAUTHORIZED", "Missing or invalid API key")
    }

    /// 401 `UNAUTHORIZED`: `/ws` or `/sse` without a token.
    pub fn token_missing() -> ApiError {
        ApiError::new(401, "UNAUTHORIZED", "Missing authentication token")
    }

    /// 401 `UNAUTHORIZED`: `/ws` or `/sse` with a token that does not hold. Why is not for strangers.
    pub fn token_invalid() -> ApiError {
        ApiError::new(401, "UNAUTHORIZED", "Invalid token")
    }

    /// 403 `TENANT_ACCESS_DENIED`.
    pub fn tenant_access_denied() -> ApiError {
        ApiError::new(403, "TENANT_ACCESS_DENIED", "Cannot access another tenant's stats")
    }

    /// 403 `CHANNEL_FORBIDDEN`: the token's `channels` do not let its holder subscribe to this one.
    pub fn channel_forbidden(name: &str) -> ApiError {
        ApiError::new(403, "CHANNEL_FORBIDDEN", format!("Channel not permitted: {name}"))
    }

    /// 404 `NOT_FOUND`: no such path.
    pub fn not_found() -> ApiError {
        ApiError::new(404, "NOT_FOUND", "The requested path does not exist")
    }

    /// 404 `CHANNEL_NOT_FOUND`; `name` bare.
    pub fn channel_not_found(name: &str) -> ApiError {
        ApiError::new(404, "CHANNEL_NOT_FOUND", format!("Channel '{name}' not found or has no subscribers"))
    }

    /// 404 `USER_NOT_CONNECTED`.
    pub fn user_not_connected(user_id: &str) -> ApiError {
        ApiError::new(404, "USER_NOT_CONNECTED", format!("User '{user_id}' has no active connections"))
    }

    /// 404 `TEMPLATE_NOT_FOUND`.
    pub fn template_not_found(id: &str) -> ApiError {
        ApiError::new(404, "TEMPLATE_NOT_FOUND", format!("Template not found: {id}"))
    }

    /// 404 `TENANT_NOT_FOUND`.
    pub fn tenant_not_found(id: &str) -> ApiError {
        ApiError::new(404, "TENANT_NOT_FOUND", format!("Tenant '{id}' has no recorded activity"))
    }

    /// 405 `METHOD_NOT_ALLOWED` with the methods the path knows.
    pub fn method_not_allowed(allow: &'static str) -> ApiError {
        ApiError {
            allow: Some(allow),
            ..ApiError::new(405, "METHOD_NOT_ALLOWED", "The path does not know this method")
        }
    }

    /// 408 `REQUEST_TIMEOUT`: the head or the body came too slowly.
    pub fn request_timeout() -> ApiError {
        ApiError::new(408, "REQUEST_TIMEOUT", "The request did not arrive in time")
    }

    /// 409 `TEMPLATE_EXISTS`.
    pub fn template_exists(id: &str) -> ApiError {
        ApiError::new(409, "TEMPLATE_EXISTS", format!("Template already exists: {id}"))
    }

    /// 413 `PAYLOAD_TOO_LARGE` with the route's bound, in bytes.
    pub fn payload_too_large(bytes_max: usize) -> ApiError {
        let message = format!("length limit exceeded: the body may have at most {bytes_max} bytes");
        ApiError::new(413, "PAYLOAD_TOO_LARGE", message)
    }

    /// 415 `UNSUPPORTED_MEDIA_TYPE`.
    pub fn unsupported_media_type() -> ApiError {
        let message = "Expected request with `Content-Type: application/json`";
        ApiError::new(415, "UNSUPPORTED_MEDIA_TYPE", message)
    }

    /// 422 `UNPROCESSABLE`, with the whole message.
    pub fn unprocessable(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(422, "UNPROCESSABLE", message)
    }

    /// 422 `UNPROCESSABLE` for JSON of the wrong shape; `detail` is appended to the original's prefix.
    pub fn json_shape(detail: impl std::fmt::Display) -> ApiError {
        ApiError::unprocessable(format!("Failed to deserialize the JSON body into the target type: {detail}"))
    }

    /// 429 `RATE_LIMITED`: come back in so many seconds.
    pub fn rate_limited(retry_after_seconds: u32) -> ApiError {
        let message = format!("Too many requests, please retry after {retry_after_seconds} seconds");
        ApiError { retry_after_seconds: Some(retry_after_seconds), ..ApiError::new(429, "RATE_LIMITED", message) }
    }

    /// 429 `CONNECTION_LIMIT_EXCEEDED`: `/sse` over a connection limit (contract §4); `reason` names the limit.
    pub fn connection_limit(reason: impl std::fmt::Display) -> ApiError {
        ApiError::new(429, "CONNECTION_LIMIT_EXCEEDED", format!("Connection limit exceeded: {reason}"))
    }

    /// 500 `INTERNAL_ERROR`.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(500, "INTERNAL_ERROR", message)
    }

    /// 503 `CONFIG_ERROR`: production without an API key keeps its protected routes shut (D-4).
    pub fn api_key_not_configured() -> ApiError {
        ApiError::new(503, "CONFIG_ERROR", "No API key is configured (API_KEY)")
    }

    /// 503 `OVERLOADED`: nothing was done, the same request may succeed in a second.
    pub fn overloaded() -> ApiError {
        ApiError {
            retry_after_seconds: Some(1),
            ..ApiError::new(503, "OVERLOADED", "The server is overloaded, please retry")
        }
    }

    /// 503: more of this tenant's publishes wait to be delivered than may; the others' go on.
    pub fn held_back() -> ApiError {
        ApiError {
            retry_after_seconds: Some(1),
            ..ApiError::new(503, "OVERLOADED", "Too many publishes of this tenant wait to be delivered, please retry")
        }
    }

    /// 503 `QUEUE_ERROR`: nobody got it and it could not be stored (C-4).
    pub fn queue(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(503, "QUEUE_ERROR", message)
    }

    /// 503 `REVOCATIONS_FULL`: the node holds [`crate::limits::REVOCATIONS_MAX`] and takes no more; nothing was revoked.
    pub fn revocations_full() -> ApiError {
        let message = "No more revocations can be held; those whose tokens expire make room, so name expires_at";
        ApiError::new(503, "REVOCATIONS_FULL", message)
    }

    /// 503 `CLUSTER_ERROR`.
    pub fn cluster(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(503, "CLUSTER_ERROR", message)
    }

    /// 504 `TIMEOUT`: a backend did not answer in time.
    pub fn timeout(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(504, "TIMEOUT", message)
    }

    /// Appends the body. With `production` the message of any 5xx is a fixed phrase, so that nothing about the inside
    /// gets out.
    pub fn write_body(&self, out: &mut Vec<u8>, production: bool) {
        let message = if production && self.status >= 500 { masked(self.code) } else { &*self.message };
        out.extend_from_slice(b"{\"error\":{\"code\":");
        json::write_string(out, self.code);
        out.extend_from_slice(b",\"message\":");
        json::write_string(out, message);
        out.extend_from_slice(b"}}");
    }
}

/// What production says instead.
fn masked(code: &str) -> &'static str {
    match code {
        "CLUSTER_ERROR" => "The cluster is temporarily unavailable",
        "CONFIG_ERROR" => "The server is not configured for this request",
        "HTTP_VERSION_NOT_SUPPORTED" => "The HTTP version is not supported",
        "NOT_IMPLEMENTED" => "The request needs a feature that is not implemented",
        "OVERLOADED" => "The server is overloaded, please retry",
        "QUEUE_ERROR" => "The message queue is temporarily unavailable",
        "REDIS_ERROR" => "A backend is temporarily unavailable",
        "REVOCATIONS_FULL" => "No more revocations can be held, nothing was revoked",
        "TIMEOUT" => "The request took too long",
        _ => "An internal error occurred",
    }
}

impl From<HeadError> for ApiError {
    fn from(error: HeadError) -> ApiError {
        ApiError::new(error.status(), error.code(), error.message())
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> ApiError {
        match error {
            BodyError::TooLarge { bytes_max } => ApiError::payload_too_large(bytes_max),
            BodyError::Malformed(what) => ApiError::bad_request(format!("The request body is malformed: {what}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(error: &ApiError, production: bool) -> String {
        let mut out = Vec::new();
        error.write_body(&mut out, production);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bodies_have_one_shape_and_are_escaped() {
        let rows = [
            (
                ApiError::validation("Batch cannot be empty"),
                r#"{"error":{"code":"VALIDATION_ERROR","message":"Batch cannot be empty"}}"#,
            ),
            (
                ApiError::channel_not_found("a\"b\n訂"),
                r#"{"error":{"code":"CHANNEL_NOT_FOUND","message":"Channel 'a\"b\n訂' not found or has no subscribers"}}"#,
            ),
            (
                ApiError::json_syntax("expected value at line 1 column 1"),
                r#"{"error":{"code":"BAD_REQUEST","message":"Failed to parse the request body as JSON: expected value at line 1 column 1"}}"#,
            ),
            (
                ApiError::json_shape("missing field `payload`"),
                r#"{"error":{"code":"UNPROCESSABLE","message":"Failed to deserialize the JSON body into the target type: missing field `payload`"}}"#,
            ),
            (
                BodyError::TooLarge { bytes_max: 65_536 }.into(),
                r#"{"error":{"code":"PAYLOAD_TOO_LARGE","message":"length limit exceeded: the body may have at most 65536 bytes"}}"#,
            ),
            (
                ApiError::rate_limited(3),
                r#"{"error":{"code":"RATE_LIMITED","message":"Too many requests, please retry after 3 seconds"}}"#,
            ),
        ];
        for (error, expected) in rows {
            assert_eq!(body(&error, false), expected);
            assert_eq!(body(&error, true), expected, "a 4xx is told in full in production, too");
        }
    }

    #[test]
    fn production_masks_what_went_wrong_inside() {
        let inside = "redis://:hunter2@10.0.0.1 refused";
        let errors = [
            ApiError::internal(inside),
            ApiError::queue(inside),
            ApiError::cluster(inside),
            ApiError::timeout(inside),
            ApiError::new(500, "REDIS_ERROR", inside),
            ApiError::new(599, "SOMETHING_NEW", inside),
        ];
        for error in errors {
            assert!(body(&error, false).contains(inside));
            let masked = body(&error, true);
            assert!(!masked.contains("redis:") && masked.contains(error.code), "{masked}");
        }
    }

    #[test]
    fn advice_travels_beside_the_body() {
        assert_eq!(ApiError::method_not_allowed("POST").allow, Some("POST"));
        assert_eq!(ApiError::overloaded().retry_after_seconds, Some(1));
        assert_eq!(ApiError::rate_limited(7).retry_after_seconds, Some(7));
        let refused = ApiError::from(HeadError::Version);
        assert_eq!((refused.status, refused.code), (505, "HTTP_VERSION_NOT_SUPPORTED"));
    }
}
