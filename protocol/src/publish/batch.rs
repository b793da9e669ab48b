//! `POST /notifications/batch` (contract §1.8): up to a hundred sends in one body.
use crate::json::Json;
use crate::limits;
use crate::notification::{Target, TargetKind};
use crate::publish::body::{self, Fault};
use crate::publish::request::{BodyError, ContentSource, PublishRequest};
use std::collections::BTreeSet;

/// A batch that was understood as a whole; its items are sent in order.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRequest {
    /// 1..=[`limits::BATCH_ITEMS_MAX`] sends. None has an audience.
    pub items: Vec<PublishRequest>,
    /// Whether the first failure ends the batch.
    pub stop_on_error: bool,
    /// Whether later twins are skipped.
    pub deduplicate: bool,
}

/// What makes two items twins: the kind of target, its values in sorted order, and the event type.
type TwinKey<'a> = (&'static str, Vec<&'a str>, EventKey<'a>);

/// A template whose event type is not known is only a twin of itself.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum EventKey<'a> {
    Type(&'a str),
    Template(&'a str),
}

impl BatchRequest {
    /// For every item whether an earlier one is its twin; all `false` without `deduplicate`.
    ///
    /// Items by template are compared by template id. [`BatchRequest::duplicates_resolved`] compares them, as the
    /// original does, by the event type of their templates.
    pub fn duplicates(&self) -> Vec<bool> {
        self.duplicates_resolved(|_| None)
    }

    /// As [`BatchRequest::duplicates`], with `event_type_of` giving the event type of a template by its id. An
    /// unknown template has none.
    pub fn duplicates_resolved<'a>(&'a self, event_type_of: impl Fn(&'a str) -> Option<&'a str>) -> Vec<bool> {
        if !self.deduplicate {
            return vec![false; self.items.len()];
        }
        let mut seen = BTreeSet::new();
        self.items.iter().map(|item| !seen.insert(twin_key(item, &event_type_of))).collect()
    }
}

fn twin_key<'a>(item: &'a PublishRequest, event_type_of: &impl Fn(&'a str) -> Option<&'a str>) -> TwinKey<'a> {
    let mut values: Vec<&str> = match &item.target {
        Target::Broadcast => Vec::new(),
        Target::User(one) | Target::Channel(one) => vec![one],
        Target::Users(many) | Target::Channels(many) => many.iter().map(|value| &**value).collect(),
    };
    values.sort_unstable();
    let event = match &item.content {
        ContentSource::Direct(content) => EventKey::Type(&content.event_type),
        ContentSource::Template { template_id, .. } => {
            event_type_of(template_id).map_or(EventKey::Template(template_id), EventKey::Type)
        }
    };
    (item.target.kind().as_str(), values, event)
}

/// Takes the whole body; one malformed item refuses it all, for half a batch helps nobody.
pub fn parse_batch(body: &[u8]) -> Result<BatchRequest, BodyError> {
    let [notifications, options] = Json::parse(body)?.fields(&["notifications", "options"]).map_err(Fault::from)?;
    let notifications = body::required(notifications, "notifications")?
        .elements()
        .ok_or_else(|| Fault::not("notifications", "an array"))?;
    let (stop_on_error, deduplicate) = parse_options(options)?;
    let count = notifications.len();
    let mut items = Vec::with_capacity(count.min(limits::BATCH_ITEMS_MAX));
    let mut beyond_bound = None;
    for (index, notification) in notifications.into_iter().enumerate() {
        match parse_item(notification).map_err(|fault| fault.inside("notifications", index)) {
            // A batch that is too long is refused below; its items are still checked, but not kept.
            Ok(item) if index < limits::BATCH_ITEMS_MAX => items.push(item),
            Ok(_) => {}
            Err(shape @ Fault::Shape(_)) => return Err(shape.into()),
            Err(invalid) => beyond_bound = beyond_bound.or(Some(invalid)),
        }
    }
    if count == 0 {
        return Err(BodyError::Invalid("Batch cannot be empty".to_owned()));
    }
    if count > limits::BATCH_ITEMS_MAX {
        let bound = limits::BATCH_ITEMS_MAX;
        return Err(BodyError::Invalid(format!("Batch size {count} exceeds maximum of {bound}")));
    }
    match beyond_bound {
        Some(fault) => Err(fault.into()),
        None => Ok(BatchRequest { items, stop_on_error, deduplicate }),
    }
}

fn parse_options(options: Option<Json<'_>>) -> Result<(bool, bool), Fault> {
    let Some(options) = options else { return Ok((false, false)) };
    let [stop_on_error, deduplicate] =
        options.fields(&["stop_on_error", "deduplicate"]).map_err(|error| match error {
            crate::json::FieldsError::NotAnObject => Fault::not("options", "an object"),
            duplicate => duplicate.into(),
        })?;
    let flag = |value: Option<Json<'_>>, field| match value {
        Some(value) => value.boolean().ok_or_else(|| Fault::not(field, "a boolean")),
        None => Ok(false),
    };
    Ok((flag(stop_on_error, "options.stop_on_error")?, flag(deduplicate, "options.deduplicate")?))
}

fn parse_item(item: Json<'_>) -> Result<PublishRequest, Fault> {
    let fields = item.fields(&body::send_fields("target"))?;
    let content = body::content(&fields, None)?;
    let target = parse_target(body::required(fields[7], "target")?)?;
    Ok(PublishRequest { target, content })
}

fn parse_target(target: Json<'_>) -> Result<Target, Fault> {
    let [kind, value] = target.fields(&["type", "value"])?;
    let kind = body::text(kind, "target.type")?;
    let kind = TargetKind::ALL
        .into_iter()
        .find(|known| known.as_str() == &*kind)
        .ok_or_else(|| Fault::not("target.type", "one of `user`, `users`, `broadcast`, `channel`, `channels`"))?;
    const VALUE: &str = "target.value";
    Ok(match kind {
        TargetKind::User => {
            let user = body::text(value, VALUE)?;
            body::check_user_id(&user, VALUE)?;
            Target::User(user)
        }
        TargetKind::Users => Target::Users(body::users(body::texts(body::required(value, VALUE)?, VALUE)?, VALUE)?),
        TargetKind::Broadcast if value.is_none_or(Json::is_null) => Target::Broadcast,
        TargetKind::Broadcast => return Err(Fault::not(VALUE, "absent or null for a broadcast")),
        TargetKind::Channel => Target::Channel(body::text(value, VALUE)?),
        TargetKind::Channels => Target::Channels(body::unique(body::texts(body::required(value, VALUE)?, VALUE)?)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(target: &str, event_type: &str) -> String {
        format!(r#"{{"target":{target},"event_type":"{event_type}","payload":1}}"#)
    }

    fn batch(items: &[String], options: &str) -> Result<BatchRequest, BodyError> {
        parse_batch(format!(r#"{{"notifications":[{}]{options}}}"#, items.join(",")).as_bytes())
    }

    #[test]
    fn the_five_targets_are_understood() {
        let rows = [
            (r#"{"type":"user","value":"u1"}"#, Target::User("u1".into())),
            (r#"{"value":["b","a","b"],"type":"users"}"#, Target::Users(["b".into(), "a".into()].into())),
            (r#"{"type":"broadcast"}"#, Target::Broadcast),
            (r#"{"type":"broadcast","value":null}"#, Target::Broadcast),
            (r#"{"type":"channel","value":"orders"}"#, Target::Channel("orders".into())),
            (r#"{"type":"channels","value":["a","b"],"x":1}"#, Target::Channels(["a".into(), "b".into()].into())),
        ];
        for (target, expected) in rows {
            let batch = batch(&[item(target, "e")], "").unwrap();
            assert_eq!(batch.items[0].target, expected);
            assert!(!batch.stop_on_error && !batch.deduplicate);
        }
        let users = format!(r#"{{"type":"users","value":[{}]}}"#, vec![r#""u""#; 10_001].join(","));
        assert!(batch(&[item(&users, "e")], "").is_ok(), "a batch has no bound of its own on users");
    }

    #[test]
    fn one_malformed_item_refuses_the_batch() {
        let good = item(r#"{"type":"broadcast"}"#, "e");
        for target in [
            r#"{"type":"User","value":"u"}"#,
            r#"{"type":"users","value":"u"}"#,
            r#"{"type":"user"}"#,
            r#"{"type":"user","value":null}"#,
            r#"{"type":"broadcast","value":"x"}"#,
            r#"{"value":"x"}"#,
            r#"["user","u"]"#,
            r#""broadcast""#,
            r#"{"type":"user","type":"user","value":"u"}"#,
        ] {
            let error = batch(&[good.clone(), item(target, "e")], "").unwrap_err();
            assert_eq!(error.status(), 422, "{target}");
            assert!(error.message().contains("notifications[1]: "), "{error}");
        }
        assert_eq!(batch(&[r#"{"target":{"type":"broadcast"}}"#.into()], "").unwrap_err().status(), 422);
        assert_eq!(batch(&["[]".into()], "").unwrap_err().status(), 422);
        let long = item(&format!(r#"{{"type":"user","value":"{}"}}"#, "x".repeat(256)), "e");
        assert_eq!(
            batch(&[good, long], "").unwrap_err(),
            BodyError::Invalid("notifications[1]: target.value exceeds maximum of 255 characters (got 256)".into())
        );
    }

    #[test]
    fn size_and_options_are_checked() {
        let good = item(r#"{"type":"broadcast"}"#, "e");
        assert_eq!(batch(&[], "").unwrap_err().message(), "Batch cannot be empty");
        assert_eq!(batch(&vec![good.clone(); 100], "").unwrap().items.len(), 100);
        let error = batch(&vec![good.clone(); 101], "").unwrap_err();
        assert_eq!((error.status(), error.message()), (400, "Batch size 101 exceeds maximum of 100"));
        let mut wrong = vec![good.clone(); 101];
        wrong.push("{}".into());
        assert_eq!(batch(&wrong, "").unwrap_err().status(), 422, "shape comes before bounds");
        for (options, status) in [
            (r#","options":null"#, 422),
            (r#","options":[]"#, 422),
            (r#","options":{"stop_on_error":1}"#, 422),
            (r#","options":{"deduplicate":null}"#, 422),
            (r#","options":{},"options":{}"#, 422),
        ] {
            assert_eq!(batch(std::slice::from_ref(&good), options).unwrap_err().status(), status, "{options}");
        }
        let parsed = batch(&[good], r#","options":{"stop_on_error":true,"deduplicate":true,"x":1}"#).unwrap();
        assert!(parsed.stop_on_error && parsed.deduplicate);
        assert_eq!(parse_batch(b"{}").unwrap_err().status(), 422);
        assert_eq!(parse_batch(br#"{"notifications":{}}"#).unwrap_err().status(), 422);
        assert_eq!(parse_batch(b"{").unwrap_err().status(), 400);
    }

    #[test]
    fn twins_have_the_same_target_and_event_type() {
        let template = |id: &str| format!(r#"{{"target":{{"type":"broadcast"}},"template_id":"{id}"}}"#);
        let items = [
            item(r#"{"type":"users","value":["a","b"]}"#, "e"),
            item(r#"{"type":"users","value":["b","a","b"]}"#, "e"),
            item(r#"{"type":"users","value":["a,b"]}"#, "e"),
            item(r#"{"type":"channels","value":["a","b"]}"#, "e"),
            item(r#"{"type":"user","value":"a"}"#, "e"),
            item(r#"{"type":"user","value":"a"}"#, "f"),
            item(r#"{"type":"user","value":"a"}"#, "f"),
            item(r#"{"type":"broadcast"}"#, "e"),
            template("t1"),
            template("t2"),
            template("t1"),
        ];
        let twins = batch(&items, r#","options":{"deduplicate":true}"#).unwrap();
        let expected = [false, true, false, false, false, false, true, false, false, false, true];
        assert_eq!(twins.duplicates(), expected);
        let resolved = twins.duplicates_resolved(|id| (id == "t2").then_some("e"));
        assert_eq!(resolved[7..], [false, false, true, true]);
        assert_eq!(batch(&items, "").unwrap().duplicates(), [false; 11]);
    }
}
