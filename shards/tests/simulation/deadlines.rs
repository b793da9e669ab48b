//! How long a peer may take for what it owes: a head, a body, a frame, an answer to a Close, an end. Byte by byte is not
//! faster than not at all, and nothing a peer does makes a deadline later than it is.
use crate::client::ClientId;
use crate::world::World;
use protocol::limits::{
    CLOSE_BYTES_PER_SECOND_MIN, CLOSE_FLUSH_MS, CLOSE_LINGER_MS, HTTP_BODY_DEADLINE_MS, HTTP_HEAD_DEADLINE_MS,
    HTTP_IDLE_DEADLINE_MS, WS_CLOSE_DEADLINE_MS,
};

/// A tick of the wheel, a step of this clock, and what a world's own bustle takes.
const SLACK_MS: u64 = 150;

/// Goes on with `dribble` four times a second until the server ends its side; after how many milliseconds it did.
#[track_caller]
fn ends_after_ms(world: &mut World, client: ClientId, mut dribble: impl FnMut(&mut World)) -> u64 {
    let began_us = world.now_us;
    while !world.clients[client].ended {
        let passed_ms = (world.now_us - began_us) / 1_000;
        assert!(passed_ms < 2_000_000, "it never ends: {}", world.clients[client].text());
        if world.clients[client].place.is_some() {
            dribble(world);
        }
        world.pass_ms(250);
    }
    (world.now_us - began_us) / 1_000
}

#[track_caller]
fn assert_after(passed_ms: u64, deadline_ms: u64) {
    // The steps of `ends_after_ms` are coarser than the wheel.
    assert!((deadline_ms..=deadline_ms + 250 + SLACK_MS).contains(&passed_ms), "{passed_ms} ms, not {deadline_ms}");
}

#[test]
fn a_silent_socket_is_closed_without_a_word() {
    let mut world = World::new(1, 1);
    let client = world.dial();
    let passed_ms = ends_after_ms(&mut world, client, |_| {});
    assert_after(passed_ms, HTTP_IDLE_DEADLINE_MS);
    assert_eq!(world.clients[client].text(), "");
}

#[test]
fn a_head_that_comes_byte_by_byte_has_no_more_time_than_one_that_stops() {
    let heads = [
        "GET /health HTTP/1.1\r\nhost: world\r\nx: ",
        "GET /ws?token=",
        "POST /api/v1/notifications/send HTTP/1.1\r\n",
    ];
    for (at, head) in heads.into_iter().enumerate() {
        for dribbles in [false, true] {
            let mut world = World::new(at as u64, 1);
            let client = world.dial();
            world.clients[client].send(head);
            world.settle();
            let passed_ms = ends_after_ms(&mut world, client, |world| {
                if dribbles {
                    world.clients[client].send("x");
                }
            });
            assert_after(passed_ms, HTTP_HEAD_DEADLINE_MS);
            let text = world.clients[client].text();
            assert!(text.starts_with("HTTP/1.1 408 "), "{head}: {text}");
            assert!(text.contains("\r\nconnection: close\r\n"), "{head}: {text}");
        }
    }
}

#[test]
fn a_body_that_comes_byte_by_byte_has_no_more_time_than_one_that_stops() {
    let post = "POST /api/v1/notifications/send HTTP/1.1\r\nhost: world\r\ncontent-type: application/json\r\n";
    let rows = [
        ("content-length: 60000\r\n\r\n", " "),
        ("transfer-encoding: chunked\r\n\r\n", "1\r\n \r\n"),
        ("transfer-encoding: chunked\r\n\r\nffff\r\n", " "),
        // A chunk of one byte with an extension that goes on, and a trailer that does.
        ("transfer-encoding: chunked\r\n\r\n1;", "x"),
        ("transfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n"),
        ("content-length: 60000\r\n\r\n", ""),
    ];
    for (at, (framing, dribble)) in rows.into_iter().enumerate() {
        let mut world = World::new(at as u64, 1);
        let client = world.dial();
        world.clients[client].send(format!("{post}{framing}"));
        world.settle();
        let passed_ms = ends_after_ms(&mut world, client, |world| world.clients[client].send(dribble));
        assert_after(passed_ms, HTTP_BODY_DEADLINE_MS);
        let text = world.clients[client].text();
        assert!(text.starts_with("HTTP/1.1 408 "), "{framing:?}: {text}");
    }
}

#[test]
fn who_goes_on_talking_after_its_refusal_is_not_listened_to_for_long() {
    for dribble in ["", "x", &"x".repeat(50_000)] {
        let mut world = World::new(3, 1);
        let client = world.dial();
        world.clients[client].send("nonsense\r\n\r\n");
        world.settle();
        assert!(world.clients[client].text().starts_with("HTTP/1.1 400 ") && world.clients[client].ended);
        let began_us = world.now_us;
        while world.clients[client].place.is_some() {
            world.clients[client].send(dribble);
            world.pass_ms(250);
        }
        assert_after((world.now_us - began_us) / 1_000, CLOSE_LINGER_MS);
    }
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_no_sign_of_life() {
    for head in [&[0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0][..], &[0x82, 0xfe, 0xff, 0xff, 0, 0, 0, 0], &[0x89, 0xfd]] {
        let mut world = World::with_config(4, 1, |config| config.connection_timeout_ms = 20_000);
        let client = world.websocket("ana");
        world.settle();
        world.clients[client].send(head);
        world.settle();
        let passed_ms = ends_after_ms(&mut world, client, |world| {
            // Stays within a ping's payload.
            if world.rng.u8(0..2) == 0 {
                world.clients[client].send("x");
            }
        });
        assert_after(passed_ms, 20_000 + WS_CLOSE_DEADLINE_MS);
        assert_eq!(world.clients[client].close_code(), Some(1001));
        assert!(world.clients[client].place.is_none());
    }
}

#[test]
fn our_close_waits_for_theirs_and_not_for_their_chatter() {
    for chatter in [false, true] {
        let mut world = World::with_config(5, 1, |config| config.connection_timeout_ms = 31_000);
        let client = world.websocket("ana");
        world.pass_ms(32_000);
        assert_eq!(world.clients[client].close_code(), Some(1001));
        let began_us = world.now_us;
        while world.clients[client].place.is_some() {
            if chatter {
                world.clients[client].send_frame(0x89, b"still here");
                world.clients[client].say(r#"{"type":"Ping"}"#);
            }
            world.pass_ms(250);
        }
        let passed_ms = (world.now_us - began_us) / 1_000;
        // The Close went out up to a second before this began.
        assert!((WS_CLOSE_DEADLINE_MS - 1_000..=WS_CLOSE_DEADLINE_MS + 400).contains(&passed_ms), "{passed_ms} ms");
        assert_eq!(world.clients[client].close_code(), Some(1001), "nothing is said after a Close");
    }
}

#[test]
fn who_trickles_what_waits_for_it_is_not_waited_for_without_end() {
    for transport in ["websocket", "sse"] {
        let mut world = World::new(6, 1);
        let ana = if transport == "sse" { world.sse("ana", "") } else { world.websocket("ana") };
        world.settle();
        world.clients[ana].credit = Some(0);
        let payload = format!("\"{}\"", "x".repeat(60_000));
        let backend = world.dial();
        for _ in 0..16 {
            let body = format!(r#"{{"target_user_id":"ana","event_type":"e","payload":{payload}}}"#);
            world.post(backend, "/api/v1/notifications/send", &body);
            world.settle();
        }
        world.stop();
        let began_us = world.now_us;
        while world.clients[ana].place.is_some() {
            world.clients[ana].credit = Some(1);
            world.pass_ms(1_000);
            let passed_ms = (world.now_us - began_us) / 1_000;
            let most_ms = CLOSE_FLUSH_MS + 17 * 60_000 * 1_000 / CLOSE_BYTES_PER_SECOND_MIN as u64;
            assert!(passed_ms < most_ms, "{transport}: still there after {passed_ms} ms, at a byte a second");
        }
    }
}
