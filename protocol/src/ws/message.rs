//! A client's message that is not whole: its fragments so far, and of a text how far it is known to be UTF-8.
use super::decoder::{DecodeError, WsEvent};
use super::header::MASK_BYTES;

/// Bytes of a begun frame that are looked at in one go.
const LOOK_BYTES: usize = 256;
/// A begun character: the longest has four bytes, and with the fourth it is whole.
const BEGUN_BYTES_MAX: usize = 3;

/// A message under way.
#[derive(Debug)]
pub(super) struct Message {
    is_text: bool,
    /// Its first frame came whole: what comes next must continue it.
    pub(super) is_open: bool,
    /// Its last fragment came and it was lent to the caller; the next call drops it.
    pub(super) is_whole: bool,
    /// Of a text, how much of `bytes` is known to be UTF-8: all but the begun character at the end of the last fragment.
    utf8_bytes: usize,
    /// Of the payload of the frame that is not whole yet, how much needs no second look.
    seen_bytes: usize,
    /// What whole fragments brought.
    pub(super) bytes: Vec<u8>,
}

impl Message {
    /// An empty one, of which no frame came whole.
    pub(super) fn new(is_text: bool) -> Message {
        Message { is_text, is_open: false, is_whole: false, utf8_bytes: 0, seen_bytes: 0, bytes: Vec::new() }
    }

    /// Takes a whole fragment's payload; the header's check has made sure that it fits `bytes_max`.
    pub(super) fn append(&mut self, payload: &[u8], bytes_max: usize) -> Result<(), DecodeError> {
        (self.is_open, self.seen_bytes) = (true, 0);
        let needed = self.bytes.len() + payload.len();
        if needed > self.bytes.capacity() {
            // Doubled, so that many small fragments do not copy the message once each, but never past the bound.
            let target = needed.max(self.bytes.capacity() * 2).min(bytes_max).max(needed);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.bytes.extend_from_slice(payload);
        if self.is_text {
            match std::str::from_utf8(&self.bytes[self.utf8_bytes..]) {
                Ok(_) => self.utf8_bytes = self.bytes.len(),
                Err(error) if error.error_len().is_none() => self.utf8_bytes += error.valid_up_to(),
                Err(_) => return Err(DecodeError::InvalidUtf8),
            }
        }
        Ok(())
    }

    /// Looks at the part of a frame's payload that has come, still masked, and changes nothing of it. Every byte is
    /// looked at once however the frame is cut, but for a character's first bytes.
    pub(super) fn look(&mut self, masked: &[u8], key: [u8; MASK_BYTES]) -> Result<(), DecodeError> {
        if !self.is_text {
            return Ok(());
        }
        let mut text = [0; BEGUN_BYTES_MAX + LOOK_BYTES];
        // The character that the last fragment began; once it is over, `seen_bytes` counts its last byte.
        let begun = if self.seen_bytes == 0 { &self.bytes[self.utf8_bytes..] } else { &[] };
        let mut begun_bytes = begun.len();
        text[..begun_bytes].copy_from_slice(begun);
        let mut at = self.seen_bytes;
        while at < masked.len() {
            let piece = &masked[at..masked.len().min(at + LOOK_BYTES)];
            let end = begun_bytes + piece.len();
            text[begun_bytes..end].copy_from_slice(piece);
            let mut turned = key;
            turned.rotate_left(at % MASK_BYTES);
            unmask(&mut text[begun_bytes..end], turned);
            at += piece.len();
            begun_bytes = match std::str::from_utf8(&text[..end]) {
                Ok(_) => 0,
                Err(error) if error.error_len().is_none() => {
                    text.copy_within(error.valid_up_to()..end, 0);
                    end - error.valid_up_to()
                }
                Err(_) => return Err(DecodeError::InvalidUtf8),
            };
        }
        self.seen_bytes = at.saturating_sub(begun_bytes);
        Ok(())
    }

    /// Lends the whole message, once.
    pub(super) fn finish(&mut self) -> Result<WsEvent<'_>, DecodeError> {
        self.is_whole = true;
        Ok(if self.is_text { WsEvent::Text(utf8(&self.bytes)?) } else { WsEvent::Binary(&self.bytes) })
    }
}

/// Text, or the error of a text that is none.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::InvalidUtf8)
}

/// RFC 6455 §5.3, eight bytes at a time: two turns of the key.
pub(super) fn unmask(payload: &mut [u8], key: [u8; MASK_BYTES]) {
    let [a, b, c, d] = key;
    let key_twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key_twice).to_ne_bytes();
    }
    for (byte, key_byte) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key_byte;
    }
}
