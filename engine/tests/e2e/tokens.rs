//! Who may listen to what, for how long, and how that ends at once: `docs/TOKENS.md`.
use crate::support::http::call;
use crate::support::process::Folder;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::token;
use crate::support::ws::Ws;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Opens nothing: its private half is in no test here.
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

/// A token for ana with these claims, too.
fn ana(more: Value) -> String {
    let mut claims = json!({"sub": "ana", "exp": token::now() + 3600, "iat": token::now()});
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    token::sign(&claims)
}

fn sse(server: &Server, token: &str) -> Sse {
    Sse::connect(server.port, &format!("/sse?token={token}"))
}

fn refresh(token: &str) -> String {
    format!(r#"{{"type":"Refresh","payload":{{"token":"{token}"}}}}"#)
}

/// The last event of a stream, which must be an error, and its end.
#[track_caller]
fn last_words(stream: &mut Sse) -> String {
    let event = stream.hear().expect("a last event");
    assert_eq!(event.name.as_deref(), Some("error"), "{event:?}");
    assert_eq!(stream.hear(), None, "then the end");
    event.data.expect("it has data")
}

/// Whether this opens neither a WebSocket nor a stream.
#[track_caller]
fn is_refused(server: &Server, token: &str) -> bool {
    let websocket = Ws::open(server.port, &format!("/ws?token={token}"), &[]).err();
    let Some((status, body)) = websocket else { return false };
    let refused = r#"{"error":{"code":"UNAUTHORIZED","message":"Invalid token"}}"#;
    assert_eq!((status, body.as_str()), (401, refused));
    let stream = call(server.port, "GET", &format!("/sse?token={token}"), &[], None);
    assert_eq!((stream.status, stream.text()), (401, refused));
    true
}

#[test]
fn a_token_says_which_channels_may_be_listened_to() {
    let server = Server::start();
    let some = ana(json!({"channels": ["orders", "news.*"]}));
    let mut ws = Ws::connect(server.port, &some);
    ws.say(r#"{"type":"Subscribe","payload":{"channels":["orders","secrets","news.eu","news"]}}"#);
    assert_eq!(ws.hear(), r#"{"type":"subscribed","payload":["orders","news.eu"]}"#);
    assert_eq!(ws.error("SUBSCRIPTION_ERROR"), "Channel not permitted: secrets; Channel not permitted: news");
    let refused = call(server.port, "GET", &format!("/sse?token={some}&channels=orders,secrets"), &[], None);
    assert_eq!(refused.refusal(403, "CHANNEL_FORBIDDEN"), "Channel not permitted: secrets");
    let mut stream = Sse::connect(server.port, &format!("/sse?token={some}&channels=orders,news.eu"));
    for (channel, count) in [("orders", 2), ("news.eu", 2), ("secrets", 0)] {
        let body = format!(r#"{{"channel":"{channel}","event_type":"{channel}","payload":1}}"#);
        assert_eq!(server.publish("channel", &body)["delivered_to"], count, "{channel}");
    }
    for channel in ["orders", "news.eu"] {
        assert_eq!(ws.notification()["event_type"], channel);
        assert_eq!(stream.notification()["event_type"], channel);
    }
    // What is sent to the user, or to everybody, is no channel.
    let mut none = Ws::connect(server.port, &ana(json!({"channels": []})));
    none.say(r#"{"type":"Subscribe","payload":{"channels":["orders"]}}"#);
    assert_eq!(none.error("SUBSCRIPTION_ERROR"), "Channel not permitted: orders");
    assert_eq!(server.send("ana", "1")["delivered_to"], 3);
    assert_eq!(none.payload(), 1);
    for channels in [json!(null), json!("orders"), json!(["*"]), json!([7]), json!(["a b"])] {
        assert!(is_refused(&server, &ana(json!({ "channels": channels }))), "{channels}");
    }
}

#[test]
fn websockets_and_streams_end_with_their_token() {
    let server = Server::start();
    // Past by all but two seconds of the leeway.
    let exp = token::now() - 58;
    let short = ana(json!({ "exp": exp }));
    let (mut ws, mut stream) = (Ws::connect(server.port, &short), sse(&server, &short));
    assert_eq!(ws.await_close(), Some(4001));
    assert!(token::now() >= exp + 60, "the leeway is given whole");
    assert_eq!(last_words(&mut stream), r#"{"code":"TOKEN_EXPIRED","message":"Token has expired"}"#);
    let page = String::from_utf8(server.get("/metrics").body).expect("text");
    assert!(page.contains(r#"ara_connections_ended_total{reason="token_expired"} 2"#), "{page}");
}

#[test]
fn a_connection_goes_on_with_a_new_token() {
    let server = Server::start();
    let short = ana(json!({"exp": token::now() - 57}));
    let (mut stays, mut goes) = (Ws::connect(server.port, &short), Ws::connect(server.port, &short));
    stays.subscribe(&["orders", "news"]);
    let exp = token::now() + 3600;
    stays.say(&refresh(&ana(json!({"exp": exp, "roles": ["admin"], "channels": ["orders"]}))));
    assert_eq!(stays.hear(), format!(r#"{{"type":"refreshed","expires_at":{exp}}}"#));
    assert_eq!(stays.hear(), r#"{"type":"unsubscribed","payload":["news"]}"#);
    goes.say(&refresh(&ana(json!({"sub": "eve"}))));
    assert_eq!(goes.error("INVALID_TOKEN"), "Token is of another user");
    goes.say(&refresh("not.a.token"));
    assert_eq!(goes.error("INVALID_TOKEN"), "Invalid token");
    goes.say(r#"{"type":"Refresh","payload":{"token":7}}"#);
    goes.error("INVALID_MESSAGE");
    // The other one tells when the first token has ended.
    assert_eq!(goes.await_close(), Some(4001));
    server.publish("channel", r#"{"channel":"news","event_type":"e","payload":"news"}"#);
    let admins = r#"{"audience":{"type":"Roles","value":["admin"]},"event_type":"e","payload":"for admins"}"#;
    assert_eq!(server.publish("broadcast", admins)["delivered_to"], 1);
    assert_eq!(stays.payload(), "for admins");
}

#[test]
fn users_are_disconnected_and_tokens_revoked_by_the_api_alone() {
    let server = Server::with(&[("API_KEY", "a-key-of-the-tests")]);
    let (one, two) = (ana(json!({"jti": "one"})), ana(json!({"jti": 2})));
    let (mut first, mut stream, mut second) =
        (Ws::connect(server.port, &one), sse(&server, &one), Ws::connect(server.port, &two));
    for path in ["/api/v1/users/ana/disconnect", "/api/v1/tokens/revoke"] {
        assert_eq!(call(server.port, "POST", path, &[], Some(br#"{"jti":"one"}"#)).status, 401, "{path}");
        assert_eq!(server.get(path).status, 405, "{path}");
    }
    let until = token::now() + 3600;
    let answer = server.post("/api/v1/tokens/revoke", &format!(r#"{{"jti":"one","expires_at":{until}}}"#));
    assert_eq!(answer.ok(), json!({"revoked": true, "expires_at": until + 61, "disconnected": 2}));
    assert_eq!(first.await_close(), Some(4002));
    assert_eq!(last_words(&mut stream), r#"{"code":"TOKEN_REVOKED","message":"Token has been revoked"}"#);
    assert!(is_refused(&server, &one));
    second.say(&refresh(&one));
    assert_eq!(second.error("INVALID_TOKEN"), "Invalid token");
    let answer = server.call("POST", "/api/v1/users/ana/disconnect", None);
    assert_eq!(answer.ok(), json!({"user_id": "ana", "disconnected": 1}));
    assert_eq!(second.await_close(), Some(1000));
    // Who was only disconnected may come back, until all tokens of the user are revoked, those without `iat` first of all.
    let mut second = Ws::connect(server.port, &two);
    let undated = token::sign(&json!({"sub": "ana", "exp": until}));
    let mut third = Ws::connect(server.port, &undated);
    let old = format!(r#"{{"user_id":"ana","before":{}}}"#, token::now() - 1000);
    assert_eq!(server.post("/api/v1/tokens/revoke", &old).ok()["disconnected"], 1);
    assert_eq!(third.await_close(), Some(4002));
    assert_eq!(server.post("/api/v1/tokens/revoke", r#"{"user_id":"ana"}"#).ok()["disconnected"], 1);
    assert_eq!(second.await_close(), Some(4002));
    assert!(is_refused(&server, &two) && is_refused(&server, &undated));
    server.still_delivers();
    for body in ["", "{}", r#"{"jti":"a","user_id":"b"}"#, r#"{"user_id":"ana","before":99999999999}"#] {
        let refused = server.post("/api/v1/tokens/revoke", body).status;
        assert!(matches!(refused, 400 | 422), "{body}: {refused}");
    }
    let page = String::from_utf8(server.get("/metrics").body).expect("text");
    for line in [
        "ara_token_revocations 2",
        "ara_tokens_refused_revoked_total 7",
        r#"ara_connections_ended_total{reason="token_revoked"} 4"#,
        r#"ara_connections_ended_total{reason="disconnected"} 1"#,
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[test]
fn no_trick_with_the_header_opens_the_door() {
    let server = Server::start();
    let claims = json!({"sub": "ana", "exp": token::now() + 60});
    let signed = |header: &Header| {
        jsonwebtoken::encode(header, &claims, &EncodingKey::from_secret(token::SECRET.as_bytes()))
            .expect("claims are JSON")
    };
    assert!(!is_refused(&server, &signed(&Header::new(Algorithm::HS256))));
    let critical = Header { crit: Some(vec!["exp".to_owned()]), ..Header::new(Algorithm::HS256) };
    assert!(is_refused(&server, &signed(&critical)), "an extension that must be understood");
    assert!(is_refused(&server, &signed(&Header::new(Algorithm::HS384))), "another algorithm, the same secret");
    let good = signed(&Header::new(Algorithm::HS256));
    let parts: Vec<&str> = good.split('.').collect();
    for (header, encoded) in [
        (r#"{"alg":"none"}"#, "eyJhbGciOiJub25lIn0"),
        (r#"{"alg":"None","typ":"JWT"}"#, "eyJhbGciOiJOb25lIiwidHlwIjoiSldUIn0"),
        (r#"{"alg":""}"#, "eyJhbGciOiIifQ"),
        (r#"{"typ":"JWT"}"#, "eyJ0eXAiOiJKV1QifQ"),
        (r#"{}"#, "e30"),
    ] {
        assert!(is_refused(&server, &format!("{encoded}.{}.", parts[1])), "{header}, unsigned");
        assert!(is_refused(&server, &format!("{encoded}.{}.{}", parts[1], parts[2])), "{header}, signed");
    }
    // What was refused at the door is refused inside.
    let mut ws = server.ws("ana");
    ws.say(&refresh(&signed(&critical)));
    assert_eq!(ws.error("INVALID_TOKEN"), "Invalid token");

    let home = Folder::new("keys");
    let file = home.path().join("public.pem");
    std::fs::write(&file, RSA_PUBLIC).expect("a folder of our own");
    let server =
        Server::with(&[("JWT_ALGORITHM", "RS256"), ("JWT_PUBLICKEY", file.to_str().expect("a name in UTF-8"))]);
    let confused = token::sign_with(&claims, Algorithm::HS256, RSA_PUBLIC);
    assert!(is_refused(&server, &confused), "a public key is no secret");
    assert!(is_refused(&server, &token::sign(&claims)));
}
