//! Tokens: of all that one may send, only what was signed with the key opens anything.
use super::{AT_NS, assert_telling};
use jsonwebtoken::crypto;
use jsonwebtoken::{Algorithm as Signing, EncodingKey};
use protocol::auth::token::{Algorithm, Claims, TokenError, Verifier, VerifierConfig};
use protocol::ids::{self, TenantId};
use protocol::limits;
use serde_json::Value;
use std::sync::LazyLock;

/// Signs the tokens of the corpus; opens nothing.
const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";
const NOW: u64 = AT_NS / 1_000_000_000;
const HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;
const CLAIMS: &str = r#"{"sub":"u","exp":1767326645}"#;

static LAX: LazyLock<Verifier> = LazyLock::new(|| verifier(None, None));
static STRICT: LazyLock<Verifier> = LazyLock::new(|| verifier(Some("ara"), Some("web")));

fn verifier(issuer: Option<&str>, audience: Option<&str>) -> Verifier {
    let config =
        VerifierConfig { algorithm: Algorithm::Hs256, secret: Some(SECRET), public_key_pem: None, issuer, audience };
    Verifier::new(&config).expect("the secret is not empty")
}

/// The bytes as a token; as claims, signed; and as a header, signed.
pub fn token(bytes: &[u8]) {
    if let Ok(token) = std::str::from_utf8(bytes) {
        let verdict = verified(token);
        if verdict.is_ok() {
            let (message, signature) = token.rsplit_once('.').expect("three parts");
            assert_eq!(signature, sign(message), "taken with another signature");
        }
    }

    let claims = verified(&signed(HEADER.as_bytes(), bytes));
    match claims {
        Ok(claims) => {
            // What nobody looks at is only skipped: there, a number may be too big and text no UTF-8.
            if let Ok(read) = serde_json::from_slice(bytes) {
                check_claims(&claims, &read);
            }
        }
        Err(TokenError::Malformed) => assert!(bytes.len() * 4 / 3 + 82 > limits::TOKEN_BYTES_MAX),
        Err(error) => assert!(
            matches!(error, TokenError::Claims | TokenError::Expired | TokenError::NotYetValid),
            "{error} of a token that was signed"
        ),
    }

    if verified(&signed(bytes, CLAIMS.as_bytes())).is_ok()
        && let Ok(header) = serde_json::from_slice::<Value>(bytes)
    {
        assert_eq!((&header["alg"], header.get("crit")), (&Value::from("HS256"), None));
    }
}

/// By the lax verifier; the strict one takes nothing more.
fn verified(token: &str) -> Result<Claims, TokenError> {
    let lax = LAX.verify(token, NOW);
    match (&lax, STRICT.verify(token, NOW)) {
        (Ok(lax), Ok(strict)) => assert_eq!(*lax, strict),
        (Ok(_), Err(error)) => assert!(matches!(error, TokenError::Issuer | TokenError::Audience)),
        (Err(lax), strict) => assert!(
            strict.is_err_and(|strict| strict == *lax || matches!(strict, TokenError::Issuer | TokenError::Audience))
        ),
    }
    if let Err(error) = lax {
        assert_telling(&error.to_string(), 40);
    }
    lax
}

fn check_claims(claims: &Claims, read: &Value) {
    assert_eq!(read["sub"], &*claims.user);
    assert!(ids::is_user_id(&claims.user));
    assert_eq!(read["exp"].as_u64(), Some(claims.expires_at_unix_s));
    assert!(claims.expires_at_unix_s.saturating_add(limits::TOKEN_LEEWAY_SECONDS) >= NOW);
    assert_eq!(read["tenant_id"].as_str(), claims.tenant.as_deref());
    assert!(claims.tenant.as_deref().is_none_or(|tenant| TenantId::parse(tenant).is_some()));
    let roles: Vec<&str> = read["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(roles, claims.roles.iter().map(|role| &**role).collect::<Vec<_>>());
    assert!(claims.id.as_deref().is_none_or(|id| id.len() <= limits::TOKEN_ID_BYTES_MAX));
    assert_eq!(read["channels"].is_array(), claims.channels.is_some());
    if let (Some(rules), Some(patterns)) = (&claims.channels, read["channels"].as_array()) {
        for pattern in patterns.iter().filter_map(Value::as_str) {
            let name = pattern.strip_suffix('*').map_or(pattern.to_owned(), |prefix| format!("{prefix}x"));
            assert!(rules.allow(&name), "{pattern} lets {name} in");
        }
    }
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", base64url(header), base64url(claims));
    let signature = sign(&message);
    format!("{message}.{signature}")
}

fn sign(message: &str) -> String {
    let key = EncodingKey::from_secret(SECRET);
    crypto::sign(message.as_bytes(), &key, Signing::HS256).expect("HMAC signs anything")
}

/// RFC 4648 §5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 3);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 0x3f) as usize]));
        }
    }
    out
}
