use super::*;
use crate::flow::alone::{alone_with, subscriber};
use protocol::clock::Now;

fn at_ms(ms: u64) -> Now {
    Now { mono_us: ms * 1_000, unix_ns: ms * 1_000_000 }
}

#[test]
fn an_episode_is_told_once_when_it_begins_and_once_when_it_has_ended() {
    let mut shard = alone_with(|config| config.outbox_bytes_max = 1_000);
    let mut effects = Vec::new();
    let key = subscriber(&mut shard, &mut effects);
    // Its socket is full, and what it was told last does not fit.
    shard.write_control(at_ms(0), key, |out| out.extend_from_slice(&[b'x'; 2_000]));
    let len = shard.output(at_ms(0), key).len();
    shard.written(at_ms(0), key, len - 1_500, true, &mut effects);
    let mut notices = Vec::new();
    for ms in (0..20_000).step_by(10) {
        shard.shed_output(at_ms(ms), &mut effects);
        notices.extend(shard.take_notice());
        if ms == 500 {
            shard.drop_connection(at_ms(ms), key, &mut effects);
        }
    }
    // It was told to go, and did not take that either.
    assert_eq!(notices, [Notice::Began { room_bytes: 1_500, room_bytes_max: 1_000 }, Notice::Ended { shed: 2 }]);
    assert_eq!((shard.outbox_room_bytes, shard.congested()), (0, false));
}
