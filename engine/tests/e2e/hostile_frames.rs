//! Frames that a conformance suite sends, at the service itself: what it says to messages is its own, the rest is RFC 6455.
use crate::conformance::{self, Heard, SECTIONS};
use crate::support::server::Server;
use crate::support::token;

/// The service understands none of the suite's messages, and says so. What comes behind the `…` is its own affair.
fn told_off(said: Heard) -> Heard {
    match said {
        Heard::Text(_) => Heard::Text(r#"{"type":"error","code":"INVALID_MESSAGE",…"#.into()),
        Heard::Binary(_) => {
            let text = r#"{"type":"error","code":"UNSUPPORTED_FORMAT","message":"Binary messages are not supported"}"#;
            Heard::Text(text.into())
        }
        Heard::Pong(payload) => Heard::Pong(payload),
    }
}

#[test]
fn a_conformance_suite_finds_nothing_at_the_service() {
    // No heartbeat between two answers.
    let server = Server::with(&[("WEBSOCKET_HEARTBEAT_INTERVAL", "3600"), ("WEBSOCKET_CONNECTION_TIMEOUT", "7200")]);
    let mut asked = 0;
    for case in SECTIONS.into_iter().flat_map(|(number, _)| conformance::section(number)) {
        // Longer messages are refused here; the echo in `engine/examples` takes them.
        if case.message_bytes <= 65_536 {
            let path = format!("/ws?token={}", token::of(&case.number));
            conformance::run(&case, server.port, &path, told_off);
            asked += 1;
        }
    }
    assert_eq!(asked, 260, "of 301");
    server.still_delivers();
}
