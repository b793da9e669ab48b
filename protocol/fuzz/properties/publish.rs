//! What publishers send: the bodies of the REST API and the messages of Redis.
use super::{assert_telling, frame};
use protocol::json::{self, Json};
use protocol::limits;
use protocol::notification::{Content, Source, Target};
use protocol::publish::batch::{BatchRequest, parse_batch};
use protocol::publish::redis::parse_redis;
use protocol::publish::request::{
    BodyError, ContentSource, PublishRequest, parse_broadcast, parse_channel, parse_channels, parse_send,
    parse_send_to_users,
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Reads one body of a single send.
type Parse = fn(&[u8]) -> Result<PublishRequest, BodyError>;

/// The bodies of the five single sends and of the batch.
pub fn bodies(body: &[u8]) {
    let singles: [(Parse, &str); 5] = [
        (parse_send, "target_user_id"),
        (parse_send_to_users, "target_user_ids"),
        (parse_broadcast, ""),
        (parse_channel, "channel"),
        (parse_channels, "channels"),
    ];
    for (parse, field) in singles {
        let parsed = parse(body);
        assert_blank_to_white_space(body, &parsed, parse);
        match parsed {
            Ok(request) => {
                let value = serde_json::from_slice::<Value>(body).ok();
                assert_targets(&request.target, value.as_ref().map(|value| &value[field]));
                check_content(&request.content, value.as_ref());
            }
            Err(error) => check_error(&error),
        }
    }
    let parsed = parse_batch(body);
    assert_blank_to_white_space(body, &parsed, parse_batch);
    match parsed {
        Ok(batch) => check_batch(&batch, serde_json::from_slice::<Value>(body).ok().as_ref()),
        Err(error) => check_error(&error),
    }
}

fn check_batch(batch: &BatchRequest, value: Option<&Value>) {
    assert!((1..=limits::BATCH_ITEMS_MAX).contains(&batch.items.len()));
    let duplicates = batch.duplicates();
    assert_eq!(duplicates.len(), batch.items.len());
    assert!(!duplicates[0], "the first item has no earlier twin");
    assert!(batch.deduplicate || !duplicates.contains(&true));
    let all_alike = batch.duplicates_resolved(|_| Some("alike"));
    assert_eq!(all_alike.len(), batch.items.len());
    for (at, item) in batch.items.iter().enumerate() {
        let value = value.map(|value| &value["notifications"][at]);
        assert_targets(&item.target, value.map(|value| &value["target"]["value"]));
        check_content(&item.content, value);
        if duplicates[at] {
            assert!(all_alike[at] && batch.items[..at].iter().any(|twin| twin.target.kind() == item.target.kind()));
        }
    }
}

/// A message of Redis.
pub fn redis(message: &[u8]) {
    let parsed = parse_redis(message);
    assert_blank_to_white_space(message, &parsed, parse_redis);
    match parsed {
        Ok(publish) => {
            let value = serde_json::from_slice::<Value>(message).ok();
            assert!(publish.content.audience.is_none());
            assert_targets(&publish.target, value.as_ref().map(|value| &value["target"]));
            check_direct(&publish.content, value.as_ref().map(|value| &value["event"]));
            frame::check(&publish.content, &Source::Redis("ara:events".into()));
        }
        Err(error) => {
            assert_telling(&error.to_string(), 200);
            assert_telling(error.label(), 20);
        }
    }
}

/// White space outside of strings means nothing: the compact text is read as the text is.
#[track_caller]
pub fn assert_blank_to_white_space<T: PartialEq + std::fmt::Debug, E: PartialEq + std::fmt::Debug>(
    body: &[u8],
    parsed: &Result<T, E>,
    parse: fn(&[u8]) -> Result<T, E>,
) {
    if let Ok(json) = Json::parse(body) {
        let compact = json::compact(json.as_str(), 0).expect("its depth was checked");
        assert_eq!(&parse(compact.as_str().as_bytes()), parsed, "the compact text is read otherwise");
    }
}

fn check_error(error: &BodyError) {
    assert!(matches!(error.status(), 400 | 422));
    assert_telling(error.code(), 20);
    assert_telling(error.message(), 300);
}

/// Each recipient once, each as the body spelled it.
#[track_caller]
fn assert_targets(target: &Target, value: Option<&Value>) {
    let names: Vec<&str> = match target {
        Target::Broadcast => return,
        Target::User(one) | Target::Channel(one) => vec![one],
        Target::Users(many) | Target::Channels(many) => many.iter().map(|name| &**name).collect(),
    };
    if matches!(target, Target::User(_) | Target::Users(_)) {
        assert!(names.iter().all(|user| user.chars().count() <= limits::USER_ID_CHARS_MAX));
    }
    let given: Vec<&str> = match value {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().map(|name| name.as_str().expect("a string")).collect(),
        Some(other) => panic!("taken for a target: {other}"),
        None => return,
    };
    let mut seen = BTreeSet::new();
    let unique: Vec<&str> = given.into_iter().filter(|name| seen.insert(*name)).collect();
    assert_eq!(names, unique);
}

fn check_content(content: &ContentSource, value: Option<&Value>) {
    match content {
        ContentSource::Direct(content) => check_direct(content, value),
        ContentSource::Template { template_id, variables, ttl, .. } => {
            let Some(value) = value else { return };
            assert_eq!(value["template_id"], &**template_id);
            assert_eq!(value["ttl"].as_u64(), ttl.map(u64::from));
            let given = value.get("variables");
            assert_eq!(variables.is_object(), given.is_none_or(Value::is_object));
        }
    }
}

/// What is kept of a content is what was said.
fn check_direct(content: &Content, value: Option<&Value>) {
    let Some(value) = value else { return };
    assert_eq!(value["event_type"], &*content.event_type);
    assert_eq!(value["ttl"].as_u64(), content.ttl.map(u64::from));
    assert_eq!(value["correlation_id"].as_str(), content.correlation_id.as_deref());
    assert_eq!(value["priority"].as_str().unwrap_or("Normal"), content.priority.as_str());
    assert_eq!(serde_json::from_str::<Value>(content.payload.as_str()).expect("JSON"), value["payload"]);
}
