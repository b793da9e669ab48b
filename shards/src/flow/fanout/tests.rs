use super::*;
use crate::flow::alone::{alone, subscriber};
use protocol::ids::TenantId;
use protocol::json;
use protocol::notification::{Content, Priority, Source};
use protocol::stream::{Places, StreamSeq};

#[test]
fn marks_that_are_used_up_hide_nothing_from_anybody() {
    let (mut shard, mut effects) = (alone(), Vec::new());
    let early = subscriber(&mut shard, &mut effects);
    let publish = |shard: &mut Shard| {
        let content = Content {
            event_type: "e".into(),
            payload: json::compact("1", 1).unwrap(),
            priority: Priority::Normal,
            ttl: None,
            correlation_id: None,
            audience: None,
        };
        let target = Target::Channels(["a".into(), "b".into()].into());
        let publication =
            shard.accept(Now::default(), TenantId::default_tenant(), target, &content, &Source::Http).unwrap();
        let places = Places::One(StreamSeq::default());
        shard.start_fanout(Now::default(), publication, places, None, &mut Vec::new());
    };
    publish(&mut shard);
    shard.fanout_stamp = u32::MAX;
    let late = subscriber(&mut shard, &mut effects);
    for _ in 0..3 {
        publish(&mut shard);
    }
    let waiting = [early, late].map(|key| shard.connections.get(key).unwrap().outbox.as_ref().unwrap().frames_len());
    assert_eq!(waiting, [4, 3]);
}
