//! Tokens as a backend would sign them, by jsonwebtoken.
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The secret every test server runs with.
pub(crate) const SECRET: &str = "a-secret-of-the-tests-with-more-than-32-bytes";

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs()
}

/// A good token for `user`.
pub(crate) fn of(user: &str) -> String {
    sign(&json!({"sub": user, "exp": now() + 3600, "iat": now()}))
}

/// A good token for `user` with `roles`.
pub(crate) fn with_roles(user: &str, roles: &[&str]) -> String {
    sign(&json!({"sub": user, "exp": now() + 3600, "iat": now(), "roles": roles}))
}

/// Any claims under [`SECRET`].
pub(crate) fn sign(claims: &Value) -> String {
    sign_with(claims, Algorithm::HS256, SECRET)
}

/// Any claims under any secret.
pub(crate) fn sign_with(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("claims are JSON")
}
