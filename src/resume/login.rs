//! The forms of a login line.

use crate::{engine::event::parse_user_id, epoch::Epoch, sequence::Cursor, user_id::UserId};

/// The place at which a client wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on, and without an answer: a login of section 1.2.
    Plain,
    /// At the cursor.
    Now,
    /// With the oldest event that is kept.
    Oldest,
    /// At a position of an epoch: the client has everything below it.
    At(Cursor, Epoch),
}

/// The contents of a login line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'a> {
    /// The user.
    pub id: UserId,
    /// The place at which it wants to begin.
    pub start: Start,
    /// Its token, where tokens are asked for (`docs/SPEC.md` section 12).
    pub token: Option<&'a [u8]>,
}

impl<'a> Login<'a> {
    /// Reads a login line without its terminator. `with_token`: the last field is a token.
    #[must_use]
    pub fn parse(line: &'a [u8], with_token: bool) -> Option<Self> {
        let (login, token) = if with_token {
            let (login, token) = split_last(line)?;
            (login, Some(token).filter(|token| !token.is_empty())?.into())
        } else {
            (line, None)
        };
        let (id, start) = match split_first(login) {
            None => (login, Start::Plain),
            Some((id, rest)) => (id, parse_start(rest)?),
        };
        Some(Self { id: parse_user_id(id)?, start, token })
    }
}

/// Reads what follows the user and the separator behind it: `now`, `oldest` or `NEXT|EPOCH`.
#[must_use]
pub fn parse_start(rest: &[u8]) -> Option<Start> {
    match rest {
        b"now" => Some(Start::Now),
        b"oldest" => Some(Start::Oldest),
        _ => {
            let (next, epoch) = split_first(rest)?;
            Some(Start::At(Cursor::parse(next)?, Epoch::parse(epoch)?))
        }
    }
}

fn split_first(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'|', line)?;
    Some((&line[..at], &line[at + 1..]))
}

fn split_last(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memrchr(b'|', line)?;
    Some((&line[..at], &line[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPOCH: &str = "00000000000000ff";

    fn parse(line: &str) -> Option<(u64, Start)> {
        Login::parse(line.as_bytes(), false).map(|login| (login.id.get(), login.start))
    }

    #[test]
    fn each_form_is_understood() {
        assert_eq!(parse("2932"), Some((2932, Start::Plain)));
        assert_eq!(parse("2932|now"), Some((2932, Start::Now)));
        assert_eq!(parse("002932|oldest"), Some((2932, Start::Oldest)));
        let at = |next| Some((2932, Start::At(Cursor::new(next), Epoch::new(255))));
        assert_eq!(parse(&format!("2932|17|{EPOCH}")), at(17));
        assert_eq!(parse(&format!("2932|0|{EPOCH}")), at(0));
        assert_eq!(parse(&format!("2932|00000000000000000000017|{EPOCH}")), at(17));
        assert_eq!(parse(&format!("2932|18446744073709551616|{EPOCH}")), at(1 << 64));
    }

    #[test]
    fn anything_else_is_no_login() {
        for bad in [
            "",
            "|",
            "now",
            "|now",
            "2932|",
            "2932|Now",
            "2932|now|",
            "2932|now ",
            "2932|oldest|1",
            "2932|17",
            "2932|17|",
            "2932||00000000000000ff",
            "2932|+17|00000000000000ff",
            "2932|17|00000000000000FF",
            "2932|17|0000000000000ff",
            "2932|17|00000000000000ff|",
            "2932|18446744073709551617|00000000000000ff",
            "18446744073709551616|now",
            "*|now",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_is_the_last_field() {
        let parse = |line: &'static str| Login::parse(line.as_bytes(), true);
        let login = |start| Login { id: UserId::new(2932), start, token: Some(b"a.b.c") };
        assert_eq!(parse("2932|a.b.c"), Some(login(Start::Plain)));
        assert_eq!(parse("2932|now|a.b.c"), Some(login(Start::Now)));
        assert_eq!(
            parse("2932|17|00000000000000ff|a.b.c"),
            Some(login(Start::At(Cursor::new(17), Epoch::new(255))))
        );
        for bad in ["2932", "2932|", "2932|now|", "2932|17|00000000000000ff", "2932|later|a.b.c"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_position_is_understood(id: u64, next in 0..=Cursor::END.get(), bits: u64) {
            let line = format!("{id}|{next}|{}", Epoch::new(bits));
            prop_assert!(line.len() <= 64);
            prop_assert_eq!(parse(&line), Some((id, Start::At(Cursor::new(next), Epoch::new(bits)))));
        }

        #[test]
        fn no_line_is_too_strange(line: Vec<u8>, with_token: bool) {
            let _ = Login::parse(&line, with_token);
        }
    }
}
