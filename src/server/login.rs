//! A connection that has not logged in yet, and the contents of a login line.

use super::token_checks::TokenChecks;
use crate::{
    counters::DisconnectReason,
    resume::{self, Start, Terminator},
    time::Micros,
    user_id::UserId,
};

/// A connection that has not logged in.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) line: Vec<u8>,
    /// When it is closed if it has not logged in.
    pub(super) deadline: Micros,
    /// The line is complete, and is worked on.
    pub(super) complete: bool,
    /// It cannot be answered yet: this server has not reached its stream.
    pub(super) held: bool,
}

/// A login that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    pub(super) id: UserId,
    pub(super) start: Start,
    pub(super) terminator: Terminator,
}

impl Login {
    /// Adds bytes to the login line. Once the line is complete, returns its contents, and for how long its token is valid.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        tokens: &TokenChecks,
    ) -> Result<Option<(Arrival, Option<Micros>)>, DisconnectReason> {
        if self.complete {
            return Ok(None);
        }
        let most = tokens.login_bytes_max();
        let room = most - self.line.len();
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let Some(end) = memchr::memchr(b'\n', &self.line) else {
            return if self.line.len() < most { Ok(None) } else { Err(DisconnectReason::BadLogin) };
        };
        self.complete = true;
        // A token is not kept for longer than it takes to judge it.
        let line = std::mem::take(&mut self.line);
        let terminator = Terminator::of(&line[..=end]);
        let content = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        let (resume::Login { id, start, .. }, token_lasts) = match tokens.judge(content) {
            Ok(judged) => judged,
            Err(reason) => {
                // For the log, which tells why and leaves out the token.
                self.line = line;
                return Err(reason);
            }
        };
        Ok(Some((Arrival { id, start, terminator }, token_lasts)))
    }
}
