//! The results of reads and writes of a socket.

use crate::counters::DisconnectReason;
use std::io::{self, ErrorKind, Read};

/// Reads of one socket whose bytes are thrown away, before something else has its turn.
const READS_AT_ONCE: usize = 16;

/// An error that says that it may be tried again at once.
pub(super) fn is_interrupted(error: &io::Error) -> bool {
    error.kind() == ErrorKind::Interrupted
}

/// An error that says that there is nothing to do now.
pub(super) fn would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

/// Reads and throws away what has come, up to a limit. Closing a socket with unread bytes resets the connection, and what has
/// been written but not yet received is lost to the other side. Returns whether something had come, and what the last read came
/// to; `None`: there may be more.
pub(super) fn read_off(socket: &mut impl Read, scratch: &mut [u8]) -> (bool, Option<io::Result<usize>>) {
    for reads in 0..READS_AT_ONCE {
        match socket.read(scratch) {
            Ok(1..) => {}
            Err(error) if is_interrupted(&error) => {}
            end => return (reads > 0, Some(end)),
        }
    }
    (true, None)
}

/// The disconnect reason that follows from a failed read or write.
pub(super) fn reason_of(error: &io::Error) -> DisconnectReason {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
            DisconnectReason::Left
        }
        _ => DisconnectReason::Error,
    }
}
