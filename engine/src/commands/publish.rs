//! `publish`: one notification through a running service.
use super::client::{self, Address, Question};
use super::{Failure, print};
use crate::args::PublishArgs;
use crate::config::Sources;
use crate::config::layers::Values;
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// The service itself waits [`protocol::limits::GATHER_DEADLINE_MS`] for its shards before it answers.
const PATIENCE: Duration = Duration::from_millis(5 * protocol::limits::GATHER_DEADLINE_MS);

/// The body of a send (contract §1.7 and §1.8).
#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    target_user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    event_type: &'a str,
    payload: &'a RawValue,
}

/// Sends it and prints the answer.
///
/// # Errors
/// The payload is not JSON, nobody answers, or the answer is not 200. Nobody listening is no failure: the answer says so.
pub fn run(sources: &Sources, args: &PublishArgs) -> Result<(), Failure> {
    let address = match &args.url {
        Some(url) => Address::parse(url)?,
        None => Address::of_own_service(sources),
    };
    let values = Values::resolve(sources, &mut Vec::new(), &mut Vec::new());
    let mut headers = String::from("content-type: application/json\r\n");
    let api_key = args.api_key.as_deref().or(values.text("API_KEY"));
    for (header, option, value) in
        [("x-api-key", "--api-key", api_key), ("x-tenant-id", "--tenant", args.tenant.as_deref())]
    {
        if let Some(value) = value {
            if !client::is_header_value(value) {
                return Err(Failure(format!("{option} holds characters that a header cannot carry")));
            }
            headers.push_str(&format!("{header}: {value}\r\n"));
        }
    }
    let path = format!("{}/api/v1/notifications/{}", address.path.trim_end_matches('/'), endpoint(args));
    let body = body(args)?;
    let question = Question { method: "POST", path: &path, headers: &headers, body: &body, patience: PATIENCE };
    let answer = client::ask(&address, question)?;
    if answer.status != 200 {
        return Err(Failure(format!("{} answered {}: {}", address.authority, answer.status, answer.body.trim_end())));
    }
    print(answer.body.trim_end());
    Ok(())
}

fn endpoint(args: &PublishArgs) -> &'static str {
    match (&args.user, &args.channel) {
        (Some(_), _) => "send",
        (_, Some(_)) => "channel",
        (None, None) => "broadcast",
    }
}

fn body(args: &PublishArgs) -> Result<Vec<u8>, Failure> {
    let payload: &RawValue = serde_json::from_str(&args.payload).map_err(|error| {
        Failure(format!("--payload is not JSON: {error} (a text needs quotes of its own: '\"hi\"')"))
    })?;
    let body = Body {
        target_user_id: args.user.as_deref(),
        channel: args.channel.as_deref(),
        event_type: &args.event_type,
        payload,
    };
    serde_json::to_vec(&body).map_err(Failure::new)
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::service;
    use super::*;

    fn args(payload: &str) -> PublishArgs {
        PublishArgs {
            user: None,
            channel: None,
            broadcast: true,
            event_type: "a\"b".to_owned(),
            payload: payload.to_owned(),
            tenant: None,
            url: None,
            api_key: None,
        }
    }

    #[test]
    fn each_target_has_its_endpoint_and_the_payload_stays_as_it_is() {
        let user = PublishArgs { user: Some("ana".to_owned()), broadcast: false, ..args(r#"{"b":1.50,"a":1e3}"#) };
        assert_eq!(endpoint(&user), "send");
        let expected = r#"{"target_user_id":"ana","event_type":"a\"b","payload":{"b":1.50,"a":1e3}}"#;
        assert_eq!(body(&user).unwrap(), expected.as_bytes());
        let channel = PublishArgs { channel: Some("orders".to_owned()), broadcast: false, ..args("null") };
        assert_eq!(endpoint(&channel), "channel");
        assert_eq!(body(&channel).unwrap(), br#"{"channel":"orders","event_type":"a\"b","payload":null}"#);
        assert_eq!(endpoint(&args("1")), "broadcast");
    }

    #[test]
    fn a_payload_that_is_not_json_is_refused_before_it_is_sent() {
        assert!(body(&args("hi")).unwrap_err().0.starts_with("--payload is not JSON"));
    }

    #[test]
    fn the_key_comes_from_the_settings_and_the_answer_decides() {
        let sources = Sources::from_environment([("API_KEY", "from-settings")]);
        let (address, asked) = service("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        let url = Some(format!("http://{}/behind/a/proxy/", address.authority));
        assert_eq!(run(&sources, &PublishArgs { url, ..args("1") }), Ok(()));
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("POST /behind/a/proxy/api/v1/notifications/broadcast HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nx-api-key: from-settings\r\n"), "{asked}");

        let (address, asked) = service("HTTP/1.1 401 Unauthorized\r\ncontent-length: 3\r\n\r\nno\n");
        let url = Some(format!("http://{}", address.authority));
        let failure = run(&sources, &PublishArgs { url, ..args("1") }).unwrap_err();
        assert!(failure.0.ends_with("answered 401: no"), "{failure:?}");
        asked.join().unwrap();
    }

    #[test]
    fn a_key_cannot_bring_headers_of_its_own() {
        let bad = PublishArgs { api_key: Some("k\r\nx: y".to_owned()), ..args("1") };
        assert!(run(&Sources::from_environment([]), &bad).unwrap_err().0.starts_with("--api-key"));
    }
}
