//! Close codes (RFC 6455 §7.4, contract C-13): why a connection ends, and what its client should do next.

/// The code of a Close frame that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The conversation is over, nobody's fault. The client reconnects when it wants something again.
    pub const NORMAL: CloseCode = CloseCode(1000);
    /// We leave, or the client fell silent for too long. The client reconnects; after a `shutdown` message it waits
    /// `reconnect_after_seconds` first.
    pub const GOING_AWAY: CloseCode = CloseCode(1001);
    /// The client broke RFC 6455. Reconnecting with the same library brings the same end: it wants repair.
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// A text message or close reason was not UTF-8. As with [`CloseCode::PROTOCOL_ERROR`].
    pub const INVALID_DATA: CloseCode = CloseCode(1007);
    /// A limit refuses the connection; the `error` message before it says which. The client closes another connection
    /// of its user, or tries again after a longer pause.
    pub const POLICY: CloseCode = CloseCode(1008);
    /// The message is longer than [`crate::limits::WS_MESSAGE_BYTES_MAX`]. The client sends less per message.
    pub const TOO_BIG: CloseCode = CloseCode(1009);
    /// We failed. The client reconnects with growing pauses.
    pub const INTERNAL: CloseCode = CloseCode(1011);
    /// We are overloaded. The client reconnects with growing, randomised pauses, or to another node.
    pub const TRY_AGAIN: CloseCode = CloseCode(1013);
    /// The token's `exp` has passed. The client fetches a new token and reconnects at once.
    pub const TOKEN_EXPIRED: CloseCode = CloseCode(4001);
    /// The session was taken away. The client does not reconnect until its user has signed in again.
    pub const REVOKED: CloseCode = CloseCode(4002);
    /// The client reads slower than we publish. It reconnects, and in the delivery classes that keep mail receives
    /// what was kept; if it happens again, it subscribes to less.
    pub const SLOW_CONSUMER: CloseCode = CloseCode(4008);
}

/// Whether a peer may put this code on the wire: those RFC 6455 §7.4.1 defines for it, those registered since (1012
/// to 1014), and the ranges of §7.4.2 for libraries and applications. 1005, 1006 and 1015 are names for what happened
/// without a code and never travel.
pub fn is_receivable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_may_travel_are_received() {
        let travel = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999];
        let never = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
        assert!(travel.into_iter().all(is_receivable));
        assert!(!never.into_iter().any(is_receivable));
    }

    #[test]
    fn what_we_send_a_peer_would_accept() {
        let ours = [
            CloseCode::NORMAL,
            CloseCode::GOING_AWAY,
            CloseCode::PROTOCOL_ERROR,
            CloseCode::INVALID_DATA,
            CloseCode::POLICY,
            CloseCode::TOO_BIG,
            CloseCode::INTERNAL,
            CloseCode::TRY_AGAIN,
            CloseCode::TOKEN_EXPIRED,
            CloseCode::REVOKED,
            CloseCode::SLOW_CONSUMER,
        ];
        assert!(ours.into_iter().all(|code| is_receivable(code.0)));
    }
}
