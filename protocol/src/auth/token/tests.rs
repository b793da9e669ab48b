//! Conversations with a verifier. The keys were made for these tests and open nothing.
use super::*;
use serde_json::{Value, json};

const NOW: u64 = 1_767_323_045;
const SECRET: &[u8] = b"a secret of thirty-two bytes, ok";

const RSA_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQDSES+XFbihpwXs
3W/tNwnCMpjLpZUH9sepJsnJ1hLxpkHYuTEmMSd8TBXCoKA5hP/+0wMAXmBMJWl6
QbXDStvzRylJ4nqFEuj21qpLt6XDTZ8wn56qdNfGyl0NMWo1fFEoeMcEEX4AFLEZ
mKHl4MdGo2sqQVAVRzIlVOlvZ9cL7bc0Q5CloOuiTBOD/IDhw5oEAdeBRHAm2uRq
Uw52rERtS5iEdnHn/4OW26iCqfsxeoUelps5uYCYttiCgFeQEmDrUTGo9RDhH+ef
DEbgR3TNBkXxhxJ8b2ta1x1f/7j9dLzc3k1ON1/zoNtH9s55Qlhnndpshr/LuPeU
XuB7esorAgMBAAECggEAYBwl0nHJMgipYNhla7pZOCUPHGlrOKQTcJRDEZnku/Pt
v3rnfkpR/wAOmqgD9p0fxNaFUodbdqtNSXbD8xCOdo1x2hCJLtZaiQjpDFB/Qk6C
zWvSW7muuZB/p1ga+FKjDSnJIFbid6X/6y6WsAa6FdsR3ljYi4ux6Tuiu+peDOHG
b+uVN8pcROFMk+REtDV4QFVVb7e1S/C/jC+QQ6aPzU5YXStn/QMUuGa75btkc6j0
wL0yV4TlbveA1gQ+xRuZTecywX2yvqFj2wcbzagel/kTy3z3JkLjPkjOLvG1M9Au
TcU2WFj2waWaUG0M2avUg06VSDl3pfLwr5ALkwXkvQKBgQD+IAHAop1iRaIykOyh
AylenE8d7fx0l0v/LI+sFx4+3ErTgOInz/jtodKpcfZPtqPAG0r6oxhnfix1waWn
b4yM36aipWY4R0n1Qpl+W7akJJdSsyZcujRDZw/ntMDTOsz+2a0IUrDQUeoP5dR0
WAYiRC9iVbi6msPEszymoF+Y5QKBgQDTnfZSFMRzXvbEBraDbEwzoP1tiJCo+4E4
7cWrJayz2Tj3xDflmdzl86O9jABgKebju/nOHTQVkxGF2hHdcCfKQcy/JwC5i9zQ
wdwpbXEd1p8C2Ih2/u4LCafdFEPgxi6tD6p8xIOpXz6gRHmoHJfo2FQUAuNqvWlX
PvUPZr/1zwKBgBrITsb5nHKt+hEwOvAhQCvrd18lJNU42NaU4LN3YEWpu+0ciTk+
7vJEespG63mtOwbVGYrew4SsxIzIkufZlsuGCq7blbFaug2yLjEmA1K7VINvxBxD
t5xe8UsvPp9EdDRrxpO4+0+JQozYYRK98C+OVhwcArMP+o/xf/PjtQ+NAoGAcN80
XxuMnSzt2ijqeLbu/irEggPxhPCBQGgyotL5hwQ6Co2yctjaphyKHbPrD1/KM3Y0
C+gvu8Ix+n8SQFZuIsdt+hdHn7AmG4MLd11UlGHBdrcgMrhPJ7wCuTzx55ZNlylf
+iSnRVP0B2/+o9h8fknErtfLjUdyRILkG07m3KkCgYApvRaGa9QldoAD8qpxmBG1
8LPLr31xRbcaxBp6V6Pf8t0b+o33ury37K9GPoRTdiq73zEVvmMFo4iKJ+IVXZ/H
6pfuS8HQO/ZMy5PFybEN5btgXgYaaCkvdQ7MSYnoZEuNOncUkZFbFWPTOBrWa+aP
FrCOStcuKYVVJnfqyRcETg==
-----END PRIVATE KEY-----
";
const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA0hEvlxW4oacF7N1v7TcJ
wjKYy6WVB/bHqSbJydYS8aZB2LkxJjEnfEwVwqCgOYT//tMDAF5gTCVpekG1w0rb
80cpSeJ6hRLo9taqS7elw02fMJ+eqnTXxspdDTFqNXxRKHjHBBF+ABSxGZih5eDH
RqNrKkFQFUcyJVTpb2fXC+23NEOQpaDrokwTg/yA4cOaBAHXgURwJtrkalMOdqxE
bUuYhHZx5/+Dltuogqn7MXqFHpabObmAmLbYgoBXkBJg61ExqPUQ4R/nnwxG4Ed0
zQZF8YcSfG9rWtcdX/+4/XS83N5NTjdf86DbR/bOeUJYZ53abIa/y7j3lF7ge3rK
KwIDAQAB
-----END PUBLIC KEY-----
";
const RSA_1024_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC1eXbfqqZijkVW+OWiPhxzc8ra
PO1YysIXWW//+vh2xq928XGkyyaoz+1IRpp/utZ5CxZNanHzbsgWtfs9udobsL0U
kJgSWJVB0ygaMUh4Lu+bBRq5jM9VqZGYykpCbyUS+6tMowx7WDqwwFynLDnCE//V
zm/h800I8SWBNepFBQIDAQAB
-----END PUBLIC KEY-----
";
const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgz0oPtpnQdMiPYHiC
NZ4qDr86bRKKccdomTy3sdAQKWyhRANCAATgdBLQzdx6q/6xYcrsdnT7fPkpFh8t
1S8UdzjD/V6NOOD3wcnZsVqZthAhf2nhbUxxVVqoD2/6FJ+m+al0m5/t
-----END PRIVATE KEY-----
";
const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE4HQS0M3ceqv+sWHK7HZ0+3z5KRYf
LdUvFHc4w/1ejTjg98HJ2bFambYQIX9p4W1McVVaqA9v+hSfpvmpdJuf7Q==
-----END PUBLIC KEY-----
";
const P384_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEUjyLY8HWW8fTcFADr25tk8hAij0l8on8
tz0MAOob83sR0Js0pdnKGPy0DdnSEBXW1XD2J85ryZctVajwB+moPR/+qqqIFNVv
ISqPQghpRsDlabakSoke26llpt8rbzGI
-----END PUBLIC KEY-----
";

fn config(algorithm: Algorithm) -> VerifierConfig<'static> {
    VerifierConfig {
        algorithm,
        secret: Some(SECRET),
        public_key_pem: Some(if algorithm == Algorithm::Es256 { P256_PUBLIC } else { RSA_PUBLIC }.as_bytes()),
        issuer: None,
        audience: None,
    }
}

fn verifier() -> Verifier {
    Verifier::new(&config(Algorithm::Hs256)).unwrap()
}

fn signed(claims: &Value) -> String {
    signed_with(Header::new(jsonwebtoken::Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET))
}

fn signed_with(header: Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

/// A token whose header and claims are already encoded.
fn signed_raw(header: &str, claims: &str) -> String {
    let message = format!("{header}.{claims}");
    let key = EncodingKey::from_secret(SECRET);
    let signature = crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

/// Valid claims with some replaced; `null` removes.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "ana", "exp": NOW + 10, "iat": NOW});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims(json!({}));
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn a_minted_token_is_understood() {
    let minted = MintClaims {
        sub: "ana".to_owned(),
        exp: NOW + 10,
        iat: NOW,
        roles: vec!["admin".to_owned()],
        tenant_id: Some("acme".to_owned()),
        iss: Some("us".to_owned()),
        aud: Some("them".to_owned()),
        jti: Some("t-1".to_owned()),
        channels: Some(vec!["orders".to_owned(), "news.*".to_owned()]),
    };
    let expected = Claims {
        user: "ana".into(),
        tenant: Some("acme".into()),
        roles: ["admin".into()].into(),
        expires_at_unix_s: NOW + 10,
        issued_at_unix_s: Some(NOW),
        id: Some("t-1".into()),
        channels: ChannelRules::new(vec!["news.*".into(), "orders".into()]),
    };
    assert_eq!(verifier().verify(&mint_hs256(SECRET, &minted), NOW), Ok(expected));
    let bare = verifier().verify(&signed(&claims(json!({"tenant_id": null, "sub": ""}))), NOW).unwrap();
    assert_eq!((&*bare.user, bare.tenant, bare.roles.len()), ("", None, 0));
}

#[test]
fn exp_is_given_sixty_seconds_and_nbf_as_many() {
    let exp = signed(&claims(json!({"exp": NOW})));
    assert!(verifier().verify(&exp, NOW + 60).is_ok());
    assert_eq!(verifier().verify(&exp, NOW + 61), Err(TokenError::Expired));
    let nbf = signed(&claims(json!({"nbf": NOW})));
    assert!(verifier().verify(&nbf, NOW - 60).is_ok());
    assert_eq!(verifier().verify(&nbf, NOW - 61), Err(TokenError::NotYetValid));
    assert!(verifier().verify(&signed(&claims(json!({"exp": u64::MAX, "nbf": -1}))), NOW).is_ok());
    assert!(verifier().verify(&signed(&claims(json!({"iat": NOW + 999}))), NOW).is_ok());
    assert!(verifier().verify(&signed(&without("iat")), NOW).is_ok());
}

#[test]
fn claims_are_read_strictly() {
    let rows = [
        without("sub"),
        without("exp"),
        claims(json!({"sub": null})),
        claims(json!({"sub": 5})),
        claims(json!({"sub": "x".repeat(256)})),
        claims(json!({"exp": null})),
        claims(json!({"exp": 1e10})),
        claims(json!({"exp": "1767323045"})),
        claims(json!({"exp": -1})),
        claims(json!({"nbf": 1.5})),
        claims(json!({"nbf": "1"})),
        claims(json!({"roles": null})),
        claims(json!({"roles": "admin"})),
        claims(json!({"roles": [1]})),
        claims(json!({"tenant_id": 5})),
        claims(json!({"tenant_id": ""})),
        claims(json!({"tenant_id": "a:b"})),
        claims(json!({"tenant_id": " acme"})),
        claims(json!({"tenant_id": "x".repeat(65)})),
        claims(json!({"jti": true})),
        claims(json!({"jti": 1.5})),
        claims(json!({"jti": ["a"]})),
        claims(json!({"jti": "x".repeat(257)})),
        claims(json!({"channels": null})),
        claims(json!({"channels": "orders"})),
        claims(json!({"channels": {"orders": 1}})),
        claims(json!({"channels": [1]})),
        claims(json!({"channels": ["orders", "*"]})),
        claims(json!({"channels": ["a b"]})),
        claims(json!({"channels": (0..129).map(|n| n.to_string()).collect::<Vec<_>>()})),
        json!("ana"),
    ];
    for row in rows {
        assert_eq!(verifier().verify(&signed(&row), NOW), Err(TokenError::Claims), "{row}");
    }
    assert!(verifier().verify(&signed(&claims(json!({"sub": "x".repeat(255), "extra": [1]}))), NOW).is_ok());
}

#[test]
fn what_a_token_may_be_revoked_by_is_read_as_it_is_meant() {
    let read = |changes: Value| {
        let claims = verifier().verify(&signed(&claims(changes)), NOW).unwrap();
        (claims.issued_at_unix_s, claims.id, claims.channels)
    };
    let rows = [
        (json!({"iat": 7}), Some(7)),
        (json!({"iat": 7.9}), Some(7)),
        (json!({"iat": -7}), Some(0)),
        (json!({"iat": null}), None),
        (json!({"iat": "7"}), None),
        (json!({"iat": [7]}), None),
    ];
    for (changes, expected) in rows {
        assert_eq!(read(changes.clone()).0, expected, "{changes}");
    }
    assert_eq!(verifier().verify(&signed(&without("iat")), NOW).unwrap().issued_at_unix_s, None);
    let rows = [
        (json!({"jti": "a"}), Some("a")),
        (json!({"jti": ""}), Some("")),
        (json!({"jti": 17}), Some("17")),
        (json!({"jti": -17}), Some("-17")),
        (json!({"jti": u64::MAX}), Some("18446744073709551615")),
        (json!({"jti": null}), None),
        (json!({}), None),
    ];
    for (changes, expected) in rows {
        assert_eq!(read(changes.clone()).1.as_deref(), expected, "{changes}");
    }
    assert_eq!(read(json!({})).2, None, "everything");
    let nothing = read(json!({"channels": []})).2.expect("an empty list is a list");
    assert!(!nothing.allow("orders"));
    let some = read(json!({"channels": ["orders", "news.*"]})).2.expect("a list");
    assert!(some.allow("orders") && some.allow("news.eu") && !some.allow("news"));
}

#[test]
fn issuer_and_audience_are_required_when_configured() {
    let strict =
        Verifier::new(&VerifierConfig { issuer: Some("us"), audience: Some("them"), ..config(Algorithm::Hs256) })
            .unwrap();
    let rows = [
        (json!({"iss": "us", "aud": "them"}), Ok(())),
        (json!({"iss": ["x", "us"], "aud": ["them", "x"]}), Ok(())),
        (json!({"aud": "them"}), Err(TokenError::Issuer)),
        (json!({"iss": "x", "aud": "them"}), Err(TokenError::Issuer)),
        (json!({"iss": ["x"], "aud": "them"}), Err(TokenError::Issuer)),
        (json!({"iss": [], "aud": "them"}), Err(TokenError::Issuer)),
        (json!({"iss": null, "aud": "them"}), Err(TokenError::Issuer)),
        (json!({"iss": {"us": 1}, "aud": "them"}), Err(TokenError::Issuer)),
        (json!({"iss": "us"}), Err(TokenError::Audience)),
        (json!({"iss": "us", "aud": "x"}), Err(TokenError::Audience)),
        (json!({"iss": "us", "aud": 5}), Err(TokenError::Audience)),
    ];
    for (changes, expected) in rows {
        let token = signed(&claims(changes.clone()));
        assert_eq!(strict.verify(&token, NOW).map(|_| ()), expected, "{changes}");
        assert!(verifier().verify(&token, NOW).is_ok(), "not configured, not looked at: {changes}");
    }
}

#[test]
fn each_algorithm_takes_its_own_tokens_only() {
    let keys = [
        (Algorithm::Hs256, EncodingKey::from_secret(SECRET)),
        (Algorithm::Hs384, EncodingKey::from_secret(SECRET)),
        (Algorithm::Hs512, EncodingKey::from_secret(SECRET)),
        (Algorithm::Rs256, EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap()),
        (Algorithm::Es256, EncodingKey::from_ec_pem(P256_PRIVATE.as_bytes()).unwrap()),
    ];
    for (accepted, _) in &keys {
        let verifier = Verifier::new(&config(*accepted)).unwrap();
        for (used, key) in &keys {
            let token = signed_with(Header::new(used.library()), &claims(json!({})), key);
            let expected = if used == accepted { Ok(()) } else { Err(TokenError::WrongAlgorithm) };
            assert_eq!(verifier.verify(&token, NOW).map(|_| ()), expected, "{used:?} for {accepted:?}");
        }
        assert_eq!(Algorithm::parse(accepted.as_str()), Some(*accepted));
    }
    for name in ["", "hs256", "none", "RS512", "ES384", "EdDSA"] {
        assert_eq!(Algorithm::parse(name), None, "{name}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let verifier = Verifier::new(&config(Algorithm::Rs256)).unwrap();
    let header = Header::new(jsonwebtoken::Algorithm::HS256);
    let forged = signed_with(header, &claims(json!({})), &EncodingKey::from_secret(RSA_PUBLIC.as_bytes()));
    assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::WrongAlgorithm));
}

#[test]
fn unsigned_and_tampered_tokens_are_refused() {
    let token = signed(&claims(json!({})));
    let parts: Vec<&str> = token.split('.').collect();
    let other = signed(&claims(json!({"sub": "eve"})));
    let swapped = format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2]);
    let foreign = mint_hs256(b"another secret", &MintClaims { exp: NOW + 10, ..MintClaims::default() });
    let rows = [
        // {"alg":"none"}
        (format!("eyJhbGciOiJub25lIn0.{}.", parts[1]), TokenError::WrongAlgorithm),
        (format!("eyJhbGciOiJub25lIn0.{}.{}", parts[1], parts[2]), TokenError::WrongAlgorithm),
        // {"alg":"HS256"}
        (format!("eyJhbGciOiJIUzI1NiJ9.{}.", parts[1]), TokenError::BadSignature),
        (swapped, TokenError::BadSignature),
        (foreign, TokenError::BadSignature),
        (format!("{}.{}", parts[0], parts[1]), TokenError::Malformed),
        (format!("{token}.x"), TokenError::Malformed),
        (format!("{token}="), TokenError::Malformed),
        (format!(" {token}"), TokenError::Malformed),
        (String::new(), TokenError::Malformed),
        ("a.b.c".to_owned(), TokenError::Malformed),
        ("..".to_owned(), TokenError::Malformed),
        ("é.é.é".to_owned(), TokenError::Malformed),
    ];
    for (token, reason) in rows {
        assert_eq!(verifier().verify(&token, NOW), Err(reason), "{token}");
    }
}

#[test]
fn long_tokens_are_not_looked_at() {
    let padded = |bytes: usize| signed(&claims(json!({"x": "x".repeat(bytes)})));
    let fits = padded(5_900);
    assert!(fits.len() <= limits::TOKEN_BYTES_MAX && verifier().verify(&fits, NOW).is_ok());
    assert_eq!(verifier().verify(&padded(6_200), NOW), Err(TokenError::Malformed));
}

#[test]
fn critical_headers_are_refused() {
    for crit in [vec![], vec!["exp".to_owned()]] {
        let header = Header { crit: Some(crit), ..Header::new(jsonwebtoken::Algorithm::HS256) };
        let token = signed_with(header, &claims(json!({})), &EncodingKey::from_secret(SECRET));
        assert_eq!(verifier().verify(&token, NOW), Err(TokenError::Critical));
    }
    // {"alg":"HS256","crit":null}, and the same without it.
    let token = signed(&claims(json!({})));
    let claims = token.split('.').nth(1).unwrap();
    assert_eq!(
        verifier().verify(&signed_raw("eyJhbGciOiJIUzI1NiIsImNyaXQiOm51bGx9", claims), NOW),
        Err(TokenError::Critical)
    );
    assert!(verifier().verify(&signed_raw("eyJhbGciOiJIUzI1NiJ9", claims), NOW).is_ok());
}

#[test]
fn a_wrong_key_stops_the_start() {
    let keyed = |algorithm, pem: Option<&'static str>| {
        let pem = pem.map(str::as_bytes);
        Verifier::new(&VerifierConfig { public_key_pem: pem, ..config(algorithm) }).map(|_| ())
    };
    let rows = [
        (Algorithm::Rs256, None, Err(KeyError::NoPublicKey(Algorithm::Rs256))),
        (Algorithm::Es256, None, Err(KeyError::NoPublicKey(Algorithm::Es256))),
        (Algorithm::Rs256, Some("nonsense"), Err(KeyError::NotRsa)),
        (Algorithm::Rs256, Some(RSA_PRIVATE), Err(KeyError::NotRsa)),
        (Algorithm::Rs256, Some(P256_PUBLIC), Err(KeyError::NotRsa)),
        (Algorithm::Rs256, Some(RSA_1024_PUBLIC), Err(KeyError::RsaTooShort { bits: 1_024 })),
        (Algorithm::Rs256, Some(RSA_PUBLIC), Ok(())),
        (Algorithm::Es256, Some(RSA_PUBLIC), Err(KeyError::NotP256)),
        (Algorithm::Es256, Some(P256_PRIVATE), Err(KeyError::NotP256)),
        (Algorithm::Es256, Some(P384_PUBLIC), Err(KeyError::NotP256)),
        (Algorithm::Es256, Some(P256_PUBLIC), Ok(())),
        (Algorithm::Hs512, None, Ok(())),
    ];
    for (algorithm, pem, expected) in rows {
        assert_eq!(keyed(algorithm, pem), expected, "{algorithm:?} {pem:?}");
    }
    for secret in [None, Some(&b""[..])] {
        let made = Verifier::new(&VerifierConfig { secret, ..config(Algorithm::Hs256) });
        assert_eq!(made.map(|_| ()), Err(KeyError::NoSecret(Algorithm::Hs256)));
    }
    assert!(!format!("{:?}", verifier()).contains("secret"));
}
