//! Requests and tokens that want to be taken for something they are not (RFC 9112, RFC 6455 §4.2, RFC 8725).
use crate::support::http::request;
use crate::support::process::Folder;
use crate::support::server::Server;
use crate::support::token;
use crate::support::ws::{RawWs, Ws, handshake};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use serde_json::{Value, json};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const SEND: &str = "/api/v1/notifications/send";

/// Made for these tests, and opens nothing.
const P256_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg001VlrirD5GqqABd
DYMPKAKPB1aguOi2pmrJVlRGxrehRANCAAQ619iNvW4eWDw3pUOh5QMBBmPEvmjI
vo1dKPvHZYtRvpQowgLji1Q/sf+1YPe+lZ3Ntdb5EpTfX4wGci3OMSTv
-----END PRIVATE KEY-----
";
const P256_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEOtfYjb1uHlg8N6VDoeUDAQZjxL5o
yL6NXSj7x2WLUb6UKMIC44tUP7H/tWD3vpWdzbXW+RKU31+MBnItzjEk7w==
-----END PUBLIC KEY-----
";

#[test]
fn who_speaks_another_version_is_told_ours() {
    let server = Server::start();
    let good = handshake(&format!("/ws?token={}", token::of("ana")), &[]);
    let line = "Sec-WebSocket-Version: 13\r\n";
    for other in ["", "0", "7", "8", "14", "013", "13, 8", "13x", "+13", "thirteen"] {
        let said = match other {
            "" => good.replace(line, ""),
            other => good.replace(line, &format!("Sec-WebSocket-Version: {other}\r\n")),
        };
        let mut connection = server.connect();
        connection.send(said);
        let response = connection.read();
        response.refusal(426, "BAD_REQUEST");
        assert_eq!(response.header("sec-websocket-version"), Some("13"), "{other:?}");
        assert_eq!(response.header("upgrade"), Some("websocket"), "{other:?}");
        let options = response.header("connection").unwrap_or_default().to_ascii_lowercase();
        assert!(options.contains("upgrade") && options.contains("close"), "{other:?}: {options}");
        connection.expect_end();
    }
}

#[test]
fn a_handshake_is_whole_or_none() {
    let server = Server::start();
    let good = handshake(&format!("/ws?token={}", token::of("ana")), &[]);
    let keyed = |key: &str| good.replace(KEY, key);
    let rows = [
        ("a key of 15 bytes", keyed("dGhlIHNhbXBsZSBub25j")),
        ("a key of 17 bytes", keyed("dGhlIHNhbXBsZSBub25jZSE=")),
        ("a key without its pads", keyed("dGhlIHNhbXBsZSBub25jZQ")),
        ("a key of another alphabet", keyed("dGhlIHNhbXBsZSBub25j-_==")),
        ("a key with a blank", keyed("dGhlIHNhbXBsZSBub25 ZQ==")),
        ("a key that goes on", keyed("dGhlIHNhbXBsZSBub25jZQ==AAAA")),
        ("an empty key", keyed("")),
        ("two keys", keyed(&format!("{KEY}\r\nSec-WebSocket-Key: {KEY}"))),
        ("two versions", good.replace("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13")),
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0")),
        ("an option that only ends so", good.replace("Connection: Upgrade", "Connection: no-upgrade")),
        ("a protocol that only begins so", good.replace("Upgrade: websocket", "Upgrade: websocketx")),
    ];
    for (what, said) in rows {
        let mut connection = server.connect();
        connection.send(said);
        let response = connection.read();
        assert_eq!(response.status, 400, "{what}: {}", response.text());
        response.refusal(400, "BAD_REQUEST");
        connection.expect_end();
    }
    // HEAD and POST find no handshake there.
    for method in ["HEAD", "POST", "PUT"] {
        let mut connection = server.connect();
        connection.send(good.replacen("GET", method, 1));
        let status = connection.read_head().status;
        assert!(matches!(status, 400 | 405), "{method}: {status}");
    }
    assert_eq!(server.get("/health").ok()["connections"]["total"], 0);
}

/// Each of these ends differently for a reader who is kinder than RFC 9112 allows: what follows would be a request of its
/// own for one of the two. Here it is never answered.
#[test]
fn nothing_is_smuggled_behind_a_head_or_a_chunk() {
    let server = Server::with(&[("API_KEY", "the key of the tests")]);
    let smuggled = request("GET", "/health", &[], None);
    let post = format!(
        "POST {SEND} HTTP/1.1\r\nHost: a\r\nX-API-Key: the key of the tests\r\nContent-Type: application/json\r\n"
    );
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let body = r#"{"target_user_id":"u","event_type":"e","payload":1}"#;
    let good = format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let mut connection = server.connect();
    connection.send(&good);
    connection.send(&smuggled);
    assert_eq!((connection.read().status, connection.read().status), (200, 200), "the rows below differ from this");

    let heads = [
        ("a length and chunks", "Content-Length: 51\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 51\r\n\r\n"),
        ("the same length twice", "Content-Length: 51\r\nContent-Length: 51\r\n\r\n"),
        ("the same length in a list", "Content-Length: 51, 51\r\n\r\n"),
        ("a length with an underscore", "Content-Length: 5_1\r\n\r\n"),
        ("a length with a blank", "Content-Length: 5 1\r\n\r\n"),
        ("a blank before the colon", "Transfer-Encoding : chunked\r\n\r\n"),
        ("a fold before the coding", "Transfer-Encoding:\r\n chunked\r\n\r\n"),
        ("a fold behind the coding", "Transfer-Encoding: chunked\r\n , identity\r\n\r\n"),
        ("a vertical tab", "Transfer-Encoding:\x0bchunked\r\n\r\n"),
        ("a NUL", "Transfer-Encoding: chunked\0\r\n\r\n"),
        ("a lone CR", "X: y\rTransfer-Encoding: chunked\r\n\r\n"),
        ("chunks twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("a quoted coding", "Transfer-Encoding: \"chunked\"\r\n\r\n"),
        ("a coding with a parameter", "Transfer-Encoding: chunked;q=1\r\n\r\n"),
        ("a name with a bracket", "Transfer[Encoding]: chunked\r\n\r\n"),
    ];
    let size = format!("{:x}", body.len());
    let chunks = [
        ("a size with 0x", format!("0x{size}\r\n{body}\r\n0\r\n\r\n")),
        ("a size with a sign", format!("+{size}\r\n{body}\r\n0\r\n\r\n")),
        ("a size behind a blank", format!(" {size}\r\n{body}\r\n0\r\n\r\n")),
        ("a size and a blank", format!("{size} \r\n{body}\r\n0\r\n\r\n")),
        ("a size of no digits", format!("\r\n{body}\r\n0\r\n\r\n")),
        ("a size that wraps around", format!("1000000000000000{size:0>2}\r\n{body}\r\n0\r\n\r\n")),
        ("a size behind a lone LF", format!("{size}\n{body}\r\n0\r\n\r\n")),
        ("an extension behind a lone LF", format!("{size};a\n{body}\r\n0\r\n\r\n")),
        ("an extension with a lone CR", format!("{size};a\rb\r\n{body}\r\n0\r\n\r\n")),
        ("a chunk behind a lone LF", format!("{size}\r\n{body}\n0\r\n\r\n")),
        ("a chunk that is longer", format!("{size}\r\n{body}x\r\n0\r\n\r\n")),
        ("a last line of a lone LF", format!("{size}\r\n{body}\r\n0\r\n\n")),
        ("a trailer that folds", format!("{size}\r\n{body}\r\n0\r\nx: y\r\n z\r\n\r\n")),
        ("a trailer without a colon", format!("{size}\r\n{body}\r\n0\r\nnonsense\r\n\r\n")),
    ];
    let rows = heads
        .into_iter()
        .map(|(what, head)| (what, format!("{post}{head}{size}\r\n{body}\r\n0\r\n\r\n")))
        .chain(chunks.into_iter().map(|(what, body)| (what, format!("{chunked}{body}"))));
    for (what, said) in rows {
        let mut connection = server.connect();
        connection.send([said.as_bytes(), &smuggled].concat());
        let response = connection.read();
        assert!(matches!(response.status, 400 | 413 | 501), "{what}: {response:?}");
        response.refused(response.status);
        assert_eq!(response.header("connection"), Some("close"), "{what}");
        connection.expect_end();
    }
    assert_eq!(server.get("/stats").ok()["notifications"]["total_sent"], 1, "none of them was taken for a publish");
}

#[test]
fn a_head_has_its_bounds_and_they_are_exact() {
    let server = Server::start();
    let of_bytes = |len: usize| {
        let begin = "GET /health HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{begin}{}\r\n\r\n", "x".repeat(len - begin.len() - 4))
    };
    let of_fields = |count: usize| format!("GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    for (what, said, status) in [
        ("16 KiB", of_bytes(16 * 1024), 200),
        ("a byte more", of_bytes(16 * 1024 + 1), 431),
        ("64 fields", of_fields(64), 200),
        ("a field more", of_fields(65), 431),
    ] {
        let mut connection = server.connect();
        connection.send(said);
        assert_eq!(connection.read().status, status, "{what}");
        if status != 200 {
            connection.expect_end();
        }
    }
    // A head without an end is refused when it reaches the bound, not when it ends.
    let mut connection = server.connect();
    connection.send(format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(16 * 1024)));
    connection.read().refused(431);
    connection.expect_end();
    // Ends of lines may be a lone LF (RFC 9112 §2.2), and mean the same.
    let mut connection = server.connect();
    connection.send("GET /health HTTP/1.1\nHost: a\n\nGET /stats HTTP/1.1\r\nHost: a\n\r\n");
    assert_eq!((connection.read().status, connection.read().status), (200, 200));
}

/// base64url without pads (RFC 7515 §2).
fn base64url(bytes: impl AsRef<[u8]>) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.as_ref().chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        (0..=three.len()).map(move |at| DIGITS[(bits >> (18 - 6 * at) & 0x3f) as usize] as char)
    });
    digits.collect()
}

/// A token with this header, signed as its issuer would.
fn signed(header: &str, claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    let said = format!("{}.{}", base64url(header), base64url(claims.to_string()));
    let signature = crypto::sign(said.as_bytes(), key, algorithm).expect("a good key");
    format!("{said}.{signature}")
}

/// Whether `/ws` and `/sse` take a token; they agree.
#[track_caller]
fn opens(server: &Server, token: &str) -> bool {
    let websocket = Ws::open(server.port, &format!("/ws?token={token}"), &[]);
    let stream = {
        let mut connection = server.connect();
        connection.send(request("GET", "/sse", &[("Authorization", &format!("Bearer {token}"))], None));
        connection.read_head().status
    };
    match websocket {
        Ok(_) => {
            assert_eq!(stream, 200, "/ws takes what /sse does not");
            true
        }
        Err((status, body)) => {
            assert_eq!((status, stream), (401, 401), "{body}");
            // Why is nobody's business but the log's.
            assert_eq!(body, r#"{"error":{"code":"UNAUTHORIZED","message":"Invalid token"}}"#);
            false
        }
    }
}

#[test]
fn a_public_key_is_no_secret_and_a_token_brings_no_key() {
    let home = Folder::new("keys");
    let path = home.write("public.pem", P256_PUBLIC);
    let path = path.to_str().expect("UTF-8");
    let server = Server::with(&[("JWT_ALGORITHM", "ES256"), ("JWT_PUBLIC_KEY", path)]);
    let claims = json!({"sub": "ana", "exp": token::now() + 600});
    let key = EncodingKey::from_ec_pem(P256_PRIVATE.as_bytes()).expect("a key");
    let by_key = |header: &str| signed(header, &claims, Algorithm::ES256, &key);
    assert!(opens(&server, &by_key(r#"{"alg":"ES256","typ":"JWT"}"#)), "the rows below differ from this");
    assert!(opens(&server, &by_key(r#"{"alg":"ES256","kid":"../../etc/passwd"}"#)), "a key's name is not looked at");

    // What everybody knows of the key, as a secret (RFC 8725 §2.1).
    let der = P256_PUBLIC.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    for secret in [P256_PUBLIC, P256_PUBLIC.trim_end(), &der, token::SECRET, ""] {
        for header in [r#"{"alg":"HS256","typ":"JWT"}"#, r#"{"alg":"ES256","typ":"JWT"}"#] {
            let forged = signed(header, &claims, Algorithm::HS256, &EncodingKey::from_secret(secret.as_bytes()));
            assert!(!opens(&server, &forged), "{header} signed with {secret:?}");
        }
    }
    // A key of the sender's own, in the token: it is signed by the right one and still says so in vain for another.
    let jwk = r#"{"kty":"oct","k":"c2VjcmV0"}"#;
    let own = EncodingKey::from_secret(b"secret");
    for header in [
        format!(r#"{{"alg":"HS256","jwk":{jwk}}}"#),
        r#"{"alg":"HS256","jku":"http://127.0.0.1:1/keys"}"#.to_owned(),
        r#"{"alg":"HS256","x5u":"http://127.0.0.1:1/chain"}"#.to_owned(),
        r#"{"alg":"HS256","kid":"/dev/null"}"#.to_owned(),
    ] {
        assert!(!opens(&server, &signed(&header, &claims, Algorithm::HS256, &own)), "{header}");
    }
    // All zeros is the signature that broken ECDSA takes for anything.
    let zeros = format!("{}.{}.{}", base64url(r#"{"alg":"ES256"}"#), base64url(claims.to_string()), base64url([0; 64]));
    assert!(!opens(&server, &zeros));
}

#[test]
fn headers_of_tokens_are_read_to_the_letter() {
    let server = Server::start();
    let claims = json!({"sub": "ana", "exp": token::now() + 600});
    let secret = EncodingKey::from_secret(token::SECRET.as_bytes());
    let with = |header: &str| signed(header, &claims, Algorithm::HS256, &secret);
    assert!(opens(&server, &with(r#"{"alg":"HS256"}"#)), "the rows below differ from this");
    for header in [
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":null}"#,
        r#"{"alg":"none"}"#,
        r#"{"alg":"None"}"#,
        r#"{"alg":"nOnE"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS256 "}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"typ":"JWT"}"#,
        "[]",
        "null",
        "",
        r#"{"alg":"HS256""#,
    ] {
        let token = with(header);
        assert!(!opens(&server, &token), "{header}");
        let (said, _) = token.rsplit_once('.').expect("three parts");
        assert!(!opens(&server, &format!("{said}.")), "{header} and no signature");
    }
    // The same signature in other letters, or with more behind it, is another token.
    let good = with(r#"{"alg":"HS256"}"#);
    for token in
        [format!("{good}="), format!("{good}%3D"), format!("{good}."), format!("{good}.e30"), format!("%20{good}")]
    {
        assert!(!opens_by_query(&server, &token), "{token}");
    }
}

fn opens_by_query(server: &Server, token: &str) -> bool {
    Ws::open(server.port, &format!("/ws?token={token}"), &[]).is_ok()
}

#[test]
fn a_token_has_its_time() {
    let server = Server::start();
    let now = token::now();
    let far = u64::MAX;
    for (what, exp, nbf, is_good) in [
        ("valid", json!(now + 600), json!(now), true),
        ("for ever", json!(far), json!(0), true),
        ("expired a second beyond the leeway", json!(now - 62), json!(null), false),
        ("expired long ago", json!(1), json!(null), false),
        ("expired before time began", json!(-1), json!(null), false),
        ("a fraction", json!(1e18), json!(null), false),
        ("beyond numbers", json!(1e300), json!(null), false),
        ("not yet", json!(now + 600), json!(now + 90), false),
        ("never", json!(far), json!(i64::MAX), false),
        ("not yet, in words", json!(now + 600), json!("tomorrow"), false),
        ("not yet, beyond numbers", json!(now + 600), json!(far), false),
    ] {
        let mut claims = json!({"sub": "ana", "exp": exp});
        if !nbf.is_null() {
            claims["nbf"] = nbf;
        }
        assert_eq!(opens(&server, &token::sign(&claims)), is_good, "{what}");
    }
    // Said twice, a claim is said by nobody: parsers differ in which one they take (RFC 7519 §4).
    let twice = format!(r#"{{"sub":"ana","exp":{},"exp":{}}}"#, 1, now + 600);
    let said = format!("{}.{}", base64url(r#"{"alg":"HS256"}"#), base64url(twice));
    let secret = EncodingKey::from_secret(token::SECRET.as_bytes());
    let signature = crypto::sign(said.as_bytes(), &secret, Algorithm::HS256).expect("a good key");
    assert!(!opens(&server, &format!("{said}.{signature}")));
    // It speaks for as long as it is good, not longer: the connection ends with it.
    let mut raw = RawWs::connect(server.port, &token::sign(&json!({"sub": "ana", "exp": token::now() - 55})));
    raw.expect_close(4001);
    let header = Header { crit: Some(vec!["exp".to_owned()]), ..Header::default() };
    let crit = jsonwebtoken::encode(&header, &json!({"sub": "ana", "exp": now + 600}), &secret).expect("claims");
    assert!(!opens(&server, &crit), "as a library writes it");
}
