//! The kernel's state of a TCP socket: `TCP_INFO`.
//!
//! The only file of the reactor with `unsafe`: no safe crate that the project uses offers it. The call writes numbers into a
//! structure that has been zeroed before, and no more of them than there is room for. Every pattern of bits is valid there.

#![expect(unsafe_code, reason = "the module's documentation says why it is sound")]

use crate::time::{MILLISECOND, Micros};
use std::{
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Connections that wait at a listener until they are accepted. `usize::MAX` if the system does not tell.
pub(super) fn backlog(listener: &impl AsFd) -> usize {
    read(listener.as_fd()).map_or(usize::MAX, |info| info.tcpi_unacked as usize)
}

/// For how long nothing has been heard from a peer that has something to acknowledge: data, or the question whether it takes data
/// again. `None`: it has nothing to acknowledge, or the system does not tell.
pub(super) fn silence(socket: &impl AsFd) -> Option<Micros> {
    let info = read(socket.as_fd())?;
    let is_asked = info.tcpi_unacked > 0 || info.tcpi_probes > 0;
    is_asked.then(|| Micros::from(info.tcpi_last_ack_recv) * MILLISECOND)
}

fn read(socket: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open; the system writes at most `len` bytes, and `info` has so many. They are integers, all of
    // which have a value, also those that an older system does not write.
    unsafe {
        let (to, at) = (info.as_mut_ptr().cast(), &raw mut len);
        let outcome = libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, to, at);
        (outcome == 0).then(|| info.assume_init())
    }
}
