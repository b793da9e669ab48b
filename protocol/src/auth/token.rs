//! Tokens of clients (contract §2, C-7): a JWT says who connects. The only module that names `jsonwebtoken`.
use super::channels::ChannelRules;
use crate::ids::{self, TenantId};
use crate::limits;
use jsonwebtoken::crypto::{self, rust_crypto};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The shortest RSA modulus that RFC 7518 §3.3 allows.
const RSA_BITS_MIN: usize = 2_048;

/// Who a valid token says the client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// `sub`; may be empty.
    pub user: Box<str>,
    /// `tenant_id` as given, a well-formed tenant name. It means nothing while tenancy is off.
    pub tenant: Option<Box<str>>,
    /// `roles`, for audiences.
    pub roles: Box<[Box<str>]>,
    /// `exp`: the connection ends then (C-7). Seconds since the Unix epoch, without leeway.
    pub expires_at_unix_s: u64,
    /// `iat`, in whole seconds since the Unix epoch. `None` when it is no such number: whatever revokes tokens of a time
    /// revokes those that do not tell theirs.
    pub issued_at_unix_s: Option<u64>,
    /// `jti`: the name that the token can be revoked by. At most [`limits::TOKEN_ID_BYTES_MAX`] bytes.
    pub id: Option<Box<str>>,
    /// `channels`: what may be subscribed to; `None` is everything.
    pub channels: Option<ChannelRules>,
}

/// How tokens are signed. One is chosen by configuration and no other is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256, the default.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl Algorithm {
    /// The name as RFC 7518 spells it, letter case included.
    pub fn parse(name: &str) -> Option<Algorithm> {
        [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512, Algorithm::Rs256, Algorithm::Es256]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    /// The name as RFC 7518 spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        }
    }

    fn library(self) -> jsonwebtoken::Algorithm {
        match self {
            Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::Hs384 => jsonwebtoken::Algorithm::HS384,
            Algorithm::Hs512 => jsonwebtoken::Algorithm::HS512,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        }
    }
}

/// What a verifier is made of.
#[derive(Clone, Copy)]
pub struct VerifierConfig<'a> {
    /// The one accepted algorithm.
    pub algorithm: Algorithm,
    /// For the HS algorithms.
    pub secret: Option<&'a [u8]>,
    /// For RS256 and ES256.
    pub public_key_pem: Option<&'a [u8]>,
    /// Required of `iss` when given.
    pub issuer: Option<&'a str>,
    /// Required of `aud` when given.
    pub audience: Option<&'a str>,
}

/// Why no verifier can be made: the operator's doing, told at the start. Never holds key material.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// An HS algorithm without a secret, or with an empty one.
    NoSecret(Algorithm),
    /// RS256 or ES256 without a public key.
    NoPublicKey(Algorithm),
    /// The key is no RSA public key in PEM, or longer than 4096 bits.
    NotRsa,
    /// The RSA key is shorter than RFC 7518 §3.3 allows.
    RsaTooShort {
        /// Bits of its modulus.
        bits: usize,
    },
    /// The key is no P-256 public key in PEM.
    NotP256,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::NoSecret(algorithm) => write!(f, "{} needs a secret that is not empty", algorithm.as_str()),
            KeyError::NoPublicKey(algorithm) => write!(f, "{} needs a public key in PEM", algorithm.as_str()),
            KeyError::NotRsa => f.write_str("RS256 needs an RSA public key in PEM of at most 4096 bits; this is none"),
            KeyError::RsaTooShort { bits } => {
                write!(f, "RS256 needs an RSA key of at least {RSA_BITS_MIN} bits; this one has {bits}")
            }
            KeyError::NotP256 => f.write_str("ES256 needs a P-256 public key in PEM; this is none"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Why a token was refused: a short reason for the log. The client is only told `Invalid token`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Not three base64url parts with a JSON header, or longer than [`limits::TOKEN_BYTES_MAX`].
    Malformed,
    /// Signed, or said to be, with another algorithm than the configured one.
    WrongAlgorithm,
    /// The header has `crit`: extensions that must be understood, and we know none (RFC 7515 §4.1.11).
    Critical,
    /// Not signed with our key.
    BadSignature,
    /// A claim is missing, ill-typed or beyond its bound.
    Claims,
    /// `exp` is more than [`limits::TOKEN_LEEWAY_SECONDS`] ago.
    Expired,
    /// `nbf` is more than [`limits::TOKEN_LEEWAY_SECONDS`] ahead.
    NotYetValid,
    /// `iss` is not, or does not hold, the configured issuer.
    Issuer,
    /// `aud` is not, or does not hold, the configured audience.
    Audience,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenError::Malformed => "malformed",
            TokenError::WrongAlgorithm => "wrong algorithm",
            TokenError::Critical => "critical header",
            TokenError::BadSignature => "bad signature",
            TokenError::Claims => "bad claims",
            TokenError::Expired => "expired",
            TokenError::NotYetValid => "not yet valid",
            TokenError::Issuer => "wrong issuer",
            TokenError::Audience => "wrong audience",
        })
    }
}

impl std::error::Error for TokenError {}

/// Checks tokens. Made once at the start; any number of threads may share it.
pub struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
}

impl fmt::Debug for Verifier {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Reads the key and makes sure that it suits the algorithm, so that a wrong file stops the start and not every
    /// client.
    pub fn new(config: &VerifierConfig<'_>) -> Result<Verifier, KeyError> {
        let algorithm = config.algorithm;
        let pem = || config.public_key_pem.ok_or(KeyError::NoPublicKey(algorithm));
        let key = match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                let secret = config.secret.filter(|secret| !secret.is_empty());
                DecodingKey::from_secret(secret.ok_or(KeyError::NoSecret(algorithm))?)
            }
            Algorithm::Rs256 => rsa_key(pem()?)?,
            Algorithm::Es256 => p256_key(pem()?)?,
        };
        let mut validation = Validation::new(algorithm.library());
        // The claims are checked below: by the clock we are given, and with issuer and audience required when set.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let (issuer, audience) = (config.issuer.map(Box::from), config.audience.map(Box::from));
        Ok(Verifier { algorithm, key, validation, issuer, audience })
    }

    /// What takes the tokens of [`mint_hs256`], whoever issued them and for whom.
    pub fn hs256(secret: &[u8]) -> Result<Verifier, KeyError> {
        let (algorithm, secret) = (Algorithm::Hs256, Some(secret));
        Verifier::new(&VerifierConfig { algorithm, secret, public_key_pem: None, issuer: None, audience: None })
    }

    /// Checks a token at `now_unix_seconds`: signature first, then claims.
    pub fn verify(&self, token: &str, now_unix_seconds: u64) -> Result<Claims, TokenError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        self.check_header(token)?;
        let claims = jsonwebtoken::decode::<RawClaims>(token, &self.key, &self.validation).map_err(refusal)?.claims;
        if now_unix_seconds > claims.exp.saturating_add(limits::TOKEN_LEEWAY_SECONDS) {
            return Err(TokenError::Expired);
        }
        let not_before = claims.nbf.map_or(0, |nbf| u64::try_from(nbf).unwrap_or(0));
        if not_before > now_unix_seconds.saturating_add(limits::TOKEN_LEEWAY_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        if !OneOrMany::satisfies(&claims.iss, self.issuer.as_deref()) {
            return Err(TokenError::Issuer);
        }
        if !OneOrMany::satisfies(&claims.aud, self.audience.as_deref()) {
            return Err(TokenError::Audience);
        }
        let is_tenant = |name: &str| TenantId::parse(name).is_some_and(|tenant| tenant.as_str() == name);
        if !ids::is_user_id(&claims.sub) || !claims.tenant_id.as_deref().is_none_or(is_tenant) {
            return Err(TokenError::Claims);
        }
        Ok(Claims {
            user: claims.sub,
            tenant: claims.tenant_id,
            roles: claims.roles.into_boxed_slice(),
            expires_at_unix_s: claims.exp,
            issued_at_unix_s: claims.iat,
            id: claims.jti,
            channels: claims.channels,
        })
    }

    /// Algorithm and `crit`, from the raw header: the library takes an algorithm it does not know, `none` included,
    /// for a broken header, and leaves `crit` to us.
    fn check_header(&self, token: &str) -> Result<(), TokenError> {
        let (header, _) = token.split_once('.').ok_or(TokenError::Malformed)?;
        // The library decodes the middle part of a token into any type; its base64 is ours to use that way.
        let header: RawHeader = jsonwebtoken::dangerous::insecure_decode_claims(format!("e30.{header}.e30"))
            .map_err(|_| TokenError::Malformed)?;
        if &*header.alg != self.algorithm.as_str() {
            return Err(TokenError::WrongAlgorithm);
        }
        if header.crit { Err(TokenError::Critical) } else { Ok(()) }
    }
}

fn rsa_key(pem: &[u8]) -> Result<DecodingKey, KeyError> {
    let key = DecodingKey::from_rsa_pem(pem).map_err(|_| KeyError::NotRsa)?;
    let der = key.try_get_as_bytes().map_err(|_| KeyError::NotRsa)?;
    let components = rust_crypto::DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key;
    let (modulus, _) = components(der).map_err(|_| KeyError::NotRsa)?;
    let leading_zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - leading_zeros;
    if bits < RSA_BITS_MIN { Err(KeyError::RsaTooShort { bits }) } else { Ok(key) }
}

fn p256_key(pem: &[u8]) -> Result<DecodingKey, KeyError> {
    let key = DecodingKey::from_ec_pem(pem).map_err(|_| KeyError::NotP256)?;
    // An empty signature is never right, but a key of another curve is already an error.
    crypto::verify("", b"", &key, jsonwebtoken::Algorithm::ES256).map_err(|_| KeyError::NotP256)?;
    Ok(key)
}

fn refusal(error: Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::InvalidAlgorithm => TokenError::WrongAlgorithm,
        ErrorKind::Json(_) => TokenError::Claims,
        _ => TokenError::Malformed,
    }
}

#[derive(Deserialize)]
struct RawHeader {
    alg: Box<str>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

/// Whether a field is there, whatever its value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// The claims we look at; all others are ignored.
#[derive(Deserialize)]
struct RawClaims {
    sub: Box<str>,
    exp: u64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    roles: Vec<Box<str>>,
    #[serde(default)]
    tenant_id: Option<Box<str>>,
    #[serde(default)]
    iss: OneOrMany,
    #[serde(default)]
    aud: OneOrMany,
    #[serde(default, deserialize_with = "whole_seconds")]
    iat: Option<u64>,
    #[serde(default, deserialize_with = "token_id")]
    jti: Option<Box<str>>,
    // Absent is everything, so `null` must not be absent.
    #[serde(default, deserialize_with = "channel_rules")]
    channels: Option<ChannelRules>,
}

/// A number that may have a fraction, as some libraries write times. Nothing depended on `iat` before tokens could be
/// revoked, so whatever else stands there is no reason to refuse a token.
fn whole_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Seconds {
        Whole(u64),
        Broken(f64),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Seconds::deserialize(deserializer)? {
        Seconds::Whole(seconds) => Some(seconds),
        // Of a negative one nothing is left, and what is too large is as late as can be.
        Seconds::Broken(seconds) if seconds.is_finite() => Some(seconds as u64),
        Seconds::Broken(_) | Seconds::Other(_) => None,
    })
}

/// A text, or a whole number for its text. Anything else, or longer than its bound, could never be revoked, and is refused.
fn token_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Id {
        Text(Box<str>),
        Number(i64),
        LargeNumber(u64),
    }
    let id = match Option::<Id>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Id::Text(text)) => text,
        Some(Id::Number(number)) => number.to_string().into(),
        Some(Id::LargeNumber(number)) => number.to_string().into(),
    };
    if id.len() > limits::TOKEN_ID_BYTES_MAX {
        return Err(serde::de::Error::custom("jti is too long"));
    }
    Ok(Some(id))
}

fn channel_rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ChannelRules>, D::Error> {
    let rules = ChannelRules::new(Vec::deserialize(deserializer)?);
    rules.map(Some).ok_or_else(|| serde::de::Error::custom("not names of channels"))
}

/// `iss` and `aud` are a string or an array of strings; anything else is only wrong when we ask for one.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(Box<str>),
    Many(Vec<Box<str>>),
    Other(serde::de::IgnoredAny),
    #[default]
    #[serde(skip)]
    Absent,
}

impl OneOrMany {
    fn satisfies(&self, wanted: Option<&str>) -> bool {
        match (wanted, self) {
            (None, _) => true,
            (Some(wanted), OneOrMany::One(one)) => &**one == wanted,
            (Some(wanted), OneOrMany::Many(many)) => many.iter().any(|one| &**one == wanted),
            (Some(_), OneOrMany::Other(_) | OneOrMany::Absent) => false,
        }
    }
}

/// The claims of a token of our own making, for development and tools.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MintClaims {
    /// The user.
    pub sub: String,
    /// End of its life, in seconds since the Unix epoch.
    pub exp: u64,
    /// When it was made, in seconds since the Unix epoch.
    pub iat: u64,
    /// For audiences.
    pub roles: Vec<String>,
    /// The tenant, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The issuer, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The audience, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The name it can be revoked by, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// What it lets its holder subscribe to; `None` is everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<String>>,
}

/// Signs a token with HS256.
pub fn mint_hs256(secret: &[u8], claims: &MintClaims) -> String {
    let header = Header::new(jsonwebtoken::Algorithm::HS256);
    // HMAC takes a key of any length and plain fields always become JSON, so nothing here can fail.
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).expect("HS256 signs any plain claims")
}

#[cfg(test)]
mod tests;
