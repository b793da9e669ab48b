//! `token`: a token that lets a user connect.
use super::{Failure, print};
use crate::args::TokenArgs;
use crate::config::Sources;
use crate::config::layers::Values;
use crate::config::settings::JwtAlgorithm;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// The claims that the service reads (contract §2).
#[derive(Debug, Default, Serialize)]
pub struct Claims<'a> {
    /// User id.
    pub sub: &'a str,
    /// Unix seconds at which it was made.
    pub iat: u64,
    /// Unix seconds at which it ends.
    pub exp: u64,
    /// Roles.
    pub roles: &'a [String],
    /// Tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<&'a str>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<&'a str>,
    /// For whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<&'a str>,
    /// What it can be revoked by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'a str>,
    /// What it lets its holder subscribe to; empty is everything.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub channels: &'a [String],
}

/// Prints a token made from the arguments and `JWT_SECRET`, `JWT_ALGORITHM`, `JWT_ISSUER` and `JWT_AUDIENCE`. Other
/// settings may be wrong for all it matters here.
///
/// # Errors
/// There is no secret to sign with.
pub fn run(sources: &Sources, args: &TokenArgs) -> Result<(), Failure> {
    let values = Values::resolve(sources, &mut Vec::new(), &mut Vec::new());
    let algorithm = values.text("JWT_ALGORITHM").and_then(JwtAlgorithm::parse).unwrap_or(JwtAlgorithm::Hs256);
    let secret = args.secret.as_deref().or(values.text("JWT_SECRET")).ok_or(Failure(
        "there is no secret to sign with: set JWT_SECRET to what the service has, or give --secret".to_owned(),
    ))?;
    if !protocol::ids::is_user_id(&args.user) {
        return Err(Failure(format!(
            "--user is longer than {} characters, or has the character U+0000",
            protocol::limits::USER_ID_CHARS_MAX
        )));
    }
    if let Some(tenant) = &args.tenant
        && protocol::ids::TenantId::parse(tenant).is_none()
    {
        return Err(Failure(format!("--tenant {tenant:?} is not 1 to 64 bytes of letters, digits, -, _ and .")));
    }
    if args.id.as_ref().is_some_and(|id| id.len() > protocol::limits::TOKEN_ID_BYTES_MAX) {
        return Err(Failure(format!("--jti is longer than {} bytes", protocol::limits::TOKEN_ID_BYTES_MAX)));
    }
    let channels = args.channels.iter().map(|channel| channel.as_str().into()).collect();
    if protocol::auth::channels::ChannelRules::new(channels).is_none() {
        return Err(Failure(format!(
            "--channel takes up to {} names of channels, or prefixes like orders.*",
            protocol::limits::TOKEN_CHANNELS_MAX
        )));
    }
    let now = unix_seconds();
    let claims = Claims {
        sub: &args.user,
        iat: now,
        exp: now + args.ttl_seconds,
        roles: &args.roles,
        tenant_id: args.tenant.as_deref(),
        iss: values.text("JWT_ISSUER"),
        aud: values.text("JWT_AUDIENCE"),
        jti: args.id.as_deref(),
        channels: &args.channels,
    };
    print(sign(algorithm, secret, &claims)?);
    Ok(())
}

/// Signs claims with a shared secret.
///
/// # Errors
/// The algorithm wants a private key, which this command does not handle.
pub fn sign(algorithm: JwtAlgorithm, secret: &str, claims: &Claims<'_>) -> Result<String, Failure> {
    let algorithm = match algorithm {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Hs384 => Algorithm::HS384,
        JwtAlgorithm::Hs512 => Algorithm::HS512,
        JwtAlgorithm::Rs256 | JwtAlgorithm::Es256 => {
            return Err(Failure(
                "the service is set to RS256 or ES256: its tokens are signed with a private key, which belongs to \
                 whoever issues them, not here"
                    .to_owned(),
            ));
        }
    };
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .map_err(Failure::new)
}

/// Unix seconds now; 0 if the clock stands before 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{DecodingKey, Validation};

    #[test]
    fn a_token_says_what_it_was_asked_to_say() {
        let roles = ["admin".to_owned()];
        let claims = Claims {
            sub: "ana",
            iat: 1_700_000_000,
            exp: 1_700_003_600,
            roles: &roles,
            tenant_id: Some("acme"),
            jti: Some("t-1"),
            channels: &["orders".to_owned(), "news.*".to_owned()],
            ..Claims::default()
        };
        let token = sign(JwtAlgorithm::Hs384, "secret", &claims).unwrap();
        let mut validation = Validation::new(Algorithm::HS384);
        validation.validate_exp = false;
        let key = DecodingKey::from_secret(b"secret");
        let decoded = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation).unwrap();
        let expected = serde_json::json!({
            "sub": "ana", "iat": 1_700_000_000, "exp": 1_700_003_600, "roles": ["admin"], "tenant_id": "acme",
            "jti": "t-1", "channels": ["orders", "news.*"]
        });
        assert_eq!(decoded.claims, expected);
    }

    #[test]
    fn a_private_keys_work_is_not_done_with_a_secret() {
        assert!(sign(JwtAlgorithm::Rs256, "secret", &Claims::default()).is_err());
    }

    #[test]
    fn without_a_secret_there_is_no_token() {
        let args = TokenArgs { user: "ana".into(), ttl_seconds: 1, ..TokenArgs::default() };
        let failure = run(&Sources::from_environment([]), &args).unwrap_err();
        assert!(failure.0.contains("JWT_SECRET"));
    }

    #[test]
    fn what_the_service_would_refuse_is_not_signed() {
        let args = || TokenArgs { user: "ana".into(), secret: Some("secret".into()), ..TokenArgs::default() };
        let rows = [
            (TokenArgs { channels: vec!["*".into()], ..args() }, "--channel"),
            (TokenArgs { id: Some("x".repeat(257)), ..args() }, "--jti"),
        ];
        for (args, words) in rows {
            let failure = run(&Sources::from_environment([]), &args).unwrap_err();
            assert!(failure.0.contains(words), "{failure:?}");
        }
    }
}
