//! Whoever may write to Redis may say anything there in the name of any node, with any number. Nobody stops for it.
use super::mail::{Class, mail_node};
use crate::support::redis::Redis;
use serde_json::{Value, json};

const ID: &str = "550e8400-e29b-41d4-a716-446655440000";

/// Everything that a parcel may be, with the largest numbers.
fn parcels() -> Vec<Value> {
    let message = json!(format!(r#"{{"type":"notification","id":"{ID}","payload":1,"metadata":{{}}}}"#));
    let most = [u64::MAX, u64::MAX];
    let ticket = |shard: u8| json!([shard, u32::MAX, u32::MAX]);
    let mut all = Vec::new();
    for shard in [0, 1, 255] {
        all.extend([
            json!({"kind": "hello", "connections": u64::MAX, "users": u64::MAX, "started_unix_ms": u64::MAX, "version": ""}),
            json!({"kind": "receipt", "gather": ticket(shard), "delivered_to": u64::MAX, "failed": u64::MAX, "queued": u64::MAX, "unkept": u64::MAX}),
            json!({"kind": "question", "gather": ticket(shard)}),
            json!({"kind": "answer", "gather": ticket(shard), "sessions": [{"connection_id": ID, "connected_at": u64::MAX, "channels": []}]}),
            json!({"kind": "user", "priority": "Low", "expires_at_unix_ms": u64::MAX, "stream": most, "gather": ticket(shard)}),
            json!({"kind": "broadcast", "priority": "Low", "stream": most, "gather": ticket(shard)}),
            json!({"kind": "channel", "priority": "Low", "channel": "orders", "stream": most, "gather": ticket(shard)}),
            json!({"kind": "hint", "priority": "Low", "stream": most, "gather": ticket(shard), "position": most, "before": most, "attempt": u32::MAX}),
            json!({"kind": "hint", "priority": "Low", "position": most, "attempt": 0}),
            json!({"kind": "revoked", "jti": "x", "until": u64::MAX, "gather": ticket(shard)}),
            json!({"kind": "template", "id": "t"}),
            json!({"kind": "canary", "number": u64::MAX}),
            json!({"kind": "stored", "claims": []}),
            json!({"kind": "fence", "id": ID, "partitions": [15, 15, 0]}),
            json!({"kind": "fence", "id": ID, "partitions": []}),
            json!({"kind": "bundle", "publications": []}),
            json!({"kind": "bye"}),
        ]);
    }
    // Ana is gone behind these.
    all.extend([
        json!({"kind": "revoked", "before": u64::MAX, "until": u64::MAX, "gather": ticket(0)}),
        json!({"kind": "disconnect", "gather": ticket(255)}),
    ]);
    let parcel = |ara: Value| json!({"user_id": "ana", "tenant_id": "default", "payload": message, "to_server": null, "ara": ara});
    all.into_iter().map(parcel).collect()
}

#[test]
fn what_strangers_say_in_redis_stops_nobody() {
    let redis = Redis::start();
    for class in [Class::Off, Class::Acknowledged] {
        let node = mail_node(&redis, "a", class, &[]);
        let (mut ben, mut client) = (node.ws("ben"), redis.client());
        let _ana = node.ws("ana");
        for mut parcel in parcels() {
            for from in ["a", "x", "y", "z"] {
                parcel["from_server"] = json!(from);
                for topic in ["", ":a", ":user:default:ana"] {
                    let topic = format!("ara:cluster:route{topic}");
                    client.call(&[b"PUBLISH", topic.as_bytes(), parcel.to_string().as_bytes()]);
                }
            }
        }
        let sent = node.send("ben", r#""still""#)["notification_id"].take();
        while ben.notification()["id"] != sent {}
        assert!(!node.process.output().contains("panic"), "{}", node.process.output());
    }
}
