//! What a link asks of whoever turns it.
use rustix::fd::RawFd;

/// When to turn the link again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The socket to watch, level-triggered, and a number that differs for each socket: a new one may get the
    /// descriptor of the one before. The link closes it, and lends it by its `socket()`.
    pub socket: Option<(RawFd, u32)>,
    /// Turn it when the socket is readable. Errors and hang-ups count as readable and writable, wanted or not.
    pub read: bool,
    /// Turn it when the socket is writable.
    pub write: bool,
    /// Turn it at this time, in microseconds of [`protocol::clock::Now::mono_us`].
    pub wake_at_us: Option<u64>,
    /// Turn it again without waiting: there is probably more to read.
    pub again: bool,
}
