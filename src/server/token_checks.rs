//! Where login lines are judged, with their tokens if tokens are asked for, and where it is known when those run out.

use super::key::UserKey;
use crate::{
    config::Config,
    counters::DisconnectReason,
    identity::{Tokens, time_of_day},
    resume::Login,
    time::Micros,
};
use std::collections::BTreeSet;

/// Longest login line, terminator included (SPEC section 1.2).
const LOGIN_BYTES_MAX: usize = 64;
/// The same where tokens are asked for (SPEC section 12).
const TOKEN_LOGIN_BYTES_MAX: usize = 8192;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct TokenChecks {
    /// `None`: no tokens are asked for.
    tokens: Option<Tokens>,
    /// When the tokens of connected users run out, in order of time.
    ends: BTreeSet<(Micros, usize)>,
}

impl TokenChecks {
    pub(super) fn ask_for(&mut self, tokens: Tokens) {
        self.tokens = Some(tokens);
    }

    /// Reads the keys again. If they are not valid, the old ones stay.
    pub(super) fn reload(&mut self, config: &Config) {
        match Tokens::load(config) {
            Ok(Some(tokens)) => {
                self.tokens = Some(tokens);
                log::info!("the keys of tokens have been read again");
            }
            Ok(None) => {}
            Err(reason) => {
                log::error!(reason; "the keys of tokens stay as they were: the new ones are no good");
            }
        }
    }

    pub(super) fn login_bytes_max(&self) -> usize {
        if self.tokens.is_some() { TOKEN_LOGIN_BYTES_MAX } else { LOGIN_BYTES_MAX }
    }

    /// Judges a login line without its terminator. Returns the contents of the line, and for how long its token is valid, if it has one.
    pub(super) fn judge<'a>(&self, line: &'a [u8]) -> Result<(Login<'a>, Option<Micros>), DisconnectReason> {
        let Some(tokens) = &self.tokens else {
            return Login::parse(line, false).map(|login| (login, None)).ok_or(DisconnectReason::BadLogin);
        };
        // A line that would be a login without a token lacks its token.
        let lacks_token = || Login::parse(line, false).is_some();
        let bad = || if lacks_token() { DisconnectReason::BadToken } else { DisconnectReason::BadLogin };
        let login = Login::parse(line, true).ok_or_else(bad)?;
        let lasts = login.token.and_then(|token| tokens.judge(token, login.id, time_of_day()));
        let lasts = lasts.ok_or(DisconnectReason::BadToken)?;
        Ok((login, Some(Micros::try_from(lasts.as_micros()).unwrap_or(Micros::MAX))))
    }

    /// The part of a login line that the log may show. The token is not part of it.
    pub(super) fn without_token<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        let end = memchr::memchr(b'|', line).filter(|_| self.tokens.is_some());
        &line[..end.unwrap_or(line.len())]
    }

    /// A connection has logged in. Says when its token runs out, if it has one.
    pub(super) fn note(&mut self, key: UserKey, lasts: Option<Micros>, now: Micros) -> Option<Micros> {
        let until = now.saturating_add(lasts?);
        self.ends.insert((until, key.index()));
        Some(until)
    }

    /// A connection has come to its end.
    pub(super) fn forget(&mut self, key: UserKey, until: Option<Micros>) {
        if let Some(until) = until {
            self.ends.remove(&(until, key.index()));
        }
    }

    /// When the first token runs out.
    pub(super) fn deadline(&self) -> Option<Micros> {
        self.ends.first().map(|&(until, _)| until)
    }

    /// A user whose token has run out.
    pub(super) fn take_overdue(&mut self, now: Micros) -> Option<UserKey> {
        let &(until, index) = self.ends.first().filter(|(until, _)| *until <= now)?;
        self.ends.remove(&(until, index));
        Some(UserKey::new(index))
    }
}
