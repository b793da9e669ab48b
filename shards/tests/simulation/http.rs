//! The API over kept and pipelined connections.
use crate::world::World;
use shards::shard::Ended;

#[test]
fn pipelined_requests_are_answered_in_order() {
    for seed in 0..200 {
        let mut world = World::new(seed, 3);
        let users: Vec<_> = (0..5).map(|n| world.websocket(&format!("u{n}"))).collect();
        world.settle();
        let backend = world.dial();
        for n in 0..20 {
            let body =
                format!(r#"{{"target_user_id":"u{}","event_type":"e","payload":{n},"correlation_id":"c"}}"#, n % 5);
            world.post(backend, "/api/v1/notifications/send", &body);
            world.get(backend, &format!("/api/v1/channels/none{n}"));
        }
        world.settle();
        let text = world.clients[backend].text();
        let answers: Vec<&str> = text.split("HTTP/1.1 ").skip(1).collect();
        assert_eq!(answers.len(), 40, "seed {seed}");
        for (n, pair) in answers.chunks(2).enumerate() {
            assert!(pair[0].starts_with("200") && pair[0].contains(r#""success":true"#), "seed {seed}: {}", pair[0]);
            assert!(pair[1].starts_with("404") && pair[1].contains(&format!("none{n}")), "seed {seed}: {}", pair[1]);
        }
        for (n, user) in users.into_iter().enumerate() {
            let expected: Vec<String> = (0..4).map(|round| (n + round * 5).to_string()).collect();
            assert_eq!(world.clients[user].payloads(), expected, "seed {seed}: order");
        }
    }
}

#[test]
fn a_batch_runs_in_order_and_stops_where_it_is_told_to() {
    for seed in 0..100 {
        let mut world = World::new(seed, 3);
        let ana = world.websocket("ana");
        world.settle();
        let backend = world.dial();
        let item = |user: &str, n: u32| {
            format!(r#"{{"target":{{"type":"user","value":"{user}"}},"event_type":"e","payload":{n}}}"#)
        };
        let items = [item("ana", 1), item("nobody", 2), item("ana", 3)].join(",");
        world.post(
            backend,
            "/api/v1/notifications/batch",
            &format!(r#"{{"notifications":[{items}],"options":{{"stop_on_error":true}}}}"#),
        );
        world.post(backend, "/api/v1/notifications/batch", &format!(r#"{{"notifications":[{items}]}}"#));
        world.settle();
        let text = world.clients[backend].text();
        assert!(text.contains("Skipped due to stop_on_error"), "seed {seed}: {text}");
        assert!(
            text.contains(r#""summary":{"total":3,"succeeded":2,"failed":1,"skipped":0,"total_delivered":2}"#),
            "{text}"
        );
        assert_eq!(world.clients[ana].payloads(), ["1", "1", "3"], "seed {seed}");
    }
}

#[test]
fn templates_are_on_every_shard_when_their_writer_is_answered() {
    for seed in 0..100 {
        let mut world = World::new(seed, 4);
        let ana = world.websocket("ana");
        world.settle();
        let backend = world.dial();
        let template = r#"{"id":"t","name":"n","event_type":"e","payload_template":{"hello":"{{name}}"}}"#;
        world.post(backend, "/api/v1/templates", template);
        world.post(backend, "/api/v1/templates", template);
        world.settle();
        let text = world.clients[backend].text();
        assert!(text.contains("HTTP/1.1 201") && text.contains("HTTP/1.1 409"), "seed {seed}: {text}");
        let other = world.dial();
        let send = r#"{"target_user_id":"ana","template_id":"t","variables":{"name":"Ana"}}"#;
        world.post(other, "/api/v1/notifications/send", send);
        world.settle();
        assert_eq!(world.clients[ana].payloads(), [r#"{"hello":"Ana"}"#], "seed {seed}");
        let third = world.dial();
        world.clients[third].send("DELETE /api/v1/templates/t HTTP/1.1\r\nhost: world\r\n\r\n");
        world.get(third, "/api/v1/templates/t");
        world.settle();
        let text = world.clients[third].text();
        assert!(text.contains("HTTP/1.1 204") && text.contains("HTTP/1.1 404"), "seed {seed}: {text}");
    }
}

#[test]
fn a_client_that_sends_half_a_request_is_told_and_closed() {
    let mut world = World::new(1, 1);
    let client = world.dial();
    world.clients[client].send("GET /health HT");
    world.settle();
    world.pass_ms(11_000);
    assert!(world.clients[client].text().starts_with("HTTP/1.1 408"), "{}", world.clients[client].text());
    world.pass_ms(10_000);
    assert!(world.clients[client].place.is_none());
    let silent = world.dial();
    world.pass_ms(90_000);
    assert!(world.clients[silent].place.is_none() && world.clients[silent].from_server.is_empty());
    world.check_at_rest();
}

#[test]
fn a_tenant_is_told_how_much_it_sent_and_not_how_many_shards_heard_it() {
    for seed in 0..20 {
        let mut world = World::new(seed, 4);
        let users: Vec<_> = (0..12).map(|n| world.sse(&format!("u{n}"), "a,b")).collect();
        world.settle();
        let backend = world.dial();
        let ids: Vec<String> = (0..12).map(|n| format!(r#""u{n}""#)).collect();
        for (path, target) in [
            ("broadcast", String::new()),
            ("channel", r#""channel":"a","#.to_owned()),
            ("channels", r#""channels":["a","b"],"#.to_owned()),
            ("send-to-users", format!(r#""target_user_ids":[{}],"#, ids.join(","))),
            ("send", r#""target_user_id":"nobody","#.to_owned()),
        ] {
            let body = format!(r#"{{{target}"event_type":"e","payload":1}}"#);
            world.post(backend, &format!("/api/v1/notifications/{path}"), &body);
        }
        world.get(backend, "/api/v1/tenants/default");
        world.settle();
        assert!(users.iter().all(|user| world.clients[*user].payloads().len() == 4), "seed {seed}");
        let text = world.clients[backend].text();
        assert!(text.contains(r#""messages_sent":5,"messages_delivered":48"#), "seed {seed}: {text}");
    }
}

#[test]
fn a_client_that_closes_its_side_gets_its_answers_and_is_closed() {
    for seed in 0..50 {
        let mut world = World::new(seed, 3);
        let slow = world.dial();
        world.clients[slow].reads = false;
        for n in 0..5 {
            world.get(slow, &format!("/api/v1/channels/none{n}"));
        }
        world.clients[slow].hang_up = true;
        world.settle();
        assert!(world.clients[slow].place.is_some(), "seed {seed}: it has not read its answers");
        world.clients[slow].reads = true;
        world.settle();
        assert_eq!(world.clients[slow].text().matches("HTTP/1.1 404").count(), 5, "seed {seed}");
        assert!(world.clients[slow].place.is_none(), "seed {seed}: nothing more can come");
    }
}

#[test]
fn the_end_of_input_does_not_cut_what_was_asked_before_it() {
    let mut world = World::new(7, 3);
    let client = world.dial();
    for n in 0..5 {
        world.get(client, if n == 0 { "/api/v1/channels/none" } else { "/health" });
    }
    world.feed(client);
    let (shard, key) = world.clients[client].place.unwrap();
    world.call(shard, |shard, now, effects| shard.ended(now, key, Ended::Eof, effects));
    world.settle();
    assert_eq!(world.clients[client].text().matches("HTTP/1.1 ").count(), 5);
    assert!(world.clients[client].place.is_none());
    // Half a request behind a whole one is no reason to wait either.
    let client = world.dial();
    world.get(client, "/api/v1/channels/none");
    world.clients[client].send("POST /api/v1/notifications/send HTTP/1.1\r\nhost: world\r\ncontent-length: 9\r\n\r\n{");
    world.clients[client].hang_up = true;
    world.settle();
    assert_eq!(world.clients[client].text().matches("HTTP/1.1 ").count(), 1);
    assert!(world.clients[client].place.is_none());
    world.check_at_rest();
}

/// Requests that are answered at once must not stand on each other's shoulders: one small stack serves any number.
#[test]
fn a_long_pipeline_and_a_long_batch_need_no_deep_stack() {
    let work = || {
        for shards in [1, 2] {
            let mut world = World::new(3, shards);
            let client = world.dial();
            for n in 0..2_000 {
                world.get(client, &format!("/api/v1/channels/none{n}"));
            }
            let item = r#"{"target":{"type":"user","value":"ana"},"event_type":"e","payload":1}"#;
            let items = vec![item; 100].join(",");
            let ana = world.websocket("ana");
            for options in [r#"{"stop_on_error":true}"#, "{}"] {
                let body = format!(r#"{{"notifications":[{items}],"options":{options}}}"#);
                world.post(client, "/api/v1/notifications/batch", &body);
            }
            world.settle();
            let text = world.clients[client].text();
            assert_eq!(text.matches("HTTP/1.1 404").count(), 2_000);
            assert_eq!(text.matches(r#""succeeded":100"#).count(), 2);
            assert_eq!(world.clients[ana].payloads().len(), 200);
        }
    };
    std::thread::Builder::new().stack_size(256 * 1_024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn empty_lines_between_requests_are_nothing() {
    let mut world = World::new(2, 1);
    let client = world.dial();
    // Old clients end a body with a line break that its length does not count (RFC 9112 §2.2).
    world.post(client, "/api/v1/notifications/broadcast", r#"{"event_type":"e","payload":1}"#);
    world.clients[client].send("\r\n");
    world.settle();
    world.pass_ms(40_000);
    world.get(client, "/api/v1/channels/none");
    world.settle();
    let text = world.clients[client].text();
    assert_eq!(text.matches("HTTP/1.1 200").count(), 1, "{text}");
    assert_eq!(text.matches("HTTP/1.1 404").count(), 1, "{text}");
    // They do not keep a connection open either.
    for _ in 0..9 {
        world.clients[client].send("\r\n\n");
        world.pass_ms(10_000);
    }
    assert!(world.clients[client].place.is_none());
}

#[test]
fn a_head_has_its_time_from_its_first_byte() {
    let mut world = World::new(2, 1);
    let late = world.dial();
    world.pass_ms(70_000);
    world.clients[late].send("GET /health HTTP/1.1\r\n");
    world.pass_ms(9_000);
    world.clients[late].send("host: world\r\n\r\n");
    world.settle();
    assert!(world.clients[late].text().starts_with("HTTP/1.1 200"), "{}", world.clients[late].text());
    // A line now and then gives no more of it.
    let steady = world.dial();
    world.clients[steady].send("GET /health HTTP/1.1\r\n");
    for n in 0..230 {
        world.clients[steady].send(if n % 4 == 0 { "a: b\r\n" } else { "" });
        world.pass_ms(50);
    }
    assert!(world.clients[steady].text().starts_with("HTTP/1.1 408"), "{}", world.clients[steady].text());
}

#[test]
fn a_connection_that_asked_for_its_options_may_rest_like_any_other() {
    let mut world = World::new(2, 1);
    let client = world.dial();
    world.clients[client].send("OPTIONS /health HTTP/1.1\r\n");
    world.settle();
    world.clients[client].send("host: world\r\n\r\n");
    world.settle();
    world.pass_ms(60_000);
    assert!(world.clients[client].text().starts_with("HTTP/1.1 200") && world.clients[client].place.is_some());
}

#[test]
fn a_slow_reader_gets_its_whole_answer_and_then_the_end() {
    let mut world = World::new(2, 1);
    let ana = world.websocket("ana");
    for n in 0..40 {
        world.clients[ana].say(&format!(r#"{{"type":"Subscribe","payload":{{"channels":["channel-{n}"]}}}}"#));
    }
    world.settle();
    let client = world.dial();
    world.clients[client].credit = Some(0);
    world.clients[client].send("GET /api/v1/channels HTTP/1.1\r\nhost: world\r\nconnection: close\r\n\r\n");
    for _ in 0..20 {
        world.pass_ms(2_000);
        world.clients[client].credit = Some(100);
        world.settle();
    }
    let text = world.clients[client].text();
    assert!(text.contains(r#""total_channels":40}"#), "{text}");
    world.pass_ms(3_000);
    assert!(world.clients[client].place.is_none());
    // One that does not read at all is dropped.
    let deaf = world.dial();
    world.clients[deaf].reads = false;
    world.clients[deaf].send("GET /api/v1/channels HTTP/1.1\r\nhost: world\r\nconnection: close\r\n\r\n");
    world.pass_ms(31_000);
    assert!(world.clients[deaf].place.is_none());
}

#[test]
fn a_handshake_of_another_version_is_told_ours() {
    let mut world = World::new(2, 1);
    let client = world.dial();
    world.clients[client].send(
        "GET /ws HTTP/1.1\r\nhost: world\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    world.settle();
    let text = world.clients[client].text();
    assert!(text.starts_with("HTTP/1.1 426"), "{text}");
    for header in ["sec-websocket-version: 13", "upgrade: websocket", "connection: upgrade, close"] {
        let header = format!("\r\n{header}\r\n");
        assert!(text.contains(&header), "{header:?} in {text}");
    }
}
