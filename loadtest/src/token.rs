//! The clients' tokens (contract §2), signed here.
use crate::args::CommonArgs;
use crate::error::LoadError;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// Valid for this long: longer than any run may last.
const TOKEN_SECONDS: u64 = 24 * 3_600;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    roles: [&'a str; 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
}

/// Signs tokens with one secret.
pub struct Signer {
    key: EncodingKey,
    header: Header,
    issued_at: u64,
    tenant: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Signer {
    /// A signer for the flags' secret, as of `unix_seconds`.
    pub fn new(args: &CommonArgs, unix_seconds: u64) -> Signer {
        Signer {
            key: EncodingKey::from_secret(args.secret.as_bytes()),
            header: Header::new(Algorithm::HS256),
            issued_at: unix_seconds,
            tenant: args.tenant.clone(),
            issuer: args.issuer.clone(),
            audience: args.audience.clone(),
        }
    }

    /// A token for one user.
    pub fn sign(&self, user: &str) -> Result<String, LoadError> {
        let claims = Claims {
            sub: user,
            iat: self.issued_at,
            exp: self.issued_at + TOKEN_SECONDS,
            roles: [],
            tenant_id: self.tenant.as_deref(),
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(|error| LoadError::Token(error.to_string()))
    }
}
