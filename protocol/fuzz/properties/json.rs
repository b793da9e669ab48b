//! JSON text of strangers, and what clients say in it.
use super::assert_telling;
use protocol::client::command::{self, COMMAND_ERROR_BYTES_MAX, Command};
use protocol::client::event::{self, ErrorCode};
use protocol::json::{self, Json};
use serde_json::Value;

/// A text is taken exactly when `serde_json` can make a value of it, and is kept: as the same value, in its shortest
/// form, on one line.
pub fn json(bytes: &[u8]) {
    let value = serde_json::from_slice::<Value>(bytes);
    let parsed = match Json::parse(bytes) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert_telling(&error.to_string(), 200);
            assert!(value.is_err(), "{error}, but serde_json takes it");
            // What is no JSON never comes to `compact`; it must bear it all the same.
            if let Ok(text) = std::str::from_utf8(bytes) {
                compacted(text);
            }
            return;
        }
    };
    let text = compacted(parsed.as_str());
    assert_eq!(parsed.payload().as_str(), text);
    match value {
        Ok(value) => assert_eq!(serde_json::from_str::<Value>(&text).expect("still JSON"), value),
        // A number that fits no float is still a number (C-2).
        Err(error) => assert!(error.to_string().starts_with("number out of range"), "{error}, but it was taken"),
    }
    let again = Json::parse(text.as_bytes()).expect("still JSON");
    assert_eq!(again.as_str(), text);
    assert_eq!(again.string(), parsed.string());
    assert_eq!(again.elements().map(|all| all.len()), parsed.elements().map(|all| all.len()));
    assert_eq!(parsed.elements().is_some(), text.starts_with('['));
    assert_eq!(parsed.fields(&["a"]).is_ok_and(|[a]| a.is_some()), again.fields(&["a"]).is_ok_and(|[a]| a.is_some()));
}

/// The compact form; not longer than the text, and its own compact form.
fn compacted(text: &str) -> String {
    let Ok(compact) = json::compact(text, 0) else { return text.to_owned() };
    assert!(compact.as_str().len() <= text.len());
    let again = json::compact(compact.as_str(), 0).expect("no deeper than before");
    assert_eq!(again, compact);
    compact.as_str().to_owned()
}

/// A client's text is a command or gets a short answer that is JSON itself.
pub fn client_command(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let value = serde_json::from_str::<Value>(text).ok();
    let command = match command::parse(text) {
        Ok(command) => command,
        Err(error) => {
            assert!(!error.0.is_empty() && error.0.len() <= COMMAND_ERROR_BYTES_MAX, "{} bytes", error.0.len());
            let mut answer = Vec::new();
            event::write_error(&mut answer, ErrorCode::InvalidMessage, &error.0);
            assert!(!answer.iter().any(|byte| *byte < b' '), "{}", answer.escape_ascii());
            let answer: Value = serde_json::from_slice(&answer).expect("the answer is JSON");
            assert_eq!(answer["message"], error.0);
            return;
        }
    };
    // Numbers and depths that a value cannot have may stand where nobody looks.
    let Some(value) = value else { return };
    let payload = &value["payload"];
    match command {
        Command::Subscribe { channels } => {
            assert_eq!(value["type"], "Subscribe");
            assert_eq!(serde_json::to_value(channels).expect("strings"), payload["channels"]);
        }
        Command::Unsubscribe { channels } => {
            assert_eq!(value["type"], "Unsubscribe");
            assert_eq!(serde_json::to_value(channels).expect("strings"), payload["channels"]);
        }
        Command::Ping => assert_eq!(value["type"], "Ping"),
        Command::Ack { notification_id } => {
            assert_eq!(value["type"], "Ack");
            let id = payload["notification_id"].as_str().expect("a string");
            let digits = |text: &str| text.replace(|c: char| !c.is_ascii_hexdigit(), "").to_lowercase();
            assert!(digits(id).ends_with(&digits(&notification_id.to_string())), "{id} is {notification_id}");
        }
        Command::Refresh { token } => {
            assert_eq!((&value["type"], payload["token"].as_str()), (&"Refresh".into(), Some(&*token.0)));
        }
    }
}
