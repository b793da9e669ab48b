//! The opening handshake, server side (RFC 6455 §4.2): an upgrade request is accepted or told what it lacks.
use tungstenite::handshake::derive_accept_key;

/// What an upgrade request says, as the HTTP head tells it.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Method GET and HTTP/1.1.
    pub is_get_http11: bool,
    /// `connection` lists `upgrade`, in any case.
    pub connection_upgrade: bool,
    /// `upgrade` lists `websocket`, in any case.
    pub upgrade_websocket: bool,
    /// `sec-websocket-version`, blanks trimmed.
    pub version: Option<&'a str>,
    /// `sec-websocket-key`, blanks trimmed.
    pub key: Option<&'a str>,
}

/// What an upgrade request lacks. The client's doing: the same request fails again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// Not a GET over HTTP/1.1.
    NotGetHttp11,
    /// `connection` without `upgrade`.
    ConnectionWithoutUpgrade,
    /// `upgrade` without `websocket`.
    UpgradeWithoutWebSocket,
    /// `sec-websocket-version` missing or not `13`.
    Version,
    /// `sec-websocket-key` missing.
    KeyMissing,
    /// `sec-websocket-key` is not base64 of 16 bytes.
    KeyMalformed,
}

impl HandshakeError {
    /// The HTTP status: 426 for another version (RFC 6455 §4.4), 400 for the rest.
    pub fn status(&self) -> u16 {
        match self {
            HandshakeError::Version => 426,
            _ => 400,
        }
    }

    /// What to tell the client; the original's words where it had some.
    pub fn message(&self) -> &'static str {
        match self {
            HandshakeError::NotGetHttp11 => "A WebSocket handshake is a GET request over HTTP/1.1",
            HandshakeError::ConnectionWithoutUpgrade => "Connection header did not include 'upgrade'",
            HandshakeError::UpgradeWithoutWebSocket => "`Upgrade` header did not include 'websocket'",
            HandshakeError::Version => "`Sec-WebSocket-Version` header did not include '13'",
            HandshakeError::KeyMissing => "`Sec-WebSocket-Key` header missing",
            HandshakeError::KeyMalformed => "`Sec-WebSocket-Key` header is not base64 of 16 bytes",
        }
    }

    /// Whether the answer carries `sec-websocket-version: 13` (RFC 6455 §4.4). Such an answer is a 426 and names
    /// `upgrade: websocket`, too (RFC 9110 §15.5.22).
    pub fn wants_version_header(&self) -> bool {
        matches!(self, HandshakeError::Version)
    }
}

/// The `sec-websocket-accept` of the 101, or the first thing the offer lacks, in the original's order.
pub fn accept(offer: &Offer<'_>) -> Result<String, HandshakeError> {
    if !offer.is_get_http11 {
        return Err(HandshakeError::NotGetHttp11);
    }
    if !offer.connection_upgrade {
        return Err(HandshakeError::ConnectionWithoutUpgrade);
    }
    if !offer.upgrade_websocket {
        return Err(HandshakeError::UpgradeWithoutWebSocket);
    }
    if offer.version != Some("13") {
        return Err(HandshakeError::Version);
    }
    let key = offer.key.ok_or(HandshakeError::KeyMissing)?;
    if !is_key(key.as_bytes()) {
        return Err(HandshakeError::KeyMalformed);
    }
    Ok(derive_accept_key(key.as_bytes()))
}

/// Base64 of 16 bytes: 22 digits and two pads. The four bits that the last digit has to spare may be anything, as
/// decoders may take them (RFC 4648 §3.5) and clients that draw 22 random digits exist.
fn is_key(key: &[u8]) -> bool {
    let Some(digits) = key.strip_suffix(b"==") else { return false };
    digits.len() == 22 && digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Offer<'static> = Offer {
        is_get_http11: true,
        connection_upgrade: true,
        upgrade_websocket: true,
        version: Some("13"),
        key: Some("dGhlIHNhbXBsZSBub25jZQ=="),
    };

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        assert_eq!(accept(&GOOD).as_deref(), Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    }

    #[test]
    fn what_is_lacking_is_said_in_order() {
        let rows = [
            (Offer { is_get_http11: false, connection_upgrade: false, ..GOOD }, HandshakeError::NotGetHttp11, 400),
            (
                Offer { connection_upgrade: false, upgrade_websocket: false, ..GOOD },
                HandshakeError::ConnectionWithoutUpgrade,
                400,
            ),
            (Offer { upgrade_websocket: false, version: None, ..GOOD }, HandshakeError::UpgradeWithoutWebSocket, 400),
            (Offer { version: None, key: None, ..GOOD }, HandshakeError::Version, 426),
            (Offer { version: Some("8"), ..GOOD }, HandshakeError::Version, 426),
            (Offer { key: None, ..GOOD }, HandshakeError::KeyMissing, 400),
        ];
        for (offer, error, status) in rows {
            assert_eq!(accept(&offer), Err(error));
            assert_eq!(error.status(), status);
            assert_eq!(error.wants_version_header(), status == 426);
            assert!(!error.message().is_empty());
        }
    }

    #[test]
    fn a_key_is_base64_of_sixteen_bytes() {
        let rows = [
            ("x3JJHMbDL1EzLkh9GBhXDw==", true),
            ("++++++++++//////////zz==", true),
            ("", false),
            ("==", false),
            ("SGVsbG8sIHdvcmxkIQ==", false),
            ("dGhlIHNhbXBsZSBub25jZQ=", false),
            ("dGhlIHNhbXBsZSBub25jZQAA", false),
            ("dGhlIHNhbXBsZSBub25jZQ==AAAA", false),
            ("dGhlIHNhbXBsZSBub25jZ-==", false),
            ("dGhlIHNhbXBsZSBub25j Q==", false),
            ("訊息訊息訊息訊-==", false),
        ];
        for (key, fits) in rows {
            assert_eq!(accept(&Offer { key: Some(key), ..GOOD }).is_ok(), fits, "{key:?}");
        }
    }
}
