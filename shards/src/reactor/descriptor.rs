//! The one place where a bare descriptor number becomes a descriptor.
use std::os::fd::{BorrowedFd, RawFd};

/// Calls `act` with the descriptor behind a number, for the length of the call.
///
/// A guest owns its socket and tells the reactor its number ([`crate::guest::Wants::socket`]); the reactor only ever
/// names it to its own epoll set. `None` for a number that cannot be a descriptor.
#[expect(unsafe_code)]
pub(super) fn lend<R>(number: RawFd, act: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
    if number < 0 {
        return None;
    }
    // SAFETY: `borrow_raw` asks that the number is not -1, checked above, and that the descriptor stays open while it is
    // borrowed. The borrow ends with this call, on the thread of the guest that owns the socket, and no code of the
    // guest runs meanwhile. The callers (`guests.rs`) do nothing with it but `epoll_ctl`. When they take an earlier
    // socket out of the set the guest may have closed it: the kernel then answers EBADF, or ENOENT if the number has
    // been given out anew, because a closed socket leaves the set by itself and nothing enters the set between the
    // guest's turn and this call. No memory and no other descriptor's data is touched in any of these cases.
    Some(act(unsafe { BorrowedFd::borrow_raw(number) }))
}
