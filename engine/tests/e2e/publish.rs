//! The REST API: every way to publish, and what can be asked (contract §1.7, §1.8, §5, §7).
use crate::support::process::await_that;
use crate::support::server::Server;
use crate::support::sse::Sse;
use crate::support::ws::Ws;
use crate::support::{is_rfc3339_utc, is_uuid_v7, token};
use serde_json::{Value, json};

/// The receipt's four counts: success, delivered_to, failed, queued.
fn counts(receipt: &Value) -> (bool, u64, u64, u64) {
    let count = |key: &str| receipt[key].as_u64().unwrap_or_else(|| panic!("no {key} in {receipt}"));
    (receipt["success"].as_bool().expect("success is a bool"), count("delivered_to"), count("failed"), count("queued"))
}

/// Asserts that `text` is the notification message of contract §5, byte for byte; id from the receipt, time from itself.
#[track_caller]
pub(crate) fn assert_notification(text: &str, receipt: &Value, event_type: &str, payload: &str, metadata: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let at = value["occurred_at"].as_str().unwrap_or_else(|| panic!("no occurred_at in {text}"));
    assert!(is_rfc3339_utc(at), "{at}");
    let id = receipt["notification_id"].as_str().unwrap_or_else(|| panic!("no id in {receipt}"));
    assert!(is_uuid_v7(id), "{id}");
    let event_type = serde_json::to_string(event_type).expect("text is JSON");
    assert_eq!(
        text,
        format!(
            r#"{{"type":"notification","id":"{id}","occurred_at":"{at}","event_type":{event_type},"payload":{payload},"metadata":{metadata}}}"#
        )
    );
}

#[test]
fn a_send_reaches_the_user_by_websocket_and_by_sse() {
    let server = Server::start();
    let mut phone = server.ws("ana");
    let mut browser = server.sse("ana");
    let mut other = server.ws("ben");
    let receipt = server.publish(
        "send",
        r#"{"target_user_id":"ana","event_type":"order.created","payload":{"order_id":"ORD-001","amount":99.99},
            "priority":"High","ttl":3600,"correlation_id":"req-\"1\"","source":"ignored"}"#,
    );
    assert_eq!(counts(&receipt), (true, 2, 0, 0));
    let metadata = r#"{"source":"http-api","priority":"High","ttl":3600,"correlation_id":"req-\"1\""}"#;
    let payload = r#"{"order_id":"ORD-001","amount":99.99}"#;
    assert_notification(&phone.hear(), &receipt, "order.created", payload, metadata);
    assert_notification(&browser.notification_text(), &receipt, "order.created", payload, metadata);
    server.nothing_waits("ben", &mut other);
}

#[test]
fn a_payload_arrives_as_it_was_written() {
    let server = Server::start();
    let mut ws = server.ws("ana");
    let mut sse = server.sse("ana");
    for (given, arrives) in [
        ("1.50", "1.50"),
        ("1e3", "1e3"),
        ("-0", "-0"),
        ("123456789012345678901234567890.0010", "123456789012345678901234567890.0010"),
        ("null", "null"),
        (r#""""#, r#""""#),
        (r#"{"z":1,"a":2,"m":{"y":1,"b":2}}"#, r#"{"z":1,"a":2,"m":{"y":1,"b":2}}"#),
        (r#"{"a":1,"a":2}"#, r#"{"a":1,"a":2}"#),
        ("{ \"a\" :\t[ 1 ,\r\n 2 ] }", r#"{"a":[1,2]}"#),
        (r#""two  blanks \u00e9 \/ \n 訂單 🦀""#, r#""two  blanks \u00e9 \/ \n 訂單 🦀""#),
    ] {
        let receipt = server.send("ana", given);
        let metadata = r#"{"source":"http-api","priority":"Normal"}"#;
        assert_notification(&ws.hear(), &receipt, "test", arrives, metadata);
        assert_notification(&sse.notification_text(), &receipt, "test", arrives, metadata);
    }
}

#[test]
fn an_empty_user_id_and_an_empty_event_type_are_names_like_others() {
    let server = Server::start();
    let mut ws = server.ws("");
    let receipt =
        server.publish("send", r#"{"target_user_id":"","event_type":"","payload":null,"priority":null,"ttl":null}"#);
    assert_notification(&ws.hear(), &receipt, "", "null", r#"{"source":"http-api","priority":"Normal"}"#);
}

#[test]
fn a_send_to_users_reaches_each_named_user_once() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    let mut ana_too = server.ws("ana");
    let mut ben = server.ws("ben");
    let receipt = server.publish(
        "send-to-users",
        r#"{"target_user_ids":["ana","ben","ana","nobody","ben"],"event_type":"test","payload":1}"#,
    );
    assert_eq!(counts(&receipt), (true, 3, 0, 0));
    for (user, ws) in [("ana", &mut ana), ("ben", &mut ben)] {
        assert_eq!(ws.notification()["id"], receipt["notification_id"]);
        if user == "ana" {
            assert_eq!(ana_too.notification()["id"], receipt["notification_id"]);
        }
        server.nothing_waits(user, ws);
    }

    let receipt = server.publish("send-to-users", r#"{"target_user_ids":[],"event_type":"test","payload":1}"#);
    assert_eq!(counts(&receipt), (false, 0, 0, 0));
    let ids = serde_json::to_string(&vec!["u"; 10_001]).expect("names are JSON");
    let body = format!(r#"{{"target_user_ids":{ids},"event_type":"test","payload":1}}"#);
    let message = server.post("/api/v1/notifications/send-to-users", &body).refusal(400, "VALIDATION_ERROR");
    assert_eq!(message, "target_user_ids exceeds maximum of 10000 (got 10001)");
}

#[test]
fn a_broadcast_reaches_everybody() {
    let server = Server::start();
    let mut clients: Vec<Ws> = ["ana", "ben", "cleo", "dana"].map(|user| server.ws(user)).into();
    let mut stream = server.sse("emil");
    let receipt = server.publish("broadcast", r#"{"event_type":"system.maintenance","payload":{"in":10}}"#);
    assert_eq!(counts(&receipt), (true, 5, 0, 0));
    let metadata = r#"{"source":"http-api","priority":"Normal"}"#;
    for client in &mut clients {
        assert_notification(&client.hear(), &receipt, "system.maintenance", r#"{"in":10}"#, metadata);
    }
    assert_notification(&stream.notification_text(), &receipt, "system.maintenance", r#"{"in":10}"#, metadata);
}

#[test]
fn an_audience_narrows_a_broadcast() {
    let server = Server::start();
    let mut admin = Ws::connect(server.port, &token::with_roles("admin", &["admin", "staff"]));
    let mut reader = Ws::connect(server.port, &token::with_roles("reader", &["reader"]));
    let mut stranger = server.ws("stranger");
    stranger.subscribe(&["orders"]);

    for (audience, echoed, reached) in [
        (r#"{"type":"All"}"#, r#"{"type":"All"}"#, [true, true, true]),
        (r#"{"type":"Roles","value":["admin"]}"#, r#"{"type":"Roles","value":["admin"]}"#, [true, false, false]),
        (
            r#"{ "value": ["reader", "staff"], "type": "Roles" }"#,
            r#"{"type":"Roles","value":["reader","staff"]}"#,
            [true, true, false],
        ),
        (
            r#"{"type":"Users","value":["reader","nobody"]}"#,
            r#"{"type":"Users","value":["reader","nobody"]}"#,
            [false, true, false],
        ),
        (
            r#"{"type":"Channels","value":["orders"]}"#,
            r#"{"type":"Channels","value":["orders"]}"#,
            [false, false, true],
        ),
        (r#"{"type":"Users","value":[]}"#, r#"{"type":"Users","value":[]}"#, [false, false, false]),
    ] {
        let body = format!(r#"{{"event_type":"test","payload":1,"audience":{audience}}}"#);
        let receipt = server.publish("broadcast", &body);
        let expected = reached.iter().filter(|reached| **reached).count() as u64;
        assert_eq!(counts(&receipt), (expected > 0, expected, 0, 0), "{audience}");
        let metadata = format!(r#"{{"source":"http-api","priority":"Normal","audience":{echoed}}}"#);
        for (client, _) in
            [&mut admin, &mut reader, &mut stranger].into_iter().zip(reached).filter(|(_, reached)| *reached)
        {
            assert_notification(&client.hear(), &receipt, "test", "1", &metadata);
        }
    }
    for (user, client) in [("admin", &mut admin), ("reader", &mut reader), ("stranger", &mut stranger)] {
        server.nothing_waits(user, client);
    }

    for audience in [r#""All""#, r#"{"type":"all"}"#, r#"{"type":"Everybody"}"#, r#"{"type":"Roles","value":"admin"}"#]
    {
        let body = format!(r#"{{"event_type":"test","payload":1,"audience":{audience}}}"#);
        server.post("/api/v1/notifications/broadcast", &body).refusal(422, "UNPROCESSABLE");
    }
}

#[test]
fn a_channel_reaches_its_subscribers_of_either_transport() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    ana.subscribe(&["orders"]);
    let mut stream = Sse::connect(server.port, &format!("/sse?channels=orders&token={}", token::of("ben")));
    let mut cleo = server.ws("cleo");
    let receipt =
        server.publish("channel", r#"{"channel":"orders","event_type":"test","payload":1,"priority":"Critical"}"#);
    assert_eq!(counts(&receipt), (true, 2, 0, 0));
    let metadata = r#"{"source":"http-api","priority":"Critical"}"#;
    assert_notification(&ana.hear(), &receipt, "test", "1", metadata);
    assert_notification(&stream.notification_text(), &receipt, "test", "1", metadata);
    server.nothing_waits("cleo", &mut cleo);

    let receipt = server.publish("channel", r#"{"channel":"a name nobody: can hold","event_type":"test","payload":1}"#);
    assert_eq!(counts(&receipt), (false, 0, 0, 0));
}

#[test]
fn several_channels_bring_one_copy() {
    let server = Server::start();
    let mut both = server.ws("both");
    both.subscribe(&["orders", "alerts"]);
    let mut one = server.ws("one");
    one.subscribe(&["alerts"]);
    let body = r#"{"channels":["orders","alerts","orders","news"],"event_type":"test","payload":1}"#;
    let receipt = server.publish("channels", body);
    assert_eq!(counts(&receipt), (true, 2, 0, 0));
    for (user, client) in [("both", &mut both), ("one", &mut one)] {
        assert_eq!(client.notification()["id"], receipt["notification_id"]);
        server.nothing_waits(user, client);
    }

    assert_eq!(
        counts(&server.publish("channels", r#"{"channels":[],"event_type":"test","payload":1}"#)),
        (false, 0, 0, 0)
    );
    let names: Vec<_> = (0..101).map(|index| format!("c{index}")).collect();
    let body = format!(r#"{{"channels":{},"event_type":"test","payload":1}}"#, json!(names));
    let message = server.post("/api/v1/notifications/channels", &body).refusal(400, "VALIDATION_ERROR");
    assert_eq!(message, "channels exceeds maximum of 100 (got 101)");
}

#[test]
fn a_ttl_of_zero_is_over_before_it_is_sent() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    let receipt = server.publish("send", r#"{"target_user_id":"ana","event_type":"test","payload":1,"ttl":0}"#);
    assert_eq!(counts(&receipt), (false, 0, 0, 0));
    server.nothing_waits("ana", &mut ana);
    assert_eq!(server.get("/stats").ok()["notifications"]["total_sent"], 1, "only the sentinel counts");
}

const BATCH: &str = "/api/v1/notifications/batch";
const NO_ID: &str = "00000000-0000-0000-0000-000000000000";

#[test]
fn a_batch_carries_every_kind_of_target() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    ana.subscribe(&["orders", "alerts"]);
    let response = server.post(
        BATCH,
        r#"{"notifications":[
            {"target":{"type":"user","value":"ana"},"event_type":"e0","payload":0,"correlation_id":"c"},
            {"target":{"type":"users","value":["ana","ben"]},"event_type":"e1","payload":1},
            {"target":{"type":"broadcast"},"event_type":"e2","payload":2},
            {"target":{"type":"channel","value":"orders"},"event_type":"e3","payload":3},
            {"target":{"value":["orders","alerts"],"type":"channels"},"event_type":"e4","payload":4,"priority":"Low"},
            {"target":{"type":"user","value":"nobody"},"event_type":"e5","payload":5}]}"#,
    );
    let batch = response.ok();
    assert!(batch["batch_id"].as_str().is_some_and(is_uuid_v7), "{batch}");
    assert!(batch["timestamp"].as_str().is_some_and(is_rfc3339_utc), "{batch}");
    let summary = &batch["summary"];
    for (key, count) in [("total", 6), ("succeeded", 5), ("failed", 1), ("skipped", 0), ("total_delivered", 5)] {
        assert_eq!(summary[key], count, "{key} in {summary}");
    }
    let results = batch["results"].as_array().expect("results is a list");
    assert_eq!(results.len(), 6);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result["index"], index);
        assert_eq!((&result["delivered_to"], &result["failed"]), (&json!(u8::from(index < 5)), &json!(0)), "{result}");
        assert_eq!(result["success"], index < 5);
        assert_eq!((result.get("error"), result.get("skipped")), (None, None), "{result}");
        if index < 5 {
            let heard = ana.notification();
            assert_eq!(heard["id"], result["notification_id"]);
            assert_eq!((&heard["payload"], &heard["event_type"]), (&json!(index), &json!(format!("e{index}"))));
        }
    }
    server.nothing_waits("ana", &mut ana);
}

#[test]
fn a_batch_has_its_bounds() {
    let server = Server::start();
    let message = server.post(BATCH, r#"{"notifications":[]}"#).refusal(400, "VALIDATION_ERROR");
    assert_eq!(message, "Batch cannot be empty");
    let item = r#"{"target":{"type":"user","value":"u"},"event_type":"e","payload":1}"#;
    let batch_of = |count| format!(r#"{{"notifications":[{}]}}"#, vec![item; count].join(","));
    assert_eq!(server.post(BATCH, &batch_of(100)).ok()["summary"]["total"], 100);
    let message = server.post(BATCH, &batch_of(101)).refusal(400, "VALIDATION_ERROR");
    assert_eq!(message, "Batch size 101 exceeds maximum of 100");
    for bad in [
        r#"{"notifications":[{"target":{"type":"User","value":"u"},"event_type":"e","payload":1}]}"#,
        r#"{"notifications":[{"target":{"type":"users","value":"u"},"event_type":"e","payload":1}]}"#,
        r#"{"notifications":[{"event_type":"e","payload":1}]}"#,
        r#"{"notifications":[{"target":{"type":"user","value":"u"},"event_type":"e","payload":1}],"options":null}"#,
        r#"{"notifications":[{"target":{"type":"user","value":"u"},"event_type":"e","payload":1},{}]}"#,
    ] {
        server.post(BATCH, bad).refusal(422, "UNPROCESSABLE");
    }
}

#[test]
fn a_batch_can_leave_out_twins() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    ana.subscribe(&["a", "b"]);
    let batch = server.publish(
        "batch",
        r#"{"options":{"deduplicate":true},"notifications":[
            {"target":{"type":"user","value":"ana"},"event_type":"e","payload":0},
            {"target":{"type":"user","value":"ana"},"event_type":"e","payload":1},
            {"target":{"type":"user","value":"ana"},"event_type":"other","payload":2},
            {"target":{"type":"channels","value":["a","b"]},"event_type":"e","payload":3},
            {"target":{"type":"channels","value":["b","a"]},"event_type":"e","payload":4}]}"#,
    );
    let twin = |index: u64| json!({"index": index, "notification_id": NO_ID, "delivered_to": 0, "failed": 0, "success": true, "skipped": true});
    for index in [1, 4] {
        let mut result = batch["results"][index as usize].clone();
        result.as_object_mut().expect("results are objects").remove("queued");
        assert_eq!(result, twin(index));
    }
    let summary = &batch["summary"];
    assert_eq!(
        [
            &summary["total"],
            &summary["succeeded"],
            &summary["failed"],
            &summary["skipped"],
            &summary["total_delivered"]
        ],
        [&json!(5), &json!(3), &json!(0), &json!(2), &json!(3)]
    );
    assert_eq!([ana.payload(), ana.payload(), ana.payload()], [json!(0), json!(2), json!(3)]);
    server.nothing_waits("ana", &mut ana);
}

#[test]
fn a_batch_can_stop_at_an_item_that_reached_nobody() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    let batch = server.publish(
        "batch",
        r#"{"options":{"stop_on_error":true},"notifications":[
            {"target":{"type":"user","value":"ana"},"event_type":"e","payload":0},
            {"target":{"type":"user","value":"nobody"},"event_type":"e","payload":1},
            {"target":{"type":"user","value":"ana"},"event_type":"e","payload":2},
            {"target":{"type":"user","value":"ana"},"event_type":"e","payload":3}]}"#,
    );
    let results = batch["results"].as_array().expect("results is a list");
    assert_eq!(results.len(), 4, "{batch}");
    assert_eq!((&results[0]["success"], &results[1]["success"]), (&json!(true), &json!(false)));
    assert_eq!(results[1].get("skipped"), None);
    for result in &results[2..] {
        assert_eq!(result["success"], false);
        assert_eq!(result["skipped"], true);
        assert_eq!(result["error"], "Skipped due to stop_on_error");
        assert_eq!(result["notification_id"], NO_ID);
    }
    assert_eq!(ana.payload(), 0);
    server.nothing_waits("ana", &mut ana);
}

#[test]
fn a_batch_can_stop_at_an_item_that_cannot_be_built() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    let items = r#"[{"target":{"type":"user","value":"ana"},"event_type":"e","payload":0},
                    {"target":{"type":"user","value":"ana"},"template_id":"missing"},
                    {"target":{"type":"user","value":"ana"},"event_type":"e","payload":2}]"#;
    let batch = server.publish("batch", &format!(r#"{{"options":{{"stop_on_error":true}},"notifications":{items}}}"#));
    assert_eq!(batch["results"].as_array().map(Vec::len), Some(2), "{batch}");
    let broken = &batch["results"][1];
    assert_eq!((&broken["success"], &broken["notification_id"]), (&json!(false), &json!(NO_ID)));
    assert_eq!(broken["error"], "Validation error: Template not found: missing");
    assert_eq!(batch["summary"]["total"], 3);
    assert_eq!(ana.payload(), 0);

    let batch = server.publish("batch", &format!(r#"{{"notifications":{items}}}"#));
    assert_eq!(batch["results"].as_array().map(Vec::len), Some(3), "{batch}");
    let summary = &batch["summary"];
    assert_eq!([&summary["succeeded"], &summary["failed"], &summary["skipped"]], [&json!(2), &json!(1), &json!(0)]);
    assert_eq!([ana.payload(), ana.payload()], [json!(0), json!(2)]);
    server.nothing_waits("ana", &mut ana);
}

const TEMPLATES: &str = "/api/v1/templates";

#[test]
fn templates_are_made_read_changed_and_removed() {
    let server = Server::start();
    assert_eq!(server.get(TEMPLATES).ok(), json!({"templates": [], "total": 0}));
    let response = server.post(
        TEMPLATES,
        r#"{"id":"order-shipped","name":"Order shipped","event_type":"order.shipped",
            "payload_template":{"z":"{{who}}","a":1.50},"default_priority":"High","default_ttl":60,"description":"d"}"#,
    );
    assert_eq!(response.status, 201, "{}", response.text());
    let made = response.json();
    assert_eq!((&made["id"], &made["name"]), (&json!("order-shipped"), &json!("Order shipped")));
    assert_eq!((&made["default_priority"], &made["default_ttl"]), (&json!("High"), &json!(60)));
    assert!(made["created_at"].as_str().is_some_and(is_rfc3339_utc), "{made}");
    assert_eq!(server.get("/api/v1/templates/order-shipped").ok(), made);
    assert_eq!(server.get(TEMPLATES).ok(), json!({"templates": [made], "total": 1}));

    let again = r#"{"id":"order-shipped","name":"n","event_type":"e","payload_template":1}"#;
    let message = server.post(TEMPLATES, again).refusal(409, "TEMPLATE_EXISTS");
    assert_eq!(message, "Template already exists: order-shipped");

    let changed =
        server.call("PUT", "/api/v1/templates/order-shipped", Some(r#"{"id":"other","name":"New name"}"#)).ok();
    assert_eq!((&changed["id"], &changed["name"]), (&json!("order-shipped"), &json!("New name")));
    assert_eq!((&changed["created_at"], &changed["event_type"]), (&made["created_at"], &made["event_type"]));
    assert!(changed["updated_at"].as_str() >= made["updated_at"].as_str(), "{changed}");
    let refused = server.call("PUT", "/api/v1/templates/order-shipped", Some(r#"{"event_type":""}"#));
    refused.refusal(400, "INVALID_TEMPLATE");
    assert_eq!(server.get("/api/v1/templates/order-shipped").ok(), changed);

    let response = server.call("DELETE", "/api/v1/templates/order-shipped", None);
    assert_eq!((response.status, response.text(), response.header("content-type")), (204, "", None));
    for method in ["GET", "DELETE"] {
        let message = server.call(method, "/api/v1/templates/order-shipped", None).refusal(404, "TEMPLATE_NOT_FOUND");
        assert_eq!(message, "Template not found: order-shipped");
    }
    server.call("PUT", "/api/v1/templates/order-shipped", Some("{}")).refusal(404, "TEMPLATE_NOT_FOUND");
}

#[test]
fn templates_have_their_bounds() {
    let server = Server::start();
    let long_id = "x".repeat(131);
    for (id, message) in [
        ("", "Invalid template ID: ID must be 1-130 characters"),
        (long_id.as_str(), "Invalid template ID: ID must be 1-130 characters"),
        ("a b", "Invalid template ID: ID must contain only alphanumeric, dash, underscore, or colon"),
        ("a.b", "Invalid template ID: ID must contain only alphanumeric, dash, underscore, or colon"),
    ] {
        let body = format!(r#"{{"id":"{id}","name":"n","event_type":"e","payload_template":1}}"#);
        assert_eq!(server.post(TEMPLATES, &body).refusal(400, "INVALID_ID"), message, "{id}");
    }
    for (name, event_type, message) in [
        ("", "e", "Invalid template: Name must be 1-256 characters"),
        (&"x".repeat(257), "e", "Invalid template: Name must be 1-256 characters"),
        ("n", "", "Invalid template: Event type must be 1-128 characters"),
        ("n", &"x".repeat(129), "Invalid template: Event type must be 1-128 characters"),
    ] {
        let body = format!(r#"{{"id":"t","name":"{name}","event_type":"{event_type}","payload_template":1}}"#);
        assert_eq!(server.post(TEMPLATES, &body).refusal(400, "INVALID_TEMPLATE"), message);
    }
    server.post(TEMPLATES, r#"{"id":"t","name":"n","event_type":"e"}"#).refusal(422, "UNPROCESSABLE");
}

#[test]
fn every_send_can_use_a_template() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    ana.subscribe(&["orders"]);
    let made = server.post(
        TEMPLATES,
        r#"{"id":"t","name":"n","event_type":"from.template","default_ttl":60,"priority":"High",
            "payload_template":{"hi {{name}}":"{{name}}","n":"{{n}}","raw":1.50,"{{missing}}":"{{ name }} {{user.first}} {{list}}"}}"#,
    );
    assert_eq!(made.status, 201, "{}", made.text());
    let variables = r#"{"name":"A\"na {{n}}","n":5,"list":[1,2],"user":{"first":"Ana"}}"#;
    let payload = r#"{"hi A\"na {{n}}":"A\"na {{n}}","n":"5","raw":1.50,"{{missing}}":"{{ name }} Ana [1,2]"}"#;
    let content = format!(r#""template_id":"t","variables":{variables},"event_type":"ignored","payload":0"#);
    let metadata = r#"{"source":"http-api","priority":"High","ttl":60}"#;
    for (kind, target) in [
        ("send", r#""target_user_id":"ana""#),
        ("send-to-users", r#""target_user_ids":["ana"]"#),
        ("broadcast", r#""audience":null"#),
        ("channel", r#""channel":"orders""#),
        ("channels", r#""channels":["orders"]"#),
    ] {
        let receipt = server.publish(kind, &format!("{{{target},{content}}}"));
        assert_notification(&ana.hear(), &receipt, "from.template", payload, metadata);
    }
    let batch = server.publish(
        "batch",
        &format!(
            r#"{{"notifications":[{{"target":{{"type":"user","value":"ana"}},{content},"priority":"Low","ttl":5}}]}}"#
        ),
    );
    let metadata = r#"{"source":"http-api","priority":"Low","ttl":5}"#;
    assert_notification(&ana.hear(), &batch["results"][0], "from.template", payload, metadata);

    let refused = server.post("/api/v1/notifications/send", r#"{"target_user_id":"ana","template_id":"x"}"#);
    assert_eq!(refused.refusal(400, "VALIDATION_ERROR"), "Template not found: x");
    let refused = server
        .post("/api/v1/notifications/send", r#"{"target_user_id":"ana","template_id":"t","variables":null}"#)
        .refusal(400, "VALIDATION_ERROR");
    assert_eq!(refused, "Variable substitution failed: Variables must be an object");
}

#[test]
fn channels_and_subscriptions_can_be_asked_for() {
    let server = Server::start();
    let mut ana = server.ws("ana");
    let mut ana_too = server.ws("ana");
    let mut ben = server.ws("ben");
    ana.subscribe(&["orders", "訂單"]);
    ana_too.subscribe(&["orders", "alerts"]);
    ben.subscribe(&["orders"]);

    let channels = server.get("/api/v1/channels").ok();
    assert_eq!(channels["total_channels"], 3);
    let mut listed = channels["channels"].as_array().expect("channels is a list").clone();
    listed.sort_by_key(|channel| channel["name"].as_str().map(str::to_owned));
    assert_eq!(
        Value::from(listed),
        json!([{"name": "alerts", "subscriber_count": 1}, {"name": "orders", "subscriber_count": 3},
               {"name": "訂單", "subscriber_count": 1}])
    );
    assert_eq!(server.get("/api/v1/channels/orders").text(), r#"{"name":"orders","subscriber_count":3}"#);
    assert_eq!(server.get("/api/v1/channels/%E8%A8%82%E5%96%AE").ok()["subscriber_count"], 1);
    let message = server.get("/api/v1/channels/dup%2Fx").refusal(404, "CHANNEL_NOT_FOUND");
    assert_eq!(message, "Channel 'dup/x' not found or has no subscribers");

    let ana_has = server.get("/api/v1/users/ana/subscriptions").ok();
    assert_eq!((&ana_has["user_id"], &ana_has["connection_count"]), (&json!("ana"), &json!(2)));
    let mut names: Vec<_> =
        ana_has["subscriptions"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alerts", "orders", "訂單"]);
    let message = server.get("/api/v1/users/no%20body/subscriptions").refusal(404, "USER_NOT_CONNECTED");
    assert_eq!(message, "User 'no body' has no active connections");

    assert_eq!(ana_too.close(1000), Some(1000));
    await_that("the closed connection to be forgotten", || {
        let left = server.get("/api/v1/users/ana/subscriptions").ok();
        (left["connection_count"] == 1 && server.get("/api/v1/channels/alerts").status == 404).then_some(())
    });
}

#[test]
fn a_node_without_tenants_says_so() {
    let server = Server::start();
    let tenants = server.get("/api/v1/tenants").ok();
    assert_eq!(tenants["enabled"], false);
    assert!(tenants["tenants"].is_array() && tenants["total"].is_u64(), "{tenants}");
    server.get("/api/v1/tenants/nowhere").refusal(404, "TENANT_NOT_FOUND");
}

#[test]
fn a_node_alone_is_a_cluster_of_one() {
    let server = Server::start();
    let _ana = server.ws("ana");
    let _ana_too = server.sse("ana");
    let status = server.get("/api/v1/cluster/status").ok();
    let server_id = status["server_id"].as_str().expect("server_id is a string").to_owned();
    let random = server_id.strip_prefix("ara-").unwrap_or_else(|| panic!("{server_id}"));
    assert!(random.len() == 32 && random.chars().all(|c| c.is_ascii_hexdigit()), "{server_id}");
    assert_eq!(
        status,
        json!({"enabled": false, "mode": "standalone", "server_id": server_id, "local_connections": 2, "local_users": 1})
    );

    let ana = server.get("/api/v1/cluster/users/ana").ok();
    assert_eq!((&ana["user_id"], &ana["found"]), (&json!("ana"), &json!(true)));
    let sessions = ana["sessions"].as_array().expect("sessions is a list");
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        assert!(session["connection_id"].as_str().is_some_and(|id| uuid::Uuid::parse_str(id).is_ok()), "{session}");
        assert_eq!(session["server_id"], server_id.as_str());
        assert!(session["connected_at"].as_u64().is_some_and(|at| at.abs_diff(token::now()) < 600), "{session}");
        assert!(session["channels"].is_array(), "{session}");
    }
    assert_eq!(
        server.get("/api/v1/cluster/users/nobody").ok(),
        json!({"user_id": "nobody", "found": false, "sessions": []})
    );

    let named = Server::with(&[("CLUSTER_SERVER_ID", "notification-1")]);
    assert_eq!(named.get("/api/v1/cluster/status").ok()["server_id"], "notification-1");
}
